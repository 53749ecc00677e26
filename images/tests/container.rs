//! Container images, their layers merged as a well-known tool unpacks them (`umoci unpack`), made into images that boot.
//!
//! Owners and devices need root. Without it these tests fail and say so.

#![allow(clippy::unwrap_used)]

mod common;

use bennu_images::{
    archive::{Contents, Metadata, RecordKind, Writer, Xattrs},
    import::{ImportError, ImportStep, Imported, Labels, Meter, Options, Pairing, container, variants},
    oci::{
        Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, OciError, Platform, read_archive,
    },
    store::Store,
};
use bennu_rules::{
    facts::Architecture,
    image::{BlobRef, Content, Digest},
};
use common::*;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

/// Entries of a layer: `d` directory, `f` file with its own path as content, `s path>target`, `h path>target`,
/// `c` the device that overlayfs takes for a whiteout.
fn layer(entries: &[&str]) -> Vec<u8> {
    let none = Xattrs::new();
    let attributes: Xattrs = vec![(b"user.of".to_vec(), b"layer".to_vec())];
    let mut tar = Writer::new(Vec::new());
    for (at, entry) in entries.iter().enumerate() {
        let (kind, rest) = entry.split_once(' ').unwrap();
        let (path, target) = rest.split_once('>').unwrap_or((rest, ""));
        let (kind, xattrs, mode) = match kind {
            "d" => (RecordKind::Directory, &none, 0o755),
            "f" => (RecordKind::File(Contents::Whole(path.len() as u64)), &attributes, 0o4711),
            "s" => (RecordKind::Symlink(target.as_bytes()), &none, 0o777),
            "h" => (RecordKind::HardLink(target.as_bytes()), &none, 0o644),
            _ => (RecordKind::Character(1, 3), &none, 0o600),
        };
        let meta = Metadata { mode, uid: 7, gid: 8, mtime: 1_600_000_000 + at as i64, xattrs };
        tar.entry(path.as_bytes(), kind, meta).unwrap();
        if matches!(kind, RecordKind::File(_)) {
            tar.data(path.as_bytes()).unwrap();
        }
    }
    tar.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap())
}

/// Puts an image into the store as a push does; its layers are compressed in all three ways.
fn put(store: &Store, layers: &[Vec<u8>], run: &str) -> Descriptor {
    put_for("amd64", store, layers, run)
}

fn put_for(architecture: &str, store: &Store, layers: &[Vec<u8>], run: &str) -> Descriptor {
    // umoci reads no zstd, and there it is not asked to.
    let compress = |at: usize, tar: &Vec<u8>| match at {
        1 if layers.len() < 4 => ("+zstd", zstd::encode_all(tar.as_slice(), 1).unwrap()),
        1 | 3 => ("", tar.clone()),
        _ => ("+gzip", gzip(tar)),
    };
    let descriptors = layers.iter().enumerate().map(|(at, tar)| {
        let (suffix, bytes) = compress(at, tar);
        Descriptor::new(&format!("{OCI_LAYER}{suffix}"), &store.put(&bytes).unwrap())
    });
    let layers_in_store = descriptors.collect();
    let ids: Vec<String> = layers.iter().map(|tar| format!("\"{}\"", digest_of(tar))).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","created":"2026-01-02T03:04:05Z","config":{{{run}}},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let config = Descriptor::new(OCI_CONFIG, &store.put(config.as_bytes()).unwrap());
    put_manifest(store, config, layers_in_store)
}

fn put_manifest(store: &Store, config: Descriptor, layers: Vec<Descriptor>) -> Descriptor {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    Descriptor::new(OCI_MANIFEST, &store.put(&serde_json::to_vec(&manifest).unwrap()).unwrap())
}

/// A root filesystem as containers have them: no kernel, no modules, no firmware.
fn bare_tree() -> tempfile::TempDir {
    let dir = tree();
    fs::remove_dir_all(dir.path().join("boot")).unwrap();
    fs::remove_dir_all(dir.path().join("usr/lib/modules")).unwrap();
    fs::remove_dir_all(dir.path().join("usr/lib/firmware")).unwrap();
    for changed in ["usr/lib", ""] {
        run("touch", &["-d", "@1700000002", &dir.path().join(changed).display().to_string()]);
    }
    dir
}

fn kernel_image(store: &Store) -> Imported {
    import(&pack(tree().path()), &Options { kernel_only: true, ..quick() }, store).unwrap()
}

