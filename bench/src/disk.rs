//! How often a disk makes a write durable.

use anyhow::Result;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

const SPAN: u64 = 4 << 20;
const PAGE: usize = 4096;
const LONG: Duration = Duration::from_secs(1);

/// Writes of a page, each followed by fdatasync, in a file whose blocks are allocated already: syncs per second.
pub fn syncs_per_second(directory: &Path) -> Result<f64> {
    let path = directory.join("syncs");
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; SPAN as usize], 0)?;
    file.sync_all()?;
    let (started, mut count) = (Instant::now(), 0_u64);
    while started.elapsed() < LONG {
        file.write_all_at(&[count as u8; PAGE], count * PAGE as u64 % SPAN)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}
