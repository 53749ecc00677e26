//! Signatures of the store's images: looked up, verified, and kept with the images' records.

use super::convert::Wanted;
use crate::{appliance::Appliance, author, http::api::images::write_index, ledger::Fault};
use anyhow::Result;
use bennu_images::{
    cosign::{TrustedKey, is_signature_tag, signature_tag, verify},
    oci::{Attached, Document},
};
use bennu_rules::{
    Records,
    audit::Author,
    commands::{
        images::Signature,
        registry::{SetVerdicts, set_verdicts},
    },
    image::{BlobRef, Digest, Image, ImageName},
    registry::Artifact,
    signature::{Rejection, SignaturePolicy, Verdict},
};
use std::{collections::BTreeSet, io::Read as _, sync::Arc};

/// Whoever may push may push many; honest images have one or two.
const MOST_MANIFESTS: usize = 32;
/// A signature's manifest has some kilobytes.
const LARGEST_MANIFEST: u64 = 4 << 20;
/// What artifacts of signatures call themselves, in any version.
const KIND: &str = "application/vnd.dev.cosign.artifact.sig";

/// Looks at the signatures of all images again, and puts on record what changed: keys, signatures or images are others.
pub async fn refresh(appliance: &Arc<Appliance>) -> Result<()> {
    if appliance.settings().signatures == SignaturePolicy::Off {
        return Ok(());
    }
    let looking = appliance.clone();
    let verdicts = tokio::task::spawn_blocking(move || {
        looking.ledger.stored(|records| {
            let images = records.images();
            let shelf = Shelf { records, arriving: &Arriving::default() };
            let judged = images.iter().map(|image| (image.digest, verdict(image, &shelf, &looking)));
            judged.collect::<Vec<_>>()
        })
    });
    let settling = appliance.registry.settling.lock().await;
    let deciding = appliance.ledger.decide(SetVerdicts { verdicts: verdicts.await?? }, set_verdicts);
    let taken = author::by(Author::bennu(None), deciding).await?;
    for name in &taken {
        tracing::info!(%name, "a trusted key has signed what was pushed: the tag points at it now");
    }
    if !taken.is_empty()
        && let Err(problem) = write_index(appliance)
    {
        tracing::warn!(detail = problem.detail, "cannot write the image index");
    }
    drop(settling);
    Ok(())
}

/// What goes on record together with images.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arriving<'a> {
    /// What the images were made of.
    pub source: &'a [Artifact],
    /// Signatures that came along.
    pub signatures: &'a [Signature],
}

/// All manifests there are to find signatures in: those on record, and those about to be.
struct Shelf<'a> {
    records: &'a dyn Records,
    arriving: &'a Arriving<'a>,
}

impl Shelf<'_> {
    fn artifacts(&self) -> impl Iterator<Item = Artifact> {
        let signatures = self.arriving.signatures.iter().map(|signature| &signature.artifact);
        let arriving: Vec<Artifact> = self.arriving.source.iter().chain(signatures).cloned().collect();
        self.records.artifacts().into_iter().chain(arriving)
    }

    /// The manifests under a tag, in whichever repository.
    fn tagged(&self, tag: &str) -> Vec<Digest> {
        let pushed = self.records.pushes().into_iter().map(|push| (Some(push.name), push.digest));
        let arriving = self.arriving.signatures.iter().map(|one| (one.name.clone(), one.artifact.digest));
        let is_wanted = |name: &Option<ImageName>| name.as_ref().is_some_and(|name| name.tag() == tag);
        pushed.chain(arriving).filter(|(name, _)| is_wanted(name)).map(|(_, digest)| digest).collect()
    }
}

/// The records of signatures that an archive brought: none for those that are about something else, and why not for
/// those whose parts are missing.
pub fn attached(
    found: &[Attached],
    wanted: &Wanted,
    source: &[Artifact],
    appliance: &Appliance,
) -> Vec<Result<Option<Signature>, String>> {
    let is_about =
        |image: &Digest| *image == wanted.document.digest || source.iter().any(|source| source.digest == *image);
    let one = |attached: &Attached| {
        if !is_about(&attached.image) {
            return Ok(None);
        }
        let (blob, media_type) = (&attached.manifest, &attached.media_type);
        let document =
            Document::open(&appliance.store, &blob.digest, Some(media_type)).map_err(|error| error.to_string())?;
        for part in document.parts() {
            match appliance.store.blob_size(&part.digest) {
                Ok(size) if size == part.size => {}
                Ok(size) => return Err(format!("{} has {size} bytes, and should have {}", part.digest, part.size)),
                Err(error) => return Err(error.to_string()),
            }
        }
        let name = format!("{}:{}", wanted.repository, signature_tag(&attached.image));
        let name = attached.is_tagged.then(|| name.parse::<ImageName>().map_err(|error| error.to_string()));
        let artifact = document.artifact(blob, media_type, &wanted.repository);
        Ok(Some(Signature { name: name.transpose()?, artifact }))
    };
    found.iter().map(one).collect()
}

