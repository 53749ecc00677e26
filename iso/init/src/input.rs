//! The power button, which the kernel shows as a keyboard with one key.

use crate::{consoles, power};
use bennu_stage1::console;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// `struct input_event` of `linux/input.h` on 64-bit machines: two words of time, type, code, value.
const EVENT_SIZE: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// Waits on every device that may be a power button.
pub fn listen() {
    for device in buttons() {
        let wait = move || {
            let Ok(mut file) = File::open(&device) else { return };
            let mut event = [0; EVENT_SIZE];
            while file.read_exact(&mut event).is_ok() {
                if is_power(&event) {
                    consoles::end();
                    console::say("the power button was pressed");
                    power::off();
                }
            }
        };
        drop(std::thread::Builder::new().name("button".into()).stack_size(64 * 1024).spawn(wait));
    }
}

/// Devices whose name says so (`LNXPWRBN`, `Power Button`), and keyboards of management controllers do too.
fn buttons() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("event"))?;
        let label = std::fs::read_to_string(entry.path().join("device/name")).ok()?;
        label.to_lowercase().contains("power").then(|| PathBuf::from("/dev/input").join(name))
    });
    named.collect()
}

fn is_power(event: &[u8; EVENT_SIZE]) -> bool {
    let short = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    short(16) == EV_KEY && short(18) == KEY_POWER && value == PRESSED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0; EVENT_SIZE];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_power(&event(1, 116, 1)));
        assert!(!is_power(&event(1, 116, 0)) && !is_power(&event(0, 116, 1)) && !is_power(&event(1, 30, 1)));
    }
}
