//! Importers: from a source to an image in the store.

mod adopt;
mod config;
mod container;
mod disk;
mod efi;
mod foreign;
mod iso;
mod manifest;
mod pack;
mod progress;
mod root;

pub use adopt::{adopt, is_ours};
pub use container::{KERNEL_LABEL, Labels, Pairing, container, variants};
pub use disk::disk;
pub use efi::{efi, foreign_with_efi};
pub use foreign::foreign;
pub use iso::iso;
pub use manifest::{
    ARTIFACT_TYPE, CONFIG_TYPE, INITRD_TYPE, Imported, KERNEL_TYPE, LOADER_TYPE, MANIFEST_TYPE, ROOT_TYPE, VERITY_TYPE,
};
pub use pack::{PackError, pack_directory};
pub use progress::{Cancelled, ImportStep, Meter, Progress};
pub use root::root_from_tar;

pub use crate::tree::Acls;
use crate::{
    archive::TarError,
    disk::DiskError,
    kernel::KernelError,
    modules::ModulesError,
    oci::OciError,
    squashfs::BuildError,
    store::StoreError,
    tree::{BadEntry, NotCarried},
};
use std::{collections::BTreeSet, io};

/// How an import is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Make a kernel image: kernel and modules, no root.
    pub kernel_only: bool,
    /// Make a kernel image without the layer of all its modules, which container images without a kernel are paired with.
    pub without_layer: bool,
    /// What the root goes without, by path: the modules initrd was made of it before.
    pub root_without: Vec<String>,
    /// Kernel arguments of the image.
    pub cmdline: String,
    /// zstd level of the root filesystem and of the modules initrd, 1 to 22. It is part of what decides the digest.
    pub level: u32,
    /// Memory for the root filesystem's builder, in bytes.
    pub memory: u64,
    /// Threads for compression; 0 takes all processors.
    pub processors: usize,
    /// What to do with access control lists.
    pub acls: Acls,
    /// The source's size in bytes, for progress.
    pub source_size: Option<u64>,
    /// Whose signatures the appliance's own shim trusts ([`crate::signing::trusted_by`]). None: that is not judged.
    pub trusted: BTreeSet<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernel_only: false,
            without_layer: false,
            root_without: Vec::new(),
            cmdline: String::new(),
            level: 15,
            memory: 512 << 20,
            processors: 0,
            acls: Acls::Refuse,
            source_size: None,
            trusted: BTreeSet::new(),
        }
    }
}

impl Options {
    fn threads(&self) -> usize {
        match self.processors {
            0 => std::thread::available_parallelism().map_or(1, Into::into),
            count => count,
        }
    }
}

impl From<DiskError> for ImportError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Store(error) => Self::Store(error),
            error => Self::Disk(error),
        }
    }
}

/// Why there is no image. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source could not be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry that makes no sense.
    #[error(transparent)]
    Entry(#[from] BadEntry),
    /// Something squashfs cannot hold.
    #[error(transparent)]
    NotCarried(#[from] NotCarried),
    /// No kernel, or one that cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Modules that cannot be used.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// Whoever asked for the image went away.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The builder of the root filesystem failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The source has nothing to start.
    #[error(
        "the source is no root filesystem: it has none of {looked}. Import the directory that holds bin, etc and usr \
         (tar -C DIR .), or install an init, such as systemd, in it. A container image may name a program of its own instead (Entrypoint, \
         Cmd)"
    )]
    NoInit {
        /// Where an init was looked for.
        looked: String,
    },
    /// A container image that cannot be used.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// An option out of its range, or one that does not fit the source.
    #[error("{0}")]
    Option(String),
    /// The source of a foreign image could not be read.
    #[error("cannot read the {what}: {source}. Import it again")]
    Read {
        /// Which of them.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The EFI program is none, or is damaged.
    #[error(transparent)]
    Efi(#[from] crate::efi::EfiError),
    /// The disc makes no sense, or nothing starts from it.
    #[error(transparent)]
    Iso(#[from] crate::iso::IsoError),
    /// The disk image makes no sense, or holds no root.
    #[error(transparent)]
    Disk(DiskError),
    /// What was written aside could not be read back.
    #[error("cannot read '{path}' back from the scratch file: {source}. Look at the disk of the state directory")]
    Spool {
        /// Which file of the source.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The image's metadata could not be written as JSON.
    #[error("cannot write the image's metadata: {0}")]
    Json(serde_json::Error),
}
