//! Everything that a ledger holds as rows, and a ledger made of such rows: for backups. Rows are copied as they are, and read
//! by nobody, so that what a record says, and the hashes of the audit log over it, stay what they are.

use super::{
    Ledger, check_format,
    records::Stored,
    redb_file::{self, RedbFile},
    storage::{Fault, Shot, Span, Storage},
};
use std::{io, ops::ControlFlow, path::Path, sync::Arc};

/// Rows that are shown at once, if one alone is not longer.
const CHUNK: usize = 2 << 20;
/// Lengths of key and value, before them.
const HEAD: usize = 8;

/// The ledger as it was at one moment. Writers do not wait for it.
pub struct Picture(Arc<Shot>);

/// Why a picture could not be shown whole.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] Fault),
    /// Whoever took the rows did not.
    #[error(transparent)]
    Taker(#[from] io::Error),
}

impl Ledger {
    /// What is stored now: nothing that was acknowledged before is missing.
    pub fn picture(&self) -> Result<Picture, Fault> {
        self.shared.storage.snapshot().map(Picture)
    }
}

impl Picture {
    /// Looks at it.
    pub fn stored<T>(&self, look: impl FnOnce(&Stored<'_>) -> T) -> Result<T, Fault> {
        let stored = Stored::new(&*self.0);
        let seen = look(&stored);
        stored.check().map(|()| seen)
    }

    /// Gives `take` every row, some of one table at a time, with the table's name.
    pub fn dump(&self, mut take: impl FnMut(&str, &[u8]) -> io::Result<()>) -> Result<(), DumpError> {
        let mut rows = Vec::with_capacity(CHUNK + CHUNK / 4);
        for (table, name) in redb_file::tables() {
            let mut taken = Ok(());
            self.0.walk(table, Span::default(), &mut |key, value| {
                push(&mut rows, key, value);
                if rows.len() < CHUNK {
                    return ControlFlow::Continue(());
                }
                taken = take(name, &rows);
                rows.clear();
                if taken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            taken?;
            if !rows.is_empty() {
                take(name, &rows)?;
                rows.clear();
            }
        }
        Ok(())
    }
}

fn push(rows: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // redb's own limit on either is 3 GiB.
    for part in [key, value] {
        rows.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    rows.extend_from_slice(key);
    rows.extend_from_slice(value);
}

/// The next row, and what is behind it.
fn next(rows: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let length = |at: usize| Some(u32::from_be_bytes(rows.get(at..at + 4)?.try_into().ok()?) as usize);
    let (key, value) = (length(0)?, length(4)?);
    let (head, rest) = (HEAD.checked_add(key)?, HEAD.checked_add(key)?.checked_add(value)?);
    Some((rows.get(HEAD..head)?, rows.get(head..rest)?, rows.get(rest..)?))
}

/// Makes a ledger of rows.
pub struct Loader(RedbFile);

impl Loader {
    /// In a file that is not there yet.
    pub fn new(path: &Path) -> Result<Self, Fault> {
        RedbFile::open(path).map(Self)
    }

    /// Takes rows of one table; the error says what is wrong with them.
    pub fn load(&self, name: &str, rows: &[u8]) -> Result<(), String> {
        let unknown = || format!("there is no table '{name}': a newer bennu wrote it");
        let (table, _) = redb_file::tables().find(|(_, known)| *known == name).ok_or_else(unknown)?;
        let mut broken = false;
        let written = self.0.write(&mut |batch| {
            let mut rest = rows;
            while !rest.is_empty() {
                let Some((key, value, behind)) = next(rest) else {
                    broken = true;
                    return Ok(false);
                };
                batch.put(table, key, value)?;
                rest = behind;
            }
            Ok(true)
        });
        written.map_err(|fault| fault.to_string())?;
        if broken { Err(format!("rows of table '{name}' are cut")) } else { Ok(()) }
    }

    /// Looks whether this Bennu can read it.
    pub fn finish(self) -> Result<(), Fault> {
        check_format(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written_and_cut_ones_are_not() {
        let mut rows = Vec::new();
        push(&mut rows, b"key", b"value");
        push(&mut rows, b"", b"");
        let (key, value, rest) = next(&rows).unwrap();
        assert_eq!((key, value), (&b"key"[..], &b"value"[..]));
        let (key, value, rest) = next(rest).unwrap();
        assert_eq!((key.len(), value.len(), rest.len()), (0, 0, 0));
        for cut in 1..16 {
            assert!(next(&rows[..cut]).is_none(), "{cut}");
        }
        assert!(next(&[0xff; 8]).is_none());
    }
}
