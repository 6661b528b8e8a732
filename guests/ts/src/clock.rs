//! Time: the 90 kHz time line of PTS and DTS, and what the program clock reference says on it.
//!
//! A segment does not begin at 0: [`stamp`] of a time is the same in every segment of a run, so that
//! segments can be joined. It is [`ORIGIN`] later than the run's own time, which keeps the first PCR above 0.
//!
//! A PCR may not be later than the DTS of any data behind it, but samples come in order of arrival, and
//! nothing is held back to sort them. [`target`] gives what the PCR is to be, in terms of
//!
//! - the lead: the latest DTS of all tracks,
//! - the slowest: the earliest of the tracks' latest DTS, before which no track will go.
//!
//! It is [`DELAY`] before the lead while the slowest track is no more than [`SLACK`] behind. Beyond, it
//! follows that track, so that a stream whose audio is seconds late all the time still has all its data in
//! time. A track that stops altogether holds it back by at most [`HOLD`]. So nothing is behind the PCR but
//! - what is over `HOLD + DELAY` (3.7 s) behind the lead,
//! - a track that begins over `DELAY` (0.7 s) behind the others: the PCR is never taken back, but waits.
//!
//! The buffers of the standard's model decoder (2.4.2) are not kept: for that, samples would have to be held
//! and sent at a rate. A recording is read from a file, as fast as it is played.

use reelwright_sdk::Timebase;

/// Ticks in a millisecond.
pub(crate) const MS: i64 = 90;
/// Time stamp of the run's time 0: room for a PCR before it, and for samples before that.
const ORIGIN: i64 = 1400 * MS;
/// From a PCR to the DTS of the data behind it.
const DELAY: i64 = 700 * MS;
/// How far the slowest track may be behind without a wait of the PCR.
const SLACK: i64 = 400 * MS;
/// How long the PCR waits at most.
const HOLD: i64 = 3000 * MS;
/// Distance of two PCRs at most; the standard's limit is 100 ms.
pub(crate) const STEP: i64 = 90 * MS;
/// A longer pause is no longer filled with PCRs, but marked as a discontinuity.
pub(crate) const LONGEST_PAUSE: i64 = 10_000 * MS;
/// The same between two segments.
pub(crate) const LONGEST_JOIN: i64 = 1000 * MS;
/// How much a DTS may be put before its time (see [`DecodeTimes`]) and still not be before the PCR.
const MOST_EARLY: i64 = DELAY - SLACK;

/// Times beyond, in ticks, are taken for this one: 400,000 years, and sums of a few do not overflow.
pub(crate) const FOREVER: i64 = 1 << 60;

/// From ticks of a track to ticks of 90 kHz.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    num: i64,
    den: i64,
}

impl Scale {
    /// `None` if a part of the timebase is 0.
    pub(crate) fn new(timebase: Timebase) -> Option<Self> {
        let (num, den) = (1000 * MS * i64::from(timebase.num), i64::from(timebase.den));
        let divisor = gcd(num, den);
        (num != 0 && den != 0).then(|| Self { num: num / divisor, den: den / divisor })
    }

    /// Rounds down.
    pub(crate) fn ticks(self, time: i64) -> i64 {
        time.saturating_mul(self.num).div_euclid(self.den).clamp(-FOREVER, FOREVER)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The 33 bits that stand for a time, of samples and PCR alike.
pub(crate) fn stamp(time: i64) -> u64 {
    (time + ORIGIN) as u64 & ((1 << 33) - 1)
}

/// What the PCR should be before a sample is written; see the module's page.
pub(crate) fn target(lead: i64, slowest: i64) -> i64 {
    lead.min(slowest + SLACK).max(lead - HOLD) - DELAY
}

/// The DTS of a track, for streams that present samples before they are decoded.
///
/// Some publishers send negative composition offsets, but here a PTS must not be before its DTS. The
/// pictures' times are right, so the DTS is what moves: ahead by the largest offset seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DecodeTimes {
    early: i64,
    last: Option<i64>,
}

impl DecodeTimes {
    /// The pair (PTS, DTS) to write, with PTS ≥ DTS and no DTS before the last one.
    pub(crate) fn next(&mut self, pts: i64, dts: i64) -> (i64, i64) {
        self.early = self.early.max((dts - pts).min(MOST_EARLY));
        let dts = self.last.map_or(i64::MIN, |last| last.min(dts)).max(dts - self.early);
        self.last = Some(dts);
        (pts.max(dts), dts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let scale = |num, den| Scale::new(Timebase { num, den });
        assert_eq!(scale(1, 1000).unwrap().ticks(-7), -630);
        assert_eq!(scale(1, 48_000).unwrap().ticks(1024), 1920);
        assert_eq!(scale(1001, 30_000).unwrap().ticks(2), 6006);
        assert_eq!(scale(1, 44_100).unwrap().ticks(-1), -3);
        assert_eq!(scale(u32::MAX, 1).unwrap().ticks(i64::MIN), -FOREVER);
        assert!(scale(0, 1).is_none() && scale(1, 0).is_none() && scale(0, 0).is_none());
    }

    #[test]
    fn stamps_wrap() {
        assert_eq!(stamp(0), 126_000);
        assert_eq!(stamp((1 << 33) - 126_000), 0);
        assert_eq!(stamp(-126_001), (1 << 33) - 1);
    }

    #[test]
    fn the_pcr_follows_the_lead_then_the_slowest_then_the_lead_again() {
        let ms = |lead: i64, slowest: i64| target(lead * MS, slowest * MS) / MS;
        assert_eq!(ms(10_000, 10_000), 9_300);
        assert_eq!(ms(10_000, 9_600), 9_300);
        assert_eq!(ms(10_000, 8_000), 7_700);
        assert_eq!(ms(10_000, 0), 6_300);
    }

    #[test]
    fn negative_composition_offsets_move_the_dts() {
        let mut times = DecodeTimes::default();
        let written: Vec<_> = [(0, 0), (12, 4), (4, 8), (8, 12), (24, 16), (16, 20), (30_000, 60_000)]
            .map(|(pts, dts)| times.next(pts, dts))
            .into();
        let expected =
            [(0, 0), (12, 4), (4, 4), (8, 8), (24, 12), (16, 16), (60_000 - MOST_EARLY, 60_000 - MOST_EARLY)];
        assert_eq!(written, expected);
    }
}
