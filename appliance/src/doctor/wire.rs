//! Other DHCP servers on the wire: who answers a machine that does not exist.

use super::Finding;
use crate::{
    http::api::status::Status,
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
pub fn other_dhcp_servers(
    interfaces: &[Interface],
    settings: &Settings,
    status: Option<&Status>,
    tell: &mut dyn FnMut(Finding),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looks = runtime.map(|runtime| runtime.block_on(join_all(interfaces.iter().map(look))));
    match looks {
        Ok(looks) => {
            for (interface, found) in interfaces.iter().zip(looks) {
                let check = format!("DHCP servers on {}", interface.name);
                match found {
                    Ok(found) => {
                        tell(judged(&check, &found, settings));
                        bennus(interface, &found, settings, status).into_iter().for_each(&mut *tell);
                    }
                    Err(error) => tell(not_looked(&check, &error)),
                }
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

/// What is with other Bennus: of two one stands by.
fn bennus(interface: &Interface, others: &[Other], settings: &Settings, status: Option<&Status>) -> Option<Finding> {
    let check = format!("other Bennus on {}", interface.name);
    let is_bennu = |other: &&Other| other.heard.appliance.is_some() && !is_allowed(other, settings);
    let all: Vec<&Other> = others.iter().filter(is_bennu).collect();
    let here = status.and_then(|status| status.interfaces.iter().find(|shown| shown.name == interface.name));
    let help = "one wire needs one Bennu: stop one of the two; or, if both are meant, give them ranges that do not overlap \
                and name the other's address in allow_servers";
    if let Some(server) = here.and_then(|shown| shown.stands_by_for) {
        let detail = format!("this one stands by for {server} and answers no DHCP; it begins once that one is silent");
        return Some(Finding::warn(check, detail, help));
    }
    let serving: Vec<&Other> = all.iter().copied().filter(|other| serves(other)).collect();
    match (serving.is_empty(), all.is_empty()) {
        (_, true) => None,
        (true, _) => Some(Finding::ok(check, format!("{} stands by", named(all)))),
        (false, _) => {
            Some(Finding::warn(check, format!("{} answers; one of the two is to stand by", named(serving)), help))
        }
    }
}

fn serves(other: &Other) -> bool {
    other.heard.appliance != Some(Appliance::StandsBy)
}

fn is_allowed(other: &Other, settings: &Settings) -> bool {
    settings.allow_servers.contains(&other.heard.server)
}

/// In full mode nobody else may serve but whom the configuration allows; else one other gives the addresses.
fn judged(check: &str, others: &[Other], settings: &Settings) -> Finding {
    let is_allowed = |other: &&Other| is_allowed(other, settings);
    let (allowed, mut strange): (Vec<&Other>, Vec<&Other>) = others.iter().partition(is_allowed);
    strange.retain(|other| other.heard.appliance.is_none());
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
    let gives = |other: &&Other| matches!(other.heard.appliance, None | Some(Appliance::Full));
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
        let heard = Heard { server: Ipv4Addr::new(10, 77, 0, last), said: Said::Offer, appliance, xid: 0 };
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
    fn of_two_bennus_one_stands_by() {
        let network = "10.77.0.0/24".parse().unwrap();
        let interface = Interface { name: "eno2".into(), index: 2, address: Ipv4Addr::new(10, 77, 0, 1), network };
        let told = |appliance, settings: &Settings| bennus(&interface, &[other(2, appliance)], settings, None);
        let settings = Settings::default();
        let finding = told(Some(Appliance::Full), &settings).unwrap();
        assert!(finding.detail.contains("another Bennu, 10.77.0.2"), "{finding:?}");
        assert_eq!(finding.verdict, Verdict::Warn);
        assert_eq!(told(Some(Appliance::StandsBy), &settings).map(|finding| finding.verdict), Some(Verdict::Ok));
        assert_eq!(told(None, &settings), None, "no Bennu");
        let allowed = Settings { allow_servers: vec![Ipv4Addr::new(10, 77, 0, 2)], ..Settings::default() };
        assert_eq!(told(Some(Appliance::Full), &allowed), None);
    }

    #[test]
    fn another_bennu_is_no_strange_server_and_gives_addresses_only_in_full_mode() {
        assert_eq!(verdict(&[other(2, Some(Appliance::Full))], DhcpMode::Full, &[]), Verdict::Ok);
        assert_eq!(verdict(&[other(2, Some(Appliance::StandsBy))], DhcpMode::Proxy, &[]), Verdict::Fail);
        assert_eq!(verdict(&[other(2, Some(Appliance::Proxy))], DhcpMode::Proxy, &[]), Verdict::Fail);
        assert_eq!(verdict(&[other(2, Some(Appliance::Full))], DhcpMode::Proxy, &[]), Verdict::Ok);
    }
}
