//! The plan over whole streams, in simulated time.

use bytes::Bytes;

use super::*;
use crate::registry::Declared;

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;

fn policy() -> Policy {
    Policy { chunk_ms: None, wait_for_key: true, audio: true, track_timeout: Duration::from_secs(2) }
}

fn track(id: u32, config: &'static [u8]) -> Track {
    let (kind, codec) = if id == VIDEO { (Kind::Video, "avc1") } else { (Kind::Audio, "mp4a") };
    Track { id, kind, codec: codec.into(), config: Bytes::from_static(config), properties: vec![] }
}

fn tracks(known: &[Track], video: bool, audio: bool) -> Item {
    Item::Tracks(Arc::new(Tracks { known: known.to_vec(), declared: Some(Declared { video, audio }) }))
}

fn sample(track: u32, dts_ms: i64, key: bool) -> Sample {
    Sample { track, dts_ms, pts_ms: dts_ms, key, discontinuity: false, data: Bytes::from_static(b"x") }
}

/// Drives a plan with a wall clock that follows the media.
struct Run {
    plan: Plan,
    start: Instant,
    steps: Vec<Step>,
    /// What a writer answers to new tracks.
    takes_tracks: bool,
}

impl Run {
    fn new(policy: Policy, joined: bool) -> Self {
        Self { plan: Plan::new(policy, joined), start: Instant::now(), steps: vec![], takes_tracks: true }
    }

    fn now(&self, ms: i64) -> Now {
        Now {
            instant: self.start + Duration::from_millis(ms.max(0).unsigned_abs()),
            epoch_us: 1_000_000_000 + ms * 1000,
        }
    }

    fn push(&mut self, item: Item, ms: i64) {
        self.plan.push(item, self.now(ms));
        while let Some(step) = self.plan.step() {
            if matches!(step, Step::Tracks(_)) {
                self.plan.tracks_taken(self.takes_tracks, self.now(ms));
            }
            self.steps.push(step);
        }
    }

    fn sample(&mut self, track: u32, dts_ms: i64, key: bool) {
        self.push(Item::Sample(sample(track, dts_ms, key)), dts_ms);
    }

    fn end(mut self) -> Vec<Segment> {
        self.plan.end("stream-ended", self.now(0));
        self.steps.extend(std::iter::from_fn(|| self.plan.step()));
        segments(&self.steps)
    }

    fn notes(&self) -> Vec<Note> {
        let note = |step: &Step| if let Step::Note(note) = step { Some(*note) } else { None };
        self.steps.iter().filter_map(note).collect()
    }
}

#[derive(Debug, Default, PartialEq)]
struct Segment {
    origin_ms: i64,
    epoch_us: i64,
    tracks: usize,
    samples: Vec<(u32, i64)>,
    reason: &'static str,
    ends: Vec<(u32, i64)>,
}

/// Checks the order of steps and gathers them by segment.
fn segments(steps: &[Step]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut open = false;
    for step in steps {
        match step {
            Step::Open { number, epoch_us, origin_ms, tracks } => {
                assert!(!open && *number == segments.len() as u64);
                open = true;
                segments.push(Segment {
                    origin_ms: *origin_ms,
                    epoch_us: *epoch_us,
                    tracks: tracks.len(),
                    ..Segment::default()
                });
            }
            Step::Sample(sample) => {
                assert!(open);
                let segment = segments.last_mut().unwrap();
                assert!(sample.dts_ms >= segment.origin_ms, "before the origin: {sample:?}");
                segment.samples.push((sample.track, sample.dts_ms));
            }
            Step::Close { reason, ends } => {
                assert!(open);
                open = false;
                let segment = segments.last_mut().unwrap();
                segment.reason = reason;
                segment.ends.clone_from(ends);
            }
            Step::Tracks(_) | Step::Note(_) => {}
        }
    }
    assert!(!open);
    segments
}

/// A stream of 25 frames a second with a key frame each `gop`, and audio each 23 ms, in order of arrival:
/// audio comes `late_ms` later than its time.
fn av(until_ms: i64, gop_ms: i64, late_ms: i64) -> Vec<Sample> {
    let video = (0..until_ms).step_by(40).map(|dts| (dts, sample(VIDEO, dts, dts % gop_ms == 0)));
    let audio = (0..until_ms).step_by(23).map(|dts| (dts + late_ms, sample(AUDIO, dts, true)));
    let mut all: Vec<_> = video.chain(audio).collect();
    all.sort_by_key(|&(arrival, ref s)| (arrival, s.track));
    all.into_iter().map(|(_, s)| s).collect()
}

