//! Making the appliance as it was when it came (`bennu_host::reset`): asked for over the API, at the console, or by the kernel's
//! arguments for people who have lost every token.

use crate::ask::Ears;
use crate::{configuration, state};
use bennu_host::reset::{CONFIGURATION, Fate, MARKER, Reset, is_named};
use bennu_stage1::console;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Asks on the console whether all is to go.
const ARGUMENT: &str = "bennu.reset=yes";
/// Whoever wrote that argument stands there.
const PATIENCE: Duration = Duration::from_secs(300);

/// Notes durably what is to go; the restart that follows has it go, or the next start.
pub fn begin(reset: Reset) -> Result<(), String> {
    mark(Path::new(state::PLACE), reset)
        .map_err(|error| format!("a reset cannot be noted on the state disk: {error}"))?;
    console::say("a reset was asked for: everything goes but the discs in the slots");
    Ok(())
}

/// Has all go that was noted to, if anything was. Nothing else may use the state disk.
pub fn finish() {
    let place = Path::new(state::PLACE);
    match carry_out(place, &mut || Ok(())) {
        Ok(None) => {}
        Ok(Some(Reset { keep_configuration: true })) => {
            console::say("reset: everything is gone but the configuration and the discs in the slots");
        }
        Ok(Some(_)) => console::say("reset: everything is gone but the discs in the slots"),
        Err(error) => console::say(&format!(
            "the reset did not come to its end: {error}. It goes on at the next start; where it never does, make the state disk \
             empty on another host"
        )),
    }
}

/// Asks whoever started the machine with the argument.
pub fn offer(line: &str) {
    if !line.split_whitespace().any(|word| word == ARGUMENT) {
        return;
    }
    let text = fs::read_to_string(Path::new(state::PLACE).join(CONFIGURATION)).unwrap_or_default();
    let (host, serial) = (configuration::host_name(&text).unwrap_or_default(), state::serial());
    let names = [host.as_str(), serial.as_str()];
    let shown: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    console::say(&format!(
        "{ARGUMENT}: type {} and Enter to have EVERYTHING go that this appliance keeps, but the discs in its slots. Enter alone, or \
         {} minutes, and it starts as ever",
        if shown.is_empty() {
            "the serial number of its state disk, which says none: this cannot be done here".into()
        } else {
            shown.join(" or ")
        },
        PATIENCE.as_secs() / 60
    ));
    let typed = Ears::open().line(PATIENCE).unwrap_or_default();
    if !is_named(&typed, &names) {
        return console::say("that is not its name: nothing is changed");
    }
    match begin(Reset::default()) {
        Ok(()) => finish(),
        Err(why) => console::say(&why),
    }
}

/// Whole or not at all, and on the disk.
fn mark(place: &Path, reset: Reset) -> io::Result<()> {
    let (marker, new) = (place.join(MARKER), place.join(format!("{MARKER}.new")));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(&reset)?)?;
    file.sync_all()?;
    fs::rename(&new, &marker)?;
    File::open(place)?.sync_all()
}

/// Does what the marker says, and removes it; `before` comes before each step.
fn carry_out(place: &Path, before: &mut dyn FnMut() -> io::Result<()>) -> io::Result<Option<Reset>> {
    let marker = place.join(MARKER);
    let reset: Reset = match fs::read(&marker) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    sort(place, &|name| reset.fate(name), before)?;
    before()?;
    // Gone for good, before anything says that it is.
    rustix::fs::syncfs(File::open(place)?)?;
    before()?;
    fs::remove_file(&marker)?;
    before()?;
    File::open(place)?.sync_all()?;
    Ok(Some(reset))
}

