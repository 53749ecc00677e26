//! dm-verity under the root: the kernel checks every block against the hash tree when it is read, and refuses what differs
//! (the kernel's admin-guide/device-mapper/verity).

use crate::root::RootError;
use crate::sys::DeviceMapper;
use bennu_plan::Verity;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What it takes where it is not built in, under its names in older and newer kernels. SHA-256 by the processor's own
/// instructions is worth having.
pub const MODULES: [&str; 5] = ["sha256", "sha256_generic", "sha256_ssse3", "sha2_ce", "dm_verity"];

const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
/// Devices made so far.
static TRIES: AtomicU32 = AtomicU32::new(0);
/// The tree begins behind its superblock.
const TREE_START: u64 = 1;

/// A root under dm-verity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// N of `/dev/dm-N`.
    pub number: u64,
    /// The device mapper's name for it.
    pub name: String,
}

impl Device {
    /// Where it is mounted from.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.number))
    }

    /// Whether the kernel has refused a block of it: the target's status is `C` then, and `V` before.
    pub fn is_corrupted(&self) -> bool {
        let status = control().map(|control| DeviceMapper::new(control, &self.name).status());
        status.is_ok_and(|status| status.is_ok_and(|status| status.starts_with('C')))
    }
}

/// Puts dm-verity over a root of `size` bytes on `data`, with its tree on `tree`. `None`: this kernel has none.
pub fn open(data: &Path, tree: &Path, verity: &Verity, size: u64) -> Result<Option<Device>, RootError> {
    let failed = |what: &str, source: io::Error| RootError {
        what: format!("{what} over {} and {}", data.display(), tree.display()),
        source,
        advice: ". Import the image again; if that does not help, boot it on another machine to see whose fault it is",
    };
    let control = match control() {
        Ok(control) => control,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed("open the device mapper", error)),
    };
    // A device of an earlier try may still be in use.
    let name = name(TRIES.fetch_add(1, Ordering::Relaxed));
    let mapper = DeviceMapper::new(control, &name);
    let number = mapper.create().map_err(|error| failed("make a device for dm-verity", error.into()))?;
    if let Err(error) = mapper.load_read_only("verity", size / SECTOR, &table(data, tree, verity, size)) {
        let _ = mapper.remove();
        return match error {
            // The only thing about a well-formed table that a kernel may not know is its target, or its hash.
            Errno::INVAL if !Path::new("/sys/module/dm_verity").exists() => Ok(None),
            Errno::NOENT => Ok(None),
            error => Err(failed("set up dm-verity", error.into())),
        };
    }
    if let Err(error) = mapper.resume() {
        let _ = mapper.remove();
        return Err(failed("start dm-verity", error.into()));
    }
    Ok(Some(Device { number, name }))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NXIO | Errno::NODEV))
}

/// Takes away what [`open`] made, so that the memory below it is free again.
pub fn close() {
    for attempt in 0..TRIES.load(Ordering::Relaxed) {
        if let Ok(control) = control() {
            let _ = DeviceMapper::new(control, &name(attempt)).remove();
        }
    }
}

/// There as soon as the kernel has a device mapper.
fn control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/mapper/control")
}

fn name(attempt: u32) -> String {
    format!("bennu-root-{attempt}")
}

/// The target's parameters: version, devices, block sizes, blocks, the tree's first block, algorithm, root hash, no salt.
fn table(data: &Path, tree: &Path, verity: &Verity, size: u64) -> String {
    format!(
        "1 {} {} {BLOCK} {BLOCK} {} {TREE_START} sha256 {} -",
        data.display(),
        tree.display(),
        size / BLOCK,
        verity.root_hash
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_plan::Blob;

    #[test]
    fn the_table_is_what_the_kernel_documents() {
        let tree = Blob { url: "http://10.0.0.1/blobs/sha256/x".into(), digest: "sha256:x".into(), size: 8192 };
        let verity = Verity { tree, root_hash: "ab".repeat(32) };
        let made = table(Path::new("/dev/loop0"), Path::new("/dev/loop1"), &verity, 300 * 4096);
        assert_eq!(made, format!("1 /dev/loop0 /dev/loop1 4096 4096 300 1 sha256 {} -", "ab".repeat(32)));
    }
}
