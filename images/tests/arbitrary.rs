//! Any bytes at all: the reader may refuse them, and never panics, hangs, or holds more than its bounds.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::{
    archive::{Reader, decompress::sniff},
    import::ImportStep,
    import::Meter,
    tree,
};
use common::*;
use proptest::prelude::*;

/// Reads all entries and all their data; gives how many there were.
fn read_all(bytes: &[u8]) -> usize {
    let Ok(plain) = sniff(bytes) else { return 0 };
    let mut reader = Reader::new(plain);
    let mut buffer = [0; 4096];
    let mut count = 0;
    while let Ok(Some(_)) = reader.next_entry() {
        count += 1;
        while let Ok(1..) = reader.read_data(&mut buffer) {}
    }
    count
}

fn index(bytes: &[u8]) -> bool {
    let (_keep, store) = store();
    let mut meter = Meter::new(&(), ImportStep::Read, None);
    tree::read(bytes, &store, &mut meter).is_ok()
}

/// A small archive with every kind of entry and extension in it.
fn sample() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    write(path.join("a/file"), vec![b'x'; 700]);
    write(path.join("n".repeat(150)), b"long");
    std::fs::hard_link(path.join("a/file"), path.join("hard")).unwrap();
    std::os::unix::fs::symlink("a", path.join("link")).unwrap();
    xattr::set(path.join("a/file"), "user.x", b"value").unwrap();
    let sparse = std::fs::File::create(path.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 1 << 20).unwrap();
    let mut tar = pack(path);
    tar.truncate(tar.len() - 1024);
    let gnu = run("tar", &["--format=gnu", "-S", "-C", path.to_str().unwrap(), "-cf", "-", "."]);
    [tar, gnu].concat()
}

/// Makes a changed header's checksum right again, so that the change gets past it.
fn repair(tar: &mut [u8]) {
    for block in tar.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

#[test]
fn the_sample_is_whole() {
    let sample = sample();
    assert!(read_all(&sample) > 10);
    assert!(index(&sample));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        read_all(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_magic_number(
        magic in prop_oneof![Just(&b"\x1f\x8b\x08\0"[..]), Just(&b"\xfd7zXZ\0"[..]), Just(&b"\x28\xb5\x2f\xfd"[..]), Just(&b"BZh"[..])],
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        let stream = [magic, &bytes].concat();
        read_all(&stream);
        // Cut inside what is looked at to know the compression.
        read_all(&stream[..stream.len().min(bytes.len() % 12)]);
    }

    #[test]
    fn changed_archives(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), fix in any::<bool>()) {
        thread_local!(static SAMPLE: Vec<u8> = sample());
        let mut tar = SAMPLE.with(Clone::clone);
        for (at, byte) in &changes {
            let at = at.index(tar.len());
            tar[at] = *byte;
        }
        if fix {
            repair(&mut tar);
        }
        read_all(&tar);
        index(&tar);
    }

    #[test]
    fn changed_headers(changes in proptest::collection::vec((0usize..40, 0usize..512, prop_oneof![any::<u8>(), Just(b'0'), Just(b'7'), Just(0xff), Just(0x80)]), 1..6)) {
        thread_local!(static SAMPLE: Vec<u8> = sample());
        let mut tar = SAMPLE.with(Clone::clone);
        let headers: Vec<usize> = (0..tar.len()).step_by(512).filter(|&at| &tar[at + 257..at + 262] == b"ustar").collect();
        for (header, at, byte) in &changes {
            tar[headers[header % headers.len()] + at] = *byte;
        }
        repair(&mut tar);
        read_all(&tar);
        index(&tar);
    }
}
