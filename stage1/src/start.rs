//! Where the C library hands over.
#![allow(unsafe_code)]

/// The program's entry, in place of the one Rust makes: that one aborts when the standard files are closed and there is no
/// `/dev/null`, which is how the kernel starts an `/init` without a working console; PID 1 aborting is a kernel panic.
// SAFETY: no other symbol of this name exists, because the crate is `no_main` outside of tests; the signature is C's.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
    std::ffi::c_int::from(crate::entry())
}
