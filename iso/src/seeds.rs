//! The images that the disc brings along, so that a rack without any other source can start: an OCI layout beside the initrd.

use crate::{modules::Kernel, options::Options};
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
/// Modules that no server needs to be discovered: more than half of all there are.
const LEFT: [&str; 5] =
    ["kernel/sound/", "kernel/drivers/gpu/", "kernel/drivers/media/", "kernel/drivers/staging/", "kernel/drivers/iio/"];

/// Makes them in a directory of the disc. The packages' files in them.
pub fn make(options: &Options, kernel: &Kernel, layout: &Path) -> Result<BTreeSet<PathBuf>> {
    let store = Store::open(layout)?;
    let files = kernel_files(&options.packages, kernel)?;
    let discovery = discovery(options, &files, &store).context("cannot make the discovery image")?;
    let [bin, efi] = [MEMTEST_KERNEL, MEMTEST_PROGRAM].map(|file| options.packages.join(file));
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let memtest = foreign_with_efi(open(&bin)?, Vec::<File>::new(), open(&efi)?, MEMTEST_CMDLINE, &store)?;
    store.write_index(&[named(&discovery, DISCOVERY)?, named(&memtest, MEMTEST)?])?;
    fs::remove_dir_all(store.tmp()).with_context(|| format!("cannot remove {}", store.tmp().display()))?;
    Ok(files.into_iter().map(|(_, file)| file).chain([bin, efi]).collect())
}

fn named(image: &Imported, name: &str) -> Result<IndexEntry> {
    Ok(IndexEntry { digest: image.digest, size: image.manifest_size, name: Some(name.parse()?) })
}

/// A kernel image without the layer for container images, which alone is larger than the rest of the disc.
fn discovery(options: &Options, files: &[(String, PathBuf)], store: &Store) -> Result<Imported> {
    let shim = fs::read(options.packages.join("usr/lib/shim/shimx64.efi.signed"))?;
    let how = import::Options {
        kernel_only: true,
        without_layer: true,
        level: options.level,
        trusted: signing::trusted_by(&shim),
        ..Default::default()
    };
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        let packing = scope.spawn(move || pack(files, writer));
        let imported = root_from_tar(reader, &how, store, &Quiet);
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

/// The files as a tar; directories are made of their paths.
fn pack(files: &[(String, PathBuf)], out: impl Write) -> io::Result<()> {
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
    tar.finish()?.flush()
}

/// Nobody watches.
struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: ImportStep, _: u64, _: Option<u64>) {}

    fn note(&self, note: &str) {
        println!("discovery image: {note}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_images::archive::{EntryKind, Reader};

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
        pack(&files, &mut tar).unwrap();
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
        ];
        assert_eq!(seen, expected);
    }
}
