//! Whole files: what a reader finds in them is what was recorded.

use proptest::prelude::*;
use reelwright_sdk::{
    End, Error, Property, Sample, Start, Summary, Timebase, Track, TrackEnd, Writer,
    mock::{self, Files, Harness},
};

use super::{Recording, audio, reader, sample, start, video};
use crate::Mp4;

/// A picture every 40 ms with two B-frames between the others, sound of 1,024 samples a frame.
fn typical() -> Recording {
    let picture = |i: i64| {
        let late = if i == 0 { 40 } else { [0, 120, 0][(i % 3) as usize] };
        sample(1, 520 + 40 * i, 520 + 40 * i + late, i == 0 || i % 9 == 7)
    };
    let sound = |i: i64| sample(2, 500 + i * 64 / 3, 500 + i * 64 / 3, true);
    let mut samples: Vec<Sample> = (0..31).map(picture).chain((0..60).map(sound)).collect();
    samples.sort_by_key(|sample| sample.dts);
    Recording::new([video(1), audio(2)], samples).end(1, 1760).end(2, 1780)
}

/// Checks a file against what was recorded: every byte of media, every key frame, and all times.
fn check(recording: &Recording, file: &[u8]) -> reader::File {
    let read = reader::read(file);
    let mut ours: Vec<&Track> =
        recording.start.tracks.iter().filter(|t| recording.of(t.id).next().is_some()).collect();
    ours.sort_by_key(|t| t.kind != "video");
    assert_eq!(read.tracks.len(), ours.len());
    let ms = |track: &Track, ticks: i64| {
        ticks * 1000 * i64::from(track.timebase.num) / i64::from(track.timebase.den)
    };
    let movie_ms = ours
        .iter()
        .map(|t| ms(t, recording.of(t.id).map(|(s, _)| s.pts).min().unwrap()))
        .fold(recording.start.origin_ms, i64::min);
    for (ours, theirs) in ours.into_iter().zip(&read.tracks) {
        let first_dts = recording.of(ours.id).next().unwrap().0.dts;
        assert_eq!(recording.of(ours.id).count(), theirs.samples.len());
        for ((sample, payload), found) in recording.of(ours.id).zip(&theirs.samples) {
            assert_eq!(file[found.offset..][..found.size], payload[..]);
            assert_eq!(found.key, sample.is_key() || ours.kind == "audio");
            let Timebase { num, den } = ours.timebase;
            let wire = |ticks: i64| i128::from(ticks) * i128::from(num) * i128::from(theirs.timescale);
            // A unit of media time and a millisecond, both times `den`.
            let (unit, ms) = (i128::from(den), i128::from(den) * i128::from(theirs.timescale) / 1000);
            let off = i128::from(found.dts) * unit - wire(sample.dts - first_dts);
            assert!(off.abs() <= if ours.kind == "video" { 0 } else { ms }, "dts is {off} off");
            let movie = i128::from(movie_ms) * ms;
            let off = i128::from(theirs.presented(found)) * unit + movie - wire(sample.pts);
            let rounded = if ours.kind == "video" && den == 1000 { 0 } else { ms + unit };
            assert!(off.abs() <= rounded, "{sample:?} is presented {off} off, {rounded} is legal");
        }
    }
    read
}

impl Recording {
    fn of(&self, track: u32) -> impl Iterator<Item = &(Sample, Vec<u8>)> {
        self.samples.iter().filter(move |(sample, _)| sample.track == track)
    }
}

fn property<'a>(summary: &'a Summary, key: &str) -> Option<&'a str> {
    summary.properties.iter().find(|p| p.key == key).map(|p| p.value.as_str())
}

