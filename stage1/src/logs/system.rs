//! Forwarding in the booted system: the journal where there is one, else the kernel's log and `/dev/log`.

use super::kernel::Kernel;
use super::line::Line;
use super::link::Link;
use super::stage1::Sent;
use super::{To, devlog};
use crate::logs::journal::Journal;
use crate::reporter::{self, BootFile};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// How this part of the program is called.
pub const VERB: &str = "logs";
/// Where stage 1 says up to where it sent the kernel's log.
pub const SENT: &str = "/run/bennu/logs-sent.json";
/// A journalctl that ended is started again after this.
const PAUSE: Duration = Duration::from_secs(5);
/// Whether the image has a syslog of its own shows within this time.
const OWN_SYSLOG: Duration = Duration::from_secs(60);
/// Lines that wait to be sent, of a system without a journal.
const WAITING: usize = 256;

/// `stage1 logs`: comes back only with a reason not to forward.
pub fn run() -> u8 {
    let boot = match reporter::read(Path::new(reporter::FILE)) {
        Ok(boot) => boot,
        Err(error) => {
            eprintln!("bennu: {error}");
            return 1;
        }
    };
    let Some(to) = to(&boot) else { return 0 };
    let sent = sent();
    let mut link = Link::new(to.clone());
    let mut cursor = String::new();
    loop {
        match Journal::follow(&cursor, sent) {
            Ok(mut journal) => {
                while let Some(lines) = journal.next() {
                    for line in &lines {
                        link.send(line, &|| false);
                    }
                }
                cursor.clone_from(&journal.cursor);
            }
            // The image has no journalctl.
            Err(_) => without_journal(&to, sent, Duration::ZERO),
        }
        thread::sleep(PAUSE);
    }
}

/// Forwards what is said in a system whose init knows no units, for as long as it runs.
pub fn beside_another_init(boot: &BootFile) {
    if let Some(to) = to(boot) {
        without_journal(&to, sent(), OWN_SYSLOG);
    }
}

/// Where this boot's lines go; `None`: they are not wanted.
fn to(boot: &BootFile) -> Option<To> {
    let wanted = boot.logs.filter(|wanted| wanted.system)?;
    To::new(&boot.base, wanted, boot.proof.clone()?)
}

fn sent() -> Sent {
    std::fs::read(SENT).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The kernel's log, and `/dev/log` unless somebody listens there after a while.
fn without_journal(to: &To, sent: Sent, patience: Duration) {
    let (lines, waiting) = sync_channel(WAITING);
    let for_programs = lines.clone();
    let hear = move || {
        thread::sleep(patience);
        hear_programs(&for_programs);
    };
    drop(thread::Builder::new().name("devlog".into()).stack_size(128 * 1024).spawn(hear));
    let read = move || read_kernel(&lines, sent);
    drop(thread::Builder::new().name("kmsg".into()).stack_size(128 * 1024).spawn(read));
    send_all(Link::new(to.clone()), &waiting);
}

fn send_all(mut link: Link, waiting: &Receiver<Line>) {
    while let Ok(line) = waiting.recv() {
        link.send(&line, &|| false);
    }
}

/// The kernel's log waits by itself.
fn read_kernel(lines: &SyncSender<Line>, sent: Sent) {
    let Ok(mut kernel) = Kernel::open() else { return };
    while let Ok(record) = kernel.next(Duration::from_secs(60)) {
        let Some(record) = record.filter(|record| record.number > sent.number) else { continue };
        if let Some(line) = record.line
            && lines.send(line).is_err()
        {
            return;
        }
    }
}

/// Programs are not made to wait: what is too much is lost.
fn hear_programs(lines: &SyncSender<Line>) {
    let Ok(socket) = devlog::listen(Path::new(devlog::PLACE)) else { return };
    devlog::hear(&socket, |line| drop(lines.try_send(line)));
}
