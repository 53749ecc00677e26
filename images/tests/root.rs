//! Root filesystems made by the real mksquashfs and read back by the real unsquashfs.
//!
//! Odd files need root: devices, owners and `trusted.*` attributes. Without it these tests fail and say so.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::import::{Options, pack_directory, root_from_tar};
use bennu_rules::{facts::Architecture, image::Content};
use common::*;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
};

/// Everything a root filesystem may hold and an importer may lose.
fn odd_files(root: &Path) {
    let odd = root.join("odd");
    fs::create_dir_all(odd.join("empty")).unwrap();
    fs::create_dir(odd.join("sticky")).unwrap();
    fs::set_permissions(odd.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(odd.join("setgid")).unwrap();
    fs::set_permissions(odd.join("setgid"), fs::Permissions::from_mode(0o2750)).unwrap();
    write(odd.join("setuid"), b"program");
    fs::set_permissions(odd.join("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    write(odd.join("no-mode"), b"secret");
    fs::set_permissions(odd.join("no-mode"), fs::Permissions::from_mode(0o0)).unwrap();
    write(odd.join("empty-file"), b"");
    let path = |name: &str| odd.join(name).display().to_string();

    write(odd.join("capable"), b"ping");
    run("setcap", &["cap_net_raw+ep", &path("capable")]);
    write(odd.join("attributes"), b"labelled");
    for (key, value) in [
        ("user.plain", b"value".to_vec()),
        ("user.binary", b"\0\n12 path=/evil\n\xff=\0".to_vec()),
        ("user.empty", Vec::new()),
        ("user.long", vec![b'l'; 3000]),
        ("trusted.note", b"root only".to_vec()),
        ("security.selinux", b"system_u:object_r:etc_t:s0\0".to_vec()),
    ] {
        xattr::set(odd.join("attributes"), key, &value).unwrap();
    }
    xattr::set(odd.join("sticky"), "user.directory", b"too").unwrap();
    symlink("attributes", odd.join("link")).unwrap();
    xattr::set(odd.join("link"), "trusted.on-link", b"itself").unwrap();

    run("mknod", &["-m", "600", &path("null"), "c", "1", "3"]);
    run("mknod", &["-m", "660", &path("disk"), "b", "259", "524287"]);
    run("mknod", &["-m", "644", &path("whiteout"), "c", "0", "0"]);
    run("mkfifo", &["-m", "640", &path("fifo")]);

    fs::hard_link(odd.join("setuid"), odd.join("a-second-name")).unwrap();
    fs::hard_link(odd.join("setuid"), root.join("usr/bin/third-name")).unwrap();
    fs::hard_link(odd.join("fifo"), odd.join("fifo-again")).unwrap();
    fs::hard_link(odd.join("link"), odd.join("link-again")).unwrap();
    fs::hard_link(odd.join("attributes"), odd.join("attributes-again")).unwrap();

    write(odd.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"bytes");
    write(odd.join("new\nline and space'\"\\"), b"quoted");
    write(odd.join("-rf"), b"dash");
    write(odd.join("n".repeat(255)), b"longest name");
    let deep = (0..30).fold(odd.clone(), |path, at| path.join(format!("directory-{at:04}")));
    write(deep.join("deep"), b"a path of more than 400 bytes");
    symlink("t".repeat(4000), odd.join("long-target")).unwrap();
    symlink("/nowhere/../at all", odd.join("dangling")).unwrap();

    for (name, uid, gid) in
        [("u65536", 65_536, 100_000), ("u3m", 3_000_000, 2_097_152), ("u4g", u32::MAX - 1, u32::MAX - 1)]
    {
        write(odd.join(name), name);
        std::os::unix::fs::chown(odd.join(name), Some(uid), Some(gid)).unwrap();
    }
    for (name, time) in
        [("t0", "@0"), ("t2038", "@2147483648"), ("t2106", "@4294967295"), ("fraction", "@1500000000.75")]
    {
        write(odd.join(name), name);
        run("touch", &["-d", time, &path(name)]);
    }

    let sparse = File::create(odd.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"in the middle", (20 << 20) + 5).unwrap();
    sparse.write_all_at(b"near the end", (40 << 20) - 4096).unwrap();
    File::create(odd.join("all-hole")).unwrap().set_len(1 << 20).unwrap();
    write(odd.join("zeros"), vec![0; 300_000]);
    let mut large: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    large[1_000_000..2_000_000].fill(0);
    write(odd.join("large"), &large);
    write(odd.join("same-contents"), &large);
    run("touch", &["-d", "@1600000000", &path("sticky"), odd.to_str().unwrap()]);
}

#[test]
fn everything_survives() {
    let source = tree();
    odd_files(source.path());
    let (_keep, store) = store();
    let image = import(&pack(source.path()), &quick(), &store).unwrap();
    let (_out, root) = unsquash(&image, &store);
    let (left, right) = (manifest(source.path()), manifest(&root));
    assert!(left.len() > 90, "{} files", left.len());
    assert_same(&left, &right);
}

#[test]
fn the_config_says_what_it_is() {
    let source = tree();
    let (_keep, store) = store();
    let options = Options { cmdline: " console=ttyS1 quiet ".to_owned(), ..quick() };
    let image = import(&pack(source.path()), &options, &store).unwrap();
    let config = &image.config;
    assert_eq!(config.architecture, Architecture::X86_64);
    assert_eq!(config.cmdline, "console=ttyS1 quiet");
    assert_eq!(config.os.as_deref(), Some("Test Linux 1"));
    assert_eq!(config.tools.keys().collect::<Vec<_>>(), ["bennu", "mksquashfs"]);
    let Content::Root { kernel: blob, kernel_release, .. } = &config.content else { panic!("{config:?}") };
    assert_eq!(kernel_release, RELEASE);
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), kernel(RELEASE));
    let manifest = fs::read(store.blob_path(&image.digest)).unwrap();
    assert_eq!(manifest.len() as u64, image.manifest_size);
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.bennu.image.v1");
    assert_eq!(manifest["config"]["digest"], image.config_blob.digest.to_string());
    let titles: Vec<_> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| &layer["annotations"]["org.opencontainers.image.title"])
        .collect();
    assert_eq!(titles, ["vmlinuz", "modules.img", "root.squashfs", "root.verity"]);
    for (layer, blob) in manifest["layers"].as_array().unwrap().iter().zip(config.blobs()) {
        assert_eq!(
            (layer["digest"].as_str().unwrap(), layer["size"].as_u64().unwrap()),
            (blob.digest.to_string().as_str(), blob.size)
        );
        assert_eq!(store.blob_size(&blob.digest).unwrap(), blob.size);
    }
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(store.blob_path(&image.config_blob.digest)).unwrap()).unwrap();
    let again: bennu_rules::image::ImageConfig = serde_json::from_value(written["vnd.bennu.image.v1"].clone()).unwrap();
    assert_eq!(&again, config);
}

