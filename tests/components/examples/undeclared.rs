//! Uses functions of its output that its manifest does not ask for, and writes down the answers, a line each.
//!
//! The host must answer `bad-call` each time, name the need, and change nothing.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer, host};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct Undeclared(pub Raw);

impl Writer for Undeclared {
    fn describe() -> Manifest {
        manifest("undeclared", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        let mut raw = Raw::open()?;
        raw.line("undeclared")?;
        let spool = host::create("spool", "spool")?;
        for answer in [
            raw.out.patch(0, b"x"),
            raw.out.read(0, 1).map(drop),
            spool.head(4096).map(drop),
            spool.write_head(0, b"x"),
        ] {
            let line = answer.map_or_else(|e| format!("{}: {}", e.code, e.message), |()| "it worked".into());
            raw.line(line)?;
        }
        Ok(Self(raw))
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(Undeclared);
