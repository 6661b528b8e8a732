//! The built-in format `flv`, which computes for some 300 µs a sample, from a segment's sample 200 on.
//!
//! Its files are good, and no limit stops it. As a canary it must be found out by its time.

use std::hint::black_box;

use reelwright_sdk::Sample;
use reelwright_test_components::Fault;

/// Additions, of some 0.5 ns each or more.
const ROUNDS: u64 = 600_000;

#[derive(Debug, Default)]
pub struct Slow(u64);

impl Fault for Slow {
    const VERSION: &str = "9.2.0";

    fn commit(&mut self, _: &mut Sample) {
        for round in 0..ROUNDS {
            self.0 = black_box(self.0.wrapping_add(round));
        }
    }
}

reelwright_sdk::export!(reelwright_test_components::Faulty<reelwright_flv::Flv, Slow>, recovery);
