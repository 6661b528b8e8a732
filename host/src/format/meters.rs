//! What is counted of each version of a format.
//!
//! All counters are relaxed atomics, touched once a batch, never once a sample. A [`Snapshot`] is what status and
//! metrics show of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;

use super::{
    Cause,
    limits::{ALL, Limit},
};

/// Buckets of a histogram: up to 1 µs, 2 µs, 4 µs, …, 2^25 µs (34 s), and what takes longer.
pub const BUCKETS: usize = 27;

/// A function of the contract that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Instantiate,
    Open,
    Write,
    UpdateTracks,
    Finish,
    Recover,
}

impl Call {
    const ALL: [Self; 6] =
        [Self::Instantiate, Self::Open, Self::Write, Self::UpdateTracks, Self::Finish, Self::Recover];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instantiate => "instantiate",
            Self::Open => "open",
            Self::Write => "write",
            Self::UpdateTracks => "update-tracks",
            Self::Finish => "finish",
            Self::Recover => "recover",
        }
    }
}

/// Times, counted by their logarithm.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn snapshot(&self) -> Times {
        Times {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// The first bucket whose bound, 2^i µs, is not below it; the last has no bound.
fn bucket(us: u64) -> usize {
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

/// The counters of a version. Clones of the `Arc` count together.
#[derive(Debug, Default)]
pub struct Meters {
    open: AtomicU64,
    opened: AtomicU64,
    finished: AtomicU64,
    samples: AtomicU64,
    payload_bytes: AtomicU64,
    output_bytes: AtomicU64,
    calls: [Histogram; Call::ALL.len()],
    memory: AtomicU64,
    memory_peak: AtomicU64,
    traps: AtomicU64,
    refusals: AtomicU64,
    contract_breaks: AtomicU64,
    output_errors: AtomicU64,
    limits: [AtomicU64; ALL.len()],
    swaps_in: AtomicU64,
    swaps_out: AtomicU64,
    failovers: AtomicU64,
    pauses: Histogram,
}

impl Meters {
    /// A swap made it the active version of its format.
    pub fn swap_in(&self) {
        self.swaps_in.fetch_add(1, Relaxed);
    }

    /// A swap put another in its place.
    pub fn swap_out(&self) {
        self.swaps_out.fetch_add(1, Relaxed);
    }

    /// A recording went on with another writer, as one of this version failed.
    pub fn failover(&self) {
        self.failovers.fetch_add(1, Relaxed);
    }

    /// A recording that changed to this version stood still for so long.
    pub fn swap_pause(&self, pause: Duration) {
        self.pauses.add(pause);
    }

    /// A call took so much computing.
    pub(super) fn called(&self, call: Call, computing: Duration) {
        self.calls[call as usize].add(computing);
    }

    /// A limit was exceeded, or something was left out for its sake.
    pub(super) fn limit(&self, limit: Limit) {
        self.limits[limit as usize].fetch_add(1, Relaxed);
    }

    /// A batch was given.
    pub(super) fn given(&self, samples: u64, bytes: u64) {
        self.samples.fetch_add(samples, Relaxed);
        self.payload_bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes were appended.
    pub(super) fn appended(&self, bytes: u64) {
        self.output_bytes.fetch_add(bytes, Relaxed);
    }

    /// A segment was ended well.
    pub(super) fn finished(&self) {
        self.finished.fetch_add(1, Relaxed);
    }

    /// A call failed. Limits are counted where they are found.
    pub(super) fn failed(&self, cause: &Cause) {
        let counter = match cause {
            Cause::Trap(_) | Cause::Instantiate(_) => &self.traps,
            Cause::Refused { .. } => &self.refusals,
            Cause::Contract(_) => &self.contract_breaks,
            Cause::Output(_) => &self.output_errors,
            Cause::Limit { .. } | Cause::NoRecovery => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Segments that are open.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let calls = Call::ALL.iter().zip(&self.calls);
        let limits = ALL.iter().zip(&self.limits);
        Snapshot {
            open: get(&self.open),
            opened: get(&self.opened),
            finished: get(&self.finished),
            samples: get(&self.samples),
            payload_bytes: get(&self.payload_bytes),
            output_bytes: get(&self.output_bytes),
            calls: calls.map(|(call, times)| (call.name(), times.snapshot())).collect(),
            memory: get(&self.memory),
            memory_peak: get(&self.memory_peak),
            traps: get(&self.traps),
            refusals: get(&self.refusals),
            contract_breaks: get(&self.contract_breaks),
            output_errors: get(&self.output_errors),
            limits: limits.map(|(spec, count)| (spec.name, get(count))).collect(),
            swaps_in: get(&self.swaps_in),
            swaps_out: get(&self.swaps_out),
            failovers: get(&self.failovers),
            pauses: self.pauses.snapshot(),
        }
    }
}

/// A segment that is open, in the counters as long as it lives.
#[derive(Debug)]
pub(super) struct Mark {
    meters: Arc<Meters>,
    /// Bytes of memory counted for it.
    memory: u64,
    /// Bytes of output counted for it.
    appended: u64,
}

impl Mark {
    pub(super) fn new(meters: Arc<Meters>) -> Self {
        meters.open.fetch_add(1, Relaxed);
        meters.opened.fetch_add(1, Relaxed);
        Self { meters, memory: 0, appended: 0 }
    }

    /// Says what its instance uses, and has appended in all.
    pub(super) fn now(&mut self, memory: u64, appended: u64) {
        if memory > self.memory {
            self.meters.memory.fetch_add(memory - self.memory, Relaxed);
            self.meters.memory_peak.fetch_max(memory, Relaxed);
            self.memory = memory;
        }
        self.meters.appended(appended.saturating_sub(self.appended));
        self.appended = appended;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.meters.open.fetch_sub(1, Relaxed);
        self.meters.memory.fetch_sub(self.memory, Relaxed);
    }
}

/// The counters of a version at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Segments that are open, were opened, and were ended by `finish`.
    pub open: u64,
    pub opened: u64,
    pub finished: u64,
    pub samples: u64,
    /// Bytes of payload given, and of output appended.
    pub payload_bytes: u64,
    pub output_bytes: u64,
    /// Computing time by function.
    pub calls: BTreeMap<&'static str, Times>,
    /// Bytes of memory of the open instances, and the most that one had.
    pub memory: u64,
    pub memory_peak: u64,
    pub traps: u64,
    /// Errors that a component gave itself.
    pub refusals: u64,
    pub contract_breaks: u64,
    /// Calls that failed as the disk did.
    pub output_errors: u64,
    /// How often each limit was exceeded.
    pub limits: BTreeMap<&'static str, u64>,
    pub swaps_in: u64,
    pub swaps_out: u64,
    pub failovers: u64,
    /// How long recordings stood still at a swap.
    pub pauses: Times,
}

impl Snapshot {
    /// Computing time of all calls, in microseconds.
    pub fn computing_us(&self) -> u64 {
        self.calls.values().map(|times| times.sum_us).sum()
    }
}

/// How many calls took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// Those up to 1 µs, 2 µs, 4 µs, … that are in none before; the last has all others.
    pub buckets: Vec<u64>,
    /// All times together, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The least bound that so much of them (0.99) is within; zero if there are none.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        match bucket.filter(|_| wanted > 0) {
            Some(bucket) => Duration::from_micros(1 << bucket),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_bounds_them() {
        let last = BUCKETS - 1;
        for (us, index) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 25, 25), (1 << 26, last), (u64::MAX, last)]
        {
            assert_eq!(bucket(us), index, "{us}");
        }
        let meters = Meters::default();
        meters.called(Call::Write, Duration::from_micros(3));
        meters.called(Call::Write, Duration::from_secs(3600));
        let times = &meters.snapshot().calls["write"];
        assert_eq!((times.count(), times.sum_us, times.buckets[2]), (2, 3_600_000_003, 1));
    }

    #[test]
    fn what_is_open_is_counted_while_it_is() {
        let meters = Arc::new(Meters::default());
        let (mut one, mut two) = (Mark::new(meters.clone()), Mark::new(meters.clone()));
        one.now(100, 7);
        one.now(300, 10);
        two.now(50, 0);
        let now = meters.snapshot();
        assert_eq!(
            (now.open, now.opened, now.memory, now.memory_peak, now.output_bytes),
            (2, 2, 350, 300, 10)
        );
        drop(one);
        let now = meters.snapshot();
        assert_eq!(
            (now.open, now.opened, now.memory, now.memory_peak, now.output_bytes),
            (1, 2, 50, 300, 10)
        );
    }
}
