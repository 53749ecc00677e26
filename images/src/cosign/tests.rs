//! Bad signatures, bad keys and bad bytes. What other tools made is in `images/tests/cosign.rs`.

use super::{encrypted::Locked, payload::Claims, *};
use bennu_rules::signature::{Rejection, Verdict};
use pem_rfc7468::LineEnding;
use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};
use std::sync::LazyLock;

const IMAGE: Digest = Digest([7; 32]);
const NAME: &str = "registry.example/web";

/// A pair, without the second that scrypt takes for one under a password.
struct Pair {
    private: SigningKey,
    public: TrustedKey,
}

static PAIRS: LazyLock<[Pair; 2]> = LazyLock::new(|| ["ours", "theirs"].map(pair));

fn pair(name: &str) -> Pair {
    let chance = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &chance).unwrap();
    let private = SigningKey::from_pem(pem("PRIVATE KEY", pkcs8.as_ref()).as_bytes(), None).unwrap();
    let public = pem("PUBLIC KEY", &private.public_der().unwrap());
    Pair { private, public: TrustedKey::from_pem(name, public.as_bytes()).unwrap() }
}

fn pem(label: &str, bytes: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, bytes).unwrap()
}

fn ours() -> &'static Pair {
    &PAIRS[0]
}

fn signed(pair: &Pair, image: &Digest) -> Signature {
    sign(&pair.private, image, NAME, &Place::Tag, None).unwrap()
}

/// A payload as it is written, signed by us.
fn signed_text(payload: &str) -> Signature {
    let mut signature = signed(ours(), &IMAGE);
    let bytes = ours().private.sign(payload.as_bytes()).unwrap();
    signature.payload = payload.as_bytes().to_vec();
    with_layer(&mut signature, |layer| {
        layer["digest"] = json!(sha256(payload.as_bytes()));
        layer["annotations"]["dev.cosignproject.cosign/signature"] =
            <base64ct::Base64 as base64ct::Encoding>::encode_string(&bytes).into();
    });
    signature
}

fn with_layer(signature: &mut Signature, change: impl FnOnce(&mut Value)) {
    let mut manifest: Value = serde_json::from_slice(&signature.manifest).unwrap();
    change(&mut manifest["layers"][0]);
    signature.manifest = serde_json::to_vec(&manifest).unwrap();
}

fn verdict(signature: &Signature) -> Verdict {
    verify(&IMAGE, [&signature.manifest[..]], &[ours().public.clone()], |_| Ok(signature.payload.clone()))
}

/// Why the only signature does not count.
fn rejection(signature: &Signature) -> Rejection {
    match verdict(signature) {
        Verdict::NotTrusted { mut why } if why.len() == 1 => why.remove(0),
        other => panic!("{other}"),
    }
}

#[test]
fn an_image_is_signed_or_not() {
    let Verdict::Signed { key, identity } = verdict(&signed(ours(), &IMAGE)) else { panic!() };
    assert_eq!((&key, &identity[..]), (ours().public.id(), NAME));
    let none = verify(&IMAGE, [], &[ours().public.clone()], |_| panic!());
    assert_eq!(none, Verdict::Unsigned);
    let empty = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    assert_eq!(verify(&IMAGE, [&empty[..]], &[], |_| panic!()), Verdict::Unsigned);
}

#[test]
fn a_signature_counts_for_its_image_and_its_key_alone() {
    let moved = rejection(&signed(ours(), &Digest([8; 32])));
    assert_eq!(moved, Rejection::OtherImage { key: ours().public.id().clone(), signed: Digest([8; 32]) });
    let foreign = rejection(&signed(&PAIRS[1], &IMAGE));
    assert_eq!(foreign, Rejection::NoKeyFits { tried: "ours".into() });
}

