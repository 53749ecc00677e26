//! The machine's disks, with the names that people know them by.

use bennu_plan::DiskWanted;
use std::fs;
use std::path::Path;

/// What the kernel makes of files, memory and other disks.
const NOT_DISKS: &[&str] = &["loop", "ram", "zram", "sr", "fd", "md", "dm-", "nbd"];

/// A disk, or a partition of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// As the kernel calls it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    model: String,
    serial: String,
    wwid: String,
    vendor: String,
    /// Its partitions.
    pub partitions: Vec<Device>,
}

/// Every disk that has a size, by name.
pub fn disks(block: &Path) -> Vec<Device> {
    let names =
        fs::read_dir(block).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut disks: Vec<Device> = names
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) && !is_part_of_a_disk(name))
        .filter(|name| text(&block.join(name).join("hidden")) != "1")
        .map(|name| disk(&block.join(&name), name))
        .filter(|disk| disk.size > 0)
        .collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

/// Whether it is a part of another disk that the kernel shows beside it, with that one's serial number: the areas of an
/// eMMC that it boots from and keeps keys in (`mmcblk0boot0`, `mmcblk0rpmb`), and one path of several to an NVMe namespace
/// (`nvme0c1n1`), which no program can open (`GENHD_FL_HIDDEN`).
fn is_part_of_a_disk(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let area = |rest: &str| {
        let area = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        area.len() < rest.len() && ["boot", "gp", "rpmb"].iter().any(|kind| area.starts_with(kind))
    };
    let path = |rest: &str| {
        let (controller, rest) = rest.split_once('c')?;
        let (path, namespace) = rest.split_once('n')?;
        Some([controller, path, namespace].into_iter().all(digits))
    };
    name.strip_prefix("mmcblk").is_some_and(area) || name.strip_prefix("nvme").and_then(path).unwrap_or(false)
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

/// The kernel counts in 512-byte sectors, whatever the disk's own are.
fn size(path: &Path) -> u64 {
    text(&path.join("size")).parse::<u64>().unwrap_or(0) * 512
}

fn disk(path: &Path, name: String) -> Device {
    let first =
        |files: &[&str]| files.iter().map(|file| text(&path.join(file))).find(|t| !t.is_empty()).unwrap_or_default();
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut partitions: Vec<Device> = entries
        .filter(|entry| entry.path().join("partition").exists())
        .filter_map(|entry| {
            Some(Device { size: size(&entry.path()), name: entry.file_name().into_string().ok()?, ..Device::default() })
        })
        .collect();
    partitions.sort_by(|a, b| a.name.cmp(&b.name));
    Device {
        size: size(path),
        model: first(&["device/model"]),
        serial: first(&["device/serial", "serial"]).to_owned() + &unit_serial(path),
        wwid: first(&["wwid", "device/wwid"]),
        vendor: first(&["device/vendor"]),
        name,
        partitions,
    }
}

/// SCSI and SATA disks say their serial number on a page of its own: a header of four bytes, then text (SPC-4 §7.8.15).
fn unit_serial(path: &Path) -> String {
    let page = fs::read(path.join("device/vpd_pg80")).unwrap_or_default();
    let serial = page.get(4..).unwrap_or_default();
    String::from_utf8_lossy(serial).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

impl Device {
    /// Its file.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name.replace('!', "/"))
    }

    /// For people.
    pub fn describe(&self) -> String {
        let words = [&self.model, &self.serial].into_iter().filter(|word| !word.is_empty());
        let words: Vec<String> = words.cloned().chain([super::size(self.size)]).collect();
        format!("{} ({})", self.path(), words.join(", "))
    }

    /// The names that udev's rules give it in `/dev/disk/by-id` (60-persistent-storage.rules).
    fn ids(&self) -> Vec<String> {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join("_");
        let (model, serial) = (plain(&self.model), plain(&self.serial));
        let mut ids = Vec::new();
        if !serial.is_empty() {
            match self.name.get(..2) {
                Some("vd") => ids.push(format!("virtio-{serial}")),
                Some("nv") => ids.push(format!("nvme-{model}_{serial}")),
                _ => {
                    ids.push(format!("ata-{model}_{serial}"));
                    ids.push(format!("scsi-{}_{model}_{serial}", plain(&self.vendor)));
                }
            }
        }
        if let Some(wwn) = self.wwn() {
            ids.push(format!("wwn-{wwn}"));
            ids.push(format!("nvme-{}", self.wwid));
        }
        ids
    }

    fn wwn(&self) -> Option<String> {
        match self.wwid.split_once('.') {
            Some(("naa", digits)) => Some(format!("0x{digits}")),
            Some(("eui" | "nvme" | "uuid", _)) => Some(self.wwid.clone()),
            _ => None,
        }
    }
}

/// Whether a disk is what is wanted, as far as that can be told without reading it.
pub fn is(disk: &Device, wanted: &DiskWanted) -> bool {
    // A label alone says enough; nothing at all means no disk.
    let DiskWanted { by_id, serial, wwn, model, label: _, min_size, max_size } = wanted;
    *wanted != DiskWanted::default()
        && by_id.as_ref().is_none_or(|id| disk.ids().contains(id))
        && serial.as_ref().is_none_or(|serial| disk.serial == *serial)
        && wwn.as_ref().is_none_or(|wwn| disk.wwn().as_ref() == Some(wwn) || disk.wwid == *wwn)
        && model.as_ref().is_none_or(|model| disk.model == *model)
        && min_size.is_none_or(|least| disk.size >= least)
        && max_size.is_none_or(|most| disk.size <= most)
}

/// For people.
pub fn described(wanted: &DiskWanted) -> String {
    let DiskWanted { by_id, serial, wwn, model, label, min_size, max_size } = wanted;
    let texts = [("by_id", by_id), ("serial", serial), ("wwn", wwn), ("model", model), ("label", label)];
    let texts = texts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let sizes = [("min_size", min_size), ("max_size", max_size)];
    let sizes = sizes.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?)));
    texts.chain(sizes).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sys() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: &[u8]| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put("vda/size", b"2048\n");
        put("vda/serial", b"DATA1\n");
        put("vda/vda1/partition", b"1\n");
        put("vda/vda1/size", b"1024\n");
        put("nvme0n1/size", b"4096\n");
        put("nvme0n1/device/model", b"Some Disk 1T   \n");
        put("nvme0n1/device/serial", b"S123  \n");
        put("nvme0n1/wwid", b"eui.0025385b\n");
        put("sda/size", b"8192\n");
        put("sda/device/model", b"QEMU HARDDISK\n");
        put("sda/device/wwid", b"naa.5000c500a1b2\n");
        put("sda/device/vpd_pg80", b"\0\x80\0\x08QM000007");
        put("sdb/size", b"0\n");
        put("loop0/size", b"64\n");
        put("nvme0c0n1/size", b"4096\n");
        put("nvme0c0n1/device/serial", b"S123  \n");
        put("nvme1n1/size", b"4096\n");
        put("nvme1n1/hidden", b"1\n");
        put("nvme1n1/device/serial", b"S123  \n");
        for area in ["mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb", "mmcblk0gp0"] {
            put(&format!("{area}/size"), b"8192\n");
            put(&format!("{area}/device/serial"), b"0x1234\n");
        }
        put("mmcblk0/size", b"16384\n");
        put("mmcblk0/device/serial", b"0x1234\n");
        put("sr0/size", b"64\n");
        sys
    }

    #[test]
    fn disks_are_known_by_the_names_on_their_labels() {
        let sys = sys();
        let all = disks(sys.path());
        let names: Vec<_> = all.iter().map(|disk| (disk.name.as_str(), disk.size)).collect();
        let wanted = [("mmcblk0", 1 << 23), ("nvme0n1", 4096 * 512), ("sda", 8192 * 512), ("vda", 1 << 20)];
        assert_eq!(names, wanted, "each disk once");
        assert_eq!(all[3].partitions[0].path(), "/dev/vda1");
        let text = |text: &str| Some(text.to_owned());
        for (wanted, name) in [
            (DiskWanted { serial: text("DATA1"), ..DiskWanted::default() }, "vda"),
            (DiskWanted { serial: text("S123"), ..DiskWanted::default() }, "nvme0n1"),
            (DiskWanted { serial: text("0x1234"), ..DiskWanted::default() }, "mmcblk0"),
            (DiskWanted { by_id: text("virtio-DATA1"), ..DiskWanted::default() }, "vda"),
            (DiskWanted { by_id: text("nvme-Some_Disk_1T_S123"), ..DiskWanted::default() }, "nvme0n1"),
            (DiskWanted { by_id: text("nvme-eui.0025385b"), ..DiskWanted::default() }, "nvme0n1"),
            (DiskWanted { wwn: text("0x5000c500a1b2"), ..DiskWanted::default() }, "sda"),
            (DiskWanted { by_id: text("ata-QEMU_HARDDISK_QM000007"), ..DiskWanted::default() }, "sda"),
            (DiskWanted { model: text("QEMU HARDDISK"), min_size: Some(1), ..DiskWanted::default() }, "sda"),
            (DiskWanted { max_size: Some(1 << 20), ..DiskWanted::default() }, "vda"),
        ] {
            let found: Vec<_> = all.iter().filter(|disk| is(disk, &wanted)).map(|disk| disk.name.as_str()).collect();
            assert_eq!(found, [name], "{wanted:?}");
        }
        assert!(!all.iter().any(|disk| is(disk, &DiskWanted::default())), "nothing at all means no disk");
        assert_eq!(
            described(&DiskWanted { serial: text("A"), min_size: Some(5), ..DiskWanted::default() }),
            "serial A and min_size 5"
        );
    }
}
