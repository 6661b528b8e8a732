//! Events that wait for receivers, in the database: a record for each event and receiver, under a key that begins
//! with the event's id.
//!
//! One task makes events durable, as many at once as wait, and only then hands them to their sinks; so an event that
//! was delivered is one that survives a crash. Records are removed after delivery, in groups and some time later: a
//! crash before that has them delivered again.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{EventsError, Settings, lanes::LaneId, sink::Sink};
use crate::store::{Change, Counter, Store, StoreError, Table};

/// Receivers at most: their number is the last byte of a key.
pub(super) const MAX_SINKS: usize = 16;
/// Events that may wait to be made durable.
const MAX_WAITING: usize = 4096;
/// Events that are made durable at once, at most.
const MAX_BATCH: usize = 256;
/// Records that are in memory at once when a start reads them.
const PAGE: usize = 256;

/// An event on its way to the outbox.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) kind: &'static str,
    pub(super) lane: LaneId,
    /// Milliseconds since 1970.
    pub(super) ms: u64,
    pub(super) envelope: Value,
    /// Who waits until it is durable, if that is somebody.
    pub(super) durable: Option<oneshot::Sender<bool>>,
}

/// What the database has of an event for a sink.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    sink: String,
    pub(super) kind: String,
    lane: LaneId,
    ms: u64,
    pub(super) body: String,
}

impl Record {
    fn key(event_id: u64, sink: usize) -> u64 {
        event_id << 8 | sink as u64
    }

    /// The event of a record.
    pub(super) fn event_id(key: u64) -> u64 {
        key >> 8
    }
}

enum Job {
    Entry(Entry),
    /// All before it is durable.
    Flush(oneshot::Sender<()>),
}

/// The way to all receivers.
#[derive(Debug)]
pub(super) struct Outbox {
    jobs: mpsc::Sender<Job>,
    sinks: Arc<[Arc<Sink>]>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A place in the queue of the outbox; none if the server is about to end.
pub(super) struct Room<'a>(Option<mpsc::Permit<'a, Job>>, &'a Outbox);

impl Room<'_> {
    pub(super) fn add(self, entry: Entry) {
        match self.0 {
            Some(permit) if self.1.is_wanted(entry.kind) => permit.send(Job::Entry(entry)),
            Some(_) => done(entry, true),
            None => done(entry, false),
        }
    }
}

impl Outbox {
    /// Begins to deliver what is left from before. `None`: there are no receivers.
    pub(super) async fn open(settings: Settings, store: Store) -> Result<Option<Self>, EventsError> {
        if settings.sinks.len() > MAX_SINKS {
            return Err(EventsError::TooMany(settings.sinks.len()));
        }
        let instance = instance(&store).await?;
        let mut sinks: Vec<Arc<Sink>> = Vec::new();
        for config in &settings.sinks {
            let name = config.name();
            if sinks.iter().any(|sink| sink.name == name) {
                return Err(EventsError::SameName(name));
            }
            let sink = Sink::open(config, &settings, store.clone(), instance)
                .map_err(|error| EventsError::Sink { name, error })?;
            sinks.push(Arc::new(sink));
        }
        let oldest = crate::wall_clock::since_1970().saturating_sub(settings.retry_for).as_millis() as u64;
        let (from, into) = (store.clone(), sinks.clone());
        let read = tokio::task::spawn_blocking(move || load(&from, &into, oldest));
        let removed = read.await.map_err(|error| StoreError::Failed(error.to_string()))??;
        if !removed.is_empty() {
            store.apply(removed.into_iter().map(|key| Change::remove(Table::Outbox, key)).collect()).await?;
        }
        if sinks.is_empty() {
            return Ok(None);
        }
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let sinks: Arc<[Arc<Sink>]> = sinks.into();
        for sink in sinks.iter() {
            tasks.spawn(sink.clone().run(stop.clone()));
        }
        tokio::spawn(write(waiting, store, sinks.clone()));
        Ok(Some(Self { jobs, sinks, tasks, stop }))
    }

    fn is_wanted(&self, kind: &str) -> bool {
        self.sinks.iter().any(|sink| sink.wants(kind))
    }

    /// Takes an event, unless too many wait already.
    pub(super) fn add(&self, entry: Entry) {
        if self.is_wanted(entry.kind)
            && let Err(error) = self.jobs.try_send(Job::Entry(entry))
            && let Job::Entry(entry) = error.into_inner()
        {
            for sink in self.sinks.iter().filter(|sink| sink.wants(entry.kind)) {
                sink.left_out(1, "they come faster than the database takes them");
            }
        }
    }

    /// Waits until there is room for an event.
    pub(super) async fn room(&self) -> Room<'_> {
        Room(self.jobs.reserve().await.ok(), self)
    }

    /// Returns when everything is durable, and delivered to those who can be reached.
    pub(super) async fn drain(&self) {
        let (done, flushed) = oneshot::channel();
        if self.jobs.send(Job::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
        for sink in self.sinks.iter() {
            sink.idle().await;
        }
    }

    /// Ends deliveries.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "what was delivered last can't be removed from the outbox, and will be delivered again"
            );
        }
    }
}

