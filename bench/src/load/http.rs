//! Downloads over HTTP whose bytes are thrown away inside the kernel, so that the client costs little of a
//! machine that it shares with the server.

use anyhow::Result;
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::Figures;

/// No wait for the server is longer.
const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_HEAD: usize = 64 << 10;
const STRETCH: usize = 1 << 20;

/// A connection from an address of the client's own.
pub fn connect(bind: Ipv4Addr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if !bind.is_unspecified() {
        socket.bind(&SocketAddr::from((bind, 0)).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// The head of an answer, and what came with it of the body.
pub struct Head {
    /// Length of the body.
    pub length: u64,
    /// What came already.
    pub begun: Vec<u8>,
}

/// Reads an answer's head; anything but 200 is an error.
pub fn head(stream: &mut TcpStream) -> Result<Head, String> {
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let begun = received.split_off(end + 4);
            let text = String::from_utf8_lossy(&received).to_ascii_lowercase();
            let status = text.split(' ').nth(1).unwrap_or_default();
            if status != "200" {
                return Err(format!("HTTP status {status}"));
            }
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            return Ok(Head { length: length.ok_or("an answer without a length")?, begun });
        }
        if received.len() > LONGEST_HEAD {
            return Err("a head without an end".to_owned());
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err("closed before the head's end".to_owned()),
            Ok(length) => received.extend(&buffer[..length]),
            Err(error) => return Err(format!("no head: {error}")),
        }
    }
}

/// The request of a path.
pub fn request(server: Ipv4Addr, path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: iPXE/1.21.1 (bench)\r\n{more}\r\n")
}

/// Asks for a path on a connection of its own.
fn ask(server: Ipv4Addr, path: &str, bind: Ipv4Addr) -> Result<(TcpStream, Head), String> {
    let mut stream = connect(bind, (server, 80).into()).map_err(|error| format!("cannot connect: {error}"))?;
    let request = request(server, path, "Connection: close\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("cannot ask: {error}"))?;
    let head = head(&mut stream)?;
    Ok((stream, head))
}

/// The rest of a body, after its head.
pub fn body(stream: &mut TcpStream, head: Head) -> Result<String, String> {
    let Head { length, begun: mut body } = head;
    let begun = body.len();
    body.resize(length as usize, 0);
    let rest = body.get_mut(begun..).ok_or("more came than was asked for")?;
    stream.read_exact(rest).map_err(|error| format!("no body: {error}"))?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// One GET on a connection of its own; its body.
pub fn text(server: Ipv4Addr, path: &str, bind: Ipv4Addr) -> Result<String, String> {
    let (mut stream, head) = ask(server, path, bind)?;
    body(&mut stream, head)
}

/// One GET on a connection of its own; the bytes of its body.
pub fn get(server: Ipv4Addr, path: &str, bind: Ipv4Addr) -> Result<u64, String> {
    let (stream, Head { length, begun }) = ask(server, path, bind)?;
    let (mut bytes, mut buffer) = (begun.len() as u64, vec![0; STRETCH.min(length as usize)]);
    while bytes < length {
        let want = (length - bytes).min(buffer.len() as u64) as usize;
        // With MSG_TRUNC a TCP socket drops the bytes and copies nothing (tcp(7)).
        match recv(&stream, &mut buffer[..want], RecvFlags::TRUNC) {
            Ok((_, 0)) => return Err(format!("closed early, after {bytes} of {length} bytes")),
            Ok((_, dropped)) => bytes += dropped as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("the body stopped after {bytes} of {length} bytes: {error}")),
        }
    }
    Ok(bytes)
}

/// Downloads of one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Streams {
    /// The server.
    pub server: Ipv4Addr,
    /// The file's path.
    pub path: String,
    /// Its size, when that is known.
    pub size: Option<u64>,
    /// Downloads at once.
    pub streams: u32,
    /// Downloads one after the other in each.
    pub turns: u32,
}

impl Streams {
    pub(super) fn run(&self) -> Result<Figures> {
        let started = Instant::now();
        let threads: Vec<_> = (0..self.streams)
            .map(|_| {
                let load = self.clone();
                thread::spawn(move || -> Vec<_> {
                    (0..load.turns).map(|_| get(load.server, &load.path, Ipv4Addr::UNSPECIFIED)).collect()
                })
            })
            .collect();
        let (mut figures, mut total) = (Figures::default(), 0);
        for thread in threads {
            for outcome in thread.join().unwrap_or_else(|_| vec![Err("the client crashed".to_owned())]) {
                match outcome {
                    Ok(bytes) if self.size.is_none_or(|size| size == bytes) => total += bytes,
                    Ok(bytes) => figures.count_error(&format!("{bytes} bytes, which are not those of the file")),
                    Err(error) => figures.count_error(&error),
                }
            }
        }
        let wall = started.elapsed().as_secs_f64();
        figures.set("failed", figures.errors.values().sum::<u64>() as f64);
        figures.set("wall_s", wall);
        figures.set("bytes", total as f64);
        figures.set("mb_per_s", total as f64 / wall / 1e6);
        Ok(figures)
    }
}
