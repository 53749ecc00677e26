//! A small but well-formed root filesystem, and a way to compare trees in full.
#![allow(dead_code, missing_docs)]

use bennu_images::{
    import::{ImportError, ImportStep, Imported, Options, Progress, pack_directory, root_from_tar},
    store::Store,
};
use bennu_rules::image::{BlobRef, Content};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

pub const RELEASE: &str = "6.1.0-9-test";

/// Collects what an import says.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Progress for Notes {
    fn step(&self, _step: ImportStep, _done: u64, _total: Option<u64>) {}
    fn note(&self, note: &str) {
        self.0.lock().unwrap().push(note.to_owned());
    }
}

impl Notes {
    pub fn has(&self, part: &str) -> bool {
        self.0.lock().unwrap().iter().any(|note| note.contains(part))
    }
}

pub fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

pub fn quick() -> Options {
    Options { level: 1, memory: 128 << 20, ..Options::default() }
}

/// A bzImage's header (Documentation/arch/x86/boot.rst) with its version string.
pub fn kernel(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x4000];
    image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
    image[0x236] = 1;
    let version = format!("{release} (root@test) #1 SMP");
    image[0x500..0x500 + version.len()].copy_from_slice(version.as_bytes());
    image
}

/// An ELF64 relocatable object with a `.modinfo` section.
pub fn module(modinfo: &[&str]) -> Vec<u8> {
    let mut info = Vec::new();
    for string in modinfo {
        info.extend_from_slice(string.as_bytes());
        info.push(0);
    }
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64, 64 + info.len());
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend_from_slice(&[1, 0, 0x3e, 0, 1, 0, 0, 0]);
    for value in [0u64, 0, sections_at as u64] {
        elf.extend_from_slice(&value.to_le_bytes());
    }
    elf.extend_from_slice(&0u32.to_le_bytes());
    for value in [64u16, 0, 0, 64, 3, 2] {
        elf.extend_from_slice(&value.to_le_bytes());
    }
    elf.extend_from_slice(&info);
    elf.extend_from_slice(names);
    elf.resize(sections_at, 0);
    let mut section = |name: u32, kind: u32, at: usize, size: usize| {
        elf.extend_from_slice(&name.to_le_bytes());
        elf.extend_from_slice(&kind.to_le_bytes());
        for value in [0u64, 0, at as u64, size as u64, 0, 1, 0] {
            elf.extend_from_slice(&value.to_le_bytes());
        }
        // sh_link and sh_info lie before sh_addralign, as zeros in the quad words above.
    };
    section(0, 0, 0, 0);
    section(1, 1, info_at, info.len());
    section(10, 3, names_at, names.len());
    elf
}

pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A merged-/usr root filesystem with a kernel, modules in several compressions, and firmware.
pub fn base_tree(root: &Path) {
    write(root.join("usr/lib/systemd/systemd"), b"#!init");
    for directory in ["bin", "sbin", "lib"] {
        fs::create_dir_all(root.join("usr").join(directory)).unwrap();
        std::os::unix::fs::symlink(format!("usr/{directory}"), root.join(directory)).unwrap();
    }
    std::os::unix::fs::symlink("/lib/systemd/systemd", root.join("usr/sbin/init")).unwrap();
    write(root.join("etc/os-release"), "NAME=Test\nPRETTY_NAME=\"Test Linux 1\"\n");
    write(root.join(format!("boot/vmlinuz-{RELEASE}")), kernel(RELEASE));
    let modules = root.join("usr/lib/modules").join(RELEASE);
    let nic = module(&["license=GPL", "firmware=nic/fw-1.bin", "firmware=nic/fw-2.bin", "firmware=nic/absent.bin"]);
    write(modules.join("kernel/drivers/net/ethernet/nic.ko.xz"), xz(&nic));
    write(modules.join("kernel/lib/helper.ko.zst"), zstd::encode_all(module(&["license=GPL"]).as_slice(), 1).unwrap());
    for name in
        ["fs/overlayfs/overlay", "drivers/block/loop", "sound/core/snd", "crypto/crc32c_generic", "fs/ext4/ext4"]
    {
        write(modules.join(format!("kernel/{name}.ko")), module(&[&format!("name={name}")]));
    }
    write(
        modules.join("modules.dep"),
        "kernel/drivers/net/ethernet/nic.ko.xz: kernel/lib/helper.ko.zst\nkernel/lib/helper.ko.zst:\n\
         kernel/fs/overlayfs/overlay.ko:\nkernel/drivers/block/loop.ko:\nkernel/sound/core/snd.ko:\n\
         kernel/crypto/crc32c_generic.ko:\nkernel/fs/ext4/ext4.ko:\n",
    );
    write(
        modules.join("modules.alias"),
        "alias pci:v00008086d* nic\nalias snd-card-* snd\nalias crypto-crc32c crc32c_generic\n",
    );
    write(modules.join("modules.softdep"), "softdep ext4 pre: crypto-crc32c\nsoftdep snd pre: nic\n");
    write(modules.join("modules.builtin"), "kernel/fs/squashfs/squashfs.ko\n");
    write(root.join("usr/lib/firmware/nic/fw-1.bin.xz"), xz(b"firmware one"));
    write(root.join("usr/lib/firmware/nic/fw-2-1.0.bin"), b"firmware two");
    std::os::unix::fs::symlink("fw-2-1.0.bin", root.join("usr/lib/firmware/nic/fw-2.bin")).unwrap();
    // Times of the making must not matter for what is compared.
    run("find", &[&root.display().to_string(), "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"]);
}

