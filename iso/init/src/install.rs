//! Taking up another disc: it comes through the door, is held by nobody else while it is verified, and then lies in the slot
//! that does not run.

use crate::logs::say;
use crate::{release, slots, state, unpack};
use bennu_host::door::{Answer, Disc};
use bennu_host::slots::{Release, Slot};
use serde::Deserialize;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

const PROGRAM: &str = "/usr/bin/bennu";
/// The key whose signatures count, on the disc that runs.
const KEY: &str = "/etc/bennu/release.pub";
/// A disc has some 100 MB; nothing that is larger is one of ours.
const LARGEST: u64 = 1 << 30;
/// Where a disc is before it is in its slot, beside the slots, and its signature.
const NEW: &str = "new";
const SIGNATURE: &str = "new.sig";
/// There, what is taken out of a disc before it is in its slot.
const PARTS: &str = "new.parts";
/// Left for the ledger and its logs.
const SPARE: u64 = 64 << 20;

static ONE: Mutex<()> = Mutex::new(());

/// Why a disc is not taken up.
type Refusal = Answer;

/// An installation that may begin: its disc is to be sent.
pub struct Install<'a> {
    disc: &'a Disc,
    slot: Slot,
    _alone: MutexGuard<'static, ()>,
}

/// What `bennu appliance verify --json` says of a disc that is signed.
#[derive(Deserialize)]
struct Verified {
    #[serde(flatten)]
    release: Release,
    key: String,
}

impl<'a> Install<'a> {
    /// Looks whether there is room, a key, and a slot.
    pub fn begin(disc: &'a Disc) -> Result<Self, Refusal> {
        let alone = ONE
            .try_lock()
            .map_err(|_| Answer::refused("another disc is being installed", "try again when that is done"))?;
        let Some(area) = state::area() else {
            return Err(Answer::refused(
                "there is no state disk that a disc could be installed on",
                "give this machine one, or write the new version on its medium",
            ));
        };
        if let Some((what, advice)) = area.no_slots() {
            return Err(Answer::refused(what, advice));
        }
        if !has_key() {
            return Err(Answer::refused(
                "the disc that runs trusts no key, and so no other disc",
                "write the new version on its medium once, made with its key: ISO_KEY=release.pub make iso",
            ));
        }
        if disc.size == 0 || disc.size > LARGEST {
            let detail = format!("{} bytes are no disc: it has at most {LARGEST}", disc.size);
            return Err(Answer::refused(detail, "send the .iso file itself"));
        }
        remove_leftovers();
        let room = room().map_err(|error| fault("look for room on the state disk", &error))?;
        // The disc, and beside it for a while what is taken out of it.
        let needed = 2 * disc.size + SPARE;
        if room < needed {
            let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
            return Err(Answer::refused(
                format!("the state disk has {} MB free, and this needs {}", megabytes(room), megabytes(needed)),
                "make room: bennu image gc",
            ));
        }
        let known = slots::read().map_err(|why| Answer::refused(why, LOOK))?;
        Ok(Self { disc, slot: known.free(slots::running()), _alone: alone })
    }

    /// Takes it, verifies it and puts it in its slot. Whatever fails changes nothing.
    pub fn run(self, from: &mut impl Read) -> Answer {
        let (new, signature) = (slots::place().join(NEW), slots::place().join(SIGNATURE));
        let answer = self.take(from, &new, &signature).unwrap_or_else(|refusal| refusal);
        remove_leftovers();
        match &answer {
            Answer::Installed { slot, release } => {
                say(&format!("{} is in {slot}, and is tried at the next start", release.version));
            }
            Answer::Refused { what, .. } => say(&format!("a disc was not installed: {what}")),
            _ => {}
        }
        answer
    }

