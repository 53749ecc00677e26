//! How long what people look at takes with a rack as large as Bennu is made for: ten thousand machines with what discovery
//! found of them, their boots and leases, and five hundred that boot. Every figure is told; with optimisation each is held
//! to its bar, and without to many times as much, which reading every record for each page would still exceed.
//!
//! `cargo test --release -p bennu --lib -- speed_of_a_rack --nocapture`

use super::*;
use bennu_plan::{Disk, Inventory, Nic, Step};
use bennu_rules::{
    Change, Decision, Machine, Moment, Timestamp, View,
    boot::{BootId, Pinned, Token},
    image::Digest,
    journey::Observation,
    lease::{Lease, LeaseKey},
};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const MACHINES: u32 = 10_000;
const BOOTING: u32 = 500;
/// As many as are kept of each machine.
const BOOTS_OF_THE_FIRST: u32 = 50;
const ROUNDS: usize = if cfg!(debug_assertions) { 3 } else { 21 };
/// What code without optimisation may take more.
const PATIENCE: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

const SUBNET: &str = "
    [[boot.subnet]]
    network = \"10.80.0.0/16\"
    range = \"10.80.1.0-10.80.250.255\"
    router = \"10.80.0.1\"
";

fn mac(n: u32) -> MacAddress {
    let [_, a, b, c] = n.to_be_bytes();
    MacAddress([0x52, 0x54, 0, a, b, c])
}

fn machine(n: u32) -> Machine {
    let mut machine = Machine::new(mac(n), Timestamp(1));
    machine.labels.insert("rack".into(), format!("r{}", n / 40));
    machine.labels.insert("role".into(), ["web", "db", "build"][n as usize % 3].into());
    machine.assignment = n.is_multiple_of(2).then(|| "web:v1".parse().unwrap());
    let disk = |d: u32| Disk {
        name: format!("nvme{d}n1"),
        size: 3_840_755_982_336,
        model: "SAMSUNG MZQL23T8HCLS-00A07".into(),
        serial: format!("S64HNE0R{n:06}{d}"),
        rotational: false,
    };
    let nic = |c: u32| Nic {
        name: format!("eno{c}"),
        mac: mac(n + (c << 20)).to_string(),
        driver: "mlx5_core".into(),
        link: c < 2,
        speed: 25_000,
    };
    machine.facts.uuid = Some(format!("4c4c4544-0051-3510-8057-{n:012x}"));
    machine.facts.serial = Some(format!("SN{n:06}"));
    machine.facts.manufacturer = Some("Dell Inc.".into());
    machine.facts.product = Some("PowerEdge R7525".into());
    machine.facts.inventory = Some(Inventory {
        manufacturer: "Dell Inc.".into(),
        product: "PowerEdge R7525".into(),
        serial: format!("SN{n:06}"),
        uuid: format!("4c4c4544-0051-3510-8057-{n:012x}"),
        cpu_model: "AMD EPYC 7543 32-Core Processor".into(),
        cpus: 128,
        memory: 1 << 39,
        disks: (0..4).map(disk).collect(),
        nics: (0..4).map(nic).collect(),
    });
    machine
}

/// The `nth` boot of a machine, as far as its token and a dozen things seen bring it.
fn boot(n: u32, nth: u32, now: Timestamp) -> Boot {
    let opened = Timestamp(now.0 - 86_400_000 * u64::from(BOOTS_OF_THE_FIRST - nth) - u64::from(n));
    let is_booting = n.is_multiple_of(MACHINES / BOOTING) && nth == BOOTS_OF_THE_FIRST - 1;
    let opened = if is_booting { Timestamp(now.0 - 20_000) } else { opened };
    let seen = |at: u64, seen: Seen| Observation::new(Timestamp(opened.0 + at), seen);
    let reported = |step: Step| Seen::Reported { step, message: "as it went".into(), progress: 1 << 20 };
    let mut boot: Boot = serde_json::from_value(serde_json::json!({
        "id": BootId(format!("{:013}-{n:06}", opened.0)), "machine": mac(n), "opened": opened, "closed": null,
        "state": "stage1", "system": null, "image": null, "token": Token(format!("{n:08x}{nth:08x}").repeat(2)),
        "timeline": [],
    }))
    .unwrap();
    boot.image = Some(Pinned { reference: "web:v1".parse().unwrap(), digest: Digest([1; 32]) });
    boot.timeline = vec![seen(0, discover())];
    boot.timeline.extend((1..8).map(|at| seen(at * 900, Seen::DhcpNak { reason: format!("step {at} of the way") })));
    boot.timeline.push(seen(8000, reported(Step::Started)));
    boot.timeline.push(seen(9000, reported(Step::Downloading)));
    if !is_booting {
        boot.timeline.push(seen(15_000, reported(Step::Up)));
        boot.state = bennu_rules::boot::State::Up;
        boot.closed = Some(Timestamp(opened.0 + 15_000));
    }
    boot
}

fn put(all: &(Arc<[Change]>, Arc<[Boot]>), _: &View<'_>, _: &Moment) -> Decision<()> {
    let volatile = all.1.iter().cloned().map(Volatile::PutBoot).collect();
    Decision { changes: all.0.to_vec(), volatile, ..Decision::just(()) }
}

