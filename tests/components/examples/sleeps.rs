//! Sleeps for an hour in its first `write`.
//!
//! The host must not let it wait: waiting for a time to come is a trap with a message that says so.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct Sleeps(Raw);

impl Writer for Sleeps {
    fn describe() -> Manifest {
        manifest("sleeps", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        let needed = self.0.write(samples)?;
        std::thread::sleep(std::time::Duration::from_secs(3600));
        Ok(needed)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(Sleeps);
