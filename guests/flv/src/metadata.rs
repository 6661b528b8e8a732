//! The body of the `onMetaData` script tag: Adobe Flash Video File Format Specification 10.1, annex E.5, and
//! the further keys that players and tools agree on (`keyframes`, `hasKeyframes`, `lasttimestamp`, …).
//!
//! Its size depends on the tracks and the index's capacity alone, so a file can be closed by overwriting it:
//! numbers that the index does not use are zeros in a last property, `filler`. Arrays of numbers are what
//! readers of an index have to understand anyway; long strings, nulls and arrays of texts trip some of them.

use reelwright_sdk::Track;

use crate::amf::{self, Properties};
use crate::index::Entry;
use crate::tracks::{Audio, Tracks, Video};

const CODEC_ID_AVC: f64 = 7.0;
const CODEC_ID_AAC: f64 = 10.0;

/// What is known only when the file is closed; all zeros until then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals<'a> {
    pub(crate) duration_ms: u64,
    pub(crate) file_size: u64,
    pub(crate) last_ms: u32,
    pub(crate) last_key_ms: u32,
    /// Whether the last video tag is a key frame.
    pub(crate) ends_with_key: bool,
    /// At most the capacity.
    pub(crate) index: &'a [Entry],
}

/// What is known from the start on.
#[derive(Debug)]
pub(crate) struct Metadata {
    video: Option<VideoMetadata>,
    audio: Option<AudioMetadata>,
    creation_date: String,
    /// Entries that the index has room for; none without video.
    capacity: usize,
}

/// The script tag's body. The filler is most of it, so its zeros are only counted.
#[derive(Debug)]
pub(crate) struct Script {
    /// All that depends on the totals.
    pub(crate) front: Vec<u8>,
    zeros: usize,
    end: Vec<u8>,
}

#[derive(Debug)]
struct VideoMetadata {
    size: Option<(f64, f64)>,
    frame_rate: Option<f64>,
    data_rate: Option<f64>,
}

#[derive(Debug)]
struct AudioMetadata {
    sample_rate: f64,
    stereo: bool,
    data_rate: Option<f64>,
}

impl Metadata {
    pub(crate) fn new(epoch_us: i64, tracks: &Tracks, capacity: usize) -> Self {
        Self {
            video: tracks.video.as_ref().map(VideoMetadata::new),
            audio: tracks.audio.as_ref().map(AudioMetadata::new),
            creation_date: iso_8601(epoch_us),
            capacity: if tracks.video.is_some() { capacity } else { 0 },
        }
    }

    /// Entries that the index has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The script tag's body; of one size, whatever the totals.
    pub(crate) fn render(&self, totals: &Totals<'_>) -> Script {
        let mut bytes = Vec::new();
        amf::string(&mut bytes, "onMetaData");
        let mut array = Properties::ecma_array(&mut bytes);
        array.number("duration", seconds(totals.duration_ms));
        array.number("filesize", totals.file_size as f64);
        if let Some(video) = &self.video {
            video.write(&mut array);
        }
        if let Some(audio) = &self.audio {
            audio.write(&mut array);
        }
        array.string("creationdate", &self.creation_date);
        array.boolean("hasMetadata", true);
        array.boolean("hasVideo", self.video.is_some());
        array.boolean("hasAudio", self.audio.is_some());
        // The AVC sequence header is a key frame by its FrameType.
        array.boolean("hasKeyframes", self.video.is_some());
        array.number("lasttimestamp", seconds(totals.last_ms.into()));
        if self.video.is_some() {
            array.number("lastkeyframetimestamp", seconds(totals.last_key_ms.into()));
            array.boolean("canSeekToEnd", totals.ends_with_key);
        }
        let zeros = if self.capacity > 0 { write_index(&mut array, totals.index, self.capacity) } else { 0 };
        let front = array.position();
        array.end();
        let end = bytes.split_off(front);
        Script { front: bytes, zeros: zeros * amf::NUMBER_LEN, end }
    }
}

