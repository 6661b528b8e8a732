//! Puts messages together from chunks.

use bytes::{Buf, Bytes, BytesMut};

use super::{DEFAULT_CHUNK_SIZE, EXTENDED, Error, RawMessage};
use crate::rtmp::{Limits, error::Place, message::kind};

/// How much of a message gets memory before its bytes have come; after that memory doubles as they come.
const RESERVE_BYTES: usize = 256 << 10;

/// Reads chunks. Applies Set Chunk Size and Abort by itself, since they change how the next byte is read.
///
/// A message that the input has in one go is put together in place and shares the input's memory. Of others each byte is
/// copied, into memory of their own.
#[derive(Debug)]
pub struct ChunkReader {
    limits: Limits,
    chunk_size: usize,
    /// Few, and the busy ones came first: searched from the front.
    streams: Vec<ChunkStream>,
    /// The chunk whose payload is being read: index of its stream, bytes missing.
    current: Option<(usize, usize)>,
    /// Capacity of all `partial`.
    in_progress: usize,
    place: Option<Place>,
}

/// What is remembered of a chunk stream: its last header, and the message in progress.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    message_stream: u32,
    message_type: u8,
    length: usize,
    timestamp_ms: u32,
    delta_ms: u32,
    /// Extended timestamp of the last header that had a timestamp field.
    extended: Option<u32>,
    /// What has come of the message; empty between messages.
    partial: BytesMut,
}

/// A chunk header as it was on the wire.
struct Header {
    fmt: u8,
    chunk_stream: u32,
    /// Index of the chunk stream, if it is known.
    index: Option<usize>,
    /// Timestamp or delta, 0 for fmt 3.
    time: u32,
    extended: bool,
    /// Only fmt 0 and 1.
    length: usize,
    message_type: u8,
    /// Only fmt 0.
    message_stream: u32,
    /// Bytes of the header itself.
    size: usize,
}

/// A message of which not all has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub chunk_stream: u32,
    pub message_type: u8,
    /// What has come of it, and its whole length.
    pub bytes: usize,
    pub length: usize,
}