    fn take(&self, from: &mut impl Read, new: &Path, signature: &Path) -> Result<Answer, Refusal> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(slots::place());
        made.map_err(|error| fault("make the directory of the slots", &error))?;
        let mut file = create(new).map_err(|error| fault("write the disc", &error))?;
        let taken =
            io::copy(&mut from.take(self.disc.size), &mut file).and_then(|taken| file.sync_all().map(|()| taken));
        let taken = taken.map_err(|error| fault("write the disc", &error))?;
        drop(file);
        if taken != self.disc.size {
            let detail = format!("the disc was cut short: {taken} of {} bytes came", self.disc.size);
            return Err(Answer::refused(detail, "send it again"));
        }
        std::fs::write(signature, &self.disc.signature).map_err(|error| fault("write the signature", &error))?;
        let Verified { release, key } = verify(new, signature)?;
        say(&format!("a disc of version {} is signed with the key {key}", release.version));
        let running = release::of_this_disc();
        if release.built < running.built && !self.disc.allow_older {
            return Err(Answer::refused(
                format!("{} was built before {}, which runs", release.version, running.version),
                "allow it where that is meant (--allow-older)",
            ));
        }
        let parts = slots::place().join(PARTS);
        unpack::unpack(new, &parts).map_err(|why| Answer::refused(why, LOOK))?;
        self.place(&parts, release, &running)
    }

    /// At every moment what the block says of a slot is true of it.
    fn place(&self, parts: &Path, release: Release, running: &Release) -> Result<Answer, Refusal> {
        let slot = self.slot;
        let refused = |why: String| Answer::refused(why, LOOK);
        slots::change(|slots| slots.cleared(slot)).map_err(refused)?;
        let replaced = match std::fs::remove_dir_all(directory_of(slot)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::fs::rename(parts, directory_of(slot)),
        };
        replaced.map_err(|error| fault("put the disc in its slot", &error))?;
        // GRUB reads the disk and not its journal.
        rustix::fs::sync();
        slots::change(|slots| slots.installed(slot, release.clone(), running)).map_err(refused)?;
        Ok(Answer::Installed { slot, release })
    }
}

/// Whether the disc that runs has a key.
pub fn has_key() -> bool {
    Path::new(KEY).exists()
}

const LOOK: &str = "look at the state disk";

fn fault(what: &str, error: &io::Error) -> Answer {
    Answer::refused(format!("cannot {what}: {error}"), LOOK)
}

fn directory_of(slot: Slot) -> PathBuf {
    slots::place().join(slot.name())
}

/// Removes what an installation had on its way, also one that the power was cut in.
fn remove_leftovers() {
    for name in [NEW, SIGNATURE] {
        let _ = std::fs::remove_file(slots::place().join(name));
    }
    let _ = std::fs::remove_dir_all(slots::place().join(PARTS));
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn room() -> io::Result<u64> {
    let found = rustix::fs::statvfs(state::PLACE)?;
    Ok(found.f_bavail * found.f_frsize)
}

/// Asks the program of the disc that runs. Whoever buries the dead may be faster than we are, so what it prints counts, and not
/// its status.
fn verify(disc: &Path, signature: &Path) -> Result<Verified, Refusal> {
    let mut command = Command::new(PROGRAM);
    command.args(["appliance", "verify"]).arg(disc).arg("--signature").arg(signature).args(["--key", KEY, "--json"]);
    command.env_clear().env("PATH", crate::PATH).env("HOME", "/").stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| fault("verify the disc", &error))?;
    let (mut said, mut why) = (String::new(), String::new());
    for (output, text) in [
        (child.stdout.take().map(|output| Box::new(output) as Box<dyn Read>), &mut said),
        (child.stderr.take().map(|output| Box::new(output) as Box<dyn Read>), &mut why),
    ] {
        let read = output.map_or(Ok(0), |mut output| output.read_to_string(text));
        read.map_err(|error| fault("verify the disc", &error))?;
    }
    let _ = child.wait();
    serde_json::from_str(&said).map_err(|_| refusal(&why))
}

/// An error of our own program: `error: what happened`, and on the next line what to do.
fn refusal(said: &str) -> Answer {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines.next().unwrap_or("the program that verifies discs says nothing");
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let advice: Vec<&str> = lines.map(|line| line.strip_prefix("help: ").unwrap_or(line)).collect();
    Answer::refused(what, advice.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_disc_is_not_verified_is_told_in_its_words() {
        let Answer::Refused { what, advice } = refusal("error: it is not signed by 'release'\n  help: sign it\n")
        else {
            panic!()
        };
        assert_eq!((what.as_str(), advice.as_str()), ("it is not signed by 'release'", "sign it"));
    }
}
