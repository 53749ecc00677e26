//! The images that the disc brings along, imported where the service has none of their names. The medium may be gone by now, as
//! virtual media are, or of another version: then nothing is imported.

use crate::logs::say;
use crate::medium::{Medium, PLACE};
use crate::state;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

const PROGRAM: &str = "/usr/bin/bennu";
/// Where the medium has them: an OCI layout.
const LAYOUT: &str = "images";
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
    if missing.is_empty() {
        return;
    }
    let Some(medium) = Medium::find().filter(|_| Path::new(PLACE).join(LAYOUT).join("index.json").exists()) else {
        return;
    };
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
    drop(medium);
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
