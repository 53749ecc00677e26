//! Sessions on the wire.

use super::*;
use bennu_plan::{PROOF, SessionGranted, SessionKey, proved};
use crypto_box::{SecretKey, aead::OsRng};
use ring::hmac;

pub struct Stage1 {
    key: SecretKey,
}

impl Stage1 {
    pub fn new() -> Self {
        Self { key: SecretKey::generate(&mut OsRng) }
    }

    fn request(&self) -> String {
        format!(r#"{{"key":"{}"}}"#, SessionKey(*self.key.public_key().as_bytes()))
    }

    pub async fn asks(&self, plane: &Plane, base: &str) -> Raw {
        plane.ask(Method::POST, &format!("{base}session"), &[], self.request()).await
    }

    pub async fn opens(&self, plane: &Plane, base: &str) -> SessionGranted {
        let got = self.asks(plane, base).await;
        assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
        serde_json::from_slice(&self.key.unseal(&got.body).unwrap()).unwrap()
    }
}

fn proof(granted: &SessionGranted, sequence: u64, body: &str) -> String {
    let SessionKey(secret) = granted.secret.parse().unwrap();
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), &proved(sequence, body.as_bytes()));
    let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{sequence} {hex}")
}

const NETWORK: &str = r#"{"step":"network"}"#;
const UP: &str = r#"{"step":"up"}"#;

async fn reports(plane: &Plane, base: &str, body: &str, proof: Option<&str>) -> u16 {
    let fields: Vec<(&str, &str)> = proof.map(|proof| (PROOF, proof)).into_iter().collect();
    plane.ask(Method::POST, &format!("{base}report"), &fields, body.to_owned()).await.status
}

async fn counted(plane: &Plane, name: &str) -> u64 {
    plane.bench.get("/v1/status").await.json()["counters"][name].as_u64().unwrap()
}

#[tokio::test]
async fn the_first_key_is_told_a_secret_that_another_is_not() {
    let plane = Plane::new().await;
    let base = plane.starts().await;
    let (ours, theirs) = (Stage1::new(), Stage1::new());
    let first = ours.opens(&plane, &base).await;
    assert_eq!(ours.opens(&plane, &base).await, first, "it may ask again");
    assert_eq!(first.boot, plane.boot().await["id"].as_str().unwrap());
    let overheard = ours.asks(&plane, &base).await.body;
    assert!(theirs.key.unseal(&overheard).is_err());
    let refused = theirs.asks(&plane, &base).await;
    assert_eq!(refused.status, 403);
    assert!(String::from_utf8(refused.body).unwrap().contains("another key asked for the secrets"));
    assert_eq!(ours.opens(&plane, &base).await, first, "the owner goes on");

    let boot = plane.boot().await;
    assert!(boot["diagnosis"]["reason"].as_str().unwrap().contains("ALARM"), "{boot}");
    let seen = boot["timeline"].as_array().unwrap().iter().find(|entry| entry["seen"] == "intrusion").unwrap();
    assert_eq!((&seen["attempt"], &seen["address"]), (&"other_key".into(), &"10.77.0.50".into()));
    let status = plane.bench.get("/v1/status").await.json();
    let notice = status["notices"].as_array().unwrap().iter().find(|notice| notice["notice"] == "intrusion").unwrap();
    assert_eq!(notice["machine"], MAC.to_string());
    assert_eq!(counted(&plane, "sessions_refused").await, 1);
    assert!(plane.bench.get("/metrics").await.text.contains("bennu_sessions_refused_total 1\n"));
    for path in ["/v1/status", "/v1/boots", &format!("/v1/boots/{}", first.boot)] {
        assert!(!plane.bench.get(path).await.text.contains(&first.secret), "{path}");
    }
}

