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

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::timeline::{MAX_STEP_MS, Placed, Timeline, Timestamps};
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

/// What an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Samples were dropped because the recording was too slow.
    Gap(Gap),
    /// Samples were lost with a segment that failed, and up to the start of the next.
    Lost(Gap),
    /// Samples were lost while nothing could be written.
    Halted(Gap),
    /// Samples before a key frame were left out.
    Skipped(Gap),
    /// Samples of codec configurations that changed too fast were left out.
    Flapping(Gap),
    /// Nothing came; the wall clock says so too. `track`: it alone was silent, and the segment goes on.
    Paused { track: Option<u32>, from_ms: i64, to_ms: i64 },
    /// The publisher's clock leapt by so many milliseconds; in run time it is a step from here to there.
    ClockStep { track: u32, step_ms: i64, from_ms: i64, to_ms: i64 },
    /// The publisher's clock started again after a power of two; that was undone.
    ClockWrap { track: u32, by_ms: i64 },
    /// A track's clock was so far from that of the others that it was put beside them.
    Aligned { track: u32, apart_ms: i64 },
    /// The stream ended and came back.
    Reconnected { from_ms: i64, to_ms: i64 },
    /// A segment starts without a key frame, since none came for so many milliseconds.
    NoKeyFrame { waited_ms: i64 },
}

/// A stretch of a run that was lost, or that a moved time line jumps over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRecord {
    pub reason: GapReason,
    /// In run time: the last sample before, or the first that was lost…
    pub from_ms: i64,
    /// … and the first after, or the last that was lost.
    pub to_ms: i64,
    /// Lost; 0 where time was moved and nothing lost.
    pub samples: u64,
    pub bytes: u64,
}

/// Why there is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The recording was too slow for the stream.
    Slow,
    FailedSegment,
    /// The publisher's clock stepped back.
    ClockBack,
    /// The publisher's clock leapt ahead.
    ClockForward,
    /// The publisher sent nothing.
    Paused,
    /// The stream was away.
    Reconnect,
    /// Codec configurations changed too fast.
    Flapping,
    BeforeKeyFrame,
    /// The disk had no room, or failed.
    Disk,
}

impl GapReason {
    /// The word for it in logs and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Slow => "slow",
            GapReason::FailedSegment => "failed-segment",
            GapReason::ClockBack => "clock-back",
            GapReason::ClockForward => "clock-forward",
            GapReason::Paused => "paused",
            GapReason::Reconnect => "reconnect",
            GapReason::Flapping => "flapping",
            GapReason::BeforeKeyFrame => "before-key-frame",
            GapReason::Disk => "disk",
        }
    }
}

