//! The threads of a volume. One does the quick disk work of its recordings, in order; one makes what was
//! written durable at intervals (`rounds`); slow work (closing, making room) goes to others, a few at a time. A
//! volume that stalls stalls nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
    thread::Thread,
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{durable::Durable, rounds::Rounds};
use crate::sync::lock;

/// Bytes that may wait for one volume, over all its recordings; who writes more waits.
const MAX_QUEUED: usize = 64 << 20;
/// Jobs at once on one volume: that wait for the disk, that look at a folder or read what was just written, and that go
/// through whole files.
const SLOW_JOBS: usize = 8;
const READ_JOBS: usize = 4;
const LONG_JOBS: usize = 2;

/// How long the thread of a volume lets work that nobody waits for come together. To wake it for each piece costs more
/// than the piece.
const GATHER: Duration = Duration::from_millis(5);

/// Work for a volume's thread.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The volumes in use, by device number. Clones share them.
#[derive(Clone, Debug)]
pub struct Volumes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sync_interval: Option<Duration>,
    volumes: Mutex<HashMap<u64, Volume>>,
}

impl Volumes {
    /// No volumes yet. `sync_interval`: what a power cut may cost; `None`: nothing is synced before it is closed.
    pub fn new(sync_interval: Option<Duration>) -> Self {
        Self(Arc::new(Inner { sync_interval, volumes: Mutex::default() }))
    }

    /// What a power cut may cost.
    pub fn sync_interval(&self) -> Option<Duration> {
        self.0.sync_interval
    }

    /// The volume with a device number, with its threads running.
    pub fn get(&self, device: u64) -> std::io::Result<Volume> {
        let mut volumes = lock(&self.0.volumes);
        if let Some(volume) = volumes.get(&device) {
            return Ok(volume.clone());
        }
        let volume = Volume::start(device, self.0.sync_interval)?;
        volumes.insert(device, volume.clone());
        Ok(volume)
    }
}

/// A volume's queue of disk work.
#[derive(Clone, Debug)]
pub struct Volume {
    jobs: mpsc::Sender<Job>,
    /// Who does them.
    thread: Thread,
    room: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    long: Arc<Semaphore>,
    /// Who makes segments durable at intervals; `None` if there are no intervals.
    rounds: Option<Rounds>,
}

impl Volume {
    fn start(device: u64, sync_interval: Option<Duration>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name(format!("disk-{device:x}"));
        let thread = thread.spawn(move || work(&queue))?.thread().clone();
        let rounds = sync_interval.map(|interval| Rounds::start(device, interval)).transpose()?;
        Ok(Self {
            jobs,
            thread,
            room: Arc::new(Semaphore::new(MAX_QUEUED)),
            slow: Arc::new(Semaphore::new(SLOW_JOBS)),
            reads: Arc::new(Semaphore::new(READ_JOBS)),
            long: Arc::new(Semaphore::new(LONG_JOBS)),
            rounds,
        })
    }

    /// Waits until the volume's thread is through with what it was given.
    pub async fn settle(&self) {
        let (done, is_done) = oneshot::channel();
        self.send(Box::new(move || {
            let _ = done.send(());
        }));
        self.wake();
        is_done.await.expect("the volume's thread outlives its jobs");
    }

    /// Does slow work off the volume's thread and waits for its result. It runs beside queued work, so
    /// what it builds on has to be done.
    pub async fn run_slow<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.run_with(&self.slow, work).await
    }

    /// The same for what looks at a folder, or reads a little that was just written, so that it does not wait behind
    /// others' syncs.
    pub async fn run_read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.run_with(&self.reads, work).await
    }

    /// The same for work that goes through whole files, so that nothing else waits behind it.
    pub async fn run_long<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.run_with(&self.long, work).await
    }

    async fn run_with<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        // The permit goes with the work, which goes on when nobody waits for it any more.
        let work = move || (work(), drop(permit)).0;
        tokio::task::spawn_blocking(work).await.expect("disk work does not panic")
    }

    /// Has a segment made durable at intervals, if there are any, as long as it lives.
    pub(super) fn sync_at_intervals(&self, segment: &Arc<Durable>) {
        if let Some(rounds) = &self.rounds {
            rounds.add(segment);
        }
    }

    /// Makes all segments durable now that are at intervals, by the whole volume however few they are.
    pub async fn sync_round(&self) {
        if let Some(rounds) = &self.rounds {
            rounds.now().await;
        }
    }

    /// Room in the queue for work that holds `bytes` of memory, to be let go of when it is done.
    pub(super) async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes.clamp(1, MAX_QUEUED)).expect("below 4 GiB");
        self.room.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }

    /// Gives the volume's thread work, which it comes to within [`GATHER`].
    pub(super) fn send(&self, job: Job) {
        self.jobs.send(job).expect("the volume's thread lives as long as a sender");
    }

    /// Lets the volume's thread do at once what it was given.
    pub(super) fn wake(&self) {
        self.thread.unpark();
    }
}

/// Does a volume's work, in order, as long as anybody can give it any.
fn work(queue: &mpsc::Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job();
        queue.try_iter().for_each(|job| job());
        std::thread::park_timeout(GATHER);
    }
}
