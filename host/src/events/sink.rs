//! A receiver over HTTP: what it is to get, and the task that delivers it from the outbox.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::{BuildHasher, Hasher},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use reqwest::Url;
use serde::Deserialize;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Backoff, Settings,
    lanes::{LaneId, Lanes},
    outbox::Record,
    post::{Failure, Receiver},
};
use crate::{
    config::Span,
    store::{Change, Store, StoreError, Table},
    sync::lock,
};

/// How long a receiver may take, unless `timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest secret or PEM file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How often losses are logged at most.
const LOSS_LOG: Duration = Duration::from_secs(10);

/// An `[[event-sink]]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpSink {
    /// `http://` or `https://`.
    pub url: String,
    /// By what name the log and the outbox know it; without one the URL without its query.
    pub name: Option<String>,
    /// Globs of the types of events that it gets; none: all.
    #[serde(default)]
    pub types: Vec<String>,
    /// Signs what is sent.
    pub secret: Option<Secret>,
    /// The same in a file, without white space around it.
    pub secret_file: Option<PathBuf>,
    /// Sent in each payload.
    pub custom_data: Option<String>,
    /// How long it may take to answer.
    pub timeout: Option<Span>,
    /// PEM file with the only certificate authorities that are trusted.
    pub ca: Option<PathBuf>,
}

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl HttpSink {
    /// One that gets everything.
    pub fn to_url(url: String) -> Self {
        Self { url, ..Self::default() }
    }

    /// How it is known.
    pub fn name(&self) -> String {
        match (&self.name, Url::parse(&self.url)) {
            (Some(name), _) => name.clone(),
            (None, Ok(url)) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
            (None, Err(_)) => "(no URL)".into(),
        }
    }
}

/// What is wrong with the settings of a sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("url: {0}; it has to be like http://host/path or https://host/path")]
    Url(String),
    #[error("types: {0}")]
    Type(#[from] globset::Error),
    #[error("secret and secret-file must not go together, choose only 1")]
    TwoSecrets,
    #[error("the secret is empty")]
    NoSecret,
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("{0}")]
    Client(String),
}

/// A receiver, and what waits for it.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) name: String,
    pub(super) custom_data: Option<String>,
    types: Option<GlobSet>,
    receiver: Receiver,
    store: Store,
    backoff: Backoff,
    retry_for: Duration,
    outbox_max: usize,
    state: Mutex<State>,
    /// There may be something to do.
    changed: Notify,
    /// There may be nothing to do any more.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    lanes: Lanes,
    /// Keys that are to be removed from the outbox.
    finished: Vec<u64>,
    /// Events that the receiver will not get, and was not told of.
    lost: u64,
    /// Those that the log does not have yet, and when it was told.
    unlogged: u64,
    logged: Option<Instant>,
}

/// A delivery that is over.
struct Landed {
    lane: LaneId,
    key: u64,
    kind: String,
    /// The loss that it told of.
    lost: u64,
    result: Result<(), Fault>,
}

enum Fault {
    Failure(Failure),
    /// The outbox does not have it.
    Gone(String),
}

impl Sink {
    pub(super) fn open(
        config: &HttpSink,
        settings: &Settings,
        store: Store,
        instance: u64,
    ) -> Result<Self, SinkError> {
        let url = Url::parse(&config.url).map_err(|error| SinkError::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(SinkError::Url(format!("`{}` is no scheme for it", url.scheme())));
        }
        let secret = match (&config.secret, &config.secret_file) {
            (Some(_), Some(_)) => return Err(SinkError::TwoSecrets),
            (Some(secret), None) => Some(secret.0.clone().into_bytes()),
            (None, Some(path)) => Some(read(path)?.trim_ascii().to_vec()),
            (None, None) => None,
        };
        if secret.as_ref().is_some_and(Vec::is_empty) {
            return Err(SinkError::NoSecret);
        }
        let ca = config.ca.as_ref().map(read).transpose()?;
        let timeout = config.timeout.map_or(TIMEOUT, |span| span.0);
        let mut types = GlobSetBuilder::new();
        for pattern in &config.types {
            types.add(Glob::new(pattern)?);
        }
        Ok(Self {
            name: config.name(),
            custom_data: config.custom_data.clone(),
            types: (!config.types.is_empty()).then(|| types.build()).transpose()?,
            receiver: Receiver::new(url, timeout, secret, ca.as_deref(), instance)?,
            store,
            backoff: settings.backoff,
            retry_for: settings.retry_for,
            outbox_max: settings.outbox_max.max(1),
            state: Mutex::default(),
            changed: Notify::new(),
            idle: Notify::new(),
        })
    }

