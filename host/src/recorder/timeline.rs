//! From the wire's times to the run's: counted from the run's start, never falling within a track. Pure.
//!
//! Each track has an offset between the two. Tracks share it as long as the publisher's clock does not leap, so
//! what was apart on the wire stays apart. A step back of up to [`MAX_JITTER_MS`] holds the track's time until
//! the wire has caught up. A larger one, or one ahead of more than [`MAX_STEP_MS`], is, in this order,
//!
//! 1. nothing, if other tracks went on meanwhile and the time fits to theirs: the track was silent;
//! 2. a wrap, if it is one of [`WRAPS_MS`]: undone to the millisecond;
//! 3. the leap that another track made before: this one follows it, so their distance stays;
//! 4. a pause, if as much time has passed by the wall clock: it is kept;
//! 5. a leap of the publisher's clock: closed, or kept, as [`Timestamps`] says.

use std::{collections::BTreeMap, time::Instant};

use serde::Deserialize;

use crate::media::Sample;

/// Largest step back that is taken for disorder, not for a leap.
pub const MAX_JITTER_MS: i64 = 500;
/// Largest step ahead that is taken for a hole in the media, not for a leap; also how far the clocks of tracks
/// may be apart.
pub const MAX_STEP_MS: i64 = 10_000;
/// Where publishers' counters start again: 24 bits of an FLV tag, 31 and 32 bits of a counter of milliseconds.
/// What RTMP itself wraps is undone by its session.
pub const WRAPS_MS: [i64; 3] = [1 << 24, 1 << 31, 1 << 32];
/// By how much a pause may be longer than the wall clock says.
const PAUSE_SLACK_MS: i64 = 5_000;
/// Longest step ahead that [`Timestamps::Split`] keeps.
const MAX_SPLIT_MS: i64 = 24 * 3600 * 1000;
/// From one sample to the next where nothing is known.
const USUAL_STEP_MS: i64 = 20;
/// More is not usual.
const MAX_USUAL_STEP_MS: i64 = 1_000;

/// What becomes of a leap of the publisher's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Timestamps {
    /// It is closed: time goes on from where it was.
    #[default]
    Repair,
    /// The segment ends there. The next one goes on from where the time was after a step back, and by the step
    /// after one ahead of up to 24 h.
    Split,
}

/// The time line of a run.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Run time minus wire time for the first track.
    offset_ms: i64,
    tracks: BTreeMap<u32, Line>,
    /// Offsets that were changed so far.
    changes: u64,
    /// Run time behind the last pause or leap that was kept.
    leapt_to_ms: i64,
}

/// The time line of a track.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Run time minus wire time.
    offset_ms: i64,
    /// [`Timeline::changes`] after that of the offset.
    changed: u64,
    /// Of the last sample, in run time, and when it came.
    last_ms: i64,
    at: Instant,
    usual_step_ms: i64,
}

/// What was done to a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is as on the wire.
    Kept,
    /// A small step back was levelled.
    Levelled,
    /// A wrap by so many milliseconds was undone.
    Unwrapped { by_ms: i64 },
    /// The track follows the leap of another one.
    Followed,
    /// A track's first sample, so far from the others that it was put beside them.
    Aligned { apart_ms: i64 },
    /// The track alone was silent from here to there, in run time.
    Silent { from_ms: i64, to_ms: i64 },
    /// The stream paused from here to there, in run time. Begins a segment.
    Paused { from_ms: i64, to_ms: i64 },
    /// The publisher's clock leapt by so much; in run time it is a step from here to there. With
    /// [`Timestamps::Split`] it begins a segment.
    Leapt { step_ms: i64, from_ms: i64, to_ms: i64 },
}

impl Timeline {
    /// A line on which the wire time `zero_ms` of the first track is the run time `start_ms`.
    pub fn new(zero_ms: i64, start_ms: i64) -> Self {
        Self { offset_ms: start_ms - zero_ms, tracks: BTreeMap::new(), changes: 0, leapt_to_ms: i64::MIN }
    }

    /// The latest run time so far; `None` before the first sample.
    pub fn latest_ms(&self) -> Option<i64> {
        self.tracks.values().map(|line| line.last_ms).max()
    }

    /// The run time of a wire time, by the offset that was changed last.
    pub fn run_ms(&self, wire_ms: i64) -> i64 {
        let newest = self.tracks.values().max_by_key(|line| line.changed);
        wire_ms + newest.map_or(self.offset_ms, |line| line.offset_ms)
    }

    /// Moves a sample to run time and marks it where it was moved against the wire. `expected`: a step ahead
    /// has a reason that is known, since samples before it were dropped.
    pub fn place(&mut self, sample: &mut Sample, now: Instant, policy: Timestamps, expected: bool) -> Placed {
        let wire_ms = sample.dts_ms;
        let Some(&line) = self.tracks.get(&sample.track) else { return self.first(sample, now) };
        let step_ms = wire_ms + line.offset_ms - line.last_ms;
        let placed = if (0..=MAX_STEP_MS).contains(&step_ms) {
            Placed::Kept
        } else if (-MAX_JITTER_MS..0).contains(&step_ms) {
            Placed::Levelled
        } else {
            self.leap(sample.track, line, wire_ms, now, policy, expected)
        };
        let line = self.tracks.get_mut(&sample.track).expect("it was there above");
        // A levelled sample is presented when the wire said.
        let pts_ms = sample.pts_ms + line.offset_ms;
        let dts_ms = (wire_ms + line.offset_ms).max(line.last_ms);
        if placed == Placed::Kept && dts_ms > line.last_ms {
            line.usual_step_ms = (dts_ms - line.last_ms).min(MAX_USUAL_STEP_MS);
        }
        (line.last_ms, line.at) = (dts_ms, now);
        let moved = !matches!(placed, Placed::Kept | Placed::Levelled | Placed::Unwrapped { .. });
        sample.discontinuity |= moved;
        let levelled = dts_ms > wire_ms + line.offset_ms;
        sample.pts_ms = if levelled { pts_ms.max(dts_ms) } else { pts_ms };
        sample.dts_ms = dts_ms;
        placed
    }

