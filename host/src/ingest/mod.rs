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
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Url;
use serde::{Deserialize, Deserializer, de};
use tokio::time::Instant;

use crate::{
    events::Events,
    registry::{LiveStream, MAX_NAME},
    rtmp::event::PublishRequest,
    store::{ConfigIds, Store, StoreError},
    sync::lock,
};
use attempts::Attempts;
use callback::Callback;
use points::Points;

pub use points::{Point, PointError, mask};
pub use tokens::TokensError;
pub use watch::Watch;

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
        Ok(Self(Arc::new(Inner { auth, token_file, callback, points, attempts, events })))
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

    /// Decides on a publisher. Returns the name of its stream. Takes five seconds at most.
    pub async fn admit(&self, request: &PublishRequest, far: SocketAddr) -> Result<String, Refusal> {
        if let Some(wait) = lock(&self.0.attempts).wait(far.ip(), Instant::now()) {
            tracing::debug!(%far, "refused a stream: too many failed attempts");
            return Err(Refusal::TooMany(wait));
        }
        let (shown, decision) = self.decide(request, far).await;
        if let Err(refusal) = &decision {
            tracing::warn!(%far, stream = shown, "refused a stream: {refusal}");
            if refusal.is_attempt() && lock(&self.0.attempts).failed(far.ip(), Instant::now()) {
                tracing::warn!(%far, "too many failed attempts; the address is refused for a while");
            }
        }
        decision
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
            let file = file.clone();
            // The disk may be slow.
            let tokens = match tokio::task::spawn_blocking(move || tokens::read(&file)).await {
                Ok(Ok(tokens)) => tokens,
                Ok(Err(error)) => {
                    tracing::error!("nobody may publish: publish-token-file {error}");
                    return Err(Refusal::Unchecked);
                }
                Err(error) => {
                    tracing::error!("nobody may publish: publish-token-file: {error}");
                    return Err(Refusal::Unchecked);
                }
            };
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

    /// Tells of a stream that began, and of what becomes of it.
    pub fn watch(&self, stream: &Arc<LiveStream>) -> Watch {
        Watch::begin(self.0.events.clone(), stream.clone())
    }
}

/// What is wrong with a stream's name, if something is.
pub(crate) fn fault(name: &str) -> Option<String> {
    // Characters that are not seen, or change how those around them are: a name with them looks like another.
    let hidden = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    let bad = name.chars().find(|c| c.is_control() || hidden(*c));
    match bad {
        Some(c) => Some(format!("not allowed: it has the character U+{:04X}", u32::from(c))),
        None if name.trim().is_empty() => Some("empty".into()),
        None if name.len() > MAX_NAME => {
            Some(format!("{} bytes long; at most {MAX_NAME} are allowed", name.len()))
        }
        None => None,
    }
}

fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(80).collect()
}

#[cfg(test)]
mod tests;