fn pairing(kernel: &Imported) -> Pairing {
    let Content::Kernel { layer: Some(layer), .. } = &kernel.config.content else { panic!() };
    Pairing { image: kernel.digest, layer: layer.clone(), signed: None }
}

fn unpaired(_: Architecture, _: &Labels) -> Result<Pairing, String> {
    Err("no kernel image is here".to_owned())
}

/// What umoci makes of an image: the store is a layout that it reads.
fn unpacked(store: &Store, image: &Descriptor) -> (tempfile::TempDir, BTreeMap<String, String>) {
    let mut named = image.clone();
    named.annotations = BTreeMap::from([("org.opencontainers.image.ref.name".to_owned(), "it".to_owned())]);
    let index = Index {
        schema_version: 2,
        media_type: Some(OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: vec![named],
        subject: None,
        annotations: BTreeMap::new(),
    };
    fs::write(store.dir().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:it", store.dir().display()), bundle.to_str().unwrap()]);
    let manifest = manifest(&bundle.join("rootfs"));
    (out, manifest)
}

/// The root directory's own line differs: umoci makes it anew.
fn without_root(mut lines: BTreeMap<String, String>) -> BTreeMap<String, String> {
    lines.remove("");
    lines
}

#[test]
fn layers_merge_as_umoci_unpacks_them() {
    let (_dir, store) = store();
    let layers = [
        pack(tree().path()),
        layer(&[
            "d srv",
            "d srv/a",
            "f srv/a/x",
            "f srv/a/y",
            "d srv/deep",
            "d srv/deep/er",
            "f srv/deep/er/z",
            "f srv/one",
        ]),
        layer(&[
            "h srv/hard>srv/a/x",
            "s srv/link>a",
            "f srv/a/.wh.y",
            "c srv/dev",
            "f srv/.wh.one",
            "d srv/one",
            "f srv/one/in",
        ]),
        layer(&[
            "d srv/deep",
            "f srv/deep/.wh..wh..opq",
            "f srv/deep/new",
            "f srv/link/through",
            "f srv/a/.wh.x",
            "f usr/lib/added",
        ]),
        layer(&["f srv/one/.wh.in", "f srv/.wh..wh.plnk", "s srv/deep>one", "f srv/hard"]),
    ];
    let image = put(&store, &layers, "");
    let imported = container(&image, unpaired, &quick(), &store, &()).unwrap();
    let (_unpacked, theirs) = unpacked(&store, &image);
    let (_unsquashed, root) = unsquash(&imported, &store);
    let ours = manifest(&root);
    assert!(ours.contains_key("srv/a/through") && !ours.contains_key("srv/a/x") && ours["srv/deep"].contains("one"));
    assert_same(&without_root(theirs), &without_root(ours));
}

#[test]
fn a_container_image_without_a_kernel_takes_that_of_a_kernel_image() {
    let (_dir, store) = store();
    let kernel = kernel_image(&store);
    let run =
        r#""Entrypoint":["/bin/app"],"Cmd":["-v"],"Labels":{"team":"web","bennu.cmdline":"quiet mitigations=off"}"#;
    let image = put(&store, &[pack(bare_tree().path()), layer(&["f srv"])], run);
    let error = container(&image, unpaired, &quick(), &store, &()).unwrap_err();
    assert!(
        error.to_string().contains("the image has no kernel") && error.to_string().contains("no kernel image is here"),
        "{error}"
    );
    let imported = container(&image, |_, _| Ok(pairing(&kernel)), &quick(), &store, &()).unwrap();
    let derived = imported.config.derived.clone().unwrap();
    assert_eq!((derived.source, derived.kernel), (image.blob(), Some(kernel.digest)));
    assert_eq!(derived.created.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(imported.config.labels["team"], "web");
    assert_eq!(imported.config.cmdline, "quiet mitigations=off", "a label says it where nobody else does");
    assert_eq!(imported.config.entry, None, "it has an init, which is what runs");
    assert_eq!(modules_blob(&imported), modules_blob(&kernel), "machines have that initrd already");
    assert_eq!(imported.config.content.kernel(), kernel.config.content.kernel());
    let (_unsquashed, root) = unsquash(&imported, &store);
    assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_symlink(), "the layer left the link as it was");
    let whole = manifest(tree().path());
    for (path, line) in manifest(&root) {
        if path.starts_with("usr/lib/modules/6.1.0-9-test/kernel") || path.starts_with("usr/lib/firmware/") {
            assert_eq!(whole.get(&path), Some(&line), "{path}");
        }
    }
    assert!(root.join(format!("usr/lib/modules/{RELEASE}/vmlinuz")).exists());

    // The manifest names what it was made of: a referrer of what was pushed (OCI image specification 1.1, "subject").
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(store.blob_path(&imported.digest)).unwrap()).unwrap();
    assert_eq!(manifest["subject"]["digest"], image.digest.to_string());
    assert_eq!(manifest["subject"]["mediaType"], OCI_MANIFEST);

    let (_other_dir, other) = self::store();
    let kernel = kernel_image(&other);
    let again = put(&other, &[pack(bare_tree().path()), layer(&["f srv"])], run);
    let again = container(&again, |_, _| Ok(pairing(&kernel)), &quick(), &other, &()).unwrap();
    assert_eq!(again.digest, imported.digest, "the same source gives the same image on another machine");
}

#[test]
fn an_image_without_an_init_runs_its_own_program() {
    let (_dir, store) = store();
    let kernel = kernel_image(&store);
    let tree = bare_tree();
    fs::remove_dir_all(tree.path().join("usr/lib/systemd")).unwrap();
    fs::remove_file(tree.path().join("usr/sbin/init")).unwrap();
    let run = r#""Entrypoint":["/bin/app"],"Cmd":["-v"],"Env":["A=b"],"User":"web","WorkingDir":"/srv""#;
    let image = put(&store, &[pack(tree.path())], run);
    let imported = container(&image, |_, _| Ok(pairing(&kernel)), &quick(), &store, &()).unwrap();
    let entry = imported.config.entry.unwrap();
    assert_eq!(entry.args, ["/bin/app", "-v"]);
    assert_eq!((entry.env, entry.user, entry.workdir), (vec!["A=b".to_owned()], "web".to_owned(), "/srv".to_owned()));
    let image = put(&store, &[pack(tree.path())], "");
    let error = container(&image, |_, _| Ok(pairing(&kernel)), &quick(), &store, &()).unwrap_err();
    assert!(matches!(error, ImportError::NoInit { .. }) && error.to_string().contains("Entrypoint"), "{error}");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    let (_dir, store) = store();
    let whole = pack(tree().path());
    let good = put(&store, std::slice::from_ref(&whole), "");
    let read = |descriptor: &Descriptor| -> Manifest {
        serde_json::from_slice(&fs::read(store.blob_path(&descriptor.digest)).unwrap()).unwrap()
    };
    let changed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = read(&good);
        change(&mut manifest);
        Descriptor::new(OCI_MANIFEST, &store.put(&serde_json::to_vec(&manifest).unwrap()).unwrap())
    };
    let absent = BlobRef { digest: Digest([7; 32]), size: 7 };
    let other = store.put(&gzip(&layer(&["f x"]))).unwrap();
    for (image, says) in [
        (changed(&|m| m.layers[0].digest = absent.digest), "is missing"),
        (changed(&|m| m.config.digest = absent.digest), "config sha256:0707"),
        (changed(&|m| m.layers[0].digest = other.digest), "mixed up its layers"),
        (changed(&|m| m.layers[0].media_type = format!("{OCI_LAYER}+zip")), "+zip', which Bennu does not read"),
        (changed(&|m| m.layers[0].media_type = format!("{OCI_LAYER}+gzip+encrypted")), "without encryption"),
        (changed(&|m| m.layers.clear()), "has 0 layers"),
        (changed(&|m| m.artifact_type = Some("application/chart".into())), "artifact of type 'application/chart'"),
        (changed(&|m| m.config = Descriptor::new(OCI_CONFIG, &m.layers[0].blob())), "config"),
        (put_for("s390x", &store, std::slice::from_ref(&whole), ""), "linux/s390x"),
        (put_for("arm64", &store, std::slice::from_ref(&whole), ""), "the kernel is for X86_64"),
        (put(&store, &[whole.clone(), layer(&["f ../../evil"])], ""), "leads out of the root"),
        (put(&store, &[whole.clone(), layer(&["h b>none"])], ""), "hard link to something that is not in the tar"),
        (put(&store, &[whole.clone(), b"no tar at all".to_vec()], ""), "not a tar"),
        (put(&store, &[whole.clone(), whole[..4096].to_vec()], ""), "cut short"),
    ] {
        let error = container(&image, unpaired, &quick(), &store, &()).unwrap_err().to_string();
        assert!(error.contains(says), "expected '{says}': {error}");
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0, "{says}");
    }
}

