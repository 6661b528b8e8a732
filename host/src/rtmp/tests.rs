//! Whole connections: a capture of a real publisher, our client against our server, and hostile peers.

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::{
    amf0::{self, Value},
    chunk::{self, ChunkReader, ChunkWriter, RawMessage},
    client::{Client, Target},
    event::{PublishKind, Repair, SkipReason, Skips},
    message::{self, Command, Message, UserControl, kind},
    *,
};
use crate::media::{Kind, Sample, Track};

/// All bytes that FFmpeg 5.1 sent to publish `clip.flv` (below) as `rtmp://…/live/cam1?key=secret`, by
/// `ffmpeg -i clip.flv -c copy -f flv URL`.
const FFMPEG: &[u8] = include_bytes!("testdata/ffmpeg-5.1-publish.bin");
/// The file that was published: 1 s of test picture with B-frames, H.264 and AAC, muxed by FFmpeg 5.1.
const CLIP: &[u8] = include_bytes!("../publish/testdata/ffmpeg-5.1.flv");

/// A client made of hand: sends what a test says, and takes apart what the session answers.
struct Peer {
    session: Session,
    writer: ChunkWriter,
    reader: ChunkReader,
    answers: BytesMut,
}

impl Peer {
    /// After the handshake.
    fn new() -> Self {
        let mut session = Session::new(Limits::default());
        let mut hello = BytesMut::from(&[&[3][..], &[0; 2 * 1536]].concat()[..]);
        session.handle_input(&mut hello).unwrap();
        assert!(hello.is_empty() && session.is_established());
        session.output().advance(1 + 2 * 1536);
        let reader = ChunkReader::new(Limits::default());
        Self { session, writer: ChunkWriter::default(), reader, answers: BytesMut::new() }
    }

    /// After `connect` and `createStream`.
    fn connected() -> Self {
        let mut peer = Self::new();
        peer.call("connect", 1.0, [amf0::object([("app", "live".into())])]).unwrap();
        peer.call("createStream", 2.0, [Value::Null]).unwrap();
        peer.answers();
        peer
    }

    /// After an accepted `publish`.
    fn publishing() -> Self {
        let mut peer = Self::connected();
        peer.publish("cam1");
        peer.session.accept_publish();
        assert!(matches!(peer.events()[..], [Event::Publish(_)]));
        peer.answers();
        peer
    }

    fn publish(&mut self, name: &str) {
        self.call("publish", 3.0, [Value::Null, name.into(), "live".into()]).unwrap();
    }

    fn call<const N: usize>(
        &mut self,
        name: &str,
        transaction: f64,
        arguments: [Value; N],
    ) -> Result<(), Error> {
        self.send(1, 0, &Message::Command(Command::new(name, transaction, arguments)))
    }

    fn send(&mut self, message_stream: u32, timestamp_ms: u32, message: &Message) -> Result<(), Error> {
        let (message_type, payload) = message.write();
        let mut output = Output::default();
        let raw = RawMessage { chunk_stream: 3, message_stream, message_type, timestamp_ms, payload };
        self.writer.write(raw, &mut output);
        self.raw(&output.copy_to_bytes(output.remaining()))
    }

