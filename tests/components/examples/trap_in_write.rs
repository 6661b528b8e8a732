//! Panics in the third call of `write`, after it appended what the first two brought.
//!
//! The host must keep what was appended, report the panic's message with recording and component, go
//! on in a next file with a fresh instance, and lose nothing that it still has; other recordings go on as if
//! nothing was.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct TrapInWrite {
    raw: Raw,
    calls: u32,
}

impl Writer for TrapInWrite {
    fn describe() -> Manifest {
        manifest("trap-in-write", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Ok(Self { raw: Raw::open()?, calls: 0 })
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.calls += 1;
        assert!(self.calls < 3, "this component panics in its third write");
        self.raw.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(TrapInWrite);
