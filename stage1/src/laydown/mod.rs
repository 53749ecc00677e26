//! What a machine needs of its own in the image it shares with others: names, an id, an fstab, a network.

mod metadata;
mod network;
mod sealed;

pub use metadata::lay_down_metadata;
pub use network::{Init, decide, enable, lay_down_network};
pub use sealed::{lay_down_sealed, outlasts_a_restart};

use crate::download::hex;
use crate::net::Mac;
use crate::scoped;
use ring::digest::{SHA256, digest};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A file of the new root that could not be laid down.
#[derive(Debug, thiserror::Error)]
#[error("cannot lay down {path} in the new root: {source}")]
pub struct LaydownError {
    path: String,
    source: io::Error,
}

/// What makes this machine this machine.
#[derive(Debug)]
pub struct Identity<'a> {
    /// Host name; `None` keeps the image's.
    pub hostname: Option<&'a str>,
    /// 32 hex digits, the same at every boot.
    pub machine_id: String,
    /// Name servers for an image without any.
    pub dns: &'a [Ipv4Addr],
    /// Whether the image's fstab gives way to ours.
    pub own_fstab: bool,
    /// The image, for comments.
    pub image: &'a str,
}

/// An id that stays the same over boots and images, and differs between machines even when a vendor gave all boards one UUID.
/// It has the form of a random UUID, as systemd wants it.
pub fn machine_id(mac: Mac, uuid: &str) -> String {
    let hash = digest(&SHA256, format!("bennu machine-id {mac} {}", uuid.to_ascii_lowercase()).as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_ref()[..16]);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    hex(&id)
}

/// Lays down everything but the network.
pub fn lay_down(root: &Path, identity: &Identity<'_>) -> Result<(), LaydownError> {
    let id = &identity.machine_id;
    write(root, "etc/machine-id", format!("{id}\n"), 0o444)?;
    let bus_id = root.join("var/lib/dbus/machine-id");
    if fs::symlink_metadata(&bus_id).is_ok_and(|found| found.is_file()) {
        let link = fs::remove_file(&bus_id).and_then(|()| symlink("/etc/machine-id", &bus_id));
        link.map_err(|source| LaydownError { path: "var/lib/dbus/machine-id".into(), source })?;
    }
    if let Some(hostname) = identity.hostname {
        write(root, "etc/hostname", format!("{hostname}\n"), 0o644)?;
    }
    if is_empty(root, "etc/hosts") {
        write(root, "etc/hosts", hosts(identity.hostname), 0o644)?;
    } else if let Some(hostname) = identity.hostname
        && let Some(text) = scoped::resolve(root, "etc/hosts").and_then(|path| fs::read_to_string(path).ok())
        && let Some(text) = named_hosts(&text, hostname)
    {
        write(root, "etc/hosts", text, 0o644)?;
    }
    if !identity.dns.is_empty() && needs_resolv_conf(root) {
        let servers: String = identity.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        write(root, "etc/resolv.conf", format!("# Laid down by Bennu at boot.\n{servers}"), 0o644)?;
    }
    if identity.own_fstab {
        own_fstab(root, identity.image)?;
    }
    Ok(())
}

