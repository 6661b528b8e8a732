//! What advances the epoch: only while components compute, so that a server with little to do is not woken 200 times
//! a second for nothing.
//!
//! Who begins to compute, or goes on, says so, and that is all that is asked of it: a tick interrupts everybody who
//! computes, and who goes on then says so again. So when nobody has said anything between two ticks, nobody computes that
//! has not been interrupted, and the thread can sleep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
    },
    thread::{self, Thread},
};

use super::limits::TICK;

/// Somebody has said since the last tick that it computes.
const BUSY: u8 = 0;
/// Nobody has.
const QUIET: u8 = 1;
/// The thread sleeps until somebody says so.
const ASLEEP: u8 = 2;
/// It is to end.
const ENDED: u8 = 3;

/// A thread that does something each [`TICK`]. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    state: Arc<AtomicU8>,
    thread: Thread,
}

impl Ticker {
    /// Starts the thread, asleep.
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let state = Arc::new(AtomicU8::new(ASLEEP));
        let of_thread = state.clone();
        let thread = thread::Builder::new().name("epoch".into()).spawn(move || run(&of_thread, tick))?;
        Ok(Self { state, thread: thread.thread().clone() })
    }

    /// Somebody computes from here on: a tick comes within [`TICK`], and another one behind it.
    pub(super) fn computes(&self) {
        if self.state.swap(BUSY, AcqRel) == ASLEEP {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.store(ENDED, Release);
        self.thread.unpark();
    }
}

fn run(state: &AtomicU8, tick: impl Fn()) {
    let change = |from, to| state.compare_exchange(from, to, AcqRel, Acquire).is_ok();
    loop {
        match state.load(Acquire) {
            ENDED => return,
            ASLEEP => {
                thread::park();
                continue;
            }
            _ => thread::sleep(TICK),
        }
        tick();
        let _ = change(BUSY, QUIET) || change(QUIET, ASLEEP);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_computes_is_interrupted_also_when_the_thread_slept() {
        let (ticked, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || ticked.send(()).expect("the test listens")).expect("a thread");
        for _ in 0..3 {
            while ticker.state.load(Acquire) != ASLEEP {
                thread::yield_now();
            }
            ticks.try_iter().for_each(drop);
            ticker.computes();
            // One may have begun before; the other has not.
            assert_eq!((ticks.recv(), ticks.recv()), (Ok(()), Ok(())));
        }
        drop(ticker);
        while ticks.recv().is_ok() {}
    }
}
