use super::*;

#[tokio::test]
async fn a_token_is_shown_once_and_kept_by_its_digest() {
    let bench = Bench::new();
    let made = bench
        .write(Method::POST, "/v1/tokens", r#"{"name":"ci","scopes":["read","images"],"expires_in_days":30}"#)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.headers["cache-control"], "no-store");
    let made = made.json();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert!(token.starts_with(&format!("bnu_{id}_")) && token.len() == 4 + 8 + 1 + 64, "{token}");
    assert_eq!(
        (&made["scopes"], &made["by"], &made["expired"]),
        (&serde_json::json!(["read", "images"]), &"local".into(), &false.into())
    );
    let lasts = made["expires"].as_u64().unwrap() - made["created"].as_u64().unwrap();
    assert_eq!(lasts, 30 * 86_400_000);

    let listed = bench.get("/v1/tokens").await;
    assert_eq!(listed.json()["items"][0]["id"], id);
    assert!(!listed.text.contains("secret") && !listed.text.contains(&token[13..]), "{}", listed.text);

    let path = format!("/v1/tokens/{id}");
    assert_eq!(bench.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/v1/tokens").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn what_cannot_be_a_token_is_refused_with_what_to_do() {
    let bench = Bench::new();
    let make = |body: &'static str| bench.write(Method::POST, "/v1/tokens", body);
    assert_eq!(make(r#"{"name":"ci","scopes":["read"]}"#).await.status, StatusCode::CREATED);
    for (body, status, says) in [
        (r#"{"name":"ci","scopes":["admin"]}"#, 409, "bennu token revoke"),
        (r#"{"name":"x","scopes":["root"]}"#, 400, "write read, assign, images, power or admin"),
        (r#"{"name":"x","scopes":[]}"#, 422, "can do nothing"),
        (r#"{"name":"x","scopes":["read"],"limit":"rack=r1,"}"#, 400, "/limit"),
        (r#"{"name":"x","scopes":["images"],"limit":"rack=r1"}"#, 422, "more than machines"),
        (r#"{"name":"x","scopes":["read"],"limit":"bennu.manufacturer=Dell"}"#, 422, "hardware"),
        (r#"{"name":"a b","scopes":["read"]}"#, 400, "is not a token's name"),
        (r#"{"name":"x","scopes":["read"],"expires_in_days":0}"#, 422, "write 1 to 3650 days"),
        (r#"{"name":"x"}"#, 422, "can do nothing"),
        (r#"{"name":"x","role":"read"}"#, 404, "there is no role 'read'"),
        (r#"{"name":"x","role":"a b"}"#, 400, "/role"),
        (r#"{"name":"x","scopes":["read"],"secret":"a"}"#, 400, "secret"),
    ] {
        let got = make(body).await;
        assert_eq!(got.status.as_u16(), status, "{body}: {}", got.text);
        assert!(got.text.contains(says), "{body}: {}", got.text);
    }
    assert_eq!(bench.delete("/v1/tokens/ci").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.get("/v1/tokens").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tokens_role_says_what_it_may_and_a_profile_counts_at_once() {
    let bench = Bench::new();
    let apply = async |documents: &str| {
        let body = format!(r#"{{"documents":[{documents}]}}"#);
        bench.write(Method::POST, "/v1/apply", &body).await
    };
    let role = r#"{"kind":"Role","name":"builder","scopes":["read","images"],"expires_in_days":9}"#;
    let profile =
        r#"{"kind":"Profile","name":"Acme 1","match":{"manufacturer":"Acme"},"settings":{"arguments":"acme"}}"#;
    assert_eq!(apply(&format!("{role},{profile}")).await.status, StatusCode::OK);
    let roles = bench.get("/v1/roles").await.json();
    assert_eq!(roles["items"][0]["name"], "builder");
    let both = bench.write(Method::POST, "/v1/tokens", r#"{"name":"ci","role":"builder","scopes":["admin"]}"#).await;
    assert!(both.status == StatusCode::UNPROCESSABLE_ENTITY && both.text.contains("leave out"), "{}", both.text);
    let made = bench.write(Method::POST, "/v1/tokens", r#"{"name":"ci","role":"builder"}"#).await.json();
    assert_eq!((&made["scopes"], &made["role"]), (&serde_json::json!(["read", "images"]), &"builder".into()));
    apply(r#"{"kind":"Role","name":"builder","scopes":["read"]}"#).await;
    let listed = bench.get("/v1/tokens").await.json();
    assert_eq!(listed["items"][0]["scopes"], serde_json::json!(["read"]), "{listed}");
    assert_eq!(listed["items"][0]["expires"], made["expires"]);

    let profiles = bench.get("/v1/profiles").await.json();
    let first = &profiles["items"][0];
    assert_eq!((&first["name"], &first["built_in"]), (&"Acme 1".into(), &false.into()), "{profiles}");
    let facts = bennu_rules::facts::Facts { manufacturer: Some("ACME".into()), ..Default::default() };
    let known = bench.appliance.ledger.settings();
    assert_eq!(known.profile(&facts).map(|profile| profile.settings.arguments.as_str()), Some("acme"));
    let pruned = bench.write(Method::POST, "/v1/apply", r#"{"documents":[],"prune":["Profile"]}"#).await;
    assert_eq!(pruned.json()["steps"][0]["action"], "remove");
    assert_eq!(bench.appliance.ledger.settings().profile(&facts), None);
}
