//! Container images as registries and tools hold them: manifests, indexes, configs, and the archives they travel in
//! (OCI image specification 1.1; Docker's "Image Manifest V 2, Schema 2" has the same fields under other media types).
//!
//! The types hold what Bennu asks of these documents and skip the rest: a document keeps its own bytes in the store,
//! and is never written anew.

mod archive;
mod document;
mod export;

pub use archive::{Arrived, Attached, read_archive};
pub use document::{Config, Descriptor, Document, Index, Manifest, Platform, Run};
pub use export::{Export, ExportError, LAYOUT, REF_NAME};

use bennu_rules::{facts::Architecture, image::Digest};
use std::io;

/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of an OCI config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of Docker's config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media type of a layer, to which its compression is added.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of Docker's layers, likewise.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// The specification has registries take at least this much.
pub const LARGEST_MANIFEST: u64 = 4 << 20;

/// Why something is no container image that can be used.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A document that is not what it should be.
    #[error("the {what} {digest} cannot be read: {why}. Build or push the image anew")]
    Document {
        /// Which document.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// A part is not there.
    #[error("the {what} {digest} of the image is missing. Push or copy the image anew, with all its parts")]
    Missing {
        /// Which part.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// A part has other bytes than its digest says.
    #[error("'{name}' is damaged: its bytes have the digest {found}. Build or copy the image anew")]
    Mismatch {
        /// The part.
        name: String,
        /// What its bytes came to.
        found: Digest,
    },
    /// A layer's contents are not what the config says.
    #[error(
        "the layer {layer} unpacks to {found}, and the image's config says {expected}. Whoever built the image mixed up \
         its layers; build it anew"
    )]
    DiffId {
        /// The layer.
        layer: Digest,
        /// What it came to.
        found: Digest,
        /// What the config says.
        expected: String,
    },
    /// It is no container image.
    #[error("this is no container image, but an artifact of type '{kind}'. Nothing in it can boot")]
    NotAnImage {
        /// Its type.
        kind: String,
    },
    /// A layer of a kind that cannot be used.
    #[error("the layer {digest} has the media type '{media_type}', which Bennu does not read. {help}")]
    Layer {
        /// Which.
        digest: Digest,
        /// Its type.
        media_type: String,
        /// What to do.
        help: &'static str,
    },
    /// Not for any machine we know.
    #[error("the image is for {found}{}", for_whom(.wanted))]
    Platform {
        /// What it is for.
        found: String,
        /// What was wanted.
        wanted: Option<Architecture>,
    },
    /// The archive holds no image, or not the one that was named.
    #[error("{0}")]
    Archive(String),
    /// The archive could not be read.
    #[error(transparent)]
    Tar(#[from] crate::archive::TarError),
    /// Something of the store could not be read.
    #[error("cannot read {digest} back: {source}. Look at the disk of the state directory")]
    Read {
        /// Which blob.
        digest: Digest,
        /// What the system said.
        source: io::Error,
    },
}

fn for_whom(wanted: &Option<Architecture>) -> String {
    match wanted {
        Some(wanted) => {
            format!(", and the kernel is for {wanted:?}. Build it for that, or name another kernel image (--kernel)")
        }
        None => {
            ", and Bennu boots Linux on x86, Arm, RISC-V and LoongArch machines. Build it for one of those".to_owned()
        }
    }
}

/// An architecture by Go's name for it, which configs use (OCI image specification, "Image Configuration").
pub fn architecture(name: &str) -> Option<Architecture> {
    Some(match name {
        "386" => Architecture::X86,
        "amd64" => Architecture::X86_64,
        "arm" => Architecture::Arm32,
        "arm64" => Architecture::Arm64,
        "riscv64" => Architecture::Riscv64,
        "loong64" => Architecture::Loongarch64,
        _ => return None,
    })
}

/// Go's name for an architecture; of those that Go does not know, one in its style.
pub fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86 => "386",
        Architecture::X86_64 => "amd64",
        Architecture::Arm32 => "arm",
        Architecture::Arm64 => "arm64",
        Architecture::Riscv32 => "riscv32",
        Architecture::Riscv64 => "riscv64",
        Architecture::Loongarch32 => "loong32",
        Architecture::Loongarch64 => "loong64",
    }
}
