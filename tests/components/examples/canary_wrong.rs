//! The built-in format `flv`, which leaves a byte out: the last one of a segment's sample 200.
//!
//! The file can be read all the same. As a canary it must be found out by what the file holds.

use reelwright_sdk::Sample;
use reelwright_test_components::{Fault, LATE};

#[derive(Debug, Default)]
pub struct LeavesOut;

impl Fault for LeavesOut {
    const VERSION: &str = "9.1.0";

    fn commit(&mut self, sample: &mut Sample) {
        if sample.seq == LATE {
            sample.size = sample.size.saturating_sub(1);
        }
    }
}

reelwright_sdk::export!(reelwright_test_components::Faulty<reelwright_flv::Flv, LeavesOut>, recovery);
