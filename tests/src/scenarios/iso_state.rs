//! Where the appliance's disc keeps its state: encrypted, or on the stick that it was started from.

use anyhow::{Context, Result, ensure};
use std::{fs::File, io::Read, path::Path};

use crate::{
    disc::{self, Host},
    harness::{Life, Story},
    machine::{Firmware, Medium},
};

const STATE_BYTES: u64 = 2 << 30;
/// How long a machine may take to its first question.
const QUESTION_SECONDS: u64 = 240;
const PASSPHRASE: &str = "correct horse battery staple";
/// A machine that is on record and never switched on, with a label that is nowhere else.
const MAC: &str = "52:54:00:00:00:77";
const CANARY: &str = "quetzalcoatlus-northropi";
/// Beside it in the configuration, which is kept with the state.
const HOST_NAME: &str = "pterodactyl-seven";

/// A passphrase opens the state at each start, and without it nothing is served and nothing can be read.
pub const ENCRYPTED: Life = Life {
    name: "iso encrypted",
    shows: &["iso_passphrase_chosen", "iso_passphrase_asked_for", "iso_state_is_unreadable"],
    live: encrypted,
};

fn encrypted(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    let spec = rack.machine(Firmware::Bios).scratch(STATE_BYTES);
    let more = format!("hostname = \"{HOST_NAME}\"\nstate_disk = \"auto\"\nstate_encryption = \"passphrase\"");
    let mut host = Host::start_with(&rack, spec, Medium::Cd, &more)?;
    story.show("iso_passphrase_chosen", || {
        let console = host.machine.console()?;
        console.wait_for("Type a new passphrase", QUESTION_SECONDS)?;
        for (first, again, why) in [("short", "short", "too short"), (PASSPHRASE, "correct hose", "not the same")] {
            console.send(&format!("{first}\r"))?;
            console.wait_for("once more", 30)?;
            console.send(&format!("{again}\r"))?;
            console.wait_for(why, 30)?;
            console.wait_for("Type a new passphrase", 30)?;
        }
        console.send(&format!("{PASSPHRASE}\r"))?;
        console.wait_for("once more", 30)?;
        console.send(&format!("{PASSPHRASE}\r"))?;
        let remark = host.ready()?;
        host.introduce()?;
        host.bennu(["machine", "assign", MAC, "local"])?;
        host.bennu(["machine", "label", MAC, &format!("canary={CANARY}")])?;
        ensure!(!console.text().contains("horse"), "the console shows the passphrase");
        Ok(remark)
    })?;
    story.show("iso_passphrase_asked_for", || {
        host.machine.power_cycle()?;
        let console = host.machine.console()?;
        console.wait_for("Type its passphrase", QUESTION_SECONDS)?;
        for wrong in ["incorrect horse", "correct horse battery stapl"] {
            console.send(&format!("{wrong}\r"))?;
            console.wait_for("that is not the passphrase", 240)?;
        }
        ensure!(!console.has_shown("ready to answer DHCP"), "it serves without its state");
        console.send(&format!("{PASSPHRASE}\r"))?;
        let remark = host.ready()?;
        ensure!(!console.text().contains("horse"), "the console shows the passphrase");
        kept(&host)?;
        Ok(remark)
    })?;
    story.show("iso_state_is_unreadable", || {
        host.machine.power_off()?;
        let disk = host.machine.scratch_file();
        ensure!(holds(&disk, "BENNU-CRYPT")?, "the disk does not say that it is encrypted state");
        for secret in [CANARY, HOST_NAME, PASSPHRASE, "BENNU-STATE", MAC] {
            ensure!(!holds(&disk, secret)?, "'{secret}' is on the disk in clear");
        }
        Ok(String::new())
    })
}

/// The machine's TPM opens the state by itself; with another one the recovery key does.
pub const TPM: Life =
    Life { name: "iso tpm", shows: &["iso_tpm_opens", "iso_recovery_key_opens", "iso_no_tpm_refused"], live: tpm };

const WITH_TPM: &str = "state_disk = \"auto\"\nstate_encryption = \"tpm\"";