#[test]
fn changed_bytes_do_not_count() {
    let good = signed(ours(), &IMAGE);
    let mut tampered = good.clone();
    tampered.payload[20] ^= 1;
    assert!(matches!(rejection(&tampered), Rejection::OtherPayload { .. }));
    // The manifest names the changed payload: nobody signed that.
    let changed = sha256(&tampered.payload);
    with_layer(&mut tampered, |layer| layer["digest"] = json!(changed));
    assert!(matches!(rejection(&tampered), Rejection::NoKeyFits { .. }));
    for (written, says) in [("MEUCI", "not base64"), ("!", "not base64"), ("M€", "not base64")] {
        let mut garbled = good.clone();
        with_layer(&mut garbled, |layer| layer["annotations"]["dev.cosignproject.cosign/signature"] = written.into());
        assert_eq!(rejection(&garbled), Rejection::Encoding { what: says.into() }, "{written}");
    }
    let mut bare = good.clone();
    with_layer(&mut bare, |layer| layer["annotations"] = Value::Null);
    assert_eq!(rejection(&bare), Rejection::Encoding { what: "missing".into() });
    // Half of it, at a place where base64 may end.
    let mut half = good.clone();
    with_layer(&mut half, |layer| {
        layer["annotations"]["dev.cosignproject.cosign/signature"] = good.signature[..48].into();
    });
    assert!(matches!(rejection(&half), Rejection::NoKeyFits { .. }));
    // Line breaks are no change.
    let mut broken = good.clone();
    with_layer(&mut broken, |layer| {
        let lines = format!("{}\r\n{}\n", &good.signature[..64], &good.signature[64..]);
        layer["annotations"]["dev.cosignproject.cosign/signature"] = lines.into();
    });
    assert!(matches!(verdict(&broken), Verdict::Signed { .. }));
}

#[test]
fn one_good_signature_among_bad_ones_is_enough() {
    let other = sign(&PAIRS[1].private, &IMAGE, NAME, &Place::Tag, None).unwrap();
    let both = sign(&ours().private, &IMAGE, NAME, &Place::Tag, Some(&other.manifest)).unwrap();
    assert_eq!(Signatures::parse(&both.manifest).unwrap().candidates.len(), 2);
    assert!(matches!(verdict(&both), Verdict::Signed { .. }));
    // It may lie in another manifest, too, beside ones that cannot be used.
    let keys = [ours().public.clone()];
    let manifests = [&b"{"[..], &other.manifest[..], &both.manifest[..]];
    let said = verify(&IMAGE, manifests, &keys, |_| Ok(both.payload.clone()));
    assert!(matches!(said, Verdict::Signed { .. }));
    let Verdict::NotTrusted { why } =
        verify(&IMAGE, [manifests[0], manifests[1], manifests[1]], &keys, |_| Ok(both.payload.clone()))
    else {
        panic!()
    };
    assert!(matches!(&why[..], [Rejection::Manifest { .. }, Rejection::NoKeyFits { .. }]), "{why:?}");
}

