//! The wire below the servers: who else answers there, which addresses are in use, and cables that come and go.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::{Appliance, Config},
    conformance::{ask::kind, client::Client, link::Link},
    harness::Life,
    rack::Rack,
    wire::Namespace,
};

mod twins;
pub use twins::TWINS;

/// Another DHCP server on the wire, beside it, before and after the start, and a host with an address of the range.
pub const STRANGERS: Life = Life {
    name: "strangers",
    shows: &[
        "twins_of_two_proxies_one_answers",
        "wire_another_server_refuses_the_start",
        "wire_an_address_in_use_is_not_offered",
        "wire_a_later_server_is_noticed",
    ],
    live: |story| {
        twins::two_proxies(story)?;
        story.leave_rack();
        let rack = story.rack()?;
        story.show("wire_another_server_refuses_the_start", another_server)?;
        let mut bennu = rack.appliance(Config::full().subnet("range = \"10.77.0.60-10.77.0.61\""))?;
        let host = rack.host("host", "10.77.0.60/24")?;
        story.show("wire_an_address_in_use_is_not_offered", || address_in_use(&bennu, &host))?;
        story.show("wire_a_later_server_is_noticed", || later_server(&rack, &mut bennu, &host))
    },
};

/// Wires that become one, and interfaces that go and come back.
pub const CABLES: Life = Life {
    name: "cables",
    shows: &["twins_joined_one_answers", "wire_a_new_address_is_used_at_once", "wire_a_new_interface_is_served"],
    live: |story| {
        twins::two_wires(story)?;
        story.leave_rack();
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let host = rack.host("host", "10.77.0.9/24")?;
        story.show("wire_a_new_address_is_used_at_once", || new_address(&bennu, &host))?;
        story.show("wire_a_new_interface_is_served", || new_interface(&rack, &bennu, &host))
    },
};

/// What is on the wire now is noticed within this time.
const NOTICED: Duration = Duration::from_secs(10);

/// A start that fails; what it said last.
fn refused(bennu: &mut Appliance) -> Result<String> {
    match bennu.start() {
        Ok(()) => bail!("it started all the same"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn another_server() -> Result<String> {
    let rack = Rack::new()?;
    let _site = rack.site()?;
    let mut bennu = rack.twin("10.77.0.1/24", &Config::full())?;
    let began = Instant::now();
    let said = refused(&mut bennu)?;
    let took = began.elapsed();
    for part in ["another DHCP server, 10.77.0.2 (card ", "prov0", "dhcp = \"proxy\"", "allow_servers"] {
        ensure!(said.contains(part), "'{part}' is not in: {said}");
    }
    bennu.configure(&Config::full().boot("allow_servers = [\"10.77.0.2\"]"))?;
    bennu.start()?;
    // Both answer, and the appliance hears the other.
    let mut client = client(&rack.host("host", "10.77.0.9/24")?, 1)?;
    let discover = client.ask(kind::DISCOVER);
    client.answered(&discover, kind::OFFER)?;
    thread::sleep(Duration::from_secs(3));
    let notices = notices(&bennu)?;
    ensure!(notices.is_empty(), "an allowed server was noticed: {notices:?}");
    Ok(format!("refused after {:.1} s", took.as_secs_f64()))
}

/// Of two addresses, one is a host's that never asked for it.
fn address_in_use(bennu: &Appliance, host: &Namespace) -> Result<String> {
    let mut first = client(host, 1)?;
    let discover = first.ask(kind::DISCOVER).flags(0);
    let began = Instant::now();
    let offer = first.answered(&discover, kind::OFFER)?;
    let took = began.elapsed();
    ensure!(offer.yiaddr == Ipv4Addr::new(10, 77, 0, 61), "{} was offered", offer.yiaddr);
    ensure!(took < Duration::from_millis(400), "the offer took {took:?}");
    ensure!(offer.wire.link_to == first.mac, "the offer went to the card {:x?}", offer.wire.link_to);
    ensure!(*offer.wire.to.ip() == offer.yiaddr, "the offer went to {}", offer.wire.to);
    first.answered(&first.request_for(&discover, &offer)?, kind::ACK)?;
    let mut second = client(host, 2)?;
    let discover = second.ask(kind::DISCOVER);
    second.ignored(&discover)?;
    wait_for(bennu, "address_taken", |notice| notice["address"] == "10.77.0.60" && notice["by"].is_string())?;
    Ok(format!("an offer to the card after {} ms", took.as_millis()))
}

/// A server that comes later, one that is only known by what a client says, and a start beside the first.
fn later_server(rack: &Rack, bennu: &mut Appliance, host: &Namespace) -> Result<String> {
    let none = notices(bennu)?.into_iter().find(|notice| notice["notice"] == "other_server");
    ensure!(none.is_none(), "a server was noticed that is not there: {none:?}");
    let mut client = client(host, 3)?;
    let takes_another = client.ask(kind::REQUEST).address(50, Ipv4Addr::new(10, 77, 0, 230));
    client.send(&takes_another.address(54, Ipv4Addr::new(10, 77, 0, 7)))?;
    let told = wait_for(bennu, "other_server", |notice| notice["server"] == "10.77.0.7")?;
    let _site = rack.site()?;
    let discover = client.ask(kind::DISCOVER);
    let offer = client.answered(&discover, kind::OFFER)?;
    ensure!(offer.address(54)? == Ipv4Addr::new(10, 77, 0, 2), "no offer of the site's: {offer:?}");
    let heard = wait_for(bennu, "other_server", |notice| notice["server"] == "10.77.0.2")?;
    bennu.stop()?;
    bennu.start()?;
    let log = std::fs::read_to_string(bennu.log())?;
    let looks = log.matches("looking for other DHCP servers").count();
    ensure!(looks == 1, "with a lease on record it looked before it served");
    wait_for(bennu, "other_server", |notice| notice["server"] == "10.77.0.2")?;
    Ok(format!("noticed {} and {} ms after it was sent", told.as_millis(), heard.as_millis()))
}

/// Asks until an offer comes from this server; how long that took.
fn offered_by(client: &mut Client, server: Ipv4Addr) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let discover = client.ask(kind::DISCOVER);
        client.send(&discover)?;
        let offer = client.hear(&discover, Instant::now() + Duration::from_millis(300))?;
        if offer.map(|offer| offer.address(54)).transpose()? == Some(server) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < NOTICED, "no offer of {server} within {NOTICED:?}");
    }
}

