//! Stage 1: the `/init` of a machine that a Bennu appliance boots. As PID 1 it loads modules, brings the network up, asks the
//! appliance what to do, fetches and verifies the root, and hands over to the image's init. Called as `stage1 report` it is the
//! booted system's health reporter, as `stage1 watch` the watch over its root, as `stage1 logs` the forwarder of its journal,
//! and as `stage1 run-entry` the program of a container image that has no init.

#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

use bennu_stage1::{boot, logs, persistent, reporter, restart, supervise, watch};

bennu_stage1::entry_point!(entry);

/// Called by the C library's start-up code; answers the exit status.
fn entry() -> u8 {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    // As PID 1 the arguments are the kernel's left-overs, meant for the image's init.
    if std::process::id() == 1 {
        restart::catch_panics();
        boot::run();
    }
    match arguments.split_first() {
        Some((verb, rest)) if verb == "report" => reporter::run(rest),
        Some((verb, [])) if verb == "watch" => watch::run(),
        Some((verb, [])) if verb == logs::VERB => logs::run(),
        Some((verb, [])) if verb == supervise::VERB => supervise::become_program(),
        Some((verb, words)) if verb == persistent::VERB => persistent::become_program(words),
        _ => {
            eprintln!(
                "This is the /init of machines that Bennu boots. Elsewhere it only knows: stage1 report, stage1 watch, stage1 logs"
            );
            2
        }
    }
}
