//! Disk images.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    images,
    machine::{Firmware, Machine},
    scenarios::checks,
};

/// A cloud's disk image boots from its own root partition, and a damaged one leaves nothing behind.
pub const QCOW2: Life = Life {
    name: "qcow2",
    shows: &["damaged_qcow2_is_refused", "qcow2_boots_from_its_root_partition"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let disk = make(rack.home().dir())?;
        story.show("damaged_qcow2_is_refused", || refused(&bennu, &disk))?;
        let machine = rack.machine(Firmware::Bios).memory(1536).install()?;
        story.show("qcow2_boots_from_its_root_partition", || boots(&bennu, machine, &disk))
    },
};

/// Type GUIDs: the EFI system partition, and an x86-64 root.
const TABLE: &str = "label: gpt\nsize=8M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
                     type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n";
const ROOT_AT: u64 = 9 << 20;

/// A disk as clouds have them: GPT, system partition, root in ext4, compressed qcow2. Its fstab names what a machine here
/// does not have.
fn make(dir: &Path) -> Result<PathBuf> {
    let [tree, root, raw, qcow2] = ["cloud", "cloud.ext4", "cloud.raw", "cloud.qcow2"].map(|name| dir.join(name));
    fs::create_dir_all(&tree)?;
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(images::images()?.debian_v1());
    // What the boot does not need, since the machine takes all of it over the wire.
    for left in ["./odd", "./var/lib/apt", "./var/cache", "*/perl*", "*/gconv", "*/zoneinfo", "*/hwdb.bin"] {
        tar.arg(format!("--exclude={left}"));
    }
    command::run(tar.arg("-C").arg(&tree))?;
    fs::create_dir_all(tree.join("boot/efi"))?;
    let table = "UUID=0ff1ce00-0000-4000-8000-000000000000 / ext4 rw,errors=remount-ro 0 1\n\
                 UUID=ABCD-EF01 /boot/efi vfat umask=0077 0 1\n";
    fs::write(tree.join("etc/fstab"), table)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-b", "4096", "-L", "cloudimg-rootfs", "-d"]).arg(&tree).arg(&root);
    command::run(mke2fs.arg("384M"))?;
    fs::remove_dir_all(&tree)?;
    fs::File::create(&raw)?.set_len(ROOT_AT + (384 << 20) + (1 << 20))?;
    let mut sfdisk = Command::new("sfdisk").arg("-q").arg(&raw).stdin(Stdio::piped()).spawn()?;
    sfdisk.stdin.take().context("sfdisk has no input")?.write_all(TABLE.as_bytes())?;
    ensure!(sfdisk.wait()?.success(), "sfdisk makes no table");
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", root.display())).arg(format!("of={}", raw.display()));
    command::run(dd.args(["bs=1M", "seek=9", "conv=notrunc,sparse", "status=none"]))?;
    fs::remove_file(root)?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-c", "-m", "2", "-O", "qcow2", "-o", "compression_type=zstd"]).arg(&raw).arg(&qcow2);
    command::run(&mut convert)?;
    fs::remove_file(raw)?;
    Ok(qcow2)
}

fn refused(bennu: &Appliance, disk: &Path) -> Result<String> {
    let before = stored(bennu)?;
    let whole = fs::read(disk)?;
    let cut = disk.with_extension("cut");
    fs::write(&cut, &whole[..whole.len() / 2])?;
    let refused = bennu.command(["image", "import", &format!("disk:{}", cut.display()), "cut:1"]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("of the disk image"), "half a disk image: {said}");
    let based = disk.with_extension("based");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(disk).arg(&based);
    command::run(&mut create)?;
    let refused = bennu.command(["image", "import", &format!("disk:{}", based.display()), "based:1"]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("backing file"), "with a backing file: {said}");
    let after = stored(bennu)?;
    ensure!(after == before, "the store held {before:?}, and holds {after:?}");
    Ok("half of it, and one that leans on another".to_owned())
}

/// The names of all files in the store's directories.
fn stored(bennu: &Appliance) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for place in ["blobs/sha256", "tmp"] {
        let place = bennu.state().join("images").join(place);
        let entries = fs::read_dir(&place).with_context(|| format!("cannot list {}", place.display()))?;
        names.extend(entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(names)
}

fn boots(bennu: &Appliance, mut machine: Machine, disk: &Path) -> Result<String> {
    let said = bennu.bennu(["image", "import", &format!("disk:{}", disk.display()), "cloud:12"])?;
    bennu.assign(&machine.mac(), "cloud:12")?;
    machine.power_on()?;
    let login = machine.login()?;
    let boot = checks::tells(bennu, &machine, "cloud:12")?;
    let mounts = machine.run("cat /proc/mounts")?;
    let root = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/")).context("nothing is mounted on /")?;
    ensure!(root.contains(" / overlay rw,"), "the root is: {root}");
    let below =
        machine.run("blkid -o value -s TYPE -s LABEL /dev/dm-0; cat /sys/block/dm-0/dm/name /sys/block/loop0/ro")?;
    ensure!(below == "cloudimg-rootfs\next4\nbennu-root-0\n1", "below the overlay is: {below}");
    let table = machine.run("cat /etc/fstab")?;
    ensure!(!table.contains("UUID="), "the image's own fstab counts: {table}");
    let failed = machine.run("systemctl list-units --failed --no-legend --plain | cut -d' ' -f1")?;
    ensure!(failed.is_empty(), "units failed: {failed}");
    Ok(format!("{}; {}", said.trim(), checks::remark(login, &boot)))
}
