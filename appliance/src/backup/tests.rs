//! An appliance's state leaves as a file and comes back in another directory, and nothing but a whole file changes anything.

use super::*;
use crate::{http::api::tests::Bench, ledger::Ledger};
use bennu_rules::{Records, Timestamp, backup::Reason, settings::Settings};
use http::Method;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

const KEY: &str = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";
const NOW: Timestamp = Timestamp(1_800_000_000_000);

async fn appliance() -> Bench {
    let bench = Bench::new();
    fs::write(bench.directory.path().join("secrets.key"), KEY).unwrap();
    bench.import("web:v1", 1).await;
    let machine = "/v1/machines/02:00:00:00:00:01";
    assert!(
        bench.write(Method::PUT, &format!("{machine}/assignment"), r#"{"image":"web:v1"}"#).await.status.is_success()
    );
    let token = bench.write(Method::POST, "/v1/tokens", r#"{"name":"ci","scopes":["read"]}"#).await;
    assert!(token.status.is_success(), "{}", token.text);
    bench
}

fn written(bench: &Bench, images: bool) -> Vec<u8> {
    let mut file = Vec::new();
    write(&bench.appliance, images, Reason::Asked, &mut file).unwrap();
    file
}

/// Every row of a ledger.
fn rows(ledger: &Ledger) -> BTreeMap<String, Vec<u8>> {
    let mut rows: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let take = |table: &str, some: &[u8]| {
        rows.entry(table.to_owned()).or_default().extend_from_slice(some);
        Ok(())
    };
    ledger.picture().unwrap().dump(take).unwrap();
    rows
}

fn opened(state: &Path) -> Ledger {
    Ledger::open(state, Arc::new(Settings::default())).unwrap()
}

/// Everything in a directory, by path.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn what_is_restored_is_what_was_there() {
    let bench = appliance().await;
    let file = written(&bench, true);
    let head = check(&file[..]).unwrap().head;
    assert!(head.images && !head.blobs.is_empty());
    let fresh = tempfile::tempdir().unwrap();
    let state = fresh.path().join("state");
    place(&file[..], &state, false, NOW).unwrap();
    let ledger = opened(&state);
    assert_eq!(rows(&ledger), rows(&bench.appliance.ledger));
    assert!(ledger.verify_audit(None).unwrap().intact);
    assert_eq!(fs::read_to_string(state.join("secrets.key")).unwrap(), KEY);
    let store = bennu_images::store::Store::open(state.join("images")).unwrap();
    for blob in &head.blobs {
        assert_eq!(store.blob_size(&blob.digest).unwrap(), blob.size);
    }
    assert!(!state.join("restore").exists());
    assert!(note(&state, &ledger).await.unwrap());
    let noted = ledger.stored(|records| records.backup()).unwrap();
    assert!(matches!(noted, Some(bennu_rules::backup::Noted::Restored { of, .. }) if of == head.at), "{noted:?}");
    assert!(ledger.verify_audit(None).unwrap().intact);
    assert!(!note(&state, &ledger).await.unwrap(), "it is noted once");
}

#[tokio::test]
async fn without_images_the_file_is_small_and_those_that_are_there_stay() {
    let bench = appliance().await;
    let (whole, small) = (written(&bench, true), written(&bench, false));
    assert!(small.len() < whole.len());
    let other = tempfile::tempdir().unwrap();
    let blob = other.path().join("images/blobs/sha256/kept");
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, "").unwrap();
    place(&small[..], other.path(), false, NOW).unwrap();
    assert!(blob.exists());
    assert_eq!(rows(&opened(other.path())), rows(&bench.appliance.ledger));
}

#[tokio::test]
async fn a_file_that_was_cut_or_changed_is_refused_and_changes_nothing() {
    let bench = appliance().await;
    let file = written(&bench, true);
    let other = tempfile::tempdir().unwrap();
    drop(opened(other.path()));
    let before = files(other.path());
    let refused = |bytes: &[u8], what: &str| {
        let error = place(bytes, other.path(), true, NOW).map(drop).expect_err(what).to_string();
        assert_eq!(files(other.path()), before, "{what}: {error}");
        error
    };
    // The end of a tar is a kilobyte of zeros, of which nothing depends.
    let end = file.len() - 1024;
    for cut in (0..end).step_by(end / 37).chain([511, 512, 513, end - 512, end - 1]) {
        let error = refused(&file[..cut], &format!("cut at {cut}"));
        assert!(cut < 1024 || error.contains("cut") || error.contains("damaged"), "{cut}: {error}");
    }
    for flipped in (0..end).step_by(end / 61) {
        let mut bytes = file.clone();
        bytes[flipped] ^= 0x20;
        // A byte that nothing reads is padding: then the file is as good as it was.
        if check(&bytes[..]).is_err() {
            refused(&bytes, &format!("flipped at {flipped}"));
        }
    }
    assert!(refused(b"", "nothing").contains("no backup"));
    assert!(refused(&[b'x'; 4096], "something else").contains("no backup"));
    let error = place(&file[..], other.path(), false, NOW).unwrap_err();
    assert!(matches!(error, BackupError::InPlace(_)) && files(other.path()) == before, "{error}");
}

