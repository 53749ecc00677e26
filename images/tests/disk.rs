//! Disk images as QEMU, sfdisk and mke2fs make them, and as nobody should.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bennu_images::{
    disk::{Disk, Role, partitions},
    import::{self, ImportError, Imported},
    store::Store,
};
use bennu_rules::image::{Content, FileSystem};
use common::{Notes, quick, run, store};
use proptest::prelude::*;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// A disk of 24 MiB and a bit with data of every kind: noise, text, holes, stretches of zeros.
fn raw(dir: &Path) -> PathBuf {
    let path = dir.join("raw");
    let file = File::create(&path).unwrap();
    file.set_len((24 << 20) + 512 * 3).unwrap();
    let mut state = 7_u32;
    let noise: Vec<u8> = (0..300_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    file.write_all_at(&noise, 0).unwrap();
    file.write_all_at(&b"compressible ".repeat(100_000), 3 << 20).unwrap();
    file.write_all_at(&noise, (9 << 20) + 77).unwrap();
    file.write_all_at(b"the end", (24 << 20) + 512 * 3 - 7).unwrap();
    path
}

fn convert(from: &Path, to: &Path, options: &[&str]) {
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], options, &[from, to]].concat());
}

fn bytes_of(disk: &Disk) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; disk.size() as usize];
    // In pieces of a size that fits no cluster.
    for (piece, at) in bytes.chunks_mut(300_007).zip((0..).step_by(300_007)) {
        disk.read_exact_at(piece, at)?;
    }
    Ok(bytes)
}

#[test]
fn qcow2_gives_the_disk_that_qemu_put_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw(dir.path());
    let expected = fs::read(&raw).unwrap();
    assert!(bytes_of(&Disk::open(File::open(&raw).unwrap()).unwrap()).unwrap() == expected, "raw");
    for options in [
        &[][..],
        &["-o", "compat=0.10"],
        &["-c", "-o", "compat=0.10"],
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "cluster_size=2M,compression_type=zstd"],
        &["-S", "0"],
        &["-o", "preallocation=metadata"],
    ] {
        let qcow2 = dir.path().join("qcow2");
        convert(&raw, &qcow2, options);
        let disk = Disk::open(File::open(&qcow2).unwrap()).unwrap();
        assert!(matches!(disk, Disk::Qcow2(_)));
        assert!(bytes_of(&disk).unwrap() == expected, "{options:?}");
        assert!(disk.read_exact_at(&mut [0; 8], expected.len() as u64 - 7).is_err());
    }
}

#[test]
fn half_a_qcow2_is_not_taken_for_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw(dir.path());
    for options in [&[][..], &["-c"], &["-c", "-m", "2", "-o", "compression_type=zstd"]] {
        let qcow2 = dir.path().join("qcow2");
        convert(&raw, &qcow2, options);
        let whole = fs::metadata(&qcow2).unwrap().len();
        for length in [0, 3, 60, 80, 600, whole / 3, whole / 2, whole - (64 << 10)] {
            let cut = dir.path().join("cut");
            fs::copy(&qcow2, &cut).unwrap();
            File::options().write(true).open(&cut).unwrap().set_len(length).unwrap();
            let read =
                Disk::open(File::open(&cut).unwrap()).map(|disk| (matches!(disk, Disk::Raw { .. }), bytes_of(&disk)));
            assert!(!matches!(read, Ok((false, Ok(_)))), "{options:?} cut at {length} of {whole} was read");
        }
    }
}

#[test]
fn images_that_lean_on_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw(dir.path());
    let [based, split, locked, vmdk] = ["based", "split", "locked", "vmdk"].map(|name| dir.path().join(name));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &path(&raw), &path(&based)]);
    let data = format!("data_file={}", path(&dir.path().join("data")));
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &data, &path(&split), "8M"]);
    // Making a key takes qemu-img a while, and some machines too fast a clock for it: the header says it all.
    convert(&raw, &locked, &[]);
    File::options().write(true).open(&locked).unwrap().write_all_at(&2_u32.to_be_bytes(), 32).unwrap();
    run("qemu-img", &["convert", "-O", "vmdk", &path(&raw), &path(&vmdk)]);
    for (file, says) in [
        (&based, "leans on a backing file, which is never followed"),
        (&split, "keeps its data in another file"),
        (&locked, "is encrypted"),
        (&vmdk, "is a VMDK"),
    ] {
        let error = Disk::open(File::open(file).unwrap()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("qemu-img convert"), "{error}");
    }
}

