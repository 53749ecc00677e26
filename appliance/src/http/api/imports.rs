//! `/v1/imports`: a tar streams in, progress streams out, and an image is on record or nothing is.
//!
//! The answer's body is JSON lines ([`Line`]) that begin while the request's body still arrives; the last one is the
//! image or the problem. A client that goes away ends its import, and nothing of it stays.

use super::{
    Api, Shared,
    images::{ImageShown, write_index},
    lines,
    problem::{Answer, Kind, Problem},
    request::{Params, named},
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    response::Response,
};
use bennu_images::{
    archive::{EntryKind, Reader, TarError, decompress},
    import::{
        self, Acls, ImportError, ImportStep, Imported, Options, Progress, foreign, foreign_with_efi, root_from_tar,
    },
    kernel, signing,
    store::Store,
};
use bennu_rules::{
    Records,
    boot::chain::SHIM,
    commands::images::{AddImage, add_image},
    facts::Architecture,
    image::{Image, ImageName},
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, Write},
    sync::Arc,
};
use tokio::sync::mpsc;

/// What the body holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kinds {
    /// A root filesystem that carries its kernel and modules.
    #[default]
    Root,
    /// A kernel and its modules, without a root.
    Kernel,
    /// Files `kernel`, `initrd…` (in their order) and perhaps `efi`, started as they are.
    Foreign,
    /// A disk image, whose root partition becomes the root.
    Disk,
    /// A live system's disc.
    Iso,
    /// An EFI program.
    Efi,
}

/// What to do with access control lists, which a root filesystem cannot hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclsWanted {
    /// Refuse the import and name the file.
    #[default]
    Refuse,
    /// Leave them out.
    Drop,
}

/// The query of an import.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The tag to point at the image.
    name: String,
    /// Where it comes from, as the person wrote it.
    source: String,
    #[serde(default)]
    kind: Kinds,
    /// Kernel arguments of the image.
    #[serde(default)]
    cmdline: String,
    /// zstd level; the configuration's if absent.
    level: Option<u32>,
    #[serde(default)]
    acls: AclsWanted,
    /// The body's size, for progress.
    size: Option<u64>,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// How far the import is.
    Step {
        /// `read`, `modules`, `root` or `store`.
        step: String,
        /// Bytes (`modules`: files).
        done: u64,
        /// Of so many, if that is known.
        total: Option<u64>,
    },
    /// Something to read.
    Note {
        /// A sentence.
        note: String,
    },
    /// The end: the image is on record.
    Image {
        /// As it is on record.
        image: Box<ImageShown>,
        /// Whether the same image was here before.
        known: bool,
    },
    /// The end: nothing was changed.
    Problem {
        /// Why.
        problem: Problem,
    },
}

type Lines = lines::Lines<Line>;

/// `POST /v1/imports`
pub async fn create(State(api): Shared, Params(wanted): Params<Wanted>, body: Body) -> Answer<Response> {
    let name: ImageName = named(&wanted.name)?;
    if wanted.source.is_empty() || wanted.source.len() > 4096 || wanted.source.chars().any(char::is_control) {
        return Err(Problem::new(Kind::Malformed, "query: source is empty, too long or no line of text", ""));
    }
    let (lines, answer) = lines::answer();
    let (chunks, body_reader) = BodyReader::new();
    let pump = tokio::spawn(pump(body, chunks));
    tokio::spawn(async move {
        let end = match run(&api, wanted, name, body_reader, lines.clone()).await {
            Ok(end) => end,
            Err(problem) => Line::Problem { problem },
        };
        let _ = lines.send(end).await;
        // The answer ends when the request has: a client that still sends would lose the last line otherwise.
        let _ = pump.await;
    });
    Ok(answer)
}

async fn run(api: &Arc<Api>, wanted: Wanted, name: ImageName, body: BodyReader, lines: Lines) -> Answer<Line> {
    let source = wanted.source.clone();
    let working = (api.clone(), lines.clone());
    let work = tokio::task::spawn_blocking(move || {
        let (api, lines) = working;
        import(&wanted, &api, body, &Teller { lines })
    });
    let made = work.await.unwrap_or_else(|panic| {
        tracing::error!(%panic, "an import panicked");
        Err(Problem::new(Kind::Internal, "the import failed inside bennu", "look at the service's log"))
    });
    let settling = api.settling.lock().await;
    let recorded = match made {
        Ok(_) if lines.is_cancelled() => Err(Problem::new(Kind::Import, "the client went away", "")),
        Ok(imported) => record(api, imported, name, source).await,
        Err(problem) => Err(problem),
    };
    if recorded.is_err() {
        // Nothing names what it wrote; other imports hold theirs.
        let api = api.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&api)).await;
        if let Ok(Err(problem)) = swept {
            tracing::warn!(%problem, "cannot remove what a failed import left; the next start does");
        }
    }
    drop(settling);
    recorded
}