#[test]
fn paths_and_links_of_layers_stay_inside() {
    let (_dir, store) = store();
    let out = tempfile::tempdir().unwrap();
    let evil = out.path().display().to_string();
    let layers = [
        pack(tree().path()),
        layer(&[&format!("s out>{evil}"), "s up>../../../..", "s loop>loop"]),
        layer(&["f out/written", &format!("f up{evil}/written"), "f /absolute"]),
    ];
    let image = put(&store, &layers, "");
    let imported = container(&image, unpaired, &quick(), &store, &()).unwrap();
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    let (_unsquashed, root) = unsquash(&imported, &store);
    assert!(root.join("absolute").exists());
    assert!(root.join(evil.trim_start_matches('/')).join("written").exists(), "links end at the image's own root");
    let looped = put(&store, &[pack(tree().path()), layer(&["s loop>loop"]), layer(&["f loop/x"])], "");
    let error = container(&looped, unpaired, &quick(), &store, &()).unwrap_err().to_string();
    assert!(error.contains("loop of symbolic links"), "{error}");
}

#[test]
fn an_index_stands_for_one_image_an_architecture() {
    let (_dir, store) = store();
    let tar = [layer(&["f x"])];
    let platform = |descriptor: &Descriptor, architecture: &str, os: &str| {
        let platform = Some(Platform { architecture: architecture.to_owned(), os: os.to_owned() });
        Descriptor { platform, ..descriptor.clone() }
    };
    let (amd, arm) = (put(&store, &tar, ""), put_for("arm64", &store, &tar, ""));
    let index = |manifests: Vec<Descriptor>| {
        let index = Index {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        };
        store.put(&serde_json::to_vec(&index).unwrap()).unwrap()
    };
    let both = index(vec![
        platform(&amd, "amd64", "linux"),
        platform(&arm, "arm64", "linux"),
        platform(&amd, "amd64", "windows"),
        platform(&amd, "unknown", "unknown"),
        platform(&arm, "amd64", "linux"),
    ]);
    let found = variants(&both.digest, OCI_INDEX, &store).unwrap();
    let found: Vec<_> = found.into_iter().map(|(architecture, descriptor)| (architecture, descriptor.digest)).collect();
    assert_eq!(found, [(Architecture::X86_64, amd.digest), (Architecture::Arm64, arm.digest)]);
    let one = variants(&arm.digest, OCI_MANIFEST, &store).unwrap();
    assert_eq!((one.len(), one[0].0), (1, Architecture::Arm64));
    let around = index(vec![amd.clone()]);
    assert_eq!(variants(&around.digest, OCI_INDEX, &store).unwrap()[0].0, Architecture::X86_64);
    let none = index(vec![platform(&amd, "amd64", "windows")]);
    let error = variants(&none.digest, OCI_INDEX, &store).unwrap_err().to_string();
    assert!(error.contains("windows/amd64"), "{error}");
}

