//! FLV tags, whose bodies RTMP's audio and video messages carry (FLV 10.1, Annex E.4).
//!
//! ```text
//! tag    = TagType (U8), DataSize (U24), Timestamp (U24), TimestampExtended (U8), StreamID (U24), body
//! video  = FrameType (4 bits) CodecID (4 bits) body
//!   AVC  = AVCPacketType (U8) CompositionTime (SI24) AVCDecoderConfigurationRecord | NALUs | nothing
//! audio  = SoundFormat (4 bits) SoundRate SoundSize SoundType body
//!   AAC  = AACPacketType (U8) AudioSpecificConfig | raw AAC frame
//! ```
//!
//! Enhanced RTMP takes the first bit of a video body (`IsExHeader`) and SoundFormat 9 for headers of its own,
//! which are recognised and not read yet.

use std::fmt;

use bytes::{Buf, Bytes};

use crate::media::Kind;

/// TagType of audio, video and script data.
pub mod kind {
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const SCRIPT_DATA: u8 = 18;
}

/// Size of [`Header`] in a file.
pub const HEADER_BYTES: usize = 11;

/// What stands before a tag's body in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// See [`kind`]; bits for filters and the reserved ones are kept.
    pub tag_type: u8,
    pub data_bytes: usize,
    pub timestamp_ms: u32,
}

impl Header {
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let &[tag_type, s2, s1, s0, t2, t1, t0, t3, _, _, _] = bytes;
        Self {
            tag_type,
            data_bytes: u32::from_be_bytes([0, s2, s1, s0]) as usize,
            timestamp_ms: u32::from_be_bytes([t3, t2, t1, t0]),
        }
    }
}

/// What the body of an audio or video tag is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A sequence header: `codec` as in [`Track`](crate::media::Track), and the codec configuration.
    Configuration {
        codec: &'static str,
        config: Bytes,
    },
    Sample(Payload),
    /// AVC end of sequence.
    EndOfSequence,
    /// Nothing to record: a command frame, or a tag without payload.
    Nothing,
}

/// One access unit or AAC frame; the payload is a part of the message's own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// PTS = DTS + this.
    pub composition_time_ms: i32,
    pub key: bool,
    pub data: Bytes,
}

/// Why a body can't be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Codec(#[from] UnsupportedCodec),
    #[error("{kind} tag ends after {length} bytes, inside its header", kind = kind.as_str())]
    Short { kind: Kind, length: usize },
    #[error("{field} is {value}, which is reserved")]
    Reserved { field: &'static str, value: u8 },
}

/// A codec that no track can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedCodec {
    pub kind: Kind,
    pub codec: Codec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// CodecID or SoundFormat.
    Flv(u8),
    /// `VideoFourCc` or `AudioFourCc`; `None` where a multitrack or ModEx header hides it.
    Enhanced(Option<[u8; 4]>),
}

impl fmt::Display for UnsupportedCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        match self.codec {
            Codec::Flv(id) => {
                let (field, name) = match self.kind {
                    Kind::Video => ("CodecID", video_codec_name(id)),
                    Kind::Audio => ("SoundFormat", sound_format_name(id)),
                };
                write!(f, "{kind} codec {name} ({field} {id}) is not supported")
            }
            Codec::Enhanced(Some(four_cc)) => {
                write!(f, "{kind} codec `{}` (enhanced RTMP) is not supported", four_cc.escape_ascii())
            }
            Codec::Enhanced(None) => write!(f, "multitrack {kind} (enhanced RTMP) is not supported"),
        }
    }
}

impl std::error::Error for UnsupportedCodec {}

const AVC: u8 = 7;
const AAC: u8 = 10;
/// SoundFormat of enhanced RTMP.
const AUDIO_EX_HEADER: u8 = 9;
const KEY_FRAME: u8 = 1;
/// FrameType of a video info or command frame.
const COMMAND_FRAME: u8 = 5;

