//! Somebody else's kernel and initrds, which Bennu starts as they are.

use super::{ImportError, Imported, manifest};
use crate::{kernel, store::Store};
use bennu_rules::{
    facts::Architecture,
    image::{BlobRef, Content, ImageConfig},
};
use std::{
    collections::BTreeMap,
    io::{Read, Write as _},
};

/// The longest command line a common kernel takes (x86: COMMAND_LINE_SIZE, 2048 with the NUL).
const LONGEST_CMDLINE: usize = 2_047;

/// How much of a kernel's start is enough to know it.
const HEAD: usize = 64 << 10;

/// Imports a kernel, its initrds in their order, and its arguments. The architecture is read from the kernel;
/// `architecture` is for kernels that do not tell, and must agree with those that do.
pub fn foreign<K: Read, I: Read>(
    kernel: K,
    initrds: Vec<I>,
    cmdline: &str,
    architecture: Option<Architecture>,
    store: &Store,
) -> Result<Imported, ImportError> {
    check_cmdline(cmdline)?;
    let hold = store.hold();
    let (kernel, head) = copy(kernel, "kernel", store)?;
    let told = kernel::architecture(&head);
    let architecture = match (told, architecture) {
        (Some(told), Some(wanted)) if told != wanted => {
            let what = format!("the kernel is for {told:?}, and {wanted:?} was asked for. Name the right kernel");
            return Err(ImportError::Option(what));
        }
        (Some(told), _) => told,
        (None, Some(wanted)) => wanted,
        (None, None) => {
            let what = "the kernel is neither a bzImage nor an EFI program; name the kernel's file (vmlinuz, linux)";
            return Err(ImportError::Option(what.to_owned()));
        }
    };
    let mut blobs = Vec::new();
    for (at, initrd) in initrds.into_iter().enumerate() {
        blobs.push(copy(initrd, &format!("initrd {}", at + 1), store)?.0);
    }
    let content = Content::Foreign { kernel, initrds: blobs, efi: None, files: Vec::new() };
    let tools = BTreeMap::from([("bennu".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    let cmdline = cmdline.trim().to_owned();
    manifest::seal(ImageConfig { cmdline, tools, ..ImageConfig::of(architecture, content) }, store, hold)
}

/// Kernel arguments end up in boot scripts and in `/proc/cmdline`: one printable line.
pub(super) fn check_cmdline(cmdline: &str) -> Result<(), ImportError> {
    if let Some(bad) = cmdline.chars().find(|c| c.is_control()) {
        let what = format!("the kernel arguments hold the control character {bad:?}; write them in one line");
        return Err(ImportError::Option(what));
    }
    if cmdline.len() > LONGEST_CMDLINE {
        let what = format!(
            "the kernel arguments have {} bytes, and kernels take {LONGEST_CMDLINE}; shorten them",
            cmdline.len()
        );
        return Err(ImportError::Option(what));
    }
    Ok(())
}

/// Copies a stream into the store; also gives its first bytes.
pub(super) fn copy(mut source: impl Read, what: &str, store: &Store) -> Result<(BlobRef, Vec<u8>), ImportError> {
    let mut writer = store.writer()?;
    let mut head = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ImportError::Read { what: what.to_owned(), source }),
        };
        let wanted = count.min(HEAD - head.len());
        head.extend_from_slice(&buffer[..wanted]);
        store.check_room()?;
        writer.write_all(&buffer[..count]).map_err(|e| store.failed("write to", store.tmp(), e))?;
    }
    if head.is_empty() {
        return Err(ImportError::Option(format!("the {what} is empty; name the right file")));
    }
    Ok((writer.finish()?, head))
}
