//! Making a state disk of an empty one, when the configuration asks for it. A disk with anything on it is left alone, whatever
//! the configuration says: who wants it used makes it empty first.

use crate::disks::{self, Whole};
use crate::state;
use bennu_stage1::{
    console,
    modules::{Devices, Modules},
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What takes the only empty disk there is.
const AUTO: &str = "auto";
/// Less has no room for images.
const SMALLEST: u64 = 1 << 30;
/// Partition tables and file systems begin within so many bytes of a disk's start, and copies of them end at its end.
const ENDS: usize = 1 << 20;
/// Controllers of many disks, and USB, show them one after the other: before this nobody knows which is the only empty one.
const SETTLE: Duration = Duration::from_secs(10);
/// What is waited for is named again and again, for whoever comes to the console later.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Waits for the disk that is meant, and makes it the state disk unless it is one already.
pub fn make(wanted: &str, modules: &mut Modules) -> Result<PathBuf, String> {
    let (began, mut said) = (Instant::now(), None::<Instant>);
    loop {
        // One that came late, with its state.
        if let Some(disk) = state::find() {
            return Ok(disk);
        }
        let why = match choose(&disks::whole(), wanted, began.elapsed()) {
            Choice::Take(disk) => return format(&disk),
            Choice::Refuse(why) => return Err(why),
            Choice::Wait(why) => why,
        };
        if began.elapsed() > SETTLE && said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            said = Some(Instant::now());
            console::say(&why);
        }
        std::thread::sleep(Duration::from_millis(500));
        modules.coldplug(Devices::All);
    }
}

fn format(disk: &Whole) -> Result<PathBuf, String> {
    let device = &disk.device;
    console::say(&format!("{} (serial {}) is empty, and becomes the state disk", device.display(), disk.serial));
    make_file_system(device)?;
    Ok(device.clone())
}

/// Makes one of a disk that somebody gave up with all that is on it, by its serial number.
pub fn make_of_used(serial: &str) -> Result<PathBuf, String> {
    let disks = disks::whole();
    let meant: Vec<&Whole> = disks.iter().filter(|disk| !serial.is_empty() && disk.serial == serial).collect();
    let [disk] = meant.as_slice() else { return Err(format!("there is not one disk with the serial '{serial}'")) };
    if disk.content.is_err() {
        return Err(disk.to_string());
    }
    console::say(&format!("{} (serial {serial}) loses what is on it, as was asked for", disk.device.display()));
    clear_ends(disk).map_err(|error| format!("cannot write to {}: {error}", disk.device.display()))?;
    make_file_system(&disk.device)?;
    Ok(disk.device.clone())
}

/// Partition tables and their copies go, so that nothing finds the old content.
fn clear_ends(disk: &Whole) -> io::Result<()> {
    let file = File::options().write(true).open(&disk.device)?;
    let zeros = vec![0; ENDS];
    file.write_all_at(&zeros, 0)?;
    file.write_all_at(&zeros, disk.size.saturating_sub(ENDS as u64))?;
    file.sync_all()
}

/// The disks that a person may choose from.
pub fn offered() -> Vec<bennu_host::setup::Disk> {
    let usable = disks::whole().into_iter().filter(|disk| disk.content.is_ok() && disk.size >= SMALLEST);
    let offer = |disk: Whole| {
        let blank = disk.is_blank();
        bennu_host::setup::Disk { device: disk.device, serial: disk.serial, size: disk.size, blank }
    };
    usable.map(offer).collect()
}

/// An empty file system with the label of state.
fn make_file_system(device: &Path) -> Result<(), String> {
    let mut format = Command::new("/sbin/mke2fs");
    format.args(["-q", "-t", "ext4", "-L", state::LABEL]).arg(device).env("PATH", crate::PATH);
    let done = format.stdin(Stdio::null()).output().map_err(|error| format!("mke2fs does not run: {error}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("mke2fs made no file system on {}: {}", device.display(), said.trim()));
    }
    Ok(())
}

/// What to do about the disk that is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Take(Whole),
    /// It may still come.
    Wait(String),
    Refuse(String),
}