/// A tar of files and links, as `docker save` and layouts are.
fn tar_of(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let none = Xattrs::new();
    let meta = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: &none };
    let mut tar = Writer::new(Vec::new());
    for (name, bytes) in files {
        tar.entry(name.as_bytes(), RecordKind::File(Contents::Whole(bytes.len() as u64)), meta).unwrap();
        tar.data(bytes).unwrap();
    }
    for (name, target) in links {
        tar.entry(name.as_bytes(), RecordKind::Symlink(target.as_bytes()), meta).unwrap();
    }
    tar.finish().unwrap()
}

fn arrive(tar: &[u8], wanted: Option<&str>, store: &Store) -> Result<Descriptor, ImportError> {
    let mut meter = Meter::new(&(), ImportStep::Read, None);
    let arrived = read_archive(tar, wanted, store, &mut meter)?;
    Ok(Descriptor::new(&arrived.media_type, &arrived.document))
}

#[test]
fn what_docker_saves_is_an_image() {
    let (_dir, store) = store();
    let layers = [pack(tree().path()), layer(&["f srv"])];
    let ids: Vec<String> = layers.iter().map(|tar| format!("\"{}\"", digest_of(tar))).collect();
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":[{0},{1},{1}]}}}}"#, ids[0], ids[1]);
    let list = r#"[{"Config":"c.json","RepoTags":["web:v1"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]},
                   {"Config":"c.json","RepoTags":["web:v2"],"Layers":["a/layer.tar"]}]"#;
    let zipped = gzip(&layers[1]);
    let files: [(&str, &[u8]); 4] = [
        ("manifest.json", list.as_bytes()),
        ("c.json", config.as_bytes()),
        ("./a/layer.tar", &layers[0]),
        ("b/layer.tar", &zipped),
    ];
    let saved = tar_of(&files, &[("c/layer.tar", "../b/layer.tar")]);
    let image = arrive(&saved, Some("v1"), &store).unwrap();
    assert_eq!(arrive(&gzip(&saved), Some("web:v1"), &store).unwrap(), image, "and always the same");
    let imported = container(&image, unpaired, &quick(), &store, &()).unwrap();
    assert_eq!(imported.config.derived.unwrap().source, image.blob());
    for (wanted, says) in [(None, "holds 2 images"), (Some("v3"), "it has web:v1, web:v2")] {
        let error = arrive(&saved, wanted, &store).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let error = arrive(&tar_of(&files[..3], &[]), Some("v1"), &store).unwrap_err().to_string();
    assert!(error.contains("names 'b/layer.tar'"), "{error}");
}

