//! Networks behind relay agents: ISC's and dnsmasq's, with a client and with a machine that boots.

use anyhow::{Context, Result, ensure};
use dhcproto::v4::borrowed::Message;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    checks::seen,
    clients::{self, Client, Program},
};
use crate::{
    appliance::Config,
    conformance::{Datagram, Link},
    harness::Life,
    machine::Firmware,
    rack::Rack,
    wire::Namespace,
};

/// Clients behind each relay, then a machine.
pub const RELAYS: Life = Life {
    name: "relays",
    shows: &["relay_dhcrelay", "relay_dnsmasq", "relay_machine_boots"],
    live: |story| {
        let rack = story.rack()?;
        let network = |number: u8| {
            format!(
                "[[boot.subnet]]\nnetwork = \"10.{number}.0.0/24\"\nrange = \"10.{number}.0.50-10.{number}.0.99\"\n\
                 router = \"10.{number}.0.1\"\ndns = [\"10.77.0.253\"]\ndomain = \"rack.example\""
            )
        };
        let config = Config::full().more(&network(88)).more(&network(89)).with_images();
        let bennu = rack.appliance(config)?;
        let isc = Relay::start(&rack, Agent::Isc, 88, bennu.namespace())?;
        let dnsmasq = Relay::start(&rack, Agent::Dnsmasq, 89, bennu.namespace())?;
        for (name, relay, program) in
            [("relay_dhcrelay", &isc, Program::Udhcpc), ("relay_dnsmasq", &dnsmasq, Program::Dhclient)]
        {
            let mut client = Client::new(&rack, program, &format!("behind-{}", relay.bridge), &relay.bridge)?;
            let uplink = Link::open(&relay.router, "up0")?;
            story.show(name, || {
                let leases = clients::leases(&bennu, &mut client, &format!("10.{}.0.", relay.network));
                let leases = leases.with_context(|| relay.log())?;
                let echoed = echoed(&uplink)?;
                ensure!(echoed > 0 || relay.agent == Agent::Dnsmasq, "the relay put no option 82 into anything");
                Ok(format!("{leases}; option 82 came back {echoed} times"))
            })?;
        }
        let mut machine = rack.machine(Firmware::Bios).bridge(&isc.bridge).install()?;
        story.show("relay_machine_boots", || {
            let begun = Instant::now();
            machine.power_on()?;
            let boot = bennu.wait_for_state(&machine.mac(), "waiting", 120)?;
            let took = begun.elapsed();
            seen(&boot, "an inventory", |entry| entry["step"] == "inventory")?;
            let leases = bennu.json(["lease", "list"])?;
            let mac = machine.mac();
            let found = leases.as_array().and_then(|all| all.iter().find(|lease| lease["mac"] == mac.as_str()));
            let address = found.context("the machine has no lease")?["address"].to_string();
            ensure!(address.contains("10.88.0."), "the machine has {address}");
            Ok(format!("discovered behind a router after {:.1} s", took.as_secs_f64()))
        })
    },
};

/// How often an option 82 went to the appliance and came back: each must, and as it was.
fn echoed(uplink: &Link) -> Result<usize> {
    let mut asked = BTreeMap::new();
    let mut echoed = 0;
    while let Some(frame) = uplink.receive(Instant::now() + Duration::from_millis(100))? {
        let Some(datagram) = Datagram::parse(&frame).filter(|datagram| datagram.to.port() == 67) else { continue };
        let message = Message::new(&datagram.payload)?;
        let relay = message.opts().find(|option| u8::from(option.code()) == 82).map(|option| option.data().to_vec());
        if datagram.payload[0] == 1 {
            asked.insert(message.xid(), relay);
        } else {
            let sent = asked.get(&message.xid()).context("an answer to nothing")?;
            ensure!(*sent == relay, "option 82 was {sent:?} and came back as {relay:?}");
            echoed += usize::from(relay.is_some());
        }
    }
    Ok(echoed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Isc,
    Dnsmasq,
}

/// A router with a relay agent between the appliance's wire and a network of its own, 10.N.0.0/24.
struct Relay<'a> {
    rack: &'a Rack,
    agent: Agent,
    bridge: String,
    network: u8,
    router: Namespace,
    child: Child,
}

impl<'a> Relay<'a> {
    fn start(rack: &'a Rack, agent: Agent, network: u8, appliance: &Namespace) -> Result<Self> {
        let (wire, bridge) = (rack.wire(), format!("far{network}"));
        wire.bridge(&bridge)?;
        let uplink = format!("10.77.0.{}", network - 80);
        let router = wire.plug(&format!("router{network}"), "up0", &format!("{uplink}/24"))?;
        wire.connect(&router, &bridge, "down0", Some(&format!("10.{network}.0.1/24")))?;
        router.inside(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward"))?;
        appliance.ip(&format!("route add 10.{network}.0.0/24 via {uplink}"))?;

        let mut command = match agent {
            Agent::Isc => {
                let mut command = router.command("dhcrelay");
                // -a: adds option 82, and takes it out of what goes back; a reply without it would not be passed on.
                command.args(["-4", "-d", "-a", "-m", "discard", "-id", "down0", "-iu", "up0", "-pf", "/dev/null"]);
                command.arg("10.77.0.1");
                command
            }
            Agent::Dnsmasq => {
                let mut command = router.command("dnsmasq");
                command.args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--user=root",
                    "--port=0",
                    "--pid-file=",
                ]);
                command.args(["--log-dhcp", "--log-facility=-", "--interface=down0", "--interface=up0"]);
                command.arg(format!("--dhcp-relay=10.{network}.0.1,10.77.0.1"));
                command
            }
        };
        let log = File::create(rack.home().dir().join(format!("{bridge}.log")))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.context("cannot start a relay")?;
        rack.home().note_process(child.id())?;
        let relay = Self { rack, agent, bridge, network, router, child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !relay.is_listening()? {
            ensure!(Instant::now() < deadline, "the relay does not start:\n{}", relay.log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(relay)
    }

    /// Somebody in its namespace has port 67.
    fn is_listening(&self) -> Result<bool> {
        let sockets = self.router.inside(|| Ok(fs::read_to_string("/proc/thread-self/net/udp")?))?;
        Ok(sockets.contains(":0043 "))
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.rack.home().dir().join(format!("{}.log", self.bridge)));
        format!("the relay says:\n{}", log.unwrap_or_default())
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.rack.home().forget_process(self.child.id());
    }
}