fn hosts(hostname: Option<&str>) -> String {
    let own = hostname.map(own_line).unwrap_or_default();
    format!("127.0.0.1\tlocalhost\n{own}::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// As Debian does for a machine whose address may change.
fn own_line(name: &str) -> String {
    match name.split_once('.') {
        Some((short, _)) => format!("127.0.1.1\t{name} {short}\n"),
        None => format!("127.0.1.1\t{name}\n"),
    }
}

/// The image's table with this machine's name in place of the one under which the image was built; `None` where it is there.
fn named_hosts(text: &str, hostname: &str) -> Option<String> {
    let words = |line: &str| -> Vec<String> {
        line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if text.lines().any(|line| words(line).iter().skip(1).any(|word| word == hostname)) {
        return None;
    }
    let is_builders = |line: &str| words(line).first().is_some_and(|address| address == "127.0.1.1");
    let kept: String = text.lines().filter(|line| !is_builders(line)).map(|line| format!("{line}\n")).collect();
    Some(kept + &own_line(hostname))
}

/// The image's fstab names disks that this machine does not have, and systemd would wait for them.
fn own_fstab(root: &Path, image: &str) -> Result<(), LaydownError> {
    if let Some(theirs) = scoped::resolve(root, "etc/fstab") {
        let text = fs::read(&theirs).map_err(|source| LaydownError { path: "etc/fstab".into(), source })?;
        write(root, "etc/fstab.image", text, 0o644)?;
    }
    let ours = format!(
        "# Laid down by Bennu at boot: the root of {image} is in memory, read-only, under an overlay in memory.\n\
         # Nothing else is mounted by default. The image's own table is in /etc/fstab.image.\n"
    );
    write(root, "etc/fstab", ours, 0o644)
}

/// Missing, empty, or a link to a file that only a service will make; in the last case only when no such service is there.
fn needs_resolv_conf(root: &Path) -> bool {
    let link = fs::read_link(root.join("etc/resolv.conf"));
    if let Ok(target) = &link
        && !scoped::exists(root, "etc/resolv.conf")
    {
        let target = target.to_string_lossy();
        let made_by = [
            ("systemd/resolve", "systemd-resolved"),
            ("NetworkManager", "NetworkManager"),
            ("resolvconf", "resolvconf"),
        ];
        let maker = made_by.iter().find(|(part, _)| target.contains(part));
        return !maker.is_some_and(|(_, service)| network::is_enabled(root, service));
    }
    is_empty(root, "etc/resolv.conf")
}

/// Whether a file is missing or has nothing but white space in it.
pub(crate) fn is_empty(root: &Path, path: &str) -> bool {
    let text = scoped::resolve(root, path).and_then(|path| fs::read(path).ok()).unwrap_or_default();
    text.iter().all(u8::is_ascii_whitespace)
}

/// Writes a file of the new root: in place of what is there, be it a link to somewhere.
pub(crate) fn write(root: &Path, path: &str, text: impl AsRef<[u8]>, mode: u32) -> Result<(), LaydownError> {
    let put = || -> io::Result<()> {
        let place = place(root, path)?;
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&place, text.as_ref())?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))
    };
    put().map_err(|source| LaydownError { path: path.to_owned(), source })
}