    fn video(&mut self, timestamp_ms: u32, body: &[u8]) -> Result<(), Error> {
        self.send(1, timestamp_ms, &Message::Video(Bytes::copy_from_slice(body)))
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.session.handle_input(&mut BytesMut::from(bytes))
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    fn answers(&mut self) -> Vec<(u32, Message)> {
        let remaining = self.session.output().remaining();
        self.answers.extend_from_slice(&self.session.output().copy_to_bytes(remaining));
        let mut input = BytesMut::from(&self.answers[..]);
        let mut messages = Vec::new();
        while let Some(raw) = self.reader.read(&mut input).unwrap() {
            let message = Message::read(raw.message_type, raw.payload, Limits::default().amf0).unwrap();
            messages.push((raw.message_stream, message));
        }
        assert!(input.is_empty());
        self.answers.clear();
        messages
    }

    /// Answers, in short: command, transaction, and the code or else the last value.
    fn short_answers(&mut self) -> Vec<String> {
        let commands = self.answers().into_iter().filter_map(|(_, message)| match message {
            Message::Command(command) => Some(command),
            _ => None,
        });
        let short = |Command { name, transaction, arguments }: Command| {
            let last = arguments.last().unwrap();
            match last.get("code").and_then(Value::as_str) {
                Some(code) => format!("{name} {transaction} {code}"),
                None => format!("{name} {transaction} {last:?}"),
            }
        };
        commands.map(short).collect()
    }
}

/// The audio and video tags of a file that is known to be good.
fn tags(mut file: &[u8]) -> Vec<(tag::Header, Bytes)> {
    file = &file[9 + 4..];
    let mut tags = Vec::new();
    while let Some(header) = file.first_chunk() {
        let header = tag::Header::read(header);
        file = &file[tag::HEADER_BYTES..];
        tags.push((header, Bytes::copy_from_slice(&file[..header.data_bytes])));
        file = &file[header.data_bytes + 4..];
    }
    tags
}

/// The samples of a file that is known to be good.
fn samples(file: &[u8]) -> Vec<Sample> {
    let sample = |(header, body): (tag::Header, Bytes)| {
        let (track, body) = match header.tag_type {
            tag::kind::VIDEO => (1, tag::video(body).unwrap()),
            tag::kind::AUDIO => (2, tag::audio(body).unwrap()),
            _ => return None,
        };
        let tag::Body::Sample(tag::Payload { composition_time_ms, key, data }) = body else { return None };
        let dts_ms = i64::from(header.timestamp_ms);
        Some(Sample {
            track,
            dts_ms,
            pts_ms: dts_ms + i64::from(composition_time_ms),
            key,
            discontinuity: false,
            data,
        })
    };
    tags(file).into_iter().filter_map(sample).collect()
}

fn kinds(events: &[Event]) -> String {
    let kind = |event: &Event| match event {
        Event::Publish(_) => 'P',
        Event::Metadata(_) => 'M',
        Event::Track(Track { kind: Kind::Video, .. }) => 'V',
        Event::Track(_) => 'A',
        Event::Sample(_) => '.',
        Event::Skipped(_) => '!',
        Event::Repaired(_) => '~',
        Event::EndOfStream(_) => 'E',
        Event::PlayRefused { .. } => 'p',
    };
    let mut kinds: Vec<char> = events.iter().map(kind).collect();
    kinds.dedup();
    kinds.into_iter().collect()
}

#[test]
fn a_publish_of_ffmpeg_gives_the_samples_of_the_file() {
    for step in [1, 13, 1400, 65_536] {
        let mut session = Session::new(Limits::default());
        let mut input = BytesMut::new();
        let mut events = Vec::new();
        for part in FFMPEG.chunks(step) {
            input.extend_from_slice(part);
            session.handle_input(&mut input).unwrap();
            while let Some(event) = session.poll_event() {
                if let Event::Publish(_) = event {
                    session.accept_publish();
                    session.handle_input(&mut input).unwrap();
                }
                events.push(event);
            }
        }
        assert!(input.is_empty());
        assert_eq!(session.position(), FFMPEG.len() as u64);
        assert_eq!(kinds(&events), "PMVA.E");

        let Event::Publish(request) = &events[0] else { unreachable!() };
        assert_eq!((request.app.as_str(), request.name.as_str()), ("live", "cam1"));
        assert_eq!((request.query.as_deref(), request.kind), (Some("key=secret"), PublishKind::Live));
        assert_eq!(request.connect.flash_ver, "FMLE/3.0 (compatible; Lavf59.27.100)");
        assert!(request.connect.tc_url.starts_with("rtmp://127.0.0.1:"));

        let Event::Metadata(metadata) = &events[1] else { unreachable!() };
        assert_eq!(metadata.declared, Declared { video: true, audio: true });
        let [Event::Track(video), Event::Track(audio)] = &events[2..4] else { unreachable!() };
        assert_eq!((video.id, video.codec.as_str(), video.config[0]), (1, "avc1", 1));
        assert_eq!((audio.id, audio.codec.as_str(), &audio.config[..2]), (2, "mp4a", &[0x12, 0x08][..]));
        assert!(video.properties.contains(&("width".into(), "64".into())));
        assert!(audio.properties.contains(&("channels".into(), "1".into())));

        let got = events.iter().filter_map(|event| match event {
            Event::Sample(sample) => Some(sample.clone()),
            _ => None,
        });
        assert_eq!(got.collect::<Vec<_>>(), samples(CLIP));
        assert_eq!(events.last(), Some(&Event::EndOfStream(Skips::default())));
    }
}

#[test]
fn our_client_and_our_server_agree() {
    let mut server = Session::new(Limits::default());
    let mut client = Client::new(
        Target { tc_url: "rtmp://localhost/live".into(), app: "live".into(), name: "cam1?key=secret".into() },
        65_536,
    );
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let mut events = Vec::new();
    let mut tags = tags(CLIP).into_iter();
    let mut closed = false;
    while !closed || client.output().has_remaining() {
        let remaining = client.output().remaining();
        to_server.extend_from_slice(&client.output().copy_to_bytes(remaining));
        server.handle_input(&mut to_server).unwrap();
        while let Some(event) = server.poll_event() {
            if let Event::Publish(_) = event {
                server.accept_publish();
            }
            events.push(event);
        }
        let remaining = server.output().remaining();
        to_client.extend_from_slice(&server.output().copy_to_bytes(remaining));
        client.handle_input(&mut to_client).unwrap();
        if client.is_publishing() {
            match tags.next() {
                Some((header, body)) => client.send(header.tag_type, header.timestamp_ms, body),
                None => {
                    client.close();
                    closed = true;
                }
            }
        }
    }
    server.handle_input(&mut to_server).unwrap();
    events.extend(server.poll_event());
    assert_eq!(kinds(&events), "PMVA.E");
    let got = events.into_iter().filter_map(|event| match event {
        Event::Sample(sample) => Some(sample),
        _ => None,
    });
    assert_eq!(got.collect::<Vec<_>>(), samples(CLIP));
}

#[test]
fn our_client_says_who_refused_what() {
    let mut server = Session::new(Limits::default());
    let mut client =
        Client::new(Target { tc_url: "".into(), app: "live".into(), name: "cam1".into() }, 65_536);
    let mut bytes = BytesMut::new();
    let error = loop {
        let remaining = client.output().remaining();
        bytes.extend_from_slice(&client.output().copy_to_bytes(remaining));
        server.handle_input(&mut bytes).unwrap();
        if let Some(Event::Publish(_)) = server.poll_event() {
            server.refuse_publish("`cam1` is taken");
        }
        let remaining = server.output().remaining();
        bytes.extend_from_slice(&server.output().copy_to_bytes(remaining));
        if let Err(error) = client.handle_input(&mut bytes) {
            break error;
        }
    };
    let message = error.to_string();
    let expected = "the server refused `publish`: NetStream.Publish.BadName: `cam1` is taken (byte ";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn the_dialogue_of_encoders() {
    let mut peer = Peer::new();
    let connect = amf0::object([("app", "live/?x=1".into()), ("pageUrl", "http://p".into())]);
    peer.call("connect", 1.0, [connect]).unwrap();
    let answers = peer.answers();
    assert!(matches!(answers[0].1, Message::WindowAckSize(2_500_000)));
    assert!(matches!(answers[1].1, Message::SetPeerBandwidth { window_bytes: 2_500_000, .. }));
    assert!(matches!(answers[2].1, Message::SetChunkSize(65_536)));
    let Message::Command(Command { name, transaction, arguments }) = &answers[3].1 else { panic!() };
    assert_eq!((name.as_str(), *transaction), ("_result", 1.0));
    assert!(arguments[0].get("fmsVer").is_some() && arguments[0].get("capabilities").is_some());
    assert_eq!(arguments[1].get("objectEncoding"), Some(&Value::Number(0.0)));

    peer.call("releaseStream", 2.0, [Value::Null, "cam1".into()]).unwrap();
    peer.call("FCPublish", 3.0, [Value::Null, "cam1".into()]).unwrap();
    peer.call("createStream", 4.0, [Value::Null]).unwrap();
    peer.call("_checkbw", 5.0, [Value::Null]).unwrap();
    peer.call("getStreamLength", 6.0, [Value::Null, "cam1".into()]).unwrap();
    peer.call("doesNotExist", 7.0, []).unwrap();
    peer.call("doesNotExist", 0.0, []).unwrap();
    peer.call("_error", 8.0, [Value::Null]).unwrap();
    let expected = [
        "_result 2 Undefined",
        "_result 3 Undefined",
        "onFCPublish 0 NetStream.Publish.Start",
        "_result 4 Number(1.0)",
        "_result 5 Undefined",
        "_result 6 Number(0.0)",
        "_error 7 NetConnection.Call.Failed",
    ];
    assert_eq!(peer.short_answers(), expected);

    peer.publish("cam1");
    let [Event::Publish(request)] = &peer.events()[..] else { panic!() };
    assert_eq!((request.app.as_str(), request.connect.page_url.as_str()), ("live", "http://p"));
    assert_eq!(request.query.as_deref(), Some("x=1"), "of the application, as the stream has none");
    peer.session.accept_publish();
    let answers = peer.answers();
    assert_eq!(answers[0].1, Message::UserControl(UserControl::StreamBegin(1)));
    assert_eq!(answers[1].0, 1, "onStatus is about the message stream");

    // One stream at a time.
    peer.publish("cam2");
    assert_eq!(peer.short_answers(), ["onStatus 0 NetStream.Publish.BadName"]);
    peer.call("play", 0.0, [Value::Null, "cam1".into()]).unwrap();
    assert_eq!(peer.short_answers(), ["onStatus 0 NetStream.Play.Failed"]);
    assert_eq!(peer.events(), [Event::PlayRefused { name: "cam1".into() }]);

    peer.call("deleteStream", 0.0, [Value::Null, 7.0.into()]).unwrap();
    assert_eq!(peer.events(), [], "another stream");
    peer.call("FCUnpublish", 9.0, [Value::Null, "cam1".into()]).unwrap();
    peer.call("deleteStream", 0.0, [Value::Null, 1.0.into()]).unwrap();
    assert_eq!(peer.events(), [Event::EndOfStream(Skips::default())]);
    assert_eq!(peer.short_answers(), ["_result 9 Undefined", "onFCUnpublish 0 NetStream.Unpublish.Success"]);

    // And once more on the same connection, this time refused, then stopped from our side.
    peer.publish("cam3");
    peer.events();
    peer.session.refuse_publish("no");
    assert_eq!(peer.short_answers(), ["onStatus 0 NetStream.Publish.BadName"]);
    peer.publish("cam4");
    peer.events();
    peer.session.accept_publish();
    peer.session.stop_publish("by order");
    assert_eq!(
        peer.short_answers(),
        ["onStatus 0 NetStream.Publish.Start", "onStatus 0 NetStream.Unpublish.Success"]
    );
}

#[test]
fn input_behind_a_publish_waits_for_the_answer() {
    let mut peer = Peer::connected();
    let publish = Message::Command(Command::new("publish", 0.0, [Value::Null, "cam1".into()]));
    let video = Message::Video(Bytes::from_static(b"\x17\x01\0\0\0x"));
    let mut output = Output::default();
    for message in [&publish, &video] {
        let (message_type, payload) = message.write();
        let raw = RawMessage { chunk_stream: 3, message_stream: 1, message_type, timestamp_ms: 0, payload };
        ChunkWriter::default().write(raw, &mut output);
    }
    let mut input = BytesMut::from(&output.copy_to_bytes(output.remaining())[..]);
    peer.session.handle_input(&mut input).unwrap();
    assert_eq!(kinds(&peer.events()), "P");
    assert!(!input.is_empty());
    peer.session.accept_publish();
    peer.session.handle_input(&mut input).unwrap();
    assert!(input.is_empty());
    assert_eq!(kinds(&peer.events()), "!", "a sample before the sequence header");
}

#[test]
fn what_is_left_out_is_counted_and_said_once() {
    let mut peer = Peer::publishing();
    let tags = tags(CLIP);
    let header = &tags.iter().find(|(header, _)| header.tag_type == tag::kind::VIDEO).unwrap().1;
    for i in 0..3 {
        peer.video(40 * i, b"\x27\x01\0\0\0x").unwrap();
        peer.video(40 * i, b"\x17\x09\0\0\0x").unwrap();
        peer.video(40 * i, b"\x17\x00\0\0\0\x01").unwrap();
        peer.send(1, 0, &Message::Data(Bytes::from_static(b"\x02\0\x0aonMetaData\x03"))).unwrap();
    }
    let events = peer.events();
    let reasons = events.iter().map(|event| match event {
        Event::Skipped(skipped) => skipped.reason.to_string(),
        other => panic!("{other:?}"),
    });
    let expected = [
        "a video sample before the sequence header",
        "a malformed tag: AVCPacketType is 9, which is reserved",
        "a malformed sequence header: AVCDecoderConfigurationRecord: cut short at 1 bytes",
        "malformed metadata: AMF0 data ends inside a value, at byte 14",
    ];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
    peer.video(200, header).unwrap();
    peer.video(200, b"\x27\x01\0\0\0x").unwrap();
    assert_eq!(kinds(&peer.events()), "V.");
    let skips = peer.session.skips();
    assert_eq!(
        skips,
        Skips { no_sequence_header: 3, tags: 3, sequence_headers: 3, metadata: 3, not_publishing: 0 }
    );
    peer.call("closeStream", 0.0, []).unwrap();
    assert_eq!(peer.events(), [Event::EndOfStream(skips)]);
    assert_eq!(skips.total(), 12);

    peer.video(300, b"\x27\x01\0\0\0x").unwrap();
    let events = peer.events();
    let [Event::Skipped(skipped)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&skipped.reason, skipped.timestamp_ms), (&SkipReason::NotPublishing, 300));
}

#[test]
fn sequence_headers_make_a_track_only_when_they_change() {
    let mut peer = Peer::publishing();
    let audio = |config: &[u8]| Message::Audio([b"\xaf\x00", config].concat().into());
    for config in [&[0x12, 0x08][..], &[0x12, 0x08], &[0x11, 0x88], &[0x11, 0x88], &[0x12, 0x08]] {
        peer.send(1, 0, &audio(config)).unwrap();
    }
    let configs = peer.events().into_iter().map(|event| match event {
        Event::Track(track) => (track.id, track.config.to_vec()),
        other => panic!("{other:?}"),
    });
    let expected = [(2, vec![0x12, 0x08]), (2, vec![0x11, 0x88]), (2, vec![0x12, 0x08])];
    assert_eq!(configs.collect::<Vec<_>>(), expected);

    // AvcConfig and AudioSpecificConfig would be fine with what follows them.
    peer.send(1, 0, &audio(&[0x12; (64 << 10) + 1])).unwrap();
    let events = peer.events();
    let [Event::Skipped(skipped)] = &events[..] else { panic!("{events:?}") };
    assert!(skipped.reason.to_string().ends_with("65537 bytes, at most 65536 (limit config_bytes)"));
}

#[test]
fn timestamps_wrap_on_one_line_for_both_tracks() {
    let mut peer = Peer::publishing();
    let headers: Vec<_> = tags(CLIP).into_iter().skip(1).take(2).collect();
    for (header, body) in headers {
        let message =
            if header.tag_type == tag::kind::VIDEO { Message::Video(body) } else { Message::Audio(body) };
        peer.send(1, 0, &message).unwrap();
    }
    // A first sequence header of 0 says nothing about time.
    assert_eq!(kinds(&peer.events()), "VA");
    peer.video(0xffff_fff0, b"\x17\x01\0\0\x50x").unwrap();
    peer.send(1, 4, &Message::Audio(Bytes::from_static(b"\xaf\x01x"))).unwrap();
    peer.video(0xffff_fffb, b"\x27\x01\xff\xff\xfex").unwrap();
    peer.video(20, b"\x27\x01\0\0\0x").unwrap();
    let times = peer.events().into_iter().map(|event| match event {
        Event::Sample(sample) => (sample.track, sample.dts_ms - (1 << 32), sample.pts_ms - (1 << 32)),
        other => panic!("{other:?}"),
    });
    assert_eq!(times.collect::<Vec<_>>(), [(1, -16, 64), (2, 4, 4), (1, -5, -7), (1, 20, 20)]);
}

#[test]
fn an_unsupported_codec_ends_the_connection_and_the_encoder_is_told() {
    let mut peer = Peer::publishing();
    let error = peer.video(80, b"\x90hvc1\0\0\0").unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("video codec `hvc1` (enhanced RTMP) is not supported (byte "), "{message}");
    assert!(message.ends_with("chunk stream 3, message type 9, timestamp 80 ms)"), "{message}");
    let answers = peer.answers();
    let (1, Message::Command(command)) = &answers[0] else { panic!("{answers:?}") };
    let info = &command.arguments[1];
    assert_eq!(info.get("code").and_then(Value::as_str), Some("NetStream.Publish.Failed"));
    let description = info.get("description").and_then(Value::as_str);
    assert_eq!(description, Some("video codec `hvc1` (enhanced RTMP) is not supported"));
}

