//! What happened, for those who want to know, in EvoStream's envelope:
//!
//! ```text
//! {"id":7,"payload":{…,"PID":4711},"processId":4711,"timestamp":1700000000,"timestampMs":1700000000123,"type":"…"}
//! ```
//!
//! ```text
//!                  ┌─▶ file      a line each, by a thread
//! send ── an id ───┼─▶ outbox    durable, then posted to each sink ── lanes ── post
//! commit           └─▶ listeners of this process
//! ```
//!
//! An event says what is true on disk already. Ids grow, over restarts too. Nobody who sends an event waits for a
//! receiver; what is lost because something is full is counted and said.

mod file;
mod lanes;
mod outbox;
mod post;
mod sink;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, oneshot},
    time::timeout,
};

use crate::{
    store::{Change, Counter, Store, StoreError},
    sync::lock,
};
use file::FileSink;
use outbox::{Entry, Outbox};

pub use lanes::Backoff;
pub(crate) use post::{client as http_client, reason as http_reason};
pub use sink::{HttpSink, SinkError};

/// Events that who listens may be behind by.
const MAX_BEHIND: usize = 1024;
/// Ids that are set aside at once, so that not each costs a sync.
const ID_BLOCK: u64 = 256;
/// How long [`Events::commit`] keeps its caller waiting at most.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);
/// How long it waits for the file.
const FILE_LIMIT: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// In EvoStream's style: `recordChunkClosed`.
    pub kind: &'static str,
    /// The recording that it is about. Events of a recording are delivered in their order.
    pub config_id: Option<u64>,
    /// An object.
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
    /// Grows from event to event, over restarts too.
    pub id: u64,
    pub kind: &'static str,
    /// The whole of it, in one line of JSON.
    pub json: String,
}

/// Where events are to go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// File of lines, made if it is missing.
    pub file: Option<PathBuf>,
    pub sinks: Vec<HttpSink>,
    pub backoff: Backoff,
    /// An event that could not be delivered for so long is given up.
    pub retry_for: Duration,
    /// Events that may wait for a sink; then the oldest are given up.
    pub outbox_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file: None,
            sinks: Vec::new(),
            backoff: Backoff::default(),
            retry_for: Duration::from_secs(24 * 3600),
            outbox_max: 100_000,
        }
    }
}

/// Why events can't go where they are to.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error("event-log {}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("event-sink {name}: {error}")]
    Sink { name: String, error: SinkError },
    #[error("{0} event sinks; at most {max} can be served", max = outbox::MAX_SINKS)]
    TooMany(usize),
    #[error("two event sinks are called {0}; give one of them another `name`")]
    SameName(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where events go. Clones share it.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ids: Mutex<Ids>,
    store: Option<Store>,
    listeners: broadcast::Sender<Arc<Published>>,
    file: Option<FileSink>,
    outbox: Option<Outbox>,
}

/// Held while an event goes to its queues, so that they all have it in the order of ids.
#[derive(Debug, Default)]
struct Ids {
    last: u64,
    /// Those up to this one are not given again after a crash.
    set_aside: u64,
}

impl Default for Events {
    /// Nobody but who listens.
    fn default() -> Self {
        Self::new(Ids::default(), None, None, None)
    }
}

impl Events {
    fn new(ids: Ids, store: Option<Store>, file: Option<FileSink>, outbox: Option<Outbox>) -> Self {
        let (listeners, _) = broadcast::channel(MAX_BEHIND);
        Self(Arc::new(Inner { ids: Mutex::new(ids), store, listeners, file, outbox }))
    }

    /// Opens the file, and begins to deliver what the outbox still has.
    pub async fn open(settings: Settings, store: Store) -> Result<Self, EventsError> {
        let file = match settings.file.clone() {
            Some(path) => Some(FileSink::open(&path).map_err(|error| EventsError::File { path, error })?),
            None => None,
        };
        let last = store.counter(Counter::Event)?.max(outbox::last_id(&store)?);
        let ids = Ids { last, set_aside: last + ID_BLOCK };
        store.apply(vec![Change::count(Counter::Event, ids.set_aside)]).await?;
        let outbox = Outbox::open(settings, store.clone()).await?;
        Ok(Self::new(ids, Some(store), file, outbox))
    }