/// Where a path of the new root is, with its directory made.
pub(crate) fn place(root: &Path, path: &str) -> io::Result<PathBuf> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(directory) = scoped::resolve(root, directory) {
        return Ok(directory.join(name));
    }
    // Missing, wholly or from some link on: made from the part that exists.
    let mut at = root.to_path_buf();
    let mut so_far = String::new();
    for part in directory.split('/') {
        so_far = format!("{so_far}/{part}");
        at = match scoped::resolve(root, &so_far) {
            Some(found) => found,
            None => {
                let next = at.join(part);
                drop(fs::remove_file(&next));
                fs::create_dir(&next)?;
                next
            }
        };
    }
    Ok(at.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity<'a>(hostname: Option<&'a str>, dns: &'a [Ipv4Addr]) -> Identity<'a> {
        Identity { hostname, machine_id: machine_id(Mac([1; 6]), "U"), dns, own_fstab: true, image: "web:v1" }
    }

    fn text(root: &Path, path: &str) -> String {
        fs::read_to_string(root.join(path)).unwrap()
    }

    #[test]
    fn machine_ids_are_stable_and_well_formed() {
        let id = machine_id(Mac([1; 6]), "ABC");
        assert_eq!(id, machine_id(Mac([1; 6]), "abc"));
        assert_ne!(id, machine_id(Mac([2; 6]), "abc"));
        assert_ne!(id, machine_id(Mac([1; 6]), "abd"));
        assert!(id.len() == 32 && &id[12..13] == "4" && "89ab".contains(&id[16..17]), "{id}");
    }

    #[test]
    fn an_empty_image_gets_everything() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        lay_down(root, &identity(Some("node1.rack"), &[Ipv4Addr::new(10, 77, 0, 1)])).unwrap();
        assert_eq!(text(root, "etc/hostname"), "node1.rack\n");
        assert!(text(root, "etc/hosts").contains("127.0.1.1\tnode1.rack node1\n"));
        assert!(text(root, "etc/resolv.conf").ends_with("nameserver 10.77.0.1\n"));
        assert_eq!(text(root, "etc/machine-id").trim(), machine_id(Mac([1; 6]), "U"));
        assert!(text(root, "etc/fstab").contains("Bennu"));
        assert!(!root.join("etc/fstab.image").exists());
    }

    #[test]
    fn what_the_image_has_is_kept_but_baked_ids_are_not() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("var/lib/dbus")).unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost theirs\n").unwrap();
        fs::write(root.join("etc/hostname"), "theirs\n").unwrap();
        fs::write(root.join("etc/resolv.conf"), "nameserver 9.9.9.9\n").unwrap();
        fs::write(root.join("etc/fstab"), "LABEL=x / ext4\n").unwrap();
        fs::write(root.join("etc/machine-id"), "baked\n").unwrap();
        fs::write(root.join("var/lib/dbus/machine-id"), "baked\n").unwrap();
        lay_down(root, &identity(None, &[Ipv4Addr::new(10, 77, 0, 1)])).unwrap();
        assert_eq!(text(root, "etc/hosts"), "127.0.0.1 localhost theirs\n");
        assert_eq!(text(root, "etc/hostname"), "theirs\n");
        assert_eq!(text(root, "etc/resolv.conf"), "nameserver 9.9.9.9\n");
        assert_eq!(text(root, "etc/fstab.image"), "LABEL=x / ext4\n");
        assert_ne!(text(root, "etc/machine-id"), "baked\n");
        assert_eq!(fs::read_link(root.join("var/lib/dbus/machine-id")).unwrap(), Path::new("/etc/machine-id"));
    }

    #[test]
    fn a_machine_with_a_name_finds_itself_in_the_images_hosts() {
        let theirs = "127.0.0.1 localhost\n127.0.1.1 builder.lan builder # made here\n::1 localhost\n";
        let ours = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1\tweb1.rack web1\n";
        assert_eq!(named_hosts(theirs, "web1.rack").as_deref(), Some(ours));
        assert_eq!(named_hosts(ours, "web1"), None);
        assert_eq!(named_hosts("10.0.0.1 other # web1", "web1").unwrap(), "10.0.0.1 other # web1\n127.0.1.1\tweb1\n");
    }

    #[test]
    fn a_dangling_resolv_conf_is_replaced_unless_its_maker_will_run() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir_all(root.join("etc/systemd/system/sysinit.target.wants")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
        assert!(needs_resolv_conf(root));
        let wants = root.join("etc/systemd/system/sysinit.target.wants/systemd-resolved.service");
        symlink("/lib/systemd/system/systemd-resolved.service", wants).unwrap();
        assert!(!needs_resolv_conf(root));
    }

    #[test]
    fn writing_replaces_links_and_makes_directories_inside() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir_all(root.join("real/etc")).unwrap();
        symlink("/real/etc", root.join("etc")).unwrap();
        symlink("/etc/static/hosts", root.join("real/etc/hosts")).unwrap();
        write(root, "etc/hosts", "x", 0o600).unwrap();
        write(root, "etc/a/b/c", "y", 0o644).unwrap();
        assert_eq!((text(root, "real/etc/hosts"), text(root, "real/etc/a/b/c")), ("x".into(), "y".into()));
        assert_eq!(fs::metadata(root.join("real/etc/hosts")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
