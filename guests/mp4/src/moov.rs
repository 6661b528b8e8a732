//! The boxes in front of the media: `ftyp` and `moov`, with gaps for the sample tables.

use reelwright_sdk::{Error, Start, parse_flag};

use crate::{
    boxes::Boxes,
    edit::{self, Edit},
    entry::SampleEntry,
    pass::Totals,
    tables::{Places, TABLES, Table, Tally},
    timeline::Clock,
};

/// From 1904-01-01, where the times of ISO BMFF begin, to 1970-01-01, in seconds.
const EPOCH: i64 = 2_082_844_800;

const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];

/// All that `moov` says, but for the rows of the tables.
#[derive(Debug)]
pub(crate) struct Movie<'a> {
    /// Seconds since 1904.
    created: u64,
    /// 32-bit times in `mvhd`, `tkhd` and `mdhd`, for old readers.
    short_times: bool,
    pub(crate) tracks: Vec<MovieTrack<'a>>,
}

/// A track and what the counting pass found.
#[derive(Debug)]
pub(crate) struct MovieTrack<'a> {
    /// Its place in `start.tracks`.
    pub(crate) position: usize,
    pub(crate) entry: SampleEntry<'a>,
    /// As it is before the first sample.
    pub(crate) clock: Clock,
    /// The `dts` at which the track ends, if anybody knows.
    pub(crate) end: Option<i64>,
    pub(crate) totals: Totals,
    pub(crate) tally: Tally,
    pub(crate) edit: Edit,
}

/// The boxes, and where the tables of each track go. `boxes.position()` is their size.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) boxes: Boxes,
    pub(crate) places: Vec<Places>,
}

impl<'a> Movie<'a> {
    /// Puts the tracks in order and in their places. Those without samples are left out, unless there would be
    /// none at all.
    pub(crate) fn new(start: &Start, mut tracks: Vec<MovieTrack<'a>>) -> Result<Self, Error> {
        if tracks.iter().any(|t| t.totals.samples > 0) {
            tracks.retain(|t| t.totals.samples > 0);
        }
        tracks.sort_by_key(|t| !t.entry.is_video());
        let begins = tracks.iter().filter_map(|t| edit::begins_ms(&t.totals, &t.clock));
        let movie_ms = begins.fold(start.origin_ms, i64::min);
        for track in &mut tracks {
            track.edit = Edit::new(&track.totals, &track.clock, movie_ms);
        }
        let created = start.epoch_us.div_euclid(1_000_000) + EPOCH;
        Ok(Self {
            created: created.max(0).unsigned_abs(),
            short_times: parse_flag(start, "win-qt-compat")?,
            tracks,
        })
    }

    /// Length of the longest track, in ms.
    pub(crate) fn duration_ms(&self) -> u64 {
        self.tracks.iter().map(|t| t.edit.duration_ms()).max().unwrap_or(0)
    }

    /// Samples of all tracks.
    pub(crate) fn samples(&self) -> u64 {
        self.tracks.iter().map(|t| u64::from(t.totals.samples)).sum()
    }

    /// Lays out `ftyp` and `moov`, with `co64` or `stco`.
    pub(crate) fn layout(&self, co64: bool) -> Layout {
        let mut boxes = Boxes::default();
        let mut places = Vec::new();
        // Signed offsets came with version 4 of the base format.
        let signed = self.tracks.iter().any(|t| t.lowest_composition() < 0);
        let b = &mut boxes;
        b.plain(b"ftyp", |b| {
            b.raw(b"isom"); // major_brand
            b.u32(0x200); // minor_version
            b.raw(if signed { b"isomiso2iso4avc1mp41" } else { b"isomiso2avc1mp41" });
        });
        b.plain(b"moov", |b| {
            self.mvhd(b);
            for (track, id) in self.tracks.iter().zip(1..) {
                b.plain(b"trak", |b| {
                    self.tkhd(b, track, id);
                    track.edit.write(b);
                    b.plain(b"mdia", |b| {
                        self.mdhd(b, track);
                        track.hdlr(b);
                        places.push(track.minf(b, co64));
                    });
                });
            }
        });
        Layout { boxes, places }
    }

    fn full(&self, b: &mut Boxes, kind: &[u8; 4], flags: u32, content: impl FnOnce(&mut Boxes)) {
        b.full(kind, if self.short_times { 0 } else { 1 }, flags, content);
    }

    fn time(&self, b: &mut Boxes, time: u64) {
        if self.short_times { b.u32(u32::try_from(time).unwrap_or(u32::MAX)) } else { b.u64(time) }
    }

