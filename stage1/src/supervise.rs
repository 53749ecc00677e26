//! A container image's own program, where its root has no init: stage 1 stays PID 1, keeps the address, starts the program and
//! starts it again when it ends, and buries the dead.

use crate::console;
use crate::entropy::Backoff;
use crate::net::netlink;
use crate::report::Reports;
use crate::reporter;
use crate::user::{self, Account};
use bennu_plan::{Entry, Step};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the program is told to the process that becomes it.
const FILE: &str = "/run/bennu/entry.json";
/// How that process is called.
pub const VERB: &str = "run-entry";
/// A program that runs for so long is up.
const SETTLE: Duration = Duration::from_secs(5);
/// What container runtimes set where the image does not (OCI runtime practice).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The loopback interface is always the first.
const LOOPBACK: u32 = 1;

/// Runs the program for as long as the machine does. The new root is entered already.
pub fn run(entry: &Entry, image: &str, reports: &Reports) -> ! {
    furnish();
    if let Err(error) = leave_word(entry) {
        console::say(&format!("the image's program cannot be told: {error}"));
    }
    drop(std::thread::Builder::new().name("watch".into()).spawn(crate::watch::run));
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let shown = entry.args.join(" ");
    loop {
        let started = Instant::now();
        let ended = match start() {
            Ok(child) => {
                tell_when_settled(image, &shown, child, reports);
                bury_until(child)
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        let ran = started.elapsed();
        let text = format!("the image's program ({shown}) {ended}, after {} s", ran.as_secs());
        reports.step(Step::Failed, text.clone());
        if ran > Duration::from_secs(60) {
            backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        }
        let pause = backoff.step();
        console::say(&format!("{text}; it is started again in {} s", pause.as_secs().max(1)));
        std::thread::sleep(pause);
    }
}

/// What container runtimes mount and programs count on; what cannot be mounted is left out, because few need it.
fn furnish() {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (what, place, kind, flags, options) in [
        ("devpts", "/dev/pts", "devpts", quiet, "mode=0620,gid=5,ptmxmode=0666"),
        ("shm", "/dev/shm", "tmpfs", quiet | MountFlags::NODEV, "mode=1777"),
        ("mqueue", "/dev/mqueue", "mqueue", quiet | MountFlags::NODEV, ""),
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet | MountFlags::NODEV, ""),
    ] {
        let _ = std::fs::create_dir_all(place);
        let _ = mount(what, place, kind, flags, Some(text(options).as_c_str()));
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let _ = std::os::unix::fs::symlink(target, Path::new("/dev").join(link));
    }
    if let Err(error) = netlink::set_up(LOOPBACK, true) {
        console::say(&format!("the loopback interface does not come up: {error}"));
    }
}

fn leave_word(entry: &Entry) -> std::io::Result<()> {
    std::fs::write(FILE, serde_json::to_vec(entry)?)
}

fn start() -> std::io::Result<Pid> {
    let child = Command::new(reporter::BINARY).arg(VERB).stdin(Stdio::null()).process_group(0).spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| std::io::Error::other("it has no number"))
}

/// Buries whatever ends until the program does, and says how it did.
fn bury_until(child: Pid) -> String {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => return told(status),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return format!("was lost: {error}"),
        }
    }
}

fn told(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Tells the appliance that the machine is up once its program has run for a while.
fn tell_when_settled(image: &str, shown: &str, child: Pid, reports: &Reports) {
    let (text, reports) = (format!("runs {image}: {shown}"), reports.clone());
    let tell = move || {
        std::thread::sleep(SETTLE);
        // The number is not given anew while PID 1 has not buried its owner, and a minute's worth of others lie between.
        let place = format!("/proc/{}", child.as_raw_nonzero());
        if Path::new(&place).exists() {
            reports.step(Step::Up, text);
        }
    };
    drop(std::thread::Builder::new().name("settle".into()).spawn(tell));
}

/// `stage1 run-entry`: becomes the program. Returns only when it cannot.
pub fn become_program() -> u8 {
    let error = match try_to_become() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("bennu: {error}");
    console::open();
    console::say(&error);
    127
}

enum Never {}

fn try_to_become() -> Result<Never, String> {
    let text = std::fs::read(FILE).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let entry: Entry = serde_json::from_slice(&text).map_err(|error| format!("{FILE} makes no sense: {error}"))?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let account = user::find(&entry.user, &read("/etc/passwd"), &read("/etc/group"))?;
    let (program, arguments) = entry.args.split_first().ok_or("the image names no program")?;
    let directory = if entry.workdir.is_empty() { "/" } else { &entry.workdir };
    std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {directory}: {error}"))?;
    std::env::set_current_dir(directory).map_err(|error| format!("cannot enter {directory}: {error}"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment(&entry, &account));
    // The search for the program goes by the image's PATH, which is the new process's, and not by ours.
    user::become_account(&account).map_err(|error| format!("cannot become the user '{}': {error}", entry.user))?;
    let error = command.exec();
    Err(format!("cannot run {program} of the image (not there, or for another architecture?): {error}"))
}

fn environment(entry: &Entry, account: &Account) -> Vec<(String, String)> {
    let mut named: Vec<(String, String)> =
        entry.env.iter().filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    for (name, value) in [("PATH", PATH), ("HOME", account.home.as_str()), ("TERM", "linux")] {
        if named.iter().all(|(there, _)| there != name) {
            named.push((name.to_owned(), value.to_owned()));
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_environment_wins() {
        let entry = Entry {
            args: vec!["x".into()],
            env: vec!["PATH=/opt/bin".into(), "A=b=c".into(), "nothing".into()],
            user: String::new(),
            workdir: String::new(),
        };
        let account = Account { home: "/root".into(), ..Account::default() };
        let expected = [("PATH", "/opt/bin"), ("A", "b=c"), ("HOME", "/root"), ("TERM", "linux")];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(environment(&entry, &account), expected);
    }
}
