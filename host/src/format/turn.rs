//! Who computes, and for how long.
//!
//! A call that is short just runs. One that is still computing when the epoch advances gives way to everybody, and
//! goes on only with one of a few permits, for one tick at a time; who has computed least comes first, so that a
//! call that takes a little longer does not wait for all those that spin. Of those that take [`LONG`], who has computed
//! most comes first: a hundred that spin are found out one by one, not all at the end. There are half as many permits
//! as cores, so that components that spin never take all of them.
//!
//! No permit is held by who waits: whatever a call waits for, it gives its permit back first. So a disk that
//! stands still keeps nobody from computing.
//!
//! Time is the thread's processor time: a call that the machine makes wait, for other programs or another guest of the
//! same hardware, computes nothing meanwhile, is not found slow, and runs into no limit.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::{limits::TICK, ticker::Ticker};
use crate::sync::lock;

/// A call that computes longer than this many ticks waits for all shorter ones.
const LONG: u64 = 4;

/// The permits of an engine, and what interrupts who computes. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    ticker: Ticker,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    /// Who is gone is found out when it is its turn.
    waiting: BTreeMap<Place, oneshot::Sender<Permit>>,
    arrived: u64,
}

/// A place in the queue, the first being the least: by how long it comes after others, and by arrival.
type Place = (u64, u64);

