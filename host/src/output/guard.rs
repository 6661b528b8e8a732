//! Room and health of the folders that are recorded to: who waits for a disk, and who is told of it.
//!
//! ```text
//!             free < warn               free < stop, or a write failed for room
//!      Good ----------------->  Low  -------------------------------------------> Full
//!           <-----------------       <-------------------------------------------
//!            free > 1.5 × warn          free > 1.5 × stop, and a probe succeeds after a failed write
//!
//!      any  ----------------------> Failing ----------------> what the room says
//!            a write failed otherwise       a probe succeeds
//! ```
//!
//! A [`Guard`] watches a folder, not a device: a folder may have a quota of its own. It has a thread of its own,
//! since a disk that stalls may hold it for ever; there is one only while somebody has the guard. The thread
//! looks at the room each second. After a failed write it probes, a second later and then less and less often:
//! it writes a small hidden file, syncs it and removes it. After a want of room the probe takes more than it
//! writes: what recordings give back when they are closed must not be taken for room.
//!
//! Each change of state is one line of the log and one call of the hook, in their order.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::watch;

use super::{
    path::describe,
    storage::{Directory, Space},
};
use crate::sync::lock;

const GIB: u64 = 1 << 30;
/// How often the room is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// From a failed write to the first probe, and the longest time between two; it doubles in between.
const FIRST_PROBE: Duration = Duration::from_secs(1);
const MAX_PROBE: Duration = Duration::from_secs(5);
/// After so long without trouble the next one is probed after [`FIRST_PROBE`] again.
const CALM: Duration = Duration::from_secs(60);
/// Name of the file of a probe; the process id follows.
const PROBE: &str = ".reelwright-probe-";
const PROBE_BYTES: usize = 1 << 20;
/// Room that there has to be after a failed write for want of it: a share of the disk within these bounds.
const MIN_ROOM: u64 = 4 << 20;
const MAX_ROOM: u64 = 64 << 20;

/// Free bytes below which something is done; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// To warn. `None`: 5 GiB, or 5 % of a smaller disk.
    pub warn: Option<u64>,
    /// To stop writing. `None`: 1 GiB, or 1 % of a smaller disk.
    pub stop: Option<u64>,
}

impl Thresholds {
    fn warn(self, total: u64) -> u64 {
        self.warn.unwrap_or_else(|| (5 * GIB).min(total / 20))
    }

    fn stop(self, total: u64) -> u64 {
        self.stop.unwrap_or_else(|| GIB.min(total / 100))
    }
}

/// What can be expected of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Good,
    /// Recording goes on, and somebody should make room.
    Low,
    /// No more than the last reserve is left, or a write failed for want of room.
    Full,
    /// A write failed for another reason.
    Failing,
}

impl State {
    /// Name of the event that tells of it.
    pub fn event(self) -> &'static str {
        match self {
            State::Good => "diskGood",
            State::Low => "diskLow",
            State::Full => "diskFull",
            State::Failing => "diskFailing",
        }
    }

    /// The word for it in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Low => "low",
            State::Full => "full",
            State::Failing => "failing",
        }
    }
}

/// What is known of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub state: State,
    /// As last looked at; `None`: not yet.
    pub space: Option<Space>,
    /// Of the failed write that nothing has succeeded since.
    pub errno: Option<Errno>,
}

impl View {
    /// Whether recording is known to be impossible.
    pub fn is_in_trouble(&self) -> bool {
        matches!(self.state, State::Full | State::Failing)
    }

    /// Whether recording may go on. Not before the first look.
    pub fn is_usable(&self) -> bool {
        self.space.is_some() && matches!(self.state, State::Good | State::Low)
    }
}

/// A folder came into another state.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub path: &'a Path,
    pub from: State,
    pub to: View,
}

