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
        let outcome = Client::open(&name, mac).and_then(|client| run(&client, &shared));
        if let Err(error) = outcome {
            console::say(&format!("the address is not renewed: {error}"));
        }
    };
    drop(std::thread::Builder::new().name("lease".into()).stack_size(128 * 1024).spawn(run));
    kept
}

fn run(client: &Client, kept: &Kept) -> Result<(), NoLease> {
    let mut since = Instant::now();
    let mut terms = match &kept.now().origin {
        Origin::Dhcp(terms) => terms.clone(),
        Origin::Handed => {
            std::thread::sleep(HANDED_GRACE);
            let terms = confirm(client, kept)?;
            since = Instant::now();
            terms
        }
    };
    loop {
        let Some(lease) = terms.lease else { return Ok(()) };
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
fn confirm(client: &Client, kept: &Kept) -> Result<Terms, NoLease> {
    let address = kept.now().address;
    loop {
        match client.ask(Ask::Confirm(address), Ipv4Addr::BROADCAST, ANSWER_WAIT)? {
            Some(Answer::Ack(terms)) if terms.address == address => return Ok(terms),
            Some(Answer::Nak) => {
                console::say(&format!("a DHCP server says that {address} is not ours any more"));
                return Ok(afresh(client, kept));
            }
            _ => std::thread::sleep(ASK_AGAIN),
        }
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
}
