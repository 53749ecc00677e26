//! The command line.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Unpacked packages.
    pub packages: PathBuf,
    /// What unpacking wrote down of them: `packages` and `files`.
    pub lists: PathBuf,
    /// The crates of our programs, as `cargo tree` prints them.
    pub crates: PathBuf,
    /// The appliance's program.
    pub bennu: PathBuf,
    /// The `/init`.
    pub init: PathBuf,
    /// The time that every file and volume has, in seconds since 1970.
    pub epoch: u64,
    /// How hard the root is compressed, from 1 to 22.
    pub level: u32,
    /// The version in names and texts.
    pub version: String,
    /// The public key whose signature on a later disc is trusted; without it none is.
    pub key: Option<PathBuf>,
    /// Where the ISO goes.
    pub out: PathBuf,
}

const USAGE: &str = "usage: iso --packages DIR --lists DIR --crates FILE --bennu FILE --init FILE --epoch SECONDS \
                     [--level 1..22] [--version TEXT] [--key FILE] OUT.iso";
/// Slow to make, and as quick to read as any other.
const LEVEL: u32 = 19;

impl Options {
    /// Reads them.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut packages, mut bennu, mut init, mut epoch, mut out) = (None, None, None, None, None);
        let (mut lists, mut crates, mut key) = (None, None, None);
        let (mut level, mut version) = (LEVEL, env!("CARGO_PKG_VERSION").to_owned());
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| anyhow::anyhow!("{word} needs a value; {USAGE}"));
            match word.as_str() {
                "--packages" => packages = Some(PathBuf::from(value()?)),
                "--lists" => lists = Some(PathBuf::from(value()?)),
                "--crates" => crates = Some(PathBuf::from(value()?)),
                "--bennu" => bennu = Some(PathBuf::from(value()?)),
                "--init" => init = Some(PathBuf::from(value()?)),
                "--epoch" => epoch = Some(value()?.parse()?),
                "--level" => level = value()?.parse().ok().filter(|level| (1..=22).contains(level)).context(USAGE)?,
                "--version" => version = value()?,
                "--key" => key = Some(PathBuf::from(value()?)),
                other if other.starts_with('-') || out.is_some() => bail!("{other} is not understood; {USAGE}"),
                file => out = Some(PathBuf::from(file)),
            }
        }
        let (Some(packages), Some(lists), Some(crates)) = (packages, lists, crates) else { bail!("{USAGE}") };
        match (bennu, init, epoch, out) {
            (Some(bennu), Some(init), Some(epoch), Some(out)) => {
                Ok(Self { packages, lists, crates, bennu, init, epoch, level, version, key, out })
            }
            _ => bail!("{USAGE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_part_is_needed_and_nothing_else_is_taken() {
        let whole = parse("--packages p --lists l --crates c --bennu b --init i --epoch 7 out.iso").unwrap();
        assert_eq!((whole.epoch, whole.level, whole.out), (7, LEVEL, PathBuf::from("out.iso")));
        for bad in [
            "",
            "out.iso",
            "--packages",
            "--packages p --lists l --crates c --bennu b --init i --epoch x out.iso",
            "--what",
            "a b",
            "--level 0 a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
