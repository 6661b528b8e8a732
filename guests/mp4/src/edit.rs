//! When each track is presented: edit lists (ISO/IEC 14496-12, 8.6.6).
//!
//! Media time 0 is a track's first sample in decoding order. The movie's time 0 is the segment's origin (or
//! the first picture, should that lie before it: nothing is cut off). Between the two stand the time until
//! the track begins, an empty edit, and the time between the decoding and the presentation of its first
//! picture, the `media_time` of a normal edit. Sound gets no more than that: the times of the wire are
//! those of presentation, so there is no priming to be cut off.

use crate::{boxes::Boxes, pass::Totals, timeline::Clock};

/// Place of a track in the movie. The movie's timescale is milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// What is added to every composition time offset, so that no sample is presented before media time 0
    /// (an edit can't say that). 0 for all but odd streams.
    pub(crate) shift: i64,
    /// Length of the empty edit, in ms.
    delay_ms: u64,
    /// Media time of the first picture.
    media_time: u64,
    /// Length of the presentation, in ms, rounded up.
    length_ms: u64,
    /// Sum of the samples' durations, in ms, rounded up.
    media_ms: u64,
}

/// When a track's presentation begins, in ms on the run's time line; `None` without samples.
pub(crate) fn begins_ms(totals: &Totals, clock: &Clock) -> Option<i64> {
    (totals.samples > 0).then(|| clock.run_ms(totals.first_dts, totals.first_shown))
}

impl Edit {
    /// Places a track in a movie that begins at `movie_ms` on the run's time line.
    pub(crate) fn new(totals: &Totals, clock: &Clock, movie_ms: i64) -> Self {
        let Some(begins_ms) = begins_ms(totals, clock) else { return Self::default() };
        Self {
            shift: (-totals.first_shown).max(0),
            delay_ms: begins_ms.saturating_sub(movie_ms).max(0).unsigned_abs(),
            media_time: totals.first_shown.max(0).unsigned_abs(),
            length_ms: clock.ceil_ms(totals.shown_until - totals.first_shown),
            media_ms: clock.ceil_ms(totals.duration),
        }
    }

    /// Length of the track in the movie, in ms.
    pub(crate) fn duration_ms(&self) -> u64 {
        if self.is_needed() { self.delay_ms + self.length_ms } else { self.media_ms }
    }

    fn is_needed(&self) -> bool {
        self.delay_ms > 0 || self.media_time > 0
    }

    /// Writes `edts`, unless it would say what is so without it.
    pub(crate) fn write(&self, b: &mut Boxes) {
        if !self.is_needed() {
            return;
        }
        let long = u32::try_from(self.delay_ms.max(self.length_ms)).is_err()
            || i32::try_from(self.media_time).is_err();
        let entry = |b: &mut Boxes, duration: u64, media_time: i64| {
            if long {
                b.u64(duration);
                b.u64(media_time.cast_unsigned());
            } else {
                b.u32(duration as u32);
                b.u32(media_time as u32);
            }
            b.u32(0x0001_0000); // media_rate 1
        };
        b.plain(b"edts", |b| {
            b.full(b"elst", u8::from(long), 0, |b| {
                b.u32(1 + u32::from(self.delay_ms > 0)); // entry_count
                if self.delay_ms > 0 {
                    entry(b, self.delay_ms, -1);
                }
                entry(b, self.length_ms, self.media_time.cast_signed());
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use reelwright_sdk::Timebase;

    use super::*;

    fn edit(first_dts: i64, first_shown: i64, shown_until: i64, movie_ms: i64) -> (Edit, Vec<u8>) {
        let clock = Clock::exact(Timebase { num: 1, den: 1000 }).unwrap();
        let totals =
            Totals { samples: 9, first_dts, first_shown, shown_until, duration: 360, ..Totals::default() };
        let edit = Edit::new(&totals, &clock, movie_ms);
        let mut b = Boxes::default();
        edit.write(&mut b);
        (edit, b.into_bytes())
    }

    #[test]
    fn none_where_it_would_say_nothing() {
        let (edit, bytes) = edit(500, 0, 360, 500);
        assert_eq!((edit.duration_ms(), edit.shift, bytes.len()), (360, 0, 0));
    }

    #[test]
    fn delay_and_composition_offset() {
        let (edit, bytes) = edit(520, 80, 440, 500);
        let expected: &[&[u8]] = &[
            &[0, 0, 0, 48],
            b"edts",
            &[0, 0, 0, 40],
            b"elst",
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 100, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0],
            &[0, 0, 1, 104, 0, 0, 0, 80, 0, 1, 0, 0],
        ];
        assert_eq!((edit.duration_ms(), bytes), (460, expected.concat()));
    }

    #[test]
    fn what_is_shown_before_it_is_decoded_is_shifted() {
        let (edit, bytes) = edit(520, -30, 330, 480);
        assert_eq!((edit.shift, edit.delay_ms, edit.media_time, edit.length_ms), (30, 10, 0, 360));
        assert_eq!(bytes.len(), 48);
    }

    #[test]
    fn long_ones_take_64_bits() {
        let (edit, bytes) = edit(0, 0, 5_000_000_000, -1);
        assert_eq!(edit.duration_ms(), 5_000_000_001);
        assert_eq!((bytes.len(), bytes[16]), (8 + 16 + 2 * 20, 1));
    }
}
