//! The running service, as its API tells of it.

use super::Finding;
use crate::{
    cli::{client::Client, error::CliError, output},
    config::{Config, DEFAULT_SOCKET},
    http::api::{images::ImageShown, status::Status},
    privileges::{NEEDED, Privileges},
};
use bennu_rules::settings::UnknownPolicy;
use serde::de::DeserializeOwned;

/// Looks whether the service answers, and how it is.
pub fn look(server: &str, config: Option<&Config>, tell: &mut dyn FnMut(Finding)) -> Option<Status> {
    match ask::<Status>(&of(server, config), "/v1/status") {
        Ok(status) => {
            judge(&status, tell);
            Some(status)
        }
        Err(error) => {
            tell(Finding::warn("service", error.what, or(error.help, "look at its log: journalctl -u bennu")));
            None
        }
    }
}

/// What its status tells.
pub fn judge(status: &Status, tell: &mut dyn FnMut(Finding)) {
    tell(judged(status));
    if let Some(privileges) = &status.privileges {
        tell(harmless(privileges));
    }
}

fn judged(status: &Status) -> Finding {
    if status.ledger_closed {
        let help = "look at the disk (dmesg), then restart bennu";
        return Finding::fail("service", "a disk fault closed the ledger: nothing is stored any more", help);
    }
    if status.ledger_full {
        let help = "make room on the disk of state_dir: the service goes on by itself";
        return Finding::fail("service", "its disk is full: leases, boots and commands are refused", help);
    }
    let detail = format!("bennu {} answers, up for {}", status.version, output::span(status.uptime_ms));
    if status.version == env!("CARGO_PKG_VERSION") {
        return Finding::ok("service", detail);
    }
    let detail = format!("{detail}; this command is {}", env!("CARGO_PKG_VERSION"));
    Finding::warn("service", detail, "restart the service, so that it runs the version that is installed")
}

/// What a hostile packet could do through the service.
fn harmless(privileges: &Privileges) -> Finding {
    const CHECK: &str = "privileges";
    let detail = privileges.to_string();
    if privileges.uid == 0 {
        let help = "let it run as a user of its own: remove user = \"root\" from the configuration, then restart it";
        return Finding::warn(CHECK, detail, help);
    }
    match NEEDED.iter().find(|needed| !privileges.capabilities.contains(&needed.to_string())) {
        Some(missing) => {
            let help = format!("start it as root, or give it {missing}, as its systemd unit does");
            Finding::warn(CHECK, format!("{detail}; without {missing} it cannot do all of its work"), help)
        }
        None => Finding::ok(CHECK, detail),
    }
}

/// Whether the image that unassigned machines boot exists.
pub fn discovery_image(server: &str, config: &Config, answers: bool, tell: &mut dyn FnMut(Finding)) {
    const CHECK: &str = "discovery image";
    if config.settings.unknown != UnknownPolicy::Discover {
        return tell(Finding::ok(CHECK, format!("not needed: boot.unknown is {}", config.settings.unknown)));
    }
    let name = &config.settings.discovery_image;
    if !answers {
        return tell(Finding::warn(CHECK, "not looked at: the service does not answer", "start the service"));
    }
    let found = ask::<ImageShown>(&of(server, Some(config)), &format!("/v1/images/{name}"));
    tell(match found {
        Ok(shown) => Finding::ok(CHECK, format!("{name} is {}", shown.image.digest)),
        Err(_) => Finding::warn(
            CHECK,
            format!("there is no {name}: unassigned machines wait in their loader, and tell nothing of their hardware"),
            format!("make one of a packaged kernel: bennu image import dir:ROOT {name} --kernel-only"),
        ),
    });
}

/// The configured socket, unless a server was named.
fn of(server: &str, config: Option<&Config>) -> String {
    match config {
        Some(config) if server == format!("unix://{DEFAULT_SOCKET}") => format!("unix://{}", config.socket.display()),
        _ => server.to_owned(),
    }
}

fn ask<T: DeserializeOwned>(server: &str, path: &str) -> Result<T, CliError> {
    let client = Client::new(server)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed(format!("cannot start: {error}"), ""))?;
    runtime.block_on(client.get(path))
}

fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}
