//! Discs as genisoimage makes them, and as nobody should.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bennu_images::{
    import::{self, ImportError, Imported, Options},
    iso::{Disc, Part, find},
    store::Store,
};
use bennu_rules::image::Content;
use common::{Notes, run, store, write};
use proptest::prelude::*;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

const NAMES: [&str; 3] = ["-R", "-J", "-RJ"];

fn made(dir: &Path, tree: &Path, options: &[&str]) -> PathBuf {
    let out = dir.join("iso");
    let arguments = [&["-quiet", "-V", "TEST"], options, &["-o", out.to_str().unwrap(), tree.to_str().unwrap()]];
    run("genisoimage", &arguments.concat());
    out
}

/// A live disc of Debian's kind; `extra` bytes make its root longer than a sector.
fn debian(tree: &Path) -> Vec<u8> {
    let root: Vec<u8> = (0..100_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    write(tree.join("live/filesystem.squashfs"), &root);
    write(tree.join("live/vmlinuz-6.1.0-9-test"), common::kernel("6.1.0-9-test"));
    write(tree.join("live/vmlinuz-6.1.0-10-test"), common::kernel("6.1.0-10-test"));
    write(tree.join("live/initrd.img-6.1.0-9-test"), b"old");
    write(tree.join("live/initrd.img-6.1.0-10-test"), b"new");
    write(tree.join(".disk/info"), "Debian Test Live\n");
    root
}

fn import_iso(iso: &Path, store: &Store, notes: &Notes) -> Result<Imported, ImportError> {
    let options = Options { cmdline: "quiet".into(), ..Options::default() };
    import::iso(File::open(iso).unwrap(), &options, store, notes)
}

#[test]
fn names_of_every_kind_lead_to_the_same_bytes() {
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = b"some text\n".repeat(500);
    write(tree.path().join("a/long directory name/Überlänge.txt"), &text);
    write(tree.path().join("a/b/c/d/e/f/g/h/i/j/deep"), &text);
    write(tree.path().join("README.TXT"), &text);
    for number in 0..300 {
        write(tree.path().join(format!("many/a file with quite a long name, number {number}")), b"x");
    }
    std::os::unix::fs::symlink("../README.TXT", tree.path().join("a/link")).unwrap();
    for options in NAMES {
        // Rock Ridge moves what lies too deep, unless the standard is set aside.
        for deep in [&[][..], &["-D"]] {
            let iso = made(dir.path(), tree.path(), &[&[options][..], deep].concat());
            let disc = Disc::open(File::open(iso).unwrap()).unwrap();
            let read = |path: &str| disc.text(path, 1 << 20).map(String::into_bytes);
            assert_eq!(read("a/long directory name/Überlänge.txt").as_ref(), Some(&text), "{options} {deep:?}");
            assert_eq!(disc.paths().filter(|path| path.starts_with("many/a file")).count(), 300, "{options}");
            if options.contains('R') {
                assert_eq!(read("a/b/c/d/e/f/g/h/i/j/deep").as_ref(), Some(&text), "{options} {deep:?}");
                assert_eq!(read("a/link").as_ref(), Some(&text), "{options}");
            }
            assert!(!disc.boots());
        }
    }
    let plain = made(dir.path(), &tree.path().join("a/b"), &[]);
    assert_eq!(Disc::open(File::open(plain).unwrap()).unwrap().text("c/d/e/f/g/h/i/j/deep", 1 << 20), None);
    let readme = tempfile::tempdir().unwrap();
    write(readme.path().join("Read.Me"), &text);
    let plain = made(dir.path(), readme.path(), &[]);
    assert_eq!(Disc::open(File::open(plain).unwrap()).unwrap().text("read.me", 1 << 20).unwrap().into_bytes(), text);
}

#[test]
fn a_live_disc_becomes_its_kernel_initrd_and_root() {
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = debian(tree.path());
    let (_keep, store) = store();
    for options in ["-R", "-J"] {
        let notes = Notes::default();
        let image = import_iso(&made(dir.path(), tree.path(), &[options]), &store, &notes).unwrap();
        assert_eq!(image.config.cmdline, "boot=live components fetch={{url:filesystem.squashfs}} quiet");
        assert_eq!(image.config.os.as_deref(), Some("Debian Test Live"));
        let Content::Foreign { kernel, initrds, efi: None, files } = &image.config.content else { panic!() };
        let read = |digest| fs::read(store.blob_path(digest)).unwrap();
        assert!(read(&kernel.digest) == common::kernel("6.1.0-10-test"), "the newest");
        assert_eq!((initrds.len(), read(&initrds[0].digest)), (1, b"new".to_vec()));
        assert_eq!((files.len(), files[0].name.as_str()), (1, "filesystem.squashfs"));
        assert!(read(&files[0].blob.digest) == root);
        assert!(notes.has("a live system of Debian's kind: live/vmlinuz-6.1.0-10-test"));
        let manifest: serde_json::Value = serde_json::from_slice(&read(&image.digest)).unwrap();
        assert_eq!(manifest["layers"][2]["annotations"]["org.opencontainers.image.title"], "filesystem.squashfs");
    }
}

#[test]
fn other_distributions_are_known_by_their_files() {
    let dir = tempfile::tempdir().unwrap();
    for (paths, cmdline, part) in [
        (
            &["casper/vmlinuz", "casper/initrd", "casper/minimal.squashfs"][..],
            "boot=casper ip=dhcp netboot=url url={{url:disc.iso}}",
            Some(Part::Whole),
        ),
        (
            &["LiveOS/squashfs.img", "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"],
            "root=live:{{url:squashfs.img}} rd.live.image rd.neednet=1 ip=dhcp",
            Some(Part::File("LiveOS/squashfs.img".into())),
        ),
        (
            &["arch/x86_64/airootfs.sfs", "arch/boot/x86_64/vmlinuz-linux", "arch/boot/x86_64/initramfs-linux.img"],
            "archisobasedir=arch archiso_http_srv={{base:arch/x86_64/airootfs.sfs}} ip=dhcp",
            Some(Part::File("arch/x86_64/airootfs.sfs".into())),
        ),
        (&["isolinux/linux", "isolinux/initrd.gz"], "vga=788", None),
    ] {
        let tree = tempfile::tempdir().unwrap();
        paths.iter().for_each(|path| write(tree.path().join(path), common::kernel("6.1")));
        let config = "default install\nlabel install\n kernel linux\n append vga=788 initrd=initrd.gz\n";
        write(tree.path().join("isolinux/isolinux.cfg"), config);
        let disc = Disc::open(File::open(made(dir.path(), tree.path(), &["-R"])).unwrap()).unwrap();
        let live = find(&disc).unwrap();
        assert_eq!((live.cmdline.as_str(), live.files.first().map(|file| file.1.clone())), (cmdline, part));
        assert!(paths.contains(&live.kernel.as_str()) && paths.contains(&live.initrds[0].as_str()), "{live:?}");
    }
}

#[test]
fn a_disc_that_is_not_known_starts_whole_or_not_at_all() {
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_keep, store) = store();
    write(tree.path().join("boot.bin"), [0x90; 2048]);
    let notes = Notes::default();
    let error = import_iso(&made(dir.path(), tree.path(), &["-R"]), &store, &notes).unwrap_err().to_string();
    assert!(error.contains("El Torito") && error.contains("kernel=PATH"), "{error}");
    let iso = made(dir.path(), tree.path(), &["-R", "-b", "boot.bin", "-no-emul-boot"]);
    let image = import_iso(&iso, &store, &notes).unwrap();
    let Content::Disc { disc } = &image.config.content else { panic!("{:?}", image.config.content) };
    assert!(fs::read(store.blob_path(&disc.digest)).unwrap() == fs::read(&iso).unwrap());
    assert!(notes.has("Bennu cannot see into it"));
}

