//! Against a TPM in software, swtpm.

use super::*;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Instant;

struct Running {
    _place: tempfile::TempDir,
    program: Child,
    tpm: Tpm<UnixStream>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn start() -> Running {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
    command.arg(format!("dir={}", place.path().display()));
    let program = command.arg("--server").arg(format!("type=unixio,path={}", socket.display())).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => panic!("swtpm: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    Running { _place: place, program, tpm: Tpm(stream) }
}

/// `TPM2_PCR_Extend` of a register with a digest of SHA-256.
fn extend(tpm: &mut Tpm<UnixStream>, register: u32) {
    let mut command = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82];
    command.extend(register.to_be_bytes());
    command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
    command.extend([0, 0, 0, 1, 0, 0x0b]);
    command.extend([5; 32]);
    tpm.ask(command).unwrap();
}

/// What the kernel's resource manager does when a device is closed: `TPM2_FlushContext` of all that there may be.
fn close(tpm: &mut Tpm<UnixStream>) {
    for kind in [0x8000_0000_u32, 0x0200_0000, 0x0300_0000] {
        for handle in kind..kind + 3 {
            let mut command = vec![0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65];
            command.extend(handle.to_be_bytes());
            let _ = tpm.ask(command);
        }
    }
}

fn sealed(tpm: &mut Tpm<UnixStream>, key: &[u8]) -> Sealed {
    let sealed = tpm.seal(key).unwrap();
    close(tpm);
    sealed
}

fn unsealed(tpm: &mut Tpm<UnixStream>, sealed: &Sealed) -> Result<Vec<u8>, String> {
    let key = tpm.unseal(sealed);
    close(tpm);
    key.map(|key| key.to_vec())
}

#[test]
fn a_key_comes_out_of_the_tpm_it_was_sealed_in_as_long_as_secure_boot_stands_as_it_did() {
    let (mut first, mut other) = (start(), start());
    let key = b"the key of a disk";
    let sealed = sealed(&mut first.tpm, key);
    assert!(!sealed.private.windows(3).any(|window| window == b"key"));
    assert_eq!(unsealed(&mut first.tpm, &sealed).unwrap(), key);
    let refused = unsealed(&mut other.tpm, &sealed).unwrap_err();
    assert!(refused.starts_with("this is another TPM"), "{refused}");
    extend(&mut first.tpm, 4);
    assert_eq!(unsealed(&mut first.tpm, &sealed).unwrap(), key);
    extend(&mut first.tpm, 7);
    let refused = unsealed(&mut first.tpm, &sealed).unwrap_err();
    assert!(refused.starts_with("Secure Boot"), "{refused}");
}
