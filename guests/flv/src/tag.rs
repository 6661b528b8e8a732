//! The FLV header and FLV tags: Adobe Flash Video File Format Specification 10.1, annex E.2 to E.4.3.
//!
//! ```text
//! tag:   TagType(8) DataSize(24) Timestamp(24) TimestampExtended(8) StreamID(24)  body  PreviousTagSize(32)
//! video: FrameType(4) CodecID(4) AVCPacketType(8) CompositionTime(24)  payload
//! audio: SoundFormat(4) SoundRate(2) SoundSize(1) SoundType(1) AACPacketType(8)  payload
//! ```

use std::ops::RangeInclusive;

use reelwright_sdk::Error;

/// The FLV header and PreviousTagSize0.
pub(crate) const FILE_HEADER_LEN: usize = 13;
/// A tag in front of its body.
pub(crate) const TAG_HEADER_LEN: usize = 11;
/// PreviousTagSize.
pub(crate) const TRAILER_LEN: usize = 4;
/// Latest time of a tag, in milliseconds: readers take the 32 bits as signed.
pub(crate) const MAX_TIME_MS: u32 = i32::MAX as u32;
/// What CompositionTime (SI24) holds, in milliseconds.
pub(crate) const COMPOSITION_TIMES: RangeInclusive<i32> = -0x80_0000..=0x7f_ffff;

const MAX_DATA_SIZE: u32 = 0xff_ffff;

const TAG_TYPE_AUDIO: u8 = 8;
const TAG_TYPE_VIDEO: u8 = 9;
const TAG_TYPE_SCRIPT: u8 = 18;

const KEY_FRAME_AVC: u8 = 0x17;
const INTER_FRAME_AVC: u8 = 0x27;
/// AAC; the spec fixes rate, size and type at 44 kHz, 16 bit, stereo: the AudioSpecificConfig tells the
/// truth.
const AAC: u8 = 0xaf;

const SEQUENCE_HEADER: u8 = 0;
const FRAME: u8 = 1;

/// The FLV header with PreviousTagSize0.
pub(crate) fn file_header(has_audio: bool, has_video: bool) -> [u8; FILE_HEADER_LEN] {
    let flags = u8::from(has_audio) << 2 | u8::from(has_video);
    [
        b'F', b'L', b'V',  //
        1,     // Version
        flags, // TypeFlagsReserved(5) TypeFlagsAudio(1) TypeFlagsReserved(1) TypeFlagsVideo(1)
        0, 0, 0, 9, // DataOffset
        0, 0, 0, 0, // PreviousTagSize0
    ]
}

/// What a tag holds. The payload (AMF0, codec configuration, sample) follows what is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Script,
    AvcSequenceHeader,
    AvcFrame {
        key: bool,
        /// PTS - DTS in milliseconds, one of [`COMPOSITION_TIMES`].
        composition_time: i32,
    },
    AacSequenceHeader,
    AacFrame,
}

impl Body {
    fn tag_type(self) -> u8 {
        match self {
            Self::Script => TAG_TYPE_SCRIPT,
            Self::AvcSequenceHeader | Self::AvcFrame { .. } => TAG_TYPE_VIDEO,
            Self::AacSequenceHeader | Self::AacFrame => TAG_TYPE_AUDIO,
        }
    }

    fn header_len(self) -> u32 {
        match self {
            Self::Script => 0,
            Self::AvcSequenceHeader | Self::AvcFrame { .. } => 5,
            Self::AacSequenceHeader | Self::AacFrame => 2,
        }
    }

    fn write_header(self, buf: &mut Vec<u8>) {
        match self {
            Self::Script => {}
            Self::AvcSequenceHeader => buf.extend_from_slice(&[KEY_FRAME_AVC, SEQUENCE_HEADER, 0, 0, 0]),
            Self::AvcFrame { key, composition_time } => {
                let [_, a, b, c] = composition_time.to_be_bytes();
                buf.extend_from_slice(&[if key { KEY_FRAME_AVC } else { INTER_FRAME_AVC }, FRAME, a, b, c]);
            }
            Self::AacSequenceHeader => buf.extend_from_slice(&[AAC, SEQUENCE_HEADER]),
            Self::AacFrame => buf.extend_from_slice(&[AAC, FRAME]),
        }
    }
}

