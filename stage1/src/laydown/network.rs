//! The network of the booted system. An image that configures its own is left alone; for others the boot interface keeps its
//! connection by DHCP, with whatever the image has to manage networks. Files go to `/run` wherever the manager reads them there.

use super::{LaydownError, write};
use crate::net::{Interface, Mac};
use crate::scoped;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Who runs the network of the booted system, and what is laid down for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "NetworkManager is a product's name")]
pub enum Network {
    /// The image has a configuration of its own, for this manager.
    ImagesOwn(&'static str),
    /// systemd-networkd, which must also be enabled if the image does not.
    Networkd {
        /// Whether the image starts it already.
        enabled: bool,
    },
    /// NetworkManager.
    NetworkManager,
    /// ifupdown or a relative of it.
    Ifupdown,
    /// Nothing manages networks: the interface stays as stage 1 set it.
    AsItIs,
}

impl Network {
    /// Whether the interface stays up at the handover. One that its manager finds by name must be down, because udev cannot
    /// rename it while it is up; NetworkManager would take one that is up for somebody else's.
    pub fn keeps_link(self) -> bool {
        matches!(self, Self::Networkd { .. } | Self::AsItIs)
    }

    /// Whether udev must leave the interface's name alone. Where the link stays up renaming fails (EBUSY before Linux 6.3), and then
    /// udev never calls the interface ready: systemd-networkd waits for it for ever. ifupdown's file goes by the present name.
    fn keeps_name(self) -> bool {
        self.keeps_link() || self == Self::Ifupdown
    }

    /// For the console.
    pub fn describe(self) -> String {
        match self {
            Self::ImagesOwn(manager) => format!("the image's own configuration ({manager})"),
            Self::Networkd { .. } => "DHCP by systemd-networkd on the boot interface".into(),
            Self::NetworkManager => "DHCP by NetworkManager on the boot interface".into(),
            Self::Ifupdown => "DHCP by ifupdown on the boot interface".into(),
            Self::AsItIs => {
                "nothing in the image manages it; the boot interface keeps its address, without renewing it".into()
            }
        }
    }
}

/// What will run as PID 1, as far as it matters to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// Another init of the image's own, which runs its services.
    Other,
    /// A program somebody named with `init=`; nobody knows whether it starts any service.
    Custom,
}

const NETWORKD: &[&str] = &["usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd"];
const IFUP: &[&str] = &["usr/sbin/ifup", "sbin/ifup"];

/// Looks into the image.
pub fn decide(root: &Path, init: Init) -> Network {
    match init {
        Init::Systemd => with_systemd(root),
        Init::Other if ifupdown_without_systemd(root) => match configures_an_interface(root) {
            true => Network::ImagesOwn("ifupdown"),
            false => Network::Ifupdown,
        },
        Init::Other => Network::AsItIs,
        Init::Custom => Network::AsItIs,
    }
}

fn with_systemd(root: &Path) -> Network {
    let networkd = NETWORKD.iter().any(|path| scoped::exists(root, path));
    let networkd_enabled = networkd && is_enabled(root, "systemd-networkd");
    let manager_enabled = is_enabled(root, "NetworkManager");
    // Debian's ifupdown enables its service for multi-user.target and network-online.target as it is installed.
    let ifupdown = has_ifup(root) && is_enabled(root, "networking");
    if has_file(root, "etc/netplan", ".yaml") && scoped::exists(root, "usr/sbin/netplan") {
        return Network::ImagesOwn("netplan");
    }
    if networkd_enabled && has_file(root, "etc/systemd/network", ".network") {
        return Network::ImagesOwn("systemd-networkd");
    }
    if manager_enabled {
        let own = has_file(root, "etc/NetworkManager/system-connections", "")
            || has_file(root, "usr/lib/NetworkManager/system-connections", "")
            || has_ifcfg(root, "etc/sysconfig/network-scripts");
        return if own { Network::ImagesOwn("NetworkManager") } else { Network::NetworkManager };
    }
    // wicked alone, without a file for an interface, touches none.
    if is_enabled(root, "wicked") && has_ifcfg(root, "etc/sysconfig/network") {
        return Network::ImagesOwn("wicked");
    }
    if ifupdown && configures_an_interface(root) {
        return Network::ImagesOwn("ifupdown");
    }
    if networkd_enabled {
        return Network::Networkd { enabled: true };
    }
    if ifupdown {
        return Network::Ifupdown;
    }
    if networkd { Network::Networkd { enabled: false } } else { Network::AsItIs }
}

/// Whether there is the command of ifupdown. That says little: BusyBox and openSUSE's wicked bring one of the same name.
fn has_ifup(root: &Path) -> bool {
    IFUP.iter().any(|path| scoped::exists(root, path))
}

