//! Whole segments, written, closed and recovered on the host of the author's kit.

#![allow(clippy::unwrap_used, unreachable_pub)] // a test

mod reader;

use proptest::prelude::*;
use reader::{Flv, Value};
use reelwright_sdk::mock::{Files, Harness, recover};
use reelwright_sdk::{End, KEY, Property, Sample, Start, Summary, Timebase, Track, TrackEnd, Writer};

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;
const ORIGIN_MS: i64 = 5000;

/// libx264, 1280x720, main profile, from an FLV of FFmpeg 5.1.
const AVC_CONFIG: &[u8] = &[
    0x01, // configurationVersion
    0x4d, 0x40, 0x1f, // AVCProfileIndication, profile_compatibility, AVCLevelIndication
    0xff, // lengthSizeMinusOne = 3
    0xe1, // one SPS
    0x00, 0x17, //
    0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80, 0x28, 0x02, 0xdd, 0x80, 0xb5, 0x01, 0x01, 0x01, 0x40, 0x00, 0x00,
    0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, //
    0x01, // one PPS
    0x00, 0x04, 0x68, 0xeb, 0xef, 0x20,
];
/// FFmpeg's AAC-LC, 48 kHz stereo.
const AAC_CONFIG: &[u8] = &[0x11, 0x90, 0x56, 0xe5, 0x00];

fn track(id: u32) -> Track {
    let (kind, codec, config) = match id {
        VIDEO => ("video", "avc1", AVC_CONFIG),
        _ => ("audio", "mp4a", AAC_CONFIG),
    };
    Track {
        id,
        kind: kind.into(),
        codec: codec.into(),
        timebase: Timebase { num: 1, den: 1000 },
        config: config.into(),
        properties: Vec::new(),
    }
}

fn start(tracks: &[u32], index_entries: u32) -> Start {
    Start {
        segment: 0,
        epoch_us: 1_709_251_199_250_000,
        origin_ms: ORIGIN_MS,
        head_room: 0,
        head_align: 4096,
        tracks: tracks.iter().map(|&id| track(id)).collect(),
        options: vec![Property { key: "keyframe-index-entries".into(), value: index_entries.to_string() }],
        carry: Vec::new(),
    }
}

/// A sample at a file time, with its payload.
type Media = (Sample, Vec<u8>);

fn sample(track: u32, file_ms: i64, composition_ms: i64, key: bool, payload: &[u8]) -> Media {
    let dts = ORIGIN_MS + file_ms;
    let bits = if key { KEY } else { 0 };
    (Sample { seq: 0, dts, pts: dts + composition_ms, duration: 0, track, size: 0, bits }, payload.to_vec())
}

fn key(file_ms: i64) -> Media {
    sample(VIDEO, file_ms, 0, true, b"\0\0\0\x02\x65k")
}

fn inter(file_ms: i64) -> Media {
    sample(VIDEO, file_ms, 0, false, b"\0\0\0\x02\x41i")
}

fn audio(file_ms: i64) -> Media {
    sample(AUDIO, file_ms, 0, true, b"\x21\x10\x04")
}

fn end(file_ms: &[(u32, i64)]) -> End {
    End {
        reason: "stopped".into(),
        tracks: file_ms.iter().map(|&(track, ms)| TrackEnd { track, dts: ORIGIN_MS + ms }).collect(),
        properties: Vec::new(),
    }
}

fn open(start: Start) -> Harness<reelwright_flv::Flv> {
    Harness::open(start).unwrap()
}

fn write(harness: &mut Harness<reelwright_flv::Flv>, media: &[Media]) {
    let batch: Vec<_> = media.iter().map(|(sample, payload)| (*sample, payload.as_slice())).collect();
    harness.write(&batch).unwrap();
}

fn record(start: Start, media: &[Media], end: End) -> (Summary, Vec<u8>) {
    let mut harness = open(start);
    media.chunks(64).for_each(|batch| write(&mut harness, batch));
    let (summary, files) = harness.finish(end).unwrap();
    (summary, files.main())
}

fn properties(summary: &Summary) -> Vec<(&str, &str)> {
    summary.properties.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect()
}

#[test]
fn the_manifest_says_what_it_is() {
    let manifest = reelwright_flv::Flv::describe();
    assert_eq!((manifest.format.as_str(), manifest.extension.as_str()), ("flv", "flv"));
    assert_eq!(manifest.mime, "video/x-flv");
    assert_eq!(manifest.codecs, ["avc1", "mp4a"]);
    assert_eq!(manifest.needs, ["patch", "read-back"]);
    assert_eq!(manifest.options[0].default_value, "4096");
}

