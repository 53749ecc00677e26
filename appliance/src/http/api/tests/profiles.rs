//! Hardware profiles and roles, one by one.

use super::*;

#[tokio::test]
async fn a_profile_is_kept_seen_and_removed_by_itself() {
    let bench = Bench::new();
    let body = r#"{"match":{"manufacturer":"Acme"},"settings":{"arguments":"acme"}}"#;
    let put = bench.write(Method::PUT, "/v1/profiles/Acme%201", body).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text);
    let shown = bench.get("/v1/profiles/Acme%201").await;
    assert_eq!((&shown.json()["name"], &shown.json()["built_in"]), (&"Acme 1".into(), &false.into()));
    let facts = bennu_rules::facts::Facts { manufacturer: Some("ACME".into()), ..Default::default() };
    let known = |bench: &Bench| bench.appliance.ledger.settings().profile(&facts).map(|found| found.name.to_string());
    assert_eq!(known(&bench).as_deref(), Some("Acme 1"));
    for (body, says) in [
        (r#"{"match":{}}"#, "/match"),
        (r#"{"match":{"product":"x"},"settings":{"uefi_loader":"../x"}}"#, "/settings/uefi_loader"),
        (r#"{"match":{"product":"x"},"name":"y"}"#, "name"),
    ] {
        let got = bench.write(Method::PUT, "/v1/profiles/x", body).await;
        assert!(got.status.is_client_error() && got.text.contains(says), "{body}: {}", got.text);
    }
    assert_eq!(bench.delete("/v1/profiles/Acme%201").await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.delete("/v1/profiles/Acme%201").await.status, StatusCode::NOT_FOUND);
    assert_eq!(known(&bench), None);
}

#[tokio::test]
async fn a_role_changes_its_tokens_and_stays_while_they_do() {
    let bench = Bench::new();
    let put = async |body: &str| bench.write(Method::PUT, "/v1/roles/builder", body).await;
    assert_eq!(put(r#"{"scopes":["read","images"],"expires_in_days":9}"#).await.status, StatusCode::OK);
    let made = bench.write(Method::POST, "/v1/tokens", r#"{"name":"ci","role":"builder"}"#).await.json();
    assert_eq!(put(r#"{"scopes":["read"]}"#).await.status, StatusCode::OK);
    assert_eq!(bench.get("/v1/tokens").await.json()["items"][0]["scopes"], serde_json::json!(["read"]));
    let kept = bench.delete("/v1/roles/builder").await;
    assert!(kept.status == StatusCode::CONFLICT && kept.text.contains("ci"), "{}", kept.text);
    assert_eq!(put(r#"{"scopes":[]}"#).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    bench.delete(&format!("/v1/tokens/{}", made["id"].as_str().unwrap())).await;
    assert_eq!(bench.delete("/v1/roles/builder").await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("/v1/roles/builder").await.status, StatusCode::NOT_FOUND);
}
