//! libFuzzer on the target that `FUZZ_TARGET` names; see `make fuzz`.
#![no_main]

use std::sync::LazyLock;

use reelwright_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    *found.unwrap_or_else(|| {
        panic!("FUZZ_TARGET is one of {:?}", TARGETS.iter().map(|t| t.0).collect::<Vec<_>>())
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET.1(bytes));
