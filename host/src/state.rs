//! What the server was ordered to do, as a text: to look at, to keep elsewhere, to bring to another server.
//!
//! ```toml
//! version = 1
//! last-config-id = 3
//!
//! [recordings.3]
//! localStreamName = "cam1"
//! pathToFile = "cam1"
//! ```
//!
//! A running server keeps such a copy of its orders as `state.toml` in the data folder, at most a second behind the
//! database. When the database turns out to be damaged, or is gone, the copy takes its place; a copy that makes no sense
//! is kept under another name.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    ingest::Point,
    recorder::{Rule, Settings},
    store::{Change, Counter, Opened, Store, StoreError, Table},
};

/// The copy's name in the data folder.
pub const FILE: &str = "state.toml";
/// The version of the text's form that is written.
const VERSION: u32 = 1;
/// Changes that come in such a time are written together.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest text that is read, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// Orders, by config id, as the database has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct State {
    version: u32,
    /// Ids up to this one are not given again.
    last_config_id: u64,
    #[serde(default)]
    recordings: BTreeMap<String, Value>,
    #[serde(default)]
    rules: BTreeMap<String, Value>,
    #[serde(default)]
    ingest_points: BTreeMap<String, Value>,
}

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    Toml,
    Json,
}

/// Why orders can't be written or taken up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Text { path: PathBuf, error: String },
    #[error("the text is of version {0}, and this program knows version {VERSION}")]
    Version(u32),
    #[error("{table} {id}: {error}")]
    Order { table: &'static str, id: String, error: String },
    #[error("{table} {id} is there already, and is another; import with --replace to forget what is there")]
    Taken { table: &'static str, id: u64 },
}

/// The tables, and what the text calls them.
const TABLES: [(Table, &str); 3] =
    [(Table::Recordings, "recordings"), (Table::Rules, "rules"), (Table::IngestPoints, "ingest-points")];

impl State {
    /// What a store has.
    pub fn of(store: &Store) -> Result<Self, StoreError> {
        let [recordings, rules, ingest_points] = TABLES.map(|(table, _)| {
            let all = store.all::<Value>(table)?;
            Ok(all.into_iter().map(|(id, order)| (id.to_string(), without_nulls(order))).collect())
        });
        Ok(Self {
            version: VERSION,
            last_config_id: store.counter(Counter::ConfigId)?,
            recordings: recordings?,
            rules: rules?,
            ingest_points: ingest_points?,
        })
    }

    /// As a text.
    pub fn to_text(&self, form: Form) -> String {
        match form {
            Form::Toml => toml::to_string_pretty(self).expect("orders have no null"),
            Form::Json => serde_json::to_string_pretty(self).expect("orders are JSON") + "\n",
        }
    }

    /// Reads a file, whose name's end tells its form: `.json`, else TOML.
    pub fn read(path: &Path) -> Result<Self, StateError> {
        let file = |error| StateError::File { path: path.into(), error };
        let length = std::fs::metadata(path).map_err(file)?.len();
        if length > MAX_TEXT {
            let error = format!("it is longer than {MAX_TEXT} bytes");
            return Err(StateError::Text { path: path.into(), error });
        }
        let text = std::fs::read_to_string(path).map_err(file)?;
        let state = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            serde_json::from_str::<Self>(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        let state = state.map_err(|error| StateError::Text { path: path.into(), error })?;
        match state.version {
            VERSION => Ok(state),
            other => Err(StateError::Version(other)),
        }
    }

    /// Checks that each order is one, and of the id that it is under.
    fn check(&self) -> Result<(), StateError> {
        fn check<T: DeserializeOwned>(id: &str, order: &Value) -> Result<(), String> {
            match order.get("configId") {
                Some(own) if own.as_u64() != id.parse().ok() => return Err(format!("its configId is {own}")),
                _ => {}
            }
            serde_json::from_value::<T>(order.clone()).map(drop).map_err(|error| error.to_string())
        }
        type Check = fn(&str, &Value) -> Result<(), String>;
        let checks: [Check; 3] = [check::<Settings>, check::<Rule>, check::<Point>];
        let orders = [&self.recordings, &self.rules, &self.ingest_points];
        for ((orders, (_, table)), check) in orders.into_iter().zip(TABLES).zip(checks) {
            for (id, order) in orders {
                check(id, order).map_err(|error| StateError::Order { table, id: id.clone(), error })?;
            }
        }
        Ok(())
    }

    /// The changes that make a store have these orders: besides what it has, or instead of it.
    fn changes(&self, store: &Store, replace: bool) -> Result<Vec<Change>, StateError> {
        let mut changes = Vec::new();
        let mut last = self.last_config_id.max(store.counter(Counter::ConfigId)?);
        for (orders, (table, name)) in [&self.recordings, &self.rules, &self.ingest_points].iter().zip(TABLES)
        {
            let there: BTreeMap<u64, Value> = store.all::<Value>(table)?.into_iter().collect();
            if replace {
                changes.extend(there.keys().map(|id| Change::remove(table, *id)));
            }
            for (id, order) in *orders {
                let wrong =
                    |error: &str| StateError::Order { table: name, id: id.clone(), error: error.into() };
                let number: u64 = id.parse().map_err(|_| wrong("an id is a number"))?;
                if !order.is_object() {
                    return Err(wrong("it is no table"));
                }
                let other = |there: &&Value| without_nulls((*there).clone()) != *order;
                if !replace && there.get(&number).is_some_and(|there| other(&there)) {
                    return Err(StateError::Taken { table: name, id: number });
                }
                last = last.max(number);
                changes.push(Change::put(table, number, order));
            }
        }
        changes.push(Change::count(Counter::ConfigId, last));
        Ok(changes)
    }

    /// Makes a store have these orders: besides what it has, or instead of it. All of them, or none.
    pub async fn import(&self, store: &Store, replace: bool) -> Result<(), StateError> {
        let changes = self.changes(store, replace)?;
        self.check()?;
        Ok(store.apply(changes).await?)
    }

    /// How many orders there are.
    pub fn count(&self) -> usize {
        self.recordings.len() + self.rules.len() + self.ingest_points.len()
    }
}

/// TOML has no null; what is null is not set.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => items.into_iter().filter(|i| !i.is_null()).map(without_nulls).collect(),
        other => other,
    }
}

