//! Landlock: which files the process reaches, whatever its user may.

use super::{
    PrivilegeError,
    emulator::{EMULATOR, KVM},
};
use crate::config::Config;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// What the rules below are written for; older kernels enforce what they know of it.
pub(super) const ABI_WANTED: ABI = ABI::V6;

/// Programs and libraries. Directories, because a package update puts a new file in the place of the one there was, and a
/// rule for a file dies with it.
pub(super) const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/gnu/store"];
/// What the kernel tells of neighbours, interfaces, processors and us.
pub(super) const TOLD: [&str; 2] = ["/proc", "/sys"];
/// Files that programs and libraries look at when they start.
pub(super) const LOOKED_AT: [&str; 3] = ["/etc/ld.so.cache", "/dev/urandom", "/dev/random"];
pub(super) const NULL: &str = "/dev/null";

/// Confines this thread and those it will start; `false` where the kernel has no Landlock.
pub fn confine(config: &Config) -> Result<bool, PrivilegeError> {
    let restricted = rules(config).and_then(RulesetCreated::restrict_self);
    let status = restricted.map_err(|error| PrivilegeError::refused("confine the service (landlock)", error))?;
    let confined = status.ruleset != RulesetStatus::NotEnforced;
    if !confined {
        tracing::warn!(
            "this kernel has no Landlock (5.19 or newer): only its user limits which files the service reaches"
        );
    }
    Ok(confined)
}

fn rules(config: &Config) -> Result<RulesetCreated, RulesetError> {
    // Without Refer (ABI 2) no blob could be renamed into its place, and Landlock would have to stay off.
    let refer = Ruleset::default().set_compatibility(CompatLevel::SoftRequirement).handle_access(AccessFs::Refer)?;
    let all = AccessFs::from_all(ABI_WANTED);
    let (read, run) = (AccessFs::ReadFile | AccessFs::ReadDir, AccessFs::from_read(ABI_WANTED));
    let mut rules = refer
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        // The service answers; it asks nobody.
        .handle_access(AccessNet::from_all(ABI_WANTED))?
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?
        .add_rule(NetPort::new(config.settings.http_port, AccessNet::BindTcp))?;
    if let Some(port) = config.logs.port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    for (path, access) in [(config.state_dir.clone(), all)]
        .into_iter()
        .chain(PROGRAMS.map(|path| (path.into(), run)))
        .chain(tools().into_iter().map(|path| (path, run)))
        .chain(TOLD.map(|path| (path.into(), read)))
        .chain(certificate_places(config).into_iter().map(|path| (path, read)))
        .chain(config.loaders_dir.clone().map(|path| (path, read)))
        .chain(LOOKED_AT.map(|path| (path.into(), AccessFs::ReadFile.into())))
        .chain([(NULL.into(), AccessFs::ReadFile | AccessFs::WriteFile)])
        .chain([(KVM.into(), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)])
    {
        rules = allow(rules, &path, access)?;
    }
    Ok(rules)
}

/// Where a renewed certificate appears: the directories of its files, and of what these lead to if they are links. Not one
/// that holds the whole host's configuration.
fn certificate_places(config: &Config) -> BTreeSet<PathBuf> {
    let named = config.api.certificate.iter().flat_map(|files| [files.certificate.clone(), files.key.clone()]);
    let places = named.flat_map(|path| [path.canonicalize().ok(), Some(path)]).flatten();
    let directories = places.filter_map(|path| path.parent().map(Path::to_owned));
    directories.filter(|directory| directory.is_absolute() && directory.components().count() > 2).collect()
}

/// What is not there needs no rule.
pub(super) fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(beneath) => rules.add_rule(PathBeneath::new(beneath, access)),
        Err(_) => Ok(rules),
    }
}

