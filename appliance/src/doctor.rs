//! `bennu doctor`: what would keep machines from booting, and how to mend it. With the service or without it.

mod api;
mod clock;
mod host;
mod service;
mod wire;

use crate::{cli::output, config::Config, http::api::status::Status};
use bennu_rules::Timestamp;
use serde::Serialize;
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Well.
    Ok,
    /// Worth a look.
    Warn,
    /// Machines will not boot.
    Fail,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What there is.
    pub detail: String,
    /// How to mend it; empty when it is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl Finding {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, detail: detail.into(), help: String::new() }
    }

    fn warn(check: impl Into<String>, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Warn, detail: detail.into(), help: help.into() }
    }

    fn fail(check: impl Into<String>, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(check, detail, help) }
    }
}

/// Looks at everything, prints it, and says by the exit code whether anything fails.
pub fn main(config: &Path, server: &str, json: bool) -> ExitCode {
    let mut told = Teller { json, worst: Verdict::Ok, findings: Vec::new() };
    examine(config, server, &mut |finding| told.tell(finding));
    if json && output::say_json(&told.findings).is_err() {
        return ExitCode::FAILURE;
    }
    if told.worst == Verdict::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Every look, in the order of what rests on what.
fn examine(path: &Path, server: &str, tell: &mut dyn FnMut(Finding)) {
    let config = match Config::load(path) {
        Ok(config) => {
            tell(Finding::ok("configuration", path.display().to_string()));
            Some(config)
        }
        Err(error) => {
            let help = "write or mend it; what rests on it is not looked at";
            tell(Finding::fail("configuration", error.to_string(), help));
            None
        }
    };
    let status = service::look(server, config.as_ref(), tell);
    if let Some(config) = &config {
        let now = Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64));
        api::look(config, status.as_ref(), now, tell);
        let interfaces: Vec<_> =
            config.interfaces.iter().filter_map(|name| host::interface(name, config, tell)).collect();
        for interface in &interfaces {
            host::ports(interface, config, tell);
        }
        wire::other_dhcp_servers(&interfaces, &config.settings, status.as_ref(), tell);
        service::discovery_image(server, config, status.is_some(), tell);
    }
    clock::look(tell);
    let default = PathBuf::from("/var/lib/bennu");
    host::disk(config.as_ref().map_or(&default, |config| &config.state_dir), tell);
    host::loaders(config.as_ref().and_then(|config| config.loaders_dir.as_deref()), tell);
    host::mksquashfs(tell);
}

/// What the service finds of itself: of its host, without asking the wire, and of its own API.
pub fn of_service(config: &Config, status: &Status, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tell = &mut |finding| findings.push(finding);
    service::judge(status, tell);
    api::look(config, Some(status), now, tell);
    for name in &config.interfaces {
        drop(host::interface(name, config, tell));
    }
    clock::look(tell);
    host::disk(&config.state_dir, tell);
    host::loaders(config.loaders_dir.as_deref(), tell);
    host::mksquashfs(tell);
    findings
}

struct Teller {
    json: bool,
    worst: Verdict,
    findings: Vec<Finding>,
}

impl Teller {
    /// People read each finding when it is there: a look at the wire takes seconds.
    fn tell(&mut self, finding: Finding) {
        self.worst = self.worst.max(finding.verdict);
        if !self.json {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            output::say(printed(&finding, colour));
        }
        self.findings.push(finding);
    }
}

fn printed(finding: &Finding, colour: bool) -> String {
    let (word, code) = match finding.verdict {
        Verdict::Ok => ("ok  ", "32"),
        Verdict::Warn => ("warn", "33"),
        Verdict::Fail => ("fail", "31"),
    };
    let word = if colour { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() };
    let mut text = format!("{word}  {}: {}", finding.check, output::legible(&finding.detail));
    if !finding.help.is_empty() {
        text.push_str(&format!("\n      help: {}", output::legible(&finding.help)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(config: &Path) -> Vec<Finding> {
        let mut findings = Vec::new();
        let server = format!("unix://{}/none.sock", config.parent().unwrap().display());
        examine(config, &server, &mut |finding| findings.push(finding));
        findings
    }

    fn verdict(findings: &[Finding], check: &str) -> Option<Verdict> {
        findings.iter().find(|finding| finding.check == check).map(|finding| finding.verdict)
    }

    #[test]
    fn a_missing_configuration_fails_and_the_rest_is_still_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let findings = examined(&directory.path().join("none.toml"));
        assert_eq!(verdict(&findings, "configuration"), Some(Verdict::Fail));
        assert!(verdict(&findings, "clock").is_some() && verdict(&findings, "loaders").is_some());
        assert_eq!(main(&directory.path().join("none.toml"), "unix:///none.sock", true), ExitCode::FAILURE);
    }

    #[test]
    fn a_missing_interface_fails_with_those_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("bennu.toml");
        std::fs::write(&config, "[boot]\ninterface = \"nosuch0\"\ndhcp = \"proxy\"\n").unwrap();
        let findings = examined(&config);
        let interface = findings.iter().find(|finding| finding.check == "interface nosuch0").unwrap();
        assert_eq!(interface.verdict, Verdict::Fail);
        assert!(interface.help.contains("boot.interface"), "{interface:?}");
        assert_eq!(verdict(&findings, "service"), Some(Verdict::Warn));
        assert_eq!(verdict(&findings, "discovery image"), Some(Verdict::Warn));
    }

    #[test]
    fn findings_that_are_not_well_say_how_to_mend_them() {
        let directory = tempfile::tempdir().unwrap();
        for finding in examined(&directory.path().join("none.toml")) {
            assert_eq!(finding.help.is_empty(), finding.verdict == Verdict::Ok, "{finding:?}");
        }
    }
}