/// Makes events durable, then hands them on.
async fn write(mut waiting: mpsc::Receiver<Job>, store: Store, sinks: Arc<[Arc<Sink>]>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let (mut entries, mut flushes) = (Vec::new(), Vec::new());
        for job in batch.drain(..) {
            match job {
                Job::Entry(entry) => entries.push(entry),
                Job::Flush(done) => flushes.push(done),
            }
        }
        if !entries.is_empty() {
            let mut changes: Vec<_> = entries.iter().flat_map(|entry| records(entry, &sinks)).collect();
            // Whatever a receiver has seen is not given to another event, even if the server dies now.
            let last = entries.iter().map(|entry| entry.id).max().unwrap_or(0);
            changes.push(Change::count(Counter::Event, last));
            // The store logs what fails.
            let kept = store.apply(changes).await.is_ok();
            for entry in entries {
                for (slot, sink) in sinks.iter().enumerate().filter(|(_, sink)| sink.wants(entry.kind)) {
                    match kept {
                        true => sink.push(Record::key(entry.id, slot), entry.lane, entry.ms),
                        false => sink.left_out(1, "the database can't be written"),
                    }
                }
                done(entry, kept);
            }
        }
        for flushed in flushes {
            // Who asked may be gone.
            let _ = flushed.send(());
        }
    }
}

fn done(entry: Entry, durable: bool) {
    if let Some(waiting) = entry.durable {
        // Who asked may be gone.
        let _ = waiting.send(durable);
    }
}

/// An event's records, one for each sink that wants it.
fn records(entry: &Entry, sinks: &[Arc<Sink>]) -> Vec<Change> {
    let wanting = sinks.iter().enumerate().filter(|(_, sink)| sink.wants(entry.kind));
    wanting
        .map(|(slot, sink)| {
            let body = match &sink.custom_data {
                None => entry.envelope.to_string(),
                Some(custom_data) => {
                    let mut envelope = entry.envelope.clone();
                    envelope["payload"]["customData"] = json!(custom_data);
                    envelope.to_string()
                }
            };
            let (sink, kind) = (sink.name.clone(), entry.kind.to_owned());
            let record = Record { sink, kind, lane: entry.lane, ms: entry.ms, body };
            Change::put(Table::Outbox, Record::key(entry.id, slot), &record)
        })
        .collect()
}

/// Hands to the sinks what waits for them. Returns the keys of what nobody will ever get.
fn load(store: &Store, sinks: &[Arc<Sink>], oldest_ms: u64) -> Result<Vec<u64>, StoreError> {
    let (mut next, mut size, mut remove) = (0, PAGE, Vec::new());
    let (mut found, mut homeless) = (0_u64, BTreeMap::<String, (u64, u64)>::new());
    loop {
        let page = match store.from::<Record>(Table::Outbox, next, size) {
            Ok(page) => page,
            // What is before it in the page is good.
            Err(StoreError::Value { .. }) if size > 1 => {
                size = 1;
                continue;
            }
            Err(StoreError::Value { key, error, .. }) => {
                tracing::error!(event = Record::event_id(key), error, "an event in the outbox can't be read");
                remove.push(key);
                (next, size) = (key + 1, PAGE);
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some((last, _)) = page.last() else { break };
        next = last + 1;
        for (key, record) in page {
            match sinks.iter().find(|sink| sink.name == record.sink) {
                Some(sink) => {
                    sink.push(key, record.lane, record.ms);
                    found += 1;
                }
                None => {
                    let (kept, gone) = homeless.entry(record.sink).or_default();
                    if record.ms < oldest_ms {
                        remove.push(key);
                        *gone += 1;
                    } else {
                        *kept += 1;
                    }
                }
            }
        }
    }
    if found > 0 {
        tracing::info!(events = found, "the outbox has events from before");
    }
    for (sink, (kept, gone)) in homeless {
        tracing::error!(
            sink,
            kept,
            gone,
            "events in the outbox are for a receiver that the settings do not name; the old ones are given up"
        );
    }
    Ok(remove)
}

/// The number of this database, which it gets once.
async fn instance(store: &Store) -> Result<u64, StoreError> {
    let known = store.counter(Counter::Instance)?;
    if known != 0 {
        return Ok(known);
    }
    let number = RandomState::new().build_hasher().finish().max(1);
    store.apply(vec![Change::count(Counter::Instance, number)]).await?;
    Ok(number)
}

/// The last event that the outbox has; 0: none.
pub(super) fn last_id(store: &Store) -> Result<u64, StoreError> {
    store.last(Table::Outbox).map(Record::event_id)
}
