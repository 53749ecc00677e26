//! Signatures of the store's images: looked up, verified, and kept with the images' records.

use crate::{appliance::Appliance, author, http::api::images::write_index};
use anyhow::Result;
use bennu_images::cosign::{TrustedKey, signature_tag, verify};
use bennu_rules::{
    Records,
    audit::Author,
    commands::registry::{SetVerdicts, set_verdicts},
    image::{BlobRef, Digest, Image},
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
        looking.ledger.read(|records, _| {
            let images = records.images();
            let judged = images.iter().map(|image| (image.digest, verdict(image, records, &looking)));
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

/// Judges images that are about to be put on record.
pub fn judge_new(images: &mut [Image], appliance: &Appliance) {
    if appliance.settings().signatures == SignaturePolicy::Off {
        return;
    }
    let judged = appliance
        .ledger
        .read(|records, _| images.iter().map(|image| verdict(image, records, appliance)).collect::<Vec<_>>());
    // A ledger that cannot be read takes no image either.
    for (image, verdict) in images.iter_mut().zip(judged.unwrap_or_default()) {
        image.verdict = Some(verdict);
    }
}

/// An image is signed when its own manifest is, which covers every byte of it; or when the container image is that it
/// was made of, alone or in an index, and the kernel image too that it was paired with.
fn verdict(image: &Image, records: &dyn Records, appliance: &Appliance) -> Verdict {
    let own = of_digest(&image.digest, records, appliance);
    // An image that was made elsewhere may name any signed source as its own.
    let Some(derived) = image.config.derived.as_ref().filter(|_| !image.adopted) else { return own };
    if matches!(own, Verdict::Signed { .. }) {
        return own;
    }
    let source = derived.source.digest;
    let holds_it = |part: &BlobRef| part.digest == source;
    let indexes = records.artifacts().into_iter().filter(|artifact| artifact.parts.iter().any(holds_it));
    let mut worst = own;
    for digest in std::iter::once(source).chain(indexes.map(|index| index.digest)) {
        match of_digest(&digest, records, appliance) {
            signed @ Verdict::Signed { .. } => return with_kernel(signed, derived.kernel, records, appliance),
            Verdict::Unsigned => {}
            not_trusted => worst = not_trusted,
        }
    }
    worst
}

fn with_kernel(signed: Verdict, kernel: Option<Digest>, records: &dyn Records, appliance: &Appliance) -> Verdict {
    let Some(kernel) = kernel else { return signed };
    let what = match records.image(&kernel).map(|_| of_digest(&kernel, records, appliance)) {
        Some(Verdict::Signed { .. }) => return signed,
        Some(verdict) => verdict.to_string(),
        None => "not here any more".to_owned(),
    };
    Verdict::NotTrusted { why: vec![Rejection::Kernel { kernel, what }] }
}

/// What the signatures of one manifest come to.
fn of_digest(digest: &Digest, records: &dyn Records, appliance: &Appliance) -> Verdict {
    let keys: &[TrustedKey] = &appliance.config.signatures.keys;
    let tag = signature_tag(digest);
    // Those under the tag come first, because there is a bound.
    let tagged = records.pushes().into_iter().filter(|push| push.name.tag() == tag).map(|push| push.digest);
    let referring = records
        .artifacts()
        .into_iter()
        .filter(|artifact| artifact.subject == Some(*digest) && artifact.kind.starts_with(KIND))
        .map(|artifact| artifact.digest);
    let mut seen = BTreeSet::new();
    let found = tagged.chain(referring).filter(|digest| seen.insert(*digest)).take(MOST_MANIFESTS);
    let manifests: Vec<Vec<u8>> = found.filter_map(|digest| read(&digest, LARGEST_MANIFEST, appliance).ok()).collect();
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
