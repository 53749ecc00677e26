//! An ISO image: its live system, which then fetches its root by itself, or the whole disc.

use super::{
    ImportError, ImportStep, Imported, Meter, Options, Progress,
    foreign::{self, copy},
    manifest,
};
use crate::{
    disk,
    iso::{self, Disc, IsoError, Live, Part},
    kernel::{self, KernelError},
    store::Store,
};
use bennu_rules::{
    boot::arguments,
    facts::Architecture,
    image::{BlobRef, Content, ImageConfig, NamedBlob},
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// A line that discs say what they are with.
const LONGEST_INFO: u64 = 4 << 10;

/// Imports an ISO image. Of `options` the kernel arguments count, which come after the disc's own.
///
/// Temporary space on the store's file system: the image.
pub fn iso(
    reader: impl Read,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Imported, ImportError> {
    foreign::check_cmdline(&options.cmdline)?;
    let hold = store.hold();
    let meter = Meter::new(progress, ImportStep::Read, options.source_size);
    let disc = Disc::open(disk::spool(reader, store, meter)?)?;
    let os = disc.text(".disk/info", LONGEST_INFO).map(|text| crate::archive::show(text.trim().as_bytes()));
    let os = os.filter(|text| !text.is_empty());
    let take = |part: &Part, what: &str| match part {
        Part::File(path) => copy(Stretches::of(&disc, path)?, what, store),
        Part::Whole => copy(Stretches { disc: &disc, what: "the disc", left: vec![(0, disc.size())] }, what, store),
    };
    let (content, architecture, cmdline) = match iso::find(&disc) {
        Some(live) => {
            said(&live, progress);
            let (kernel, head) = take(&Part::File(live.kernel.clone()), "kernel")?;
            let not_one = || ImportError::from(KernelError::Unknown { path: live.kernel.clone() });
            let architecture = kernel::architecture(&head).ok_or_else(not_one)?;
            let initrd = |path: &String| Ok::<_, ImportError>(take(&Part::File(path.clone()), "initrd")?.0);
            let initrds = live.initrds.iter().map(initrd).collect::<Result<_, _>>()?;
            let named = |(name, part): &(String, Part)| {
                Ok::<_, ImportError>(NamedBlob { name: name.clone(), blob: take(part, name)?.0 })
            };
            let files = live.files.iter().map(named).collect::<Result<_, _>>()?;
            (Content::Foreign { kernel, initrds, efi: None, files }, architecture, live.cmdline)
        }
        None if disc.boots() => {
            progress.note(
                "no live system that is known is on the disc: machines start it whole, as from a drive. Bennu cannot see \
                 into it, and a system that looks for its drive once it runs will find none",
            );
            let disc_blob: BlobRef = take(&Part::Whole, "disc")?.0;
            (Content::Disc { disc: disc_blob }, of_disc(&disc), String::new())
        }
        None => return Err(IsoError::NotBootable.into()),
    };
    let cmdline = arguments::join(&[&cmdline, &options.cmdline]);
    foreign::check_cmdline(&cmdline)?;
    let tools = BTreeMap::from([("bennu".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    manifest::seal(ImageConfig { cmdline, os, tools, ..ImageConfig::of(architecture, content) }, store, hold)
}

fn said(live: &Live, progress: &dyn Progress) {
    progress.note(&format!("on the disc is {}: {}", live.name, crate::archive::show(live.kernel.as_bytes())));
    if live.is_guessed {
        progress.note(
            "where that looks for its root is not known: if it is a drive, it will find none. Say where it is in its own \
             words (--cmdline)",
        );
    }
}

/// By the program that UEFI starts from removable media (UEFI specification, "Removable Media Boot Behavior").
fn of_disc(disc: &Disc) -> Architecture {
    let has = |name: &str| disc.paths().any(|path| path.eq_ignore_ascii_case(name));
    match (has("EFI/BOOT/BOOTX64.EFI"), has("EFI/BOOT/BOOTAA64.EFI")) {
        (false, true) => Architecture::Arm64,
        _ => Architecture::X86_64,
    }
}

/// Stretches of a disc as a stream.
struct Stretches<'a> {
    disc: &'a Disc,
    what: &'a str,
    /// Those still to go, the next one last.
    left: Vec<(u64, u64)>,
}

impl<'a> Stretches<'a> {
    fn of(disc: &'a Disc, path: &'a str) -> Result<Self, IsoError> {
        let gone = || IsoError::Damaged(format!("'{path}' is not on it"));
        let left = disc.stretches(path).ok_or_else(gone)?.iter().rev().copied().collect();
        Ok(Self { disc, what: path, left })
    }
}

impl Read for Stretches<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((offset, length)) = self.left.pop() else { return Ok(0) };
        if length == 0 {
            return self.read(buffer);
        }
        let count = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        self.disc.read_exact_at(&mut buffer[..count], offset, self.what).map_err(io::Error::other)?;
        if count as u64 != length {
            self.left.push((offset + count as u64, length - count as u64));
        }
        Ok(count)
    }
}
