//! What the server remembers over a restart: an embedded database in the data folder.
//!
//! ```text
//! who changes something ── Change… ──▶ one thread ── one transaction for all that waits, synced ──▶ reelwright.redb
//! ```
//!
//! A change is durable when [`Store::apply`] returns, and all changes of one call are made or none is. Values are
//! JSON, so that the next version can read them. Reads see what was applied.
//!
//! A database that is damaged is set aside under another name and a new one begun; see [`Opened::set_aside`].

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{oneshot, watch};

/// The database's name in the data folder.
const FILE: &str = "reelwright.redb";
/// Calls of [`Store::apply`] that may wait for the thread.
const MAX_WAITING: usize = 1024;
/// Calls that become one transaction at most.
const MAX_GROUP: usize = 256;
/// Memory that the database may use to keep pages.
const CACHE_BYTES: usize = 4 << 20;

/// What is kept, each under numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The last number that was given, by counter; see [`Counter`].
    Counters,
    /// Orders to record, by config id.
    Recordings,
    /// Rules by which recordings are ordered, by config id.
    Rules,
    /// Ingest points, by config id.
    IngestPoints,
    /// Ids of commands that were run, in order.
    Commands,
    /// Events that wait to be delivered, in order.
    Outbox,
}

impl Table {
    const ALL: [Self; 6] =
        [Self::Counters, Self::Recordings, Self::Rules, Self::IngestPoints, Self::Commands, Self::Outbox];

    fn definition(self) -> TableDefinition<'static, u64, &'static [u8]> {
        TableDefinition::new(match self {
            Table::Counters => "counters",
            Table::Recordings => "recordings",
            Table::Rules => "rules",
            Table::IngestPoints => "ingest-points",
            Table::Commands => "commands",
            Table::Outbox => "outbox",
        })
    }
}

/// Numbers that are never given twice in a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    ConfigId = 1,
    Event = 2,
    /// No counter: a number by chance, that tells this database from all others.
    Instance = 3,
}

/// A change to be made durable.
#[derive(Clone, Debug)]
pub struct Change {
    table: Table,
    key: u64,
    /// `None`: remove.
    value: Option<Vec<u8>>,
}

impl Change {
    /// Whether it is of what a copy of all orders has.
    fn is_of_orders(&self) -> bool {
        match self.table {
            Table::Recordings | Table::Rules | Table::IngestPoints => true,
            Table::Counters => self.key == Counter::ConfigId as u64,
            Table::Commands | Table::Outbox => false,
        }
    }

    /// Adds a value, or replaces the one of that number.
    pub fn put(table: Table, key: u64, value: &impl Serialize) -> Self {
        let value = serde_json::to_vec(value).expect("maps have text for keys");
        Self { table, key, value: Some(value) }
    }

    /// Removes a value; that there is none is no error.
    pub fn remove(table: Table, key: u64) -> Self {
        Self { table, key, value: None }
    }

    /// Remembers the last number that a counter gave. One that is behind what is known changes nothing, so that the
    /// order in which changes are made does not matter.
    pub fn count(counter: Counter, last: u64) -> Self {
        Self::put(Table::Counters, counter as u64, &last)
    }
}

/// The ids of recordings, rules and ingest points: 1, 2, … over all of the server's life. Clones share it.
#[derive(Clone, Debug)]
pub struct ConfigIds(Arc<Ids>);

#[derive(Debug)]
struct Ids {
    /// The last that was given.
    last: AtomicU64,
    /// Up to here they are known to be remembered.
    reserved: AtomicU64,
}

/// Ids that [`ConfigIds::reserve`] remembers ahead of those that were given.
const RESERVE: u64 = 256;

impl ConfigIds {
    /// Goes on behind the last id that the store knows of.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let last = store.counter(Counter::ConfigId)?;
        Ok(Self(Arc::new(Ids { last: AtomicU64::new(last), reserved: AtomicU64::new(last) })))
    }

    /// A new id. Unless [`ConfigIds::change`] is applied, or there was one in reserve, it may be given again after a
    /// restart.
    pub fn next(&self) -> u64 {
        self.0.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Remembers ids that are still to be given, so that who can't wait may take one. After a restart those that were
    /// not taken are passed over.
    pub async fn reserve(&self, store: &Store) -> Result<(), StoreError> {
        let last = self.0.last.load(Ordering::Relaxed) + RESERVE;
        store.apply(vec![Change::count(Counter::ConfigId, last)]).await?;
        self.0.reserved.fetch_max(last, Ordering::Relaxed);
        Ok(())
    }

    /// Whether half of the reserve is gone, or there is none.
    pub fn runs_out(&self) -> bool {
        self.0.last.load(Ordering::Relaxed) + RESERVE / 2 > self.0.reserved.load(Ordering::Relaxed)
    }

    /// Remembers the ids that were given so far, together with whatever else is applied in one call.
    pub fn change(&self) -> Change {
        Change::count(Counter::ConfigId, self.0.last.load(Ordering::Relaxed))
    }
}

