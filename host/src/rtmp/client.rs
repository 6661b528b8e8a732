//! The side of a connection that publishes.

use bytes::{Bytes, BytesMut};

use super::{
    Error, Limits, Output, amf0,
    amf0::Value,
    error::Cause,
    link::{COMMANDS, Incoming, Link},
    message::{Command, Message},
    tag,
};

/// Chunk streams of the published stream: one for each kind of message, so that headers stay short.
const DATA: u32 = 5;
const AUDIO: u32 = 4;
const VIDEO: u32 = 6;

/// Transaction ids: each command is sent once.
const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE_STREAM: f64 = 4.0;
const PUBLISH: f64 = 5.0;
const FC_UNPUBLISH: f64 = 6.0;
const DELETE_STREAM: f64 = 7.0;

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `rtmp://host[:port]/app`
    pub tc_url: String,
    pub app: String,
    /// Publishing name, with its query.
    pub name: String,
}

/// The client's side of one connection, which publishes one stream.
///
/// The driver loops: [`handle_input`](Self::handle_input) with what came, write out
/// [`output`](Self::output). Once [`is_publishing`](Self::is_publishing), it sends tags at its own pace, and
/// keeps the output short by writing it out. After an error nothing more can be done.
#[derive(Debug)]
pub struct Client {
    link: Link,
    target: Target,
    chunk_size: u32,
    phase: Phase,
}

/// ```text
/// Handshake → Connecting → Creating → Asking → Publishing → Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    /// Until `connect` is answered.
    Connecting,
    /// Until `createStream` is answered.
    Creating,
    /// Until `publish` is answered.
    Asking {
        message_stream: u32,
    },
    Publishing {
        message_stream: u32,
    },
    Closed,
}

impl Client {
    /// A client that will send in chunks of so many bytes, 1 or more.
    pub fn new(target: Target, chunk_size: u32) -> Self {
        Self { link: Link::client(Limits::default()), target, chunk_size, phase: Phase::Handshake }
    }

    /// Takes all of the input but for the beginning of a handshake part or chunk header, which stays there.
    /// A refusal by the server is an error: [`Cause::Refused`], [`Cause::Stopped`].
    pub fn handle_input(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        loop {
            let incoming = self.link.receive(input)?;
            if self.phase == Phase::Handshake && self.link.is_established() {
                self.connect();
            }
            let Some(Incoming { message, .. }) = incoming else { return Ok(()) };
            if let Message::Command(command) = message {
                self.answer(&command).map_err(|cause| self.link.error(cause))?;
            }
        }
    }

    /// What to write to the server.
    pub fn output(&mut self) -> &mut Output {
        self.link.output()
    }

    /// Whether the server has taken the stream.
    pub fn is_publishing(&self) -> bool {
        matches!(self.phase, Phase::Publishing { .. })
    }

    /// The message stream that tags are sent on, if the server has taken the stream.
    pub fn message_stream(&self) -> Option<u32> {
        match self.phase {
            Phase::Publishing { message_stream } => Some(message_stream),
            _ => None,
        }
    }

    /// Sends the body of an FLV tag; of a script data tag as the stream's metadata.
    ///
    /// # Panics
    /// If the client [is not publishing](Self::is_publishing), or the type is none of [`tag::kind`].
    pub fn send(&mut self, tag_type: u8, timestamp_ms: u32, body: Bytes) {
        let Phase::Publishing { message_stream } = self.phase else { panic!("not publishing") };
        let (chunk_stream, message) = match tag_type {
            tag::kind::AUDIO => (AUDIO, Message::Audio(body)),
            tag::kind::VIDEO => (VIDEO, Message::Video(body)),
            tag::kind::SCRIPT_DATA => {
                let mut values = Vec::new();
                amf0::write_str("@setDataFrame", &mut values);
                values.extend_from_slice(&body);
                (DATA, Message::Data(values.into()))
            }
            other => panic!("tag type {other}"),
        };
        self.link.send(chunk_stream, message_stream, timestamp_ms, &message);
    }

