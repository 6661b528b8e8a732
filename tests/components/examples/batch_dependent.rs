//! Lets its file depend on batches: each `write` leaves a mark between the payloads.
//!
//! A probe must find that the same samples give other bytes, and say from where on.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct BatchDependent(Raw);

impl Writer for BatchDependent {
    fn describe() -> Manifest {
        manifest("batch-dependent", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.line(samples.len())?;
        self.0.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(BatchDependent);
