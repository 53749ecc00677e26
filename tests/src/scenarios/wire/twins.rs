//! Two Bennus on one wire: one answers and the other stands by, however they came there.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use super::{client, notices, wait_for};
use crate::{
    appliance::{Appliance, Config},
    command,
    conformance::{
        ask::{Ask, kind},
        client::Client,
    },
    harness::{Life, Story},
    rack::Rack,
    wire::{MAIN, Namespace},
};

/// Two Bennus on one wire, each pair on a rack of its own.
pub const TWINS: Life = Life {
    name: "twins",
    shows: &[
        "twins_a_newcomer_stands_by",
        "twins_a_silent_one_is_replaced",
        "twins_who_returns_stands_by",
        "twins_begun_at_once_one_answers",
        "twins_allowed_both_answer",
    ],
    live: |story| {
        newcomer_and_heir(story)?;
        story.leave_rack();
        at_once_and_allowed(story)
    },
};

/// One that comes later, the death of the first, and its return.
fn newcomer_and_heir(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    let mut first = rack.appliance(Config::full())?;
    let mut second = rack.twin("10.77.0.2/24", &Config::full().subnet(OTHER_RANGE))?;
    let host = rack.host("host", "10.77.0.9/24")?;
    let (mut machine, mut leased) = (client(&host, 1)?, client(&host, 2)?);
    let address = leased.lease()?;
    story.show("twins_a_newcomer_stands_by", || newcomer(&first, &mut second, &mut machine, &host))?;
    story.show("twins_a_silent_one_is_replaced", || replaced(&mut first, &second, &mut machine))?;
    story.show("twins_who_returns_stands_by", || {
        returned(&mut first, &mut machine)?;
        renewed(leased, address)
    })
}

/// Two that are started together, and one that is told that the other may answer.
fn at_once_and_allowed(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    let mut first = rack.first(&Config::full())?;
    let mut second = rack.twin("10.77.0.2/24", &Config::full())?;
    let host = rack.host("host", "10.77.0.9/24")?;
    story.show("twins_begun_at_once_one_answers", || at_once([&mut first, &mut second], &mut client(&host, 1)?))?;
    story.show("twins_allowed_both_answer", || allowed([&mut first, &mut second], &mut client(&host, 2)?))
}

/// Two that served for long, each on its own wire, when the wires are joined.
pub(super) fn two_wires(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    story.show("twins_joined_one_answers", || joined(&rack))
}

/// Two beside the site's server.
pub(super) fn two_proxies(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    story.show("twins_of_two_proxies_one_answers", || proxies(&rack))
}

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Addresses that the first does not give.
const OTHER_RANGE: &str = "range = \"10.77.0.200-10.77.0.220\"";
/// An offer may take this long: the machines that run the tests are busy.
const OFFERED: Duration = Duration::from_secs(1);
/// How long it takes to see that nothing changes any more.
const ROUNDS: usize = 3;
/// Who is silent is replaced within this time.
const REPLACED: Duration = Duration::from_secs(20);
/// Two that begin together agree within this time.
const AGREED: Duration = Duration::from_secs(10);
/// Two that served for long agree within this time.
const PROVEN: Duration = Duration::from_secs(25);

/// Which servers answer a question.
fn servers(client: &Client, ask: &Ask) -> Result<BTreeSet<Ipv4Addr>> {
    let mut found = BTreeSet::new();
    client.send(ask)?;
    let until = Instant::now() + OFFERED;
    while let Some(offer) = client.hear(ask, until)? {
        found.insert(offer.address(54)?);
    }
    Ok(found)
}

/// Asks a few times; each time just these answer.
fn answer(client: &mut Client, wanted: &[Ipv4Addr]) -> Result<()> {
    for _ in 0..ROUNDS {
        let discover = client.ask(kind::DISCOVER);
        let found = servers(client, &discover)?;
        ensure!(found.iter().eq(wanted), "{found:?} answered, not {wanted:?}");
    }
    Ok(())
}

/// Asks until just these answer, and go on to; how long that took.
fn answer_within(limit: Duration, client: &mut Client, wanted: &[Ipv4Addr]) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let discover = client.ask(kind::DISCOVER);
        let found = servers(client, &discover)?;
        let took = began.elapsed();
        if found.iter().eq(wanted) {
            return answer(client, wanted).map(|()| took);
        }
        ensure!(took < limit, "after {took:?} {found:?} answer, not {wanted:?}");
    }
}

