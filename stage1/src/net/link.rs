//! Network interfaces as `/sys/class/net` shows them, and which one is ours.

use super::Mac;
use std::path::Path;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name, `eth0`.
    pub name: String,
    /// The kernel's number.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether a device stands behind it: no bridge, bond, VLAN or dummy.
    pub physical: bool,
    /// Whether it serves under another (a bond's member, the fast path under a Hyper-V interface).
    pub subordinate: bool,
    /// Whether there is a link. Always false while the interface is down.
    pub carrier: bool,
    /// Mbit/s, 0 when unknown.
    pub speed: u32,
    /// The driver's name.
    pub driver: String,
}

/// The Ethernet interfaces of the machine, in the kernel's order. `sys` is `/sys`.
pub fn interfaces(sys: &Path) -> Vec<Interface> {
    let entries = std::fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten();
    let mut found: Vec<Interface> =
        entries.filter_map(|entry| interface(&entry.path(), entry.file_name().to_str()?)).collect();
    found.sort_by_key(|interface| interface.index);
    found
}

fn interface(path: &Path, name: &str) -> Option<Interface> {
    const ARPHRD_ETHER: &str = "1";
    let read = |file: &str| std::fs::read_to_string(path.join(file)).map(|text| text.trim().to_owned()).ok();
    if read("type")? != ARPHRD_ETHER {
        return None;
    }
    let driver = std::fs::read_link(path.join("device/driver")).ok();
    let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned())).unwrap_or_default();
    Some(Interface {
        name: name.to_owned(),
        index: read("ifindex")?.parse().ok()?,
        mac: Mac::parse(&read("address")?)?,
        physical: path.join("device").exists(),
        subordinate: path.join("master").exists(),
        carrier: read("carrier").as_deref() == Some("1"),
        speed: read("speed").and_then(|text| text.parse::<i64>().ok()).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        driver,
    })
}

/// The interface with this address. Members of a bond share one: the physical interface that stands on its own comes first.
pub fn with_mac(interfaces: &[Interface], mac: Mac) -> Option<&Interface> {
    let ours = interfaces.iter().filter(|interface| interface.mac == mac);
    ours.min_by_key(|interface| (!interface.physical, interface.subordinate, interface.index))
}

/// The interfaces worth trying where the firmware's is not known: physical ones, those with a link first.
pub fn candidates(interfaces: &[Interface]) -> Vec<&Interface> {
    let mut found: Vec<&Interface> = interfaces.iter().filter(|i| i.physical && !i.subordinate).collect();
    found.sort_by_key(|interface| (!interface.carrier, interface.index));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn add(sys: &Path, name: &str, index: u32, mac: &str, files: &[(&str, &str)]) {
        let path = sys.join("class/net").join(name);
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in [("type", "1"), ("ifindex", &index.to_string()), ("address", mac)].iter().chain(files) {
            if *file == "driver" {
                std::fs::create_dir_all(path.join("device")).unwrap();
                symlink(format!("../../../../bus/pci/drivers/{text}"), path.join("device/driver")).unwrap();
            } else {
                std::fs::write(path.join(file), format!("{text}\n")).unwrap();
            }
        }
    }

    #[test]
    fn physical_interfaces_are_preferred_and_link_counts() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        add(sys, "lo", 1, "00:00:00:00:00:00", &[("type", "772")]);
        add(sys, "bond0", 2, "52:54:00:00:00:01", &[("carrier", "1")]);
        add(sys, "eth0", 4, "52:54:00:00:00:01", &[("driver", "virtio_net"), ("carrier", "0"), ("speed", "-1")]);
        add(sys, "eth1", 3, "52:54:00:00:00:02", &[("driver", "e1000"), ("carrier", "1"), ("speed", "1000")]);
        add(sys, "eth2", 5, "52:54:00:00:00:02", &[("driver", "mlx5_core"), ("carrier", "1"), ("master", "")]);
        let all = interfaces(sys);
        assert_eq!(all.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["bond0", "eth1", "eth0", "eth2"]);
        assert_eq!(with_mac(&all, Mac([0x52, 0x54, 0, 0, 0, 1])).unwrap().name, "eth0");
        assert_eq!(with_mac(&all, Mac([0x52, 0x54, 0, 0, 0, 2])).unwrap().name, "eth1");
        assert_eq!(with_mac(&all, Mac([9; 6])), None);
        assert_eq!(candidates(&all).iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth1", "eth0"]);
        let eth1 = with_mac(&all, Mac([0x52, 0x54, 0, 0, 0, 2])).unwrap();
        assert_eq!((eth1.driver.as_str(), eth1.speed, eth1.carrier), ("e1000", 1000, true));
        assert_eq!(all[2].speed, 0);
    }
}
