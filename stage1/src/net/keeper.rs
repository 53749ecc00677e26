//! Keeping the address while stage 1 waits or downloads: a lease of minutes must not run out under a machine that waits for days.

use super::dhcp::{Answer, Ask, Terms};
use super::lease::{Client, NoLease};
use super::link::Interface;
use super::up::{Connection, Origin, configure, unconfigure};
use crate::console;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A boot that takes no longer than this asks nobody about the address its loader handed on.
const HANDED_GRACE: Duration = Duration::from_secs(20);
/// How often an address is asked for again whose server keeps silent. It may be a static one.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Two tries at renewing are never closer than this.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_secs(4);

/// A connection that is being kept, as it is now.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<Connection>>);

impl Kept {
    /// The connection of this moment.
    pub fn now(&self) -> Connection {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, connection: &Connection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connection.clone();
    }
}

/// Starts keeping; ends when the image's init takes over, as all threads do.
pub fn keep(connection: Connection) -> Kept {
    let kept = Kept(Arc::new(Mutex::new(connection)));
    let shared = kept.clone();
    let run = move || {
        let Interface { name, mac, .. } = shared.now().interface;
        match Client::open(&name, mac) {
            Ok(client) => run(&client, &shared),
            Err(error) => console::say(&format!("the address is not renewed: {error}")),
        }
    };
    drop(std::thread::Builder::new().name("lease".into()).stack_size(128 * 1024).spawn(run));
    kept
}

/// Returns only when the lease has no end.
fn run(client: &Client, kept: &Kept) {
    let mut since = Instant::now();
    let mut terms = match &kept.now().origin {
        Origin::Dhcp(terms) => terms.clone(),
        Origin::Handed => {
            std::thread::sleep(HANDED_GRACE);
            let terms = confirm(client, kept);
            since = Instant::now();
            terms
        }
    };
    loop {
        let Some(lease) = terms.lease else { return };
        let age = since.elapsed();
        match next(&terms, lease, age) {
            Next::Wait(pause) => std::thread::sleep(pause),
            Next::Ask(to) => {
                let asked = Instant::now();
                match client.ask(Ask::Extend(kept.now().address), to, ANSWER_WAIT) {
                    Ok(Some(Answer::Ack(new))) => {
                        since = asked;
                        terms = new;
                    }
                    Ok(Some(Answer::Nak)) => {
                        terms = afresh(client, kept);
                        since = Instant::now();
                    }
                    // RFC 2131 §4.4.5: wait half of what is left, then try again.
                    Ok(_) | Err(_) => std::thread::sleep((lease.saturating_sub(age) / 4).clamp(LEAST_PAUSE, ASK_AGAIN)),
                }
            }
            Next::Expired => {
                terms = afresh(client, kept);
                since = Instant::now();
            }
        }
    }
}

/// Asks for the address that the loader handed on until a server says yes or no.
fn confirm(client: &Client, kept: &Kept) -> Terms {
    let address = kept.now().address;
    let ask = || client.ask(Ask::Confirm(address), Ipv4Addr::BROADCAST, ANSWER_WAIT);
    let confirmed = ask_until_answered(address, ask, || std::thread::sleep(ASK_AGAIN));
    confirmed.unwrap_or_else(|| {
        console::say(&format!("a DHCP server says that {address} is not ours any more"));
        afresh(client, kept)
    })
}

/// The terms on which a server lets us have the address, or `None` when it refuses. A request that cannot be sent is like one
/// that nobody answers: ENETDOWN and ENETUNREACH last as long as somebody holds the cable, ENOBUFS as long as a full queue.
fn ask_until_answered(
    address: Ipv4Addr,
    mut ask: impl FnMut() -> Result<Option<Answer>, NoLease>,
    mut pause: impl FnMut(),
) -> Option<Terms> {
    let mut told = false;
    loop {
        match ask() {
            Ok(Some(Answer::Ack(terms))) if terms.address == address => return Some(terms),
            Ok(Some(Answer::Nak)) => return None,
            Ok(_) => {}
            Err(error) if told => drop(error),
            Err(error) => {
                console::say(&format!("{error}; {address} is asked for again"));
                told = true;
            }
        }
        pause();
    }
}

