//! The side of a connection that is published to.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    Error, Event, Limits, Metadata, Output, amf0,
    amf0::Value,
    annex_b,
    chunk::Unfinished,
    clock::Clock,
    error::Cause,
    event::{ConnectInfo, PublishKind, PublishRequest, Repair, SkipReason, Skipped, Skips, track_id},
    link::{CHUNK_BYTES, COMMANDS, Incoming, Link, WINDOW_BYTES},
    message::{self, BandwidthLimit, Command, Message, UserControl},
    tag,
};
use crate::media::{Kind, Sample, Track};

/// Chunk stream of what we say about the published stream.
const STATUS: u32 = 5;

/// Longest text taken over from `connect`; more is cut off.
const TEXT_BYTES: usize = 1024;

/// `fmsVer` and `capabilities` of the answer to `connect`. Some clients read them, and expect a server of
/// that kind and age.
const SERVER_VERSION: &str = "FMS/3,5,7,7009";
const CAPABILITIES: f64 = 31.0;

/// The server's side of one connection.
///
/// The driver loops: [`handle_input`](Self::handle_input) with what came, [`poll_event`](Self::poll_event)
/// until there is none, write out [`output`](Self::output). Events and output are bounded by the input that
/// they came from. After an error it must not be given more input, but events from before the error are
/// good, and the output may tell the peer why.
#[derive(Debug)]
pub struct Session {
    link: Link,
    phase: Phase,
    app: String,
    /// What followed `?` in the application's name.
    app_query: Option<String>,
    connect: ConnectInfo,
    last_message_stream: u32,
    stream: Stream,
    events: VecDeque<Event>,
}

/// ```text
/// Unconnected → Idle → Asked → Publishing
///                 ↑      ↓         ↓
///                 └── refused ── ended
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Handshake, and until `connect`.
    Unconnected,
    Idle,
    /// The driver has yet to answer [`Event::Publish`]. Not every client waits, so input does.
    Asked {
        message_stream: u32,
    },
    Publishing {
        message_stream: u32,
    },
}

/// What is known of the published stream.
#[derive(Debug, Default)]
struct Stream {
    /// Of [`track_id`] 1 and 2, as the next two.
    clocks: [Clock; 2],
    /// Codec configurations.
    configs: [Option<Bytes>; 2],
    /// Tracks of the stream of that name before, which stand in for headers that do not come.
    remembered: [Option<Track>; 2],
    metadata: Metadata,
    /// Bytes of the length in front of each NAL unit; 0 before the first sequence header.
    length_bytes: u8,
    annex_b: bool,
    skips: Skips,
}

impl Session {
    pub fn new(limits: Limits) -> Self {
        Self {
            link: Link::server(limits),
            phase: Phase::Unconnected,
            app: String::new(),
            app_query: None,
            connect: ConnectInfo::default(),
            last_message_stream: 0,
            stream: Stream::default(),
            events: VecDeque::new(),
        }
    }