/// Whether OpenRC, sysvinit or Buildroot's scripts run `ifup` at boot.
fn ifupdown_without_systemd(root: &Path) -> bool {
    let in_runlevel = |name: &str| name == "networking";
    let in_rc = |name: &str| name.starts_with('S') && name.ends_with("networking");
    let in_buildroot = |name: &str| name.starts_with('S') && name.ends_with("network");
    let entries = |directory: &str| {
        let entries = scoped::resolve(root, directory).and_then(|path| fs::read_dir(path).ok());
        entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
    };
    let starts = entries("etc/runlevels")
        .any(|level| has_file_named(root, &format!("etc/runlevels/{level}"), in_runlevel))
        || entries("etc")
            .filter(|name| name.len() == 5 && name.starts_with("rc") && name.ends_with(".d"))
            .any(|directory| has_file_named(root, &format!("etc/{directory}"), in_rc))
        || has_file_named(root, "etc/init.d", in_buildroot);
    has_ifup(root) && starts
}

/// Whether systemd starts the service by itself.
pub fn is_enabled(root: &Path, service: &str) -> bool {
    let unit = format!("{service}.service");
    let mask = scoped::resolve(root, "etc/systemd/system").and_then(|units| fs::read_link(units.join(&unit)).ok());
    if mask.is_some_and(|target| target == Path::new("/dev/null")) {
        return false;
    }
    ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"].iter().any(|directory| {
        let Some(directory) = scoped::resolve(root, directory) else { return false };
        let wants = |name: &str| name.ends_with(".wants") || name.ends_with(".requires");
        fs::read_dir(&directory).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().to_str().is_some_and(wants) && fs::symlink_metadata(entry.path().join(&unit)).is_ok()
        })
    })
}

fn has_file(root: &Path, directory: &str, ending: &str) -> bool {
    has_file_named(root, directory, |name| name.ends_with(ending))
}

fn has_file_named(root: &Path, directory: &str, fits: impl Fn(&str) -> bool) -> bool {
    let Some(directory) = scoped::resolve(root, directory) else { return false };
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| {
        entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && fits(name))
            && !entry.file_type().is_ok_and(|kind| kind.is_dir())
    })
}

/// Whether the directory has an `ifcfg` file of an interface other than the loopback.
fn has_ifcfg(root: &Path, directory: &str) -> bool {
    has_file_named(root, directory, |name| name.starts_with("ifcfg-") && name != "ifcfg-lo")
}

/// Whether `/etc/network/interfaces` or a file beside it has an interface other than the loopback.
fn configures_an_interface(root: &Path) -> bool {
    let mut files: Vec<_> = scoped::resolve(root, "etc/network/interfaces").into_iter().collect();
    if let Some(directory) = scoped::resolve(root, "etc/network/interfaces.d") {
        files.extend(fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    files.iter().any(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("iface") && words.next().is_some_and(|name| name != "lo")
        })
    })
}

/// Lays down what was decided. `run` is what will be the system's `/run`.
pub fn lay_down_network(root: &Path, run: &Path, network: Network, interface: &Interface) -> Result<(), LaydownError> {
    if network.keeps_name() {
        write(run, "systemd/network/00-bennu.link", link(interface.mac), 0o644)?;
    }
    match network {
        Network::ImagesOwn(_) | Network::AsItIs => Ok(()),
        Network::Networkd { enabled } => {
            // Last in the order, so that whatever the image ships for this interface comes first.
            write(run, "systemd/network/zz-bennu.network", networkd(interface.mac), 0o644)?;
            if !enabled {
                enable(run, "systemd-networkd.service", "multi-user.target")?;
            }
            Ok(())
        }
        Network::NetworkManager => {
            let path = "NetworkManager/system-connections/bennu.nmconnection";
            write(run, path, network_manager(interface.mac), 0o600)
        }
        Network::Ifupdown => ifupdown(root, &interface.name),
    }
}

/// ifupdown reads nothing from `/run`.
fn ifupdown(root: &Path, name: &str) -> Result<(), LaydownError> {
    let text = format!(
        "# Laid down by Bennu at boot, because the image configures no interface.\nauto {name}\niface {name} inet dhcp\n"
    );
    let main = scoped::resolve(root, "etc/network/interfaces").and_then(|path| fs::read_to_string(path).ok());
    if main.is_some_and(|text| text.lines().any(|line| line.trim_start().starts_with("source"))) {
        return write(root, "etc/network/interfaces.d/bennu", text, 0o644);
    }
    write(root, "etc/network/interfaces", format!("auto lo\niface lo inet loopback\n\n{text}"), 0o644)
}

