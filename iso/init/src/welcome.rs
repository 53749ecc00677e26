//! What a person at the console needs to reach the API from elsewhere: its addresses, its certificate's fingerprint, and a first
//! token for as long as there is none.

use crate::consoles;
use bennu_stage1::console;
use std::io::Read;
use std::process::{Command, Stdio};

const PROGRAM: &str = "/usr/bin/bennu";
/// What the token is called in the ledger.
const NAME: &str = "console";
/// An empty list, in JSON.
const NO_TOKENS: &str = "[]";

/// Says it on the consoles alone: a token has no place in a log.
pub fn say() {
    if let Some(api) = output(&["status"]).as_deref().and_then(api_of) {
        console::say(&format!("API: {api}"));
    }
    if output(&["token", "list", "--json"]).is_none_or(|list| list.trim() != NO_TOKENS) {
        return;
    }
    if let Some(token) = output(&["token", "create", NAME, "--scope", "admin"]) {
        console::show(&format!("first token, which may do everything and is shown this once: {}", token.trim()));
        consoles::keep_token(token.trim());
    }
}

/// The line of `bennu status` that tells of the API.
fn api_of(status: &str) -> Option<String> {
    status.lines().find_map(|line| line.trim().strip_prefix("API")).map(|rest| rest.trim().to_owned())
}

/// What a command of ours printed. Who buries the dead may be faster than we are, so its status is not asked for: without an
/// answer there is no output.
fn output(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("PATH", crate::PATH).env("HOME", "/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut text = String::new();
    let read = child.stdout.take()?.read_to_string(&mut text);
    let _ = child.wait();
    read.ok().map(|_| text).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_found_in_what_status_prints() {
        let status = "bennu 0.1.0 is up\nserving    eth0 10.77.0.1\nAPI        10.77.0.1:8443 (certificate c, SHA-256 ab:cd)\nmachines   none\n";
        assert_eq!(api_of(status).unwrap(), "10.77.0.1:8443 (certificate c, SHA-256 ab:cd)");
        assert_eq!(api_of("bennu is up"), None);
    }
}