#[tokio::test]
async fn reports_are_believed_from_the_session_alone_and_once() {
    let plane = Plane::new().await;
    let base = plane.starts().await;
    assert_eq!(reports(&plane, &base, NETWORK, None).await, 204, "before there is a session");
    let stage1 = Stage1::new();
    let granted = stage1.opens(&plane, &base).await;
    let first = proof(&granted, 7, NETWORK);
    assert_eq!(reports(&plane, &base, NETWORK, Some(&first)).await, 204);
    let bent = format!("{}0", &first[..first.len() - 1]);
    let other = SessionGranted { secret: "07".repeat(32), ..granted.clone() };
    for wrong in [
        None,
        Some(first.as_str()),
        Some(bent.as_str()),
        Some(""),
        Some("8"),
        Some("8 "),
        Some("-1 00"),
        Some(&proof(&other, 8, UP)),
        Some(&proof(&granted, 8, NETWORK)),
        Some(&"9".repeat(4000)),
    ] {
        assert_eq!(reports(&plane, &base, UP, wrong).await, 401, "{wrong:?}");
    }
    let boot = plane.boot().await;
    assert_eq!(boot["state"], "stage1", "{boot}");
    assert_eq!(counted(&plane, "reports_refused").await, 10);
    let crossed = proof(&granted, 6, NETWORK);
    assert_eq!(reports(&plane, &base, NETWORK, Some(&crossed)).await, 204, "the first overtook it");
    assert_eq!(reports(&plane, &base, NETWORK, Some(&crossed)).await, 401, "once");
    assert_eq!(reports(&plane, &base, UP, Some(&proof(&granted, 8, UP))).await, 204);
    assert_eq!(plane.boot().await["state"], "up");
    assert_eq!(stage1.asks(&plane, &base).await.status, 409, "stage 1 is gone");
    assert_eq!(Stage1::new().asks(&plane, &base).await.status, 403);
}

#[tokio::test]
async fn the_next_boot_begins_fresh() {
    let plane = Plane::new().await;
    let old = plane.starts().await;
    let stage1 = Stage1::new();
    let before = stage1.opens(&plane, &old).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let base = plane.starts().await;
    assert_ne!(old, base);
    assert_eq!(stage1.asks(&plane, &old).await.status, 404);
    assert_eq!(reports(&plane, &old, UP, Some(&proof(&before, 9, UP))).await, 404);
    let after = Stage1::new().opens(&plane, &base).await;
    assert_ne!(before.secret, after.secret);
    assert_eq!(reports(&plane, &base, UP, Some(&proof(&before, 9, UP))).await, 401, "the last boot's secret");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_changes_nothing() {
    let plane = Plane::new().await;
    let base = plane.starts().await;
    let path = format!("{base}session");
    let key = "0".repeat(64);
    for (body, status) in [
        (String::new(), 400),
        ("{}".into(), 400),
        ("[]".into(), 400),
        (r#"{"key":7}"#.into(), 400),
        (r#"{"key":"hunter2"}"#.into(), 400),
        (format!(r#"{{"key":"{key}0"}}"#), 400),
        (format!(r#"{{"key":"{key}"}} more"#), 400),
        ("\u{0}".repeat(900), 400),
        (" ".repeat(4 << 20), 413),
    ] {
        let got = plane.ask(Method::POST, &path, &[], body.clone()).await;
        assert_eq!(got.status, status, "{:.80}", body);
        assert!(!String::from_utf8_lossy(&got.body).contains("hunter2"));
    }
    let not_utf8 = plane.ask(Method::POST, &path, &[], vec![0xff; 64]).await;
    assert_eq!(not_utf8.status, 400);
    assert_eq!(plane.ask(Method::GET, &path, &[], "").await.status, 405);
    for token in ["0".repeat(32), "x".into(), "%00".into(), "é".repeat(9)] {
        let path = format!("/boot/{}/session", token.replace('é', "%C3%A9"));
        let got = plane.ask(Method::POST, &path, &[], format!(r#"{{"key":"{key}"}}"#)).await;
        assert_eq!(got.status, 404, "{token}");
    }
    let boot = plane.boot().await;
    assert!(boot["diagnosis"].is_null() && !boot.to_string().contains("session"), "{boot}");
    Stage1::new().opens(&plane, &base).await;
}