/// Reads the body of a video tag (E.4.3). Whether a sample is a key frame is what FrameType says.
pub fn video(mut body: Bytes) -> Result<Body, Error> {
    let Some(&first) = body.first() else { return Ok(Body::Nothing) };
    if first & 0x80 != 0 {
        return Err(enhanced(Kind::Video, &body));
    }
    let (frame_type, codec_id) = (first >> 4, first & 0x0f);
    if frame_type == COMMAND_FRAME {
        return Ok(Body::Nothing);
    }
    if codec_id != AVC {
        return Err(UnsupportedCodec { kind: Kind::Video, codec: Codec::Flv(codec_id) }.into());
    }
    let &[_, avc_packet_type, c2, c1, c0, ..] = &body[..] else {
        return Err(Error::Short { kind: Kind::Video, length: body.len() });
    };
    body.advance(5);
    Ok(match avc_packet_type {
        0 => Body::Configuration { codec: "avc1", config: body },
        1 if body.is_empty() => Body::Nothing,
        1 => Body::Sample(Payload {
            // SI24: shifted up and down again to extend the sign.
            composition_time_ms: i32::from_be_bytes([c2, c1, c0, 0]) >> 8,
            key: frame_type == KEY_FRAME,
            data: body,
        }),
        2 => Body::EndOfSequence,
        value => return Err(Error::Reserved { field: "AVCPacketType", value }),
    })
}

/// Reads the body of an audio tag (E.4.2).
pub fn audio(mut body: Bytes) -> Result<Body, Error> {
    let Some(&first) = body.first() else { return Ok(Body::Nothing) };
    match first >> 4 {
        AAC => {}
        AUDIO_EX_HEADER => return Err(enhanced(Kind::Audio, &body)),
        other => return Err(UnsupportedCodec { kind: Kind::Audio, codec: Codec::Flv(other) }.into()),
    }
    let &[_, aac_packet_type, ..] = &body[..] else {
        return Err(Error::Short { kind: Kind::Audio, length: body.len() });
    };
    body.advance(2);
    Ok(match aac_packet_type {
        0 => Body::Configuration { codec: "mp4a", config: body },
        1 if body.is_empty() => Body::Nothing,
        1 => Body::Sample(Payload { composition_time_ms: 0, key: true, data: body }),
        value => return Err(Error::Reserved { field: "AACPacketType", value }),
    })
}

/// Names the codec of an extended header: its low four bits are the PacketType, and a FourCC follows, unless
/// the type is Multitrack (video 6, audio 5) or ModEx (7).
fn enhanced(kind: Kind, body: &[u8]) -> Error {
    let hidden = match kind {
        Kind::Video => [6, 7],
        Kind::Audio => [5, 7],
    };
    let four_cc = body.get(1..5).and_then(|bytes| bytes.first_chunk()).copied();
    let codec = Codec::Enhanced(four_cc.filter(|_| !hidden.contains(&(body[0] & 0x0f))));
    UnsupportedCodec { kind, codec }.into()
}

fn video_codec_name(codec_id: u8) -> &'static str {
    match codec_id {
        2 => "Sorenson H.263",
        3 => "Screen video",
        4 => "On2 VP6",
        5 => "On2 VP6 with alpha channel",
        6 => "Screen video version 2",
        12 => "HEVC outside of enhanced RTMP",
        _ => "of no known name",
    }
}

