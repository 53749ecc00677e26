use super::*;
use std::time::Duration;

const MAC: &str = "52:54:00:00:00:01";

#[tokio::test]
async fn every_write_is_on_record_with_what_it_changed() {
    let bench = Bench::new();
    bench.import("web:v1", 1).await;
    let machine = format!("/v1/machines/{MAC}");
    bench.write(Method::PUT, &format!("{machine}/assignment"), r#"{"image":"web:v1"}"#).await;
    bench.write(Method::PATCH, &machine, r#"{"labels":{"rack":"r1"}}"#).await;
    bench.write(Method::PATCH, &machine, r#"{"labels":{"rack":"r1"}}"#).await;
    assert_eq!(bench.delete("/v1/images/web:v1").await.status, StatusCode::CONFLICT, "a refusal writes nothing");
    bench.delete(&machine).await;
    bench.delete("/v1/images/web:v1").await;
    let items = bench.get("/v1/audit").await.json()["items"].clone();
    let did = |record: &Value| {
        let name = record["target"].as_str().unwrap();
        format!("{} {}", record["action"].as_str().unwrap(), name.split(" sha256:").next().unwrap())
    };
    let done: Vec<String> = items.as_array().unwrap().iter().map(did).collect();
    let (machine_was, labelled) = (&items[2], &items[3]);
    assert_eq!(
        done,
        [
            "removed image",
            "removed tag web:v1",
            &format!("removed machine {MAC}"),
            &format!("changed machine {MAC}"),
            &format!("created machine {MAC}"),
            "created tag web:v1",
            "created image",
        ]
    );
    assert_eq!(labelled["before"]["labels"], serde_json::json!({}));
    assert_eq!(labelled["after"]["labels"]["rack"], "r1");
    assert_eq!(
        (labelled["request"].as_str(), &labelled["from"]),
        (Some("PATCH /v1/machines/52:54:00:00:00:01"), &"socket".into())
    );
    assert_eq!((&machine_was["after"], &machine_was["before"]["assignment"]), (&Value::Null, &"web:v1".into()));
    assert_eq!(bench.get("/v1/audit/4").await.json(), *labelled, "and by its number");
    let verified = bench.get("/v1/audit/verify").await.json();
    assert_eq!((&verified["intact"], &verified["records"]), (&true.into(), &7.into()));
}

#[tokio::test]
async fn the_log_is_paged_and_filtered() {
    let bench = Bench::new();
    for rack in 0..5 {
        for mac in [MAC, "52:54:00:00:00:02"] {
            let body = format!(r#"{{"labels":{{"rack":"r{rack}"}}}}"#);
            bench.write(Method::PATCH, &format!("/v1/machines/{mac}"), &body).await;
        }
    }
    let numbers = |got: &Got| -> Vec<u64> {
        got.json()["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect()
    };
    let page = bench.get("/v1/audit?limit=4").await;
    assert_eq!((numbers(&page), page.json()["next"].as_str()), (vec![10, 9, 8, 7], Some("7")));
    assert_eq!(numbers(&bench.get("/v1/audit?limit=4&after=7").await), [6, 5, 4, 3]);
    let last = bench.get("/v1/audit?limit=4&after=3").await;
    assert_eq!((numbers(&last), &last.json()["next"]), (vec![2, 1], &Value::Null));
    assert_eq!(numbers(&bench.get(&format!("/v1/audit?machine={MAC}")).await), [9, 7, 5, 3, 1]);
    assert_eq!(numbers(&bench.get("/v1/audit?target=52:54:00:00:00:02&limit=1").await), [10]);
    assert_eq!(numbers(&bench.get(&format!("/v1/audit?target=machine%20{MAC}&limit=1")).await), [9]);
    assert_eq!(numbers(&bench.get("/v1/audit?who=local&limit=2").await), [10, 9]);
    assert!(numbers(&bench.get("/v1/audit?who=ci").await).is_empty());
    assert!(numbers(&bench.get("/v1/audit?since=99999999999999").await).is_empty());
    for wrong in ["?limit=x", "?after=-1", "?machine=zz", "?since=soon", "?what=7", "/verify?head=abc", "/x", "/0x1"] {
        assert_eq!(bench.get(&format!("/v1/audit{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(bench.get("/v1/audit/11").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/v1/audit/0").await.status, StatusCode::NOT_FOUND);
    let export = bench.get("/v1/audit/export").await;
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    assert_eq!(export.text.lines().count(), 10);
}

#[tokio::test]
async fn no_secret_of_a_token_is_on_record() {
    let bench = Bench::new();
    let made = bench.write(Method::POST, "/v1/tokens", r#"{"name":"ci","scopes":["read","images"]}"#).await.json();
    let token = made["token"].as_str().unwrap();
    let bearer = bennu_rules::token::Bearer::parse(token).unwrap();
    let log = bench.get("/v1/audit/export").await.text;
    assert!(log.contains(r#""name":"ci""#), "{log}");
    let kept = access::digest_of(&bearer.secret);
    assert!(!log.contains(&token[13..]) && !log.contains(&kept.hex()), "{log}");
}

#[tokio::test]
async fn writes_are_told_as_they_happen() {
    let bench = Bench::new();
    let request = Request::get("/v1/events").body(Body::empty()).unwrap();
    let mut body = bench.router.clone().oneshot(request).await.unwrap().into_body();
    bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), r#"{"labels":{"rack":"r1"}}"#).await;
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    assert!(text.contains("event: audit") && text.contains(&format!("machine {MAC}")), "{text}");
}
