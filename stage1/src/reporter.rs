//! The health reporter: the same binary again, in the booted system, telling the appliance that it is up.

use crate::entropy::Backoff;
use crate::http;
use crate::laydown::{self, LaydownError};
use crate::logs;
use crate::report::{self, To};
use crate::session::Proof;
use crate::verity::Device;
use bennu_plan::{LogsWanted, Step};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What stage 1 leaves for it, readable by root only.
pub const FILE: &str = "/run/bennu/boot.json";
/// Our own copy in the booted system.
pub const BINARY: &str = "/run/bennu/stage1";
const UNIT: &str = "bennu-report.service";
const WATCH_UNIT: &str = "bennu-watch.service";
/// How long it goes on trying. A system that is up and cannot say so for this long has another problem.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How long an init other than systemd gets to bring its services up.
const SETTLE: Duration = Duration::from_secs(10);

/// What the booted system knows of its boot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Base URL of the boot.
    pub base: String,
    /// The boot's id.
    pub boot: String,
    /// The image's name.
    pub image: String,
    /// The image's digest.
    pub digest: String,
    /// The root's digest.
    pub root: String,
    /// What checks the root's blocks, where something does.
    pub checked: Option<Device>,
    /// Proves the booted system's reports; `None`: the boot has no session.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// Where the booted system's log goes; `None`: nowhere.
    #[serde(default)]
    pub logs: Option<LogsWanted>,
}

impl BootFile {
    /// Where this boot's reports go.
    pub fn to(&self) -> To {
        To::new(&self.base, self.proof.clone())
    }
}

/// The unit for systemd. It runs when everything that the default target wants was started: systemd orders a target after what
/// it wants except where the unit itself says `After=` (systemd.target(5)).
fn unit(target: &str) -> String {
    format!(
        "[Unit]\nDescription=Tell Bennu that this machine is up\nAfter={target} network.target\nConditionPathExists={FILE}\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=infinity\nExecStart={BINARY} report\n"
    )
}

/// The watch's unit: from the first moments of systemd to its last.
fn watch_unit() -> String {
    format!(
        "[Unit]\nDescription=Watch over the root of this machine\nDefaultDependencies=no\nConflicts=shutdown.target\n\
         Before=shutdown.target\nConditionPathExists={FILE}\n\n[Service]\nExecStart={BINARY} watch\nRestart=on-failure\n"
    )
}

/// Lays the units down in what will be `/run`.
pub fn lay_down_units(run: &Path) -> Result<(), LaydownError> {
    for (unit, text, target) in
        [(UNIT, unit("multi-user.target"), "multi-user.target"), (WATCH_UNIT, watch_unit(), "sysinit.target")]
    {
        laydown::write(run, &format!("systemd/system/{unit}"), text, 0o644)?;
        laydown::enable(run, unit, target)?;
    }
    Ok(())
}

/// Starts the reporter for an init that knows no units. It survives the handover and waits for it.
pub fn start_watching() -> std::io::Result<()> {
    let own = std::fs::metadata("/proc/self/exe")?;
    std::process::Command::new(BINARY)
        .args(["report", "--after-init", &format!("{}:{}", own.dev(), own.ino())])
        .stdin(std::process::Stdio::null())
        .spawn()
        .map(drop)
}

/// `stage1 report [--after-init DEVICE:INODE]`.
pub fn run(arguments: &[String]) -> u8 {
    match arguments {
        [] => report_up(),
        [flag, ours] if flag == "--after-init" => {
            // An init that knows our units has the watch as one.
            let watch = std::thread::spawn(crate::watch::run);
            wait_for_init(ours);
            let logs = std::thread::spawn(|| read(Path::new(FILE)).map(|boot| logs::beside_another_init(&boot)));
            let status = report_up();
            drop(watch.join());
            drop(logs.join());
            status
        }
        _ => {
            eprintln!("usage: stage1 report [--after-init DEVICE:INODE]");
            2
        }
    }
}

fn report_up() -> u8 {
    match tell(Path::new(FILE)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bennu: {error}");
            1
        }
    }
}

/// Until PID 1 is no longer the program that stage 1 was.
fn wait_for_init(ours: &str) {
    let is_ours = || std::fs::metadata("/proc/1/exe").is_ok_and(|now| format!("{}:{}", now.dev(), now.ino()) == ours);
    while is_ours() {
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(SETTLE);
}

/// What stage 1 left.
pub fn read(file: &Path) -> Result<BootFile, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} makes no sense: {error}", file.display()))
}

fn tell(file: &Path) -> Result<(), String> {
    let boot = read(file)?;
    let to = boot.to();
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let host = system.nodename().to_string_lossy().into_owned();
    let started = Instant::now();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let up = report::report(Step::Up, format!("{host} runs {} with kernel {release}", boot.image), 0, None);
        match report::post(&to, &up, http::NORMAL) {
            Ok(()) => {
                println!("bennu: told the appliance that this machine is up ({})", boot.image);
                return Ok(());
            }
            Err(why) if started.elapsed() > PATIENCE => {
                return Err(format!("gave up telling the appliance that this machine is up: {why}"));
            }
            Err(why) => {
                let wait = backoff.step();
                eprintln!(
                    "bennu: the appliance was not told that this machine is up: {why}; again in {} s",
                    wait.as_secs().max(1)
                );
                std::thread::sleep(wait);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_found_by_systemd() {
        let run = tempfile::tempdir().unwrap();
        lay_down_units(run.path()).unwrap();
        let link = run.path().join("systemd/system/multi-user.target.wants/bennu-report.service");
        assert_eq!(std::fs::read_link(link).unwrap(), Path::new("/run/systemd/system/bennu-report.service"));
        assert!(run.path().join("systemd/system/sysinit.target.wants/bennu-watch.service").is_symlink());
        let text = std::fs::read_to_string(run.path().join("systemd/system/bennu-report.service")).unwrap();
        assert!(text.contains("\nAfter=multi-user.target") && text.contains("ExecStart=/run/bennu/stage1 report\n"));
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("boot.json");
        assert!(tell(&file).unwrap_err().contains("boot.json"));
        std::fs::write(&file, "{}").unwrap();
        assert!(tell(&file).unwrap_err().contains("base"));
    }
}
