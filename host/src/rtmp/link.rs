//! What both ends of a connection do alike: handshake, chunks, acknowledgements, pings.

use bytes::{Buf, BytesMut};

use super::{
    Cause, Error, Limits, Output,
    chunk::{ChunkReader, ChunkWriter, RawMessage, Unfinished},
    handshake::Handshake,
    message::{Message, UserControl},
};

/// Chunk stream of protocol control messages (Adobe RTMP 1.0, section 5.4).
pub(super) const CONTROL: u32 = 2;
/// Chunk stream of commands that concern the connection; any would do.
pub(super) const COMMANDS: u32 = 3;

/// Bytes between acknowledgements, ours until the peer says Window Acknowledgement Size, and the peer's.
pub(super) const WINDOW_BYTES: u32 = 2_500_000;
/// Chunk size of what we send: most messages are one chunk then.
pub(super) const CHUNK_BYTES: u32 = 65_536;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Link {
    limits: Limits,
    handshake: Handshake,
    established: bool,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: Output,
    received: u64,
    acknowledged: u64,
    window_bytes: u32,
}

/// A message that is not the link's own business.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) message_stream: u32,
    pub(super) timestamp_ms: u32,
    pub(super) message: Message,
}

impl Link {
    pub(super) fn server(limits: Limits) -> Self {
        Self::new(limits, Handshake::server(), Output::default())
    }

    pub(super) fn client(limits: Limits) -> Self {
        let mut output = Output::default();
        Self::new(limits, Handshake::client(&mut output), output)
    }

    fn new(limits: Limits, handshake: Handshake, output: Output) -> Self {
        Self {
            limits,
            handshake,
            established: false,
            reader: ChunkReader::new(limits),
            writer: ChunkWriter::default(),
            output,
            received: 0,
            acknowledged: 0,
            window_bytes: WINDOW_BYTES,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Whether the handshake is over.
    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// The longest message that is on its way.
    pub(super) fn unfinished(&self) -> Option<Unfinished> {
        self.reader.unfinished()
    }

    /// Takes bytes off the input up to the end of the next message. `None`: the rest of the input, if any,
    /// is the beginning of something and stays there.
    pub(super) fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, Error> {
        loop {
            let before = input.len();
            let message = self.read(input);
            self.received += (before - input.len()) as u64;
            let message = message.and_then(|raw| {
                let Some(RawMessage { message_stream, message_type, timestamp_ms, payload, .. }) = raw else {
                    return Ok(None);
                };
                let message = Message::read(message_type, payload, self.limits.amf0)?;
                Ok(Some(Incoming { message_stream, timestamp_ms, message }))
            });
            let Some(incoming) = message.map_err(|cause| self.error(cause))? else {
                self.acknowledge();
                return Ok(None);
            };
            match incoming.message {
                // The chunk reader has done it.
                Message::SetChunkSize(_) | Message::Abort(_) => {}
                Message::WindowAckSize(bytes) => self.window_bytes = bytes,
                Message::SetPeerBandwidth { window_bytes, .. } => {
                    self.control(&Message::WindowAckSize(window_bytes));
                }
                Message::UserControl(UserControl::PingRequest(timestamp_ms)) => {
                    self.control(&Message::UserControl(UserControl::PingResponse(timestamp_ms)));
                }
                _ => return Ok(Some(incoming)),
            }
        }
    }

    fn read(&mut self, input: &mut BytesMut) -> Result<Option<RawMessage>, Cause> {
        if !self.established {
            let mut rest = &input[..];
            let established = self.handshake.read(&mut rest, &mut self.output);
            let taken = input.len() - rest.len();
            input.advance(taken);
            self.established = established?;
        }
        if self.established { Ok(self.reader.read(input)?) } else { Ok(None) }
    }

    /// At most once for each call of `receive`, whatever window the peer asks for.
    fn acknowledge(&mut self) {
        if self.established && self.received - self.acknowledged >= u64::from(self.window_bytes.max(1)) {
            self.acknowledged = self.received;
            // Modulo 2^32 (section 5.4.3).
            self.control(&Message::Acknowledgement(self.received as u32));
        }
    }

    /// A fault at the place that was reached.
    pub(super) fn error(&self, cause: impl Into<Cause>) -> Error {
        Error { cause: cause.into(), position: self.received, place: self.reader.place() }
    }

    /// Bytes taken so far.
    pub(super) fn position(&self) -> u64 {
        self.received
    }

    pub(super) fn control(&mut self, message: &Message) {
        self.send(CONTROL, 0, 0, message);
    }

    /// Tells the peer and sends in larger chunks from here on.
    pub(super) fn set_chunk_size(&mut self, bytes: u32) {
        self.control(&Message::SetChunkSize(bytes));
        self.writer.set_chunk_size(bytes);
    }

    pub(super) fn send(
        &mut self,
        chunk_stream: u32,
        message_stream: u32,
        timestamp_ms: u32,
        message: &Message,
    ) {
        let (message_type, payload) = message.write();
        let raw = RawMessage { chunk_stream, message_stream, message_type, timestamp_ms, payload };
        self.writer.write(raw, &mut self.output);
    }
}