/// The bytes around one tag's payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    body: Body,
    data_size: u32,
    time_ms: u32,
}

impl Frame {
    /// `limit` for a payload that DataSize (24 bits) can't count, or a time over [`MAX_TIME_MS`].
    pub(crate) fn new(body: Body, payload_len: u32, time_ms: u64) -> Result<Self, Error> {
        let data_size = payload_len.saturating_add(body.header_len());
        if data_size > MAX_DATA_SIZE {
            return Err(Error::limit(format!(
                "a payload of {payload_len} bytes: an FLV tag holds at most {}",
                MAX_DATA_SIZE - body.header_len()
            )));
        }
        match u32::try_from(time_ms) {
            Ok(time_ms @ ..=MAX_TIME_MS) => Ok(Self { body, data_size, time_ms }),
            _ => Err(Error::limit(format!(
                "a time of {time_ms} ms: an FLV file ends at {MAX_TIME_MS} ms (24 days and 20 hours)"
            ))),
        }
    }

    pub(crate) fn time_ms(&self) -> u32 {
        self.time_ms
    }

    /// Everything in front of the payload.
    pub(crate) fn write_header(&self, buf: &mut Vec<u8>) {
        let [_, size @ ..] = self.data_size.to_be_bytes();
        let [extended, time @ ..] = self.time_ms.to_be_bytes();
        buf.push(self.body.tag_type());
        buf.extend_from_slice(&size);
        buf.extend_from_slice(&time);
        buf.push(extended);
        buf.extend_from_slice(&[0, 0, 0]); // StreamID
        self.body.write_header(buf);
    }

    /// PreviousTagSize, which comes after the payload.
    pub(crate) fn trailer(&self) -> [u8; TRAILER_LEN] {
        (TAG_HEADER_LEN as u32 + self.data_size).to_be_bytes()
    }
}

/// Writes a whole tag at time 0.
pub(crate) fn write(buf: &mut Vec<u8>, body: Body, payload: &[u8]) -> Result<(), Error> {
    let frame = Frame::new(body, u32::try_from(payload.len()).unwrap_or(u32::MAX), 0)?;
    frame.write_header(buf);
    buf.extend_from_slice(payload);
    buf.extend_from_slice(&frame.trailer());
    Ok(())
}

/// A tag of a sample, as recovery reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadTag {
    pub(crate) body: Body,
    pub(crate) data_size: u32,
    pub(crate) time_ms: u32,
}

impl ReadTag {
    /// Bytes that [`ReadTag::parse`] needs. No tag of a sample is shorter, its trailer counted.
    pub(crate) const LEN: usize = TAG_HEADER_LEN + 5;

    /// Reads the front of a sample's tag; `None` for anything that this crate does not write there.
    pub(crate) fn parse(front: &[u8; Self::LEN]) -> Option<Self> {
        let [tag_type, s0, s1, s2, t0, t1, t2, t3, 0, 0, 0, head @ ..] = *front else { return None };
        let [frame, FRAME, c0, c1, c2] = head else { return None };
        let body = match (tag_type, frame) {
            (TAG_TYPE_VIDEO, KEY_FRAME_AVC | INTER_FRAME_AVC) => Body::AvcFrame {
                key: frame == KEY_FRAME_AVC,
                composition_time: i32::from_be_bytes([c0, c1, c2, 0]) >> 8,
            },
            (TAG_TYPE_AUDIO, AAC) => Body::AacFrame,
            _ => return None,
        };
        let data_size = u32::from_be_bytes([0, s0, s1, s2]);
        let time_ms = u32::from_be_bytes([t3, t0, t1, t2]);
        (data_size >= body.header_len() && time_ms <= MAX_TIME_MS).then_some(Self {
            body,
            data_size,
            time_ms,
        })
    }

