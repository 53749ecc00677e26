//! An image that Bennu made elsewhere: its parts are in the store, and it stays what it is.

use super::{ARTIFACT_TYPE, ImportError, Imported, config};
use crate::{
    oci::{Descriptor, Document, Manifest, OciError},
    store::Store,
};
use bennu_rules::image::{BlobRef, Digest, ImageConfig};
use std::io::Read as _;

/// A config is a few kilobytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Whether a manifest is that of an image of ours.
pub fn is_ours(manifest: &Manifest) -> bool {
    manifest.kind() == ARTIFACT_TYPE
}

/// Takes an image of ours whose parts arrived. Its digest stays.
pub fn adopt(digest: &Digest, store: &Store) -> Result<Imported, ImportError> {
    let hold = store.hold();
    let refuse = |why: String| OciError::Document { what: "image", digest: *digest, why };
    let Document::Manifest(manifest) = Document::open(store, digest, None)? else {
        return Err(refuse("it is an index".to_owned()).into());
    };
    if !is_ours(&manifest) {
        return Err(OciError::NotAnImage { kind: manifest.kind().to_owned() }.into());
    }
    let config = config_of(&manifest.config, store)?;
    for (what, part) in config.parts() {
        let is_named = manifest.layers.iter().any(|layer| layer.blob() == *part);
        if !is_named {
            return Err(refuse(format!("its config names a {what} that its manifest has not")).into());
        }
    }
    for part in config.blobs().chain([&manifest.config.blob()]) {
        present(part, store)?;
    }
    let config_blob = manifest.config.blob();
    let manifest_size = store.blob_size(digest)?;
    Ok(Imported { digest: *digest, manifest_size, config_blob, config, adopted: true, hold })
}

fn config_of(descriptor: &Descriptor, store: &Store) -> Result<ImageConfig, ImportError> {
    let digest = descriptor.digest;
    let refuse = |why: String| OciError::Document { what: "config", digest, why };
    let missing = |_| OciError::Missing { what: "config", digest };
    let (file, size) = store.open_blob(&digest).map_err(missing)?;
    if size > LARGEST_CONFIG {
        return Err(refuse(format!("it has {size} bytes")).into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_CONFIG).read_to_end(&mut bytes).map_err(|source| OciError::Read { digest, source })?;
    let kind = &descriptor.media_type;
    let read = config::read(kind, &bytes).ok_or_else(|| OciError::NotAnImage { kind: kind.clone() })?;
    Ok(read.map_err(|error| refuse(format!("another version of Bennu wrote it: {error}")))?)
}

fn present(part: &BlobRef, store: &Store) -> Result<(), OciError> {
    match store.blob_size(&part.digest) {
        Ok(size) if size == part.size => Ok(()),
        _ => Err(OciError::Missing { what: "part", digest: part.digest }),
    }
}
