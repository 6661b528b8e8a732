//! Reads FLV files (FLV 10.1, Annex E).
//!
//! ```text
//! file = 'FLV' Version (U8) flags (U8) DataOffset (U32) … (PreviousTagSize (U32) tag)*
//! ```

use bytes::{Buf, Bytes};

use crate::rtmp::tag;

/// Size of the smallest header.
const HEADER_BYTES: u32 = 9;
const PREVIOUS_TAG_SIZE_BYTES: usize = 4;

/// A file taken apart; the bodies are parts of the file's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) tags: Vec<Tag>,
    /// Position of a last tag that is cut off, as in a file that is still written.
    pub(super) truncated: Option<usize>,
}

/// A tag with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// One of [`tag::kind`].
    pub(super) tag_type: u8,
    pub(super) timestamp_ms: i64,
    pub(super) body: Bytes,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("not an FLV file: it begins with `{}`", .0.escape_ascii())]
    Signature(Vec<u8>),
    #[error("an FLV file of version {0}, known is 1")]
    Version(u8),
    #[error("the FLV header ends at byte {data_offset}, the file at byte {length}")]
    DataOffset { data_offset: u32, length: usize },
    #[error("TagType {tag_type} at byte {position}: not a tag, or one of no known type")]
    TagType { tag_type: u8, position: usize },
    #[error("the tag at byte {position} is encrypted")]
    Encrypted { position: usize },
}

/// Reads a whole file. What PreviousTagSize says is not looked at: writers disagree.
pub(super) fn read(mut file: Bytes) -> Result<File, Error> {
    let length = file.len();
    let Some(&[b'F', b'L', b'V', version, _flags, o3, o2, o1, o0]) = file.first_chunk() else {
        return Err(Error::Signature(file.slice(..length.min(9)).to_vec()));
    };
    if version != 1 {
        return Err(Error::Version(version));
    }
    let data_offset = u32::from_be_bytes([o3, o2, o1, o0]);
    if data_offset < HEADER_BYTES || data_offset as usize > length {
        return Err(Error::DataOffset { data_offset, length });
    }
    file.advance(data_offset as usize);

    let mut tags = Vec::new();
    let mut truncated = None;
    while file.len() > PREVIOUS_TAG_SIZE_BYTES {
        file.advance(PREVIOUS_TAG_SIZE_BYTES);
        let position = length - file.len();
        let header = file.first_chunk().map(tag::Header::read);
        if let Some(tag::Header { tag_type, .. }) = header {
            // Bit 5 is Filter, bits 6 and 7 are reserved and 0 (E.4.1).
            match (tag_type & !0x20, tag_type & 0x20) {
                (tag::kind::AUDIO | tag::kind::VIDEO | tag::kind::SCRIPT_DATA, 0) => {}
                (tag::kind::AUDIO | tag::kind::VIDEO | tag::kind::SCRIPT_DATA, _) => {
                    return Err(Error::Encrypted { position });
                }
                _ => return Err(Error::TagType { tag_type, position }),
            }
        }
        let Some(header) = header.filter(|header| file.len() >= tag::HEADER_BYTES + header.data_bytes) else {
            truncated = Some(position);
            break;
        };
        file.advance(tag::HEADER_BYTES);
        let body = file.split_to(header.data_bytes);
        // Timestamp and TimestampExtended are an SI32 (E.4.1).
        let timestamp_ms = i64::from(header.timestamp_ms as i32);
        if !body.is_empty() {
            tags.push(Tag { tag_type: header.tag_type, timestamp_ms, body });
        }
    }
    Ok(File { tags, truncated })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by FFmpeg 5.1 with libx264 and its own AAC encoder.
    pub(crate) const CLIP: &[u8] = include_bytes!("testdata/ffmpeg-5.1.flv");

    #[test]
    fn reads_a_file_of_ffmpeg() {
        let file = read(Bytes::from_static(CLIP)).unwrap();
        let count = |tag_type| file.tags.iter().filter(|tag| tag.tag_type == tag_type).count();
        assert_eq!((count(18), count(9), count(8)), (1, 10 + 2, 45 + 1));
        assert_eq!(file.tags.last().unwrap().timestamp_ms, 900, "AVC end of sequence");
        assert_eq!(file.truncated, None);
        assert_eq!(file.tags[1].body[..5], [0x17, 0, 0, 0, 0]);
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_tags_before() {
        let whole = read(Bytes::from_static(CLIP)).unwrap().tags;
        for length in 9..CLIP.len() {
            let file = read(Bytes::from_static(&CLIP[..length])).unwrap();
            assert_eq!(file.tags[..], whole[..file.tags.len()]);
            if let Some(position) = file.truncated {
                assert!(position < length);
            }
        }
    }

    #[test]
    fn errors_say_where() {
        let error = |bytes: &[u8]| read(Bytes::copy_from_slice(bytes)).unwrap_err().to_string();
        assert_eq!(error(b"\0\0\0\x18ftypisom"), r"not an FLV file: it begins with `\x00\x00\x00\x18ftypi`");
        assert_eq!(error(b""), "not an FLV file: it begins with ``");
        assert_eq!(error(b"FLV\x02\x05\0\0\0\x09"), "an FLV file of version 2, known is 1");
        let offset = "the FLV header ends at byte 4294967295, the file at byte 9";
        assert_eq!(error(b"FLV\x01\x05\xff\xff\xff\xff"), offset);
        let with = |tag_type| [b"FLV\x01\x05\0\0\0\x09\0\0\0\0", &[tag_type, 0, 0, 0][..], &[0; 20]].concat();
        assert_eq!(error(&with(0x47)), "TagType 71 at byte 13: not a tag, or one of no known type");
        assert_eq!(error(&with(0x29)), "the tag at byte 13 is encrypted");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(at in 0..CLIP.len(), byte: u8, cut in 0..CLIP.len()) {
            let mut bytes = CLIP.to_vec();
            bytes[at] = byte;
            let _ = read(bytes.clone().into());
            bytes.truncate(cut);
            let _ = read(bytes.into());
        }
    }
}