    /// Listens to all events from now on. Who falls behind by more than a thousand misses the oldest, and is told.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.0.listeners.subscribe()
    }

    /// Says that something happened, in the order of calls. Waits for nothing: if more than 4,096 wait for the disk,
    /// it is lost for sinks over HTTP, which is counted and told them.
    pub fn send(&self, event: Event) {
        self.publish(event, |outbox, entry| outbox.add(entry));
    }

    /// The same as [`Events::send`], and returns when every sink that wants the event will get it whatever becomes of
    /// the server, and the file has it as far as that can be written. False if it may not, because the outbox can't be
    /// written or it took longer than ten seconds, which is logged; it is still tried then.
    pub async fn commit(&self, event: Event) -> bool {
        let (kind, config_id) = (event.kind, event.config_id);
        let committed = async {
            let durable = match &self.0.outbox {
                None => {
                    self.send(event);
                    true
                }
                Some(outbox) => {
                    let room = outbox.room().await;
                    let (durable, result) = oneshot::channel();
                    self.publish(event, |_, entry| room.add(Entry { durable: Some(durable), ..entry }));
                    result.await.unwrap_or(false)
                }
            };
            if let Some(file) = &self.0.file {
                // A disk that stalls has what it has: the file makes no promise.
                let _ = timeout(FILE_LIMIT, file.flush()).await;
            }
            durable
        };
        let result = timeout(COMMIT_LIMIT, committed).await;
        if result.is_err() {
            tracing::error!(
                kind,
                config_id,
                "an event is not safe within {COMMIT_LIMIT:?}; the server goes on"
            );
        }
        result.unwrap_or(false)
    }

    fn publish(&self, event: Event, keep: impl FnOnce(&Outbox, Entry)) {
        let Event { kind, config_id, mut payload } = event;
        let since_1970 = crate::wall_clock::since_1970();
        let (ms, process) = (since_1970.as_millis() as u64, std::process::id());
        if let Value::Object(payload) = &mut payload {
            payload.insert("PID".to_owned(), json!(process));
        }
        let mut envelope = json!({
            "payload": payload,
            "processId": process,
            "timestamp": ms / 1000,
            "timestampMs": ms,
            "type": kind,
        });
        let mut ids = lock(&self.0.ids);
        ids.last += 1;
        let id = ids.last;
        if id + ID_BLOCK / 2 > ids.set_aside {
            self.set_aside(&mut ids);
        }
        envelope["id"] = json!(id);
        let json = envelope.to_string();
        if let Some(file) = &self.0.file {
            file.write(&json);
        }
        if let Some(outbox) = &self.0.outbox {
            keep(outbox, Entry { id, kind, lane: config_id, ms, envelope, durable: None });
        }
        // Nobody may be listening.
        let _ = self.0.listeners.send(Arc::new(Published { id, kind, json }));
    }

    /// Sets more ids aside, in the background.
    fn set_aside(&self, ids: &mut Ids) {
        ids.set_aside = ids.last + ID_BLOCK;
        let change = Change::count(Counter::Event, ids.set_aside);
        if let (Some(store), Ok(runtime)) = (self.0.store.clone(), tokio::runtime::Handle::try_current()) {
            // The store logs what fails.
            runtime.spawn(async move { store.apply(vec![change]).await });
        }
    }

    /// Writes what waits for the file, and gives receivers that can be reached so long to take what waits for them.
    /// The outbox keeps what is left for the next start. Nothing is to be sent any more.
    pub async fn shut_down(&self, limit: Duration) {
        let ended = async {
            if let Some(file) = &self.0.file {
                file.flush().await;
            }
            if let Some(outbox) = &self.0.outbox {
                outbox.drain().await;
            }
        };
        if timeout(limit, ended).await.is_err() {
            tracing::warn!("events are not all delivered within {limit:?}; the outbox keeps them");
        }
        if let Some(outbox) = &self.0.outbox {
            outbox.stop().await;
        }
        if let Some(store) = &self.0.store {
            let last = lock(&self.0.ids).last;
            // The store logs what fails.
            let _ = timeout(limit, store.apply(vec![Change::count(Counter::Event, last)])).await;
        }
    }
}

#[cfg(test)]
mod tests;
