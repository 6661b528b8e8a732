//! Loops for ever in `describe`.
//!
//! The host must refuse to load it, in bounded time, and name the limit; nothing that records notices.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};

#[derive(Debug)]
pub struct SpinInDescribe;

impl Writer for SpinInDescribe {
    fn describe() -> Manifest {
        loop {
            std::hint::spin_loop();
        }
    }

    fn open(_: Start) -> Result<Self, Error> {
        Ok(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(SpinInDescribe);
