//! Paths inside the image, with its symbolic links read as it would read them: `/sbin/init -> /lib/systemd/systemd` must not
//! lead into our own files.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Where `path` of the image really is, as a path of ours. `None` when it does not exist.
pub fn resolve(root: &Path, path: &str) -> Option<PathBuf> {
    let mut left: VecDeque<OsString> = parts(Path::new(path));
    let mut at = root.to_path_buf();
    let mut depth = 0_usize;
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            if depth > 0 {
                at.pop();
                depth -= 1;
            }
            continue;
        }
        let next = at.join(&part);
        let found = std::fs::symlink_metadata(&next).ok()?;
        if !found.is_symlink() {
            at = next;
            depth += 1;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return None;
        }
        let target = std::fs::read_link(&next).ok()?;
        if target.is_absolute() {
            at = root.to_path_buf();
            depth = 0;
        }
        for part in parts(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Some(at)
}

/// Whether it exists.
pub fn exists(root: &Path, path: &str) -> bool {
    resolve(root, path).is_some()
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        std::fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("usr/lib/systemd/systemd"), "").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/lib/systemd/systemd", root.join("init")).unwrap();
        symlink("../../../../../etc", root.join("usr/lib/out")).unwrap();
        symlink("self", root.join("self")).unwrap();
        symlink("/nowhere", root.join("etc/dangling")).unwrap();
        assert_eq!(resolve(root, "/init"), Some(root.join("usr/lib/systemd/systemd")));
        assert_eq!(resolve(root, "/usr/lib/out"), Some(root.join("etc")));
        assert_eq!(resolve(root, "/../../etc"), Some(root.join("etc")));
        assert_eq!(resolve(root, "/self"), None);
        assert!(!exists(root, "/etc/dangling") && !exists(root, "/etc/passwd"));
    }
}