/// Those that are worth keeping: a tag that holds signatures already goes to others only if a trusted key made them.
pub fn better(mut signatures: Vec<Signature>, appliance: &Appliance) -> Result<Vec<Signature>, Fault> {
    appliance.ledger.read(|records, _| {
        signatures.retain(|signature| {
            let Some(name) = &signature.name else { return true };
            let Some(image) = is_signature_tag(name.tag()) else { return false };
            records.push(name).is_none_or(|push| push.digest == signature.artifact.digest)
                || matches!(judged(&image, &[signature.artifact.digest], appliance), Verdict::Signed { .. })
        });
    })?;
    Ok(signatures)
}

/// Judges images that are about to be put on record.
pub fn judge_new(images: &mut [Image], arriving: &Arriving<'_>, appliance: &Appliance) {
    if appliance.settings().signatures == SignaturePolicy::Off {
        return;
    }
    let judged = appliance.ledger.read(|records, _| {
        let shelf = Shelf { records, arriving };
        images.iter().map(|image| verdict(image, &shelf, appliance)).collect::<Vec<_>>()
    });
    // A ledger that cannot be read takes no image either.
    for (image, verdict) in images.iter_mut().zip(judged.unwrap_or_default()) {
        image.verdict = Some(verdict);
    }
}

/// An image is signed when its own manifest is, which covers every byte of it; or when the container image is that it
/// was made of, alone or in an index, and the kernel image too that it was paired with.
fn verdict(image: &Image, shelf: &Shelf<'_>, appliance: &Appliance) -> Verdict {
    let own = of_digest(&image.digest, shelf, appliance);
    // An image that was made elsewhere may name any signed source as its own.
    let Some(derived) = image.config.derived.as_ref().filter(|_| !image.adopted) else { return own };
    if matches!(own, Verdict::Signed { .. }) {
        return own;
    }
    let source = derived.source.digest;
    let holds_it = |part: &BlobRef| part.digest == source;
    let indexes = shelf.artifacts().filter(|artifact| artifact.parts.iter().any(holds_it));
    let mut worst = own;
    for digest in std::iter::once(source).chain(indexes.map(|index| index.digest)) {
        match of_digest(&digest, shelf, appliance) {
            signed @ Verdict::Signed { .. } => return with_kernel(signed, derived.kernel, shelf, appliance),
            Verdict::Unsigned => {}
            not_trusted => worst = not_trusted,
        }
    }
    worst
}

fn with_kernel(signed: Verdict, kernel: Option<Digest>, shelf: &Shelf<'_>, appliance: &Appliance) -> Verdict {
    let Some(kernel) = kernel else { return signed };
    let what = match shelf.records.image(&kernel).map(|_| of_digest(&kernel, shelf, appliance)) {
        Some(Verdict::Signed { .. }) => return signed,
        Some(verdict) => verdict.to_string(),
        None => "not here any more".to_owned(),
    };
    Verdict::NotTrusted { why: vec![Rejection::Kernel { kernel, what }] }
}

/// What the signatures of one manifest come to.
fn of_digest(digest: &Digest, shelf: &Shelf<'_>, appliance: &Appliance) -> Verdict {
    // Those under the tag come first, because there is a bound.
    let tagged = shelf.tagged(&signature_tag(digest)).into_iter();
    let is_referring = |artifact: &Artifact| artifact.subject == Some(*digest) && artifact.kind.starts_with(KIND);
    let referring = shelf.artifacts().filter(is_referring).map(|artifact| artifact.digest);
    let mut seen = BTreeSet::new();
    let found: Vec<_> = tagged.chain(referring).filter(|digest| seen.insert(*digest)).take(MOST_MANIFESTS).collect();
    judged(digest, &found, appliance)
}

/// What the signatures in these manifests come to.
fn judged(digest: &Digest, manifests: &[Digest], appliance: &Appliance) -> Verdict {
    let keys: &[TrustedKey] = &appliance.config.signatures.keys;
    let manifests: Vec<Vec<u8>> =
        manifests.iter().filter_map(|digest| read(digest, LARGEST_MANIFEST, appliance).ok()).collect();
    let payload = |blob: &BlobRef| read(&blob.digest, blob.size, appliance);
    verify(digest, manifests.iter().map(Vec::as_slice), keys, payload)
}

fn read(digest: &Digest, most: u64, appliance: &Appliance) -> Result<Vec<u8>, String> {
    let (file, size) = appliance.store.open_blob(digest).map_err(|error| error.to_string())?;
    if size > most {
        return Err(format!("it has {size} bytes"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
