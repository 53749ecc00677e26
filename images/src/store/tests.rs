use super::*;
use std::io::Read as _;

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

fn tmp_is_empty(store: &Store) -> bool {
    fs::read_dir(store.tmp()).unwrap().next().is_none()
}

#[test]
fn a_blob_lies_under_its_digest_and_is_read_only() {
    let (_dir, store) = scratch();
    let blob = store.put(b"hello").unwrap();
    assert_eq!(blob.digest.hex(), HELLO);
    assert_eq!(blob.size, 5);
    let path = store.blob_path(&blob.digest);
    assert!(path.ends_with(format!("blobs/sha256/{HELLO}")));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
    let (mut file, size) = store.open_blob(&blob.digest).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), size), ("hello", 5));
    assert_eq!(store.blob_size(&blob.digest).unwrap(), 5);
    assert!(tmp_is_empty(&store));
}

#[test]
fn the_same_bytes_are_stored_once() {
    let (_dir, store) = scratch();
    assert_eq!(store.put(b"hello").unwrap(), store.put(b"hello").unwrap());
    assert_eq!(fs::read_dir(store.dir().join("blobs/sha256")).unwrap().count(), 1);
    assert!(tmp_is_empty(&store));
}

#[test]
fn a_rotten_blob_is_repaired_by_storing_it_again() {
    let (_dir, store) = scratch();
    let blob = store.put(b"hello").unwrap();
    let path = store.blob_path(&blob.digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut rotten = fs::read(&path).unwrap();
    rotten[2] ^= 0x10;
    fs::write(&path, &rotten).unwrap();
    let (mut reader, _) = store.open_blob(&blob.digest).unwrap();
    assert_eq!(store.put(b"hello").unwrap(), blob);
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, rotten, "who was reading goes on with the file that was opened");
    assert!(tmp_is_empty(&store));
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let (_dir, store) = scratch();
    let mut writer = store.writer().unwrap();
    writer.write_all(&vec![7; 3 << 20]).unwrap();
    assert!(!tmp_is_empty(&store));
    drop(writer);
    assert!(tmp_is_empty(&store));
    assert_eq!(fs::read_dir(store.dir().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn open_empties_tmp_and_keeps_blobs() {
    let (dir, store) = scratch();
    let blob = store.put(b"hello").unwrap();
    fs::write(store.tmp().join("left-over"), b"x").unwrap();
    fs::create_dir(store.tmp().join("directory")).unwrap();
    let again = Store::open(dir.path().join("store")).unwrap();
    assert!(tmp_is_empty(&again));
    assert_eq!(again.blob_size(&blob.digest).unwrap(), 5);
}

#[test]
fn a_missing_blob_says_so() {
    let (_dir, store) = scratch();
    let error = store.open_blob(&Digest([1; 32])).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

#[test]
fn collect_removes_what_nobody_names_and_spares_what_is_held() {
    let (_dir, store) = scratch();
    let old = store.put(b"old").unwrap();
    let kept = store.put(b"kept").unwrap();
    let hold = store.hold();
    let fresh = store.put(b"fresh").unwrap();
    let found_again = store.put(b"old").unwrap();
    let keep = BTreeSet::from([kept.digest]);
    assert_eq!(store.collect(&keep).unwrap(), []);
    drop(hold);
    let mut removed = store.collect(&keep).unwrap();
    removed.sort_by_key(|blob| blob.size);
    assert_eq!(removed, [old, fresh]);
    assert_eq!(found_again, removed[0]);
    assert!(store.open_blob(&kept.digest).is_ok());
}

#[test]
fn the_layout_is_one_that_oci_tools_read() {
    let (_dir, store) = scratch();
    let layout = fs::read_to_string(store.dir().join("oci-layout")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&layout).unwrap()["imageLayoutVersion"], "1.0.0");
    let digest = Digest([0xab; 32]);
    let entries = [
        IndexEntry { digest, size: 7, name: Some("team/web:v3".parse().unwrap()) },
        IndexEntry { digest, size: 7, name: None },
    ];
    store.write_index(&entries).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&fs::read(store.dir().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["manifests"][0]["digest"], digest.to_string());
    assert_eq!(index["manifests"][0]["size"], 7);
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "team/web:v3");
    assert!(index["manifests"][1]["annotations"].is_null());
}

#[test]
fn a_layout_of_another_version_is_refused() {
    let (dir, store) = scratch();
    fs::write(store.dir().join("oci-layout"), r#"{"imageLayoutVersion":"9.0"}"#).unwrap();
    let error = Store::open(dir.path().join("store")).unwrap_err();
    assert!(error.to_string().contains("'9.0'"), "{error}");
}

#[test]
fn sizes_read_well() {
    assert_eq!(bytes(12), "12 bytes");
    assert_eq!(bytes(3 << 30), "3.0 GiB");
    assert_eq!(bytes(1536), "1.5 KiB");
}

#[test]
fn an_examination_finds_what_a_disk_did() {
    let (_dir, store) = scratch();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let blob = store.put(&bytes).unwrap();
    let examine = || {
        let mut read = 0;
        let found = store.examine::<()>(&blob, &mut |count| {
            read += count;
            Ok(())
        });
        (found.unwrap(), read)
    };
    assert_eq!(examine(), (None, blob.size));
    let path = store.blob_path(&blob.digest);
    let replace = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    let mut flipped = bytes.clone();
    flipped[2_000_000] ^= 0x10;
    replace(&flipped);
    assert!(matches!(examine().0, Some(Damage::Differs { size, .. }) if size == blob.size));
    replace(&bytes[..100]);
    assert!(matches!(examine().0, Some(Damage::Differs { size: 100, .. })));
    fs::remove_file(&path).unwrap();
    assert_eq!(examine().0, Some(Damage::Missing));
    fs::create_dir(&path).unwrap();
    assert!(matches!(examine().0, Some(Damage::Unreadable(_))));
    fs::remove_dir(&path).unwrap();
    assert_eq!(store.put(&bytes).unwrap(), blob, "storing it again repairs it");
    assert_eq!(examine().0, None);
    assert_eq!(store.examine(&blob, &mut |_| Err("enough")), Err("enough"));
}

#[test]
fn a_stream_that_breaks_off_goes_on_where_it_was() {
    let (_dir, store) = scratch();
    let mut writer = store.writer().unwrap();
    let chunk: Vec<u8> = (0..64 << 10).map(|n: u32| (n % 251) as u8).collect();
    // More than is sent to the disk in one go.
    let mut whole = b"before".to_vec();
    io::Write::write_all(&mut writer, b"before").unwrap();
    for piece in [200, 0, 3, 150] {
        let mut chunks = std::iter::repeat_n(chunk.clone(), piece);
        let broken = || StoreError::Missing { digest: Digest([0; 32]) };
        let next = || chunks.next().map(Some).ok_or_else(broken);
        assert!(matches!(writer.take(next), Err(StoreError::Missing { .. })));
        whole.extend(chunk.repeat(piece));
        assert_eq!(writer.written(), whole.len() as u64);
    }
    let mut last = [&b"the "[..], b"", b"end"].into_iter();
    writer.take::<_, StoreError>(|| Ok(last.next())).unwrap();
    whole.extend(b"the end");
    let blob = writer.finish().unwrap();
    assert_eq!(blob.digest.0, ring::digest::digest(&ring::digest::SHA256, &whole).as_ref());
    assert_eq!((blob.size, fs::read(store.blob_path(&blob.digest)).unwrap() == whole), (whole.len() as u64, true));
    assert!(tmp_is_empty(&store));
}
