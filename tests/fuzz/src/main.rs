//! libFuzzer around the target that `FUZZ_TARGET` names. `scripts/fuzz` builds it with coverage and runs it.

#![no_main]

use bennu_fuzz::target;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET is '{name}': name a target (scripts/fuzz does)"))
});

fuzz_target!(|data: &[u8]| RUN(data));
