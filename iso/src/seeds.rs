//! The images that the disc brings along, so that a rack without any other source can start: an OCI layout beside the initrd.

use crate::{
    modules::Kernel,
    options::Options,
    rescue,
    tree::{Entry, Tree},
};
use anyhow::{Context, Result};
use bennu_images::{
    archive::{Contents, Metadata, RecordKind, Writer},
    import::{self, ImportStep, Imported, Progress, foreign_with_efi, root_from_tar},
    signing,
    store::{IndexEntry, Store},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

/// What a machine boots that nobody assigned: the disc's own kernel, and its modules.
const DISCOVERY: &str = "discovery:latest";
/// Tests memory, on BIOS and on UEFI.
const MEMTEST: &str = "memtest86:latest";
const MEMTEST_KERNEL: &str = "boot/memtest86+x64.bin";
const MEMTEST_PROGRAM: &str = "boot/memtest86+x64.efi";
const MEMTEST_CMDLINE: &str = "console=ttyS0,115200";
/// Parts of the modules' tree that the rescue root has: disks, keyboards, file systems.
const RESCUED: [&str; 17] = [
    "drivers/ata",
    "drivers/block",
    "drivers/cdrom",
    "drivers/hid",
    "drivers/hv",
    "drivers/md",
    "drivers/message",
    "drivers/nvme",
    "drivers/scsi",
    "drivers/usb",
    "drivers/virtio",
    "fs/btrfs",
    "fs/ext4",
    "fs/fat",
    "fs/jbd2",
    "fs/nls",
    "fs/xfs",
];
/// Below this the disc would grow beyond what it may have, in tests, where its own root is compressed in haste.
const LEAST_LEVEL: u32 = 9;
/// A shell and tools for disks.
const RESCUE: &str = "rescue:latest";
/// Modules that no server needs to be discovered: more than half of all there are.
const LEFT: [&str; 5] =
    ["kernel/sound/", "kernel/drivers/gpu/", "kernel/drivers/media/", "kernel/drivers/staging/", "kernel/drivers/iio/"];

/// Makes them in the disc's directory, and the kernel that it starts itself. The packages' files in them.
pub fn make(options: &Options, kernel: &Kernel, disc: &Path) -> Result<BTreeSet<PathBuf>> {
    let store = Store::open(disc.join("images"))?;
    let files = kernel_files(&options.packages, kernel)?;
    let (mut own, none) = (Tree::default(), Tree::default());
    rescue::add(&mut own, &options.packages, &options.version)?;
    let discovery = imported(&files, &none, &discovery(options)?, &store).context("cannot make the discovery image")?;
    let rescue =
        imported(&files, &own, &rescue(options, kernel, &files)?, &store).context("cannot make the rescue image")?;
    let [bin, efi] = [MEMTEST_KERNEL, MEMTEST_PROGRAM].map(|file| options.packages.join(file));
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let memtest = foreign_with_efi(open(&bin)?, Vec::<File>::new(), open(&efi)?, MEMTEST_CMDLINE, &store)?;
    store.write_index(&[named(&discovery, DISCOVERY)?, named(&memtest, MEMTEST)?, named(&rescue, RESCUE)?])?;
    // Two names of one file take the room of one on the disc.
    let own_kernel = store.blob_path(&discovery.config.content.kernel().digest);
    fs::hard_link(&own_kernel, disc.join("boot/vmlinuz")).context("cannot put the kernel on the disc")?;
    fs::remove_dir_all(store.tmp()).with_context(|| format!("cannot remove {}", store.tmp().display()))?;
    let files = files.into_iter().map(|(_, file)| file).chain([bin, efi]);
    Ok(files.chain(own.sources().iter().cloned()).collect())
}

fn named(image: &Imported, name: &str) -> Result<IndexEntry> {
    Ok(IndexEntry { digest: image.digest, size: image.manifest_size, name: Some(name.parse()?) })
}

/// A kernel image without the layer for container images, which alone is larger than the rest of the disc.
fn discovery(options: &Options) -> Result<import::Options> {
    let shim = fs::read(options.packages.join("usr/lib/shim/shimx64.efi.signed"))?;
    let (level, trusted) = (options.level.max(LEAST_LEVEL), signing::trusted_by(&shim));
    Ok(import::Options { kernel_only: true, without_layer: true, level, trusted, ..Default::default() })
}

/// Its kernel and modules initrd are the discovery image's, which the disc so has once. The root has no drivers of network
/// cards: stage 1 brought it over the network.
fn rescue(options: &Options, kernel: &Kernel, files: &[(String, PathBuf)]) -> Result<import::Options> {
    let modules = format!("lib/modules/{}/kernel/", kernel.release);
    let left = files.iter().filter_map(|(place, _)| part_left(place.strip_prefix(&modules)?));
    let root_without: BTreeSet<String> = left.map(|part| format!("{modules}{part}")).collect();
    let kernel = format!("boot/vmlinuz-{}", kernel.release);
    let root_without = root_without.into_iter().chain([kernel]).collect();
    Ok(import::Options { kernel_only: false, root_without, ..discovery(options)? })
}

/// The part of the modules' tree that this one lies in, unless the rescue root has that.
fn part_left(module: &str) -> Option<&str> {
    let end = module.match_indices('/').nth(1).map_or(module.len(), |(at, _)| at);
    let (part, top) = (&module[..end], module.split('/').next().unwrap_or_default());
    let is_kept = ["crypto", "lib"].contains(&top) || RESCUED.contains(&part) || (top == "fs" && part.contains(".ko"));
    (!is_kept).then_some(part)
}

/// Imports a root of the kernel's files and of a tree.
fn imported(files: &[(String, PathBuf)], tree: &Tree, how: &import::Options, store: &Store) -> Result<Imported> {
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        let packing = scope.spawn(move || pack(files, tree, writer));
        let imported = root_from_tar(reader, how, store, &Quiet);
        // Where nobody reads any more, the reason is the import's.
        let packed = packing.join().map_err(|_| io::Error::other("the packer has a bug")).flatten();
        let imported = imported?;
        packed?;
        Ok(imported)
    })
}

