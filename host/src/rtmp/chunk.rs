//! Chunks: how messages are cut up and interleaved (Adobe RTMP 1.0, section 5.3).
//!
//! ```text
//! chunk = basic header          fmt (2 bits), chunk stream id (6 bits, or 1 or 2 bytes more)
//!         message header        by fmt: 11, 7, 3 or 0 bytes
//!         extended timestamp    4 bytes, if the timestamp field says 0xFFFFFF
//!         payload               the rest of the message, at most the chunk size
//!
//! fmt 0   timestamp (U24), length (U24), type (U8), message stream id (U32, little-endian)
//! fmt 1   timestamp delta,  length,       type
//! fmt 2   timestamp delta
//! fmt 3   nothing: goes on with a message, or starts one that is like the one before
//! ```

mod reader;
mod writer;

pub use reader::{ChunkReader, Unfinished};
pub use writer::ChunkWriter;

use bytes::Bytes;

/// Chunk size before anybody says otherwise (section 5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;
/// Timestamp field that announces an extended timestamp (section 5.3.1.3).
const EXTENDED: u32 = 0xff_ffff;
/// Highest chunk stream id that a basic header can say (section 5.3.1.1).
pub const MAX_CHUNK_STREAM: u32 = 65_599;

/// A whole message as the chunk layer carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// 2 to [`MAX_CHUNK_STREAM`].
    pub chunk_stream: u32,
    /// 0 is the connection itself.
    pub message_stream: u32,
    /// See [`super::message::kind`].
    pub message_type: u8,
    pub timestamp_ms: u32,
    /// At most 0xFFFFFF bytes.
    pub payload: Bytes,
}

/// What is wrong with a chunk. After it the connection can't be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a message of {length} bytes, at most {limit} (limit message_bytes)")]
    MessageLength { length: usize, limit: usize },
    #[error("a chunk stream more than {limit} (limit chunk_streams)")]
    ChunkStreams { limit: usize },
    #[error("unfinished messages take over {limit} bytes (limit bytes_in_progress)")]
    BytesInProgress { limit: usize },
    #[error("chunk stream {chunk_stream} begins with header type {fmt}, which leaves length and type open")]
    NoHeader { chunk_stream: u32, fmt: u8 },
    #[error("chunk stream {chunk_stream} starts a message {missing} bytes before the end of the last one")]
    Unfinished { chunk_stream: u32, missing: usize },
    #[error("Set Chunk Size to {0}, legal are 1 to 0x7FFFFFFF")]
    ChunkSize(u32),
    #[error("a protocol control message of {0} bytes, too short")]
    Control(usize),
}

#[cfg(test)]
mod tests;