    fn mvhd(&self, b: &mut Boxes) {
        self.full(b, b"mvhd", 0, |b| {
            self.time(b, self.created); // creation_time
            self.time(b, self.created); // modification_time
            b.u32(1000); // timescale
            self.time(b, self.duration_ms());
            b.u32(0x0001_0000); // rate
            b.u16(0x0100); // volume
            b.zeros(10); // reserved
            MATRIX.iter().for_each(|&value| b.u32(value));
            b.zeros(24); // pre_defined
            b.u32(self.tracks.len() as u32 + 1); // next_track_ID
        });
    }

    fn tkhd(&self, b: &mut Boxes, track: &MovieTrack<'_>, id: u32) {
        let video = track.entry.is_video();
        self.full(b, b"tkhd", 3, |b| {
            // Flags: enabled, in the movie.
            self.time(b, self.created); // creation_time
            self.time(b, self.created); // modification_time
            b.u32(id); // track_ID
            b.u32(0); // reserved
            self.time(b, track.edit.duration_ms());
            b.zeros(8); // reserved
            b.u16(0); // layer
            b.u16(if video { 0 } else { 1 }); // alternate_group: of several sounds one is played
            b.u16(if video { 0 } else { 0x0100 }); // volume
            b.u16(0); // reserved
            MATRIX.iter().for_each(|&value| b.u32(value));
            let (width, height) = track.entry.presentation_size();
            b.u32(width);
            b.u32(height);
        });
    }

    fn mdhd(&self, b: &mut Boxes, track: &MovieTrack<'_>) {
        self.full(b, b"mdhd", 0, |b| {
            self.time(b, self.created); // creation_time
            self.time(b, self.created); // modification_time
            b.u32(track.clock.timescale());
            self.time(b, track.totals.duration.unsigned_abs());
            b.u16(0x55c4); // language: und
            b.u16(0); // pre_defined
        });
    }
}

impl MovieTrack<'_> {
    fn lowest_composition(&self) -> i64 {
        i64::from(self.totals.composition.0) + self.edit.shift
    }

    fn hdlr(&self, b: &mut Boxes) {
        let (kind, name) = if self.entry.is_video() {
            (b"vide", &b"VideoHandler\0"[..])
        } else {
            (b"soun", &b"SoundHandler\0"[..])
        };
        b.full(b"hdlr", 0, 0, |b| {
            b.u32(0); // pre_defined
            b.raw(kind);
            b.zeros(12); // reserved
            b.raw(name);
        });
    }

    fn minf(&self, b: &mut Boxes, co64: bool) -> Places {
        let mut places = Places::default();
        b.plain(b"minf", |b| {
            if self.entry.is_video() {
                b.full(b"vmhd", 0, 1, |b| b.zeros(8)); // graphicsmode, opcolor
            } else {
                b.full(b"smhd", 0, 0, |b| b.zeros(4)); // balance, reserved
            }
            b.plain(b"dinf", |b| {
                b.full(b"dref", 0, 0, |b| {
                    b.u32(1); // entry_count
                    b.full(b"url ", 0, 1, |_| {}); // in this file
                });
            });
            b.plain(b"stbl", |b| places = self.stbl(b, co64));
        });
        places
    }

    fn stbl(&self, b: &mut Boxes, co64: bool) -> Places {
        let mut places = [None; TABLES];
        let mut table = |b: &mut Boxes, table: Table, kind: &[u8; 4], version: u8, before: &[u32]| {
            let rows = self.tally.rows(table);
            b.full(kind, version, 0, |b| {
                before.iter().for_each(|&field| b.u32(field));
                b.u32(rows); // entry_count
                let size = u64::from(rows) * table.row_size(co64);
                let position = b.gap(size);
                places[table as usize] = Some((position, position + size));
            });
        };
        b.full(b"stsd", 0, 0, |b| {
            b.u32(1); // entry_count
            self.entry.write(b, self.totals.rates);
        });
        table(b, Table::Stts, b"stts", 0, &[]);
        let lowest = self.lowest_composition();
        let highest = i64::from(self.totals.composition.1) + self.edit.shift;
        if (lowest, highest) != (0, 0) {
            table(b, Table::Ctts, b"ctts", u8::from(lowest < 0), &[]);
        }
        if self.entry.is_video() && self.totals.keys < self.totals.samples {
            table(b, Table::Stss, b"stss", 0, &[]);
        }
        table(b, Table::Stsc, b"stsc", 0, &[]);
        table(b, Table::Stsz, b"stsz", 0, &[0]); // sample_size: each its own
        table(b, Table::Stco, if co64 { b"co64" } else { b"stco" }, 0, &[]);
        places
    }
}
