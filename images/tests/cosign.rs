//! Signatures that cosign and skopeo made, and ours in their format.

#![allow(clippy::unwrap_used)]

use bennu_images::cosign::{
    BadPrivateKey, KeyPair, Place, SIGNATURE_ARTIFACT, Signature, Signatures, SigningKey, TrustedKey, sign, verify,
};
use bennu_rules::{
    image::{BlobRef, Digest},
    signature::{Rejection, Verdict},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

const PASSWORD: &[u8] = b"throw-away";
const NAME: &str = "registry.example/team/web";

fn fixture(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cosign").join(name)
}

fn image() -> Digest {
    digest(&fixture("image.json"))
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap())
}

fn trusted(name: &str) -> TrustedKey {
    TrustedKey::read(&path(&format!("keys/{name}.pub"))).unwrap()
}

fn private(name: &str) -> SigningKey {
    SigningKey::from_pem(&fixture(&format!("keys/{name}.key")), Some(PASSWORD)).unwrap()
}

fn blob(blob: &BlobRef) -> Result<Vec<u8>, String> {
    fs::read(path(&format!("blobs/{}", blob.digest.hex()))).map_err(|error| error.to_string())
}

/// The verdict on one of the fixtures.
fn verdict(manifest: &str, keys: &[&str]) -> Verdict {
    let keys: Vec<TrustedKey> = keys.iter().map(|name| trusted(name)).collect();
    verify(&image(), [&fixture(manifest)[..]], &keys, blob)
}

/// The verdict on a signature of ours.
fn verdict_on(signature: &Signature, keys: &[TrustedKey]) -> Verdict {
    verify(&image(), [&signature.manifest[..]], keys, |wanted| {
        assert_eq!(wanted.digest, digest(&signature.payload));
        Ok(signature.payload.clone())
    })
}

fn signed_by(verdict: &Verdict) -> (&str, &str) {
    match verdict {
        Verdict::Signed { key, identity } => (&key.name, identity),
        other => panic!("{other}"),
    }
}

#[test]
fn what_cosign_signed_is_signed() {
    assert_eq!(signed_by(&verdict("by-cosign.json", &["cosign"])), ("cosign", NAME));
    assert_eq!(signed_by(&verdict("by-cosign.json", &["ed25519"])), ("ed25519", NAME));
    assert_eq!(signed_by(&verdict("by-cosign.json", &["other", "rsa", "cosign"])), ("cosign", NAME));
    assert_eq!(signed_by(&verdict("by-cosign-referrer.json", &["cosign"])), ("cosign", NAME));
    let referrer = Signatures::parse(&fixture("by-cosign-referrer.json")).unwrap();
    assert_eq!(referrer.subject, Some(image()));
}

#[test]
fn what_skopeo_signed_is_signed() {
    assert_eq!(signed_by(&verdict("by-skopeo.json", &["cosign"])), ("cosign", "registry.example/team/web:v3"));
    assert_eq!(signed_by(&verdict("by-skopeo-rsa.json", &["rsa"])), ("rsa", "registry.example/team/web:v3"));
}

#[test]
fn a_key_that_signed_nothing_vouches_for_nothing() {
    for file in ["by-cosign.json", "by-cosign-referrer.json", "by-skopeo.json", "by-skopeo-rsa.json"] {
        let expected = Rejection::NoKeyFits { tried: "other".into() };
        assert_eq!(verdict(file, &["other"]), Verdict::NotTrusted { why: vec![expected] }, "{file}");
        assert_eq!(verdict(file, &[]), Verdict::NotTrusted { why: vec![Rejection::NoKeys] }, "{file}");
    }
    // The fingerprint is that of the DER: openssl pkey -pubin -in cosign.pub -outform DER | sha256sum.
    assert_eq!(trusted("cosign").fingerprint().short(), "8d9013efe408");
}

