//! The end-to-end tests: what the appliance promises, shown by machines that boot.

mod api;
mod backup;
mod bad_input;
mod browser;
mod checks;
mod clients;
mod containers;
mod faults;
mod firmware;
mod full_rack;
mod half_open;
mod imports;
mod iso;
mod iso_state;
pub mod long;
pub mod loss;
pub mod metadata;
mod packaging;
mod power;
mod privileges;
mod proxy;
mod relays;
mod reset;
mod secrets;
mod secure_boot;
mod siege;
mod signatures;
mod slow_http;
mod sources;
mod trials;
mod waiting;
mod wire;

use crate::{conformance, harness::Life};

/// All of them, the longest first, so that two at a time end together.
pub const LIVES: &[Life] = &[
    power::CYCLES,
    iso::RACK,
    iso::UEFI,
    secure_boot::SECURE_BOOT,
    secure_boot::OWN_DISK,
    containers::PUSHED,
    containers::BOOTC,
    signatures::REQUIRED,
    imports::TWO_STORES,
    imports::IN_THE_STORE,
    imports::CUT,
    trials::BEFORE_PROMOTION,
    secrets::CANARY,
    metadata::STAGE1,
    metadata::CLOUD_INIT,
    browser::BROWSER,
    full_rack::FULL_RACK,
    relays::RELAYS,
    conformance::LINES,
    siege::KILLS,
    siege::FULL_DISK,
    siege::FLOOD,
    clients::CLIENTS,
    loss::TENTH,
    waiting::UNASSIGNED,
    faults::SIGKILL,
    firmware::UNDIONLY,
    firmware::BIOS,
    firmware::UEFI_HTTP,
    proxy::UEFI,
    proxy::BIOS,
    waiting::LOCAL,
    sources::QCOW2,
    sources::LIVE_ISO,
    sources::MEMTEST,
    sources::UNIFIED,
    firmware::FOREIGN,
    bad_input::PACKETS,
    packaging::PACKAGE,
    bad_input::KILLED_CLIENT,
    bad_input::IMPORTS,
    bad_input::COMMANDS,
    bad_input::STARTS,
    bad_input::SMALL_DISK,
    privileges::DROPPED,
    backup::ONE_FILE,
    slow_http::HELD_UP,
    wire::STRANGERS,
    wire::TWINS,
    wire::CABLES,
    api::DESCRIBED,
];

/// Lives of the long tests alone.
pub const LONG_LIVES: &[Life] = &[
    loss::FIFTIETH,
    metadata::TEN_REIMAGES,
    iso::CUTS,
    iso::UPGRADE,
    iso::UPGRADE_UEFI,
    iso::ODD,
    iso::BROUGHT,
    reset::RESET,
    iso_state::ENCRYPTED,
    iso_state::TPM,
    iso_state::STICK,
    api::DESCRIBED_AT_LENGTH,
];

/// The lives that a filter names, or all but the long ones; of these only what it names in full.
pub fn named(filters: &[String]) -> Vec<Life> {
    let long = LONG_LIVES.iter().filter(|life| filters.iter().any(|filter| filter == life.name));
    LIVES.iter().filter(|life| life.is_wanted(filters)).chain(long).copied().collect()
}