/// A disk with these partitions, in sfdisk's words.
fn partitioned(dir: &Path, script: &str, sector: u32) -> Disk {
    let [path, words] = ["table", "words"].map(|name| dir.join(name));
    let file = File::create(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    fs::write(&words, script).unwrap();
    // sfdisk takes the sectors of the host, and fdisk those it is told.
    let mut fdisk = Command::new("fdisk");
    fdisk.args(["-b", &sector.to_string()]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = fdisk.spawn().expect("fdisk is installed by `make setup` (fdisk)");
    write!(child.stdin.take().unwrap(), "I\n{}\nw\n", words.display()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    Disk::open(File::open(&path).unwrap()).unwrap()
}

const GPT: &str = "label: gpt\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\n\
                   size=8M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
                   size=8M, type=BC13C2FF-59E6-4262-A352-B275FD6F7172\n\
                   size=16M, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\nsize=4M\n";

#[test]
fn tables_are_read_as_sfdisk_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let told = |disk: &Disk| -> Vec<(u32, u64, u64, Role)> {
        let found = partitions(disk).unwrap();
        found.into_iter().map(|part| (part.number, part.start >> 20, part.length >> 20, part.role)).collect()
    };
    let x86 = Role::Root(bennu_rules::facts::Architecture::X86_64);
    let expected = [
        (1, 1, 1, Role::Other),
        (2, 2, 8, Role::System),
        (3, 10, 8, Role::Boot),
        (4, 18, 16, x86),
        (5, 34, 4, Role::Unknown),
    ];
    assert_eq!(told(&partitioned(dir.path(), GPT, 512)), expected);
    assert_eq!(told(&partitioned(dir.path(), GPT, 4096)), expected, "sectors of 4096 bytes");
    let mbr = "label: dos\nsize=8M, type=ef\nsize=40M, type=5\nsize=4M, type=83\nsize=4M, type=82\nsize=4M, type=83\nsize=6M, type=83\n";
    let found = told(&partitioned(dir.path(), mbr, 512));
    let numbers: Vec<(u32, u64, Role)> = found.iter().map(|part| (part.0, part.2, part.3)).collect();
    let unknown = Role::Unknown;
    assert_eq!(numbers, [(1, 8, Role::System), (3, 4, unknown), (4, 4, Role::Other), (5, 4, unknown), (6, 6, unknown)]);
    let none = partitioned(dir.path(), "label: dos\n", 512);
    assert_eq!(told(&none), [(0, 0, 64, Role::Unknown)]);
}

#[test]
fn a_damaged_table_is_mended_by_its_copy_and_two_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = partitions(&partitioned(dir.path(), GPT, 512)).unwrap();
    let path = dir.path().join("table");
    let file = File::options().write(true).open(&path).unwrap();
    let disk = || Disk::open(File::open(&path).unwrap()).unwrap();
    file.write_all_at(b"x", 1024 + 40).unwrap();
    assert_eq!(partitions(&disk()).unwrap(), whole, "the copy at the end");
    file.write_all_at(b"x", (64 << 20) - 512 + 40).unwrap();
    let error = partitions(&disk()).unwrap_err().to_string();
    assert!(error.contains("both damaged"), "{error}");
    // Cut, so that partitions lie outside.
    let mbr = partitioned(dir.path(), "label: dos\nsize=40M, type=83\n", 512);
    assert_eq!(partitions(&mbr).unwrap().len(), 1);
    File::options().write(true).open(&path).unwrap().set_len(20 << 20).unwrap();
    let error = partitions(&disk()).unwrap_err().to_string();
    assert!(error.contains("partition 1 has") && error.contains("is cut"), "{error}");
}

/// A disk image with a root made of [`common::tree`]; `options` are mke2fs's.
fn bootable(dir: &Path, options: &[&str]) -> PathBuf {
    let tree = common::tree();
    let [root, disk] = ["root", "disk"].map(|name| dir.join(name));
    let (tree, path) = (tree.path().to_str().unwrap(), root.to_str().unwrap());
    run("mke2fs", &[&["-q", "-t", "ext4", "-F", "-d", tree], options, &[path, "16M"]].concat());
    let _ = partitioned(dir, GPT, 512);
    fs::rename(dir.join("table"), &disk).unwrap();
    File::options().write(true).open(&disk).unwrap().write_all_at(&fs::read(&root).unwrap(), 18 << 20).unwrap();
    disk
}

fn import_disk(disk: &Path, store: &Store, notes: &Notes) -> Result<Imported, ImportError> {
    import::disk(File::open(disk).unwrap(), &quick(), store, notes)
}

fn assert_clean(store: &Store) {
    assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0, "scratch files are left");
}

