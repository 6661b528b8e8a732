//! The built-in format `flv`, which panics with a segment's sample 200, each time.
//!
//! The host's probe does not get that far. The recording must go on without it.

use reelwright_sdk::Sample;
use reelwright_test_components::Fault;

#[derive(Debug, Default)]
pub struct Panics;

impl Fault for Panics {
    const VERSION: &str = "9.0.1";

    fn commit(&mut self, sample: &mut Sample) {
        panic!("this component can't bear sample {}", sample.seq);
    }
}

reelwright_sdk::export!(reelwright_test_components::Faulty<reelwright_flv::Flv, Panics>, recovery);
