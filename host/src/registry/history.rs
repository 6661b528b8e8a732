//! What a live stream keeps for those who join: the current group of pictures, and older ones if it is told to.

use std::{collections::VecDeque, ops::Range, time::Duration};

use super::{GOP_BYTES, GOP_MS, ITEM_BYTES, MAX_STEP_MS, PRE_ROLL_BYTES};
use crate::media::Sample;

/// Length of what is a group where there is no video.
const AUDIO_GROUP_MS: i64 = 1_000;

/// Groups of pictures, the current one last.
#[derive(Debug, Default)]
pub(super) struct History {
    groups: VecDeque<Group>,
    /// Of groups before the current one.
    older_bytes: usize,
    pre_roll_ms: i64,
    /// DTS of the last sample that leads.
    last_ms: i64,
}

/// The samples from a key frame on.
#[derive(Debug)]
struct Group {
    samples: Vec<Sample>,
    bytes: usize,
    from_ms: i64,
}

impl History {
    /// Keeps so much besides the current group.
    pub(super) fn new(pre_roll: Duration) -> Self {
        Self { pre_roll_ms: i64::try_from(pre_roll.as_millis()).unwrap_or(i64::MAX), ..Self::default() }
    }

    /// Adds a sample of the stream.
    pub(super) fn keep(&mut self, video: Option<u32>, sample: Sample) {
        let leads = video.is_none_or(|video| video == sample.track);
        if leads {
            let step_ms = sample.dts_ms - self.last_ms;
            if !self.groups.is_empty() && !(-MAX_STEP_MS..=MAX_STEP_MS).contains(&step_ms) {
                // The clock leapt: what was before can't be told the time of.
                self.forget();
            }
            self.last_ms = sample.dts_ms;
        }
        let begins = match video {
            Some(_) => leads && sample.key,
            None => {
                let current = self.groups.back().map(|group| group.from_ms);
                self.pre_roll_ms > 0 && current.is_none_or(|from| sample.dts_ms - from >= AUDIO_GROUP_MS)
            }
        };
        if begins {
            self.begin(sample.dts_ms);
        }
        let Some(current) = self.groups.back_mut() else { return };
        current.bytes += ITEM_BYTES + sample.data.len();
        // The clocks of other tracks may be far apart.
        let length_ms = if leads { sample.dts_ms - current.from_ms } else { 0 };
        if current.bytes > GOP_BYTES.max(if self.pre_roll_ms > 0 { PRE_ROLL_BYTES } else { 0 })
            || length_ms > GOP_MS.max(self.pre_roll_ms)
        {
            self.forget();
        } else {
            current.samples.push(sample);
            self.shrink();
        }
    }

    /// Older groups go for the current one: they are within the bound together.
    fn shrink(&mut self) {
        while self.groups.len() > 1
            && self.older_bytes + self.groups.back().map_or(0, |group| group.bytes) > PRE_ROLL_BYTES
        {
            let first = self.groups.pop_front().map_or(0, |group| group.bytes);
            self.older_bytes -= first;
        }
    }

    fn begin(&mut self, from_ms: i64) {
        self.older_bytes += self.groups.back().map_or(0, |group| group.bytes);
        self.groups.push_back(Group { samples: Vec::new(), bytes: 0, from_ms });
        // As long as what is behind the first is enough, or too much.
        while self.groups.len() > 1 && from_ms - self.groups[1].from_ms >= self.pre_roll_ms {
            let first = self.groups.pop_front().map_or(0, |group| group.bytes);
            self.older_bytes -= first;
        }
    }

    /// Nothing from before now can be joined.
    pub(super) fn forget(&mut self) {
        self.groups.clear();
        self.older_bytes = 0;
    }

