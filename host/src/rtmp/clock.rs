//! RTMP timestamps on a line without wraps.

/// Unwraps 32-bit millisecond timestamps, which start again from 0 after 49.7 days (Adobe RTMP 1.0,
/// section 3, "Timestamp").
///
/// A timestamp is taken for the point next to the one before it, in either direction, so small steps back
/// (audio behind video, B-frames) stay small. Each track of a stream has a clock: two that are half the range
/// apart must not be taken for one that goes to and fro. But they begin on the same line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    last_ms: Option<i64>,
}

impl Clock {
    /// The first timestamp is taken for the point next to `near_ms`, where another track is, or stands for itself;
    /// `result as u32 == timestamp_ms` always holds.
    pub(super) fn unwrap_ms(&mut self, timestamp_ms: u32, near_ms: Option<i64>) -> i64 {
        let unwrapped = match self.last_ms.or(near_ms) {
            None => i64::from(timestamp_ms),
            // The low 32 bits of the last one: what it was on the wire.
            Some(last) => last + i64::from(timestamp_ms.wrapping_sub(last as u32) as i32),
        };
        self.last_ms = Some(unwrapped);
        unwrapped
    }

    /// The last timestamp, unwrapped.
    pub(super) fn last_ms(&self) -> Option<i64> {
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_steps_back() {
        const WRAP: i64 = 1 << 32;
        let mut clock = Clock::default();
        for (timestamp_ms, expected) in [
            (0xffff_fff0, WRAP - 16),
            (0xffff_ffe0, WRAP - 32), // a step back
            (10, WRAP + 10),          // the wrap
            (0xffff_fffe, WRAP - 2),  // the other track is not there yet
            (12, WRAP + 12),
            (0x7fff_0000, WRAP + 0x7fff_0000),
            (0xfffe_0000, WRAP + 0xfffe_0000),
            (5, 2 * WRAP + 5), // and once more
        ] {
            assert_eq!(clock.unwrap_ms(timestamp_ms, None), expected, "{timestamp_ms:#x}");
        }
    }

    #[test]
    fn tracks_begin_on_the_same_line_and_keep_to_their_own() {
        let (mut video, mut audio) = (Clock::default(), Clock::default());
        assert_eq!(video.unwrap_ms(5, None), 5);
        assert_eq!(audio.unwrap_ms(0xffff_fff0, video.last_ms()), -16);
        // Half the range apart, once a bit more, once a bit less.
        let (mut video, mut audio) = (Clock::default(), Clock::default());
        for (ms, apart) in [(0, 0), (40, 20), (80, -20), (120, 30)] {
            assert_eq!(video.unwrap_ms(ms, audio.last_ms()), i64::from(ms));
            let stamp = (1u32 << 31).wrapping_add_signed(apart) + ms;
            let found = audio.unwrap_ms(stamp, video.last_ms());
            assert_eq!(found, i64::from(stamp.cast_signed()), "{ms}");
        }
    }

    #[test]
    fn goes_below_zero_and_back() {
        let mut clock = Clock::default();
        assert_eq!([5, 0xffff_fffe, 3].map(|ms| clock.unwrap_ms(ms, None)), [5, -2, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_steps_under_half_the_range_are_followed(
            start: u32,
            steps in proptest::collection::vec(i32::MIN + 1.., 0..50),
        ) {
            let mut clock = Clock::default();
            let mut expected = i64::from(start);
            clock.unwrap_ms(start, None);
            for step in steps {
                expected += i64::from(step);
                proptest::prop_assert_eq!(clock.unwrap_ms(expected as u32, None), expected);
            }
        }
    }
}