impl Note {
    /// The stretch that was lost or moved; `None` for what costs nothing.
    pub fn gap(&self) -> Option<GapRecord> {
        let lost = |reason, gap: &Gap| GapRecord {
            reason,
            from_ms: gap.from_dts_ms,
            to_ms: gap.to_dts_ms,
            samples: gap.samples,
            bytes: gap.bytes,
        };
        let moved = |reason, &from_ms, &to_ms| GapRecord { reason, from_ms, to_ms, samples: 0, bytes: 0 };
        match self {
            Note::Gap(gap) => Some(lost(GapReason::Slow, gap)),
            Note::Lost(gap) => Some(lost(GapReason::FailedSegment, gap)),
            Note::Halted(gap) => Some(lost(GapReason::Disk, gap)),
            Note::Skipped(gap) => Some(lost(GapReason::BeforeKeyFrame, gap)),
            Note::Flapping(gap) => Some(lost(GapReason::Flapping, gap)),
            Note::Paused { from_ms, to_ms, .. } => Some(moved(GapReason::Paused, from_ms, to_ms)),
            Note::ClockStep { step_ms, from_ms, to_ms, .. } => {
                let reason = if *step_ms < 0 { GapReason::ClockBack } else { GapReason::ClockForward };
                Some(moved(reason, from_ms, to_ms))
            }
            Note::Reconnected { from_ms, to_ms } => Some(moved(GapReason::Reconnect, from_ms, to_ms)),
            Note::ClockWrap { .. } | Note::Aligned { .. } | Note::NoKeyFrame { .. } => None,
        }
    }
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    /// Microseconds since 1970.
    pub epoch_us: i64,
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

/// The segment that is being written.
#[derive(Debug)]
struct Open {
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

/// Samples that wait for the next segment, in run time.
#[derive(Debug, Default)]
struct Held {
    samples: Vec<Sample>,
    bytes: usize,
}

/// Samples of the segment to come, in run time.
#[derive(Debug)]
struct Gather {
    since: Instant,
    samples: Vec<Sample>,
    bytes: usize,
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
        match item {
            Item::Tracks(tracks) => self.tracks_changed(&tracks, now),
            Item::Gap(mut gap) => {
                if let Some(line) = &self.line {
                    gap.from_dts_ms = line.run_ms(gap.from_dts_ms);
                    gap.to_dts_ms = line.run_ms(gap.to_dts_ms);
                }
                self.steps.push_back(Step::Note(Note::Gap(gap)));
                self.broken = self.tracks.known.iter().map(|t| t.id).collect();
            }
            Item::Sample(sample) => {
                if self.track(sample.track).is_none() {
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

    /// The next step.
    pub fn step(&mut self) -> Option<Step> {
        self.steps.pop_front()
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
        self.anchor(start_ms + ahead_ms.unwrap_or(0), now);
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
        let full = self.policy.chunk_ms.is_some_and(|chunk| length_ms >= chunk);
        let waited_ms =
            open.due.as_mut().map(|due| sample.dts_ms - *due.since_ms.get_or_insert(sample.dts_ms));
        let overdue = (full && length_ms >= key_wait_ms) || waited_ms.is_some_and(|ms| ms >= key_wait_ms);
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
        if let Some(open) = self.open.take() {
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
        self.steps.push_back(Step::Open {
            number: self.next_number,
            epoch_us: self.epoch_us + origin_ms * 1000,
            origin_ms,
            tracks: tracks.clone(),
        });
        self.next_number += 1;
        self.open = Some(Open {
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
        if let Some(open) = self.open.as_mut().filter(|open| !open.written.contains(&sample.track)) {
            open.written.push(sample.track);
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

impl Held {
    fn push(&mut self, sample: Sample) {
        self.bytes += sample.data.len();
        self.samples.push(sample);
    }

    fn take(&mut self) -> Vec<Sample> {
        std::mem::take(self).samples
    }
}

impl Gather {
    fn new(since: Instant) -> Self {
        Self { since, samples: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, sample: Sample) {
        self.bytes += sample.data.len();
        self.samples.push(sample);
    }
}

/// Adds a sample, in run time, to a gap.
fn extend(gap: &mut Gap, sample: &Sample) {
    if gap.samples == 0 {
        (gap.from_dts_ms, gap.to_dts_ms) = (sample.dts_ms, sample.dts_ms);
    }
    gap.samples += 1;
    gap.bytes += sample.data.len() as u64;
    gap.from_dts_ms = gap.from_dts_ms.min(sample.dts_ms);
    gap.to_dts_ms = gap.to_dts_ms.max(sample.dts_ms);
}

/// Earliest time of the tracks that begin together with the first sample.
fn beginning(samples: &[Sample]) -> Option<i64> {
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
fn length(samples: &[Sample], track: u32) -> Duration {
    let dts = || samples.iter().filter(|s| s.track == track).map(|s| s.dts_ms);
    let steps = dts().zip(dts().skip(1)).map(|(before, after)| after - before);
    let ms: i64 = steps.filter(|step| (0..=MAX_STEP_MS).contains(step)).sum();
    Duration::from_millis(ms.unsigned_abs())
}

/// First and last DTS; 0 for none.
fn span(samples: &[Sample]) -> (i64, i64) {
    let dts = || samples.iter().map(|s| s.dts_ms);
    (dts().min().unwrap_or(0), dts().max().unwrap_or(0))
}

#[cfg(test)]
mod tests;
