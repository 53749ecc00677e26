//! One simulated machine's DHCP, with the timers of iPXE.

use std::{
    net::Ipv4Addr,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::relay::{Ask, Relay, Reply, kind};

/// A machine that boots.
pub struct Machine<'a> {
    /// Its card.
    pub mac: [u8; 6],
    /// Its transaction.
    pub xid: u32,
    /// Passes its messages on.
    pub relay: &'a Relay,
    /// Answers to it.
    pub replies: &'a Receiver<Reply>,
    /// Messages it had to send again.
    pub resends: u32,
}

/// Tries for each message; the first waits 1 s, each further one twice as long as the one before.
const TRIES: u32 = 5;

impl Machine<'_> {
    /// Takes an address; after a refusal it starts again, as firmware does.
    pub fn take_address(&mut self) -> Result<Ipv4Addr, String> {
        for _ in 0..TRIES {
            let offer = self.ask(None, kind::OFFER)?.ok_or("refused before an offer")?;
            if let Some(given) = self.ask(Some(&offer), kind::ACK)? {
                return Ok(given.yiaddr);
            }
        }
        Err("its request was refused again and again".to_owned())
    }

    /// Asks until the wanted answer comes; `None` after a NAK.
    fn ask(&mut self, offer: Option<&Reply>, wanted: u8) -> Result<Option<Reply>, String> {
        let began = Instant::now();
        for attempt in 0..TRIES {
            self.resends += u32::from(attempt > 0);
            let secs = began.elapsed().as_secs() as u16;
            self.relay.send(&Ask { xid: self.xid, mac: self.mac, offer, secs });
            let until = Instant::now() + Duration::from_secs(1 << attempt);
            while let Ok(reply) = self.replies.recv_timeout(until.saturating_duration_since(Instant::now())) {
                if reply.kind == wanted {
                    return Ok(Some(reply));
                }
                if reply.kind == kind::NAK {
                    return Ok(None);
                }
            }
        }
        Err(if wanted == kind::OFFER { "no offer" } else { "no acknowledgement" }.to_owned())
    }
}