/// The disk that is meant, when it may be used. One that is named is waited for, however long it takes; before the only empty
/// one is taken, all had their time to come.
fn choose(disks: &[Whole], wanted: &str, waited: Duration) -> Choice {
    let all: Vec<String> = disks.iter().map(Whole::to_string).collect();
    let all = if all.is_empty() { "no disk at all".to_owned() } else { all.join(", ") };
    let is_auto = wanted == AUTO;
    if is_auto && waited < SETTLE {
        return Choice::Wait("disks get a moment to appear".into());
    }
    let meant: Vec<&Whole> = disks
        .iter()
        .filter(|disk| if is_auto { disk.is_blank() && disk.size >= SMALLEST } else { disk.serial == wanted })
        .collect();
    match meant.as_slice() {
        [disk] if !disk.is_blank() => Choice::Refuse(format!(
            "{disk} is left alone. Make it empty (wipefs and blkdiscard on another host), or take another disk"
        )),
        [disk] if disk.size < SMALLEST => {
            Choice::Refuse(format!("{} is too small: a state disk has 1 GiB at least", disk.device.display()))
        }
        [disk] => Choice::Take((*disk).clone()),
        [] if is_auto => Choice::Refuse(format!("no disk of 1 GiB or more is empty; there are: {all}")),
        [] => Choice::Wait(format!(
            "waiting for the state disk with the serial '{wanted}', which the configuration names. Nothing is served until it \
             is there; there are: {all}"
        )),
        _ => Choice::Refuse(format!("several disks could be meant; write the serial of one as host.state_disk: {all}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_stage1::persistent::blank::Found;

    fn disk(name: &str, serial: &str, blank: bool) -> Whole {
        let content = Ok(if blank { Found::Blank } else { Found::Other("a GPT partition table") });
        Whole {
            device: Path::new("/dev").join(name),
            serial: serial.into(),
            model: String::new(),
            size: 4 << 30,
            content,
            partitions: Vec::new(),
        }
    }

    fn chosen(disks: &[Whole], wanted: &str) -> Result<String, String> {
        match choose(disks, wanted, SETTLE) {
            Choice::Take(disk) => Ok(disk.serial),
            Choice::Wait(why) => Err(format!("wait: {why}")),
            Choice::Refuse(why) => Err(why),
        }
    }

    #[test]
    fn only_an_empty_disk_is_taken() {
        let disks = [disk("sda", "DATA", false), disk("sdb", "EMPTY", true)];
        assert_eq!(chosen(&disks, "auto").unwrap(), "EMPTY");
        assert_eq!(chosen(&disks, "EMPTY").unwrap(), "EMPTY");
        assert!(chosen(&disks, "DATA").unwrap_err().contains("a GPT partition table) is left alone"));
        assert!(chosen(&disks[..1], "auto").unwrap_err().contains("no disk of 1 GiB or more is empty"));
        assert!(chosen(&[disk("sdb", "A", true), disk("sdc", "B", true)], "auto").unwrap_err().contains("several"));
        let small = Whole { size: 1 << 20, ..disk("sdb", "S", true) };
        assert!(chosen(std::slice::from_ref(&small), "S").unwrap_err().contains("too small"));
        assert!(chosen(&[small], "auto").is_err());
        assert!(chosen(&[], "auto").unwrap_err().contains("no disk at all"));
        let unreadable = Whole { content: Err("Input/output error".into()), ..disk("sdd", "BAD", true) };
        assert!(chosen(&[unreadable], "BAD").unwrap_err().contains("Input/output error"));
    }

    #[test]
    fn a_named_disk_is_waited_for_and_the_only_empty_one_is_not_the_first_to_come() {
        let first = [disk("sdb", "EMPTY", true)];
        assert!(matches!(choose(&first, "auto", Duration::from_secs(9)), Choice::Wait(_)));
        let hours = Duration::from_secs(7200);
        let Choice::Wait(why) = choose(&first, "OTHER", hours) else { panic!("it is not waited for") };
        assert!(why.contains("/dev/sdb (serial 'EMPTY'") && why.contains("'OTHER'"), "{why}");
        assert!(matches!(choose(&first, "EMPTY", Duration::ZERO), Choice::Take(_)));
    }
}
