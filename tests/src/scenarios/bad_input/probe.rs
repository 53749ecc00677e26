//! A machine's view of the appliance at 10.77.0.1: it asks for an address, reads its loader by TFTP, gets it by HTTP.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use crate::{wire::Namespace, workshop};

/// The appliance.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host on the appliance's wire, and sockets in its namespace.
#[derive(Debug)]
pub struct Probe {
    namespace: Namespace,
    dhcp: UdpSocket,
}

/// A captured packet, by the start of its file's name.
pub fn capture(name: &str) -> Result<Vec<u8>> {
    let captures = captures()?;
    let found = captures.into_iter().find(|(file, _)| file.starts_with(name));
    Ok(found.with_context(|| format!("there is no capture {name}"))?.1)
}

/// Every captured DHCP packet.
pub fn captures() -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(workshop::checkout().join("tests/packets/dhcp"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16);
        let bytes: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(byte).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push((name, bytes.with_context(|| format!("{} is not hexadecimal", path.display()))?));
    }
    all.sort();
    ensure!(!all.is_empty(), "there are no captures");
    Ok(all)
}

/// Where options begin, after the fixed fields and the magic cookie (RFC 2131 §2).
const OPTIONS: usize = 240;

/// An option's value.
fn option(packet: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = packet.get(OPTIONS..)?;
    loop {
        match *rest {
            [0, ref after @ ..] => rest = after,
            [found, length, ref after @ ..] if found != 255 => {
                let (value, after) = after.split_at_checked(length.into())?;
                if found == code {
                    return Some(value);
                }
                rest = after;
            }
            _ => return None,
        }
    }
}

