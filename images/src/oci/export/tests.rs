//! Exports, from one store into another and back.

use super::*;
use crate::{
    import::{ImportStep, Imported, Meter, adopt, foreign},
    oci::read_archive,
};
use bennu_rules::facts::Architecture;
use serde_json::json;

struct Silent;

impl crate::import::Progress for Silent {
    fn step(&self, _step: ImportStep, _done: u64, _total: Option<u64>) {}

    fn note(&self, _note: &str) {}
}

struct Lab {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(directory.path()).unwrap(), _directory: directory }
    }

    fn image(&self, seed: u8) -> Imported {
        let initrd = vec![seed; 300_000];
        let initrds = vec![initrd.as_slice(), initrd.as_slice()];
        foreign(&[seed; 5000][..], initrds, "quiet", Some(Architecture::X86_64), &self.store).unwrap()
    }

    fn put(&self, bytes: &[u8], media_type: &str) -> serde_json::Value {
        let blob = self.store.put(bytes).unwrap();
        json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size})
    }

    fn manifest(&self, seed: u8) -> serde_json::Value {
        let config = self.put(format!(r#"{{"seed":{seed}}}"#).as_bytes(), OCI_CONFIG);
        let layer = self.put(&[seed; 2000], super::super::OCI_LAYER);
        let manifest =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer, layer]});
        self.put(manifest.to_string().as_bytes(), OCI_MANIFEST)
    }
}

fn leaving(image: &Imported, name: &str) -> Leaving {
    let blob = BlobRef { digest: image.digest, size: image.manifest_size };
    Leaving { blob, media_type: None, kind: None, name: Some(name.to_owned()) }
}

fn exported(leaving: &[Leaving], store: &Store) -> Vec<u8> {
    let export = Export::of(leaving, store).unwrap();
    let mut tar = Vec::new();
    export.write(&mut tar).unwrap();
    assert_eq!(tar.len() as u64, export.size(), "the size is known beforehand");
    tar
}

fn arrived(tar: &[u8], store: &Store) -> Digest {
    let mut meter = Meter::new(&Silent, ImportStep::Read, None);
    let arrived = read_archive(tar, None, store, &mut meter).unwrap();
    adopt(&arrived.document.digest, store).unwrap().digest
}

#[test]
fn an_image_keeps_its_digest_from_store_to_store_and_back() {
    let (here, there) = (Lab::new(), Lab::new());
    let image = here.image(1);
    let tar = exported(&[leaving(&image, "v1")], &here.store);
    assert_eq!(arrived(&tar, &there.store), image.digest);
    let again = exported(&[leaving(&image, "v1")], &there.store);
    assert!(again == tar, "another store writes the same bytes");
    let third = Lab::new();
    assert_eq!(arrived(&again, &third.store), image.digest);
}

#[test]
fn a_blob_is_written_once_however_often_it_is_named() {
    let here = Lab::new();
    let (image, other) = (here.image(1), here.image(1));
    let tar = exported(&[leaving(&image, "v1"), leaving(&other, "v2")], &here.store);
    let mut names: Vec<String> = tar::Archive::new(tar.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    // Layout, index, two directories; manifest, config, kernel and the one initrd.
    assert_eq!((names.len(), all), (8, 8), "{names:?}");
}

#[test]
fn a_damaged_blob_ends_the_export_before_its_end() {
    let here = Lab::new();
    let image = here.image(1);
    for (damage, says) in [(None, "gone"), (Some(4999), "4999 bytes"), (Some(5000), "5000 bytes")] {
        let image = leaving(&image, "v1");
        let kernel = here.store.put(&[1; 5000]).unwrap();
        let export = Export::of(&[image], &here.store).unwrap();
        let path = here.store.blob_path(&kernel.digest);
        std::fs::remove_file(&path).unwrap();
        damage.into_iter().for_each(|size| std::fs::write(&path, vec![9; size]).unwrap());
        let mut tar = Vec::new();
        let error = export.write(&mut tar).unwrap_err();
        assert!(error.to_string().contains(&kernel.digest.to_string()) && error.to_string().contains(says), "{error}");
        assert!((tar.len() as u64) < export.size());
    }
}

#[test]
fn an_export_keeps_its_blobs_from_collection() {
    let here = Lab::new();
    let image = leaving(&here.image(1), "v1");
    let export = Export::of(&[image], &here.store).unwrap();
    assert_eq!(here.store.collect(&BTreeSet::new()).unwrap(), []);
    export.write(io::sink()).unwrap();
    drop(export);
    assert!(!here.store.collect(&BTreeSet::new()).unwrap().is_empty());
}

#[test]
fn an_index_leaves_with_what_is_here_of_it() {
    let here = Lab::new();
    let (first, second) = (here.manifest(1), here.manifest(2));
    let index = json!({"schemaVersion": 2, "mediaType": super::super::OCI_INDEX, "manifests": [first, second]});
    let index = here.store.put(index.to_string().as_bytes()).unwrap();
    let leaving = Leaving {
        blob: index,
        media_type: Some(super::super::OCI_INDEX.to_owned()),
        kind: Some(String::new()),
        name: Some("v1".to_owned()),
    };
    // Index, two manifests, each with a config and a layer that it names twice.
    assert_eq!(Export::of(std::slice::from_ref(&leaving), &here.store).unwrap().blobs.len(), 7);
    let layer = here.store.put(&[2; 2000]).unwrap();
    std::fs::remove_file(here.store.blob_path(&layer.digest)).unwrap();
    assert_eq!(Export::of(&[leaving], &here.store).unwrap().blobs.len(), 4, "one architecture was left out");
}

#[test]
fn signatures_beside_an_image_do_not_hide_it() {
    let (here, there) = (Lab::new(), Lab::new());
    let image = here.image(1);
    let signature = here.manifest(7);
    let attached = |kind: &str, name: Option<String>| Leaving {
        blob: BlobRef {
            digest: signature["digest"].as_str().unwrap().parse().unwrap(),
            size: signature["size"].as_u64().unwrap(),
        },
        media_type: Some(OCI_MANIFEST.to_owned()),
        kind: Some(kind.to_owned()),
        name,
    };
    let tag = format!("sha256-{}.sig", image.digest.hex());
    for attached in [attached(OCI_CONFIG, Some(tag)), attached("application/x-signature", None)] {
        let tar = exported(&[leaving(&image, "v1"), attached], &here.store);
        assert_eq!(arrived(&tar, &there.store), image.digest);
    }
}
