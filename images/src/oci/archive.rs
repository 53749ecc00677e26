//! Images as one file: an OCI layout in a tar (`oci-archive:`), or what `docker save` writes (`docker-archive:`).

use super::{
    Descriptor, Document, Index, LARGEST_MANIFEST, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, OciError, REF_NAME,
    document::small,
};
use crate::{
    archive::{Entry, EntryKind, Reader, TarError, decompress, show},
    cosign::{SIGNATURE_ARTIFACT, is_signature_tag},
    import::{ARTIFACT_TYPE, ImportError, Meter},
    store::Store,
};
use bennu_rules::image::{BlobRef, Digest};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write as _},
};

/// An image has some dozens of parts.
const MOST_FILES: usize = 20_000;

/// Honest images have a signature or two beside them.
const MOST_ATTACHED: usize = 32;

/// An image whose parts an archive brought; they are in the store, each held to its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The manifest or index.
    pub document: BlobRef,
    /// Its media type.
    pub media_type: String,
    /// What the archive holds of signatures, of whichever image.
    pub signatures: Vec<Attached>,
}

/// A signature's manifest in an archive. What it signs, and whether it counts, only verification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The image that it is said to be about.
    pub image: Digest,
    /// Whether it lies under cosign's tag for that image; else it is a referrer.
    pub is_tagged: bool,
    /// Its manifest.
    pub manifest: BlobRef,
    /// The manifest's media type.
    pub media_type: String,
}

/// Reads an archive into the store. `wanted` names one of several images: a tag, or a whole name.
pub fn read_archive(
    source: impl Read,
    wanted: Option<&str>,
    store: &Store,
    meter: &mut Meter<'_>,
) -> Result<Arrived, ImportError> {
    let files = Files::read(source, store, meter)?;
    let bytes = |name: &str| files.small(name, store);
    if let Some(index) = bytes("index.json")? {
        return Ok(from_layout(&index, wanted, store)?);
    }
    match bytes("manifest.json")? {
        Some(list) => from_docker(&list, wanted, &files, store),
        None => Err(OciError::Archive(
            "the archive holds no container image: neither index.json (an OCI layout) nor manifest.json (docker save). \
             Write tar: for a tar of a root filesystem"
                .to_owned(),
        )
        .into()),
    }
}

