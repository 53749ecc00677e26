//! EFI programs, and kernels with another build of them for UEFI.

use super::{
    ImportError, Imported, Progress,
    foreign::{self, copy},
    manifest, root,
};
use crate::{
    efi::{self, EfiError, Section},
    kernel,
    store::Store,
};
use bennu_rules::{
    boot::arguments,
    facts::Architecture,
    image::{BlobRef, Content, ImageConfig},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

/// What kernels take is far less, and an os-release is a few lines.
const LONGEST_TEXT: u64 = 64 << 10;

/// Imports an EFI program. A unified kernel image also boots with BIOS: its kernel, initrds and arguments lie in its
/// sections. Any other boots with UEFI alone.
pub fn efi(program: impl Read, cmdline: &str, store: &Store, progress: &dyn Progress) -> Result<Imported, ImportError> {
    foreign::check_cmdline(cmdline)?;
    let hold = store.hold();
    let (program, head) = copy(program, "EFI program", store)?;
    let (file, size) = store.open_blob(&program.digest)?;
    let read = |buffer: &mut [u8], offset| file.read_exact_at(buffer, offset);
    let sections = efi::sections(&read, size)?;
    let unknown = || EfiError::None("it is for no architecture that is known");
    let architecture = kernel::architecture(&head).ok_or_else(unknown)?;
    let text =
        |name: &str| efi::find(&sections, name).map(|section| efi::text(&read, section, LONGEST_TEXT)).transpose();
    let os = text(".osrel")?.and_then(|text| root::pretty_name(&text));
    let own = text(".cmdline")?.unwrap_or_default();
    let cmdline = arguments::join(&[&own, cmdline]);
    foreign::check_cmdline(&cmdline)?;
    let part = |section: &Section| extracted(&file, section, store);
    let content = match efi::find(&sections, ".linux") {
        None => {
            progress.note("it is no unified kernel image: machines with UEFI start it, and those with BIOS cannot");
            Content::Program { program }
        }
        Some(linux) => {
            if let Some(release) = text(".uname")? {
                progress.note(&format!(
                    "a unified kernel image with the kernel {}",
                    crate::archive::show(release.as_bytes())
                ));
            }
            // In the order in which its stub gives them to the kernel.
            let initrds = [".ucode", ".initrd"].into_iter().filter_map(|name| efi::find(&sections, name));
            let initrds = initrds.map(part).collect::<Result<_, _>>()?;
            Content::Foreign { kernel: part(linux)?, initrds, efi: Some(program), files: Vec::new() }
        }
    };
    let tools = BTreeMap::from([("bennu".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    manifest::seal(ImageConfig { cmdline, os, tools, ..ImageConfig::of(architecture, content) }, store, hold)
}

/// Imports a kernel and initrds for BIOS, with the program that UEFI starts in their place.
pub fn foreign_with_efi<K: Read, I: Read, E: Read>(
    kernel: K,
    initrds: Vec<I>,
    program: E,
    cmdline: &str,
    store: &Store,
) -> Result<Imported, ImportError> {
    foreign::check_cmdline(cmdline)?;
    let hold = store.hold();
    let (program, head) = copy(program, "EFI program", store)?;
    let (file, size) = store.open_blob(&program.digest)?;
    efi::sections(&|buffer, offset| file.read_exact_at(buffer, offset), size)?;
    let of_program = kernel::architecture(&head);
    let made = foreign::foreign(kernel, initrds, cmdline, of_program.filter(is_not_x86), store)?;
    let mut config = made.config;
    if is_x86(config.architecture) != of_program.is_some_and(is_x86) {
        let what = format!(
            "the kernel is for {:?}, and the EFI program for {of_program:?}: they are not two builds of one. Name the \
             right files",
            config.architecture
        );
        return Err(ImportError::Option(what));
    }
    if let Content::Foreign { efi, .. } = &mut config.content {
        *efi = Some(program);
    }
    manifest::seal(config, store, hold)
}

fn is_x86(architecture: Architecture) -> bool {
    matches!(architecture, Architecture::X86 | Architecture::X86_64)
}

/// Programs that only look like kernels (memtest86+) do not say in the kernel's header that they are 64-bit.
fn is_not_x86(architecture: &Architecture) -> bool {
    !is_x86(*architecture)
}

/// A section as a blob of its own.
fn extracted(file: &File, section: &Section, store: &Store) -> Result<BlobRef, ImportError> {
    let stretch = Stretch { file, at: section.start, left: section.length };
    Ok(copy(stretch, &section.name, store)?.0)
}

/// A stretch of a file as a stream.
struct Stretch<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