fn new_address(bennu: &Appliance, host: &Namespace) -> Result<String> {
    let mut client = client(host, 1)?;
    offered_by(&mut client, Ipv4Addr::new(10, 77, 0, 1))?;
    bennu.namespace().ip("address del 10.77.0.1/24 dev prov0")?;
    bennu.namespace().ip("address add 10.77.0.3/24 dev prov0")?;
    let took = offered_by(&mut client, Ipv4Addr::new(10, 77, 0, 3))?;
    wait_for(bennu, "interface_lost", |notice| notice["interface"] == "prov0")?;
    wait_for(bennu, "interface_back", |notice| notice["address"] == "10.77.0.3")?;
    Ok(format!("after {} ms", took.as_millis()))
}

fn new_interface(rack: &Rack, bennu: &Appliance, host: &Namespace) -> Result<String> {
    bennu.namespace().ip("link del prov0")?;
    thread::sleep(Duration::from_secs(2));
    ensure!(
        bennu.json(["status"])?["interfaces"] == Value::Array(Vec::new()),
        "an interface is shown that is not there"
    );
    rack.cable(bennu.namespace(), "prov0", "10.77.0.1/24")?;
    let took = offered_by(&mut client(host, 2)?, Ipv4Addr::new(10, 77, 0, 1))?;
    // Everything is there again, not DHCP alone.
    let script = "http://10.77.0.1/boot.ipxe";
    let mut curl = host.command("curl");
    crate::command::run(curl.args(["--silent", "--fail", "--max-time", "5", "--output", "/dev/null", script]))?;
    Ok(format!("after {} ms", took.as_millis()))
}

fn client(host: &Namespace, number: u8) -> Result<Client> {
    Ok(Client::new(Link::open(host, "net0")?, [0xff; 6], [0x52, 0x54, 0x0d, 0, 0, number]))
}

fn notices(bennu: &Appliance) -> Result<Vec<Value>> {
    let status = bennu.json(["status"])?;
    status["notices"].as_array().cloned().context("the status has no notices")
}

/// Waits for a notice; how long that took.
fn wait_for(bennu: &Appliance, kind: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let notices = notices(bennu)?;
        if notices.iter().any(|notice| notice["notice"] == kind && is_wanted(notice)) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < NOTICED, "no notice '{kind}' within {NOTICED:?}, but {notices:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
