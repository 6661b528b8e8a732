//! Who may publish what, under which name; and what is told of it.
//!
//! ```text
//! publish ── admit ── rate limit ── name ── ingest point ── token ── callback ──▶ name of the live stream
//!                                                                                       │
//! events: inStreamCreated, inStreamCodecsUpdated, inStreamClosed ◀── Watch ─────────────┘
//! ```
//!
//! Everything that the settings ask for has to say yes. The private name of an ingest point is a secret: it leads to
//! a public name, and only that is ever shown.

mod attempts;
mod callback;
mod points;
mod tokens;
mod watch;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Url;
use serde::{Deserialize, Deserializer, de};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    events::Events,
    names::fault,
    registry::LiveStream,
    rtmp::event::PublishRequest,
    store::{ConfigIds, Store, StoreError},
    sync::lock,
};
use attempts::{Attempts, Busy};
use callback::Callback;
use points::Points;
use tokens::Tokens;

pub use points::{Point, PointError, mask};
pub use tokens::TokensError;
pub use watch::Watch;

/// How long each part of a decision may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Threads that read the file of tokens at most, should its disk not answer.
const READS: usize = 4;

/// What a publisher has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PublishAuth {
    /// Nothing.
    Open,
    /// The private name of an ingest point.
    IngestPoints,
    /// A token of `publish-token-file`.
    Token,
    /// That `publish-callback` says yes.
    Callback,
}

/// Reads `publish-auth` from a file: a word, or a list of them.
pub fn publish_auth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublishAuth>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Some(Vec<String>),
    }
    let words = match Words::deserialize(deserializer)? {
        Words::One(word) => vec![word],
        Words::Some(words) => words,
    };
    let read = |word: &String| {
        <PublishAuth as clap::ValueEnum>::from_str(word, false).map_err(|_| {
            de::Error::custom(format!(
                "publish-auth takes open, ingest-points, token, callback, not `{word}`"
            ))
        })
    };
    words.iter().map(read).collect()
}

/// What publishers need.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub auth: Vec<PublishAuth>,
    pub token_file: Option<PathBuf>,
    pub callback: Option<String>,
}

