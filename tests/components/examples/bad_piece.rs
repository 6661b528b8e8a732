//! Appends pieces that it has no right to, and passes the host's error on; the option `piece` says which:
//! `beyond` (ends after the payload), `overflow` (its end does not fit in 32 bits), `inline` (ends after the
//! inline bytes), `freed` (of a sample that it freed), `future` (of a sample that it was not given yet), `gathered`
//! (as `beyond`, by a `Gather`).
//!
//! The host must answer `bad-call`, append nothing, and end the segment with an error that says which
//! piece. Should it take the piece, `write` answers `host-fault`.

use reelwright_sdk::{End, Error, Gather, Manifest, Piece, Sample, Source, Start, Summary, Writer};
use reelwright_test_components::{Raw, manifest};

#[derive(Debug)]
pub struct BadPiece {
    raw: Raw,
    piece: String,
}

impl Writer for BadPiece {
    fn describe() -> Manifest {
        manifest("bad-piece", "1.0.0").option(
            "piece",
            "beyond",
            "what is wrong with the piece: beyond, overflow, inline, freed, future or gathered",
        )
    }

    fn open(start: Start) -> Result<Self, Error> {
        let piece = start.option("piece").unwrap_or("beyond").to_owned();
        Ok(Self { raw: Raw::open()?, piece })
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        let (first, last) = (samples[0], samples[samples.len() - 1]);
        let piece = |source, seq, offset, len| Piece { source, seq, offset, len };
        let bad = match self.piece.as_str() {
            "gathered" => {
                let mut gather = Gather::new();
                gather.bytes(b"four");
                gather.payload(&first, 0, first.size + 1);
                let taken = gather.append_to(&self.raw.out)?;
                return Err(Error::new("host-fault", format!("the host took a bad piece at {taken}")));
            }
            "beyond" => piece(Source::Sample, first.seq, 0, first.size + 1),
            "overflow" => piece(Source::Sample, first.seq, 1, u32::MAX),
            "inline" => piece(Source::Inline, 0, 1, 4),
            // What came in the calls before is free; the first call has nothing to offer.
            "freed" if first.seq == 0 => return self.raw.write(samples),
            "freed" => piece(Source::Sample, first.seq - 1, 0, 1),
            "future" => piece(Source::Sample, last.seq + 1, 0, 0),
            other => return Err(Error::bad_option(format!("option piece is `{other}`"))),
        };
        let good = piece(Source::Sample, first.seq, 0, first.size);
        let before = self.raw.out.size();
        self.raw.out.append(b"four", &[good, bad])?;
        let after = self.raw.out.size();
        Err(Error::new("host-fault", format!("the host took {bad:?}, and grew from {before} to {after}")))
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(BadPiece);
