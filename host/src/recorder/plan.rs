//! When segments start, what belongs to them, when they end. Pure: takes what a subscriber gets, and the
//! time; gives steps for a writer.
//!
//! ```text
//!             tracks known             each track has a sample
//!   Waiting ────────────▶ Gathering ─────────────────────────▶ Writing ──┐
//!                            ▲   (Close), Open, Sample…           │      │ Sample, Tracks
//!                            └────────────────────────────────────┘◀─────┘
//!                              a key frame after chunkLength, after tracks that
//!                              the format can't take, a pause or a leap of the
//!                              clock, or a segment that failed
//! ```
//!
//! No sample is lost at a cut, whatever its cause. Where it has to wait for a key frame, frames before that
//! belong to the group before and are written; samples of other tracks that can't be are held for the next
//! segment. [`Note::gap`] tells of every stretch that was lost or moved all the same.
//!
//! A run outlives its stream when the stream comes back in time: [`Plan::end`], then [`Plan::resume`].
//!
//! A segment's origin is the earliest time in it. Audio that belongs to a segment can come after its key frame
//! and be earlier, so the samples around a start are gathered until every track has shown where it begins; that
//! takes one audio frame, and at most [`GATHER`]. The segment before gets to know in the same way exactly where
//! its tracks end.

mod held;
mod notes;

pub use notes::{GapReason, GapRecord, Note};

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use held::{Gather, Held, beginning, extend, length, span};
use jiff::tz::TimeZone;

use super::{
    settings::Align,
    timeline::{MAX_STEP_MS, Placed, Timeline, Timestamps},
};
use crate::{
    media::{Kind, Sample, Track},
    registry::{Gap, Item, Tracks},
};

/// Longest gathering at a cut, by the clock and by the media.
pub const GATHER: Duration = Duration::from_millis(GATHER_MS as u64);
const GATHER_MS: i64 = 500;
/// Most bytes that are held back for a start.
const MAX_HELD: usize = 16 << 20;
/// Most bytes of tracks that wait for the next segment.
const MAX_WAITING: usize = 8 << 20;
/// Shortest wait for a key frame before a segment starts without one.
const MIN_KEY_WAIT_MS: i64 = 10_000;
/// What a leap of the clock is taken to have in it besides the leap.
const USUAL_STEP_MS: i64 = 20;
/// Segments in a row that may be shorter than [`Policy::min_segment`].
const MAX_SHORT: u32 = 8;

/// What a recording wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Length after which a segment ends; `None`: never.
    pub chunk_ms: Option<i64>,
    /// Bytes after which a segment ends; `None`: never.
    pub chunk_bytes: Option<u64>,
    /// Moments of local time at which segments end.
    pub align: Option<Align>,
    /// Run time after which the run is over; `None`: never.
    pub max_ms: Option<i64>,
    /// Segments start on key frames only.
    pub wait_for_key: bool,
    /// Audio tracks are recorded.
    pub audio: bool,
    /// How long a start waits for the tracks that the publisher declared.
    pub track_timeout: Duration,
    /// What becomes of leaps of the publisher's clock.
    pub timestamps: Timestamps,
    /// A segment that is shorter, by its media, may be cut by new codec configurations and leaps of the clock only
    /// some times in a row.
    pub min_segment: Duration,
}

impl Default for Policy {
    /// One segment from key frame to the end.
    fn default() -> Self {
        Self {
            chunk_ms: None,
            chunk_bytes: None,
            align: None,
            max_ms: None,
            wait_for_key: true,
            audio: true,
            track_timeout: Duration::from_secs(2),
            timestamps: Timestamps::Repair,
            min_segment: Duration::from_secs(1),
        }
    }
}

impl Policy {
    /// After how much media without a key frame any frame will do.
    fn key_wait_ms(&self) -> i64 {
        self.chunk_ms.map_or(MIN_KEY_WAIT_MS, |chunk| (2 * chunk).max(MIN_KEY_WAIT_MS))
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin a segment.
    Open { number: u64, epoch_us: i64, origin_ms: i64, tracks: Vec<Track> },
    /// Write a sample, in run time, to the segment.
    Sample(Sample),
    /// Tell the segment's writer of these tracks, and the plan what it said: [`Plan::tracks_taken`].
    Tracks(Vec<Track>),
    /// End the segment. `ends`: by track, the DTS of its next sample.
    Close { reason: &'static str, ends: Vec<(u32, i64)> },
    /// Something to report.
    Note(Note),
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    /// Microseconds since 1970.
    pub epoch_us: i64,
}

/// A segment that failed, as it began.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    pub number: u64,
    pub epoch_us: i64,
    pub origin_ms: i64,
    pub tracks: &'a [Track],
}

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    policy: Policy,
    /// The run began in the middle of the stream, so what comes before a key frame is no beginning.
    joined: bool,
    tracks: Arc<Tracks>,
    waiting: Vec<Sample>,
    since: Option<Instant>,
    line: Option<Timeline>,
    /// When the stream ended, and the run time then; the next one goes on from there.
    ended: Option<(Instant, i64)>,
    /// The stream is not the run's first.
    resumed: bool,
    /// Wall clock at run time 0.
    epoch_us: i64,
    next_number: u64,
    open: Option<Open>,
    gather: Option<Gather>,
    /// Samples that belong into the next segment.
    held: Held,
    /// By track: the last DTS, and its distance from the one before.
    last: HashMap<u32, (i64, i64)>,
    /// Run time behind the last pause or leap.
    leapt_to_ms: i64,
    /// Length of all pauses and leaps in run time.
    leaps_ms: i64,
    /// Segments in a row that were too short.
    short: u32,
    /// No video before a key frame; since when, in run time.
    need_key: Option<Option<i64>>,
    /// Everything is left out until a segment can start.
    resuming: bool,
    /// Since when, in run time, if a frame could have begun it but for being none to begin with.
    resuming_since_ms: Option<i64>,
    /// An operator wants the segment to end, at any frame if `true`.
    split: Option<bool>,
    intermission: Intermission,
    /// What was left out in it so far, and since when in wire time a key frame is waited for.
    left_out: Gap,
    intermission_since_ms: Option<i64>,
    /// Wire time that was taken out of the run.
    removed_ms: i64,
    /// The sample since which another track than the one that leads is alone, in wire time, while a key frame is
    /// waited for.
    alone: Option<(u32, i64)>,
    /// By track: the last DTS, that taken out, and its distance from the one before.
    passed: HashMap<u32, (i64, i64)>,
    /// Length of what the run got from before it began.
    backlog_ms: i64,
    zone: TimeZone,
    /// Wall clock when the last item came.
    clock_us: i64,
    /// Run time at which the first segment began.
    first_ms: Option<i64>,
    /// The run has all that it may have.
    over: bool,
    /// Nothing can be written.
    halted: bool,
    /// What is in `lost` was lost for that, at least the last of it.
    was_halted: bool,
    /// What was left out before a key frame so far, what of a flapping configuration, and what a failed segment cost.
    skipped: Gap,
    flapping: Gap,
    lost: Option<Gap>,
    /// Tracks whose next sample follows a hole.
    broken: Vec<u32>,
    steps: VecDeque<Step>,
}

