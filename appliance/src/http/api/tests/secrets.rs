//! Secrets: set, listed and removed, and told to nobody.

use super::*;
use serde_json::json;

const CANARY: &str = "hunter2-canary";

fn body(more: Value) -> String {
    let mut body = json!({"selector": "role=web", "path": "/etc/app/key", "value": CANARY});
    for (key, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(key)),
            value => body[key] = value.clone(),
        }
    }
    body.to_string()
}

#[tokio::test]
async fn a_secret_is_set_listed_and_removed_and_never_answered() {
    let bench = Bench::new();
    let set = bench.write(Method::PUT, "/v1/secrets/db", &body(json!({"mode": "0440", "owner": "app:app"}))).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let listed = bench.get("/v1/secrets").await;
    let item = listed.json()["items"][0].clone();
    assert_eq!(
        (&item["name"], &item["selector"], &item["path"]),
        (&json!("db"), &json!("role=web"), &json!("/etc/app/key"))
    );
    assert_eq!((&item["mode"], &item["owner"]), (&json!("0440"), &json!("app:app")));
    let again = bench
        .write(Method::PUT, "/v1/secrets/db", &body(json!({"selector": null, "machine": "52:54:00:00:00:01"})))
        .await;
    assert_eq!(again.json()["machine"], "52:54:00:00:00:01");
    for path in ["/v1/secrets", "/v1/secrets/db", "/v1/status", "/metrics", "/v1/machines", "/v1/boots", "/v1/audit"] {
        let got = bench.get(path).await;
        assert!(got.status.is_success() && !got.text.contains(CANARY), "{path}: {}", got.text);
    }
    let audited = bench.get("/v1/audit").await.text;
    assert!(audited.contains("/etc/app/key") && audited.contains("secret"), "who set it is on record: {audited}");
    assert!(!set.text.contains(CANARY) && !again.text.contains(CANARY));
    let ledger = std::fs::read(bench.directory.path().join("ledger.redb")).unwrap();
    let has = |needle: &[u8]| ledger.windows(needle.len()).any(|bytes| bytes == needle);
    assert!(has(b"/etc/app/key"), "the record is there");
    assert!(!has(CANARY.as_bytes()) && !has(b"aHVudGVyMi1jYW5hcn"), "and what it is is not");
    assert_eq!(bench.delete("/v1/secrets/db").await.status, 204);
    assert_eq!(bench.delete("/v1/secrets/db").await.status, 404);
    assert_eq!(bench.get("/v1/secrets/db").await.status, 404);
}

#[tokio::test]
async fn what_is_no_secret_is_refused_without_a_word_of_it() {
    let bench = Bench::new();
    let long = "x".repeat(33 << 10);
    for (body, status, pointer) in [
        (CANARY.to_owned(), 400, None),
        (json!(CANARY).to_string(), 400, None),
        (json!([CANARY]).to_string(), 400, None),
        (body(json!({"machine": CANARY})), 400, None),
        (body(json!({"valeu": CANARY})), 400, None),
        (body(json!({"selector": "role in (hunter2-canary"})), 400, None),
        (body(json!({"selector": "bennu.manufacturer=Acme"})), 422, Some("/selector")),
        (body(json!({"selector": null})), 422, Some("/selector")),
        (body(json!({"machine": "52:54:00:00:00:01"})), 422, Some("/selector")),
        (body(json!({"path": null, "mode": "0600"})), 422, Some("/path")),
        (body(json!({"path": "etc/key"})), 422, Some("/path")),
        (body(json!({"path": "/etc/../key"})), 422, Some("/path")),
        (body(json!({"mode": CANARY})), 422, Some("/mode")),
        (body(json!({"mode": "7777"})), 422, Some("/mode")),
        (body(json!({"owner": "a:b:c"})), 422, Some("/owner")),
        (body(json!({"value": ""})), 422, Some("/value")),
        (body(json!({"value": null})), 422, Some("/value")),
        (body(json!({"value_base64": "aGk="})), 422, Some("/value")),
        (body(json!({"value": null, "value_base64": CANARY})), 422, Some("/value_base64")),
        (body(json!({"value": long})), 422, Some("/value")),
        (body(json!({"value": "x".repeat(128 << 10)})), 413, None),
    ] {
        let got = bench.write(Method::PUT, "/v1/secrets/db", &body).await;
        assert_eq!(got.status, status, "{body:.120}: {}", got.text);
        assert!(!got.text.contains(CANARY), "{}", got.text);
        if let Some(pointer) = pointer {
            assert_eq!(got.json()["pointer"], pointer, "{body:.120}");
        }
    }
    for name in ["..", "a%2Fb", "-x", "%00", &"n".repeat(64)] {
        let got = bench.write(Method::PUT, &format!("/v1/secrets/{name}"), &body(json!({}))).await;
        assert_eq!(got.status, 400, "{name}: {}", got.text);
    }
    assert_eq!(bench.get("/v1/secrets").await.json()["items"], json!([]));
}

#[test]
fn only_administrators_handle_secrets() {
    use bennu_rules::access::needed;
    use bennu_rules::token::Scope;
    for (method, path) in [("GET", "/v1/secrets"), ("PUT", "/v1/secrets/db"), ("DELETE", "/v1/secrets/db")] {
        assert_eq!(needed(method, path), [Scope::Admin], "{method} {path}");
    }
}
