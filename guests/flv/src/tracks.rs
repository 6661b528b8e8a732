//! What of a segment's tracks FLV can hold, and their times in the file.

use reelwright_codec::aac::AudioSpecificConfig;
use reelwright_codec::avc::{AvcConfig, Sps};
use reelwright_sdk::{Error, Sample, Timebase, Track};

use crate::tag::{Body, COMPOSITION_TIMES, Frame};

/// What is multiplied in 64 bits: 2000 times both, and a `den` of 32 bits, is less than 2^63.
const MAX_NARROW_NUM: u32 = 1 << 10;
const MAX_NARROW_TICKS: u64 = 1 << 41;

/// The two places that an FLV file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Video,
    Audio,
}

/// A video track, an audio track, or both, with codec configurations that were read without an error.
#[derive(Debug)]
pub(crate) struct Tracks {
    pub(crate) video: Option<Video>,
    pub(crate) audio: Option<Audio>,
    origin_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Video {
    pub(crate) track: Track,
    /// `None` if the sequence parameter set can't be read, which is no reason not to record it.
    pub(crate) sps: Option<Sps>,
}

#[derive(Debug)]
pub(crate) struct Audio {
    pub(crate) track: Track,
    pub(crate) config: AudioSpecificConfig,
}

impl Tracks {
    /// Checks the tracks. File times count from `origin_ms` on.
    pub(crate) fn new(tracks: Vec<Track>, origin_ms: i64) -> Result<Self, Error> {
        let (mut video, mut audio) = (None, None);
        for track in tracks {
            let taken = match (track.kind.as_str(), track.codec.as_str()) {
                ("video", "avc1") => video.as_ref().map(|v: &Video| v.track.id),
                ("audio", "mp4a") => audio.as_ref().map(|a: &Audio| a.track.id),
                (kind, codec) => {
                    return Err(Error::unsupported(format!(
                        "track {} is {kind} {codec}; FLV holds one avc1 video track and one mp4a audio track",
                        track.id
                    )));
                }
            };
            if let Some(first) = taken {
                return Err(Error::unsupported(format!(
                    "tracks {first} and {} are both {}; FLV holds one of each kind",
                    track.id, track.kind
                )));
            }
            if track.timebase.num == 0 || track.timebase.den == 0 {
                let Timebase { num, den } = track.timebase;
                return Err(Error::bad_input(format!("track {} has the timebase {num}/{den}", track.id)));
            }
            let bad_config = |e| Error::bad_input(format!("codec configuration of track {}: {e}", track.id));
            if track.codec == "avc1" {
                let config = AvcConfig::parse(&track.config).map_err(bad_config)?;
                let sps = config.sps.first().and_then(|sps| Sps::parse(sps).ok());
                video = Some(Video { track, sps });
            } else {
                let config = AudioSpecificConfig::parse(&track.config).map_err(bad_config)?;
                audio = Some(Audio { track, config });
            }
        }
        if video.is_none() && audio.is_none() {
            return Err(Error::unsupported("no tracks; FLV needs an avc1 video or an mp4a audio track"));
        }
        Ok(Self { video, audio, origin_ms })
    }

    /// The kind and timebase of the track with this number.
    fn find(&self, id: u32) -> Option<(Kind, Timebase)> {
        let video = self.video.as_ref().map(|v| (Kind::Video, &v.track));
        let audio = self.audio.as_ref().map(|a| (Kind::Audio, &a.track));
        let (kind, track) = [video, audio].into_iter().flatten().find(|(_, track)| track.id == id)?;
        Some((kind, track.timebase))
    }

    /// Whether samples of these tracks can go on in the same file: nothing new, nothing changed but
    /// properties.
    pub(crate) fn hold(&self, tracks: &[Track]) -> bool {
        let video = self.video.as_ref().map(|v| &v.track);
        let audio = self.audio.as_ref().map(|a| &a.track);
        tracks.iter().all(|new| {
            [video, audio].into_iter().flatten().any(|old| {
                (old.id, &old.kind, &old.codec, old.timebase, &old.config)
                    == (new.id, &new.kind, &new.codec, new.timebase, &new.config)
            })
        })
    }

    /// The tag that a sample goes into.
    ///
    /// Errors: `bad-input` for an unknown track, a time before the origin, and a composition time over 24
    /// bits; `limit` for what [`Frame::new`] refuses.
    pub(crate) fn frame(&self, sample: &Sample) -> Result<(Kind, Frame), Error> {
        let (kind, timebase) = self.find(sample.track).ok_or_else(|| {
            Error::bad_input(format!(
                "sample {} belongs to track {}, which was not announced",
                sample.seq, sample.track
            ))
        })?;
        let place = format_args!("sample {} of track {}", sample.seq, sample.track);
        let dts_ms = self.file_ms(sample.dts, timebase);
        if dts_ms < 0 {
            return Err(Error::bad_input(format!("{place}: {} ms before the segment's origin", -dts_ms)));
        }
        let body = match kind {
            Kind::Audio => Body::AacFrame,
            Kind::Video => {
                let composition_ms = self.file_ms(sample.pts, timebase) - dts_ms;
                let composition_time = i32::try_from(composition_ms)
                    .ok()
                    .filter(|time| COMPOSITION_TIMES.contains(time))
                    .ok_or_else(|| {
                        Error::bad_input(format!(
                            "{place}: composition time {composition_ms} ms, FLV holds {} to {}",
                            COMPOSITION_TIMES.start(),
                            COMPOSITION_TIMES.end()
                        ))
                    })?;
                Body::AvcFrame { key: sample.is_key(), composition_time }
            }
        };
        let time_ms = u64::try_from(dts_ms).unwrap_or(u64::MAX);
        let frame = Frame::new(body, sample.size, time_ms)
            .map_err(|e| Error { message: format!("{place}: {}", e.message), ..e })?;
        Ok((kind, frame))
    }