#[test]
fn a_layout_is_held_to_its_digests() {
    let (_dir, source) = store();
    let image = put(&source, &[pack(tree().path())], "");
    unpacked(&source, &image);
    fs::remove_dir(source.dir().join("tmp")).unwrap();
    let pack_layout = |dir: &Path| run("tar", &["-C", dir.to_str().unwrap(), "-c", "."]);
    let (_other, other) = store();
    assert_eq!(arrive(&pack_layout(source.dir()), Some("it"), &other).unwrap(), image);
    container(&image, unpaired, &quick(), &other, &()).unwrap();
    let path = source.blob_path(&image.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let error = arrive(&pack_layout(source.dir()), None, &other).unwrap_err();
    assert!(matches!(error, ImportError::Oci(OciError::Mismatch { .. })), "{error}");
    let error = arrive(&pack(tree().path()), None, &other).unwrap_err().to_string();
    assert!(error.contains("neither index.json"), "{error}");
}

#[test]
fn a_layout_brings_its_signatures_however_its_tool_names_them() {
    let (_dir, store) = store();
    let manifest = |extra: Value| {
        let empty = json!({"mediaType": OCI_CONFIG, "digest": digest_of(b"{}"), "size": 2});
        let mut manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": []});
        manifest.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        manifest.to_string()
    };
    let image = manifest(json!({}));
    let digest = digest_of(image.as_bytes());
    let subject = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": image.len()});
    let kinds = "application/vnd.dev.cosign.artifact.sig.v1+json";
    let signature = manifest(json!({"annotations": {"of": "tag"}}));
    let referrer = manifest(json!({"artifactType": kinds, "subject": subject}));
    let entry = |text: &str, extra: Value| {
        let mut entry = json!({"mediaType": OCI_MANIFEST, "digest": digest_of(text.as_bytes()), "size": text.len()});
        entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        entry
    };
    let name = |name: &str| json!({"annotations": {"org.opencontainers.image.ref.name": name}});
    let kind = |kind: &str| json!({"annotations": {"kind": format!("dev.cosignproject.cosign/{kind}")}});
    let arrived = |first: Value, second: Value| {
        // Named twice, it comes once.
        let index = json!({"schemaVersion": 2, "manifests": [first, second, second]}).to_string();
        let blob = |text: &str| format!("blobs/sha256/{}", digest_of(text.as_bytes()).hex());
        let names = [blob(&image), blob(&signature), blob(&referrer)];
        let files: [(&str, &[u8]); 4] = [
            ("index.json", index.as_bytes()),
            (&names[0], image.as_bytes()),
            (&names[1], signature.as_bytes()),
            (&names[2], referrer.as_bytes()),
        ];
        let mut meter = Meter::new(&(), ImportStep::Read, None);
        let arrived = read_archive(tar_of(&files, &[]).as_slice(), None, &store, &mut meter).unwrap();
        assert_eq!(arrived.document.digest, digest);
        let [signature] = arrived.signatures.try_into().unwrap_or_else(|found| panic!("{found:?}"));
        assert_eq!(signature.image, digest);
        (signature.manifest.digest, signature.is_tagged)
    };
    let [tagged, referring] = [digest_of(signature.as_bytes()), digest_of(referrer.as_bytes())];
    let by_tag = entry(&signature, name(&format!("sha256-{}.sig", digest.hex())));
    assert_eq!(arrived(entry(&image, name("v1")), by_tag), (tagged, true));
    assert_eq!(arrived(entry(&image, kind("image")), entry(&signature, kind("sigs"))), (tagged, true));
    let by_subject = entry(&referrer, json!({"artifactType": kinds}));
    assert_eq!(arrived(entry(&image, json!({})), by_subject), (referring, false));
}