/// A rack in which much happened.
async fn rack() -> Bench {
    let bench = Bench::with(SUBNET);
    bench.import("web:v1", 1).await;
    for n in 0..100 {
        let body = format!(r#"{{"selector":"rack in (r{n},s{n}),bennu.arch!=arm64","image":"web:v1","priority":{n}}}"#);
        let set = bench.write(Method::PUT, &format!("/v1/rules/rule-{n}"), &body).await;
        assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    }
    let now = bench.appliance.ledger.now();
    let subnet: ipnet::Ipv4Net = "10.80.0.0/16".parse().unwrap();
    let lease = |n: u32| Lease {
        key: LeaseKey { subnet, mac: mac(n) },
        address: (u32::from(std::net::Ipv4Addr::new(10, 80, 1, 0)) + n).into(),
        granted: now,
        expires: Timestamp(now.0 + 3_600_000),
        hostname: Some(format!("node-{n}")),
        declined: false,
    };
    let latest: Arc<[Boot]> = (0..MACHINES).map(|n| boot(n, BOOTS_OF_THE_FIRST - 1, now)).collect();
    let changes = (0..MACHINES).flat_map(|n| [Change::PutMachine(machine(n)), Change::PutLease(lease(n))]);
    let earlier = (0..100).flat_map(|n| (0..BOOTS_OF_THE_FIRST - 1).map(move |nth| Change::PutBoot(boot(n, nth, now))));
    let changes: Arc<[Change]> = changes.chain(earlier).chain(latest.iter().cloned().map(Change::PutBoot)).collect();
    bench.record((changes, latest), put).await;
    bench
}

/// Time, as it is measured here: everything is done on the test's own thread, and without optimisation other tests run
/// beside it, so that only the time that the thread had counts.
fn clock() -> Duration {
    let id = if cfg!(debug_assertions) { ClockId::ThreadCPUTime } else { ClockId::Monotonic };
    let now = clock_gettime(id);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// How long a page takes: what is usual of some.
async fn usual(bench: &Bench, path: &str, told: &str) -> Duration {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = clock();
        let got = bench.get(path).await;
        took.push(clock() - began);
        assert_eq!(got.status, StatusCode::OK, "{path}: {}", got.text);
        assert!(got.text.contains(told), "{path} tells of {told}");
    }
    took.sort();
    took[ROUNDS / 2]
}

#[tokio::test]
async fn speed_of_a_rack() {
    let bench = rack().await;
    let middle = mac(MACHINES / 2);
    let mut slow = Vec::new();
    for (what, path, told, bar) in [
        ("a page of machines", "/v1/machines?limit=100".to_owned(), "\"next\"", 50),
        ("a page from the middle", format!("/v1/machines?limit=100&after={middle}"), "SN005001", 50),
        ("a thousand machines", "/v1/machines?limit=1000".to_owned(), "\"next\"", 200),
        ("machines by label", "/v1/machines?selector=rack%3Dr249".to_owned(), "r249", 250),
        ("a page of boots", "/v1/boots?limit=100".to_owned(), "\"next\"", 50),
        ("a page of leases", "/v1/leases?limit=100".to_owned(), "\"next\"", 50),
        ("images", "/v1/images".to_owned(), "assigned_to", 250),
        ("the status", "/v1/status".to_owned(), "machines_by_state", 50),
        ("explain", format!("/v1/machines/{middle}/explain"), "resolution", 5),
        ("a machine's page", format!("/ui/machines/{middle}"), "node-5000", 400),
        ("the rack's page", "/".to_owned(), "1000 of 10000", 500),
        ("a search of the rack", "/?q=node-9999".to_owned(), "1 of 10000", 500),
    ] {
        let took = usual(&bench, &path, told).await;
        println!("{what}: {:.1} ms of {bar}", took.as_secs_f64() * 1000.0);
        slow.extend((took > Duration::from_millis(bar) * PATIENCE).then_some((what, took)));
    }
    let took = update(&bench).await;
    println!("five hundred updates: {:.1} ms of 200", took.as_secs_f64() * 1000.0);
    slow.extend((took > Duration::from_millis(200) * PATIENCE).then_some(("an update", took)));
    assert!(slow.is_empty(), "{slow:?}");
    let page = bench.get("/").await.text;
    assert_eq!(page.matches("data-kind=\"booting\"").count(), BOOTING as usize, "all that boot are shown");
}

/// How long until a browser has been told of one thing more of every machine that boots.
async fn update(bench: &Bench) -> Duration {
    let request = Request::get("/v1/events").body(Body::empty()).unwrap();
    let mut body = bench.router.clone().oneshot(request).await.unwrap().into_body();
    let began = Instant::now();
    for n in (0..MACHINES).step_by((MACHINES / BOOTING) as usize) {
        let seen = Seen::Reported { step: Step::Verified, message: "the root is whole".into(), progress: 0 };
        bench.appliance.ledger.observe(mac(n), seen);
    }
    let mut told = 0;
    while told < BOOTING as usize {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        told += std::str::from_utf8(&frame)
            .unwrap()
            .matches("\nevent: boot")
            .count()
            .max(std::str::from_utf8(&frame).unwrap().matches("event: boot").count());
    }
    began.elapsed()
}
