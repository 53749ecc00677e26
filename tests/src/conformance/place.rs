//! Where a line is shown: one appliance, and a host on its wire.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use super::{client::Client, frames::Mac, link::Link};
use crate::{
    appliance::{Appliance, Config},
    command,
    rack::Rack,
    wire::Namespace,
    workshop,
};

/// The appliance.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The host on its wire. Networks behind relays are routed to it.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

/// How long a request over TCP may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An appliance with a wire of its own.
#[derive(Debug)]
pub struct Bench {
    /// The wire.
    pub rack: Rack,
    /// The appliance.
    pub bennu: Appliance,
    /// What tests need of it.
    pub place: Place,
}

/// What tests need of a bench; it may be used from any thread.
#[derive(Debug, Clone)]
pub struct Place {
    /// The host.
    pub host: Namespace,
    /// The appliance's card.
    pub server_mac: Mac,
    binary: PathBuf,
    /// Of the appliance's API.
    pub socket: PathBuf,
    log: PathBuf,
}

impl Bench {
    /// Starts an appliance, and routes `networks` to the host.
    pub fn new(config: Config, networks: &[&str]) -> Result<Self> {
        Self::on(Rack::new()?, config, networks)
    }

    /// The same in a rack that holds something already.
    pub fn on(rack: Rack, config: Config, networks: &[&str]) -> Result<Self> {
        let bennu = rack.appliance(config)?;
        let host = rack.host("host", &format!("{HOST}/24"))?;
        for network in networks {
            bennu.namespace().ip(&format!("route add {network} via {HOST}"))?;
        }
        let stranger = Client::new(Link::open(&host, "net0")?, [0; 6], [0x52, 0x54, 0x0c, 0xff, 0xff, 0xff]);
        let server_mac = stranger.who_has(Ipv4Addr::UNSPECIFIED, SERVER)?.context("the appliance answers no ARP")?;
        let (binary, socket) = (workshop::bennu_binary()?, rack.home().socket("bennu.sock"));
        let place = Place { host, server_mac, binary, socket, log: bennu.log() };
        Ok(Self { rack, bennu, place })
    }
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Everything after the head.
    pub body: Vec<u8>,
}

impl Page {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Place {
    /// What `bennu … --json` says.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut bennu = Command::new(&self.binary);
        bennu.env("BENNU_SERVER", format!("unix://{}", self.socket.display()));
        let said = command::run(bennu.args(arguments).arg("--json"))?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    /// What `bennu …` says.
    pub fn bennu(&self, arguments: &[&str]) -> Result<String> {
        let mut bennu = Command::new(&self.binary);
        command::run(bennu.env("BENNU_SERVER", format!("unix://{}", self.socket.display())).args(arguments))
    }

    /// What the appliance has logged.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// A UDP socket of the host on any port.
    pub fn udp(&self) -> Result<UdpSocket> {
        self.host.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_broadcast(true)?;
            Ok(socket)
        })
    }

    /// Sends one request and reads until the server closes.
    pub fn http(&self, request: &str) -> Result<Page> {
        let mut stream = self.host.inside(|| {
            let stream = TcpStream::connect_timeout(&SocketAddr::from((SERVER, 80)), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").context("an answer without a head")?;
        let body = answer.split_off(head + 4);
        let text = String::from_utf8(answer)?;
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status")?;
        let pair = |line: &str| Some((line.split_once(": ")?.0.to_lowercase(), line.split_once(": ")?.1.to_owned()));
        Ok(Page { status, headers: lines.filter_map(pair).collect(), body })
    }

    /// One request on a connection of its own, with further header lines.
    pub fn fetch(&self, method: &str, path: &str, headers: &[&str]) -> Result<Page> {
        let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.http(&format!("{method} {path} HTTP/1.1\r\nHost: {SERVER}\r\n{more}Connection: close\r\n\r\n"))
    }
}
