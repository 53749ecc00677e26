//! The machine's watchdog: it starts the machine again when nobody pats it, which is when this program hangs.

use bennu_stage1::console;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

const DEVICE: &str = "/dev/watchdog";
/// Watchdogs bark after 30 s or later unless told otherwise.
const PAT_EVERY: Duration = Duration::from_secs(10);

/// Keeps patting it, where there is one.
pub fn keep() {
    let Ok(mut device) = OpenOptions::new().write(true).open(DEVICE) else { return };
    console::say("a watchdog guards this machine");
    let pat = move || {
        loop {
            // Any byte but 'V', which would stop it at the close (watchdog-api of the kernel).
            if let Err(error) = device.write_all(b".") {
                console::say(&format!("the watchdog cannot be patted: {error}"));
            }
            std::thread::sleep(PAT_EVERY);
        }
    };
    drop(std::thread::Builder::new().name("watchdog".into()).spawn(pat));
}