/// Whether an operator has the recording paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intermission {
    Off,
    On,
    /// Until the next key frame.
    Ending,
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    number: u64,
    /// As far as known: what was given to it, or what it made of that.
    bytes: u64,
    /// Wall clock at which it ends.
    until_us: Option<i64>,
    /// Since when, in run time, it should end for another reason than its length.
    asked_ms: Option<i64>,
    tracks: Vec<Track>,
    origin_ms: i64,
    /// DTS of the sample that it was cut at.
    start_ms: i64,
    /// [`Plan::media_ms`] when it was cut.
    opened_ms: i64,
    due: Option<Due>,
    /// Run time that is not part of it, since the clock leapt. Frames of the last group are moved back by it.
    leaps_ms: i64,
    /// Samples were left out since configurations flap.
    flapped: bool,
    /// Tracks that it has samples of.
    written: Vec<u32>,
}

/// The open segment ends at the next key frame, since the format can't take the tracks as they are, or the clock leapt.
#[derive(Debug, Default)]
struct Due {
    clock: bool,
    /// Samples of these wait for the next segment.
    held: Vec<u32>,
    /// Since when, in run time; `None` until a sample comes.
    since_ms: Option<i64>,
    /// It would come too early: key frames of a new configuration are left out, with all that builds on them.
    shut: bool,
}

impl Plan {
    /// For a run that begins with the stream, or joins it.
    pub fn new(policy: Policy, joined: bool) -> Self {
        Self {
            policy,
            joined,
            tracks: Arc::default(),
            waiting: Vec::new(),
            since: None,
            line: None,
            ended: None,
            resumed: false,
            epoch_us: 0,
            next_number: 0,
            open: None,
            gather: None,
            held: Held::default(),
            last: HashMap::new(),
            leapt_to_ms: 0,
            leaps_ms: 0,
            short: 0,
            need_key: None,
            resuming: false,
            resuming_since_ms: None,
            split: None,
            intermission: Intermission::Off,
            left_out: Gap::default(),
            intermission_since_ms: None,
            removed_ms: 0,
            alone: None,
            passed: HashMap::new(),
            backlog_ms: 0,
            zone: TimeZone::system(),
            clock_us: 0,
            first_ms: None,
            over: false,
            halted: false,
            was_halted: false,
            skipped: Gap::default(),
            flapping: Gap::default(),
            lost: None,
            broken: Vec::new(),
            steps: VecDeque::new(),
        }
    }

    /// Takes the next item. Take all steps before the next one.
    pub fn push(&mut self, item: Item, now: Now) {
        self.clock_us = now.epoch_us;
        match item {
            Item::Tracks(tracks) => self.tracks_changed(&tracks, now),
            Item::Gap(mut gap) => {
                if let Some(line) = &self.line {
                    gap.from_dts_ms = line.run_ms(gap.from_dts_ms - self.removed_ms);
                    gap.to_dts_ms = line.run_ms(gap.to_dts_ms - self.removed_ms);
                }
                self.steps.push_back(Step::Note(Note::Gap(gap)));
                self.broken = self.tracks.known.iter().map(|t| t.id).collect();
            }
            Item::Sample(mut sample) => {
                if self.over || self.track(sample.track).is_none() || !self.passes(&mut sample, now) {
                    return;
                }
                if self.line.is_some() {
                    self.place(sample, now);
                } else {
                    self.since.get_or_insert(now.instant);
                    self.waiting.push(sample);
                    self.start(now, false);
                }
            }
        }
    }

    /// Says that the first samples come from memory, and are of so many milliseconds. Before the first item.
    pub fn has_backlog(&mut self, ms: u64) {
        self.backlog_ms = i64::try_from(ms).unwrap_or(0);
    }

    /// The segment of that number has so many bytes.
    pub fn has_grown(&mut self, number: u64, bytes: u64) {
        if let Some(open) = self.open.as_mut().filter(|open| open.number == number) {
            open.bytes = open.bytes.max(bytes);
        }
    }

