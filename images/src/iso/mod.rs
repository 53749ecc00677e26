//! Optical discs as files: ISO 9660 (ECMA-119) with Rock Ridge (IEEE P1282) or Joliet names, read-only.
//!
//! Our own, because the file comes from elsewhere: directories that hold themselves, records that lead outside and
//! chains without an end are told, and what is held in memory is bounded.

mod layout;
mod menu;
mod records;
mod volume;

pub use layout::{Live, Part, find};
pub use volume::{Disc, Entry};

use std::io;

/// Why a disc cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// It is none.
    #[error("the file is no ISO 9660 disc: {0}. Name the ISO image itself")]
    None(&'static str),
    /// It makes no sense.
    #[error("the disc is damaged: {0}. Copy it again, and compare its checksum with its publisher's")]
    Damaged(String),
    /// Nothing on it starts.
    #[error(
        "the disc has no live system that is known, and nothing that firmware starts from a drive (no El Torito boot \
         record). Name its kernel and initrd: kernel=PATH initrd=PATH cmdline=TEXT"
    )]
    NotBootable,
    /// It could not be read.
    #[error("cannot read {what} of the disc: {source}. Copy it again, and compare its checksum with its publisher's")]
    Read {
        /// What was to be read.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
}
