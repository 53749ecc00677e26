//! Archives in orders that mksquashfs itself gets wrong: what counts is what extracting them would give.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::store::Store;
use common::*;
use std::{collections::BTreeMap, io::Write as _};

/// A tar in the making, after the base tree.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        let tar = pack(tree().path());
        Self(tar::Builder::new(tar[..tar.len() - 1024].to_vec()))
    }

    fn entry(mut self, path: &str, kind: tar::EntryType, link: &str, mode: u32, mtime: u64, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(mtime);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(path, tar::EntryType::Regular, "", 0o644, 1000, data.as_bytes())
    }

    fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, "", mode, 2000, b"")
    }

    fn hard(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, target, 0o644, 0, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, target, 0o777, 1000, b"")
    }

    /// Imports it and gives the image's root, unpacked, and its manifest.
    fn image(self) -> Unpacked {
        let tar = self.0.into_inner().unwrap();
        let (keep, store) = store();
        let image = import(&tar, &quick(), &store).unwrap();
        let (out, root) = unsquash(&image, &store);
        Unpacked { manifest: manifest(&root), root, _keep: (keep, out, store) }
    }
}

struct Unpacked {
    root: std::path::PathBuf,
    manifest: BTreeMap<String, String>,
    _keep: (tempfile::TempDir, tempfile::TempDir, Store),
}

impl Unpacked {
    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap()
    }

    fn starts(&self, path: &str, line: &str) {
        assert!(self.manifest[path].starts_with(line), "{path}: {}", self.manifest[path]);
    }

    fn has(&self, path: &str) -> bool {
        self.manifest.contains_key(path)
    }
}

#[test]
fn the_last_of_duplicates_wins() {
    let image = Tar::new()
        .file("twice", "first")
        .file("./twice", "second")
        .directory("dir", 0o700)
        .file("dir/kept", "kept")
        .directory("dir/", 0o711)
        .directory("becomes-file", 0o755)
        .file("becomes-file/gone", "gone")
        .file("becomes-file", "file")
        .file("becomes-dir", "file")
        .file("becomes-dir/child", "child")
        .symlink("link-becomes-dir", "etc")
        .directory("link-becomes-dir", 0o750)
        .file("/absolute", "stripped")
        .image();
    assert_eq!(image.text("twice"), "second");
    image.starts("dir", "40711 ");
    assert_eq!(image.text("dir/kept"), "kept");
    assert_eq!(image.text("becomes-file"), "file");
    assert_eq!(image.text("becomes-dir/child"), "child");
    image.starts("link-becomes-dir", "40750 ");
    assert_eq!(image.text("absolute"), "stripped");
}

#[test]
fn hard_links_may_come_before_their_targets() {
    let image = Tar::new()
        .hard("a-early", "m-link")
        .hard("m-link", "./z-target")
        .hard("replaced", "z-target")
        .file("z-target", "contents")
        .file("replaced", "own")
        .image();
    assert_eq!(image.text("a-early"), "contents");
    assert_eq!(image.text("replaced"), "own");
    for name in ["a-early", "m-link", "z-target"] {
        assert!(image.manifest[name].contains("links 3 of 'a-early'"), "{}", image.manifest[name]);
    }
}

#[test]
fn a_hard_link_keeps_what_it_was_made_of() {
    let image = Tar::new().file("a", "old").hard("b", "a").file("a", "new").image();
    assert_eq!((image.text("a"), image.text("b")), ("new".to_owned(), "old".to_owned()));
    assert!(image.manifest["b"].contains("links 1"));
}

#[test]
fn parents_without_an_entry_are_plain_directories_of_their_newest_content() {
    let image = Tar::new()
        .entry("new/deep/er/file", tar::EntryType::Regular, "", 0o644, 5000, b"x")
        .entry("new/older", tar::EntryType::Regular, "", 0o644, 4000, b"x")
        .image();
    for directory in ["new", "new/deep", "new/deep/er"] {
        image.starts(directory, "40755 0:0 ");
        assert!(image.manifest[directory].contains("mtime 5000 "), "{}", image.manifest[directory]);
    }
}

#[test]
fn names_lead_through_links_to_directories() {
    // As packages for a merged /usr do, and as a process with this root would see them.
    let image = Tar::new()
        .file("bin/tool", "in usr")
        .symlink("absolute", "/usr/lib")
        .file("absolute/found", "absolute")
        .symlink("later", "made/afterwards")
        .file("later/file", "made")
        .symlink("up", "../../etc")
        .file("up/above", "at the root")
        .hard("linked", "bin/tool")
        .image();
    image.starts("bin", "120777 ");
    assert_eq!(image.text("usr/bin/tool"), "in usr");
    assert_eq!(image.text("usr/lib/found"), "absolute");
    assert_eq!(image.text("made/afterwards/file"), "made");
    assert_eq!(image.text("etc/above"), "at the root");
    assert_eq!(image.text("linked"), "in usr");
    assert!(!image.has("bin/tool"));
}

#[test]
fn global_pax_records_count_until_changed() {
    let mut tar = Tar::new();
    let record = b"20 mtime=1234567890\n";
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(record.len() as u64);
    header.set_cksum();
    tar.0.append(&header, &record[..]).unwrap();
    let image = tar.file("dated", "x").image();
    assert!(image.manifest["dated"].contains("mtime 1234567890 "), "{}", image.manifest["dated"]);
}

#[test]
fn the_root_directorys_entry_counts_wherever_it_is() {
    let image = Tar::new().entry("./", tar::EntryType::Directory, "", 0o711, 77, b"").image();
    image.starts("", "40711 0:0 ");
    assert!(image.manifest[""].contains("mtime 77 "), "{}", image.manifest[""]);
}

#[test]
fn several_compressed_members_are_one_stream() {
    let tar = pack(tree().path());
    let (left, right) = tar.split_at(tar.len() / 2);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (_keep, store) = store();
    let plain = import(&tar, &quick(), &store).unwrap().digest;
    assert_eq!(import(&[gzip(left), gzip(right)].concat(), &quick(), &store).unwrap().digest, plain);
    assert_eq!(import(&[zstd(left), zstd(right)].concat(), &quick(), &store).unwrap().digest, plain);
}
