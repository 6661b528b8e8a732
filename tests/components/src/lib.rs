//! Components that misbehave, each an example of this crate, for the tests of the component host.
//!
//! The name of an example is the name of its format, with `-` for `_`. What is well-behaved in them is
//! here: a file of payloads, one after the other.

use reelwright_sdk::{Error, Gather, Manifest, Output, Sample, host};

/// A manifest for H.264 and AAC that needs nothing.
pub fn manifest(format: &str, version: &str) -> Manifest {
    Manifest::new(format, version, "raw", "application/octet-stream").codecs(&["avc1", "mp4a"])
}

/// A main output that takes the samples' payloads as they come.
#[derive(Debug)]
pub struct Raw {
    pub out: Output,
    gather: Gather,
}

impl Raw {
    /// Creates the main output.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { out: host::create("", "main")?, gather: Gather::new() })
    }

    /// Appends a line of text.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<(), Error> {
        self.gather.bytes(format!("{text}\n").as_bytes());
        self.gather.append_to(&self.out).map(drop)
    }

    /// Appends the payloads, and needs none of them any longer.
    pub fn write(&mut self, samples: &[Sample]) -> Result<u64, Error> {
        for sample in samples {
            self.gather.payload(sample, 0, sample.size);
        }
        self.gather.append_to(&self.out)?;
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }
}
