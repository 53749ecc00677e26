//! Starting the machine again, after saying why. PID 1 must never end: the kernel would panic, without a word to anyone.

use crate::boot::READING_TIME;
use crate::console;
use crate::http;
use crate::report::{self, To};
use bennu_plan::Step;
use rustix::system::{RebootCommand, reboot};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const BETWEEN_REPORTS: Duration = Duration::from_secs(2);
const LONGEST_SYNC: Duration = Duration::from_secs(30);

static LAST_WORDS: Mutex<Option<To>> = Mutex::new(None);

/// From here on failures that end in a restart are reported there.
pub fn report_panics_to(to: To) {
    *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
}

/// Makes a panic of any thread end in a message and a restart.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        report_and_restart(Step::Failed, &format!("stage 1 has a bug: {panic}"), READING_TIME)
    }));
}

/// Reports a failure that cannot be tried again, and restarts: after a pause in which a person may read why, and in which
/// the appliance is told, which may just be away, or the network be on its way up.
pub fn report_and_restart(step: Step, why: &str, pause: Duration) -> ! {
    console::say(why);
    let until = Instant::now() + pause;
    let to = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(to) = to {
        let failed = report::report(step, why.to_owned(), 0, None);
        while report::post(&to, &failed, http::SHORT).is_err() && Instant::now() < until {
            std::thread::sleep(BETWEEN_REPORTS);
        }
    }
    restart_in(until.saturating_duration_since(Instant::now()))
}

/// Says why, leaves time to read it, restarts.
pub fn after(pause: Duration, why: &str) -> ! {
    console::say(why);
    restart_in(pause)
}

fn restart_in(pause: Duration) -> ! {
    console::say(&format!("restarting in {} s", pause.as_secs()));
    std::thread::sleep(pause);
    // A network file system whose server is gone would hold it for good.
    let (done, synced) = std::sync::mpsc::channel();
    let sync = move || {
        rustix::fs::sync();
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(sync).is_ok() {
        let _ = synced.recv_timeout(LONGEST_SYNC);
    }
    loop {
        if let Err(error) = reboot(RebootCommand::Restart) {
            console::say(&format!("the machine does not restart: {error}. Switch it off and on"));
        }
        std::thread::sleep(Duration::from_secs(60));
    }
}
