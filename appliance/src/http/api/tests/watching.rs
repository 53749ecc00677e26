//! Boots, events, leases and the appliance's own state.

use super::*;
use bennu_plan::Step;
use bennu_rules::{
    Change, Decision, Timestamp,
    lease::{Lease, LeaseKey},
};

const MAC: &str = "52:54:00:00:00:01";

fn failed() -> Seen {
    Seen::Reported { step: Step::Failed, message: "the root's digest is wrong".into(), progress: 0 }
}

#[tokio::test]
async fn a_boot_shows_what_was_seen_and_why_it_failed_but_never_its_token() {
    let bench = Bench::new();
    let boot = bench.boot(MAC, vec![discover(), failed()]).await;
    let token = bennu_rules::boot::Token("5ec2e7".repeat(5));
    bench
        .appliance
        .ledger
        .decide(
            Boot { token: Some(token.clone()), ..bench.appliance.ledger.boot(&boot.id).unwrap().unwrap() },
            |boot, _, _| Decision { volatile: vec![Volatile::PutBoot(boot.clone())], ..Decision::just(()) },
        )
        .await
        .unwrap();
    let got = bench.get(&format!("/v1/boots/{}", boot.id)).await;
    let shown = got.json();
    assert_eq!((shown["state"].as_str(), shown["timeline"].as_array().unwrap().len()), (Some("failed"), 2));
    assert_eq!(shown["timeline"][0]["text"], "DHCP discover from pxe (architecture 7)");
    assert_eq!(shown["diagnosis"]["reason"], "the root's digest is wrong");
    assert!(!got.text.contains(&token.0));
    let listed = bench.get(&format!("/v1/machines/{MAC}/boots")).await.json();
    assert_eq!(listed["items"][0]["id"], boot.id.0.as_str());
    let parsed: crate::http::api::boots::BootShown = serde_json::from_str(&got.text).unwrap();
    assert_eq!(parsed.timeline.len(), 2, "the command line reads what the API writes");
}

#[tokio::test]
async fn a_machine_is_listed_with_the_state_of_its_last_boot() {
    let bench = Bench::new();
    bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), "{}").await;
    bench.write(Method::PATCH, "/v1/machines/52:54:00:00:00:02", "{}").await;
    bench.boot(MAC, vec![discover(), failed()]).await;
    let items = bench.get("/v1/machines").await.json()["items"].clone();
    assert_eq!((&items[0]["last_boot"]["state"], &items[1]["last_boot"]), (&"failed".into(), &Value::Null));
    let status = bench.get("/v1/status").await.json();
    assert_eq!(status["machines_by_state"], serde_json::json!({"failed": 1, "never": 1}));
    assert_eq!(status["interfaces"][0]["network"], "10.77.0.0/24");
    assert!(status["memory"].as_u64().unwrap() > 1 << 20);
}

/// Reads server-sent events until `count` of them have come.
async fn events(body: Body, count: usize) -> String {
    let mut body = body;
    let mut text = String::new();
    let reading = async {
        while text.matches("\n\n").count() < count {
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reading).await.expect("events come");
    text
}

#[tokio::test]
async fn events_come_as_they_happen_and_again_to_who_was_away() {
    let bench = Bench::new();
    let follow = |last: Option<&str>| {
        let mut request = Request::get(format!("/v1/events?machine={MAC}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        bench.router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let response = follow(None).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    bench.boot("52:54:00:00:00:09", vec![discover()]).await;
    let boot = bench.boot(MAC, vec![discover(), failed()]).await;
    let text = events(response.into_body(), 2).await;
    assert!(
        text.contains("event: boot") && text.contains(&boot.id.0) && text.contains(r#""state":"failed""#),
        "{text}"
    );
    assert!(!text.contains("00:00:09"), "another machine's");
    let again = events(follow(Some("1")).await.unwrap().into_body(), 3).await;
    assert!(again.contains("event: lost"), "{again}");
    assert!(again.contains(r#""seen":"dhcp_discover""#) && again.contains(r#""seen":"reported""#), "{again}");
    let first = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let rest = events(follow(Some(first)).await.unwrap().into_body(), 1).await;
    assert!(
        rest.contains(r#""seen":"reported""#) && !rest.contains("dhcp_discover"),
        "only what came after it: {rest}"
    );
    assert_eq!(follow(Some("nonsense")).await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn notices_come_again_to_who_was_away() {
    let bench = Bench::new();
    let follow = |last: Option<String>| {
        let mut request = Request::get("/v1/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        bench.router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let response = follow(None).await.unwrap();
    for interface in ["a", "b", "c"] {
        bench.appliance.ledger.notice(bennu_rules::notice::Notice::InterfaceLost { interface: interface.into() });
    }
    let text = events(response.into_body(), 3).await;
    let first = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let again = events(follow(Some(first)).await.unwrap().into_body(), 2).await;
    assert!(again.contains(r#""interface":"b""#) && again.contains(r#""interface":"c""#), "{again}");
    assert!(!again.contains(r#""interface":"a""#), "{again}");
}

#[tokio::test]
async fn leases_tell_their_machine() {
    let bench = Bench::new();
    bench.write(Method::PATCH, &format!("/v1/machines/{MAC}"), r#"{"join":["52:54:00:00:00:02"]}"#).await;
    let lease = Lease {
        key: LeaseKey { subnet: "10.77.0.0/24".parse().unwrap(), mac: "52:54:00:00:00:02".parse().unwrap() },
        address: "10.77.0.50".parse().unwrap(),
        granted: Timestamp(0),
        expires: Timestamp(u64::MAX),
        hostname: Some("web1".into()),
        declined: false,
    };
    let put = |lease: &Lease, _: &bennu_rules::View<'_>, _: &bennu_rules::Moment| Decision {
        changes: vec![Change::PutLease(lease.clone())],
        ..Decision::just(())
    };
    bench.appliance.ledger.decide(lease, put).await.unwrap();
    let listed = bench.get("/v1/leases").await.json()["items"].clone();
    assert_eq!((&listed[0]["machine"], &listed[0]["active"]), (&MAC.into(), &true.into()));
    assert_eq!(listed[0]["address"], "10.77.0.50");
}

#[tokio::test]
async fn metrics_and_health_are_told() {
    let bench = Bench::new();
    Counters::count(&bench.appliance.counters.dhcp_received);
    let metrics = bench.get("/metrics").await.text;
    for line in ["bennu_dhcp_received_total 1", "bennu_images 0", "# TYPE bennu_machines gauge"] {
        assert!(metrics.lines().any(|there| there == line), "{line} in\n{metrics}");
    }
    assert_eq!(bench.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(bench.get("/readyz").await.status, StatusCode::OK);
    bench.appliance.shutdown.cancel();
    assert_eq!(bench.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
}
