//! Starting the machine again, after saying why. PID 1 must never end: the kernel would panic, without a word to anyone.

use crate::console;
use crate::http;
use crate::report;
use bennu_plan::Step;
use rustix::system::{RebootCommand, reboot};
use std::sync::OnceLock;
use std::time::Duration;

static BASE: OnceLock<String> = OnceLock::new();

/// From here on failures that end in a restart are reported there.
pub fn report_panics_to(base: &str) {
    drop(BASE.set(base.to_owned()));
}

/// Makes a panic of any thread end in a message and a restart.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| report_and_restart(Step::Failed, &format!("stage 1 has a bug: {panic}"))));
}

/// Reports a failure that cannot be tried again, and restarts.
pub fn report_and_restart(step: Step, why: &str) -> ! {
    if let Some(base) = BASE.get() {
        let failed = report::report(step, why.to_owned(), 0, None);
        drop(report::post(&report::url(base), &failed, http::SHORT));
    }
    after(crate::boot::READING_TIME, why)
}

/// Says why, leaves time to read it, restarts.
pub fn after(pause: Duration, why: &str) -> ! {
    console::say(why);
    console::say(&format!("restarting in {} s", pause.as_secs()));
    std::thread::sleep(pause);
    rustix::fs::sync();
    loop {
        if let Err(error) = reboot(RebootCommand::Restart) {
            console::say(&format!("the machine does not restart: {error}. Switch it off and on"));
        }
        std::thread::sleep(Duration::from_secs(60));
    }
}