#[test]
fn aggregates_and_amf3_wrappers_are_unwrapped() {
    let mut peer = Peer::publishing();
    let mut tags = BytesMut::new();
    for (timestamp_ms, body) in [(100u8, &b"\xaf\x00\x12\x08"[..]), (110, b"\xaf\x01x"), (130, b"\xaf\x01y")]
    {
        tags.extend_from_slice(&[8, 0, 0, body.len() as u8, 0, 0, timestamp_ms, 0, 0, 0, 0]);
        tags.extend_from_slice(body);
        tags.extend_from_slice(&[0, 0, 0, 11 + body.len() as u8]);
    }
    peer.send(1, 5000, &Message::Aggregate(tags.freeze())).unwrap();
    let times = peer.events().into_iter().filter_map(|event| match event {
        Event::Sample(sample) => Some(sample.dts_ms),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [5010, 5030]);

    let (_, command) = Message::Command(Command::new("closeStream", 0.0, [])).write();
    let payload = [&[0][..], &command].concat().into();
    peer.send(1, 0, &Message::Unknown { message_type: kind::COMMAND_AMF3, payload }).unwrap();
    assert_eq!(kinds(&peer.events()), "E");
}

#[test]
fn pings_and_windows_are_answered() {
    let mut peer = Peer::publishing();
    peer.send(0, 0, &Message::UserControl(UserControl::PingRequest(77))).unwrap();
    peer.send(0, 0, &Message::UserControl(UserControl::PingResponse(77))).unwrap();
    assert_eq!(peer.answers(), [(0, Message::UserControl(UserControl::PingResponse(77)))]);
    peer.send(0, 0, &Message::WindowAckSize(100_000)).unwrap();
    peer.answers();
    let mut acknowledged = Vec::new();
    for _ in 0..35 {
        peer.send(1, 0, &Message::Data(vec![2; 10_000].into())).unwrap();
        for (_, answer) in peer.answers() {
            let Message::Acknowledgement(bytes) = answer else { panic!("{answer:?}") };
            acknowledged.push(bytes);
        }
    }
    assert_eq!(acknowledged.len(), 3);
    assert!(acknowledged.windows(2).all(|pair| pair[1] - pair[0] >= 100_000), "{acknowledged:?}");
}

#[test]
fn hostile_peers_get_a_typed_error_that_says_where() {
    let cause = |result: Result<(), Error>| result.unwrap_err().cause;
    let first = |bytes: &[u8]| Session::new(Limits::default()).handle_input(&mut BytesMut::from(bytes));
    assert_eq!(
        first(b"GET / HTTP/1.1\r\n\r\n").unwrap_err().to_string(),
        "not RTMP: the first byte is 0x47, not version 3 (byte 0 of the connection)"
    );
    // Half a handshake waits for the rest.
    assert_eq!(first(&[3; 1000]), Ok(()));

    let mut peer = Peer::new();
    let error = peer.call("publish", 1.0, []).unwrap_err();
    assert_eq!(error.cause, Cause::NotConnected("publish".into()));
    assert_eq!(error.position, 3073 + 12 + 19);
    assert!(
        error
            .to_string()
            .ends_with("(byte 3104 of the connection, chunk stream 3, message type 20, timestamp 0 ms)")
    );

    // A million arrays within each other: in a command it ends the connection, in metadata it is left out.
    let nested = b"\x0a\0\0\0\x01".repeat(1_000_000);
    let command = [b"\x02\0\x07connect\0\0\0\0\0\0\0\0\0", &nested[..]].concat().into();
    let command = Message::Unknown { message_type: kind::COMMAND_AMF0, payload: command };
    assert!(matches!(
        cause(Peer::new().send(0, 0, &command)),
        Cause::Message(message::Error::Amf0(amf0::Error::Depth { limit: 32, .. }))
    ));
    let mut peer = Peer::publishing();
    peer.send(1, 0, &Message::Data([b"\x02\0\x0aonMetaData", &nested[..]].concat().into())).unwrap();
    let events = peer.events();
    let [Event::Skipped(skipped)] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(skipped.reason, SkipReason::Metadata(amf0::Error::Depth { .. })));

    let connect = amf0::object([("tcUrl", "é".repeat(30_000).as_str().into())]);
    let mut peer = Peer::new();
    peer.call("connect", 1.0, [connect]).unwrap();
    peer.publish("cam1");
    let [Event::Publish(request)] = &peer.events()[..] else { panic!() };
    assert_eq!(request.connect.tc_url.len(), 1024);

    let mut peer = Peer::publishing();
    let long = b"\x04\0\0\0\xff\xff\xff\x09\x01\0\0\0";
    assert!(matches!(cause(peer.raw(long)), Cause::Chunk(chunk::Error::MessageLength { .. })));
    assert!(matches!(cause(Peer::new().raw(&[0xc4])), Cause::Chunk(chunk::Error::NoHeader { .. })));
}

