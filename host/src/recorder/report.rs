//! What recordings say of themselves in events: EvoStream's names where it has them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Recording, RunInfo,
    manifest::{self, Tally},
};
use crate::{
    control::shape,
    events::{Event, Events},
    media::Kind,
    output::journal::Whose,
    registry::LiveStream,
};

/// Gaps that a closed event lists; more are counted.
const MAX_GAPS: usize = 50;

/// UTC, as EvoStream writes it: `2026-01-31T23:59:59.000`. From microseconds since 1970.
pub fn time(epoch_us: i64) -> String {
    let time = Timestamp::from_microsecond(epoch_us).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string()
}

/// An event as a journal remembers it until it was announced.
pub fn summary(event: &Event) -> Vec<u8> {
    json!({ "type": event.kind, "payload": event.payload }).to_string().into_bytes()
}

/// The event that a journal remembers. It may have been sent before.
pub fn found(summary: &[u8]) -> Option<Event> {
    let mut value: Value = serde_json::from_slice(summary).ok()?;
    let kind = match value["type"].as_str()? {
        "recordRecovered" => "recordRecovered",
        _ => "recordChunkClosed",
    };
    let mut payload = value["payload"].take();
    payload.as_object_mut()?.insert("recovered".into(), json!(true));
    Some(Event::new(kind, payload))
}

/// What an event about a recording has, and what is its own.
pub(super) fn event(kind: &'static str, recording: &Recording, own: Value) -> Event {
    let mut payload = json!({
        "configId": recording.config_id,
        "localStreamName": recording.settings.local_stream_name,
        "type": recording.settings.format,
    });
    if let (Value::Object(payload), Value::Object(own)) = (&mut payload, own) {
        payload.extend(own);
    }
    Event::new(kind, about(&recording.whose(), payload)).of(recording.config_id)
}

/// A payload with what else is known of the recording that it is about.
pub(crate) fn about(whose: &Whose, mut payload: Value) -> Value {
    if let Some(rule_id) = whose.rule_id {
        payload["ruleId"] = json!(rule_id);
    }
    for (name, value) in &whose.user {
        payload[name] = json!(value);
    }
    payload
}

/// A file was begun. `index`: its number in the run; `former`: who wrote the file before, if that was another version;
/// `failover`: it goes on for one whose writer failed.
pub(super) fn created(
    recording: &Recording,
    file: &Path,
    epoch_us: i64,
    index: u64,
    component: &str,
    former: Option<String>,
    failover: bool,
) -> Event {
    let mut own = json!({
        "file": file.display().to_string(),
        "startTime": time(epoch_us),
        "index": index,
        "component": component,
    });
    if let Some(former) = former {
        own["formerComponent"] = json!(former);
    }
    if failover {
        own["reason"] = json!("failover");
    }
    event("recordChunkCreated", recording, own)
}

/// A file that is being closed.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) file: String,
    pub(super) index: u64,
    pub(super) epoch_us: i64,
    pub(super) end_us: i64,
    pub(super) duration_ms: i64,
    pub(super) tally: Tally,
    pub(super) reason: &'static str,
    pub(super) gaps: Vec<manifest::Gap>,
    pub(super) more_gaps: u64,
    pub(super) component: String,
}

impl Chunk {
    /// It is complete and durable, and has so many bytes.
    pub(super) fn closed(&self, recording: &Recording, bytes: u64) -> Event {
        let tracks = self.tally.tracks();
        let frames = |kind: Kind| -> u64 {
            tracks.iter().filter(|track| track.kind == kind.as_str()).map(|track| track.frames).sum()
        };
        let (video, audio) = (frames(Kind::Video), frames(Kind::Audio));
        let listed = &self.gaps[..self.gaps.len().min(MAX_GAPS)];
        let own = json!({
            "file": self.file,
            "startTime": time(self.epoch_us),
            "stopTime": time(self.end_us),
            "durationMs": self.duration_ms,
            "frameCount": video + audio,
            "videoFrames": video,
            "audioFrames": audio,
            "size": bytes,
            "codecs": tracks.iter().map(|track| track.codec.as_str()).collect::<Vec<_>>(),
            "index": self.index,
            "reason": self.reason,
            "gaps": listed,
            "moreGaps": self.more_gaps + (self.gaps.len() - listed.len()) as u64,
            "component": self.component,
            "recovered": false,
        });
        event("recordChunkClosed", recording, own)
    }
}

