//! From the initrd into the root, which the initrd brought as a squashfs: it stays compressed in memory, read-only.

use bennu_stage1::handover;
use bennu_stage1::modules::Modules;
use bennu_stage1::root::{NEW_ROOT, attach_loop};
use rustix::mount::{MountFlags, mount};

/// Where the initrd has it.
const FILE: &str = "/root.squashfs";
/// Where the network's names are written, since the root cannot be: files in `/etc` are links to here.
pub const NAMES: &str = "/run/host";

/// Makes it the root of this process. What the initrd held is let go of; the root's file lives on in its loop device.
pub fn enter(modules: &mut Modules) -> Result<(), String> {
    for module in ["loop", "squashfs"] {
        modules.load(module);
    }
    // Open until the mount uses it: an unused loop device with autoclear would let go of its file.
    let (device, _open) = attach_loop(FILE, "bennu appliance").map_err(|error| error.to_string())?;
    let made = std::fs::create_dir_all(NEW_ROOT);
    made.map_err(|error| format!("cannot make {NEW_ROOT}: {error}"))?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    mount(&device, NEW_ROOT, "squashfs", flags, None)
        .map_err(|error| format!("cannot mount the appliance's root from {}: {error}", device.display()))?;
    handover::enter().map_err(|error| error.to_string())?;
    let made = std::fs::create_dir_all(NAMES);
    made.map_err(|error| format!("cannot make {NAMES}: {error}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", "/tmp", "tmpfs", flags, Some(c"mode=1777,size=25%"))
        .map_err(|error| format!("cannot mount a tmpfs at /tmp: {error}"))
}