/// Directories of PATH that hold the tool of imports or the emulator of trials, wherever they are.
pub(super) fn tools() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let holds_one = |directory: &PathBuf| ["mksquashfs", EMULATOR].iter().any(|tool| directory.join(tool).exists());
    std::env::split_paths(&path).filter(holds_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs, io,
        net::{TcpListener, TcpStream},
        process::Command,
    };

    /// Landlock and its no_new_privs are a thread's own, so that this confines nothing else of the test process.
    fn confined<T: Send + 'static>(config: Config, test: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            assert!(confine(&config).unwrap(), "these tests need a kernel with Landlock (5.19 or newer)");
            test()
        });
        thread.join().unwrap()
    }

    fn config(state: &Path, port: u16) -> Config {
        let text = format!(
            "state_dir = {:?}\n[boot]\ninterface = \"lo\"\ndhcp = \"off\"\nhttp_port = {port}\n",
            state.display().to_string()
        );
        Config::parse(&text).unwrap()
    }

    #[test]
    fn nothing_outside_can_be_opened_made_or_run() {
        let outside = tempfile::tempdir().unwrap();
        let (canary, state) = (outside.path().join("canary"), outside.path().join("state"));
        fs::write(&canary, "secret").unwrap();
        fs::create_dir(&state).unwrap();
        let program = outside.path().join("true");
        fs::copy("/bin/true", &program).unwrap();
        let denied = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::PermissionDenied;
        confined(config(&state, 8080), move || {
            assert!(denied(fs::read(&canary).map(drop)), "a file was read");
            assert!(denied(fs::write(&canary, "")), "a file was written");
            assert!(denied(fs::write(outside.path().join("new"), "")), "a file was made");
            assert!(denied(fs::remove_file(&canary)), "a file was removed");
            assert!(denied(fs::rename(&canary, state.join("taken")).map(drop)), "a file was taken");
            assert!(denied(fs::read("/etc/passwd").map(drop)), "the host's configuration was read");
            assert!(denied(fs::write("/usr/bin/bennu-was-here", "")), "a program was made");
            assert!(denied(Command::new(&program).status().map(drop)), "a program of nowhere was run");
            fs::create_dir_all(state.join("images/tmp")).unwrap();
            fs::write(state.join("images/tmp/new"), "x").unwrap();
            fs::rename(state.join("images/tmp/new"), state.join("blob")).unwrap();
            fs::remove_file(state.join("blob")).unwrap();
            assert!(!fs::read("/proc/net/arp").unwrap().is_empty());
            assert!(fs::read_dir("/sys/class/net").unwrap().count() > 0);
        });
    }

    #[test]
    fn a_renewed_certificate_can_be_read() {
        let (outside, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (live, archive) = (outside.path().join("live"), outside.path().join("archive"));
        for directory in [&live, &archive] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(archive.join("cert1.pem"), "first").unwrap();
        fs::write(live.join("key.pem"), "first").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", live.join("cert.pem")).unwrap();
        fs::write(outside.path().join("canary"), "secret").unwrap();
        let mut config = config(state.path(), 8080);
        config.api.certificate =
            Some(crate::config::CertificateFiles { certificate: live.join("cert.pem"), key: live.join("key.pem") });
        let (sender, receiver) = std::sync::mpsc::channel();
        let (ready, renewed) = std::sync::mpsc::channel();
        let (at, canary) = (live.clone(), outside.path().join("canary"));
        let reader = std::thread::spawn(move || {
            confined(config, move || {
                ready.send(()).unwrap();
                receiver.recv().unwrap();
                assert_eq!(fs::read(at.join("cert.pem")).unwrap(), b"second");
                assert_eq!(fs::read(at.join("key.pem")).unwrap(), b"second");
                assert!(fs::read(canary).is_err());
            })
        });
        renewed.recv().unwrap();
        fs::write(archive.join("cert2.pem"), "second").unwrap();
        fs::remove_file(live.join("cert.pem")).unwrap();
        std::os::unix::fs::symlink("../archive/cert2.pem", live.join("cert.pem")).unwrap();
        fs::write(live.join("new"), "second").unwrap();
        fs::rename(live.join("new"), live.join("key.pem")).unwrap();
        sender.send(()).unwrap();
        reader.join().unwrap();
    }

    #[test]
    fn images_are_still_made() {
        use bennu_images::squashfs::{Mksquashfs, RootBuilder};
        let state = tempfile::tempdir().unwrap();
        let (tool, _) = confined(config(state.path(), 8080), || Mksquashfs::find().unwrap().tool());
        assert_eq!(tool, "mksquashfs");
    }

    #[test]
    fn no_other_port_is_bound_and_nobody_is_called() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = tempfile::tempdir().unwrap();
        confined(config(state.path(), free), move || {
            TcpListener::bind(("127.0.0.1", free)).unwrap();
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(TcpListener::bind("127.0.0.1:0").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        });
    }
}
