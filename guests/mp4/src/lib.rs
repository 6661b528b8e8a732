//! The `mp4` format: H.264 and AAC in MP4 files whose index stands in front of the media.
//!
//! Standards: ISO/IEC 14496-12 (the base format), 14496-14 (MP4), 14496-15 (AVC in it), 14496-1 and -3
//! (AAC's configuration). A file is
//!
//! ```text
//! ftyp
//! moov
//!   mvhd
//!   trak                 video first; only tracks with samples
//!     tkhd
//!     edts
//!       elst             unless the track is presented from the origin on, as it is decoded
//!     mdia
//!       mdhd
//!       hdlr
//!       minf
//!         vmhd | smhd
//!         dinf
//!           dref
//!             url
//!         stbl
//!           stsd
//!             avc1       avcC, and pasp if samples are not square
//!             | mp4a     esds
//!           stts
//!           ctts         if presentation and decoding times differ
//!           stss         video, unless every frame is a key frame
//!           stsc
//!           stsz
//!           stco | co64
//! free                   if the head is larger
//! free mdat | mdat       the body of the spool `mdat`; the second form over 4 GiB
//! ```
//!
//! While it records, payloads go to the spool `mdat` and a record of each sample to the spool `index`. When
//! the segment ends, `close` reads the index twice and writes all in front of the media into the head of
//! `mdat`. Nothing but the spools is needed for it, so recovery is the same work; and nothing grows with the
//! segment's length, so neither does memory.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test it is an assertion"))]

mod boxes;
mod close;
mod edit;
mod entry;
mod moov;
mod pass;
mod record;
mod tables;
mod timeline;

use reelwright_sdk::{
    End, Error, Gather, Manifest, Output, Recover, Sample, Start, Summary, Track, Writer, host, parse_flag,
};

use crate::{
    close::{MEDIA_HEADER, close},
    entry::SampleEntry,
    record::{INDEX, Index, Record},
    timeline::Clock,
};

/// Tracks of a segment at most.
const MAX_TRACKS: usize = 6;

/// One segment that is recorded.
#[derive(Debug)]
pub struct Mp4 {
    start: Start,
    mdat: Output,
    /// Bytes of `mdat` once `media` is appended, which keeps what could not be.
    size: u64,
    media: Gather,
    index: Output,
    records: Gather,
    /// Those of `start.tracks`: they find what the tables could not hold as long as another segment can take it.
    clocks: Vec<Clock>,
}

impl Writer for Mp4 {
    fn describe() -> Manifest {
        Manifest::new("mp4", env!("CARGO_PKG_VERSION"), "mp4", "video/mp4")
            .codecs(&["avc1", "mp4a"])
            .needs(&["patch", "read-back", "head-room"])
            .option(
                "win-qt-compat",
                "0",
                "1: 32-bit times in the headers, for old versions of QuickTime; 0: 64-bit times",
            )
    }

    fn open(start: Start) -> Result<Self, Error> {
        parse_flag(&start, "win-qt-compat")?;
        let clocks = check(&start.tracks)?;
        let mdat = host::create("mdat", "spool")?;
        mdat.append(&MEDIA_HEADER, &[])?;
        let index = host::create(INDEX, "spool")?;
        index.append(&record::header(), &[])?;
        let (media, records) = (Gather::new(), Gather::new());
        Ok(Self { start, mdat, size: MEDIA_HEADER.len() as u64, media, index, records, clocks })
    }

    /// What the publisher says for information may change: nothing here is made of it that a file needs.
    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        let same = |(a, b): (&Track, &Track)| {
            (a.id, &a.codec, a.timebase, &a.config) == (b.id, &b.codec, b.timebase, &b.config)
        };
        let ours = &self.start.tracks;
        Ok(ours.len() == tracks.len() && ours.iter().zip(&tracks).all(same))
    }

    fn write(&mut self, samples: &[Sample], _payloads: &[u8]) -> Result<u64, Error> {
        // What came before a sample that is refused is written, wherever the batch began.
        let accepted = samples.iter().try_for_each(|sample| self.accept(sample));
        // Records follow the media: a record that is there says that its media is.
        self.media.append_to(&self.mdat)?;
        self.records.append_to(&self.index)?;
        accepted?;
        Ok(samples.last().map_or(0, |last| last.seq + 1))
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        let Self { start, mdat, index, .. } = self;
        close(&start, &mdat, &Index::open(index)?, &end.tracks)
    }
}

impl Mp4 {
    /// Takes a sample into what is appended next.
    /// `bad-input`: an unknown track, or times far apart. `limit`: times that only a new segment can hold.
    fn accept(&mut self, sample: &Sample) -> Result<(), Error> {
        let position =
            self.start.tracks.iter().position(|track| track.id == sample.track).ok_or_else(|| {
                Error::bad_input(format!(
                    "sample {} is of track {}, which is unknown",
                    sample.seq, sample.track
                ))
            })?;
        let record = Record::new(sample, position as u16, self.size)?;
        let clock = &mut self.clocks[position];
        clock.offset(record.composition.into())?;
        clock.next(sample.dts)?;
        self.records.with(|bytes| record.encode(bytes));
        self.media.payload(sample, 0, sample.size);
        self.size += u64::from(sample.size);
        Ok(())
    }
}

impl Recover for Mp4 {
    fn recover(start: Start, outputs: Vec<String>) -> Result<Summary, Error> {
        check(&start.tracks)?;
        let mdat = host::reopen("mdat")?;
        let ids: Vec<u32> = start.tracks.iter().map(|track| track.id).collect();
        // Without media a crash came before all spools were made; with it, an index that is not there is lost.
        let has_media = mdat.size() > MEDIA_HEADER.len() as u64;
        let index = Index::recover(&outputs, &ids, has_media)?;
        if let Some(missing @ [_, ..]) =
            usize::try_from(mdat.size()).ok().and_then(|at| MEDIA_HEADER.get(at..))
        {
            mdat.append(missing, &[])?;
        }
        close(&start, &mdat, &index, &[])
    }
}

/// Checks that the tracks fit, and gives their clocks.
fn check(tracks: &[Track]) -> Result<Vec<Clock>, Error> {
    if tracks.len() > MAX_TRACKS {
        return Err(Error::unsupported(format!("{} tracks; mp4 holds {MAX_TRACKS}", tracks.len())));
    }
    tracks.iter().map(|track| SampleEntry::parse(track)?.clock(track)).collect()
}

#[cfg(not(feature = "library"))]
reelwright_sdk::export!(Mp4, recovery);

#[cfg(test)]
mod tests;