/// Why something can't be kept, or read again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use; is another server running with this data folder?", .0.display())]
    InUse(PathBuf),
    #[error("{}: {error}", path.display())]
    Open { path: PathBuf, error: String },
    #[error("the server's database: {0}")]
    Failed(String),
    #[error("the server's database: {table:?} {key}: {error}")]
    Value { table: Table, key: u64, error: String },
}

impl StoreError {
    fn failed(error: impl Into<redb::Error>) -> Self {
        Self::Failed(error.into().to_string())
    }
}

/// A store, and what became of the one before.
#[derive(Debug)]
pub struct Opened {
    pub store: Store,
    /// Where a damaged database was moved to, and what was wrong with it.
    pub set_aside: Option<(PathBuf, String)>,
}

/// A database that is open, or was until its disk failed: after that it takes nothing any more, and is opened again.
#[derive(Debug)]
struct File {
    /// None: it is in memory.
    path: Option<PathBuf>,
    db: RwLock<Option<Database>>,
}

impl File {
    fn read<T>(
        &self,
        read: impl FnOnce(redb::ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or_else(|| StoreError::Failed("its disk has failed".into()))?;
        read(db.begin_read().map_err(StoreError::failed)?)
    }

    /// Makes changes, in a database that is opened again if it has to be.
    fn commit<'a>(&self, changes: impl Iterator<Item = &'a Change> + Clone) -> Result<(), StoreError> {
        let error = {
            let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
            match db.as_ref().map(|db| commit(db, changes.clone())) {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => Some(error),
                None => None,
            }
        };
        let Some(path) = &self.path else { return Err(error.unwrap_or_else(ended)) };
        if let Some(error) = error {
            tracing::warn!(%error, "the database is opened again");
        }
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Its lock has to go first.
        *db = None;
        let opened = open(path).map_err(|fault| match fault {
            Fault::Damaged(error) => StoreError::Open { path: path.clone(), error },
            Fault::Other(error) => error,
        })?;
        let result = commit(&opened, changes);
        *db = Some(opened);
        result
    }
}

/// The database. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    file: Arc<File>,
    /// Told when orders were changed.
    orders: watch::Sender<()>,
    jobs: mpsc::SyncSender<Job>,
}

