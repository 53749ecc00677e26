//! A disk image: its root partition becomes the root as it is.

mod boot;

use super::{ImportError, ImportStep, Imported, Meter, Options, Progress, manifest, root};
use crate::{
    archive::decompress,
    disk::{self, Disk, DiskError, Files, Found, Part, Partition, Role},
    kernel, modules, signing,
    store::Store,
    verity,
};
use bennu_plan::INITS;
use bennu_rules::image::{BlobRef, Content, FileSystem, ImageConfig};
use std::{
    collections::BTreeMap,
    io::{Read, Write as _},
    rc::Rc,
};

const CHUNK: usize = 1 << 20;

/// Imports a disk image, raw or qcow2, plain or compressed with gzip, xz or zstd. Its boot loader and its own kernel
/// arguments have no say: the arguments are those of `options`.
///
/// Temporary space on the store's file system: the image's file, and the root partition's kernels and modules.
pub fn disk(
    reader: impl Read,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Imported, ImportError> {
    root::check(options)?;
    let hold = store.hold();
    let unreadable = |source| ImportError::Read { what: "disk image".to_owned(), source };
    let plain = decompress::sniff(reader).map_err(unreadable)?;
    let meter = Meter::new(progress, ImportStep::Read, options.source_size);
    let disk = Rc::new(Disk::open(disk::spool(plain, store, meter)?)?);
    let partitions = disk::partitions(&disk)?;
    let Chosen { partition, part, facts, files } = choose(&disk, &partitions)?;
    progress.note(&format!("the root is {}, an ext4 of {}", partition.describe(), crate::store::bytes(facts.size)));
    if facts.is_dirty {
        progress.note(
            "it was not unmounted, or its machine still ran: changes that are only in its journal are not in the image. \
             Shut the machine down, or run e2fsck on the disk, and import it again",
        );
    }
    let indexed = boot::gather(&disk, &partitions, &partition, &files, store, progress)?;
    root::check_system(&indexed, &options.cmdline, progress)?;
    let kernel = kernel::find(&indexed, &mut |note| progress.note(note))?;
    let kernel_blob = store.put(&kernel.bytes)?;
    let signed = signing::examine(&indexed, &kernel, &options.trusted, store, &mut |note| progress.note(note))?;
    let filesystem = FileSystem::Ext4;
    let modules = modules::initrd(&indexed, &kernel, filesystem, options.level, options.threads(), store, progress)?;
    let root = copy(&part, facts.size, &partition, store, progress)?;
    progress.check()?;
    let verity = Some(verity::protect(&root, store, options.threads())?);
    let os = root::os_release(&indexed);
    let kernel_release = kernel.release;
    let content = Content::Root { kernel: kernel_blob, modules, root, filesystem, verity, kernel_release };
    let tools = BTreeMap::from([("bennu".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    let cmdline = options.cmdline.trim().to_owned();
    let config = ImageConfig { cmdline, signed, os, tools, ..ImageConfig::of(kernel.architecture, content) };
    manifest::seal(config, store, hold)
}

/// The root partition.
struct Chosen {
    partition: Partition,
    part: Part,
    facts: disk::Ext4,
    files: Files,
}

/// The partition that says it is a root; where none says so, the first that has a system on it.
fn choose(disk: &Rc<Disk>, partitions: &[Partition]) -> Result<Chosen, DiskError> {
    let says = |partition: &&Partition| matches!(partition.role, Role::Root(_));
    let (said, rest): (Vec<_>, Vec<_>) = partitions.iter().partition(says);
    let mut seen = Vec::new();
    for partition in said.into_iter().chain(rest) {
        let part = Part::of(disk, partition);
        let told = partition.describe();
        let what = match disk::look(&part, partition) {
            Ok(Found::Ext4(facts)) => match system(&part) {
                Ok(Some(files)) => match facts.objection() {
                    Some(what) => return Err(DiskError::Root { partition: told, what }),
                    None => return Ok(Chosen { partition: *partition, part, facts, files }),
                },
                Ok(None) => "has no system in its ext4 (no os-release, or no init)".to_owned(),
                Err(error) => format!("has an ext4 that cannot be read ({error})"),
            },
            Ok(Found::Fat) => "is FAT".to_owned(),
            Ok(Found::Other("")) => "holds nothing that is known".to_owned(),
            Ok(Found::Other(name)) => format!("is {name}, whose files are not read here"),
            Err(error @ DiskError::Root { .. }) => return Err(error),
            Err(error) => format!("cannot be read ({error})"),
        };
        seen.push(format!("{told} {what}"));
    }
    Err(DiskError::NoRoot(if seen.is_empty() { "its partition table is empty".to_owned() } else { seen.join("; ") }))
}

/// The files of a partition that has a system on it.
fn system(part: &Part) -> Result<Option<Files>, DiskError> {
    let files = Files::open(part)?;
    let any = |paths: &[&str]| -> Result<bool, DiskError> {
        for path in paths {
            if files.has(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let is_one = any(&["/etc/os-release", "/usr/lib/os-release"])? && any(&INITS)?;
    Ok(is_one.then_some(files))
}

/// The file system's bytes as a blob; dm-verity wants whole blocks, which ext4's are.
fn copy(
    part: &Part,
    size: u64,
    partition: &Partition,
    store: &Store,
    progress: &dyn Progress,
) -> Result<BlobRef, ImportError> {
    let mut meter = Meter::new(progress, ImportStep::Root, Some(size));
    let mut out = store.writer()?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let count = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
        let bytes = &mut buffer[..count];
        let failed = |source| DiskError::Read { what: format!("{} at {at}", partition.describe()), source };
        part.read_exact_at(bytes, at).map_err(failed)?;
        store.check_room()?;
        out.write_all(bytes).map_err(|e| store.failed("write to", store.tmp(), e))?;
        at += count as u64;
        meter.at(at);
        meter.check()?;
    }
    meter.done(size);
    progress.step(ImportStep::Store, 0, None);
    Ok(out.finish()?)
}