/// What comes of a file that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is none.
    Nothing,
    /// It is closed with what it has, and `recordChunkClosed` follows.
    Closed,
    /// It is repaired, and `recordRecovered` follows.
    Repair,
    /// The same, and nothing is lost: what it does not have is in the next file.
    Replayed,
    /// It could not be begun, and is begun again: nothing is lost.
    Again,
    /// It is none that failed, but one that is written by the format of last resort.
    LastResort,
}

impl Next {
    /// The event that will tell what was saved.
    fn follows(self) -> Option<&'static str> {
        match self {
            Next::Nothing | Next::Again | Next::LastResort => None,
            Next::Closed => Some("recordChunkClosed"),
            Next::Repair | Next::Replayed => Some("recordRecovered"),
        }
    }

    /// How it goes on.
    fn as_str(self) -> &'static str {
        match self {
            Next::Nothing | Next::Closed | Next::Repair => "next-key-frame",
            Next::Replayed | Next::Again => "replayed",
            Next::LastResort => "last-resort",
        }
    }
}

/// A file, or the whole run, failed. `given`: samples, bytes of media and milliseconds that were on their way into it;
/// what of that was saved is told by `follows`.
pub(super) fn error(
    recording: &Recording,
    file: &Path,
    error: &str,
    given: (u64, u64, i64),
    next: Next,
) -> Event {
    let own = json!({
        "file": file.display().to_string(),
        "error": error,
        "given": { "frames": given.0, "bytes": given.1, "durationMs": given.2 },
        "follows": next.follows(),
        "next": next.as_str(),
    });
    event("recordChunkError", recording, own)
}

/// Gaps that were not told one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Untold {
    gaps: u64,
    samples: u64,
    bytes: u64,
}

impl Untold {
    pub(super) fn add(&mut self, gap: &manifest::Gap) {
        self.gaps += 1;
        self.samples += gap.samples;
        self.bytes += gap.bytes;
    }

    /// It is told after all.
    pub(super) fn remove(&mut self, gap: &manifest::Gap) {
        self.gaps -= 1;
        self.samples -= gap.samples;
        self.bytes -= gap.bytes;
    }

    fn json(self) -> Value {
        json!({ "gaps": self.gaps, "samples": self.samples, "bytes": self.bytes })
    }
}

/// Something is missing, or times were moved; and what was not told before.
pub(super) fn gap(recording: &Recording, file: &Path, gap: &manifest::Gap, untold: &mut Untold) -> Event {
    let untold = std::mem::take(untold);
    let mut own = json!(gap);
    own["file"] = json!(file.display().to_string());
    if untold.gaps > 0 {
        own["untold"] = untold.json();
    }
    event("recordGap", recording, own)
}

/// What is left of that when a run ends; `None`: nothing.
pub(super) fn gaps_left(recording: &Recording, untold: &mut Untold) -> Option<Event> {
    let untold = std::mem::take(untold);
    let own = json!({ "reason": "untold", "untold": untold.json() });
    (untold.gaps > 0).then(|| event("recordGap", recording, own))
}

/// A run begins, or goes on after its stream was away.
pub(super) fn out_stream_created(
    events: &Events,
    recording: &Arc<Recording>,
    run: &RunInfo,
    live: Option<Arc<LiveStream>>,
) {
    let stream = shape::out_stream(recording, run, live);
    events.send(event("outStreamCreated", recording, stream).of(recording.config_id));
}

/// It is over, or its stream is away.
pub(super) fn out_stream_closed(events: &Events, recording: &Arc<Recording>, run: &RunInfo) {
    let mut stream = shape::out_stream(recording, run, None);
    let length = SystemTime::now().duration_since(run.started).unwrap_or(Duration::ZERO);
    stream["durationMs"] = json!(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    events.send(event("outStreamClosed", recording, stream).of(recording.config_id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_evostreams() {
        assert_eq!(time(1_769_900_399_999_000), "2026-01-31T22:59:59.999");
        assert_eq!(time(0), "1970-01-01T00:00:00.000");
    }

    #[test]
    fn what_a_journal_remembers_is_announced_as_found() {
        let event = Event::new("recordChunkClosed", json!({ "file": "a", "recovered": false }));
        let found_again = found(&summary(&event)).unwrap();
        assert_eq!(found_again.kind, "recordChunkClosed");
        assert_eq!(found_again.payload, json!({ "file": "a", "recovered": true }));
        for bad in [&b""[..], b"{", b"[]", b"{}", b"{\"type\":\"recordChunkClosed\",\"payload\":1}"] {
            assert!(found(bad).is_none());
        }
    }
}
