//! Whole segments: what a transport stream of Reelwright's looks like, and what is refused.

mod support;

use reelwright_sdk::mock::{Files, Harness, recover};
use reelwright_sdk::{DISCONTINUITY, Error, KEY, Start, Timebase, Track, Writer};
use reelwright_ts::Ts;
use support::*;

#[test]
fn the_manifest() {
    let manifest = Ts::describe();
    assert_eq!((manifest.format.as_str(), manifest.extension.as_str()), ("ts", "ts"));
    assert_eq!((manifest.mime.as_str(), manifest.needs), ("video/mp2t", Vec::<String>::new()));
    assert_eq!(manifest.codecs, ["avc1", "mp4a"]);
}

#[test]
fn ten_seconds_of_video_and_audio() {
    let media = publish(10_000, 0);
    let (summary, bytes) = segment_of(start(&[video(), audio()]), &media, 64);
    let found = demux(&bytes);
    assert_holds(&found, &media);
    assert_eq!(found.pcr_pid, VIDEO);
    assert_eq!(found.order[..3], [0, PMT, VIDEO]);
    assert!(found.maps.windows(2).all(|w| w[0] == w[1]), "one program map");
    assert!(found.maps.len() >= 10 && found.maps.len() < 35, "{}", found.maps.len());
    assert_eq!(found.discontinuities, 0);
    for (i, pes) in found.pes_of(VIDEO).iter().enumerate() {
        assert_eq!((pes.stream_id, pes.length, pes.random_access), (0xe0, 0, i % 25 == 0));
        assert!(pes.pcr.expect("a PCR with each picture") <= pes.dts - 300 * 90);
    }
    for pes in found.pes_of(AUDIO) {
        assert_eq!((pes.stream_id, pes.random_access, pes.pcr), (0xc0, false, None));
    }
    assert_eq!(property(&summary, "duration-ms"), 9_962);
    assert_eq!(property(&summary, "video-frames"), 250);
    assert_eq!(property(&summary, "audio-frames"), 468);
    assert_eq!(property(&summary, "keyframes"), 10);
    assert_eq!(property(&summary, "packets"), bytes.len() as u64 / 188);
}

#[test]
fn tables_stand_before_each_key_frame() {
    let found = demux(&segment(start(&[video(), audio()]), &publish(4_000, 0)));
    let mut keys = 0;
    let mut pictures = found.pes_of(VIDEO).iter();
    for (i, &pid) in found.order.iter().enumerate() {
        if pid == VIDEO && pictures.next().expect("a picture").random_access {
            assert_eq!(found.order[i - 2..i], [0, PMT]);
            keys += 1;
        }
    }
    assert_eq!(keys, 4);
}

#[test]
fn audio_alone_has_the_clock() {
    let media: Media = publish(5_000, 0).into_iter().filter(|(s, _)| s.track == 2).collect();
    let found = demux(&segment(start(&[audio()]), &media));
    assert_holds(&found, &media);
    assert_eq!(found.pcr_pid, AUDIO);
    assert!(found.pes_of(AUDIO).iter().all(|pes| pes.random_access && pes.pcr.is_some()));
    assert!((10..=14).contains(&found.maps.len()), "{} tables in 5 s", found.maps.len());
}

#[test]
fn video_alone_and_slow() {
    let media: Media =
        (0..6).map(|i| (sample(1, i * 2000, i * 2000, KEY), access_unit(&[&slice(true, 60_000)]))).collect();
    let found = demux(&segment(start(&[video()]), &media));
    assert_holds(&found, &media);
    assert!(found.pcr.len() > 110, "PCRs fill the pauses: {}", found.pcr.len());
}

#[test]
fn a_silent_video_track_still_has_the_clock() {
    let media: Media = publish(3_000, 0).into_iter().filter(|(s, _)| s.track == 2).collect();
    let found = demux(&segment(start(&[video(), audio()]), &media));
    assert_holds(&found, &media);
    assert_eq!((found.pcr_pid, found.pes_of(VIDEO).len()), (VIDEO, 0));
    assert!(found.pcr.len() > 30);
}

