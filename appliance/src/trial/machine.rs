//! The machine of a trial: QEMU, as a process that outlives nobody.

use crate::privileges::{EMULATOR, KVM, confine_emulator};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};
use tokio::sync::oneshot;

/// How often it is asked whether it still runs, or should.
const WATCH: Duration = Duration::from_millis(50);
/// How much of QEMU's own words is told.
const MOST_WORDS: u64 = 2000;

/// What it is made of.
#[derive(Debug)]
pub struct Parts {
    /// QEMU.
    pub program: PathBuf,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The file with all initrds.
    pub initrd: PathBuf,
    /// The kernel's arguments.
    pub arguments: String,
    /// MiB.
    pub memory: u64,
    /// The card's address.
    pub card: String,
    /// Whether the processor runs it, or QEMU imitates one.
    pub kvm: bool,
    /// The wire's end for QEMU: a connected stream socket.
    pub network: OwnedFd,
    /// The serial port's: another.
    pub console: OwnedFd,
    /// Where QEMU's own words go.
    pub words: File,
}

/// A machine that is on. Dropping it switches it off.
#[derive(Debug)]
pub struct Machine {
    /// Tells its thread to end it, by going away.
    _stop: mpsc::Sender<()>,
    off: oneshot::Receiver<Off>,
}

/// How QEMU ended.
#[derive(Debug)]
pub struct Off {
    /// Its exit status.
    pub status: io::Result<ExitStatus>,
    /// What it said.
    pub words: String,
}

/// The emulator, where this host has it.
pub fn find() -> Option<PathBuf> {
    find_in(std::env::var_os("PATH").unwrap_or_default())
}

/// The same, in directories as PATH writes them.
pub fn find_in(path: OsString) -> Option<PathBuf> {
    std::env::split_paths(&path).map(|directory| directory.join(EMULATOR)).find(|program| program.is_file())
}

/// Whether this process may use the processor's own virtualisation.
pub fn has_kvm() -> bool {
    File::options().read(true).write(true).open(KVM).is_ok()
}

impl Machine {
    /// Switches it on.
    pub async fn start(parts: Parts) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (tell_start, started) = oneshot::channel();
        let (tell_off, off) = oneshot::channel();
        // A thread of its own: what confines the emulator is a thread's and passes to what it starts, and the kernel ends
        // the emulator with the thread that started it.
        std::thread::Builder::new().name("trial".into()).spawn(move || {
            let words = parts.words.try_clone();
            let (child, words) = match words.and_then(|words| Ok((start(parts)?, words))) {
                Ok(running) => running,
                Err(error) => return drop(tell_start.send(Err(error))),
            };
            let _ = tell_start.send(Ok(()));
            let status = watch(child, &stopped);
            let _ = tell_off.send(Off { status, words: said(words) });
        })?;
        started.await.map_err(|_| io::Error::other("its thread ended"))??;
        Ok(Self { _stop: stop, off })
    }

    /// Waits until it is off.
    pub async fn off(&mut self) -> Off {
        let gone = |_| Off { status: Err(io::Error::other("its thread ended")), words: String::new() };
        (&mut self.off).await.unwrap_or_else(gone)
    }
}

/// Starts QEMU, which gets only what it needs to read. This thread is shut in with it.
#[allow(unsafe_code)]
fn start(parts: Parts) -> io::Result<Child> {
    confine_emulator(&[&parts.kernel, &parts.initrd]).map_err(io::Error::other)?;
    let mut qemu = Command::new(&parts.program);
    qemu.args(arguments(&parts)).env_clear().current_dir("/");
    qemu.stdin(parts.network).stdout(parts.console).stderr(parts.words);
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec it makes system calls and nothing else: no lock, no allocation.
    unsafe {
        qemu.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Who was ended before that would be missed.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
        });
    }
    let child = qemu.spawn()?;
    // Machines that boot now come first.
    let _ = rustix::process::setpriority_process(Pid::from_child(&child).into(), 10);
    Ok(child)
}

/// `fd=0` is the wire, `fd=1` the serial port.
fn arguments(parts: &Parts) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let accelerator = if parts.kvm { "kvm" } else { "tcg,tb-size=256" };
    let mut all: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine",
        "q35,graphics=off",
        "-cpu",
        "max",
        "-smp",
        "1",
        "-accel",
        accelerator,
        "-rtc",
        "base=utc",
        "-device",
        "virtio-rng-pci",
        "-chardev",
        "socket,id=console,fd=1",
        "-serial",
        "chardev:console",
        "-netdev",
        "socket,id=wire,fd=0",
    ]
    .map(str::to_owned)
    .into();
    let card = format!("virtio-net-pci,netdev=wire,mac={},romfile=", parts.card);
    for (option, value) in [
        ("-device", card),
        ("-m", parts.memory.to_string()),
        ("-kernel", path(&parts.kernel)),
        ("-initrd", path(&parts.initrd)),
        ("-append", parts.arguments.clone()),
    ] {
        all.extend([option.to_owned(), value]);
    }
    all
}

/// Waits for its end, and ends it when nobody wants it any more.
fn watch(mut child: Child, stopped: &mpsc::Receiver<()>) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match stopped.recv_timeout(WATCH) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                kill_process(Pid::from_child(&child), Signal::KILL)?;
                return child.wait();
            }
        }
    }
}

fn said(mut words: File) -> String {
    let mut bytes = Vec::new();
    let length = words.metadata().map_or(0, |metadata| metadata.len());
    let from = words.seek(SeekFrom::Start(length.saturating_sub(MOST_WORDS)));
    let _ = from.and_then(|_| words.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.replace(char::is_control, " ")).collect::<Vec<_>>().join("; ")
}

/// Memory that programs can have now, in MiB; `None`: the kernel does not say.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}