    /// The groups of the last so long, and at least the current one.
    pub(super) fn since(&self, pre_roll: Duration) -> Range<usize> {
        let asked_ms = i64::try_from(pre_roll.as_millis()).unwrap_or(i64::MAX);
        let end = self.groups.len();
        let enough = |group: &Group| self.last_ms - group.from_ms >= asked_ms;
        let first = if asked_ms == 0 { None } else { self.groups.iter().rposition(enough) };
        let without = if asked_ms == 0 { end.saturating_sub(1) } else { 0 };
        // Without video it is joined at its next sample.
        first.unwrap_or(without)..end
    }

    /// Length of groups, in milliseconds.
    pub(super) fn length_ms(&self, groups: &Range<usize>) -> u64 {
        let first = self.groups.get(groups.start).filter(|_| !groups.is_empty());
        first.map_or(0, |first| u64::try_from(self.last_ms - first.from_ms).unwrap_or(0))
    }

    /// What groups take of a queue.
    pub(super) fn bytes(&self, groups: Range<usize>) -> usize {
        self.groups.range(groups).map(|group| group.bytes).sum()
    }

    /// The samples of groups, in order.
    pub(super) fn samples(&self, groups: Range<usize>) -> impl Iterator<Item = &Sample> {
        self.groups.range(groups).flat_map(|group| &group.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(track: u32, dts_ms: i64, key: bool, len: usize) -> Sample {
        Sample { track, dts_ms, pts_ms: dts_ms, key, discontinuity: false, data: vec![0; len].into() }
    }

    /// A key frame a second, four frames a second.
    fn history(pre_roll: u64, seconds: i64, len: usize) -> History {
        let mut history = History::new(Duration::from_secs(pre_roll));
        for i in 0..seconds * 4 {
            history.keep(Some(1), sample(1, i * 250, i % 4 == 0, len));
        }
        history
    }

    fn first(history: &History, pre_roll: u64) -> Option<i64> {
        history.samples(history.since(Duration::from_secs(pre_roll))).next().map(|sample| sample.dts_ms)
    }

    #[test]
    fn whole_groups_are_kept_for_as_long_as_was_said() {
        let now = history(0, 60, 10);
        assert_eq!((first(&now, 0), first(&now, 30)), (Some(59_000), Some(59_000)));
        let kept = history(10, 60, 10);
        // The last sample is at 59.75 s.
        assert_eq!(
            [0, 1, 5, 10, 60].map(|s| first(&kept, s)),
            [59_000, 58_000, 54_000, 49_000, 49_000].map(Some)
        );
        assert_eq!(kept.length_ms(&kept.since(Duration::from_secs(10))), 10_750);
        assert_eq!(kept.samples(kept.since(Duration::from_secs(10))).count(), 44);
    }

    #[test]
    fn memory_is_bounded() {
        let kept = history(3600, 600, 1 << 20);
        let bytes = kept.bytes(kept.since(Duration::from_secs(3600)));
        assert!(bytes <= PRE_ROLL_BYTES, "{bytes}");
        assert_eq!(bytes, kept.older_bytes + kept.groups.back().unwrap().bytes);
        assert!(first(&kept, 3600) > Some(580_000));
    }

    #[test]
    fn a_leap_of_the_clock_is_the_end_of_what_was_before() {
        let mut history = history(60, 10, 10);
        history.keep(Some(1), sample(1, 1_000_000, false, 10));
        assert_eq!(first(&history, 60), None);
        history.keep(Some(1), sample(1, 1_000_250, true, 10));
        assert_eq!(first(&history, 60), Some(1_000_250));
    }

    #[test]
    fn audio_alone_is_kept_only_if_that_was_said() {
        let mut history = History::new(Duration::ZERO);
        (0..100).for_each(|i| history.keep(None, sample(2, i * 20, true, 10)));
        assert_eq!(first(&history, 0), None);
        let mut history = History::new(Duration::from_secs(2));
        (0..500).for_each(|i| history.keep(None, sample(2, i * 20, true, 10)));
        assert_eq!(first(&history, 2), Some(7000));
    }
}