/// An archive's files by name, each in the store under its digest.
struct Files {
    by_name: BTreeMap<Vec<u8>, BlobRef>,
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Files {
    fn read(source: impl Read, store: &Store, meter: &mut Meter<'_>) -> Result<Self, ImportError> {
        let plain = decompress::sniff(source)
            .map_err(|source| TarError::Read { source, within: None, last: None })
            .map_err(OciError::from)?;
        let mut reader = Reader::new(plain);
        let mut files = Self { by_name: BTreeMap::new(), links: BTreeMap::new() };
        while let Some(entry) = reader.next_entry().map_err(OciError::from)? {
            if files.by_name.len() + files.links.len() >= MOST_FILES {
                let what = format!("the archive has more than {MOST_FILES} files, and no image has so many parts");
                return Err(OciError::Archive(what).into());
            }
            let name = normal(&entry.path);
            match &entry.kind {
                EntryKind::File => {
                    let blob = take(&entry, &mut reader, store, meter)?;
                    check(&name, &blob)?;
                    files.by_name.insert(name, blob);
                }
                // docker save writes a layer that two images share once.
                EntryKind::Symlink(target) => {
                    let directory = name.rsplit(|&b| b == b'/').skip(1).collect::<Vec<_>>();
                    let directory: Vec<&[u8]> = directory.into_iter().rev().collect();
                    files.links.insert(name.clone(), joined(&directory, target));
                }
                EntryKind::HardLink(target) => {
                    files.links.insert(name, normal(target));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    fn find(&self, name: &str) -> Option<&BlobRef> {
        let mut name = normal(name.as_bytes());
        for _ in 0..8 {
            match self.links.get(&name) {
                Some(target) => name = target.clone(),
                None => break,
            }
        }
        self.by_name.get(&name)
    }

    fn small(&self, name: &str, store: &Store) -> Result<Option<Vec<u8>>, OciError> {
        let Some(blob) = self.find(name) else { return Ok(None) };
        small(store, &blob.digest, "list of images", LARGEST_MANIFEST).map(Some)
    }
}

/// A name without `.` and empty parts; `..` stays, and so finds nothing.
fn normal(path: &[u8]) -> Vec<u8> {
    joined(&[], path)
}

fn joined(directory: &[&[u8]], path: &[u8]) -> Vec<u8> {
    let mut names = directory.to_vec();
    for name in path.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        if name == b".." && names.last().is_some_and(|last| *last != b"..") {
            names.pop();
        } else {
            names.push(name);
        }
    }
    names.join(&b'/')
}

fn take<R: Read>(
    entry: &Entry,
    reader: &mut Reader<R>,
    store: &Store,
    meter: &mut Meter<'_>,
) -> Result<BlobRef, ImportError> {
    if entry.segments.iter().map(|&(_, length)| length).sum::<u64>() != entry.size {
        let what = format!("'{}' is a sparse file, and no tool writes an image's parts so", show(&entry.path));
        return Err(OciError::Archive(what).into());
    }
    let mut out = store.writer()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read_data(&mut buffer).map_err(OciError::from)? {
            0 => return Ok(out.finish()?),
            count => {
                meter.check()?;
                store.check_room()?;
                out.write_all(&buffer[..count]).map_err(|error| store.failed("write to", store.tmp(), error))?;
                meter.at(reader.offset());
            }
        }
    }
}

/// A blob of a layout has its digest for a name ("OCI Image Layout").
fn check(name: &[u8], blob: &BlobRef) -> Result<(), OciError> {
    let Some(hex) = name.strip_prefix(b"blobs/sha256/") else { return Ok(()) };
    if hex == blob.digest.hex().as_bytes() {
        return Ok(());
    }
    Err(OciError::Mismatch { name: show(name), found: blob.digest })
}

fn from_layout(index: &[u8], wanted: Option<&str>, store: &Store) -> Result<Arrived, OciError> {
    let refuse = |why: String| OciError::Archive(format!("the layout's index.json cannot be used: {why}"));
    let Document::Index(Index { manifests, .. }) = Document::parse(index, None).map_err(refuse)? else {
        return Err(refuse("it is no index".to_owned()));
    };
    let name = |descriptor: &Descriptor| descriptor.annotations.get(REF_NAME).cloned().unwrap_or_default();
    let images: Vec<&Descriptor> = match wanted {
        Some(_) => manifests.iter().collect(),
        None => manifests.iter().filter(|descriptor| !is_attached(descriptor)).collect(),
    };
    let chosen = *choose(&images, wanted, |descriptor| vec![name(descriptor)])?;
    // Whoever writes an archive may name a signature any number of times, and each is read.
    let mut seen = BTreeSet::new();
    let attached = manifests.iter().filter(|one| is_attached(one) && seen.insert(one.digest)).take(MOST_ATTACHED);
    let signatures = attached.filter_map(|descriptor| signature(descriptor, &chosen.digest, store)).collect();
    Ok(Arrived { document: chosen.blob(), media_type: chosen.media_type.clone(), signatures })
}

/// What `cosign save` writes on each manifest of its layout, which have no names there.
const COSIGN_KIND: &str = "kind";
const COSIGN_KINDS: &str = "dev.cosignproject.cosign/";

/// The tag in a descriptor's name.
fn tag(descriptor: &Descriptor) -> Option<&str> {
    let name = descriptor.annotations.get(REF_NAME)?;
    Some(name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag))
}

/// Whether it is about an image, as a signature is: by its type, or by cosign's name or kind for it.
fn is_attached(descriptor: &Descriptor) -> bool {
    let about = tag(descriptor).and_then(|tag| tag.strip_prefix("sha256-")).and_then(|rest| rest.split_once('.'));
    let is_named = about.is_some_and(|(hex, _)| Digest::from_hex(hex).is_ok());
    let kind = descriptor.annotations.get(COSIGN_KIND).and_then(|kind| kind.strip_prefix(COSIGN_KINDS));
    let is_of_kind = kind.is_some_and(|kind| !matches!(kind, "image" | "imageIndex"));
    let is_artifact = descriptor.artifact_type.as_deref().is_some_and(|kind| !kind.is_empty() && kind != ARTIFACT_TYPE);
    is_named || is_of_kind || is_artifact
}

/// The signatures that a descriptor of a layout names, if any; those of `cosign save` are its only image's.
fn signature(descriptor: &Descriptor, chosen: &Digest, store: &Store) -> Option<Attached> {
    let attached = |image, is_tagged| {
        let (manifest, media_type) = (descriptor.blob(), descriptor.media_type.clone());
        Some(Attached { image, is_tagged, manifest, media_type })
    };
    if let Some(image) = tag(descriptor).and_then(is_signature_tag) {
        return attached(image, true);
    }
    if descriptor.annotations.get(COSIGN_KIND).is_some_and(|kind| *kind == format!("{COSIGN_KINDS}sigs")) {
        return attached(*chosen, true);
    }
    if descriptor.artifact_type.as_deref() != Some(SIGNATURE_ARTIFACT) {
        return None;
    }
    // One that is damaged or missing is a signature less; its lack is told where signatures are wanted.
    let document = Document::open(store, &descriptor.digest, Some(&descriptor.media_type)).ok()?;
    attached(document.subject()?.digest, false)
}

/// Takes the one image there is, or the one that was named.
fn choose<'a, T>(images: &'a [T], wanted: Option<&str>, names: impl Fn(&T) -> Vec<String>) -> Result<&'a T, OciError> {
    let listed = || {
        let names: Vec<String> = images.iter().flat_map(&names).filter(|name| !name.is_empty()).take(20).collect();
        if names.is_empty() { "none of them has a name".to_owned() } else { format!("it has {}", names.join(", ")) }
    };
    let Some(wanted) = wanted else {
        return match images {
            [one] => Ok(one),
            [] => Err(OciError::Archive("the archive holds no image: its list is empty".to_owned())),
            several => Err(OciError::Archive(format!(
                "the archive holds {} images; name one after the path, such as oci:DIR:TAG: {}",
                several.len(),
                listed()
            ))),
        };
    };
    let is_wanted = |name: &String| name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted);
    let mut found = images.iter().filter(|image| names(image).iter().any(is_wanted));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(OciError::Archive(format!("the archive holds no image '{wanted}': {}", listed()))),
        _ => Err(OciError::Archive(format!(
            "the archive holds several images '{wanted}': {}; name one in full",
            listed()
        ))),
    }
}

