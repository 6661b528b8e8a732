//! A canary: a version that writes beside the active one, from the same samples, and is compared with it. Pure.
//!
//! The recordings' files stay the active version's, so that a bad canary costs nobody a frame. For each recording that
//! has a seat in the trial, both versions write the same slices of it into files that are then read and removed
//! ([`crate::recorder`]'s shadow does that). What was measured comes here, and the rules say what follows.
//!
//! It takes over when every seat has passed [`Terms::pass_ms`] of media. It is out when
//! - it fails (trap, limit, broken contract, refusal) where the active version did not;
//! - what it wrote can't be read, or does not hold what it was given;
//! - an instance needs over twice the memory, and over 8 MiB more;
//! - its files are over a quarter larger, and over 64 KiB larger in a slice;
//! - a sample takes it over three times as long, and over 20 µs longer, counted over at least 256 samples;
//! - it does not keep up with the stream, three times.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::lineup::Mode;

/// Samples before times count.
const MIN_SAMPLES: u64 = 256;
/// How much slower it may be: a factor, and so much a sample in any case.
const TIME_FACTOR: u32 = 3;
const TIME_SLACK: Duration = Duration::from_micros(20);
/// How much more memory an instance may need: a factor, and so many bytes in any case.
const MEMORY_FACTOR: u64 = 2;
const MEMORY_SLACK: u64 = 8 << 20;
/// How much larger its files may be, in percent, and so many bytes in any case.
const SIZE_PERCENT: u64 = 25;
const SIZE_SLACK: u64 = 64 << 10;
/// How often it may fall behind.
const MAX_BEHIND: u32 = 3;
/// Most streams that can be named.
const MAX_NAMED: usize = 64;

/// Which recordings take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The first so many that come.
    First(usize),
    /// So many of a hundred.
    Share(u64),
    /// Those of these streams.
    Streams(BTreeSet<String>),
}

impl Who {
    /// `2`, `10%` or `cam1,cam2`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || "a number of recordings from 1 to 1000, a share such as 10%, or names of streams".to_owned();
        if let Some(share) = text.strip_suffix('%') {
            return share
                .parse()
                .ok()
                .filter(|share| (1..=100).contains(share))
                .map(Self::Share)
                .ok_or_else(wrong);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().filter(|n| (1..=1000).contains(n)).map(Self::First).ok_or_else(wrong);
        }
        let names: BTreeSet<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.len() > MAX_NAMED || names.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Self::Streams(names))
    }

    /// As it was asked for.
    pub fn to_text(&self) -> String {
        match self {
            Who::First(n) => n.to_string(),
            Who::Share(share) => format!("{share}%"),
            Who::Streams(names) => names.iter().cloned().collect::<Vec<_>>().join(","),
        }
    }

    /// Whether a recording may have a seat beside so many others.
    fn admits(&self, config_id: u64, stream: &str, seated: usize) -> bool {
        match self {
            Who::First(n) => seated < *n,
            // The same recordings, whenever they come.
            Who::Share(share) => {
                config_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff < share * 65_536 / 100
            }
            Who::Streams(names) => names.contains(stream),
        }
    }
}

/// What a trial is to show, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub who: Who,
    /// Media that every seat has to pass, in milliseconds.
    pub pass_ms: u64,
    /// How recordings take the version when it has passed.
    pub mode: Mode,
}

/// What one of the two did with a slice so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub samples: u64,
    /// Time of computing.
    pub time: Duration,
    /// Bytes of memory of its instance.
    pub memory: u64,
    /// Bytes of its outputs.
    pub bytes: u64,
}

/// What becomes of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Open,
    /// The version takes over.
    Passed,
    /// It is out, for that reason.
    Out(String),
}

/// How far a trial is.
#[derive(Clone, Debug)]
pub struct Trial {
    pub terms: Terms,
    /// By configId: media that has passed, in milliseconds.
    seats: BTreeMap<u64, u64>,
    /// Of slices that are over.
    samples: u64,
    time: (Duration, Duration),
    behind: u32,
    verdict: Verdict,
}