#[test]
fn damaged_discs_are_told_so() {
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    debian(tree.path());
    let iso = made(dir.path(), tree.path(), &["-R"]);
    let (_keep, store) = store();
    let whole = fs::metadata(&iso).unwrap().len();
    let file = File::options().write(true).open(&iso).unwrap();
    let refused = || import_iso(&iso, &store, &Notes::default()).unwrap_err().to_string();
    file.set_len(whole - 700_000).unwrap();
    let cut = refused();
    assert!(cut.contains("behind its end"), "{cut}");
    file.set_len(10_000).unwrap();
    assert!(refused().contains("no primary volume descriptor"));
    assert!(import_iso(Path::new("/dev/null"), &store, &Notes::default()).is_err());
    assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0, "scratch files are left");
}

/// The same for all cases of the test below.
static BASE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    debian(tree.path());
    write(tree.path().join("a/b/c/d/e/f/g/h/i/deep"), b"x");
    std::os::unix::fs::symlink("live/vmlinuz-6.1.0-9-test", tree.path().join("vmlinuz")).unwrap();
    NAMES.iter().map(|options| fs::read(made(dir.path(), tree.path(), &[options])).unwrap()).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever stands in a disc's descriptors and directories, an import ends, with an image or with a reason.
    #[test]
    fn no_disc_breaks_the_import(
        base in 0_usize..3,
        changes in proptest::collection::vec((0_u64..60_000, prop_oneof![0_u32..40, any::<u32>()]), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let iso = dir.path().join("iso");
        fs::write(&iso, &BASE[base]).unwrap();
        let file = File::options().write(true).open(&iso).unwrap();
        for (offset, value) in changes {
            file.write_all_at(&value.to_le_bytes(), 16 * 2048 + offset).unwrap();
        }
        let (_keep, store) = store();
        if let Err(error) = import_iso(&iso, &store, &Notes::default()) {
            prop_assert!(error.to_string().len() > 20);
        }
        prop_assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
    }
}
