//! What the rack's machines boot: a small Debian in two versions, its kernel alone, and a disk of its own.
//! Made once and kept under `.cache/images`, by a digest of everything they are made from.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{command, workshop};

/// The images, as files.
#[derive(Debug, Clone)]
pub struct Images {
    dir: PathBuf,
}

/// The scripts that make and list root filesystems.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(name)
}

/// Makes the images, or finds them made. Takes about half a minute the first time.
pub fn images() -> Result<Images> {
    let _held = workshop::hold("images")?;
    let mut recipe = Vec::new();
    for part in ["debian", "odd-files"] {
        recipe.extend(fs::read(script(part))?);
    }
    recipe.extend(include_bytes!("images.rs"));
    let dir = workshop::cache("images")?.join(short_digest(&recipe));
    let done = dir.join("done");
    if !done.exists() {
        // Nobody else works on it now, so what is half done is a killed run's.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        eprintln!("rack: making the images that the machines boot (once; kept in {})", dir.display());
        make(&dir)?;
        fs::write(&done, "")?;
    }
    Ok(Images { dir })
}

impl Images {
    /// Debian, the first version.
    pub fn debian_v1(&self) -> PathBuf {
        self.dir.join("debian-v1.tar")
    }

    /// Debian, the second version: another `/etc/issue` and `/etc/bennu-demo-version`.
    pub fn debian_v2(&self) -> PathBuf {
        self.dir.join("debian-v2.tar")
    }

    /// The first version without its kernel, as a container image's layer.
    pub fn container(&self) -> PathBuf {
        self.dir.join("container.tar")
    }

    /// The kernel with its modules under `/usr/lib/modules`, as a layer over that.
    pub fn kernel_layer(&self) -> PathBuf {
        self.dir.join("kernel-layer.tar")
    }

    /// The kernel of both with its modules, in a tree without anything else.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("kernel")
    }

    /// The manifest of the first version, taken from the archive as unpacked by tar.
    pub fn manifest_v1(&self) -> Result<Vec<u8>> {
        let file = self.dir.join("manifest-v1");
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// A disk whose boot sector says [`DISK_SAYS`] on the serial port.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.raw")
    }
}

fn make(dir: &Path) -> Result<()> {
    let (v1, v2) = (dir.join("debian-v1.tar"), dir.join("debian-v2.tar"));
    let mirror = command::run(&mut Command::new(workshop::checkout().join("scripts/debian-mirror")))?;
    command::run(Command::new(script("debian")).arg(&v1).args(mirror.split_whitespace()))
        .context("cannot make a Debian for the machines to boot")?;
    second_version(dir, &v1, &v2)?;
    let kernel = dir.join("kernel");
    fs::create_dir_all(&kernel)?;
    unpack(&v1, &kernel, &["./boot", "./usr/lib/modules"])?;
    let tree = dir.join("tree");
    fs::create_dir_all(&tree)?;
    unpack(&v1, &tree, &[])?;
    // systemd puts the journal's access control list on at every start, and squashfs cannot hold one: an import
    // leaves this one out, and says so.
    for list in ["system.posix_acl_access", "system.posix_acl_default"] {
        command::run(Command::new("setfattr").args(["-x", list]).arg(tree.join("var/log/journal")))?;
    }
    let manifest = command::run_bytes(Command::new(script("manifest")).arg(&tree));
    layers(dir, &tree)?;
    fs::remove_dir_all(&tree)?;
    fs::write(dir.join("manifest-v1"), manifest?)?;
    fs::write(dir.join("disk.raw"), boot_sector())?;
    Ok(())
}

/// What container images are made of: the tree without its kernel, and the kernel as bootc lays it down.
fn layers(dir: &Path, tree: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=pax", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse"]);
    tar.args(["--exclude=./boot/*", "--exclude=./usr/lib/modules/*"]);
    command::run(tar.arg("-f").arg(dir.join("container.tar")).arg("-C").arg(tree).arg("."))?;
    let modules = tree.join("usr/lib/modules");
    let release = fs::read_dir(&modules)?.next().context("the Debian has no modules")??.file_name();
    let release = release.to_string_lossy();
    fs::rename(tree.join(format!("boot/vmlinuz-{release}")), modules.join(&*release).join("vmlinuz"))?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=pax", "--numeric-owner", "-f"]).arg(dir.join("kernel-layer.tar"));
    command::run(tar.arg("-C").arg(tree).arg("./usr/lib/modules")).map(drop)
}

