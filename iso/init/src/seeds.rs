//! The images that the disc brings along, imported where the service has none of their names. The medium may be gone by now, as
//! virtual media are, or of another version: then nothing is imported.

use crate::disks::{self, Content};
use crate::logs::say;
use crate::state;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

const PROGRAM: &str = "/usr/bin/bennu";
/// Where the medium is while its images are read.
const PLACE: &str = "/run/disc";
/// Where it has them: an OCI layout.
const LAYOUT: &str = "images";
/// What says on the medium whose it is.
const INFO: &str = ".disk/info";
const OS_RELEASE: &str = "/etc/os-release";
/// What an unassigned machine boots comes first, and is all that a state in memory gets.
const IMAGES: [&str; 3] = ["discovery:latest", "memtest86:latest", "rescue:latest"];
/// `statfs(2)`.
const TMPFS: i64 = 0x0102_1994;

static WORK: Mutex<()> = Mutex::new(());

/// Imports them beside the service's own work.
pub fn begin() {
    let work = || {
        // A service that was started again says again that it is ready.
        if let Ok(_alone) = WORK.try_lock() {
            import();
        }
    };
    drop(std::thread::Builder::new().name("seeds".into()).stack_size(128 * 1024).spawn(work));
}

fn import() {
    let is_in_memory = rustix::fs::statfs(state::PLACE).is_ok_and(|found| found.f_type == TMPFS);
    let wanted = if is_in_memory { &IMAGES[..1] } else { &IMAGES[..] };
    // A name that is there is somebody's choice, whatever it points at.
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|name| run(&["image", "show", name, "--json"]).is_err()).collect();
    if missing.is_empty() || !attach() {
        return;
    }
    for name in missing {
        let began = Instant::now();
        let source = format!("oci:{PLACE}/{LAYOUT}:{name}");
        match run(&["image", "import", &source, name, "--json"]) {
            Ok(_) => say(&format!("image {name}: imported from the disc in {:.0} s", began.elapsed().as_secs_f64())),
            Err(why) => {
                say(&format!("image {name}: not imported from the disc: {why}. Import it by hand, or start again"))
            }
        }
    }
    if let Err(error) = unmount(PLACE, UnmountFlags::DETACH) {
        say(&format!("cannot let go of the disc: {error}"));
    }
}

/// Mounts the medium of this very version, where it is still there.
fn attach() -> bool {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let release = std::fs::read_to_string(OS_RELEASE).unwrap_or_default();
    if std::fs::create_dir_all(PLACE).is_err() {
        return false;
    }
    for disc in disks::all().into_iter().filter(|disk| disk.content == Content::Iso) {
        if mount(&disc.device, PLACE, "iso9660", flags, None).is_err() {
            continue;
        }
        let info = std::fs::read_to_string(Path::new(PLACE).join(INFO)).unwrap_or_default();
        if is_of(&info, &release) && Path::new(PLACE).join(LAYOUT).join("index.json").exists() {
            return true;
        }
        let _ = unmount(PLACE, UnmountFlags::DETACH);
    }
    false
}

/// Whether a medium is that of the running version: both are `Bennu VERSION`.
fn is_of(info: &str, os_release: &str) -> bool {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let name = name.trim_matches('"');
    !name.is_empty() && info.trim().strip_suffix("x86_64").is_some_and(|start| start.trim_end() == name)
}

/// What a command of ours printed, else what it complained of. Who buries the dead may be faster than we are, so its status is
/// not asked for: without an answer there is no output.
fn run(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("PATH", crate::PATH).env("HOME", "/");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = piped.map_err(|error| format!("{PROGRAM} does not start: {error}"))?;
    let (mut said, mut why) = (String::new(), String::new());
    // It complains in a few lines, which a pipe holds.
    let outputs = (child.stdout.take(), child.stderr.take());
    if let (Some(mut stdout), Some(mut stderr)) = outputs {
        let _ = stdout.read_to_string(&mut said).and_then(|_| stderr.read_to_string(&mut why));
    }
    let _ = child.wait();
    if said.trim().is_empty() { Err(why.split_whitespace().collect::<Vec<_>>().join(" ")) } else { Ok(said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_medium_of_this_version_is_taken() {
        let release = "ID=bennu\nNAME=Bennu\nPRETTY_NAME=\"Bennu 0.1.0\"\n";
        assert!(is_of("Bennu 0.1.0 x86_64\n", release));
        for other in ["Bennu 0.2.0 x86_64\n", "Bennu 0.1.0\n", "Debian 12 x86_64", ""] {
            assert!(!is_of(other, release), "{other}");
        }
        assert!(!is_of(" x86_64", "ID=bennu\n"));
    }
}
