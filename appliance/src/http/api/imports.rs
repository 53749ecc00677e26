//! `/v1/imports`: a tar streams in, progress streams out, and an image is on record or nothing is.
//!
//! The answer's body is JSON lines ([`Line`]) that begin while the request's body still arrives; the last one is the
//! image or the problem. A client that goes away ends its import, and nothing of it stays.

mod foreign;

use super::{
    Api, Shared,
    images::{ImageShown, write_index},
    lines,
    problem::{Answer, Kind, Problem},
    request::{Params, named},
};
use crate::{
    author,
    http::{
        access::read_on,
        body::{BodyReader, pump},
    },
    registry::{
        convert::{self, Converted, convert, trusted},
        trust::{self, Arriving},
    },
};
use axum::{
    body::{Body, HttpBody},
    extract::State,
    response::Response,
};
use bennu_images::{
    import::{self, Acls, ImportError, ImportStep, Imported, Meter, Options, Progress, root_from_tar},
    oci::read_archive,
};
use bennu_rules::{
    Records,
    commands::images::{AddImages, add_images},
    image::{Image, ImageName, ImageReference},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Instant};

/// What the body holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportKind)]
#[serde(rename_all = "snake_case")]
pub enum Kinds {
    /// A root filesystem that carries its kernel and modules.
    #[default]
    Root,
    /// A kernel and its modules, without a root.
    Kernel,
    /// A container image: an OCI layout in a tar, or what `docker save` writes.
    Container,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportAcls)]
#[serde(rename_all = "snake_case")]
pub enum AclsWanted {
    /// Refuse the import and name the file.
    #[default]
    Refuse,
    /// Leave them out.
    Drop,
}

/// The query of an import.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The tag to point at the image.
    #[param(value_type = ImageName)]
    name: String,
    /// Where it comes from, as the person wrote it.
    #[param(min_length = 1, max_length = 4096, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    source: String,
    #[serde(default)]
    #[param(inline)]
    kind: Kinds,
    /// Kernel arguments of the image.
    #[serde(default)]
    cmdline: String,
    /// zstd level; the configuration's if absent.
    level: Option<u32>,
    #[serde(default)]
    #[param(inline)]
    acls: AclsWanted,
    /// Which image of the archive, where it has several: a tag or a name.
    image: Option<String>,
    /// The kernel image for a container image without a kernel; the configuration's if absent.
    kernel: Option<ImageReference>,
    /// The body's size, for progress.
    size: Option<u64>,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportLine)]
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

fn checked(wanted: Wanted, body: &Body) -> Answer<(Wanted, ImageName)> {
    let name: ImageName = named(&wanted.name)?;
    if wanted.source.is_empty() || wanted.source.chars().count() > 4096 || wanted.source.chars().any(char::is_control) {
        return Err(Problem::new(Kind::Malformed, "query: source is empty, too long or no line of text", ""));
    }
    if body.is_end_stream() {
        return Err(Problem::new(Kind::Malformed, "there is no body", "send what is to be imported as the body"));
    }
    Ok((wanted, name))
}

/// `POST /v1/imports`
#[utoipa::path(
    post,
    path = "/v1/imports",
    tag = "images",
    params(Wanted),
    request_body(content = crate::http::api::openapi::Binary, content_type = "application/octet-stream", description = "A tar (of a root, a kernel, or a container image), a disk image, an ISO image or an EFI program, as `kind` says."),
    responses((status = OK, content_type = "application/x-ndjson", body = Line, description = "JSON lines, as the work goes on; the last is the image or the problem."))
)]
pub async fn create(State(api): Shared, wanted: Result<Params<Wanted>, Problem>, body: Body) -> Answer<Response> {
    let (wanted, name) = match wanted.and_then(|Params(wanted)| checked(wanted, &body)) {
        Ok(checked) => checked,
        Err(problem) => {
            read_on(body);
            return Err(problem);
        }
    };
    let (lines, answer) = lines::answer();
    let (chunks, body_reader) = BodyReader::new();
    let pump = tokio::spawn(pump(body, chunks));
    author::spawn(async move {
        let started = Instant::now();
        let end = match run(&api, wanted, name, body_reader, lines.clone()).await {
            Ok(end) => end,
            Err(problem) => Line::Problem { problem },
        };
        api.metrics.import(matches!(end, Line::Image { .. }), started.elapsed());
        let _ = lines.send(end).await;
        // The answer ends when the request has: a client that still sends would lose the last line otherwise.
        let _ = pump.await;
    });
    Ok(answer)
}

