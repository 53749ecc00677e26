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
        (r#"{"name":"x"}"#, 400, "scopes"),
        (r#"{"name":"x","role":"read"}"#, 400, "role"),
        (r#"{"name":"x","scopes":["read"],"secret":"a"}"#, 400, "secret"),
    ] {
        let got = make(body).await;
        assert_eq!(got.status.as_u16(), status, "{body}: {}", got.text);
        assert!(got.text.contains(says), "{body}: {}", got.text);
    }
    assert_eq!(bench.delete("/v1/tokens/ci").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.get("/v1/tokens").await.json()["items"].as_array().unwrap().len(), 1);
}
