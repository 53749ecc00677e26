//! A TFTP client that may misbehave.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use super::place::{Place, SERVER};

/// A transfer without a packet for so long has failed.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Packet {
    Data(u16, Vec<u8>),
    Oack(Vec<(String, String)>),
    Error(u16, String),
}

impl Packet {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match *bytes {
            [0, 3, high, low, ref data @ ..] => Ok(Self::Data(u16::from_be_bytes([high, low]), data.to_vec())),
            [0, 5, high, low, ref words @ .., 0] => Ok(Self::Error(u16::from_be_bytes([high, low]), text(words))),
            [0, 6, ref pairs @ .., 0] => {
                let words: Vec<String> = pairs.split(|byte| *byte == 0).map(text).collect();
                ensure!(words.len().is_multiple_of(2), "an OACK of {words:?}");
                Ok(Self::Oack(words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()))
            }
            _ => bail!("no packet of a server: {bytes:?}"),
        }
    }
}

/// One end of a transfer.
#[derive(Debug)]
pub struct Tftp {
    socket: UdpSocket,
    /// Where the server sends from: its transfer identifier.
    pub peer: Option<SocketAddr>,
    /// DATA packets that came, repeated ones too.
    pub data: usize,
}

impl Tftp {
    /// On a port of its own.
    pub fn new(place: &Place) -> Result<Self> {
        Ok(Self { socket: place.udp()?, peer: None, data: 0 })
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |address| address.port())
    }

    /// A read request to port 69.
    pub fn ask(&mut self, name: &str, mode: &str, options: &[(&str, &str)]) -> Result<()> {
        self.ask_at(SocketAddr::from((SERVER, 69)), 1, name, mode, options)
    }

    /// A request with any opcode to anywhere.
    pub fn ask_at(
        &mut self,
        to: SocketAddr,
        opcode: u8,
        name: &str,
        mode: &str,
        options: &[(&str, &str)],
    ) -> Result<()> {
        let mut request = vec![0, opcode];
        for word in [name, mode].into_iter().chain(options.iter().flat_map(|(name, value)| [*name, *value])) {
            request.extend(word.bytes().chain([0]));
        }
        self.peer = None;
        self.socket.send_to(&request, to)?;
        Ok(())
    }

    /// The next packet, unless none comes in time. The first one tells the server's port; all others come from there.
    pub fn hear(&mut self, within: Duration) -> Result<Option<Packet>> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let mut buffer = vec![0; 1 << 16];
        let (length, from) = match self.socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        ensure!(
            *self.peer.get_or_insert(from) == from,
            "a packet from {from}, and the transfer is with {:?}",
            self.peer
        );
        let packet = Packet::parse(&buffer[..length])?;
        self.data += usize::from(matches!(packet, Packet::Data(..)));
        Ok(Some(packet))
    }

    /// The next packet, which must come.
    pub fn next(&mut self) -> Result<Packet> {
        self.hear(PATIENCE)?.with_context(|| format!("no packet within {PATIENCE:?}"))
    }

    /// The OACK that must come.
    pub fn oack(&mut self) -> Result<Vec<(String, String)>> {
        match self.next()? {
            Packet::Oack(options) => Ok(options),
            other => bail!("{other:?} came, not an OACK"),
        }
    }

    /// The DATA that must come, and be this block. What came before it may come once more: the host of these tests is
    /// busy, and the server does not wait for ever.
    pub fn block(&mut self, number: u16) -> Result<Vec<u8>> {
        loop {
            match self.next()? {
                Packet::Data(found, data) if found == number => return Ok(data),
                Packet::Data(found, _) if found == number.wrapping_sub(1) => {}
                Packet::Oack(_) if number == 1 => {}
                Packet::Data(found, _) => bail!("block {found} came, not {number}"),
                other => bail!("{other:?} came, not block {number}"),
            }
        }
    }

    /// Nothing comes for a while.
    pub fn silent(&mut self, quiet: Duration) -> Result<()> {
        match self.hear(quiet)? {
            None => Ok(()),
            Some(packet) => bail!("{packet:?} came"),
        }
    }

    /// Sends bytes to the server's port of this transfer.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.socket.send_to(bytes, self.peer.context("no transfer yet")?)?;
        Ok(())
    }

    /// Acknowledges a block.
    pub fn ack(&self, block: u16) -> Result<()> {
        let [high, low] = block.to_be_bytes();
        self.send(&[0, 4, high, low])
    }

    /// Ends the transfer.
    pub fn error(&self, code: u8, words: &str) -> Result<()> {
        self.send(&[&[0, 5, 0, code][..], words.as_bytes(), &[0]].concat())
    }

    /// Reads a whole file as a good client does.
    pub fn read(&mut self, name: &str, options: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        self.read_blocks(name, options, |_, data| {
            file.extend_from_slice(data);
            1
        })?;
        Ok(file)
    }

    /// Reads a whole file; each new block goes to `take`, which says how many times its window is acknowledged.
    /// Blocks that come again, or too early, are not.
    pub fn read_blocks(
        &mut self,
        name: &str,
        options: &[(&str, &str)],
        mut take: impl FnMut(u64, &[u8]) -> u32,
    ) -> Result<u64> {
        self.ask(name, "octet", options)?;
        let (mut size, mut window) = (512, 1);
        if !options.is_empty() {
            for (name, value) in self.oack()? {
                match name.as_str() {
                    "blksize" => size = value.parse()?,
                    "windowsize" => window = value.parse()?,
                    _ => {}
                }
            }
            self.ack(0)?;
        }
        let mut count = 0_u64;
        let begun = Instant::now();
        loop {
            let Packet::Data(number, data) =
                self.next().with_context(|| format!("after {count} blocks in {:?}", begun.elapsed()))?
            else {
                bail!("no block after {count}")
            };
            if number != (count + 1) as u16 {
                continue;
            }
            count += 1;
            let (times, is_last) = (take(count, &data), data.len() < size);
            if is_last || count.is_multiple_of(window) {
                for _ in 0..times.max(1) {
                    self.ack(number)?;
                }
            }
            if is_last {
                return Ok(count);
            }
        }
    }
}
