//! A stream as publishers send it: 2.5 Mb/s, H.264 at 30 frames a second with a key frame each 2 s, and AAC at
//! 48 kHz. The same in each run.

use bytes::Bytes;
use reelwright::media::{Kind, Sample, Track};

pub(crate) const VIDEO: u32 = 1;
pub(crate) const AUDIO: u32 = 2;

/// Frames a second, and from key frame to key frame.
const FRAME_RATE: i64 = 30;
const GOP: i64 = 60;
/// Bytes of a frame: 120 kB and 59 times 8.6 kB are 2 s of 2.5 Mb/s.
const KEY_FRAME: usize = 120_000;
const FRAME: usize = 8_600;
/// AAC frames have 1,024 of 48,000 samples a second, and these bytes at 128 kb/s.
const AUDIO_SAMPLES: i64 = 1024;
const AUDIO_RATE: i64 = 48_000;
const AUDIO_FRAME: usize = 341;

/// 1280x720, main profile, level 3.1, made with libx264.
const AVC: &[u8] = &[
    0x01, // configurationVersion
    0x4d, 0x40, 0x1f, // AVCProfileIndication, profile_compatibility, AVCLevelIndication
    0xff, // lengthSizeMinusOne = 3
    0xe1, // one SPS
    0x00, 0x17, //
    0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80, 0x28, 0x02, 0xdd, 0x80, 0xb5, 0x01, 0x01, 0x01, 0x40, 0x00, 0x00,
    0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, //
    0x01, // one PPS
    0x00, 0x04, 0x68, 0xeb, 0xef, 0x20,
];
/// AAC-LC, 48 kHz, stereo.
const AAC: &[u8] = &[0x11, 0x90];

/// What the samples' payloads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Frames of the usual size, each in memory of its own.
    Real,
    /// A few bytes a frame, for streams of hours.
    Tiny,
}

/// The tracks.
pub(crate) fn tracks() -> Vec<Track> {
    let track = |id, kind, codec: &str, config| Track {
        id,
        kind,
        codec: codec.into(),
        config: Bytes::from_static(config),
        properties: Vec::new(),
    };
    vec![track(VIDEO, Kind::Video, "avc1", AVC), track(AUDIO, Kind::Audio, "mp4a", AAC)]
}

/// The samples of that many seconds, in the order of their times.
pub(crate) fn samples(seconds: i64, payload: Payload) -> Vec<Sample> {
    let mut fill = Fill(1);
    let video = (0..seconds * FRAME_RATE).map(|frame| {
        let dts_ms = frame * 1000 / FRAME_RATE;
        // Two B-frames after each other frame.
        let pts_ms = dts_ms + [33, 100, 0][(frame % 3) as usize];
        (VIDEO, dts_ms, pts_ms, frame % GOP == 0)
    });
    let audio = (0..seconds * AUDIO_RATE / AUDIO_SAMPLES).map(|frame| {
        let dts_ms = frame * AUDIO_SAMPLES * 1000 / AUDIO_RATE;
        (AUDIO, dts_ms, dts_ms, true)
    });
    let mut all: Vec<_> = video.chain(audio).collect();
    all.sort_by_key(|&(track, dts_ms, ..)| (dts_ms, track));
    all.into_iter()
        .map(|(track, dts_ms, pts_ms, key)| {
            let size = match (payload, track, key) {
                // Sizes differ, as real ones do: a format may have a short form for equal ones.
                (Payload::Tiny, ..) => 16 + (dts_ms % 7) as usize,
                (Payload::Real, VIDEO, true) => KEY_FRAME,
                (Payload::Real, VIDEO, false) => FRAME,
                (Payload::Real, ..) => AUDIO_FRAME,
            };
            let data = if track == VIDEO { access_unit(&mut fill, size, key) } else { fill.bytes(size) };
            Sample { track, dts_ms, pts_ms, key, discontinuity: false, data: data.into() }
        })
        .collect()
}

/// By track, the time after its last sample.
pub(crate) fn ends(seconds: i64) -> Vec<(u32, i64)> {
    vec![(VIDEO, seconds * 1000), (AUDIO, seconds * 1000)]
}

/// One slice behind its length.
fn access_unit(fill: &mut Fill, size: usize, key: bool) -> Vec<u8> {
    let mut bytes = fill.bytes(size);
    let length = u32::try_from(size - 4).expect("a frame is small");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4] = if key { 0x65 } else { 0x41 };
    bytes
}

/// Bytes that look like coded media: nothing repeats (xorshift64).
struct Fill(u64);

impl Fill {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}