impl Probe {
    /// Opens the client's DHCP port in a namespace.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let dhcp = namespace.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        })?;
        Ok(Self { namespace: namespace.clone(), dhcp })
    }

    /// Its DHCP port.
    pub fn dhcp(&self) -> &UdpSocket {
        &self.dhcp
    }

    /// A new port of its own.
    pub fn udp(&self) -> Result<UdpSocket> {
        self.namespace.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    }

    /// A new connection to the appliance's HTTP port.
    pub fn tcp(&self) -> Result<TcpStream> {
        self.namespace.inside(|| {
            let stream = TcpStream::connect_timeout(&SocketAddr::from((SERVER, 80)), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// The appliance serves: machine number `machine` gets an address and a loader's name, and the same loader by TFTP
    /// and by HTTP; and there is a boot script.
    pub fn serves(&self, machine: u8) -> Result<()> {
        let file = self.leased(machine).context("DHCP")?;
        let by_tftp = self.read(&file).context("TFTP")?;
        let by_http = self.get(&format!("/loader/{file}")).context("HTTP")?;
        ensure!(by_tftp.len() > 50_000, "the loader {file} has {} bytes only", by_tftp.len());
        ensure!(by_tftp == by_http, "{file} has {} bytes by TFTP and {} by HTTP", by_tftp.len(), by_http.len());
        let script = self.get("/boot.ipxe").context("the boot script")?;
        ensure!(script.starts_with(b"#!ipxe\n"), "/boot.ipxe is no script: {}", String::from_utf8_lossy(&script));
        Ok(())
    }

    /// DISCOVER, OFFER, REQUEST, ACK as OVMF does it; the boot file's name.
    fn leased(&self, machine: u8) -> Result<String> {
        let mut discover = capture("ovmf-2022.11-pxe-discover")?;
        discover[4..8].copy_from_slice(&[0xb0, 0x07, 0, machine]);
        discover[28..34].copy_from_slice(&[0x52, 0x54, 0, 0xd0, 0x0a, machine]);
        let offer = self.answer(&discover, 2)?;
        let server = option(&offer, 54).context("an offer without the server's address")?.to_vec();
        ensure!(server == SERVER.octets(), "{server:?} offers");
        let mut request = discover.clone();
        let kind = request.windows(3).position(|w| w == [53, 1, 1]).context("no message type")?;
        request[kind + 2] = 3;
        let end = request.iter().rposition(|byte| *byte == 255).context("no end")?;
        request.truncate(end);
        request.extend([50, 4].iter().chain(&offer[16..20]).chain(&[54, 4]).chain(&server).chain(&[255]));
        let ack = self.answer(&request, 5)?;
        ensure!(ack[16..20] == offer[16..20], "offered {:?}, given {:?}", &offer[16..20], &ack[16..20]);
        let name = option(&ack, 67).unwrap_or(&ack[108..236]);
        let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
        ensure!(!name.is_empty(), "no boot file");
        Ok(String::from_utf8(name)?)
    }

    /// Sends a packet until it is answered with a message of this type.
    fn answer(&self, packet: &[u8], kind: u8) -> Result<Vec<u8>> {
        let begun = Instant::now();
        let mut buffer = [0; 2048];
        while begun.elapsed() < PATIENCE {
            self.dhcp.send_to(packet, (SERVER, 67))?;
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_secs(1) {
                let Some(count) = received(self.dhcp.recv(&mut buffer))? else { continue };
                let reply = &buffer[..count];
                let ours = count > OPTIONS && reply[0] == 2 && reply[4..8] == packet[4..8];
                if ours && option(reply, 53) == Some(&[kind]) {
                    return Ok(reply.to_vec());
                }
            }
        }
        bail!("no message of type {kind} within {PATIENCE:?}")
    }

    /// Reads a file by TFTP (RFC 1350), while others and we ourselves send nonsense to the transfer's port.
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (socket, stranger) = (self.udp()?, self.udp()?);
        let request = [b"\0\x01", name.as_bytes(), b"\0octet\0blksize\x001400\0"].concat();
        socket.send_to(&request, (SERVER, 69))?;
        let mut buffer = [0; 2048];
        let (mut file, mut next) = (Vec::new(), 1_u16);
        loop {
            let (count, from) = socket.recv_from(&mut buffer).context("no packet")?;
            let block = match &buffer[..count] {
                [0, 6, ..] => 0,
                [0, 3, high, low, data @ ..] if u16::from_be_bytes([*high, *low]) == next => {
                    file.extend_from_slice(data);
                    next = next.wrapping_add(1);
                    next.wrapping_sub(1)
                }
                [0, 3, ..] => continue,
                other => bail!("{} came", String::from_utf8_lossy(other).escape_default()),
            };
            if block == 3 {
                disturb(&socket, &stranger, from)?;
            }
            socket.send_to(&[&[0, 4][..], &block.to_be_bytes()].concat(), from)?;
            if block > 0 && count < 4 + 1400 {
                return Ok(file);
            }
        }
    }

    /// Gets a file by HTTP.
    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut stream = self.tcp()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: 10.77.0.1\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").context("no head")? + 4;
        let head = String::from_utf8_lossy(&answer[..body]);
        ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        Ok(answer.split_off(body))
    }
}

/// A packet from another port is refused and harms no transfer (RFC 1350 §4); neither does nonsense from the right one.
fn disturb(client: &UdpSocket, stranger: &UdpSocket, transfer: SocketAddr) -> Result<()> {
    for nonsense in [&b""[..], b"\0", b"\0\x04", b"\0\x09xx", b"\xff\xff\xff\xff", &[0x55; 1400]] {
        client.send_to(nonsense, transfer)?;
    }
    stranger.send_to(&[0, 4, 0, 9], transfer)?;
    let mut buffer = [0; 512];
    let count = stranger.recv(&mut buffer).context("no answer to an unknown transfer id")?;
    ensure!(buffer[..count].starts_with(&[0, 5, 0, 5]), "an unknown transfer id got {:?}", &buffer[..count]);
    Ok(())
}

/// A datagram, or nothing yet.
fn received(read: std::io::Result<usize>) -> Result<Option<usize>> {
    match read {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
