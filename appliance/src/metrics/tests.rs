use super::*;
use crate::http::api::tests::{Bench, discover};
use bennu_plan::Step;
use bennu_rules::journey::ScriptKind;
use std::{path::PathBuf, process::Command, time::Duration};

const MAC: &str = "52:54:00:00:00:01";

fn reported(step: Step) -> Seen {
    Seen::Reported { step, message: String::new(), progress: 0 }
}

/// Waits for a line of /metrics: boots are counted when they are next written.
async fn shows(bench: &Bench, line: &str) {
    for _ in 0..100 {
        if bench.get("/metrics").await.text.lines().any(|there| there == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{line} in\n{}", bench.get("/metrics").await.text);
}

fn flushed(bench: &Bench) {
    let (ledger, stop) = (bench.appliance.ledger.clone(), bench.appliance.shutdown.clone());
    tokio::spawn(async move { ledger.keep_flushing(stop).await });
}

#[tokio::test]
async fn a_boot_is_counted_once_for_what_it_came_to_with_its_stages() {
    let bench = Bench::new();
    flushed(&bench);
    bench.write(http::Method::PATCH, &format!("/v1/machines/{MAC}"), "{}").await;
    let script = Seen::ScriptRead { script: ScriptKind::Boot, detail: String::new() };
    bench.boot(MAC, vec![discover(), script, reported(Step::Started), reported(Step::Failed)]).await;
    shows(&bench, r#"bennu_boot_failures_total{diagnosis="reported"} 1"#).await;
    for step in [Step::Started, Step::Mounted, Step::Up] {
        bench.appliance.ledger.observe(MAC.parse().unwrap(), reported(step));
    }
    shows(&bench, r#"bennu_boots_total{outcome="up"} 1"#).await;
    bench.appliance.ledger.observe(MAC.parse().unwrap(), reported(Step::Up));
    tokio::time::sleep(Duration::from_millis(500)).await;
    for line in [
        r#"bennu_boots_total{outcome="failed"} 1"#,
        r#"bennu_boots_total{outcome="up"} 1"#,
        r#"bennu_boot_stage_duration_seconds_count{stage="script"} 1"#,
        r#"bennu_boot_stage_duration_seconds_count{stage="root"} 1"#,
        r#"bennu_boot_stage_duration_seconds_count{stage="loader"} 0"#,
        "bennu_boot_duration_seconds_count 1",
        r#"bennu_machines{state="up"} 1"#,
        r#"bennu_boots_open{state="script"} 0"#,
    ] {
        shows(&bench, line).await;
    }
}

#[tokio::test]
async fn nothing_that_clients_say_is_a_label() {
    let bench = Bench::new();
    let before = bench.get("/metrics").await.text.lines().count();
    bench.boot(MAC, vec![discover()]).await;
    bench.boot("52:54:00:00:00:02", vec![discover()]).await;
    bench.get("/v1/machines/52:54:00:00:00:77").await;
    let metrics = &bench.appliance.metrics;
    metrics.dhcp_silence(Reason::NoLoader("an Itanium of theirs".into()).name());
    metrics.dhcp_answer(Some(Verdict::Offer));
    metrics.http_request("script", StatusCode::OK);
    metrics.import(false, Duration::from_secs(1));
    metrics.tftp(&Event::Ended { complete: true, bytes: 1000, resent: 3, took_ms: 70 });
    let text = bench.get("/metrics").await.text;
    assert_eq!(text.lines().count(), before, "no series comes or goes\n{text}");
    assert!(!text.contains("52:54") && !text.contains("Itanium"));
    for line in ["bennu_tftp_sent_bytes_total 1000", r#"bennu_dhcp_silences_total{reason="no_loader"} 1"#] {
        assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
    }
}

#[test]
fn the_kind_of_an_answer_is_read_from_it() {
    let mut packet = vec![0; 240];
    assert_eq!(Verdict::of(&packet), None);
    packet.extend([53, 1, 5, 255]);
    assert_eq!(Verdict::of(&packet), Some(Verdict::Ack));
    packet[242] = 9;
    assert_eq!(Verdict::of(&packet), None);
}

fn installed(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("install").join(file)
}

/// Every word of a text that looks like a metric of ours, without what a histogram appends.
fn named(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("bennu_") && word.contains(|c: char| c.is_ascii_lowercase()));
    ours.map(|word| {
        let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| word.strip_suffix(suffix));
        base.unwrap_or(word).to_owned()
    })
    .collect()
}

#[tokio::test]
async fn every_metric_that_the_alerts_and_the_dashboard_name_is_there() {
    let text = Bench::new().get("/metrics").await.text;
    let there: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for file in ["prometheus/bennu.rules.yml", "prometheus/bennu.test.yml", "grafana/bennu.json"] {
        let used = named(&std::fs::read_to_string(installed(file)).unwrap());
        assert!(used.len() > 4, "{file}: {used:?}");
        for name in used {
            assert!(there.contains(&name.as_str()), "{file} names {name}, which /metrics does not have");
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_import() {
    let text = std::fs::read_to_string(installed("grafana/bennu.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "panel ids are unique");
        let (x, w) = (panel["gridPos"]["x"].as_u64().unwrap(), panel["gridPos"]["w"].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert!(!target["expr"].as_str().unwrap().is_empty());
        }
    }
    assert!(panels.len() > 8);
}

/// `promtool`, which scripts/setup unpacks.
fn promtool(arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let tool = installed("../../.cache/prometheus/usr/bin/promtool");
    let mut child = Command::new(&tool)
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup", tool.display()));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said.into_owned()
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    let text = Bench::new().get("/metrics").await.text;
    assert_eq!(promtool(&["check", "metrics"], &text).trim(), "", "lint of /metrics");
    let rules = installed("prometheus/bennu.rules.yml");
    let said = promtool(&["check", "rules", rules.to_str().unwrap()], "");
    assert!(said.contains("SUCCESS"), "{said}");
    let tests = installed("prometheus/bennu.test.yml");
    let said = promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(said.contains("SUCCESS"), "{said}");
}