#[test]
fn a_segment_from_begin_to_end() {
    let mut harness = open(start(&[VIDEO, AUDIO], 8));
    let media = [
        sample(VIDEO, 0, 80, true, b"\0\0\0\x01\x65"),
        audio(3),
        sample(VIDEO, 40, -40, false, b"\0\0\0\x01\x41"),
        audio(26),
        sample(VIDEO, 2000, 0, true, b""),
        audio(2010),
    ];
    write(&mut harness, &media);
    let (summary, files) = harness.finish(end(&[(VIDEO, 2040), (AUDIO, 2033)])).unwrap();
    assert_eq!(
        properties(&summary),
        [("duration-ms", "2040"), ("video-frames", "3"), ("keyframes", "2"), ("audio-frames", "3")]
    );

    let file = files.main();
    let flv = Flv::read(&file);
    assert_eq!(flv.flags, 5);
    assert_eq!((flv.tags[0].body[..5].to_vec(), flv.tags[0].payload()), (vec![0x17, 0, 0, 0, 0], AVC_CONFIG));
    assert_eq!((flv.tags[1].body[..2].to_vec(), flv.tags[1].payload()), (vec![0xaf, 0], AAC_CONFIG));
    assert!(flv.tags[..2].iter().all(|tag| tag.time_ms == 0));
    let seen: Vec<_> = flv.samples().map(|t| (t.body[0], t.time_ms, t.payload().to_vec())).collect();
    let expected: Vec<_> = media
        .iter()
        .zip([0x17, 0xaf, 0x27, 0xaf, 0x17, 0xaf])
        .map(|((sample, payload), first)| (first, (sample.dts - ORIGIN_MS) as u32, payload.clone()))
        .collect();
    assert_eq!(seen, expected);
    let composition: Vec<_> = flv.samples().filter(|t| t.is_video()).map(|t| t.composition_time()).collect();
    assert_eq!(composition, [80, -40, 0]);

    let data = &flv.metadata;
    for (name, value) in [
        ("duration", 2.04),
        ("filesize", file.len() as f64),
        ("width", 1280.0),
        ("height", 720.0),
        ("videocodecid", 7.0),
        ("audiocodecid", 10.0),
        ("audiosamplerate", 48_000.0),
        ("audiosamplesize", 16.0),
        ("lasttimestamp", 2.01),
        ("lastkeyframetimestamp", 2.0),
    ] {
        assert_eq!(data.number(name), value, "{name}");
    }
    for name in ["stereo", "hasMetadata", "hasVideo", "hasAudio", "hasKeyframes", "canSeekToEnd"] {
        assert_eq!(data.get(name), Some(&Value::Boolean(true)), "{name}");
    }
    assert_eq!(data.get("creationdate"), Some(&Value::Text("2024-02-29T23:59:59.250Z".into())));
    for name in ["framerate", "videodatarate", "audiodatarate"] {
        assert_eq!(data.get(name), None, "{name}");
    }
    // The sequence header stands for the key frame at 0.
    assert_eq!(flv.index(), [(flv.tags[0].offset, 0), (flv.tags[6].offset, 2000)]);
}

#[test]
fn a_growing_file_is_whole() {
    let mut harness = open(start(&[VIDEO, AUDIO], 4096));
    write(&mut harness, &[key(0), audio(0), key(1000)]);
    let file = harness.abandon().main();
    let flv = Flv::read(&file);
    assert_eq!(flv.samples().count(), 3);
    assert_eq!((flv.metadata.number("duration"), flv.metadata.number("filesize")), (0.0, 0.0));
    assert_eq!(flv.index(), []);
}

