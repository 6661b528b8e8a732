//! The plan over whole streams, in simulated time.

use bytes::Bytes;

use super::*;
use crate::registry::Declared;

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;

fn policy() -> Policy {
    Policy::default()
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
                self.plan.tracks_taken(self.takes_tracks);
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

fn of_segment(segment: &Segment, track: u32) -> Vec<i64> {
    segment.samples.iter().filter(|s| s.0 == track).map(|s| s.1).collect()
}

fn all(segments: &[Segment], track: u32) -> Vec<i64> {
    segments.iter().flat_map(|segment| of_segment(segment, track)).collect()
}

fn both() -> Item {
    tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true)
}

fn gaps(notes: &[Note]) -> Vec<(&'static str, i64, i64, u64)> {
    let gaps = notes.iter().filter_map(Note::gap);
    gaps.map(|gap| (gap.reason.as_str(), gap.from_ms, gap.to_ms, gap.samples)).collect()
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
    assert_eq!(gaps(&run.notes()), [("before-key-frame", 0, 960, 25)]);
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
    assert_eq!(gaps(&run.notes()), [("failed-segment", 1480, 1960, 13)]);
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
    assert_eq!(of_segment(&segments[1], VIDEO)[0], 1000);
    assert_eq!(of_segment(&segments[1], AUDIO)[0], 506, "from its first sample on");
    assert_eq!(all(&segments, VIDEO).len(), 75);
    assert_eq!(all(&segments, AUDIO), (506..3000).step_by(23).collect::<Vec<_>>());
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

/// Chunks of 2 s with a key frame each second, and sound that comes late, whose writer fails before the step of that
/// number; `held`: samples that it had held back at a segment's end, and that are given again.
fn failing(fail_at: usize, held: usize) -> (Vec<Segment>, bool) {
    let mut run = Run::new(Policy { chunk_ms: Some(2000), ..policy() }, false);
    let mut failed = false;
    let mut fail = |plan: &mut Plan, steps: &mut Vec<Step>| {
        let Some(begun) = steps.iter().rposition(|s| matches!(s, Step::Open { .. } | Step::Close { .. }))
        else {
            return;
        };
        let Step::Open { number, epoch_us, origin_ms, tracks } = steps[begun].clone() else { return };
        let is_key = |s: &Step| matches!(s, Step::Sample(s) if s.track == VIDEO && s.key);
        let key = steps.iter().rposition(is_key).unwrap_or(begun).max(begun + 1).min(steps.len());
        let close = plan.step_if(|step| held > 0 && matches!(step, Step::Close { .. }));
        let rest = if close.is_some() { steps.len().saturating_sub(held).max(begun + 1) } else { key };
        let of_samples = |s| if let Step::Sample(s) = s { Some(s) } else { None };
        let samples: Vec<_> = steps.split_off(rest).into_iter().filter_map(of_samples).collect();
        plan.fail_over(Begun { number, epoch_us, origin_ms, tracks: &tracks }, samples, close);
        steps.push(Step::Close { reason: "error", ends: vec![] });
        failed = true;
    };
    let mut count = 0;
    let mut drain = |plan: &mut Plan, steps: &mut Vec<Step>| {
        while plan.peek().is_some() {
            if count == fail_at {
                fail(plan, steps);
            }
            count += 1;
            steps.extend(plan.step());
        }
    };
    run.plan.push(both(), run.now(0));
    for s in av(6000, 1000, 30) {
        let now = run.now(s.dts_ms);
        run.plan.push(Item::Sample(s), now);
        drain(&mut run.plan, &mut run.steps);
    }
    run.plan.end("stream-ended", run.now(6000));
    drain(&mut run.plan, &mut run.steps);
    (segments(&run.steps), failed)
}

#[test]
fn what_a_failed_segment_is_not_to_have_begins_the_next_and_the_cuts_stay() {
    let (whole, _) = failing(usize::MAX, 0);
    assert_eq!(whole.len(), 3);
    let cuts = |segments: &[Segment]| -> Vec<i64> {
        segments.iter().filter_map(|s| of_segment(s, VIDEO).first().copied()).collect()
    };
    let mut fails = 0;
    for (fail_at, held) in (0..420).flat_map(|fail_at| [(fail_at, 0), (fail_at, 3)]) {
        let (segments, failed) = failing(fail_at, held);
        fails += usize::from(failed);
        assert_eq!(segments.len(), whole.len() + usize::from(failed));
        for track in [VIDEO, AUDIO] {
            assert_eq!(all(&segments, track), all(&whole, track), "before step {fail_at}");
        }
        assert!(cuts(&whole).iter().all(|cut| cuts(&segments).contains(cut)), "before step {fail_at}");
        let mut ends = Vec::new();
        for segment in &segments {
            assert_eq!(segment.epoch_us - segment.origin_ms * 1000, whole[0].epoch_us);
            for &(track, end) in &segment.ends {
                assert!(of_segment(segment, track).last().is_some_and(|&last| last < end));
            }
            ends.extend(segment.ends.iter().copied());
        }
        assert!(whole.iter().flat_map(|s| &s.ends).all(|end| held > 0 || ends.contains(end)));
    }
    assert!(fails > 800, "{fails}");
}

/// 4 s with a key frame each second; from `at_ms` on, the wire's times are moved by `by_ms`, and the wall clock is by
/// `passes_ms`.
fn leap(policy: Policy, at_ms: i64, by_ms: i64, passes_ms: i64) -> (Vec<Segment>, Vec<Note>, Vec<Sample>) {
    let mut run = Run::new(policy, false);
    run.push(both(), 0);
    let input = av(4000, 1000, 0);
    for s in &input {
        let leapt = s.dts_ms >= at_ms;
        let by = |ms| if leapt { ms } else { 0 };
        let moved = 100_000 + s.dts_ms + by(by_ms);
        let moved = Sample { dts_ms: moved, pts_ms: moved, ..s.clone() };
        run.push(Item::Sample(moved), s.dts_ms + by(passes_ms));
    }
    let notes = run.notes();
    (run.end(), notes, input)
}

const HOUR: i64 = 3_600_000;

#[test]
fn repair_closes_leaps_in_the_same_file() {
    for (by, reason) in [(-60_000, "clock-back"), (HOUR, "clock-forward")] {
        for at in [1000, 1480, 1495] {
            let (segments, notes, input) = leap(policy(), at, by, 0);
            let [segment] = &segments[..] else { panic!("{by} {at}: {}", segments.len()) };
            for track in [VIDEO, AUDIO] {
                let (got, sent) = (of_segment(segment, track), of(&input, track));
                assert_eq!(got.len(), sent.len(), "nothing is lost");
                for (got, sent) in got.iter().zip(sent) {
                    assert!((0..=45).contains(&(got - sent)), "{by} {at}: {got} for {sent}");
                }
            }
            let [(found, from, to, 0)] = gaps(&notes)[..] else { panic!("{notes:?}") };
            assert!(found == reason && (0..45).contains(&(to - from)), "{notes:?}");
            assert!(segment.ends.iter().all(|end| end.1 <= 4050), "{:?}", segment.ends);
        }
    }
}

#[test]
fn a_pause_of_an_hour_is_between_two_files_whatever_the_policy() {
    for timestamps in [Timestamps::Repair, Timestamps::Split] {
        for at in [1000, 1480, 1495] {
            let (segments, notes, input) = leap(Policy { timestamps, ..policy() }, at, HOUR, HOUR);
            let [before, after] = &segments[..] else { panic!("{at}: {}", segments.len()) };
            let key = if at == 1000 { 1000 } else { 2000 };
            assert_eq!(of_segment(after, VIDEO)[0], key + HOUR);
            // Sound from the pause on, at its true time; frames up to the key frame stay in the group before.
            let sound = input.iter().find(|s| s.track == AUDIO && s.dts_ms >= at).unwrap().dts_ms;
            assert_eq!(of_segment(after, AUDIO)[0], sound + HOUR);
            let frames: Vec<i64> = of_segment(before, VIDEO);
            assert_eq!(frames.len() as i64, key / 40);
            assert!(
                frames.iter().zip(of(&input, VIDEO)).all(|(got, sent)| (got - sent).abs() <= 25),
                "{frames:?}"
            );
            assert!(before.ends.iter().all(|end| end.1 <= key + 100), "{:?}", before.ends);
            assert_eq!(after.origin_ms, after.samples.iter().map(|s| s.1).min().unwrap());
            assert_eq!(after.epoch_us, 1_000_000_000 + after.origin_ms * 1000);
            for track in [VIDEO, AUDIO] {
                assert_eq!(all(&segments, track).len(), of(&input, track).len());
            }
            let [("paused", from, to, 0)] = gaps(&notes)[..] else { panic!("{notes:?}") };
            assert!((HOUR..HOUR + 50).contains(&(to - from)), "{notes:?}");
        }
    }
}

#[test]
fn split_begins_a_file_at_each_leap() {
    let split = Policy { timestamps: Timestamps::Split, ..policy() };
    for (by, reason) in [(-60_000, "clock-back"), (HOUR, "clock-forward")] {
        for at in [1000, 1480, 1495] {
            let (segments, notes, input) = leap(split, at, by, 0);
            let [before, after] = &segments[..] else { panic!("{by} {at}: {}", segments.len()) };
            let key = if at == 1000 { 1000 } else { 2000 };
            let first = of_segment(after, VIDEO)[0] - by.max(0);
            assert!((0..45).contains(&(first - key)), "{first}");
            assert!(before.ends.iter().all(|end| end.1 <= key + 100), "{:?}", before.ends);
            for track in [VIDEO, AUDIO] {
                assert_eq!(all(&segments, track).len(), of(&input, track).len());
            }
            assert_eq!(gaps(&notes).len(), 1);
            assert_eq!(gaps(&notes)[0].0, reason);
        }
    }
}

#[test]
fn split_of_sound_alone_is_at_the_very_sample() {
    let mut run = Run::new(Policy { timestamps: Timestamps::Split, ..policy() }, false);
    run.push(tracks(&[track(AUDIO, b"a")], false, true), 0);
    for ms in (0..4000).step_by(20) {
        run.push(Item::Sample(sample(AUDIO, if ms < 2000 { ms } else { ms + 60_000 }, true)), ms);
    }
    let starts: Vec<_> = run.end().iter().map(|s| (s.samples[0].1, s.samples.len())).collect();
    assert_eq!(starts, [(0, 100), (62_000, 100)]);
}

#[test]
fn leaps_can_not_make_files_without_end() {
    for audio_only in [false, true] {
        let mut run = Run::new(Policy { timestamps: Timestamps::Split, ..policy() }, false);
        let known =
            if audio_only { vec![track(AUDIO, b"a")] } else { vec![track(VIDEO, b"v"), track(AUDIO, b"a")] };
        run.push(tracks(&known, !audio_only, true), 0);
        let mut sent = 0;
        for i in 0..3000i64 {
            // Back and ahead in turns, in a minute of media.
            let ms = i * 20 + [0, 100_000, 400_000][(i % 3) as usize];
            for track in [VIDEO, AUDIO].into_iter().skip(usize::from(audio_only)) {
                sent += 1;
                run.push(Item::Sample(sample(track, ms, true)), i * 20);
            }
        }
        let segments = run.end();
        assert!((30..80).contains(&segments.len()), "{}", segments.len());
        for segment in &segments {
            let (first, last) = (segment.origin_ms, segment.ends.iter().map(|end| end.1).max().unwrap());
            assert!(last - first < 10_000, "{} ms in a file", last - first);
        }
        assert_eq!(segments.iter().map(|s| s.samples.len()).sum::<usize>(), sent);
    }
}

#[test]
fn clocks_far_apart_start_side_by_side() {
    for apart in [HOUR, -HOUR] {
        let mut run = Run::new(policy(), false);
        run.push(both(), 0);
        for s in av(2000, 1000, 0) {
            let ms = s.dts_ms + if s.track == AUDIO { apart } else { 0 };
            run.push(Item::Sample(Sample { dts_ms: ms, pts_ms: ms, ..s.clone() }), s.dts_ms);
        }
        assert!(matches!(run.notes()[..], [Note::Aligned { track: AUDIO, .. }]), "{:?}", run.notes());
        let [segment] = &run.end()[..] else { panic!() };
        assert_eq!(
            segment.samples.iter().map(|s| s.1).collect::<Vec<_>>(),
            av(2000, 1000, 0).iter().map(|s| s.dts_ms).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_new_audio_configuration_loses_no_sample() {
    for at in [1000, 1380, 1500] {
        let mut run = Run::new(policy(), false);
        run.takes_tracks = false;
        run.push(both(), 0);
        let input = av(3000, 1000, 0);
        let mut changed = false;
        for s in &input {
            if !changed && s.dts_ms >= at {
                changed = true;
                run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"b")], true, true), s.dts_ms);
            }
            run.sample(s.track, s.dts_ms, s.key);
        }
        assert!(run.notes().is_empty(), "{:?}", run.notes());
        let segments = run.end();
        assert_eq!(segments.len(), 2);
        let key = if at == 1000 { 1000 } else { 2000 };
        assert_eq!(of_segment(&segments[1], VIDEO)[0], key);
        let sound = of_segment(&segments[1], AUDIO)[0];
        assert!((at..at + 23).contains(&sound), "{sound}");
        assert_eq!(segments[0].ends, [(VIDEO, key), (AUDIO, sound)]);
        for track in [VIDEO, AUDIO] {
            assert_eq!(all(&segments, track), of(&input, track));
        }
    }
}

