use super::*;
use bennu_rules::trial::{GUEST, GUEST_CARD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A machine's end of the cable: a card with an address, and one connection.
struct Guest {
    frames: Frames,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    started: Instant,
}

impl Guest {
    fn new(cable: UnixStream) -> Self {
        let mut frames = Frames { guest: cable, coming: Vec::new(), come: VecDeque::new(), going: VecDeque::new() };
        let config = Config::new(EthernetAddress(GUEST_CARD.0).into());
        let mut interface = Interface::new(config, &mut frames, Tick::ZERO);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::Ipv4(GUEST), 24)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { frames, interface, sockets, handle, started: Instant::now() }
    }

    fn connect(&mut self, port: u16) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        socket.connect(self.interface.context(), (APPLIANCE, port), 50_000).unwrap();
    }

    /// Works until `done` says so.
    async fn until<T>(&mut self, mut done: impl FnMut(&mut tcp::Socket<'_>) -> Option<T>) -> T {
        loop {
            let _ = self.frames.take().unwrap();
            let now = Tick::from_micros(self.started.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.frames, &mut self.sockets);
            let _ = self.frames.give().unwrap();
            if let Some(done) = done(self.sockets.get_mut(self.handle)) {
                return done;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

fn plugged(accept: Accept) -> Guest {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(Wire::new(ours, 7, accept).carry());
    Guest::new(theirs)
}

#[tokio::test]
async fn a_machine_is_served_over_its_cable() {
    const SIZE: usize = 3 << 20;
    let body: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let served = body.clone();
    let mut guest = plugged(Box::new(move |mut stream| {
        let served = served.clone();
        tokio::spawn(async move {
            let mut asked = [0; 3];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"get");
            stream.write_all(&served).await.unwrap();
        });
    }));
    for _ in 0..2 {
        guest.connect(80);
        guest.until(|socket| socket.can_send().then(|| socket.send_slice(b"get").unwrap())).await;
        let mut got = Vec::new();
        let read = guest.until(|socket| {
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
            }
            (!socket.may_recv()).then_some(())
        });
        tokio::time::timeout(Duration::from_secs(30), read).await.unwrap();
        assert!(got == body, "{} bytes of {SIZE}", got.len());
        guest.sockets.get_mut::<tcp::Socket<'_>>(guest.handle).abort();
        guest.until(|_| Some(())).await;
    }
}

#[tokio::test]
async fn no_other_port_answers() {
    let mut guest = plugged(Box::new(|_| panic!("a connection was accepted")));
    guest.connect(22);
    let closed = guest.until(|socket| (!socket.is_open()).then_some(()));
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

#[tokio::test]
async fn a_cable_that_is_pulled_or_talks_nonsense_ends_the_wire() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let ended = Wire::new(ours, 7, Box::new(drop)).carry().await.unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let ended = Wire::new(ours, 7, Box::new(drop)).carry().await.unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::InvalidData);
}