#[tokio::test]
async fn what_was_there_is_put_aside_and_a_power_cut_in_between_does_no_harm() {
    let bench = appliance().await;
    let file = written(&bench, true);
    let names = ["images", "tls", "secrets.key", "ledger.redb"];
    // The power goes after so many renames of those that put it in place.
    for steps in 0..=7 {
        let other = tempfile::tempdir().unwrap();
        let state = other.path();
        drop(opened(state));
        let old_ledger = fs::read(state.join("ledger.redb")).unwrap();
        fs::create_dir_all(state.join("images")).unwrap();
        fs::create_dir_all(state.join("tls")).unwrap();
        fs::write(state.join("secrets.key"), "old").unwrap();
        unpack(&file[..], state, true, NOW).unwrap();
        let old = state.join("replaced-20270115T080000Z");
        fs::create_dir_all(&old).unwrap();
        let moves = names.iter().flat_map(|name| {
            let new = state.join("restore/new").join(name);
            [(state.join(name), old.join(name)), (new, state.join(name))]
        });
        for (from, to) in
            moves.filter(|(from, _)| from.exists() || !from.starts_with(state.join("restore"))).take(steps)
        {
            fs::rename(from, to).unwrap();
        }
        assert!(finish(state).unwrap().is_some());
        assert_eq!(fs::read_to_string(state.join("secrets.key")).unwrap(), KEY, "after {steps}");
        assert_eq!(fs::read_to_string(old.join("secrets.key")).unwrap(), "old", "after {steps}");
        assert_eq!(fs::read(old.join("ledger.redb")).unwrap(), old_ledger, "after {steps}");
        assert!(old.join("tls").exists() && !state.join("tls").exists(), "it had no certificate, after {steps}");
        assert_eq!(rows(&opened(state)), rows(&bench.appliance.ledger), "after {steps}");
        assert!(!state.join("restore").exists() && finish(state).unwrap().is_none());
    }
}

#[tokio::test]
async fn what_was_not_unpacked_to_its_end_is_removed_and_a_ledger_in_use_is_left_alone() {
    let bench = appliance().await;
    let file = written(&bench, false);
    let other = tempfile::tempdir().unwrap();
    fs::create_dir_all(other.path().join("restore/new/images")).unwrap();
    assert!(finish(other.path()).unwrap().is_none());
    assert!(!other.path().join("restore").exists());
    let held = opened(other.path());
    let error = place(&file[..], other.path(), true, NOW).unwrap_err();
    assert!(error.to_string().contains("another bennu"), "{error}");
    drop(held);
}

#[tokio::test]
async fn the_last_ones_are_kept_beside_the_ledger() {
    let bench = appliance().await;
    let state = bench.directory.path();
    assert!(last(state).is_none());
    if !make(&bench.appliance, Reason::Daily).unwrap() {
        return; // This disk is short of room.
    }
    let kept = last(state).unwrap();
    assert_eq!(kept.reason, Reason::Daily);
    assert!(check(fs::File::open(&kept.file).unwrap()).is_ok());
    for n in 0..9 {
        fs::copy(&kept.file, state.join(format!("backups/ledger-2001010{n}T000000Z.tar"))).unwrap();
    }
    make(&bench.appliance, Reason::Upgrade).unwrap();
    assert_eq!(super::kept(state).len(), bennu_rules::backup::KEPT);
    let listed = bench.get("/v1/backups").await.json();
    assert!(listed["items"].as_array().unwrap().len() >= 2, "{listed}");
}

#[tokio::test]
async fn an_upgrade_that_succeeded_keeps_the_way_back() {
    let running = env!("CARGO_PKG_VERSION");
    for (version, left) in [(running, 1), ("0.0.0", 2)] {
        let bench = appliance().await;
        let state = bench.directory.path();
        let mut head = check(&written(&bench, false)[..]).unwrap().head;
        (head.version, head.reason) = (version.into(), Reason::Upgrade);
        let text = serde_json::to_vec(&head).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        fs::create_dir(state.join("backups")).unwrap();
        let earlier = fs::File::create(state.join("backups/ledger-20010101T000000Z.tar")).unwrap();
        let mut tar = tar::Builder::new(earlier);
        tar.append_data(&mut header, "bennu-backup.json", &text[..]).unwrap();
        tar.finish().unwrap();
        if !make_before_upgrade(&bench.appliance).unwrap() {
            return; // This disk is short of room.
        }
        assert_eq!(super::kept(state).len(), left, "by {version}");
    }
}