impl Trial {
    /// One that begins.
    pub fn new(terms: Terms) -> Self {
        let (seats, time) = (BTreeMap::new(), (Duration::ZERO, Duration::ZERO));
        Self { terms, seats, samples: 0, time, behind: 0, verdict: Verdict::Open }
    }

    /// Gives a recording a seat, if it is to have one.
    pub fn sit(&mut self, config_id: u64, stream: &str) -> bool {
        let sits = self.verdict == Verdict::Open
            && !self.seats.contains_key(&config_id)
            && self.terms.who.admits(config_id, stream, self.seats.len());
        if sits {
            self.seats.insert(config_id, 0);
        }
        sits
    }

    /// A recording is over. What it passed does not count for others.
    pub fn stand_up(&mut self, config_id: u64) {
        self.seats.remove(&config_id);
    }

    /// By configId, the media that has passed, in milliseconds.
    pub fn seats(&self) -> impl Iterator<Item = (u64, u64)> {
        self.seats.iter().map(|(&config_id, &ms)| (config_id, ms))
    }

    /// A slice goes on: the canary and the active version have done this with it so far.
    pub fn goes_on(&mut self, canary: Measured, active: Measured) -> &Verdict {
        // Times come last: who writes more, or fills more memory, is slower by that.
        if canary.memory > active.memory * MEMORY_FACTOR && canary.memory > active.memory + MEMORY_SLACK {
            let (its, other) = (canary.memory >> 10, active.memory >> 10);
            return self.out(format!("it needs {its} KiB of memory, the active version {other} KiB"));
        }
        if canary.bytes > active.bytes + active.bytes * SIZE_PERCENT / 100
            && canary.bytes > active.bytes + SIZE_SLACK
        {
            let (its, other) = (canary.bytes, active.bytes);
            return self.out(format!("it wrote {its} bytes where the active version wrote {other}"));
        }
        let each = |time: Duration, samples: u64| time / u32::try_from(samples).unwrap_or(u32::MAX).max(1);
        let samples = self.samples + canary.samples;
        let (its, other) =
            (each(self.time.0 + canary.time, samples), each(self.time.1 + active.time, samples));
        if samples >= MIN_SAMPLES && its > other * TIME_FACTOR && its > other + TIME_SLACK {
            return self.out(format!("a sample takes it {its:?} of computing, the active version {other:?}"));
        }
        &self.verdict
    }

    /// A slice of a recording is over, and what was written of it is as it should be.
    pub fn passed(&mut self, config_id: u64, media_ms: u64, canary: Measured, active: Measured) -> &Verdict {
        if self.goes_on(canary, active) != &Verdict::Open {
            return &self.verdict;
        }
        self.samples += canary.samples;
        self.time.0 += canary.time;
        self.time.1 += active.time;
        if let Some(passed_ms) = self.seats.get_mut(&config_id) {
            *passed_ms += media_ms;
        }
        let all = match &self.terms.who {
            Who::First(n) => self.seats.len() >= *n,
            Who::Share(_) | Who::Streams(_) => !self.seats.is_empty(),
        };
        if all && self.seats.values().all(|&passed_ms| passed_ms >= self.terms.pass_ms) {
            self.verdict = Verdict::Passed;
        }
        &self.verdict
    }

    /// It failed, or what it wrote is not as it should be.
    pub fn out(&mut self, why: String) -> &Verdict {
        if self.verdict == Verdict::Open {
            self.verdict = Verdict::Out(why);
        }
        &self.verdict
    }