    /// Takes the input, but for the beginning of a handshake part or chunk header at its end, and what comes
    /// after a command that makes an [`Event::Publish`]: call again after the answer. Samples share the input's memory.
    pub fn handle_input(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        while !matches!(self.phase, Phase::Asked { .. })
            && let Some(incoming) = self.link.receive(input)?
        {
            self.handle(incoming).map_err(|cause| {
                if let Cause::Codec(codec) = &cause {
                    self.status("error", "NetStream.Publish.Failed", &codec.to_string());
                }
                self.link.error(cause)
            })?;
        }
        Ok(())
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What to write to the peer.
    pub fn output(&mut self) -> &mut Output {
        self.link.output()
    }

    /// The longest message that is on its way, of which the end is missing if none comes.
    pub fn unfinished(&self) -> Option<Unfinished> {
        self.link.unfinished()
    }

    /// Whether the handshake is over.
    pub fn is_established(&self) -> bool {
        self.link.is_established()
    }

    /// Bytes taken so far.
    pub fn position(&self) -> u64 {
        self.link.position()
    }

    /// What was left out of the stream so far.
    pub fn skips(&self) -> Skips {
        self.stream.skips
    }

    /// Answers [`Event::Publish`] by yes.
    pub fn accept_publish(&mut self) {
        let Phase::Asked { message_stream } = self.phase else { return };
        self.phase = Phase::Publishing { message_stream };
        self.link.control(&Message::UserControl(UserControl::StreamBegin(message_stream)));
        self.status("status", "NetStream.Publish.Start", "publishing");
    }

    /// Before an answer: which tracks the stream of that name had a moment ago. A sample that comes without a
    /// sequence header is taken for one of these.
    pub fn remember(&mut self, tracks: &[Track]) {
        for track in tracks {
            if let Some(slot) = self.stream.remembered.get_mut((track.id as usize).wrapping_sub(1)) {
                *slot = Some(track.clone());
            }
        }
    }

    /// Answers [`Event::Publish`] by no.
    pub fn refuse_publish(&mut self, reason: &str) {
        if let Phase::Asked { .. } = self.phase {
            self.status("error", "NetStream.Publish.BadName", reason);
            self.phase = Phase::Idle;
        }
    }

    /// Ends the stream from our side. The peer may not care: close the connection then.
    pub fn stop_publish(&mut self, reason: &str) {
        if let Phase::Publishing { .. } = self.phase {
            self.status("status", "NetStream.Unpublish.Success", reason);
            self.phase = Phase::Idle;
        }
    }

    fn handle(&mut self, incoming: Incoming) -> Result<(), Cause> {
        let Incoming { message_stream, timestamp_ms, message } = incoming;
        match message {
            Message::Audio(body) => self.media(Kind::Audio, timestamp_ms, body),
            Message::Video(body) => self.media(Kind::Video, timestamp_ms, body),
            Message::Aggregate(tags) => message::aggregate(timestamp_ms, tags).try_for_each(|tag| {
                let (header, body) = tag?;
                // So that a small sample does not keep the whole message.
                let body = Bytes::copy_from_slice(&body);
                match header.tag_type {
                    tag::kind::AUDIO => self.media(Kind::Audio, header.timestamp_ms, body),
                    tag::kind::VIDEO => self.media(Kind::Video, header.timestamp_ms, body),
                    _ => Ok(()),
                }
            }),
            Message::Data(values) => {
                self.data(timestamp_ms, &values);
                Ok(())
            }
            Message::Command(command) => self.command(message_stream, command),
            // Acknowledgements, events of players, shared objects.
            _ => Ok(()),
        }
    }

    /// Of whatever message stream: one connection publishes one stream, and not all clients count alike.
    fn media(&mut self, kind: Kind, timestamp_ms: u32, body: Bytes) -> Result<(), Cause> {
        if !matches!(self.phase, Phase::Publishing { .. }) {
            self.skip(timestamp_ms, SkipReason::NotPublishing);
            return Ok(());
        }
        let read = match kind {
            Kind::Video => tag::video(body),
            Kind::Audio => tag::audio(body),
        };
        match read {
            Ok(tag::Body::Sample(payload)) => self.sample(kind, timestamp_ms, payload),
            Ok(tag::Body::Configuration { codec, config }) => {
                self.configuration(kind, timestamp_ms, codec, config);
            }
            Ok(tag::Body::EndOfSequence | tag::Body::Nothing) => {}
            Err(tag::Error::Codec(codec)) => return Err(codec.into()),
            Err(error) => self.skip(timestamp_ms, SkipReason::Tag(error)),
        }
        Ok(())
    }

    fn sample(&mut self, kind: Kind, timestamp_ms: u32, payload: tag::Payload) {
        let tag::Payload { composition_time_ms, key, mut data } = payload;
        let track = track_id(kind);
        let index = track as usize - 1;
        if kind == Kind::Video {
            let length_bytes = if self.stream.length_bytes == 0 { 4 } else { self.stream.length_bytes };
            if let Some(unit) = annex_b::unit(&data, length_bytes) {
                self.repaired_annex_b();
                if let Some(config) = unit.config {
                    self.configuration(kind, timestamp_ms, "avc1", config);
                }
                data = unit.data;
            }
        }
        if self.stream.configs[index].is_none()
            && let Some(remembered) = self.stream.remembered[index].take()
        {
            self.events.push_back(Event::Repaired(Repair::Remembered(kind)));
            self.configuration(kind, timestamp_ms, &remembered.codec, remembered.config);
        }
        if self.stream.configs[index].is_none() {
            return self.skip(timestamp_ms, SkipReason::NoSequenceHeader(kind));
        }
        if data.is_empty() {
            return;
        }
        let near_ms = self.stream.clocks[1 - index].last_ms();
        let dts_ms = self.stream.clocks[index].unwrap_ms(timestamp_ms, near_ms);
        let pts_ms = dts_ms + i64::from(composition_time_ms);
        self.events.push_back(Event::Sample(Sample {
            track,
            dts_ms,
            pts_ms,
            key,
            discontinuity: false,
            data,
        }));
    }

    fn repaired_annex_b(&mut self) {
        if !std::mem::replace(&mut self.stream.annex_b, true) {
            self.events.push_back(Event::Repaired(Repair::AnnexB));
        }
    }

    /// A sequence header. Encoders repeat it; only what changes makes a track.
    fn configuration(&mut self, kind: Kind, timestamp_ms: u32, codec: &str, mut config: Bytes) {
        if kind == Kind::Video
            && let Some(record) = annex_b::record(&config)
        {
            config = record;
            self.repaired_annex_b();
        }
        let id = track_id(kind);
        let known = &mut self.stream.configs[id as usize - 1];
        if known.as_ref() == Some(&config) {
            return;
        }
        let limit = self.link.limits().config_bytes;
        let checked = match kind {
            _ if config.len() > limit => Err(reelwright_codec::Error {
                structure: "codec configuration",
                message: format!("{} bytes, at most {limit} (limit config_bytes)", config.len()),
            }),
            Kind::Video => reelwright_codec::avc::AvcConfig::parse(&config).map(drop),
            Kind::Audio => reelwright_codec::aac::AudioSpecificConfig::parse(&config).map(drop),
        };
        if let Err(error) = checked {
            return self.skip(timestamp_ms, SkipReason::SequenceHeader(error));
        }
        // It lives as long as the stream, and is not to keep what came with it.
        let config = Bytes::copy_from_slice(&config);
        *known = Some(config.clone());
        if kind == Kind::Video {
            self.stream.length_bytes = annex_b::length_bytes(&config);
        }
        let properties = self.stream.metadata.track_properties(kind);
        self.events.push_back(Event::Track(Track { id, kind, codec: codec.to_owned(), config, properties }));
    }

    fn data(&mut self, timestamp_ms: u32, payload: &[u8]) {
        if !matches!(self.phase, Phase::Publishing { .. }) {
            return;
        }
        match Metadata::read(payload, self.link.limits().amf0) {
            Ok(Some(metadata)) => {
                self.stream.metadata = metadata.clone();
                self.events.push_back(Event::Metadata(metadata));
            }
            Ok(None) => {}
            Err(error) => self.skip(timestamp_ms, SkipReason::Metadata(error)),
        }
    }

    fn skip(&mut self, timestamp_ms: u32, reason: SkipReason) {
        let count = self.stream.skips.count(&reason);
        *count += 1;
        if *count == 1 {
            let position = self.link.position();
            self.events.push_back(Event::Skipped(Skipped { reason, timestamp_ms, position }));
        }
    }

    fn command(&mut self, message_stream: u32, command: Command) -> Result<(), Cause> {
        let Command { name, transaction, arguments } = command;
        match (name.as_str(), self.phase) {
            ("connect", Phase::Unconnected) => self.connect(transaction, &arguments),
            // Answers to what we never asked; to answer them could go on for ever.
            ("_result" | "_error" | "onStatus", _) => {}
            (_, Phase::Unconnected) => return Err(Cause::NotConnected(cut(&name))),
            ("createStream", _) => {
                self.last_message_stream = self.last_message_stream.wrapping_add(1).max(1);
                let id = f64::from(self.last_message_stream);
                self.reply("_result", transaction, [Value::Null, id.into()]);
            }
            // Not in the standard: announcements of what `publish` and `deleteStream` then do.
            ("releaseStream" | "_checkbw", _) => {
                self.reply("_result", transaction, [Value::Null, Value::Undefined]);
            }
            ("FCPublish", _) => {
                self.reply("_result", transaction, [Value::Null, Value::Undefined]);
                self.notify("onFCPublish", "NetStream.Publish.Start", string(&arguments, 1));
            }
            ("FCUnpublish", _) => {
                self.reply("_result", transaction, [Value::Null, Value::Undefined]);
                self.notify("onFCUnpublish", "NetStream.Unpublish.Success", string(&arguments, 1));
                self.end_of_stream();
            }
            ("publish", _) => self.publish(message_stream, &arguments),
            ("deleteStream", Phase::Publishing { message_stream }) => {
                let id = arguments.get(1).and_then(Value::as_f64);
                if id.is_none_or(|id| id == f64::from(message_stream)) {
                    self.end_of_stream();
                }
            }
            ("closeStream", Phase::Publishing { .. }) => self.end_of_stream(),
            ("deleteStream" | "closeStream", _) => {}
            ("getStreamLength", _) => self.reply("_result", transaction, [Value::Null, 0.0.into()]),
            ("play" | "play2", _) => {
                let name = cut(string(&arguments, 1));
                self.status_on(message_stream, "error", "NetStream.Play.Failed", "this server only records");
                self.events.push_back(Event::PlayRefused { name });
            }
            (name, _) => {
                let info = information("error", "NetConnection.Call.Failed", &format!("no method `{name}`"));
                self.reply("_error", transaction, [Value::Null, info]);
            }
        }
        Ok(())
    }

    fn connect(&mut self, transaction: f64, arguments: &[Value]) {
        let text = |key| {
            let value = arguments.first().and_then(|object| object.get(key));
            cut(value.and_then(Value::as_str).unwrap_or_default())
        };
        let app = text("app");
        let (app, query) = app.split_once('?').map_or((&*app, None), |(app, query)| (app, Some(query)));
        self.app = app.trim_matches('/').to_owned();
        self.app_query = query.map(str::to_owned);
        self.connect = ConnectInfo {
            tc_url: text("tcUrl"),
            page_url: text("pageUrl"),
            swf_url: text("swfUrl"),
            flash_ver: text("flashVer"),
        };
        self.phase = Phase::Idle;
        self.link.control(&Message::WindowAckSize(WINDOW_BYTES));
        self.link.control(&Message::SetPeerBandwidth {
            window_bytes: WINDOW_BYTES,
            limit: BandwidthLimit::Dynamic,
        });
        self.link.set_chunk_size(CHUNK_BYTES);
        let properties =
            amf0::object([("fmsVer", SERVER_VERSION.into()), ("capabilities", CAPABILITIES.into())]);
        let mut info = information("status", "NetConnection.Connect.Success", "connected");
        if let Value::Object(info) = &mut info {
            info.push(("objectEncoding".to_owned(), 0.0.into()));
        }
        // Sent whatever the transaction id: `connect` has to be answered (section 7.2.1.1).
        self.send_command(COMMANDS, 0, Command::new("_result", transaction, [properties, info]));
    }

    fn publish(&mut self, message_stream: u32, arguments: &[Value]) {
        if self.phase != Phase::Idle {
            let reason = "this connection publishes a stream already";
            return self.status_on(message_stream, "error", "NetStream.Publish.BadName", reason);
        }
        let (name, query) = match string(arguments, 1).split_once('?') {
            Some((name, query)) => (name, Some(query.to_owned())),
            None => (string(arguments, 1), self.app_query.clone()),
        };
        let kind = match string(arguments, 2) {
            "record" => PublishKind::Record,
            "append" | "appendWithGap" => PublishKind::Append,
            _ => PublishKind::Live,
        };
        self.phase = Phase::Asked { message_stream };
        self.stream = Stream::default();
        self.events.push_back(Event::Publish(Box::new(PublishRequest {
            app: self.app.clone(),
            name: name.to_owned(),
            query,
            kind,
            connect: self.connect.clone(),
        })));
    }

    fn end_of_stream(&mut self) {
        if let Phase::Publishing { .. } = self.phase {
            self.phase = Phase::Idle;
            self.events.push_back(Event::EndOfStream(self.stream.skips));
        }
    }

    /// Answers a command, unless its transaction id says that no answer is wanted.
    fn reply(&mut self, name: &str, transaction: f64, arguments: [Value; 2]) {
        if transaction != 0.0 {
            self.send_command(COMMANDS, 0, Command::new(name, transaction, arguments));
        }
    }

    fn notify(&mut self, name: &str, code: &str, description: &str) {
        let info = amf0::object([("code", code.into()), ("description", description.into())]);
        self.send_command(COMMANDS, 0, Command::new(name, 0.0, [Value::Null, info]));
    }

    /// `onStatus` for the published stream.
    fn status(&mut self, level: &str, code: &str, description: &str) {
        if let Phase::Asked { message_stream } | Phase::Publishing { message_stream } = self.phase {
            self.status_on(message_stream, level, code, description);
        }
    }

    fn status_on(&mut self, message_stream: u32, level: &str, code: &str, description: &str) {
        let info = information(level, code, description);
        self.send_command(STATUS, message_stream, Command::new("onStatus", 0.0, [Value::Null, info]));
    }

    fn send_command(&mut self, chunk_stream: u32, message_stream: u32, command: Command) {
        self.link.send(chunk_stream, message_stream, 0, &Message::Command(command));
    }
}

/// The information object of answers and status messages.
fn information(level: &str, code: &str, description: &str) -> Value {
    amf0::object([("level", level.into()), ("code", code.into()), ("description", description.into())])
}

/// An argument that should be a string; empty if it is none.
fn string(arguments: &[Value], index: usize) -> &str {
    arguments.get(index).and_then(Value::as_str).unwrap_or_default()
}

/// A text for logs and listings, which a peer must not flood.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES)].to_owned()
}