#[test]
fn late_audio_is_not_behind_the_clock() {
    for late in [0, 300, 690, 1500, 2900] {
        let media = publish(20_000, late);
        let found = demux(&segment(start(&[video(), audio()]), &media));
        assert_holds(&found, &media);
        // A delay that the first samples do not show yet can only be made up for by waiting.
        let settled = if late <= 690 { 0 } else { (late as u64 + 1400 - 700) * 90 };
        for pes in found.pes.values().flatten().filter(|pes| pes.dts >= settled) {
            let clock = pes.clock.expect("a PCR before all data");
            assert!(clock <= pes.dts, "{late} ms late: DTS {} behind PCR {clock}", pes.dts);
        }
    }
}

#[test]
fn a_track_that_stops_does_not_stop_the_clock() {
    let media: Media =
        publish(20_000, 0).into_iter().filter(|(s, _)| s.track == 1 || s.dts < 2_000).collect();
    let found = demux(&segment(start(&[video(), audio()]), &media));
    let last = found.pes_of(VIDEO).last().expect("a picture");
    assert_eq!(last.dts - last.clock.expect("a PCR"), 3_700 * 90);
}

#[test]
fn a_long_pause_is_marked_and_a_shorter_one_filled() {
    let at = |ms: i64, bits| (sample(1, ms, ms, KEY | bits), access_unit(&[&slice(true, 100)]));
    let short = demux(&segment(start(&[video()]), &[at(0, 0), at(9_900, DISCONTINUITY)]));
    assert_eq!((short.discontinuities, short.pcr.len()), (0, 112));
    let long = demux(&segment(start(&[video()]), &[at(0, 0), at(40_000_000, 0)]));
    assert_eq!(long.discontinuities, 1);
    let clocks: Vec<_> = long.pcr.iter().map(|&(pcr, marked)| (pcr / 90, marked)).collect();
    assert_eq!(clocks, [(700, false), (700, false), (40_000_700, true), (40_000_700, false)]);
}

#[test]
fn times_wrap_and_may_lie_before_0() {
    let wrap = (1i64 << 33) / 90;
    for first in [wrap - 3_000, wrap - 1_400, wrap - 700, -1_400, -2_000, 5 * wrap - 10] {
        let mut media = publish(5_000, 200);
        for (sample, _) in &mut media {
            sample.dts += first;
            sample.pts += first;
        }
        let start = Start { origin_ms: first, ..start(&[video(), audio()]) };
        let found = demux(&segment(start, &media));
        assert_holds(&found, &media);
    }
}

#[test]
fn other_timebases() {
    let tracks = [
        Track { timebase: Timebase { num: 1001, den: 30_000 }, ..video() },
        Track { timebase: Timebase { num: 1, den: 44_100 }, ..audio() },
    ];
    let media = [
        (sample(1, 30, 31, KEY), access_unit(&[&slice(true, 10)])),
        (sample(2, 44_100, 44_100, KEY), vec![1]),
    ];
    let found = demux(&segment(start(&tracks), &media));
    let video = &found.pes_of(VIDEO)[0];
    assert_eq!((video.dts, video.pts), (126_000 + 90_090, 126_000 + 93_093));
    assert_eq!(found.pes_of(AUDIO)[0].pts, 126_000 + 90_000);
}

#[test]
fn a_pts_is_never_before_its_dts() {
    let picture = access_unit(&[&slice(false, 10)]);
    let media: Media = [(0, 0), (40, 120), (80, 40), (120, 80), (160, 240)]
        .map(|(dts, pts)| (sample(1, dts, pts, 0), picture.clone()))
        .into();
    let found = demux(&segment(start(&[video()]), &media));
    let times: Vec<_> = found.pes_of(VIDEO).iter().map(|p| (p.dts / 90 - 1400, p.pts / 90 - 1400)).collect();
    assert_eq!(times, [(0, 0), (40, 120), (40, 40), (80, 80), (120, 240)]);
}

