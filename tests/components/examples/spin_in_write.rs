//! Loops for ever in its first `write`.
//!
//! The host must stop it when its time is up, name that limit, and meanwhile delay no other recording.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct SpinInWrite(Raw);

impl Writer for SpinInWrite {
    fn describe() -> Manifest {
        manifest("spin-in-write", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)?;
        loop {
            std::hint::spin_loop();
        }
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(SpinInWrite);
