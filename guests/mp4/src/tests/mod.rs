//! What the tests have in common: tracks and whole recordings.

mod files;
mod reader;

use reelwright_sdk::{
    End, Error, Property, Sample, Start, Summary, Timebase, Track, TrackEnd,
    mock::{Files, Harness},
};

use crate::Mp4;

/// libx264, 1280x720, main profile, from an FLV of FFmpeg 5.1.
const AVC_720P: &[u8] = &[
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

/// FFmpeg's AAC-LC, 48 kHz stereo, with its sync extension.
const AAC_48K: &[u8] = &[0x11, 0x90, 0x56, 0xe5, 0x00];

/// An H.264 track in milliseconds.
pub(crate) fn video(id: u32) -> Track {
    Track {
        id,
        kind: "video".into(),
        codec: "avc1".into(),
        timebase: Timebase { num: 1, den: 1000 },
        config: AVC_720P.to_vec(),
        properties: Vec::new(),
    }
}

/// An AAC track in milliseconds.
pub(crate) fn audio(id: u32) -> Track {
    Track { kind: "audio".into(), codec: "mp4a".into(), config: AAC_48K.to_vec(), ..video(id) }
}

/// A segment that begins at 500 ms, on 2024-01-01.
pub(crate) fn start(tracks: impl Into<Vec<Track>>) -> Start {
    Start {
        segment: 0,
        epoch_us: 1_704_067_200_000_000,
        origin_ms: 500,
        head_room: 0,
        head_align: 1,
        tracks: tracks.into(),
        options: vec![Property { key: "win-qt-compat".into(), value: "0".into() }],
        carry: Vec::new(),
    }
}

/// A sample without a payload; the harness fills in number and size.
pub(crate) fn sample(track: u32, dts: i64, pts: i64, key: bool) -> Sample {
    Sample { seq: 0, dts, pts, duration: 0, track, size: 0, bits: u32::from(key) }
}

/// A segment and everything that is fed to it.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) start: Start,
    pub(crate) samples: Vec<(Sample, Vec<u8>)>,
    pub(crate) ends: Vec<TrackEnd>,
}

impl Recording {
    /// A segment of these samples; payloads are made up, each another size.
    pub(crate) fn new(tracks: impl Into<Vec<Track>>, samples: impl IntoIterator<Item = Sample>) -> Self {
        let samples = samples.into_iter().zip(0u8..=u8::MAX).map(|(sample, i)| {
            let payload = (0..i % 29).map(|byte| byte ^ i).collect();
            (sample, payload)
        });
        Self { start: start(tracks), samples: samples.collect(), ends: Vec::new() }
    }

    /// Sets where a track ends.
    pub(crate) fn end(mut self, track: u32, dts: i64) -> Self {
        self.ends.push(TrackEnd { track, dts });
        self
    }

    /// Feeds the samples, so many at a time.
    pub(crate) fn record(&self, batch: usize) -> Result<Harness<Mp4>, Error> {
        let mut harness = Harness::open(self.start.clone())?;
        let samples: Vec<_> = self.samples.iter().map(|(sample, payload)| (*sample, &payload[..])).collect();
        samples.chunks(batch).try_for_each(|batch| harness.write(batch))?;
        Ok(harness)
    }

    /// Feeds the samples and finishes.
    pub(crate) fn finish(&self, batch: usize) -> Result<(Summary, Files), Error> {
        let ends = self.ends.clone();
        self.record(batch)?.finish(End { reason: "stopped".into(), tracks: ends, properties: Vec::new() })
    }

    /// The finished file.
    pub(crate) fn file(&self) -> Vec<u8> {
        self.finish(64).expect("a recording that can be finished").1.main()
    }
}
