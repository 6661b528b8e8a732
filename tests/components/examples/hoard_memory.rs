//! Allocates without end in its first `write`.
//!
//! The host must stop it at the memory limit, name that limit, and not grow itself.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct HoardMemory(Raw);

impl Writer for HoardMemory {
    fn describe() -> Manifest {
        manifest("hoard-memory", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)?;
        let mut hoard = Vec::new();
        loop {
            hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(HoardMemory);