#[test]
fn the_root_partition_becomes_the_root_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let (_keep, store) = store();
    let notes = Notes::default();
    let image = import_disk(&disk, &store, &notes).unwrap();
    let Content::Root { root, filesystem, verity, kernel_release, .. } = &image.config.content else { panic!() };
    assert_eq!((*filesystem, kernel_release.as_str()), (FileSystem::Ext4, common::RELEASE));
    assert_eq!(image.config.os.as_deref(), Some("Test Linux 1"));
    assert!(verity.is_some() && notes.has("the root is partition 4, an ext4 of 16.0 MiB"));
    assert!(fs::read(store.blob_path(&root.digest)).unwrap() == fs::read(dir.path().join("root")).unwrap());
    let modules = common::initrd(&image, &store);
    let base = format!("lib/modules/{}/kernel", common::RELEASE);
    for wanted in ["fs/ext4/ext4.ko", "crypto/crc32c_generic.ko", "drivers/net/ethernet/nic.ko"] {
        assert!(modules.contains_key(&format!("{base}/{wanted}")), "{wanted} is not in the initrd");
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(store.blob_path(&image.digest)).unwrap()).unwrap();
    assert_eq!(manifest["layers"][2]["mediaType"], "application/vnd.bennu.image.root.v1+ext4");
    assert_clean(&store);
    // However it is wrapped.
    for (name, arguments) in [("qcow2", "qemu-img convert -c -O qcow2 IN OUT"), ("zst", "zstd -q -1 IN -o OUT")] {
        let wrapped = dir.path().join(name);
        let line = arguments.replace("IN", disk.to_str().unwrap()).replace("OUT", wrapped.to_str().unwrap());
        run("sh", &["-c", &line]);
        assert_eq!(import_disk(&wrapped, &store, &notes).unwrap().digest, image.digest, "{name}");
    }
    // Without a table the disk is the file system.
    assert_eq!(import_disk(&dir.path().join("root"), &store, &notes).unwrap().digest, image.digest);
}

#[test]
fn a_kernel_on_the_boot_partition_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let name = format!("vmlinuz-{}", common::RELEASE);
    let root = dir.path().join("root");
    run("debugfs", &["-w", "-R", &format!("rm /boot/{name}"), root.to_str().unwrap()]);
    let boot = tempfile::tempdir().unwrap();
    common::write(boot.path().join(&name), common::kernel(common::RELEASE));
    let part = dir.path().join("boot");
    run("mke2fs", &["-q", "-t", "ext4", "-d", boot.path().to_str().unwrap(), part.to_str().unwrap(), "8M"]);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&fs::read(&root).unwrap(), 18 << 20).unwrap();
    let (_keep, store) = store();
    let error = import_disk(&disk, &store, &Notes::default()).unwrap_err().to_string();
    assert!(error.contains("the source has no kernel"), "{error}");
    file.write_all_at(&fs::read(&part).unwrap(), 10 << 20).unwrap();
    let notes = Notes::default();
    import_disk(&disk, &store, &notes).unwrap();
    assert!(notes.has("the kernel is looked for in partition 3 too, as /boot"));
}

/// An EFI system partition with these files.
fn system_partition(dir: &Path, size: &str, kind: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let path = dir.join("esp");
    let _ = fs::remove_file(&path);
    let (image, tree) = (path.to_str().unwrap(), tempfile::tempdir().unwrap());
    run("truncate", &["-s", size, image]);
    run("mkfs.vfat", &["-F", kind, "-s", "1", image]);
    files.iter().for_each(|(name, bytes)| common::write(tree.path().join(name), bytes));
    for entry in fs::read_dir(tree.path()).unwrap() {
        run("mcopy", &["-s", "-i", image, entry.unwrap().path().to_str().unwrap(), "::/"]);
    }
    fs::read(path).unwrap()
}