/// The one proposal that adds the image and moves the tag.
async fn record(api: &Arc<Api>, imported: Imported, name: ImageName, source: String) -> Answer<Line> {
    let Imported { digest, manifest_size, config_blob, config, hold } = imported;
    let image = Image { digest, manifest_size, config_blob, config, imported: Default::default(), source };
    let added = api.ledger.decide(AddImage { image, name: name.clone() }, add_image).await?;
    drop(hold);
    tracing::info!(%name, %digest, known = added.known, "imported an image");
    // Derived, and written again by the next change: no reason to call the import failed.
    if let Err(problem) = write_index(api) {
        tracing::warn!(%problem, "cannot write the image index");
    }
    let (tags, machines) = api.ledger.read(|records, _| (records.tags(), records.machines()))?;
    let shown = ImageShown::of(added.image, &tags, &machines);
    Ok(Line::Image { image: Box::new(shown), known: added.known })
}

fn sweep(api: &Api) -> Answer<()> {
    let used = api.blobs_in_use().map_err(|error| Problem::new(Kind::Internal, format!("{error:#}"), ""))?;
    api.store.collect(&used)?;
    Ok(())
}

fn import(wanted: &Wanted, api: &Api, body: BodyReader, progress: &Teller) -> Answer<Imported> {
    let imported = match wanted.kind {
        Kinds::Foreign => import_foreign(wanted, api, body, progress)?,
        Kinds::Efi => import::efi(body, &wanted.cmdline, &api.store, progress)?,
        Kinds::Iso => import::iso(body, &options(wanted, api), &api.store, progress)?,
        Kinds::Disk => import::disk(body, &options(wanted, api), &api.store, progress)?,
        Kinds::Root | Kinds::Kernel => root_from_tar(body, &options(wanted, api), &api.store, progress)?,
    };
    Ok(imported)
}

fn options(wanted: &Wanted, api: &Api) -> Options {
    Options {
        kernel_only: wanted.kind == Kinds::Kernel,
        cmdline: wanted.cmdline.clone(),
        level: wanted.level.unwrap_or(api.config.import.compression_level),
        acls: match wanted.acls {
            AclsWanted::Refuse => Acls::Refuse,
            AclsWanted::Drop => Acls::Drop,
        },
        source_size: wanted.size,
        trusted: trusted(api),
        ..Options::default()
    }
}

/// The parts lie in scratch files first: a tar gives them one after the other, and its end says that it is whole.
fn import_foreign(wanted: &Wanted, api: &Api, body: BodyReader, progress: &Teller) -> Answer<Imported> {
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

/// The names that the appliance's own shim trusts.
fn trusted(api: &Api) -> BTreeSet<String> {
    api.loaders.get(SHIM).map(|shim| signing::trusted_by(&shim.bytes)).unwrap_or_default()
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

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Store(error) => error.into(),
            ImportError::Spool { .. } | ImportError::Json(_) => Self::told(Kind::Internal, &error),
            ImportError::Option(_) => Self::told(Kind::Unprocessable, &error),
            ImportError::Tar(_)
            | ImportError::Entry(_)
            | ImportError::NotCarried(_)
            | ImportError::Kernel(_)
            | ImportError::Modules(_)
            | ImportError::Build(_)
            | ImportError::Disk(_)
            | ImportError::Efi(_)
            | ImportError::Iso(_)
            | ImportError::NoInit { .. }
            | ImportError::Cancelled(_)
            | ImportError::Read { .. } => Self::told(Kind::Import, &error),
        }
    }
}

/// Passes progress on. A slow reader misses steps, but never the end.
struct Teller {
    lines: Lines,
}

impl Progress for Teller {
    fn step(&self, step: ImportStep, done: u64, total: Option<u64>) {
        let step = match step {
            ImportStep::Pack => "pack",
            ImportStep::Read => "read",
            ImportStep::Modules => "modules",
            ImportStep::Root => "root",
            ImportStep::Store => "store",
        };
        let _ = self.lines.hint(Line::Step { step: step.to_owned(), done, total });
    }

    fn note(&self, note: &str) {
        let _ = self.lines.tell(Line::Note { note: note.to_owned() });
    }

    fn is_cancelled(&self) -> bool {
        self.lines.is_cancelled()
    }
}

/// A request's body for a thread that blocks.
struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    fn new() -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, chunks) = mpsc::channel(8);
        (sender, Self { chunks, current: Bytes::new() })
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Moves the body to the thread that reads it, and what nobody wants any more to nowhere.
async fn pump(body: Body, chunks: mpsc::Sender<io::Result<Bytes>>) {
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let broken = chunk.is_err();
        let chunk = chunk.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error));
        let _ = chunks.send(chunk).await;
        if broken {
            return;
        }
    }
}
