//! What belongs to an image in a registry: its documents, each held to its digest before it is believed, and its blobs.

use super::{
    reference::{Reference, Version},
    registry::{Found, Registry},
    web::Failure,
};
use crate::cli::error::{CliError, Done};
use bennu_images::oci::{self, Config, Descriptor, Document, Index, Manifest, Platform};
use bennu_rules::image::{BlobRef, Digest};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;

/// Where layouts keep an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// A config is a few kilobytes; its history may be long.
const LARGEST_CONFIG: u64 = 8 << 20;

/// An image, ready to be sent.
#[derive(Debug)]
pub struct Parts {
    /// The layout's list of images: this one, and its signature.
    pub index: Vec<u8>,
    /// Manifests and indexes.
    pub documents: Vec<(Digest, Vec<u8>)>,
    /// Configs and layers, in the order in which they are sent.
    pub blobs: Vec<BlobRef>,
}

/// An image in the making.
struct Gatherer<'a> {
    registry: &'a mut Registry,
    /// For messages.
    image: String,
    documents: BTreeMap<Digest, Vec<u8>>,
    blobs: Vec<BlobRef>,
    sizes: BTreeMap<Digest, u64>,
}

/// Finds all parts of the image: of an index, the manifests that machines of ours may need, or the one for `platform`.
/// Gives what there is to note, too.
pub async fn parts(
    registry: &mut Registry,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Done<(Parts, Vec<String>)> {
    let image = reference.to_string();
    let mut gatherer =
        Gatherer { registry, image, documents: BTreeMap::new(), blobs: Vec::new(), sizes: BTreeMap::new() };
    let root = gatherer.root(reference, platform).await.map_err(Failure::told)?;
    let mut notes = Vec::new();
    let mut entries = vec![named(root.clone(), reference.version())];
    // cosign keeps signatures under a tag that it makes of the image's digest.
    let tag = format!("sha256-{}.sig", root.digest.hex());
    match gatherer.signature(&tag).await {
        Ok(signature) => entries.extend(signature.map(|signature| named(signature, tag))),
        Err(failure) => notes.push(format!("the image's signature is left out: {}", failure.told().what)),
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(oci::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: entries,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let index = serde_json::to_vec(&index).map_err(|error| CliError::failed(error.to_string(), ""))?;
    let documents = gatherer.documents.into_iter().collect();
    Ok((Parts { index, documents, blobs: gatherer.blobs }, notes))
}

fn named(mut descriptor: Descriptor, name: String) -> Descriptor {
    descriptor.platform = None;
    descriptor.annotations = BTreeMap::from([(REF_NAME.to_owned(), name)]);
    descriptor
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest(out)
}

impl Gatherer<'_> {
    /// The image itself, and all in it.
    async fn root(&mut self, reference: &Reference, platform: Option<&Platform>) -> Result<Descriptor, Failure> {
        let version = reference.version();
        let found = self.registry.manifest(&version).await?.ok_or_else(|| {
            CliError::failed(format!("{reference}: the registry has no such image"), "look at the name and the tag")
        })?;
        let digest = self.checked(&found, &reference.version)?;
        let document = self.parse(&found.bytes, found.media_type.as_deref(), &digest)?;
        let media_type = document.media_type(found.media_type.as_deref()).to_owned();
        let root = Descriptor::new(&media_type, &BlobRef { digest, size: found.bytes.len() as u64 });
        match (document, platform) {
            (Document::Manifest(manifest), platform) => {
                self.documents.insert(digest, found.bytes);
                self.take(&manifest)?;
                self.is_for(platform, &manifest).await?;
                Ok(root)
            }
            (Document::Index(index), Some(platform)) => {
                let chosen = self.choose(&index, platform)?.clone();
                let manifest = self.child(&chosen).await?;
                self.is_for(Some(platform), &manifest).await?;
                Ok(chosen)
            }
            (Document::Index(index), None) => {
                self.documents.insert(digest, found.bytes);
                for manifest in self.bootable(&index)? {
                    self.child(&manifest).await?;
                }
                Ok(root)
            }
        }
    }

    /// The digest of what came, once it is what was asked for.
    fn checked(&self, found: &Found, version: &Version) -> Result<Digest, Failure> {
        let digest = digest_of(&found.bytes);
        let differs = |said: String| {
            let what = format!("{}: the manifest that came is {digest}, and should be {said}", self.image);
            CliError::failed(what, "somebody on the way or the registry changed it: try again, then look there")
        };
        match version {
            Version::Digest(wanted) if *wanted != digest => return Err(differs(wanted.to_string()).into()),
            _ => {}
        }
        match &found.digest {
            Some(said) if said.starts_with("sha256:") && *said != digest.to_string() => {
                Err(differs(said.clone()).into())
            }
            _ => Ok(digest),
        }
    }

    fn parse(&self, bytes: &[u8], named: Option<&str>, digest: &Digest) -> Result<Document, CliError> {
        Document::parse(bytes, named).map_err(|why| {
            CliError::failed(
                format!("{}: the manifest {digest} cannot be used: {why}", self.image),
                "push the image anew",
            )
        })
    }

    /// Those of an index that machines of ours may need; an index around one image may say nothing of platforms.
    fn bootable(&self, index: &Index) -> Result<Vec<Descriptor>, CliError> {
        let known = index.known();
        match index.manifests.as_slice() {
            [only] if known.is_empty() && only.platform.is_none() => Ok(vec![only.clone()]),
            _ if known.is_empty() => Err(CliError::failed(
                format!("{}: the image is for {}", self.image, platforms(index)),
                "Bennu boots Linux on x86, Arm, RISC-V and LoongArch machines: build it for one of those",
            )),
            _ => Ok(known.into_iter().map(|(_, descriptor)| descriptor.clone()).collect()),
        }
    }

    fn choose<'a>(&self, index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, CliError> {
        let fits = |descriptor: &&Descriptor| {
            let platform = descriptor.platform.as_ref();
            platform.is_some_and(|platform| {
                platform.architecture == wanted.architecture && matches!(platform.os.as_str(), "linux" | "")
            })
        };
        let alone = |index: &'a Index| match index.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        };
        index.manifests.iter().find(fits).or_else(|| alone(index)).ok_or_else(|| {
            let what = format!("{}: there is none for linux/{}", self.image, wanted.architecture);
            CliError::failed(what, format!("it is for {}", platforms(index)))
        })
    }

    /// Whether an image that says so nowhere else is for the platform.
    async fn is_for(&mut self, wanted: Option<&Platform>, manifest: &Manifest) -> Result<(), Failure> {
        let Some(wanted) = wanted.filter(|_| manifest.is_image()) else { return Ok(()) };
        let config = manifest.config.blob();
        let name = format!("the config {} of {}", config.digest, self.image);
        let mut answer = self.registry.blob(&config.digest, 0).await?;
        let bytes = self.registry.web.collect(&name, answer.body_mut(), LARGEST_CONFIG).await?;
        let bad = |why: String| CliError::failed(format!("{name} cannot be used: {why}"), "push the image anew");
        if digest_of(&bytes) != config.digest {
            return Err(bad("it has another digest than its manifest says".to_owned()).into());
        }
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if config.architecture == wanted.architecture {
            return Ok(());
        }
        let what = format!("{}: the image is for {}/{}", self.image, config.os, config.architecture);
        Err(CliError::failed(what, "leave --platform out, or name another image").into())
    }

    /// A manifest that an index names.
    async fn child(&mut self, descriptor: &Descriptor) -> Result<Manifest, Failure> {
        let digest = descriptor.digest;
        let bad = |why: &str| {
            CliError::failed(
                format!("{}: the manifest {digest} {why}", self.image),
                "push the image anew, with all its parts",
            )
        };
        let found = self.registry.manifest(&digest.to_string()).await?.ok_or_else(|| bad("is not there"))?;
        if found.bytes.len() as u64 != descriptor.size {
            return Err(bad("has another size than the index says").into());
        }
        self.checked(&found, &Version::Digest(digest))?;
        match self.parse(&found.bytes, Some(&descriptor.media_type), &digest)? {
            Document::Index(_) => Err(bad("is an index inside an index; name that one by its digest").into()),
            Document::Manifest(manifest) => {
                self.documents.insert(digest, found.bytes);
                self.take(&manifest)?;
                Ok(manifest)
            }
        }
    }

    /// Config and layers, each once.
    fn take(&mut self, manifest: &Manifest) -> Result<(), CliError> {
        for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
            match self.sizes.insert(part.digest, part.size) {
                None => self.blobs.push(part.blob()),
                Some(before) if before == part.size => {}
                Some(before) => {
                    let what = format!("{}: {} has {before} bytes and {} at once", self.image, part.digest, part.size);
                    return Err(CliError::failed(what, "push the image anew"));
                }
            }
        }
        Ok(())
    }

    async fn signature(&mut self, tag: &str) -> Result<Option<Descriptor>, Failure> {
        let Some(found) = self.registry.manifest(tag).await? else { return Ok(None) };
        let digest = self.checked(&found, &Version::Tag(tag.to_owned()))?;
        let named = found.media_type.as_deref();
        let document = self.parse(&found.bytes, named, &digest)?;
        let descriptor =
            Descriptor::new(document.media_type(named), &BlobRef { digest, size: found.bytes.len() as u64 });
        match document {
            Document::Index(_) => Err(CliError::failed(format!("{tag} is an index, and no signature"), "").into()),
            Document::Manifest(manifest) => {
                self.take(&manifest)?;
                self.documents.insert(digest, found.bytes);
                Ok(Some(descriptor))
            }
        }
    }
}

fn platforms(index: &Index) -> String {
    let platforms = index.manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref());
    let names: Vec<String> = platforms.map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
    if names.is_empty() { "no machine at all".to_owned() } else { names.join(", ") }
}