#[test]
fn frames_between_a_new_video_configuration_and_its_key_frame_stay_in_their_group() {
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(both(), 0);
    let input = av(3000, 1000, 0);
    for s in &input {
        if s.dts_ms == 1480 && s.track == VIDEO {
            run.push(tracks(&[track(VIDEO, b"w"), track(AUDIO, b"a")], true, true), s.dts_ms);
        }
        run.sample(s.track, s.dts_ms, s.key);
    }
    let segments = run.end();
    assert_eq!(segments.len(), 2);
    assert_eq!(of_segment(&segments[1], VIDEO)[0], 2000);
    for track in [VIDEO, AUDIO] {
        assert_eq!(all(&segments, track), of(&input, track));
    }
}

#[test]
fn what_is_held_is_bounded() {
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(both(), 0);
    run.sample(VIDEO, 0, true);
    run.sample(AUDIO, 0, true);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"b")], true, true), 0);
    let data = Bytes::from(vec![0; 1 << 20]);
    for ms in (20..400).step_by(20) {
        run.push(Item::Sample(Sample { data: data.clone(), ..sample(AUDIO, ms, true) }), ms);
        run.sample(VIDEO, ms, false);
        assert!(run.plan.held.bytes <= MAX_WAITING + data.len());
    }
    let segments = run.end();
    assert_eq!(segments.len(), 2, "cut without a key frame");
    assert_eq!(all(&segments, AUDIO), (0..400).step_by(20).collect::<Vec<_>>());
    assert_eq!(all(&segments, VIDEO), (0..400).step_by(20).collect::<Vec<_>>());

    // And by time.
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(both(), 0);
    for ms in (0..15_000).step_by(20) {
        if ms == 1000 {
            run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"b")], true, true), ms);
        }
        run.sample(VIDEO, ms, ms == 0);
        run.sample(AUDIO, ms, true);
    }
    assert_eq!(run.notes(), [Note::NoKeyFrame { waited_ms: 10_000 }]);
    let segments = run.end();
    assert_eq!(segments.len(), 2);
    assert_eq!(all(&segments, AUDIO).len() + all(&segments, VIDEO).len(), 1500);
}