    pub(super) fn wants(&self, kind: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.is_match(kind))
    }

    /// Takes on an event that the outbox has; if too many wait, gives up the oldest.
    pub(super) fn push(&self, key: u64, lane: LaneId, at_ms: u64) {
        let mut state = lock(&self.state);
        state.lanes.push(key, lane, at_ms);
        while state.lanes.len() > self.outbox_max
            && let Some(dropped) = state.lanes.drop_oldest()
        {
            state.finished.push(dropped);
            self.lose(&mut state, 1, "too many wait (event-outbox-max)");
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Counts events that never came to the outbox.
    pub(super) fn left_out(&self, events: u64, reason: &str) {
        self.lose(&mut lock(&self.state), events, reason);
    }

    /// Counts events that the receiver will not get, and says so now and then.
    fn lose(&self, state: &mut State, events: u64, reason: &str) {
        state.lost += events;
        state.unlogged += events;
        if state.logged.is_none_or(|at| at.elapsed() >= LOSS_LOG) {
            tracing::error!(
                sink = self.name,
                events = state.unlogged,
                "events are lost for a receiver: {reason}"
            );
            (state.unlogged, state.logged) = (0, Some(Instant::now()));
        }
    }

    /// Returns when nothing is under way, and nothing may be tried now.
    pub(super) async fn idle(&self) {
        loop {
            let mut changed = pin!(self.idle.notified());
            changed.as_mut().enable();
            if lock(&self.state).lanes.is_idle() {
                return;
            }
            changed.await;
        }
    }

    /// Delivers until it is told to stop.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut flights = JoinSet::new();
        let mut under_way = HashMap::new();
        let mut removal = JoinSet::new();
        loop {
            while let Some((lane, key)) = self.next() {
                let flight = flights.spawn(self.clone().deliver(lane, key));
                under_way.insert(flight.id(), (lane, key));
            }
            if removal.is_empty() {
                let finished = std::mem::take(&mut lock(&self.state).finished);
                if !finished.is_empty() {
                    removal.spawn(remove(self.store.clone(), finished));
                }
            }
            self.idle.notify_waiters();
            let wake_at = lock(&self.state).lanes.wake_at();
            tokio::select! {
                Some(landed) = flights.join_next_with_id() => match landed {
                    Ok((flight, landed)) => {
                        under_way.remove(&flight);
                        self.landed(landed);
                    }
                    Err(error) => {
                        tracing::error!(sink = self.name, %error, "a delivery broke");
                        if let Some((lane, key)) = under_way.remove(&error.id()) {
                            self.landed(Landed::broke(lane, key));
                        }
                    }
                },
                Some(_) = removal.join_next() => {}
                () = self.changed.notified() => {}
                () = async { tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)).await },
                    if wake_at.is_some() => {}
                () = stop.cancelled() => break,
            }
        }
        // What is under way is delivered again by the next start.
        flights.abort_all();
        removal.join_all().await;
        let finished = std::mem::take(&mut lock(&self.state).finished);
        // The store logs what fails.
        let _ = remove(self.store.clone(), finished).await;
        let waiting = lock(&self.state).lanes.len();
        if waiting > 0 {
            tracing::warn!(sink = self.name, waiting, "events wait in the outbox for the next start");
        }
    }

    fn next(&self) -> Option<(LaneId, u64)> {
        lock(&self.state).lanes.next(Instant::now())
    }

    async fn deliver(self: Arc<Self>, lane: LaneId, key: u64) -> Landed {
        #[cfg(test)]
        if lock(&tests::BREAKS).take_if(|name| *name == self.name).is_some() {
            panic!("as a test wants it");
        }
        let store = self.store.clone();
        // The disk may be slow.
        let record = tokio::task::spawn_blocking(move || store.from::<Record>(Table::Outbox, key, 1)).await;
        let record = match record {
            Ok(Ok(records)) => records.into_iter().find(|(found, _)| *found == key).map(|(_, record)| record),
            Ok(Err(error @ StoreError::Value { .. })) => return Landed::gone(lane, key, error.to_string()),
            // It is there, and can be read when the disk is well again.
            Ok(Err(error)) => return Landed::unread(lane, key, error.to_string()),
            Err(error) => return Landed::unread(lane, key, error.to_string()),
        };
        let Some(Record { kind, mut body, .. }) = record else {
            return Landed::gone(lane, key, "it is not there".into());
        };
        let lost = std::mem::take(&mut lock(&self.state).lost);
        if lost > 0
            && let Some(rest) = body.strip_prefix('{')
        {
            body = format!("{{\"lost\":{lost},{rest}");
        }
        let now = crate::wall_clock::since_1970().as_secs();
        let result =
            self.receiver.post(Record::event_id(key), &kind, body, now).await.map_err(Fault::Failure);
        Landed { lane, key, kind, lost, result }
    }

    fn landed(&self, landed: Landed) {
        let Landed { lane, key, kind, lost, result } = landed;
        let (sink, event) = (&self.name, Record::event_id(key));
        let (now, random) = (Instant::now(), RandomState::new().build_hasher().finish());
        let mut state = lock(&self.state);
        let state = &mut *state;
        if result.is_err() {
            state.lost += lost;
        }
        let oldest_ms = (crate::wall_clock::since_1970().saturating_sub(self.retry_for)).as_millis() as u64;
        match result {
            Ok(()) => {
                state.lanes.done(lane, true);
                state.finished.push(key);
                if state.unlogged > 0 {
                    tracing::error!(sink, events = state.unlogged, "events were lost for a receiver");
                    state.unlogged = 0;
                }
            }
            Err(Fault::Gone(error)) => {
                tracing::error!(sink, event, error, "an event can't be read from the outbox");
                state.lanes.done(lane, false);
                state.finished.push(key);
                self.lose(state, 1, "the outbox could not be read");
            }
            Err(Fault::Failure(failure @ (Failure::Refused(_) | Failure::Broke(_)))) => {
                if state.lanes.came_ms(key).is_some_and(|at_ms| at_ms < oldest_ms) {
                    tracing::error!(sink, event, kind, "an event is given up (event-retry-for): {failure}");
                    state.lanes.done(lane, true);
                    state.finished.push(key);
                    self.lose(state, 1, "refused for too long (event-retry-for)");
                } else if state.lanes.refused(lane, now, self.backoff, random) == 1 {
                    tracing::warn!(sink, event, kind, "an event was not taken and is tried again: {failure}");
                }
            }
            Err(Fault::Failure(failure)) => {
                state.lanes.again(lane);
                if let Some(wait) = state.lanes.unreachable(now, self.backoff, random) {
                    let waiting = state.lanes.len();
                    tracing::warn!(sink, waiting, "the next try is in {wait:.1?}: {failure}");
                }
                let mut given_up = 0;
                while let Some(dropped) = state.lanes.drop_before(oldest_ms) {
                    state.finished.push(dropped);
                    given_up += 1;
                }
                if given_up > 0 {
                    self.lose(state, given_up, "can't be reached for too long (event-retry-for)");
                }
            }
        }
    }
}