#[test]
fn segments_join() {
    let media = publish(12_000, 100);
    let cuts: Vec<_> = media
        .iter()
        .enumerate()
        .filter(|(_, (s, _))| s.track == 1 && s.is_key() && s.dts % 2000 == 0)
        .map(|(i, _)| i)
        .chain([media.len()])
        .collect();
    let mut whole = Vec::new();
    let mut carry = Vec::new();
    for (n, cut) in cuts.windows(2).enumerate() {
        let media = &media[cut[0]..cut[1]];
        let origin_ms = media.iter().map(|(s, _)| s.dts).min().expect("samples");
        let start = Start { segment: n as u64, origin_ms, carry, ..start(&[video(), audio()]) };
        let (summary, bytes) = segment_of(start, media, 5);
        assert_eq!(demux(&bytes).order[..2], [0, PMT], "a segment begins with its tables");
        assert!(summary.carry.len() < 100);
        carry = summary.carry;
        whole.extend_from_slice(&bytes);
    }
    assert_eq!(cuts.len(), 7);
    let found = demux(&whole);
    assert_holds(&found, &media);
    assert_eq!(found.discontinuities, 0);
    assert!(found.maps.windows(2).all(|w| w[0] == w[1]), "one program map");
}

#[test]
fn without_a_carry_each_pid_says_so_once() {
    let media = publish(2_000, 0);
    let first = segment(start(&[video(), audio()]), &media[..70]);
    for carry in [Vec::new(), b"from another format".to_vec()] {
        let second = segment(Start { segment: 1, carry, ..start(&[video(), audio()]) }, &media[70..]);
        let found = demux(&[first.as_slice(), &second].concat());
        assert_holds(&found, &media);
        assert_eq!(found.discontinuities, 4, "PAT, PMT, video, audio");
    }
}

#[test]
fn other_tracks_than_in_the_segment_before_are_a_new_map() {
    let media: Media = publish(4_000, 0).into_iter().filter(|(s, _)| s.track == 2).collect();
    let (summary, first) = segment_of(start(&[audio()]), &media[..90], 64);
    let next = Start { segment: 1, carry: summary.carry, ..start(&[video(), audio()]) };
    let second = segment(next, &media[90..]);
    let versions = |bytes: &[u8]| demux(bytes).maps.iter().map(|map| map[5]).collect::<Vec<_>>();
    assert!(versions(&first).iter().all(|&v| v == 0xc1));
    assert!(versions(&second).iter().all(|&v| v == 0xc3));
}

#[test]
fn a_late_track_is_a_new_map() {
    let media = publish(4_000, 0);
    let (early, late): (Media, Media) = media.iter().cloned().partition(|(s, _)| s.dts < 2_000);
    let early: Media = early.into_iter().filter(|(s, _)| s.track == 2).collect();
    let mut harness = Harness::<Ts>::open(start(&[audio()])).expect("opens");
    harness.write(&batch(&early)).expect("writes");
    assert_eq!(harness.update_tracks(vec![audio()]), Ok(true));
    assert_eq!(harness.update_tracks(vec![video(), audio()]), Ok(true));
    harness.write(&batch(&late)).expect("writes");
    let (_, files) = harness.finish(end(&[(1, 4_000), (2, 4_000)])).expect("finishes");
    let found = main_of(&files);
    assert_holds(&found, &[early, late].concat());
    assert_eq!(found.pcr_pid, AUDIO, "the clock stays where it was");
    let mut maps = found.maps.clone();
    maps.dedup();
    assert_eq!(maps.iter().map(|map| (map[5], map.len())).collect::<Vec<_>>(), [(0xc1, 21), (0xc3, 26)]);
}

