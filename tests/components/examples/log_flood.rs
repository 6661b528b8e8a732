//! Floods the log and its standard output and error in every `write`; records well otherwise.
//!
//! The host must cut long lines, count and drop what is over the rate, and record everything.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer, host};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct LogFlood(Raw);

impl Writer for LogFlood {
    fn describe() -> Manifest {
        manifest("log-flood", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        Raw::open().map(Self)
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        let long = "flood ".repeat(1000);
        for i in 0..1000_u32 {
            host::log((i % 5) as u8, &long);
            println!("{long}");
            eprintln!("line {i}\r\n\x1b[31m{long}");
        }
        self.0.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(LogFlood);
