//! Tracks and samples, as they travel from an ingest protocol to the formats. No protocol, no I/O.

use bytes::Bytes;

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Video,
    Audio,
}

impl Kind {
    /// The name the contract uses (`track.kind` in the WIT).
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Video => "video",
            Kind::Audio => "audio",
        }
    }
}

/// One elementary stream of a live stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Unique in its live stream, and the same as long as that lives. RTMP: video 1, audio 2.
    pub id: u32,
    pub kind: Kind,
    /// Name of the ISO BMFF sample entry: `avc1`, `mp4a`.
    pub codec: String,
    /// Codec configuration as the sample entry holds it (AVCDecoderConfigurationRecord,
    /// AudioSpecificConfig). From outside, so unchecked.
    pub config: Bytes,
    /// What the publisher says of the track; the keys of `track.properties` in the WIT.
    pub properties: Vec<(String, String)>,
}

/// One timestamped unit of a track as ISO BMFF stores it: a length-prefixed access unit, a raw AAC frame.
///
/// Times are milliseconds on the publisher's clock, unwrapped to 64 bits but otherwise as on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// [`Track::id`].
    pub track: u32,
    pub dts_ms: i64,
    pub pts_ms: i64,
    /// Decoding of the track can start here. Always true for audio.
    pub key: bool,
    /// Something is missing, or was moved in time, just before.
    pub discontinuity: bool,
    /// The payload, shared and never copied on its way to the files.
    pub data: Bytes,
}
