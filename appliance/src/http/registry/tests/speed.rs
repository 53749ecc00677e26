//! `cargo test --release -p bennu --lib -- speed_of_a_push --ignored --nocapture`

use super::*;
use axum::body::Bytes;
use std::{process::Command, time::Instant};

const BYTES: usize = 359 << 20;
const CHUNK: usize = 256 << 10;
const ROUNDS: usize = 5;

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

/// A blob of the size of a large layer through the registry's socket, in turn with `dd` and a sync onto the same disk.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, with optimisation, of the disk"]
async fn speed_of_a_push() {
    let lab = Lab::new();
    let mut content = vec![0; BYTES];
    let directory = lab.bench.directory.path();
    let source = directory.join("source");
    let (mut pushes, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rand::fill(content.as_mut_slice());
        std::fs::write(&source, &content).unwrap();
        Command::new("sync").status().unwrap();
        let to = format!("of={}", directory.join("copy").display());
        let from = format!("if={}", source.display());
        let began = Instant::now();
        assert!(
            Command::new("dd")
                .args([from.as_str(), &to, "bs=1M", "conv=fsync", "status=none"])
                .status()
                .unwrap()
                .success()
        );
        copies.push(began.elapsed());
        std::fs::remove_file(directory.join("copy")).unwrap();
        std::fs::remove_file(&source).unwrap();
        Command::new("sync").status().unwrap();
        let digest = digest(&content);
        let bytes = Bytes::from(std::mem::take(&mut content));
        let chunks =
            (0..BYTES).step_by(CHUNK).map(|at| Ok::<_, std::io::Error>(bytes.slice(at..BYTES.min(at + CHUNK))));
        let body = Body::from_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()));
        let path = format!("/v2/web/blobs/uploads/?digest={digest}");
        let began = Instant::now();
        let got = lab.ask(Method::POST, &path, &[], body).await;
        pushes.push(began.elapsed());
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.text);
        std::fs::remove_file(lab.bench.appliance.store.blob_path(&digest.parse().unwrap())).unwrap();
        content = vec![0; BYTES];
    }
    println!("359 MiB, dd and a sync: {copies:.2?}; a push: {pushes:.2?}");
    let (push, copy) = (median(pushes), median(copies));
    println!("medians: dd and a sync {copy:.2?}, a push {push:.2?}");
    assert!(push.as_secs_f64() < copy.as_secs_f64() * 1.25, "a push takes {push:?} where dd takes {copy:?}");
}
