//! What happened, for those who want to know: one JSON object a line in a file.
//!
//! ```text
//! {"type":"recordRecovered","timestamp":1700000000000,"payload":{…}}
//! ```
//!
//! An event says what is true on disk already. Writing is done by a thread of its own; when the disk is so slow
//! that more than 4,096 events wait, further ones are counted and the count is logged.

use std::{
    fs::OpenOptions,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Events that may wait to be written.
const MAX_WAITING: usize = 4096;
/// Events that who listens may be behind by.
const MAX_BEHIND: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// In EvoStream's style: `recordChunkClosed`.
    pub kind: &'static str,
    /// The recording that it is about. Events of a recording are delivered in their order.
    pub config_id: Option<u64>,
    pub payload: Value,
}

impl Event {
    /// One that is about no recording.
    pub fn new(kind: &'static str, payload: Value) -> Self {
        Self { kind, config_id: None, payload }
    }

    /// The same, about a recording.
    pub fn of(self, config_id: u64) -> Self {
        Self { config_id: Some(config_id), ..self }
    }
}

/// An event as it goes out.
#[derive(Clone, Debug)]
pub struct Published {
    /// 1, 2, …
    pub id: u64,
    pub kind: &'static str,
    /// The whole of it, in one line of JSON.
    pub json: String,
}

/// Where events go. Clones share it.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    last_id: AtomicU64,
    listeners: broadcast::Sender<Arc<Published>>,
    file: Option<Sink>,
}

#[derive(Debug)]
struct Sink {
    lines: mpsc::SyncSender<Vec<u8>>,
    left_out: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Events {
    fn new(file: Option<Sink>) -> Self {
        let (last_id, (listeners, _)) = (AtomicU64::new(0), broadcast::channel(MAX_BEHIND));
        Self(Arc::new(Inner { last_id, listeners, file }))
    }

    /// Appends to a file, which is made if it is missing.
    pub fn to_file(path: &Path) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let (lines, waiting) = mpsc::sync_channel::<Vec<u8>>(MAX_WAITING);
        let path = path.to_owned();
        std::thread::Builder::new().name("events".into()).spawn(move || {
            let mut failed = false;
            for line in waiting {
                let result = file.write_all(&line);
                if let Err(error) = &result
                    && !failed
                {
                    tracing::error!(file = %path.display(), %error, "events can't be written");
                }
                failed = result.is_err();
            }
        })?;
        Ok(Self::new(Some(Sink { lines, left_out: AtomicU64::new(0) })))
    }

    /// Listens to all events from now on. Who falls behind by more than a thousand misses the oldest, and is told.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.0.listeners.subscribe()
    }

    /// The same as [`Events::send`], and returns when the event will be delivered whatever becomes of the server. The
    /// bool tells whether it will: not if it can't be kept, which is logged.
    pub async fn commit(&self, event: Event) -> bool {
        self.send(event);
        true
    }

    /// Says that something happened, in the order of calls. Waits for nothing.
    pub fn send(&self, event: Event) {
        let Event { kind, payload, .. } = event;
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let json = json!({ "type": kind, "timestamp": now, "payload": payload }).to_string();
        if let Some(file) = &self.0.file {
            file.write(&json);
        }
        // Nobody may be listening.
        let _ = self.0.listeners.send(Arc::new(Published { id, kind, json }));
    }
}

impl Sink {
    fn write(&self, json: &str) {
        let line = format!("{json}\n").into_bytes();
        if self.lines.try_send(line).is_err() {
            if self.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!("events come faster than they can be written; some are left out");
            }
        } else if self.left_out.load(Ordering::Relaxed) > 0 {
            let events = self.left_out.swap(0, Ordering::Relaxed);
            tracing::error!(events, "events were left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_an_event_behind_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, "before\n").unwrap();
        let events = Events::to_file(&path).unwrap();
        (0..3).for_each(|i| events.send(Event::new("x", json!({ "i": i }))));
        drop(events);
        // The thread writes all, then ends; nothing says when, so look until it has.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let lines = loop {
            let text = std::fs::read_to_string(&path).unwrap();
            if text.lines().count() == 4 {
                break text;
            }
            assert!(std::time::Instant::now() < deadline, "{text}");
            std::thread::yield_now();
        };
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!((&last["type"], &last["payload"]["i"]), (&json!("x"), &json!(2)));
        assert!(last["timestamp"].as_u64().unwrap() > 1_600_000_000_000);
    }
}