    /// A slice was broken off since it could not be written as fast as the stream came.
    pub fn fell_behind(&mut self) -> &Verdict {
        self.behind += 1;
        match self.behind >= MAX_BEHIND {
            true => self.out("it does not keep up with the stream".into()),
            false => &self.verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn trial(who: &str) -> Trial {
        Trial::new(Terms { who: Who::parse(who).unwrap(), pass_ms: 1000, mode: Mode::Drain })
    }

    fn measured(us: u64) -> Measured {
        Measured { samples: 256, time: Duration::from_micros(256 * us), memory: MB, bytes: MB }
    }

    #[test]
    fn who_takes_part() {
        for bad in ["", "0", "1001", "0%", "101%", "%", "a,,b", ","] {
            assert!(Who::parse(bad).is_err(), "{bad}");
        }
        let mut first = trial("2");
        assert_eq!([1, 1, 2, 3].map(|id| first.sit(id, "x")), [true, false, true, false]);
        first.stand_up(1);
        assert!(first.sit(3, "x"));
        let mut named = trial("cam1, cam3");
        assert_eq!(
            ["cam1", "cam2", "cam3"]
                .map(|name| named.sit(name.len() as u64 + name.as_bytes()[3] as u64, name)),
            [true, false, true]
        );
        let mut share = trial("10%");
        let seated = (0..10_000).filter(|&id| share.sit(id, "x")).count();
        assert!((800..1200).contains(&seated), "{seated}");
        let mut all = trial("100%");
        assert!((0..100).all(|id| all.sit(id, "x")));
        for text in ["2", "10%", "cam1,cam3"] {
            assert_eq!(Who::parse(text).unwrap().to_text(), text);
        }
    }

    #[test]
    fn it_takes_over_when_every_seat_has_passed() {
        let mut t = trial("2");
        t.sit(1, "a");
        for _ in 0..9 {
            assert_eq!(t.passed(1, 1000, measured(2), measured(2)), &Verdict::Open, "one seat is free");
        }
        t.sit(2, "b");
        assert_eq!(t.passed(2, 999, measured(2), measured(2)), &Verdict::Open);
        assert_eq!(t.passed(2, 1, measured(2), measured(2)), &Verdict::Passed);
        assert_eq!(t.out("late".into()), &Verdict::Passed, "a verdict stands");
    }

    #[test]
    fn each_rule_has_its_limit() {
        let fast = measured(1);
        let out = |canary: Measured, active: Measured| {
            let mut t = trial("1");
            t.sit(1, "a");
            match t.goes_on(canary, active) {
                Verdict::Out(why) => why.clone(),
                verdict => format!("{verdict:?}"),
            }
        };
        assert!(out(measured(22), fast).contains("a sample takes it 22µs"));
        assert_eq!(out(measured(20), fast), "Open", "within the slack");
        assert_eq!(out(measured(250), measured(100)), "Open", "within the factor");
        assert_eq!(out(Measured { samples: 10, ..measured(900) }, Measured { samples: 10, ..fast }), "Open");
        assert!(out(Measured { memory: 10 * MB, ..fast }, fast).contains("10240 KiB of memory"));
        assert_eq!(out(Measured { memory: 9 * MB, ..fast }, fast), "Open");
        assert!(
            out(Measured { memory: 10 * MB, ..measured(22) }, fast).contains("memory"),
            "the cause first"
        );
        assert!(out(Measured { bytes: 2 * MB, ..fast }, fast).contains("it wrote 2097152 bytes"));
        assert_eq!(out(Measured { bytes: MB + 60_000, ..fast }, fast), "Open");
    }

    #[test]
    fn times_count_over_slices() {
        let mut t = trial("1");
        t.sit(1, "a");
        let few =
            |us: u64| Measured { samples: 100, time: Duration::from_micros(100 * us), memory: MB, bytes: MB };
        assert_eq!(t.passed(1, 1, few(100), few(1)), &Verdict::Open);
        assert_eq!(t.passed(1, 1, few(100), few(1)), &Verdict::Open);
        assert!(matches!(t.goes_on(few(100), few(1)), Verdict::Out(_)));
    }

    #[test]
    fn falling_behind_is_forgiven_twice() {
        let mut t = trial("1");
        assert_eq!(t.fell_behind(), &Verdict::Open);
        assert_eq!(t.fell_behind(), &Verdict::Open);
        assert!(matches!(t.fell_behind(), Verdict::Out(_)));
        assert!(!t.sit(1, "a"), "it is over");
    }
}