#[test]
fn flapping_configurations_make_few_files_and_are_reported() {
    const CONFIGS: [&[u8]; 7] = [b"0", b"1", b"2", b"3", b"4", b"5", b"6"];
    for (what, audio_only) in [("video", false), ("audio", true)] {
        let id = if audio_only { AUDIO } else { VIDEO };
        let mut run = Run::new(policy(), false);
        run.takes_tracks = false;
        for i in 0..600i64 {
            let known = [track(id, CONFIGS[(i % 7) as usize])];
            run.push(tracks(&known, !audio_only, audio_only), i * 40);
            run.sample(id, i * 40, true);
        }
        let notes = run.notes();
        let segments = run.end();
        // 24 s: eight short ones, then one a second.
        assert!((20..=34).contains(&segments.len()), "{what}: {} files", segments.len());
        let written: usize = segments.iter().map(|s| s.samples.len()).sum();
        let lost: u64 = gaps(&notes).iter().filter(|gap| gap.0 == "flapping").map(|gap| gap.3).sum();
        assert!(
            written + (lost as usize) >= 560 && written + (lost as usize) <= 600,
            "{what}: {written} {lost}"
        );
    }
}

#[test]
fn a_configuration_that_is_back_at_once_costs_no_file() {
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(both(), 0);
    for s in av(3000, 1000, 0) {
        if s.track == VIDEO && s.dts_ms == 1200 {
            run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"b")], true, true), s.dts_ms);
            run.push(both(), s.dts_ms);
        }
        run.sample(s.track, s.dts_ms, s.key);
    }
    let [segment] = &run.end()[..] else { panic!() };
    assert_eq!(segment.samples.len(), av(3000, 1000, 0).len());
}

