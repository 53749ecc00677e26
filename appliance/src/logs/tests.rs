use super::{receiver::Ear, *};
use crate::{
    cli::tests::{Served, run},
    http::api::tests::{Bench, discover},
};
use bennu_rules::{
    Change, Decision, MacAddress,
    boot::BootId,
    lease::{Lease, LeaseKey},
    syslog::Severity,
};
use http_body_util::BodyExt;
use receiver::Outcome;
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
    for _ in 0..200 {
        let lines = bench.appliance.logs.last(boot, 10_000).unwrap();
        if lines.len() >= count {
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{count} lines never came: {:?}", bench.appliance.logs.last(boot, 10_000));
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
    let request = http::Request::get(format!("/v1/boots/{boot}/logs?lines=1&follow=true"));
    let response = bench.router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    tokio::time::sleep(Duration::from_millis(5)).await;
    ear.hear(MACHINE, b"<14>app: and then");
    let mut text = String::new();
    while !text.contains("and then") {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert!(text.contains("line 29") && !text.contains("line 28") && text.contains("event: log"), "{text}");
    run(&served, &format!("boot logs {MAC} --lines 5")).await.unwrap();
    assert!(run(&served, "boot logs 0-0").await.unwrap_err().what.contains("no boot"));
}
