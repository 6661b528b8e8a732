//! Panics in `finish`, when all samples are in the file.
//!
//! The host must keep the file as it is, report the panic's message, and neither delete what is there nor
//! call the instance again.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct TrapInFinish(Raw);

impl Writer for TrapInFinish {
    fn describe() -> Manifest {
        manifest("trap-in-finish", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        panic!("this component panics in finish ({})", end.reason)
    }
}

reelwright_sdk::export!(TrapInFinish);
