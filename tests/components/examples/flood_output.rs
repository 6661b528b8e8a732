//! Appends bytes of its own without end in its first `write`, 1 MiB at a time, until the host says no.
//!
//! The host must answer `limit` (bytes in one call, or what a format may add to its media) or stop it
//! when its time is up; neither its memory nor the disk may fill.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct FloodOutput(Raw);

impl Writer for FloodOutput {
    fn describe() -> Manifest {
        manifest("flood-output", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, _: &[Sample], _: &[u8]) -> Result<u64, Error> {
        let water = vec![0; 1 << 20];
        loop {
            self.0.out.append(&water, &[])?;
        }
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(FloodOutput);
