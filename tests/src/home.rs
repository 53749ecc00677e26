//! What a rack leaves on the machine it runs on, and how all of it goes away again.
//!
//! Every rack has a directory `bn-<pid>-<n>` in `.cache/racks`: files of its machines, and records of the processes
//! it started (`pids/`), of the namespaces it made (`namespaces/`) and of its control groups (`groups/`). So whoever
//! finds the directory later can undo the rack, even when the process that made it was killed.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{command, workshop};

const PREFIX: &str = "bn-";

/// Homes of this process that are still in use; a signal undoes them.
static IN_USE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// One rack's directory; dropping it undoes the rack.
#[derive(Debug)]
pub struct Home {
    id: String,
    dir: PathBuf,
}

impl Home {
    /// A new one, with a name of its own.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        undo_on_signals();
        let id = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = workshop::racks()?.join(&id);
        for part in ["pids", "namespaces", "groups"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::create_dir_all(sockets(&id)).with_context(|| format!("cannot make {}", sockets(&id).display()))?;
        let me = std::process::id();
        fs::write(dir.join("owner"), format!("{me} {}", started(me).unwrap_or_default()))?;
        lock().push(dir.clone());
        Ok(Self { id, dir })
    }

    /// Its name, which begins every name it gives on this machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A short path for a Unix socket, whose paths hold at most 107 bytes.
    pub fn socket(&self, name: &str) -> PathBuf {
        sockets(&self.id).join(name)
    }

    /// Records a process that must not outlive the rack.
    pub fn note_process(&self, pid: u32) -> Result<()> {
        let file = self.dir.join("pids").join(pid.to_string());
        fs::write(&file, started(pid).unwrap_or_default()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Records that a process has ended and was waited for.
    pub fn forget_process(&self, pid: u32) {
        let _ = fs::remove_file(self.dir.join("pids").join(pid.to_string()));
    }

    /// Records a network namespace, before it is made.
    pub fn note_namespace(&self, name: &str) -> Result<()> {
        fs::write(self.dir.join("namespaces").join(name), "").context("cannot record a namespace")
    }

    /// Makes a control group named after the rack in this directory of the control groups' file system.
    pub fn control_group(&self, parent: &Path) -> Result<PathBuf> {
        fs::write(self.dir.join("groups").join(&self.id), parent.as_os_str().as_encoded_bytes())?;
        let group = parent.join(&self.id);
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        Ok(group)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        undo(&self.dir);
        lock().retain(|dir| *dir != self.dir);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    IN_USE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn sockets(id: &str) -> PathBuf {
    Path::new("/run").join(id)
}

/// When a process started, in ticks since the machine did: with the pid, the name of one process for all time.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name in parentheses, may hold blanks; field 22 is the start time.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn is_same_process(pid: u32, start: &str) -> bool {
    !start.is_empty() && started(pid).as_deref() == Some(start)
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(dir) else { return Vec::new() };
    list.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Ends what a rack started and removes what it made. Failing halfway, it leaves the rest for the next time.
fn undo(dir: &Path) {
    for name in entries(&dir.join("pids")) {
        let file = dir.join("pids").join(&name);
        let start = fs::read_to_string(&file).unwrap_or_default();
        if let Ok(pid) = name.parse() {
            end(pid, &start);
        }
        let _ = fs::remove_file(file);
    }
    for name in entries(&dir.join("namespaces")).iter().filter(|name| name.starts_with(PREFIX)) {
        if Path::new("/run/netns").join(name).exists() {
            let _ = command::call("ip", ["netns", "delete", name]);
        }
    }
    for name in entries(&dir.join("groups")).iter().filter(|name| name.starts_with(PREFIX)) {
        // Its processes are dead, and gone from it a moment later.
        let group = PathBuf::from(fs::read_to_string(dir.join("groups").join(name)).unwrap_or_default()).join(name);
        let deadline = Instant::now() + Duration::from_secs(5);
        while group.is_absolute() && fs::remove_dir(&group).is_err() && group.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
    if let Some(id) = dir.file_name().and_then(|name| name.to_str()) {
        let _ = fs::remove_dir_all(sockets(id));
    }
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("rack: cannot remove {}: {error}", dir.display());
    }
}

fn end(pid: u32, start: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_same_process(pid, start) && !is_zombie(pid) && Instant::now() < deadline {
        if let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(target, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Undoes racks whose process is gone; the names of those it undid.
pub fn clean() -> Result<Vec<String>> {
    let racks = workshop::racks()?;
    let mut undone = Vec::new();
    for id in entries(&racks).into_iter().filter(|id| id.starts_with(PREFIX)) {
        let owner = fs::read_to_string(racks.join(&id).join("owner")).unwrap_or_default();
        let (pid, start) = owner.split_once(' ').unwrap_or_default();
        if !pid.parse().is_ok_and(|pid| is_same_process(pid, start)) {
            undo(&racks.join(&id));
            undone.push(id);
        }
    }
    Ok(undone)
}

/// SIGINT, SIGTERM and SIGHUP undo every rack before they end the process.
fn undo_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let spawned = thread::Builder::new().name("signals".into()).spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            let number = runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let (interrupt, terminate, hangup) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
                let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (interrupt, terminate, hangup) else {
                    return None;
                };
                tokio::select! {
                    _ = interrupt.recv() => Some(2),
                    _ = terminate.recv() => Some(15),
                    _ = hangup.recv() => Some(1),
                }
            });
            let Some(number) = number else { return };
            eprintln!("\nrack: stopping, and taking the racks down");
            for dir in lock().iter() {
                undo(dir);
            }
            std::process::exit(128 + number);
        });
        if let Err(error) = spawned {
            eprintln!("rack: cannot watch for signals: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let me = std::process::id();
        let start = started(me).unwrap();
        assert!(is_same_process(me, &start));
        assert!(!is_same_process(me, "1"));
        assert!(!is_same_process(me, ""));
    }

    #[test]
    fn only_recorded_processes_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pids")).unwrap();
        let mut ours = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(dir.path().join("pids").join(ours.id().to_string()), started(ours.id()).unwrap()).unwrap();
        fs::write(dir.path().join("pids").join(other.id().to_string()), "12345").unwrap();
        undo(dir.path());
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "a pid that was given to another process is left alone");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
