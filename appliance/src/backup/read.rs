//! A backup, read in one go: each part is given on as it comes, and nothing counts before the last one has vouched for all.

use super::{BackupError, Hashing};
use bennu_rules::backup::{End, FORMAT, Head, Part, PartName};
use std::io::{self, Read};
use tar::Archive;

/// Parts that are read into memory are at most this long.
pub(super) const MOST: u64 = 64 << 20;

/// What a backup turned out to be.
#[derive(Debug)]
pub struct Checked {
    /// What it says of itself.
    pub head: Head,
    /// How many parts it has.
    pub parts: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// Where the parts go.
pub(super) trait Taker {
    /// The first part.
    fn begin(&mut self, head: &Head) -> Result<(), BackupError>;
    /// Another; the reader's end is the part's end.
    fn part(&mut self, name: &PartName, content: &mut dyn Read) -> Result<(), BackupError>;
}

/// Nowhere.
struct Nobody;

impl Taker for Nobody {
    fn begin(&mut self, _: &Head) -> Result<(), BackupError> {
        Ok(())
    }

    fn part(&mut self, _: &PartName, _: &mut dyn Read) -> Result<(), BackupError> {
        Ok(())
    }
}

/// Reads a backup to its end, and says whether it is whole.
pub fn check(source: impl Read) -> Result<Checked, BackupError> {
    read(source, &mut Nobody)
}

/// Reads a backup and gives its parts on.
pub(super) fn read(source: impl Read, take: &mut impl Taker) -> Result<Checked, BackupError> {
    let mut archive = Archive::new(source);
    let mut head: Option<Head> = None;
    let mut parts: Vec<Part> = Vec::new();
    let mut entries = archive.entries().map_err(broken)?.raw(true);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| first(head.is_none(), error))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.header().size().map_err(|error| first(head.is_none(), error))?;
        let known = entry.header().entry_type().is_file().then(|| PartName::parse(&name)).flatten();
        let Some(known) = known else {
            return Err(BackupError::Foreign(format!("it holds '{name}', which no backup has")));
        };
        let mut content = Hashing::new(entry);
        match (&head, known) {
            (None, PartName::Head) => {
                let read: Head = json(&mut content, &name)?;
                if read.format > FORMAT {
                    return Err(BackupError::TooNew(read.format));
                }
                take.begin(&read)?;
                head = Some(read);
            }
            (None, _) => return Err(BackupError::Foreign(format!("it begins with '{name}'"))),
            (Some(_), PartName::Head) => return Err(BackupError::Damaged(name)),
            (Some(head), PartName::End) => {
                let end: End = json(&mut content, &name)?;
                compare(&parts, &end)?;
                if entries.next().is_some() {
                    return Err(BackupError::Damaged("what follows its last part".into()));
                }
                let bytes = parts.iter().map(|part| part.size).sum();
                return Ok(Checked { head: head.clone(), parts: parts.len(), bytes });
            }
            (Some(_), known) => take.part(&known, &mut content)?,
        }
        io::copy(&mut content, &mut io::sink()).map_err(broken)?;
        if content.size != size {
            return Err(BackupError::Cut);
        }
        parts.push(content.part(name));
    }
    Err(if head.is_some() { BackupError::Cut } else { BackupError::Foreign("it is empty".into()) })
}

/// Whether the last part lists what came, and in that order.
fn compare(parts: &[Part], end: &End) -> Result<(), BackupError> {
    match parts.iter().zip(&end.parts).find(|(came, listed)| came != listed) {
        Some((came, _)) => Err(BackupError::Damaged(came.name.clone())),
        None if parts.len() != end.parts.len() => Err(BackupError::Damaged("the list of its parts".into())),
        None => Ok(()),
    }
}

fn json<T: serde::de::DeserializeOwned>(content: &mut impl Read, name: &str) -> Result<T, BackupError> {
    let mut text = Vec::new();
    content.take(MOST).read_to_end(&mut text).map_err(broken)?;
    serde_json::from_slice(&text).map_err(|error| match error.is_eof() {
        true => BackupError::Cut,
        false => BackupError::Damaged(name.to_owned()),
    })
}

/// What is no tar from its first byte on is something else; a tar that stops being one was damaged.
fn first(is_first: bool, error: io::Error) -> BackupError {
    match is_first {
        true if error.kind() != io::ErrorKind::ConnectionAborted => BackupError::Foreign(error.to_string()),
        _ => broken(error),
    }
}

pub(super) fn broken(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Cut,
        io::ErrorKind::ConnectionAborted => BackupError::Gone(error),
        // The tar's own framing.
        _ => BackupError::Damaged("its framing".into()),
    }
}
