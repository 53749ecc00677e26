//! The management API as a client generator sees it: schemathesis reads its description and tries to prove it wrong.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::{fs, process::Stdio};

use crate::{
    appliance::{Appliance, Config, text},
    harness::Life,
    workshop,
};

/// The API's answers are what its description says, whatever it is asked.
pub const DESCRIBED: Life = Life {
    name: "api description",
    shows: &["api_answers_as_described"],
    live: |story| lived(story, "api_answers_as_described", 40),
};

/// The same for longer.
pub const DESCRIBED_AT_LENGTH: Life = Life {
    name: "api description at length",
    shows: &["api_answers_as_described_for_long"],
    live: |story| lived(story, "api_answers_as_described_for_long", 600),
};

/// Where the management plane listens, in its namespace.
const API: &str = "10.77.0.1:8443";

/// Left out: what never ends (events), and what would take the run's own token away. Both have tests of their own, and
/// `no_operation_heeds_a_token_that_is_not_good_for_it` tries wrong tokens on every operation: schemathesis has one
/// address, which is soon not heard any more when it shows wrong ones (`ignored_auth`).
const LEFT_OUT: [&str; 2] = ["events_follow", "tokens_revoke"];

fn lived(story: &mut crate::harness::Story, show: &'static str, seconds: u64) -> Result<()> {
    let rack = story.rack()?;
    let bennu = rack.appliance(Config::full().api(&format!("listen = \"{API}\"")))?;
    story.show(show, || described(&bennu, rack.home().dir(), seconds))
}

fn described(bennu: &Appliance, dir: &std::path::Path, seconds: u64) -> Result<String> {
    let schemathesis = workshop::checkout().join(".cache/schemathesis/bin/schemathesis");
    ensure!(schemathesis.exists(), "{} is missing: run scripts/setup", schemathesis.display());
    for mac in ["52:54:00:00:00:01", "52:54:00:00:00:02"] {
        bennu.bennu(["machine", "label", mac, "rack=r1"])?;
    }
    let token = text(&bennu.json(["token", "create", "schemathesis", "--scope", "admin"])?, "token")?;
    let certificate = bennu.state().join("tls/cert.pem");
    let report = dir.join("schemathesis.json");
    fs::write(dir.join("schemathesis.toml"), SETTINGS)?;
    let mut run = bennu.namespace().command(&schemathesis);
    run.current_dir(dir).arg("run").arg(format!("https://{API}/openapi.json"));
    run.args(["--checks", "all", "--exclude-checks", "ignored_auth", "--continue-on-failure", "--no-color"]);
    run.args(["--seed", "42", "--generation-database", "none", "--warnings", "off", "--request-timeout", "30"]);
    run.arg("--max-time").arg(seconds.to_string());
    run.arg("--header").arg(format!("Authorization: Bearer {token}")).arg("--tls-verify").arg(&certificate);
    run.args(["--report", "json"]).arg("--report-json-path").arg(&report);
    for operation in LEFT_OUT {
        run.args(["--exclude-operation-id", operation]);
    }
    let output = run.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::write(dir.join("schemathesis.log"), &said)?;
    ensure!(output.status.success(), "{}", tail(&said, 160));
    ensure!(bennu.pid().is_some(), "the appliance ended");
    let status = bennu.json(["status"])?;
    ensure!(status["ledger_closed"] == Value::Bool(false), "the ledger is closed: {status:#}");
    let cases = said.lines().filter(|line| line.contains("generated")).map(str::trim).collect::<Vec<_>>().join("; ");
    ensure!(!cases.is_empty(), "schemathesis says of no test cases:\n{}", tail(&said, 40));
    Ok(cases)
}

/// What a description cannot say: an image that is not there and a state that forbids it are good answers to requests
/// that are described, and so is 412 to an ETag of nobody's.
const SETTINGS: &str = "
[checks.positive_data_acceptance]
expected-statuses = [\"2xx\", 304, 401, 403, 404, 409, 412, 422]

# A precondition may be looked at before the body.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429]

# These take label selectors or documents: languages of their own, which no pattern describes.
[[operations]]
include-operation-id = [\"machines_list\", \"tokens_create\", \"roles_put\", \"secrets_set\", \"rules_put\", \"metadata_set\", \"apply_create\"]
[operations.checks.positive_data_acceptance]
expected-statuses = [\"2xx\", 304, 400, 401, 403, 404, 409, 412, 422]

# Where a kept profile has the name of a built-in one, that is what is there when the kept one is deleted.
[[operations]]
include-path = \"/v1/profiles/{name}\"
[operations.checks.use_after_free]
enabled = false
";

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