/// Opens the store of a data folder. If its database was damaged, or there was none, the new one gets the orders of
/// the copy. Fails also if a copy that makes no sense can't be kept: the next one would be written over it.
pub async fn open(folder: &Path) -> Result<Store, StoreError> {
    let Opened { store, set_aside } = Store::open(folder)?;
    let copy = folder.join(FILE);
    if set_aside.is_none() && !(is_new(&store)? && copy.try_exists().unwrap_or(true)) {
        return Ok(store);
    }
    let (aside, damage) = match set_aside {
        Some((aside, damage)) => (aside.display().to_string(), damage),
        None => ("nothing".into(), "there was none".into()),
    };
    match restore(&store, &copy).await {
        Ok(orders) => tracing::error!(
            set_aside = aside,
            damage,
            orders,
            "the database was damaged or gone; a new one has the orders of {FILE}. Events that waited to be \
             delivered, and ids of commands, are not in it"
        ),
        Err(error) => {
            let kept = keep_damaged(&copy)?;
            tracing::error!(
                set_aside = aside,
                damage,
                copy = %error,
                copy_set_aside = %kept.display(),
                "the database was damaged or gone, and so is its copy; what was kept has to be ordered again"
            );
        }
    }
    Ok(store)
}

/// Whether nothing was ever written to a store.
fn is_new(store: &Store) -> Result<bool, StoreError> {
    for counter in [Counter::Instance, Counter::Event, Counter::ConfigId] {
        if store.counter(counter)? != 0 {
            return Ok(false);
        }
    }
    Ok(State::of(store)?.count() == 0)
}

/// Takes up the orders of a copy as they are: each one that makes no sense is named, and left out, by who reads it
/// from the store. Returns how many there are.
async fn restore(store: &Store, copy: &Path) -> Result<usize, StateError> {
    let state = State::read(copy)?;
    store.apply(state.changes(store, false)?).await?;
    Ok(state.count())
}

/// Renames a copy, if there is one.
fn keep_damaged(copy: &Path) -> Result<PathBuf, StoreError> {
    let ms = crate::wall_clock::since_1970().as_millis();
    let kept = copy.with_file_name(format!("{FILE}.damaged-{ms}"));
    match std::fs::rename(copy, &kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Open { path: copy.into(), error: format!("it can't be set aside: {error}") })
        }
        _ => Ok(kept),
    }
}