impl Landed {
    /// Its lane waits, as what broke once may break again.
    fn broke(lane: LaneId, key: u64) -> Self {
        let result = Err(Fault::Failure(Failure::Broke("the delivery broke".into())));
        Self { lane, key, kind: String::new(), lost: 0, result }
    }

    fn unread(lane: LaneId, key: u64, error: String) -> Self {
        let result = Err(Fault::Failure(Failure::Unread(error)));
        Self { lane, key, kind: String::new(), lost: 0, result }
    }

    fn gone(lane: LaneId, key: u64, error: String) -> Self {
        Self { lane, key, kind: String::new(), lost: 0, result: Err(Fault::Gone(error)) }
    }
}

/// Removes what is delivered or given up. If that fails, which the store logs, it is delivered again.
async fn remove(store: Store, keys: Vec<u64>) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    store.apply(keys.into_iter().map(|key| Change::remove(Table::Outbox, key)).collect()).await
}

fn read(path: &PathBuf) -> Result<Vec<u8>, SinkError> {
    let file = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(
            &mut std::io::Read::take(std::fs::File::open(path)?, MAX_FILE),
            &mut bytes,
        )?;
        Ok(bytes)
    };
    file().map_err(|error| SinkError::File { path: path.clone(), error })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::events::{Event, Events, Settings};

    /// The sink whose next delivery panics.
    pub(super) static BREAKS: Mutex<Option<String>> = Mutex::new(None);

    #[tokio::test]
    async fn a_delivery_that_breaks_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = HttpSink {
            name: Some("broken".into()),
            ..HttpSink::to_url(format!("http://{}/", listener.local_addr().unwrap()))
        };
        let settings = Settings {
            sinks: vec![sink],
            backoff: Backoff { min: Duration::ZERO, max: Duration::ZERO },
            ..Settings::default()
        };
        *lock(&BREAKS) = Some("broken".into());
        let events = Events::open(settings, Store::in_memory()).await.unwrap();
        events.send(Event::new("x", serde_json::json!({})).of(1));
        let taken = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = socket.read(&mut request).await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        let request = tokio::time::timeout(Duration::from_secs(60), taken).await.unwrap();
        assert!(request.contains("x-reelwright-event: x"), "{request}");
        assert!(lock(&BREAKS).is_none(), "the first try broke");
    }
}