impl Script {
    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.front.len() + self.zeros + self.end.len()
    }

    /// The body part by part; none is long but for the index.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        static ZEROS: [u8; 8192] = [0; 8192];
        let steps = (0..self.zeros).step_by(ZEROS.len());
        let zeros = steps.map(|at| &ZEROS[..(self.zeros - at).min(ZEROS.len())]);
        std::iter::once(&*self.front).chain(zeros).chain([&*self.end])
    }
}

impl VideoMetadata {
    fn new(Video { track, sps }: &Video) -> Self {
        let said = || positive(track, "width").zip(positive(track, "height"));
        Self {
            size: sps.map(|sps| (sps.width.into(), sps.height.into())).or_else(said),
            frame_rate: positive(track, "frame-rate"),
            data_rate: kilobits(track),
        }
    }

    fn write(&self, array: &mut Properties<'_>) {
        if let Some((width, height)) = self.size {
            array.number("width", width);
            array.number("height", height);
        }
        if let Some(rate) = self.frame_rate {
            array.number("framerate", rate);
        }
        if let Some(rate) = self.data_rate {
            array.number("videodatarate", rate);
        }
        array.number("videocodecid", CODEC_ID_AVC);
    }
}

impl AudioMetadata {
    fn new(Audio { track, config }: &Audio) -> Self {
        Self {
            sample_rate: config.extension_sampling_rate.unwrap_or(config.sampling_rate).into(),
            stereo: config.parametric_stereo || config.channels() != Some(1),
            data_rate: kilobits(track),
        }
    }

    fn write(&self, array: &mut Properties<'_>) {
        array.number("audiosamplerate", self.sample_rate);
        array.number("audiosamplesize", 16.0);
        array.boolean("stereo", self.stereo);
        if let Some(rate) = self.data_rate {
            array.number("audiodatarate", rate);
        }
        array.number("audiocodecid", CODEC_ID_AAC);
    }
}

/// The `keyframes` object and the filler: three arrays that together have two numbers for each of `capacity`
/// entries. The filler's zeros are not written, but returned as a count.
///
/// Readers take an index of fewer than two entries for a broken one. It is no use either, so until there
/// are two, the object is empty and has a name as long that nobody looks for.
fn write_index(array: &mut Properties<'_>, entries: &[Entry], capacity: usize) -> usize {
    let (name, entries) = if entries.len() < 2 { ("unindexed", &[][..]) } else { ("keyframes", entries) };
    let mut keyframes = array.object(name);
    keyframes.numbers("filepositions", entries.iter().map(|e| e.offset as f64));
    keyframes.numbers("times", entries.iter().map(|e| seconds(e.time_ms.into())));
    keyframes.end();
    let zeros = (capacity - entries.len()) * 2;
    array.zeros("filler", zeros);
    zeros
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A property of a track that is a positive number.
fn positive(track: &Track, key: &str) -> Option<f64> {
    let property = track.properties.iter().find(|p| p.key == key)?;
    property.value.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0)
}

fn kilobits(track: &Track) -> Option<f64> {
    positive(track, "bit-rate").map(|bits| bits / 1000.0)
}

