//! A kernel and initrds of somebody else's, in a tar.

use super::{Teller, Wanted};
use crate::{
    http::{
        api::{
            Api,
            problem::{Answer, Kind, Problem},
        },
        body::BodyReader,
    },
    registry::convert::trusted,
};
use bennu_images::{
    archive::{EntryKind, Reader, TarError, decompress},
    import::{ImportError, ImportStep, Imported, Progress, foreign, foreign_with_efi},
    kernel, signing,
    store::Store,
};
use bennu_rules::facts::Architecture;
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
};

/// The parts lie in scratch files first: a tar gives them one after the other, and its end says that it is whole.
pub(super) fn import_foreign(wanted: &Wanted, api: &Api, body: BodyReader, progress: &Teller) -> Answer<Imported> {
    let store = &api.store;
    let unreadable = |error: TarError| Problem::from(ImportError::from(error));
    let stream = decompress::sniff(body).map_err(|error| Problem::told(Kind::Import, &error))?;
    let mut reader = Reader::new(stream);
    let (mut kernel, mut initrds, mut program, mut done) = (None, Vec::new(), None, 0);
    while let Some(entry) = reader.next_entry().map_err(unreadable)? {
        let name = String::from_utf8_lossy(&entry.path).trim_start_matches("./").to_owned();
        if entry.kind != EntryKind::File {
            continue;
        }
        let part = spool(&mut reader, store, &mut |count| {
            done += count;
            progress.step(ImportStep::Read, done, wanted.size);
        })?;
        match name.as_str() {
            "kernel" => kernel = Some(part),
            "efi" => program = Some(part),
            name if name.starts_with("initrd") => initrds.push(part),
            other => {
                let detail = format!("'{}' is no part of a foreign image", other.chars().take(80).collect::<String>());
                return Err(Problem::new(
                    Kind::Import,
                    detail,
                    "send a tar of the files kernel, initrd… (in their order) and efi",
                ));
            }
        }
    }
    let mut kernel = kernel.ok_or_else(|| Problem::new(Kind::Import, "the tar holds no file 'kernel'", ""))?;
    if let Some(said) = unsigned(&mut kernel, api).map_err(|error| store.failed("read from", store.tmp(), error))? {
        progress.note(&said);
    }
    Ok(match program {
        Some(program) => foreign_with_efi(kernel, initrds, program, &wanted.cmdline, store)?,
        None => foreign(kernel, initrds, &wanted.cmdline, None, store)?,
    })
}

/// What Secure Boot has against a kernel, if that is one for x86-64.
fn unsigned(kernel: &mut File, api: &Api) -> io::Result<Option<String>> {
    /// Kernels have some ten megabytes; what is larger is none, which the import will say.
    const LARGEST: u64 = 256 << 20;
    let mut bytes = Vec::new();
    Read::by_ref(kernel).take(LARGEST).read_to_end(&mut bytes)?;
    kernel.rewind()?;
    let is_ours = kernel::architecture(&bytes) == Some(Architecture::X86_64);
    Ok(is_ours.then(|| signing::objection(&bytes, "kernel", None, &trusted(api))).flatten())
}

fn spool<R: Read>(reader: &mut Reader<R>, store: &Store, told: &mut dyn FnMut(u64)) -> Answer<File> {
    let mut file = store.spool()?;
    let failed = |error| Problem::from(store.failed("write to", store.tmp(), error));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read_data(&mut buffer).map_err(|error| Problem::from(ImportError::from(error)))? {
            0 => break,
            count => {
                store.check_room()?;
                file.write_all(&buffer[..count]).map_err(failed)?;
                told(count as u64);
            }
        }
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}
