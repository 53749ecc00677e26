//! The configuration: on the stick or disc that was booted, from the state disk, or from the kernel's arguments.

use crate::cards;
use crate::consoles::{self, Program};
use crate::disks::{self, Content};
use crate::medium::Medium;
use crate::prepare;
use crate::state::{self, State};
use bennu_host::{
    Console, Host,
    setup::{DIRECTORY, DISKS, Disks, ERASE, MADE},
};
use bennu_stage1::{console, modules::Modules, net};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::Deserialize;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Its name, wherever it is.
const NAME: &str = "bennu.toml";
/// Where it is put for the service.
const USED: &str = "/run/bennu.toml";
/// What a configuration is called that was made there.
const SET_UP: &str = "the set-up";
const MEDIUM: &str = "/run/medium";
/// So long the medium may take to show before anybody is asked: the state may be on it, and the configuration there.
const SETTLE: Duration = Duration::from_secs(10);
/// `bennu.interface=eth0 bennu.address=10.77.0.1/24 bennu.range=10.77.0.50-10.77.0.199` need no file at all.
const ARGUMENTS: [&str; 5] = ["bennu.interface", "bennu.address", "bennu.range", "bennu.dhcp", "bennu.state_disk"];

/// A configuration that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The file for the service.
    pub file: PathBuf,
    /// What the host is told.
    pub host: Host,
    /// The disk that a person gave up, with all that is on it.
    pub erase: Option<String>,
    /// Whether a person made it just now, by the set-up.
    pub is_new: bool,
}

/// What this program reads of the file; the service reads the rest and checks all of it.
#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    host: Host,
}

/// Looks for it until there is one, and for state, on which it may be: a stick may be plugged in later, and USB shows the one that
/// this machine was started from late.
pub fn find(line: &str, look: &dyn Fn() -> Option<State>, modules: &mut Modules) -> (Configured, Option<State>) {
    let (mut is_told, mut is_asked) = (false, is_plain(line));
    let (began, mut state) = (Instant::now(), None);
    loop {
        state = state.or_else(look);
        for (from, text) in found(line, state.as_ref()) {
            match read(&text) {
                Ok(host) => {
                    consoles::end();
                    console::say(&format!("configuration: {from}"));
                    let is_new = from == SET_UP;
                    let erase = std::fs::read_to_string(Path::new(DIRECTORY).join(ERASE)).ok().filter(|_| is_new);
                    match std::fs::write(USED, &text) {
                        Ok(()) => return (Configured { file: USED.into(), host, erase, is_new }, state),
                        Err(error) => console::say(&format!("cannot write {USED}: {error}")),
                    }
                }
                Err(why) => console::say(&format!("the configuration of {from} cannot be used: {why}")),
            }
        }
        let is_settled = state.is_some() || Medium::find().is_some() || began.elapsed() > SETTLE;
        if !is_told && is_settled {
            is_told = true;
            console::say(&format!(
                "no configuration. Put a {NAME} on a FAT stick or on the state disk, or start with the kernel arguments {}; \
                 this machine looks for it all the time",
                ARGUMENTS.map(|name| format!("{name}=…")).join(" ")
            ));
            if !is_asked && !cards::are_there() {
                console::say(&cards::lack());
            }
        }
        // Its first question is which card.
        if !is_asked && is_settled && cards::are_there() {
            is_asked = true;
            set_up(state.as_ref());
        }
        std::thread::sleep(Duration::from_secs(1));
        modules.coldplug(bennu_stage1::modules::Devices::All);
    }
}

/// Asks whoever is at a console, while a stick is still waited for.
fn set_up(state: Option<&State>) {
    for interface in net::interfaces(Path::new("/sys")) {
        // So that the set-up sees its cable, and may ask on its wire.
        if let Err(error) = net::netlink::set_up(interface.index, true) {
            console::say(&format!("{} does not come up: {error}", interface.name));
        }
    }
    let in_use = match state {
        Some(State::Disk(disk)) => Some(disk.clone()),
        _ => None,
    };
    let disks = Disks { state: in_use, ..prepare::offered() };
    let text = toml::to_string(&disks).unwrap_or_default();
    let made = DirBuilder::new().mode(0o700).create(DIRECTORY);
    let told = made.and_then(|()| std::fs::write(Path::new(DIRECTORY).join(DISKS), text));
    if let Err(error) = told {
        console::say(&format!("the set-up cannot be told of the disks: {error}"));
    }
    console::say("set-up: answer its questions here");
    consoles::show(Program::SetUp);
}

/// Keeps what a person answered where the next start finds it.
pub fn keep(configured: &Configured) {
    if !configured.is_new {
        return;
    }
    let kept = Path::new(state::PLACE).join(NAME);
    let new = kept.with_extension("new");
    let copy = std::fs::copy(&configured.file, &new).and_then(|_| std::fs::File::open(&new)?.sync_all());
    // In memory it is as lost as everything else, which was said loudly.
    if let Err(error) =
        copy.and_then(|()| std::fs::rename(&new, &kept)).and_then(|()| std::fs::File::open(state::PLACE)?.sync_all())
    {
        console::say(&format!("cannot keep the configuration as {}: {error}", kept.display()));
    }
}

