//! The samples that a segment was given since the last point at which another can begin, so that none is lost with
//! its writer. Pure.
//!
//! ```text
//!             mark 0                 mark 75
//!   samples   K . . . . . . . . . .  K . . . . . .│ the writer fails
//!                                    └── kept ───┘
//! ```
//!
//! A mark says where the segment's files end if the next segment begins there. A writer that holds samples back has
//! fewer in its files than it was given: then what it holds is kept as well, and begins the next segment.
//!
//! What is kept is bounded. Over that nothing is kept, up to the next mark.

use std::collections::VecDeque;

use crate::media::Sample;

/// Most bytes that are kept, and most milliseconds by one track's times.
const MAX_BYTES: usize = 8 << 20;
const MAX_MS: i64 = 10_000;

/// What is kept of a segment. `P`: what is to be known of a mark.
#[derive(Debug)]
pub(super) struct Kept<P> {
    /// Where the files end, and how many samples are in them.
    mark: Option<(u64, P)>,
    /// Number in the segment of the first sample that is kept.
    first: u64,
    samples: VecDeque<Sample>,
    bytes: usize,
    /// Nothing is given up before so many samples were given: they are in no other file.
    pinned: u64,
}

impl<P> Kept<P> {
    /// A segment begins. Its first `pinned` samples are kept whatever there are.
    pub(super) fn new(start: P, pinned: u64) -> Self {
        Self { mark: Some((0, start)), first: 0, samples: VecDeque::new(), bytes: 0, pinned }
    }

    /// The next sample could begin another segment, and the files end with so many samples. What is in them is kept no
    /// longer.
    pub(super) fn mark(&mut self, in_files: u64, point: P) {
        // What was given up can't be given again.
        if !(self.first..=self.next()).contains(&in_files) || self.next() < self.pinned {
            return;
        }
        while self.first < in_files {
            let Some(sample) = self.samples.pop_front() else { break };
            self.bytes -= sample.data.len();
            self.first += 1;
        }
        self.mark = Some((in_files, point));
    }

    /// The segment was given samples.
    pub(super) fn push(&mut self, samples: impl IntoIterator<Item = Sample>) {
        for sample in samples {
            self.bytes += sample.data.len();
            self.samples.push_back(sample);
        }
        if self.next() > self.pinned && (self.bytes > MAX_BYTES || self.length_ms() > MAX_MS) {
            self.give_up();
        }
    }

    /// Nothing of what was given can be given again.
    pub(super) fn give_up(&mut self) {
        (self.first, self.bytes, self.mark) = (self.next(), 0, None);
        self.samples = VecDeque::new();
    }

    /// The segment fails: the last mark, and the samples behind it. `None`: they are not kept.
    pub(super) fn take(self) -> Option<(P, Vec<Sample>)> {
        let (in_files, point) = self.mark?;
        let skip = usize::try_from(in_files - self.first).ok()?;
        Some((point, self.samples.into_iter().skip(skip).collect()))
    }

    /// The samples that are not among the first so many; `None`: not all of them are kept.
    pub(super) fn since(self, in_files: u64) -> Option<Vec<Sample>> {
        let skip = usize::try_from(in_files.checked_sub(self.first)?).ok()?;
        Some(self.samples.into_iter().skip(skip).collect())
    }

    /// Number of the next sample.
    fn next(&self) -> u64 {
        self.first + self.samples.len() as u64
    }

    fn length_ms(&self) -> i64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return 0 };
        last.dts_ms.saturating_sub(first.dts_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(numbers: std::ops::Range<i64>, size: usize) -> Vec<Sample> {
        let sample = |n: i64| Sample {
            track: 1,
            dts_ms: n * 40,
            pts_ms: n * 40,
            key: false,
            discontinuity: false,
            data: vec![0; size].into(),
        };
        numbers.map(sample).collect()
    }

    #[test]
    fn what_comes_behind_the_last_mark_is_kept() {
        let mut kept = Kept::new("start", 0);
        kept.push(samples(0..25, 10));
        kept.mark(25, "key");
        kept.push(samples(25..30, 10));
        assert_eq!(kept.take(), Some(("key", samples(25..30, 10))));
    }

    #[test]
    fn a_segment_that_has_no_mark_yet_is_given_again_from_its_beginning() {
        let mut kept = Kept::new("start", 0);
        assert_eq!(Kept::new("start", 0).take(), Some(("start", vec![])));
        kept.push(samples(0..3, 10));
        assert_eq!(kept.take(), Some(("start", samples(0..3, 10))));
    }

    #[test]
    fn what_a_writer_holds_back_is_kept_with_what_follows() {
        let mut kept = Kept::new("start", 0);
        kept.push(samples(0..25, 10));
        kept.mark(20, "key");
        kept.push(samples(25..30, 10));
        assert_eq!(kept.take(), Some(("key", samples(20..30, 10))));
    }

    #[test]
    fn what_is_not_in_a_file_at_the_end_is_kept() {
        let kept = || {
            let mut kept = Kept::new("start", 0);
            kept.push(samples(0..25, 10));
            kept.mark(20, "key");
            kept.push(samples(25..30, 10));
            kept
        };
        assert_eq!(kept().since(27), Some(samples(27..30, 10)));
        assert_eq!(kept().since(30), Some(vec![]));
        assert_eq!(kept().since(19), None, "they are in the files by what their writer said");
    }

    #[test]
    fn too_much_is_not_kept_up_to_the_next_mark() {
        let small = |n| samples(0..n, 10);
        for many in [samples(0..9, 1 << 20), small(252)] {
            let mut kept = Kept::new("start", 0);
            let count = many.len() as i64;
            kept.push(many);
            kept.push(samples(count..count + 5, 10));
            kept.mark(count as u64 - 1, "held back, and given up");
            assert!(kept.mark.is_none());
            kept.mark(count as u64 + 5, "key");
            kept.push(samples(count + 5..count + 7, 10));
            assert_eq!(kept.take(), Some(("key", samples(count + 5..count + 7, 10))));
        }
        let mut kept = Kept::new("start", 0);
        kept.push(small(251));
        assert_eq!(kept.take().unwrap().1.len(), 251, "10 s are not too much");
    }

    #[test]
    fn what_is_in_no_other_file_is_kept_whatever_it_is() {
        let mut kept = Kept::new("start", 300);
        kept.push(samples(0..299, 10));
        kept.mark(299, "key");
        kept.push(samples(299..300, 10));
        assert_eq!(kept.take(), Some(("start", samples(0..300, 10))));
    }
}
