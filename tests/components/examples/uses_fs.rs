//! Looks in `open` for files, environment variables and arguments, by way of the standard library, and
//! reports in the error `unsupported` what it found.
//!
//! The host must have none: the message reads `nothing: …` with what the library was told. Should there be
//! any, the error is `host-fault`.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Writer};
use reelwright_test_components::manifest;

#[derive(Debug)]
pub struct UsesFs;

impl Writer for UsesFs {
    fn describe() -> Manifest {
        manifest("uses-fs", "1.0.0")
    }

    fn open(_: Start) -> Result<Self, Error> {
        let mut refused = Vec::new();
        let mut found = Vec::new();
        for path in ["/", ".", "/proc/self", "/tmp"] {
            match std::fs::read_dir(path) {
                Ok(_) => found.push(format!("the folder {path}")),
                Err(error) => refused.push(format!("{path}: {error}")),
            }
        }
        match std::fs::write("/tmp/reelwright-uses-fs", "x") {
            Ok(()) => found.push("a file that it wrote".into()),
            Err(error) => refused.push(format!("write: {error}")),
        }
        found.extend(std::env::vars_os().map(|(key, _)| format!("the variable {key:?}")));
        found.extend(std::env::args_os().map(|arg| format!("the argument {arg:?}")));
        Err(if found.is_empty() {
            Error::unsupported(format!("nothing: {}", refused.join("; ")))
        } else {
            Error::new("host-fault", format!("found {}", found.join(", ")))
        })
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(UsesFs);