    /// Ends the open segment at the next key frame, or at the next frame of video if `any_frame`.
    pub fn split(&mut self, any_frame: bool) {
        if self.open.is_some() && self.gather.is_none() {
            self.split = Some(any_frame);
        }
    }

    /// Leaves out all that comes from here on. Where it goes on, run time goes on as well.
    pub fn pause(&mut self) {
        if self.intermission == Intermission::Off {
            self.gathered();
        }
        self.intermission = Intermission::On;
    }

    /// Goes on with the next key frame.
    pub fn unpause(&mut self) {
        if self.intermission == Intermission::On {
            self.intermission = Intermission::Ending;
            (self.intermission_since_ms, self.alone) = (None, None);
        }
    }

    /// Whether the run has all that it may have: end it.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next step.
    pub fn step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// The next step, which stays.
    pub fn peek(&self) -> Option<&Step> {
        self.steps.front()
    }

    /// The next step, if it is such a one.
    #[cfg(test)]
    fn step_if(&mut self, fits: impl Fn(&Step) -> bool) -> Option<Step> {
        self.peek().is_some_and(fits).then(|| self.step())?
    }

    /// Gives back the step that was taken last, to be taken again.
    pub fn again(&mut self, step: Step) {
        self.steps.push_front(step);
    }

    /// What the writer said to [`Step::Tracks`].
    pub fn tracks_taken(&mut self, taken: bool) {
        let known = self.tracks.known.clone();
        let Some(open) = &mut self.open else { return };
        let due = open.due.take();
        if taken {
            open.tracks = known;
            open.due = due.filter(|due| due.clock);
            // What was held had a configuration that is no more.
            if open.due.is_none() {
                self.drop_stale();
            }
            return;
        }
        let video = |t: &Track| t.kind == Kind::Video && open.tracks.iter().any(|old| old.id == t.id);
        let changed = |t: &&Track| open.tracks.iter().all(|old| old.id != t.id || old.config != t.config);
        // Frames of a known video track before the key frame are still of the group before.
        let held = known.iter().filter(changed).filter(|t| !video(t)).map(|t| t.id);
        let mut held: Vec<u32> = held.collect();
        let before = due.unwrap_or_default();
        if before.clock {
            held.extend(before.held);
        }
        open.due = Some(Due { held, ..before });
    }

    /// Where the tracks of the open segment end, if it ends with what was written so far.
    pub fn ends_now(&self) -> Vec<(u32, i64)> {
        self.open.as_ref().map(|open| self.ends(open, &[])).unwrap_or_default()
    }

    /// The segment failed and is closed, with these samples not in it. If the next one was to begin already it does;
    /// else it starts at the next key frame.
    pub fn segment_failed(&mut self, unwritten: &[Sample]) {
        let next = self.steps.iter().position(|step| matches!(step, Step::Open { .. }));
        let mut lost = self.lost.take().unwrap_or_default();
        unwritten.iter().for_each(|sample| extend(&mut lost, sample));
        let dropped: Vec<Step> = self.steps.drain(..next.unwrap_or(self.steps.len())).collect();
        let mut notes = Vec::new();
        for step in dropped {
            match step {
                Step::Sample(sample) => extend(&mut lost, &sample),
                Step::Note(_) => notes.push(step),
                _ => {}
            }
        }
        self.lost = Some(lost);
        if next.is_some() {
            let lost = self.lost.take().filter(|lost| lost.samples > 0);
            notes.extend(lost.map(|lost| Step::Note(Note::Lost(lost))));
        } else {
            let lost = self.lost.as_mut().expect("set above");
            if let Some(gather) = self.gather.take() {
                gather.samples.iter().for_each(|sample| extend(lost, sample));
            }
            self.held.take().iter().for_each(|sample| extend(lost, sample));
            self.open = None;
            self.resuming = true;
        }
        notes.into_iter().rev().for_each(|note| self.steps.push_front(note));
    }

    /// The segment that is written failed, and its file ends before these samples: they begin the next segment, and all
    /// that was still to come goes into that. It ends as the one that failed would have, or at once if `close` is given.
    pub fn fail_over(&mut self, failed: Begun<'_>, samples: Vec<Sample>, close: Option<Step>) {
        // What is queued for it: up to where it ends.
        let queued = match &close {
            Some(_) => 0,
            None => {
                let is_end = |step: &Step| matches!(step, Step::Close { .. } | Step::Open { .. });
                self.steps.iter().position(is_end).unwrap_or(self.steps.len())
            }
        };
        let ends = queued < self.steps.len() || close.is_some();
        let to_come = self.steps.iter().take(queued).filter_map(|step| match step {
            Step::Sample(sample) => Some(sample),
            _ => None,
        });
        let all = || samples.iter().chain(to_come.clone());
        let has = |track: u32| all().any(|sample| sample.track == track);
        let first_ms = all().map(|sample| sample.dts_ms).min().unwrap_or(failed.origin_ms);
        // A track that has not shown itself yet goes on behind its last sample.
        let missing = failed.tracks.iter().filter(|track| !has(track.id));
        let missing = missing.filter_map(|track| self.last.get(&track.id)).map(|&(dts, _)| dts).min();
        let origin_ms = missing.map_or(first_ms, |ms| ms.clamp(first_ms - GATHER_MS, first_ms));
        let origin_ms = origin_ms.max(failed.origin_ms);
        let later_us = (origin_ms - failed.origin_ms).saturating_mul(1000);
        let mut written: Vec<u32> =
            failed.tracks.iter().map(|track| track.id).filter(|&id| has(id)).collect();
        let bytes = all().map(|sample| sample.data.len() as u64).sum();
        // Numbers go on without a hole.
        for step in &mut self.steps {
            if let Step::Open { number, .. } = step {
                *number += 1;
            }
        }
        self.next_number += 1;
        if let Some(open) = &mut self.open {
            open.number += 1;
            if !ends {
                (open.origin_ms, open.bytes) = (origin_ms, bytes);
                open.written = std::mem::take(&mut written);
            }
        }
        // No end of a track that it has nothing of.
        if let Some(Step::Close { ends, .. }) = self.steps.get_mut(queued) {
            ends.retain(|(track, _)| close.is_some() || written.contains(track));
        }
        let close = close.map(|step| match step {
            Step::Close { reason, mut ends } => {
                ends.retain(|(track, _)| written.contains(track));
                Step::Close { reason, ends }
            }
            other => other,
        });
        let open = Step::Open {
            number: failed.number + 1,
            epoch_us: failed.epoch_us.saturating_add(later_us),
            origin_ms,
            tracks: failed.tracks.to_vec(),
        };
        let steps = std::iter::once(open).chain(samples.into_iter().map(Step::Sample)).chain(close);
        let after = std::mem::take(&mut self.steps);
        self.steps = steps.chain(after).collect();
    }