fn sound_format_name(sound_format: u8) -> &'static str {
    match sound_format {
        0 => "linear PCM, platform endian",
        1 => "ADPCM",
        2 => "MP3",
        3 => "linear PCM",
        4..=6 => "Nellymoser",
        7 => "G.711 A-law",
        8 => "G.711 mu-law",
        11 => "Speex",
        14 => "MP3 8 kHz",
        15 => "device-specific sound",
        _ => "of no known name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(composition_time_ms: i32, key: bool, data: &'static [u8]) -> Body {
        Body::Sample(Payload { composition_time_ms, key, data: Bytes::from_static(data) })
    }

    #[test]
    fn bodies_of_ffmpeg() {
        let table: &[(&'static [u8], Body)] = &[
            (
                &[
                    0x17, // FrameType 1, CodecID 7
                    0x00, // AVCPacketType: sequence header
                    0x00, 0x00, 0x00, // CompositionTime
                    0x01, 0xf4, 0x00, 0x0a, 0xff, // AVCDecoderConfigurationRecord, first bytes
                ],
                Body::Configuration {
                    codec: "avc1",
                    config: Bytes::from_static(&[0x01, 0xf4, 0x00, 0x0a, 0xff]),
                },
            ),
            (b"\x17\x01\x00\x00\x50\0\0\0\x01\x65", sample(80, true, b"\0\0\0\x01\x65")),
            (b"\x27\x01\xff\xff\xd8\0\0\0\x01\x41", sample(-40, false, b"\0\0\0\x01\x41")),
            (b"\x37\x01\x7f\xff\xff\0\0\0\x01\x01", sample(0x7f_ffff, false, b"\0\0\0\x01\x01")),
            (b"\x17\x02\0\0\0", Body::EndOfSequence),
            (b"\x17\x01\0\0\0", Body::Nothing),
            (b"\x57\0", Body::Nothing), // command frame: start of client-side seeking
            (b"", Body::Nothing),
        ];
        for (bytes, body) in table {
            assert_eq!(video(Bytes::from_static(bytes)).as_ref(), Ok(body), "{bytes:02x?}");
        }
        let table: &[(&'static [u8], Body)] = &[
            (
                b"\xaf\x00\x11\x88\x56\xe5\x00",
                Body::Configuration {
                    codec: "mp4a",
                    config: Bytes::from_static(&[0x11, 0x88, 0x56, 0xe5, 0x00]),
                },
            ),
            (b"\xaf\x01\x21\x10", sample(0, true, b"\x21\x10")),
            (b"\xaf\x01", Body::Nothing),
            (b"", Body::Nothing),
        ];
        for (bytes, body) in table {
            assert_eq!(audio(Bytes::from_static(bytes)).as_ref(), Ok(body), "{bytes:02x?}");
        }
    }

    #[test]
    fn other_codecs_are_named() {
        let v = |bytes| video(Bytes::from_static(bytes)).unwrap_err().to_string();
        let a = |bytes| audio(Bytes::from_static(bytes)).unwrap_err().to_string();
        assert_eq!(v(b"\x12\0"), "video codec Sorenson H.263 (CodecID 2) is not supported");
        assert_eq!(v(b"\x90hvc1\0\0\0"), "video codec `hvc1` (enhanced RTMP) is not supported");
        assert_eq!(v(b"\x96\x01hvc1"), "multitrack video (enhanced RTMP) is not supported");
        assert_eq!(v(b"\x90h"), "multitrack video (enhanced RTMP) is not supported");
        assert_eq!(a(b"\x2f\xff\xfb"), "audio codec MP3 (SoundFormat 2) is not supported");
        assert_eq!(a(b"\x90Opus"), "audio codec `Opus` (enhanced RTMP) is not supported");
        assert_eq!(v(b"\x17\x01\0\0"), "video tag ends after 4 bytes, inside its header");
        assert_eq!(a(b"\xaf"), "audio tag ends after 1 bytes, inside its header");
        assert_eq!(v(b"\x17\x03\0\0\0"), "AVCPacketType is 3, which is reserved");
    }

    #[test]
    fn a_payload_is_not_copied() {
        let body = Bytes::from(b"\x17\x01\0\0\0\0\0\0\x01\x65".to_vec());
        let Ok(Body::Sample(payload)) = video(body.clone()) else { panic!("no sample") };
        assert_eq!(payload.data.as_ptr(), body[5..].as_ptr());
    }
}