/// What is wrong with the settings, or with what is kept.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("publish-auth: `open` must not go together with others")]
    OpenAndOthers,
    #[error("publish-auth has `{0}`, so {1} is needed")]
    Needs(&'static str, &'static str),
    #[error("{1} does nothing unless publish-auth has `{0}`")]
    Idle(&'static str, &'static str),
    #[error("publish-token-file {0}")]
    Tokens(#[from] TokensError),
    #[error("publish-callback: {0}")]
    Callback(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a publisher is turned away, in words that it may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("too many failed attempts from this address; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
    #[error("the stream name is {0}")]
    Name(String),
    #[error("there is no ingest point for this stream key")]
    NoPoint,
    #[error("this stream name belongs to an ingest point; publish with its stream key")]
    Reserved,
    #[error("a valid token is needed, as in name?token=…")]
    Token,
    #[error("the publish callback said no ({0})")]
    Callback(u16),
    /// The reason is in the log only.
    #[error("the server can't check publishers now; try again later")]
    Unchecked,
}

impl Refusal {
    /// Whether it is the publisher who did wrong.
    fn is_attempt(&self) -> bool {
        matches!(self, Refusal::NoPoint | Refusal::Reserved | Refusal::Token | Refusal::Callback(_))
    }
}

/// The door for publishers. Clones share it.
#[derive(Clone, Debug)]
pub struct Ingest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    auth: Vec<PublishAuth>,
    token_file: Option<PathBuf>,
    callback: Option<Callback>,
    points: Points,
    attempts: Mutex<Attempts>,
    /// An attempt was decided.
    decided: Notify,
    reads: Arc<Semaphore>,
    events: Events,
}

impl Ingest {
    /// Checks the settings, and reads the ingest points that the store has.
    pub fn open(
        settings: Settings,
        events: Events,
        store: Store,
        ids: ConfigIds,
    ) -> Result<Self, IngestError> {
        let Settings { mut auth, token_file, callback } = settings;
        if auth.contains(&PublishAuth::Open) && auth.iter().any(|auth| *auth != PublishAuth::Open) {
            return Err(IngestError::OpenAndOthers);
        }
        auth.retain(|auth| *auth != PublishAuth::Open);
        let (token, ask) = (auth.contains(&PublishAuth::Token), auth.contains(&PublishAuth::Callback));
        let pairs = [
            (token, token_file.is_some(), "token", "publish-token-file"),
            (ask, callback.is_some(), "callback", "publish-callback"),
        ];
        for (wanted, given, word, key) in pairs {
            match (wanted, given) {
                (true, false) => return Err(IngestError::Needs(word, key)),
                (false, true) => return Err(IngestError::Idle(word, key)),
                _ => {}
            }
        }
        if let Some(file) = &token_file {
            tokens::read(file)?;
        }
        let callback = match callback {
            Some(url) => {
                let url = Url::parse(&url).map_err(|error| IngestError::Callback(error.to_string()))?;
                Some(Callback::new(url).map_err(IngestError::Callback)?)
            }
            None => None,
        };
        let (points, attempts) = (Points::open(store, ids)?, Mutex::default());
        let (decided, reads) = (Notify::new(), Arc::new(Semaphore::new(READS)));
        Ok(Self(Arc::new(Inner { auth, token_file, callback, points, attempts, decided, reads, events })))
    }

    /// Anybody may publish, and nobody is told; for tests.
    pub fn open_to_all() -> Self {
        let store = Store::in_memory();
        let ids = ConfigIds::open(&store).expect("memory does not fail");
        Self::open(Settings::default(), Events::default(), store, ids).expect("memory does not fail")
    }

    /// The ingest points.
    pub fn points(&self) -> &Points {
        &self.0.points
    }

    /// Decides on a publisher. Returns the name of its stream. Takes fifteen seconds at most: five each for earlier
    /// attempts of the address, should they be many, for the file of tokens and for the callback.
    pub async fn admit(&self, request: &PublishRequest, far: SocketAddr) -> Result<String, Refusal> {
        let mut attempt = self.begin(far).await?;
        let (shown, decision) = self.decide(request, far).await;
        if let Err(refusal) = &decision {
            tracing::warn!(%far, stream = shown, "refused a stream: {refusal}");
            attempt.failed = refusal.is_attempt();
        }
        decision
    }

    /// Counts an attempt before it is known to fail, so that those who guess gain nothing by doing it all at once.
    async fn begin(&self, far: SocketAddr) -> Result<Attempt<'_>, Refusal> {
        let limit = Instant::now() + LIMIT;
        loop {
            let decided = self.0.decided.notified();
            let begun = lock(&self.0.attempts).begin(far.ip(), Instant::now());
            match begun {
                Ok(()) => return Ok(Attempt { inner: &self.0, far, failed: false }),
                Err(Busy::Failed(wait)) => {
                    tracing::debug!(%far, "refused a stream: too many failed attempts");
                    return Err(Refusal::TooMany(wait));
                }
                Err(Busy::Pending) if timeout_at(limit, decided).await.is_err() => {
                    tracing::warn!(%far, "refused a stream: too many of its address wait for a decision");
                    return Err(Refusal::Unchecked);
                }
                Err(Busy::Pending) => {}
            }
        }
    }

    /// The decision, and what the log may show of the name.
    async fn decide(&self, request: &PublishRequest, far: SocketAddr) -> (String, Result<String, Refusal>) {
        let needs = |auth| self.0.auth.contains(&auth);
        let given = request.name.as_str();
        if let Some(fault) = fault(given) {
            return (mask(&printable(given)), Err(Refusal::Name(fault)));
        }
        let name = match self.0.points.public(given) {
            Some(public) => public,
            None if needs(PublishAuth::IngestPoints) => return (mask(given), Err(Refusal::NoPoint)),
            None if self.0.points.is_public(given) => return (given.to_owned(), Err(Refusal::Reserved)),
            None => given.to_owned(),
        };
        let decision = self.check(request, &name, far).await.map(|()| name.clone());
        (name, decision)
    }

    async fn check(&self, request: &PublishRequest, name: &str, far: SocketAddr) -> Result<(), Refusal> {
        if let Some(file) = &self.0.token_file {
            let tokens = self.tokens(file).await.map_err(|error| {
                tracing::error!("nobody may publish: publish-token-file {error}");
                Refusal::Unchecked
            })?;
            let token = request.argument("token").unwrap_or_default();
            if !tokens.allow(&token, name) {
                return Err(Refusal::Token);
            }
        }
        match &self.0.callback {
            Some(callback) => callback.ask(request, far).await,
            None => Ok(()),
        }
    }

    /// Reads the file of tokens, whose disk may be slow, or not answer at all: then the thread stays with it, so there
    /// are few.
    async fn tokens(&self, file: &Path) -> Result<Tokens, String> {
        let (reads, file) = (self.0.reads.clone(), file.to_owned());
        let read = async {
            let permit = reads.acquire_owned().await.map_err(|error| error.to_string())?;
            let read = tokio::task::spawn_blocking(move || {
                let read = tokens::read(&file).map_err(|error| error.to_string());
                drop(permit);
                read
            });
            read.await.map_err(|error| error.to_string())?
        };
        timeout(LIMIT, read).await.unwrap_or_else(|_| Err(format!("could not be read within {LIMIT:?}")))
    }

    /// Tells of a stream that began, and of what becomes of it.
    pub fn watch(&self, stream: &Arc<LiveStream>) -> Watch {
        Watch::begin(self.0.events.clone(), stream.clone())
    }
}

/// An attempt to publish, until it is dropped.
struct Attempt<'a> {
    inner: &'a Inner,
    far: SocketAddr,
    failed: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if lock(&self.inner.attempts).end(self.far.ip(), self.failed) {
            tracing::warn!(far = %self.far, "too many failed attempts; the address is refused for a while");
        }
        self.inner.decided.notify_waiters();
    }
}

fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(80).collect()
}

#[cfg(test)]
mod tests;
