use super::*;

impl Bench {
    async fn keyed(&self, method: Method, path: &str, key: &str, body: &str) -> Got {
        let request = Request::builder().method(method).uri(path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

#[tokio::test]
async fn a_token_is_made_once_and_told_again() {
    let bench = Bench::new();
    let body = r#"{"name":"ci","scopes":["read"]}"#;
    let first = bench.keyed(Method::POST, "/v1/tokens", "\"k1\"", body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = bench.keyed(Method::POST, "/v1/tokens", "k1", body).await;
    assert_eq!((again.status, &again.text), (StatusCode::CREATED, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["cache-control"], "no-store");
    assert_eq!(bench.get("/v1/tokens").await.json()["items"].as_array().unwrap().len(), 1);

    let other = bench.keyed(Method::POST, "/v1/tokens", "k1", r#"{"name":"cd","scopes":["read"]}"#).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text);
    assert_eq!(other.json()["type"], "urn:bennu:problem:unprocessable");
    assert_eq!(bench.keyed(Method::POST, "/v1/tokens", "a b", body).await.status, StatusCode::BAD_REQUEST);
    // Under another key it is another request.
    assert_eq!(bench.keyed(Method::POST, "/v1/tokens", "k2", body).await.status, StatusCode::CONFLICT);
    let again = bench.keyed(Method::POST, "/v1/tokens", "k2", body).await;
    assert_eq!((again.status, again.headers.contains_key("idempotency-replayed")), (StatusCode::CONFLICT, true));
}

#[tokio::test]
async fn a_repeated_rollback_goes_one_step_back() {
    let bench = Bench::new();
    let mut digests = Vec::new();
    for seed in 1..=3 {
        digests.push(bench.import("web:v", seed).await["digest"].clone());
    }
    for _ in 0..3 {
        let got = bench.keyed(Method::POST, "/v1/tags/web:v", "back", r#"{"do":"rollback"}"#).await;
        assert_eq!((got.status, &got.json()["digest"]), (StatusCode::OK, &digests[1]), "{}", got.text);
    }
    let got = bench.write(Method::POST, "/v1/tags/web:v", r#"{"do":"rollback"}"#).await;
    assert_eq!(got.json()["digest"], digests[0], "without a key it is repeated");
}

#[tokio::test]
async fn while_a_request_is_carried_out_it_is_not_begun_again_and_it_outlives_its_client() {
    let bench = Bench::new();
    bench.import("web:v", 1).await;
    bench.import("web:v", 2).await;
    // A rollback waits for this lock.
    let settling = bench.appliance.registry.settling.lock().await;
    let request = || {
        let request = Request::post("/v1/tags/web:v").header("idempotency-key", "k");
        request.body(Body::from(r#"{"do":"rollback"}"#)).unwrap()
    };
    let first = tokio::time::timeout(std::time::Duration::from_millis(200), bench.send(request())).await;
    assert!(first.is_err(), "it waits, and its client goes away");
    let second = bench.send(request()).await;
    assert_eq!((second.status, second.headers.contains_key("idempotency-replayed")), (StatusCode::CONFLICT, false));
    drop(settling);
    let third = loop {
        let got = bench.send(request()).await;
        if got.status != StatusCode::CONFLICT {
            break got;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!((third.status, third.headers.contains_key("idempotency-replayed")), (StatusCode::OK, true));
    assert_eq!(third.json()["history"].as_array().unwrap().len(), 3, "{}", third.text);
}