#[test]
fn a_payload_that_is_not_understood_does_not_count() {
    let digest = IMAGE.to_string();
    let good = String::from_utf8(Claims { image: IMAGE, identity: NAME.into() }.to_json().unwrap()).unwrap();
    assert!(matches!(verdict(&signed_text(&good)), Verdict::Signed { .. }));
    assert!(matches!(verdict(&signed_text(&format!(" {good}\n"))), Verdict::Signed { .. }));
    let optional = good.replace("\"optional\":null", r#""optional":{"creator":"x","by":{"n":[1]}}"#);
    assert!(matches!(verdict(&signed_text(&optional)), Verdict::Signed { .. }));
    let unknown = r#""critical":{"expires":"2026-01-01","#;
    for (payload, says) in [
        ("not JSON".to_owned(), "no simple-signing payload"),
        ("{}".to_owned(), "missing field `critical`"),
        (good.replace("cosign container image", "atomic container"), "its type is 'atomic container signature'"),
        (good.replacen("\"critical\":{", unknown, 1), "unknown field `expires`"),
        (good.replacen('{', "{\"Critical\":{},", 1), "unknown field `Critical`"),
        (good.replace(",\"optional\":null", ""), "missing field `optional`"),
        (good.replace("null", "7"), "its optional part"),
        (good.replace("\"image\":{", "\"image\":{\"tag\":\"v1\","), "unknown field `tag`"),
        (good.replace(&digest, "sha512:00"), "is not a digest"),
        (good.replacen("\"critical\":{", "\"critical\":{\"type\":\"\",", 1), "duplicate field `type`"),
        ("[".repeat(5000), "no simple-signing payload"),
    ] {
        let Rejection::Claims { what, .. } = rejection(&signed_text(&payload)) else { panic!("{payload}") };
        assert!(what.contains(says), "{what}");
    }
}

#[test]
fn what_is_too_large_or_gone_is_told() {
    let mut large = signed(ours(), &IMAGE);
    with_layer(&mut large, |layer| layer["size"] = json!(LARGEST_PAYLOAD + 1));
    let said = verify(&IMAGE, [&large.manifest[..]], &[ours().public.clone()], |_| panic!("asked for"));
    assert!(matches!(said, Verdict::NotTrusted { why } if matches!(why[0], Rejection::NoPayload { .. })));
    let manifest = signed(ours(), &IMAGE).manifest;
    let gone = verify(&IMAGE, [&manifest[..]], &[], |_| Err("it is not in the store".into()));
    let Verdict::NotTrusted { why } = gone else { panic!() };
    assert!(why[0].to_string().contains("cannot be read: it is not in the store; push"), "{}", why[0]);
    assert_eq!(Signatures::parse(&vec![b' '; LARGEST_MANIFEST + 1]), Err(BadManifest::Size(LARGEST_MANIFEST + 1)));
    let one: Value = serde_json::from_slice(&signed(ours(), &IMAGE).manifest).unwrap();
    let layers = |count| {
        let mut manifest = one.clone();
        manifest["layers"] = vec![one["layers"][0].clone(); count].into();
        serde_json::to_vec(&manifest).unwrap()
    };
    assert_eq!(Signatures::parse(&layers(129)), Err(BadManifest::Layers(129)));
    let full = layers(128);
    assert_eq!(Signatures::parse(&full).unwrap().candidates.len(), 128);
    let refused = sign(&ours().private, &IMAGE, NAME, &Place::Tag, Some(&full)).unwrap_err();
    assert!(matches!(refused, CannotSign::Existing(BadManifest::Layers(129))), "{refused}");
}

#[test]
fn a_manifest_of_another_kind_says_what_it_is() {
    let bundle = json!({
        "schemaVersion": 2, "config": {}, "layers": [],
        "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    });
    assert_eq!(Signatures::parse(bundle.to_string().as_bytes()), Err(BadManifest::Bundle));
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "layers": [] });
    let Err(BadManifest::Content(what)) = Signatures::parse(index.to_string().as_bytes()) else { panic!() };
    assert!(what.contains("index"), "{what}");
    // An attestation beside signatures is none.
    let mut attested = signed(ours(), &IMAGE);
    with_layer(&mut attested, |layer| layer["mediaType"] = "application/vnd.dsse.envelope.v1+json".into());
    assert_eq!(verdict(&attested), Verdict::Unsigned);
}

#[test]
fn tags_name_their_image() {
    let tag = signature_tag(&IMAGE);
    assert_eq!(tag, format!("sha256-{}.sig", "07".repeat(32)));
    assert_eq!(is_signature_tag(&tag), Some(IMAGE));
    for other in
        ["v1", "sha256-07.sig", &tag.replace(".sig", ".att"), &signature_tag(&Digest([0xab; 32])).to_uppercase()]
    {
        assert_eq!(is_signature_tag(other), None, "{other}");
    }
}

#[test]
fn a_name_is_needed_to_sign() {
    for bad in ["", "web\n", "a b", &"x".repeat(513)] {
        let refused = sign(&ours().private, &IMAGE, bad, &Place::Tag, None);
        assert!(matches!(refused, Err(CannotSign::Reference(_))), "{bad}");
    }
}

#[test]
fn keys_of_another_kind_say_what_to_use() {
    let said = |pem: String| TrustedKey::from_pem("ci", pem.as_bytes()).unwrap_err().to_string();
    let rsa = |bits: usize| {
        let modulus = [vec![0], vec![0xff; bits / 8]].concat();
        let der =
            |tag: u8, content: &[u8]| [&[tag, 0x82][..], &(content.len() as u16).to_be_bytes()[..], content].concat();
        let key = der(0x30, &[der(2, &modulus), vec![2, 3, 1, 0, 1]].concat());
        let algorithm = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
        pem("PUBLIC KEY", &der(0x30, &[algorithm.to_vec(), der(3, &[vec![0], key].concat())].concat()))
    };
    for bits in [2048, 3072, 4096] {
        assert!(TrustedKey::from_pem("ci", rsa(bits).as_bytes()).is_ok(), "{bits}");
    }
    let chance = SystemRandom::new();
    let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &chance).unwrap();
    for (content, says) in [
        ("hello".into(), "is not PEM"),
        ("x".repeat(1 << 15), "over 16384 bytes"),
        (pem("CERTIFICATE", b"x"), "its PEM says CERTIFICATE; write it as PUBLIC KEY"),
        (pem("PUBLIC KEY", b"x"), "its DER is garbled"),
        (rsa(2040), "it is RSA of 2040 bits; use ECDSA P-256"),
        (rsa(8192), "it is RSA of 8192 bits; use ECDSA P-256"),
        (pem("PRIVATE KEY", p384.as_ref()), "keep it off this host"),
    ] {
        assert!(said(content.clone()).contains(says), "{}", said(content));
    }
    let refused = SigningKey::from_pem(pem("PRIVATE KEY", p384.as_ref()).as_bytes(), None).unwrap_err();
    assert!(refused.to_string().contains("ECDSA P-256"), "{refused}");
}

