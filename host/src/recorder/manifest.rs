//! The manifest of a segment: a JSON file beside it that says what is in it, what is not, and by what hash to know it.
//!
//! `X.mp4.json` beside `X.mp4`, if the recording asked for it by `manifest=1`. Times are of the run (milliseconds
//! since its first sample) and, where they say so, of the wall clock (RFC 3339, UTC). `reelwright verify` checks
//! a file against it.

use std::{io::Read, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    format::Version,
    media::{Kind, Sample},
    output::journal::Start,
};

/// The layout's version.
pub const VERSION: u32 = 1;
/// Gaps and repairs that are listed; more are counted.
pub const MAX_GAPS: usize = 1000;

/// What is known of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    pub manifest_version: u32,
    /// File name.
    pub file: String,
    pub bytes: u64,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
    pub format: String,
    /// The component that closed the file: version and SHA-256.
    pub component_version: String,
    pub component_sha256: String,
    pub config_id: u64,
    pub local_stream_name: String,
    /// Number in the run, from 0.
    pub segment: u64,
    /// Why it began, if for no usual reason: `failover`, where the segment before lost its writer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub begun_by: String,
    /// Why it ended: `cut`, `stopped`, `stream-ended`, `error`, `recovered`.
    pub reason: String,
    pub start: Moment,
    pub end: Moment,
    pub tracks: Vec<Track>,
    /// What should be in the segment, or between it and the one before, and is not; and where times were mended.
    pub gaps: Vec<Gap>,
    /// Gaps that are not listed.
    pub more_gaps: u64,
    /// If the segment lost its writer and was repaired.
    pub repair: Option<Repair>,
}

/// A point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Moment {
    /// RFC 3339, UTC.
    pub wall_clock: String,
    /// Milliseconds of the run.
    pub stream_ms: i64,
}

impl Moment {
    /// From microseconds since 1970, and milliseconds of the run.
    pub fn new(epoch_us: i64, stream_ms: i64) -> Self {
        let wall_clock = Timestamp::from_microsecond(epoch_us).map(|t| t.to_string()).unwrap_or_default();
        Self { wall_clock, stream_ms }
    }
}

/// A track of the segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Track {
    pub id: u32,
    pub kind: String,
    pub codec: String,
    pub frames: u64,
    /// Of payload.
    pub bytes: u64,
    pub key_frames: u64,
    /// DTS of the first and of the last frame, in milliseconds of the run.
    pub first_ms: i64,
    pub last_ms: i64,
}

/// A stretch that is missing, or whose times were moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gap {
    pub reason: String,
    /// Milliseconds of the run.
    pub from_ms: i64,
    pub to_ms: i64,
    /// What was left out.
    pub samples: u64,
    pub bytes: u64,
}

/// What a repair found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Repair {
    /// Samples that were saved, over all tracks.
    pub samples: u64,
    pub lost_bytes: u64,
    pub lost_ms: u64,
    pub damaged: bool,
}

impl Manifest {
    /// What is known from the start of a segment that this component closes.
    pub fn begin(version: &Version, start: &Start) -> Self {
        Self {
            manifest_version: VERSION,
            file: start.file.clone(),
            format: start.format.clone(),
            component_version: version.manifest.version.clone(),
            component_sha256: version.sha256.clone(),
            config_id: start.config_id,
            local_stream_name: start.stream.clone(),
            segment: start.segment,
            start: Moment::new(start.epoch_us, start.origin_ms),
            ..Self::default()
        }
    }

    /// As text.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain data is valid JSON");
        text.push(b'\n');
        text
    }
}

/// Counts what goes into a segment.
#[derive(Clone, Debug, Default)]
pub struct Tally(Vec<Track>);

impl Tally {
    /// For these tracks.
    pub fn new(tracks: &[crate::media::Track]) -> Self {
        let track = |t: &crate::media::Track| Track {
            id: t.id,
            kind: t.kind.as_str().into(),
            codec: t.codec.clone(),
            ..Track::default()
        };
        Self(tracks.iter().map(track).collect())
    }

    /// A sample was written.
    pub fn add(&mut self, sample: &Sample) {
        let Some(track) = self.0.iter_mut().find(|t| t.id == sample.track) else { return };
        if track.frames == 0 {
            track.first_ms = sample.dts_ms;
        }
        track.frames += 1;
        track.bytes += sample.data.len() as u64;
        track.key_frames += u64::from(sample.key && track.kind == Kind::Video.as_str());
        track.last_ms = sample.dts_ms;
    }

    /// Of payload, over all tracks.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|track| track.bytes).sum()
    }

    /// What was counted.
    pub fn tracks(&self) -> &[Track] {
        &self.0
    }
}

/// How a file differs from its manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("it has {found} bytes, its manifest says {expected}")]
    Size { found: u64, expected: u64 },
    #[error("its SHA-256 is {found}, its manifest says {expected}")]
    Hash { found: String, expected: String },
}

/// Compares a file with its manifest. Errors are those of reading it.
pub fn verify(file: &Path, manifest: &Manifest) -> std::io::Result<Result<(), Difference>> {
    let mut file = std::fs::File::open(file)?;
    let found = file.metadata()?.len();
    if found != manifest.bytes {
        return Ok(Err(Difference::Size { found, expected: manifest.bytes }));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let found = crate::output::hex(&hasher.finalize());
    Ok(match found == manifest.sha256 {
        true => Ok(()),
        false => Err(Difference::Hash { found, expected: manifest.sha256.clone() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let manifest = Manifest { bytes: 3, sha256: sha256.into(), ..Manifest::default() };
        assert_eq!(verify(&path, &manifest).unwrap(), Ok(()));
        std::fs::write(&path, b"abd").unwrap();
        assert!(matches!(verify(&path, &manifest).unwrap(), Err(Difference::Hash { .. })));
        std::fs::write(&path, b"ab").unwrap();
        assert_eq!(verify(&path, &manifest).unwrap(), Err(Difference::Size { found: 2, expected: 3 }));
    }

    #[test]
    fn text_is_read_as_it_was_written() {
        let manifest = Manifest {
            start: Moment::new(1_700_000_000_123_456, -5),
            gaps: vec![Gap { reason: "slow".into(), from_ms: 1, to_ms: 2, samples: 3, bytes: 4 }],
            repair: Some(Repair { samples: 9, ..Repair::default() }),
            ..Manifest::default()
        };
        assert_eq!(manifest.start.wall_clock, "2023-11-14T22:13:20.123456Z");
        let text = manifest.to_json();
        assert_eq!(serde_json::from_slice::<Manifest>(&text).unwrap(), manifest);
        assert!(String::from_utf8(text).unwrap().contains("\"streamMs\": -5"));
    }
}
