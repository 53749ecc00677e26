//! An image's config as every tool reads it: an OCI image config ("OCI Image Configuration"), which may hold more than the
//! specification names, and has here under one key all that decides how the image boots.

use super::{CONFIG_TYPE, ImportError, manifest::KERNEL_LAYER_TYPE};
use crate::{
    oci::{OCI_CONFIG, OciError, architecture_name},
    store::Store,
};
use bennu_rules::image::{BlobRef, Digest, ImageConfig};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io};

#[derive(Serialize)]
struct Written<'a> {
    architecture: &'static str,
    os: &'static str,
    /// The source's time; one of ours would make two images of one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    config: Run<'a>,
    rootfs: RootFs,
    /// No history: `umoci stat` (0.4.7) ends in a panic over an entry that has no time.
    #[serde(rename = "vnd.bennu.image.v1")]
    image: &'a ImageConfig,
}

#[derive(Serialize)]
struct Run<'a> {
    #[serde(rename = "Labels", skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Read {
    #[serde(rename = "vnd.bennu.image.v1")]
    image: ImageConfig,
}

/// The config of an image of these layers, each with its media type.
pub(super) fn write<'a>(
    image: &ImageConfig,
    layers: impl Iterator<Item = (&'a str, BlobRef)>,
    store: &Store,
) -> Result<Vec<u8>, ImportError> {
    let written = Written {
        architecture: architecture_name(image.architecture),
        os: "linux",
        created: image.derived.as_ref().and_then(|derived| derived.created.as_deref()),
        config: Run { labels: &image.labels },
        rootfs: RootFs {
            r#type: "layers",
            diff_ids: layers.map(|(kind, blob)| diff_id(kind, &blob, store)).collect::<Result<_, _>>()?,
        },
        image,
    };
    serde_json::to_vec(&written).map_err(ImportError::Json)
}

/// Reads a config of either kind: the one above, or that of before, which was nothing but ours.
pub(super) fn read(media_type: &str, bytes: &[u8]) -> Option<serde_json::Result<ImageConfig>> {
    match media_type {
        OCI_CONFIG => Some(serde_json::from_slice(bytes).map(|Read { image }| image)),
        CONFIG_TYPE => Some(serde_json::from_slice(bytes)),
        _ => None,
    }
}

/// The digest of a layer without its compression. All but a kernel image's tar are no layers to anybody else, and are
/// what they are.
fn diff_id(media_type: &str, blob: &BlobRef, store: &Store) -> Result<Digest, ImportError> {
    if media_type != KERNEL_LAYER_TYPE {
        return Ok(blob.digest);
    }
    struct Sum(Context);
    impl io::Write for Sum {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sum = Sum(Context::new(&SHA256));
    let (file, _) = store.open_blob(&blob.digest)?;
    let unpacked = zstd::Decoder::new(file).and_then(|mut plain| io::copy(&mut plain, &mut sum));
    unpacked.map_err(|source| OciError::Read { digest: blob.digest, source })?;
    let mut digest = [0; 32];
    digest.copy_from_slice(sum.0.finish().as_ref());
    Ok(Digest(digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{ARTIFACT_TYPE, Imported, MANIFEST_TYPE, adopt, foreign};
    use bennu_rules::{facts::Architecture, image::Content};
    use serde_json::{Value, json};

    fn store() -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (Store::open(directory.path()).unwrap(), directory)
    }

    fn image(store: &Store) -> Imported {
        foreign(&[1; 5000][..], vec![&[2; 300][..]], "quiet", Some(Architecture::X86_64), store).unwrap()
    }

    fn document(store: &Store, digest: &Digest) -> Value {
        serde_json::from_slice(&std::fs::read(store.blob_path(digest)).unwrap()).unwrap()
    }

    /// The image once more, with another config.
    fn with_config(image: &Imported, media_type: &str, config: &Value, store: &Store) -> Digest {
        let blob = store.put(config.to_string().as_bytes()).unwrap();
        let mut manifest = document(store, &image.digest);
        manifest["config"] = json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size});
        store.put(manifest.to_string().as_bytes()).unwrap().digest
    }

    #[test]
    fn it_is_a_config_to_everybody() {
        let (store, _directory) = store();
        let image = image(&store);
        let manifest = document(&store, &image.digest);
        assert_eq!((&manifest["mediaType"], &manifest["artifactType"]), (&json!(MANIFEST_TYPE), &json!(ARTIFACT_TYPE)));
        assert_eq!(manifest["config"]["mediaType"], OCI_CONFIG);
        let config = document(&store, &image.config_blob.digest);
        assert_eq!((&config["architecture"], &config["os"]), (&json!("amd64"), &json!("linux")));
        let layers: Vec<&Value> = manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["digest"]).collect();
        let ids: Vec<&Value> = config["rootfs"]["diff_ids"].as_array().unwrap().iter().collect();
        assert_eq!((ids, layers.len()), (layers, 2));
    }

    #[test]
    fn images_of_before_are_taken_as_they_are() {
        let (store, _directory) = store();
        let image = image(&store);
        assert_eq!(adopt(&image.digest, &store).unwrap().config, image.config);
        let plain = serde_json::to_value(&image.config).unwrap();
        let before = with_config(&image, CONFIG_TYPE, &plain, &store);
        let adopted = adopt(&before, &store).unwrap();
        assert_eq!((adopted.digest, adopted.adopted, adopted.config), (before, true, image.config.clone()));
    }

    #[test]
    fn a_config_that_says_nothing_of_booting_is_refused() {
        let (store, _directory) = store();
        let image = image(&store);
        let plain = serde_json::to_value(&image.config).unwrap();
        let (here, of_others) = (json!({"architecture": "amd64", "os": "linux"}), "application/vnd.oci.empty.v1+json");
        for (media_type, config) in
            [(OCI_CONFIG, &plain), (OCI_CONFIG, &here), (CONFIG_TYPE, &here), (of_others, &plain)]
        {
            let digest = with_config(&image, media_type, config, &store);
            let refused = adopt(&digest, &store).map(|image| image.digest);
            assert!(matches!(refused, Err(ImportError::Oci(_))), "{media_type}: {refused:?}");
        }
    }

    #[test]
    fn a_kernels_layer_is_told_without_its_compression() {
        let (store, _directory) = store();
        let plain = vec![7; 100_000];
        let packed = store.put(&zstd::encode_all(plain.as_slice(), 3).unwrap()).unwrap();
        let kernel = store.put(b"kernel").unwrap();
        let content = Content::Kernel {
            kernel: kernel.clone(),
            modules: kernel.clone(),
            kernel_release: "6".into(),
            layer: Some(packed.clone()),
        };
        let config = ImageConfig::of(Architecture::Arm64, content);
        let layers = [("application/x", kernel.clone()), (KERNEL_LAYER_TYPE, packed)];
        let written: Value = serde_json::from_slice(&write(&config, layers.into_iter(), &store).unwrap()).unwrap();
        let unpacked = store.put(&plain).unwrap();
        assert_eq!(written["rootfs"]["diff_ids"], json!([kernel.digest, unpacked.digest]));
        assert_eq!(written["architecture"], "arm64");
    }
}