    /// Says that the stream is over. Then the output should be written out and the connection be closed for
    /// writing; when the server closes it as well, it has taken everything.
    pub fn close(&mut self) {
        if let Phase::Publishing { message_stream } = self.phase {
            let name = self.target.name.as_str().into();
            self.call("FCUnpublish", FC_UNPUBLISH, vec![Value::Null, name]);
            self.call("deleteStream", DELETE_STREAM, vec![Value::Null, f64::from(message_stream).into()]);
        }
        self.phase = Phase::Closed;
    }

    fn connect(&mut self) {
        let object = amf0::object([
            ("app", self.target.app.as_str().into()),
            ("type", "nonprivate".into()),
            ("flashVer", "FMLE/3.0 (compatible; Reelwright)".into()),
            ("tcUrl", self.target.tc_url.as_str().into()),
        ]);
        self.call("connect", CONNECT, vec![object]);
        self.phase = Phase::Connecting;
    }

    fn answer(&mut self, command: &Command) -> Result<(), Cause> {
        let Command { name, transaction, arguments } = command;
        let refused = |command| {
            let (code, description) = information(arguments);
            Err(Cause::Refused { command, code, description })
        };
        match (self.phase, name.as_str()) {
            (Phase::Connecting, "_result") if *transaction == CONNECT => {
                self.link.set_chunk_size(self.chunk_size);
                let name: Value = self.target.name.as_str().into();
                self.call("releaseStream", RELEASE_STREAM, vec![Value::Null, name.clone()]);
                self.call("FCPublish", FC_PUBLISH, vec![Value::Null, name]);
                self.call("createStream", CREATE_STREAM, vec![Value::Null]);
                self.phase = Phase::Creating;
            }
            (Phase::Connecting, "_error") => return refused("connect"),
            (Phase::Creating, "_result") if *transaction == CREATE_STREAM => {
                // No answer in the standard is without a number; 1 is what all servers begin with.
                let message_stream = arguments.get(1).and_then(Value::as_f64).unwrap_or(1.0) as u32;
                let name = self.target.name.as_str().into();
                let arguments = vec![Value::Null, name, "live".into()];
                let publish = Message::Command(Command::new("publish", PUBLISH, arguments));
                self.link.send(COMMANDS, message_stream, 0, &publish);
                self.phase = Phase::Asking { message_stream };
            }
            (Phase::Creating, "_error") if *transaction == CREATE_STREAM => return refused("createStream"),
            (Phase::Asking { .. }, "_error") if *transaction == PUBLISH => return refused("publish"),
            (Phase::Asking { message_stream }, "onStatus") => {
                if level(arguments) == "error" {
                    return refused("publish");
                }
                if information(arguments).0 == "NetStream.Publish.Start" {
                    self.phase = Phase::Publishing { message_stream };
                }
            }
            (Phase::Publishing { .. }, "onStatus") => {
                let (code, description) = information(arguments);
                if level(arguments) == "error" || code.starts_with("NetStream.Unpublish") {
                    return Err(Cause::Stopped { code, description });
                }
            }
            (Phase::Publishing { .. } | Phase::Asking { .. } | Phase::Creating, "close") => {
                let (code, description) = information(arguments);
                return Err(Cause::Stopped { code, description });
            }
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, name: &str, transaction: f64, arguments: Vec<Value>) {
        self.link.send(COMMANDS, 0, 0, &Message::Command(Command::new(name, transaction, arguments)));
    }
}

/// A text of the information object of an answer.
fn info<'a>(arguments: &'a [Value], key: &str) -> &'a str {
    arguments.iter().rev().find_map(|value| value.get(key)?.as_str()).unwrap_or_default()
}

fn level(arguments: &[Value]) -> &str {
    info(arguments, "level")
}

/// Code and description of an answer.
fn information(arguments: &[Value]) -> (String, String) {
    (info(arguments, "code").to_owned(), info(arguments, "description").to_owned())
}
