//! `make demo`: three machines boot before your eyes, then one of them becomes another.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    env, fs,
    io::{BufRead, BufReader, IsTerminal, stdout},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::{Appliance, Config},
    images,
    machine::{BOOT_SECONDS, Firmware, Machine},
    rack::Rack,
    workshop,
};

/// Machines that are on their way at a time.
const AT_A_TIME: usize = 2;

/// The line of a download is told again after this long.
const PROGRESS: Duration = Duration::from_secs(3);

/// A machine of the demo.
struct Actor {
    label: &'static str,
    colour: u8,
    machine: Machine,
    /// From power-on to the login prompt, of its latest start.
    login: Option<Duration>,
}

/// Boots three machines from `debian:v1`, then one of them from `debian:v2`, and leaves all of it standing until
/// Ctrl-C, unless `DEMO_EXIT=1`.
pub fn run() -> Result<()> {
    let rack = Rack::new()?;
    step("Making a Debian to boot, in two versions (once)");
    let images = images::images()?;
    let bennu = rack.appliance(Config::full())?;
    let idle = bennu.memory()?;
    step("bennu serves DHCP, TFTP and HTTP on a wire of its own; importing the images");
    for (path, name) in [(images.debian_v1(), "debian:v1"), (images.debian_v2(), "debian:v2")] {
        let begun = Instant::now();
        bennu.import("tar", &path, name)?;
        println!("  {name} is {} ({:.0} s)", bennu.digest(name)?, begun.elapsed().as_secs_f64());
    }

    let mut actors = cast(&rack)?;
    for actor in &actors {
        bennu.assign(&actor.machine.mac(), "debian:v1")?;
        bennu.bennu(["machine", "label", &actor.machine.mac(), &format!("name={}", actor.label)])?;
    }
    let follower = follow(&bennu, &actors)?;
    step("Power on: each machine boots debian:v1 from its own firmware, two at a time");
    bring_up(&mut actors)?;
    for actor in &mut actors {
        let says = actor.machine.run("cat /etc/bennu-demo-version")?;
        ensure!(says == "bennu-demo v1", "{} runs {says}", actor.label);
        bennu.wait_for_state(&actor.machine.mac(), "up", 120)?;
    }
    println!();
    print!("{}", table(&bennu, &actors)?);

    let changed = actors.first_mut().context("an empty cast")?;
    step(&format!("Assigning debian:v2 to {} and cutting its power", changed.label));
    bennu.assign(&changed.machine.mac(), "debian:v2")?;
    changed.machine.power_cycle()?;
    changed.login = Some(changed.machine.login()?);
    let says = changed.machine.run("cat /etc/bennu-demo-version")?;
    ensure!(says == "bennu-demo v2", "{} runs {says}", changed.label);
    bennu.wait_for_state(&changed.machine.mac(), "up", 120)?;
    println!("{} says: {says}", changed.label);

    step("Done");
    print!("{}", table(&bennu, &actors)?);
    let binary = fs::metadata(workshop::bennu_binary()?)?.len();
    println!(
        "\nbennu: {:.1} MB on disk; {:.1} MB of memory when idle, {:.1} MB now",
        megabytes(binary),
        megabytes(idle),
        megabytes(bennu.memory()?)
    );
    if env::var_os("DEMO_EXIT").is_some_and(|value| value == "1") {
        drop(follower);
        return Ok(());
    }
    leave_standing(&rack, &actors)
}

fn cast(rack: &Rack) -> Result<Vec<Actor>> {
    let parts =
        [("bios", 33, Firmware::Bios), ("uefi-pxe", 36, Firmware::UefiPxe), ("uefi-http", 35, Firmware::UefiHttp)];
    let actor = |(label, colour, firmware)| {
        Ok(Actor { label, colour, machine: rack.machine(firmware).install()?, login: None })
    };
    parts.into_iter().map(actor).collect()
}

