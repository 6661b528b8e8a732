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
//! While it records, payloads go to the spool `mdat` and a record of each sample to the spool of its
//! track, `track1`, `track2` and so on. When the segment ends, `close` reads the track spools twice and
//! writes all in front of the media into the head of `mdat`. Nothing but the spools is needed for it, so
//! recovery is the same work; and nothing grows with the segment's length, so neither does memory.

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
    record::{Record, Spool},
    timeline::Clock,
};

/// Tracks of a segment at most; with `mdat` they stay below the host's limit of outputs.
const MAX_TRACKS: usize = 6;

/// One segment that is recorded.
#[derive(Debug)]
pub struct Mp4 {
    start: Start,
    mdat: Output,
    /// Bytes of `mdat` once `media` is appended, which keeps what could not be.
    size: u64,
    media: Gather,
    /// In the order of `start.tracks`.
    tracks: Vec<TrackWriter>,
}

/// A track that is recorded.
#[derive(Debug)]
struct TrackWriter {
    id: u32,
    spool: Output,
    records: Gather,
    /// Finds what the tables could not hold as long as another segment can take it.
    clock: Clock,
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
        let mut tracks = Vec::new();
        for ((track, clock), position) in start.tracks.iter().zip(clocks).zip(1..) {
            let spool = host::create(&spool_name(position), "spool")?;
            spool.append(&record::header(track.id), &[])?;
            tracks.push(TrackWriter { id: track.id, spool, records: Gather::new(), clock });
        }
        Ok(Self { start, mdat, size: MEDIA_HEADER.len() as u64, media: Gather::new(), tracks })
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
        for track in &mut self.tracks {
            track.records.append_to(&track.spool)?;
        }
        accepted?;
        Ok(samples.last().map_or(0, |last| last.seq + 1))
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        let Self { start, mdat, tracks, .. } = self;
        let spools: Result<Vec<Spool>, Error> =
            tracks.into_iter().map(|track| Spool::open(Some(track.spool), track.id)).collect();
        close(&start, &mdat, &spools?, &end.tracks)
    }
}

impl Mp4 {
    /// Takes a sample into what is appended next.
    /// `bad-input`: an unknown track, or times far apart. `limit`: times that only a new segment can hold.
    fn accept(&mut self, sample: &Sample) -> Result<(), Error> {
        let track = self.tracks.iter_mut().find(|track| track.id == sample.track).ok_or_else(|| {
            Error::bad_input(format!("sample {} is of track {}, which is unknown", sample.seq, sample.track))
        })?;
        let record = Record::new(sample, self.size)?;
        track.clock.offset(record.composition.into())?;
        track.clock.next(sample.dts)?;
        track.records.with(|bytes| record.encode(bytes));
        self.media.payload(sample, 0, sample.size);
        self.size += u64::from(sample.size);
        Ok(())
    }
}

impl Recover for Mp4 {
    fn recover(start: Start, outputs: Vec<String>) -> Result<Summary, Error> {
        check(&start.tracks)?;
        let mdat = host::reopen("mdat")?;
        let mut spools = Vec::new();
        for (track, position) in start.tracks.iter().zip(1..) {
            let name = spool_name(position);
            // Without media a crash came before all spools were made; with it, the index is lost.
            let made = outputs.contains(&name) || mdat.size() > MEDIA_HEADER.len() as u64;
            let spool = made.then(|| host::reopen(&name)).transpose()?;
            spools.push(Spool::open(spool, track.id)?);
        }
        if let Some(missing @ [_, ..]) =
            usize::try_from(mdat.size()).ok().and_then(|at| MEDIA_HEADER.get(at..))
        {
            mdat.append(missing, &[])?;
        }
        close(&start, &mdat, &spools, &[])
    }
}

/// Checks that the tracks fit, and gives their clocks.
fn check(tracks: &[Track]) -> Result<Vec<Clock>, Error> {
    if tracks.len() > MAX_TRACKS {
        return Err(Error::unsupported(format!("{} tracks; mp4 holds {MAX_TRACKS}", tracks.len())));
    }
    tracks.iter().map(|track| SampleEntry::parse(track)?.clock(track)).collect()
}

fn spool_name(position: usize) -> String {
    format!("track{position}")
}

#[cfg(not(feature = "library"))]
reelwright_sdk::export!(Mp4, recovery);

#[cfg(test)]
mod tests;
