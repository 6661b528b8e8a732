//! A WASI that is complete and grants nothing, so that components built with stock tools run.
//!
//! No files, no network, no environment, no arguments; standard input is closed, output goes to the log. The
//! clocks stand still at the segment's start and random numbers come from a fixed seed, so that the same
//! samples give the same bytes. Waiting for a time traps: it would never come.

use std::time::Duration;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, p2::DynPollable, random::Deterministic,
};

use super::{guest_log::GuestLog, imports::State};

/// Bytes of the random cycle.
const RANDOM_CYCLE: usize = 4096;

/// What a component sees, at a fixed time since 1970.
pub(super) fn context(epoch: Duration, log: &GuestLog) -> WasiCtx {
    WasiCtxBuilder::new()
        .stdout(log.clone())
        .stderr(log.clone())
        .wall_clock(Fixed(epoch))
        .monotonic_clock(Fixed(Duration::ZERO))
        .secure_random(random())
        .insecure_random(random())
        .insecure_random_seed(0)
        .build()
}

/// Links WASI 0.2, with the functions that wait for a time replaced by traps.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    for name in ["subscribe-duration", "subscribe-instant"] {
        clock.func_wrap(name, |_, (_,): (u64,)| -> wasmtime::Result<(Resource<DynPollable>,)> {
            Err(wasmtime::Error::msg("it waits for a time, which a writer can't: its clock stands still"))
        })?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// The same numbers in every instance (SplitMix64 from seed 0).
fn random() -> Deterministic {
    let mut state = 0u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    Deterministic::new((0..RANDOM_CYCLE / 8).flat_map(|_| next()).collect())
}

struct Fixed(Duration);

impl HostWallClock for Fixed {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for Fixed {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}
