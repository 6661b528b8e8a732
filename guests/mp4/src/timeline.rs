//! From the times of the wire to those of a track's media (ISO/IEC 14496-12, 8.6.1).
//!
//! Video keeps the wire's times: its timescale is the denominator of the track's timebase. Audio gets
//! the sampling rate as its timescale, so that a frame lasts what it lasts, while the wire's times
//! are rounded (to milliseconds, for RTMP). A frame begins where the one before ends as long as that is
//! within a millisecond of the wire; else it begins at the wire's time. So errors never add up, a
//! sender's odd frame sizes and drifting clock are followed, and a gap stays a gap.

use reelwright_sdk::{Error, Timebase};

/// Turns the decoding times of one track into media times, sample after sample. The first one is 0.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Units of media time a second.
    timescale: u32,
    /// A tick of the wire is `mul / div` units.
    mul: i64,
    div: i64,
    /// What a frame lasts if the wire agrees, in units.
    frame: Option<u32>,
    /// A millisecond, in units times `div`.
    tolerance: i64,
    state: Option<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// The first sample's decoding time, in ticks.
    origin: i64,
    /// The last sample's media time, in units.
    last: i64,
}

impl Clock {
    /// Follows the wire exactly. `bad-input`: a timebase of 0.
    pub(crate) fn exact(timebase: Timebase) -> Result<Self, Error> {
        Self::new(timebase, timebase.den, None)
    }

    /// Counts in samples of sound; `frame` is what an access unit usually holds.
    /// `bad-input`: a timebase of 0. `unsupported`: a rate too low to tell milliseconds apart.
    pub(crate) fn audio(timebase: Timebase, sampling_rate: u32, frame: u16) -> Result<Self, Error> {
        if sampling_rate < 1000 {
            return Err(Error::unsupported(format!("a sampling rate of {sampling_rate} Hz, at least 1000")));
        }
        Self::new(timebase, sampling_rate, Some(u32::from(frame)))
    }

    fn new(timebase: Timebase, timescale: u32, frame: Option<u32>) -> Result<Self, Error> {
        let Timebase { num, den } = timebase;
        if num == 0 || den == 0 {
            return Err(Error::bad_input(format!("a timebase of {num}/{den}")));
        }
        let mul = u64::from(num) * u64::from(timescale);
        let shared = gcd(mul, u64::from(den));
        let mul = i64::try_from(mul / shared)
            .map_err(|_| Error::unsupported(format!("a timebase of {num}/{den} at {timescale} Hz")))?;
        let div = i64::from(den) / shared as i64;
        let tolerance = (u64::from(timescale) * div.unsigned_abs() / 1000).cast_signed();
        Ok(Self { timescale, mul, div, frame, tolerance, state: None })
    }

    /// Units of media time a second.
    pub(crate) fn timescale(&self) -> u32 {
        self.timescale
    }

    /// What an access unit usually lasts, in units; `None` where nothing is usual.
    pub(crate) fn frame(&self) -> Option<u32> {
        self.frame
    }

    /// The media time of the next sample. It never falls.
    ///
    /// `limit`: over 32 bits after the one before (`stts` holds no more), or a time out of all range;
    /// the clock is unchanged.
    pub(crate) fn next(&mut self, dts: i64) -> Result<i64, Error> {
        let Some(State { origin, last }) = self.state else {
            self.state = Some(State { origin: dts, last: 0 });
            return Ok(0);
        };
        let out_of_range = || Error::limit(format!("a sample at {dts} ticks, the track's first at {origin}"));
        let wire = dts
            .checked_sub(origin)
            .and_then(|ticks| ticks.checked_mul(self.mul))
            .filter(|wire| wire.unsigned_abs() < i64::MAX as u64 / 4)
            .ok_or_else(out_of_range)?;
        let smooth = self
            .frame
            .map(|frame| last + i64::from(frame))
            .filter(|time| (time * self.div - wire).abs() <= self.tolerance);
        let time = smooth.unwrap_or_else(|| nearest(wire, self.div)).max(last);
        if time - last > i64::from(u32::MAX) {
            return Err(Error::limit(format!(
                "{} s without a sample, at most {} s fit",
                (time - last) / i64::from(self.timescale),
                u32::MAX / self.timescale
            )));
        }
        self.state = Some(State { origin, last: time });
        Ok(time)
    }

    /// A composition time offset in units. `limit`: over the 32 bits of `ctts`.
    pub(crate) fn offset(&self, ticks: i64) -> Result<i32, Error> {
        ticks
            .checked_mul(self.mul)
            .and_then(|offset| i32::try_from(nearest(offset, self.div)).ok())
            .ok_or_else(|| Error::limit(format!("a presentation time {ticks} ticks after the decoding time")))
    }

    /// Milliseconds on the run's time line, to the nearest, of a media time when the first sample lies at
    /// `first_dts` ticks. Out of range it is capped.
    pub(crate) fn run_ms(&self, first_dts: i64, time: i64) -> i64 {
        let (mul, div) = (i128::from(self.mul), i128::from(self.div));
        let units_by_div = i128::from(first_dts) * mul + i128::from(time) * div;
        let second = div * i128::from(self.timescale);
        let ms = units_by_div.saturating_mul(1000).saturating_add(second / 2).div_euclid(second);
        ms.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64
    }