/// Is told of each change, in order. It must neither block nor ask the guard.
pub type Hook = dyn Fn(&Change<'_>) + Send + Sync;

/// The guards in use. Clones share them.
#[derive(Clone)]
pub struct Guards {
    thresholds: Thresholds,
    hook: Arc<Hook>,
    guards: Arc<Mutex<Known>>,
}

/// Guards by device and inode of their folders.
type Known = HashMap<(u64, u64), Weak<Shared>>;

/// The guard of a folder, which is watched as long as one of its clones is there.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Shared>);

impl Guards {
    /// None yet.
    pub fn new(thresholds: Thresholds, hook: Arc<Hook>) -> Self {
        Self { thresholds, hook, guards: Arc::default() }
    }

    /// The guard of the folder with these device and inode numbers, with its thread running. `path` is for messages.
    pub fn get(&self, id: (u64, u64), path: &Path, directory: &Arc<dyn Directory>) -> std::io::Result<Guard> {
        let mut guards = lock(&self.guards);
        if let Some(shared) = guards.get(&id).and_then(Weak::upgrade) {
            return Ok(Guard(shared));
        }
        guards.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared::new(path, self.thresholds, self.hook.clone()));
        let (weak, driver) = (Arc::downgrade(&shared), Driver::new(directory.clone()));
        std::thread::Builder::new().name("disk-guard".into()).spawn(move || driver.drive(&weak))?;
        guards.insert(id, Arc::downgrade(&shared));
        Ok(Guard(shared))
    }

    /// The folders that are watched, and what is known of them, by path.
    pub fn list(&self) -> Vec<(PathBuf, View)> {
        let guards: Vec<_> = lock(&self.guards).values().filter_map(Weak::upgrade).map(Guard).collect();
        let mut list: Vec<_> = guards.iter().map(|guard| (guard.0.path.clone(), guard.view())).collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }
}

impl Default for Guards {
    fn default() -> Self {
        Self::new(Thresholds::default(), Arc::new(|_| {}))
    }
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guards").field("thresholds", &self.thresholds).finish_non_exhaustive()
    }
}

impl Guard {
    /// Says that a write to the folder, or what belongs to one, failed. Does not block.
    pub fn report(&self, errno: Errno) {
        self.0.change(|machine| machine.report(errno));
    }

    /// The same for an error that may not be the disk's; whether it is.
    pub fn heed(&self, errno: Errno) -> bool {
        let trouble = is_trouble(errno);
        if trouble {
            self.report(errno);
        }
        trouble
    }

    /// What is known now.
    pub fn view(&self) -> View {
        *self.0.view.borrow()
    }

    /// The state now; good until the first look.
    pub fn state(&self) -> State {
        self.view().state
    }

    /// To follow the state.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.0.view.subscribe()
    }
}

/// What those who have the guard and its thread share.
struct Shared {
    path: PathBuf,
    hook: Arc<Hook>,
    machine: Mutex<Machine>,
    view: watch::Sender<View>,
}

impl Shared {
    fn new(path: &Path, thresholds: Thresholds, hook: Arc<Hook>) -> Self {
        Self {
            path: path.to_owned(),
            hook,
            machine: Mutex::new(Machine { thresholds, ..Machine::default() }),
            view: watch::Sender::new(View::default()),
        }
    }

    /// Changes what is known, and tells of it if the state is another. The lock keeps what is told in order.
    fn change(&self, change: impl FnOnce(&mut Machine)) {
        let mut machine = lock(&self.machine);
        let from = machine.state();
        change(&mut machine);
        let to = machine.view();
        self.view.send_if_modified(|view| {
            let news = view.state != to.state || view.is_usable() != to.is_usable();
            *view = to;
            news
        });
        if from != to.state {
            let change = Change { path: &self.path, from, to };
            change.log();
            (self.hook)(&change);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = *self.view.borrow();
        f.debug_struct("Guard").field("path", &self.path).field("view", &view).finish_non_exhaustive()
    }
}

impl Change<'_> {
    fn log(&self) {
        let (path, event) = (self.path.display(), self.to.state.event());
        let (free, total) = (self.to.space.map(|s| s.free), self.to.space.map(|s| s.total));
        let error = self.to.errno.map(describe);
        match self.to.state {
            State::Good => tracing::info!(event, %path, free, total, "disk is good again"),
            State::Low => tracing::warn!(event, %path, free, total, "disk has little room"),
            State::Full => {
                tracing::error!(event, %path, free, total, error, "disk is full; recordings to it wait");
            }
            State::Failing => {
                tracing::error!(event, %path, free, total, error, "disk fails; recordings to it wait");
            }
        }
    }
}

/// Makes a state of what was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    thresholds: Thresholds,
    space: Option<Space>,
    low: bool,
    cramped: bool,
    /// Until a probe succeeds.
    error: Option<Errno>,
}