#[test]
fn a_typical_file() {
    let recording = typical();
    let (summary, files) = recording.finish(7).unwrap();
    let file = files.main();
    let read = check(&recording, &file);
    assert_eq!(read.kinds, ["ftyp", "moov", "free", "mdat"]);
    assert_eq!(read.moov.mvhd.creation_time, 1_704_067_200 + 2_082_844_800);
    let [video, audio] = &read.tracks[..] else { panic!("two tracks") };
    // The first picture is shown at 560 ms, 40 ms after it is decoded; sound begins at the origin.
    assert_eq!((video.edit, audio.edit), ((60, 40), (0, 0)));
    assert!(audio.trak.edts.is_none());
    assert_eq!((video.timescale, audio.timescale), (1000, 48_000));
    assert_eq!(video.samples.last().unwrap().duration, 40);
    assert_eq!(audio.trak.mdia.minf.stbl.stts.entries.len(), 1);
    assert_eq!((video.trak.tkhd.track_id, audio.trak.tkhd.track_id), (1, 2));
    let expected = [
        ("duration-ms", Some("1300")),
        ("video-frames", Some("31")),
        ("audio-frames", Some("60")),
        ("keyframes", Some("4")),
        ("dropped-records", None),
    ];
    for (key, value) in expected {
        assert_eq!(property(&summary, key), value, "{key}");
    }
    let moov_bytes: usize = property(&summary, "moov-bytes").unwrap().parse().unwrap();
    assert_eq!(file.len(), moov_bytes + 16 + recording.samples.iter().map(|(_, p)| p.len()).sum::<usize>());
}

#[test]
fn one_track_alone() {
    for track in [1, 2] {
        let mut recording = typical();
        recording.start.tracks.retain(|t| t.id == track);
        recording.samples.retain(|(s, _)| s.track == track);
        check(&recording, &recording.file());
        // Announced, but it never came: it is not there.
        recording.start.tracks = vec![video(1), audio(2)];
        check(&recording, &recording.file());
    }
}

#[test]
fn no_samples_at_all() {
    let recording = Recording::new([audio(1), video(2)], []);
    let read = reader::read(&recording.file());
    assert_eq!(read.kinds, ["ftyp", "moov", "free", "mdat"]);
    assert_eq!(read.tracks.len(), 2);
    assert_eq!(read.moov.mvhd.duration, 0);
    let error = mock::recover::<Mp4>(start([video(1)]), Files::default()).unwrap_err();
    assert_eq!(error.code, "bad-call", "without a spool there is nothing to recover");
}

#[test]
fn tracks_in_any_order_and_late() {
    let samples = [
        sample(9, 501, 501, true),
        sample(9, 522, 522, true),
        sample(3, 1500, 1500, true),
        sample(4, 700, 700, false),
        sample(3, 1533, 1533, true),
    ];
    let recording = Recording::new([audio(9), video(3), audio(4)], samples).end(3, 1567);
    let read = check(&recording, &recording.file());
    assert_eq!(read.tracks.iter().map(|t| t.edit).collect::<Vec<_>>(), [(1000, 0), (1, 0), (200, 0)]);
    // All video frames are key frames; sound has no stss whatever its bits say.
    assert!(read.tracks.iter().all(|t| t.trak.mdia.minf.stbl.stss.is_none()));
}

#[test]
fn presentation_before_decoding() {
    // Offsets may be negative as long as the first picture is not among them.
    let samples = [(500, 500, true), (540, 580, false), (580, 540, false), (620, 620, false)];
    let recording =
        Recording::new([video(1)], samples.map(|(dts, pts, key)| sample(1, dts, pts, key))).end(1, 660);
    let read = check(&recording, &recording.file());
    assert_eq!(read.tracks[0].samples[2].composition, -40);
    assert!(read.tracks[0].trak.edts.is_none());

    // Then all are shifted, and the movie begins with the picture.
    let samples = [(500, 470, true), (540, 530, false)];
    let mut recording = Recording::new([video(1)], samples.map(|(dts, pts, key)| sample(1, dts, pts, key)));
    let read = check(&recording, &recording.file());
    assert_eq!(read.tracks[0].samples.iter().map(|s| s.composition).collect::<Vec<_>>(), [0, 20]);
    recording.start.tracks.push(audio(2));
    recording.samples.push((sample(2, 510, 510, true), vec![7]));
    let read = check(&recording, &recording.file());
    assert_eq!(read.tracks[1].edit, (40, 0));
}

#[test]
fn the_last_picture_is_not_cut_off() {
    // The stream ends between a picture and the B-frames that were to follow.
    let samples = [(500, 580), (540, 700)];
    let recording =
        Recording::new([video(1)], samples.map(|(dts, pts)| sample(1, dts, pts, true))).end(1, 580);
    let read = reader::read(&recording.file());
    assert_eq!(read.tracks[0].trak.mdia.mdhd.duration, 80);
    assert_eq!(read.moov.mvhd.duration, 80 + 160);
}