fn of(samples: &[Sample], track: u32) -> Vec<i64> {
    samples.iter().filter(|s| s.track == track).map(|s| s.dts_ms).collect()
}

#[test]
fn a_stream_is_recorded_from_its_first_sample_to_its_last() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[], true, true), 0);
    run.push(tracks(&[track(VIDEO, b"v")], true, true), 0);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    let input = av(1000, 500, 10);
    input.iter().for_each(|s| run.push(Item::Sample(s.clone()), s.dts_ms));
    let [segment] = &run.end()[..] else { panic!() };
    assert_eq!(segment.samples, input.iter().map(|s| (s.track, s.dts_ms)).collect::<Vec<_>>());
    assert_eq!((segment.origin_ms, segment.tracks, segment.reason), (0, 2, "stream-ended"));
    assert_eq!(segment.ends, [(VIDEO, 1000), (AUDIO, 1012)]);
    assert_eq!(segment.epoch_us, 1_000_000_000);
}

#[test]
fn the_origin_is_the_earliest_of_all_tracks() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for (t, dts, key) in [(VIDEO, 5066, true), (VIDEO, 5106, false), (AUDIO, 5000, true)] {
        run.push(Item::Sample(sample(t, dts, key)), 0);
    }
    let [segment] = &run.end()[..] else { panic!() };
    assert_eq!(segment.samples, [(VIDEO, 66), (VIDEO, 106), (AUDIO, 0)]);
}

#[test]
fn cuts_are_exactly_before_key_frames_and_lose_nothing() {
    for late_ms in [0, 1, 30, 100, 499] {
        let chunks = Policy { chunk_ms: Some(5000), ..policy() };
        let mut run = Run::new(chunks, false);
        run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
        let input = av(60_000, 2000, late_ms);
        let mut latest = 0;
        for s in &input {
            latest = s.dts_ms.max(latest);
            run.push(Item::Sample(s.clone()), latest);
        }
        let segments = run.end();
        assert_eq!(segments.len(), 10, "6 s each");
        for (i, segment) in segments.iter().enumerate() {
            let first = segment.samples.iter().find(|s| s.0 == VIDEO).unwrap().1;
            assert_eq!(first, 6000 * i as i64);
            assert_eq!(segment.origin_ms, segment.samples.iter().map(|s| s.1).min().unwrap());
            assert_eq!(segment.epoch_us, 1_000_000_000 + segment.origin_ms * 1000);
        }
        for pair in segments.windows(2) {
            for &(track, end) in &pair[0].ends {
                let next = pair[1].samples.iter().find(|s| s.0 == track).unwrap().1;
                assert_eq!(end, next, "track {track} ends where it goes on");
            }
        }
        for track in [VIDEO, AUDIO] {
            let got: Vec<i64> =
                segments.iter().flat_map(|s| &s.samples).filter(|s| s.0 == track).map(|s| s.1).collect();
            assert_eq!(got, of(&input, track));
        }
    }
}

#[test]
fn audio_alone_is_cut_anywhere_and_never_cuts_video() {
    let chunks = Policy { chunk_ms: Some(1000), ..policy() };
    let mut run = Run::new(chunks, false);
    run.push(tracks(&[track(AUDIO, b"a")], false, true), 0);
    (0..3000).step_by(25).for_each(|dts| run.sample(AUDIO, dts, true));
    let lengths: Vec<_> = run.end().iter().map(|s| s.samples.len()).collect();
    assert_eq!(lengths, [40, 40, 40]);
}

#[test]
fn without_wait_for_idr_any_frame_cuts() {
    let any = Policy { chunk_ms: Some(1000), wait_for_key: false, ..policy() };
    let mut run = Run::new(any, false);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    (0..3000).step_by(40).for_each(|dts| run.sample(VIDEO, dts, dts == 0));
    let starts: Vec<_> = run.end().iter().map(|s| s.samples[0].1).collect();
    assert_eq!(starts, [0, 1000, 2000]);
}

