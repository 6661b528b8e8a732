//! What comes from outside, as functions of bytes that must not panic, hang or grow.
//!
//! `make fuzz` lets libFuzzer look for bytes that do; those that it has found worth keeping are in `corpus/`, a folder
//! a target, and `cargo test` replays them.

use bytes::{Buf, BytesMut};
use reelwright::{
    control::{
        commands::{self, COMMANDS},
        parse::{Line, Value},
        query, rest,
        table::Args,
    },
    rtmp::{Event, Limits, Session},
};

/// A target: its name, and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("line", line), ("query", query), ("rest", rest), ("session", session)];

/// A line of the command lines, up to the arguments of its command.
pub fn line(bytes: &[u8]) {
    if let Ok(line) = Line::parse(bytes) {
        bind(line);
    }
}

/// The target of a request to the HTTP command line: `/command?params=…`.
pub fn query(bytes: &[u8]) {
    let Ok(target) = str::from_utf8(bytes) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    if let Ok(line) = query::read(path, query) {
        bind(line);
    }
}

/// A request of the REST API: method, path and query on a line, the body behind it.
pub fn rest(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (head, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(head) = str::from_utf8(head) else { return };
    let (method, target) = head.split_once(' ').unwrap_or(("GET", head));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let rest::Place::Command { command, params, .. } = rest::find(&COMMANDS, method, path) else { return };
    let text = |(name, text)| (name, Value::Text(text));
    let (Ok(in_query), Ok(in_body)) = (rest::query(query), rest::body(body)) else { return };
    let params = params.into_iter().chain(in_query).map(text).chain(in_body).collect();
    if let Ok(line) = rest::line(command, params) {
        bind(line);
    }
}

fn bind(line: Line) {
    let Some(command) = commands::find(&line.command) else { return };
    let _: Result<Args, _> = command.bind(line);
}

/// A publisher's side of an RTMP connection behind the handshake. The first byte says in pieces of what size it comes.
pub fn session(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let mut session = Session::new(Limits::default());
    let mut input = BytesMut::from(&[&[3][..], &[0; 2 * 1536]].concat()[..]);
    session.handle_input(&mut input).expect("a handshake");
    for piece in bytes.chunks(usize::from(piece) + 1) {
        input.extend_from_slice(piece);
        loop {
            let result = session.handle_input(&mut input);
            let mut asked = false;
            while let Some(event) = session.poll_event() {
                if let Event::Publish(request) = event {
                    asked = true;
                    match request.name.len() % 4 {
                        3 => session.refuse_publish("no"),
                        _ => session.accept_publish(),
                    }
                }
            }
            let output = session.output();
            output.advance(output.remaining());
            if result.is_err() {
                return;
            }
            if !asked {
                break;
            }
        }
    }
    // What the driver asks when the peer has hung up.
    let _ = (session.unfinished(), session.position(), session.skips());
}
