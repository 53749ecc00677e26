//! The way to the appliance: TCP with counted messages (RFC 6587 §3.4.1), and where nobody ever answers there, UDP
//! (RFC 5426).

use super::To;
use super::line::Line;
use crate::entropy::Backoff;
use crate::session;
use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(5);
/// An appliance that takes nothing for so long is away.
const STUCK: Duration = Duration::from_secs(15);
/// What may have been lost with a connection, which is sent again with the next one. The appliance knows them by their
/// sequence, and takes none twice.
const RECENT: usize = 64;
/// The appliance takes so many lines of a machine at once, and one each such time; more would be lost there.
const BURST: u32 = 4000;
const EVERY: Duration = Duration::from_millis(6);
/// Where UDP is all there is, TCP is tried again after this.
const UDP_FOR: Duration = Duration::from_secs(60);

enum Way {
    None,
    Tcp(TcpStream),
    Udp(UdpSocket, Instant),
}

/// Sends lines, in order.
pub struct Link {
    to: To,
    way: Way,
    had_tcp: bool,
    backoff: Backoff,
    recent: VecDeque<String>,
    sequence: u64,
    pace: Pace,
}

impl Link {
    pub fn new(to: To) -> Self {
        let pace = Pace { full_at: Instant::now() };
        Self { to, way: Way::None, had_tcp: false, backoff: backoff(), recent: VecDeque::new(), sequence: 0, pace }
    }

    /// Sends one, for as long as it takes; `false` when `is_over` said to leave it.
    pub fn send(&mut self, line: &Line, is_over: &dyn Fn() -> bool) -> bool {
        self.sequence = session::now().max(self.sequence + 1);
        let Some(message) = line.message(self.sequence, &self.to.proof) else { return true };
        wait(self.pace.next(), is_over);
        loop {
            if is_over() && !self.is_connected() {
                return false;
            }
            match self.try_send(&message) {
                Ok(()) => break,
                Err(_) => {
                    self.way = Way::None;
                    wait(self.backoff.step(), is_over);
                }
            }
        }
        self.recent.push_back(message);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        true
    }

    /// Whether what is sent now leaves at once, as far as is known.
    pub fn is_connected(&self) -> bool {
        !matches!(self.way, Way::None)
    }

    /// Says that this was all, and waits until the appliance has it.
    pub fn finish(&mut self, patience: Duration) {
        let Way::Tcp(stream) = &mut self.way else { return };
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.set_read_timeout(Some(patience));
        let _ = io::Read::read(stream, &mut [0]);
        self.way = Way::None;
    }

    fn try_send(&mut self, message: &str) -> io::Result<()> {
        if let Way::Udp(_, since) = &self.way
            && since.elapsed() > UDP_FOR
        {
            self.way = Way::None;
        }
        if matches!(self.way, Way::None) {
            self.way = self.open()?;
            if let Way::Tcp(stream) = &mut self.way {
                self.backoff = backoff();
                let again: String = self.recent.iter().map(|message| counted(message)).collect();
                stream.write_all(again.as_bytes())?;
            }
        }
        match &mut self.way {
            Way::None => Err(io::ErrorKind::NotConnected.into()),
            Way::Tcp(stream) => {
                // One that was closed takes a message more, and loses it.
                match recv(&*stream, &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
                    Err(rustix::io::Errno::AGAIN) | Ok((1.., _)) => stream.write_all(counted(message).as_bytes()),
                    Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => Err(error.into()),
                }
            }
            Way::Udp(socket, _) => socket.send(message.as_bytes()).map(drop),
        }
    }

    fn open(&mut self) -> io::Result<Way> {
        match TcpStream::connect_timeout(&self.to.address, CONNECT) {
            Ok(stream) => {
                stream.set_write_timeout(Some(STUCK))?;
                let socket = SockRef::from(&stream);
                let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)));
                let _ = socket.set_tcp_user_timeout(Some(STUCK * 2));
                self.had_tcp = true;
                Ok(Way::Tcp(stream))
            }
            // Nobody answers: a filter lets UDP through, perhaps. Who refuses is there, and will listen again.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.had_tcp => {
                let any: SocketAddr = match self.to.address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(self.to.address)?;
                Ok(Way::Udp(socket, Instant::now()))
            }
            Err(error) => Err(error),
        }
    }
}

fn counted(message: &str) -> String {
    format!("{} {message}", message.len())
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(500), Duration::from_secs(30))
}

/// Waits in short steps, so that an end is not waited for.
fn wait(how_long: Duration, is_over: &dyn Fn() -> bool) {
    const STEP: Duration = Duration::from_millis(50);
    let until = Instant::now() + how_long;
    while !is_over() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// So many at once, then one each while (the generic cell rate algorithm, ITU-T I.371).
struct Pace {
    full_at: Instant,
}

impl Pace {
    /// How long the next one waits.
    fn next(&mut self) -> Duration {
        let now = Instant::now();
        let from = self.full_at.max(now);
        self.full_at = from + EVERY;
        from.saturating_duration_since(now + EVERY * (BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn to(address: SocketAddr) -> To {
        To { address, proof: serde_json::from_str(&format!("\"{}\"", "07".repeat(32))).unwrap() }
    }

    fn line(text: &str) -> Line {
        Line { text: text.into(), ..Line::default() }
    }

    /// Everything that one connection brings.
    fn heard(listener: &TcpListener) -> String {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_lost_with_a_connection_comes_again_with_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut link = Link::new(to(listener.local_addr().unwrap()));
        assert!(link.send(&line("first"), &|| false));
        drop(listener.accept().unwrap());
        std::thread::sleep(Duration::from_millis(100));
        let sending = std::thread::spawn(move || {
            assert!(link.send(&line("second"), &|| false) && link.is_connected());
            link.finish(Duration::from_secs(5));
        });
        let text = heard(&listener);
        sending.join().unwrap();
        let (first, second) = (text.find("] first").unwrap(), text.find("] second").unwrap());
        assert!(first < second);
        let (count, rest) = text.split_once(' ').unwrap();
        assert_eq!(&rest[count.parse::<usize>().unwrap() - 5..][..5], "first");
    }

    #[test]
    fn an_appliance_that_is_away_is_waited_for_until_it_is_over() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut link = Link::new(to(address));
        let began = Instant::now();
        assert!(!link.send(&line("x"), &|| began.elapsed() > Duration::from_millis(700)));
        assert!(began.elapsed() < Duration::from_secs(3));
        let sending = std::thread::spawn(move || {
            assert!(link.send(&line("y"), &|| false));
            drop(link);
        });
        std::thread::sleep(Duration::from_millis(700));
        let text = heard(&TcpListener::bind(address).unwrap());
        sending.join().unwrap();
        assert!(text.ends_with("] y") && !text.contains("] x"), "{text}");
    }

    #[test]
    fn many_lines_wait_for_each_other() {
        let mut pace = Pace { full_at: Instant::now() };
        let waits: Vec<Duration> = (0..BURST + 100).map(|_| pace.next()).collect();
        assert!(waits[..BURST as usize].iter().all(Duration::is_zero));
        assert!(waits.last().unwrap() > &(EVERY * 50));
    }
}