#[test]
fn one_kind_of_track_is_enough() {
    let (summary, file) = record(start(&[AUDIO], 4096), &[audio(0), audio(23)], end(&[(AUDIO, 46)]));
    let flv = Flv::read(&file);
    assert_eq!((flv.flags, flv.tags.len()), (4, 3));
    assert_eq!(properties(&summary), [("duration-ms", "46"), ("audio-frames", "2")]);
    for name in ["width", "videocodecid", "lastkeyframetimestamp", "canSeekToEnd", "keyframes", "filler"] {
        assert_eq!(flv.metadata.get(name), None, "{name}");
    }
    assert_eq!(flv.metadata.get("hasVideo"), Some(&Value::Boolean(false)));
    assert_eq!(flv.metadata.get("hasKeyframes"), Some(&Value::Boolean(false)));

    let (summary, file) = record(start(&[VIDEO], 4), &[key(0), inter(40)], end(&[(VIDEO, 80)]));
    let flv = Flv::read(&file);
    assert_eq!((flv.flags, flv.tags.len()), (1, 3));
    assert_eq!(properties(&summary), [("duration-ms", "80"), ("video-frames", "2"), ("keyframes", "1")]);
    assert_eq!(flv.metadata.get("hasAudio"), Some(&Value::Boolean(false)));
    assert_eq!(flv.metadata.get("canSeekToEnd"), Some(&Value::Boolean(false)));
    assert_eq!(flv.metadata.get("audiocodecid"), None);
}

#[test]
fn a_segment_without_samples_closes() {
    let (summary, file) = record(start(&[VIDEO, AUDIO], 4), &[], end(&[]));
    let flv = Flv::read(&file);
    assert_eq!(flv.metadata.number("duration"), 0.0);
    assert_eq!(flv.metadata.number("filesize"), file.len() as f64);
    assert_eq!(properties(&summary)[0], ("duration-ms", "0"));
}

#[test]
fn properties_of_tracks_are_passed_on() {
    let mut start = start(&[VIDEO, AUDIO], 0);
    let property = |key: &str, value: &str| Property { key: key.into(), value: value.into() };
    start.tracks[0].properties = vec![property("frame-rate", "25"), property("bit-rate", "2500000")];
    start.tracks[0].properties.push(property("width", "1"));
    start.tracks[1].properties = vec![property("bit-rate", "128000")];
    let (_, file) = record(start, &[key(0)], end(&[]));
    let data = Flv::read(&file).metadata;
    assert_eq!((data.number("framerate"), data.number("videodatarate")), (25.0, 2500.0));
    assert_eq!((data.number("audiodatarate"), data.number("width")), (128.0, 1280.0));
}

#[test]
fn the_index_has_room_for_what_the_option_says() {
    for entries in [0, 1, 2, 3, 7] {
        let media = |count: i64| -> Vec<Media> {
            (0..count).flat_map(|i| [key(i * 10), inter(i * 10 + 5)]).collect()
        };
        let mut first_tag = None;
        for count in 0..=9 {
            let (_, file) = record(start(&[VIDEO], entries), &media(count), end(&[]));
            let flv = Flv::read(&file);
            assert_eq!(*first_tag.get_or_insert(flv.tags[0].offset), flv.tags[0].offset);
            if entries == 0 {
                assert_eq!((flv.metadata.get("keyframes"), flv.metadata.get("filler")), (None, None));
                continue;
            }
            // One entry alone is no index.
            let len = flv.index().len();
            match count as u32 {
                0 | 1 => assert_eq!(len, 0),
                count if count <= entries => assert_eq!(len, count as usize),
                _ => assert!(len <= entries as usize && (entries == 1 || len > entries as usize / 2)),
            }
        }
    }
}

#[test]
fn a_long_recording_keeps_an_index_of_the_whole() {
    let media: Vec<Media> = (0..100).flat_map(|i| [key(i * 1000), inter(i * 1000 + 500)]).collect();
    let (summary, file) = record(start(&[VIDEO], 4), &media, end(&[(VIDEO, 100_000)]));
    let times: Vec<u32> = Flv::read(&file).index().iter().map(|&(_, time_ms)| time_ms).collect();
    assert_eq!(times, [0, 32_000, 64_000, 96_000]);
    assert!(properties(&summary).contains(&("keyframes", "100")));
}

#[test]
fn times_over_24_bits_use_the_extended_byte() {
    let last = i64::from(i32::MAX);
    let media = [key(0xff_ffff), inter(0x100_0000), audio(0x1234_5678), key(last)];
    let (_, file) = record(start(&[VIDEO, AUDIO], 8), &media, end(&[(VIDEO, last + 40)]));
    let flv = Flv::read(&file);
    let times: Vec<u32> = flv.samples().map(|t| t.time_ms).collect();
    assert_eq!(times, [0xff_ffff, 0x100_0000, 0x1234_5678, 0x7fff_ffff]);
    assert_eq!(flv.metadata.number("duration"), (last + 40) as f64 / 1000.0);
    // Entries: sequence header, first and last key frame.
    assert_eq!(flv.index().iter().map(|e| e.1).collect::<Vec<_>>(), [0, 0xff_ffff, 0x7fff_ffff]);
}