#[test]
fn new_configurations_hold_from_the_next_sample_on() {
    let (sps, pps) = (&[0x67, 0x64, 0x00, 0x28][..], &[0x68, 0xee][..]);
    let picture = slice(true, 50);
    let mut harness = Harness::<Ts>::open(start(&[video(), audio()])).expect("opens");
    harness
        .write(&[(sample(1, 0, 0, KEY), &access_unit(&[&picture])), (sample(2, 0, 0, KEY), &[1])])
        .expect("");
    let changed = [
        Track { config: avc_config(2, sps, pps), ..video() },
        Track { config: vec![0x12, 0x08], ..audio() }, // 44.1 kHz, mono
    ];
    assert_eq!(harness.update_tracks(changed.to_vec()), Ok(true));
    let short = [&[0, 50][..], &picture].concat();
    harness.write(&[(sample(1, 40, 40, KEY), &short), (sample(2, 40, 40, KEY), &[2])]).expect("writes");
    let (_, files) = harness.finish(end(&[])).expect("finishes");
    let found = main_of(&files);
    assert_eq!(found.pictures(), [[AUD, SPS, PPS, &picture], [AUD, sps, pps, &picture]]);
    assert_eq!(found.frames(), [([0xff, 0xf1, 0x4c], vec![1]), ([0xff, 0xf1, 0x50], vec![2])]);
    assert!(found.maps.windows(2).all(|w| w[0] == w[1]), "the map does not change");
}

#[test]
fn updates_that_do_not_go_on() {
    let mut harness = Harness::<Ts>::open(start(&[video(), audio()])).expect("opens");
    let retyped = Track { id: 1, ..audio() };
    assert_eq!(harness.update_tracks(vec![retyped]), Ok(false));
    let many: Vec<_> = (3..40).map(|id| Track { id, ..audio() }).collect();
    assert_eq!(harness.update_tracks(many), Ok(false));
    let broken = Track { config: Vec::new(), ..video() };
    assert_eq!(harness.update_tracks(vec![broken]).map_err(|e| e.code), Err("bad-input".into()));
    // None of them changed anything.
    let media = publish(200, 0);
    harness.write(&batch(&media)).expect("writes");
    // A track that is gone may not have samples, but stays in the map.
    assert_eq!(harness.update_tracks(vec![audio()]), Ok(true));
    let error = harness.write(&batch(&media[..1])).expect_err("no such track");
    assert_eq!(error, Error::bad_input("sample 14 is of track 1, which was not announced"));
    let found = demux(&harness.abandon().main());
    assert_eq!(found.maps.last().expect("a map").len(), 26);
}

#[test]
fn refusals_say_why_and_what_can() {
    let error = |track: Track| Harness::<Ts>::open(start(&[track])).expect_err("a refusal");
    let config = |config: &[u8]| Track { config: config.to_vec(), ..audio() };
    for (track, code, message) in [
        (
            config(&[0x11, 0x80]),
            "unsupported",
            "track 2: AAC with channel configuration 0 (ADTS knows 1 to 7) has no ADTS header for MPEG-TS; MP4 can hold it",
        ),
        (config(&[]), "bad-input", "track 2: AudioSpecificConfig: ends at byte 0"),
        (
            Track { config: vec![1, 2], ..video() },
            "bad-input",
            "track 1: AVCDecoderConfigurationRecord: cut short at 2 bytes",
        ),
        (
            Track { codec: "hvc1".into(), ..video() },
            "unsupported",
            "track 1: codec `hvc1`; MPEG-TS gets avc1 and mp4a here",
        ),
        (Track { id: 5000, ..video() }, "unsupported", "track 5000: there are PIDs for tracks 1 to 4096"),
        (
            Track { timebase: Timebase { num: 1, den: 0 }, ..video() },
            "bad-input",
            "track 1: a timebase with a 0 in it",
        ),
    ] {
        assert_eq!(error(track), Error::new(code, message));
    }
    let many: Vec<_> = (1..=33).map(|id| Track { id, ..audio() }).collect();
    assert_eq!(
        Harness::<Ts>::open(start(&many)).expect_err("a refusal"),
        Error::unsupported("33 tracks; a program map of one packet has room for 32")
    );
    assert_eq!(Harness::<Ts>::open(start(&[])).expect_err("a refusal").code, "bad-input");
}

