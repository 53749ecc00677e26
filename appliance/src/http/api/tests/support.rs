//! A support bundle is useful, and tells no secret.

use super::{appliance::first_process, *};
use crate::support::{Contents, Memory, check};
use bennu_rules::{Change, boot::Token};
use http_body_util::BodyExt;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
};

const CANARY: &str = "hunter2-canary";
const BOOT_TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const KEY: &str = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";
const MAC: &str = "52:54:00:00:00:01";

async fn taken(bench: &Bench) -> Vec<u8> {
    let request = Request::get("/v1/support").body(Body::empty()).unwrap();
    let answer = bench.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/zstd");
    answer.into_body().collect().await.unwrap().to_bytes().to_vec()
}

fn unpacked(bundle: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(bundle).unwrap());
    let read = |entry: std::io::Result<tar::Entry<_>>| {
        let mut entry: tar::Entry<'_, zstd::Decoder<'_, _>> = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Every kind of secret, and what people write where it does not belong; it returns what no bundle may hold.
async fn with_canaries(bench: &Bench) -> Vec<String> {
    let put = async |method: Method, path: &str, body: Value| {
        let got = bench.write(method, path, &body.to_string()).await;
        assert!(got.status.is_success(), "{path}: {}", got.text);
        got
    };
    put(Method::PUT, "/v1/secrets/db", json!({"selector": "role=web", "path": "/etc/key", "value": CANARY})).await;
    put(Method::PATCH, &format!("/v1/machines/{MAC}"), json!({"labels": {"role": "web"}})).await;
    let arguments = json!({"arguments": format!("console=ttyS0 root.password={CANARY}")});
    put(Method::PATCH, &format!("/v1/machines/{MAC}"), arguments).await;
    put(Method::PUT, "/v1/metadata/web", json!({"user_data": format!("#cloud-config\nhashed: {CANARY}")})).await;
    let token = put(Method::POST, "/v1/tokens", json!({"name": "ci", "scopes": ["admin"]})).await.json();
    let token = token["token"].as_str().unwrap().to_owned();
    let bearer = bennu_rules::token::Bearer::parse(&token).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &bearer.secret);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let state = bench.directory.path();
    fs::write(state.join("secrets.key"), KEY).unwrap();
    fs::create_dir_all(state.join("tls")).unwrap();
    fs::write(state.join("tls/key.pem"), CANARY).unwrap();
    let boot = bench.boot(MAC, vec![discover()]).await;
    bench
        .record(Boot { token: Some(Token(BOOT_TOKEN.into())), ..boot }, |boot, _, _| bennu_rules::Decision {
            changes: vec![Change::PutBoot(boot.clone())],
            ..bennu_rules::Decision::just(())
        })
        .await;
    let pem = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----");
    let said = format!(
        "a line of the service\nGET /boot/{BOOT_TOKEN}/plan.json\nAuthorization: Bearer {token}\n{pem}\n\
         from https://ci:{CANARY}@10.0.0.1/x with token={CANARY}\nthe last line\n"
    );
    Memory.write_all(said.as_bytes()).unwrap();
    let secret = token.rsplit('_').next().unwrap().to_owned();
    vec![CANARY.into(), "aHVudGVyMi1jYW5hcn".into(), BOOT_TOKEN.into(), KEY.into(), token, secret, hex(digest.as_ref())]
}

fn config() -> Config {
    Config::parse(&format!("{CONFIG}\n# the password of the switch is {CANARY}\n[host]\nhostname = \"rack\"\n"))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_tells_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("init.sock");
    first_process(&socket);
    let bench = Bench::with_door(config(), Door::at(&socket));
    let canaries = with_canaries(&bench).await;
    let parts = unpacked(&taken(&bench).await);
    for (name, content) in &parts {
        let text = String::from_utf8_lossy(content);
        for canary in &canaries {
            assert!(!text.contains(canary.as_str()), "{name} holds {canary}: {text}");
            assert!(!name.contains(canary.as_str()), "{name}");
        }
    }
    let text = |name: &str| String::from_utf8_lossy(&parts[name]).into_owned();
    let said = text("log/service.log");
    assert!(said.contains("GET /boot/[removed]/plan.json") && said.contains("the last line"), "{said}");
    assert!(text("audit/1.json").contains("[left out]") && text("events.ndjson").contains("metadata web"));
    assert!(text("log/appliance.log").contains("psk=[removed]"));
    assert!(text("machines/1.json").contains("root.password=[removed]"), "{}", text("machines/1.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_whole_and_each_part_can_be_read() {
    let bench = Bench::of(config());
    with_canaries(&bench).await;
    bench.import("web:v1", 1).await;
    let bundle = taken(&bench).await;
    let parts = unpacked(&bundle);
    for name in [
        "about.json",
        "status.json",
        "machines/1.json",
        "leases/1.json",
        "images/1.json",
        "rules/1.json",
        "profiles/1.json",
        "backups.json",
        "audit/1.json",
        "boots/1.json",
        "doctor.json",
        "host/interfaces.json",
        "host/disk.json",
    ] {
        let value: Value = serde_json::from_slice(parts.get(name).unwrap_or_else(|| panic!("no {name}"))).unwrap();
        assert!(value.is_array() || value.is_object(), "{name}: {value}");
    }
    let json = |name: &str| serde_json::from_slice::<Value>(&parts[name]).unwrap();
    let text = |name: &str| String::from_utf8_lossy(&parts[name]).into_owned();
    assert_eq!(json("machines/1.json")["items"][0]["id"], MAC);
    assert_eq!(json("images/1.json")["items"].as_array().unwrap().len(), 1);
    let id = json("boots/1.json")["items"][0]["id"].as_str().unwrap().to_owned();
    assert!(!json(&format!("boot/{id}.json"))["timeline"].as_array().unwrap().is_empty());
    assert!(json("doctor.json").as_array().unwrap().iter().any(|finding| finding["check"] == "clock"));
    assert_eq!(json("about.json")["version"], env!("CARGO_PKG_VERSION"));
    let config = Config::parse(&text("bennu.toml"));
    assert_eq!(config.unwrap().interfaces, ["boot0"], "the configuration in use can be used");
    assert!(text("metrics.txt").lines().any(|line| line.starts_with("bennu_")));
    for line in text("events.ndjson").lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    assert!(text("events.ndjson").lines().count() > 3);
    assert!(text("host/proc/self/limits").contains("open files") && text("host/proc/net/dev").contains("lo"));
    let contents: Contents = serde_json::from_slice(&parts["contents.json"]).unwrap();
    assert_eq!(contents.parts.len() + 1, parts.len());
    assert!(contents.missing.iter().any(|missing| missing.name == "appliance.json"), "there is no disc");
    assert_eq!(check(&bundle[..]).unwrap().parts, contents.parts);
    for cut in [0, 1, 100, bundle.len() / 2, bundle.len() - 1] {
        assert!(check(&bundle[..cut]).is_none(), "cut at {cut}");
    }
    let record = bench.get("/v1/audit").await.json()["items"][0].clone();
    assert_eq!(record["after"]["what"], "hand out a support bundle", "{record}");
}