/// The samples that wait, for the start or for a cut, are of the configuration that they came with.
#[test]
fn samples_that_wait_keep_their_configuration() {
    let mut run = Run::new(policy(), false);
    run.takes_tracks = false;
    run.push(tracks(&[track(VIDEO, b"1")], true, true), 0);
    run.sample(VIDEO, 0, true);
    run.push(tracks(&[track(VIDEO, b"2")], true, true), 40);
    run.sample(VIDEO, 40, true);
    run.push(tracks(&[track(VIDEO, b"3"), track(AUDIO, b"a")], true, true), 80);
    run.sample(VIDEO, 80, true);
    run.plan.end("stream-ended", run.now(80));
    run.steps.extend(std::iter::from_fn(|| run.plan.step()));
    let mut found = Vec::new();
    let mut config = Bytes::new();
    for step in &run.steps {
        match step {
            Step::Open { tracks, .. } => config = tracks[0].config.clone(),
            Step::Sample(s) => found.push((config[0], s.dts_ms)),
            _ => {}
        }
    }
    assert_eq!(found, [(b'1', 0), (b'2', 40), (b'3', 80)]);
}

#[test]
fn a_stream_that_comes_back_goes_on_in_the_next_segment() {
    let mut run = Run::new(policy(), false);
    let mut at = 0;
    for (times, joined) in [(0, false), (1, false), (2, true)] {
        run.push(both(), at);
        // Each time on a clock of its own.
        for s in av(2000, 1000, 0) {
            let ms = s.dts_ms + times * 777_000;
            run.push(Item::Sample(Sample { dts_ms: ms, pts_ms: ms, ..s.clone() }), at + s.dts_ms);
        }
        at += 2000;
        run.plan.end("stream-ended", run.now(at));
        run.steps.extend(std::iter::from_fn(|| run.plan.step()));
        // Three seconds until the next, and a stream without samples between.
        at += 3000;
        run.plan.resume(false);
        run.plan.end("stream-ended", run.now(at));
        run.plan.resume(joined);
    }
    let marks: Vec<bool> = run
        .steps
        .iter()
        .filter_map(|s| if let Step::Sample(s) = s { Some(s.discontinuity) } else { None })
        .collect();
    assert_eq!(marks.iter().filter(|mark| **mark).count(), 4, "two tracks, twice");
    let found = gaps(&run.notes());
    assert_eq!(found, [("reconnect", 2001, 5001, 0), ("reconnect", 7002, 10_002, 0)]);
    let segments = segments(&run.steps);
    assert_eq!(segments.len(), 3);
    for (segment, origin) in segments.iter().zip([0, 5001, 10_002]) {
        assert_eq!(segment.origin_ms, origin);
        assert!((segment.epoch_us - 1_000_000_000 - origin * 1000).abs() < 3000);
        assert_eq!(segment.samples.len(), av(2000, 1000, 0).len());
        assert_eq!(segment.ends, [(VIDEO, origin + 2000), (AUDIO, origin + 2001)]);
    }
}

