//! RTMP: bytes from a peer in, tracks and samples out, and the bytes that answer the peer.
//!
//! Everything but [`server`] is without sockets, clocks and tasks:
//!
//! ```text
//! bytes → handshake → chunk → message → session → events: Publish, Metadata, Track, Sample, …
//!                               amf0 ↗      ↖ tag, metadata, clock
//!                                            ↘ output → bytes
//! ```
//!
//! [`Session`] is the side that is published to, [`Client`] the side that publishes; what both share is in
//! `link`.
//!
//! Standards, by the names that the comments use:
//! - Adobe RTMP 1.0: "Adobe's Real Time Messaging Protocol", 2012;
//! - "Action Message Format – AMF 0", 2007;
//! - FLV 10.1: "Adobe Flash Video File Format Specification", version 10.1, Annex E;
//! - Enhanced RTMP v2, so far only as far as it takes to name what is not supported.
//!
//! Whatever a peer sends, memory is bounded by [`Limits`] and errors say where: see [`Error`].

pub mod amf0;
mod annex_b;
pub mod chunk;
pub mod client;
mod clock;
mod error;
pub mod event;
mod handshake;
mod link;
pub mod message;
mod metadata;
mod output;
pub mod server;
pub mod session;
mod socket;
pub mod tag;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::{Cause, Error};
pub use event::Event;
pub use metadata::{Declared, Metadata};
pub use output::Output;
pub use session::Session;

/// Bounds of what one connection may make us keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, so of one sample.
    pub message_bytes: usize,
    /// Chunk streams that a peer may use.
    pub chunk_streams: usize,
    /// Memory of messages that have begun and not ended, over all chunk streams.
    pub bytes_in_progress: usize,
    /// Bytes of a codec configuration, which lives as long as its stream.
    pub config_bytes: usize,
    pub amf0: amf0::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 8 << 20,
            chunk_streams: 64,
            bytes_in_progress: 16 << 20,
            config_bytes: 64 << 10,
            amf0: amf0::Limits::default(),
        }
    }
}