#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Store {
    /// Opens the database of a data folder, or begins one. One that is damaged is moved out of the way.
    pub fn open(folder: &Path) -> Result<Opened, StoreError> {
        let path = folder.join(FILE);
        let damage = match open(&path) {
            Ok(db) => return Ok(Opened { store: Self::new(Some(path), db)?, set_aside: None }),
            Err(Fault::Damaged(damage)) => damage,
            Err(Fault::Other(error)) => return Err(error),
        };
        let now = crate::wall_clock::since_1970().as_millis();
        let aside = path.with_extension(format!("redb.damaged-{now}"));
        let failed = |error: String| StoreError::Open { path: path.clone(), error };
        std::fs::rename(&path, &aside).map_err(|e| failed(format!("{damage}, and to set it aside: {e}")))?;
        let db = open(&path).map_err(|fault| match fault {
            Fault::Damaged(damage) => failed(damage),
            Fault::Other(error) => error,
        })?;
        Ok(Opened { store: Self::new(Some(path.clone()), db)?, set_aside: Some((aside, damage)) })
    }

    /// Opens the database of a data folder, which must be there and whole.
    pub fn existing(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let failed = |error: String| StoreError::Open { path: path.clone(), error };
        std::fs::metadata(&path).map_err(|error| failed(error.to_string()))?;
        match open(&path) {
            Ok(db) => Self::new(Some(path.clone()), db),
            Err(Fault::Damaged(damage)) => Err(failed(format!("it is damaged: {damage}"))),
            Err(Fault::Other(error)) => Err(error),
        }
    }

    /// A store that forgets, for tests.
    pub fn in_memory() -> Self {
        let backend = redb::backends::InMemoryBackend::new();
        let db = Database::builder().create_with_backend(backend).expect("memory does not fail");
        begin(&db).expect("memory does not fail");
        Self::new(None, db).expect("a thread")
    }

    /// The same, that can keep nothing more.
    #[cfg(test)]
    pub(crate) fn broken(self) -> Self {
        Self { jobs: mpsc::sync_channel(1).0, ..self }
    }

    fn new(path: Option<PathBuf>, db: Database) -> Result<Self, StoreError> {
        let file = Arc::new(File { path, db: RwLock::new(Some(db)) });
        let (jobs, waiting) = mpsc::sync_channel::<Job>(MAX_WAITING);
        let orders = watch::Sender::default();
        let (its, told) = (file.clone(), orders.clone());
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || work(&its, &waiting, &told))
            .map_err(|error| StoreError::Failed(format!("its thread: {error}")))?;
        Ok(Self { file, orders, jobs })
    }

    /// Makes changes durable: all of them, or none if it fails.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        let mut job = Job { changes, done };
        // The thread is behind by a thousand calls, or by a disk that stalls.
        while let Err(error) = self.jobs.try_send(job) {
            match error {
                mpsc::TrySendError::Full(back) => job = back,
                mpsc::TrySendError::Disconnected(_) => return Err(ended()),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        result.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Tells when recordings, rules or ingest points were changed.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.orders.subscribe()
    }

    /// Everything in a table, by number.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(u64, T)>, StoreError> {
        self.file.read(|read| {
            let open = read.open_table(table.definition()).map_err(StoreError::failed)?;
            let mut all = Vec::new();
            for entry in open.iter().map_err(StoreError::failed)? {
                let (key, value) = entry.map_err(StoreError::failed)?;
                let key = key.value();
                match serde_json::from_slice(value.value()) {
                    Ok(value) => all.push((key, value)),
                    // Not in the words of the error: they may have a secret.
                    Err(error) => tracing::error!(
                        ?table,
                        key,
                        kind = ?error.classify(),
                        "a value that was kept makes no sense; it stays in the database"
                    ),
                }
            }
            Ok(all)
        })
    }

    /// The first values of a table from a number on, at most so many.
    pub fn from<T: DeserializeOwned>(
        &self,
        table: Table,
        first: u64,
        most: usize,
    ) -> Result<Vec<(u64, T)>, StoreError> {
        self.file.read(|read| {
            let open = read.open_table(table.definition()).map_err(StoreError::failed)?;
            let range = open.range(first..).map_err(StoreError::failed)?;
            range
                .take(most)
                .map(|entry| {
                    let (key, value) = entry.map_err(StoreError::failed)?;
                    let key = key.value();
                    let value = serde_json::from_slice(value.value());
                    Ok((key, value.map_err(|e| StoreError::Value { table, key, error: e.to_string() })?))
                })
                .collect()
        })
    }

    /// The largest number in a table; 0: it is empty.
    pub fn last(&self, table: Table) -> Result<u64, StoreError> {
        self.file.read(|read| {
            let open = read.open_table(table.definition()).map_err(StoreError::failed)?;
            let last = open.last().map_err(StoreError::failed)?;
            Ok(last.map_or(0, |(key, _)| key.value()))
        })
    }

    /// The last number that a counter gave; 0: none.
    pub fn counter(&self, counter: Counter) -> Result<u64, StoreError> {
        let all = self.from(Table::Counters, counter as u64, 1)?;
        Ok(all.into_iter().find(|(key, _)| *key == counter as u64).map_or(0, |(_, last)| last))
    }
}

fn ended() -> StoreError {
    StoreError::Failed("its thread has ended".into())
}

/// Why a file can't be opened as a database.
enum Fault {
    /// What is in it makes no sense.
    Damaged(String),
    Other(StoreError),
}

fn open(path: &Path) -> Result<Database, Fault> {
    // What is damaged in ways that the library did not foresee may make it panic.
    std::panic::catch_unwind(|| open_checked(path))
        .unwrap_or_else(|_| Err(Fault::Damaged("it can't be read".into())))
}