    /// A track's first sample: on the clock of the others, or beside them.
    fn first(&mut self, sample: &mut Sample, now: Instant) -> Placed {
        let mut placed = Placed::Kept;
        let mut offset_ms = self.offset_ms;
        if let Some(latest_ms) = self.latest_ms() {
            let near = |offset: &i64| (sample.dts_ms + offset - latest_ms).abs() <= MAX_STEP_MS;
            let offsets: Vec<i64> = self.offsets().map(|line| line.offset_ms).collect();
            let unwrapped = || {
                let wraps = WRAPS_MS.iter().flat_map(|&wrap| [wrap, -wrap]);
                wraps.map(|by_ms| offsets[0] + by_ms).find(near)
            };
            if let Some(offset) = offsets.iter().copied().find(near) {
                offset_ms = offset;
            } else if let Some(offset) = unwrapped() {
                placed = Placed::Unwrapped { by_ms: offset - offsets[0] };
                offset_ms = offset;
                self.changes += 1;
            } else {
                placed = Placed::Aligned { apart_ms: sample.dts_ms + offsets[0] - latest_ms };
                offset_ms = latest_ms - sample.dts_ms;
                self.changes += 1;
            }
        }
        sample.dts_ms += offset_ms;
        sample.pts_ms += offset_ms;
        let line = Line {
            offset_ms,
            changed: self.changes,
            last_ms: sample.dts_ms,
            at: now,
            usual_step_ms: USUAL_STEP_MS,
        };
        self.tracks.insert(sample.track, line);
        placed
    }

    /// Decides on a step that is no ordinary one, and sets the track's offset.
    fn leap(
        &mut self,
        track: u32,
        line: Line,
        wire_ms: i64,
        now: Instant,
        policy: Timestamps,
        expected: bool,
    ) -> Placed {
        let (from_ms, own_ms) = (line.last_ms, wire_ms + line.offset_ms);
        let step_ms = own_ms - from_ms;
        let latest_ms = self.latest_ms().unwrap_or(from_ms);
        let fits = |ms: i64| (from_ms - MAX_JITTER_MS..=latest_ms + MAX_STEP_MS).contains(&ms);
        if fits(own_ms) {
            // Together with another track, or alone?
            let followed = from_ms < self.leapt_to_ms && own_ms >= self.leapt_to_ms - MAX_STEP_MS;
            return match followed || expected {
                true => Placed::Followed,
                false => Placed::Silent { from_ms, to_ms: own_ms },
            };
        }
        let wraps = WRAPS_MS.iter().flat_map(|&wrap| [wrap, -wrap]);
        if let Some(by_ms) = wraps.into_iter().find(|by_ms| fits(own_ms + by_ms)) {
            self.set_offset(track, line.offset_ms + by_ms);
            return Placed::Unwrapped { by_ms };
        }
        // What another track did since, or what it is used to.
        let follows = |other: &&Line| {
            let ms = wire_ms + other.offset_ms;
            let usual = from_ms - MAX_JITTER_MS..=from_ms + MAX_USUAL_STEP_MS;
            if other.changed > line.changed { fits(ms) } else { usual.contains(&ms) }
        };
        let followed = self.offsets().find(follows).map(|other| other.offset_ms);
        if let Some(offset_ms) = followed {
            self.set_offset(track, offset_ms);
            return Placed::Followed;
        }
        let passed_ms = i64::try_from(now.duration_since(line.at).as_millis()).unwrap_or(i64::MAX);
        if step_ms > 0 && (expected || step_ms <= passed_ms.saturating_add(PAUSE_SLACK_MS)) {
            self.leapt_to_ms = own_ms;
            return Placed::Paused { from_ms, to_ms: own_ms };
        }
        if policy == Timestamps::Split && (0..=MAX_SPLIT_MS).contains(&step_ms) {
            self.leapt_to_ms = own_ms;
            return Placed::Leapt { step_ms, from_ms, to_ms: own_ms };
        }
        // Behind the latest of all tracks, so that none of them falls when it follows.
        let to_ms = (from_ms + line.usual_step_ms).max(latest_ms);
        self.set_offset(track, to_ms - wire_ms);
        Placed::Leapt { step_ms, from_ms, to_ms }
    }

    /// The tracks, the one whose offset changed last first.
    fn offsets(&self) -> impl Iterator<Item = &Line> {
        let mut lines: Vec<&Line> = self.tracks.values().collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.changed));
        lines.into_iter()
    }

    fn set_offset(&mut self, track: u32, offset_ms: i64) {
        self.changes += 1;
        let shared = self.tracks.values().find(|line| line.offset_ms == offset_ms).map(|line| line.changed);
        if let Some(line) = self.tracks.get_mut(&track) {
            line.offset_ms = offset_ms;
            // Who follows has changed nothing that others could follow.
            line.changed = shared.unwrap_or(self.changes);
        }
    }
}

#[cfg(test)]
mod tests;