    /// The file time of a tick of a track, in milliseconds, for the end of that track; `None` for an unknown
    /// track.
    pub(crate) fn end_ms(&self, track: u32, ticks: i64) -> Option<u64> {
        let (_, timebase) = self.find(track)?;
        Some(u64::try_from(self.file_ms(ticks, timebase)).unwrap_or(0))
    }

    /// Milliseconds since the origin, rounded to the nearest. As the origin is a whole number of them,
    /// rounding never moves a sample before it.
    fn file_ms(&self, ticks: i64, timebase: Timebase) -> i128 {
        nearest_ms(ticks, timebase) - i128::from(self.origin_ms)
    }
}

/// Ticks in milliseconds, halves rounded up. `timebase.den` is not 0.
fn nearest_ms(ticks: i64, timebase: Timebase) -> i128 {
    // WebAssembly divides 128 bits bit by bit. Years of any usual clock take fewer.
    if timebase.num <= MAX_NARROW_NUM && ticks.unsigned_abs() <= MAX_NARROW_TICKS {
        let (num, den) = (ticks * i64::from(timebase.num) * 1000, i64::from(timebase.den));
        return (2 * num + den).div_euclid(2 * den).into();
    }
    let (num, den) = (i128::from(ticks) * i128::from(timebase.num) * 1000, i128::from(timebase.den));
    (2 * num + den).div_euclid(2 * den)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AAC_LC: [u8; 2] = [0x11, 0x90];

    fn track(id: u32, kind: &str, codec: &str, config: &[u8]) -> Track {
        Track {
            id,
            kind: kind.into(),
            codec: codec.into(),
            timebase: Timebase { num: 1, den: 1000 },
            config: config.into(),
            properties: Vec::new(),
        }
    }

    #[test]
    fn tracks_that_do_not_fit_are_named() {
        let aac = || track(2, "audio", "mp4a", &AAC_LC);
        let zero = Track { timebase: Timebase { num: 1, den: 0 }, ..aac() };
        let table = [
            (vec![], "unsupported: no tracks; FLV needs an avc1 video or an mp4a audio track"),
            (
                vec![aac(), track(3, "video", "hvc1", &[])],
                "unsupported: track 3 is video hvc1; FLV holds one avc1 video track and one mp4a audio track",
            ),
            (
                vec![aac(), Track { id: 7, ..aac() }],
                "unsupported: tracks 2 and 7 are both audio; FLV holds one of each kind",
            ),
            (
                vec![track(1, "video", "avc1", &[1, 100])],
                "bad-input: codec configuration of track 1: AVCDecoderConfigurationRecord: cut short at 2 bytes",
            ),
            (
                vec![track(2, "audio", "mp4a", &[])],
                "bad-input: codec configuration of track 2: AudioSpecificConfig: ends at byte 0",
            ),
            (vec![zero], "bad-input: track 2 has the timebase 1/0"),
        ];
        for (tracks, expected) in table {
            let error = Tracks::new(tracks, 0).unwrap_err();
            assert_eq!(format!("{}: {}", error.code, error.message), expected);
        }
    }

    #[test]
    fn times_are_rounded_to_the_nearest_millisecond_of_the_file() {
        let tracks = Tracks::new(vec![track(2, "audio", "mp4a", &AAC_LC)], 1000).unwrap();
        let ms = |ticks, num, den| tracks.file_ms(ticks, Timebase { num, den });
        assert_eq!(ms(1000, 1, 1000), 0);
        assert_eq!(ms(48_000 + 1024, 1, 48_000), 21); // 21.33
        assert_eq!(ms(30 + 1, 1001, 30_000), 34); // 1034.37 - 1000
        assert_eq!(ms(90_000 + 45, 1, 90_000), 1); // 0.5
        assert_eq!(ms(-1, 1, 1000), -1001);
        // As exact at the bounds of what is divided in 64 bits, and beyond.
        let bound = MAX_NARROW_TICKS as i64;
        for ticks in [0, 1, bound - 1, bound, bound + 1, i64::MAX].into_iter().flat_map(|t| [-t, t]) {
            for (num, den) in [(1, 1), (1, u32::MAX), (MAX_NARROW_NUM, 90_000), (MAX_NARROW_NUM + 1, 90_000)]
            {
                let (time, den_wide) = (i128::from(ticks) * i128::from(num) * 1000, i128::from(den));
                let (whole, rest) = (time.div_euclid(den_wide), time.rem_euclid(den_wide));
                assert_eq!(ms(ticks, num, den), whole + i128::from(2 * rest >= den_wide) - 1000);
            }
        }
        assert_eq!(ms(i64::MAX, u32::MAX, 1), i128::from(i64::MAX) * i128::from(u32::MAX) * 1000 - 1000);
    }

    #[test]
    fn only_new_or_changed_tracks_need_a_new_file() {
        let tracks = Tracks::new(vec![track(2, "audio", "mp4a", &AAC_LC)], 0).unwrap();
        let mut again = track(2, "audio", "mp4a", &AAC_LC);
        again.properties.push(reelwright_sdk::Property { key: "bit-rate".into(), value: "1".into() });
        assert!(tracks.hold(&[again.clone()]));
        assert!(!tracks.hold(&[again.clone(), track(1, "video", "avc1", &[])]));
        assert!(!tracks.hold(&[Track { config: vec![0x12, 0x10], ..again.clone() }]));
        assert!(!tracks.hold(&[Track { timebase: Timebase { num: 1, den: 90_000 }, ..again }]));
    }
}
