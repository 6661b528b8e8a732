//! Many connections that send the same in real time, for next to nothing: what goes over the wire is the same for all of
//! them, so it is made once, and each tick sends each connection the part that is due.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Buf;
use tokio::{net::TcpStream, task::JoinSet, time::MissedTickBehavior};

use super::{
    Progress,
    clip::{Clip, Due},
    sender::{self, Connection, Pace, STALL_TIMEOUT},
    url::Url,
};
use crate::rtmp::{Client, tag};

/// How often is looked at what is due. A tag is sent up to so much late: a frame or two go in one piece with their sound.
const TICK: Duration = Duration::from_millis(40);
/// Connections that are opened at once.
const OPENING: usize = 64;
/// How often is looked at what servers say.
const LISTEN_TICKS: u32 = 25;

/// The chunks of a clip that is repeated.
///
/// From the second pass on each is the same: times on the wire are differences (Adobe RTMP 1.0, section 5.3.1.2).
#[derive(Debug)]
struct Wire {
    bytes: Vec<u8>,
    /// When each tag is due after the first, at speed 1, and where its chunks end. In order.
    tags: Vec<(Duration, usize)>,
    /// Where the second pass begins: its tag and its byte.
    again: (usize, usize),
    /// From pass to pass.
    period: Duration,
}

impl Wire {
    /// By a client that is publishing and has not sent anything.
    fn new(clip: &Clip, client: &mut Client) -> Self {
        let period = clip.period();
        let mut wire = Self { bytes: Vec::new(), tags: Vec::new(), again: (0, 0), period };
        if let Some(metadata) = clip.metadata() {
            client.send(tag::kind::SCRIPT_DATA, 0, metadata);
        }
        for Due { at, tag_type, timestamp_ms, body } in clip.schedule(Some(period * 2)) {
            if at >= period && wire.again == (0, 0) {
                wire.again = (wire.tags.len(), wire.bytes.len());
            }
            client.send(tag_type, timestamp_ms, body);
            let output = client.output();
            while output.has_remaining() {
                let chunk = output.chunk();
                let len = chunk.len();
                wire.bytes.extend_from_slice(chunk);
                output.advance(len);
            }
            wire.tags.push((at, wire.bytes.len()));
        }
        wire
    }
}

/// Where a connection is in the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The next tag that has not been sent, and the next byte.
    tag: usize,
    byte: usize,
    /// Passes after the second.
    passes: u32,
}

struct Sending {
    connection: Connection,
    place: Place,
    start: Instant,
    /// When it could last be written to.
    moved: Instant,
    is_done: bool,
}

/// Publishes over many connections, from connecting to the server's closing, with starts spread over a key interval.
pub(super) async fn publish(
    urls: Vec<Url>,
    clip: &Clip,
    pace: Pace,
    spread: Duration,
    progress: &Arc<Progress>,
) -> anyhow::Result<()> {
    let mut connections = open(urls, pace, progress).await?;
    let Some(first) = connections.first_mut() else { return Ok(()) };
    let stream = first.client().message_stream();
    let mut wire = Wire::new(clip, first.client());
    ensure!(
        connections.iter_mut().all(|connection| connection.client().message_stream() == stream),
        "the server numbers message streams by connection"
    );
    if pace.duration.is_none() {
        // Once.
        wire.tags.truncate(wire.again.0);
    }
    let begin = Instant::now();
    tracing::info!(
        begin_us = crate::wall_clock::epoch_us(),
        spread_us = spread.as_micros() as u64,
        "sending begins"
    );
    let mut sending: Vec<Sending> = (0u32..)
        .zip(connections)
        .map(|(i, connection)| {
            let start = begin + spread * i;
            Sending { connection, place: Place::default(), start, moved: start, is_done: false }
        })
        .collect();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0u32;
    while sending.iter().any(|one| !one.is_done) {
        ticks.tick().await;
        count = count.wrapping_add(1);
        for (i, one) in sending.iter_mut().enumerate() {
            let mut step = one.send(&wire, pace, progress);
            if count.is_multiple_of(LISTEN_TICKS) {
                // The server may have said why.
                step = one.connection.listen().and(step);
            }
            step.with_context(|| format!("stream {}", i + 1))?;
        }
    }
    let mut closing = JoinSet::new();
    for one in sending {
        closing.spawn(one.connection.close());
    }
    while let Some(closed) = closing.join_next().await {
        closed??;
    }
    Ok(())
}

async fn open(urls: Vec<Url>, pace: Pace, progress: &Arc<Progress>) -> anyhow::Result<Vec<Connection>> {
    let mut opening = JoinSet::new();
    let mut urls = urls.into_iter().enumerate();
    let mut open = Vec::new();
    loop {
        while opening.len() < OPENING
            && let Some((i, url)) = urls.next()
        {
            let progress = progress.clone();
            opening.spawn(async move {
                let name = url.name.clone();
                let connection = sender::open(&url, pace, progress).await;
                connection.map(|connection| (i, connection)).with_context(|| format!("stream `{name}`"))
            });
        }
        let Some(opened) = opening.join_next().await else { break };
        open.push(opened??);
    }
    open.sort_by_key(|(i, _)| *i);
    Ok(open.into_iter().map(|(_, connection)| connection).collect())
}

impl Sending {
    /// Sends what is due, as far as the server takes it.
    fn send(&mut self, wire: &Wire, pace: Pace, progress: &Progress) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.is_done || now < self.start {
            return Ok(());
        }
        let at = (now - self.start).mul_f64(pace.speed);
        let place = &mut self.place;
        loop {
            let passed = wire.period * place.passes;
            let ends = pace.duration.map(|duration| duration.saturating_sub(passed));
            let due = wire.tags[place.tag..]
                .iter()
                .take_while(|tag| tag.0 + passed <= at && ends.is_none_or(|end| tag.0 < end))
                .count();
            let end = match due {
                0 => place.byte,
                due => wire.tags[place.tag + due - 1].1,
            };
            let sent = write(self.connection.stream(), &wire.bytes[place.byte..end])?;
            if sent > 0 {
                self.moved = now;
                progress.bytes.fetch_add(sent as u64, Ordering::Relaxed);
            }
            place.byte += sent;
            while let Some(&(due, end)) = wire.tags.get(place.tag)
                && end <= place.byte
            {
                place.tag += 1;
                progress.tags.fetch_add(1, Ordering::Relaxed);
                progress.late(at.saturating_sub(due + passed).div_f64(pace.speed));
            }
            if place.byte < end {
                if now - self.moved > STALL_TIMEOUT {
                    bail!("the server took nothing for {STALL_TIMEOUT:?}");
                }
                return Ok(());
            }
            match wire.tags.get(place.tag) {
                Some(tag) => {
                    self.is_done = ends.is_some_and(|end| tag.0 >= end);
                    return Ok(());
                }
                None if pace.duration.is_none() => {
                    self.is_done = true;
                    return Ok(());
                }
                None => {
                    (place.tag, place.byte) = wire.again;
                    place.passes += 1;
                }
            }
        }
    }
}

/// Writes as much as there is room for.
fn write(stream: &TcpStream, mut bytes: &[u8]) -> anyhow::Result<usize> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(sent) => bytes.advance(sent),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("writing"),
        }
    }
    Ok(all - bytes.len())
}
