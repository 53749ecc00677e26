//! What depmod wrote about a kernel's modules, and in which order one of them and its needs are loaded.

use super::glob;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// One module of `modules.dep`.
#[derive(Debug)]
struct Entry {
    /// Relative to the directory of the kernel's modules.
    path: String,
    /// Names of the modules it needs, the deepest last.
    needs: Vec<String>,
}

/// What a module is for, judged by where the kernel's source keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Disks and their controllers.
    Storage,
    /// Displays, sound and the like: not our business, and able to blank a console.
    Unwanted,
    /// Networks, buses, everything else.
    Other,
}

/// Modules that their drivers ask for by name with `request_module`, without an alias for any device and without being a need
/// in `modules.dep`. The kernel's request runs a modprobe, which the initramfs does not have.
const COMPANIONS: &[(&str, &str)] = &[
    // ConnectX-3: the card has the core's alias, its Ethernet ports the companion's code.
    ("mlx4_core", "mlx4_en"),
];

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct Index {
    modules: HashMap<String, Entry>,
    /// Patterns by the bus before their colon; those without a plain bus under "".
    aliases: HashMap<String, Vec<(String, String)>>,
    soft_needs: HashMap<String, Vec<String>>,
    builtin: HashSet<String>,
}

/// The name the kernel gives a module: the file's, with underscores.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Index {
    /// Reads the `modules.*` files of a directory such as `/lib/modules/6.1.0-35-amd64`. Missing files are empty ones.
    pub fn read(directory: &Path) -> Self {
        let text = |name: &str| std::fs::read(directory.join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&text(name)).into_owned();
        Self::parse(&text("modules.dep"), &text("modules.alias"), &text("modules.softdep"), &text("modules.builtin"))
    }

    /// The same from the files' contents.
    pub fn parse(dep: &str, alias: &str, softdep: &str, builtin: &str) -> Self {
        let mut index = Self::default();
        for (path, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(name_of).collect();
            index.modules.insert(name_of(path), Entry { path: path.trim().to_owned(), needs });
        }
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                index.aliases.entry(bus_of(pattern)).or_default().push((pattern.to_owned(), module.replace('-', "_")));
            }
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                let before = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
                index.soft_needs.entry(module.replace('-', "_")).or_default().extend(before.map(str::to_owned));
            }
        }
        index.builtin = builtin.lines().map(name_of).collect();
        index
    }

    /// Whether no module is known at all: the modules initrd of the image is missing.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// How many modules there are.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether a module of this name is part of the kernel itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// The file of a module.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.modules.get(name).map(|entry| entry.path.as_str())
    }

    /// The modules that serve a device with this modalias.
    pub fn serving(&self, modalias: &str) -> Vec<String> {
        let candidates = [bus_of(modalias), String::new()];
        let mut found: Vec<String> = candidates
            .iter()
            .filter_map(|bus| self.aliases.get(bus))
            .flatten()
            .filter(|(pattern, _)| glob::matches(pattern, modalias))
            .map(|(_, module)| module.clone())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// What must be loaded, in this order, to have `name` (a module's name or an alias): its needs first, its companions last.
    pub fn order(&self, name: &str) -> Vec<String> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        self.visit(name, &mut seen, &mut order);
        order
    }

    fn visit(&self, name: &str, seen: &mut HashSet<String>, order: &mut Vec<String>) {
        let own = name.replace('-', "_");
        if !seen.insert(own.clone()) || self.is_builtin(&own) {
            return;
        }
        let Some(entry) = self.modules.get(&own) else {
            for module in self.serving(name) {
                self.visit(&module, seen, order);
            }
            return;
        };
        for need in self.soft_needs.get(&own).into_iter().flatten() {
            self.visit(need, seen, order);
        }
        for need in entry.needs.iter().rev() {
            self.visit(need, seen, order);
        }
        let companions = COMPANIONS.iter().filter(|(driver, _)| *driver == own).map(|(_, companion)| *companion);
        order.push(own.clone());
        for companion in companions {
            self.visit(companion, seen, order);
        }
    }

    /// What a module is for.
    pub fn purpose(&self, name: &str) -> Purpose {
        const STORAGE: &[&str] = &[
            "/drivers/ata/",
            "/drivers/block/",
            "/drivers/cdrom/",
            "/drivers/md/",
            "/drivers/message/",
            "/drivers/mmc/",
            "/drivers/mtd/",
            "/drivers/nvme/",
            "/drivers/scsi/",
            "/drivers/usb/storage/",
        ];
        const UNWANTED: &[&str] = &[
            "/drivers/bluetooth/",
            "/drivers/gpu/",
            "/drivers/media/",
            "/drivers/net/wireless/",
            "/drivers/video/",
            "/kvm/",
            "/sound/",
        ];
        let path = format!("/{}", self.path(name).unwrap_or_default());
        let within = |places: &[&str]| places.iter().any(|place| path.contains(place));
        match (within(STORAGE), within(UNWANTED)) {
            (true, _) => Purpose::Storage,
            (_, true) => Purpose::Unwanted,
            _ => Purpose::Other,
        }
    }
}