fn rank(computed: Duration) -> u64 {
    let ticks = u64::try_from(computed.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
    if ticks < LONG { ticks } else { u64::MAX - ticks }
}

/// Lets one compute; goes to the next when it is dropped.
#[derive(Debug)]
struct Permit(Turns);

impl Turns {
    /// So many permits. Each tick is to interrupt everybody who computes.
    pub(super) fn new(permits: usize, ticker: Ticker) -> Self {
        let queue = Mutex::new(Queue { free: permits, waiting: BTreeMap::new(), arrived: 0 });
        Self(Arc::new(Shared { queue, ticker }))
    }

    /// Asks for a permit, after so much computing, and waits for it. It has its place from now on. Cancel safe.
    fn take(&self, computed: Duration) -> impl Future<Output = Option<Permit>> + use<> {
        let mut queue = lock(&self.0.queue);
        let asked = match queue.free {
            0 => {
                let (sender, permit) = oneshot::channel();
                queue.arrived += 1;
                let place = (rank(computed), queue.arrived);
                queue.waiting.insert(place, sender);
                Err(permit)
            }
            _ => {
                queue.free -= 1;
                Ok(Permit(self.clone()))
            }
        };
        async {
            match asked {
                Ok(permit) => Some(permit),
                Err(permit) => permit.await.ok(),
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut queue = lock(&self.0.0.queue);
            let next = queue.waiting.pop_first();
            queue.free += usize::from(next.is_none());
            next
        };
        if let Some((_, next)) = next {
            // If it is gone, this comes back, is dropped, and goes to the one behind it.
            let _ = next.send(Permit(self.0.clone()));
        }
    }
}

/// The turn of one instance, and the time of its call. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    turns: Turns,
    /// What it computes with, if it needs one.
    permit: Mutex<Option<Permit>>,
    /// Nanoseconds of computing in this call, up to the last time that it waited.
    computed: AtomicU64,
    /// When it began to compute, by [`thread_ns`] of the thread that polls it.
    since: AtomicU64,
}

impl Turn {
    pub(super) fn new(turns: Turns) -> Self {
        Self(Arc::new(Inner {
            turns,
            permit: Mutex::new(None),
            computed: AtomicU64::new(0),
            since: AtomicU64::new(0),
        }))
    }

    /// Runs a call. Its time counts from 0.
    pub(super) async fn run<T>(&self, call: impl Future<Output = T>) -> T {
        self.0.computed.store(0, Relaxed);
        let mut call = std::pin::pin!(call);
        std::future::poll_fn(|context| self.poll(call.as_mut(), context)).await
    }

    fn poll<T>(&self, call: Pin<&mut impl Future<Output = T>>, context: &mut Context<'_>) -> Poll<T> {
        self.0.turns.0.ticker.computes();
        self.0.since.store(thread_ns(), Relaxed);
        let result = call.poll(context);
        let passed = thread_ns().saturating_sub(self.0.since.load(Relaxed));
        self.0.computed.fetch_add(passed, Relaxed);
        // Done, or waiting.
        let permit = lock(&self.0.permit).take();
        drop(permit);
        result
    }

    /// Time of computing in the call that ran last.
    pub(super) fn computed(&self) -> Duration {
        Duration::from_nanos(self.0.computed.load(Relaxed))
    }

    /// The same for the call that is running, asked from within it.
    pub(super) fn computing(&self) -> Duration {
        self.computed() + Duration::from_nanos(thread_ns().saturating_sub(self.0.since.load(Relaxed)))
    }

    /// Lets others compute, and returns when it is this one's turn again.
    pub(super) async fn give_way(self) {
        // In the queue before its permit is free, which may be its own again.
        let permit = self.0.turns.take(self.computing());
        tokio::task::yield_now().await;
        *lock(&self.0.permit) = permit.await;
    }
}

/// Processor time of this thread so far, in nanoseconds.
fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker, time::Instant};

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn turns(permits: usize) -> Turns {
        Turns::new(permits, Ticker::start(|| {}).expect("a thread"))
    }

    fn free(turns: &Turns) -> usize {
        lock(&turns.0.queue).free
    }

    #[tokio::test]
    async fn who_has_computed_least_comes_first_but_of_long_calls_the_longest() {
        let turns = turns(1);
        let held = turns.take(Duration::ZERO).await;
        let mut waiting: Vec<_> = [700, 10, 11, 100, 5]
            .map(|ms| {
                let turns = turns.clone();
                Box::pin(
                    async move { turns.take(Duration::from_millis(ms)).await.map(|permit| (ms, permit)) },
                )
            })
            .into();
        waiting.iter_mut().for_each(|one| assert!(poll(one.as_mut()).is_pending()));
        // The one with 5 ms goes before it has its turn.
        drop(waiting.pop());
        drop(held);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let mut served = None;
            waiting.retain_mut(|one| match poll(one.as_mut()) {
                Poll::Ready(permit) => {
                    assert!(served.is_none(), "one at a time");
                    served = permit;
                    false
                }
                Poll::Pending => true,
            });
            let (ms, _permit) = served.expect("somebody is served");
            order.push(ms);
        }
        let expected = vec![10, 11, 700, 100];
        assert_eq!((order, free(&turns)), (expected, 1), "equal ticks as they came, long ones the other way");
    }

    #[tokio::test]
    async fn who_waits_holds_no_permit_and_computes_nothing() {
        let turns = turns(1);
        let (one, two) = (Turn::new(turns.clone()), Turn::new(turns.clone()));
        let mut waited = false;
        let mut first = std::pin::pin!(one.run(async {
            one.clone().give_way().await;
            assert_eq!(free(&turns), 0, "it computes");
            // A host function that waits for a disk.
            poll_fn(|_| match std::mem::replace(&mut waited, true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            one.computing()
        }));
        let mut polled = Duration::ZERO;
        let mut poll_first = || {
            let begun = Instant::now();
            let result = poll(first.as_mut());
            polled += begun.elapsed();
            (result, polled)
        };
        assert!(poll_first().0.is_pending(), "it gives way, though nobody else wants to compute");
        tokio::task::yield_now().await;
        assert!(poll_first().0.is_pending(), "the disk");
        assert_eq!(free(&turns), 1);
        two.run(two.clone().give_way()).await;
        let (Poll::Ready(computing), polled) = poll_first() else { panic!("the disk is done") };
        assert!(computing <= polled, "{computing:?} in {polled:?}: waiting is not computing");
        assert_eq!(free(&turns), 1);
    }

    #[tokio::test]
    async fn a_thread_that_does_not_run_computes_nothing() {
        const AWAY: Duration = Duration::from_millis(20);
        let turn = Turn::new(turns(1));
        // As if others had the processor.
        turn.run(async { std::thread::sleep(AWAY) }).await;
        assert!(turn.computed() < AWAY, "{:?}", turn.computed());
        turn.run(async { while turn.computing() < AWAY {} }).await;
        assert!(turn.computed() >= AWAY);
    }
}