/// What the consoles show, by the kernel's arguments or else by the configuration.
pub fn console(line: &str, host: &Host) -> Console {
    if is_plain(line) { Console::Plain } else { host.console }
}

fn is_plain(line: &str) -> bool {
    line.split_whitespace().any(|word| word == "bennu.console=plain")
}

/// Where it may be, the most deliberate first.
fn found(line: &str, state: Option<&State>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    found.extend(of_arguments(line).map(|text| ("the kernel's arguments".to_owned(), text)));
    for disk in disks::all().into_iter().filter(|disk| disk.content == Content::Fat) {
        found.extend(on_medium(&disk.device).map(|text| (disk.device.display().to_string(), text)));
    }
    found.extend(std::fs::read_to_string(Path::new(DIRECTORY).join(MADE)).ok().map(|text| (SET_UP.to_owned(), text)));
    if matches!(state, Some(State::Disk(_))) {
        let file = Path::new(state::PLACE).join(NAME);
        found.extend(std::fs::read_to_string(&file).ok().map(|text| (file.display().to_string(), text)));
    }
    found
}

/// The file of a stick. Nothing is ever written to it.
fn on_medium(device: &Path) -> Option<String> {
    std::fs::create_dir_all(MEDIUM).ok()?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(device, MEDIUM, "vfat", flags, None).ok()?;
    let text = std::fs::read_to_string(Path::new(MEDIUM).join(NAME)).ok();
    if let Err(error) = unmount(MEDIUM, UnmountFlags::DETACH) {
        console::say(&format!("cannot let go of {}: {error}", device.display()));
    }
    text
}

/// A configuration of kernel arguments; `None` without the first of them.
fn of_arguments(line: &str) -> Option<String> {
    let value =
        |name: &str| line.split_whitespace().filter_map(|word| word.split_once('=')).rfind(|(key, _)| *key == name);
    let value = |name: &str| value(name).map(|(_, value)| value.to_owned());
    let (interface, address) = (value("bennu.interface")?, value("bennu.address")?);
    let dhcp = value("bennu.dhcp").unwrap_or_else(|| "full".into());
    let network =
        address.parse::<ipnet::Ipv4Net>().map(|net| net.trunc().to_string()).unwrap_or_else(|_| address.clone());
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!("[boot]\ninterface = {}\ndhcp = {}\n", quoted(&interface), quoted(&dhcp));
    if let Some(range) = value("bennu.range") {
        text += &format!("[[boot.subnet]]\nnetwork = {}\nrange = {}\n", quoted(&network), quoted(&range));
    }
    if let Some(disk) = value("bennu.state_disk") {
        text += &format!("[host]\nstate_disk = {}\n", quoted(&disk));
    }
    text += &format!("[[host.interface]]\nname = {}\naddress = {}\n", quoted(&interface), quoted(&address));
    let ip = address.split('/').next().unwrap_or_default();
    text += &format!("[api]\nlisten = {}\n", quoted(&format!("{ip}:8443")));
    Some(text)
}

/// The host's name that a configuration gives, as far as it can be read.
pub fn host_name(text: &str) -> Option<String> {
    text.parse::<toml::Table>().ok()?.get("host")?.get("hostname")?.as_str().map(str::to_owned)
}

fn read(text: &str) -> Result<Host, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    file.host.check()?;
    if file.host.interface.is_empty() {
        return Err("[[host.interface]] is missing; write the name and the address of this host's interface".into());
    }
    Ok(file.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_make_a_configuration() {
        let line =
            "quiet bennu.interface=eth1 bennu.address=10.77.0.1/24 bennu.range=10.77.0.50-10.77.0.99 console=ttyS0";
        let text = of_arguments(line).unwrap();
        let host = read(&text).unwrap();
        assert_eq!(host.interface[0].name, "eth1");
        assert_eq!(host.interface[0].address.to_string(), "10.77.0.1/24");
        let value: toml::Table = text.parse().unwrap();
        assert_eq!(value["boot"]["subnet"][0]["network"].as_str(), Some("10.77.0.0/24"));
        assert_eq!(value["api"]["listen"].as_str(), Some("10.77.0.1:8443"));
        assert_eq!(of_arguments("quiet bennu.interface=eth1"), None);
    }

    #[test]
    fn quotes_in_arguments_stay_in_their_value() {
        let text = of_arguments("bennu.interface=a\"\nb bennu.address=10.0.0.1/8")
            .or(of_arguments("bennu.interface=a\" bennu.address=1"));
        let table: toml::Table = text.unwrap().parse().unwrap();
        assert_eq!(table["boot"]["interface"].as_str(), Some("a\""));
    }

    #[test]
    fn the_hosts_name_is_read_even_where_the_rest_cannot_be_used() {
        assert_eq!(host_name("[host]\nhostname = \"rack\"\nodd = 1").as_deref(), Some("rack"));
        assert_eq!(host_name("[host]\n").or(host_name("=")), None);
    }

    #[test]
    fn a_file_without_addresses_is_no_configuration() {
        assert!(read("[boot]\ninterface = \"eth0\"").unwrap_err().contains("host.interface"));
        assert!(read("[host]\nhostnam = \"x\"").unwrap_err().contains("hostnam"));
        assert!(read("[[host.interface]]\nname=\"eth0\"\naddress=\"10.0.0.0/8\"").is_err());
    }
}
