//! Asks in `open` for outputs that it has no right to: by their names, their role or their number.
//!
//! The host must answer `bad-call` (`limit` for the number) each time and create nothing. Then the file holds
//! what it said, a line an answer; should it create one, `open` answers `host-fault`.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer, host};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct BadNames(Raw);

const NAMES: [(&str, &str); 14] = [
    ("../x", "sidecar"),
    ("a/b", "sidecar"),
    ("/etc/x", "sidecar"),
    (".", "sidecar"),
    ("..", "sidecar"),
    ("info", "sidecar"),
    ("info", "spool"),
    ("Upper", "sidecar"),
    ("nul\0", "sidecar"),
    ("ä", "sidecar"),
    ("a-name-of-thirty-three-characters", "sidecar"),
    ("", "sidecar"),
    ("x", "no-such-role"),
    ("", "main"),
];

impl Writer for BadNames {
    fn describe() -> Manifest {
        manifest("bad-names", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        let mut raw = Raw::open()?;
        for (name, role) in NAMES {
            match host::create(name, role) {
                Ok(_) => {
                    return Err(Error::new("host-fault", format!("the host created {name:?} as {role}")));
                }
                Err(error) => raw.line(format_args!("{name:?} {role}: {}: {}", error.code, error.message))?,
            }
        }
        let mut outputs = Vec::new();
        let error = loop {
            match host::create(&format!("n{}", outputs.len()), "spool") {
                Ok(output) => outputs.push(output),
                Err(error) => break error,
            }
        };
        raw.line(format_args!("number {}: {}: {}", outputs.len() + 1, error.code, error.message))?;
        Ok(Self(raw))
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        self.0.write(samples)
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(BadNames);
