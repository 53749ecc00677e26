//! A support bundle: what a colleague needs to help, as one file (tar in zstd), and nothing that opens anything.
//!
//! Its parts are answers of the API, which tells no secret, and what the kernel and the logs say. All of it passes
//! [`bennu_rules::support`], since people write secrets where none belong. The last part lists the others and what is missing,
//! so that what has none was cut.

mod gather;
mod host;
mod memory;

pub use gather::gather;
pub use memory::Memory;

use bennu_rules::{Timestamp, support::redacted_text};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use tokio::sync::mpsc::Receiver;

/// The last part.
pub const CONTENTS: &str = "contents.json";
/// Quick, and a tenth of the size.
const LEVEL: i32 = 3;
/// A reader takes no greater part into memory.
const MOST: u64 = 64 << 20;

/// What is on its way into a bundle.
#[derive(Debug)]
pub enum Part {
    /// A file.
    File {
        /// Its name.
        name: String,
        /// What is in it, free of secrets.
        content: Vec<u8>,
    },
    /// One that there is not.
    Missing(Missing),
}

/// A part that there is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What it would be called.
    pub name: String,
    /// Why not.
    pub why: String,
}

impl Part {
    fn missing(name: impl Into<String>, why: impl ToString) -> Self {
        Self::Missing(Missing { name: name.into(), why: redacted_text(&why.to_string()).trim().to_owned() })
    }

    /// Lines of text, without secrets.
    fn text(name: impl Into<String>, text: &str) -> Self {
        Self::File { name: name.into(), content: redacted_text(text).into_bytes() }
    }

    /// A document, without secrets.
    fn document(name: impl Into<String>, mut document: serde_json::Value) -> Self {
        bennu_rules::support::redact(&mut document);
        let name = name.into();
        match serde_json::to_vec_pretty(&document) {
            Ok(content) => Self::File { name, content },
            Err(error) => Self::missing(name, error),
        }
    }
}

/// What a bundle says of itself at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contents {
    /// When it was made.
    pub at: Timestamp,
    /// On which host.
    pub host: String,
    /// The Bennu that wrote it.
    pub version: String,
    /// Its other parts.
    pub parts: Vec<String>,
    /// What it lacks.
    pub missing: Vec<Missing>,
}

/// Writes parts as they come, with one of them in memory.
pub fn write(mut parts: Receiver<Part>, at: Timestamp, out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(out, LEVEL)?);
    let mut contents = Contents {
        at,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        parts: Vec::new(),
        missing: Vec::new(),
    };
    while let Some(part) = parts.blocking_recv() {
        match part {
            Part::Missing(missing) => contents.missing.push(missing),
            Part::File { name, content } => {
                add(&mut tar, &name, &content, at)?;
                contents.parts.push(name);
            }
        }
    }
    add(&mut tar, CONTENTS, &serde_json::to_vec_pretty(&contents)?, at)?;
    tar.into_inner()?.finish()?.flush()
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8], at: Timestamp) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(at.0 / 1000);
    header.set_cksum();
    tar.append(&header, content)
}

/// Reads a bundle to its end; `None`: it was cut, or is something else.
pub fn check(bundle: impl Read) -> Option<Contents> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(bundle).ok()?);
    let mut last = (String::new(), Vec::new());
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let name = entry.path().ok()?.to_string_lossy().into_owned();
        last = (name, Vec::new());
        match last.0 == CONTENTS {
            true => drop(entry.take(MOST).read_to_end(&mut last.1).ok()?),
            false => drop(io::copy(&mut entry, &mut io::sink()).ok()?),
        }
    }
    serde_json::from_slice(&last.1).ok()
}