/// One image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// `docker save` writes no manifest, so one is made: always the same for the same parts.
fn from_docker(list: &[u8], wanted: Option<&str>, files: &Files, store: &Store) -> Result<Arrived, ImportError> {
    let refuse = |why: String| OciError::Archive(format!("the archive's manifest.json cannot be used: {why}"));
    let saved: Vec<Saved> = serde_json::from_slice(list).map_err(|error| refuse(error.to_string()))?;
    let chosen = choose(&saved, wanted, |saved| saved.repo_tags.clone().unwrap_or_default())?;
    let part = |name: &str| files.find(name).ok_or_else(|| refuse(format!("it names '{name}', which is not there")));
    let layer = |name: &String| {
        let blob = part(name)?;
        Ok(Descriptor::new(&format!("{OCI_LAYER}{}", compression(&blob.digest, store)?), blob))
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(OCI_CONFIG, part(&chosen.config)?),
        layers: chosen.layers.iter().map(layer).collect::<Result<_, OciError>>()?,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let json = serde_json::to_vec(&manifest).map_err(ImportError::Json)?;
    Ok(Arrived { document: store.put(&json)?, media_type: OCI_MANIFEST.to_owned(), signatures: Vec::new() })
}

/// What a layer's media type says of its compression. Docker's are plain; others write gzip.
fn compression(digest: &Digest, store: &Store) -> Result<&'static str, OciError> {
    let failed = |source| OciError::Read { digest: *digest, source };
    let (file, _) = store.open_blob(digest).map_err(|error| failed(std::io::Error::other(error)))?;
    let mut magic = Vec::new();
    file.take(4).read_to_end(&mut magic).map_err(failed)?;
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    })
}
