//! pax extended header records: `length keyword=value\n` (POSIX.1-2008, pax, "pax Extended Header").

use super::{Xattrs, numbers};
use std::collections::BTreeMap;

/// What the records of one entry, or all global ones, may take together. Headers may follow one another, so a limit
/// for each is none. A file has at most 64 KiB of extended attributes on most file systems.
pub(super) const MOST_BYTES: usize = 8 << 20;
/// What a record takes beside its text, so that a million short ones are not free.
const OVERHEAD: usize = 64;

/// Records by keyword. A later one wins; an empty value takes the keyword away.
#[derive(Debug, Default, Clone)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What was taken in, against [`MOST_BYTES`].
    bytes: usize,
    /// GNU sparse 0.0 repeats two keywords, so the order counts.
    pub sparse: Vec<i64>,
}

impl Records {
    /// Adds a header's records. `Err` says what is wrong with it.
    pub fn add(&mut self, mut text: &[u8]) -> Result<(), &'static str> {
        while !text.is_empty() {
            // Some writers fill the block with NULs and count them in.
            if text.iter().all(|&b| b == 0) {
                break;
            }
            let space = text.iter().take(12).position(|&b| b == b' ').ok_or("a record without a length")?;
            let length = numbers::decimal(&text[..space]).and_then(|n| usize::try_from(n).ok());
            let length = length.filter(|&n| n > space + 1 && n <= text.len()).ok_or("a record of a wrong length")?;
            let (record, rest) = text.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or("a record without its newline")?;
            let equals = record.iter().position(|&b| b == b'=').ok_or("a record without '='")?;
            self.set(&record[..equals], &record[equals + 1..])?;
            text = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let sparse = matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
        self.bytes += if sparse { size_of::<i64>() } else { key.len() + value.len() + OVERHEAD };
        if self.bytes > MOST_BYTES {
            return Err("more than 8 MiB of pax records for one entry");
        }
        if sparse {
            self.sparse.push(numbers::decimal(value).ok_or("a sparse map that is no number")?);
            return Ok(());
        }
        if let Some(old) = self.values.insert(key.to_vec(), value.to_vec()) {
            self.bytes -= key.len() + old.len() + OVERHEAD;
        }
        Ok(())
    }

    /// This header's records over the global ones.
    pub fn over(mut self, global: &Self) -> Self {
        for (key, value) in &global.values {
            self.values.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// A number, or what is wrong with it.
    pub fn number(&self, key: &[u8]) -> Result<Option<i64>, &'static str> {
        self.get(key).map(|value| numbers::decimal(value).ok_or("a pax record that is no number")).transpose()
    }

    /// Extended attributes as star, GNU tar and libarchive write them.
    pub fn xattrs(&self) -> Result<Xattrs, &'static str> {
        let mut found = BTreeMap::new();
        for (key, value) in &self.values {
            if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                // libarchive writes both forms; this one only stands alone when SCHILY's was switched off.
                let value = base64(value).ok_or("a LIBARCHIVE.xattr record that is not base64")?;
                found.entry(percent_decoded(name)).or_insert(value);
            }
        }
        for (key, value) in &self.values {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                found.insert(name.to_vec(), value.clone());
            }
        }
        // GNU tar --selinux and --acls have keywords of their own.
        if let Some(label) = self.get(b"RHT.security.selinux") {
            let with_nul = [label, b"\0".as_slice()].concat();
            found.entry(b"security.selinux".to_vec()).or_insert(with_nul);
        }
        for (key, name) in [
            (b"SCHILY.acl.access".as_slice(), b"system.posix_acl_access".as_slice()),
            (b"SCHILY.acl.default", b"system.posix_acl_default"),
        ] {
            if let Some(acl) = self.get(key) {
                found.entry(name.to_vec()).or_insert(acl.to_vec());
            }
        }
        found.retain(|name, _| !name.is_empty());
        Ok(found.into_iter().collect())
    }
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let byte = (first == b'%')
            .then(|| after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()))
            .flatten();
        decoded.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    decoded
}

/// RFC 4648 §4, with or without padding.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.iter().copied().take_while(|&b| b != b'=').filter(|b| !b.is_ascii_whitespace()).collect();
    let mut decoded = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let count = group.len() * 6 / 8;
        decoded.extend_from_slice(&bits.to_be_bytes()[1..1 + count]);
    }
    Some(decoded)
}

/// One record; its length counts its own digits.
pub(super) fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_written() {
        let long = vec![b'x'; 9_990];
        let binary = b"\x01\0\0\x02\n7 a=b\n".as_slice();
        let mut text = Vec::new();
        record(&mut text, b"path", &long);
        record(&mut text, b"SCHILY.xattr.security.capability", binary);
        record(&mut text, b"a", b"");
        let mut records = Records::default();
        records.add(&text).unwrap();
        assert_eq!(records.get(b"path"), Some(long.as_slice()));
        assert_eq!(records.get(b"a"), None);
        assert_eq!(records.xattrs().unwrap(), [(b"security.capability".to_vec(), binary.to_vec())]);
    }

    #[test]
    fn a_record_at_a_digit_boundary_counts_itself() {
        for size in 80..120 {
            let mut text = Vec::new();
            record(&mut text, b"k", &vec![b'v'; size]);
            let written: usize = String::from_utf8_lossy(&text).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(written, text.len());
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [b"x".as_slice(), b"9 a=b\n", b"6 a=b ", b"5 ab\n\n", b"99999999999999 a=b\n", b"-6 a=b\n"] {
            assert!(Records::default().add(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn records_are_bounded_over_all_headers_of_an_entry() {
        let mut records = Records::default();
        let mut text = Vec::new();
        record(&mut text, b"comment", &vec![b'c'; 1 << 20]);
        for _ in 0..20 {
            records.add(&text).expect("one that replaces another takes no more");
        }
        let many = |at: u32| {
            let mut text = Vec::new();
            for count in 0..1000 {
                record(&mut text, format!("k{at}.{count}").as_bytes(), b"v");
            }
            text
        };
        let refused = (0..1000).find_map(|at| records.add(&many(at)).err().map(|what| (at, what)));
        let (at, what) = refused.unwrap();
        assert!((50..110).contains(&at) && what.contains("8 MiB"), "{at}: {what}");
    }

    #[test]
    fn other_writers_xattrs_are_read() {
        let mut text = Vec::new();
        record(&mut text, b"LIBARCHIVE.xattr.user.a%3Db", b"aGVsbG8");
        record(&mut text, b"RHT.security.selinux", b"system_u:object_r:bin_t:s0");
        let mut records = Records::default();
        records.add(&text).unwrap();
        let expected = [
            (b"security.selinux".to_vec(), b"system_u:object_r:bin_t:s0\0".to_vec()),
            (b"user.a=b".to_vec(), b"hello".to_vec()),
        ];
        assert_eq!(records.xattrs().unwrap(), expected);
    }
}