fn unpack(archive: &Path, into: &Path, members: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(archive).arg("-C").arg(into);
    command::run(tar.args(members)).map(drop)
}

/// The same archive with two files more at its end: of two entries of one name the last counts.
fn second_version(dir: &Path, v1: &Path, v2: &Path) -> Result<()> {
    let changed = dir.join("changed");
    fs::create_dir_all(changed.join("etc"))?;
    fs::write(changed.join("etc/issue"), "Debian GNU/Linux 12, bennu-demo v2 \\n \\l\n\n")?;
    fs::write(changed.join("etc/bennu-demo-version"), "bennu-demo v2\n")?;
    command::run(Command::new("cp").arg("--reflink=auto").args([v1, v2]))?;
    let mut tar = Command::new("tar");
    tar.args(["--append", "--owner=0", "--group=0", "--mode=644", "-f"]).arg(v2).arg("-C").arg(&changed);
    command::run(tar.args(["./etc/issue", "./etc/bennu-demo-version"]))?;
    Ok(fs::remove_dir_all(changed)?)
}

/// What the disk of [`Images::disk`] says when a machine boots it.
pub const DISK_SAYS: &str = "this machine runs from its own disk";

/// A boot sector that writes [`DISK_SAYS`] to the first serial port, byte by byte, and halts; with a
/// partition table whose one entry is active, without which some loaders refuse the disk.
fn boot_sector() -> Vec<u8> {
    #[rustfmt::skip]
    let code: &[u8] = &[
        0x31, 0xc0,             // xor ax, ax
        0x8e, 0xd8,             // mov ds, ax
        0xfc,                   // cld
        0xbe, 0x1b, 0x7c,       // mov si, text
        0xac,                   // next: lodsb
        0x84, 0xc0,             // test al, al
        0x74, 0x09,             // jz halt
        0xba, 0xf8, 0x03,       // mov dx, 0x3f8
        0xee,                   // out dx, al
        0xeb, 0xf5,             // jmp next
        0x90, 0x90, 0x90,       // (room)
        0xf4,                   // halt: hlt
        0xeb, 0xfd,             // jmp halt
        0x90, 0x90,             // (room, up to offset 0x1b)
    ];
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(code);
    let text = format!("\r\n{DISK_SAYS}\r\n");
    disk[code.len()..code.len() + text.len()].copy_from_slice(text.as_bytes());
    // An active Linux partition from sector 1 on.
    disk[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 32, 0, 1, 0, 0, 0, 0xff, 7, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The foreign kernel and initrd: Debian's own network installer.
pub fn installer() -> Result<(PathBuf, PathBuf)> {
    let images = Path::new("/usr/lib/debian-installer/images");
    let found = fs::read_dir(images).into_iter().flatten().filter_map(|entry| {
        let dir = entry.ok()?.path().join("amd64/text/debian-installer/amd64");
        dir.join("linux").exists().then_some(dir)
    });
    let dir = found.max().context("the package debian-installer-12-netboot-amd64 is missing: run scripts/setup")?;
    Ok((dir.join("linux"), dir.join("initrd.gz")))
}

/// The first 16 hex digits of the SHA-256.
pub fn short_digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_jumps_where_it_should() {
        let disk = boot_sector();
        let offset_of_text = usize::from(u16::from_le_bytes([disk[6], disk[7]]) - 0x7c00);
        assert!(disk[offset_of_text..].starts_with(b"\r\nthis machine"));
        let halt = 13 + usize::from(disk[12]);
        assert_eq!(disk[halt], 0xf4);
        assert_eq!(disk[19usize.wrapping_add_signed(isize::from(disk[18].cast_signed()))], 0xac);
        assert_eq!(disk[510..512], [0x55, 0xaa]);
    }
}