fn tpm(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    let spec = rack.machine(Firmware::UefiPxe).scratch(STATE_BYTES).tpm();
    let mut host = Host::start_with(&rack, spec, Medium::Cd, WITH_TPM)?;
    let mut recovery = String::new();
    story.show("iso_tpm_opens", || {
        let console = host.machine.console()?;
        let before = "shown now and never again: ";
        console.wait_for(before, QUESTION_SECONDS)?;
        console.wait_for("type its last group", 30)?;
        let text = console.text();
        let (_, rest) = text.split_once(before).context("there is no recovery key")?;
        rest.split_whitespace().next().unwrap_or_default().clone_into(&mut recovery);
        ensure!(recovery.len() == 39, "'{recovery}' is no recovery key");
        let (_, last) = recovery.rsplit_once('-').context("it has no groups")?;
        console.send("\r")?;
        console.wait_for("type its last group", 30)?;
        console.send(&format!("{last}\r"))?;
        host.ready()?;
        host.introduce()?;
        host.bennu(["machine", "assign", MAC, "local"])?;
        host.bennu(["machine", "label", MAC, &format!("canary={CANARY}")])?;
        host.machine.power_cycle()?;
        let remark = host.ready()?;
        let console = host.machine.console()?;
        ensure!(console.has_shown("the TPM gave the key"), "the TPM did not open it");
        ensure!(!console.text().contains(&recovery), "the recovery key is shown again");
        kept(&host)?;
        Ok(remark)
    })?;
    story.show("iso_recovery_key_opens", || {
        host.machine.power_off()?;
        host.machine.replace_tpm()?;
        host.machine.power_on()?;
        let console = host.machine.console()?;
        console.wait_for("another TPM", QUESTION_SECONDS)?;
        console.wait_for("Type its recovery key", 30)?;
        console.send("0000-0000\r")?;
        console.wait_for("that is not the recovery key", 240)?;
        console.send(&format!("{}\r", recovery.replace('-', " ").to_uppercase()))?;
        console.wait_for("type seal and Enter", 240)?;
        console.send("seal\r")?;
        console.wait_for("opens the state disk from the next start on", 240)?;
        host.ready()?;
        kept(&host)?;
        host.machine.power_cycle()?;
        host.ready()?;
        ensure!(host.machine.console()?.has_shown("the TPM gave the key"), "the new TPM did not open it");
        host.machine.power_off()?;
        let disk = host.machine.scratch_file();
        ensure!(holds(&disk, "bennu-tpm2")?, "the disk does not say what the TPM sealed");
        for secret in [CANARY, &recovery, "BENNU-STATE"] {
            ensure!(!holds(&disk, secret)?, "'{secret}' is on the disk in clear");
        }
        Ok(String::new())
    })?;
    story.show("iso_no_tpm_refused", || {
        let other = crate::rack::Rack::new()?;
        let spec = other.machine(Firmware::Bios).scratch(STATE_BYTES);
        let host = Host::start_with(&other, spec, Medium::Cd, WITH_TPM)?;
        let console = host.machine.console()?;
        console.wait_for("this machine has no TPM 2.0", QUESTION_SECONDS)?;
        console.wait_for("NO STATE DISK", 30)?;
        ensure!(!holds(&host.machine.scratch_file(), "LUKS")?, "the disk was written to");
        Ok(String::new())
    })
}

/// A stick holds the state behind the disc, its configuration too: after a power cut, and after another disc was written to it.
pub const STICK: Life = Life {
    name: "iso stick",
    shows: &["iso_state_on_stick", "iso_stick_written_anew", "iso_stick_refused"],
    live: stick,
};

const ON_STICK: &str = "state_disk = \"stick\"";
/// The set-up's where the stick is proposed for the state.
const QUESTIONS: u32 = 11;

fn stick(story: &mut Story) -> Result<()> {
    let rack = story.rack()?;
    let mut host = Host::unanswered(&rack, rack.machine(Firmware::UefiPxe), Medium::Stick)?;
    story.show("iso_state_on_stick", || {
        host.accept(QUESTIONS)?;
        host.ready()?;
        host.introduce()?;
        host.bennu(["machine", "assign", MAC, "local"])?;
        host.bennu(["machine", "label", MAC, &format!("canary={CANARY}")])?;
        let shown = host.bennu(["appliance", "show"])?;
        ensure!(shown.contains("behind the disc"), "{shown}");
        host.machine.power_cycle()?;
        let remark = host.ready()?;
        ensure!(!host.machine.console()?.has_shown("becomes the state disk"), "the state was made anew");
        kept(&host)?;
        Ok(remark)
    })?;
    story.show("iso_stick_written_anew", || {
        host.machine.power_off()?;
        host.machine.write_stick(&disc::disc()?)?;
        host.machine.power_on()?;
        host.ready()?;
        kept(&host)?;
        Ok(String::new())
    })?;
    story.show("iso_stick_refused", || {
        host.machine.power_off()?;
        let other = crate::rack::Rack::new()?;
        let host = Host::start_with(&other, other.machine(Firmware::Bios), Medium::Cd, ON_STICK)?;
        let console = host.machine.console()?;
        console.wait_for("cannot be written to", QUESTION_SECONDS)?;
        console.wait_for("NO STATE DISK", 30)?;
        Ok(String::new())
    })
}

fn kept(host: &Host) -> Result<()> {
    let machine = host.bennu(["machine", "show", MAC, "--json"])?;
    ensure!(machine.contains(CANARY), "the label is gone: {machine}");
    Ok(())
}

/// Whether a text is anywhere on a disk.
fn holds(disk: &Path, text: &str) -> Result<bool> {
    let (mut file, mut piece, mut kept) = (File::open(disk)?, vec![0; 1 << 20], 0);
    loop {
        let read = file.read(&mut piece[kept..])?;
        if read == 0 {
            return Ok(false);
        }
        let whole = kept + read;
        if memchr::memmem::find(&piece[..whole], text.as_bytes()).is_some() {
            return Ok(true);
        }
        kept = (text.len() - 1).min(whole);
        piece.copy_within(whole - kept..whole, 0);
    }
}