fn open_checked(path: &Path) -> Result<Database, Fault> {
    let fault = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => Fault::Other(StoreError::InUse(path.into())),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            Fault::Other(StoreError::Open { path: path.into(), error: error.to_string() })
        }
        damage => Fault::Damaged(damage.to_string()),
    };
    // Keys of publishers are in it: nobody else may read it.
    let private = || {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    };
    private()
        .map_err(|error| Fault::Other(StoreError::Open { path: path.into(), error: error.to_string() }))?;
    let mut db = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(fault)?;
    // All of it, so that damage shows now and not in a month.
    match db.check_integrity() {
        Ok(true) => {}
        Ok(false) => return Err(Fault::Damaged("its checksums do not match".into())),
        Err(error) => return Err(fault(error)),
    }
    begin(&db).map_err(|error| match error {
        redb::Error::Io(error) => {
            Fault::Other(StoreError::Open { path: path.into(), error: error.to_string() })
        }
        redb::Error::PreviousIo => {
            Fault::Other(StoreError::Open { path: path.into(), error: error.to_string() })
        }
        damage => Fault::Damaged(damage.to_string()),
    })?;
    Ok(db)
}

/// Makes the tables that are missing.
fn begin(db: &Database) -> Result<(), redb::Error> {
    let write = db.begin_write()?;
    for table in Table::ALL {
        write.open_table(table.definition())?;
    }
    Ok(write.commit()?)
}

/// Makes changes, as many calls at once as wait, until nobody can ask any more.
fn work(file: &File, waiting: &mpsc::Receiver<Job>, orders: &watch::Sender<()>) {
    while let Ok(first) = waiting.recv() {
        let mut jobs = vec![first];
        jobs.extend(waiting.try_iter().take(MAX_GROUP - 1));
        let result = file.commit(jobs.iter().flat_map(|job| &job.changes));
        if let Err(error) = &result {
            tracing::error!(%error, calls = jobs.len(), "changes can't be kept");
        }
        if result.is_ok() && jobs.iter().flat_map(|job| &job.changes).any(|change| change.is_of_orders()) {
            orders.send_replace(());
        }
        for job in jobs {
            // Who asked may be gone.
            let _ = job.done.send(result.clone());
        }
    }
}

