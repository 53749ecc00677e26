//! Images that leave: an OCI layout in a tar, written as a stream, with every blob held to its digest.
//!
//! The same images give the same bytes: nothing in the tar tells of this host or of the time.

use super::{DOCKER_CONFIG, Descriptor, Document, OCI_CONFIG, OCI_MANIFEST, OciError, document::small};
use crate::{
    archive::{BLOCK, Contents, Metadata, RecordKind, Writer, Xattrs},
    import::ARTIFACT_TYPE,
    store::{Damage, Hold, Store, StoreError},
};
use bennu_rules::{
    image::{BlobRef, Digest},
    registry::Leaving,
};
use ring::digest::{Context, SHA256};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write},
};

/// Where layouts say which of several images has which name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `oci-layout` of every layout.
pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const CHUNK: usize = 256 << 10;

/// The largest size that a tar header holds; a larger one takes a record of its own before it.
const LARGEST_IN_HEADER: u64 = 0o77777777777;

/// Indexes of indexes that make sense.
const DEEPEST: u32 = 3;

/// Why an export ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A document of the image cannot be used.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A blob is not what it was.
    #[error(
        "the blob {digest} of the image is damaged: {damage}. Import the image again, and test the disk of the state directory"
    )]
    Damaged {
        /// Which.
        digest: Digest,
        /// In which way.
        damage: Damage,
    },
    /// Whoever asked for it takes no more.
    #[error("the export ended early: {0}")]
    Gone(io::Error),
}

/// Images on their way out. While it lives their blobs stay.
#[derive(Debug)]
pub struct Export {
    store: Store,
    index: Vec<u8>,
    blobs: Vec<BlobRef>,
    _hold: Hold,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

impl Export {
    /// Looks up everything that leaves. What an index names and was never here, such as other machines' images that a
    /// copy left out, stays away.
    pub fn of(leaving: &[Leaving], store: &Store) -> Result<Self, OciError> {
        let hold = store.hold();
        let mut walk = Walk { store, seen: BTreeSet::new(), blobs: Vec::new() };
        let mut manifests = Vec::new();
        for document in leaving {
            let descriptor = descriptor(document);
            walk.document(&descriptor, 0)?;
            manifests.push(descriptor);
        }
        let media_type = super::OCI_INDEX;
        let index = Index { schema_version: 2, media_type, manifests };
        let unwritable = |error: serde_json::Error| OciError::Archive(error.to_string());
        let index = serde_json::to_vec(&index).map_err(unwritable)?;
        Ok(Self { blobs: walk.blobs, store: store.clone(), index, _hold: hold })
    }

    /// Bytes of the tar.
    pub fn size(&self) -> u64 {
        let entry = |size: u64| {
            let extended = if size > LARGEST_IN_HEADER { 2 * BLOCK as u64 } else { 0 };
            extended + BLOCK as u64 + size.next_multiple_of(BLOCK as u64)
        };
        let files = [LAYOUT.len() as u64, self.index.len() as u64].into_iter();
        let sizes = files.chain(self.blobs.iter().map(|blob| blob.size));
        let directories = 2 * BLOCK as u64;
        directories + sizes.map(entry).sum::<u64>() + 2 * BLOCK as u64
    }

    /// Writes the tar. Blocks. It ends with an error, before the archive's end, at the first blob that is damaged.
    pub fn write(&self, out: impl Write) -> Result<(), ExportError> {
        let mut tar = Writer::new(out);
        file(&mut tar, "oci-layout", LAYOUT).map_err(ExportError::Gone)?;
        file(&mut tar, "index.json", &self.index).map_err(ExportError::Gone)?;
        for directory in ["blobs", "blobs/sha256"] {
            let meta = metadata(0o755);
            tar.entry(directory.as_bytes(), RecordKind::Directory, meta).map_err(ExportError::Gone)?;
        }
        let mut buffer = vec![0; CHUNK];
        self.blobs.iter().try_for_each(|blob| self.blob(blob, &mut tar, &mut buffer))?;
        tar.finish().map(drop).map_err(ExportError::Gone)
    }

