//! What discovery finds in a machine.

use crate::memory::Memory;
use crate::net;
use bennu_plan::{Disk, Inventory, Nic};
use std::path::Path;

/// Takes stock; `sys` is `/sys` and `cpuinfo` the text of `/proc/cpuinfo`.
pub fn take(sys: &Path, cpuinfo: &str, memory: Option<Memory>) -> Inventory {
    let smbios = |field: &str| text(&sys.join("class/dmi/id").join(field));
    let (cpu_model, cpus) = processors(cpuinfo);
    Inventory {
        manufacturer: smbios("sys_vendor"),
        product: smbios("product_name"),
        serial: smbios("product_serial"),
        uuid: smbios("product_uuid").to_ascii_lowercase(),
        cpu_model,
        cpus,
        memory: memory.map_or(0, |memory| memory.total),
        disks: disks(&sys.join("block")),
        nics: nics(sys),
    }
}

/// In one line, for the console.
pub fn describe(inventory: &Inventory) -> String {
    let machine = format!("{} {}", inventory.manufacturer, inventory.product);
    format!(
        "{}, {} processors, {} memory, {} disks, {} network interfaces",
        machine.trim(),
        inventory.cpus,
        crate::console::mib(inventory.memory),
        inventory.disks.len(),
        inventory.nics.len()
    )
}

fn text(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

/// The model's name and how many logical processors there are. Arm's kernels name no model.
fn processors(cpuinfo: &str) -> (String, u32) {
    let fields =
        || cpuinfo.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.trim(), value.trim()));
    let model = fields().find(|(key, _)| matches!(*key, "model name" | "Model")).map_or("", |(_, value)| value);
    let count = fields().filter(|(key, _)| *key == "processor").count();
    (model.to_owned(), u32::try_from(count).unwrap_or(u32::MAX))
}

fn disks(block: &Path) -> Vec<Disk> {
    const NOT_DISKS: &[&str] = &["loop", "ram", "zram", "sr", "fd", "md", "dm-", "nbd"];
    let mut disks: Vec<Disk> = std::fs::read_dir(block)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .map(|name| disk(&block.join(&name), name.replace('!', "/")))
        // Multipath keeps hidden paths, and empty card readers have no size.
        .filter(|disk| disk.size > 0)
        .collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

fn disk(path: &Path, name: String) -> Disk {
    let first =
        |files: &[&str]| files.iter().map(|file| text(&path.join(file))).find(|t| !t.is_empty()).unwrap_or_default();
    // The kernel counts in 512-byte sectors, whatever the disk's own are.
    let size = text(&path.join("size")).parse::<u64>().unwrap_or(0) * 512;
    let serial = first(&["device/serial", "serial", "device/wwid", "wwid"]);
    Disk {
        name,
        size,
        model: first(&["device/model"]),
        serial,
        rotational: text(&path.join("queue/rotational")) == "1",
    }
}

fn nics(sys: &Path) -> Vec<Nic> {
    let physical = net::interfaces(sys).into_iter().filter(|interface| interface.physical);
    physical
        .map(|found| Nic {
            name: found.name,
            mac: found.mac.to_string(),
            driver: found.driver,
            link: found.carrier,
            speed: found.speed,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_stock() {
        let place = tempfile::tempdir().unwrap();
        let sys = place.path();
        let put = |path: &str, text: &str| {
            let path = sys.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("class/dmi/id/sys_vendor", "QEMU\n");
        put("class/dmi/id/product_uuid", "ABCD-EF\n");
        put("block/sda/size", "2048\n");
        put("block/sda/queue/rotational", "1\n");
        put("block/sda/device/model", "QEMU HARDDISK   \n");
        put("block/nvme0n1/size", "4096\n");
        put("block/nvme0n1/device/serial", "S1\0\n");
        put("block/loop0/size", "99\n");
        put("block/sdb/size", "0\n");
        let cpuinfo =
            "processor\t: 0\nmodel name\t: QEMU Virtual CPU\n\nprocessor\t: 1\nmodel name\t: QEMU Virtual CPU\n";
        let found = take(sys, cpuinfo, Some(Memory { total: 1 << 30, available: 1 }));
        assert_eq!((found.manufacturer.as_str(), found.uuid.as_str()), ("QEMU", "abcd-ef"));
        assert_eq!((found.cpu_model.as_str(), found.cpus, found.memory), ("QEMU Virtual CPU", 2, 1 << 30));
        let names: Vec<_> = found.disks.iter().map(|disk| (disk.name.as_str(), disk.size, disk.rotational)).collect();
        assert_eq!(names, [("nvme0n1", 4096 * 512, false), ("sda", 2048 * 512, true)]);
        assert_eq!((found.disks[0].serial.as_str(), found.disks[1].model.as_str()), ("S1", "QEMU HARDDISK"));
        assert!(describe(&found).starts_with("QEMU, 2 processors"));
    }
}
