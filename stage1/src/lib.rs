//! The rooms of stage 1. The program `/init` of a machine that a Bennu appliance boots is made of them, and the `/init` of the
//! appliance's own ISO takes its early mounts, consoles, modules and links from here.

pub mod boot;
mod clock;
pub mod cmdline;
pub mod console;
mod download;
pub mod early;
mod entropy;
mod fetch;
pub mod handover;
mod http;
mod inventory;
mod laydown;
pub mod logs;
mod memory;
pub mod modules;
pub mod net;
pub mod persistent;
mod plan;
mod report;
pub mod reporter;
pub mod restart;
pub mod root;
mod scoped;
mod session;
pub mod supervise;
mod sys;
mod user;
mod verity;
pub mod watch;

/// The program's entry, in place of the one Rust makes: that one aborts when the standard files are closed and there is no
/// `/dev/null`, which is how the kernel starts an `/init` without a working console; PID 1 aborting is a kernel panic.
/// Takes a function that answers the exit status.
#[macro_export]
macro_rules! entry_point {
    ($entry:ident) => {
        #[cfg(not(test))]
        #[allow(unsafe_code)]
        mod start {
            // SAFETY: no other symbol of this name exists, because the program is `no_main` outside of tests; the signature
            // is C's.
            #[unsafe(no_mangle)]
            pub extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
                std::ffi::c_int::from(super::$entry())
            }
        }
    };
}
