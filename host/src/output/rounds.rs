//! What is written to a volume is made durable at intervals, for all its segments in one round.
//!
//! Where there are many, the whole volume is made durable at once (`Directory::sync_volume`), and the kernel's own threads
//! hand everything to the disk. That waits for what other programs wrote there as well; when it takes too long, this round
//! goes on file by file, as do all of the next [`ALONE`]. So what others do to a disk never keeps a segment from
//! being durable longer than its own bytes would.

use std::{
    sync::{Arc, Weak, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::sync::oneshot;

use super::{
    durable::{Durable, Noted},
    path::Folder,
};

/// Segments with something new for which the whole volume is made durable. Fewer cost others less than that would.
const MANY: usize = 8;
/// How much of the interval the whole volume may take.
const PATIENCE: u32 = 4;
/// How long files are synced one by one when the whole volume took too long.
const ALONE: Duration = Duration::from_secs(60);

/// Who makes the segments of a volume durable. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Rounds(mpsc::Sender<Ask>);

#[derive(Debug)]
enum Ask {
    /// Makes this durable at intervals, as long as it lives.
    Add(Weak<Durable>),
    /// A round now.
    Now(oneshot::Sender<()>),
}

impl Rounds {
    /// Begins, for a volume with a device number. It ends when nobody can ask it anything any more.
    pub(super) fn start(device: u64, interval: Duration) -> std::io::Result<Self> {
        let (ask, asked) = mpsc::channel();
        let run = move || run(interval, &asked);
        std::thread::Builder::new().name(format!("sync-{device:x}")).spawn(run)?;
        Ok(Self(ask))
    }

    pub(super) fn add(&self, segment: &Arc<Durable>) {
        self.ask(Ask::Add(Arc::downgrade(segment)));
    }

    /// Makes all of them durable by the whole volume, however few they are.
    pub(super) async fn now(&self) {
        let (done, is_done) = oneshot::channel();
        self.ask(Ask::Now(done));
        is_done.await.expect("the thread lives as long as this");
    }

    fn ask(&self, ask: Ask) {
        self.0.send(ask).expect("the thread lives as long as this");
    }
}

/// Makes rounds. What comes just behind its turn waits for the next one, so that a round begins earlier the longer the last
/// one took, or the next may take, to be durable within the interval all the same.
fn run(interval: Duration, asked: &mpsc::Receiver<Ask>) {
    let (shortest, longest) = (interval / 2, interval * 19 / 20);
    let mut took = Duration::ZERO;
    let mut segments: Vec<Weak<Durable>> = Vec::new();
    let mut whole = Whole::new(interval / PATIENCE);
    loop {
        let next = Instant::now() + longest.saturating_sub(took).max(shortest);
        let done = loop {
            match asked.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Ask::Add(segment)) => segments.push(segment),
                Ok(Ask::Now(done)) => break Some(done),
                Err(mpsc::RecvTimeoutError::Timeout) => break None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        };
        let begun = Instant::now();
        segments.retain(|segment| segment.strong_count() > 0);
        let by_volume = round(&segments, &mut whole, if done.is_some() { 1 } else { MANY });
        took = begun.elapsed() * 5 / 4;
        if by_volume {
            took = took.max(whole.patience);
        }
        if let Some(done) = done {
            let _ = done.send(());
        }
    }
}

/// Makes segments durable, by the whole volume if so many (at least 1) have something new and that can be done. Whether it
/// was.
fn round(segments: &[Weak<Durable>], whole: &mut Whole, many: usize) -> bool {
    if segments.is_empty() {
        whole.folder = None;
    }
    if whole.may() {
        let noted = segments.iter().filter_map(|segment| Some((segment.upgrade()?.note()?, segment)));
        let noted: Vec<(Noted, &Weak<Durable>)> = noted.collect();
        if noted.len() >= many && whole.sync(noted[0].0.folder()) {
            for (noted, segment) in &noted {
                if let Some(segment) = segment.upgrade() {
                    segment.is_durable(noted);
                }
            }
            return true;
        }
    }
    // All in one go is cheapest: the disk has begun with everything when the first sync waits, and that writes the file
    // system's own journal for the others.
    segments.iter().filter_map(Weak::upgrade).for_each(|segment| segment.start_writeback());
    // A segment finds its error with its next call.
    segments.iter().filter_map(Weak::upgrade).for_each(|segment| drop(segment.sync()));
    false
}

/// Makes a whole volume durable, if that does not take too long.
#[derive(Debug)]
struct Whole {
    patience: Duration,
    /// By which it is told of errors: what happens to the volume from its opening on, once. Let go of with the last
    /// segment, so that an idle volume can be unmounted.
    folder: Option<Arc<Folder>>,
    /// One that took too long.
    late: Option<JoinHandle<()>>,
    alone_until: Option<Instant>,
}

impl Whole {
    fn new(patience: Duration) -> Self {
        Self { patience, folder: None, late: None, alone_until: None }
    }

    /// Whether it is worth trying.
    fn may(&mut self) -> bool {
        if let Some(late) = &self.late {
            if late.is_finished() {
                self.late = None;
            }
            // It may have been told of an error that nobody has heard: the files' own syncs are told as well.
            return false;
        }
        self.alone_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Makes the volume durable that a folder is on. `false`: it is not known to be.
    fn sync(&mut self, folder: &Arc<Folder>) -> bool {
        let folder = self.folder.get_or_insert_with(|| folder.clone()).clone();
        let (done, result) = mpsc::channel();
        let work = std::thread::Builder::new().name("sync-volume".into());
        let work = work.spawn(move || {
            // Nobody may be waiting any more.
            let _ = done.send(folder.dir.sync_volume());
        });
        match result.recv_timeout(self.patience) {
            Ok(Ok(())) => return true,
            // One of the files, which is found out now.
            Ok(Err(errno)) if errno != Errno::OPNOTSUPP => return false,
            Ok(Err(_)) => {}
            Err(_) => self.late = work.ok(),
        }
        self.alone_until = Some(Instant::now() + ALONE);
        false
    }
}
