//! The time line over sequences of samples, on a wall clock that is told.

use std::time::Duration;

use bytes::Bytes;

use super::*;

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;

struct Wire {
    policy: Timestamps,
    line: Timeline,
    start: Instant,
    now_ms: i64,
}

impl Wire {
    fn new(policy: Timestamps, zero_ms: i64) -> Self {
        Self { policy, line: Timeline::new(zero_ms, 0), start: Instant::now(), now_ms: 0 }
    }

    fn passes(&mut self, ms: i64) {
        self.now_ms += ms;
    }

    fn sample(&mut self, track: u32, dts_ms: i64, composition_ms: i64) -> (Sample, Placed) {
        let pts_ms = dts_ms + composition_ms;
        let mut sample =
            Sample { track, dts_ms, pts_ms, key: false, discontinuity: false, data: Bytes::new() };
        let now = self.start + Duration::from_millis(self.now_ms.unsigned_abs());
        let placed = self.line.place(&mut sample, now, self.policy, false);
        (sample, placed)
    }

    /// DTS in run time, and what was done.
    fn place(&mut self, track: u32, dts_ms: i64) -> (i64, Placed) {
        let (sample, placed) = self.sample(track, dts_ms, 0);
        (sample.dts_ms, placed)
    }

    /// Two seconds of both tracks: a frame each 40 ms, sound each 20 ms, `skew_ms` later.
    fn both(&mut self, from_ms: i64, skew_ms: i64) -> Vec<(u32, i64, i64)> {
        let mut placed = Vec::new();
        for ms in (0..2000).step_by(20) {
            self.passes(20);
            if ms % 40 == 0 {
                placed.push((VIDEO, from_ms + ms, self.place(VIDEO, from_ms + ms).0));
            }
            placed.push((AUDIO, from_ms + ms + skew_ms, self.place(AUDIO, from_ms + ms + skew_ms).0));
        }
        placed
    }
}

/// By track, the difference of wire and run time of its last sample.
fn skew(placed: &[(u32, i64, i64)]) -> i64 {
    let last = |track| placed.iter().rev().find(|p| p.0 == track).map(|&(_, wire, run)| run - wire).unwrap();
    last(AUDIO) - last(VIDEO)
}

#[test]
fn tracks_keep_their_distance() {
    let mut wire = Wire::new(Timestamps::Repair, 1000);
    let times = |(sample, placed): (Sample, Placed)| (sample.dts_ms, sample.pts_ms, placed);
    assert_eq!(times(wire.sample(VIDEO, 1000, 80)), (0, 80, Placed::Kept));
    assert_eq!(times(wire.sample(AUDIO, 1021, 0)), (21, 21, Placed::Kept));
    assert_eq!(times(wire.sample(VIDEO, 1040, -10)), (40, 30, Placed::Kept));
    // Nine seconds apart are nine seconds apart.
    let mut wire = Wire::new(Timestamps::Repair, 0);
    assert_eq!(skew(&wire.both(0, 9_000)), 0);
}

#[test]
fn a_small_step_back_is_levelled() {
    let mut wire = Wire::new(Timestamps::Repair, 0);
    let times = |(sample, placed): (Sample, Placed)| (sample.dts_ms, sample.pts_ms, placed);
    wire.place(VIDEO, 100);
    assert_eq!(times(wire.sample(VIDEO, 90, 40)), (100, 130, Placed::Levelled));
    assert_eq!(times(wire.sample(VIDEO, 90, 0)), (100, 100, Placed::Levelled));
    assert_eq!(times(wire.sample(VIDEO, 100, 0)), (100, 100, Placed::Kept));
    assert_eq!(times(wire.sample(VIDEO, 140, 0)), (140, 140, Placed::Kept));
}

#[test]
fn wraps_are_undone_to_the_millisecond() {
    for policy in [Timestamps::Repair, Timestamps::Split] {
        for wrap in WRAPS_MS {
            for skew_ms in [-700, -13, 0, 7, 300, 5000] {
                let start = wrap - 1000;
                let mut wire = Wire::new(policy, start);
                let mut wrapped = Vec::new();
                for ms in (0..20_000).step_by(20) {
                    for (track, ms) in [(VIDEO, ms), (AUDIO, ms + skew_ms)] {
                        let (run, placed) = wire.place(track, (start + ms) % wrap);
                        assert_eq!(run, ms, "{wrap:#x} {skew_ms}");
                        if placed != Placed::Kept {
                            assert_eq!(placed, Placed::Unwrapped { by_ms: wrap });
                            wrapped.push(track);
                        }
                    }
                }
                wrapped.sort_unstable();
                assert_eq!(wrapped, [VIDEO, AUDIO], "once each");
            }
        }
    }
}

#[test]
fn a_clock_that_restarts_goes_on_behind_where_it_was_for_all_tracks() {
    for (leap_to, policy) in
        [(0, Timestamps::Repair), (0, Timestamps::Split), (900_000_000, Timestamps::Repair)]
    {
        for skew_ms in [0, 15, 400, 3000] {
            let mut wire = Wire::new(policy, 60_000);
            let before = wire.both(60_000, skew_ms);
            let after = wire.both(leap_to, skew_ms);
            assert_eq!(skew(&after), 0, "the distance is as on the wire");
            let of = |all: &[(u32, i64, i64)], track| -> Vec<i64> {
                all.iter().filter(|p| p.0 == track).map(|p| p.2).collect()
            };
            for track in [VIDEO, AUDIO] {
                let step = of(&after, track)[0] - of(&before, track).last().unwrap();
                assert!((0..=skew_ms + 60).contains(&step), "{leap_to} {skew_ms} {track}: {step}");
            }
        }
    }
}

