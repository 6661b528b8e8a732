//! Commands that clients have numbered: each is run once, however often it is sent.
//!
//! A client that lost the connection before the reply can't know whether its command was run. With a `commandId` of
//! its own choice it may send the command again: one that was run is refused, and told what it answered. Ids of
//! commands that change nothing, or failed, are free again.
//!
//! An id is kept before its command runs, and what it answered after that. After a crash in between it is refused,
//! since nobody knows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use crate::{
    store::{Change, Store, StoreError, Table},
    sync::lock,
};

/// Ids that are remembered; the oldest are forgotten first.
const MAX_IDS: usize = 10_000;
/// Longest id, in bytes.
pub(super) const MAX_LENGTH: usize = 256;

/// The ids of commands. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct CommandIds {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<String, u64>,
    by_number: BTreeMap<u64, Entry>,
    last: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: String,
    command: String,
    /// Seconds since 1970.
    at: u64,
    /// What it answered; `None`: nothing yet.
    answered: Option<String>,
}

/// Why a command is not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdError {
    #[error("commandId {id} was used before: {command} answered `{answered}` {}", ago(*.at))]
    Done { id: String, command: String, answered: String, at: u64 },
    #[error("commandId {id} was used before: {command} was begun {}, and has not answered", ago(*.at))]
    Begun { id: String, command: String, at: u64 },
    #[error("commandId can't be kept: {0}")]
    Store(#[from] StoreError),
}

/// A command that runs under an id.
#[derive(Debug)]
pub(super) struct Running(u64);

impl CommandIds {
    /// The ids that a store knows.
    pub(super) fn open(store: Store) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (number, entry) in store.all::<Entry>(Table::Commands)? {
            state.by_id.insert(entry.id.clone(), number);
            state.by_number.insert(number, entry);
        }
        state.last = store.last(Table::Commands)?;
        Ok(Self { store, state: Arc::new(Mutex::new(state)) })
    }

    /// Takes an id for a command that is to be run.
    pub(super) async fn begin(&self, id: &str, command: &str) -> Result<Running, IdError> {
        let entry = Entry { id: id.into(), command: command.into(), at: now(), answered: None };
        let (number, forgotten) = {
            let mut state = lock(&self.state);
            if let Some(earlier) = state.by_id.get(id).and_then(|number| state.by_number.get(number)) {
                let Entry { id, command, at, answered } = earlier.clone();
                return Err(match answered {
                    Some(answered) => IdError::Done { id, command, answered, at },
                    None => IdError::Begun { id, command, at },
                });
            }
            state.last += 1;
            let number = state.last;
            state.by_id.insert(id.into(), number);
            state.by_number.insert(number, entry.clone());
            let oldest = (state.by_number.len() > MAX_IDS).then(|| state.by_number.pop_first()).flatten();
            if let Some((_, oldest)) = &oldest {
                state.by_id.remove(&oldest.id);
            }
            (number, oldest)
        };
        let mut changes = vec![Change::put(Table::Commands, number, &entry)];
        changes.extend(forgotten.map(|(number, _)| Change::remove(Table::Commands, number)));
        match self.store.apply(changes).await {
            Ok(()) => Ok(Running(number)),
            Err(error) => {
                self.forget(number);
                Err(error.into())
            }
        }
    }

    /// The command has answered; one that has done nothing gives its id back.
    pub(super) async fn end(&self, Running(number): Running, done: bool, description: &str) {
        let change = if done {
            let mut state = lock(&self.state);
            let Some(entry) = state.by_number.get_mut(&number) else { return };
            entry.answered = Some(description.into());
            Change::put(Table::Commands, number, entry)
        } else {
            self.forget(number);
            Change::remove(Table::Commands, number)
        };
        // What can't be kept has been logged; the id is refused after a restart, as it should be.
        let _ = self.store.apply(vec![change]).await;
    }

    fn forget(&self, number: u64) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.by_number.remove(&number) {
            state.by_id.remove(&entry.id);
        }
    }
}

fn now() -> u64 {
    crate::wall_clock::since_1970().as_secs()
}

fn ago(at: u64) -> String {
    format!("{} s ago", now().saturating_sub(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_is_for_one_command() {
        let store = Store::in_memory();
        let ids = CommandIds::open(store.clone()).unwrap();
        let running = ids.begin("a", "record").await.unwrap();
        let error = ids.begin("a", "record").await.unwrap_err().to_string();
        assert!(error.starts_with("commandId a was used before: record was begun "), "{error}");
        ids.end(running, true, "Recording Stream").await;
        let error = ids.begin("a", "quit").await.unwrap_err().to_string();
        assert!(
            error.starts_with("commandId a was used before: record answered `Recording Stream` "),
            "{error}"
        );
        let failed = ids.begin("b", "record").await.unwrap();
        ids.end(failed, false, "Unable to record stream").await;
        ids.begin("b", "record").await.unwrap();

        // As after a crash: `a` has answered, `b` was begun.
        let ids = CommandIds::open(store).unwrap();
        assert!(matches!(ids.begin("a", "record").await, Err(IdError::Done { .. })));
        assert!(matches!(ids.begin("b", "record").await, Err(IdError::Begun { .. })));
        ids.begin("c", "record").await.unwrap();
    }

    #[tokio::test]
    async fn one_that_makes_no_sense_is_passed_over() {
        let store = Store::in_memory();
        let ids = CommandIds::open(store.clone()).unwrap();
        ids.begin("a", "record").await.unwrap();
        store.apply(vec![Change::put(Table::Commands, 7, &"of another version")]).await.unwrap();
        let ids = CommandIds::open(store).unwrap();
        assert!(ids.begin("a", "record").await.is_err());
        assert_eq!(ids.begin("b", "record").await.unwrap().0, 8, "what is there stays");
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let ids = CommandIds::open(Store::in_memory()).unwrap();
        for i in 0..MAX_IDS {
            let number = i as u64 + 1;
            let entry = Entry { id: i.to_string(), command: String::new(), at: 0, answered: None };
            let mut state = lock(&ids.state);
            state.by_id.insert(entry.id.clone(), number);
            state.by_number.insert(number, entry);
            state.last = number;
        }
        ids.begin("new", "record").await.unwrap();
        ids.begin("0", "record").await.unwrap();
        assert!(ids.begin("3", "record").await.is_err());
        let state = lock(&ids.state);
        assert_eq!((state.by_id.len(), state.by_number.len()), (MAX_IDS, MAX_IDS));
    }
}
