//! Payloads, one after the other, of which the last ones are held back up to the next call or the end; it panics where a
//! track's property `trap` says (see [`Order`]).
//!
//! What it holds back when it panics must be in the next file, and nothing twice.
//!
//! [`Order`]: reelwright_test_components::Order

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

/// Samples that are held back.
const LAG: usize = 7;

#[derive(Debug)]
pub struct Lagging {
    raw: Raw,
    held: Vec<Sample>,
}

impl Lagging {
    fn append(&mut self, count: usize) -> Result<(), Error> {
        let samples: Vec<Sample> = self.held.drain(..count).collect();
        self.raw.write(&samples).map(drop)
    }
}

impl Writer for Lagging {
    fn describe() -> Manifest {
        manifest("lagging", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Ok(Self { raw: Raw::open()?, held: Vec::new() })
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.held.extend_from_slice(samples);
        self.append(self.held.len().saturating_sub(LAG))?;
        Ok(self.held.first().map_or(0, |sample| sample.seq))
    }

    fn finish(mut self, _: End) -> Result<Summary, Error> {
        self.append(self.held.len())?;
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(reelwright_test_components::Trapping<Lagging>);