/// Sound is first to leap, and the picture has a key frame to come from before.
#[test]
fn a_key_frame_from_before_a_pause_does_not_begin_what_is_behind_it() {
    let mut run = Run::new(policy(), false);
    run.push(both(), 0);
    for ms in (0..1000).step_by(40) {
        run.sample(VIDEO, ms, ms == 0);
        run.sample(AUDIO, ms, true);
    }
    run.sample(AUDIO, HOUR, true);
    for (ms, key) in [(1000, true), (1040, false), (HOUR, true), (HOUR + 40, false)] {
        run.push(Item::Sample(sample(VIDEO, ms, key)), HOUR + ms % HOUR);
    }
    run.sample(AUDIO, HOUR + 40, true);
    let segments = run.end();
    assert_eq!(segments.len(), 2);
    assert_eq!(of_segment(&segments[0], VIDEO), (0..=1040).step_by(40).collect::<Vec<_>>());
    assert_eq!(segments[1].samples.len(), 4);
    assert_eq!(segments[1].origin_ms, HOUR);
}

#[test]
fn while_nothing_can_be_written_all_is_lost_and_then_a_key_frame_begins_another_segment() {
    for fails in [false, true] {
        let mut run = Run::new(policy(), false);
        run.push(both(), 0);
        for s in av(5000, 1000, 0) {
            run.sample(s.track, s.dts_ms, s.key);
            if s.track == VIDEO && s.dts_ms == 1480 {
                if fails {
                    run.plan.segment_failed(&[]);
                    run.steps.push(Step::Close { reason: "error", ends: vec![] });
                }
                run.plan.halt("disk");
                run.plan.halt("disk");
                run.steps.extend(std::iter::from_fn(|| run.plan.step()));
            }
            if s.track == VIDEO && s.dts_ms == 3200 {
                run.plan.carry_on();
            }
        }
        let notes = run.notes();
        let [Note::Halted(lost)] = notes[..] else { panic!("{notes:?}") };
        assert_eq!(gaps(&notes)[0].0, "disk");
        let segments = run.end();
        assert_eq!(segments.len(), 2);
        assert_eq!(segments[0].reason, if fails { "error" } else { "disk" });
        assert!(fails || segments[0].ends.contains(&(VIDEO, 1520)), "{:?}", segments[0].ends);
        assert_eq!(of_segment(&segments[1], VIDEO)[0], 4000);
        let written: usize = segments.iter().map(|s| s.samples.len()).sum();
        assert_eq!(written as u64 + lost.samples, av(5000, 1000, 0).len() as u64);
    }
}