/// Starts each as soon as there is room, until every one is logged in.
fn bring_up(actors: &mut [Actor]) -> Result<()> {
    let mut waiting: VecDeque<usize> = (0..actors.len()).collect();
    let mut running: Vec<usize> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2 * BOOT_SECONDS);
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < AT_A_TIME
            && let Some(next) = waiting.pop_front()
        {
            println!("{}", coloured(actors[next].colour, &format!("{:10} power on", actors[next].label)));
            actors[next].machine.power_on()?;
            running.push(next);
        }
        thread::sleep(Duration::from_millis(200));
        let late = Instant::now() > deadline;
        let arrived = |index: &usize| late || actors[*index].machine.console().is_ok_and(|c| c.has_shown("login:"));
        let (done, still): (Vec<usize>, Vec<usize>) = running.into_iter().partition(arrived);
        running = still;
        for index in done {
            let actor = &mut actors[index];
            let took = actor.machine.login()?;
            actor.login = Some(took);
            let line = format!("{:10} login prompt, {:.1} s after power-on", actor.label, took.as_secs_f64());
            println!("{}", coloured(actor.colour, &line));
        }
    }
    Ok(())
}

/// Ends `bennu boot follow` when it goes.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tells live what the appliance sees.
fn follow(bennu: &Appliance, actors: &[Actor]) -> Result<Follower> {
    let mut command: Command = bennu.command(["boot", "follow", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("cannot follow boots")?;
    let output = child.stdout.take().context("no output to follow")?;
    let parts: BTreeMap<String, (&'static str, u8)> =
        actors.iter().map(|actor| (actor.machine.mac(), (actor.label, actor.colour))).collect();
    let begun = Instant::now();
    thread::Builder::new().name("follower".into()).spawn(move || {
        let mut told: BTreeMap<String, Instant> = BTreeMap::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let mac = event["machine"].as_str().unwrap_or_default().to_owned();
            let Some((label, colour)) = parts.get(&mac) else { continue };
            if event["observation"]["step"] == "downloading" {
                if told.get(&mac).is_some_and(|last| last.elapsed() < PROGRESS) {
                    continue;
                }
                told.insert(mac, Instant::now());
            }
            let text = sentence(&event["observation"]);
            println!("{}", coloured(*colour, &format!("{label:10} {:6.1} s  {text}", begun.elapsed().as_secs_f64())));
        }
    })?;
    Ok(Follower(child))
}

/// An observation as the appliance's own command line words it.
fn sentence(observation: &Value) -> String {
    serde_json::from_value::<bennu_rules::journey::Observation>(observation.clone())
        .map_or_else(|_| observation.to_string(), |observation| observation.seen.to_string())
}

fn table(bennu: &Appliance, actors: &[Actor]) -> Result<String> {
    let mut text =
        format!("{:10} {:15} {:10} {:>20} {:>9}\n", "machine", "firmware", "image", "power-on to login", "moved");
    for actor in actors {
        let boot = bennu.last_boot(&actor.machine.mac())?;
        let image = boot["image"]["reference"].as_str().unwrap_or("?");
        let login = actor.login.unwrap_or_default().as_secs_f64();
        let moved = boot["bytes"].as_f64().unwrap_or_default() / 1e6;
        let firmware = actor.machine.firmware().to_string();
        text += &format!("{:10} {firmware:15} {image:10} {login:18.1} s {moved:6.0} MB\n", actor.label);
    }
    Ok(text)
}

fn leave_standing(rack: &Rack, actors: &[Actor]) -> Result<()> {
    let binary = workshop::bennu_binary()?;
    let server = format!("BENNU_SERVER=unix://{}", rack.home().socket("bennu.sock").display());
    println!("\nAll of it goes on running. Look at it from another terminal:");
    for words in ["status", "machine list", "boot list", "boot follow"] {
        println!("  {server} {} {words}", binary.display());
    }
    for actor in actors {
        println!("  tail -f {}", actor.machine.console()?.log().display());
    }
    println!("Ctrl-C takes it down.");
    loop {
        thread::park();
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn step(text: &str) {
    println!("\n{}", coloured(1, text));
}

fn coloured(colour: u8, text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}
