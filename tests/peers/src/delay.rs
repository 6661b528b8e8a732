//! From the moment that a sample is due at the sender to the moment that another program sees all of its tag in the file.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::Serialize;

use super::usage::now_us;

/// How often sizes are looked at.
const POLL: Duration = Duration::from_millis(2);

/// Looks at files while they grow.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Watched>,
}

/// Of each file, sizes with the time at which they were first seen, in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Watched(Vec<(PathBuf, Vec<(i64, u64)>)>);

/// Milliseconds that so many of a hundred samples took at most.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Delays {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) worst_ms: f64,
}

impl Watch {
    pub(super) fn start(files: Vec<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut watched: Vec<(PathBuf, Vec<(i64, u64)>)> =
                files.into_iter().map(|file| (file, Vec::new())).collect();
            while !until.load(Ordering::Relaxed) {
                for (file, sizes) in &mut watched {
                    let size = fs::metadata(&*file).map_or(0, |file| file.len());
                    if sizes.last().is_none_or(|last| last.1 < size) {
                        sizes.push((now_us(), size));
                    }
                }
                std::thread::sleep(POLL);
            }
            Watched(watched)
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(Watched(Vec::new()))
    }
}

impl Watched {
    /// `begin_us`: when the first stream's first tag was due; each stream begins so much later than the one before.
    pub(super) fn delays(&self, begin_us: i64, spread_us: i64) -> anyhow::Result<Delays> {
        let mut delays = Vec::new();
        let mut begin_us = begin_us;
        for (file, sizes) in &self.0 {
            let mut sizes: VecDeque<(i64, u64)> = sizes.iter().copied().collect();
            for (timestamp_ms, end) in tags(file)? {
                while sizes.front().is_some_and(|seen| seen.1 < end) {
                    sizes.pop_front();
                }
                let Some(&(seen_us, _)) = sizes.front() else { break };
                delays.push(seen_us - begin_us - timestamp_ms * 1000);
            }
            begin_us += spread_us;
        }
        delays.sort_unstable();
        let at = |percent: usize| {
            let i = (delays.len() * percent).div_ceil(100).saturating_sub(1);
            delays.get(i).map_or(f64::NAN, |us| *us as f64 / 1000.0)
        };
        Ok(Delays { p50_ms: at(50), p99_ms: at(99), worst_ms: at(100) })
    }
}

/// Of each audio and video tag of an FLV file (FLV 10.1, E.3), its timestamp and where it ends.
fn tags(file: &Path) -> anyhow::Result<Vec<(i64, u64)>> {
    let bytes = fs::read(file)?;
    let mut tags = Vec::new();
    let mut at = 13;
    while let Some(&[kind, s2, s1, s0, t2, t1, t0, t3]) =
        bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
    {
        let size = u32::from_be_bytes([0, s2, s1, s0]) as usize;
        let end = at + 11 + size;
        if kind == 8 || kind == 9 {
            tags.push((i64::from(u32::from_be_bytes([t3, t2, t1, t0])), end as u64));
        }
        at = end + 4;
    }
    Ok(tags)
}
