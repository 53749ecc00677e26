//! The end-to-end tests: what the appliance promises, shown by machines that boot.

mod checks;
mod faults;
mod firmware;
mod imports;
pub mod long;
mod power;
mod proxy;
mod waiting;

use crate::harness::Life;

/// All of them, the longest first, so that two at a time end together.
pub const LIVES: &[Life] = &[
    power::CYCLES,
    imports::TWO_STORES,
    waiting::UNASSIGNED,
    faults::SIGKILL,
    firmware::UNDIONLY,
    firmware::BIOS,
    firmware::UEFI_HTTP,
    proxy::UEFI,
    proxy::BIOS,
    waiting::LOCAL,
    firmware::FOREIGN,
];