impl Machine {
    fn looked(&mut self, space: Space) {
        self.space = Some(space);
        // Some network file systems know no sizes.
        let known = space.total > 0;
        self.low = known && is_below(space.free, self.thresholds.warn(space.total), self.low);
        self.cramped = known && is_below(space.free, self.thresholds.stop(space.total), self.cramped);
    }

    /// A write failed, or a probe. Want of room does not hide what is worse.
    fn report(&mut self, errno: Errno) {
        if self.error.is_none_or(is_want_of_room) {
            self.error = Some(errno);
        }
    }

    fn probed(&mut self, result: Result<(), Errno>) {
        match result {
            Ok(()) => self.error = None,
            Err(errno) => self.report(errno),
        }
    }

    /// Whether a probe may tell something. Where there is no room it would only take what others need.
    fn wants_probe(&self) -> bool {
        let room = self.space.is_none_or(|space| space.total == 0 || space.free >= self.room_to_probe());
        self.error.is_some_and(|errno| !is_want_of_room(errno) || (room && !self.cramped))
    }

    /// Bytes that a probe has to get.
    fn room_to_probe(&self) -> u64 {
        match (self.error, self.space) {
            (Some(errno), Some(space)) if is_want_of_room(errno) => {
                (space.total / 100).clamp(MIN_ROOM, MAX_ROOM).min(space.total / 4)
            }
            _ => 0,
        }
    }

    fn state(&self) -> State {
        match self.error {
            Some(errno) if is_want_of_room(errno) => State::Full,
            Some(_) => State::Failing,
            None if self.cramped => State::Full,
            None if self.low => State::Low,
            None => State::Good,
        }
    }

    fn view(&self) -> View {
        View { state: self.state(), space: self.space, errno: self.error }
    }
}

/// Whether an error tells of the disk, and not of what was asked of it.
pub fn is_trouble(errno: Errno) -> bool {
    is_want_of_room(errno)
        || matches!(
            errno,
            Errno::IO
                | Errno::ROFS
                | Errno::NODEV
                | Errno::NXIO
                | Errno::STALE
                | Errno::TIMEDOUT
                | Errno::HOSTDOWN
                | Errno::NOTCONN
        )
}

