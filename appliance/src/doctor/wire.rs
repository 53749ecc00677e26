//! Other DHCP servers on the wire: who answers a machine that does not exist.

use super::Finding;
use crate::{
    interfaces::Interface,
    wire::{Ear, Other},
};
use bennu_rules::{
    dhcp::others::{Appliance, Looks},
    settings::{DhcpMode, Settings},
};
use futures_util::future::join_all;
use std::io;

/// Looks who answers on each interface, on all of them at once.
pub fn other_dhcp_servers(interfaces: &[Interface], settings: &Settings, tell: &mut dyn FnMut(Finding)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looks = runtime.map(|runtime| runtime.block_on(join_all(interfaces.iter().map(look))));
    match looks {
        Ok(looks) => {
            for (interface, found) in interfaces.iter().zip(looks) {
                let check = format!("DHCP servers on {}", interface.name);
                tell(found.map_or_else(|error| not_looked(&check, &error), |found| judged(&check, &found, settings)));
            }
        }
        Err(error) => tell(not_looked("DHCP servers", &error)),
    }
}

async fn look(interface: &Interface) -> io::Result<Vec<Other>> {
    let ear = Ear::open(&interface.name)?;
    ear.ok_or_else(|| io::Error::other("the interface is no Ethernet"))?.look(Looks::Only).await
}

fn not_looked(check: &str, error: &io::Error) -> Finding {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Finding::warn(check, "not looked at: only root may ask", "run this with sudo");
    }
    Finding::warn(check, format!("not looked at: {error}"), "look at the interface's link")
}

/// In full mode nobody else may serve but whom the configuration allows; else one other gives the addresses.
fn judged(check: &str, others: &[Other], settings: &Settings) -> Finding {
    let is_allowed = |other: &&Other| settings.allow_servers.contains(&other.heard.server);
    let (allowed, strange): (Vec<&Other>, Vec<&Other>) = others.iter().partition(is_allowed);
    if settings.dhcp != DhcpMode::Full {
        return judged_beside(check, others);
    }
    match (strange.as_slice(), allowed.as_slice()) {
        ([], []) => Finding::ok(check, "none but this appliance"),
        ([], _) => Finding::ok(check, format!("{}, which allow_servers allows", named(allowed))),
        _ => Finding::fail(
            check,
            format!("{} answers too: machines get answers from both", named(strange)),
            "stop it or keep it off this wire; or write dhcp = \"proxy\" and let it give the addresses; or, if both are \
             meant, allow_servers",
        ),
    }
}

fn judged_beside(check: &str, others: &[Other]) -> Finding {
    let gives = |other: &&Other| other.heard.appliance != Some(Appliance::Proxy);
    let giving: Vec<&Other> = others.iter().filter(gives).collect();
    match giving.as_slice() {
        [] => Finding::fail(
            check,
            "none answers, and this appliance gives no addresses",
            "start the site's DHCP server, or write dhcp = \"full\" with a range",
        ),
        [_] => Finding::ok(check, format!("{} gives the addresses", named(giving))),
        _ => Finding::warn(
            check,
            format!("several offer addresses: {}", named(giving)),
            "leave one, unless they know of each other",
        ),
    }
}

fn named(others: Vec<&Other>) -> String {
    let name = |other: &Other| {
        let what = if other.heard.appliance.is_some() { "another Bennu, " } else { "" };
        format!("{what}{} (card {})", other.heard.server, other.card)
    };
    others.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use bennu_rules::{
        MacAddress,
        dhcp::others::{Heard, Said},
    };
    use std::net::Ipv4Addr;

    fn other(last: u8, appliance: Option<Appliance>) -> Other {
        let heard = Heard { server: Ipv4Addr::new(10, 77, 0, last), said: Said::Offer, appliance };
        Other { heard, card: MacAddress([2, 0, 0, 0, 0, last]) }
    }

    fn verdict(others: &[Other], dhcp: DhcpMode, allow_servers: &[Ipv4Addr]) -> Verdict {
        let settings = Settings { dhcp, allow_servers: allow_servers.to_vec(), ..Settings::default() };
        judged("x", others, &settings).verdict
    }

    #[test]
    fn a_second_server_fails_in_full_mode_and_is_wanted_in_proxy_mode() {
        let one = [other(2, None)];
        assert_eq!(verdict(&[], DhcpMode::Full, &[]), Verdict::Ok);
        assert_eq!(verdict(&one, DhcpMode::Full, &[]), Verdict::Fail);
        assert_eq!(verdict(&one, DhcpMode::Full, &[one[0].heard.server]), Verdict::Ok);
        assert_eq!(verdict(&one, DhcpMode::Proxy, &[]), Verdict::Ok);
        assert_eq!(verdict(&[], DhcpMode::Proxy, &[]), Verdict::Fail);
        assert_eq!(verdict(&[one[0], other(3, None)], DhcpMode::Proxy, &[]), Verdict::Warn);
    }

    #[test]
    fn another_bennu_is_named_and_gives_addresses_only_in_full_mode() {
        let finding = judged("x", &[other(2, Some(Appliance::Full))], &Settings::default());
        assert!(finding.detail.contains("another Bennu, 10.77.0.2"), "{finding:?}");
        assert_eq!(verdict(&[other(2, Some(Appliance::Proxy))], DhcpMode::Proxy, &[]), Verdict::Fail);
        assert_eq!(verdict(&[other(2, Some(Appliance::Full))], DhcpMode::Proxy, &[]), Verdict::Ok);
    }
}
