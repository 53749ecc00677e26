//! The shell on loopback, against clients of the tests' own: what the state machine's tests cannot see.

mod traversal;

use super::{
    content::{Content, Routes, Wanted},
    server::{Event, Listener, Service},
};
use crate::observe::Observe;
use bennu_rules::{
    journey::Seen,
    tftp::{ErrorCode, Mode, Packet, Request, peer::Standing},
};
use bytes::Bytes;
use std::{
    fs::File,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

const LENGTH: usize = 200_000;

fn pattern() -> Vec<u8> {
    (0..LENGTH).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn files(memory: Content, file: Content) -> Routes {
    Routes(vec![Box::new(move |wanted: Wanted| {
        let found = match wanted.name.as_str() {
            "memory.efi" => Some(memory.clone().into()),
            "file.efi" => Some(file.clone().into()),
            _ => None,
        };
        Box::pin(async { found })
    })])
}

struct Lab {
    server: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    counted: Arc<Mutex<Vec<Event>>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Lab {
    fn open() -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern()).unwrap();
        let routes =
            files(Content::Memory(Bytes::from(pattern())), Content::File(Arc::<File>::new(file), LENGTH as u64));
        let (seen, counted) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<Event>>>::default());
        let observe: Observe = Arc::new({
            let seen = seen.clone();
            move |_, one| seen.lock().unwrap().push(one)
        });
        let count = Arc::new({
            let counted = counted.clone();
            move |event| counted.lock().unwrap().push(event)
        });
        let shutdown = CancellationToken::new();
        let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
        let server = listener.local();
        let service = Service {
            routes: Arc::new(routes),
            observe,
            count,
            judge: Arc::new(|_| Standing::Known),
            shutdown: shutdown.clone(),
        };
        Self { server, seen, counted, shutdown, task: tokio::spawn(listener.serve(service)) }
    }

    async fn ask(&self, name: &str, mode: Mode, options: &[(&str, &str)]) -> Client {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let request = Packet::Read(Request { name: name.into(), mode, options });
        socket.send_to(&request.to_bytes(), self.server).await.unwrap();
        Client { socket, peer: None }
    }

    async fn last_seen(&self) -> Seen {
        for _ in 0..200 {
            if let Some(seen) = self.seen.lock().unwrap().pop() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the transfer's end was never reported")
    }
}

struct Client {
    socket: UdpSocket,
    peer: Option<SocketAddr>,
}

impl Client {
    async fn receive(&mut self) -> Packet {
        let mut buffer = vec![0; 70_000];
        let receive = self.socket.recv_from(&mut buffer);
        let (length, from) = tokio::time::timeout(Duration::from_secs(10), receive).await.expect("an answer").unwrap();
        assert_eq!(*self.peer.get_or_insert(from), from, "one transfer, one port");
        Packet::parse(&buffer[..length]).unwrap()
    }

    async fn send(&self, packet: Packet) {
        self.socket.send_to(&packet.to_bytes(), self.peer.unwrap()).await.unwrap();
    }

    /// Receives the rest of a file as RFC 7440 has it. On a busy machine a block may come twice.
    async fn fetch(&mut self, blksize: usize, window: u16) -> Vec<u8> {
        let (mut file, mut acked, mut received) = (Vec::new(), 0u16, 0u16);
        loop {
            let (block, payload) = match self.receive().await {
                Packet::Data { block, payload } => (block, payload),
                Packet::OptionAck(_) => continue,
                other => panic!("{other:?}"),
            };
            let last = payload.len() < blksize;
            if block == received + 1 {
                received = block;
                file.extend(&payload);
                if !last && received - acked < window {
                    continue;
                }
            }
            acked = received;
            self.send(Packet::Ack(acked)).await;
            if last && block == received {
                return file;
            }
        }
    }
}

#[tokio::test]
async fn windows_arrive_whole_from_memory_and_from_files() {
    let lab = Lab::open();
    for name in ["memory.efi", "/file.efi"] {
        for (blksize, window) in [("1468", "4"), ("512", "16"), ("8192", "1"), ("65464", "2")] {
            let options = [("tsize", "0"), ("blksize", blksize), ("windowsize", window)];
            let mut client = lab.ask(name, Mode::Octet, &options).await;
            let Packet::OptionAck(agreed) = client.receive().await else { panic!("no OACK") };
            let agreed: Vec<&str> = agreed.iter().map(|(_, value)| value.as_str()).collect();
            // 65464-byte blocks leave one at a time: a burst has its limit.
            let window = if blksize == "65464" { "1" } else { window };
            assert_eq!(agreed, [LENGTH.to_string().as_str(), blksize, window]);
            client.send(Packet::Ack(0)).await;
            let file = client.fetch(blksize.parse().unwrap(), window.parse().unwrap()).await;
            assert!(file == pattern(), "{name} with {blksize} and {window}");
            let Seen::LoaderRead { bytes, complete, detail, .. } = lab.last_seen().await else { panic!() };
            assert_eq!((bytes, complete), (LENGTH as u64, true));
            // On a busy machine a block may have been sent again.
            assert!(detail.starts_with(&format!("block {blksize}, window {window}")), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_plain_client_is_served_block_by_block() {
    let lab = Lab::open();
    let file = lab.ask("memory.efi", Mode::Octet, &[]).await.fetch(512, 1).await;
    assert!(file == pattern());
    let netascii = lab.ask("memory.efi", Mode::Netascii, &[]).await.fetch(512, 1).await;
    assert!(netascii == bennu_rules::tftp::netascii::encode(&pattern()) && netascii.len() > LENGTH);
}

#[tokio::test]
async fn refusals_are_prompt() {
    let lab = Lab::open();
    for (name, code) in [("autoexec.ipxe", 1), ("../memory.efi", 2), ("MEMORY.EFI", 1)] {
        let Packet::Error { code: got, .. } = lab.ask(name, Mode::Octet, &[]).await.receive().await else { panic!() };
        assert_eq!(got.0, code, "{name}");
    }
    let write = Packet::Write(Request { name: "memory.efi".into(), mode: Mode::Octet, options: Vec::new() });
    let mut client = lab.ask("nothing", Mode::Octet, &[]).await;
    client.receive().await;
    client.send(write).await;
    assert!(matches!(client.receive().await, Packet::Error { code: ErrorCode(2), .. }));
    let netascii = lab.ask("file.efi", Mode::Netascii, &[]).await.receive().await;
    assert!(matches!(netascii, Packet::Error { code: ErrorCode(0), .. }));
    assert_eq!(*lab.counted.lock().unwrap(), [Event::Refused; 6]);
}

#[tokio::test]
async fn garbage_at_the_port_stops_nothing() {
    let lab = Lab::open();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for garbage in [&b""[..], b"\0", b"\0\x01unterminated", b"\0\x04\0\x01", b"\xff\xff\xff\xff", &[0; 9000]] {
        socket.send_to(garbage, lab.server).await.unwrap();
    }
    assert_eq!(lab.ask("memory.efi", Mode::Octet, &[]).await.fetch(512, 1).await.len(), LENGTH);
    assert!(socket.try_recv(&mut [0; 100]).is_err(), "garbage was answered");
}

#[tokio::test]
async fn a_stranger_is_told_and_the_transfer_lives() {
    let lab = Lab::open();
    let mut client = lab.ask("memory.efi", Mode::Octet, &[("blksize", "1024")]).await;
    client.receive().await;
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for _ in 0..20 {
        stranger.send_to(&Packet::Ack(0).to_bytes(), client.peer.unwrap()).await.unwrap();
    }
    client.send(Packet::Ack(0)).await;
    assert!(client.fetch(1024, 1).await == pattern());
    let mut told = 0;
    let mut buffer = [0; 100];
    while let Ok(length) = stranger.try_recv(&mut buffer) {
        assert!(matches!(Packet::parse(&buffer[..length]), Ok(Packet::Error { code: ErrorCode::UNKNOWN_TID, .. })));
        told += 1;
    }
    assert_eq!(told, 8);
}

#[tokio::test]
async fn a_size_probe_is_freed_at_once() {
    let lab = Lab::open();
    let mut client = lab.ask("memory.efi", Mode::Octet, &[("tsize", "0"), ("blksize", "1468")]).await;
    client.receive().await;
    client.send(Packet::Error { code: ErrorCode::OPTIONS, message: "User aborted".into() }).await;
    let Seen::LoaderRead { bytes, complete, detail, took_ms, .. } = lab.last_seen().await else { panic!() };
    assert_eq!((bytes, complete, detail.as_str()), (0, false, "asked for the size only"));
    assert!(took_ms < 400, "{took_ms} ms");
}

#[tokio::test]
async fn a_client_that_is_gone_after_the_last_block_counts_as_served() {
    let lab = Lab::open();
    let mut client = lab.ask("memory.efi", Mode::Octet, &[("blksize", "65464")]).await;
    client.receive().await;
    client.send(Packet::Ack(0)).await;
    for block in 1..=3 {
        while !matches!(client.receive().await, Packet::Data { block: received, .. } if received == block) {}
        client.send(Packet::Ack(block)).await;
    }
    while !matches!(client.receive().await, Packet::Data { block: 4, .. }) {}
    drop(client);
    let Seen::LoaderRead { complete, detail, .. } = lab.last_seen().await else { panic!() };
    assert!(complete && detail.starts_with("finished, the last ACK never came"), "{detail}");
}

#[tokio::test]
async fn a_stop_ends_transfers_and_tells_their_clients() {
    let lab = Lab::open();
    let mut client = lab.ask("memory.efi", Mode::Octet, &[("blksize", "1024")]).await;
    client.receive().await;
    lab.shutdown.cancel();
    while !matches!(client.receive().await, Packet::Error { code: ErrorCode::UNDEFINED, .. }) {}
    tokio::time::timeout(Duration::from_secs(5), lab.task).await.expect("it ends").unwrap().unwrap();
}