#[test]
fn a_key_file_may_come_from_any_editor_and_holds_one_key() {
    let one = pem("PUBLIC KEY", &ours().private.public_der().unwrap());
    let key = TrustedKey::from_pem("ours", one.as_bytes()).unwrap();
    for same in [one.trim_end().to_owned(), one.replace('\n', "\r\n"), format!("{one}\n\n"), format!("CI's key\n{one}")]
    {
        let read = TrustedKey::from_pem("ours", same.as_bytes());
        assert_eq!(read.as_ref().ok(), Some(&key), "{read:?} of {same:?}");
    }
    // Whoever writes two means both, and the second would silently not count.
    assert!(TrustedKey::from_pem("ours", format!("{one}{one}").as_bytes()).is_err());
}

#[test]
fn a_hostile_private_key_takes_no_memory() {
    let sealed: Value =
        serde_json::from_slice(&encrypted::seal(b"key", b"word", &SystemRandom::new()).unwrap()).unwrap();
    let open = |sealed: &Value| encrypted::open(sealed.to_string().as_bytes(), b"word");
    assert_eq!(open(&sealed).unwrap(), b"key");
    for (field, value) in [
        ("/kdf/params/N", json!(1_u64 << 40)),
        ("/kdf/params/N", json!(65_537)),
        ("/kdf/params/N", json!(0)),
        ("/kdf/params/N", json!(1 << 14)),
        ("/kdf/params/r", json!(u32::MAX)),
        ("/kdf/params/p", json!(1_000_000)),
        ("/kdf/name", json!("pbkdf2")),
        ("/kdf/salt", json!("?")),
        ("/cipher/name", json!("none")),
        ("/cipher/nonce", json!("AAAA")),
        ("/ciphertext", json!("?")),
    ] {
        let mut hostile = sealed.clone();
        *hostile.pointer_mut(field).unwrap() = value;
        assert!(matches!(open(&hostile), Err(Locked::Format(_))), "{field}");
    }
    let mut short = sealed;
    short["ciphertext"] = "AAAA".into();
    assert_eq!(open(&short), Err(Locked::Password));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = TrustedKey::from_pem("ci", &bytes);
        let _ = TrustedKey::from_pem("ci", pem("PUBLIC KEY", &bytes).as_bytes());
        let _ = SigningKey::from_pem(pem("PRIVATE KEY", &bytes).as_bytes(), None);
        let _ = SigningKey::from_pem(pem("ENCRYPTED COSIGN PRIVATE KEY", &bytes).as_bytes(), Some(b""));
        let _ = Signatures::parse(&bytes);
        let _ = Claims::parse(&bytes);
    }

    #[test]
    fn a_bit_that_was_turned_is_never_trusted(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let turned = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let index = at.index(bytes.len());
            bytes[index] ^= 1_u8 << bit;
            bytes
        };
        let good = signed(ours(), &IMAGE);
        let _ = Claims::parse(&turned(&good.payload));
        let payload = Signature { payload: turned(&good.payload), ..good.clone() };
        let is_seen = matches!(rejection(&payload), Rejection::OtherPayload { .. });
        prop_assert!(is_seen);
        let _ = verdict(&Signature { manifest: turned(&good.manifest), ..good.clone() });
        let der = turned(&ours().private.public_der().unwrap());
        if let Ok(key) = TrustedKey::from_pem("ci", pem("PUBLIC KEY", &der).as_bytes()) {
            let said = verify(&IMAGE, [&good.manifest[..]], &[key], |_| Ok(good.payload.clone()));
            let is_trusted = matches!(said, Verdict::Signed { .. });
            prop_assert!(!is_trusted);
        }
    }
}
