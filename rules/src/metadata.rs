//! Metadata documents: what one image becomes on each machine that boots it. Texts in them are templates over the
//! machine's labels and facts.

mod context;
mod document;
mod merge;
pub mod seed;
mod syntax;
pub mod template;

pub use context::context;
pub use document::{BadDocument, BadName, DiskWanted, Document, FileWritten, MAX_DOCUMENT, MetadataName, Persistent};
pub use merge::{FileReady, Given, Merged, Origin, Unrendered, applying, render, without_documents};
pub use template::{BadTemplate, MAX_RENDERED};

use crate::{
    MacAddress,
    boot::{Boot, BootId},
    image::{Digest, ImageReference},
};
use serde::{Deserialize, Serialize};

/// What a boot's machine was given: rendered once, when its image was pinned, and held for the whole boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// The machine.
    pub machine: MacAddress,
    /// The boot that it was rendered for.
    pub boot: BootId,
    /// What came of the documents.
    #[serde(flatten)]
    pub merged: Merged,
}

/// The boot that documents are rendered for, as their templates see it.
#[derive(Debug, Clone)]
pub struct Occasion<'a> {
    /// The boot.
    pub boot: &'a Boot,
    /// The image as a person wrote it.
    pub reference: &'a ImageReference,
    /// The image.
    pub digest: Digest,
    /// Where the machine reaches us, such as `http://10.77.0.1`.
    pub origin: &'a str,
}