/// The part before the colon, where it is plain text.
fn bus_of(alias: &str) -> String {
    match alias.split_once(':') {
        Some((bus, _)) if !bus.contains(['*', '?', '[', '\\']) => bus.to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            "kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko\n\
             kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
             kernel/net/core/failover.ko:\n\
             kernel/lib/libcrc32c.ko.zst:\n\
             kernel/crypto/crc32c_generic.ko:\n\
             kernel/drivers/block/virtio_blk.ko:\n\
             kernel/drivers/gpu/drm/bochs.ko:\n\
             kernel/drivers/usb/host/xhci-pci.ko: kernel/a/loop-a.ko\n\
             kernel/a/loop-a.ko: kernel/drivers/usb/host/xhci-pci.ko\n",
            "# Aliases extracted from modules themselves.\n\
             alias virtio:d00000001v* virtio_net\n\
             alias virtio:d00000002v* virtio_blk\n\
             alias pci:v*d*sv*sd*bc0Csc03i30* xhci-pci\n\
             alias crc32c crc32c_generic\n",
            "softdep libcrc32c pre: crc32c post: never\n",
            "kernel/fs/squashfs/squashfs.ko\n",
        )
    }

    #[test]
    fn needs_come_first_and_once() {
        assert_eq!(index().order("virtio_net"), ["failover", "net_failover", "virtio_net"]);
        assert_eq!(index().order("libcrc32c"), ["crc32c_generic", "libcrc32c"]);
        assert_eq!(index().order("virtio:d00000002v00001AF4"), ["virtio_blk"]);
    }

    #[test]
    fn a_driver_brings_the_companion_it_asks_for() {
        let dep = "kernel/drivers/net/ethernet/mellanox/mlx4/mlx4_core.ko.xz:\n\
                   kernel/drivers/net/ethernet/mellanox/mlx4/mlx4_en.ko.xz: \
                   kernel/drivers/net/ethernet/mellanox/mlx4/mlx4_core.ko.xz kernel/drivers/ptp/ptp.ko.xz\n\
                   kernel/drivers/ptp/ptp.ko.xz:\n";
        let alias = "alias pci:v000015B3d00001003sv*sd*bc*sc*i* mlx4_core\n";
        let card = "pci:v000015B3d00001003sv000015B3sd00000055bc02sc00i00";
        let index = Index::parse(dep, alias, "", "");
        assert_eq!(index.order(card), ["mlx4_core", "ptp", "mlx4_en"]);
        assert_eq!(index.order("mlx4_en"), ["ptp", "mlx4_core", "mlx4_en"]);
        let without = Index::parse(dep.split_inclusive('\n').next().unwrap(), alias, "", "");
        assert_eq!(without.order(card), ["mlx4_core"]);
    }

    #[test]
    fn a_circle_ends_and_names_are_normal() {
        assert_eq!(index().order("xhci-pci"), ["loop_a", "xhci_pci"]);
        assert_eq!(index().serving("pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30"), ["xhci_pci"]);
    }

    #[test]
    fn builtin_and_unknown_need_nothing() {
        assert!(index().order("squashfs").is_empty());
        assert!(index().order("no_such_module").is_empty());
    }

    #[test]
    fn purposes() {
        assert_eq!(index().purpose("virtio_blk"), Purpose::Storage);
        assert_eq!(index().purpose("virtio_net"), Purpose::Other);
        assert_eq!(index().purpose("bochs"), Purpose::Unwanted);
    }
}
