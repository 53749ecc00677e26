//! tar streams: POSIX.1-2008 pax interchange format with the GNU extensions that are met in the field.
//!
//! The reader is our own because an importer needs what general readers do not promise: a cut stream is
//! told from a complete one, every length from the stream is bounded, and all four ways to store sparse
//! files are understood. The writer makes the one form that both our importer and `mksquashfs -tar` read.

pub mod decompress;
mod header;
mod numbers;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Entry, EntryKind, Reader, TarError};
pub use writer::{Contents, Metadata, RecordKind, Writer};

/// tar counts in blocks of this size.
pub(crate) const BLOCK: usize = 512;

/// Extended attributes: sorted by name, each name once.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A path for people: not UTF-8 or control characters are made visible.
pub fn show(path: &[u8]) -> String {
    let mut shown = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if shown.len() > 300 {
        let cut = (0..=300).rev().find(|&at| shown.is_char_boundary(at)).unwrap_or(0);
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}
