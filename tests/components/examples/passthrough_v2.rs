//! Version 2.0.0 of the format `raw`; see `passthrough`. The host must be able to take it over between two
//! segments without losing or doubling a sample.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

/// The component's version.
const VERSION: &str = "2.0.0";

#[derive(Debug)]
pub struct Passthrough(Raw);

impl Writer for Passthrough {
    fn describe() -> Manifest {
        manifest("raw", VERSION)
    }

    fn open(_: Start) -> Result<Self, Error> {
        let mut raw = Raw::open()?;
        raw.line(format_args!("raw {VERSION}"))?;
        Ok(Self(raw))
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(Passthrough);