fn networkd(mac: Mac) -> String {
    format!(
        "# Laid down by Bennu at boot, because the image configures no interface.\n\
         [Match]\nMACAddress={mac}\nType=ether\n\n\
         [Network]\nDHCP=yes\nKeepConfiguration=static\n\n\
         [DHCPv4]\nClientIdentifier=mac\nRouteMetric=100\n"
    )
}

fn network_manager(mac: Mac) -> String {
    format!(
        "# Laid down by Bennu at boot, because the image configures no interface.\n\
         [connection]\nid=Bennu boot interface\nuuid={}\ntype=ethernet\nautoconnect-priority=-10\n\n\
         [ethernet]\nmac-address={}\n\n[ipv4]\nmethod=auto\ndhcp-client-id=mac\n\n[ipv6]\nmethod=auto\n",
        "b3440000-0000-4000-8000-".to_owned() + &mac.to_string().replace(':', ""),
        mac.to_string().to_ascii_uppercase(),
    )
}

/// Names nothing, so that the interface keeps its name; the predictable one becomes an alternative.
fn link(mac: Mac) -> String {
    format!(
        "# Laid down by Bennu at boot: this interface keeps the name it had when the machine booted from it.\n\
         [Match]\nMACAddress={mac}\nType=ether\n\n\
         [Link]\nNamePolicy=\nAlternativeNamesPolicy=database onboard slot path mac\n"
    )
}

