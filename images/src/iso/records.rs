//! Directory records (ECMA-119 §9.1), and what Rock Ridge puts at their ends (SUSP and RRIP 1.12).

use super::IsoError;

/// Where a volume's names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Rock Ridge; so many bytes at the start of each record's end are somebody else's.
    RockRidge(usize),
    /// Joliet: two bytes a character.
    Joliet,
    /// The eight and three capitals of the standard itself.
    Plain,
}

/// A record of a directory.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// First sector.
    pub start: u32,
    /// Bytes.
    pub length: u32,
    flags: u8,
    /// As it stands there.
    pub name: &'a [u8],
    /// What is behind the name.
    pub end: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, and how long it is. `None`: there is no more in this sector.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, IsoError> {
        const FIXED: usize = 33;
        let damaged = |what: &str| IsoError::Damaged(format!("a directory's record {what}"));
        let length = usize::from(*bytes.first().unwrap_or(&0));
        if length == 0 {
            return Ok(None);
        }
        let record = bytes.get(..length).filter(|record| record.len() > FIXED);
        let record = record.ok_or_else(|| damaged("leaves its sector"))?;
        let name_length = usize::from(record[32]);
        let name = record.get(FIXED..FIXED + name_length).ok_or_else(|| damaged("is shorter than its name"))?;
        if record[26] != 0 || record[27] != 0 {
            return Err(damaged("tells of interleaved files, which no disc has"));
        }
        // Names are padded to an odd length, so that what follows lies on an even place.
        let end = record.get(FIXED + name_length + usize::from(name_length.is_multiple_of(2))..).unwrap_or_default();
        Ok(Some((Self { start: u32_at(record, 2), length: u32_at(record, 10), flags: record[25], name, end }, length)))
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Whether the file goes on in the next record.
    pub fn goes_on(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// Whether it is the directory itself, or the one above.
    pub fn is_dot(&self) -> bool {
        matches!(self.name, [0] | [1])
    }
}

/// What Rock Ridge says of a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RockRidge {
    /// Its name.
    pub name: Vec<u8>,
    /// Where it leads, if it is a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Where the directory is that lies too deep for the standard, and stands here as a file.
    pub child: Option<u32>,
    /// Whether it is such a directory at the place where the standard has it.
    pub is_moved: bool,
    /// Whether a component of the link goes on in the next entry.
    splits: bool,
}

/// Where more entries are: sector, offset and length.
pub type Continuation = (u32, usize, usize);

impl RockRidge {
    /// Reads one area of entries; answers where they go on.
    pub fn read(&mut self, mut area: &[u8]) -> Option<Continuation> {
        let mut next = None;
        while let [a, b, length, _, ..] = *area {
            let length = usize::from(length);
            let Some(entry) = area.get(..length).filter(|entry| entry.len() >= 4) else { break };
            area = &area[length..];
            match (&[a, b], entry.len()) {
                (b"NM", 5..) if entry[4] & 6 == 0 => self.name.extend_from_slice(&entry[5..]),
                (b"SL", 5..) => self.link(&entry[5..]),
                (b"CL", 12..) => self.child = Some(u32_at(entry, 4)),
                (b"RE", _) => self.is_moved = true,
                (b"CE", 28..) => {
                    next = Some((u32_at(entry, 4), u32_at(entry, 12) as usize, u32_at(entry, 20) as usize));
                }
                (b"ST", _) => break,
                _ => {}
            }
        }
        next
    }

    fn link(&mut self, mut components: &[u8]) {
        let target = self.target.get_or_insert_with(Vec::new);
        while let [flags, length, ..] = *components {
            let Some(text) = components.get(2..2 + usize::from(length)) else { break };
            components = &components[2 + usize::from(length)..];
            if !target.is_empty() && !target.ends_with(b"/") && !self.splits {
                target.push(b'/');
            }
            match flags & 0xe {
                2 => target.push(b'.'),
                4 => target.extend_from_slice(b".."),
                8 => target.push(b'/'),
                _ => target.extend_from_slice(text),
            }
            self.splits = flags & 1 != 0;
        }
    }
}

/// The skip of Rock Ridge's own first entry (SP), which only the root's first record has.
pub fn rock_ridge_skip(area: &[u8]) -> Option<usize> {
    // CD-ROM XA puts fourteen bytes before it.
    [0, 14].into_iter().find_map(|at| match area.get(at..at + 7)? {
        [b'S', b'P', 7, 1, 0xbe, 0xef, skip] => Some(usize::from(*skip)),
        _ => None,
    })
}

/// A name as Joliet and the standard write it, without its version.
pub fn name_of(raw: &[u8], names: Names) -> String {
    let text = match names {
        Names::Joliet => {
            let units: Vec<u16> = raw.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(raw).to_lowercase(),
    };
    let text = text.rsplit_once(';').map_or(text.as_str(), |(name, _)| name);
    text.trim_end_matches('.').to_owned()
}

/// Numbers are there twice; the first is little-endian.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_come_in_pieces() {
        let mut found = RockRidge::default();
        let mut area = b"NM\x08\x01\x01abcNM\x07\x01\x00de".to_vec();
        area.extend(b"SL\x10\x01\x01\x08\x00\x00\x03usr\x01\x02liSL\x08\x01\x00\x00\x01b");
        area.extend(b"CE\x1c\x01\x05\0\0\0\0\0\0\x05\x07\0\0\0\0\0\0\x07\x09\0\0\0\0\0\0\x09");
        assert_eq!(found.read(&area), Some((5, 7, 9)));
        assert_eq!(found.name, b"abcde");
        assert_eq!(found.target.as_deref(), Some(&b"/usr/lib"[..]));
        assert_eq!(rock_ridge_skip(b"SP\x07\x01\xbe\xef\x03"), Some(3));
    }

    #[test]
    fn versions_are_no_part_of_a_name() {
        assert_eq!(name_of(b"VMLINUZ.;1", Names::Plain), "vmlinuz");
        assert_eq!(name_of(b"\0a\0.\0b\0;\x001", Names::Joliet), "a.b");
    }
}
