//! Hearing from the service that it is ready, that it lives, and that it goes (`sd_notify(3)`).

use crate::{consoles, logs, power, seeds, slots, welcome};
use bennu_host::Console;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Where the service finds our ear.
pub const SOCKET: &str = "/run/bennu-init.notify";
/// A service that was ready and is silent for so long hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// When the service was last heard, once it was ready.
static HEARD: Mutex<Option<Instant>> = Mutex::new(None);

/// Listens for as long as the machine runs.
pub fn listen(console: Console) {
    let _ = std::fs::remove_file(SOCKET);
    let ear = match UnixDatagram::bind(Path::new(SOCKET)) {
        Ok(ear) => ear,
        Err(error) => {
            return logs::say(&format!("cannot listen at {SOCKET}: {error}; nobody says when the service is ready"));
        }
    };
    let hear = move || {
        let mut message = [0; 1024];
        while let Ok(length) = ear.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            for line in text.lines() {
                heard(line);
                if line == "READY=1" {
                    seeds::begin();
                    let welcome = move || {
                        welcome::say();
                        if console == Console::View && !consoles::are_drawn_on() && !power::is_ending() {
                            consoles::show(consoles::Program::View);
                        }
                    };
                    drop(std::thread::Builder::new().name("welcome".into()).stack_size(128 * 1024).spawn(welcome));
                }
            }
        }
    };
    drop(std::thread::Builder::new().name("readiness".into()).stack_size(128 * 1024).spawn(hear));
}

fn heard(line: &str) {
    let mut last = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    match line {
        "READY=1" => {
            *last = Some(Instant::now());
            slots::ready();
            logs::say(&format!("ready to answer DHCP {:.1} s after the kernel started", power::uptime().as_secs_f64()));
        }
        "WATCHDOG=1" if last.is_some() => *last = Some(Instant::now()),
        "STOPPING=1" => *last = None,
        _ => {}
    }
}

/// Forgets what was heard of a service that ended.
pub fn forget() {
    *HEARD.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Whether the service was ready and has said nothing for too long.
pub fn hangs() -> bool {
    let last = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    last.is_some_and(|last| last.elapsed() > PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_that_was_ready_can_hang() {
        forget();
        heard("WATCHDOG=1");
        assert!(HEARD.lock().unwrap().is_none());
        heard("READY=1");
        assert!(HEARD.lock().unwrap().is_some() && !hangs());
        *HEARD.lock().unwrap() = Instant::now().checked_sub(PATIENCE + Duration::from_secs(1));
        assert!(hangs());
        heard("WATCHDOG=1");
        assert!(!hangs());
        heard("STOPPING=1");
        assert!(HEARD.lock().unwrap().is_none());
    }
}
