//! What holds for every stream, however odd.

mod support;

use proptest::prelude::*;
use reelwright_sdk::{KEY, Sample, Start};
use support::*;

/// Samples of two tracks in any order of arrival, with pauses, bursts, late tracks, odd sizes and pictures of many slices.
fn arrivals() -> impl Strategy<Value = Media> {
    let step = prop_oneof![6 => 0..50i64, 3 => 50..400i64, 1 => 400..30_000i64];
    let arrival =
        (1..3u32, step, -200..300i64, 0..7u8, prop_oneof![9 => 2..2_000usize, 1 => 0..200_000usize]);
    (-5_000..5_000i64, 0..4_000i64, prop::collection::vec(arrival, 1..120)).prop_map(
        |(first, late, arrivals)| {
            let mut times = [first, first - late];
            let to_sample = |(track, step, offset, kind, size): (u32, i64, i64, u8, usize)| {
                let time = &mut times[track as usize - 1];
                *time += step;
                let bits = if track == 2 || kind == 0 { KEY } else { 0 };
                let pts = if track == 1 { *time + offset.max(0) } else { *time };
                let payload = match (track, size) {
                    (1, size) if kind > 4 => {
                        let units: Vec<_> = (0..=size / 50).map(|i| slice(false, 2 + i % 60)).collect();
                        access_unit(&units.iter().map(Vec::as_slice).collect::<Vec<_>>())
                    }
                    (1, size) => access_unit(&[&slice(kind == 0, size)]),
                    (_, size) => vec![kind; size.min(8_184)],
                };
                (sample(track, *time, pts, bits), payload)
            };
            arrivals.into_iter().map(to_sample).collect()
        },
    )
}

fn start_of(media: &[(Sample, Vec<u8>)]) -> Start {
    let origin_ms = media.iter().map(|(s, _)| s.dts).min().unwrap_or(0);
    Start { origin_ms, ..start(&[video(), audio()]) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_arrivals_give_a_sound_stream_that_holds_them_all(media in arrivals(), size in 1..65usize) {
        let (_, bytes) = segment_of(start_of(&media), &media, size);
        // The rules of `demux`, the content, and the same bytes from other batches.
        assert_holds(&demux(&bytes), &media);
        let (_, one_by_one) = segment_of(start_of(&media), &media, 1);
        prop_assert!(bytes == one_by_one, "batches show in the bytes");
    }

    #[test]
    fn any_cut_can_be_joined(media in arrivals(), cut in 0..120usize) {
        let (before, after) = media.split_at(cut.min(media.len()));
        let (summary, mut bytes) = segment_of(start_of(before), before, 9);
        let next = Start { segment: 1, carry: summary.carry, ..start_of(after) };
        bytes.extend(segment(next, after));
        assert_holds(&demux(&bytes), &media);
    }

    #[test]
    fn any_carry_is_taken_or_ignored(carry in prop::collection::vec(any::<u8>(), 0..64), known: bool) {
        let carry = if known { [b"tsc1", carry.as_slice()].concat() } else { carry };
        let media = publish(500, 0);
        let found = demux(&segment(Start { segment: 1, carry, ..start_of(&media) }, &media));
        assert_holds(&found, &media);
    }
}
