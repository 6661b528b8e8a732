//! The `flv` format: Adobe Flash Video File Format Specification 10.1, annex E, with AVC and AAC.
//!
//! ```text
//! FLV header | onMetaData | AVC sequence header | AAC sequence header | one tag a sample …
//! ```
//!
//! A file is playable while it grows. Closing it overwrites `onMetaData` in place with duration, size and the
//! key frame index, for which room was kept, so the media is neither moved nor read again. Recovery reads the
//! tags and closes the file with the same code.
//!
//! File times are milliseconds since the segment's origin, up to 2^31 - 1 (24 days).

#![forbid(unsafe_op_in_unsafe_fn)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod amf;
mod head;
mod index;
mod metadata;
mod scan;
mod tag;
mod tally;
mod tracks;

use reelwright_sdk::{
    End, Error, Gather, Manifest, Output, Recover, Sample, Start, Summary, Track, Writer, host, parse_option,
};

use head::Head;
use tally::{Tally, Written};
use tracks::Tracks;

const INDEX_ENTRIES: &str = "keyframe-index-entries";
const MAX_INDEX_ENTRIES: usize = 65_536;

/// Writes one FLV file.
#[derive(Debug)]
pub struct Flv {
    output: Output,
    file: Layout,
    gather: Gather,
    /// The tags in `gather`, with offsets that count from its begin.
    gathered: Vec<Written>,
}

/// What a file is made of, without the file.
#[derive(Debug)]
struct Layout {
    tracks: Tracks,
    head: Head,
    tally: Tally,
}

#[cfg(not(feature = "library"))]
reelwright_sdk::export!(Flv, recovery);

impl Writer for Flv {
    fn describe() -> Manifest {
        Manifest::new("flv", env!("CARGO_PKG_VERSION"), "flv", "video/x-flv")
            .codecs(&["avc1", "mp4a"])
            .needs(&["patch", "read-back"])
            .option(
                INDEX_ENTRIES,
                "4096",
                "key frames that the index in onMetaData has room for, 18 bytes each, 0 to 65536; \
                 0 is no index. A longer recording keeps every 2nd, 4th, 8th and so on",
            )
    }

    fn open(start: Start) -> Result<Self, Error> {
        let file = Layout::new(start)?;
        let output = host::create("", "main")?;
        file.head.parts().try_for_each(|part| output.append(part, &[]).map(drop))?;
        Ok(Self { output, file, gather: Gather::new(), gathered: Vec::new() })
    }

    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        Ok(self.file.tracks.hold(&tracks))
    }

    /// Appends a tag a sample. A sample that FLV can't hold is an error after those before it were appended,
    /// so that what is in the file does not depend on batches.
    fn write(&mut self, samples: &[Sample], _payloads: &[u8]) -> Result<u64, Error> {
        let taken = samples.iter().try_for_each(|sample| self.gather(sample));
        let base = self.gather.append_to(&self.output)?;
        for tag in self.gathered.drain(..) {
            self.file.tally.add(Written { offset: base + tag.offset, ..tag });
        }
        taken?;
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        let Layout { tracks, tally, .. } = &self.file;
        let ends = end.tracks.iter().filter_map(|end| tracks.end_ms(end.track, end.dts));
        let duration_ms = ends.fold(tally.last_ms().into(), u64::max);
        self.file.close(&self.output, duration_ms)
    }
}

impl Flv {
    fn gather(&mut self, sample: &Sample) -> Result<(), Error> {
        let (kind, frame) = self.file.tracks.frame(sample)?;
        self.gathered.push(Written {
            kind,
            key: sample.is_key(),
            time_ms: frame.time_ms(),
            offset: self.gather.len(),
        });
        self.gather.with(|buf| frame.write_header(buf));
        self.gather.payload(sample, 0, sample.size);
        self.gather.bytes(&frame.trailer());
        Ok(())
    }
}

impl Recover for Flv {
    /// Closes a file that was cut back to whole tags as [`Writer::finish`] would have, but for one thing that
    /// is not in the file: where each track ends. Its last sample is taken to last as long as the one before,
    /// so `duration` can be off by the difference.
    ///
    /// Bytes behind the last whole tag can't be cut off here. They count in `filesize`, and the summary
    /// says how many there are (`torn-bytes`). Errors: `bad-input` for a file that does not begin as this
    /// version begins one for this `start`.
    fn recover(start: Start, _outputs: Vec<String>) -> Result<Summary, Error> {
        let mut file = Layout::new(start)?;
        let output = host::reopen("")?;
        for (offset, expected) in file.head.fixed_parts() {
            read_fixed(&output, offset, expected)?;
        }
        // A finish that was cut off may have left a part of what it was to say.
        file.head.reset().try_for_each(|(offset, bytes)| output.patch(offset, bytes))?;
        let end =
            scan::scan(file.head.len(), |offset, len| output.read(offset, len), |tag| file.tally.add(tag))?;
        let summary = file.close(&output, file.tally.estimated_end_ms())?;
        let torn = output.size() - end;
        Ok(if torn > 0 { summary.property("torn-bytes", torn) } else { summary })
    }
}

/// Compares a part of the file with what should be there, in reads that the host allows.
fn read_fixed(output: &Output, offset: u64, expected: &[u8]) -> Result<(), Error> {
    const MAX_READ: usize = 1 << 20;
    let mut at = offset;
    for part in expected.chunks(MAX_READ) {
        if output.read(at, part.len() as u32)? != part {
            return Err(Error::bad_input(format!(
                "the file does not hold at byte {at} what this version writes there; it is left as it is"
            )));
        }
        at += part.len() as u64;
    }
    Ok(())
}

impl Layout {
    /// The layout of an empty segment.
    fn new(start: Start) -> Result<Self, Error> {
        let capacity = parse_option(&start, INDEX_ENTRIES, 0..=MAX_INDEX_ENTRIES)?;
        let tracks = Tracks::new(start.tracks, start.origin_ms)?;
        let head = Head::new(start.epoch_us, &tracks, capacity)?;
        let tally = Tally::new(head.index_capacity(), head.avc_sequence_header());
        Ok(Self { tracks, head, tally })
    }

    /// Overwrites the script tag with what is known at the end.
    fn close(&self, output: &Output, duration_ms: u64) -> Result<Summary, Error> {
        let totals = self.tally.totals(duration_ms, output.size());
        let (offset, script) = self.head.patch(&totals);
        output.patch(offset, &script)?;

        let mut summary = Summary::default().property("duration-ms", duration_ms);
        if self.tracks.video.is_some() {
            summary = summary
                .property("video-frames", self.tally.video.frames)
                .property("keyframes", self.tally.key_frames);
        }
        if self.tracks.audio.is_some() {
            summary = summary.property("audio-frames", self.tally.audio.frames);
        }
        Ok(summary)
    }
}
