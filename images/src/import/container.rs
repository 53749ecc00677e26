//! A container image, whose parts are in the store, made into one that boots.

use super::{
    ImportError, ImportStep, Imported, Meter, Options, Progress,
    root::{Making, Origin},
};
use crate::{
    kernel::{self, KernelError},
    oci::{self, Config, DOCKER_LAYER, Descriptor, Document, Manifest, OCI_LAYER, OciError},
    store::Store,
    tree::Indexer,
};
use bennu_plan::Entry;
use bennu_rules::{
    facts::Architecture,
    image::{BlobRef, Derivation, Digest, SignedLoaders},
};
use std::collections::BTreeMap;

/// A kernel image, for container images that have no kernel.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// The kernel image.
    pub image: Digest,
    /// Its kernel, modules and firmware as a layer.
    pub layer: BlobRef,
    /// The loaders that its vendor signed.
    pub signed: Option<SignedLoaders>,
}

/// The images that a manifest or index in the store stands for, each with the architecture it says it is for. An index
/// names images for machines that we do not know, and things that are no images: those are left out.
pub fn variants(
    digest: &Digest,
    media_type: &str,
    store: &Store,
) -> Result<Vec<(Architecture, Descriptor)>, ImportError> {
    let index = match Document::open(store, digest, Some(media_type))? {
        Document::Manifest(manifest) => {
            let architecture = checked(&manifest, digest, store)?.0;
            let size = store.blob_size(digest)?;
            return Ok(vec![(architecture, Descriptor::new(media_type, &BlobRef { digest: *digest, size }))]);
        }
        Document::Index(index) => index,
    };
    let known = index.known().into_iter();
    let mut found: Vec<_> = known.map(|(architecture, descriptor)| (architecture, descriptor.clone())).collect();
    // An index around one image says nothing of platforms where the tool that wrote it had none in mind.
    if found.is_empty()
        && let [only] = index.manifests.as_slice()
        && only.platform.is_none()
    {
        let Document::Manifest(manifest) = Document::open(store, &only.digest, Some(&only.media_type))? else {
            return Err(OciError::Archive("the image is an index of an index. Push the one inside".to_owned()).into());
        };
        found.push((checked(&manifest, &only.digest, store)?.0, only.clone()));
    }
    if found.is_empty() {
        let listed: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|descriptor| descriptor.platform.as_ref())
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect();
        let found = if listed.is_empty() { "no machine at all".to_owned() } else { listed.join(", ") };
        return Err(OciError::Platform { found, wanted: None }.into());
    }
    Ok(found)
}

/// An image's architecture and config, when it is a container image for Linux.
fn checked(manifest: &Manifest, digest: &Digest, store: &Store) -> Result<(Architecture, Config), OciError> {
    if !manifest.is_image() {
        return Err(OciError::NotAnImage { kind: manifest.kind().to_owned() });
    }
    let config = Config::open(store, &manifest.config.digest)?;
    let platform = || OciError::Platform { found: format!("{}/{}", config.os, config.architecture), wanted: None };
    if !matches!(config.os.as_str(), "linux" | "") {
        return Err(platform());
    }
    let architecture = oci::architecture(&config.architecture).ok_or_else(platform)?;
    let ids = config.rootfs.diff_ids.len();
    if ids != manifest.layers.len() {
        let why = format!("it has {} layers, and its config knows {ids}", manifest.layers.len());
        return Err(OciError::Document { what: "manifest", digest: *digest, why });
    }
    Ok((architecture, config))
}

/// The label of a container image with its kernel arguments, where the import names none: a push cannot.
const CMDLINE_LABEL: &str = "bennu.cmdline";
/// The label with the kernel image to pair it with, likewise.
pub const KERNEL_LABEL: &str = "bennu.kernel";

/// Labels of a container image.
pub type Labels = BTreeMap<String, String>;

/// Makes the image of one manifest. Blocks. `pairing` finds the kernel image where the container has no kernel, by its
/// architecture and labels; an error of its own tells why there is none.
pub fn container(
    source: &Descriptor,
    pairing: impl FnOnce(Architecture, &Labels) -> Result<Pairing, String>,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Imported, ImportError> {
    let Document::Manifest(manifest) = Document::open(store, &source.digest, Some(&source.media_type))? else {
        return Err(OciError::Archive("an index was named where one image is wanted".to_owned()).into());
    };
    let (architecture, config) = checked(&manifest, &source.digest, store)?;
    let labels = config.config.labels.clone();
    let mut options = options.clone();
    if options.cmdline.trim().is_empty() {
        options.cmdline = labels.get(CMDLINE_LABEL).cloned().unwrap_or_default();
    }
    let making = Making::start(&options, store, progress)?;
    let compressed: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
    let mut meter = Meter::new(progress, ImportStep::Read, Some(compressed));
    let mut indexer = Indexer::new(store)?;
    for (layer, expected) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        check_layer(layer)?;
        let found = indexer.layer(opened(&layer.digest, "layer", store)?, &mut meter)?;
        if found.to_string() != *expected {
            let expected = expected.clone();
            return Err(OciError::DiffId { layer: layer.digest, found, expected }.into());
        }
    }
    let (mut paired, mut signed) = (None, None);
    if !kernel::has_any(indexer.tree()) {
        let why = |why| ImportError::Kernel(KernelError::Unpaired(why));
        let pairing = pairing(architecture, &labels).map_err(why)?;
        indexer.layer(opened(&pairing.layer.digest, "kernel layer", store)?, &mut meter)?;
        (paired, signed) = (Some(pairing.image), pairing.signed);
    }
    let indexed = indexer.finish(&mut meter)?;
    let derived = Derivation {
        source: source.blob(),
        media_type: source.media_type.clone(),
        kernel: paired,
        created: config.created.clone(),
    };
    let origin =
        Origin { derived: Some(derived), entry: entry(config), labels, signed, architecture: Some(architecture) };
    making.finish(indexed, origin)
}

/// Media types are told apart before work begins; what a layer is compressed with, its first bytes say.
fn check_layer(layer: &Descriptor) -> Result<(), OciError> {
    let refuse = |help| {
        let (digest, media_type) = (layer.digest, layer.media_type.clone());
        Err(OciError::Layer { digest, media_type, help })
    };
    let suffix = [OCI_LAYER, DOCKER_LAYER].iter().find_map(|prefix| layer.media_type.strip_prefix(prefix));
    match suffix {
        Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd") => Ok(()),
        Some(suffix) if suffix.contains("encrypted") => refuse("Push the image without encryption"),
        _ if layer.media_type.contains("nondistributable") || layer.media_type.contains("foreign") => {
            refuse("Such layers are kept from registries by their licence; build the image on another base")
        }
        _ => refuse("Push the image with layers that are tars, plain or compressed with gzip or zstd"),
    }
}

fn opened(digest: &Digest, what: &'static str, store: &Store) -> Result<std::fs::File, ImportError> {
    match store.open_blob(digest) {
        Ok((file, _)) => Ok(file),
        Err(crate::store::StoreError::Missing { digest }) => Err(OciError::Missing { what, digest }.into()),
        Err(error) => Err(error.into()),
    }
}

/// What the container would run.
fn entry(config: Config) -> Option<Entry> {
    let run = config.config;
    let args: Vec<String> = run.entrypoint.into_iter().chain(run.cmd).collect();
    let (env, user, workdir) = (run.env, run.user, run.working_dir);
    (!args.is_empty()).then_some(Entry { args, env, user, workdir })
}
