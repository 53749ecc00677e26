//! Manifests, indexes and configs.

use super::{
    DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, LARGEST_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, OciError,
    architecture,
};
use crate::store::{Store, StoreError};
use bennu_rules::{
    Timestamp,
    facts::Architecture,
    image::{BlobRef, Digest},
    registry::Artifact,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
};

/// A config is a few kilobytes; its history may be long.
const LARGEST_CONFIG: u64 = 8 << 20;

/// What points at a blob ("OCI Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// For which machines, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of the artifact that it points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Whatever else was said of it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Without what is said of it.
    pub fn new(media_type: &str, blob: &BlobRef) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// What it points at.
    pub fn blob(&self) -> BlobRef {
        BlobRef { digest: self.digest, size: self.size }
    }
}

/// For which machines an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// By Go's name for it.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
}

/// An image, or an artifact ("OCI Image Manifest").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// How it runs.
    pub config: Descriptor,
    /// What it consists of, the lowest layer first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What it is about: a signature's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Whatever else was said of it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// The kind of artifact: as named, or by its config's type (OCI image specification, "Guidelines for Artifact
    /// Usage").
    pub fn kind(&self) -> &str {
        self.artifact_type.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(&self.config.media_type)
    }

    /// Whether it is a container image.
    pub fn is_image(&self) -> bool {
        let of_image = matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG);
        of_image && self.artifact_type.as_deref().is_none_or(|kind| matches!(kind, "" | OCI_CONFIG | DOCKER_CONFIG))
    }
}

/// Several images under one name ("OCI Image Index").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The images.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Whatever else was said of it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// What it has for machines that we know. It names images for others, and things that are no images. Of several
    /// variants of one architecture the first is what container runtimes take.
    pub fn known(&self) -> Vec<(Architecture, &Descriptor)> {
        let mut seen = BTreeSet::new();
        let platforms = self.manifests.iter().filter_map(|entry| Some((entry.platform.as_ref()?, entry)));
        let linux = platforms.filter(|(platform, _)| matches!(platform.os.as_str(), "linux" | ""));
        let known = linux.filter_map(|(platform, entry)| Some((architecture(&platform.architecture)?, entry)));
        known.filter(|(architecture, _)| seen.insert(*architecture)).collect()
    }
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image or artifact.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads one. `named` is the media type by which it came, such as a request's; the document's own must agree, so
    /// that nobody reads the same bytes as two things (CVE-2021-41190).
    pub fn parse(bytes: &[u8], named: Option<&str>) -> Result<Self, String> {
        /// What tells the two apart.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Looked {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
        }
        let looked: Looked = serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
        if looked.schema_version != Some(2) {
            return Err("its schemaVersion is not 2; older ones carry no digests of their parts".to_owned());
        }
        let own = looked.media_type.as_deref();
        if let (Some(own), Some(named)) = (own, named)
            && own != named
        {
            return Err(format!("it says that it is '{own}', and came as '{named}'"));
        }
        let is_index = match own.or(named) {
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
            Some(OCI_INDEX | DOCKER_INDEX) => true,
            Some(other) => return Err(format!("Bennu knows no media type '{other}'")),
            None => looked.manifests.is_some(),
        };
        let other =
            if is_index { looked.layers.is_some() || looked.config.is_some() } else { looked.manifests.is_some() };
        if other {
            return Err("it is a manifest and an index at once".to_owned());
        }
        let failed = |error: serde_json::Error| error.to_string();
        if is_index {
            return serde_json::from_slice(bytes).map(Self::Index).map_err(failed);
        }
        serde_json::from_slice(bytes).map(Self::Manifest).map_err(failed)
    }

    /// Its media type: as it says, or as came with it, or by what it is.
    pub fn media_type<'a>(&'a self, named: Option<&'a str>) -> &'a str {
        let (own, default) = match self {
            Self::Manifest(manifest) => (manifest.media_type.as_deref(), OCI_MANIFEST),
            Self::Index(index) => (index.media_type.as_deref(), OCI_INDEX),
        };
        own.or(named).unwrap_or(default)
    }

    /// What it names: config and layers, or manifests.
    pub fn parts(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }

    /// The manifest that it is about, where it says so.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// Its record, as it was pushed to a repository under a media type.
    pub fn artifact(&self, blob: &BlobRef, media_type: &str, repository: &str) -> Artifact {
        let (kind, annotations) = match self {
            Self::Manifest(manifest) => (manifest.kind(), &manifest.annotations),
            Self::Index(index) => (index.artifact_type.as_deref().unwrap_or_default(), &index.annotations),
        };
        Artifact {
            digest: blob.digest,
            size: blob.size,
            media_type: media_type.to_owned(),
            kind: kind.to_owned(),
            annotations: annotations.clone(),
            parts: self.parts().into_iter().map(Descriptor::blob).collect(),
            subject: self.subject().map(|subject| subject.digest),
            repositories: [repository.to_owned()].into(),
            pushed: Timestamp::default(),
        }
    }

    /// One in the store.
    pub fn open(store: &Store, digest: &Digest, named: Option<&str>) -> Result<Self, OciError> {
        let bytes = small(store, digest, "manifest", LARGEST_MANIFEST)?;
        Self::parse(&bytes, named).map_err(|why| OciError::Document { what: "manifest", digest: *digest, why })
    }
}

