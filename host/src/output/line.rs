//! The disk work of one segment, in order.
//!
//! Quick work is done by the volume's thread. Work that waits for the disk is done beside that, so that it delays no
//! other segment; what the segment has behind it waits meanwhile, and who gave it does not have to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{runtime::Handle, sync::oneshot};

use super::volume::{Job, Volume};
use crate::sync::lock;

/// Memory of a piece of work that waits, beside its bytes.
const WORK_COST: usize = 512;

/// See the module. Clones are the same line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    volume: Volume,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Work that waits for the disk is being done, or next.
    waits: bool,
    /// What is behind it.
    behind: VecDeque<Work>,
    /// Quick work that the volume's thread has not done.
    quick: usize,
}

struct Work {
    /// It waits for the disk.
    slow: bool,
    job: Job,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("waits", &self.waits)
            .field("behind", &self.behind.len())
            .field("quick", &self.quick)
            .finish()
    }
}

impl Line {
    pub(super) fn new(volume: Volume) -> Self {
        Self { volume, state: Arc::default() }
    }

    /// For work that builds on nothing in the line.
    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Puts quick work into the line that holds `bytes` of memory until it is done. Waits for room on the volume, not
    /// for the work.
    pub(super) async fn queue(&self, bytes: usize, work: impl FnOnce() + Send + 'static) {
        let room = self.volume.room(bytes.saturating_add(WORK_COST)).await;
        let work = move || {
            work();
            drop(room);
        };
        self.then(work);
    }

    /// Puts quick work into the line that holds next to no memory.
    pub(super) fn then(&self, work: impl FnOnce() + Send + 'static) {
        self.put(Work { slow: false, job: Box::new(work) });
    }

    /// Puts work into the line that waits for the disk. Does not wait for it.
    pub(super) fn then_slow(&self, work: impl FnOnce() + Send + 'static) {
        self.put(Work { slow: true, job: Box::new(work) });
    }

    /// Waits until all work that is in the line has been done.
    pub(super) fn done(&self) -> impl Future<Output = ()> + Send + use<> {
        self.look(|| ())
    }

    /// Waits until all work that is in the line has been done, and looks at what has come of it just then.
    pub(super) fn look<T, F>(&self, look: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let is_idle = {
            let state = lock(&self.state);
            !state.waits && state.quick == 0
        };
        let (tell, told) = oneshot::channel();
        let look = move || drop(tell.send(look()));
        if is_idle {
            look();
        } else {
            self.then(look);
            self.volume.wake();
        }
        async move { told.await.expect("work does not panic, and a line goes on to its end") }
    }

    /// Does work that waits for the disk, in its turn, and waits for its result.
    pub(super) async fn run_slow<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.done().await;
        self.volume.run_slow(work).await
    }

    fn put(&self, work: Work) {
        let mut state = lock(&self.state);
        match state.waits {
            true => state.behind.push_back(work),
            false => self.begin(&mut state, work),
        }
    }

    fn begin(&self, state: &mut State, Work { slow, job }: Work) {
        if slow {
            state.waits = true;
            let (line, runtime) = (self.clone(), Handle::current());
            // What comes before it is done when the volume's thread comes to this.
            self.volume.send(Box::new(move || drop(runtime.spawn(line.slow(job)))));
            self.volume.wake();
        } else {
            state.quick += 1;
            let its = self.state.clone();
            self.volume.send(Box::new(move || {
                job();
                lock(&its).quick -= 1;
            }));
        }
    }

    /// Does slow work, and what is behind it as far as it is slow, too; then begins the rest.
    async fn slow(self, job: Job) {
        let line = self.clone();
        let work = move || {
            job();
            while let Some(job) = line.next_slow() {
                job();
            }
        };
        self.volume.run_slow(work).await;
        let mut state = lock(&self.state);
        state.waits = false;
        while !state.waits
            && let Some(work) = state.behind.pop_front()
        {
            self.begin(&mut state, work);
        }
        if !state.waits {
            self.volume.wake();
        }
    }

    fn next_slow(&self) -> Option<Job> {
        Some(lock(&self.state).behind.pop_front_if(|work| work.slow)?.job)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread::ThreadId};

    use super::*;
    use crate::output::volume::Volumes;

    #[tokio::test]
    async fn work_is_done_in_its_order_and_slow_work_beside_other_lines() {
        let volume = Volumes::new(None).get(1).unwrap();
        let (line, other) = (Line::new(volume.clone()), Line::new(volume));
        let (tell, done) = mpsc::channel::<(u32, ThreadId)>();
        let step = |number: u32| {
            let tell = tell.clone();
            move || tell.send((number, std::thread::current().id())).unwrap()
        };
        let (go, waits) = mpsc::channel::<()>();
        let second = step(2);
        line.then(step(1));
        line.then_slow(move || {
            waits.recv().unwrap();
            second();
        });
        line.then_slow(step(3));
        line.queue(8, step(4)).await;
        let settled = line.done();
        // What waits keeps nobody else waiting, nor what comes behind it from being put into the line.
        other.then(step(0));
        other.done().await;
        go.send(()).unwrap();
        settled.await;
        let done: Vec<_> = done.try_iter().collect();
        let place = |number: u32| done.iter().position(|step| step.0 == number).unwrap();
        assert!(place(0) < place(2));
        assert!((1..4).all(|number| place(number) < place(number + 1)));
        let thread = |number: u32| done[place(number)].1;
        assert_eq!((thread(1), thread(4)), (thread(0), thread(0)), "the volume's");
        assert!(thread(2) != thread(0) && thread(3) != thread(0));
    }
}
