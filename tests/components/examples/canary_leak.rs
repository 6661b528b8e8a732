//! The built-in format `flv`, which loses 1 MiB of memory each 8 samples from a segment's sample 200 on, and 40 MiB in all.
//!
//! Its files are good, and no limit stops it. As a canary it must be found out by its memory.

use reelwright_sdk::Sample;
use reelwright_test_components::Fault;

/// Samples from one loss to the next, and what is lost then: growing the memory each time would take time as well.
const EACH: u64 = 8;
const LEAK: usize = 1 << 20;
const MOST: usize = 40 << 20;

#[derive(Debug, Default)]
pub struct Leaks(usize);

impl Fault for Leaks {
    const VERSION: &str = "9.3.0";

    fn commit(&mut self, sample: &mut Sample) {
        if sample.seq.is_multiple_of(EACH) && self.0 < MOST {
            std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity(LEAK)));
            self.0 += LEAK;
        }
    }
}

reelwright_sdk::export!(reelwright_test_components::Faulty<reelwright_flv::Flv, Leaks>, recovery);