    fn blob(&self, blob: &BlobRef, tar: &mut Writer<impl Write>, buffer: &mut [u8]) -> Result<(), ExportError> {
        let damaged = |damage| ExportError::Damaged { digest: blob.digest, damage };
        let (mut input, size) = self.store.open_blob(&blob.digest).map_err(|error| match error {
            StoreError::Missing { .. } => damaged(Damage::Missing),
            error => damaged(Damage::Unreadable(error.to_string())),
        })?;
        let name = format!("blobs/sha256/{}", blob.digest.hex());
        let contents = RecordKind::File(Contents::Whole(blob.size));
        let (mut hash, mut left) = (Context::new(&SHA256), blob.size);
        if size == blob.size {
            tar.entry(name.as_bytes(), contents, metadata(0o644)).map_err(ExportError::Gone)?;
        }
        // One of another size is read for what it hashes to, and not sent.
        loop {
            let count = match input.read(buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(Damage::Unreadable(error.to_string()))),
            };
            hash.update(&buffer[..count]);
            left = left.saturating_sub(count as u64);
            if size == blob.size {
                tar.data(&buffer[..count]).map_err(ExportError::Gone)?;
            }
        }
        let mut found = [0; 32];
        found.copy_from_slice(hash.finish().as_ref());
        let found = Digest(found);
        if found != blob.digest || left > 0 {
            return Err(damaged(Damage::Differs { found, size }));
        }
        Ok(())
    }
}

fn metadata(mode: u32) -> Metadata<'static> {
    const NONE: &Xattrs = &Xattrs::new();
    Metadata { mode, uid: 0, gid: 0, mtime: 0, xattrs: NONE }
}

fn file(tar: &mut Writer<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.entry(name.as_bytes(), RecordKind::File(Contents::Whole(bytes.len() as u64)), metadata(0o644))?;
    tar.data(bytes)
}

fn descriptor(document: &Leaving) -> Descriptor {
    let mut descriptor = Descriptor::new(document.media_type.as_deref().unwrap_or(OCI_MANIFEST), &document.blob);
    descriptor.artifact_type = match document.media_type {
        None => Some(ARTIFACT_TYPE.to_owned()),
        Some(_) => document.kind.clone().filter(|kind| !matches!(kind.as_str(), "" | OCI_CONFIG | DOCKER_CONFIG)),
    };
    descriptor.annotations = document.name.iter().map(|name| (REF_NAME.to_owned(), name.clone())).collect();
    descriptor
}

struct Walk<'a> {
    store: &'a Store,
    seen: BTreeSet<Digest>,
    /// Documents before their parts, each blob once.
    blobs: Vec<BlobRef>,
}

impl Walk<'_> {
    fn document(&mut self, descriptor: &Descriptor, depth: u32) -> Result<(), OciError> {
        if depth > DEEPEST || !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        let bytes = small(self.store, &descriptor.digest, "manifest", super::LARGEST_MANIFEST)?;
        let digest = descriptor.digest;
        let unreadable = |why| OciError::Document { what: "manifest", digest, why };
        let document = Document::parse(&bytes, Some(&descriptor.media_type)).map_err(unreadable)?;
        self.take(&descriptor.blob());
        match &document {
            Document::Manifest(_) => {
                for part in document.parts() {
                    if self.seen.insert(part.digest) {
                        self.take(&part.blob());
                    }
                }
                Ok(())
            }
            Document::Index(index) => {
                let whole: Vec<&Descriptor> = index.manifests.iter().filter(|inner| self.is_whole(inner)).collect();
                whole.into_iter().try_for_each(|inner| self.document(inner, depth + 1))
            }
        }
    }

    /// From here on no collection removes it.
    fn take(&mut self, blob: &BlobRef) {
        self.store.keep(&blob.digest);
        self.blobs.push(blob.clone());
    }

    fn is_whole(&self, inner: &Descriptor) -> bool {
        let is_here = |part: &Descriptor| self.store.blob_size(&part.digest).is_ok();
        match Document::open(self.store, &inner.digest, Some(&inner.media_type)) {
            Ok(Document::Manifest(manifest)) => std::iter::once(&manifest.config).chain(&manifest.layers).all(is_here),
            Ok(Document::Index(_)) => true,
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
