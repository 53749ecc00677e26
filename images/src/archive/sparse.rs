//! Sparse files: where the bytes that an archive stores belong in the file.

use super::{BLOCK, header::Header, numbers, pax::Records};

/// Stored stretches as (offset in the file, length), in order, not overlapping.
pub(super) type Segments = Vec<(u64, u64)>;

/// More than any real file has: a stream must not make us hold a map of arbitrary size.
pub(super) const MOST_SEGMENTS: usize = 1 << 20;

/// The next map entries of GNU's old form, 24 bytes each; an empty entry ends the map.
pub(super) fn old_gnu(field: &[u8], segments: &mut Segments) -> Result<(), &'static str> {
    for entry in field.as_chunks::<24>().0 {
        if entry[12] == 0 && entry[0] == 0 {
            break;
        }
        let number = |field| numbers::parse(field).and_then(|n| u64::try_from(n).ok());
        let (Some(offset), Some(length)) = (number(&entry[..12]), number(&entry[12..])) else {
            return Err("a sparse map that is no number");
        };
        segments.push((offset, length));
    }
    if segments.len() > MOST_SEGMENTS { Err("a sparse map of more than a million entries") } else { Ok(()) }
}

/// Whether a header carries GNU's old form.
pub(super) fn is_old_gnu(header: &Header) -> bool {
    header.kind() == b'S'
}

/// The map of pax forms 0.0 and 0.1, which lies in the records; `None` where there is none.
pub(super) fn from_records(records: &Records) -> Result<Option<Segments>, &'static str> {
    let numbers: Vec<i64> = match records.get(b"GNU.sparse.map") {
        Some(map) if map.len() > MOST_SEGMENTS * 16 => return Err("a sparse map of more than a million entries"),
        Some(map) => {
            let parsed: Option<_> = map.split(|&b| b == b',').map(numbers::decimal).collect();
            parsed.ok_or("a sparse map that is no number")?
        }
        None if records.sparse.is_empty() => return Ok(None),
        None => records.sparse.clone(),
    };
    pairs(&numbers).map(Some)
}

/// Whether the map is form 1.0, at the start of the file's data.
pub(super) fn is_in_data(records: &Records) -> Result<bool, &'static str> {
    match (records.number(b"GNU.sparse.major")?, records.number(b"GNU.sparse.minor")?) {
        (Some(1), Some(0)) => Ok(true),
        (None | Some(0), _) => Ok(false),
        _ => Err("a sparse format newer than 1.0"),
    }
}

/// Form 1.0: decimal lines, the count first, filled up to whole blocks. `next` gives a block.
pub(super) fn from_data<E>(
    mut next: impl FnMut(&mut [u8; BLOCK]) -> Result<(), E>,
    refuse: impl Fn(&'static str) -> E,
) -> Result<Segments, E> {
    let mut numbers = Vec::new();
    let mut wanted = None;
    let mut line = Vec::new();
    while wanted.is_none_or(|count| numbers.len() < count) {
        let mut block = [0; BLOCK];
        next(&mut block)?;
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(refuse("a sparse map that is no number"));
                }
                continue;
            }
            let number = numbers::decimal(&line).ok_or_else(|| refuse("a sparse map that is no number"))?;
            line.clear();
            match wanted {
                None => {
                    let count = usize::try_from(number).ok().filter(|&n| n <= MOST_SEGMENTS);
                    wanted = Some(2 * count.ok_or_else(|| refuse("a sparse map of more than a million entries"))?);
                }
                Some(_) => numbers.push(number),
            }
            if wanted.is_some_and(|count| numbers.len() >= count) {
                break;
            }
        }
    }
    pairs(&numbers).map_err(refuse)
}

fn pairs(numbers: &[i64]) -> Result<Segments, &'static str> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    let pair = |&[offset, length]: &[i64; 2]| Some((u64::try_from(offset).ok()?, u64::try_from(length).ok()?));
    let segments: Option<Segments> = pairs.iter().map(pair).collect();
    segments.filter(|_| rest.is_empty()).ok_or("a sparse map with a negative or missing number")
}

/// The map checked against the file's size and the bytes that are stored; empty stretches dropped.
pub(super) fn checked(segments: Segments, size: u64, stored: u64) -> Result<Segments, &'static str> {
    let mut end = 0;
    let mut total = 0u64;
    for &(offset, length) in &segments {
        let stop = offset.checked_add(length).ok_or("a sparse map beyond any size")?;
        if offset < end || stop > size {
            return Err("a sparse map that overlaps itself or ends beyond the file");
        }
        end = stop;
        total += length;
    }
    if total != stored {
        return Err("a sparse map that does not match the bytes stored");
    }
    Ok(segments.into_iter().filter(|&(_, length)| length > 0).collect())
}
