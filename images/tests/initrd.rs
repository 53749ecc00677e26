//! The modules initrd, read back.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::import::{Options, root_from_tar};
use bennu_rules::image::Content;
use common::*;
use std::fs;

#[test]
fn it_holds_what_a_machine_needs_and_no_more() {
    let source = tree();
    let (_keep, store) = store();
    let image = import(&pack(source.path()), &quick(), &store).unwrap();
    let files = initrd(&image, &store);
    let base = format!("lib/modules/{RELEASE}");
    let names: Vec<_> =
        files.iter().filter(|(_, (mode, _))| mode & 0o170000 == 0o100000).map(|(name, _)| name.as_str()).collect();
    let module = |path: &str| format!("{base}/kernel/{path}.ko");
    let expected = [
        "lib/firmware/nic/fw-1.bin".to_owned(),
        "lib/firmware/nic/fw-2.bin".to_owned(),
        module("crypto/crc32c_generic"),
        module("drivers/block/loop"),
        module("drivers/net/ethernet/nic"),
        module("fs/ext4/ext4"),
        module("fs/overlayfs/overlay"),
        module("lib/helper"),
        format!("{base}/modules.alias"),
        format!("{base}/modules.builtin"),
        format!("{base}/modules.dep"),
        format!("{base}/modules.softdep"),
    ];
    assert_eq!(names, expected);
    assert_eq!(files["lib/firmware/nic/fw-1.bin"].1, b"firmware one");
    assert_eq!(files["lib/firmware/nic/fw-2.bin"].1, b"firmware two");
    assert!(files[&module("drivers/net/ethernet/nic")].1.starts_with(b"\x7fELF"));
    let text = |name: &str| String::from_utf8(files[&format!("{base}/{name}")].1.clone()).unwrap();
    assert!(text("modules.dep").contains("kernel/drivers/net/ethernet/nic.ko: kernel/lib/helper.ko\n"));
    assert_eq!(text("modules.alias"), "alias pci:v00008086d* nic\nalias crypto-crc32c crc32c_generic\n");
    assert_eq!(text("modules.softdep"), "softdep ext4 pre: crypto-crc32c\n");
    assert_eq!(text("modules.builtin"), "kernel/fs/squashfs/squashfs.ko\n");
    assert_eq!(files[&base].0, 0o040755);
}

#[test]
fn a_nic_driver_whose_firmware_is_nowhere_is_noted() {
    let source = tree();
    let modules = source.path().join("usr/lib/modules").join(RELEASE);
    for (name, info) in [("net/ethernet/bnx2", "firmware=bnx2/a.fw"), ("scsi/hba", "firmware=hba.bin")] {
        write(modules.join(format!("kernel/drivers/{name}.ko")), module(&[info]));
    }
    let dep = fs::read_to_string(modules.join("modules.dep")).unwrap();
    write(modules.join("modules.dep"), dep + "kernel/drivers/net/ethernet/bnx2.ko:\nkernel/drivers/scsi/hba.ko:\n");
    let notes = |source: &std::path::Path| {
        let (_keep, store) = store();
        let notes = Notes::default();
        root_from_tar(pack(source).as_slice(), &quick(), &store, &notes).unwrap();
        notes
    };
    let said = notes(source.path());
    assert!(said.has("name: bnx2 (Debian: firmware-bnx2). Where"), "{:?}", said.0);
    write(source.path().join("usr/lib/firmware/bnx2/a.fw"), b"firmware");
    let said = notes(source.path());
    assert!(!said.has("firmware"), "{:?}", said.0);
}

#[test]
fn a_driver_from_elsewhere_is_judged_by_what_it_calls() {
    let source = tree();
    let modules = source.path().join("usr/lib/modules").join(RELEASE);
    write(modules.join("updates/dkms/vendor-nic.ko"), module(&["x=register_netdev"]));
    write(modules.join("updates/dkms/vendor-gpu.ko"), module(&["x=drm_dev_register"]));
    let dep = fs::read_to_string(modules.join("modules.dep")).unwrap();
    write(modules.join("modules.dep"), dep + "updates/dkms/vendor-nic.ko:\nupdates/dkms/vendor-gpu.ko:\n");
    let (_keep, store) = store();
    let files = initrd(&import(&pack(source.path()), &quick(), &store).unwrap(), &store);
    assert!(files.contains_key(&format!("lib/modules/{RELEASE}/updates/dkms/vendor-nic.ko")));
    assert!(!files.contains_key(&format!("lib/modules/{RELEASE}/updates/dkms/vendor-gpu.ko")));
}