/// For whom an appliance stands by, as it says itself.
fn stands_by_for(bennu: &Appliance) -> Result<Value> {
    Ok(bennu.json(["status"])?["interfaces"][0]["stands_by_for"].clone())
}

fn newcomer(first: &Appliance, second: &mut Appliance, machine: &mut Client, host: &Namespace) -> Result<String> {
    let began = Instant::now();
    second.start()?;
    let took = began.elapsed();
    answer(machine, &[FIRST])?;
    ensure!(stands_by_for(second)? == "10.77.0.1", "it says that it stands by for {}", stands_by_for(second)?);
    wait_for(second, "stands_by", |notice| notice["server"] == "10.77.0.1" && notice["card"].is_string())?;
    let said = second.bennu(["status"])?;
    for part in ["standing by for 10.77.0.1", "another Bennu, 10.77.0.1 (card ", "allow_servers = [\"10.77.0.1\"]"] {
        ensure!(said.contains(part), "'{part}' is not in: {said}");
    }
    let other = notices(first)?;
    ensure!(other.is_empty(), "the first, which serves undisturbed, says {other:?}");
    // All but DHCP is served.
    let script = "http://10.77.0.2/boot.ipxe";
    let mut curl = host.command("curl");
    command::run(curl.args(["--silent", "--fail", "--max-time", "5", "--output", "/dev/null", script]))?;
    Ok(format!("it was up after {:.1} s", took.as_secs_f64()))
}

fn replaced(first: &mut Appliance, second: &Appliance, machine: &mut Client) -> Result<String> {
    first.kill()?;
    let took = answer_within(REPLACED, machine, &[SECOND])?;
    ensure!(took > Duration::from_secs(8), "a silence of {took:?} was taken for a death");
    ensure!(stands_by_for(second)?.is_null(), "it says that it stands by");
    wait_for(second, "takes_over", |notice| notice["server"] == "10.77.0.1")?;
    Ok(format!("after {:.1} s", took.as_secs_f64()))
}

/// It has leases, and does not push in with its lower address.
fn returned(first: &mut Appliance, machine: &mut Client) -> Result<()> {
    first.start()?;
    answer(machine, &[SECOND])?;
    ensure!(stands_by_for(first)? == "10.77.0.2", "it says that it stands by for {}", stands_by_for(first)?);
    Ok(())
}

/// What the first leased it renews while it stands by, but only for who asks it alone.
fn renewed(leased: Client, address: Ipv4Addr) -> Result<String> {
    let card = leased.who_has(address, FIRST)?.context("nobody has the first's address")?;
    let mut leased = leased.knowing(card);
    let renewal = leased.renewal(address);
    let ack = leased.answered(&renewal, kind::ACK)?;
    ensure!(ack.yiaddr == address && ack.address(54)? == FIRST, "another lease: {ack:?}");
    let rebinds = leased.ask(kind::REQUEST).ciaddr(address);
    leased.ignored(&rebinds)?;
    Ok(format!("and renewed {address}"))
}

/// Asks until one of the two answers alone, and goes on to; who that is, and how long it took.
fn agreed(limit: Duration, machine: &mut Client) -> Result<(Ipv4Addr, Duration)> {
    let began = Instant::now();
    loop {
        let discover = machine.ask(kind::DISCOVER);
        let found = servers(machine, &discover)?;
        let took = began.elapsed();
        if let Some(server) = found.first().filter(|_| found.len() == 1) {
            return answer(machine, &[*server]).map(|()| (*server, took));
        }
        ensure!(took < limit, "after {took:?} {found:?} answer");
    }
}

/// Whoever looked a moment earlier goes first; else the lower address does.
fn at_once(both: [&mut Appliance; 2], machine: &mut Client) -> Result<String> {
    let [first, second] = both;
    first.launch()?;
    second.launch()?;
    first.answers()?;
    second.answers()?;
    let (server, took) = agreed(AGREED, machine)?;
    let posts = [stands_by_for(first)?, stands_by_for(second)?];
    let wanted = if server == FIRST { [Value::Null, "10.77.0.1".into()] } else { ["10.77.0.2".into(), Value::Null] };
    ensure!(posts == wanted, "{server} answers, and they say that they stand by for {posts:?}");
    Ok(format!("{server} after {:.1} s", took.as_secs_f64()))
}

