//! What ends a connection, and where it happened.

use std::fmt;

use super::{amf0, chunk, handshake, message, tag};

/// A fault of the peer that ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub cause: Cause,
    /// Bytes of the connection that were taken when the fault was seen, the handshake included.
    pub position: u64,
    /// The chunk that was read last, if the handshake was over.
    pub place: Option<Place>,
}

/// Which chunk header stands before a byte of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub chunk_stream: u32,
    pub message_type: u8,
    pub timestamp_ms: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Handshake(#[from] handshake::Error),
    #[error(transparent)]
    Chunk(#[from] chunk::Error),
    #[error(transparent)]
    Message(#[from] message::Error),
    #[error(transparent)]
    Amf0(#[from] amf0::Error),
    #[error(transparent)]
    Codec(#[from] tag::UnsupportedCodec),
    #[error("command `{0}` before `connect`")]
    NotConnected(String),
    /// The other side said no to what a [`Client`](super::Client) asked for.
    #[error("the server refused `{command}`: {code}: {description}")]
    Refused { command: &'static str, code: String, description: String },
    /// The other side ended the stream that a [`Client`](super::Client) publishes.
    #[error("the server ended the stream: {code}: {description}")]
    Stopped { code: String, description: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {} of the connection", self.cause, self.position)?;
        if let Some(Place { chunk_stream, message_type, timestamp_ms }) = self.place {
            write!(
                f,
                ", chunk stream {chunk_stream}, message type {message_type}, timestamp {timestamp_ms} ms"
            )?;
        }
        f.write_str(")")
    }
}

// The cause is part of the message, so there is no source to print after it.
impl std::error::Error for Error {}
