//! Messages by type (Adobe RTMP 1.0, sections 5.4, 6.2 and 7.1).

use bytes::Bytes;

use super::{
    amf0::{self, Value},
    tag,
};

/// Message type ids.
pub mod kind {
    pub const SET_CHUNK_SIZE: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const ACKNOWLEDGEMENT: u8 = 3;
    pub const USER_CONTROL: u8 = 4;
    pub const WINDOW_ACK_SIZE: u8 = 5;
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const DATA_AMF3: u8 = 15;
    pub const COMMAND_AMF3: u8 = 17;
    pub const DATA_AMF0: u8 = 18;
    pub const COMMAND_AMF0: u8 = 20;
    pub const AGGREGATE: u8 = 22;
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Largest payload of the sender's chunks from the next one on (section 5.4.1).
    SetChunkSize(u32),
    /// The chunk stream whose message in progress is given up (section 5.4.2).
    Abort(u32),
    /// Bytes received so far, modulo 2^32 (section 5.4.3).
    Acknowledgement(u32),
    UserControl(UserControl),
    /// How many bytes the sender sends between acknowledgements (section 5.4.4).
    WindowAckSize(u32),
    SetPeerBandwidth {
        window_bytes: u32,
        limit: BandwidthLimit,
    },
    /// The body of an FLV audio tag.
    Audio(Bytes),
    /// The body of an FLV video tag.
    Video(Bytes),
    /// AMF0 values: a name and what belongs to it. Not parsed, since most are passed over.
    Data(Bytes),
    Command(Command),
    /// FLV tags, see [`aggregate`].
    Aggregate(Bytes),
    /// Shared objects and what nobody has defined.
    Unknown {
        message_type: u8,
        payload: Bytes,
    },
}

/// A remote procedure call or its answer (section 7.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub name: String,
    /// 0: no answer is wanted.
    pub transaction: f64,
    /// The command object and all that follows it.
    pub arguments: Vec<Value>,
}

impl Command {
    pub fn new(name: &str, transaction: f64, arguments: impl Into<Vec<Value>>) -> Self {
        Self { name: name.to_owned(), transaction, arguments: arguments.into() }
    }
}

/// User control events (section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserControl {
    /// The message stream can be used.
    StreamBegin(u32),
    PingRequest(u32),
    /// With the timestamp of the request.
    PingResponse(u32),
    /// An event that matters only to players.
    Other(u16),
}

/// Limit type of Set Peer Bandwidth (section 5.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BandwidthLimit {
    Hard = 0,
    Soft = 1,
    Dynamic = 2,
}

/// A message that does not say what its type promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a message of type {message_type} ends after {length} bytes, too early")]
    Short { message_type: u8, length: usize },
    #[error("Set Peer Bandwidth with limit type {0}, legal are 0 to 2")]
    LimitType(u8),
    #[error("a command without a name, or with a transaction id that is no number")]
    Command,
    #[error("a tag of an aggregate message passes its end, at byte {at} of {length}")]
    Aggregate { at: usize, length: usize },
    #[error("a command of AMF3 encoding {0}, known is 0")]
    Encoding(u8),
    #[error(transparent)]
    Amf0(#[from] amf0::Error),
}

impl Message {
    pub fn read(message_type: u8, payload: Bytes, limits: amf0::Limits) -> Result<Self, Error> {
        let number = || match payload.first_chunk() {
            Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
            None => Err(Error::Short { message_type, length: payload.len() }),
        };
        Ok(match message_type {
            kind::SET_CHUNK_SIZE => Message::SetChunkSize(number()?),
            kind::ABORT => Message::Abort(number()?),
            kind::ACKNOWLEDGEMENT => Message::Acknowledgement(number()?),
            kind::USER_CONTROL => Message::UserControl(user_control(&payload)?),
            kind::WINDOW_ACK_SIZE => Message::WindowAckSize(number()?),
            kind::SET_PEER_BANDWIDTH => Message::SetPeerBandwidth {
                window_bytes: number()?,
                limit: match payload.get(4) {
                    Some(0) => BandwidthLimit::Hard,
                    Some(1) => BandwidthLimit::Soft,
                    Some(2) => BandwidthLimit::Dynamic,
                    Some(&other) => return Err(Error::LimitType(other)),
                    None => return Err(Error::Short { message_type, length: 4 }),
                },
            },
            kind::AUDIO => Message::Audio(payload),
            kind::VIDEO => Message::Video(payload),
            kind::DATA_AMF0 => Message::Data(payload),
            kind::DATA_AMF3 => Message::Data(amf0_in_amf3(payload)?),
            kind::COMMAND_AMF0 => Message::Command(command(&payload, limits)?),
            kind::COMMAND_AMF3 => Message::Command(command(&amf0_in_amf3(payload)?, limits)?),
            kind::AGGREGATE => Message::Aggregate(payload),
            _ => Message::Unknown { message_type, payload },
        })
    }

