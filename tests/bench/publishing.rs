//! RTMP: from the bytes of a publisher to samples.
//!
//! The publisher is the library's own, which has sent its stream before. The session gets it as the server reads it:
//! what comes in 200 ms at once, in memory of its own. The socket is left out.

use std::rc::Rc;

use anyhow::ensure;
use bytes::{Buf, Bytes, BytesMut};
use reelwright::rtmp::{
    Client, Event, Limits, Output, Session,
    amf0::{self, Value},
    client::Target,
    tag,
};

use crate::{
    Effort,
    baseline::Figures,
    part::{self, Part, Prepare, Work},
    stream::{self, Payload},
    timing::{Table, figure},
};

/// What FFmpeg or OBS sends in, and what nobody has to ask for.
const CHUNK_SIZES: [u32; 2] = [4096, 128];
/// 200 ms of 2.5 Mb/s.
const READ: usize = 62_500;

/// The session with each chunk size, and the metadata of a stream.
pub(crate) fn parts(effort: Effort) -> Vec<Part> {
    let session = |chunk_size| {
        Part::new(format!("RTMP session, chunks of {chunk_size}"), "sample", move || {
            let wire = wire(chunk_size, effort)?;
            let prepare = move || {
                let (_, session) = connect(chunk_size)?;
                let reads: Vec<BytesMut> = wire.chunks(READ).map(BytesMut::from).collect();
                Ok(Box::new(move || receive(session, reads)) as Work)
            };
            Ok(Box::new(prepare) as Prepare)
        })
    };
    let metadata = Part::new("AMF 0, onMetaData", "message", move || {
        let message: Rc<[u8]> = metadata().into();
        let count = effort.pick(1000usize, 10);
        let prepare = move || {
            let message = message.clone();
            Ok(Box::new(move || {
                for _ in 0..count {
                    amf0::Reader::new(&message, amf0::Limits::default()).rest()?;
                }
                Ok(count)
            }) as Work)
        };
        Ok(Box::new(prepare) as Prepare)
    });
    CHUNK_SIZES.into_iter().map(session).chain([metadata]).collect()
}

/// Measures and prints.
pub(crate) fn run(effort: Effort, figures: &mut Figures) -> anyhow::Result<()> {
    let parts = parts(effort);
    let times = part::time(&parts, effort.pick(25, 1))?;
    let samples = samples(effort).len() as f64;
    let mut table = Table::new(&["", "MB/s", "ns a sample or message"]);
    for (place, (part, rounds)) in parts.iter().zip(times).enumerate() {
        let rate = match CHUNK_SIZES.get(place) {
            // Bytes a nanosecond are GB/s.
            Some(&size) => figure(wire(size, effort)?.len() as f64 / samples / rounds.median() * 1e3),
            None => "–".into(),
        };
        table.row([part.name.clone(), rate, rounds.to_string()]);
        figures.time(&part.name, &format!("ns a {}", part.unit), rounds.median());
    }
    println!("## RTMP\n");
    println!("From a publisher's bytes to samples: median (least–most) of this thread.\n");
    println!("{table}");
    Ok(())
}

fn samples(effort: Effort) -> Vec<reelwright::media::Sample> {
    stream::samples(effort.pick(20, 1), Payload::Real)
}

/// What a publisher sends once it may.
fn wire(chunk_size: u32, effort: Effort) -> anyhow::Result<Vec<u8>> {
    let (mut client, _) = connect(chunk_size)?;
    let mut wire = BytesMut::new();
    let mut send = |tag_type, time_ms, parts: &[&[u8]]| {
        client.send(tag_type, time_ms, Bytes::from(parts.concat()));
        move_to(client.output(), &mut wire);
    };
    send(tag::kind::SCRIPT_DATA, 0, &[&metadata()]);
    for track in stream::tracks() {
        match track.id {
            stream::VIDEO => send(tag::kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], &track.config]),
            _ => send(tag::kind::AUDIO, 0, &[&[0xaf, 0], &track.config]),
        }
    }
    for sample in samples(effort) {
        let time_ms = u32::try_from(sample.dts_ms)?;
        let [.., c2, c1, c0] = (sample.pts_ms - sample.dts_ms).to_be_bytes();
        match (sample.track, sample.key) {
            (stream::VIDEO, true) => send(tag::kind::VIDEO, time_ms, &[&[0x17, 1, c2, c1, c0], &sample.data]),
            (stream::VIDEO, false) => {
                send(tag::kind::VIDEO, time_ms, &[&[0x27, 1, c2, c1, c0], &sample.data])
            }
            _ => send(tag::kind::AUDIO, time_ms, &[&[0xaf, 1], &sample.data]),
        }
    }
    Ok(wire.to_vec())
}

/// What FFmpeg says of a stream.
fn metadata() -> Vec<u8> {
    let numbers = [
        ("duration", 0.0),
        ("width", 1280.0),
        ("height", 720.0),
        ("videodatarate", 2441.4),
        ("framerate", 30.0),
        ("videocodecid", 7.0),
        ("audiodatarate", 125.0),
        ("audiosamplerate", 48_000.0),
        ("audiosamplesize", 16.0),
        ("audiocodecid", 10.0),
        ("filesize", 0.0),
    ];
    let numbers = numbers.map(|(name, number)| (name.to_owned(), Value::from(number)));
    let others =
        [("stereo".to_owned(), Value::Boolean(true)), ("encoder".to_owned(), "Lavf59.27.100".into())];
    let mut bytes = Vec::new();
    amf0::write_str("onMetaData", &mut bytes);
    amf0::write(&Value::EcmaArray(numbers.into_iter().chain(others).collect()), &mut bytes);
    bytes
}

/// A client that may publish, and the session that it may publish to.
fn connect(chunk_size: u32) -> anyhow::Result<(Client, Session)> {
    let tc_url = "rtmp://localhost/live".into();
    let target = Target { tc_url, app: "live".into(), name: "cam".into() };
    let (mut client, mut session) = (Client::new(target, chunk_size), Session::new(Limits::default()));
    let (mut to_session, mut to_client) = (BytesMut::new(), BytesMut::new());
    for _ in 0..20 {
        move_to(client.output(), &mut to_session);
        session.handle_input(&mut to_session)?;
        while let Some(event) = session.poll_event() {
            if let Event::Publish(_) = event {
                session.accept_publish();
            }
        }
        move_to(session.output(), &mut to_client);
        client.handle_input(&mut to_client)?;
        if client.is_publishing() {
            return Ok((client, session));
        }
    }
    anyhow::bail!("the session does not let the client publish")
}

/// Gives a session what was read, and drops what it makes of it. Returns the number of samples.
fn receive(mut session: Session, reads: Vec<BytesMut>) -> anyhow::Result<usize> {
    let (mut samples, mut input) = (0, BytesMut::new());
    for read in reads {
        // The beginning of a header.
        let rest = input;
        input = read;
        if !rest.is_empty() {
            input = BytesMut::from(&[&rest[..], &input].concat()[..]);
        }
        session.handle_input(&mut input)?;
        while let Some(event) = session.poll_event() {
            samples += usize::from(matches!(event, Event::Sample(_)));
        }
        let answers = session.output().remaining();
        session.output().advance(answers);
    }
    ensure!(input.is_empty() && session.skips().total() == 0, "the session did not take everything");
    Ok(samples)
}

fn move_to(output: &mut Output, bytes: &mut BytesMut) {
    bytes.extend_from_slice(&output.copy_to_bytes(output.remaining()));
}