#[test]
fn short_times_for_old_readers() {
    let mut recording = typical();
    let long = recording.file();
    recording.start.options = vec![Property { key: "win-qt-compat".into(), value: "1".into() }];
    let short = recording.file();
    check(&recording, &short);
    assert_eq!(long.len() - short.len(), 12 * 5);
    recording.start.options[0].value = "yes".into();
    let error = recording.record(1).unwrap_err();
    assert_eq!(error.message, "option win-qt-compat is `yes`; it takes a whole number from 0 to 1");
}

#[test]
fn heads_of_all_sizes() {
    for (head_room, head_align) in
        [(0, 4096), (4096, 4096), (1 << 20, 4096), (1, 2), (0, 8), (0, 16), (0, 512)]
    {
        // The moov grows by four bytes with each sample.
        for count in 1..8 {
            let mut recording = typical();
            recording.samples.truncate(count);
            recording.start.head_room = head_room;
            recording.start.head_align = head_align;
            check(&recording, &recording.file());
        }
    }
}

#[test]
fn other_timebases() {
    let ntsc = Track { timebase: Timebase { num: 1001, den: 30_000 }, ..video(1) };
    let fine = Track { timebase: Timebase { num: 1, den: 90_000 }, ..audio(2) };
    let mut samples: Vec<Sample> =
        (15..40).map(|i| sample(1, i, i + [0, 1][(i % 2) as usize], true)).collect();
    samples.extend((0..60).map(|i| sample(2, 45_333 + i * 1920, 45_333 + i * 1920, true)));
    let recording = Recording::new([ntsc, fine], samples);
    let read = check(&recording, &recording.file());
    assert_eq!(read.tracks[0].trak.mdia.minf.stbl.stts.entries[0].sample_delta, 1001);
}

#[test]
fn what_can_not_be_held_is_refused() {
    let error = |tracks: Vec<Track>| {
        let Error { code, message } = Recording::new(tracks, []).record(1).unwrap_err();
        format!("{code}: {message}")
    };
    assert_eq!(
        error(vec![Track { codec: "opus".into(), ..audio(2) }]),
        "unsupported: track 2 is `opus`; mp4 holds avc1 and mp4a"
    );
    assert_eq!(error((1..8).map(video).collect()), "unsupported: 7 tracks; mp4 holds 6");
    assert_eq!(
        error(vec![Track { timebase: Timebase { num: 1, den: 0 }, ..video(1) }]),
        "bad-input: a timebase of 1/0"
    );
}

#[test]
fn a_refused_sample_ends_the_segment_after_those_before_it() {
    for (bad, code) in [
        (sample(7, 540, 540, false), "bad-input"),
        (sample(1, 540, i64::MAX, false), "bad-input"),
        (sample(1, 540 + (1 << 33), 540 + (1 << 33), false), "limit"),
    ] {
        let good = Recording::new([video(1)], [sample(1, 500, 500, true), sample(1, 520, 520, false)]);
        let mut recording = good.clone();
        recording.samples.push((bad, vec![1, 2, 3]));
        let mut harness = Harness::<Mp4>::open(recording.start.clone()).unwrap();
        let batch: Vec<_> = recording.samples.iter().map(|(s, p)| (*s, &p[..])).collect();
        assert_eq!(harness.write(&batch).unwrap_err().code, code);
        let end = End { reason: "error".into(), tracks: Vec::new(), properties: Vec::new() };
        assert_eq!(harness.finish(end).unwrap().1.main(), good.file());
    }
}

#[test]
fn only_what_is_of_use_to_a_file_asks_for_a_new_one() {
    let tracks = vec![video(1), audio(2)];
    let mut harness = Recording::new(tracks.clone(), []).record(1).unwrap();
    let mut update = |change: fn(&mut Vec<Track>)| {
        let mut tracks = tracks.clone();
        change(&mut tracks);
        harness.update_tracks(tracks).unwrap()
    };
    assert!(update(|_| {}));
    assert!(update(|t| t[0].properties = vec![Property { key: "bit-rate".into(), value: "1".into() }]));
    assert!(!update(|t| t.push(audio(3))));
    assert!(!update(|t| drop(t.pop())));
    assert!(!update(|t| t[1].config = vec![0x12, 0x10]));
}