/// A unified kernel image with the sections that matter here.
fn unified(release: Option<&str>) -> Vec<u8> {
    let kernel = common::kernel(common::RELEASE);
    let mut sections = vec![(".linux", kernel.as_slice()), (".cmdline", b"root=/dev/sda3 quiet\n".as_slice())];
    sections.extend(release.map(|release| (".uname", release.as_bytes())));
    sections.push((".initrd", b"an initrd"));
    sections.push((".osrel", b"PRETTY_NAME=\"Unified 1\"\n"));
    let mut bytes = vec![0; 0x40];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes.extend(b"PE\0\0\x64\x86");
    bytes.extend((sections.len() as u16).to_le_bytes());
    bytes.resize(0x58, 0);
    let mut start = 0x58 + 40 * sections.len();
    for (name, content) in &sections {
        let at = bytes.len();
        bytes.resize(at + 40, 0);
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in [(8, content.len()), (16, content.len()), (20, start)] {
            bytes[at + field..at + field + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        start += content.len();
    }
    sections.iter().for_each(|(_, content)| bytes.extend_from_slice(content));
    bytes
}

#[test]
fn a_kernel_on_the_system_partition_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let root = dir.path().join("root");
    run("debugfs", &["-w", "-R", &format!("rm /boot/vmlinuz-{}", common::RELEASE), root.to_str().unwrap()]);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&fs::read(&root).unwrap(), 18 << 20).unwrap();
    let entry = format!("0123456789abcdef0123456789abcdef/{}/linux", common::RELEASE);
    let (_keep, store) = store();
    let mut found = Vec::new();
    for (size, kind, name, kernel) in [
        ("2M", "12", "EFI/Linux/A unified image with a long name.efi", unified(Some(common::RELEASE))),
        ("8M", "16", "EFI/Linux/linux.efi", unified(None)),
        ("40M", "32", entry.as_str(), common::kernel(common::RELEASE)),
    ] {
        let esp = system_partition(dir.path(), size, kind, &[("EFI/BOOT/BOOTX64.EFI", vec![1; 5000]), (name, kernel)]);
        let disk = if kind == "32" { larger(dir.path(), &root) } else { disk.clone() };
        File::options().write(true).open(&disk).unwrap().write_all_at(&esp, 2 << 20).unwrap();
        let notes = Notes::default();
        let image = import_disk(&disk, &store, &notes).unwrap();
        let Content::Root { kernel, .. } = &image.config.content else { panic!() };
        assert!(notes.has("in partition 2 too, as /boot/efi"), "{name}");
        assert!(fs::read(store.blob_path(&kernel.digest)).unwrap() == common::kernel(common::RELEASE), "{name}");
        found.push(image.digest);
    }
    assert!(found.iter().all(|digest| *digest == found[0]), "where the kernel lay makes no difference");
}

/// A disk whose system partition has room for a FAT32.
fn larger(dir: &Path, root: &Path) -> PathBuf {
    let script = "label: gpt\nsize=1M\nsize=42M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nsize=16M\n";
    let _ = partitioned(dir, script, 512);
    let disk = dir.join("larger");
    fs::rename(dir.join("table"), &disk).unwrap();
    File::options().write(true).open(&disk).unwrap().write_all_at(&fs::read(root).unwrap(), 44 << 20).unwrap();
    disk
}

