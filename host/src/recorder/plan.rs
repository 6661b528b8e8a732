//! When segments start, what belongs to them, when they end. Pure: takes what a subscriber gets, and the
//! time; gives steps for a writer.
//!
//! ```text
//!             tracks known             each track has a sample
//!   Waiting ────────────▶ Gathering ─────────────────────────▶ Writing ──┐
//!                            ▲   (Close), Open, Sample…           │      │ Sample, Tracks
//!                            └────────────────────────────────────┘◀─────┘
//!                              a key frame after chunkLength, or tracks that
//!                              the format can't take, or a segment that failed
//! ```
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

use super::timeline::{Repair, Timeline};
use crate::{
    media::{Kind, Sample, Track},
    registry::{Gap, Item, Tracks},
};

/// Longest gathering at a cut, by the clock and by the media.
pub const GATHER: Duration = Duration::from_millis(GATHER_MS as u64);
const GATHER_MS: i64 = 500;
/// Most bytes that are held back for a start.
const MAX_HELD: usize = 16 << 20;
/// Shortest wait for a key frame before a segment starts without one.
const MIN_KEY_WAIT_MS: i64 = 10_000;

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
    /// Samples before the first key frame, or of a track that the segment can't take, were left out.
    Skipped { samples: u64 },
    /// The publisher's clock stepped back by so many milliseconds.
    ClockStep { back_ms: i64 },
    /// A segment starts without a key frame, since none came for so many milliseconds.
    NoKeyFrame { waited_ms: i64 },
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
    /// Wall clock at run time 0.
    epoch_us: i64,
    next_number: u64,
    open: Option<Open>,
    gather: Option<Gather>,
    /// By track: the last DTS, and its distance from the one before.
    last: HashMap<u32, (i64, i64)>,
    /// No video before a key frame; since when, in run time.
    need_key: Option<Option<i64>>,
    /// Everything is left out until a segment can start.
    resuming: bool,
    skipped: u64,
    /// What a failed segment cost so far.
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
    /// It ends at the next key frame, since its format can't take the tracks as they are; until then samples of
    /// these are left out.
    refused: Option<Vec<u32>>,
    /// Tracks that it has samples of.
    written: Vec<u32>,
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
            epoch_us: 0,
            next_number: 0,
            open: None,
            gather: None,
            last: HashMap::new(),
            need_key: None,
            resuming: false,
            skipped: 0,
            lost: None,
            broken: Vec::new(),
            steps: VecDeque::new(),
        }
    }

    /// Takes the next item. Take all steps before the next one.
    pub fn push(&mut self, item: Item, now: Now) {
        match item {
            Item::Tracks(tracks) => self.tracks_changed(&tracks),
            Item::Gap(gap) => {
                self.steps.push_back(Step::Note(Note::Gap(gap)));
                self.broken = self.tracks.known.iter().map(|t| t.id).collect();
            }
            Item::Sample(mut sample) => {
                if self.track(sample.track).is_none() {
                    return;
                }
                if let Some(i) = self.broken.iter().position(|&id| id == sample.track) {
                    self.broken.swap_remove(i);
                    sample.discontinuity = true;
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
    pub fn tracks_taken(&mut self, taken: bool, now: Now) {
        let known = self.tracks.known.clone();
        let Some(open) = &mut self.open else { return };
        if taken {
            open.tracks = known;
            open.refused = None;
            return;
        }
        let changed = |t: &&Track| open.tracks.iter().all(|old| old.id != t.id || old.config != t.config);
        let refused: Vec<&Track> = known.iter().filter(changed).collect();
        // Video with a new configuration goes on with a key frame; anything else waits for the next one.
        if refused.iter().any(|t| t.kind == Kind::Video) && open.tracks.iter().any(|t| t.kind == Kind::Video)
        {
            self.gather = Some(Gather::new(now.instant));
        } else {
            open.refused = Some(refused.iter().map(|t| t.id).collect());
        }
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
            if let Some(gather) = self.gather.take() {
                let lost = self.lost.as_mut().expect("set above");
                gather.samples.iter().for_each(|sample| extend(lost, sample));
            }
            self.open = None;
            self.resuming = true;
        }
        notes.into_iter().rev().for_each(|note| self.steps.push_front(note));
    }

    /// No more items come: everything that waits gets its place.
    pub fn end(&mut self, reason: &'static str, now: Now) {
        if self.line.is_none() {
            self.start(now, true);
        }
        self.gathered();
        self.report_skipped();
        if let Some(open) = self.open.take() {
            let ends = self.ends(&open, &[]);
            self.steps.push_back(Step::Close { reason, ends });
        }
    }

    fn track(&self, id: u32) -> Option<&Track> {
        self.tracks.known.iter().find(|t| t.id == id)
    }

    fn video(&self) -> Option<u32> {
        self.tracks.known.iter().find(|t| t.kind == Kind::Video).map(|t| t.id)
    }

    fn tracks_changed(&mut self, tracks: &Tracks) {
        let mut tracks = tracks.clone();
        if !self.policy.audio {
            tracks.known.retain(|t| t.kind != Kind::Audio);
            tracks.declared = tracks.declared.map(|d| crate::registry::Declared { audio: false, ..d });
        }
        self.tracks = Arc::new(tracks);
        if self.gather.is_none()
            && let Some(open) = &self.open
            && open.tracks != self.tracks.known
        {
            self.steps.push_back(Step::Tracks(self.tracks.known.clone()));
        }
    }

    /// Starts the run if enough is known, or in any case.
    fn start(&mut self, now: Now, force: bool) {
        let Some(since) = self.since else { return };
        let (min, max) = span(&self.waiting);
        let shown = |t: &Track| self.waiting.iter().any(|s| s.track == t.id);
        let ready = self.tracks.complete() && self.tracks.known.iter().all(shown);
        let bytes: usize = self.waiting.iter().map(|s| s.data.len()).sum();
        let timeout = self.policy.track_timeout;
        let late = now.instant.duration_since(since) >= timeout
            || u128::from((max - min).unsigned_abs()) >= timeout.as_millis()
            || bytes >= MAX_HELD;
        if !(ready || late || force) {
            return;
        }
        let video = self.video();
        let mut samples = std::mem::take(&mut self.waiting);
        if self.policy.wait_for_key
            && let Some(video) = video
        {
            self.need_key = Some(None);
            if self.joined {
                // What was live before we came is no beginning.
                self.resuming = true;
                let key = samples.iter().position(|s| s.track == video && s.key).unwrap_or(samples.len());
                self.skipped += samples.drain(..key).count() as u64;
            }
        }
        let (zero, _) = span(&samples);
        let zero = if samples.is_empty() { max } else { zero };
        self.line = Some(Timeline::new(zero));
        self.epoch_us = now.epoch_us - (max - zero) * 1000;
        for sample in samples {
            self.place(sample, now);
        }
        // They were together long enough.
        if late {
            self.gathered();
        }
    }

    /// Moves a sample to run time and decides where it goes.
    fn place(&mut self, mut sample: Sample, now: Now) {
        let line = self.line.as_mut().expect("the run has started");
        if let Repair::Rebased(back_ms) = line.place(&mut sample) {
            self.steps.push_back(Step::Note(Note::ClockStep { back_ms }));
        }
        let lead = self.leads(&sample);
        if !self.has_key(&sample) {
            self.skipped += 1;
            return;
        }
        if let Some(gather) = &mut self.gather {
            gather.push(sample);
        } else if let Some(open) = &mut self.open {
            let length = sample.dts_ms - open.start_ms;
            let key = sample.key || !self.policy.wait_for_key;
            let full = self.policy.chunk_ms.is_some_and(|chunk| length >= chunk);
            let overdue = full && length >= self.policy.key_wait_ms();
            if lead && ((key && (full || open.refused.is_some())) || overdue) {
                if !key {
                    self.steps.push_back(Step::Note(Note::NoKeyFrame { waited_ms: length }));
                }
                self.begin_gather(sample, now);
            } else if open.refused.as_ref().is_some_and(|refused| refused.contains(&sample.track)) {
                self.skipped += 1;
            } else {
                let early = (open.origin_ms - sample.dts_ms).max(0);
                sample.dts_ms += early;
                sample.pts_ms += early;
                self.write(sample);
            }
        } else if self.resuming && !(lead && (sample.key || !self.policy.wait_for_key)) {
            match &mut self.lost {
                Some(lost) => extend(lost, &sample),
                None => self.skipped += 1,
            }
        } else {
            self.resuming = false;
            self.begin_gather(sample, now);
        }
        self.gathered_if_ready(now);
    }

    /// Whether segments begin and end at samples of this track: video, or audio where there is none, or has been none for
    /// a long time.
    fn leads(&self, sample: &Sample) -> bool {
        let Some(video) = self.video().filter(|&video| video != sample.track) else { return true };
        let start_ms = self.open.as_ref().map_or(0, |open| open.start_ms);
        let last_ms = self.last.get(&video).map_or(start_ms, |&(dts, _)| dts);
        sample.dts_ms - last_ms >= self.policy.key_wait_ms()
    }

    /// Whether the sample may be written as far as key frames go.
    fn has_key(&mut self, sample: &Sample) -> bool {
        let Some(since) = self.need_key else { return true };
        if self.video() != Some(sample.track) {
            return true;
        }
        let since = since.unwrap_or(sample.dts_ms);
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
        true
    }

    fn begin_gather(&mut self, sample: Sample, now: Now) {
        let mut gather = Gather::new(now.instant);
        gather.push(sample);
        self.gather = Some(gather);
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
        self.report_skipped();
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
        self.open = Some(Open { tracks, origin_ms, start_ms, refused: None, written: Vec::new() });
        for sample in gather.samples {
            self.write(sample);
        }
    }

    fn write(&mut self, sample: Sample) {
        let before = self.last.get(&sample.track).map_or(sample.dts_ms, |&(dts, _)| dts);
        self.last.insert(sample.track, (sample.dts_ms, sample.dts_ms - before));
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
            Some((track, next.unwrap_or(dts + distance).max(dts)))
        };
        let mut ends: Vec<(u32, i64)> = segment.written.iter().filter_map(end).collect();
        ends.sort_unstable();
        ends
    }

    fn report_skipped(&mut self) {
        if self.skipped > 0 {
            let samples = std::mem::take(&mut self.skipped);
            self.steps.push_back(Step::Note(Note::Skipped { samples }));
        }
        if let Some(lost) = self.lost.take().filter(|lost| lost.samples > 0) {
            self.steps.push_back(Step::Note(Note::Lost(lost)));
        }
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

/// First and last DTS; 0 for none.
fn span(samples: &[Sample]) -> (i64, i64) {
    let dts = || samples.iter().map(|s| s.dts_ms);
    (dts().min().unwrap_or(0), dts().max().unwrap_or(0))
}

#[cfg(test)]
mod tests;
