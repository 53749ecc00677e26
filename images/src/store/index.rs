//! `oci-layout` and `index.json` (OCI image specification, "OCI Image Layout" and "Image Index").

use super::{Store, StoreError};
use crate::import::{ARTIFACT_TYPE, MANIFEST_TYPE};
use bennu_rules::image::{Digest, ImageName};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io::Write as _, os::unix::fs::PermissionsExt, path::Path};

const LAYOUT_VERSION: &str = "1.0.0";

/// One image, under one of its names or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
    /// A tag that points at it.
    pub name: Option<ImageName>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Manifest>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: &'static str,
    digest: Digest,
    size: u64,
    artifact_type: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

/// Makes the two files where they are missing, and refuses a layout we do not know.
pub(super) fn open(store: &Store) -> Result<(), StoreError> {
    let path = store.dir().join("oci-layout");
    match fs::read(&path) {
        Ok(text) => {
            let version = serde_json::from_slice::<Layout>(&text)
                .map_or_else(|_| "unreadable".to_owned(), |layout| layout.image_layout_version);
            if version != LAYOUT_VERSION {
                return Err(StoreError::Layout { path: store.dir().to_owned(), version });
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let layout = Layout { image_layout_version: LAYOUT_VERSION.to_owned() };
            replace(store, &path, &layout)?;
        }
        Err(error) => return Err(store.failed("read", &path, error)),
    }
    if !store.dir().join("index.json").exists() {
        write(store, &[])?;
    }
    Ok(())
}

pub(super) fn write(store: &Store, entries: &[IndexEntry]) -> Result<(), StoreError> {
    let manifests = entries.iter().map(|entry| Manifest {
        media_type: MANIFEST_TYPE,
        digest: entry.digest,
        size: entry.size,
        artifact_type: ARTIFACT_TYPE,
        // skopeo's `oci:DIR:NAME` and oras look for this very annotation.
        annotations: entry.name.iter().map(|name| ("org.opencontainers.image.ref.name", name.to_string())).collect(),
    });
    let index = Index {
        schema_version: 2,
        media_type: "application/vnd.oci.image.index.v1+json",
        manifests: manifests.collect(),
    };
    replace(store, &store.dir().join("index.json"), &index)
}

/// Writes aside, syncs, renames, syncs the directory.
fn replace(store: &Store, path: &Path, content: &impl Serialize) -> Result<(), StoreError> {
    let mut text = serde_json::to_vec_pretty(content).map_err(|e| store.failed("write", path, e.into()))?;
    text.push(b'\n');
    let mut file =
        tempfile::NamedTempFile::new_in(store.tmp()).map_err(|e| store.failed("make a file in", store.tmp(), e))?;
    file.write_all(&text)
        .and_then(|()| file.as_file().set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| file.as_file().sync_all())
        .map_err(|e| store.failed("write", path, e))?;
    file.persist(path).map_err(|e| store.failed("rename into place", path, e.error))?;
    store.sync_dir(store.dir())
}
