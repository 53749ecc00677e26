//! What concerns the wire or the host rather than one boot, and a person should know of.

use crate::{MacAddress, Timestamp, boot::session::Attempt};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// One thing worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// A DHCP server answered on our wire that the configuration does not allow there.
    OtherServer {
        /// Where it was heard.
        interface: String,
        /// Its server identifier (option 54).
        #[schema(value_type = String, format = Ipv4)]
        server: Ipv4Addr,
        /// What it was heard to say, such as `OFFER` or `ACK`.
        said: String,
    },
    /// Another Bennu answers on our wire.
    OtherAppliance {
        /// Where it was heard.
        interface: String,
        /// Its address there.
        #[schema(value_type = String, format = Ipv4)]
        server: Ipv4Addr,
    },
    /// Another Bennu answers DHCP on our wire, and this one does not while it does.
    StandsBy {
        /// Where.
        interface: String,
        /// Its server identifier.
        #[schema(value_type = String, format = Ipv4)]
        server: Ipv4Addr,
        /// Its card.
        card: MacAddress,
    },
    /// The Bennu that answered DHCP on our wire is silent, and this one answers there.
    TakesOver {
        /// Where.
        interface: String,
        /// The silent one's server identifier.
        #[schema(value_type = String, format = Ipv4)]
        server: Ipv4Addr,
    },
    /// An address of a range is used by somebody who did not get it from us.
    AddressTaken {
        /// Which.
        #[schema(value_type = String, format = Ipv4)]
        address: Ipv4Addr,
        /// Whose card answers for it, where that is known.
        by: Option<MacAddress>,
        /// The client that found out (DECLINE, RFC 2131 §4.3.3); `None`: we did.
        found_by: Option<MacAddress>,
    },
    /// More cards that nobody knows ask for addresses than the limit allows.
    TooManyUnknown {
        /// Where.
        interface: String,
    },
    /// The disk of the ledger is full: nothing new can be promised.
    StorageFull,
    /// The disk of the ledger has room again.
    StorageBack,
    /// The clock was set by this much; leases are judged by the new time.
    ClockStepped {
        /// Milliseconds, negative when it was set back.
        by_ms: i64,
    },
    /// A provisioning interface or its address is gone: nobody is served there until it is back.
    InterfaceLost {
        /// Which.
        interface: String,
    },
    /// A provisioning interface serves again.
    InterfaceBack {
        /// Which.
        interface: String,
        /// Our address there.
        #[schema(value_type = String, format = Ipv4)]
        address: Ipv4Addr,
    },
    /// A new version of the appliance did not become ready, and what ran before runs again.
    UpgradeFailed {
        /// The new one.
        version: String,
        /// What runs.
        runs: String,
    },
    /// Somebody acted as a machine's boot who does not own it, and was refused.
    Intrusion {
        /// Whose boot.
        machine: MacAddress,
        /// What was tried.
        attempt: Attempt,
        /// From where.
        #[schema(value_type = String)]
        address: IpAddr,
    },
}

/// A notice as it is kept: the same one again is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Noticed {
    /// When first.
    pub at: Timestamp,
    /// When last.
    pub until: Timestamp,
    /// How often.
    pub count: u64,
    /// What.
    #[serde(flatten)]
    pub notice: Notice,
}

/// Different notices kept; the oldest gives way.
pub const MAX_NOTICES: usize = 64;

/// A notice that comes again is told again after this.
const TELL_AGAIN_MS: u64 = 10 * 60 * 1000;

/// The notices of late, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Notices(Vec<Noticed>);

impl Notices {
    /// Takes note. Gives back what followers should hear: a notice that is new, or that was not told for a while.
    pub fn add(&mut self, notice: Notice, now: Timestamp) -> Option<&Noticed> {
        let known = self.0.iter().position(|known| known.notice == notice);
        let Some(known) = known else {
            if self.0.len() >= MAX_NOTICES {
                self.0.remove(0);
            }
            self.0.push(Noticed { at: now, until: now, count: 1, notice });
            return self.0.last();
        };
        let mut noticed = self.0.remove(known);
        let is_told_again = now.since(noticed.until) >= TELL_AGAIN_MS;
        noticed.count += 1;
        noticed.until = now;
        self.0.push(noticed);
        self.0.last().filter(|_| is_told_again)
    }

    /// All of them, the one that came last at the end.
    pub fn all(&self) -> &[Noticed] {
        &self.0
    }
}