/// Gets a new lease, however long that takes, and moves the interface to it.
fn afresh(client: &Client, kept: &Kept) -> Terms {
    let mut connection = kept.now();
    loop {
        match client.acquire(ASK_AGAIN) {
            Ok(terms) => {
                if terms.address != connection.address {
                    console::say(&format!("the address changes from {} to {}", connection.address, terms.address));
                    unconfigure(&connection);
                    connection.take(&terms);
                    kept.set(&connection);
                    if let Err(error) = configure(&connection) {
                        console::say(&error.to_string());
                    }
                }
                return terms;
            }
            Err(error) => {
                console::say(&format!("the lease of {} ran out: {error}", connection.address));
                std::thread::sleep(LEAST_PAUSE);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait(Duration),
    Ask(Ipv4Addr),
    Expired,
}

/// What a lease of this age needs; T1 and T2 default to 1/2 and 7/8 of it (RFC 2131 §4.4.5).
fn next(terms: &Terms, lease: Duration, age: Duration) -> Next {
    let renew = terms.renew.filter(|renew| *renew < lease).unwrap_or(lease / 2);
    let rebind = terms.rebind.filter(|rebind| *rebind < lease && *rebind >= renew).unwrap_or(lease * 7 / 8);
    if age >= lease {
        Next::Expired
    } else if age >= rebind {
        Next::Ask(Ipv4Addr::BROADCAST)
    } else if age >= renew {
        Next::Ask(terms.server)
    } else {
        Next::Wait(renew - age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(renew: Option<u64>, rebind: Option<u64>) -> Terms {
        Terms {
            address: Ipv4Addr::new(10, 77, 0, 50),
            prefix: 24,
            gateway: None,
            dns: Vec::new(),
            server: Ipv4Addr::new(10, 77, 0, 1),
            lease: Some(Duration::from_secs(80)),
            renew: renew.map(Duration::from_secs),
            rebind: rebind.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_lease_is_renewed_then_rebound_then_gone() {
        let at = |terms: &Terms, age| next(terms, Duration::from_secs(80), Duration::from_secs(age));
        let plain = terms(None, None);
        assert_eq!(at(&plain, 10), Next::Wait(Duration::from_secs(30)));
        assert_eq!(at(&plain, 40), Next::Ask(Ipv4Addr::new(10, 77, 0, 1)));
        assert_eq!(at(&plain, 70), Next::Ask(Ipv4Addr::BROADCAST));
        assert_eq!(at(&plain, 80), Next::Expired);
        assert_eq!(at(&terms(Some(20), Some(30)), 30), Next::Ask(Ipv4Addr::BROADCAST));
        assert_eq!(at(&terms(Some(900), Some(1)), 39), Next::Wait(Duration::from_secs(1)));
    }

    #[test]
    fn a_request_that_cannot_be_sent_is_sent_again() {
        let ours = Ipv4Addr::new(10, 77, 0, 50);
        let unsent = |kind: std::io::ErrorKind| NoLease::Socket { interface: "eth0".into(), source: kind.into() };
        let ask_all = |answers: Vec<Result<Option<Answer>, NoLease>>| {
            let (mut answers, mut pauses) = (answers.into_iter(), 0);
            let terms = ask_until_answered(ours, || answers.next().unwrap(), || pauses += 1);
            (terms.map(|terms| terms.address), pauses, answers.len())
        };
        let other = Terms { address: Ipv4Addr::new(10, 77, 0, 51), ..terms(None, None) };
        let answers = vec![
            Err(unsent(std::io::ErrorKind::NetworkDown)),
            Err(unsent(std::io::ErrorKind::NetworkUnreachable)),
            Ok(None),
            Ok(Some(Answer::Ack(other))),
            Ok(Some(Answer::Ack(terms(None, None)))),
            Ok(Some(Answer::Nak)),
        ];
        assert_eq!(ask_all(answers), (Some(ours), 4, 1));
        let refused = vec![Err(unsent(std::io::ErrorKind::NetworkDown)), Ok(Some(Answer::Nak))];
        assert_eq!(ask_all(refused), (None, 1, 0));
    }
}
