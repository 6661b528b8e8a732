//! FLV (FLV 10.1, Annex E): header, tags, PreviousTagSize after each.

use std::io::{Read, Seek};

use reelwright_codec::avc::AvcConfig;

use super::{Contents, Invalid, Source, Tallies, broken};
use crate::rtmp::{
    amf0::{self, Value},
    tag,
};

const METADATA_LIMITS: amf0::Limits = amf0::Limits { depth: 32, values: 1 << 20, string_bytes: 1 << 20 };

pub(super) fn read<R: Read + Seek>(source: &mut Source<R>) -> Result<Contents, Invalid> {
    let header: [u8; 13] = source.array("the header")?;
    if header[..4] != *b"FLV\x01" || header[5..] != [0, 0, 0, 9, 0, 0, 0, 0] {
        return Err(broken(0, format!("no FLV header: {header:02x?}")));
    }
    let mut reader = Reader::default();
    let mut body = Vec::new();
    while source.rest() > 0 {
        let at = source.at;
        let bytes: [u8; tag::HEADER_BYTES] = source.array("a tag's header")?;
        let header = tag::Header::read(&bytes);
        if bytes[8..] != [0, 0, 0] {
            return Err(broken(at, "a StreamID that is not 0"));
        }
        source.bytes(&mut body, header.data_bytes as u64, "a tag")?;
        let size = u32::from_be_bytes(source.array("PreviousTagSize")?);
        if size as usize != tag::HEADER_BYTES + header.data_bytes {
            return Err(broken(
                source.at - 4,
                format!("PreviousTagSize is {size}, of a tag of {}", body.len() + 11),
            ));
        }
        reader.tag(at, source.size, header, &body)?;
    }
    match reader.metadata {
        true => Ok(reader.tallies.contents()),
        false => Err(broken(source.at, "there is no onMetaData")),
    }
}

#[derive(Default)]
struct Reader {
    metadata: bool,
    /// What the last AVC sequence header says.
    length_size: Option<u8>,
    aac: bool,
    /// The last time of video and of audio.
    times: [Option<i32>; 2],
    tallies: Tallies,
}

impl Reader {
    fn tag(&mut self, at: u64, file_size: u64, header: tag::Header, body: &[u8]) -> Result<(), Invalid> {
        let time = header.timestamp_ms.cast_signed();
        let media = match header.tag_type {
            tag::kind::SCRIPT_DATA => return self.script(at, file_size, body),
            tag::kind::VIDEO => 0,
            tag::kind::AUDIO => 1,
            kind => return Err(broken(at, format!("TagType {kind}"))),
        };
        let (sequence_header, frame) = match (media, body) {
            (0, [0x17, 0, 0, 0, 0, config @ ..]) => (Some(config), None),
            (0, [0x17 | 0x27, 1, _, _, _, frame @ ..]) => (None, Some(frame)),
            (0, [0x17 | 0x27, 2, ..]) => return Ok(()),
            (1, [0xaf, 0, config @ ..]) => (Some(config), None),
            (1, [0xaf, 1, frame @ ..]) => (None, Some(frame)),
            _ => {
                let start = &body[..body.len().min(5)];
                return Err(broken(
                    at,
                    format!("a tag of type {} that begins with {start:02x?}", header.tag_type),
                ));
            }
        };
        if let Some(config) = sequence_header {
            if media == 0 {
                let config = AvcConfig::parse(config).map_err(|e| broken(at, e.to_string()))?;
                self.length_size = Some(config.length_size);
            }
            self.aac |= media == 1;
        }
        let Some(frame) = frame else { return Ok(()) };
        if let Some(last) = self.times[media].replace(time).filter(|last| time < *last) {
            return Err(broken(at, format!("the time falls from {last} to {time} ms")));
        }
        match (media, self.length_size) {
            (0, Some(length_size)) => self.tallies.video.picture(time.into(), frame, length_size),
            (1, _) if self.aac => self.tallies.audio.add(time.into(), &[frame]),
            _ => return Err(broken(at, "a frame before its sequence header")),
        }
        Ok(())
    }

    fn script(&mut self, at: u64, file_size: u64, body: &[u8]) -> Result<(), Invalid> {
        let values = amf0::Reader::new(body, METADATA_LIMITS).rest();
        let values = values.map_err(|e| broken(at, format!("script data that can't be read: {e}")))?;
        let Some(Value::String(name)) = values.first() else {
            return Err(broken(at, "script data without a name"));
        };
        self.metadata |= name == "onMetaData";
        match values.get(1).and_then(|metadata| metadata.get("filesize")) {
            // What grows says 0.
            Some(&Value::Number(size)) if size > 0.0 && size != file_size as f64 => {
                Err(broken(at, format!("filesize is {size}, the file has {file_size} bytes")))
            }
            _ => Ok(()),
        }
    }
}
