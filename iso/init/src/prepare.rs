//! Making a state disk of an empty one, when the configuration asks for it. A disk with anything on it is left alone, whatever
//! the configuration says: who wants it used makes it empty first.

use crate::area::Area;
use crate::disks::{self, Whole};
use crate::medium::Medium;
use crate::{state, tpm, vault};
use bennu_host::setup::{Disk, Disks};
use bennu_host::vault::{Encryption, SMALLEST, STICK};
use bennu_stage1::{
    console,
    modules::{Devices, Modules},
    persistent::blank::{self, Found},
};
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What takes the only empty disk there is.
const AUTO: &str = "auto";
/// Partition tables and file systems begin within so many bytes of a disk's start, and copies of them end at its end.
const ENDS: usize = 1 << 20;
/// Controllers of many disks, and USB, show them one after the other: before this nobody knows which is the only empty one.
const SETTLE: Duration = Duration::from_secs(10);
/// What is waited for is named again and again, for whoever comes to the console later.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Waits for the disk that is meant, and makes it the state disk unless it is one already.
pub fn make(wanted: &str, how: Encryption, modules: &mut Modules) -> Result<Area, String> {
    let (began, mut said) = (Instant::now(), None::<Instant>);
    loop {
        // One that came late, with its state.
        if let Some(area) = state::find() {
            return Ok(area);
        }
        let chosen = match wanted {
            STICK => stick(began.elapsed()),
            _ => choose(&disks::whole(), wanted, began.elapsed()),
        };
        let why = match chosen {
            Choice::Take(area) => return empty(area).and_then(|area| format(area, how)),
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

/// The free space of the medium, once that is there.
fn stick(waited: Duration) -> Choice {
    let Some(device) = Medium::find().map(|medium| medium.device.clone()) else {
        let why = "the medium that this machine was started from is not there any more";
        return if waited < SETTLE { Choice::Wait(why.into()) } else { Choice::Refuse(why.into()) };
    };
    let Some(stick) = disks::sticks().into_iter().find(|stick| stick.device == device) else {
        return Choice::Refuse(format!(
            "{} cannot be written to: it is a disc in a drive, or a stick that is read-only. Start from a stick that is not, or \
             write a disk's serial, or auto, as host.state_disk",
            device.display()
        ));
    };
    if let Some(partition) = stick.beyond {
        return Choice::Refuse(format!(
            "{} is left alone: its partition {partition} reaches beyond its first GiB. Write the disc to the whole stick anew, or \
             take a disk for the state",
            device.display()
        ));
    }
    match Area::behind_disc(&device, stick.size) {
        Ok(area) => Choice::Take(area),
        Err(why) => Choice::Refuse(format!("{} is too small for the state: {why}", device.display())),
    }
}

/// It again, if nothing is there.
fn empty(area: Area) -> Result<Area, String> {
    let block = area.block()?;
    let found = File::open(&block.path).and_then(|mut file| {
        let size = file.seek(io::SeekFrom::End(0))?;
        blank::look(&file, size)
    });
    match found {
        Ok(Found::Blank) => Ok(area),
        Ok(Found::FileSystem { kind, label }) => Err(left_alone(&area, &format!("{kind} '{label}'"))),
        Ok(Found::Other(what)) => Err(left_alone(&area, what)),
        Err(error) => Err(format!("{} cannot be read: {error}", area.told())),
    }
}

fn left_alone(area: &Area, what: &str) -> String {
    let Some((from, _)) = area.part else { return format!("{} is left alone: it has {what}", area.told()) };
    format!(
        "{} is left alone: beyond its first GiB it has {what}. Make that empty on another host, and start again: \
         dd if=/dev/zero of=/dev/sdX bs=1M seek={}",
        area.told(),
        from >> 20
    )
}

fn format(area: Area, how: Encryption) -> Result<Area, String> {
    console::say(&format!("{} is empty, and becomes the state disk", area.told()));
    make_file_system(area, how, &|| Ok(()))
}

/// Makes one of a disk that somebody gave up with all that is on it, by its serial number.
pub fn make_of_used(serial: &str, how: Encryption) -> Result<Area, String> {
    let disks = disks::whole();
    let meant: Vec<&Whole> = disks.iter().filter(|disk| !serial.is_empty() && disk.serial == serial).collect();
    let [disk] = meant.as_slice() else { return Err(format!("there is not one disk with the serial '{serial}'")) };
    if disk.content.is_err() {
        return Err(disk.to_string());
    }
    let clear = || {
        console::say(&format!("{} (serial {serial}) loses what is on it, as was asked for", disk.device.display()));
        clear_ends(disk).map_err(|error| format!("cannot write to {}: {error}", disk.device.display()))
    };
    make_file_system(Area::whole(&disk.device), how, &clear)
}

/// Partition tables and their copies go, so that nothing finds the old content.
fn clear_ends(disk: &Whole) -> io::Result<()> {
    let file = File::options().write(true).open(&disk.device)?;
    let zeros = vec![0; ENDS];
    file.write_all_at(&zeros, 0)?;
    file.write_all_at(&zeros, disk.size.saturating_sub(ENDS as u64))?;
    file.sync_all()
}

/// What a person may choose from.
pub fn offered() -> Disks {
    let usable = disks::whole().into_iter().filter(|disk| disk.content.is_ok() && disk.size >= SMALLEST);
    let offer = |disk: Whole| {
        let blank = disk.is_blank();
        Disk { device: disk.device, serial: disk.serial, size: disk.size, blank }
    };
    let stick = match stick(SETTLE) {
        Choice::Take(area) => empty(area).ok(),
        _ => None,
    };
    let of_stick = |area: Area| {
        let size = area.part.map(|(_, length)| length).unwrap_or_default();
        Disk { device: area.device, serial: STICK.into(), size, blank: true }
    };
    Disks { state: None, tpm: tpm::is_there(), stick: stick.map(of_stick), disk: usable.map(offer).collect() }
}

/// An empty file system with the label of state, encrypted where that is asked for; `clear` comes before the first write, when
/// nothing that is asked for can be refused any more.
fn make_file_system(area: Area, how: Encryption, clear: vault::Clear<'_>) -> Result<Area, String> {
    let block = area.block()?;
    let inside = vault::create(&block.path, how, clear)?;
    let mut format = Command::new("/sbin/mke2fs");
    format.args(["-q", "-t", "ext4", "-L", state::LABEL]).arg(&inside).env("PATH", crate::PATH);
    let done = format.stdin(Stdio::null()).output().map_err(|error| format!("mke2fs does not run: {error}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("mke2fs made no file system on {}: {}", area.told(), said.trim()));
    }
    if how.is_none() {
        return Ok(area);
    }
    rustix::fs::sync();
    vault::label(&block.path)?;
    Ok(Area { is_locked: true, ..area })
}

/// What to do about the disk that is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Take(Area),
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
        [disk] => Choice::Take(Area::whole(&disk.device)),
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
    use std::path::Path;

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
            Choice::Take(area) => Ok(area.device.display().to_string()),
            Choice::Wait(why) => Err(format!("wait: {why}")),
            Choice::Refuse(why) => Err(why),
        }
    }

    #[test]
    fn only_an_empty_disk_is_taken() {
        let disks = [disk("sda", "DATA", false), disk("sdb", "EMPTY", true)];
        assert_eq!(chosen(&disks, "auto").unwrap(), "/dev/sdb");
        assert_eq!(chosen(&disks, "EMPTY").unwrap(), "/dev/sdb");
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