    /// Milliseconds of a stretch of media time, rounded up. Out of range it is capped.
    pub(crate) fn ceil_ms(&self, units: i64) -> u64 {
        let units = u128::try_from(units).unwrap_or(0);
        let ms = (units * 1000).div_ceil(u128::from(self.timescale));
        ms.min(u128::from(u64::MAX / 4)) as u64
    }
}

fn nearest(value: i64, div: i64) -> i64 {
    value.saturating_add(div / 2).div_euclid(div)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Timebase = Timebase { num: 1, den: 1000 };

    fn run(mut clock: Clock, wire: impl IntoIterator<Item = i64>) -> Vec<i64> {
        wire.into_iter().map(|dts| clock.next(dts).unwrap()).collect()
    }

    #[test]
    fn video_is_the_wire() {
        assert_eq!(run(Clock::exact(MS).unwrap(), [-7, -7, 33, 34, 1033]), [0, 0, 40, 41, 1040]);
        let ntsc = Timebase { num: 1001, den: 30_000 };
        assert_eq!(run(Clock::exact(ntsc).unwrap(), [5, 6, 8]), [0, 1001, 3003]);
    }

    #[test]
    fn audio_is_smooth_for_a_day_however_the_wire_rounds() {
        for rate in [48_000i64, 44_100, 7_350] {
            for (round, hours) in [(0, 24), (rate / 2, 1), (rate - 1, 1)] {
                let mut clock = Clock::audio(MS, rate as u32, 1024).unwrap();
                for frame in 0..hours * 3600 * rate / 1024 {
                    let dts = (frame * 1024 * 1000 + round) / rate;
                    assert_eq!(clock.next(dts).unwrap(), frame * 1024, "{rate} Hz, frame {frame}");
                }
            }
        }
    }

    #[test]
    fn audio_follows_what_is_not_nominal() {
        let clock = || Clock::audio(MS, 48_000, 1024).unwrap();
        // A gap, then smooth again; a burst of equal times, then the wire.
        assert_eq!(run(clock(), [0, 21, 121, 142]), [0, 1024, 5808, 6832]);
        assert_eq!(run(clock(), [0, 0, 0, 21, 64]), [0, 0, 0, 1024, 3072]);
        // 2,048 and 960 samples a frame where the configuration says 1,024.
        assert_eq!(run(clock(), [0, 43, 85, 128]), [0, 2064, 4080, 6144]);
        assert_eq!(run(clock(), [0, 20, 40, 60]), [0, 960, 1920, 2880]);
    }

    #[test]
    fn what_does_not_fit_is_a_limit_and_changes_nothing() {
        let mut clock = Clock::audio(MS, 48_000, 1024).unwrap();
        clock.next(0).unwrap();
        let error = clock.next(90_000_000).unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("limit", "90000 s without a sample, at most 89478 s fit")
        );
        assert_eq!(clock.next(i64::MAX).unwrap_err().code, "limit");
        assert_eq!(clock.next(i64::MIN).unwrap_err().code, "limit");
        assert_eq!(clock.next(21).unwrap(), 1024);
        assert_eq!(clock.offset(i64::from(i32::MAX)).unwrap_err().code, "limit");
        assert_eq!(Clock::exact(Timebase { num: 0, den: 1 }).unwrap_err().code, "bad-input");
        assert_eq!(Clock::audio(MS, 999, 1024).unwrap_err().code, "unsupported");
    }

    #[test]
    fn times_of_the_run() {
        let clock = Clock::audio(MS, 44_100, 1024).unwrap();
        assert_eq!(clock.run_ms(1234, 44_100), 2234);
        assert_eq!(clock.run_ms(-10, 22), -10);
        assert_eq!(clock.ceil_ms(1024), 24);
        assert_eq!(clock.run_ms(i64::MAX, i64::MAX), i64::MAX / 4);
    }

    proptest! {
        #[test]
        fn media_never_falls_and_is_never_a_millisecond_off(
            rate in prop::sample::select(vec![8_000u32, 44_100, 48_000, 96_000, 11_025]),
            den in prop::sample::select(vec![1000u32, 90_000, 44_100, 600]),
            deltas in prop::collection::vec(prop_oneof![0i64..3, 15i64..30, 0i64..100_000], 1..200),
        ) {
            let mut clock = Clock::audio(Timebase { num: 1, den }, rate, 1024).unwrap();
            let (mut dts, mut last) = (0, 0);
            clock.next(dts).unwrap();
            for delta in deltas {
                dts += delta;
                let time = clock.next(dts).unwrap();
                prop_assert!(time >= last);
                last = time;
                // |time / rate - dts / den| <= 1/1000, or half a unit where the rate is the coarser one.
                let (rate, den) = (i64::from(rate), i64::from(den));
                prop_assert!((time * den - dts * rate).abs() * 1000 <= rate * den);
            }
        }

        #[test]
        fn nothing_panics(
            num: u32, den: u32, rate: u32, frame: u16, times: Vec<i64>, ticks: i64,
        ) {
            let timebase = Timebase { num, den };
            for clock in [Clock::exact(timebase), Clock::audio(timebase, rate, frame)].into_iter().flatten() {
                let mut clock = clock;
                for &dts in &times {
                    let _ = clock.next(dts);
                    let _ = clock.run_ms(dts, dts);
                    let _ = clock.ceil_ms(dts);
                }
                let _ = clock.offset(ticks);
            }
        }
    }
}