#[test]
fn a_unified_image_boots_whatever_the_firmware() {
    let (_keep, store) = store();
    let program = unified(Some("6.1"));
    let image = import::efi(program.as_slice(), "console=ttyS1", &store, &Notes::default()).unwrap();
    assert_eq!(image.config.cmdline, "root=/dev/sda3 quiet console=ttyS1");
    assert_eq!(image.config.os.as_deref(), Some("Unified 1"));
    let read = |blob: &bennu_rules::image::BlobRef| fs::read(store.blob_path(&blob.digest)).unwrap();
    let Content::Foreign { kernel, initrds, efi: Some(efi), .. } = &image.config.content else { panic!() };
    assert!(read(kernel) == common::kernel(common::RELEASE) && read(efi) == program);
    assert_eq!(initrds.iter().map(read).collect::<Vec<_>>(), [b"an initrd"]);
    let mut other = unified(None);
    other[0x58..0x5e].copy_from_slice(b".text\0");
    let only = import::efi(other.as_slice(), "", &store, &Notes::default()).unwrap();
    assert!(matches!(only.config.content, Content::Program { .. }));
    let none = Vec::<&[u8]>::new;
    let kernel = common::kernel("6.1");
    let pair = import::foreign_with_efi(kernel.as_slice(), none(), program.as_slice(), "", &store).unwrap();
    assert!(matches!(pair.config.content, Content::Foreign { efi: Some(_), .. }));
    for (program, says) in [
        (b"#!/bin/sh".to_vec(), "no EFI program"),
        (program[..program.len() - 1].to_vec(), "its section '.osrel' ends at"),
        (Vec::new(), "is empty"),
    ] {
        let error = import::efi(program.as_slice(), "", &store, &Notes::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let error = import::foreign_with_efi(kernel.as_slice(), none(), program.as_slice(), "", &store).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_clean(&store);
}

#[test]
fn what_cannot_be_a_root_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (_keep, store) = store();
    let refused = |disk: &Path| import_disk(disk, &store, &Notes::default()).unwrap_err().to_string();
    let small = refused(&bootable(dir.path(), &["-b", "1024"]));
    assert!(
        small.contains("partition 4 is an ext4 with blocks of 1024 bytes") && small.contains("mke2fs -b 4096"),
        "{small}"
    );
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let file = File::options().write(true).open(&disk).unwrap();
    // Magic numbers of others in the place of ext4's.
    file.write_all_at(&[0, 0], (18 << 20) + 0x438).unwrap();
    file.write_all_at(b"XFSB", 18 << 20).unwrap();
    let xfs = refused(&disk);
    assert!(
        xfs.contains("partition 4 is XFS, whose files are not read here") && xfs.contains("tar -C MOUNTPOINT"),
        "{xfs}"
    );
    // A file system larger than its partition.
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&5000_u32.to_le_bytes(), (18 << 20) + 1024 + 4).unwrap();
    let larger = refused(&disk);
    assert!(larger.contains("an ext4 of 5000 blocks of 4096 bytes") && larger.contains("is cut"), "{larger}");
    assert!(refused(Path::new("/dev/null")).contains("is empty"));
    assert_eq!(fs::read_dir(store.dir().join("blobs/sha256")).unwrap().count(), 0, "blobs are left");
    assert_clean(&store);
}

#[test]
fn a_disk_that_was_not_unmounted_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let root = dir.path().join("root");
    // A transaction that was never carried out.
    let words = dir.path().join("words");
    fs::write(&words, format!("jo -c -v 3\njw -b 3000 {}\njc\n", disk.display())).unwrap();
    run("debugfs", &["-w", "-f", words.to_str().unwrap(), root.to_str().unwrap()]);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&fs::read(&root).unwrap(), 18 << 20).unwrap();
    let (_keep, store) = store();
    let notes = Notes::default();
    import_disk(&disk, &store, &notes).unwrap();
    assert!(notes.has("it was not unmounted"));
}

/// The same for all cases of the test below.
static BASE: LazyLock<(tempfile::TempDir, [PathBuf; 2])> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let disk = bootable(dir.path(), &["-b", "4096"]);
    let files = [("EFI/Linux/linux.efi", unified(None)), ("EFI/a/b", vec![1; 9000])];
    let esp = system_partition(dir.path(), "8M", "16", &files);
    File::options().write(true).open(&disk).unwrap().write_all_at(&esp, 2 << 20).unwrap();
    let qcow2 = dir.path().join("qcow2");
    convert(&disk, &qcow2, &["-c"]);
    (dir, [disk, qcow2])
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever stands in a disk's tables and superblocks, an import ends, with an image or with a reason.
    #[test]
    fn no_disk_breaks_the_import(
        changes in proptest::collection::vec((0_usize..9, 0_u64..4096, prop_oneof![0_u32..20, any::<u32>()]), 1..5),
        packed in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("disk");
        fs::copy(&BASE.1[usize::from(packed)], &target).unwrap();
        let file = File::options().write(true).open(&target).unwrap();
        for (place, offset, value) in changes {
            // Table, its copy, and of the root: superblock, group descriptors, bitmaps, inodes. In a qcow2: its tables.
            let root = 18 << 20;
            let places = [0, (64 << 20) - 4096, root, root + 4096, root + 8192, root + (1 << 20)];
            // Of FAT: boot sector and table, the directories behind it, and the first files.
            let fat = [2 << 20, (2 << 20) + 32_768, (2 << 20) + 49_152];
            let start = places.into_iter().chain(fat).nth(place).unwrap_or_default();
            let start = if packed { place as u64 * 65_536 } else { start };
            file.write_all_at(&value.to_le_bytes(), start + offset).unwrap();
        }
        let (_keep, store) = store();
        if let Err(error) = import_disk(&target, &store, &Notes::default()) {
            prop_assert!(error.to_string().len() > 20);
        }
        assert_clean(&store);
    }
}