fn is_want_of_room(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

/// Whether there is less than the threshold; once below, until there is half as much again.
fn is_below(free: u64, threshold: u64, was: bool) -> bool {
    if was { free <= threshold.saturating_add(threshold / 2) && threshold > 0 } else { free < threshold }
}

/// Looks and probes: what may block.
#[derive(Debug)]
struct Driver {
    directory: Arc<dyn Directory>,
    name: String,
    /// When the next probe is due, in trouble.
    next: Option<Instant>,
    /// From the last trouble, or the last probe, to the next one.
    delay: Duration,
    last_trouble: Option<Instant>,
}

impl Driver {
    fn new(directory: Arc<dyn Directory>) -> Self {
        let name = format!("{PROBE}{}", std::process::id());
        Self { directory, name, next: None, delay: FIRST_PROBE, last_trouble: None }
    }

    /// Goes on as long as somebody has the guard. While a call blocks, the guard stays, so that no second
    /// thread gets stuck as well.
    fn drive(mut self, guard: &Weak<Shared>) {
        if let Some(shared) = guard.upgrade() {
            self.turn(&shared, Instant::now());
            self.tidy();
        }
        loop {
            std::thread::sleep(LOOK);
            let Some(shared) = guard.upgrade() else { return };
            self.turn(&shared, Instant::now());
        }
    }

    /// Looks at the room, and probes if it is time for that.
    fn turn(&mut self, shared: &Shared, now: Instant) {
        let space = self.directory.space();
        shared.change(|machine| match space {
            Ok(space) => machine.looked(space),
            Err(errno) => machine.report(errno),
        });
        let (trouble, wants_probe, room) = {
            let machine = lock(&shared.machine);
            (machine.error.is_some(), machine.wants_probe(), machine.room_to_probe())
        };
        if !trouble {
            self.next = None;
            if self.last_trouble.is_none_or(|last| now.saturating_duration_since(last) >= CALM) {
                self.delay = FIRST_PROBE;
            }
            return;
        }
        self.last_trouble = Some(now);
        let due = *self.next.get_or_insert(now + self.delay);
        if now < due || !wants_probe {
            return;
        }
        self.delay = (self.delay * 2).min(MAX_PROBE);
        let result = self.probe(room);
        self.next = result.is_err().then(|| now + self.delay);
        shared.change(|machine| machine.probed(result));
    }

    fn probe(&self, room: u64) -> Result<(), Errno> {
        self.directory.remove(&self.name)?;
        let file = self.directory.create(&self.name)?;
        let reserved = match room {
            0 => Ok(()),
            // Some file systems reserve nothing.
            room => file.reserve(room).or_else(|errno| match errno {
                Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => Ok(()),
                errno => Err(errno),
            }),
        };
        let result = reserved.and_then(|()| file.write_at(&[noise()], 0)).and_then(|()| file.sync());
        let removed = self.directory.remove(&self.name);
        result.and(removed)
    }

    /// Removes what the probes of killed servers left.
    fn tidy(&self) {
        for name in self.directory.names().unwrap_or_default() {
            if name.starts_with(PROBE) {
                let _ = self.directory.remove(&name);
            }
        }
    }
}

/// What no file system can store in less.
fn noise() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(PROBE_BYTES / 8).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::output::storage::DiskFile;

    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;

    fn space(total: u64, free: u64) -> Space {
        Space { total, free }
    }

    #[test]
    fn thresholds_are_sizes_or_shares_or_what_was_set() {
        let default = Thresholds::default();
        assert_eq!((default.warn(TIB), default.stop(TIB)), (5 * GIB, GIB));
        assert_eq!((default.warn(1000 * MIB), default.stop(1000 * MIB)), (50 * MIB, 10 * MIB));
        let set = Thresholds { warn: Some(20 * GIB), stop: Some(0) };
        assert_eq!((set.warn(TIB), set.stop(TIB)), (20 * GIB, 0));
    }

    #[test]
    fn room_makes_states_with_hysteresis() {
        use State::{Full, Good, Low};
        let mut machine = Machine::default();
        // Of 1,000 MiB: warns below 50, stops below 10.
        for (free_mib, state) in [
            (500, Good),
            (50, Good),
            (49, Low),
            (75, Low),
            (76, Good),
            (10, Low),
            (9, Full),
            (15, Full),
            (16, Low),
            (0, Full),
            (500, Good),
        ] {
            machine.looked(space(1000 * MIB, free_mib * MIB));
            assert_eq!(machine.state(), state, "{free_mib} MiB");
        }
        // Off, and sizes that are not known.
        let mut machine =
            Machine { thresholds: Thresholds { warn: Some(0), stop: Some(0) }, ..Machine::default() };
        machine.looked(space(TIB, 0));
        assert_eq!(machine.state(), Good);
        let mut machine = Machine::default();
        machine.looked(space(0, 0));
        assert_eq!(machine.state(), Good);
    }

    #[test]
    fn failed_writes_make_states_until_a_probe_succeeds() {
        use State::{Failing, Full, Good};
        enum Step {
            Report(Errno),
            Probe(Result<(), Errno>),
        }
        use Step::{Probe, Report};
        for steps in [
            [(Report(Errno::NOSPC), Full), (Probe(Err(Errno::NOSPC)), Full), (Probe(Ok(())), Good)],
            [(Report(Errno::DQUOT), Full), (Probe(Err(Errno::DQUOT)), Full), (Probe(Ok(())), Good)],
            [(Report(Errno::IO), Failing), (Probe(Err(Errno::IO)), Failing), (Probe(Ok(())), Good)],
            [(Report(Errno::ROFS), Failing), (Report(Errno::NOSPC), Failing), (Probe(Ok(())), Good)],
            [(Report(Errno::NOSPC), Full), (Report(Errno::STALE), Failing), (Probe(Ok(())), Good)],
            [(Report(Errno::NOSPC), Full), (Probe(Err(Errno::NODEV)), Failing), (Probe(Ok(())), Good)],
            [(Report(Errno::IO), Failing), (Probe(Err(Errno::NOSPC)), Failing), (Probe(Ok(())), Good)],
        ] {
            let mut machine = Machine::default();
            machine.looked(space(TIB, TIB / 2));
            for (step, state) in steps {
                match step {
                    Report(errno) => machine.report(errno),
                    Probe(result) => machine.probed(result),
                }
                assert_eq!(machine.state(), state);
            }
            assert!(!machine.wants_probe());
        }
    }

    #[test]
    fn after_a_failed_write_room_alone_is_not_enough() {
        let mut machine = Machine::default();
        machine.looked(space(1000 * MIB, 5 * MIB));
        machine.report(Errno::NOSPC);
        assert!(!machine.wants_probe(), "there is no room for it");
        machine.looked(space(1000 * MIB, 500 * MIB));
        assert_eq!(machine.state(), State::Full);
        assert!(machine.wants_probe());
        machine.probed(Ok(()));
        assert_eq!(machine.state(), State::Good);
        // What recordings gave back is not enough, also if nothing is kept free.
        let thresholds = Thresholds { warn: Some(0), stop: Some(0) };
        let mut machine = Machine { thresholds, ..Machine::default() };
        machine.looked(space(1000 * MIB, 9 * MIB));
        machine.report(Errno::DQUOT);
        assert!(!machine.wants_probe());
        machine.looked(space(1000 * MIB, 10 * MIB));
        assert!(machine.wants_probe());
        assert_eq!(machine.room_to_probe(), 10 * MIB);
        // A probe of a disk that fails tells something even without room.
        let mut machine = Machine::default();
        machine.looked(space(1000 * MIB, 5 * MIB));
        machine.report(Errno::IO);
        assert!(machine.wants_probe());
        machine.probed(Ok(()));
        assert_eq!(machine.state(), State::Full);
    }

    /// A folder whose answers are set.
    #[derive(Debug)]
    struct Fake {
        space: Mutex<Result<Space, Errno>>,
        write: Mutex<Result<(), Errno>>,
        names: Mutex<BTreeSet<String>>,
        /// Probes, by what was written.
        writes: Mutex<Vec<usize>>,
        /// Bytes that may be taken.
        quota: u64,
    }

    #[derive(Debug)]
    struct FakeFile(Arc<Fake>);

    impl Fake {
        fn new(free_mib: u64) -> Arc<Self> {
            Arc::new(Self {
                space: Mutex::new(Ok(space(1000 * MIB, free_mib * MIB))),
                write: Mutex::new(Ok(())),
                names: Mutex::default(),
                writes: Mutex::default(),
                quota: 10 * MIB,
            })
        }

        fn probes(&self) -> usize {
            lock(&self.writes).len()
        }
    }

    impl Directory for Arc<Fake> {
        fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
            assert!(lock(&self.names).insert(name.into()));
            Ok(Arc::new(FakeFile(self.clone())))
        }

        fn open(&self, _: &str) -> Result<Arc<dyn DiskFile>, Errno> {
            unimplemented!()
        }

        fn exists(&self, _: &str) -> Result<bool, Errno> {
            unimplemented!()
        }

        fn names(&self) -> Result<Vec<String>, Errno> {
            Ok(lock(&self.names).iter().cloned().collect())
        }

        fn rename(&self, _: &str, _: &str, _: bool) -> Result<(), Errno> {
            unimplemented!()
        }

        fn remove(&self, name: &str) -> Result<(), Errno> {
            lock(&self.names).remove(name);
            Ok(())
        }

        fn sync(&self) -> Result<(), Errno> {
            unimplemented!()
        }

        fn space(&self) -> Result<Space, Errno> {
            *lock(&self.space)
        }
    }

    impl DiskFile for FakeFile {
        fn write_at(&self, pieces: &[Bytes], _: u64) -> Result<(), Errno> {
            lock(&self.0.writes).push(pieces.iter().map(Bytes::len).sum());
            *lock(&self.0.write)
        }

        fn read_at(&self, _: &mut [u8], _: u64) -> Result<usize, Errno> {
            unimplemented!()
        }

        fn size(&self) -> Result<u64, Errno> {
            unimplemented!()
        }

        fn truncate(&self, _: u64) -> Result<(), Errno> {
            unimplemented!()
        }

        fn sync(&self) -> Result<(), Errno> {
            Ok(())
        }

        fn reserve(&self, len: u64) -> Result<(), Errno> {
            if len > self.0.quota { Err(Errno::DQUOT) } else { Ok(()) }
        }

        fn insert_range(&self, _: u64, _: u64) -> Result<(), Errno> {
            unimplemented!()
        }

        fn collapse_range(&self, _: u64, _: u64) -> Result<(), Errno> {
            unimplemented!()
        }

        fn next_data(&self, _: u64) -> Result<Option<u64>, Errno> {
            unimplemented!()
        }

        fn next_hole(&self, _: u64) -> Result<u64, Errno> {
            unimplemented!()
        }

        fn copy_to(&self, _: u64, _: &dyn DiskFile, _: u64, _: u64) -> Result<u64, Errno> {
            unimplemented!()
        }

        fn lock(&self) -> Result<bool, Errno> {
            unimplemented!()
        }

        fn inode(&self) -> Result<u64, Errno> {
            unimplemented!()
        }
    }

    /// A hook that keeps what it is told.
    fn told() -> (Arc<Mutex<Vec<&'static str>>>, Arc<Hook>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        (told, Arc::new(move |change: &Change<'_>| lock(&sink).push(change.to.state.event())))
    }

    #[test]
    fn probes_come_less_and_less_often_and_each_change_is_told_once() {
        let folder = Fake::new(500);
        let (told, hook) = told();
        let shared = Shared::new(Path::new("/media"), Thresholds::default(), hook);
        let mut driver = Driver::new(Arc::new(folder.clone()));
        let begin = Instant::now();
        let mut turn = |second: u64| driver.turn(&shared, begin + Duration::from_secs(second));

        turn(0);
        *lock(&folder.write) = Err(Errno::NOSPC);
        for _ in 0..20 {
            shared.change(|machine| machine.report(Errno::NOSPC));
        }
        assert_eq!(*lock(&told), ["diskFull"]);
        let mut at = Vec::new();
        for second in 1..=30 {
            let before = folder.probes();
            turn(second);
            if folder.probes() > before {
                at.push(second);
            }
        }
        assert_eq!(at, [2, 4, 8, 13, 18, 23, 28]);
        assert!(lock(&folder.writes).iter().all(|&bytes| bytes == PROBE_BYTES));
        assert!(folder.names().unwrap().is_empty(), "nothing is left");
        assert_eq!(*lock(&told), ["diskFull"]);

        *lock(&folder.write) = Ok(());
        (31..=33).for_each(&mut turn);
        assert_eq!(*lock(&told), ["diskFull", "diskGood"]);
        let probes = folder.probes();
        // The next trouble comes soon, so it is not probed soon.
        shared.change(|machine| machine.report(Errno::IO));
        (34..=38).for_each(&mut turn);
        assert_eq!(folder.probes(), probes);
        turn(39);
        assert_eq!(*lock(&told), ["diskFull", "diskGood", "diskFailing", "diskGood"]);
        // And after calm it is.
        turn(100);
        shared.change(|machine| machine.report(Errno::IO));
        turn(101);
        turn(102);
        assert_eq!(lock(&told).last(), Some(&"diskGood"));

        *lock(&folder.space) = Err(Errno::STALE);
        turn(200);
        assert_eq!(lock(&told).last(), Some(&"diskFailing"));
        *lock(&folder.space) = Ok(space(1000 * MIB, MIB));
        (201..=210).for_each(&mut turn);
        assert_eq!(lock(&told)[6..], ["diskFailing", "diskFull"]);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_there_is_room() {
        let folder = Fake::new(5);
        lock(&folder.names).extend([format!("{PROBE}1"), "x.mp4".into()]);
        let guards = Guards::default();
        let directory: Arc<dyn Directory> = Arc::new(folder.clone());
        let guard = guards.get((1, 2), Path::new("/media"), &directory).unwrap();
        let same = guards.get((1, 2), Path::new("/media/."), &directory).unwrap();
        assert!(Arc::ptr_eq(&guard.0, &same.0));
        guard.watch().wait_for(|view| view.state == State::Full).await.unwrap();
        *lock(&folder.space) = Ok(space(1000 * MIB, 500 * MIB));
        guard.watch().wait_for(View::is_usable).await.unwrap();
        assert_eq!(same.state(), State::Good);
        assert_eq!(folder.names().unwrap(), ["x.mp4"], "what a killed server's probe left is gone");

        let gone = Arc::downgrade(&guard.0);
        drop((guard, same));
        let other = guards.get((3, 4), Path::new("/other"), &directory).unwrap();
        assert!(other.view().errno.is_none());
        // The thread has it for the time of a turn, at most.
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        guards.get((5, 6), Path::new("/third"), &directory).unwrap();
        assert!(!lock(&guards.guards).contains_key(&(1, 2)));
    }
}
