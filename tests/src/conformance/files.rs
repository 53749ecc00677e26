//! Files that the loaders' directory holds for the tests.

use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

/// 100,003 bytes: no multiple of any block.
pub const SOME: &str = "some";
/// Eight blocks of 512 bytes.
pub const EXACT: &str = "exact";
/// LF, CR and both.
pub const TEXT: &str = "text";
/// 100 MB.
pub const BIG: &str = "big";
/// Of [`BIG`]; not a multiple of 512.
pub const BIG_LENGTH: u64 = 100_000_300;

/// A small file's bytes.
pub fn content(name: &str) -> Vec<u8> {
    let pattern = |length: u32| (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    match name {
        SOME => pattern(100_003),
        EXACT => pattern(8 * 512),
        TEXT => b"a\nb\rc\r\nd".to_vec(),
        _ => Vec::new(),
    }
}

/// A block of [`BIG`], counted from 0: its number again and again.
pub fn big_block(number: u64) -> Vec<u8> {
    let length = BIG_LENGTH.saturating_sub(number * 512).min(512);
    number.to_be_bytes().into_iter().cycle().take(length as usize).collect()
}

/// Writes all of them.
pub fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).context("cannot make the loaders' directory")?;
    for name in [SOME, EXACT, TEXT] {
        fs::write(directory.join(name), content(name))?;
    }
    let mut big = BufWriter::with_capacity(1 << 20, File::create(directory.join(BIG))?);
    for number in 0..=BIG_LENGTH / 512 {
        big.write_all(&big_block(number))?;
    }
    big.flush().context("cannot write a file of 100 MB")
}
