//! Frees no sample, ever: `write` appends nothing and always returns 0.
//!
//! The host must end the segment at the limit of held bytes, name that limit, and count the samples as lost
//! or hand them to the next instance.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct HoldSamples {
    _raw: Raw,
}

impl Writer for HoldSamples {
    fn describe() -> Manifest {
        manifest("hold-samples", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Ok(Self { _raw: Raw::open()? })
    }

    fn write(&mut self, _: &[Sample], _: &[u8]) -> Result<u64, Error> {
        Ok(0)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(HoldSamples);
