//! What the emulator of a trial reaches: less than the service that starts it, whose state is none of its business.

use super::{
    PrivilegeError,
    confine::{ABI_WANTED, LOOKED_AT, NULL, PROGRAMS, TOLD, allow, tools},
};
use landlock::{Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use std::path::Path;

/// The emulator for trials.
pub const EMULATOR: &str = "qemu-system-x86_64";
/// The processor's own virtualisation, where the service's user may use it.
pub const KVM: &str = "/dev/kvm";

/// Shuts this thread, and what it starts, in with programs, their data and these files to read. Where the kernel has no
/// Landlock, the user is all that limits it, as it is for the service.
pub fn confine_emulator(files: &[&Path]) -> Result<(), PrivilegeError> {
    let refused =
        |error: &dyn std::fmt::Display| PrivilegeError::refused("confine the emulator (landlock)", error.to_string());
    nix::sys::prctl::set_no_new_privs().map_err(|error| refused(&error))?;
    let (read, run) = (AccessFs::ReadFile | AccessFs::ReadDir, AccessFs::from_read(ABI_WANTED));
    let rules = || {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI_WANTED))?
            .handle_access(AccessNet::from_all(ABI_WANTED))?
            .scope(Scope::from_all(ABI_WANTED))?
            .create()?;
        for (path, access) in PROGRAMS
            .map(|path| (path.into(), run))
            .into_iter()
            .chain(tools().into_iter().map(|path| (path, run)))
            .chain(TOLD.map(|path| (path.into(), read)))
            .chain(LOOKED_AT.map(|path| (path.into(), AccessFs::ReadFile.into())))
            .chain([(NULL.into(), AccessFs::ReadFile | AccessFs::WriteFile)])
            .chain([(KVM.into(), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)])
            .chain(files.iter().map(|path| (path.to_path_buf(), AccessFs::ReadFile.into())))
        {
            rules = allow(rules, &path, access)?;
        }
        rules.restrict_self()
    };
    rules().map(drop).map_err(|error: landlock::RulesetError| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io, net::TcpStream, process::Command};

    #[test]
    fn it_reads_its_files_and_nothing_of_the_state() {
        let state = tempfile::tempdir().unwrap();
        let (kernel, ledger) = (state.path().join("kernel"), state.path().join("ledger.redb"));
        fs::write(&kernel, "kernel").unwrap();
        fs::write(&ledger, "secret").unwrap();
        let denied = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::PermissionDenied;
        let confined = std::thread::spawn(move || {
            confine_emulator(&[&kernel]).unwrap();
            assert_eq!(fs::read(&kernel).unwrap(), b"kernel");
            assert!(denied(fs::write(&kernel, "")), "its kernel was written");
            assert!(denied(fs::read(&ledger).map(drop)), "the ledger was read");
            assert!(denied(fs::read("/etc/passwd").map(drop)), "the host's configuration was read");
            assert!(denied(fs::write(state.path().join("new"), "")), "a file was made");
            assert!(denied(TcpStream::connect("127.0.0.1:9").map(drop)), "somebody was called");
            assert!(Command::new("/bin/true").status().unwrap().success());
        });
        confined.join().unwrap();
    }
}
