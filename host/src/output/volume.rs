//! One thread a volume does the quick disk work of its recordings, in order; slow work (syncs, making
//! room) goes to other threads, a few at a time. A volume that stalls stalls nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::sync::lock;

/// Bytes that may wait for one volume, over all its recordings; who writes more waits.
const MAX_QUEUED: usize = 64 << 20;
/// Slow jobs at once on one volume.
const SLOW_JOBS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// The volumes in use, by device number. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Volumes(Arc<Mutex<HashMap<u64, Volume>>>);

impl Volumes {
    /// The volume with a device number, with its thread running.
    pub fn get(&self, device: u64) -> std::io::Result<Volume> {
        let mut volumes = lock(&self.0);
        if let Some(volume) = volumes.get(&device) {
            return Ok(volume.clone());
        }
        let volume = Volume::start(device)?;
        volumes.insert(device, volume.clone());
        Ok(volume)
    }
}

/// A volume's queue of disk work.
#[derive(Clone, Debug)]
pub struct Volume {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Volume {
    fn start(device: u64) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new().name(format!("disk-{device:x}")).spawn(move || {
            for job in queue {
                job();
            }
        })?;
        Ok(Self {
            jobs,
            room: Arc::new(Semaphore::new(MAX_QUEUED)),
            slow: Arc::new(Semaphore::new(SLOW_JOBS)),
        })
    }

    /// Queues work that holds `bytes` of memory until it is done. Waits for room in the queue, not for the work.
    pub async fn queue(&self, bytes: usize, work: impl FnOnce() + Send + 'static) {
        let permit = self.room(bytes).await;
        self.send(Box::new(move || {
            work();
            drop(permit);
        }));
    }

    /// Does work in its turn, and waits for its result.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        self.send(Box::new(move || drop(done.send(work()))));
        result.await.expect("the volume's thread outlives its jobs")
    }

    /// Does slow work off the volume's thread and waits for its result. It runs beside queued work, so
    /// what it builds on has to be done: call after a [`Volume::run`].
    pub async fn run_slow<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _permit = self.slow.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.expect("disk work does not panic")
    }

    async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes.clamp(1, MAX_QUEUED)).expect("below 4 GiB");
        self.room.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }

    fn send(&self, job: Job) {
        self.jobs.send(job).expect("the volume's thread lives as long as a sender");
    }
}
