//! The `/init` of the appliance's own ISO. As PID 1 it loads every driver, finds the state disk and the configuration, gives
//! the host its addresses, and keeps `bennu serve` running until somebody switches the machine off.

#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod area;
mod ask;
mod cards;
mod configuration;
mod consoles;
mod disks;
mod door;
mod host;
mod input;
mod install;
mod logs;
mod medium;
mod power;
mod prepare;
mod readiness;
mod release;
mod reset;
mod root;
mod seeds;
mod service;
mod slots;
mod state;
mod time;
mod told;
mod tpm;
mod unpack;
mod vault;
mod watchdog;
mod welcome;

use bennu_stage1::{
    cmdline, console, early,
    modules::{Devices, Modules},
};
use rustix::mount::{MountFlags, mount};
use std::path::Path;
use std::time::Duration;

bennu_stage1::entry_point!(entry);

fn entry() -> u8 {
    if std::process::id() != 1 {
        eprintln!("This is the /init of the appliance's ISO; it only runs as the first process of a machine.");
        return 2;
    }
    std::panic::set_hook(Box::new(|panic| {
        console::say(&format!("the appliance's init has a bug: {panic}"));
        power::restart(Duration::from_secs(60));
    }));
    run()
}

/// What the programs of the ISO are found by.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn run() -> ! {
    early::mount_kernel_filesystems();
    early::open_standard_files();
    console::open();
    console::watch();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    console::say(&format!("Bennu appliance, kernel {release}"));
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    early::restart_after_panic(&line);
    power::listen();
    let arguments = cmdline::parse(&line);
    if let Err(error) = root::enter(&mut Modules::of(&release, &arguments)) {
        console::say(&format!("{error}. Is the medium damaged? Write it again from a file whose SHA-256 is right"));
        power::restart(Duration::from_secs(60));
    }
    console::say(&format!("Bennu {}", release::of_this_disc().version));
    let mut modules = Modules::of(&release, &arguments);
    load(&mut modules);
    if secure_boot() {
        console::say("Secure Boot is on: this firmware, shim, GRUB and the kernel vouched for each other");
    }
    slots::begin(&line);
    watchdog::keep();
    input::listen();
    time::correct();
    let look = || state::find().map(|area| take_up(area, &line));
    let (configured, kept) = configuration::find(&line, &look, &mut modules);
    if kept.is_none() {
        prepare_state(&configured, &line, &mut modules);
    } else if !configured.host.state_encryption.is_none() && state::area().is_some_and(|area| !area.is_locked) {
        console::say(
            "THE STATE DISK IS NOT ENCRYPTED, though the configuration asks for that: only a new one is made so. Back up, start \
             with an empty disk, and restore",
        );
    }
    configuration::keep(&configured);
    cards::wait(&mut modules);
    host::configure(&configured.host);
    slots::look();
    door::open();
    service::keep(&configured, configuration::console(&line, &configured.host))
}

/// Opens state, and does what comes before anything reads it.
fn take_up(area: area::Area, line: &str) -> state::State {
    let state = state::open(area);
    reset::finish();
    reset::offer(line);
    time::correct_by_state();
    state
}

/// Without a state disk: one is made where that is asked for and possible, else memory has to do.
fn prepare_state(configured: &configuration::Configured, line: &str, modules: &mut Modules) {
    let made = match (&configured.erase, &configured.host.state_disk) {
        (Some(serial), _) => Some(prepare::make_of_used(serial, configured.host.state_encryption)),
        (None, wanted) => {
            let how = configured.host.state_encryption;
            wanted.as_deref().map(|wanted| prepare::make(wanted, how, modules))
        }
    };
    match made {
        Some(Ok(area)) => drop(take_up(area, line)),
        Some(Err(why)) => {
            console::say(&format!("no state disk was made: {why}"));
            state::in_memory();
        }
        None => {
            state::in_memory();
            state::watch_for_late();
        }
    }
}

/// What the firmware says of Secure Boot: four bytes of attributes, then the value (UEFI §32.4).
pub fn secure_boot() -> bool {
    const VARIABLES: &str = "/sys/firmware/efi/efivars";
    const NAME: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // It is there on machines with UEFI alone.
    let _ = mount("efivarfs", VARIABLES, "efivarfs", flags, None);
    std::fs::read(Path::new(VARIABLES).join(NAME)).is_ok_and(|value| value.get(4) == Some(&1))
}

/// Drivers for all there is, in as many rounds as new buses bring.
fn load(modules: &mut Modules) {
    if modules.known() == 0 {
        console::say("no kernel modules beside this kernel: only what is built into it will work");
    }
    for module in [
        "loop",
        "ext4",
        "vfat",
        "nls_cp437",
        "nls_ascii",
        "nls_utf8",
        "isofs",
        "af_packet",
        "button",
        "evdev",
        "squashfs",
        "efivarfs",
        // Nobody loads what a cipher's name asks for when it is used.
        "dm_crypt",
        "algif_skcipher",
        "aes_generic",
        "aesni_intel",
        "ecb",
        "xts",
    ] {
        modules.load(module);
    }
    modules.coldplug(Devices::All);
    // Disks and USB answer a moment after their controllers.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(400));
        modules.coldplug(Devices::All);
    }
    console::open();
    console::say(&format!("{} kernel modules loaded", modules.loaded()));
}