#[test]
fn recovery_drops_what_is_torn() {
    let recording = typical();
    let whole = |samples: usize| {
        let mut recording = recording.clone();
        recording.samples.truncate(samples);
        recording.ends.clear();
        recording.file()
    };
    let spools = || recording.record(5).unwrap().abandon();
    let recover = |files: Files| mock::recover::<Mp4>(recording.start.clone(), files);

    // Half of a record.
    let mut files = spools();
    let index = files.0.get_mut("index").unwrap();
    index.body.truncate(index.body.len() - 11);
    let (summary, files) = recover(files).unwrap();
    assert_eq!(property(&summary, "dropped-records"), Some("1"));
    let kept = recording.samples.len() - 1;
    assert_eq!(reader::read(&files.main()).moov, reader::read(&whole(kept)).moov);

    // Records of media that is not there.
    let mut files = spools();
    let kept = 40;
    let media: usize = recording.samples[..kept].iter().map(|(_, payload)| payload.len()).sum();
    files.0.get_mut("mdat").unwrap().body.truncate(16 + media);
    let (summary, files) = recover(files).unwrap();
    assert_eq!(property(&summary, "dropped-records"), Some("51"));
    assert_eq!(files.main(), whole(kept));
}

#[test]
fn recovery_of_hardly_anything() {
    let start = start([video(1), audio(2)]);
    let empty = Recording::new([video(1), audio(2)], []).file();
    let spools = || Recording::new([video(1), audio(2)], []).record(1).unwrap().abandon();
    for media in [0, 5, 16] {
        for (index, made) in [(0, true), (9, true), (16, true), (0, false)] {
            let mut files = spools();
            files.0.get_mut("mdat").unwrap().body.truncate(media);
            files.0.get_mut("index").unwrap().body.truncate(index);
            if !made {
                files.0.remove("index");
            }
            assert_eq!(mock::recover::<Mp4>(start.clone(), files).unwrap().1.main(), empty);
        }
    }
    // With media an index that is lost is not the same as one that is empty.
    let mut files = typical().record(1).unwrap().abandon();
    files.0.remove("index");
    assert_eq!(mock::recover::<Mp4>(start.clone(), files).unwrap_err().code, "bad-call");
    // A spool of another version.
    let mut files = spools();
    files.0.get_mut("index").unwrap().body[9] = 2;
    assert_eq!(mock::recover::<Mp4>(start, files).unwrap_err().code, "unsupported");
}

/// What the first versions would have left: a spool for each track.
fn with_track_spools(mut files: Files, start: &Start) -> Files {
    let index = files.0.remove("index").unwrap();
    let records: Vec<_> = index.body[16..].chunks(32).collect();
    for (place, track) in start.tracks.iter().enumerate() {
        let mut spool = index.clone();
        spool.body = b"rwtrack\0\x00\x01\x00\x20".to_vec();
        spool.body.extend(track.id.to_be_bytes());
        for record in records.iter().filter(|record| record[24..26] == (place as u16).to_be_bytes()) {
            spool.body.extend([&record[..24], &[0, 0], &record[26..]].concat());
        }
        files.0.insert(format!("track{}", place + 1), spool);
    }
    files
}

#[test]
fn recovery_of_hardly_anything_of_the_first_versions() {
    let start = start([video(1), audio(2)]);
    let empty = Recording::new([video(1), audio(2)], []).file();
    let old = |recording: &Recording| with_track_spools(recording.record(1).unwrap().abandon(), &start);
    for media in [0, 5, 16] {
        for (size, made) in [(0, true), (9, true), (16, true), (0, false)] {
            let mut files = old(&Recording::new([video(1), audio(2)], []));
            files.0.get_mut("mdat").unwrap().body.truncate(media);
            files.0.get_mut("track2").unwrap().body.truncate(size);
            if !made {
                files.0.remove("track2");
            }
            assert_eq!(mock::recover::<Mp4>(start.clone(), files).unwrap().1.main(), empty);
        }
    }
    // A spool that is lost, and one of another track.
    let mut files = old(&typical());
    let spool = files.0.remove("track2").unwrap();
    assert_eq!(mock::recover::<Mp4>(start.clone(), files.clone()).unwrap_err().code, "bad-call");
    files.0.insert("track1".into(), spool.clone());
    files.0.insert("track2".into(), spool);
    assert_eq!(mock::recover::<Mp4>(start.clone(), files).unwrap_err().code, "unsupported");
    // Half of a record of each.
    let mut files = old(&typical());
    for name in ["track1", "track2"] {
        let body = &mut files.0.get_mut(name).unwrap().body;
        body.truncate(body.len() - 1);
    }
    let (summary, files) = mock::recover::<Mp4>(start.clone(), files).unwrap();
    assert_eq!(property(&summary, "dropped-records"), Some("2"));
    assert_eq!(
        reader::read(&files.main()).tracks.iter().map(|t| t.samples.len()).collect::<Vec<_>>(),
        [30, 59]
    );
}