/// Each is told that the other may answer.
fn allowed(both: [&mut Appliance; 2], machine: &mut Client) -> Result<String> {
    let [first, second] = both;
    let told = |server: Ipv4Addr| Config::full().boot(&format!("allow_servers = [\"{server}\"]"));
    for (bennu, config) in [(&mut *first, told(SECOND)), (&mut *second, told(FIRST).subnet(OTHER_RANGE))] {
        bennu.stop()?;
        bennu.configure(&config)?;
        bennu.launch()?;
    }
    first.answers()?;
    second.answers()?;
    answer(machine, &[FIRST, SECOND])?;
    for bennu in [first, second] {
        let noticed = notices(bennu)?;
        ensure!(noticed.is_empty(), "what is allowed was noticed: {noticed:?}");
        ensure!(stands_by_for(bennu)?.is_null(), "it says that it stands by");
    }
    Ok(String::new())
}

fn joined(rack: &Rack) -> Result<String> {
    const OTHER: &str = "hall2";
    rack.wire().bridge(OTHER)?;
    let mut first = rack.first(&Config::full())?;
    let mut second = rack.twin_on(OTHER, "10.77.0.2/24", &Config::full())?;
    first.launch()?;
    second.launch()?;
    first.answers()?;
    second.answers()?;
    let mut machine = client(&rack.host("host", "10.77.0.9/24")?, 1)?;
    // Until both count as established.
    thread::sleep(Duration::from_secs(11));
    ensure!(stands_by_for(&second)?.is_null(), "it stands by on a wire of its own");
    answer(&mut machine, &[FIRST])?;
    rack.wire().join(MAIN, OTHER)?;
    let discover = machine.ask(kind::DISCOVER);
    let both = servers(&machine, &discover)?.len();
    ensure!(both == 2, "{both} answer on the joined wire: nothing to settle");
    let took = answer_within(PROVEN, &mut machine, &[FIRST])?;
    ensure!(took > Duration::from_secs(7), "an established one yielded after {took:?}, to whoever came");
    wait_for(&second, "stands_by", |notice| notice["server"] == "10.77.0.1")?;
    wait_for(&first, "other_appliance", |notice| notice["server"] == "10.77.0.2")?;
    Ok(format!("after {:.1} s", took.as_secs_f64()))
}

fn proxies(rack: &Rack) -> Result<String> {
    let site = rack.site_with(&["--no-ping".into()])?;
    let mut both = [rack.first(&Config::proxy())?, rack.twin("10.77.0.3/24", &Config::proxy())?];
    let ids = [FIRST, Ipv4Addr::new(10, 77, 0, 3)];
    let mut machine = client(&rack.host("host", "10.77.0.9/24")?, 1)?;
    both.iter_mut().try_for_each(Appliance::launch)?;
    both.iter_mut().try_for_each(Appliance::answers)?;
    let (server, agreed) = proxy_within(AGREED, &mut machine, &ids)?;
    // Whoever looked a moment earlier.
    let at = usize::from(server == ids[1]);
    both[at].kill()?;
    let (_, replaced) = proxy_within(REPLACED, &mut machine, &[ids[1 - at]])?;
    let refused = site.log().matches("DHCPNAK").count();
    ensure!(refused == 0, "the site's server was asked what is between Bennus, and refused it {refused} times");
    Ok(format!("{server} after {:.1} s, replaced after {:.1} s", agreed.as_secs_f64(), replaced.as_secs_f64()))
}

/// Asks as firmware until one of these proxies answers alone beside the site's server, and goes on to; which, and how
/// long that took.
fn proxy_within(limit: Duration, machine: &mut Client, wanted: &[Ipv4Addr]) -> Result<(Ipv4Addr, Duration)> {
    let (began, mut alone) = (Instant::now(), None);
    let mut rounds = 0;
    while rounds <= ROUNDS {
        let discover = machine.ask(kind::DISCOVER).pxe(7);
        let mut found = servers(machine, &discover)?;
        ensure!(found.remove(&SECOND), "the site's server does not answer");
        let one = found.first().copied().filter(|one| found.len() == 1 && wanted.contains(one));
        match (alone, one) {
            (None, Some(one)) => alone = Some((one, began.elapsed())),
            (None, None) => ensure!(began.elapsed() < limit, "{found:?} answer, not one of {wanted:?}"),
            (Some((before, _)), _) => {
                ensure!(one == Some(before), "{found:?} answered, when {before} had done so alone")
            }
        }
        rounds += usize::from(alone.is_some());
    }
    alone.context("nobody answered")
}