/// A container image's config ("OCI Image Configuration").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// By Go's name for it.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// When it was made (RFC 3339).
    #[serde(default)]
    pub created: Option<String>,
    /// How it runs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: Run,
    /// Its layers' contents.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// How a container image runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Run {
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// What a container image's layers come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// The digest of each layer without its compression. Bennu's readers take SHA-256 only.
    #[serde(deserialize_with = "null_as_default")]
    pub diff_ids: Vec<String>,
}

impl Config {
    /// One in the store.
    pub fn open(store: &Store, digest: &Digest) -> Result<Self, OciError> {
        let bytes = small(store, digest, "config", LARGEST_CONFIG)?;
        serde_json::from_slice(&bytes).map_err(|error| OciError::Document {
            what: "config",
            digest: *digest,
            why: error.to_string(),
        })
    }
}

/// Go's writers make `null` of a list or map that has nothing.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A blob that must be no larger than `most`.
pub(super) fn small(store: &Store, digest: &Digest, what: &'static str, most: u64) -> Result<Vec<u8>, OciError> {
    let digest = *digest;
    let (file, size) = match store.open_blob(&digest) {
        Ok(opened) => opened,
        Err(StoreError::Missing { .. }) => return Err(OciError::Missing { what, digest }),
        Err(error) => return Err(OciError::Read { digest, source: std::io::Error::other(error) }),
    };
    if size > most {
        let why = format!("it has {size} bytes, and at most {most} make sense");
        return Err(OciError::Document { what, digest, why });
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|source| OciError::Read { digest, source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(more: &str) -> String {
        let digest = format!("sha256:{}", "ab".repeat(32));
        format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}","size":2}}{more}}}"#)
    }

    #[test]
    fn a_document_is_one_thing_only() {
        let parse = |text: &str, named| Document::parse(text.as_bytes(), named);
        assert!(matches!(parse(&manifest(r#","layers":null"#), None), Ok(Document::Manifest(_))));
        assert!(matches!(parse(r#"{"schemaVersion":2,"manifests":[]}"#, None), Ok(Document::Index(_))));
        for (text, named, says) in [
            (manifest(r#","manifests":[]"#), Some(OCI_MANIFEST), "at once"),
            (manifest(r#","mediaType":"application/vnd.oci.image.index.v1+json","layers":[]"#), None, "at once"),
            (manifest(&format!(r#","mediaType":"{OCI_MANIFEST}""#)), Some(OCI_INDEX), "came as"),
            (manifest(r#","mediaType":"text/plain""#), None, "no media type 'text/plain'"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), None, "schemaVersion"),
            ("[1]".to_owned(), None, "no manifest"),
            (manifest("").replace("sha256:ab", "sha256:zz"), None, "digest"),
        ] {
            let error = parse(&text, named).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn artifacts_are_told_from_images() {
        let Ok(Document::Manifest(image)) = Document::parse(manifest("").as_bytes(), None) else { panic!() };
        assert!(image.is_image());
        let other = manifest(r#","artifactType":"application/x-chart""#);
        let Ok(Document::Manifest(other)) = Document::parse(other.as_bytes(), None) else { panic!() };
        assert_eq!((other.is_image(), other.kind()), (false, "application/x-chart"));
    }

    #[test]
    fn a_config_may_be_as_empty_as_tools_write_it() {
        let text = r#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!((config.config, config.rootfs.diff_ids.len()), (Run::default(), 0));
        let text =
            r#"{"config":{"Cmd":["sh"],"Entrypoint":null,"Labels":{"a":"b"},"WorkingDir":"/srv","Env":["A=b"]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!((config.config.cmd, config.config.working_dir), (vec!["sh".to_owned()], "/srv".to_owned()));
    }
}