#[test]
fn records_of_no_track_are_dropped() {
    let recording = typical();
    let mut files = recording.record(5).unwrap().abandon();
    let body = &mut files.0.get_mut("index").unwrap().body;
    let record = body.len() - 32;
    body[record + 25] = 2;
    let (summary, _) = mock::recover::<Mp4>(recording.start.clone(), files).unwrap();
    assert_eq!(property(&summary, "dropped-records"), Some("1"));
}

#[test]
fn describes_itself() {
    let manifest = Mp4::describe();
    assert_eq!((manifest.format.as_str(), manifest.mime.as_str()), ("mp4", "video/mp4"));
    assert_eq!(manifest.needs, ["patch", "read-back", "head-room"]);
    assert_eq!(manifest.options[0].default_value, "0");
}

/// Streams as odd as the contract lets them be.
fn streams() -> impl Strategy<Value = Recording> {
    let step = (
        0usize..3,
        prop_oneof![Just(0i64), Just(21), Just(40), 0i64..5000],
        prop_oneof![Just(0i64), Just(40), -200i64..500],
        prop_oneof![Just(0usize), 0usize..40],
        any::<(bool, u8)>(),
    );
    let heads = (0u64..9000, prop::sample::select(vec![1u32, 2, 512, 4096]));
    (prop::collection::vec(step, 0..150), heads, 0i64..100, any::<bool>()).prop_map(
        |(steps, (head_room, head_align), end, swap)| {
            let mut recording = Recording::new([video(1), audio(2), audio(5)], []);
            if swap {
                recording.start.tracks.rotate_left(1);
            }
            recording.start.head_room = head_room.next_multiple_of(head_align.into());
            recording.start.head_align = head_align;
            let mut dts = [500; 3];
            for (track, delta, composition, size, (key, byte)) in steps {
                let id = [1, 2, 5][track];
                dts[track] += delta;
                let pts = dts[track] + if track == 0 { composition } else { 0 };
                recording.samples.push((sample(id, dts[track], pts, key), vec![byte; size]));
            }
            recording.ends = [1, 2, 5]
                .into_iter()
                .zip(dts)
                .filter(|&(id, _)| recording.of(id).next().is_some())
                .map(|(track, dts)| TrackEnd { track, dts: dts + end })
                .collect();
            recording
        },
    )
}

proptest! {
    #[test]
    fn files_hold_what_was_recorded(recording in streams()) {
        if !recording.samples.is_empty() {
            check(&recording, &recording.file());
        }
    }

    #[test]
    fn batches_do_not_show(recording in streams(), batch in 1usize..65) {
        let (one, other) = (recording.finish(1).unwrap(), recording.finish(batch).unwrap());
        prop_assert_eq!(one.1.main(), other.1.main());
        prop_assert_eq!(one.0, other.0);
    }

    #[test]
    fn recovery_is_finishing(mut recording in streams(), batch in 1usize..65) {
        recording.ends.clear();
        let spools = recording.record(batch).unwrap().abandon();
        let old = with_track_spools(spools.clone(), &recording.start);
        let finished = recording.finish(batch).unwrap();
        for spools in [spools, old] {
            let recovered = mock::recover::<Mp4>(recording.start.clone(), spools).unwrap();
            prop_assert_eq!(recovered.1.main(), finished.1.main());
            prop_assert_eq!(&recovered.0, &finished.0);
        }
    }

    #[test]
    fn recovery_takes_any_bytes(
        media in prop::collection::vec(any::<u8>(), 0..100),
        index in prop::collection::vec(prop::array::uniform8(prop_oneof![Just(0u8), Just(0xff), Just(20)]), 0..60),
        old in any::<bool>(),
    ) {
        let mut files = Recording::new([video(1), audio(2)], []).record(1).unwrap().abandon();
        files.0.get_mut("mdat").unwrap().body.extend(media);
        let names: &[&str] = if old {
            files = with_track_spools(files, &start([video(1), audio(2)]));
            &["track1", "track2"]
        } else {
            &["index"]
        };
        for &name in names {
            files.0.get_mut(name).unwrap().body.extend(index.as_flattened());
        }
        if let Ok((_, files)) = mock::recover::<Mp4>(start([video(1), audio(2)]), files) {
            reader::read(&files.main());
        }
    }
}