#[test]
fn a_stream_without_another_key_frame_is_recorded_again_all_the_same() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    for dts in (0..30_000).step_by(40) {
        run.sample(VIDEO, dts, dts == 0);
        if dts == 2000 {
            run.plan.halt("disk");
            run.steps.extend(std::iter::from_fn(|| run.plan.step()));
        }
        if dts == 4000 {
            run.plan.carry_on();
        }
    }
    assert!(run.notes().contains(&Note::NoKeyFrame { waited_ms: 10_000 }), "{:?}", run.notes());
    let segments = run.end();
    assert_eq!((segments.len(), segments[1].samples[0]), (2, (VIDEO, 14_040)));
}

#[test]
fn what_waited_for_a_segment_is_counted_when_nothing_can_be_written() {
    let mut run = Run::new(Policy { chunk_ms: Some(1000), ..policy() }, false);
    run.push(both(), 0);
    let all = av(3000, 1000, 0);
    for s in &all {
        run.sample(s.track, s.dts_ms, s.key);
        // The next segment's first samples are being gathered.
        if s.track == VIDEO && s.dts_ms == 1000 {
            run.plan.halt("disk");
            run.steps.extend(std::iter::from_fn(|| run.plan.step()));
        }
    }
    run.plan.end("stream-ended", run.now(3000));
    run.steps.extend(std::iter::from_fn(|| run.plan.step()));
    let lost: u64 = gaps(&run.notes()).iter().map(|gap| gap.3).sum();
    let segments = segments(&run.steps);
    assert_eq!((segments.len(), segments[0].reason), (1, "disk"));
    assert_eq!(segments[0].samples.len() as u64 + lost, all.len() as u64);
}

