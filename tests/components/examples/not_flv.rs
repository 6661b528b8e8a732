//! Says that it writes FLV, and writes payloads one after the other.
//!
//! A probe must find that the file is not what its format says.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct NotFlv(Raw);

impl Writer for NotFlv {
    fn describe() -> Manifest {
        manifest("flv", "9.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(NotFlv);