impl Notice {
    /// What to do about it; empty where nothing is to be done.
    pub fn advice(&self) -> String {
        match self {
            Self::OtherServer { server, .. } => format!(
                "find {server} and stop its DHCP service, or keep it off this wire; if it belongs there, write \
                 allow_servers = [\"{server}\"] under [boot]"
            ),
            Self::OtherAppliance { server, .. } => format!(
                "one wire needs one Bennu, and one of the two stands by within 20 s. If both go on to answer, that one is \
                 told to: stop one of the two, or, if both are meant, give them ranges that do not overlap and write \
                 allow_servers = [\"{server}\"] under [boot]"
            ),
            Self::StandsBy { server, card, .. } => format!(
                "this one answers by itself once {server} is silent for 12 s; to move to this one, stop the other. If both \
                 are meant to answer, give them ranges that do not overlap and write allow_servers = [\"{server}\"] under \
                 [boot]. If you know of no other Bennu, somebody plays one: find the card {card} and take it off this wire"
            ),
            Self::TakesOver { server, .. } => format!(
                "look at {server} if it is meant to answer: when it starts again it stands by, until this one is stopped"
            ),
            Self::AddressTaken { address, .. } => {
                format!(
                    "find the host that uses {address} and give it another address, or take {address} out of the range"
                )
            }
            Self::TooManyUnknown { .. } => {
                "known machines are still served; look for a host that invents hardware addresses on this wire".into()
            }
            Self::StorageFull => "make room on the disk of state_dir; Bennu goes on by itself within seconds".into(),
            Self::ClockStepped { .. } => "let a time service (chrony, systemd-timesyncd) keep this host's clock".into(),
            Self::InterfaceLost { interface } => format!("look at `ip address show {interface}` and at the cable"),
            Self::Intrusion { machine, .. } => format!(
                "nothing was given out; bennu boot show {machine} has the timeline. Look for a program that reads the \
                 machine's /proc/cmdline, or a host that listens on its wire"
            ),
            Self::UpgradeFailed { .. } => "look at the log of that start: log/ on the state disk".into(),
            Self::StorageBack | Self::InterfaceBack { .. } => String::new(),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherServer { interface, server, said } => {
                write!(f, "another DHCP server, {server}, answers on {interface} ({said})")
            }
            Self::OtherAppliance { interface, server } => write!(f, "another Bennu, {server}, answers on {interface}"),
            Self::StandsBy { interface, server, card } => write!(
                f,
                "standing by on {interface}: another Bennu, {server} (card {card}), answers there, and this one answers no DHCP"
            ),
            Self::TakesOver { interface, server } => {
                write!(f, "answering DHCP on {interface}: another Bennu, {server}, which did so, is silent")
            }
            Self::AddressTaken { address, by, found_by } => {
                write!(f, "{address} is in use by somebody who did not get it here")?;
                if let Some(by) = by {
                    write!(f, " ({by})")?;
                }
                found_by.map_or(Ok(()), |client| write!(f, ", as {client} found out"))
            }
            Self::TooManyUnknown { interface } => {
                write!(f, "unknown cards ask for addresses on {interface} faster than the limit; some get no answer")
            }
            Self::StorageFull => f.write_str("the disk of the ledger is full: no lease or setting can be stored"),
            Self::StorageBack => f.write_str("the disk of the ledger has room again"),
            Self::UpgradeFailed { version, runs } => {
                write!(f, "the upgrade to {version} did not become ready, and {runs} runs again")
            }
            Self::ClockStepped { by_ms } => write!(f, "the clock was set by {} s", by_ms / 1000),
            Self::InterfaceLost { interface } => write!(f, "interface {interface} or its address is gone"),
            Self::InterfaceBack { interface, address } => write!(f, "interface {interface} serves again as {address}"),
            Self::Intrusion { machine, attempt, address } => {
                write!(f, "ALARM: {machine}: {attempt}, from {address}; it was refused")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_that_comes_again_is_counted_and_told_again_only_after_a_while() {
        let mut notices = Notices::default();
        let minutes = |n: u64| Timestamp(n * 60_000);
        assert!(notices.add(Notice::StorageFull, minutes(0)).is_some());
        assert!(notices.add(Notice::StorageFull, minutes(1)).is_none());
        assert!(notices.add(Notice::StorageBack, minutes(2)).is_some());
        assert!(notices.add(Notice::StorageFull, minutes(20)).is_some());
        let counts: Vec<u64> = notices.all().iter().map(|noticed| noticed.count).collect();
        assert_eq!(counts, [1, 3]);
    }

    #[test]
    fn no_more_notices_are_kept_than_a_person_reads() {
        let mut notices = Notices::default();
        for last in 0..=255 {
            let interface = format!("eno{last}");
            notices.add(Notice::InterfaceLost { interface }, Timestamp(last));
        }
        assert_eq!(notices.all().len(), MAX_NOTICES);
    }
}
