//! Encrypted state: LUKS2 by Debian's cryptsetup. What opens it comes from a person, or from the TPM; it goes to cryptsetup
//! through pipes, and is nowhere else.

mod questions;
mod token;

use crate::tpm;
use bennu_host::vault::{Encryption, LABEL, RECOVERY_BYTES, recovery_key};
use bennu_stage1::console;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::rand::{GetRandomFlags, getrandom};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

const PROGRAM: &str = "/sbin/cryptsetup";
/// What the open state is called.
const NAME: &str = "bennu-state";
/// What slows down who tries passphrases: RFC 9106 §4's second choice of time and memory, which a host with 512 MiB has, on one
/// processor.
const SLOW: [&str; 8] =
    ["--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4"];
/// A random key needs no such thing.
const QUICK: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
/// cryptsetup(8), "RETURN CODES".
const NO_PERMISSION: i32 = 2;

/// Lets go of what was on a disk that is to be written to.
pub type Clear<'a> = &'a dyn Fn() -> Result<(), String>;

/// Opens it: asks for what opens it until it does.
pub fn open(block: &Path) -> Result<PathBuf, String> {
    if mapped().exists() {
        return Ok(mapped());
    }
    let sealed = token::read(block)?;
    if let Some(sealed) = &sealed {
        tpm::wait();
        match tpm::unseal(sealed).and_then(|key| unlock(block, &key).map_err(|error| error.told())) {
            Ok(()) => {
                console::say("the TPM gave the key of the state disk");
                return Ok(mapped());
            }
            Err(why) => console::say(&format!("the TPM does not open the state disk: {why}")),
        }
    }
    let secret = questions::opened(sealed.is_some(), &|secret| unlock(block, secret))?;
    if sealed.is_some() && tpm::is_there() && questions::is_to_be_sealed() {
        match seal_anew(block, secret.as_bytes()) {
            Ok(()) => console::say("this machine's TPM opens the state disk from the next start on"),
            Err(why) => console::say(&format!("this machine's TPM got no key of the state disk: {why}")),
        }
    }
    Ok(mapped())
}

/// The TPM that is there now gets a key in place of the one that refused.
fn seal_anew(block: &Path, secret: &[u8]) -> Result<(), String> {
    let key = Zeroizing::new(random::<32>()?);
    let sealed = tpm::seal(&*key)?;
    let arguments = ["luksKillSlot", "--batch-mode"].map(OsStr::new);
    // Nothing is in it where this was cut short before: whether the slot is free, the next step finds.
    let _ = cryptsetup(&[&arguments[..], &[block.as_os_str(), token::KEY.as_ref()]].concat(), &[]);
    let done = add(block, secret, &*key).and_then(|()| token::write(block, &sealed));
    done.map_err(|error| error.told())
}

/// Makes it on an empty block device, and opens it. It counts once it has its label ([`label`]).
pub fn create(block: &Path, how: Encryption, clear: Clear<'_>) -> Result<PathBuf, String> {
    match how {
        Encryption::None => return clear().map(|()| block.to_owned()),
        Encryption::Passphrase => {
            let passphrase = questions::chosen();
            clear()?;
            format(block, passphrase.as_bytes()).and_then(|()| unlock(block, passphrase.as_bytes()))
        }
        Encryption::Tpm => {
            let key = Zeroizing::new(random::<32>()?);
            let sealed = tpm::seal(&*key).map_err(|why| format!("state_encryption = \"tpm\": {why}"))?;
            if !crate::secure_boot() {
                console::say("SECURE BOOT IS OFF: the TPM gives the key to whatever anybody starts on this machine");
            }
            let recovery = Zeroizing::new(recovery_key(&random::<RECOVERY_BYTES>()?));
            // Before anything is written: a key that nobody has noted opens nothing that matters yet.
            questions::noted(&recovery);
            clear()?;
            format(block, recovery.as_bytes())
                .and_then(|()| add(block, recovery.as_bytes(), &*key))
                .and_then(|()| token::write(block, &sealed))
                .and_then(|()| unlock(block, &*key))
        }
    }
    .map_err(|error| format!("{} was not encrypted: {}", block.display(), error.told()))?;
    Ok(mapped())
}

/// Says that it is a state, once there is one in it.
pub fn label(block: &Path) -> Result<(), String> {
    let done = cryptsetup(&["config".as_ref(), "--label".as_ref(), LABEL.as_ref(), block.as_os_str()], &[]);
    done.map(drop).map_err(|error| format!("{} got no label: {}", block.display(), error.told()))
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(count) if count == N => Ok(bytes),
        _ => Err("the kernel gives no random numbers".into()),
    }
}

fn mapped() -> PathBuf {
    Path::new("/dev/mapper").join(NAME)
}

fn format(block: &Path, secret: &[u8]) -> Result<(), Failed> {
    let mut arguments: Vec<&OsStr> = ["luksFormat", "--batch-mode", "--type", "luks2"].map(OsStr::new).into();
    arguments.extend(["--cipher", "aes-xts-plain64", "--key-size", "512", "--key-file", "-"].map(OsStr::new));
    arguments.extend(SLOW.map(OsStr::new));
    arguments.push(block.as_os_str());
    cryptsetup(&arguments, secret).map(drop)
}

fn unlock(block: &Path, secret: &[u8]) -> Result<(), Failed> {
    let arguments = ["open", "--type", "luks2", "--key-file", "-"].map(OsStr::new);
    cryptsetup(&[&arguments[..], &[block.as_os_str(), NAME.as_ref()]].concat(), secret).map(drop)
}

/// Lets the TPM's key open it as well.
fn add(block: &Path, secret: &[u8], key: &[u8]) -> Result<(), Failed> {
    // A file of its own beside standard input, in no directory: the program that is started has it open.
    let made = memfd_create(c"key", MemfdFlags::empty()).map(File::from).map_err(std::io::Error::from);
    let file = made.and_then(|mut file| file.write_all(key).map(|()| file));
    let file = file.map_err(|error| Failed { status: None, said: error.to_string() })?;
    let place = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut arguments: Vec<&OsStr> = ["luksAddKey", "--batch-mode", "--key-file", "-"].map(OsStr::new).into();
    arguments.extend(QUICK.map(OsStr::new));
    arguments.extend(["--key-slot", token::KEY].map(OsStr::new));
    arguments.extend([block.as_os_str(), place.as_os_str()]);
    cryptsetup(&arguments, secret).map(drop)
}

/// What cryptsetup did not do.
#[derive(Debug)]
struct Failed {
    status: Option<i32>,
    said: String,
}

impl Failed {
    /// What was given does not open it.
    fn is_wrong(&self) -> bool {
        self.status == Some(NO_PERMISSION)
    }

    fn told(&self) -> String {
        let said = self.said.split_whitespace().collect::<Vec<_>>().join(" ");
        match self.status {
            Some(status) => format!("cryptsetup ended with {status}: {said}"),
            None => format!("cryptsetup does not run: {said}"),
        }
    }
}

/// What it printed.
fn cryptsetup(arguments: &[&OsStr], input: &[u8]) -> Result<Vec<u8>, Failed> {
    let failed = |error: std::io::Error| Failed { status: None, said: error.to_string() };
    let mut command = Command::new(PROGRAM);
    // Nobody but the kernel makes devices here.
    command.args(arguments).env_clear().env("PATH", crate::PATH).env("DM_DISABLE_UDEV", "1");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who ends without reading it says why.
        let _ = stdin.write_all(input);
    }
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let status = done.status.code();
    Err(Failed { status, said: String::from_utf8_lossy(&done.stderr).into_owned() })
}

#[cfg(test)]
mod tests;