    /// The message type and the payload.
    pub fn write(&self) -> (u8, Bytes) {
        let number = |n: &u32| Bytes::copy_from_slice(&n.to_be_bytes());
        match self {
            Message::SetChunkSize(bytes) => (kind::SET_CHUNK_SIZE, number(bytes)),
            Message::Abort(chunk_stream) => (kind::ABORT, number(chunk_stream)),
            Message::Acknowledgement(bytes) => (kind::ACKNOWLEDGEMENT, number(bytes)),
            Message::UserControl(event) => {
                let (event_type, data) = match event {
                    UserControl::StreamBegin(message_stream) => (0u16, Some(message_stream)),
                    UserControl::PingRequest(timestamp_ms) => (6, Some(timestamp_ms)),
                    UserControl::PingResponse(timestamp_ms) => (7, Some(timestamp_ms)),
                    UserControl::Other(event_type) => (*event_type, None),
                };
                let mut payload = event_type.to_be_bytes().to_vec();
                payload.extend(data.iter().flat_map(|data| data.to_be_bytes()));
                (kind::USER_CONTROL, payload.into())
            }
            Message::WindowAckSize(bytes) => (kind::WINDOW_ACK_SIZE, number(bytes)),
            Message::SetPeerBandwidth { window_bytes, limit } => {
                let mut payload = window_bytes.to_be_bytes().to_vec();
                payload.push(*limit as u8);
                (kind::SET_PEER_BANDWIDTH, payload.into())
            }
            Message::Audio(body) => (kind::AUDIO, body.clone()),
            Message::Video(body) => (kind::VIDEO, body.clone()),
            Message::Data(values) => (kind::DATA_AMF0, values.clone()),
            Message::Command(Command { name, transaction, arguments }) => {
                let mut payload = Vec::new();
                amf0::write_str(name, &mut payload);
                amf0::write(&Value::Number(*transaction), &mut payload);
                arguments.iter().for_each(|value| amf0::write(value, &mut payload));
                (kind::COMMAND_AMF0, payload.into())
            }
            Message::Aggregate(tags) => (kind::AGGREGATE, tags.clone()),
            Message::Unknown { message_type, payload } => (*message_type, payload.clone()),
        }
    }
}

fn user_control(payload: &[u8]) -> Result<UserControl, Error> {
    let short = || Error::Short { message_type: kind::USER_CONTROL, length: payload.len() };
    let (event_type, data) = payload.split_first_chunk().ok_or_else(short)?;
    let number = || data.first_chunk().map(|data| u32::from_be_bytes(*data)).ok_or_else(short);
    Ok(match u16::from_be_bytes(*event_type) {
        0 => UserControl::StreamBegin(number()?),
        6 => UserControl::PingRequest(number()?),
        7 => UserControl::PingResponse(number()?),
        other => UserControl::Other(other),
    })
}

/// AMF3 messages of publishers are AMF0 values behind a byte 0; some leave that out.
fn amf0_in_amf3(mut payload: Bytes) -> Result<Bytes, Error> {
    match payload.first() {
        Some(0) => drop(payload.split_to(1)),
        Some(2) | None => {}
        Some(&other) => return Err(Error::Encoding(other)),
    }
    Ok(payload)
}

fn command(payload: &[u8], limits: amf0::Limits) -> Result<Command, Error> {
    let mut values = amf0::Reader::new(payload, limits);
    let Some(Value::String(name)) = values.next_value()? else { return Err(Error::Command) };
    let transaction = match values.next_value()? {
        Some(Value::Number(transaction)) => transaction,
        // FFmpeg's server says `onFCPublish` and nothing more.
        None => 0.0,
        Some(_) => return Err(Error::Command),
    };
    Ok(Command { name, transaction, arguments: values.rest()? })
}

