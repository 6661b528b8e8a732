//! What commands do to the process: its log, and its end.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use subtle::ConstantTimeEq;
use tracing::level_filters::LevelFilter;

use crate::sync::lock;

/// Characters of a key.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const KEY_LENGTH: usize = 16;

/// Changes the log's level.
type Change = dyn Fn(LevelFilter) -> Result<(), String> + Send + Sync;

/// The level of the process's log, where it can be changed. Clones share it.
#[derive(Clone)]
pub struct LogLevel(Arc<Change>);

impl LogLevel {
    /// Changed by what is given.
    pub fn new(change: impl Fn(LevelFilter) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(change))
    }

    /// Changes it.
    pub fn set(&self, level: LevelFilter) -> Result<(), String> {
        (self.0)(level)
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self::new(|_| Err("the program that runs the server has its own log".into()))
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

/// The key that stops the server: not a secret, but a question whether it is meant. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopKey(Arc<Mutex<Option<String>>>);

impl StopKey {
    /// A new key, in place of the one before.
    pub(super) fn new_key(&self) -> String {
        let mut random = [0; KEY_LENGTH];
        let source = rustls::crypto::ring::default_provider().secure_random;
        // Without random numbers the key is the same each time, and still asks.
        let _ = source.fill(&mut random);
        let key: String =
            random.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).iter().collect();
        *lock(&self.0) = Some(key.clone());
        key
    }

    /// Whether that is the key, which is used up then.
    pub(super) fn take(&self, key: &str) -> bool {
        lock(&self.0).take_if(|own| own.as_bytes().ct_eq(key.as_bytes()).into()).is_some()
    }
}