#[test]
fn network_cards_that_the_kernel_cannot_drive_are_named() {
    let source = tree();
    let modules = source.path().join("usr/lib/modules").join(RELEASE);
    let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap();
    write(modules.join("modules.builtin"), builtin + "kernel/drivers/net/ethernet/intel/igb/igb.ko\n");
    let (_keep, store) = store();
    let notes = Notes::default();
    root_from_tar(pack(source.path()).as_slice(), &quick(), &store, &notes).unwrap();
    assert!(notes.has("no driver for these network cards: bnx2x, bnxt_en, e1000e, i40e"), "{:?}", notes.0);
    assert!(!notes.has("ice, igb"), "{:?}", notes.0);
}

#[test]
fn a_kernel_image_needs_no_root() {
    let source = tree();
    fs::remove_dir_all(source.path().join("usr/lib/systemd")).unwrap();
    let (_keep, store) = store();
    let options = Options { kernel_only: true, ..quick() };
    let image = import(&pack(source.path()), &options, &store).unwrap();
    assert!(matches!(image.config.content, Content::Kernel { .. }));
    assert!(!image.config.tools.contains_key("mksquashfs"));
    assert_eq!(image.config.blobs().count(), 3);
}

#[test]
fn the_newest_kernel_with_modules_is_taken() {
    let source = tree();
    write(source.path().join("boot/vmlinuz-6.1.0-10-test"), kernel("6.1.0-10-test"));
    write(source.path().join("boot/vmlinuz-0-rescue-abc"), kernel(RELEASE));
    let (_keep, store) = store();
    let notes = Notes::default();
    let image = root_from_tar(pack(source.path()).as_slice(), &quick(), &store, &notes).unwrap();
    assert!(matches!(&image.config.content, Content::Root { kernel_release, .. } if kernel_release == RELEASE));
    assert!(notes.has("6.1.0-10-test, 6.1.0-9-test") && notes.has("newest that has modules"), "{:?}", notes.0);
}

#[test]
fn a_kernel_beside_its_modules_is_found_and_so_is_one_without_release_in_its_name() {
    for place in ["boot/vmlinuz-linux".to_owned(), format!("usr/lib/modules/{RELEASE}/vmlinuz")] {
        let source = tree();
        fs::rename(source.path().join(format!("boot/vmlinuz-{RELEASE}")), source.path().join(&place)).unwrap();
        let (_keep, store) = store();
        let image = import(&pack(source.path()), &quick(), &store).unwrap();
        assert!(
            matches!(&image.config.content, Content::Root { kernel_release, .. } if kernel_release == RELEASE),
            "{place}"
        );
    }
}

#[test]
fn a_kernel_whose_name_and_header_give_only_a_flavour_is_found() {
    let source = tree();
    // The arm64 image header (Documentation/arch/arm64/booting.rst) names no release.
    let mut arm = vec![0; 0x1000];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    fs::remove_file(source.path().join(format!("boot/vmlinuz-{RELEASE}"))).unwrap();
    write(source.path().join("boot/vmlinuz-test"), arm);
    let modules = source.path().join("usr/lib/modules");
    run("cp", &["-a", modules.join(RELEASE).to_str().unwrap(), modules.join("6.2.0-1-other").to_str().unwrap()]);
    let (_keep, store) = store();
    let image = import(&pack(source.path()), &quick(), &store).unwrap();
    assert!(matches!(&image.config.content, Content::Root { kernel_release, .. } if kernel_release == RELEASE));
    assert_eq!(image.config.architecture, bennu_rules::facts::Architecture::Arm64);
}

#[test]
fn an_old_kernel_gets_what_it_can_read() {
    let source = tree();
    write(source.path().join(format!("boot/config-{RELEASE}")), "CONFIG_RD_GZIP=y\nCONFIG_SQUASHFS=m\n");
    let (_keep, store) = store();
    let image = import(&pack(source.path()), &quick(), &store).unwrap();
    let bytes = fs::read(store.blob_path(&modules_blob(&image).digest)).unwrap();
    assert!(bytes.starts_with(b"\x1f\x8b"));
    let root = fs::read(store.blob_path(&root_blob(&image).digest)).unwrap();
    // squashfs superblock: compressor id at 20; 1 is gzip.
    assert_eq!(root[20], 1);
}
