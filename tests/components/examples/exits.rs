//! Ends its process, as it thinks, in its first `write`.
//!
//! The host must take `exit` for a trap with a message that says so, and go on.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct Exits(Raw);

impl Writer for Exits {
    fn describe() -> Manifest {
        manifest("exits", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)?;
        std::process::exit(0)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(Exits);
