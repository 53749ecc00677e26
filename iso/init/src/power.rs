//! Off and on again: children first, then the state disk, then the machine.

use crate::{consoles, logs, reset, service, state};
use bennu_stage1::console;
use rustix::mount::{UnmountFlags, unmount};
use rustix::system::{RebootCommand, reboot};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The service ends by itself in well under a second; an import that is cut is discarded at the next start.
const LAST_WORDS: Duration = Duration::from_secs(10);

static ENDING: AtomicBool = AtomicBool::new(false);

/// Whether the machine is going down: nothing is started again then.
pub fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// How long the kernel has run.
pub fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Ctrl-Alt-Del restarts, and so does SIGTERM; SIGUSR2 switches off, as sysvinit's and busybox's halt programs mean it.
pub fn listen() {
    if let Err(error) = reboot(RebootCommand::CadOff) {
        console::say(&format!("Ctrl-Alt-Del restarts this machine at once: {error}"));
    }
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR2]) else { return };
    let wait = move || match signals.forever().next() {
        Some(SIGUSR2) => off(),
        Some(_) => {
            consoles::end();
            console::say("a restart was asked for");
            restart(Duration::ZERO)
        }
        None => {}
    };
    drop(std::thread::Builder::new().name("signals".into()).spawn(wait));
}

/// Switches the machine off.
pub fn off() -> ! {
    end(RebootCommand::PowerOff)
}

/// Starts it again after a pause in which a person may read why.
pub fn restart(pause: Duration) -> ! {
    std::thread::sleep(pause);
    end(RebootCommand::Restart)
}

fn end(how: RebootCommand) -> ! {
    if !ENDING.swap(true, Ordering::SeqCst) {
        // So that the last words are seen.
        consoles::end();
        service::stop(LAST_WORDS);
        logs::close();
        reset::finish();
        rustix::fs::sync();
        for place in [state::SERVED, state::PLACE] {
            let_go_of(place);
        }
        console::say(if how == RebootCommand::PowerOff { "off" } else { "restarting" });
    }
    loop {
        if let Err(error) = reboot(how) {
            console::say(&format!("the machine does not obey: {error}. Switch it off and on"));
        }
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Unmounts, once nobody is at it any more.
fn let_go_of(place: &str) {
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(error) = unmount(place, UnmountFlags::empty()) {
        // Nothing is mounted there.
        if error == rustix::io::Errno::INVAL {
            return;
        }
        if Instant::now() > until {
            return console::say(&format!(
                "{place} is still in use ({error}); the state disk's journal sees to the rest"
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
