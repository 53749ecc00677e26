use super::{receiver::Ear, *};
use crate::{
    cli::tests::{Served, run},
    http::api::tests::{Bench, discover},
};
use bennu_plan::SessionKey;
use bennu_rules::{
    Change, Decision, MacAddress,
    boot::{Boot, BootId, session::Session},
    lease::{Lease, LeaseKey},
    syslog::Severity,
};
use http_body_util::BodyExt;
use receiver::Outcome;
use ring::hmac;
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tower::ServiceExt;

const MAC: &str = "52:54:00:00:00:01";
/// Leases of loopback addresses, from which a test can speak.
const MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 51));

async fn lease(bench: &Bench, mac: &str, address: IpAddr) {
    let IpAddr::V4(address) = address else { unreachable!() };
    let lease = Lease {
        key: LeaseKey { subnet: "127.0.0.0/24".parse().unwrap(), mac: mac.parse::<MacAddress>().unwrap() },
        address,
        granted: bennu_rules::Timestamp(0),
        expires: bennu_rules::Timestamp(u64::MAX),
        hostname: None,
        declined: false,
    };
    let put = |lease: &Lease, _: &bennu_rules::View<'_>, _: &bennu_rules::Moment| Decision {
        changes: vec![Change::PutLease(lease.clone())],
        ..Decision::just(())
    };
    bench.appliance.ledger.decide(lease, put).await.unwrap();
}

/// A machine that boots and has an address.
async fn booting(bench: &Bench) -> BootId {
    bench.write(http::Method::PATCH, &format!("/v1/machines/{MAC}"), "{}").await;
    lease(bench, MAC, MACHINE).await;
    bench.boot(MAC, vec![discover()]).await.id
}

async fn kept(bench: &Bench, boot: &BootId, count: usize) -> Vec<Kept> {
    let machine = bench.appliance.ledger.boot(boot).unwrap().unwrap().machine;
    let read = || bench.appliance.logs.read(machine, boot, &Which { count: 10_000, ..Which::default() }).unwrap();
    for _ in 0..200 {
        let lines = read();
        if lines.len() >= count {
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{count} lines never came: {:?}", read());
}

/// A key owns the boot from now on; answers the secret of its proofs.
async fn owned(bench: &Bench, machine: &str, key: u8) -> [u8; 32] {
    let (machine, key) = (machine.parse::<MacAddress>().unwrap(), SessionKey([key; 32]));
    let own = |(machine, key): &(MacAddress, SessionKey), view: &bennu_rules::View<'_>, _: &bennu_rules::Moment| {
        let session = Session::new(*key, bennu_rules::Timestamp(0), MACHINE);
        let boot = view.live.boot(*machine).unwrap().clone();
        let boot = Boot { session: Some(Box::new(session)), ..boot };
        let volatile = vec![bennu_rules::Volatile::PutBoot(boot.clone())];
        Decision { changes: vec![Change::PutBoot(boot.clone())], volatile, ..Decision::just(boot.id) }
    };
    let boot = bench.appliance.ledger.decide((machine, key), own).await.unwrap();
    let SessionKey(secret) = bench.appliance.keyring.session(&boot, &key).reveal().parse().unwrap();
    secret
}

fn proven(secret: &[u8; 32], sequence: u64, text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mac = |over: &[u8]| hmac::sign(&key, over).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    bennu_plan::log_message(sequence, "<14>1 - - app - - ", text, mac).into_bytes()
}

#[tokio::test]
async fn a_line_with_the_sessions_proof_is_told_from_one_without() {
    let bench = Bench::new();
    let boot = booting(&bench).await;
    let secret = owned(&bench, MAC, 7).await;
    let ear = Ear::new(bench.appliance.clone());
    assert_eq!(ear.hear(MACHINE, &proven(&secret, 1, "ours")), Outcome::Kept);
    assert_eq!(ear.hear(MACHINE, &proven(&[9; 32], 2, "another key's")), Outcome::Kept);
    let bent = String::from_utf8(proven(&secret, 3, "as it was")).unwrap().replace("as it was", "as it is.");
    assert_eq!(ear.hear(MACHINE, bent.as_bytes()), Outcome::Kept);
    assert_eq!(ear.hear(MACHINE, b"<14>1 - - app - - - without"), Outcome::Kept);
    assert_eq!(ear.hear(MACHINE, &proven(&secret, 1, "ours")), Outcome::Repeated);
    assert_eq!(ear.hear(MACHINE, &proven(&secret, 4, "ours too")), Outcome::Kept);
    let lines: Vec<(bool, String)> =
        kept(&bench, &boot, 5).await.into_iter().map(|line| (line.proven, line.message.text)).collect();
    let expected =
        [(true, "ours"), (false, "another key's"), (false, "as it is."), (false, "without"), (true, "ours too")];
    assert_eq!(lines, expected.map(|(proven, text)| (proven, text.to_owned())));
}

#[tokio::test]
async fn a_line_of_before_a_restart_is_not_taken_again() {
    let bench = Bench::new();
    let boot = booting(&bench).await;
    let secret = owned(&bench, MAC, 7).await;
    let before = Ear::new(bench.appliance.clone());
    for sequence in [1, 2] {
        assert_eq!(before.hear(MACHINE, &proven(&secret, sequence, "said")), Outcome::Kept);
    }
    assert_eq!(before.hear(MACHINE, b"<14>1 - - app - - - without"), Outcome::Kept);
    kept(&bench, &boot, 3).await;
    let after = Ear::new(bench.appliance.clone());
    assert_eq!(after.hear(MACHINE, &proven(&secret, 2, "said")), Outcome::Repeated);
    assert_eq!(after.hear(MACHINE, &proven(&secret, 3, "said")), Outcome::Kept);
    let lines = kept(&bench, &boot, 4).await;
    assert_eq!(lines.iter().filter_map(|line| line.sequence).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_flood_in_a_machines_name_takes_no_room_from_its_own_lines() {
    let bench = Bench::new();
    booting(&bench).await;
    let secret = owned(&bench, MAC, 7).await;
    let ear = Ear::new(bench.appliance.clone());
    let forged = (0..5000).map(|_| ear.hear(MACHINE, b"<14>app: forged"));
    assert!(forged.filter(|outcome| *outcome == Outcome::Limited).count() >= 3500);
    assert_ne!(ear.hear(MACHINE, &proven(&secret, 1, "true")), Outcome::Limited);
    // Senders that are made up cost a bounded number of looks, and whoever is known stays known.
    let invented = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number));
    let outcomes: Vec<Outcome> = (0..20_000).map(|number| ear.hear(invented(number), b"<14>x")).collect();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Unknown | Outcome::Limited)));
    assert!(outcomes.iter().filter(|outcome| **outcome == Outcome::Limited).count() > 1000);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let _: Vec<Outcome> = (0..20_000).map(|number| ear.hear(invented(number), b"<14>x")).collect();
    assert!(matches!(ear.hear(MACHINE, &proven(&secret, 2, "true")), Outcome::Kept | Outcome::Busy));
}