#[test]
fn a_cut_does_not_wait_for_a_key_frame_for_ever() {
    let chunks = Policy { chunk_ms: Some(2000), ..policy() };
    let mut run = Run::new(chunks, false);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    (0..=12_000).step_by(40).for_each(|dts| run.sample(VIDEO, dts, dts == 0));
    assert_eq!(run.notes(), [Note::NoKeyFrame { waited_ms: 10_000 }]);
    let starts: Vec<_> = run.end().iter().map(|s| s.samples[0].1).collect();
    assert_eq!(starts, [0, 10_000]);
}

#[test]
fn a_start_waits_for_declared_tracks_but_not_for_ever() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v")], true, true), 0);
    for dts in (0..2000).step_by(40) {
        run.sample(VIDEO, dts, dts == 0);
        assert_eq!(run.steps.len(), 0, "audio was declared");
    }
    run.sample(VIDEO, 2000, false);
    let [segment] = &run.end()[..] else { panic!() };
    assert_eq!((segment.samples.len(), segment.tracks), (51, 1));
}

#[test]
fn frames_before_the_first_key_frame_are_left_out_but_the_sound_is_kept() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for s in av(2000, 1000, 0) {
        run.sample(s.track, s.dts_ms, s.track == AUDIO || s.dts_ms == 1000);
    }
    assert_eq!(run.notes().len(), 1, "{:?}", run.notes());
    let segments = run.end();
    let [segment] = &segments[..] else { panic!() };
    let video: Vec<_> = segment.samples.iter().filter(|s| s.0 == VIDEO).map(|s| s.1).collect();
    assert_eq!(video.first(), Some(&1000));
    assert_eq!(segment.samples.iter().filter(|s| s.0 == AUDIO).count(), 87);
}

#[test]
fn a_run_that_joins_begins_at_a_key_frame() {
    let mut run = Run::new(policy(), true);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for s in av(3000, 1000, 0).into_iter().filter(|s| s.dts_ms >= 500) {
        run.sample(s.track, s.dts_ms, s.key);
    }
    assert_eq!(run.notes().len(), 1, "{:?}", run.notes());
    let [segment] = &run.end()[..] else { panic!() };
    assert_eq!(segment.samples[0].0, VIDEO);
    assert_eq!(segment.samples.iter().filter(|s| s.0 == VIDEO).count(), 50, "from 1000 on");
}

#[test]
fn after_a_failed_segment_the_next_key_frame_begins_another() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    for dts in (0..3000).step_by(40) {
        run.sample(VIDEO, dts, dts % 1000 == 0);
        if dts == 1480 {
            run.plan.segment_failed(&[sample(VIDEO, dts, false)]);
            run.steps.push(Step::Close { reason: "error", ends: vec![] });
        }
    }
    let lost = Gap { samples: 13, bytes: 13, from_dts_ms: 1480, to_dts_ms: 1960 };
    assert_eq!(run.notes(), [Note::Lost(lost)]);
    let segments = run.end();
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].samples[0], (VIDEO, 2000));
}

#[test]
fn a_new_video_configuration_that_is_refused_cuts_at_once_and_loses_nothing() {
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for s in av(2000, 1000, 0) {
        if s.dts_ms == 1000 && s.track == VIDEO {
            run.push(tracks(&[track(VIDEO, b"w"), track(AUDIO, b"a")], true, true), 1000);
        }
        run.sample(s.track, s.dts_ms, s.key);
    }
    let segments = run.end();
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].samples[0], (VIDEO, 1000));
    assert_eq!(segments.iter().map(|s| s.samples.len()).sum::<usize>(), av(2000, 1000, 0).len());
}

#[test]
fn a_late_track_that_is_refused_joins_at_the_next_key_frame() {
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    for s in av(3000, 1000, 0) {
        if s.track == AUDIO && s.dts_ms < 500 {
            continue;
        }
        if s.track == AUDIO && s.dts_ms < 520 {
            run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, false), 500);
        }
        run.sample(s.track, s.dts_ms, s.key);
    }
    let segments = run.end();
    assert_eq!(segments.iter().map(|s| s.tracks).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(segments[1].samples[0], (VIDEO, 1000));
    assert_eq!(segments.iter().flat_map(|s| &s.samples).filter(|s| s.0 == VIDEO).count(), 75);
}

