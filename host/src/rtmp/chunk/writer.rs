//! Cuts messages up into chunks.

use super::{DEFAULT_CHUNK_SIZE, EXTENDED, RawMessage};
use crate::rtmp::Output;

/// Writes chunks, with the shortest headers that every reader understands alike.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
    last: Vec<Sent>,
}

/// The last message of a chunk stream.
#[derive(Debug)]
struct Sent {
    chunk_stream: u32,
    message_stream: u32,
    message_type: u8,
    length: usize,
    timestamp_ms: u32,
    /// `None` after a header of type 0, whose repetition readers don't agree on.
    delta_ms: Option<u32>,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self { chunk_size: DEFAULT_CHUNK_SIZE as usize, last: Vec::new() }
    }
}

impl ChunkWriter {
    /// Takes effect with the next message; the peer has to be told before.
    pub fn set_chunk_size(&mut self, bytes: u32) {
        debug_assert!((1..=0x7fff_ffff).contains(&bytes));
        self.chunk_size = bytes as usize;
    }

    /// Writes one message.
    pub fn write(&mut self, message: RawMessage, out: &mut Output) {
        let RawMessage { chunk_stream, message_stream, message_type, timestamp_ms, mut payload } = message;
        debug_assert!(payload.len() <= 0xff_ffff, "the length field has 24 bits");
        debug_assert!((2..=super::MAX_CHUNK_STREAM).contains(&chunk_stream));
        let length = payload.len();
        let index = self.last.iter().position(|sent| sent.chunk_stream == chunk_stream);
        let last = index.map(|index| &self.last[index]).filter(|sent| sent.message_stream == message_stream);
        // A step back, or one so large that a delta saves nothing, takes the absolute timestamp.
        let delta_ms =
            last.map(|sent| timestamp_ms.wrapping_sub(sent.timestamp_ms)).filter(|&delta| delta < EXTENDED);
        let fmt = match (last, delta_ms) {
            (Some(last), Some(_)) if last.length != length || last.message_type != message_type => 1,
            (Some(last), Some(_)) if last.delta_ms != delta_ms => 2,
            (Some(_), Some(_)) => 3,
            _ => 0,
        };
        let time = delta_ms.unwrap_or(timestamp_ms);
        let extended = (time >= EXTENDED).then_some(time);

        let mut header = [0; 11];
        header[..3].copy_from_slice(&time.min(EXTENDED).to_be_bytes()[1..]);
        header[3..6].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        header[6] = message_type;
        header[7..].copy_from_slice(&message_stream.to_le_bytes());
        let size = match fmt {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        put_basic_header(fmt, chunk_stream, out);
        out.put_slice(&header[..size]);
        loop {
            if let Some(extended) = extended {
                out.put_slice(&extended.to_be_bytes());
            }
            out.put_payload(payload.split_to(payload.len().min(self.chunk_size)));
            if payload.is_empty() {
                break;
            }
            put_basic_header(3, chunk_stream, out);
        }

        let sent = Sent { chunk_stream, message_stream, message_type, length, timestamp_ms, delta_ms };
        match index {
            Some(index) => self.last[index] = sent,
            None => self.last.push(sent),
        }
    }
}

fn put_basic_header(fmt: u8, chunk_stream: u32, out: &mut Output) {
    let fmt = fmt << 6;
    match chunk_stream {
        ..64 => out.put_slice(&[fmt | chunk_stream as u8]),
        64..320 => out.put_slice(&[fmt, (chunk_stream - 64) as u8]),
        _ => {
            let [low, high] = ((chunk_stream - 64) as u16).to_le_bytes();
            out.put_slice(&[fmt | 1, low, high]);
        }
    }
}
