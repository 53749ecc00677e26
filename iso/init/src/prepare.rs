//! Making a state disk of an empty one, when the configuration asks for it. A disk with anything on it is left alone, whatever
//! the configuration says: who wants it used makes it empty first.

use crate::state;
use bennu_stage1::console;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What takes the only empty disk there is.
const AUTO: &str = "auto";
/// Less has no room for images.
const SMALLEST: u64 = 1 << 30;
/// Read whole at both ends, where partition tables and file systems begin, and backups of them are.
const ENDS: u64 = 1 << 20;
/// So many places in between are looked at.
const PLACES: u64 = 1024;
const PIECE: u64 = 4096;
const SECTOR: u64 = 512;

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its device.
    pub device: PathBuf,
    /// What its maker calls it; empty when it does not say.
    pub serial: String,
    /// Bytes.
    pub size: u64,
    /// Whether nothing at all is on it.
    pub blank: bool,
}

/// Makes one; the disk.
pub fn make(wanted: &str) -> Result<PathBuf, String> {
    let disk = choose(&candidates(), wanted)?;
    console::say(&format!("{} (serial {}) is empty, and becomes the state disk", disk.device.display(), disk.serial));
    let mut format = Command::new("/sbin/mke2fs");
    format.args(["-q", "-t", "ext4", "-L", state::LABEL]).arg(&disk.device).env("PATH", crate::PATH);
    let done = format.stdin(Stdio::null()).output().map_err(|error| format!("mke2fs does not run: {error}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("mke2fs made no file system on {}: {}", disk.device.display(), said.trim()));
    }
    Ok(disk.device)
}

/// The disk that is meant, when it may be used.
fn choose(disks: &[Candidate], wanted: &str) -> Result<Candidate, String> {
    let told = |disk: &Candidate| {
        let content = if disk.blank { "empty" } else { "with data" };
        format!("{} (serial '{}', {} MB, {content})", disk.device.display(), disk.serial, disk.size / 1_000_000)
    };
    let all: Vec<String> = disks.iter().map(told).collect();
    let all = if all.is_empty() { "no disk at all".to_owned() } else { all.join(", ") };
    let meant: Vec<&Candidate> = match wanted {
        AUTO => disks.iter().filter(|disk| disk.blank && disk.size >= SMALLEST).collect(),
        serial => disks.iter().filter(|disk| disk.serial == serial).collect(),
    };
    match meant.as_slice() {
        [disk] if !disk.blank => Err(format!(
            "{} has data on it, and is left alone. Make it empty (wipefs and blkdiscard on another host), or take another disk",
            disk.device.display()
        )),
        [disk] if disk.size < SMALLEST => {
            Err(format!("{} is too small: a state disk has 1 GiB at least", disk.device.display()))
        }
        [disk] => Ok((*disk).clone()),
        [] if wanted == AUTO => Err(format!("no disk of 1 GiB or more is empty; there are: {all}")),
        [] => Err(format!("no disk has the serial '{wanted}'; there are: {all}")),
        _ => Err(format!("several disks could be meant; write the serial of one as host.state_disk: {all}")),
    }
}

/// Every whole disk that can be written to and that nobody uses.
fn candidates() -> Vec<Candidate> {
    let mut names: Vec<String> = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["loop", "ram", "dm-", "zram", "sr", "fd", "md"].iter().any(|other| name.starts_with(other)))
        .collect();
    names.sort();
    names.iter().filter_map(|name| candidate(name)).collect()
}

fn candidate(name: &str) -> Option<Candidate> {
    let sys = Path::new("/sys/block").join(name);
    let read = |file: &str| std::fs::read_to_string(sys.join(file)).ok().map(|text| text.trim().to_owned());
    if read("ro").as_deref() != Some("0") {
        return None;
    }
    let size = read("size")?.parse::<u64>().ok()? * SECTOR;
    let device = Path::new("/dev").join(name);
    let partitions = std::fs::read_dir(&sys).ok()?.flatten().any(|entry| entry.path().join("partition").exists());
    // One that cannot be read is none to write to.
    let blank = !partitions && File::open(&device).and_then(|file| is_blank(&file, size)).unwrap_or(false);
    let serial = read("serial").or_else(|| read("device/serial")).or_else(|| unit_serial(&sys)).unwrap_or_default();
    Some(Candidate { device, serial, size, blank })
}

/// SCSI's page of vital product data with the unit's serial number (SPC-4 §7.8.16): four bytes of head, then text.
fn unit_serial(sys: &Path) -> Option<String> {
    let page = std::fs::read(sys.join("device/vpd_pg80")).ok()?;
    Some(String::from_utf8_lossy(page.get(4..)?).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// Both ends are zeros, and so are places spread over all of it.
fn is_blank(file: &File, size: u64) -> io::Result<bool> {
    let zeros = |at: u64, length: u64| {
        let mut bytes = vec![0; usize::try_from(length.min(size.saturating_sub(at))).unwrap_or_default()];
        file.read_exact_at(&mut bytes, at).map(|()| bytes.iter().all(|byte| *byte == 0))
    };
    if !zeros(0, ENDS)? || !zeros(size.saturating_sub(ENDS), ENDS)? {
        return Ok(false);
    }
    for place in 1..PLACES {
        if !zeros(size / PLACES * place, PIECE)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, serial: &str, blank: bool) -> Candidate {
        Candidate { device: Path::new("/dev").join(name), serial: serial.into(), size: 4 << 30, blank }
    }

    #[test]
    fn only_an_empty_disk_is_taken() {
        let disks = [disk("sda", "DATA", false), disk("sdb", "EMPTY", true)];
        assert_eq!(choose(&disks, "auto").unwrap().serial, "EMPTY");
        assert_eq!(choose(&disks, "EMPTY").unwrap().serial, "EMPTY");
        assert!(choose(&disks, "DATA").unwrap_err().contains("has data on it"));
        assert!(choose(&disks, "OTHER").unwrap_err().contains("/dev/sdb (serial 'EMPTY'"));
        assert!(choose(&disks[..1], "auto").unwrap_err().contains("no disk of 1 GiB or more is empty"));
        assert!(choose(&[disk("sdb", "A", true), disk("sdc", "B", true)], "auto").unwrap_err().contains("several"));
        let small = Candidate { size: 1 << 20, ..disk("sdb", "S", true) };
        assert!(choose(std::slice::from_ref(&small), "S").unwrap_err().contains("too small"));
        assert!(choose(&[small], "auto").is_err());
        assert!(choose(&[], "auto").unwrap_err().contains("no disk at all"));
    }

    #[test]
    fn one_byte_anywhere_that_is_looked_at_is_data() {
        let place = tempfile::tempdir().unwrap();
        let size = 64 << 20;
        let blank = |at: Option<u64>| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            let file = options.open(place.path().join("disk")).unwrap();
            file.set_len(size).unwrap();
            at.map_or(Ok(()), |at| file.write_all_at(&[1], at)).unwrap();
            is_blank(&file, size).unwrap()
        };
        assert!(blank(None));
        for at in [0, 511, 1024 + 56, ENDS - 1, size / 2, size - 1, size - 512] {
            assert!(!blank(Some(at)), "{at}");
        }
    }
}
