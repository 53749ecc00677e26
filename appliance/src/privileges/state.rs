//! The state directory: made while we may, and handed to the user that the service runs as.

use super::{PrivilegeError, user::Account};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self as posix, AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// What a state directory of ours has, by one of which it is known. A disk's own directory may lie beside it.
const OURS: [&str; 2] = ["ledger.redb", "images"];
const OF_THE_DISK: &str = "lost+found";

/// Makes the state directory where it is missing: its owner's alone, in directories that others may pass.
pub fn make(path: &Path) -> Result<(), PrivilegeError> {
    let refused = |error| {
        PrivilegeError::refused(format!("make the state directory {}; write another state_dir", path.display()), error)
    };
    let missing: Vec<&Path> =
        path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
    fs::create_dir_all(path).map_err(refused)?;
    for part in missing {
        let mode = if part == path { 0o700 } else { 0o755 };
        fs::set_permissions(part, fs::Permissions::from_mode(mode)).map_err(refused)?;
    }
    Ok(())
}

/// Gives the directory and what is in it to `user`, once it is sure that it is ours.
pub fn hand_over(path: &Path, user: &Account) -> Result<(), PrivilegeError> {
    let refused = |error: Errno| {
        PrivilegeError::refused(format!("hand the state directory {} to user '{}'", path.display(), user.name), error)
    };
    let top = posix::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(refused)?;
    let names = names(top.as_fd()).map_err(refused)?;
    let is_ours = names.iter().any(|name| OURS.iter().any(|ours| name == ours));
    if !is_ours && let Some(found) = names.iter().find(|name| *name != OF_THE_DISK) {
        return Err(PrivilegeError::Foreign { path: path.to_owned(), found: found.clone() });
    }
    give(top.as_fd(), user).map_err(refused)?;
    walk(top.as_fd(), &names, user).map_err(refused)
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let entries = Dir::read_from(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.filter(|name| !matches!(name.as_deref(), Ok("." | ".."))).collect()
}

/// The user may have written here when it ran before, so nothing is trusted: links are not followed, a file with a second
/// name may be somebody else's, and what was looked at is what is given.
fn walk(directory: BorrowedFd<'_>, names: &[String], user: &Account) -> Result<(), Errno> {
    for name in names.iter().filter(|name| *name != OF_THE_DISK) {
        let Some(entry) = look(directory, name)? else { continue };
        let stat = posix::fstat(&entry)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                give(entry.as_fd(), user)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let inside = posix::openat(&entry, ".", flags, Mode::empty())?;
                walk(inside.as_fd(), &self::names(inside.as_fd())?, user)?;
            }
            FileType::RegularFile if stat.st_nlink == 1 => give(entry.as_fd(), user)?,
            _ => {}
        }
    }
    Ok(())
}

fn look(directory: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Errno> {
    match posix::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(entry) => Ok(Some(entry)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn give(entry: BorrowedFd<'_>, user: &Account) -> Result<(), Errno> {
    let stat = posix::fstat(entry)?;
    if (stat.st_uid, stat.st_gid) == (user.uid.as_raw(), user.gid.as_raw()) {
        return Ok(());
    }
    let (uid, gid) = (posix::Uid::from_raw(user.uid.as_raw()), posix::Gid::from_raw(user.gid.as_raw()));
    posix::chownat(entry, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// Whether the user, which we are by now, gets there.
pub fn reach(path: &Path, user: &Account) -> Result<(), PrivilegeError> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        _ => return Ok(()),
    }
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let closed =
        ancestors.into_iter().find(|part| posix::access(*part, posix::Access::EXEC_OK).is_err()).unwrap_or(path);
    Err(PrivilegeError::Unreachable { user: user.name.clone(), path: path.to_owned(), closed: closed.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};
    use std::os::unix::fs::{MetadataExt, symlink};

    fn nobody() -> Account {
        Account { name: "nobody".into(), uid: Uid::from_raw(65534), gid: Gid::from_raw(65534) }
    }

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    /// Only root gives files away: as another user this gives them to that user itself.
    fn taker() -> Account {
        let me = Uid::effective();
        if me.is_root() { nobody() } else { Account { name: "me".into(), uid: me, gid: Gid::effective() } }
    }

    #[test]
    fn only_plain_files_and_directories_are_handed_over() {
        let outside = tempfile::tempdir().unwrap();
        let (canary, directory) = (outside.path().join("canary"), outside.path().join("directory"));
        fs::write(&canary, "").unwrap();
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("inner"), "").unwrap();
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join("images/blobs");
        fs::create_dir_all(&images).unwrap();
        fs::write(state.path().join("ledger.redb"), "").unwrap();
        fs::write(images.join("blob"), "").unwrap();
        symlink(&canary, images.join("file-link")).unwrap();
        symlink(&directory, images.join("directory-link")).unwrap();
        let second = state.path().join("second-name");
        fs::hard_link(&canary, &second).unwrap();
        let (before, taker) = (owner(&canary), taker());
        hand_over(state.path(), &taker).unwrap();
        for ours in [state.path(), &state.path().join("ledger.redb"), &images, &images.join("blob")] {
            assert_eq!(owner(ours), taker.uid.as_raw(), "{}", ours.display());
        }
        for other in [&canary, &directory, &directory.join("inner"), &images.join("file-link"), &second] {
            assert_eq!(owner(other), before, "{}", other.display());
        }
    }

    #[test]
    fn a_directory_of_others_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("mail"), "").unwrap();
        let before = owner(directory.path());
        let error = hand_over(directory.path(), &taker()).unwrap_err();
        assert!(matches!(&error, PrivilegeError::Foreign { found, .. } if found == "mail"), "{error}");
        assert_eq!(owner(directory.path()), before);
        fs::remove_file(directory.path().join("mail")).unwrap();
        fs::create_dir(directory.path().join(OF_THE_DISK)).unwrap();
        hand_over(directory.path(), &taker()).unwrap();
        assert_eq!(owner(&directory.path().join(OF_THE_DISK)), before, "a disk's own directory is left alone");
    }

    #[test]
    fn directories_on_the_way_can_be_passed() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/b/state");
        make(&state).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&state), mode(state.parent().unwrap())), (0o700, 0o755));
        fs::set_permissions(&state, fs::Permissions::from_mode(0o750)).unwrap();
        make(&state).unwrap();
        assert_eq!(mode(&state), 0o750, "one that is there is left as it is");
    }
}