/// A policy's run over 60 s of a stream with a key frame each second, with a say before each sample.
fn steered(policy: Policy, mut say: impl FnMut(&mut Plan, i64)) -> (Vec<Segment>, Vec<Note>) {
    let mut run = Run::new(policy, false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for sample in av(60_000, 1_000, 0) {
        let ms = sample.dts_ms;
        say(&mut run.plan, ms);
        run.push(Item::Sample(sample), ms);
    }
    let notes = run.notes();
    (run.end(), notes)
}

/// DTS of the first frame of video in each segment.
fn starts(segments: &[Segment]) -> Vec<i64> {
    let first = |segment: &Segment| segment.samples.iter().find(|s| s.0 == VIDEO).unwrap().1;
    segments.iter().map(first).collect()
}

#[test]
fn an_operator_cuts_at_the_next_key_frame_or_at_once() {
    let sent = av(60_000, 1_000, 0);
    for (any_frame, second) in [(false, 31_000), (true, 30_440)] {
        let (segments, _) = steered(policy(), |plan, ms| {
            if ms == 30_429 {
                plan.split(any_frame);
            }
        });
        assert_eq!(starts(&segments), [0, second]);
        let video: Vec<i64> =
            segments.iter().flat_map(|s| &s.samples).filter(|s| s.0 == VIDEO).map(|s| s.1).collect();
        assert_eq!(video, of(&sent, VIDEO), "nothing is lost");
        let samples: usize = segments.iter().map(|s| s.samples.len()).sum();
        assert_eq!(samples, sent.len());
    }
}

#[test]
fn files_are_cut_by_their_size() {
    // A byte a sample; 68 or 69 samples a second.
    let by_bytes = Policy { chunk_bytes: Some(300), ..policy() };
    let (segments, _) = steered(by_bytes, |_, _| {});
    assert_eq!(starts(&segments)[..3], [0, 5_000, 10_000]);
    // By what the file has, which is more.
    let mut number = 0;
    let (segments, _) = steered(by_bytes, |plan, ms| {
        if ms % 20_000 == 10_000 {
            plan.has_grown(number, 300);
            // One that is closed does not count.
            plan.has_grown(number + 7, 300);
            number += 1;
        }
    });
    assert!(
        starts(&segments).contains(&11_000) || starts(&segments).contains(&10_000),
        "{:?}",
        starts(&segments)
    );
}

#[test]
fn files_are_cut_where_the_clock_says() {
    let aligned = Policy { align: Some(Align::Seconds(20)), ..policy() };
    // The clock is 1,000 s after 1970 when the run begins, so 40 s past a minute.
    let (segments, _) = steered(aligned, |plan, _| plan.zone = TimeZone::UTC);
    assert_eq!(starts(&segments), [0, 20_000, 40_000]);
    let minutes = Policy { align: Some(Align::Minute), ..policy() };
    let (segments, _) = steered(minutes, |plan, _| plan.zone = TimeZone::UTC);
    assert_eq!(starts(&segments), [0, 20_000], "16:40 to 17:00, to 18:00");
}

#[test]
fn a_run_is_over_when_it_is_long_enough() {
    let limited = Policy { max_ms: Some(10_000), ..policy() };
    let (segments, _) = steered(limited, |plan, ms| assert_eq!(plan.is_over(), ms > 10_000, "{ms}"));
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].samples.iter().map(|s| s.1).max(), Some(9_982));
    assert_eq!(segments[0].samples.len(), 250 + 435);
}

#[test]
fn an_aligned_file_begins_in_its_period_however_the_publisher_s_clock_goes() {
    for (percent, exact) in [(97, true), (103, false)] {
        let mut run = Run::new(Policy { align: Some(Align::Seconds(20)), ..policy() }, false);
        run.plan.zone = TimeZone::UTC;
        run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
        for i in 0..2_500 {
            // A second of media is not quite one of the clock.
            run.push(Item::Sample(sample(VIDEO, i * 40 * percent / 100, i % 5 == 0)), i * 40);
        }
        let segments = run.end();
        let begun: Vec<i64> = segments.iter().map(|s| (s.epoch_us - 1_000_000_000) / 1000).collect();
        assert_eq!(begun.len(), 5, "{percent}: {begun:?}");
        for (period, begun) in begun.iter().enumerate() {
            let from = period as i64 * 20_000;
            assert!((from..from + 200).contains(begun), "{percent}: {begun}");
            assert!(!exact || *begun == from, "{percent}: {begun}");
        }
    }
}

