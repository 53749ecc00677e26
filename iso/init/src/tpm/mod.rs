//! The TPM 2.0 of this machine keeps a key, and gives it out as long as Secure Boot stands as it did.

mod wire;

pub use wire::Sealed;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use wire::Answer;
use zeroize::{Zeroize, Zeroizing};

/// With the kernel's resource manager before it: what we leave in the TPM goes when we close it.
const DEVICE: &str = "/dev/tpmrm0";
/// No answer is longer.
const LONGEST: usize = 4096;
const PATIENCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 50;
const SETTLE: Duration = Duration::from_secs(10);

/// Whether there is one.
pub fn is_there() -> bool {
    Path::new(DEVICE).exists()
}

/// Gives its driver, which may be slow over SPI, a moment.
pub fn wait() {
    let began = Instant::now();
    while !is_there() && began.elapsed() < SETTLE {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Seals a key.
pub fn seal(key: &[u8]) -> Result<Sealed, String> {
    Tpm(open()?).seal(key)
}

/// Takes it out again.
pub fn unseal(sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, String> {
    Tpm(open()?).unseal(sealed)
}

fn open() -> Result<File, String> {
    if !is_there() {
        return Err("this machine has no TPM 2.0, or its firmware has it switched off".into());
    }
    let open = File::options().read(true).write(true).open(DEVICE);
    open.map_err(|error| format!("cannot open {DEVICE}: {error}"))
}

struct Tpm<T>(T);

impl<T: Read + Write> Tpm<T> {
    fn seal(&mut self, key: &[u8]) -> Result<Sealed, String> {
        if !self.ask(wire::read_register())?.has_register() {
            return Err("this TPM has no registers of SHA-256 switched on; do that in the firmware's set-up".into());
        }
        let session = self.policy(true)?;
        let digest = self.ask(wire::policy_digest(session))?.digest().ok_or(NONSENSE)?;
        let parent = self.parent()?;
        self.ask(wire::seal(parent, &digest, key))?.sealed().ok_or(NONSENSE.into())
    }

    fn unseal(&mut self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, String> {
        let parent = self.parent()?;
        let item = self.ask(wire::load(parent, sealed))?.handle().ok_or(NONSENSE)?;
        let session = self.policy(false)?;
        let secret = self.ask(wire::unseal(item, session))?.secret();
        secret.map(Zeroizing::new).ok_or(NONSENSE.into())
    }

    fn parent(&mut self) -> Result<u32, String> {
        self.ask(wire::create_primary())?.handle().ok_or(NONSENSE.into())
    }

    fn policy(&mut self, is_trial: bool) -> Result<u32, String> {
        let session = self.ask(wire::begin_policy(&crate::vault::random()?, is_trial))?.handle().ok_or(NONSENSE)?;
        self.ask(wire::policy_register(session)).map(|_| session)
    }

    /// One command, and what it comes to.
    fn ask(&mut self, mut command: Vec<u8>) -> Result<Answer, String> {
        let mut bytes = Zeroizing::new(vec![0; LONGEST]);
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            let told = self.0.write_all(&command).and_then(|()| self.0.read(&mut bytes));
            let length = told.map_err(|error| format!("the TPM does not answer: {error}"))?;
            match Answer::read(&bytes[..length]).ok_or(NONSENSE)? {
                Err(refused) if refused.is_for_now() && tries < TRIES => std::thread::sleep(PATIENCE),
                answer => break answer,
            }
        };
        // A secret that is sealed is in it.
        command.zeroize();
        answer.map_err(wire::Refused::told)
    }
}

const NONSENSE: &str = "the TPM answers what is no answer";

#[cfg(test)]
mod tests;
