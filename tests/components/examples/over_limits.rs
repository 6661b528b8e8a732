//! Does in each `write` what its option `what` says, beyond what the host allows: nests calls, hands over or
//! answers too much at once, appends too many bytes or pieces, creates too many outputs, wants too large a head.
//!
//! The host must name the limit, in an error that the component gets or in a trap, count it, and keep what was
//! written.

use reelwright_sdk::{End, Error, Manifest, Piece, Sample, Source, Start, Summary, Writer, host};
use reelwright_test_components::manifest;

#[derive(Debug)]
pub struct OverLimits {
    spool: host::Output,
    what: String,
    hoard: Vec<u8>,
}

/// Neither a loop in disguise, nor with anything on the stack in memory, which would end first.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == 0 { 0 } else { recurse(depth - 1).wrapping_mul(3) ^ depth }
}

impl Writer for OverLimits {
    fn describe() -> Manifest {
        manifest("over-limits", "1.0.0").needs(&["head-room"]).option(
            "what",
            "nothing",
            "what it does in `write`",
        )
    }

    fn open(start: Start) -> Result<Self, Error> {
        let what = start.options.iter().find(|option| option.key == "what");
        let what = what.map(|option| option.value.clone()).unwrap_or_default();
        Ok(Self { spool: host::create("spool", "spool")?, what, hoard: Vec::new() })
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        match self.what.as_str() {
            "recurse" => _ = std::hint::black_box(recurse(std::hint::black_box(u64::MAX))),
            "carry" => drop(self.spool.append(&vec![0; 5 << 20], &[])?),
            "answer" => return Err(Error::new("limit", "x".repeat(5 << 20))),
            "inline" => drop(self.spool.append(&vec![0; (1 << 20) + 1], &[])?),
            "pieces" => {
                let piece = Piece { source: Source::Inline, seq: 0, offset: 0, len: 1 };
                self.spool.append(&[0], &vec![piece; (1 << 16) + 1])?;
            }
            "outputs" => {
                for n in 0..100 {
                    host::create(&format!("n{n}"), "spool")?;
                }
            }
            "head" => drop(self.spool.head((1 << 30) + 1)?),
            // One call at a time is within its limit.
            "trickle" => {
                for _ in 0..20 {
                    self.spool.append(&vec![0; 1 << 20], &[])?;
                }
            }
            "memory" => self.hoard = std::hint::black_box(vec![1; 40 << 20]),
            _ => {}
        }
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(OverLimits);
