//! Files for this machine alone, as the appliance sealed them to our session. They are laid down in memory only: in the
//! overlay, or in `/run`.

use super::{LaydownError, place};
use crate::{scoped, user};
use base64ct::{Base64, Encoding};
use bennu_plan::SealedFile;
use rustix::fs::statfs;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use zeroize::Zeroizing;

/// Lays them down, the later in the place of the earlier. `run` is what will be `/run`; `keeps` tells directories where what
/// is written stays behind. Answers what a person should know.
pub fn lay_down_sealed(
    root: &Path,
    run: &Path,
    files: &[SealedFile],
    keeps: fn(&Path) -> bool,
) -> Result<Vec<String>, LaydownError> {
    let text = |path| scoped::resolve(root, path).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let (passwd, group) = (text("etc/passwd"), text("etc/group"));
    let mut remarks = Vec::new();
    for file in files {
        let path = file.path.trim_start_matches('/');
        let (base, inside) = path.strip_prefix("run/").map_or((root, path), |inside| (run, inside));
        if file.optional && !has_directory(base, inside) {
            continue;
        }
        // Nobody else may read it meanwhile, and root's it stays where its owner is unknown.
        let owner = user::find(&file.owner, &passwd, &group);
        let owner = owner.map(|account| (account.uid, account.gid)).unwrap_or_else(|why| {
            remarks.push(format!("{}: {why}; it is root's", file.path));
            (0, 0)
        });
        let put = || -> io::Result<()> {
            let content = Base64::decode_vec(&file.content).map(Zeroizing::new);
            let content = content.map_err(|_| io::Error::other("what came for it is damaged"))?;
            let target = place(base, inside)?;
            if target.parent().is_none_or(keeps) {
                return Err(io::Error::other("its directory is not in memory, and a secret must not stay on a disk"));
            }
            write_new(&target, &content, owner, file.mode)
        };
        put().map_err(|source| LaydownError { path: file.path.clone(), source })?;
    }
    Ok(remarks)
}

fn has_directory(base: &Path, inside: &str) -> bool {
    let directory = inside.rsplit_once('/').map_or("", |(directory, _)| directory);
    scoped::resolve(base, directory).is_some_and(|path| path.is_dir())
}

fn write_new(target: &Path, content: &[u8], (uid, gid): (u32, u32), mode: u32) -> io::Result<()> {
    match fs::remove_file(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    file.write_all(content)?;
    if (uid, gid) != (0, 0) {
        chown(target, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Whether what is written in a directory would outlast a restart.
pub fn outlasts_a_restart(directory: &Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    // Our overlay's upper layer is a tmpfs.
    const OVERLAY: i64 = 0x794c_7630;
    !statfs(directory).is_ok_and(|found| matches!(found.f_type, TMPFS | RAMFS | OVERLAY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn file(path: &str, mode: u32, owner: &str, content: &str) -> SealedFile {
        let content = Base64::encode_string(content.as_bytes());
        SealedFile { path: path.into(), mode, owner: owner.into(), content, optional: false }
    }

    #[test]
    fn files_are_their_owners_alone_and_in_the_place_of_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let (root, run) = (place.path().join("root"), place.path().join("run"));
        fs::create_dir_all(root.join("etc/ssh")).unwrap();
        fs::create_dir(&run).unwrap();
        fs::write(place.path().join("outside"), "theirs").unwrap();
        symlink(place.path().join("outside"), root.join("etc/key")).unwrap();
        let files = [
            file("/etc/key", 0o400, "", "first"),
            file("/etc/key", 0o440, "", "hunter2"),
            file("/run/app/key", 0o600, "nobody-here", "in run"),
            SealedFile { optional: true, ..file("/etc/ssh/ssh_host_x_key", 0o600, "", "host key") },
            SealedFile { optional: true, ..file("/etc/other/key", 0o600, "", "nowhere") },
        ];
        let remarks = lay_down_sealed(&root, &run, &files, |_| false).unwrap();
        assert!(
            matches!(&remarks[..], [one] if one.contains("/run/app/key") && !one.contains("in run")),
            "{remarks:?}"
        );
        let read = |path: &Path| (fs::read_to_string(path).unwrap(), fs::metadata(path).unwrap().mode() & 0o7777);
        assert_eq!(read(&root.join("etc/key")), ("hunter2".into(), 0o440));
        assert_eq!(fs::read_to_string(place.path().join("outside")).unwrap(), "theirs");
        assert_eq!(read(&run.join("app/key")), ("in run".into(), 0o600));
        assert_eq!(read(&root.join("etc/ssh/ssh_host_x_key")).0, "host key");
        assert!(!root.join("etc/other").exists());
    }

    #[test]
    fn no_secret_is_written_to_a_disk() {
        let place = tempfile::tempdir().unwrap();
        let files = [file("/etc/key", 0o600, "", "hunter2")];
        let error = lay_down_sealed(place.path(), place.path(), &files, |_| true).unwrap_err();
        assert!(error.to_string().contains("/etc/key") && !error.to_string().contains("hunter2"), "{error}");
        assert!(!place.path().join("etc/key").exists());
        assert!(!outlasts_a_restart(Path::new("/dev/shm")), "a tmpfs");
        assert!(outlasts_a_restart(Path::new("/proc")));
    }
}