impl ChunkReader {
    /// The longest message that is on its way.
    pub fn unfinished(&self) -> Option<Unfinished> {
        let begun = self.streams.iter().filter(|stream| !stream.partial.is_empty());
        begun.max_by_key(|stream| stream.partial.len()).map(|stream| Unfinished {
            chunk_stream: stream.id,
            message_type: stream.message_type,
            bytes: stream.partial.len(),
            length: stream.length,
        })
    }

    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunk_size: DEFAULT_CHUNK_SIZE as usize,
            streams: Vec::new(),
            current: None,
            in_progress: 0,
            place: None,
        }
    }

    /// The last chunk header.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Takes bytes off the input until a message is whole. `None` wants more input; what is left of it then
    /// is part of a header, at most 17 bytes, and has to be given again.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<RawMessage>, Error> {
        loop {
            let (index, missing) = match self.current.take() {
                Some(current) => current,
                None => match self.header(input)? {
                    Some(header) => {
                        input.advance(header.size);
                        self.start_chunk(&header)?
                    }
                    None => return Ok(None),
                },
            };
            let stream = &self.streams[index];
            if stream.partial.is_empty() {
                if let Some(payload) = self.in_place(index, missing, input)? {
                    return self.finish(index, payload).map(Some);
                }
            } else {
                let len = missing.min(input.len());
                self.append(index, &input[..len])?;
                input.advance(len);
                if len < missing {
                    self.current = Some((index, missing - len));
                } else if self.streams[index].partial.len() == self.streams[index].length {
                    let payload = self.take_partial(index).freeze();
                    return self.finish(index, payload).map(Some);
                }
            }
            if self.current.is_some() {
                return Ok(None);
            }
        }
    }

    /// Puts a message together at the front of the input, of whose first chunk so many bytes of payload are missing.
    ///
    /// ```text
    /// payload so far │ headers that were taken out │ next chunk ……
    /// 0              done                          at
    /// ```
    ///
    /// `None`: the input ends before, or goes on with another chunk stream. Then what has come of the message was copied.
    fn in_place(
        &mut self,
        index: usize,
        mut missing: usize,
        input: &mut BytesMut,
    ) -> Result<Option<Bytes>, Error> {
        let length = self.streams[index].length;
        let (mut done, mut at) = (0, 0);
        loop {
            let len = missing.min(input.len() - at);
            if at > done {
                input.copy_within(at..at + len, done);
            }
            (done, at) = (done + len, at + len);
            if done == length {
                let payload = input.split_to(done).freeze();
                input.advance(at - done);
                return Ok(Some(payload));
            }
            let next = if len == missing { self.header(&input[at..])? } else { None };
            match next {
                // As the message has begun it says nothing but that it goes on.
                Some(header) if header.fmt == 3 && header.index == Some(index) => {
                    at += header.size;
                    missing = self.chunk_size.min(length - done);
                }
                _ => {
                    self.current = (len < missing).then_some((index, missing - len));
                    self.append(index, &input[..done])?;
                    input.advance(at);
                    return Ok(None);
                }
            }
        }
    }

    fn header(&self, input: &[u8]) -> Result<Option<Header>, Error> {
        let Some(basic) = input.first() else { return Ok(None) };
        let fmt = basic >> 6;
        // Section 5.3.1.1: ids from 64 on take one or two bytes more, the latter little-endian.
        let (chunk_stream, mut size) = match (basic & 0x3f, input) {
            (0, [_, low, ..]) => (64 + u32::from(*low), 2),
            (1, [_, low, high, ..]) => (64 + u32::from(u16::from_le_bytes([*low, *high])), 3),
            (0 | 1, _) => return Ok(None),
            (id, _) => (u32::from(id), 1),
        };
        let index = self.streams.iter().position(|stream| stream.id == chunk_stream);
        let mut header = Header {
            fmt,
            chunk_stream,
            index,
            time: 0,
            extended: false,
            length: 0,
            message_type: 0,
            message_stream: 0,
            size,
        };
        let fields = &input[size..];
        size += match fmt {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        if input.len() < size {
            return Ok(None);
        }
        if fmt <= 2 {
            header.time = u24(fields);
        }
        if fmt <= 1 {
            header.length = u24(&fields[3..]) as usize;
            header.message_type = fields[6];
        }
        if fmt == 0 {
            header.message_stream = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
        }
        let after = &input[size..];
        if header.time == EXTENDED {
            let Some(extended) = after.first_chunk() else { return Ok(None) };
            header.time = u32::from_be_bytes(*extended);
            header.extended = true;
            size += 4;
        } else if let (3, Some(Some(extended))) = (fmt, index.map(|index| self.streams[index].extended)) {
            // Section 5.3.1.3: fmt 3 repeats the extended timestamp. Some peers leave it out, so it is one
            // only if it is the same.
            let expected = extended.to_be_bytes();
            let common = after.len().min(4);
            if after[..common] == expected[..common] {
                if common < 4 {
                    return Ok(None);
                }
                size += 4;
            }
        }
        header.size = size;
        Ok(Some(header))
    }

    /// Notes the header; returns the stream's index and the bytes of payload in the chunk.
    fn start_chunk(&mut self, header: &Header) -> Result<(usize, usize), Error> {
        let chunk_stream = header.chunk_stream;
        let index = match header.index {
            Some(index) => index,
            None => {
                self.place = Some(Place {
                    chunk_stream,
                    message_type: header.message_type,
                    timestamp_ms: header.time,
                });
                self.add_stream(header)?
            }
        };
        let stream = &mut self.streams[index];
        if header.fmt != 3 {
            stream.extended = header.extended.then_some(header.time);
            stream.delta_ms = header.time;
        }
        if header.fmt == 0 {
            stream.timestamp_ms = header.time;
            stream.message_stream = header.message_stream;
        } else if header.fmt != 3 || stream.partial.is_empty() {
            // Section 5.3.1.2.4: fmt 3 that starts a message repeats the delta; after fmt 0 its timestamp is
            // the delta.
            stream.timestamp_ms = stream.timestamp_ms.wrapping_add(stream.delta_ms);
        }
        let missing = stream.length - stream.partial.len();
        if header.fmt <= 1 {
            stream.length = header.length;
            stream.message_type = header.message_type;
        }
        self.place = Some(Place {
            chunk_stream,
            message_type: stream.message_type,
            timestamp_ms: stream.timestamp_ms,
        });
        if header.fmt != 3 && !stream.partial.is_empty() {
            return Err(Error::Unfinished { chunk_stream, missing });
        }
        if stream.length > self.limits.message_bytes {
            return Err(Error::MessageLength { length: stream.length, limit: self.limits.message_bytes });
        }
        Ok((index, self.chunk_size.min(stream.length - stream.partial.len())))
    }

    fn add_stream(&mut self, header: &Header) -> Result<usize, Error> {
        // Type 1 lacks only the message stream: some clients start with it, for the connection itself.
        if header.fmt > 1 {
            return Err(Error::NoHeader { chunk_stream: header.chunk_stream, fmt: header.fmt });
        }
        if self.streams.len() == self.limits.chunk_streams {
            return Err(Error::ChunkStreams { limit: self.limits.chunk_streams });
        }
        self.streams.push(ChunkStream {
            id: header.chunk_stream,
            message_stream: 0,
            message_type: 0,
            length: 0,
            timestamp_ms: 0,
            delta_ms: 0,
            extended: None,
            partial: BytesMut::new(),
        });
        Ok(self.streams.len() - 1)
    }

    fn append(&mut self, index: usize, bytes: &[u8]) -> Result<(), Error> {
        let ChunkStream { partial, length, .. } = &mut self.streams[index];
        let needed = partial.len() + bytes.len();
        let capacity = partial.capacity();
        if needed > capacity {
            let wanted = needed.max(2 * capacity).max(RESERVE_BYTES).min(*length);
            let in_progress = self.in_progress - capacity + wanted;
            if in_progress > self.limits.bytes_in_progress {
                return Err(Error::BytesInProgress { limit: self.limits.bytes_in_progress });
            }
            let mut grown = BytesMut::with_capacity(wanted);
            grown.extend_from_slice(partial);
            *partial = grown;
            self.in_progress = in_progress;
        }
        partial.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, index: usize, payload: Bytes) -> Result<RawMessage, Error> {
        let stream = &self.streams[index];
        let message = RawMessage {
            chunk_stream: stream.id,
            message_stream: stream.message_stream,
            message_type: stream.message_type,
            timestamp_ms: stream.timestamp_ms,
            payload,
        };
        match message.message_type {
            kind::SET_CHUNK_SIZE => match control(&message.payload)? {
                size @ 1..=0x7fff_ffff => self.chunk_size = size as usize,
                size => return Err(Error::ChunkSize(size)),
            },
            kind::ABORT => {
                let id = control(&message.payload)?;
                if let Some(index) = self.streams.iter().position(|stream| stream.id == id) {
                    self.take_partial(index);
                }
            }
            _ => {}
        }
        Ok(message)
    }

    fn take_partial(&mut self, index: usize) -> BytesMut {
        let partial = std::mem::take(&mut self.streams[index].partial);
        self.in_progress -= partial.capacity();
        partial
    }
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

/// The number that a protocol control message begins with (section 5.4).
fn control(payload: &[u8]) -> Result<u32, Error> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(Error::Control(payload.len()))
}