fn sort(place: &Path, fate: &dyn Fn(&str) -> Fate, before: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut entries = fs::read_dir(place)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // A link is removed and never followed: the service may have put it there.
        let (path, is_directory) = (entry.path(), entry.file_type()?.is_dir());
        match fate(&entry.file_name().to_string_lossy()) {
            Fate::Stays => {}
            Fate::Emptied if is_directory => sort(&path, &|_| Fate::Goes, before)?,
            Fate::Sorted if is_directory => sort(&path, &Reset::fate_in_slots, before)?,
            _ if is_directory => {
                before()?;
                fs::remove_dir_all(&path)?;
            }
            _ => {
                before()?;
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    const FILES: [&str; 14] = [
        "bennu.toml",
        "bennu/ledger.redb",
        "bennu/secrets.key",
        "bennu/tls/key.pem",
        "bennu/images/blobs/sha256/aa",
        "bennu/images/index.json",
        "bennu/backups/ledger-1.tar",
        "bennu/logs/boot.log",
        "log/appliance.log",
        "log/appliance.log.1",
        "slots/a/boot/initrd.img",
        "slots/b/boot/initrd.img",
        "slots/grubenv",
        "slots/new.sig",
    ];

    fn filled() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for file in FILES {
            let path = place.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        std::os::unix::fs::symlink("/etc", place.path().join("bennu/link")).unwrap();
        fs::create_dir(place.path().join("lost+found")).unwrap();
        place
    }

    fn files(place: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![place.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => waiting.push(entry.path()),
                    false => {
                        let name = entry.path().strip_prefix(place).unwrap().to_owned();
                        found.insert(name, fs::read_to_string(entry.path()).unwrap_or_default());
                    }
                }
            }
        }
        found
    }

    fn left(place: &Path) -> Vec<String> {
        files(place).into_keys().map(|path| path.display().to_string()).collect()
    }

    fn cut_after(steps: usize) -> impl FnMut() -> io::Result<()> {
        let mut done = 0;
        move || {
            done += 1;
            if done > steps { Err(io::Error::other("the power is cut")) } else { Ok(()) }
        }
    }

    #[test]
    fn without_a_marker_nothing_goes() {
        let place = filled();
        let before = files(place.path());
        fs::write(place.path().join(format!("{MARKER}.new")), "{\"keep").unwrap();
        assert_eq!(carry_out(place.path(), &mut || Ok(())).unwrap(), None);
        fs::remove_file(place.path().join(format!("{MARKER}.new"))).unwrap();
        assert_eq!(files(place.path()), before);
        fs::write(place.path().join(MARKER), "what is this").unwrap();
        assert!(carry_out(place.path(), &mut || Ok(())).is_err(), "nor by one that nobody understands");
        assert_eq!(files(place.path()).len(), before.len() + 1);
    }

    #[test]
    fn a_reset_that_is_cut_anywhere_ends_at_the_next_start() {
        for keep_configuration in [false, true] {
            let mut stays = vec!["slots/a/boot/initrd.img", "slots/b/boot/initrd.img", "slots/grubenv"];
            if keep_configuration {
                stays.insert(0, "bennu.toml");
            }
            let mut steps = 0;
            loop {
                let place = filled();
                mark(place.path(), Reset { keep_configuration }).unwrap();
                let whole = carry_out(place.path(), &mut cut_after(steps)).is_ok();
                let is_marked = place.path().join(MARKER).exists();
                let is_all_gone = left(place.path()) == stays;
                assert!(is_marked || is_all_gone, "after {steps} steps: {:?}", left(place.path()));
                for kept in &stays {
                    assert_eq!(fs::read_to_string(place.path().join(kept)).unwrap(), *kept, "after {steps} steps");
                }
                // Cut once more on the way.
                let _ = carry_out(place.path(), &mut cut_after(1));
                assert!(carry_out(place.path(), &mut || Ok(())).is_ok());
                assert_eq!(left(place.path()), stays, "after {steps} steps");
                assert!(place.path().join("bennu").is_dir(), "it is mounted elsewhere too");
                assert!(Path::new("/etc/passwd").exists());
                if whole {
                    break;
                }
                steps += 1;
            }
            assert!(steps > 8, "{steps}");
        }
    }

    #[test]
    fn a_tree_that_went_in_part_goes_whole() {
        let place = filled();
        mark(place.path(), Reset::default()).unwrap();
        fs::remove_file(place.path().join("bennu/images/index.json")).unwrap();
        fs::remove_dir_all(place.path().join("log")).unwrap();
        carry_out(place.path(), &mut || Ok(())).unwrap();
        assert_eq!(left(place.path()), ["slots/a/boot/initrd.img", "slots/b/boot/initrd.img", "slots/grubenv"]);
        assert_eq!(carry_out(place.path(), &mut || Ok(())).unwrap(), None, "once");
    }
}