async fn run(api: &Arc<Api>, wanted: Wanted, name: ImageName, body: BodyReader, lines: Lines) -> Answer<Line> {
    let (source, wanted_kind) = (wanted.source.clone(), wanted.kind);
    let working = (api.clone(), lines.clone());
    let work = tokio::task::spawn_blocking(move || {
        let (api, lines) = working;
        import(&wanted, &api, body, &Teller { lines })
    });
    let made = work.await.unwrap_or_else(|panic| {
        tracing::error!(%panic, "an import panicked");
        Err(Problem::new(Kind::Internal, "the import failed inside bennu", "look at the service's log"))
    });
    let settling = api.registry.settling.lock().await;
    let is_container = wanted_kind == Kinds::Container;
    let recorded = match made {
        Ok(_) if lines.is_cancelled() => Err(Problem::new(Kind::Import, "the client went away", "")),
        Ok(made) => record(api, made, name, source).await,
        Err(problem) => Err(problem),
    };
    if recorded.is_err() || is_container {
        // Nothing names what it wrote, or what an archive had beside its image; other imports hold theirs.
        let api = api.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&api)).await;
        if let Ok(Err(problem)) = swept {
            tracing::warn!(%problem, "cannot remove what an import left; the next start does");
        }
    }
    drop(settling);
    recorded
}

/// The one proposal that adds the images and moves the tag.
async fn record(api: &Arc<Api>, made: Converted, name: ImageName, source: String) -> Answer<Line> {
    let (mut images, holds): (Vec<Image>, Vec<_>) = made.images.into_iter().map(|made| parted(made, &source)).unzip();
    let (source, signatures) = (made.source, trust::better(made.signatures, api)?);
    trust::judge_new(&mut images, &Arriving { source: &source, signatures: &signatures }, api);
    let request = AddImages { images, name: name.clone(), source, signatures };
    let added = api.ledger.decide(request, add_images).await?;
    drop(holds);
    for image in &added {
        tracing::info!(%name, digest = %image.image.digest, known = image.known, "imported an image");
    }
    // Derived, and written again by the next change: no reason to call the import failed.
    if let Err(problem) = write_index(api) {
        tracing::warn!(%problem, "cannot write the image index");
    }
    let first = added.into_iter().next();
    let first = first.ok_or_else(|| Problem::new(Kind::Internal, "the import came to no image", ""))?;
    let (tags, machines) = api.ledger.stored(|records| (records.tags(), records.outlines()))?;
    let shown = ImageShown::of(first.image, &tags, &machines);
    Ok(Line::Image { image: Box::new(shown), known: first.known })
}

/// An image's record, and what keeps its blobs until that is committed.
pub fn parted(made: Imported, source: &str) -> (Image, bennu_images::store::Hold) {
    let Imported { digest, manifest_size, config_blob, config, adopted, hold } = made;
    let source = source.to_owned();
    (
        Image {
            digest,
            manifest_size,
            config_blob,
            config,
            imported: Default::default(),
            source,
            verdict: None,
            adopted,
        },
        hold,
    )
}

fn sweep(api: &Api) -> Answer<()> {
    let used = api.blobs_in_use().map_err(|error| Problem::new(Kind::Internal, format!("{error:#}"), ""))?;
    api.store.collect(&used)?;
    Ok(())
}

fn import(wanted: &Wanted, api: &Api, body: BodyReader, progress: &Teller) -> Answer<Converted> {
    let options = options(wanted, api);
    let image = match wanted.kind {
        Kinds::Foreign => foreign::import_foreign(wanted, api, body, progress)?,
        Kinds::Container => return import_container(wanted, &options, api, body, progress),
        Kinds::Efi => import::efi(body, &wanted.cmdline, &api.store, progress)?,
        Kinds::Iso => import::iso(body, &options, &api.store, progress)?,
        Kinds::Disk => import::disk(body, &options, &api.store, progress)?,
        Kinds::Root | Kinds::Kernel => root_from_tar(body, &options, &api.store, progress)?,
    };
    Ok(Converted { images: vec![image], source: Vec::new(), signatures: Vec::new() })
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

fn import_container(
    wanted: &Wanted,
    options: &Options,
    api: &Api,
    body: BodyReader,
    progress: &Teller,
) -> Answer<Converted> {
    // Held until the images have holds of their own: nothing names what arrives before.
    let hold = api.store.hold();
    let arrived = {
        let mut meter = Meter::new(progress, ImportStep::Read, wanted.size);
        read_archive(body, wanted.image.as_deref(), &api.store, &mut meter)?
    };
    let name: ImageName = named(&wanted.name)?;
    let wanted = convert::Wanted {
        document: arrived.document,
        media_type: arrived.media_type,
        repository: name.name().to_owned(),
        kernel: wanted.kernel.clone(),
    };
    let mut converted = convert(&wanted, options, api, progress)?;
    let found = trust::attached(&arrived.signatures, &wanted, &converted.source, api);
    for (attached, signature) in arrived.signatures.iter().zip(found) {
        match signature {
            Ok(signature) => converted.signatures.extend(signature),
            Err(why) => progress.note(&format!("the signature {} is left out: {why}", attached.manifest.digest)),
        }
    }
    drop(hold);
    Ok(converted)
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
            | ImportError::Oci(_)
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
        let _ = self.lines.hint(Line::Step { step: step.name().to_owned(), done, total });
    }

    fn note(&self, note: &str) {
        let _ = self.lines.tell(Line::Note { note: note.to_owned() });
    }

    fn is_cancelled(&self) -> bool {
        self.lines.is_cancelled()
    }
}
