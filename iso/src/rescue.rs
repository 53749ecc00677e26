//! The rescue image's root: busybox as its init and shell, and what looks at disks and mends them.

use crate::programs::{add_libraries, first_of};
use crate::tree::Tree;
use anyhow::Result;
use std::path::Path;

const BUSYBOX: &str = "bin/busybox";
/// Beside busybox, whose own forms of them do less.
const PROGRAMS: [&str; 8] = [
    "sbin/e2fsck",
    "sbin/fdisk",
    "sbin/fsck.fat",
    "sbin/mke2fs",
    "sbin/mkfs.fat",
    "sbin/resize2fs",
    "sbin/sfdisk",
    "usr/sbin/smartctl",
];
const NVME: &str = "usr/sbin/nvme";

/// A shell on the screen and on the serial port, for whoever stands there; nobody can log in from elsewhere.
const INITTAB: &str = "::sysinit:/etc/init.d/rcS
tty1::respawn:-/bin/sh
ttyS0::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/umount -a -r
";
/// Stage 1 loaded what the network needs; the rest comes here, in as many rounds as new buses bring.
const START: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s 2>/dev/null
for round in 1 2 3; do
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs -r modprobe -a -b -q 2>/dev/null
    sleep 1
done
";
const PROFILE: &str = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin PS1='rescue# '
echo 'Bennu rescue: this system is in memory; no disk of this machine is mounted. Disks: cat /proc/partitions'
";

/// Adds it to an empty tree.
pub fn add(tree: &mut Tree, packages: &Path, version: &str) -> Result<()> {
    let mut programs = vec![first_of(packages, BUSYBOX)?];
    tree.copy(&programs[0], "usr/bin/busybox", 0o755)?;
    for from in PROGRAMS.iter().chain([&NVME]) {
        let file = first_of(packages, from)?;
        let name = from.rsplit('/').next().unwrap_or(from);
        tree.copy(&file, &format!("usr/sbin/{name}"), 0o755)?;
        programs.push(file);
    }
    add_libraries(tree, packages, &programs)?;
    for (link, target) in
        [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("usr/bin/sh", "busybox"), ("usr/sbin/init", "../bin/busybox")]
    {
        tree.link(link, target);
    }
    for directory in ["dev", "mnt", "proc", "root", "run", "sys", "var"] {
        tree.directory(directory, 0o755);
    }
    tree.directory("tmp", 0o1777);
    tree.file("etc/init.d/rcS", 0o755, START.into());
    for (file, text) in [
        ("etc/inittab", INITTAB),
        ("etc/profile", PROFILE),
        ("etc/passwd", "root:*:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/os-release", &format!("ID=bennu-rescue\nPRETTY_NAME=\"Bennu rescue {version}\"\n")),
    ] {
        tree.file(file, 0o644, text.as_bytes().to_vec());
    }
    Ok(())
}
