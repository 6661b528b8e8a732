//! Who writes a run's next segment, given who failed before. Pure.
//!
//! ```text
//!   active version ──2 strikes──▶ fallbacks, best first ──2 strikes each──▶ the last resort
//!         ▲                                                                      │
//!         └──── at a cut after a back-off (1 min, doubling to 1 h) ──────────────┘
//! ```
//!
//! A strike counts for ten minutes. A version that is tried again after its back-off is out with one strike. One that
//! takes nothing of what it is given is out at once.

use std::time::{Duration, Instant};

/// Strikes that put a version out, and for how long one counts.
const STRIKES: usize = 2;
const WINDOW: Duration = Duration::from_secs(600);
/// How long a version is out: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Versions that are remembered.
const REMEMBERED: usize = 32;

/// What is known of the versions that failed in a run.
#[derive(Debug, Default)]
pub(super) struct Failover(Vec<Failing>);

#[derive(Debug)]
struct Failing {
    sha256: String,
    strikes: Vec<Instant>,
    /// Until when it is out, if it is.
    out: Option<Instant>,
    /// How long it will be out next.
    back_off: Duration,
    /// It was out, and is tried again.
    probation: bool,
}

/// A version that may write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) sha256: &'a str,
    /// Whether it can hold the tracks.
    pub(super) fits: bool,
}

impl Failover {
    /// A version failed by its own fault.
    pub(super) fn failed(&mut self, sha256: &str, now: Instant) {
        let failing = self.get(sha256);
        failing.strikes.retain(|&strike| now.duration_since(strike) < WINDOW);
        failing.strikes.push(now);
        if failing.strikes.len() >= STRIKES || failing.probation {
            failing.put_out(now);
        }
    }

    /// A version does not take what it is given, and is out.
    pub(super) fn put_out(&mut self, sha256: &str, now: Instant) {
        self.get(sha256).put_out(now);
    }

    /// Whether a version's back-off is over, so that it is to be tried again.
    pub(super) fn is_due(&self, sha256: &str, now: Instant) -> bool {
        let failing = self.0.iter().find(|failing| failing.sha256 == sha256);
        failing.is_none_or(|failing| failing.out.is_none_or(|until| until <= now))
    }

    fn get(&mut self, sha256: &str) -> &mut Failing {
        let i = self.0.iter().position(|failing| failing.sha256 == sha256).unwrap_or_else(|| {
            if self.0.len() >= REMEMBERED {
                self.0.remove(0);
            }
            let sha256 = sha256.to_owned();
            self.0.push(Failing {
                sha256,
                strikes: vec![],
                out: None,
                back_off: BACK_OFF.0,
                probation: false,
            });
            self.0.len() - 1
        });
        &mut self.0[i]
    }

    /// Who writes the next segment, the active version being the first; `None`: the last resort. `regular`: the
    /// segment is none that failed, so a version whose back-off is over is tried again.
    pub(super) fn choose(&mut self, candidates: &[Candidate], regular: bool, now: Instant) -> Option<usize> {
        candidates
            .iter()
            .position(|candidate| candidate.fits && self.may_write(candidate.sha256, regular, now))
    }

    fn may_write(&mut self, sha256: &str, regular: bool, now: Instant) -> bool {
        let Some(failing) = self.0.iter_mut().find(|failing| failing.sha256 == sha256) else { return true };
        match failing.out {
            None => true,
            Some(until) if regular && now >= until => {
                (failing.out, failing.probation) = (None, true);
                true
            }
            Some(_) => false,
        }
    }
}

impl Failing {
    fn put_out(&mut self, now: Instant) {
        self.out = Some(now + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        self.probation = false;
        self.strikes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Candidate<'_>; 3] = [
        Candidate { sha256: "active", fits: true },
        Candidate { sha256: "before", fits: true },
        Candidate { sha256: "embedded", fits: true },
    ];

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn two_strikes_in_ten_minutes_and_the_next_one_writes() {
        let (start, mut failover) = (Instant::now(), Failover::default());
        assert_eq!(failover.choose(&ALL, true, start), Some(0));
        failover.failed("active", start);
        assert_eq!(failover.choose(&ALL, false, start), Some(0), "once more");
        failover.failed("active", after(start, 599));
        assert_eq!(failover.choose(&ALL, false, after(start, 599)), Some(1));
        for version in ["before", "embedded"] {
            failover.failed(version, after(start, 599));
            failover.failed(version, after(start, 599));
        }
        assert_eq!(failover.choose(&ALL, false, after(start, 599)), None, "the last resort");

        let mut failover = Failover::default();
        failover.failed("active", start);
        failover.failed("active", after(start, 600));
        assert_eq!(failover.choose(&ALL, false, after(start, 600)), Some(0), "the first is forgotten");
    }

    #[test]
    fn one_that_cannot_hold_the_tracks_is_passed_over() {
        let (now, mut failover) = (Instant::now(), Failover::default());
        failover.failed("active", now);
        failover.failed("active", now);
        let candidates = [ALL[0], Candidate { fits: false, ..ALL[1] }, ALL[2]];
        assert_eq!(failover.choose(&candidates, false, now), Some(2));
        assert_eq!(failover.choose(&candidates[..2], false, now), None);
    }

    #[test]
    fn after_a_back_off_that_doubles_the_active_version_is_tried_at_a_regular_cut() {
        let (start, mut failover) = (Instant::now(), Failover::default());
        failover.failed("active", start);
        failover.failed("active", start);
        let (mut at, mut back_off) = (0, 60);
        for _ in 0..10 {
            assert_eq!(failover.choose(&ALL, true, after(start, at + back_off - 1)), Some(1));
            assert!(!failover.is_due("active", after(start, at + back_off - 1)));
            at += back_off;
            assert!(failover.is_due("active", after(start, at)));
            assert_eq!(failover.choose(&ALL, false, after(start, at)), Some(1), "not in the middle");
            assert_eq!(failover.choose(&ALL, true, after(start, at)), Some(0));
            assert_eq!(failover.choose(&ALL, false, after(start, at)), Some(0), "until it fails");
            failover.failed("active", after(start, at));
            assert_eq!(failover.choose(&ALL, false, after(start, at)), Some(1), "with one strike");
            back_off = (back_off * 2).min(3600);
        }
        assert_eq!(back_off, 3600);
    }

    #[test]
    fn a_new_active_version_has_no_strikes() {
        let (now, mut failover) = (Instant::now(), Failover::default());
        failover.failed("active", now);
        failover.failed("active", now);
        let candidates = [Candidate { sha256: "newer", fits: true }, ALL[0], ALL[1]];
        assert_eq!(failover.choose(&candidates, true, now), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (now, mut failover) = (Instant::now(), Failover::default());
        (0..1000).for_each(|i| failover.failed(&i.to_string(), now));
        assert_eq!(failover.0.len(), REMEMBERED);
    }
}
