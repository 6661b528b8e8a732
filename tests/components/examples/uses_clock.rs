//! Writes wall clock, monotonic clock and random numbers into its file, by way of the standard library.
//!
//! The host must show it fixed ones, so that the same `start` gives the same bytes: the wall clock stands at
//! `start.epoch-us`, the monotonic clock does not move, and the random seed is always the same.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct UsesClock {
    raw: Raw,
    opened: Instant,
}

impl UsesClock {
    fn tell(&mut self) -> Result<(), Error> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let elapsed = self.opened.elapsed();
        let random = RandomState::new().hash_one(0);
        self.raw.line(format_args!(
            "epoch-us {} elapsed-ns {} random {random:016x}",
            wall.as_micros(),
            elapsed.as_nanos()
        ))
    }
}

impl Writer for UsesClock {
    fn describe() -> Manifest {
        manifest("uses-clock", "1.0.0")
    }

    fn open(start: Start) -> Result<Self, Error> {
        let mut clock = Self { raw: Raw::open()?, opened: Instant::now() };
        clock.raw.line(format_args!("start {}", start.epoch_us))?;
        clock.tell()?;
        Ok(clock)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.raw.write(samples)
    }

    fn finish(mut self, _: End) -> Result<Summary, Error> {
        self.tell()?;
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(UsesClock);