/// Lets systemd start a unit with a target, from `/run`.
pub fn enable(run: &Path, unit: &str, target: &str) -> Result<(), LaydownError> {
    let path = format!("systemd/system/{target}.wants/{unit}");
    let link = run.join(&path);
    let make = || {
        fs::create_dir_all(link.parent().unwrap_or(run))?;
        drop(fs::remove_file(&link));
        let runtime = run.join("systemd/system").join(unit);
        let place = if runtime.exists() { "/run/systemd/system" } else { "/usr/lib/systemd/system" };
        symlink(format!("{place}/{unit}"), &link)
    };
    make().map_err(|source| LaydownError { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn wants(root: &Path, service: &str) {
        let directory = root.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&directory).unwrap();
        // Dangling from here, as in an image that is not ours.
        symlink(format!("/lib/systemd/system/{service}.service"), directory.join(format!("{service}.service")))
            .unwrap();
    }

    fn image(make: impl FnOnce(&Path)) -> (tempfile::TempDir, Network) {
        let place = tempfile::tempdir().unwrap();
        make(place.path());
        let network = decide(place.path(), Init::Systemd);
        (place, network)
    }

    #[test]
    fn images_with_their_own_network_are_left_alone() {
        let own = |make: fn(&Path)| image(make).1;
        assert_eq!(
            own(|root| {
                file(root, "usr/lib/systemd/systemd-networkd", "");
                wants(root, "systemd-networkd");
                file(root, "etc/systemd/network/20-wired.network", "[Match]\n");
            }),
            Network::ImagesOwn("systemd-networkd")
        );
        assert_eq!(
            own(|root| {
                wants(root, "networking");
                file(root, "sbin/ifup", "");
                file(root, "etc/network/interfaces", "source-directory /etc/network/interfaces.d\n");
                file(root, "etc/network/interfaces.d/wan", "auto eth0\niface eth0 inet dhcp\n");
            }),
            Network::ImagesOwn("ifupdown")
        );
        assert_eq!(
            own(|root| {
                wants(root, "NetworkManager");
                file(root, "etc/NetworkManager/system-connections/a.nmconnection", "");
            }),
            Network::ImagesOwn("NetworkManager")
        );
        assert_eq!(
            own(|root| {
                file(root, "usr/sbin/netplan", "");
                file(root, "etc/netplan/50-cloud.yaml", "network: {}\n");
            }),
            Network::ImagesOwn("netplan")
        );
    }

    #[test]
    fn others_get_one_for_what_they_have() {
        assert_eq!(image(|_| {}).1, Network::AsItIs);
        assert_eq!(image(|r| file(r, "lib/systemd/systemd-networkd", "")).1, Network::Networkd { enabled: false });
        assert_eq!(image(|r| wants(r, "NetworkManager")).1, Network::NetworkManager);
        let only_lo = |root: &Path| {
            wants(root, "networking");
            file(root, "sbin/ifup", "");
            file(root, "usr/lib/systemd/systemd-networkd", "");
            file(root, "etc/network/interfaces", "auto lo\niface lo inet loopback\n");
        };
        assert_eq!(image(only_lo).1, Network::Ifupdown);
    }

    #[test]
    fn without_systemd_only_ifupdown_counts() {
        let (place, _) = image(|root| {
            wants(root, "NetworkManager");
            file(root, "usr/lib/systemd/systemd-networkd", "");
        });
        assert_eq!(decide(place.path(), Init::Other), Network::AsItIs);
        file(place.path(), "sbin/ifup", "");
        assert_eq!(decide(place.path(), Init::Other), Network::AsItIs);
        let directories = ["etc/runlevels/boot/networking", "etc/rcS.d/S11networking", "etc/init.d/S40network"];
        for service in directories {
            file(place.path(), service, "");
            assert_eq!(decide(place.path(), Init::Other), Network::Ifupdown, "{service}");
            assert_eq!(decide(place.path(), Init::Custom), Network::AsItIs);
            fs::remove_file(place.path().join(service)).unwrap();
        }
        file(place.path(), "etc/rc0.d/K06networking", "");
        file(place.path(), "etc/init.d/networking", "");
        assert_eq!(decide(place.path(), Init::Other), Network::AsItIs);
    }

    #[test]
    fn an_ifup_that_nothing_starts_is_not_ifupdown() {
        let idle = |root: &Path| {
            file(root, "usr/sbin/ifup", "");
            file(root, "etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n");
        };
        assert_eq!(image(idle).1, Network::AsItIs);
        let beside_networkd = |root: &Path| {
            idle(root);
            file(root, "usr/lib/systemd/systemd-networkd", "");
        };
        assert_eq!(image(beside_networkd).1, Network::Networkd { enabled: false });
        let masked = |root: &Path| {
            idle(root);
            wants(root, "networking");
            symlink("/dev/null", root.join("etc/systemd/system/networking.service")).unwrap();
        };
        assert_eq!(image(masked).1, Network::AsItIs);
    }

    #[test]
    fn wicked_with_an_interface_of_its_own_is_left_alone() {
        let wicked = |root: &Path| {
            file(root, "usr/sbin/ifup", "");
            file(root, "etc/sysconfig/network/ifcfg-lo", "");
            wants(root, "wicked");
        };
        assert_eq!(image(wicked).1, Network::AsItIs);
        let configured = |root: &Path| {
            wicked(root);
            file(root, "etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='dhcp'\n");
        };
        assert_eq!(image(configured).1, Network::ImagesOwn("wicked"));
    }

    fn interface() -> Interface {
        Interface {
            name: "eth0".into(),
            index: 2,
            mac: Mac([0x52, 0x54, 0, 0xaa, 0, 1]),
            physical: true,
            subordinate: false,
            carrier: true,
            speed: 0,
            driver: String::new(),
        }
    }

    #[test]
    fn networkd_is_enabled_where_the_image_does_not() {
        let (place, network) = image(|root| file(root, "lib/systemd/systemd-networkd", ""));
        let run = tempfile::tempdir().unwrap();
        lay_down_network(place.path(), run.path(), network, &interface()).unwrap();
        let text = fs::read_to_string(run.path().join("systemd/network/zz-bennu.network")).unwrap();
        assert!(text.contains("MACAddress=52:54:00:aa:00:01\n") && text.contains("DHCP=yes\n"));
        let link = run.path().join("systemd/system/multi-user.target.wants/systemd-networkd.service");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("/usr/lib/systemd/system/systemd-networkd.service"));
        assert!(network.keeps_link());
        let link = fs::read_to_string(run.path().join("systemd/network/00-bennu.link")).unwrap();
        assert!(link.contains("MACAddress=52:54:00:aa:00:01\n") && link.contains("NamePolicy=\n"));
    }

    #[test]
    fn ifupdown_files_go_where_they_are_read() {
        let run = tempfile::tempdir().unwrap();
        let (place, network) = image(|root| {
            wants(root, "networking");
            file(root, "sbin/ifup", "");
            file(root, "etc/network/interfaces", "source /etc/network/interfaces.d/*\n");
        });
        lay_down_network(place.path(), run.path(), network, &interface()).unwrap();
        assert!(
            fs::read_to_string(place.path().join("etc/network/interfaces.d/bennu")).unwrap().contains("auto eth0\n")
        );
        let (place, network) = image(|root| {
            wants(root, "networking");
            file(root, "sbin/ifup", "");
        });
        lay_down_network(place.path(), run.path(), network, &interface()).unwrap();
        let whole = fs::read_to_string(place.path().join("etc/network/interfaces")).unwrap();
        assert!(whole.starts_with("auto lo\n") && whole.contains("iface eth0 inet dhcp\n"));
        assert!(run.path().join("systemd/network/00-bennu.link").exists() && !network.keeps_link());
    }
}