#[test]
fn a_track_that_leaps_alone_is_put_beside_the_others_and_they_stay() {
    let mut wire = Wire::new(Timestamps::Repair, 0);
    wire.both(0, 0);
    let mut leaps = 0;
    // The picture's clock leaps every 100 frames, back and ahead in turns; the sound's does not.
    for i in 0..2000i64 {
        wire.passes(40);
        let ms = 2000 + i * 40;
        let leap = [0, -900_000, 5_000_000][(i / 100 % 3) as usize];
        let (run, placed) = wire.place(VIDEO, ms + leap);
        leaps += i32::from(placed != Placed::Kept);
        assert!((run - ms).abs() <= 60, "{run} {ms} {placed:?}");
        assert_eq!(wire.place(AUDIO, ms), (ms, Placed::Kept));
        assert_eq!(wire.place(AUDIO, ms + 20), (ms + 20, Placed::Kept));
    }
    assert_eq!(leaps, 19, "one a leap");
}

#[test]
fn a_pause_is_kept_if_the_wall_clock_agrees() {
    for policy in [Timestamps::Repair, Timestamps::Split] {
        let mut wire = Wire::new(policy, 0);
        wire.both(0, 0);
        wire.passes(3_600_000);
        let hour = 3_602_000;
        assert_eq!(wire.place(AUDIO, hour), (hour, Placed::Paused { from_ms: 1980, to_ms: hour }));
        assert_eq!(wire.place(VIDEO, hour), (hour, Placed::Followed));
        assert_eq!(wire.place(VIDEO, hour + 40), (hour + 40, Placed::Kept));
    }
}

#[test]
fn a_step_ahead_that_no_time_has_passed_for_is_closed_or_kept() {
    for policy in [Timestamps::Repair, Timestamps::Split] {
        let mut wire = Wire::new(policy, 0);
        wire.both(0, 0);
        let hour = 3_602_000;
        let to_ms = if policy == Timestamps::Repair { 2000 } else { hour };
        let step_ms = hour - 1960;
        assert_eq!(wire.place(VIDEO, hour), (to_ms, Placed::Leapt { step_ms, from_ms: 1960, to_ms }));
        assert_eq!(wire.place(AUDIO, hour + 5), (to_ms + 5, Placed::Followed));
        // More than a day is nonsense.
        let (run, placed) = wire.place(VIDEO, hour + 90_000_000);
        assert!(run < to_ms + 100, "{placed:?}");
        let (sample, _) = wire.sample(AUDIO, hour + 90_000_000, 0);
        assert!(sample.discontinuity);
    }
    // Ten seconds are a hole.
    let mut wire = Wire::new(Timestamps::Split, 0);
    wire.place(VIDEO, 0);
    assert_eq!(wire.place(VIDEO, 10_000), (10_000, Placed::Kept));
}

#[test]
fn a_track_may_be_silent_while_others_go_on() {
    let mut wire = Wire::new(Timestamps::Split, 0);
    wire.both(0, 0);
    for ms in (2000..60_000).step_by(20) {
        assert_eq!(wire.place(AUDIO, ms), (ms, Placed::Kept));
    }
    assert_eq!(wire.place(VIDEO, 60_000), (60_000, Placed::Silent { from_ms: 1960, to_ms: 60_000 }));
}

#[test]
fn a_track_that_was_silent_over_a_leap_follows_it() {
    let mut wire = Wire::new(Timestamps::Repair, 0);
    wire.both(0, 0);
    for ms in (1_000_000..1_020_000).step_by(20) {
        wire.place(AUDIO, ms);
    }
    assert_eq!(wire.place(VIDEO, 1_020_000), (22_000, Placed::Followed));
}

#[test]
fn clocks_far_apart_are_put_side_by_side_on_arrival() {
    for apart in [10_001, 3_600_000, -3_600_000, 4_000_000_000] {
        let mut wire = Wire::new(Timestamps::Repair, 0);
        assert_eq!(wire.place(VIDEO, 0), (0, Placed::Kept));
        assert_eq!(wire.place(VIDEO, 40), (40, Placed::Kept));
        assert_eq!(wire.place(AUDIO, 40 + apart), (40, Placed::Aligned { apart_ms: apart }));
        assert_eq!(wire.place(AUDIO, 60 + apart), (60, Placed::Kept));
        assert_eq!(wire.place(VIDEO, 80), (80, Placed::Kept));
        assert_eq!(skew(&wire.both(100, apart)), -apart, "and stay so");
    }
    for apart in [10_000, -10_000] {
        let mut wire = Wire::new(Timestamps::Repair, 0);
        wire.place(VIDEO, 0);
        assert_eq!(wire.place(AUDIO, apart), (apart, Placed::Kept));
    }
}

proptest::proptest! {
    /// Whatever comes: time does not fall within a track, no step is longer than the clock or 10 s beyond the latest,
    /// and a distance that the wire keeps is kept.
    #[test]
    fn time_is_sane_whatever_comes(
        start in 0i64..1 << 33,
        steps in proptest::collection::vec(
            (1u32..3, proptest::prop_oneof![-600i64..12_000, -5_000_000_000i64..5_000_000_000]), 1..200
        ),
    ) {
        let mut wire = Wire::new(Timestamps::Repair, start);
        let mut now = [start; 3];
        let mut last = [i64::MIN; 3];
        for (track, step) in steps {
            let latest = wire.line.latest_ms();
            let at = &mut now[track as usize];
            *at += step;
            let (run, placed) = wire.place(track, *at);
            let last = &mut last[track as usize];
            proptest::prop_assert!(run >= *last, "{placed:?}");
            *last = run;
            if let Some(latest) = latest {
                proptest::prop_assert!(run <= latest + 15_000, "{placed:?}");
            }
        }
    }
}