/// The tags of an aggregate message (section 7.1.6), their timestamps moved so that the first tag has the
/// message's. Ends after an error.
pub fn aggregate(
    timestamp_ms: u32,
    mut tags: Bytes,
) -> impl Iterator<Item = Result<(tag::Header, Bytes), Error>> {
    let length = tags.len();
    let mut offset_ms = None;
    std::iter::from_fn(move || {
        if tags.is_empty() {
            return None;
        }
        let at = length - tags.len();
        let header = tags.first_chunk().map(tag::Header::read);
        let Some(mut header) = header.filter(|header| tag::HEADER_BYTES + header.data_bytes <= tags.len())
        else {
            tags.clear();
            return Some(Err(Error::Aggregate { at, length }));
        };
        let offset_ms = *offset_ms.get_or_insert(timestamp_ms.wrapping_sub(header.timestamp_ms));
        header.timestamp_ms = header.timestamp_ms.wrapping_add(offset_ms);
        drop(tags.split_to(tag::HEADER_BYTES));
        let body = tags.split_to(header.data_bytes);
        // The back pointer; some leave out the last one.
        drop(tags.split_to(tags.len().min(4)));
        Some(Ok((header, body)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message_type: u8, payload: &[u8]) -> Result<Message, Error> {
        Message::read(message_type, Bytes::copy_from_slice(payload), amf0::Limits::default())
    }

    #[test]
    fn each_type_in_both_directions() {
        let body = || Bytes::from_static(b"\x17\x01\0\0\0");
        let table = [
            (1, &b"\0\x01\0\0"[..], Message::SetChunkSize(65_536)),
            (2, b"\0\0\0\x05", Message::Abort(5)),
            (3, b"\x80\0\0\x01", Message::Acknowledgement(0x8000_0001)),
            (4, b"\0\0\0\0\0\x01", Message::UserControl(UserControl::StreamBegin(1))),
            (4, b"\0\x06\0\0\x10\0", Message::UserControl(UserControl::PingRequest(4096))),
            (4, b"\0\x07\0\0\x10\0", Message::UserControl(UserControl::PingResponse(4096))),
            (4, b"\0\x20", Message::UserControl(UserControl::Other(32))),
            (5, b"\0\x26\x25\xa0", Message::WindowAckSize(2_500_000)),
            (
                6,
                b"\0\x26\x25\xa0\x02",
                Message::SetPeerBandwidth { window_bytes: 2_500_000, limit: BandwidthLimit::Dynamic },
            ),
            (8, b"\x17\x01\0\0\0", Message::Audio(body())),
            (9, b"\x17\x01\0\0\0", Message::Video(body())),
            (18, b"\x17\x01\0\0\0", Message::Data(body())),
            (
                20,
                // createStream of FFmpeg 5.1
                b"\x02\0\x0ccreateStream\0\x40\x10\0\0\0\0\0\0\x05",
                Message::Command(Command::new("createStream", 4.0, [Value::Null])),
            ),
            (22, b"\x17\x01\0\0\0", Message::Aggregate(body())),
            (19, b"\x17\x01\0\0\0", Message::Unknown { message_type: 19, payload: body() }),
        ];
        for (message_type, bytes, message) in table {
            assert_eq!(read(message_type, bytes).unwrap(), message);
            let written = message.write();
            assert_eq!((written.0, &written.1[..]), (message_type, bytes), "{message:?}");
        }
    }

    #[test]
    fn amf3_wrappers_are_taken_off() {
        let command = Message::Command(Command::new("close", 0.0, []));
        let (_, amf0) = command.write();
        assert_eq!(read(17, &[&[0][..], &amf0].concat()).unwrap(), command);
        assert_eq!(read(17, &amf0).unwrap(), command);
        assert_eq!(read(15, &[&[0][..], &amf0].concat()).unwrap(), Message::Data(amf0));
        assert_eq!(read(17, &[3, 0]), Err(Error::Encoding(3)));
        let inner_amf3 = [&[0][..], b"\x02\0\x01x\0\0\0\0\0\0\0\0\0\x11\x0a"].concat();
        assert!(read(17, &inner_amf3).unwrap_err().to_string().contains("AMF3 data"));
    }

    #[test]
    fn short_ones_are_refused() {
        for message_type in [1, 2, 3, 4, 5, 6] {
            let error = read(message_type, &[0]).unwrap_err();
            assert_eq!(error, Error::Short { message_type, length: 1 });
        }
        assert_eq!(read(6, &[0; 4]), Err(Error::Short { message_type: 6, length: 4 }));
        assert_eq!(read(6, &[0, 0, 0, 0, 3]), Err(Error::LimitType(3)));
        assert_eq!(read(20, b""), Err(Error::Command));
        assert_eq!(read(20, b"\x05\x05"), Err(Error::Command));
        assert_eq!(read(20, b"\x02\0\x01x\x05"), Err(Error::Command));
        assert_eq!(read(20, b"\x02\0\x01x"), Ok(Message::Command(Command::new("x", 0.0, []))));
    }

    #[test]
    fn an_aggregate_is_its_tags() {
        let tags = Bytes::from_static(
            b"\x08\0\0\x02\0\0\x64\0\0\0\0\xaf\x01\0\0\0\x0d\
              \x09\0\0\x01\0\0\x78\0\0\0\0\x17\0\0\0\x0c",
        );
        let read = |tags| aggregate(5000, tags).collect::<Result<Vec<_>, _>>();
        let both = read(tags.clone()).unwrap();
        let seen: Vec<_> =
            both.iter().map(|(header, body)| (header.tag_type, header.timestamp_ms, &body[..])).collect();
        assert_eq!(seen, [(8, 5000, &b"\xaf\x01"[..]), (9, 5020, b"\x17")]);
        assert_eq!(read(tags.slice(..tags.len() - 4)).unwrap(), both, "without the last back pointer");
        assert_eq!(read(tags.slice(..20)), Err(Error::Aggregate { at: 17, length: 20 }));
    }
}
