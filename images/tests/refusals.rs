//! Sources that cannot become an image: one clear error each, and the store as it was.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::{
    import::{Acls, ImportError, Options, foreign, root_from_tar},
    store::{Store, StoreError},
};
use bennu_rules::{
    facts::Architecture,
    image::{Content, Digest},
};
use common::*;
use std::{collections::BTreeSet, fs, io::Read as _, thread::sleep, time::Duration};

/// Imports, expects a refusal whose text holds all `parts`, and that nothing stays behind.
fn refused(tar: &[u8], parts: &[&str]) {
    let (_keep, store) = store();
    let error = import(tar, &quick(), &store).expect_err("it was imported").to_string();
    for part in parts {
        assert!(error.contains(part), "'{part}' is missing in: {error}");
    }
    assert_clean(&store);
}

fn assert_clean(store: &Store) {
    store.collect(&BTreeSet::new()).unwrap();
    assert_eq!(fs::read_dir(store.dir().join("blobs/sha256")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
}

fn without(paths: &[&str]) -> Vec<u8> {
    let source = tree();
    for path in paths {
        let path = source.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    pack(source.path())
}

#[test]
fn a_source_that_lacks_something_says_what() {
    let modules = format!("usr/lib/modules/{RELEASE}");
    refused(&without(&["usr/lib/systemd/systemd"]), &["no root filesystem", "/sbin/init"]);
    refused(&without(&[&format!("boot/vmlinuz-{RELEASE}")]), &["no kernel", "linux-image-amd64"]);
    refused(&without(&[&modules]), &["has no modules", RELEASE]);
    refused(&without(&[&format!("{modules}/modules.dep")]), &["depmod --basedir ROOT", RELEASE]);
    refused(
        &without(&[&format!("{modules}/kernel/lib/helper.ko.zst")]),
        &["names 'kernel/lib/helper.ko.zst'", "depmod"],
    );
    refused(&without(&[&format!("{modules}/modules.builtin")]), &["squashfs", "to read the root"]);
    let source = tree();
    write(source.path().join(format!("boot/vmlinuz-{RELEASE}")), b"not a kernel");
    refused(&pack(source.path()), &["is no Linux kernel"]);
}

#[test]
fn an_init_that_the_kernel_arguments_name_is_the_one_that_counts() {
    let source = tree();
    fs::remove_file(source.path().join("usr/lib/systemd/systemd")).unwrap();
    write(source.path().join("opt/app"), b"#!app");
    let tar = pack(source.path());
    let (_keep, store) = store();
    let with = |cmdline: &str| import(&tar, &Options { cmdline: cmdline.to_owned(), ..quick() }, &store);
    with("quiet init=/opt/app").unwrap();
    let error = with("init=/opt/typo").unwrap_err().to_string();
    assert!(error.contains("init=/opt/typo") && error.contains("no such file"), "{error}");
    assert!(matches!(with("rdinit=/opt/app"), Err(ImportError::NoInit { .. })));
}

#[test]
fn what_is_no_tar_says_so() {
    refused(b"", &["not a tar", "empty"]);
    refused(&vec![b'x'; 5000], &["not a tar"]);
    refused(b"PK\x03\x04 and so on", &["zip archive"]);
    refused(&[0; 10240], &["no root filesystem"]);
    refused(b"BZh91AY&SY and so on", &["bzip2", "Decompress it first"]);
}

#[test]
fn a_cut_tar_names_its_last_good_entry() {
    let tar = pack(tree().path());
    let mut entries = 0;
    for cut in (0..tar.len() - 1024).step_by(1536).skip(1) {
        let (_keep, store) = store();
        let error = import(&tar[..cut], &quick(), &store).unwrap_err();
        assert!(error.to_string().contains("cut short"), "{cut}: {error}");
        entries += usize::from(error.to_string().contains("'./boot/"));
        assert_clean(&store);
    }
    assert!(entries > 3);
    // Without the closing blocks everything is there but the proof of it.
    refused(&tar[..tar.len() - 1024], &["cut short", "./usr/sbin/init"]);
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    refused(&packed[..packed.len() / 2], &["cut short"]);
}

#[test]
fn a_damaged_tar_names_the_place() {
    let mut tar = pack(tree().path());
    let at = tar.windows(10).position(|window| window == b"./boot/\0\0\0").unwrap();
    tar[at] = b'X';
    refused(&tar, &["damaged after '"]);
    let mut packed = zstd::encode_all(pack(tree().path()).as_slice(), 1).unwrap();
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0xa5);
    let (_keep, store) = store();
    assert!(import(&packed, &quick(), &store).is_err());
}

/// A tar of the base tree with an entry of the given header appended.
fn with_entry(path: &str, pax: &[(&str, &[u8])], change: impl Fn(&mut tar::Header)) -> Vec<u8> {
    let tar = pack(tree().path());
    let mut builder = tar::Builder::new(tar[..tar.len() - 1024].to_vec());
    builder.append_pax_extensions(pax.iter().copied()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(0);
    change(&mut header);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn entries_that_make_no_sense_are_named() {
    refused(&with_entry("a/../../etc/passwd", &[], |_| ()), &["'a/../../etc/passwd'", "'..'"]);
    refused(&with_entry("odd", &[], |h| h.set_entry_type(tar::EntryType::new(b'Z'))), &["within 'odd'", "type 'Z'"]);
    let link = |target: &'static str| {
        move |h: &mut tar::Header| {
            h.set_entry_type(tar::EntryType::Link);
            h.set_link_name(target).unwrap();
        }
    };
    refused(&with_entry("hard", &[], link("missing")), &["'hard'", "not in the tar"]);
    refused(&with_entry("hard", &[], link("etc")), &["'hard'", "directory"]);
    refused(&with_entry("hard", &[], link("hard")), &["'hard'", "itself"]);
    refused(&with_entry("long", &[("path", format!("x/{}", "n".repeat(256)).as_bytes())], |_| ()), &["256 bytes"]);
    refused(&with_entry("far", &[("path", "d/".repeat(2100).as_bytes())], |_| ()), &["path of"]);
    refused(
        &with_entry("brought", &[], |h| {
            h.set_entry_type(tar::EntryType::Link);
            h.set_link_name("etc/os-release").unwrap();
            h.set_size(5);
        }),
        &["within 'brought'", "hard link that brings contents"],
    );
}

#[test]
fn what_is_too_long_is_refused_when_it_comes_and_not_after_the_whole_tar() {
    let long = vec![b'v'; 65_537];
    let target = vec![b't'; 4_096];
    let symlink = |h: &mut tar::Header| h.set_entry_type(tar::EntryType::Symlink);
    for (tar, parts) in [
        (with_entry("heavy", &[("SCHILY.xattr.user.heavy", &long)], |_| ()), ["'/heavy'", "65537 bytes"]),
        (with_entry("link", &[("linkpath", &target)], symlink), ["'/link'", "4096 bytes"]),
        (with_entry("far", &[("path", "d/".repeat(2100).as_bytes())], |_| ()), ["'/d/d/", "4199 bytes"]),
        (with_entry("n", &[("path", format!("{}/x", "n".repeat(256)).as_bytes())], |_| ()), ["'/nnn", "256 bytes"]),
    ] {
        // Cut short: whoever reads on finds that first.
        refused(&tar[..tar.len() - 1024], &parts);
    }
}

#[test]
fn a_loop_of_symbolic_links_is_named() {
    let source = tree();
    std::os::unix::fs::symlink("b", source.path().join("a")).unwrap();
    std::os::unix::fs::symlink("a", source.path().join("b")).unwrap();
    let tar = pack(source.path());
    let mut builder = tar::Builder::new(tar[..tar.len() - 1024].to_vec());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, "a/x", std::io::empty()).unwrap();
    refused(&builder.into_inner().unwrap(), &["'a/x'", "loop of symbolic links"]);
}

#[test]
fn what_squashfs_cannot_hold_is_named() {
    refused(&with_entry("old", &[("mtime", b"-5")], |_| ()), &["'/old'", "time -5", "touch"]);
    refused(&with_entry("late", &[("mtime", b"4294967296.5")], |_| ()), &["'/late'", "1970 to 2106"]);
    refused(&with_entry("nobody", &[("uid", b"4294967295")], |_| ()), &["'/nobody'", "4294967295"]);
    refused(&with_entry("acl", &[("SCHILY.xattr.system.posix_acl_access", b"x")], |_| ()), &["'/acl'", "setfacl -b"]);
    refused(
        &with_entry("nfs", &[("SCHILY.xattr.system.nfs4_acl", b"x")], |_| ()),
        &["'/nfs'", "system.nfs4_acl", "setfattr -x"],
    );
    refused(
        &with_entry("dev", &[], |h| {
            h.set_entry_type(tar::EntryType::Block);
            h.set_device_major(4096).unwrap();
            h.set_device_minor(1).unwrap();
        }),
        &["'/dev'", "4096:1"],
    );
}

#[test]
fn access_lists_are_left_out_where_that_was_asked_or_where_systemd_makes_them_again() {
    // user::rwx, group::r-x, group:4:r-x, mask::rwx, other::---
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [(1u16, 7u16, !0u32), (4, 5, !0), (8, 5, 4), (0x10, 7, !0), (0x20, 0, !0)] {
        acl.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    let key = "SCHILY.xattr.system.posix_acl_access";
    for (path, acls) in [("var/log/journal/x", Acls::Refuse), ("srv", Acls::Drop)] {
        let tar = with_entry(path, &[(key, &acl)], |header| header.set_mode(0o670));
        let (_keep, store) = store();
        let notes = Notes::default();
        let options = Options { acls, ..quick() };
        let image = root_from_tar(tar.as_slice(), &options, &store, &notes).unwrap();
        assert!(notes.has(path), "{:?}", notes.0);
        let (_out, root) = unsquash(&image, &store);
        let line = &manifest(&root)[path];
        assert!(line.starts_with("100650 ") && line.ends_with("[]"), "{line}");
    }
}

#[test]
fn a_private_root_directory_is_noted() {
    let source = tree();
    run("chmod", &["700", source.path().to_str().unwrap()]);
    run("setfattr", &["-n", "user.root", "-v", "x", source.path().to_str().unwrap()]);
    let (_keep, store) = store();
    let notes = Notes::default();
    root_from_tar(pack(source.path()).as_slice(), &quick(), &store, &notes).unwrap();
    assert!(notes.has("mode is 0700") && notes.has("'user.root'"), "{:?}", notes.0);
}

/// A tmpfs, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", dir.path().to_str().unwrap()]);
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that another test starts holds our files until it is executed.
        run("umount", &["-l", self.0.path().to_str().unwrap()]);
    }
}

#[test]
fn a_full_disk_is_one_clear_error_wherever_it_happens() {
    let source = tree();
    let mut state = 88_172_645_463_325_252u64;
    let mut noise = || {
        // xorshift64: what no compressor makes smaller.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = (0..4_000_000).map(|_| noise()).collect();
    write(source.path().join("noise"), &noise);
    let tar = pack(source.path());
    // In the spool; in mksquashfs.
    for size in ["2m", "6m"] {
        let disk = SmallDisk::new(size);
        let store = Store::open(disk.0.path()).unwrap();
        let error = import(&tar, &quick(), &store).unwrap_err();
        assert!(matches!(error, ImportError::Store(StoreError::Full { .. })), "{size}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("is full") && text.contains("bennu image remove)"), "{text}");
        assert_clean(&store);
        // The store heals when there is space, which such a program may hold for a moment.
        let heals = (0..100).any(|_| store.put(b"small").inspect_err(|_| sleep(Duration::from_millis(10))).is_ok());
        assert!(heals, "{size}: {:?}", store.put(b"small"));
    }
}

#[test]
fn foreign_pairs_are_taken_as_they_are() {
    let (_keep, store) = store();
    let initrds = vec![&b"first"[..], b"second"];
    let image = foreign(kernel("6.1").as_slice(), initrds, "vga=788 priority=low", None, &store).unwrap();
    assert_eq!(image.config.architecture, Architecture::X86_64);
    assert_eq!(image.config.cmdline, "vga=788 priority=low");
    let Content::Foreign { kernel: blob, initrds, .. } = &image.config.content else { panic!() };
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), kernel("6.1"));
    let read = |digest: &Digest| {
        let mut text = String::new();
        store.open_blob(digest).unwrap().0.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(initrds.iter().map(|blob| read(&blob.digest)).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn foreign_sources_that_make_no_sense_are_refused() {
    let (_keep, store) = store();
    let none = Vec::<&[u8]>::new;
    let said = |result: Result<_, ImportError>| result.map(|_| ()).unwrap_err().to_string();
    let good = kernel("6.1");
    assert!(said(foreign(&b""[..], none(), "", None, &store)).contains("kernel is empty"));
    assert!(said(foreign(&b"#!/bin/sh"[..], none(), "", None, &store)).contains("neither a bzImage"));
    assert!(said(foreign(good.as_slice(), vec![&b""[..]], "", None, &store)).contains("initrd 1 is empty"));
    assert!(said(foreign(good.as_slice(), none(), "a\nb", None, &store)).contains("control character"));
    assert!(said(foreign(good.as_slice(), none(), &"x".repeat(2048), None, &store)).contains("2048 bytes"));
    let arm = foreign(good.as_slice(), none(), "", Some(Architecture::Arm64), &store);
    assert!(said(arm).contains("Arm64 was asked for"));
    assert!(foreign(&b"odd kernel"[..], none(), "", Some(Architecture::Riscv64), &store).is_ok());
}

#[test]
fn options_out_of_range_are_refused_before_the_source_is_read() {
    let (_keep, store) = store();
    let error = import(b"", &Options { level: 23, ..quick() }, &store).unwrap_err().to_string();
    assert!(error.contains("1 to 22"), "{error}");
    let error = import(b"", &Options { cmdline: "a\nb".into(), ..quick() }, &store).unwrap_err().to_string();
    assert!(error.contains("control character"), "{error}");
}

#[test]
fn a_source_that_fails_is_named() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the cable was pulled"))
        }
    }
    let (_keep, store) = store();
    let tar = pack(tree().path());
    let error = root_from_tar(tar[..20_000].chain(Failing), &quick(), &store, &()).unwrap_err().to_string();
    assert!(error.contains("the cable was pulled") && error.contains("'./"), "{error}");
    assert_clean(&store);
}
