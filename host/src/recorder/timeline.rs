//! From the wire's times to the run's: counted from the run's start, never falling within a track. Pure.
//!
//! The offset between the two is the same for all tracks, so what was apart on the wire stays apart. A step
//! back of up to 500 ms holds the track's time until the wire has caught up; a larger one (a
//! publisher that restarted its clock) moves the offset, so that time goes on from where it was.

use std::collections::HashMap;

use crate::media::Sample;

/// Largest step back that is taken for disorder, not for a new clock.
const MAX_JITTER_MS: i64 = 500;

/// The time line of a run.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Wire time of the run's zero.
    zero_ms: i64,
    /// By track, in run time.
    last_ms: HashMap<u32, i64>,
}

/// What was done to a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    None,
    /// A small step back was levelled.
    Levelled,
    /// The publisher's clock stepped back by so many milliseconds.
    Rebased(i64),
}

impl Timeline {
    /// A line whose zero is at that wire time.
    pub fn new(zero_ms: i64) -> Self {
        Self { zero_ms, last_ms: HashMap::new() }
    }

    /// Moves a sample to run time.
    pub fn place(&mut self, sample: &mut Sample) -> Repair {
        let mut dts = sample.dts_ms - self.zero_ms;
        let composition_ms = sample.pts_ms - sample.dts_ms;
        let last = self.last_ms.get(&sample.track).copied();
        let repair = match last {
            Some(last) if dts < last - MAX_JITTER_MS => {
                // Behind the latest of all tracks, so that none of them falls.
                let end = self.last_ms.values().copied().max().unwrap_or(last);
                let step = end - dts;
                self.zero_ms -= step;
                dts = end;
                sample.discontinuity = true;
                Repair::Rebased(step)
            }
            Some(last) if dts < last => {
                dts = last;
                Repair::Levelled
            }
            _ => Repair::None,
        };
        self.last_ms.insert(sample.track, dts);
        // A levelled sample is presented when the wire said.
        sample.pts_ms = match repair {
            Repair::Levelled => (sample.pts_ms - self.zero_ms).max(dts),
            _ => dts + composition_ms,
        };
        sample.dts_ms = dts;
        repair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: &mut Timeline, track: u32, dts_ms: i64, composition_ms: i64) -> (i64, i64, Repair) {
        let pts_ms = dts_ms + composition_ms;
        let data = bytes::Bytes::new();
        let mut sample = Sample { track, dts_ms, pts_ms, key: false, discontinuity: false, data };
        let repair = line.place(&mut sample);
        (sample.dts_ms, sample.pts_ms, repair)
    }

    #[test]
    fn tracks_keep_their_distance() {
        let mut line = Timeline::new(1000);
        assert_eq!(place(&mut line, 1, 1000, 80), (0, 80, Repair::None));
        assert_eq!(place(&mut line, 2, 1021, 0), (21, 21, Repair::None));
        assert_eq!(place(&mut line, 1, 1040, -10), (40, 30, Repair::None));
    }

    #[test]
    fn a_small_step_back_is_levelled() {
        let mut line = Timeline::new(0);
        place(&mut line, 1, 100, 0);
        assert_eq!(place(&mut line, 1, 90, 40), (100, 130, Repair::Levelled));
        assert_eq!(place(&mut line, 1, 90, 0), (100, 100, Repair::Levelled));
        assert_eq!(place(&mut line, 1, 140, 0), (140, 140, Repair::None));
    }

    #[test]
    fn a_clock_that_restarts_goes_on_where_it_was_for_all_tracks() {
        let mut line = Timeline::new(0);
        place(&mut line, 1, 60_000, 0);
        place(&mut line, 2, 60_010, 0);
        assert_eq!(place(&mut line, 1, 0, 80), (60_010, 60_090, Repair::Rebased(60_010)));
        assert_eq!(place(&mut line, 2, 5, 0), (60_015, 60_015, Repair::None));
        assert_eq!(place(&mut line, 1, 40, 0), (60_050, 60_050, Repair::None));
    }
}
