//! The threads of a volume. One does the quick disk work of its recordings, in order; one makes what was
//! written durable at intervals; slow work (closing, making room) goes to others, a few at a time. A volume that
//! stalls stalls nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak, mpsc},
    thread::Thread,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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

/// What is to be made durable at intervals, as long as it lives.
pub trait SyncPoint: Send + Sync {
    /// Lets the disk begin with what has been written. Waits for nothing.
    fn start(&self);

    /// Makes durable what has been written. Keeps its errors for its owner.
    fn sync_point(&self);
}

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
    /// New things to be synced at intervals; `None` if there are no intervals.
    syncs: Option<mpsc::Sender<Weak<dyn SyncPoint>>>,
}

impl std::fmt::Debug for dyn SyncPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncPoint").finish_non_exhaustive()
    }
}

impl Volume {
    fn start(device: u64, sync_interval: Option<Duration>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name(format!("disk-{device:x}"));
        let thread = thread.spawn(move || work(&queue))?.thread().clone();
        let syncs = match sync_interval {
            None => None,
            Some(interval) => {
                let (syncs, new) = mpsc::channel();
                let run = move || sync_rounds(interval, &new);
                std::thread::Builder::new().name(format!("sync-{device:x}")).spawn(run)?;
                Some(syncs)
            }
        };
        Ok(Self {
            jobs,
            thread,
            room: Arc::new(Semaphore::new(MAX_QUEUED)),
            slow: Arc::new(Semaphore::new(SLOW_JOBS)),
            reads: Arc::new(Semaphore::new(READ_JOBS)),
            long: Arc::new(Semaphore::new(LONG_JOBS)),
            syncs,
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

    /// Has something synced at intervals, if there are any.
    pub fn sync_at_intervals(&self, point: Weak<dyn SyncPoint>) {
        if let Some(syncs) = &self.syncs {
            syncs.send(point).expect("the volume's thread lives as long as a sender");
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

/// Syncs everything, one after the other, again and again. What comes just behind its turn waits for the next one, so
/// that a round begins earlier the longer the last one took, to be durable within the interval all the same.
///
/// All in one go is cheapest: the disk has begun with everything when the first sync waits, and that writes the file
/// system's own journal for the others.
fn sync_rounds(interval: Duration, new: &mpsc::Receiver<Weak<dyn SyncPoint>>) {
    let (shortest, longest) = (interval / 2, interval * 19 / 20);
    let mut took = Duration::ZERO;
    let mut points: Vec<Weak<dyn SyncPoint>> = Vec::new();
    loop {
        let next = Instant::now() + longest.saturating_sub(took * 5 / 4).max(shortest);
        loop {
            match new.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(point) => points.push(point),
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
        let begun = Instant::now();
        points.retain(|point| point.strong_count() > 0);
        points.iter().filter_map(Weak::upgrade).for_each(|point| point.start());
        points.iter().filter_map(Weak::upgrade).for_each(|point| point.sync_point());
        took = begun.elapsed();
    }
}