#[test]
fn the_same_tree_gives_the_same_digest() {
    let (one, two) = (tree(), tree());
    for root in [&one, &two] {
        odd_files(root.path());
        // Links and parents are written after the fixture's own times.
        let all = root.path().display().to_string();
        run("find", &[&all, "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"]);
    }
    let digest = |root: &Path, processors, memory| {
        let (_keep, store) = store();
        import(&pack(root), &Options { processors, memory, ..quick() }, &store).unwrap().digest
    };
    let first = digest(one.path(), 1, 64 << 20);
    assert_eq!(first, digest(two.path(), 2, 256 << 20));
    assert_eq!(first, digest(one.path(), 4, 1 << 30));
}

#[test]
fn every_way_to_write_a_tar_gives_the_same_digest() {
    let source = tree();
    let root = source.path();
    let file = File::create(root.join("sparse")).unwrap();
    file.set_len(30 << 20).unwrap();
    // More stretches than an old header holds, so that its map goes on in blocks of its own.
    for at in 0..60 {
        file.write_all_at(b"data", at * (500 << 10) + 100).unwrap();
    }
    write(root.join("d".repeat(120)).join("e".repeat(120)), b"long");
    fs::hard_link(root.join("sparse"), root.join("a-link-that-sorts-first")).unwrap();
    let all = root.display().to_string();
    run("find", &[&all, "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"]);
    let (_keep, store) = store();
    let digest = |tar: &[u8]| import(tar, &quick(), &store).unwrap().digest;
    let ours = digest(&pack(root));
    for arguments in [
        &["--format=pax"][..],
        &["--format=gnu"],
        &["--format=gnu", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=1.0"],
        &["--format=pax", "-z"],
        &["--format=pax", "-J"],
        &["--format=pax", "--zstd"],
        &["--format=gnu", "--absolute-names", "--transform=s,^\\.,/.,"],
    ] {
        let mut all: Vec<&str> = vec!["--numeric-owner", "-C", root.to_str().unwrap(), "-cf", "-"];
        all.extend(arguments);
        all.push(".");
        assert_eq!(digest(&run("tar", &all)), ours, "{arguments:?}");
    }
}

#[test]
fn a_tree_that_changes_while_it_is_packed_is_refused() {
    let error = pack_directory(Path::new("/proc/sys/kernel/random"), Vec::new(), &()).unwrap_err().to_string();
    assert!(error.contains("changed while it was read"), "{error}");
    let error = pack_directory(Path::new("/etc/hostname"), Vec::new(), &()).unwrap_err().to_string();
    assert!(error.contains("is no directory"), "{error}");
}

#[test]
fn a_socket_is_left_out_with_a_note() {
    let source = tree();
    let _socket = std::os::unix::net::UnixListener::bind(source.path().join("sock")).unwrap();
    let (notes, mut tar) = (Notes::default(), Vec::new());
    pack_directory(source.path(), &mut tar, &notes).unwrap();
    assert!(notes.has("sock' is left out"));
    let mut archive = tar::Archive::new(tar.as_slice());
    assert!(archive.entries().unwrap().all(|entry| !entry.unwrap().path_bytes().ends_with(b"sock")));
}

#[test]
fn an_enforcing_selinux_is_noted() {
    let source = tree();
    let said = |config: &str, options: Options| {
        write(source.path().join("etc/selinux/config"), config);
        let (_keep, store) = store();
        let notes = Notes::default();
        root_from_tar(pack(source.path()).as_slice(), &options, &store, &notes).unwrap();
        notes.0.into_inner().unwrap().iter().filter(|note| note.contains("enforcing=0")).count()
    };
    let with = |cmdline: &str| Options { cmdline: cmdline.to_owned(), ..quick() };
    let enforcing = "# SELINUX= can be\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
    assert_eq!(said(enforcing, quick()), 1);
    assert_eq!(said(enforcing, with("quiet enforcing=0")), 0);
    assert_eq!(said("#SELINUX=enforcing\nSELINUX=permissive\n", quick()), 0);
    assert_eq!(said(enforcing, Options { kernel_only: true, ..quick() }), 0);
}

#[test]
fn a_sparse_file_travels_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = File::create(dir.path().join("lastlog")).unwrap();
    file.seek(SeekFrom::Start(1 << 40)).unwrap();
    file.write_all(b"end").unwrap();
    assert!(pack(dir.path()).len() < 64 << 10);
}
