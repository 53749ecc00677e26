//! Fuzz targets: one function each for everything that strangers on the wire, or a tired operator, can say.
//!
//! A target takes any bytes and panics when something is wrong. The fuzzer (`src/main.rs`) looks for such bytes; the
//! test below feeds it the kept corpus, so that what was found once stays found.

mod boot_url;
mod config;
mod dhcp;
mod report;
mod tftp;
mod world;

/// A target: its name, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("dhcp", dhcp::run),
    ("tftp", tftp::run),
    ("boot_url", boot_url::run),
    ("report", report::run),
    ("config", config::run),
];

/// The target of this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|target| target.0 == name).map(|target| target.1)
}

/// Cuts input into parts, each led by its length in two bytes, so that one input can be a conversation.
fn parts(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [high, low, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (part, after) = after.split_at(length);
        rest = after;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, run) in TARGETS {
            let mut inputs: Vec<_> =
                fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
            inputs.sort();
            assert!(!inputs.is_empty(), "{name} has no corpus");
            for input in inputs {
                println!("{}", input.display());
                run(&fs::read(&input).unwrap());
            }
        }
    }

    #[test]
    fn input_is_cut_into_parts() {
        let cut: Vec<&[u8]> = parts(&[0, 2, 7, 8, 0, 0, 0, 9, 1]).collect();
        assert_eq!(cut, [&[7, 8][..], &[], &[1]]);
        assert_eq!(parts(&[0]).count(), 0);
    }
}