#[test]
fn a_frame_too_long_for_adts_ends_the_segment_after_the_samples_before_it() {
    let mut harness = Harness::<Ts>::open(start(&[audio()])).expect("opens");
    let batch: [(_, &[u8]); 3] = [
        (sample(2, 0, 0, KEY), &[7; 8184]),
        (sample(2, 21, 21, KEY), &[7; 8185]),
        (sample(2, 43, 43, KEY), &[7; 10]),
    ];
    let error = harness.write(&batch).expect_err("too long");
    let message = "sample 1 (track 2, dts 21): an AAC frame of 8185 bytes; ADTS holds 8184";
    assert_eq!(error, Error::bad_input(message));
    assert_eq!(demux(&harness.abandon().main()).frames(), [([0xff, 0xf1, 0x4c], vec![7; 8184])]);
}

#[test]
fn damaged_and_empty_samples_do_not_stop_a_broadcast() {
    let good = slice(true, 20);
    let mut damaged = access_unit(&[&good]);
    damaged.extend_from_slice(&[0, 0, 1, 0, 0x41]);
    let mut harness = Harness::<Ts>::open(start(&[video(), audio()])).expect("opens");
    harness
        .write(&[
            (sample(1, 0, 0, KEY), &damaged),
            (sample(1, 40, 40, 0), &[]),
            (sample(2, 40, 40, KEY), &[]),
            (sample(1, 80, 80, 0), &[9, 9]),
            (sample(1, 120, 120, KEY), &access_unit(&[&good])),
        ])
        .expect("writes");
    for i in 4..24 {
        harness.write(&[(sample(1, i * 40, i * 40, 0), &[1])]).expect("writes");
    }
    let log = harness.log();
    assert_eq!(log.len(), 8, "lines are bounded");
    assert_eq!(
        log[0],
        (
            1,
            "sample 0 (track 1, dts 0): NAL unit: the length at byte 24 passes the end of 29 bytes; NAL units kept: 1"
                .into()
        )
    );
    assert!(log[7].1.ends_with("NAL units kept: 0; more are only counted"), "{}", log[7].1);
    let (summary, files) = harness.finish(end(&[(1, 160)])).expect("finishes");
    assert_eq!(main_of(&files).pictures(), [[AUD, SPS, PPS, &good], [AUD, SPS, PPS, &good]]);
    assert_eq!(property(&summary, "damaged-units"), 22);
    assert_eq!(property(&summary, "empty-samples"), 2);
    assert_eq!(property(&summary, "video-frames"), 2);
    assert_eq!(property(&summary, "duration-ms"), 160);
}

#[test]
fn a_segment_without_samples_is_empty() {
    let (summary, files) =
        Harness::<Ts>::open(start(&[video()])).expect("opens").finish(end(&[])).expect("finishes");
    assert!(files.main().is_empty() && summary.carry.is_empty());
    assert_eq!((property(&summary, "packets"), property(&summary, "duration-ms")), (0, 0));
}

#[test]
fn recovery_leaves_the_file_as_it_is() {
    let mut harness = Harness::<Ts>::open(start(&[video(), audio()])).expect("opens");
    harness.write(&batch(&publish(2_000, 0))).expect("writes");
    let files = harness.abandon();
    let size = files.main().len() as u64;
    let (summary, recovered) = recover::<Ts>(start(&[video(), audio()]), files.clone()).expect("recovers");
    assert_eq!(recovered, files);
    assert_eq!((property(&summary, "packets"), property(&summary, "torn-bytes")), (size / 188, 0));

    let mut torn: Files = files;
    torn.0.get_mut("").expect("the main output").body.truncate(1000);
    let (summary, _) = recover::<Ts>(start(&[video(), audio()]), torn).expect("recovers");
    assert_eq!((property(&summary, "packets"), property(&summary, "torn-bytes")), (5, 60));
}
