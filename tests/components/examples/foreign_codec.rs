//! Takes only a codec that the host has no media of, and checks its configuration.
//!
//! A probe must do with its refusal of a broken track.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct ForeignCodec(Raw);

impl Writer for ForeignCodec {
    fn describe() -> Manifest {
        manifest("foreign-codec", "1.0.0").codecs(&["vp09"])
    }

    fn open(start: Start) -> Result<Self, Error> {
        match start.tracks.iter().find(|track| track.config.is_empty()) {
            Some(track) => Err(Error::bad_input(format!("track {} has no configuration", track.id))),
            None => Raw::open().map(Self),
        }
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(ForeignCodec);
