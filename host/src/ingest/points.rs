//! Ingest points: private names that only their publishers know, for public names. Kept in the store.

use std::{collections::HashMap, sync::Mutex};

use serde::{Deserialize, Serialize};

use crate::{
    names::fault,
    store::{Change, ConfigIds, Store, StoreError, Table},
    sync::lock,
};

/// Ingest points at most.
const MAX_POINTS: usize = 10_000;

/// An ingest point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    pub config_id: u64,
    pub private_stream_name: String,
    pub public_stream_name: String,
}

/// Why an ingest point can't be made or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PointError {
    #[error("{0} is {1}")]
    BadName(&'static str, String),
    #[error("there is an ingest point of this privateStreamName")]
    Taken,
    #[error("there are {MAX_POINTS} ingest points, and no more are allowed")]
    TooMany,
    #[error("there is no such ingest point")]
    Unknown,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All of them.
#[derive(Debug)]
pub struct Points {
    store: Store,
    ids: ConfigIds,
    /// By private name.
    known: Mutex<HashMap<String, Point>>,
    /// Held while one is made or removed.
    changing: tokio::sync::Mutex<()>,
}

impl Points {
    pub(super) fn open(store: Store, ids: ConfigIds) -> Result<Self, StoreError> {
        let mut known = HashMap::new();
        for (config_id, value) in store.all::<serde_json::Value>(Table::IngestPoints)? {
            match serde_json::from_value::<Point>(value) {
                Ok(point) => {
                    known.insert(point.private_stream_name.clone(), Point { config_id, ..point });
                }
                // Not in the words of the error: they may have the key.
                Err(_) => tracing::error!(
                    config_id,
                    "an ingest point that was kept makes no sense; it stays in the database"
                ),
            }
        }
        Ok(Self { store, ids, known: Mutex::new(known), changing: tokio::sync::Mutex::default() })
    }

    /// All, by config id.
    pub fn list(&self) -> Vec<Point> {
        let mut list: Vec<_> = lock(&self.known).values().cloned().collect();
        list.sort_by_key(|point| point.config_id);
        list
    }

    /// Makes one, which is durable then.
    pub async fn create(&self, private: &str, public: &str) -> Result<Point, PointError> {
        for (parameter, name) in [("privateStreamName", private), ("publicStreamName", public)] {
            if let Some(fault) = fault(name) {
                return Err(PointError::BadName(parameter, fault));
            }
            // What follows it is a query, and never comes here.
            if name.contains('?') {
                return Err(PointError::BadName(parameter, "not allowed: it has a `?`".into()));
            }
        }
        let _changing = self.changing.lock().await;
        {
            let known = lock(&self.known);
            if known.contains_key(private) {
                return Err(PointError::Taken);
            }
            if known.len() >= MAX_POINTS {
                return Err(PointError::TooMany);
            }
        }
        let config_id = self.ids.next();
        let (private_stream_name, public_stream_name) = (private.to_owned(), public.to_owned());
        let point = Point { config_id, private_stream_name, public_stream_name };
        let put = Change::put(Table::IngestPoints, config_id, &point);
        self.store.apply(vec![put, self.ids.change()]).await?;
        lock(&self.known).insert(private.into(), point.clone());
        Ok(point)
    }

    /// Removes the one of a private name, for good. A stream that is live by it goes on.
    pub async fn remove(&self, private: &str) -> Result<Point, PointError> {
        let _changing = self.changing.lock().await;
        let point = lock(&self.known).get(private).cloned().ok_or(PointError::Unknown)?;
        self.store.apply(vec![Change::remove(Table::IngestPoints, point.config_id)]).await?;
        lock(&self.known).remove(private);
        Ok(point)
    }

    /// The same, by its config id.
    pub async fn remove_id(&self, config_id: u64) -> Result<Point, PointError> {
        let all = self.list();
        let point = all.into_iter().find(|point| point.config_id == config_id).ok_or(PointError::Unknown)?;
        self.remove(&point.private_stream_name).await
    }

    /// The public name that a private one stands for.
    pub(super) fn public(&self, private: &str) -> Option<String> {
        lock(&self.known).get(private).map(|point| point.public_stream_name.clone())
    }

    /// Whether a name is the public one of an ingest point.
    pub(super) fn is_public(&self, name: &str) -> bool {
        lock(&self.known).values().any(|point| point.public_stream_name == name)
    }
}

/// What may be shown of a private name: two characters of a long one.
pub fn mask(private: &str) -> String {
    let shown = if private.chars().count() >= 8 { 2 } else { 0 };
    private.chars().take(shown).chain("***".chars()).collect()
}