proptest! {
    #[test]
    fn garbage_never_panics(
        at in 0..FFMPEG.len(),
        garbage in prop::collection::vec(any::<u8>(), 1..64),
        step in 1usize..2000,
    ) {
        let mut bytes = FFMPEG.to_vec();
        bytes.splice(at..(at + garbage.len()).min(FFMPEG.len()), garbage);
        let mut session = Session::new(Limits::default());
        let mut input = BytesMut::new();
        for part in bytes.chunks(step) {
            input.extend_from_slice(part);
            if session.handle_input(&mut input).is_err() {
                break;
            }
            while let Some(event) = session.poll_event() {
                if let Event::Publish(_) = event {
                    session.accept_publish();
                }
            }
        }
    }
}

/// Start codes where lengths should be.
fn annex_b(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
}

#[test]
fn a_publisher_that_sends_annex_b_gives_the_samples_of_one_that_does_not() {
    let (mut good, mut odd, mut bare) = (Peer::publishing(), Peer::publishing(), Peer::publishing());
    let mut sets = Vec::new();
    for (header, body) in tags(CLIP).into_iter().filter(|(h, _)| h.tag_type == tag::kind::VIDEO) {
        good.video(header.timestamp_ms, &body).unwrap();
        let (start, payload) = body.split_at(5);
        let stream = match start[1] {
            0 => {
                let config = reelwright_codec::avc::AvcConfig::parse(payload).unwrap();
                sets = annex_b(&[&config.sps[..], &config.pps[..]].concat());
                sets.clone()
            }
            1 => {
                let units = reelwright_codec::nal::length_prefixed(payload, 4);
                annex_b(&units.map(Result::unwrap).collect::<Vec<_>>())
            }
            _ => payload.to_vec(),
        };
        odd.video(header.timestamp_ms, &[start, &stream].concat()).unwrap();
        // Without a sequence header, as some send it: the sets stand before the key frame.
        if start[1] != 0 {
            let sets = if start[..2] == [0x17, 1] { &sets[..] } else { &[] };
            bare.video(header.timestamp_ms, &[start, sets, &stream].concat()).unwrap();
        }
    }
    let good = good.events();
    for mut peer in [odd, bare] {
        let mut events = peer.events();
        assert_eq!(events.remove(0), Event::Repaired(Repair::AnnexB), "once");
        assert_eq!(events, good);
    }
}