/// Keeps the copy, for ever.
pub async fn keep_copy(store: Store, folder: PathBuf) {
    let mut changed = store.changed();
    loop {
        changed.mark_unchanged();
        let (store, folder) = (store.clone(), folder.clone());
        let written = tokio::task::spawn_blocking(move || write(&store, &folder)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the copy of the orders can't be written"),
            Err(error) => tracing::error!(%error, "internal error: the copy of the orders"),
        }
        tokio::time::sleep(PAUSE).await;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Writes the copy if it is not what it should be, whole or not at all. Keys of publishers are in it, so nobody else may read it.
pub fn write(store: &Store, folder: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::OpenOptionsExt;

    let text = State::of(store)?.to_text(Form::Toml);
    let path = folder.join(FILE);
    if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let new = folder.join("state.toml.new");
    let replace = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    replace().map_err(|error| StateError::File { path: path.clone(), error })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order() -> Value {
        json!({ "localStreamName": "cam1", "pathToFile": "a/ü \"b\"", "type": "ts", "user": { "_who": "me" } })
    }

    fn point(config_id: u64) -> Value {
        json!({ "configId": config_id, "privateStreamName": "k", "publicStreamName": "cam1" })
    }

    async fn filled() -> Store {
        let store = Store::in_memory();
        let changes = vec![
            Change::put(Table::Recordings, 3, &order()),
            Change::put(Table::Rules, 5, &json!({ "streams": "cam*", "record": {}, "nothing": null })),
            Change::put(Table::IngestPoints, 6, &point(6)),
            Change::put(Table::Outbox, 1, &json!({ "is": "no order" })),
            Change::count(Counter::ConfigId, 9),
        ];
        store.apply(changes).await.unwrap();
        store
    }

    #[tokio::test]
    async fn orders_go_out_and_come_in() {
        let state = State::of(&filled().await).unwrap();
        assert_eq!(state.count(), 3);
        let dir = tempfile::tempdir().unwrap();
        for (form, name) in [(Form::Toml, "a.toml"), (Form::Json, "a.JSON")] {
            let path = dir.path().join(name);
            std::fs::write(&path, state.to_text(form)).unwrap();
            let read = State::read(&path).unwrap();
            assert_eq!(read, state);
            let store = Store::in_memory();
            for replace in [false, false, true] {
                read.import(&store, replace).await.unwrap();
                assert_eq!(State::of(&store).unwrap(), state);
            }
            assert_eq!(store.all::<Value>(Table::Recordings).unwrap(), [(3, order())]);
        }
    }

    #[tokio::test]
    async fn what_is_there_is_replaced_only_if_it_is_said() {
        let store = filled().await;
        let mut state = State::of(&store).unwrap();
        state.recordings.get_mut("3").unwrap()["type"] = json!("mp4");
        state.rules.clear();
        let error = state.import(&store, false).await.unwrap_err().to_string();
        assert!(error.starts_with("recordings 3 is there already"), "{error}");
        assert_eq!(State::of(&store).unwrap(), State::of(&filled().await).unwrap());
        state.import(&store, true).await.unwrap();
        assert_eq!(State::of(&store).unwrap(), state);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            State::read(&path).and_then(|state| {
                state.changes(&Store::in_memory(), false)?;
                state.check()
            })
        };
        for (text, error) in [
            ("version = 1\nlast-config-id = 0\nrecodings = {}", "recodings"),
            ("version = 2\nlast-config-id = 0", "version 2"),
            ("version = 1", "last-config-id"),
            ("version = 1\nlast-config-id = 0\n[recordings]\nx = {}", "recordings x: an id is a number"),
            ("version = 1\nlast-config-id = 0\n[rules]\n7 = 1", "rules 7: it is no table"),
            ("version = 1\nlast-config-id = 0\n[recordings.7]\nkeepAlive = 3", "recordings 7: "),
            (
                "version = 1\nlast-config-id = 0\n[rules.7]\nstreams = \"*\"",
                "rules 7: missing field `record`",
            ),
            (
                "version = 1\nlast-config-id = 0\n[ingest-points.7]\nconfigId = 7",
                "ingest-points 7: missing field",
            ),
            ("version = 1\nlast-config-id = 0\n[ingest-points.7]\nconfigId = 8", "its configId is 8"),
        ] {
            let got = read(text).unwrap_err().to_string();
            assert!(got.contains(error), "{text}: {got}");
        }
    }

    #[tokio::test]
    async fn the_copy_takes_the_place_of_a_damaged_database() {
        let dir = tempfile::tempdir().unwrap();
        write(&filled().await, dir.path()).unwrap();
        std::fs::write(dir.path().join("reelwright.redb"), "damage").unwrap();
        let store = open(dir.path()).await.unwrap();
        assert_eq!(State::of(&store).unwrap(), State::of(&filled().await).unwrap());
        assert!(names(dir.path()).iter().any(|name| name.contains("redb") && name.contains("damaged-")));
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn the_copy_takes_the_place_of_a_database_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let filled = filled().await;
        // With an order that makes no sense: it keeps no other from coming back.
        filled.apply(vec![Change::put(Table::Rules, 8, &json!({ "no": "rule" }))]).await.unwrap();
        write(&filled, dir.path()).unwrap();
        let store = open(dir.path()).await.unwrap();
        assert_eq!(State::of(&store).unwrap(), State::of(&filled).unwrap());
        store.apply(vec![Change::remove(Table::Rules, 8)]).await.unwrap();
        drop(store);
        // It is not new any more.
        let store = loop {
            match open(dir.path()).await {
                // Until the one before is closed.
                Err(StoreError::InUse(_)) => tokio::task::yield_now().await,
                store => break store.unwrap(),
            }
        };
        assert_eq!(State::of(&store).unwrap().count(), 3);
    }

    #[tokio::test]
    async fn a_copy_that_makes_no_sense_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "version = 1 and more").unwrap();
        let store = open(dir.path()).await.unwrap();
        assert_eq!(State::of(&store).unwrap().count(), 0);
        write(&store, dir.path()).unwrap();
        let kept =
            names(dir.path()).into_iter().find(|name| name.starts_with("state.toml.damaged-")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(kept)).unwrap(), "version = 1 and more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_copy_follows_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_memory();
        let copy = tokio::spawn(keep_copy(store.clone(), dir.path().into()));
        let path = dir.path().join(FILE);
        for orders in 1..=3 {
            store.apply(vec![Change::put(Table::Recordings, orders, &order())]).await.unwrap();
            while !State::read(&path).is_ok_and(|state| state.count() == orders as usize) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        copy.abort();
    }
}