fn commit<'a>(db: &Database, changes: impl Iterator<Item = &'a Change>) -> Result<(), StoreError> {
    let write = db.begin_write().map_err(StoreError::failed)?;
    for change in changes {
        let mut table = write.open_table(change.table.definition()).map_err(StoreError::failed)?;
        if change.table == Table::Counters
            && let Some(value) = &change.value
        {
            let number = |bytes: &[u8]| serde_json::from_slice::<u64>(bytes).unwrap_or(0);
            let known = table.get(change.key).map_err(StoreError::failed)?;
            if known.is_some_and(|known| number(known.value()) >= number(value)) {
                continue;
            }
        }
        match &change.value {
            Some(value) => table.insert(change.key, value.as_slice()),
            None => table.remove(change.key),
        }
        .map_err(StoreError::failed)?;
    }
    write.commit().map_err(StoreError::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recordings(store: &Store) -> Vec<(u64, String)> {
        store.all(Table::Recordings).unwrap()
    }

    #[tokio::test]
    async fn what_was_applied_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = Store::open(dir.path()).unwrap().store;
            let changes = vec![
                Change::put(Table::Recordings, 7, &"seven"),
                Change::put(Table::Recordings, 3, &"three"),
                Change::put(Table::Rules, 3, &"a rule"),
                Change::count(Counter::ConfigId, 7),
            ];
            store.apply(changes).await.unwrap();
            store.apply(vec![Change::remove(Table::Recordings, 3)]).await.unwrap();
            assert_eq!(recordings(&store), [(7, "seven".to_owned())]);
        }
        // The thread lets go of the file in its own time.
        let opened = loop {
            match Store::open(dir.path()) {
                Err(StoreError::InUse(_)) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        assert!(opened.set_aside.is_none());
        assert_eq!(recordings(&opened.store), [(7, "seven".to_owned())]);
        assert_eq!(opened.store.counter(Counter::ConfigId).unwrap(), 7);
        assert_eq!(opened.store.counter(Counter::Event).unwrap(), 0);
        let in_use = Store::open(dir.path()).unwrap_err().to_string();
        assert!(in_use.contains("another server"), "{in_use}");
    }

    #[tokio::test]
    async fn config_ids_never_go_back() {
        let store = Store::in_memory();
        let ids = ConfigIds::open(&store).unwrap();
        assert_eq!((ids.next(), ids.clone().next()), (1, 2));
        let early = ids.change();
        assert_eq!(ids.next(), 3);
        store.apply(vec![ids.change()]).await.unwrap();
        store.apply(vec![early]).await.unwrap();
        assert_eq!(ConfigIds::open(&store).unwrap().next(), 4, "an older change that came late");
    }

    #[tokio::test]
    async fn config_ids_in_reserve_need_no_database() {
        let store = Store::in_memory();
        let ids = ConfigIds::open(&store).unwrap();
        assert!(ids.runs_out());
        let mut changed = store.changed();
        ids.reserve(&store).await.unwrap();
        assert!(changed.has_changed().unwrap(), "a copy of all orders has the last id");
        changed.mark_unchanged();
        let half = RESERVE / 2;
        (0..half).for_each(|i| assert_eq!(ids.next(), i + 1));
        assert!(!ids.runs_out());
        // Killed.
        assert_eq!(ConfigIds::open(&store).unwrap().next(), RESERVE + 1);
        ids.next();
        assert!(ids.runs_out());
        store.apply(vec![Change::count(Counter::Event, 5)]).await.unwrap();
        assert!(!changed.has_changed().unwrap());
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_left_out() {
        let store = Store::in_memory();
        let broken = Change { table: Table::Recordings, key: 2, value: Some(b"{\"a\":".to_vec()) };
        let changes = vec![
            Change::put(Table::Recordings, 1, &"one"),
            broken,
            Change::put(Table::Recordings, 3, &3),
            Change::put(Table::Recordings, 4, &"four"),
        ];
        store.apply(changes).await.unwrap();
        assert_eq!(recordings(&store), [(1, "one".to_owned()), (4, "four".to_owned())]);
        assert_eq!(store.last(Table::Recordings).unwrap(), 4);
        assert!(store.from::<String>(Table::Recordings, 0, 9).is_err());
    }

    #[tokio::test]
    async fn a_database_whose_disk_has_failed_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().store;
        store.apply(vec![Change::put(Table::Recordings, 1, &"one")]).await.unwrap();
        *store.file.db.write().unwrap() = None;
        assert!(store.all::<String>(Table::Recordings).is_err());
        store.apply(vec![Change::put(Table::Recordings, 2, &"two")]).await.unwrap();
        assert_eq!(recordings(&store).len(), 2);
    }

    #[tokio::test]
    async fn many_at_once_all_get_their_answer() {
        let store = Store::in_memory();
        let all = (0..2000).map(|key| {
            let store = store.clone();
            tokio::spawn(async move { store.apply(vec![Change::put(Table::Outbox, key, &key)]).await })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
        assert_eq!(store.all::<u64>(Table::Outbox).unwrap().len(), 2000);
        assert_eq!(store.from::<u64>(Table::Outbox, 1990, 5).unwrap()[4], (1994, 1994));
    }

    #[tokio::test]
    async fn damage_is_set_aside_and_said() {
        let whole = tempfile::tempdir().unwrap();
        let store = Store::open(whole.path()).unwrap().store;
        store.apply(vec![Change::put(Table::Recordings, 1, &"x".repeat(5000))]).await.unwrap();
        let bytes = std::fs::read(whole.path().join(FILE)).unwrap();
        let damaged: [Vec<u8>; 4] = [
            b"not a database".to_vec(),
            bytes[..bytes.len() / 2].to_vec(),
            vec![0xff; bytes.len()],
            bytes.iter().enumerate().map(|(i, b)| if i % 512 == 300 { b ^ 0x55 } else { *b }).collect(),
        ];
        for (i, damaged) in damaged.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), &damaged).unwrap();
            let opened = Store::open(dir.path()).unwrap();
            let (aside, damage) = opened.set_aside.unwrap_or_else(|| panic!("{i} passed for whole"));
            assert!(!damage.is_empty());
            assert_eq!(std::fs::read(aside).unwrap().len(), damaged.len());
            assert_eq!(recordings(&opened.store), []);
            opened.store.apply(vec![Change::put(Table::Rules, 1, &1)]).await.unwrap();
        }
    }
}
