//! A TFTP read (RFC 1350, with blksize, tsize and windowsize: RFC 2348, 2349, 7440) as a boot loader does it. The
//! client's timer is fixed, as firmware's is. Loss is simulated by ignoring received packets.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct Read {
    /// The server's port 69.
    pub server: SocketAddr,
    /// The machine's own address.
    pub bind: Ipv4Addr,
    /// The file's name.
    pub file: String,
    /// Asked window.
    pub window: u16,
    /// The client's retransmission timer.
    pub timeout: Duration,
    /// The whole transfer ends by then.
    pub deadline: Duration,
    /// Part of the received packets that is ignored.
    pub loss: f64,
    /// Decides which.
    pub seed: u64,
    /// What the bytes must be.
    pub expected: Option<Arc<Vec<u8>>>,
}

/// A finished read.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Times the client's timer ran out.
    pub timeouts: u64,
}

/// Block size that fits an Ethernet frame, as iPXE and EDK2 ask for.
const BLKSIZE: u16 = 1468;
/// Timeouts in a row after which firmware gives up.
const RETRIES: u32 = 10;

/// A small generator (splitmix64): loss must be the same in every run of one seed.
pub struct Chance(pub u64);

impl Chance {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The read request of a file.
pub fn request(file: &str, window: u16) -> Vec<u8> {
    let mut packet = vec![0, 1];
    let (blksize, window_text) = (BLKSIZE.to_string(), window.to_string());
    let mut words = vec![file, "octet", "tsize", "0", "blksize", &blksize];
    if window > 1 {
        words.extend(["windowsize", &window_text]);
    }
    for word in words {
        packet.extend(word.as_bytes());
        packet.push(0);
    }
    packet
}

/// A transfer that goes on.
struct Transfer<'a> {
    read: &'a Read,
    socket: UdpSocket,
    done: Done,
    blksize: u64,
    window: u16,
    size: Option<u64>,
    /// The next block, counted without wrapping.
    expected: u64,
    /// Blocks taken since the last ACK.
    in_window: u16,
    /// How far ahead the last block was that came after a gap.
    ahead: Option<u16>,
}

impl Read {
    /// Reads the file.
    pub fn run(&self) -> Result<Done, String> {
        let started = Instant::now();
        let socket = UdpSocket::bind((self.bind, 0)).map_err(|error| format!("cannot bind: {error}"))?;
        let setup = || -> std::io::Result<()> {
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 20)?;
            socket.set_read_timeout(Some(self.timeout))
        };
        setup().map_err(|error| format!("cannot set a socket up: {error}"))?;
        let transfer = Transfer {
            read: self,
            socket,
            done: Done::default(),
            blksize: 512,
            window: 1,
            size: None,
            expected: 1,
            in_window: 0,
            ahead: None,
        };
        transfer.run(started)
    }
}

impl Transfer<'_> {
    fn run(mut self, started: Instant) -> Result<Done, String> {
        let request = request(&self.read.file, self.read.window);
        let ask = |socket: &UdpSocket| {
            socket.send_to(&request, self.read.server).map_err(|error| format!("cannot send: {error}"))
        };
        ask(&self.socket)?;
        let (mut buffer, mut chance) = (vec![0_u8; 65536], Chance(self.read.seed));
        let (mut connected, mut silent) = (false, 0);
        loop {
            if started.elapsed() > self.read.deadline {
                return Err(format!("not finished in time, after {} bytes", self.done.bytes));
            }
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.done.timeouts += 1;
                    silent += 1;
                    if silent > RETRIES {
                        return Err("the server fell silent".to_owned());
                    }
                    self.ahead = None;
                    if connected {
                        self.acknowledge(self.expected - 1);
                    } else {
                        ask(&self.socket)?;
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    silent += 1;
                    if silent > RETRIES {
                        return Err("the server closed its port".to_owned());
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("cannot receive: {error}")),
            };
            if length < 4 || from.ip() != self.read.server.ip() {
                continue;
            }
            if self.read.loss > 0.0 && chance.unit() < self.read.loss {
                continue;
            }
            if !connected {
                self.socket.connect(from).map_err(|error| format!("cannot connect: {error}"))?;
                connected = true;
            }
            let before = self.expected;
            if self.take(&buffer[..length])? {
                self.done.seconds = started.elapsed().as_secs_f64();
                return Ok(self.done);
            }
            if self.expected > before || buffer[1] == 6 {
                silent = 0;
            }
        }
    }

    fn acknowledge(&mut self, block: u64) {
        self.in_window = 0;
        let [high, low] = (block as u16).to_be_bytes();
        // An error of an earlier packet may surface here; silence will tell.
        let _ = self.socket.send(&[0, 4, high, low]);
    }

    /// Takes a packet; says whether the file is whole.
    fn take(&mut self, packet: &[u8]) -> Result<bool, String> {
        match packet[1] {
            3 => self.data(u16::from_be_bytes([packet[2], packet[3]]), &packet[4..]),
            5 => {
                let said = String::from_utf8_lossy(&packet[4..]);
                Err(format!("the server said error {}: {}", packet[3], said.trim_end_matches('\0')))
            }
            6 => {
                if self.expected == 1 {
                    self.agree(&packet[2..]);
                    self.acknowledge(0);
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn agree(&mut self, options: &[u8]) {
        let mut words = options.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).to_lowercase());
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name.as_str() {
                "blksize" => self.blksize = value.parse().unwrap_or(512),
                "windowsize" => self.window = value.parse().unwrap_or(1),
                "tsize" => self.size = value.parse().ok(),
                _ => {}
            }
        }
    }

    fn data(&mut self, number: u16, bytes: &[u8]) -> Result<bool, String> {
        match number.wrapping_sub(self.expected as u16) {
            0 => {
                self.check(bytes)?;
                self.ahead = None;
                self.expected += 1;
                self.in_window += 1;
                self.done.bytes += bytes.len() as u64;
                let last = (bytes.len() as u64) < self.blksize;
                if last || self.in_window >= self.window {
                    self.acknowledge(self.expected - 1);
                }
                if last && self.size.is_some_and(|size| size != self.done.bytes) {
                    return Err(format!("{} bytes came where {:?} were promised", self.done.bytes, self.size));
                }
                return Ok(last);
            }
            // A block after a gap: the one that misses is asked for once in each burst (RFC 7440 §4).
            ahead @ 1..0x8000 => {
                if self.ahead.is_none_or(|last| ahead <= last) {
                    self.acknowledge(self.expected - 1);
                }
                self.ahead = Some(ahead);
            }
            // The last block again: our ACK was lost.
            0xffff => self.acknowledge(self.expected - 1),
            _ => {}
        }
        Ok(false)
    }

    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let Some(expected) = &self.read.expected else { return Ok(()) };
        let at = self.done.bytes as usize;
        if expected.get(at..at + bytes.len()) == Some(bytes) { Ok(()) } else { Err("wrong bytes".to_owned()) }
    }
}