#[test]
fn a_pause_is_taken_out_and_marked() {
    let (segments, notes) = steered(policy(), |plan, ms| match ms {
        10_040 => plan.pause(),
        40_040 => plan.unpause(),
        _ => {}
    });
    assert_eq!(segments.len(), 1, "the same file goes on");
    let video: Vec<i64> = segments[0].samples.iter().filter(|s| s.0 == VIDEO).map(|s| s.1).collect();
    // 0 to 10 s, then 41 to 60 s, without a hole.
    assert_eq!(video, (0..10_000 + 40 + 19_000).step_by(40).collect::<Vec<_>>());
    let audio: Vec<i64> = segments[0].samples.iter().filter(|s| s.0 == AUDIO).map(|s| s.1).collect();
    assert!(audio.is_sorted() && audio.windows(2).all(|w| w[1] - w[0] < 60), "{audio:?}");
    let [Note::Intermission { left_out, away_ms }] = notes[..] else { panic!("{notes:?}") };
    assert_eq!((left_out.from_dts_ms, left_out.to_dts_ms, away_ms), (10_000, 10_040, 30_960));
    assert!(left_out.samples > 31 * 60, "{left_out:?}");
    assert_eq!(notes[0].gap().unwrap().reason.as_str(), "paused-by-operator");
}

#[test]
fn audio_goes_on_after_a_pause_though_the_video_is_gone() {
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v"), track(AUDIO, b"a")], true, true), 0);
    for ms in (0..60_000).step_by(20) {
        match ms {
            5_000 => run.plan.pause(),
            8_000 => run.plan.unpause(),
            _ => {}
        }
        // The video is silent from 5 s on, and back in the middle of a group at 40 s.
        if ms % 40 == 0 && !(5_000..40_000).contains(&ms) {
            run.sample(VIDEO, ms, ms % 2_000 == 0 && ms != 40_000);
        }
        run.sample(AUDIO, ms, true);
    }
    let segments = run.end();
    let of = |track| {
        let samples = segments.iter().flat_map(|s| &s.samples).filter(move |s| s.0 == track);
        samples.map(|s| s.1).collect::<Vec<_>>()
    };
    // Left out are the pause and ten seconds in which a key frame might have come: 5 to 18 s.
    let audio = of(AUDIO);
    assert_eq!(audio.len(), (60_000 - 13_000) / 20);
    assert!(audio.windows(2).all(|w| w[1] - w[0] == 20), "they are taken out");
    let video = of(VIDEO);
    // 42 s, the first key frame that came, less the 13 s.
    assert_eq!(video.iter().find(|ms| **ms > 5_000), Some(&29_000));
}

#[test]
fn what_is_paused_to_the_end_is_marked_too() {
    let (segments, notes) = steered(policy(), |plan, ms| {
        if ms == 10_040 {
            plan.pause();
        }
    });
    assert_eq!((segments.len(), notes.len()), (1, 0));
    let mut run = Run::new(policy(), false);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 0);
    run.plan.pause();
    (0..100).for_each(|i| run.sample(VIDEO, i * 40, i % 25 == 0));
    run.plan.unpause();
    (100..200).for_each(|i| run.sample(VIDEO, i * 40, i % 25 == 1));
    let segments = run.end();
    assert_eq!((segments.len(), segments[0].samples[0], segments[0].samples.len()), (1, (VIDEO, 0), 99));
}

#[test]
fn media_from_memory_began_when_it_began() {
    let mut run = Run::new(policy(), true);
    run.plan.has_backlog(30_000);
    run.push(tracks(&[track(VIDEO, b"v")], true, false), 30_000);
    for i in 0..750 {
        run.push(Item::Sample(sample(VIDEO, i * 40, i % 25 == 0)), 30_000);
    }
    let segments = run.end();
    assert_eq!(segments[0].epoch_us, 1_000_000_000, "30 s before it was ordered");
}