    /// Bytes of the tag, its trailer not counted; what the trailer has to say.
    pub(crate) fn size(&self) -> u32 {
        TAG_HEADER_LEN as u32 + self.data_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_header_flags_what_is_there() {
        let header = |audio, video| file_header(audio, video)[4];
        assert_eq!((header(true, true), header(true, false), header(false, true)), (5, 4, 1));
        assert_eq!(file_header(true, true), *b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
    }

    /// Tag, payload length, time, and the bytes around the payload.
    type Row = (Body, u32, u32, &'static [u8], [u8; 4]);

    // The first three are from an FLV of FFmpeg 5.1 with B-frames.
    const TAGS: [Row; 7] = [
        (
            Body::AvcSequenceHeader,
            0x2e,
            0,
            &[
                0x09, // TagType video
                0x00, 0x00, 0x33, // DataSize
                0x00, 0x00, 0x00, 0x00, // Timestamp, TimestampExtended
                0x00, 0x00, 0x00, // StreamID
                0x17, 0x00, // key frame, AVC, sequence header
                0x00, 0x00, 0x00, // CompositionTime
            ],
            [0x00, 0x00, 0x00, 0x3e],
        ),
        (
            Body::AacSequenceHeader,
            5,
            0,
            &[0x08, 0x00, 0x00, 0x07, 0, 0, 0, 0, 0, 0, 0, 0xaf, 0x00],
            [0, 0, 0, 0x12],
        ),
        (
            Body::AvcFrame { key: true, composition_time: 80 },
            0x137d,
            0,
            &[0x09, 0x00, 0x13, 0x82, 0, 0, 0, 0, 0, 0, 0, 0x17, 0x01, 0x00, 0x00, 0x50],
            [0x00, 0x00, 0x13, 0x8d],
        ),
        // A negative CompositionTime.
        (
            Body::AvcFrame { key: false, composition_time: -40 },
            1,
            40,
            &[0x09, 0, 0, 6, 0, 0, 0x28, 0, 0, 0, 0, 0x27, 0x01, 0xff, 0xff, 0xd8],
            [0, 0, 0, 17],
        ),
        // A time over 24 bits.
        (
            Body::AacFrame,
            0,
            0x1234_5678,
            &[0x08, 0, 0, 2, 0x34, 0x56, 0x78, 0x12, 0, 0, 0, 0xaf, 0x01],
            [0, 0, 0, 13],
        ),
        // The largest of everything.
        (
            Body::AvcFrame { key: false, composition_time: *COMPOSITION_TIMES.start() },
            0xff_fffa,
            MAX_TIME_MS,
            &[0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0x27, 0x01, 0x80, 0, 0],
            [0x01, 0x00, 0x00, 0x0a],
        ),
        (Body::Script, 0x125, 0, &[0x12, 0, 0x01, 0x25, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0x01, 0x30]),
    ];

    #[test]
    fn tags_are_written_and_read() {
        for (body, payload_len, time_ms, header, trailer) in TAGS {
            let frame = Frame::new(body, payload_len, time_ms.into()).unwrap();
            let mut buf = Vec::new();
            frame.write_header(&mut buf);
            assert_eq!((&buf[..], frame.trailer()), (header, trailer), "{body:?}");

            buf.resize(ReadTag::LEN, 0xee);
            let read = ReadTag::parse(buf[..].try_into().unwrap());
            let is_sample = matches!(body, Body::AvcFrame { .. } | Body::AacFrame);
            assert_eq!(
                read,
                is_sample.then_some(ReadTag { body, data_size: payload_len + body.header_len(), time_ms })
            );
            assert!(read.is_none_or(|tag| tag.size().to_be_bytes() == trailer));
        }
    }

    #[test]
    fn what_a_tag_cannot_hold_is_a_limit() {
        let error = |len, time_ms| Frame::new(Body::AacFrame, len, time_ms).unwrap_err();
        assert_eq!(error(0xff_fffe, 0).code, "limit");
        assert_eq!(
            error(0xff_fffe, 0).message,
            "a payload of 16777214 bytes: an FLV tag holds at most 16777213"
        );
        assert_eq!(
            error(1, 0x8000_0000).message,
            "a time of 2147483648 ms: an FLV file ends at 2147483647 ms (24 days and 20 hours)"
        );
    }

    #[test]
    fn strange_tags_are_not_read() {
        let good = [0x09, 0, 0, 6, 0, 0, 0x28, 0, 0, 0, 0, 0x27, 0x01, 0, 0, 0];
        assert!(ReadTag::parse(&good).is_some());
        for (at, byte) in
            [(0, 8), (0, 18), (3, 4), (7, 0x80), (10, 1), (11, 0x37), (11, 0xaf), (12, 0), (12, 2)]
        {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(ReadTag::parse(&bad), None, "byte {at} is {byte}");
        }
    }
}