/// Date and time of day of a Unix time, in UTC and to the millisecond.
fn iso_8601(epoch_us: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let ms = epoch_us.div_euclid(1000);
    let (day, ms) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));

    // Years are counted from 1 March 0000, so that a leap day ends its year. Day 0 of that count is 719,468
    // days before 1970. An era of 400 years has 146,097 days, a century 36,524 (the last one more), four
    // years 1,461 (the last of a century one less), a year 365 (the last of four one more).
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let century = (day / 36_524).min(3);
    let day = day - century * 36_524;
    let (leap_cycle, day) = (day / 1461, day % 1461);
    let year_of_cycle = (day / 365).min(3);
    let day = day - year_of_cycle * 365;

    // From March on, months of 31, 30, 31, 30, 31 days repeat: 153 days in five months.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + century * 100 + leap_cycle * 4 + year_of_cycle + i64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };

    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let ms = ms % 1000;
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(capacity: usize) -> Metadata {
        Metadata {
            video: Some(VideoMetadata { size: Some((1280.0, 720.0)), frame_rate: None, data_rate: None }),
            audio: Some(AudioMetadata { sample_rate: 48_000.0, stereo: true, data_rate: Some(128.0) }),
            creation_date: iso_8601(0),
            capacity,
        }
    }

    fn entries(count: u32) -> Vec<Entry> {
        (0..count).map(|i| Entry { time_ms: i * 500, offset: u64::from(i) << 33 }).collect()
    }

    #[test]
    fn the_size_is_one_for_every_number_of_entries() {
        for capacity in [0, 1, 2, 3, 4, 5, 100] {
            let metadata = metadata(capacity as usize);
            let size = metadata.render(&Totals::default()).len();
            for count in 0..=capacity {
                let entries = entries(count);
                let totals = Totals { index: &entries, duration_ms: 77, ..Totals::default() };
                let script = metadata.render(&totals);
                let parts: usize = script.parts().map(<[u8]>::len).sum();
                assert_eq!((script.len(), parts), (size, size), "{count} of {capacity}");
            }
        }
    }

    #[test]
    fn the_filler_takes_what_entries_leave() {
        let numbers = |capacity, count| {
            let mut buf = Vec::new();
            write_index(&mut Properties::ecma_array(&mut buf), &entries(count), capacity);
            // The count of the array with this name.
            let len = |name: &str| {
                let key = [&[name.len() as u8], name.as_bytes(), &[0x0a]].concat();
                let at = buf.windows(key.len()).position(|w| w == key).unwrap() + key.len();
                u32::from_be_bytes(buf[at..at + 4].try_into().unwrap())
            };
            (buf[7..16] == *b"keyframes", len("filepositions"), len("times"), len("filler"))
        };
        assert_eq!(numbers(4, 0), (false, 0, 0, 8));
        assert_eq!(numbers(4, 1), (false, 0, 0, 8));
        assert_eq!(numbers(4, 2), (true, 2, 2, 4));
        assert_eq!(numbers(4, 3), (true, 3, 3, 2));
        assert_eq!(numbers(4, 4), (true, 4, 4, 0));
        assert_eq!(numbers(1, 1), (false, 0, 0, 2));
    }

    #[test]
    fn the_largest_index_fits_a_tag() {
        let body = metadata(65_536).render(&Totals::default());
        assert!(body.len() < 0xff_ffff, "{}", body.len());
    }

    #[test]
    fn properties_fill_in_what_configurations_do_not_say() {
        let track = |properties: &[(&str, &str)]| Track {
            id: 1,
            kind: "video".into(),
            codec: "avc1".into(),
            timebase: reelwright_sdk::Timebase { num: 1, den: 1000 },
            config: Vec::new(),
            properties: properties
                .iter()
                .map(|&(key, value)| reelwright_sdk::Property { key: key.into(), value: value.into() })
                .collect(),
        };
        let of = |properties: &[(&str, &str)]| {
            let video = VideoMetadata::new(&Video { track: track(properties), sps: None });
            (video.size, video.frame_rate, video.data_rate)
        };
        assert_eq!(
            of(&[("width", "640"), ("height", "360"), ("frame-rate", "29.97"), ("bit-rate", "2500000")]),
            (Some((640.0, 360.0)), Some(29.97), Some(2500.0))
        );
        assert_eq!(of(&[("width", "640"), ("height", "-1"), ("frame-rate", "inf")]), (None, None, None));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_603_200, "2024-12-31T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (-2_203_891_200, "1900-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(iso_8601(seconds * 1_000_000), expected);
        }
        assert_eq!(iso_8601(1_234_999), "1970-01-01T00:00:01.234Z");
        iso_8601(i64::MIN);
        iso_8601(i64::MAX);
    }
}
