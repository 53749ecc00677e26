//! Container images made into images that boot: which manifests, with which kernel.

use crate::appliance::Appliance;
use bennu_images::{
    import::{
        ImportError, Imported, KERNEL_LABEL, Labels, Options, Pairing, Progress, adopt, container, is_ours, variants,
    },
    oci::{Descriptor, Document, OciError},
    signing,
};
use bennu_rules::{
    Records,
    assignment::lookup_for,
    boot::chain::SHIM,
    commands::images::Signature,
    facts::Architecture,
    image::{BlobRef, Content, ImageReference},
    registry::Artifact,
};
use std::collections::BTreeSet;

/// What is to be converted: a manifest or index whose parts are in the store.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// It.
    pub document: BlobRef,
    /// Its media type.
    pub media_type: String,
    /// The name it was pushed under, without the tag.
    pub repository: String,
    /// The kernel image for images that have no kernel; the configuration's unless given.
    pub kernel: Option<ImageReference>,
}

/// What came of it.
#[derive(Debug)]
pub struct Converted {
    /// The images, the one for x86-64 first.
    pub images: Vec<Imported>,
    /// What the registry holds from now on: the document, then the manifests in it.
    pub source: Vec<Artifact>,
    /// Signatures that came with it.
    pub signatures: Vec<Signature>,
}

/// Converts. Blocks, for as long as the image's compression takes.
pub fn convert(
    wanted: &Wanted,
    options: &Options,
    appliance: &Appliance,
    progress: &dyn Progress,
) -> Result<Converted, ImportError> {
    let store = &appliance.store;
    let document = Document::open(store, &wanted.document.digest, Some(&wanted.media_type))?;
    let mut source = vec![document.artifact(&wanted.document, &wanted.media_type, &wanted.repository)];
    if let Document::Manifest(manifest) = &document
        && is_ours(manifest)
    {
        // It is on record as an image, and needs no second record.
        return Ok(Converted {
            images: vec![adopt(&wanted.document.digest, store)?],
            source: Vec::new(),
            signatures: Vec::new(),
        });
    }
    let mut found = variants(&wanted.document.digest, &wanted.media_type, store)?;
    found.sort_by_key(|(architecture, _)| (*architecture != Architecture::X86_64, *architecture));
    let (mut images, mut first_error) = (Vec::new(), None);
    for (architecture, manifest) in found {
        match child(&document, &manifest, wanted, appliance) {
            Ok(artifact) => source.extend(artifact),
            // Who copies the image of one architecture leaves the others out.
            Err(error @ OciError::Missing { .. }) => {
                first_error.get_or_insert(error.into());
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let pairing = |architecture, labels: &Labels| {
            let named = labels.get(KERNEL_LABEL).map(|kernel| kernel.parse::<ImageReference>()).transpose();
            let named = named.map_err(|error| format!("its label {KERNEL_LABEL} is no image: {error}"))?;
            pairing(wanted.kernel.as_ref().or(named.as_ref()), architecture, appliance)
        };
        match container(&manifest, pairing, options, store, progress) {
            Ok(image) => images.push(image),
            Err(error @ (ImportError::Cancelled(_) | ImportError::Store(_))) => return Err(error),
            Err(error) => {
                if matches!(document, Document::Index(_)) {
                    progress.note(&format!("machines of the architecture {architecture:?} are left out: {error}"));
                }
                first_error.get_or_insert(error);
            }
        }
    }
    match (images.is_empty(), first_error) {
        (true, Some(error)) => Err(error),
        _ => Ok(Converted { images, source, signatures: Vec::new() }),
    }
}

/// The record of a manifest inside an index.
fn child(
    document: &Document,
    manifest: &Descriptor,
    wanted: &Wanted,
    appliance: &Appliance,
) -> Result<Option<Artifact>, OciError> {
    if matches!(document, Document::Manifest(_)) {
        return Ok(None);
    }
    let inner = Document::open(&appliance.store, &manifest.digest, Some(&manifest.media_type))?;
    Ok(Some(inner.artifact(&manifest.blob(), &manifest.media_type, &wanted.repository)))
}

/// The kernel image for a container image of an architecture: as wanted, else as configured, else the discovery image,
/// whose kernel every machine here boots already.
fn pairing(
    wanted: Option<&ImageReference>,
    architecture: Architecture,
    appliance: &Appliance,
) -> Result<Pairing, String> {
    let settings = appliance.settings();
    let reference = wanted.or(appliance.config.import.kernel.as_ref()).unwrap_or(&settings.discovery_image);
    let image = appliance.ledger.stored(|records| {
        let digest = lookup_for(reference, Some(architecture), records)?;
        records.image(&digest)
    });
    let image = image.map_err(|fault| format!("the ledger cannot be read: {fault}"))?.ok_or_else(|| {
        format!(
            "there is no kernel image {reference} to pair it with. Import one (bennu image import dir:ROOT {reference} \
             --kernel-only), name another (--kernel), or install a kernel in the container image"
        )
    })?;
    let is_for = |kernel: Architecture| {
        kernel == architecture || (kernel, architecture) == (Architecture::X86_64, Architecture::X86)
    };
    match &image.config.content {
        Content::Kernel { layer: Some(layer), .. } if is_for(image.config.architecture) => {
            Ok(Pairing { image: image.digest, layer: layer.clone(), signed: image.config.signed.clone() })
        }
        Content::Kernel { layer: Some(_), .. } => Err(format!(
            "the kernel image {reference} is for {:?} and this one for {architecture:?}. Import a kernel image for \
             {architecture:?}, and name it (--kernel)",
            image.config.architecture
        )),
        Content::Kernel { layer: None, .. } => Err(format!(
            "the kernel image {reference} keeps no modules for others: it came with the appliance's disc, or from an \
             earlier Bennu. Import a kernel with all its modules (bennu image import dir:ROOT NAME:TAG --kernel-only), \
             and name it (--kernel)"
        )),
        _ => Err(format!("{reference} is no kernel image. Name one that was imported with --kernel-only (--kernel)")),
    }
}

/// The names that the appliance's own shim trusts.
pub fn trusted(appliance: &Appliance) -> BTreeSet<String> {
    appliance.loaders.get(SHIM).map(|shim| signing::trusted_by(&shim.bytes)).unwrap_or_default()
}