#[test]
fn sound_can_be_left_out() {
    let mut run = Run::new(Policy { audio: false, ..policy() }, false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    av(1000, 500, 0).iter().for_each(|s| run.sample(s.track, s.dts_ms, s.key));
    let [segment] = &run.end()[..] else { panic!() };
    assert!(segment.tracks == 1 && segment.samples.iter().all(|s| s.0 == VIDEO));
}

#[test]
fn a_stream_that_ends_at_once_is_recorded_all_the_same() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v")], true, true), 0);
    run.sample(VIDEO, 0, true);
    let [segment] = &run.end()[..] else { panic!() };
    assert_eq!(segment.samples, [(VIDEO, 0)]);
    assert!(Run::new(policy(), false).end().is_empty());
}

#[test]
fn a_gap_is_reported_and_marks_what_follows() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    run.sample(VIDEO, 0, true);
    let gap = Gap { samples: 3, bytes: 9, from_dts_ms: 40, to_dts_ms: 120 };
    run.push(Item::Gap(gap), 0);
    run.sample(VIDEO, 1000, true);
    run.sample(VIDEO, 1040, false);
    assert_eq!(run.notes(), [Note::Gap(gap)]);
    let marks: Vec<bool> = run
        .steps
        .iter()
        .filter_map(|s| if let Step::Sample(s) = s { Some(s.discontinuity) } else { None })
        .collect();
    assert_eq!(marks, [false, true, false]);
}

#[test]
fn a_track_that_is_gone_does_not_draw_the_origin_back() {
    let chunks = Policy { chunk_ms: Some(2000), ..policy() };
    let mut run = Run::new(chunks, false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for s in av(60_000, 2000, 0).into_iter().filter(|s| s.track == VIDEO || s.dts_ms < 3000) {
        run.sample(s.track, s.dts_ms, s.key);
    }
    let segments = run.end();
    assert_eq!(segments.len(), 30);
    for segment in &segments {
        let first = segment.samples.iter().map(|s| s.1).min().unwrap();
        assert!((first - 500..=first).contains(&segment.origin_ms), "{} of {first}", segment.origin_ms);
        let with_samples = |&(track, _): &(u32, i64)| segment.samples.iter().any(|s| s.0 == track);
        assert!(segment.ends.iter().all(with_samples), "{:?}", segment.ends);
    }
}

#[test]
fn sound_alone_cuts_when_the_picture_has_gone() {
    let chunks = Policy { chunk_ms: Some(5000), ..policy() };
    let mut run = Run::new(chunks, false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for s in av(60_000, 1000, 0).into_iter().filter(|s| s.track == AUDIO || s.dts_ms < 2000) {
        run.sample(s.track, s.dts_ms, s.key);
    }
    assert!(run.end().len() > 5);
}

/// The steps at a cut are Close, Open, Sample…; the old segment fails before it is closed.
#[test]
fn a_segment_that_fails_at_its_end_costs_the_next_nothing() {
    let chunks = Policy { chunk_ms: Some(1000), ..policy() };
    let mut plan = Plan::new(chunks, false);
    let run = Run::new(chunks, false);
    plan.push(tracks(&[track(VIDEO, b"v")], true, false), run.now(0));
    let mut steps = Vec::new();
    for dts in (0..2000).step_by(40) {
        plan.push(Item::Sample(sample(VIDEO, dts, dts % 1000 == 0)), run.now(dts));
        if dts == 1000 {
            assert!(matches!(plan.step(), Some(Step::Close { .. })));
            plan.segment_failed(&[sample(VIDEO, 960, false)]);
        }
        steps.extend(std::iter::from_fn(|| plan.step()));
    }
    let lost = Gap { samples: 1, bytes: 1, from_dts_ms: 960, to_dts_ms: 960 };
    assert!(steps.contains(&Step::Note(Note::Lost(lost))));
    let opened = steps.iter().position(|s| matches!(s, Step::Open { number: 1, .. })).unwrap();
    assert_eq!(steps.iter().skip(opened).filter(|s| matches!(s, Step::Sample(_))).count(), 25);
}