#[test]
fn cosigns_private_keys_sign() {
    // All kinds of key, both PEM labels, and two costs of scrypt.
    for name in ["cosign", "other", "ed25519", "rsa"] {
        let signature = sign(&private(name), &image(), NAME, &Place::Tag, None).unwrap();
        assert_eq!(signed_by(&verdict_on(&signature, &[trusted("cosign"), trusted(name)])), (name, NAME));
    }
    // Byte for byte what cosign signs.
    let signature = sign(&private("cosign"), &image(), NAME, &Place::Tag, None).unwrap();
    assert_eq!(digest(&signature.payload).short(), "59ffc21a4cab");
}

#[test]
fn a_private_key_stays_locked_without_its_password() {
    let pem = fixture("keys/cosign.key");
    let says = |password| SigningKey::from_pem(&pem, password).unwrap_err();
    assert_eq!(says(None), BadPrivateKey::NoPassword);
    assert_eq!(says(Some(b"guess")), BadPrivateKey::Password);
    let pem = fixture("keys/cosign.pub");
    assert!(
        matches!(SigningKey::from_pem(&pem, None), Err(BadPrivateKey::Content(what)) if what.contains("PUBLIC KEY"))
    );
}

#[test]
fn a_pair_that_is_made_here_signs_and_verifies() {
    let pair = KeyPair::generate(b"secret").unwrap();
    assert!(pair.private.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
    let public = TrustedKey::from_pem("new", pair.public.as_bytes()).unwrap();
    let private = SigningKey::from_pem(pair.private.as_bytes(), Some(b"secret")).unwrap();
    let signature = sign(&private, &image(), NAME, &Place::Tag, None).unwrap();
    assert_eq!(signed_by(&verdict_on(&signature, &[trusted("cosign"), public])), ("new", NAME));
    let wrong = SigningKey::from_pem(pair.private.as_bytes(), Some(b""));
    assert_eq!(wrong.unwrap_err(), BadPrivateKey::Password);
}

#[test]
fn a_signature_joins_those_that_are_there() {
    let before: Value = serde_json::from_slice(&fixture("by-cosign.json")).unwrap();
    let signature = sign(&private("other"), &image(), NAME, &Place::Tag, Some(&fixture("by-cosign.json"))).unwrap();
    let after: Value = serde_json::from_slice(&signature.manifest).unwrap();
    let layers = |manifest: &Value| manifest["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&after)[..2], layers(&before)[..]);
    assert_eq!(layers(&after).len(), 3);
    // The config is the one the manifest names, and lists every layer.
    assert_eq!(after["config"]["digest"], digest(&signature.config).to_string());
    let config: Value = serde_json::from_slice(&signature.config).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    for name in ["cosign", "ed25519", "other"] {
        let keys = [trusted(name)];
        let said = verify(&image(), [&signature.manifest[..]], &keys, |wanted| match blob(wanted) {
            Err(_) if wanted.digest == digest(&signature.payload) => Ok(signature.payload.clone()),
            other => other,
        });
        assert_eq!(signed_by(&said), (name, NAME));
    }
}

#[test]
fn a_referrer_says_whose_it_is() {
    let size = fixture("image.json").len() as u64;
    let place = Place::Referrer { media_type: "application/vnd.oci.image.manifest.v1+json".into(), size };
    let signature = sign(&private("cosign"), &image(), NAME, &place, None).unwrap();
    let (ours, theirs): (Value, Value) = (
        serde_json::from_slice(&signature.manifest).unwrap(),
        serde_json::from_slice(&fixture("by-cosign-referrer.json")).unwrap(),
    );
    assert_eq!(ours["subject"], theirs["subject"]);
    assert_eq!(ours["config"]["mediaType"], SIGNATURE_ARTIFACT);
    assert_eq!(ours["artifactType"], SIGNATURE_ARTIFACT);
    assert_eq!(ours["layers"][0]["digest"], theirs["layers"][0]["digest"]);
    assert_eq!(signed_by(&verdict_on(&signature, &[trusted("cosign")])), ("cosign", NAME));
}