#[tokio::test]
async fn a_line_is_its_machines_by_its_address_and_nobodys_else() {
    let bench = Bench::new();
    let boot = booting(&bench).await;
    let ear = Ear::new(bench.appliance.clone());
    assert_eq!(ear.hear(MACHINE, b"<11>1 - othermachine sshd 8 - - no entry"), Outcome::Kept);
    assert_eq!(ear.hear("127.0.0.99".parse().unwrap(), b"<11>I am 52:54:00:00:00:01"), Outcome::Unknown);
    assert_eq!(ear.hear("::1".parse().unwrap(), b"<11>x"), Outcome::Unknown);
    assert_eq!(ear.hear(MACHINE, b"\r\n"), Outcome::Empty);
    lease(&bench, "52:54:00:00:00:07", "127.0.0.57".parse().unwrap()).await;
    assert_eq!(ear.hear("127.0.0.57".parse().unwrap(), b"<11>x"), Outcome::NoBoot);
    let lines = kept(&bench, &boot, 1).await;
    let Message { severity, program, text } = &lines[0].message;
    assert_eq!((severity, program.as_str(), text.as_str()), (&Severity::Error, "sshd[8]", "no entry"));
    let metrics = bench.get("/metrics").await.text;
    assert!(metrics.contains("bennu_log_lines_total{outcome=\"unknown\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_machine_that_floods_silences_itself_alone() {
    let bench = Bench::new();
    let boot = booting(&bench).await;
    lease(&bench, "52:54:00:00:00:02", "127.0.0.52".parse().unwrap()).await;
    let quiet = bench.boot("52:54:00:00:00:02", vec![discover()]).await.id;
    let ear = Ear::new(bench.appliance.clone());
    let outcomes: Vec<Outcome> = (0..20_000).map(|_| ear.hear(MACHINE, b"<15>again and again")).collect();
    assert!(outcomes.iter().filter(|outcome| **outcome == Outcome::Limited).count() > 10_000);
    while ear.hear("127.0.0.52".parse().unwrap(), b"<14>once") == Outcome::Busy {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kept(&bench, &quiet, 1).await.len(), 1);
    assert!(kept(&bench, &boot, 4000).await.len() <= 7000);
}

#[tokio::test]
async fn both_ports_are_listened_to() {
    let bench = Bench::new();
    let boot = booting(&bench).await;
    let interface = crate::interfaces::Interface {
        name: "lo".into(),
        index: 1,
        address: Ipv4Addr::LOCALHOST,
        network: "127.0.0.1/8".parse().unwrap(),
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(Listener::bind(&interface, None).unwrap().is_none());
    let listener = Listener::bind(&interface, Some(port)).unwrap().unwrap();
    let serving = tokio::spawn(serve(listener, bench.appliance.clone(), bench.appliance.shutdown.clone()));
    let udp = tokio::net::UdpSocket::bind((MACHINE, 0)).await.unwrap();
    udp.send_to(b"<14>app: by UDP", ("127.0.0.1", port)).await.unwrap();
    kept(&bench, &boot, 1).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((MACHINE, 0).into()).unwrap();
    let mut tcp = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    tcp.write_all(b"16 <14>app: counted<14>app: on a line\n<14>app: without an end").await.unwrap();
    drop(tcp);
    let texts: Vec<String> = kept(&bench, &boot, 4).await.into_iter().map(|line| line.message.text).collect();
    assert_eq!(texts, ["by UDP", "counted", "on a line", "without an end"]);
    // Of one address a few connections stay, the newest.
    let mut all = Vec::new();
    for _ in 0..10 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((MACHINE, 0).into()).unwrap();
        all.push(socket.connect(([127, 0, 0, 1], port).into()).await.unwrap());
    }
    let (mut open, mut byte) = (Vec::new(), [0]);
    for stream in &mut all {
        let read = tokio::io::AsyncReadExt::read(stream, &mut byte);
        open.push(tokio::time::timeout(Duration::from_millis(300), read).await.is_err());
    }
    assert_eq!(open, [false, false, false, false, false, false, true, true, true, true]);
    // A stranger's connection is closed, its words unread.
    let mut stranger = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let _ = stranger.write_all(b"<14>x\n").await;
    let mut end = [0];
    let read = tokio::io::AsyncReadExt::read(&mut stranger, &mut end);
    assert!(!matches!(tokio::time::timeout(Duration::from_secs(5), read).await.unwrap(), Ok(1..)));
    bench.appliance.shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_api_shows_the_last_lines_and_follows() {
    let served = Served::new();
    let bench = &served.bench;
    let boot = booting(bench).await;
    let ear = Ear::new(bench.appliance.clone());
    for number in 0..30 {
        ear.hear(MACHINE, format!("<14>app: line {number}").as_bytes());
    }
    kept(bench, &boot, 30).await;
    let shown = bench.get(&format!("/v1/boots/{boot}/logs?lines=2")).await.json();
    assert_eq!((shown["items"][0]["text"].as_str(), shown["items"].as_array().unwrap().len()), (Some("line 28"), 2));
    assert_eq!(bench.get(&format!("/v1/boots/{boot}/logs?lines=999999")).await.status, 400);
    assert_eq!(bench.get("/v1/boots/..%2Fledger/logs").await.status, 404);
    let mut body = follow(bench, &format!("/v1/boots/{boot}/logs?lines=1&follow=true"), None).await;
    ear.hear(MACHINE, b"<14>app: and then");
    let text = until(&mut body, "and then").await;
    assert!(text.contains("line 29") && !text.contains("line 28") && text.contains("event: log"), "{text}");
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    ear.hear(MACHINE, b"<11>app: meanwhile");
    kept(bench, &boot, 32).await;
    let mut body = follow(bench, &format!("/v1/boots/{boot}/logs?lines=1&follow=true"), Some(&id)).await;
    let text = until(&mut body, "meanwhile").await;
    assert!(text.contains("and then") && !text.contains("line 29"), "it goes on behind line 29: {text}");
    let mut body = follow(bench, &format!("/v1/boots/{boot}/logs?severity=error&follow=true"), None).await;
    ear.hear(MACHINE, b"<14>app: of no interest");
    ear.hear(MACHINE, b"<10>app: at last");
    let text = until(&mut body, "at last").await;
    assert!(text.contains("meanwhile") && !text.contains("of no interest") && !text.contains("line"), "{text}");
    let shown = bench.get(&format!("/v1/boots/{boot}/logs?after={id}&severity=warning")).await.json();
    assert_eq!((shown["items"][0]["text"].as_str(), shown["items"].as_array().unwrap().len()), (Some("meanwhile"), 2));
    for wrong in ["after=x", "severity=bad", "after=1-", "severity="] {
        assert_eq!(bench.get(&format!("/v1/boots/{boot}/logs?{wrong}")).await.status, 400, "{wrong}");
    }
    run(&served, &format!("boot logs {MAC} --lines 5 --severity notice")).await.unwrap();
    assert!(run(&served, "boot logs 0-0").await.unwrap_err().what.contains("no boot"));
}

async fn follow(bench: &Bench, path: &str, last: Option<&str>) -> axum::body::Body {
    let mut request = http::Request::get(path);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let request = request.body(axum::body::Body::empty()).unwrap();
    bench.router.clone().oneshot(request).await.unwrap().into_body()
}

async fn until(body: &mut axum::body::Body, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    text
}
