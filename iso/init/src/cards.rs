//! A machine without a network card serves nobody: it says so, and waits for one.

use bennu_stage1::console;
use bennu_stage1::modules::{Devices, Modules};
use bennu_stage1::net;
use std::path::Path;
use std::time::Duration;

const SYS: &str = "/sys";
/// The class of network controllers (PCI Code and ID Assignment Specification §1.3), above its subclass.
const NETWORK: &str = "0x02";

/// Whether there is any.
pub fn are_there() -> bool {
    net::interfaces(Path::new(SYS)).iter().any(|interface| interface.physical)
}

/// Waits for the first: drivers take a moment, and one may be plugged in.
pub fn wait(modules: &mut Modules) {
    // Those that are slow are no reason to say anything.
    for _ in 0..10 {
        if are_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(300));
        modules.coldplug(Devices::All);
    }
    let mut told = String::new();
    while !are_there() {
        let text = lack();
        if text != told {
            console::say(&text);
            told = text;
        }
        std::thread::sleep(Duration::from_secs(1));
        modules.coldplug(Devices::All);
    }
    for interface in net::interfaces(Path::new(SYS)).iter().filter(|interface| interface.physical) {
        console::say(&format!("a network card is there: {} ({}, {})", interface.name, interface.mac, interface.driver));
    }
}

/// What to say of it.
pub fn lack() -> String {
    told(&without_driver(Path::new(SYS)))
}

fn told(controllers: &[String]) -> String {
    let begin = "no network card was found, so nothing can be served yet. This machine keeps looking, and goes on when there is one; \
                 one at USB will do";
    match controllers {
        [] => begin.to_owned(),
        some => {
            format!("{begin}. Network controllers that this disc has no driver or firmware for: {}", some.join(", "))
        }
    }
}

/// Network controllers on PCI that no driver has taken: vendor and device, and where.
fn without_driver(sys: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(sys.join("bus/pci/devices")).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let read = |file: &str| std::fs::read_to_string(path.join(file)).ok();
            let id = |file: &str| Some(read(file)?.trim().trim_start_matches("0x").to_owned());
            let is_bare = read("class")?.starts_with(NETWORK) && !path.join("driver").exists();
            is_bare.then(|| {
                Some(format!("{}:{} at {}", id("vendor")?, id("device")?, entry.file_name().to_string_lossy()))
            })?
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn controllers_without_a_driver_are_named() {
        let sys = tempfile::tempdir().unwrap();
        assert!(without_driver(sys.path()).is_empty());
        for (at, class, ids, driver) in [
            ("0000:00:03.0", "0x020000", ("0x1af4", "0x1000"), true),
            ("0000:01:00.1", "0x020000", ("0x8086", "0x1572"), false),
            ("0000:01:00.0", "0x020700", ("0x15b3", "0x1017"), false),
            ("0000:02:00.0", "0x010802", ("0x144d", "0xa808"), false),
        ] {
            let device = sys.path().join("bus/pci/devices").join(at);
            fs::create_dir_all(&device).unwrap();
            for (file, text) in [("class", class), ("vendor", ids.0), ("device", ids.1)] {
                fs::write(device.join(file), format!("{text}\n")).unwrap();
            }
            if driver {
                fs::create_dir(device.join("driver")).unwrap();
            }
        }
        let found = without_driver(sys.path());
        assert_eq!(found, ["15b3:1017 at 0000:01:00.0", "8086:1572 at 0000:01:00.1"]);
        assert!(told(&found).contains("no network card") && told(&found).contains("8086:1572"));
        assert!(!told(&[]).contains("driver"));
    }
}