#[test]
fn samples_that_do_not_fit_end_the_segment_after_those_before_them() {
    let table = [
        (key(i64::from(i32::MAX) + 1), "limit", "sample 1 of track 1: a time of 2147483648 ms"),
        (key(1 << 60), "limit", "sample 1 of track 1: a time of 1152921504606846976 ms"),
        (
            sample(VIDEO, 40, 0x80_0000, false, b""),
            "bad-input",
            "sample 1 of track 1: composition time 8388608 ms, FLV holds -8388608 to 8388607",
        ),
        (
            sample(VIDEO, 40, -0x80_0001, false, b""),
            "bad-input",
            "sample 1 of track 1: composition time -8388609",
        ),
        (sample(9, 40, 0, false, b""), "bad-input", "sample 1 belongs to track 9, which was not announced"),
        (key(-1), "bad-input", "sample 1 of track 1: 1 ms before the segment's origin"),
    ];
    for (bad, code, message) in table {
        let mut harness = open(start(&[VIDEO], 8));
        let good = key(0);
        let error = harness.write(&[(good.0, &good.1), (bad.0, &bad.1), (good.0, &good.1)]).unwrap_err();
        assert_eq!(error.code, code);
        assert!(error.message.starts_with(message), "{}", error.message);
        let (summary, files) = harness.finish(end(&[(VIDEO, 40)])).unwrap();
        assert_eq!(Flv::read(&files.main()).samples().count(), 1);
        assert!(properties(&summary).contains(&("duration-ms", "40")));
    }
}

#[test]
fn options_out_of_range_are_named() {
    for value in ["-1", "65537", "many", ""] {
        let mut start = start(&[VIDEO], 0);
        start.options[0].value = value.into();
        let error = Harness::<reelwright_flv::Flv>::open(start).unwrap_err();
        assert_eq!(error.code, "bad-option");
        assert_eq!(
            error.message,
            format!("option keyframe-index-entries is `{value}`; it takes a whole number from 0 to 65536")
        );
    }
}

#[test]
fn late_tracks_need_a_new_segment() {
    let mut harness = open(start(&[VIDEO], 0));
    assert!(harness.update_tracks(vec![track(VIDEO)]).unwrap());
    assert!(!harness.update_tracks(vec![track(VIDEO), track(AUDIO)]).unwrap());
    let changed = Track { config: [AVC_CONFIG, &[0]].concat(), ..track(VIDEO) };
    assert!(!harness.update_tracks(vec![changed]).unwrap());
}

/// Cuts the main file and recovers it.
fn cut_and_recover(start: Start, mut files: Files, size: usize) -> (Summary, Vec<u8>) {
    files.0.get_mut("").unwrap().body.truncate(size);
    let (summary, files) = recover::<reelwright_flv::Flv>(start, files).unwrap();
    (summary, files.main())
}

#[test]
fn a_torn_tag_is_reported_and_counted() {
    let start = || start(&[VIDEO, AUDIO], 8);
    let mut harness = open(start());
    write(&mut harness, &[key(0), audio(0), inter(40), key(1000)]);
    let files = harness.abandon();
    let last = Flv::read(&files.main()).tags.last().unwrap().clone();

    for extra in [1, 12, 20] {
        let size = last.offset as usize + extra;
        let (summary, file) = cut_and_recover(start(), files.clone(), size);
        assert_eq!(*properties(&summary).last().unwrap(), ("torn-bytes", extra.to_string().as_str()));
        assert!(properties(&summary).contains(&("duration-ms", "80")));
        let whole = Flv::read(&file[..last.offset as usize]);
        assert_eq!(whole.metadata.number("filesize"), size as f64);
        assert_eq!(whole.index().len(), 0);
    }
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let mut harness = open(start(&[VIDEO, AUDIO], 8));
    write(&mut harness, &[key(0)]);
    let files = harness.abandon();
    let refused = |start: Start, size: usize| {
        let mut files = files.clone();
        files.0.get_mut("").unwrap().body.truncate(size);
        recover::<reelwright_flv::Flv>(start, files).unwrap_err()
    };
    let size = files.main().len();
    let error = refused(start(&[VIDEO, AUDIO], 9), size);
    assert_eq!(error.code, "bad-input");
    assert_eq!(
        error.message,
        "the file does not hold at byte 0 what this version writes there; it is left as it is"
    );
    assert_eq!(refused(start(&[VIDEO], 8), size).code, "bad-input");
    assert_eq!(refused(start(&[VIDEO, AUDIO], 8), 0).code, "bad-input");
    assert_eq!(refused(start(&[VIDEO, AUDIO], 8), 300).code, "bad-input");
}

