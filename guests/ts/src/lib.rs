//! MPEG-TS: H.264 and AAC as a transport stream of one program (ISO/IEC 13818-1; ITU-T H.222.0).
//!
//! A sample becomes packets as it comes, and is not held: the file is playable as it grows, and good wherever
//! it ends. Times go on over the segments of a run, and so do counters and clock where the segment before
//! left them, so segments can be joined byte by byte.
//!
//! Packets name the payload that is in them, which stays in the host: all that is looked at are the heads of NAL units,
//! which mostly are in the first bytes that come with a sample.
//!
//! - `mux`: what comes in which order; `clock`: times, PCR; `carry`: from segment to segment
//! - `packet`, `pes`, `psi`: the layers of the transport stream
//! - `avc`, `adts`: samples as elementary streams

#![forbid(unsafe_op_in_unsafe_fn)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test it is an assertion"))]

mod adts;
mod avc;
mod carry;
mod clock;
mod mux;
mod packet;
mod pes;
mod psi;

use reelwright_codec::nal;
use reelwright_sdk::{
    End, Error, Manifest, Recover, Sample, Start, Summary, Track, Writer, host, with_starts,
};

use crate::mux::Mux;
use crate::packet::PACKET;

/// One segment.
#[derive(Debug)]
pub struct Ts {
    mux: Mux,
}

impl Writer for Ts {
    fn describe() -> Manifest {
        Manifest::new("ts", env!("CARGO_PKG_VERSION"), "ts", "video/mp2t")
            .codecs(&["avc1", "mp4a"])
            .payload_start(nal::START)
    }

    fn open(start: Start) -> Result<Self, Error> {
        let mut mux = Mux::new(&start)?;
        mux.out.go_to(host::create("", "main")?);
        Ok(Self { mux })
    }

    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        self.mux.update(&tracks)
    }

    fn write(&mut self, samples: &[Sample], payloads: &[u8]) -> Result<u64, Error> {
        let result = with_starts(samples, payloads, nal::START)
            .try_for_each(|(sample, start)| self.mux.sample(sample, start));
        // What came before a bad sample stays, as it would have in a batch of its own.
        self.mux.out.flush()?;
        result?;
        Ok(samples.last().map_or(0, |last| last.seq + 1))
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        Ok(self.mux.summary(&end.tracks).property("packets", self.mux.out.file_size() / PACKET as u64))
    }
}

impl Recover for Ts {
    /// Leaves the file as it is: every append was whole packets.
    fn recover(_: Start, _: Vec<String>) -> Result<Summary, Error> {
        let size = host::reopen("")?.size();
        let packet = PACKET as u64;
        Ok(Summary::default().property("packets", size / packet).property("torn-bytes", size % packet))
    }
}

#[cfg(not(feature = "library"))]
reelwright_sdk::export!(Ts, recovery);
