//! An image's identity: an OCI image manifest with an artifact type of ours (OCI image specification,
//! "Image Manifest", "Guidelines for Artifact Usage").

use super::{ImportError, config};
use crate::{
    oci::OCI_CONFIG,
    store::{Hold, Store},
};
use bennu_rules::{
    boot::chain::{GRUB, SHIM},
    image::{BlobRef, Content, Digest, FileSystem, ImageConfig, SignedLoaders},
};
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeMap};

/// Media type of manifests.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Artifact type of our images.
pub const ARTIFACT_TYPE: &str = "application/vnd.bennu.image.v1";
/// Media type of the config blob of images of before; now it is an OCI image config.
pub const CONFIG_TYPE: &str = "application/vnd.bennu.image.config.v1+json";
/// Media type of kernels.
pub const KERNEL_TYPE: &str = "application/vnd.bennu.image.kernel.v1";
/// Media type of modules initrds and of foreign initrds.
pub const INITRD_TYPE: &str = "application/vnd.bennu.image.initrd.v1";
/// Media type of root filesystems.
pub const ROOT_TYPE: &str = "application/vnd.bennu.image.root.v1+squashfs";
/// Media type of root partitions taken from disk images.
pub const EXT4_TYPE: &str = "application/vnd.bennu.image.root.v1+ext4";
/// Media type of EFI programs.
pub const PROGRAM_TYPE: &str = "application/vnd.bennu.image.program.v1+efi";
/// Media type of discs that boot whole.
pub const DISC_TYPE: &str = "application/vnd.bennu.image.disc.v1+iso";
/// Media type of files that a foreign system fetches by itself.
pub const FILE_TYPE: &str = "application/vnd.bennu.image.file.v1";
/// Media type of dm-verity's hash trees.
pub const VERITY_TYPE: &str = "application/vnd.bennu.image.verity.v1";
/// Media type of a kernel image's layer over container images.
pub const KERNEL_LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Media type of a vendor's shim and GRUB.
pub const LOADER_TYPE: &str = "application/vnd.bennu.image.loader.v1+efi";

/// An image whose blobs are all in the store.
#[derive(Debug)]
pub struct Imported {
    /// Digest of the manifest: the image's identity.
    pub digest: Digest,
    /// The manifest's size.
    pub manifest_size: u64,
    /// The config blob.
    pub config_blob: BlobRef,
    /// Its content.
    pub config: ImageConfig,
    /// It was made elsewhere, and taken as it is.
    pub adopted: bool,
    /// Keeps the blobs from collection: drop it when the image's record is committed.
    pub hold: Hold,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    artifact_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    /// The container image it was made of, whose referrer it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Cow<'static, str>,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

fn layer(media_type: &'static str, blob: &BlobRef, title: String) -> Descriptor {
    // The name oras gives the file on a pull.
    let annotations = BTreeMap::from([("org.opencontainers.image.title", title)]);
    Descriptor { media_type: media_type.into(), digest: blob.digest, size: blob.size, annotations }
}

fn layers(config: &ImageConfig) -> Vec<Descriptor> {
    let mut layers = layers_of(&config.content);
    if let Some(SignedLoaders { shim, grub }) = &config.signed {
        layers.push(layer(LOADER_TYPE, shim, SHIM.to_owned()));
        layers.push(layer(LOADER_TYPE, grub, GRUB.to_owned()));
    }
    layers
}

fn layers_of(content: &Content) -> Vec<Descriptor> {
    let kernel = layer(KERNEL_TYPE, content.kernel(), "vmlinuz".to_owned());
    let modules = |blob| layer(INITRD_TYPE, blob, "modules.img".to_owned());
    match content {
        Content::Root { modules: initrd, root, filesystem, verity, .. } => {
            let media_type = match filesystem {
                FileSystem::Squashfs => ROOT_TYPE,
                FileSystem::Ext4 => EXT4_TYPE,
            };
            let root = layer(media_type, root, format!("root.{}", filesystem.name()));
            let tree = verity.iter().map(|verity| layer(VERITY_TYPE, &verity.tree, "root.verity".to_owned()));
            [kernel, modules(initrd), root].into_iter().chain(tree).collect()
        }
        Content::Kernel { modules: initrd, layer: over, .. } => {
            let over = over.iter().map(|over| layer(KERNEL_LAYER_TYPE, over, "kernel.tar.zst".to_owned()));
            [kernel, modules(initrd)].into_iter().chain(over).collect()
        }
        Content::Foreign { initrds, efi, files, .. } => {
            let initrds = initrds.iter().enumerate();
            let initrds = initrds.map(|(at, blob)| layer(INITRD_TYPE, blob, format!("initrd-{at}.img")));
            let efi = efi.iter().map(|blob| layer(PROGRAM_TYPE, blob, "program.efi".to_owned()));
            let files = files.iter().map(|file| layer(FILE_TYPE, &file.blob, file.name.clone()));
            std::iter::once(kernel).chain(initrds).chain(efi).chain(files).collect()
        }
        Content::Program { program } => vec![layer(PROGRAM_TYPE, program, "program.efi".to_owned())],
        Content::Disc { disc } => vec![layer(DISC_TYPE, disc, "disc.iso".to_owned())],
    }
}

/// Writes config and manifest.
pub(super) fn seal(config: ImageConfig, store: &Store, hold: Hold) -> Result<Imported, ImportError> {
    let layers = layers(&config);
    let parts = layers.iter().map(|layer| (&*layer.media_type, BlobRef { digest: layer.digest, size: layer.size }));
    let config_blob = store.put(&config::write(&config, parts, store)?)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        artifact_type: ARTIFACT_TYPE,
        config: Descriptor {
            media_type: OCI_CONFIG.into(),
            digest: config_blob.digest,
            size: config_blob.size,
            annotations: BTreeMap::new(),
        },
        layers,
        subject: config.derived.as_ref().map(|derived| Descriptor {
            media_type: derived.media_type.clone().into(),
            digest: derived.source.digest,
            size: derived.source.size,
            annotations: BTreeMap::new(),
        }),
    };
    let json = serde_json::to_vec(&manifest).map_err(ImportError::Json)?;
    let BlobRef { digest, size: manifest_size } = store.put(&json)?;
    Ok(Imported { digest, manifest_size, config_blob, config, adopted: false, hold })
}