#[test]
fn headers_of_the_stream_before_stand_in_for_those_that_do_not_come() {
    let mut peer = Peer::publishing();
    for (header, body) in tags(CLIP).into_iter().take(6) {
        match header.tag_type {
            tag::kind::VIDEO => peer.video(header.timestamp_ms, &body).unwrap(),
            tag::kind::AUDIO => peer.send(1, header.timestamp_ms, &Message::Audio(body)).unwrap(),
            _ => {}
        }
    }
    let tracks: Vec<Track> = peer
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Track(track) => Some(track),
            _ => None,
        })
        .collect();
    assert_eq!(tracks.len(), 2);
    peer.call("closeStream", 0.0, []).unwrap();
    peer.publish("cam1");
    peer.session.remember(&tracks);
    peer.session.accept_publish();
    peer.events();
    for ms in [0, 40] {
        peer.video(ms, b"\x17\x01\0\0\0\0\0\0\x01\x65").unwrap();
        peer.send(1, ms, &Message::Audio(Bytes::from_static(b"\xaf\x01\x21\x10"))).unwrap();
    }
    let events = peer.events();
    assert_eq!(kinds(&events), "~V.~A.");
    let found: Vec<_> = events
        .into_iter()
        .filter_map(|e| if let Event::Track(t) = e { Some(t.config) } else { None })
        .collect();
    assert_eq!(found, tracks.iter().map(|t| t.config.clone()).collect::<Vec<_>>());
    // One that sends its own is believed.
    peer.send(1, 60, &Message::Audio(Bytes::from_static(b"\xaf\x00\x11\x90"))).unwrap();
    assert_eq!(kinds(&peer.events()), "A");
}
