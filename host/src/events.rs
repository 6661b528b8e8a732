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

/// Events that may wait to be written.
const MAX_WAITING: usize = 4096;

/// Where events go. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<Arc<Sink>>);

#[derive(Debug)]
struct Sink {
    lines: mpsc::SyncSender<Vec<u8>>,
    left_out: AtomicU64,
}

impl Events {
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
        Ok(Self(Some(Arc::new(Sink { lines, left_out: AtomicU64::new(0) }))))
    }

    /// Says that something happened: `kind` in EvoStream's style (`recordRecovered`), and what it is about.
    pub fn send(&self, kind: &str, payload: Value) {
        let Some(sink) = &self.0 else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut line = json!({ "type": kind, "timestamp": now, "payload": payload }).to_string().into_bytes();
        line.push(b'\n');
        if sink.lines.try_send(line).is_err() {
            if sink.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!("events come faster than they can be written; some are left out");
            }
        } else if sink.left_out.load(Ordering::Relaxed) > 0 {
            let events = sink.left_out.swap(0, Ordering::Relaxed);
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
        (0..3).for_each(|i| events.send("x", json!({ "i": i })));
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