    /// Nothing can be written for now: the segment ends with what it has, and all that comes is lost until
    /// [`Plan::carry_on`].
    pub fn halt(&mut self, reason: &'static str) {
        if std::mem::replace(&mut self.halted, true) {
            return;
        }
        self.was_halted = true;
        let mut lost = self.lost.take().unwrap_or_default();
        // A segment that was to begin has nothing to end.
        let mut begun = self.open.is_some();
        let mut notes = VecDeque::new();
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Sample(sample) => extend(&mut lost, &sample),
                Step::Note(_) => notes.push_back(step),
                Step::Open { .. } => begun = false,
                _ => {}
            }
        }
        self.steps = notes;
        let waits = self.gather.take().into_iter().flat_map(|gather| gather.samples);
        waits.chain(self.held.take()).for_each(|sample| extend(&mut lost, &sample));
        if let Some(open) = self.open.take().filter(|_| begun) {
            let ends = self.ends(&open, &[]);
            self.steps.push_back(Step::Close { reason, ends });
        }
        self.lost = Some(lost);
        self.resuming = true;
        self.resuming_since_ms = None;
    }

    /// Things can be written again: a segment begins at the next key frame.
    pub fn carry_on(&mut self) {
        self.halted = false;
    }

    /// No more items come, at least of this stream: everything that waits gets its place.
    pub fn end(&mut self, reason: &'static str, now: Now) {
        if self.line.is_none() {
            self.start(now, true);
        }
        if self.gather.is_none() && !self.held.samples.is_empty() && self.open.is_some() {
            self.gather = Some(Gather::new(now.instant));
            self.gather_held();
        }
        self.gathered();
        self.need_key = None;
        self.report_left_out();
        if self.left_out.samples > 0 {
            let left_out = std::mem::take(&mut self.left_out);
            self.steps.push_back(Step::Note(Note::Intermission { left_out, away_ms: 0 }));
        }
        self.removed_ms = 0;
        self.passed.clear();
        let mut end_ms = self.line.as_ref().and_then(Timeline::latest_ms);
        if let Some(open) = self.open.take() {
            let ends = self.ends(&open, &[]);
            end_ms = end_ms.max(ends.iter().map(|&(_, end)| end).max());
            self.steps.push_back(Step::Close { reason, ends });
        }
        // A stream without a sample changes nothing.
        if let Some(end_ms) = end_ms {
            self.ended = Some((now.instant, end_ms));
        }
    }

    /// The stream that had ended is there again: its samples go on in the next segment of the same run, as much
    /// later in run time as by the wall clock. `joined` as in [`Plan::new`].
    pub fn resume(&mut self, joined: bool) {
        self.joined = joined;
        self.resumed = self.ended.is_some();
        self.tracks = Arc::default();
        self.line = None;
        self.since = None;
        self.last.clear();
        self.need_key = None;
        self.resuming = self.halted;
        self.broken.clear();
    }

    fn track(&self, id: u32) -> Option<&Track> {
        self.tracks.known.iter().find(|t| t.id == id)
    }

    fn video(&self) -> Option<u32> {
        self.tracks.known.iter().find(|t| t.kind == Kind::Video).map(|t| t.id)
    }

    fn tracks_changed(&mut self, tracks: &Tracks, now: Now) {
        let mut tracks = tracks.clone();
        if !self.policy.audio {
            tracks.known.retain(|t| t.kind != Kind::Audio);
            tracks.declared = tracks.declared.map(|d| crate::registry::Declared { audio: false, ..d });
        }
        // Samples that wait for a segment belong to the configuration that they came with.
        let changed = |id: u32, known: &[Track]| {
            let config = |tracks: &[Track]| tracks.iter().find(|t| t.id == id).map(|t| t.config.clone());
            config(known) != config(&tracks.known)
        };
        if self.line.is_none() && self.waiting.iter().any(|s| changed(s.track, &self.tracks.known)) {
            self.start(now, true);
        }
        if self.gather.iter().flat_map(|g| &g.samples).any(|s| changed(s.track, &self.tracks.known)) {
            self.gathered();
        }
        let stale = self.held.samples.iter().any(|s| changed(s.track, &self.tracks.known));
        self.tracks = Arc::new(tracks);
        if stale {
            self.drop_stale();
        }
        let Some(open) = self.open.as_mut().filter(|_| self.gather.is_none()) else { return };
        if open.tracks != self.tracks.known {
            self.steps.push_back(Step::Tracks(self.tracks.known.clone()));
        } else if let Some(due) = open.due.take_if(|due| !due.clock) {
            // Back to what the segment began with.
            if due.shut {
                self.need_key = Some(None);
            }
            self.drop_stale();
        }
    }

    /// Leaves out what is held for a segment that will never be, since the configuration changed again.
    fn drop_stale(&mut self) {
        for sample in self.held.take() {
            extend(&mut self.flapping, &sample);
        }
    }

    /// Whether a sample, as it came, is not left out by an intermission; it gets its time without them.
    fn passes(&mut self, sample: &mut Sample, now: Now) -> bool {
        let leads = self.video().is_none_or(|video| video == sample.track);
        let before_ms = sample.dts_ms - self.removed_ms;
        if self.intermission == Intermission::Ending && leads {
            let waited_ms = sample.dts_ms - *self.intermission_since_ms.get_or_insert(sample.dts_ms);
            if sample.key || !self.policy.wait_for_key || waited_ms >= self.policy.key_wait_ms() {
                self.intermission = Intermission::Off;
                self.intermission_over(sample.track, before_ms, now);
            }
        }
        if self.intermission == Intermission::Ending && self.is_left_alone(sample, leads) {
            self.intermission = Intermission::Off;
            self.intermission_over(sample.track, before_ms, now);
            // The group that the video may go on with was left out.
            if self.policy.wait_for_key {
                self.need_key = Some(None);
            }
        }
        if self.intermission != Intermission::Off {
            let run_ms = self.line.as_ref().map_or(0, |line| line.run_ms(before_ms));
            extend(&mut self.left_out, &Sample { dts_ms: run_ms, ..sample.clone() });
            return false;
        }
        sample.dts_ms -= self.removed_ms;
        sample.pts_ms -= self.removed_ms;
        let step = self.passed.get(&sample.track).map_or(0, |&(last, _)| sample.dts_ms - last);
        self.passed.insert(sample.track, (sample.dts_ms, step.clamp(0, MAX_STEP_MS)));
        true
    }

    /// Whether the track that leads has been silent for so long while another went on that this one ends the
    /// intermission.
    fn is_left_alone(&mut self, sample: &Sample, leads: bool) -> bool {
        if leads {
            self.alone = None;
            return false;
        }
        let (track, since_ms) = *self.alone.get_or_insert((sample.track, sample.dts_ms));
        track == sample.track && sample.dts_ms - since_ms >= self.policy.key_wait_ms()
    }

    /// A sample goes on where the last one before an intermission was.
    fn intermission_over(&mut self, track: u32, before_ms: i64, now: Now) {
        let (Some(&(last_ms, step_ms)), Some(line)) = (self.passed.get(&track), &self.line) else {
            // Nothing was recorded before it.
            self.joined = true;
            self.left_out = Gap::default();
            return;
        };
        let next_ms = last_ms + step_ms;
        let away_ms = before_ms - next_ms;
        self.removed_ms += away_ms;
        let (from_ms, to_ms) = (line.run_ms(last_ms), line.run_ms(next_ms));
        let left_out = Gap { from_dts_ms: from_ms, to_dts_ms: to_ms, ..std::mem::take(&mut self.left_out) };
        self.steps.push_back(Step::Note(Note::Intermission { left_out, away_ms }));
        self.anchor(to_ms, now);
        self.broken = self.tracks.known.iter().map(|track| track.id).collect();
    }

    /// Starts the run if enough is known, or in any case.
    fn start(&mut self, now: Now, force: bool) {
        let Some(since) = self.since else { return };
        let shown = |t: &Track| self.waiting.iter().any(|s| s.track == t.id);
        let ready = self.tracks.complete() && self.tracks.known.iter().all(shown);
        let bytes: usize = self.waiting.iter().map(|s| s.data.len()).sum();
        let timeout = self.policy.track_timeout;
        let late = now.instant.duration_since(since) >= timeout
            || self.tracks.known.iter().any(|t| length(&self.waiting, t.id) >= timeout)
            || bytes >= MAX_HELD;
        if !(ready || late || force) {
            return;
        }
        let video = self.video();
        let mut samples = std::mem::take(&mut self.waiting);
        let mut skipped = Vec::new();
        if self.policy.wait_for_key
            && let Some(video) = video
        {
            self.need_key = Some(None);
            if self.joined {
                // What was live before we came is no beginning.
                self.resuming = true;
                let key = samples.iter().position(|s| s.track == video && s.key).unwrap_or(samples.len());
                skipped = samples.drain(..key).collect();
            }
        }
        let zero = beginning(&samples).or_else(|| skipped.iter().map(|s| s.dts_ms).max()).unwrap_or(0);
        let mut start_ms = 0;
        if let Some((ended, end_ms)) = self.ended.take() {
            let away = i64::try_from(since.saturating_duration_since(ended).as_millis()).unwrap_or(i64::MAX);
            start_ms = end_ms.saturating_add(away);
            self.steps.push_back(Step::Note(Note::Reconnected { from_ms: end_ms, to_ms: start_ms }));
        }
        if self.resumed {
            self.broken = self.tracks.known.iter().map(|t| t.id).collect();
        }
        let line = Timeline::new(zero, start_ms);
        for sample in &mut skipped {
            sample.dts_ms = line.run_ms(sample.dts_ms);
            extend(&mut self.skipped, sample);
        }
        self.line = Some(line);
        self.leapt_to_ms = start_ms;
        let ahead_ms = samples.iter().map(|s| s.dts_ms - zero).filter(|ms| *ms <= 2 * MAX_STEP_MS).max();
        let behind_ms = std::mem::take(&mut self.backlog_ms);
        self.anchor(start_ms + ahead_ms.unwrap_or(0).max(behind_ms), now);
        for sample in samples {
            self.place(sample, now);
        }
        // They were together long enough.
        if late {
            self.gathered();
        }
    }

    /// That run time is now.
    fn anchor(&mut self, run_ms: i64, now: Now) {
        self.epoch_us = now.epoch_us.saturating_sub(run_ms.saturating_mul(1000));
    }

    /// Moves a sample to run time and decides where it goes.
    fn place(&mut self, mut sample: Sample, now: Now) {
        let broken = self.broken.iter().position(|&id| id == sample.track);
        if let Some(i) = broken {
            self.broken.swap_remove(i);
            sample.discontinuity = true;
        }
        let policy = if self.may_split() { self.policy.timestamps } else { Timestamps::Repair };
        let line = self.line.as_mut().expect("the run has started");
        let placed = line.place(&mut sample, now.instant, policy, broken.is_some());
        self.placed(placed, &sample, policy, broken.is_some(), now);
        let is_over = |max_ms| self.first_ms.is_some_and(|first_ms| sample.dts_ms - first_ms >= max_ms);
        if self.policy.max_ms.is_some_and(is_over) {
            self.over = true;
            return;
        }
        if !self.has_key(&sample) {
            extend(&mut self.skipped, &sample);
            return;
        }
        let lead = self.leads(&sample);
        let key = sample.key || !self.policy.wait_for_key;
        if let Some(gather) = &mut self.gather {
            gather.push(sample);
        } else if self.open.is_some() {
            self.go_on(sample, lead, key, now);
        } else if self.halted || (self.resuming && !(lead && (key || self.waited_long(&sample)))) {
            match (&mut self.lost, self.halted) {
                (Some(lost), _) => extend(lost, &sample),
                (lost @ None, true) => extend(lost.insert(Gap::default()), &sample),
                (None, false) => extend(&mut self.skipped, &sample),
            }
        } else {
            self.resuming = false;
            self.resuming_since_ms = None;
            self.begin_gather(sample, now);
        }
        self.gathered_if_ready(now);
    }

    /// Whether a segment that is to begin again has waited for a key frame so long that any frame will do.
    fn waited_long(&mut self, sample: &Sample) -> bool {
        let waited_ms = sample.dts_ms - *self.resuming_since_ms.get_or_insert(sample.dts_ms);
        let long = waited_ms >= self.policy.key_wait_ms();
        if long {
            self.steps.push_back(Step::Note(Note::NoKeyFrame { waited_ms }));
        }
        long
    }

    /// Reports what was done to a sample's time, and ends the segment before it if it has to.
    fn placed(&mut self, placed: Placed, sample: &Sample, policy: Timestamps, expected: bool, now: Now) {
        let track = sample.track;
        let note = match placed {
            Placed::Kept | Placed::Levelled | Placed::Followed => return,
            Placed::Unwrapped { by_ms } => Note::ClockWrap { track, by_ms },
            Placed::Aligned { apart_ms } => Note::Aligned { track, apart_ms },
            Placed::Silent { from_ms, to_ms } => Note::Paused { track: Some(track), from_ms, to_ms },
            Placed::Paused { from_ms, to_ms } => {
                self.clock_leapt(from_ms, to_ms, now);
                Note::Paused { track: None, from_ms, to_ms }
            }
            Placed::Leapt { step_ms, from_ms, to_ms } => {
                self.anchor(to_ms, now);
                if policy == Timestamps::Split {
                    self.clock_leapt(from_ms, to_ms, now);
                } else if let Some(open) = &mut self.open {
                    open.flapped |= self.policy.timestamps == Timestamps::Split;
                }
                Note::ClockStep { track, step_ms, from_ms, to_ms }
            }
        };
        if !expected {
            self.steps.push_back(Step::Note(note));
        }
    }

    /// The clock leapt: the open segment ends at the next key frame.
    fn clock_leapt(&mut self, from_ms: i64, to_ms: i64, now: Now) {
        self.leapt_to_ms = to_ms;
        self.leaps_ms += (to_ms - from_ms - USUAL_STEP_MS).max(0);
        // What was gathered or held before the leap is a segment.
        if self.open.is_some() && !self.held.samples.is_empty() && self.may_cut() {
            self.gather = Some(Gather::new(now.instant));
            self.gather_held();
        }
        self.gathered();
        let video = self.video();
        let held = self.tracks.known.iter().map(|t| t.id).filter(|&id| Some(id) != video).collect();
        let Some(open) = &mut self.open else { return };
        // The group's last frames stay with it.
        open.leaps_ms += (to_ms - from_ms - USUAL_STEP_MS).max(0);
        let before = open.due.take().unwrap_or_default();
        open.due = Some(Due { clock: true, held, since_ms: Some(to_ms), ..before });
    }

    /// A sample while a segment is open.
    fn go_on(&mut self, mut sample: Sample, lead: bool, key: bool, now: Now) {
        let key_wait_ms = self.policy.key_wait_ms();
        let is_video = self.video() == Some(sample.track);
        let Some(open) = &mut self.open else { return };
        let length_ms = sample.dts_ms - open.leaps_ms - open.start_ms;
        let long = self.policy.chunk_ms.is_some_and(|chunk| length_ms >= chunk);
        let asked = self.policy.chunk_bytes.is_some_and(|chunk| open.bytes >= chunk)
            || open.until_us.is_some_and(|until| now.epoch_us >= until)
            || self.split.is_some();
        let asked_ms = asked.then(|| sample.dts_ms - *open.asked_ms.get_or_insert(sample.dts_ms));
        let full = long || asked;
        let key = key || self.split == Some(true);
        let waited_ms =
            open.due.as_mut().map(|due| sample.dts_ms - *due.since_ms.get_or_insert(sample.dts_ms));
        let overdue = (long && length_ms >= key_wait_ms)
            || asked_ms.is_some_and(|ms| ms >= key_wait_ms)
            || waited_ms.is_some_and(|ms| ms >= key_wait_ms);
        // From before the leap that another track has made: not the beginning of what is behind it.
        let before = open.leaps_ms > 0 && sample.dts_ms < self.leapt_to_ms - MAX_STEP_MS;
        if !before && lead && ((key && (full || waited_ms.is_some())) || overdue) {
            if full || self.may_cut() {
                if !key {
                    let waited_ms = waited_ms.unwrap_or(length_ms);
                    self.steps.push_back(Step::Note(Note::NoKeyFrame { waited_ms }));
                }
                return self.begin_gather(sample, now);
            }
            self.too_early(is_video);
        }
        let Some(open) = &mut self.open else { return };
        match &open.due {
            Some(due) if due.shut && is_video => extend(&mut self.flapping, &sample),
            Some(due) if due.held.contains(&sample.track) => {
                self.held.push(sample);
                if self.held.bytes >= MAX_WAITING {
                    self.gather = Some(Gather::new(now.instant));
                    self.gather_held();
                }
            }
            _ => {
                let mut dts_ms = sample.dts_ms.max(open.origin_ms);
                if is_video && open.leaps_ms > 0 && !before {
                    let last = self.last.get(&sample.track).map_or(dts_ms, |&(last, _)| last);
                    dts_ms = (dts_ms - open.leaps_ms).max(last);
                }
                sample.pts_ms += dts_ms - sample.dts_ms;
                sample.dts_ms = dts_ms;
                self.write(sample);
            }
        }
    }

    /// Run time without the leaps in it.
    fn media_ms(&self) -> i64 {
        self.line.as_ref().and_then(Timeline::latest_ms).unwrap_or(0) - self.leaps_ms
    }

    /// Whether the open segment is as long as one has to be.
    fn is_long_enough(&self) -> bool {
        self.open.as_ref().is_none_or(|open| {
            let length_ms = (self.media_ms() - open.opened_ms).max(0).unsigned_abs();
            u128::from(length_ms) >= self.policy.min_segment.as_millis()
        })
    }

    /// Whether a leap of the clock may end the open segment.
    fn may_split(&self) -> bool {
        let due = self.open.as_ref().and_then(|open| open.due.as_ref());
        (self.short < MAX_SHORT || self.is_long_enough()) && due.is_none_or(|due| !due.clock)
    }

    /// Whether the open segment may end for another reason than its length; it is counted.
    fn may_cut(&mut self) -> bool {
        if self.is_long_enough() {
            if self.open.as_ref().is_some_and(|open| !open.flapped) {
                self.short = 0;
            }
            return true;
        }
        self.short = self.short.saturating_add(1);
        self.short <= MAX_SHORT
    }

    /// The segment stays open though it should end: samples of a new configuration of the video are left out. Those
    /// of other tracks are held on.
    fn too_early(&mut self, is_video: bool) {
        let Some(open) = &mut self.open else { return };
        open.flapped = true;
        let video = self.tracks.known.iter().find(|t| t.kind == Kind::Video).filter(|_| is_video);
        let same = |video: &Track| open.tracks.iter().any(|t| t.id == video.id && t.config == video.config);
        let refused = video.is_some_and(|video| !same(video));
        if let Some(due) = &mut open.due {
            due.shut |= refused;
        }
    }

    /// Whether segments begin and end at samples of this track: video, or audio where there is none, or has been none for
    /// a long time.
    fn leads(&self, sample: &Sample) -> bool {
        let Some(video) = self.video().filter(|&video| video != sample.track) else { return true };
        let start_ms = self.open.as_ref().map_or(0, |open| open.start_ms);
        let last_ms = self.last.get(&video).map_or(start_ms, |&(dts, _)| dts).max(self.leapt_to_ms);
        sample.dts_ms - last_ms >= self.policy.key_wait_ms()
    }

    /// Whether the sample may be written as far as key frames go.
    fn has_key(&mut self, sample: &Sample) -> bool {
        let Some(since) = self.need_key else { return true };
        if self.video() != Some(sample.track) {
            return true;
        }
        let since = since.unwrap_or(sample.dts_ms).max(self.leapt_to_ms);
        let waited_ms = sample.dts_ms - since;
        if !sample.key && waited_ms < self.policy.key_wait_ms() {
            self.need_key = Some(Some(since));
            return false;
        }
        if !sample.key {
            self.steps.push_back(Step::Note(Note::NoKeyFrame { waited_ms }));
            self.resuming = false;
        }
        self.need_key = None;
        if self.skipped.samples > 0 {
            let skipped = std::mem::take(&mut self.skipped);
            self.steps.push_back(Step::Note(Note::Skipped(skipped)));
        }
        true
    }

    fn begin_gather(&mut self, sample: Sample, now: Now) {
        self.gather = Some(Gather::new(now.instant));
        self.gather_held();
        if let Some(gather) = &mut self.gather {
            gather.push(sample);
        }
    }

    /// What was held begins the segment that is gathered.
    fn gather_held(&mut self) {
        let held = self.held.take();
        if let Some(gather) = &mut self.gather {
            held.into_iter().for_each(|sample| gather.push(sample));
        }
    }

    fn gathered_if_ready(&mut self, now: Now) {
        let Some(gather) = &self.gather else { return };
        let (min, max) = span(&gather.samples);
        let shown = |t: &Track| gather.samples.iter().any(|s| s.track == t.id);
        let ready = self.tracks.known.iter().all(shown)
            || now.instant.duration_since(gather.since) >= GATHER
            || u128::from((max - min).unsigned_abs()) >= GATHER.as_millis()
            || gather.bytes >= MAX_HELD;
        if ready {
            self.gathered();
        }
    }

    /// Ends the open segment and starts the one that was gathered.
    fn gathered(&mut self) {
        let Some(gather) = self.gather.take().filter(|g| !g.samples.is_empty()) else { return };
        let mut passed_us = None;
        if let Some(open) = self.open.take() {
            passed_us = open.until_us.filter(|until_us| self.clock_us >= *until_us);
            let ends = self.ends(&open, &gather.samples);
            self.steps.push_back(Step::Close { reason: "cut", ends });
        }
        self.report_left_out();
        let lead = self.video();
        let start = gather.samples.iter().find(|s| lead.is_none_or(|lead| lead == s.track));
        let start_ms = start.unwrap_or(&gather.samples[0]).dts_ms;
        // A track that has not shown itself yet goes on behind its last sample.
        let missing = self.tracks.known.iter().filter(|t| gather.samples.iter().all(|s| s.track != t.id));
        let missing = missing.filter_map(|t| self.last.get(&t.id)).map(|&(dts, _)| dts).min();
        // But a track that has gone does not draw the origin back for ever.
        let first_ms = span(&gather.samples).0;
        let origin_ms = missing.map_or(first_ms, |m| m.clamp(first_ms - GATHER_MS, first_ms));
        let tracks = self.tracks.known.clone();
        let mut epoch_us = self.epoch_us.saturating_add(origin_ms.saturating_mul(1000));
        if let Some(passed_us) = passed_us {
            // It begins behind the moment that it was cut at, and not in the future, whatever the publisher's clock.
            let drift_us = epoch_us.clamp(passed_us, self.clock_us) - epoch_us;
            self.epoch_us = self.epoch_us.saturating_add(drift_us);
            epoch_us = epoch_us.saturating_add(drift_us);
        }
        self.steps.push_back(Step::Open {
            number: self.next_number,
            epoch_us,
            origin_ms,
            tracks: tracks.clone(),
        });
        self.next_number += 1;
        self.first_ms.get_or_insert(start_ms);
        self.split = None;
        self.open = Some(Open {
            number: self.next_number - 1,
            bytes: 0,
            until_us: self.policy.align.map(|align| align.after(self.clock_us, &self.zone)),
            asked_ms: None,
            tracks,
            origin_ms,
            start_ms,
            opened_ms: self.media_ms(),
            due: None,
            leaps_ms: 0,
            flapped: false,
            written: Vec::new(),
        });
        for sample in gather.samples {
            self.write(sample);
        }
    }

    fn write(&mut self, sample: Sample) {
        let (before, distance) = self.last.get(&sample.track).copied().unwrap_or((sample.dts_ms, 0));
        // What follows a hole says nothing of how long a sample lasts.
        let distance = if sample.discontinuity { distance } else { sample.dts_ms - before };
        self.last.insert(sample.track, (sample.dts_ms, distance));
        if let Some(open) = &mut self.open {
            open.bytes += sample.data.len() as u64;
            if !open.written.contains(&sample.track) {
                open.written.push(sample.track);
            }
        }
        self.steps.push_back(Step::Sample(sample));
    }

    /// Where each track of a segment ends, given the first samples of what follows.
    fn ends(&self, segment: &Open, next: &[Sample]) -> Vec<(u32, i64)> {
        let end = |&track: &u32| {
            let &(dts, distance) = self.last.get(&track)?;
            let next = next.iter().find(|s| s.track == track).map(|s| s.dts_ms);
            // Nothing lasts as long as a pause.
            let next = next.filter(|next| next - dts <= MAX_STEP_MS);
            Some((track, next.unwrap_or(dts + distance).max(dts)))
        };
        let mut ends: Vec<(u32, i64)> = segment.written.iter().filter_map(end).collect();
        ends.sort_unstable();
        ends
    }

    fn report_left_out(&mut self) {
        // What goes on is told when it is over.
        let skipped =
            if self.need_key.is_some() { Gap::default() } else { std::mem::take(&mut self.skipped) };
        let skipped = (skipped, Note::Skipped as fn(Gap) -> Note);
        let flapping = (std::mem::take(&mut self.flapping), Note::Flapping as fn(Gap) -> Note);
        let why =
            if std::mem::replace(&mut self.was_halted, self.halted) { Note::Halted } else { Note::Lost };
        let lost = (self.lost.take().unwrap_or_default(), why as fn(Gap) -> Note);
        for (gap, note) in [skipped, flapping, lost] {
            if gap.samples > 0 {
                self.steps.push_back(Step::Note(note(gap)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