/// The kernel and its modules: their places in a root, and where they are, by place.
fn kernel_files(packages: &Path, kernel: &Kernel) -> Result<Vec<(String, PathBuf)>> {
    let base = format!("lib/modules/{}", kernel.release);
    let mut files = vec![(format!("boot/vmlinuz-{}", kernel.release), kernel.image.clone())];
    let mut waiting = vec![String::new()];
    while let Some(inside) = waiting.pop() {
        let directory = packages.join(&base).join(&inside);
        let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a module's name is no text")?;
            let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            match entry.file_type()? {
                kind if kind.is_dir() => waiting.push(path),
                kind if kind.is_file() && !LEFT.iter().any(|left| path.starts_with(left)) => {
                    files.push((format!("{base}/{path}"), entry.path()));
                }
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The files as a tar, for which directories are made of their paths, and a tree after them.
fn pack(files: &[(String, PathBuf)], tree: &Tree, out: impl Write) -> io::Result<()> {
    let none = Vec::new();
    let meta = |mode| Metadata { mode, uid: 0, gid: 0, mtime: 0, xattrs: &none };
    let mut tar = Writer::new(io::BufWriter::with_capacity(1 << 20, out));
    let mut made = BTreeSet::new();
    for (place, file) in files {
        for (at, _) in place.match_indices('/') {
            if made.insert(&place[..at]) {
                tar.entry(&place.as_bytes()[..at], RecordKind::Directory, meta(0o755))?;
            }
        }
        let contents = fs::read(file)?;
        tar.entry(place.as_bytes(), RecordKind::File(Contents::Whole(contents.len() as u64)), meta(0o644))?;
        tar.data(&contents)?;
    }
    for (path, entry) in tree.entries() {
        match entry {
            Entry::Directory(mode) => tar.entry(path.as_bytes(), RecordKind::Directory, meta(*mode))?,
            Entry::File(mode, contents) => {
                tar.entry(path.as_bytes(), RecordKind::File(Contents::Whole(contents.len() as u64)), meta(*mode))?;
                tar.data(contents)?;
            }
            Entry::Link(target) => tar.entry(path.as_bytes(), RecordKind::Symlink(target.as_bytes()), meta(0o777))?,
        }
    }
    tar.finish()?.flush()
}

/// Nobody watches.
struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: ImportStep, _: u64, _: Option<u64>) {}

    fn note(&self, note: &str) {
        println!("note: {note}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_images::archive::{EntryKind, Reader};

    #[test]
    fn the_rescue_root_has_drivers_of_disks_and_none_of_cards() {
        assert_eq!(part_left("drivers/scsi/megaraid/megaraid_sas.ko"), None);
        assert_eq!(part_left("fs/mbcache.ko"), None);
        assert_eq!(part_left("lib/raid6/raid6_pq.ko"), None);
        assert_eq!(part_left("drivers/net/ethernet/intel/igb/igb.ko"), Some("drivers/net"));
        assert_eq!(part_left("net/llc/llc.ko"), Some("net/llc"));
    }

    #[test]
    fn a_kernel_is_packed_with_its_modules_in_the_same_order_every_time() {
        let place = tempfile::tempdir().unwrap();
        let release = "6.1.0-1-amd64";
        let modules = place.path().join("lib/modules").join(release);
        for file in ["kernel/drivers/net/b.ko", "kernel/drivers/net/a.ko", "kernel/sound/s.ko", "modules.dep"] {
            let file = modules.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let image = place.path().join("vmlinuz");
        fs::write(&image, "kernel").unwrap();
        let kernel = Kernel { release: release.into(), image };
        let files = kernel_files(place.path(), &kernel).unwrap();
        let mut tar = Vec::new();
        let mut own = Tree::default();
        own.file("sbin/init", 0o755, vec![1]);
        pack(&files, &own, &mut tar).unwrap();
        let mut reader = Reader::new(&tar[..]);
        let mut seen = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            if matches!(entry.kind, EntryKind::File) {
                seen.push(String::from_utf8(entry.path).unwrap());
            }
        }
        let base = format!("lib/modules/{release}");
        let expected = [
            format!("boot/vmlinuz-{release}"),
            format!("{base}/kernel/drivers/net/a.ko"),
            format!("{base}/kernel/drivers/net/b.ko"),
            format!("{base}/modules.dep"),
            "sbin/init".to_owned(),
        ];
        assert_eq!(seen, expected);
    }
}