/// Any samples in order, with gaps, equal times, odd composition times and empty payloads.
fn any_media() -> impl Strategy<Value = Vec<Media>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    let step = prop_oneof![Just(0i64), 1..50i64, Just(3_000_000)];
    let one = (any::<bool>(), step, -100..100i64, any::<bool>(), payload);
    proptest::collection::vec(one, 0..60).prop_map(|media| {
        let mut times = [0; 2];
        let place = |(video, step, composition, key, payload): (bool, i64, i64, bool, Vec<u8>)| {
            let time = &mut times[usize::from(video)];
            *time += step;
            sample(if video { VIDEO } else { AUDIO }, *time, composition, key, &payload)
        };
        media.into_iter().map(place).collect()
    })
}

/// The end that recovery assumes: each track's last sample lasts as long as the one before.
fn assumed_end(media: &[Media]) -> End {
    let ends: Vec<(u32, i64)> = [VIDEO, AUDIO]
        .into_iter()
        .filter_map(|track| {
            let times: Vec<i64> =
                media.iter().filter(|m| m.0.track == track).map(|m| m.0.dts - ORIGIN_MS).collect();
            match times[..] {
                [] => None,
                [only] => Some((track, only)),
                [.., before, last] => Some((track, last + last - before)),
            }
        })
        .collect();
    end(&ends)
}

proptest! {
    #[test]
    fn bytes_do_not_depend_on_batches(media in any_media(), cuts in proptest::collection::vec(1..9usize, 60)) {
        let (_, expected) = record(start(&[VIDEO, AUDIO], 5), &media, assumed_end(&media));
        let mut harness = open(start(&[VIDEO, AUDIO], 5));
        let mut rest = &media[..];
        for cut in cuts {
            let (batch, tail) = rest.split_at(cut.min(rest.len()));
            if !batch.is_empty() {
                write(&mut harness, batch);
            }
            rest = tail;
        }
        prop_assert!(rest.is_empty());
        let (_, files) = harness.finish(assumed_end(&media)).unwrap();
        prop_assert_eq!(files.main(), expected);
    }

    #[test]
    fn what_is_written_is_read(media in any_media(), entries in 0..20u32) {
        let (_, file) = record(start(&[VIDEO, AUDIO], entries), &media, assumed_end(&media));
        let flv = Flv::read(&file);
        prop_assert_eq!(flv.metadata.number("filesize"), file.len() as f64);
        prop_assert_eq!(flv.samples().count(), media.len());
        for (tag, (sample, payload)) in flv.samples().zip(&media) {
            prop_assert_eq!(i64::from(tag.time_ms), sample.dts - ORIGIN_MS);
            prop_assert_eq!(tag.payload(), &payload[..]);
            prop_assert_eq!(tag.is_video(), sample.track == VIDEO);
            if tag.is_video() {
                prop_assert_eq!(i64::from(tag.composition_time()), sample.pts - sample.dts);
                prop_assert_eq!(tag.is_key(), sample.is_key());
            }
        }
        if entries > 0 {
            prop_assert!(flv.index().len() <= entries as usize);
        }
    }

    #[test]
    fn recovery_writes_what_finish_would_have(
        media in any_media(),
        left in 0..60usize,
        entries in 0..6u32,
        closed in any::<bool>(),
    ) {
        let start = || start(&[VIDEO, AUDIO], entries);
        let left = left.min(media.len());
        let (expected_summary, expected) = record(start(), &media[..left], assumed_end(&media[..left]));

        // A crash while it was recorded, or while it was closed.
        let mut harness = open(start());
        media.chunks(7).for_each(|batch| write(&mut harness, batch));
        let files = if closed { harness.finish(end(&[])).unwrap().1 } else { harness.abandon() };
        let (summary, recovered) = cut_and_recover(start(), files, expected.len());
        prop_assert_eq!(summary, expected_summary);
        prop_assert_eq!(recovered, expected);
    }
}
