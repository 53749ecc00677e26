//! What a machine is given that is its own.

use super::sessions::Stage1;
use super::*;
use crate::{config::Config, http::api::tests::CONFIG};
use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_plan::SealedFile;
use bennu_rules::Records;
use ssh_key::{PrivateKey, PublicKey};

const CANARY: &str = "hunter2-canary";

async fn set(plane: &Plane, name: &str, whose: &str, path: &str, value: &str) {
    let body = format!(r#"{{{whose},"path":"{path}","value":"{value}"}}"#);
    let got = plane.bench.write(Method::PUT, &format!("/v1/secrets/{name}"), &body).await;
    assert_eq!(got.status, 200, "{}", got.text);
}

fn find<'a>(files: &'a [SealedFile], path: &str) -> &'a SealedFile {
    files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path} in {files:?}"))
}

fn text(file: &SealedFile) -> String {
    String::from_utf8(BASE64_STANDARD.decode(&file.content).unwrap()).unwrap()
}

#[tokio::test]
async fn a_machine_gets_its_own_secrets_and_no_others() {
    let plane = Plane::new().await;
    plane.bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), r#"{"labels":{"role":"web"}}"#).await;
    set(&plane, "role", r#""selector":"role=web""#, "/etc/app/key", CANARY).await;
    set(&plane, "own", &format!(r#""machine":"{MAC}""#), "/etc/own", "mine").await;
    set(&plane, "theirs", r#""machine":"52:54:00:00:00:02""#, "/etc/theirs", "not mine").await;
    set(&plane, "other", r#""selector":"role=db""#, "/etc/other", "not mine").await;
    let base = plane.starts().await;
    let stage1 = Stage1::new();
    let sealed = stage1.asks(&plane, &base).await.body;
    assert!(!sealed.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()));
    let files = stage1.opens(&plane, &base).await.files;
    assert_eq!((text(find(&files, "/etc/app/key")).as_str(), find(&files, "/etc/app/key").mode), (CANARY, 0o600));
    assert_eq!(text(find(&files, "/etc/own")), "mine");
    assert!(!files.iter().any(|file| text(file) == "not mine"), "{files:?}");
    let boot = plane.boot().await.to_string();
    assert!(!boot.contains(CANARY) && !boot.contains("mine"), "{boot}");
}

#[tokio::test]
async fn a_record_that_was_changed_is_not_given_out() {
    let plane = Plane::new().await;
    set(&plane, "a", r#""selector":"""#, "/etc/a", "one").await;
    set(&plane, "b", r#""selector":"""#, "/etc/b", "two").await;
    let read = |name: &str| plane.bench.appliance.ledger.read(|records, _| records.secret(&name.parse().unwrap()));
    let (a, b) = (read("a").unwrap().unwrap(), read("b").unwrap().unwrap());
    plane.change(vec![Change::PutSecret(bennu_rules::secret::Secret { value: b.value, ..a })]).await;
    let base = plane.starts().await;
    let got = Stage1::new().asks(&plane, &base).await;
    assert_eq!(got.status, 503, "a value under another's name");
    assert!(!String::from_utf8_lossy(&got.body).contains("two"));
}

#[tokio::test]
async fn host_keys_are_made_once_a_machine_and_stay_until_it_is_forgotten() {
    let plane = Plane::new().await;
    let path = "/etc/ssh/ssh_host_ed25519_key";
    let mut seen = Vec::new();
    for _ in 0..2 {
        let base = plane.starts().await;
        let files = Stage1::new().opens(&plane, &base).await.files;
        for name in ["ed25519", "ecdsa"] {
            let private = find(&files, &format!("/etc/ssh/ssh_host_{name}_key"));
            let public = find(&files, &format!("/etc/ssh/ssh_host_{name}_key.pub"));
            assert_eq!((private.mode, public.mode, private.optional), (0o600, 0o644, true));
            let pair = PrivateKey::from_openssh(text(private)).unwrap();
            assert_eq!(*pair.public_key(), text(public).trim_end().parse::<PublicKey>().unwrap());
        }
        seen.push(text(find(&files, path)));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(seen[0], seen[1], "the same over boots");
    let shown = plane.bench.get(&format!("/v1/machines/{MAC}")).await;
    let keys: Vec<String> = serde_json::from_value(shown.json()["ssh_host_keys"].clone()).unwrap();
    let own = PrivateKey::from_openssh(&seen[0]).unwrap();
    assert!(
        keys.len() == 2 && keys.iter().any(|key| key.parse::<PublicKey>().unwrap() == *own.public_key()),
        "{keys:?}"
    );
    assert!(!shown.text.contains("PRIVATE") && !plane.bench.get("/v1/machines").await.text.contains("ssh_host_keys"));
    let ledger = std::fs::read(plane.bench.directory.path().join("ledger.redb")).unwrap();
    let line = seen[0].lines().nth(2).unwrap();
    assert!(!ledger.windows(line.len()).any(|bytes| bytes == line.as_bytes()), "no private key lies in the ledger");
    assert!(!ledger.windows(19).any(|bytes| bytes == b"OPENSSH PRIVATE KEY"));

    plane.bench.delete(&format!("/v1/machines/{MAC}")).await;
    plane.change(super::assigned()).await;
    let base = plane.starts().await;
    let files = Stage1::new().opens(&plane, &base).await.files;
    assert_ne!(text(find(&files, path)), seen[0]);
}

fn left_to_images() -> Config {
    Config::parse(&CONFIG.replacen("[boot]", "[boot]\nssh_host_keys = false", 1)).unwrap()
}

#[tokio::test]
async fn host_keys_can_be_left_to_images() {
    let plane = Plane::of(Bench::of(left_to_images())).await;
    let base = plane.starts().await;
    assert!(Stage1::new().opens(&plane, &base).await.files.is_empty());
}

#[tokio::test]
async fn a_documents_file_is_a_secret_that_only_the_session_is_given() {
    let plane = Plane::new().await;
    let put = async |path: &str, body: &str| {
        let got = plane.bench.write(Method::PUT, path, body).await;
        assert_eq!(got.status, 200, "{}", got.text);
    };
    put("/v1/secrets/db", &format!(r#"{{"machine":"{MAC}","value":"{CANARY}"}}"#)).await;
    let files =
        r#"{"files":[{"path":"/etc/app/key","owner":"app","secret":"db"},{"path":"/etc/plain","content":"plain"}]}"#;
    put("/v1/metadata/web", files).await;
    let base = plane.starts().await;
    let plan = plane.ask(Method::GET, &format!("{base}plan.json"), &[], String::new()).await;
    let plan = String::from_utf8(plan.body).unwrap();
    assert!(plan.contains("/etc/plain") && !plan.contains(CANARY) && !plan.contains("/etc/app/key"), "{plan}");
    let stage1 = Stage1::new();
    let files = stage1.opens(&plane, &base).await.files;
    let file = find(&files, "/etc/app/key");
    assert_eq!((text(file).as_str(), file.mode, file.owner.as_str()), (CANARY, 0o600, "app"));
    assert_eq!(Stage1::new().asks(&plane, &base).await.status, 403);
    for path in ["/v1/metadata/web", "/v1/export", "/v1/audit", &format!("/v1/machines/{MAC}/metadata")] {
        assert!(!plane.bench.get(path).await.text.contains(CANARY), "{path}");
    }
    assert_eq!(plane.bench.delete("/v1/secrets/db").await.status, 409, "a document names it");
    put("/v1/secrets/db", &format!(r#"{{"machine":"02:00:00:00:00:99","value":"{CANARY}"}}"#)).await;
    let gone = stage1.asks(&plane, &base).await;
    assert_eq!(gone.status, 503);
    assert!(String::from_utf8_lossy(&gone.body).contains("the secret db, which the metadata document 'web' names"));
}
