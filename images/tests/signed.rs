//! Signatures: a vendor's own shim and GRUB, and what Secure Boot would refuse.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::import::{Imported, Options, root_from_tar};
use common::*;
use std::{fs, path::Path};

const DEBIAN: &str = "Debian Secure Boot CA";
const SHIM: &str = "usr/lib/shim/shimx64.efi.signed";
const GRUB: &str = "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed";

/// A name as a certificate has it.
fn name(text: &str) -> Vec<u8> {
    [&[0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, text.len() as u8], text.as_bytes()].concat()
}

/// Makes bytes an EFI program that `signer` has signed.
fn sign(mut bytes: Vec<u8>, signer: &str) -> Vec<u8> {
    bytes.resize(bytes.len().max(0x200), 0);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&0x80u32.to_le_bytes());
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x98..0x9a].copy_from_slice(&[0x0b, 0x02]);
    let (start, table) = (bytes.len() as u32, name(signer));
    bytes[0x128..0x12c].copy_from_slice(&start.to_le_bytes());
    bytes[0x12c..0x130].copy_from_slice(&(table.len() as u32).to_le_bytes());
    [bytes, table].concat()
}

fn shim(trusts: &str) -> Vec<u8> {
    sign([vec![0; 0x200], name(trusts)].concat(), "Microsoft UEFI CA")
}

fn grub(signer: &str) -> Vec<u8> {
    sign([vec![0; 0x200], b"net_default_mac".to_vec()].concat(), signer)
}

fn sign_kernel(root: &Path, signer: &str) {
    write(root.join(format!("boot/vmlinuz-{RELEASE}")), sign(kernel(RELEASE), signer));
}

fn sign_modules(root: &Path) {
    let modules = root.join("usr/lib/modules").join(RELEASE);
    for module in ["fs/overlayfs/overlay", "drivers/block/loop", "crypto/crc32c_generic", "fs/ext4/ext4"] {
        let path = modules.join(format!("kernel/{module}.ko"));
        write(&path, [fs::read(&path).unwrap(), b"~Module signature appended~\n".to_vec()].concat());
    }
}

/// Imports, with an appliance whose shim trusts Debian; the notes about Secure Boot.
fn examined(root: &Path) -> (Imported, Vec<String>) {
    let (_keep, store) = store();
    let notes = Notes::default();
    let options = Options { trusted: [DEBIAN.to_owned()].into(), kernel_only: true, ..quick() };
    let image = root_from_tar(pack(root).as_slice(), &options, &store, &notes).unwrap();
    for blob in image.config.blobs() {
        assert_eq!(store.blob_size(&blob.digest).unwrap(), blob.size);
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(store.blob_path(&image.digest)).unwrap()).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), image.config.blobs().count());
    let notes = notes.0.into_inner().unwrap().into_iter().filter(|note| note.contains("Secure Boot")).collect();
    (image, notes)
}

#[test]
fn an_unsigned_kernel_is_noted_once_whatever_its_modules_are() {
    let source = tree();
    let (image, notes) = examined(source.path());
    assert_eq!(image.config.signed, None);
    assert!(matches!(&notes[..], [note] if note.contains("kernel 6.") && note.contains("is not signed")), "{notes:?}");
    assert!(!String::from_utf8(serde_json::to_vec(&image.config).unwrap()).unwrap().contains("\"signed\""));
}

#[test]
fn modules_without_a_signature_are_counted() {
    let source = tree();
    sign_kernel(source.path(), DEBIAN);
    sign_modules(source.path());
    let (_, notes) = examined(source.path());
    assert!(matches!(&notes[..], [note] if note.starts_with("2 of the 6 modules")), "{notes:?}");
}

#[test]
fn a_vendors_own_shim_and_grub_come_along_and_judge_its_kernel() {
    let source = tree();
    sign_kernel(source.path(), "Canonical CA");
    let (_, notes) = examined(source.path());
    assert!(notes.iter().any(|note| note.contains("'Canonical CA', and Bennu's own shim trusts 'Debian")), "{notes:?}");
    write(source.path().join(SHIM), shim("Canonical CA"));
    write(source.path().join(GRUB), grub("Canonical CA"));
    let (image, notes) = examined(source.path());
    assert!(!notes.iter().any(|note| note.contains("signed by")), "{notes:?}");
    let signed = image.config.signed.unwrap();
    assert_eq!(signed.shim.size, shim("Canonical CA").len() as u64);
    assert_eq!(signed.grub.size, grub("Canonical CA").len() as u64);
}

#[test]
fn the_system_partition_is_looked_at_and_a_grub_for_disks_is_left() {
    let source = tree();
    sign_kernel(source.path(), "Fedora CA");
    let partition = source.path().join("boot/efi/EFI/fedora");
    write(partition.join("shimx64.efi"), shim("Fedora CA"));
    write(partition.join("grubx64.efi"), sign(vec![0; 0x300], "Fedora CA"));
    let (image, notes) = examined(source.path());
    assert_eq!(image.config.signed, None);
    assert!(notes.iter().any(|note| note.contains("cannot boot from the network")), "{notes:?}");
    write(partition.join("grubx64.efi"), grub("Fedora CA"));
    let (image, _) = examined(source.path());
    assert!(image.config.signed.is_some());
}