pub fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    base_tree(dir.path());
    run("chmod", &["755", &dir.path().display().to_string()]);
    run("touch", &["-d", "@1700000001", &dir.path().display().to_string()]);
    dir
}

pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

pub fn pack(root: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    pack_directory(root, &mut tar, &()).unwrap();
    tar
}

pub fn import(tar: &[u8], options: &Options, store: &Store) -> Result<Imported, ImportError> {
    root_from_tar(tar, options, store, &())
}

pub fn root_blob(image: &Imported) -> BlobRef {
    match &image.config.content {
        Content::Root { root, .. } => root.clone(),
        other => panic!("{other:?}"),
    }
}

pub fn modules_blob(image: &Imported) -> BlobRef {
    match &image.config.content {
        Content::Root { modules, .. } | Content::Kernel { modules, .. } => modules.clone(),
        other => panic!("{other:?}"),
    }
}

/// Unpacks an image's root filesystem.
pub fn unsquash(image: &Imported, store: &Store) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("root");
    let blob = store.blob_path(&root_blob(image).digest);
    run("unsquashfs", &["-d", out.to_str().unwrap(), "-no-progress", blob.to_str().unwrap()]);
    (dir, out)
}

/// Everything a file system tells of a tree, a line each: kind and mode, owner, size, device, time, content,
/// extended attributes, and which names share an inode.
pub fn manifest(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut first = BTreeMap::new();
    visit(root, root, &mut first, &mut lines);
    lines
}

fn visit(root: &Path, path: &Path, first: &mut BTreeMap<u64, String>, lines: &mut BTreeMap<String, String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    let mut xattrs: Vec<_> = xattr::list(path).unwrap().collect();
    xattrs.sort();
    let xattrs: Vec<_> = xattrs
        .iter()
        .map(|key| format!("{}={}", key.display(), xattr::get(path, key).unwrap().unwrap().escape_ascii()))
        .collect();
    let content = if meta.is_file() {
        let bytes = fs::read(path).unwrap();
        ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref().escape_ascii().to_string()
    } else if meta.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
    } else {
        String::new()
    };
    let size = if meta.is_file() { meta.len() } else { 0 };
    let peer =
        if meta.is_dir() { String::new() } else { first.entry(meta.ino()).or_insert_with(|| name.clone()).clone() };
    let line = format!(
        "{:o} {}:{} size {size} rdev {:x} mtime {} links {} of '{peer}' {content} {xattrs:?}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.rdev(),
        meta.mtime(),
        if meta.is_dir() { 0 } else { meta.nlink() },
    );
    lines.insert(name, line);
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            visit(root, &name, first, lines);
        }
    }
}

/// Says which lines differ, rather than printing two whole trees.
pub fn assert_same(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) {
    let mut differences = Vec::new();
    for key in left.keys().chain(right.keys()).collect::<std::collections::BTreeSet<_>>() {
        if left.get(key) != right.get(key) {
            differences.push(format!("{key}:\n  source {:?}\n  image  {:?}", left.get(key), right.get(key)));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// The files of a modules initrd, and each entry's `mode uid mtime`.
pub fn initrd(image: &Imported, store: &Store) -> BTreeMap<String, (u32, Vec<u8>)> {
    let (file, _) = store.open_blob(&modules_blob(image).digest).unwrap();
    let mut archive = zstd::Decoder::new(file).unwrap();
    let mut files = BTreeMap::new();
    loop {
        let mut reader = cpio::newc::Reader::new(archive).unwrap();
        if reader.entry().is_trailer() {
            return files;
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        let entry = reader.entry();
        assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
        let name = entry.name().to_owned();
        if let Some((parent, _)) = name.rsplit_once('/') {
            assert!(files.contains_key(parent), "{parent} comes before {name}");
        }
        assert!(files.insert(name, (entry.mode(), bytes)).is_none());
        archive = reader.finish().unwrap();
    }
}
