//! Samples that wait, and what can be said of a number of samples.

use std::time::{Duration, Instant};

use super::super::timeline::MAX_STEP_MS;
use crate::{media::Sample, registry::Gap};

/// Samples that wait for the next segment, in run time.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) samples: Vec<Sample>,
    pub(super) bytes: usize,
}

/// Samples of the segment to come, in run time.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) since: Instant,
    pub(super) samples: Vec<Sample>,
    pub(super) bytes: usize,
}

impl Held {
    pub(super) fn push(&mut self, sample: Sample) {
        self.bytes += sample.data.len();
        self.samples.push(sample);
    }

    pub(super) fn take(&mut self) -> Vec<Sample> {
        std::mem::take(self).samples
    }
}

impl Gather {
    pub(super) fn new(since: Instant) -> Self {
        Self { since, samples: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, sample: Sample) {
        self.bytes += sample.data.len();
        self.samples.push(sample);
    }
}

/// Adds a sample, in run time, to a gap.
pub(super) fn extend(gap: &mut Gap, sample: &Sample) {
    if gap.samples == 0 {
        (gap.from_dts_ms, gap.to_dts_ms) = (sample.dts_ms, sample.dts_ms);
    }
    gap.samples += 1;
    gap.bytes += sample.data.len() as u64;
    gap.from_dts_ms = gap.from_dts_ms.min(sample.dts_ms);
    gap.to_dts_ms = gap.to_dts_ms.max(sample.dts_ms);
}

/// Earliest time of the tracks that begin together with the first sample.
pub(super) fn beginning(samples: &[Sample]) -> Option<i64> {
    let first_ms = samples.first()?.dts_ms;
    let mut shown = Vec::new();
    let firsts = samples.iter().filter(|s| {
        !shown.contains(&s.track) && {
            shown.push(s.track);
            true
        }
    });
    firsts.map(|s| s.dts_ms).filter(|ms| (ms - first_ms).abs() <= MAX_STEP_MS).min()
}

/// Length of a track on the wire, without leaps of its clock.
pub(super) fn length(samples: &[Sample], track: u32) -> Duration {
    let dts = || samples.iter().filter(|s| s.track == track).map(|s| s.dts_ms);
    let steps = dts().zip(dts().skip(1)).map(|(before, after)| after - before);
    let ms: i64 = steps.filter(|step| (0..=MAX_STEP_MS).contains(step)).sum();
    Duration::from_millis(ms.unsigned_abs())
}

/// First and last DTS; 0 for none.
pub(super) fn span(samples: &[Sample]) -> (i64, i64) {
    let dts = || samples.iter().map(|s| s.dts_ms);
    (dts().min().unwrap_or(0), dts().max().unwrap_or(0))
}
