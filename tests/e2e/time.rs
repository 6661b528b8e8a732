//! Time and change in the stream: each case is a file whose tags were rewritten, sent to a real server, and compared
//! with what a reader finds in the recording.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempPath;

use crate::{
    media,
    process::until,
    readers::{self, FORMATS, Hashes},
    senders::{Pace, Sender},
    server::Server,
};

/// A tag of an FLV file, with its time.
#[derive(Clone, Debug, PartialEq)]
struct Tag {
    kind: u8,
    ms: i64,
    body: Vec<u8>,
}

const SCRIPT: u8 = 18;

impl Tag {
    fn is_header(&self) -> bool {
        matches!((self.kind, &self.body[..]), (media::VIDEO | media::AUDIO, [_, 0, ..]))
    }

    fn is_media(&self) -> bool {
        matches!((self.kind, &self.body[..]), (media::VIDEO | media::AUDIO, [_, 1, ..]))
    }

    fn is_key(&self) -> bool {
        self.kind == media::VIDEO && self.is_media() && self.body[0] >> 4 == 1
    }

    /// Moves the decoding time of a frame of video and leaves its presentation where it is.
    fn decode_later(&mut self, ms: i64) {
        let composition =
            i64::from(i32::from_be_bytes([self.body[2], self.body[3], self.body[4], 0]) >> 8) - ms;
        self.ms += ms;
        self.body[2..5].copy_from_slice(&(composition as i32).to_be_bytes()[1..]);
    }
}

/// The tags of a file, but for the end of sequence.
fn read(file: &Path) -> Vec<Tag> {
    let bytes = fs::read(file).unwrap();
    let mut rest = &bytes[13..];
    let mut tags = Vec::new();
    while let [kind, a, b, c, t2, t1, t0, t3, _, _, _, after @ ..] = rest {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let ms = i64::from(u32::from_be_bytes([*t3, *t2, *t1, *t0]));
        tags.push(Tag { kind: *kind, ms, body: after[..len].to_vec() });
        rest = &after[len + 4..];
    }
    tags.retain(|tag| tag.kind == SCRIPT || tag.is_header() || tag.is_media());
    tags
}

/// A file with these tags; their times are cut to 32 bits.
fn write(tags: &[Tag]) -> TempPath {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for Tag { kind, ms, body } in tags {
        let (len, time) = ((body.len() as u32).to_be_bytes(), (*ms as u32).to_be_bytes());
        bytes.extend([*kind, len[1], len[2], len[3], time[1], time[2], time[3], time[0], 0, 0, 0]);
        bytes.extend_from_slice(body);
        bytes.extend((body.len() as u32 + 11).to_be_bytes());
    }
    let file = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file.into_temp_path()
}

fn moved(tags: &[Tag], by: impl Fn(&Tag) -> i64) -> Vec<Tag> {
    tags.iter().map(|tag| Tag { ms: tag.ms + by(tag), ..tag.clone() }).collect()
}

/// From which the wire's times are moved, amid a group.
const AT_MS: i64 = 2500;

/// What the server makes of a leap before the first sample at [`AT_MS`]: that one is put a usual step behind the last of
/// its track, or beside the latest of all, and the rest keeps its distance.
fn closed(tags: &[Tag]) -> Vec<Tag> {
    let media: Vec<&Tag> = tags.iter().filter(|tag| tag.is_media()).collect();
    let at = media.iter().position(|tag| tag.ms >= AT_MS).unwrap();
    let latest = media[..at].iter().map(|tag| tag.ms).max().unwrap();
    let own: Vec<i64> =
        media[..at].iter().rev().filter(|tag| tag.kind == media[at].kind).map(|tag| tag.ms).collect();
    let by = latest.max(own[0] + own[0] - own[1]) - media[at].ms;
    moved(tags, |tag| if tag.ms >= AT_MS { by } else { 0 })
}

/// Records what is sent, one after the other, in all formats.
fn record(flags: &[&str], more: &str, sent: &[&Path]) -> Server {
    let server = Server::start_with(|_| flags.iter().map(ToString::to_string).collect());
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, more));
    for file in sent {
        Sender::Own.send(file, &server.url("cam"), Pace::Full);
        until("the stream's end", || (!server.is_live("cam")).then_some(()));
    }
    server.finish("cam", &ids);
    server
}

/// The files of a recording that is not chunked, in their order.
fn files(server: &Server, format: &str) -> Vec<PathBuf> {
    let name = |i: usize| if i == 0 { format!("cam.{format}") } else { format!("cam_{i:04}.{format}") };
    (0..).map(|i| server.media(&name(i))).take_while(|path| path.exists()).collect()
}

/// Seconds from the first to the last presentation time of all tracks.
fn length(file: &Path) -> f64 {
    let tracks = readers::tracks(file);
    let pts = || tracks.values().flat_map(|track| &track.pts);
    pts().copied().fold(f64::MIN, f64::max) - pts().copied().fold(f64::MAX, f64::min)
}

fn joined(parts: &[Hashes]) -> Hashes {
    Hashes {
        video: parts.iter().flat_map(|part| part.video.clone()).collect(),
        audio: parts.iter().flat_map(|part| part.audio.clone()).collect(),
        bytes: 0,
    }
}

#[test]
fn wraps_of_24_31_and_32_bits_leave_no_trace() {
    let clip = read(&media::clip());
    for bits in [24, 31, 32] {
        let wrap = 1 << bits;
        let wrapped = write(
            &clip.iter().map(|t| Tag { ms: (t.ms + wrap - AT_MS) % wrap, ..t.clone() }).collect::<Vec<_>>(),
        );
        for flags in [&[][..], &["--timestamps", "split"]] {
            let server = record(flags, "", &[&wrapped]);
            for format in FORMATS {
                readers::assert_recorded(&media::clip(), &server.media(&format!("cam.{format}")));
            }
            assert_eq!(server.media_names().len(), 3, "{bits}");
        }
    }
}

#[test]
fn leaps_are_closed_in_the_same_file() {
    let clip = moved(&read(&media::clip()), |_| 0);
    let ideal = write(&closed(&clip));
    // An hour ahead; a clock that starts again.
    for (from, to) in [(0, 3_600_000), (500_000, -AT_MS)] {
        let leapt = write(&moved(&clip, |tag| if tag.ms >= AT_MS { to } else { from }));
        let server = record(&[], "", &[&leapt]);
        for format in FORMATS {
            readers::assert_recorded(&ideal, &server.media(&format!("cam.{format}")));
        }
        assert_eq!(server.media_names().len(), 3);
        let reason = if to > from { "reason=\"clock-forward\"" } else { "reason=\"clock-back\"" };
        server.logged(&["WARN", reason, "clock leapt"]);
    }
}

#[test]
fn split_begins_a_file_at_each_leap_and_loses_nothing() {
    let clip = read(&media::clip());
    for (from, to) in [(0, 3_600_000), (500_000, -AT_MS)] {
        let leapt = write(&moved(&clip, |tag| if tag.ms >= AT_MS { to } else { from }));
        let server = record(&["--timestamps", "split"], "", &[&leapt]);
        for format in FORMATS {
            let parts = files(&server, format);
            assert_eq!(parts.len(), 2, "{format}");
            readers::assert_concatenation(&media::clip(), &parts);
            for (part, seconds) in parts.iter().zip([3.0, 2.5]) {
                readers::assert_well_formed(part);
                assert!((length(part) - seconds).abs() < 0.2, "{format}: {} s", length(part));
            }
        }
        server.logged(&["WARN", "gap", "clock leapt"]);
    }
}

#[test]
fn frames_without_duration_and_those_decoded_after_they_are_shown() {
    let clip = read(&media::clip());
    // Two frames at a time; all frames 200 ms later than usual.
    let mut frames = 0;
    let mut pairs = clip.clone();
    for tag in pairs.iter_mut().filter(|tag| tag.kind == media::VIDEO && tag.is_media()) {
        frames += 1;
        if frames % 2 == 0 {
            tag.decode_later(-33);
        }
    }
    let mut late = clip;
    late.iter_mut()
        .filter(|tag| tag.kind == media::VIDEO && tag.is_media())
        .for_each(|tag| tag.decode_later(200));
    for (tags, formats) in [(pairs, &FORMATS[..]), (late.clone(), &["ts", "mp4"])] {
        let server = record(&[], "", &[&write(&tags)]);
        for format in formats {
            readers::assert_recorded(&media::clip(), &server.media(&format!("cam.{format}")));
        }
        // FFmpeg does not like negative composition times in FLV; so they are as they were sent.
        let found = read(&server.media("cam.flv"));
        let media = |tags: &[Tag]| tags.iter().filter(|tag| tag.is_media()).cloned().collect::<Vec<_>>();
        let (found, sent) = (media(&found), media(&tags));
        let zero = sent.iter().map(|tag| tag.ms).min().unwrap();
        assert!(found == moved(&sent, |_| -zero));
    }
}

#[test]
fn clocks_far_apart_are_put_side_by_side_and_near_ones_kept() {
    let clip = read(&media::clip());
    let first = |kind| clip.iter().find(|tag| tag.kind == kind && tag.is_media()).unwrap().ms;
    let by = |ms: i64| moved(&clip, |tag| if tag.kind == media::AUDIO { ms } else { 0 });
    // The clip begins with a frame of video; sound comes next.
    let media: Vec<&Tag> = clip.iter().filter(|tag| tag.is_media()).collect();
    let arrival = media.iter().position(|tag| tag.kind == media::AUDIO).unwrap();
    let latest = media[..arrival].iter().map(|tag| tag.ms).max().unwrap();
    let aligned = write(&by(latest - first(media::AUDIO)));
    for apart in [3_600_000, 3_000_000_000] {
        let server = record(&[], "", &[&write(&by(apart))]);
        for format in FORMATS {
            readers::assert_recorded(&aligned, &server.media(&format!("cam.{format}")));
        }
        server.logged(&["WARN", "far apart"]);
    }
    let near = write(&by(9_000));
    let server = record(&[], "", &[&near]);
    for format in FORMATS {
        let found = server.media(&format!("cam.{format}"));
        readers::comparable(&found).assert_same(&readers::sent(&media::clip(), format), format);
        readers::assert_same_times(&readers::tracks(&near), &readers::tracks(&found), format);
    }
}

#[test]
fn headers_that_are_repeated_change_nothing() {
    let clip = read(&media::clip());
    let headers: Vec<Tag> = clip.iter().filter(|tag| tag.is_header()).cloned().collect();
    let again = |tag: &Tag| {
        headers.iter().filter(|_| tag.is_key()).map(|h| Tag { ms: tag.ms, ..h.clone() }).collect()
    };
    let repeated: Vec<Tag> = clip.iter().flat_map(|tag| [again(tag), vec![tag.clone()]].concat()).collect();
    let server = record(&[], "", &[&write(&repeated)]);
    for format in FORMATS {
        readers::assert_recorded(&media::clip(), &server.media(&format!("cam.{format}")));
    }
    assert_eq!(server.media_names().len(), 3);
}

#[test]
fn annex_b_is_recorded_as_what_it_stands_for() {
    let start_codes = |mut units: &[u8], len: usize| {
        let mut bytes = Vec::new();
        while !units.is_empty() {
            let (size, rest) = units.split_at(len);
            let (unit, rest) = rest.split_at(size.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
            bytes.extend([&[0, 0, 0, 1], unit].concat());
            units = rest;
        }
        bytes
    };
    let mut tags = read(&media::clip());
    for tag in tags.iter_mut().filter(|tag| tag.kind == media::VIDEO) {
        let (head, rest) = tag.body.split_at(5);
        let stream = if tag.body[1] == 1 {
            start_codes(rest, 4)
        } else {
            // The record has one SPS and one PPS, each with a length of two bytes.
            let sps = 2 + usize::from(u16::from_be_bytes([rest[6], rest[7]]));
            let pps = 2 + usize::from(u16::from_be_bytes([rest[6 + sps + 1], rest[6 + sps + 2]]));
            let sets = [&rest[6..6 + sps], &rest[6 + sps + 1..6 + sps + 1 + pps]].concat();
            start_codes(&sets, 2)
        };
        tag.body = [head, &stream].concat();
    }
    let server = record(&[], "", &[&write(&tags)]);
    for format in FORMATS {
        readers::assert_recorded(&media::clip(), &server.media(&format!("cam.{format}")));
    }
    server.logged(&["WARN", "Annex B"]);
}

#[test]
fn a_second_publish_without_headers_is_recorded_by_those_of_the_first() {
    let mut bare = read(&media::clip());
    bare.retain(|tag| !tag.is_header());
    let bare = write(&bare);
    let server = record(&[], "keepAlive=1", &[&media::clip(), &bare]);
    for format in FORMATS {
        for file in files(&server, format) {
            readers::assert_recorded(&media::clip(), &file);
        }
        assert_eq!(files(&server, format).len(), 2);
    }
    server.logged(&["WARN", "no video sequence header"]);
    server.logged(&["WARN", "no audio sequence header"]);
    // Where nothing is remembered it is refused, and leaves no file.
    let server = record(&["--reconnect-window", "0"], "keepAlive=1", &[&media::clip(), &bare]);
    assert_eq!(server.media_names(), ["cam.flv", "cam.mp4", "cam.ts"]);
    server.logged(&["WARN", "before the sequence header"]);
}

#[test]
fn a_stream_that_comes_back_in_time_continues_the_run() {
    let server = record(&[], "keepAlive=1 chunkLength=2", &[&media::clip(), &media::clip()]);
    for format in FORMATS {
        let parts = server.parts("cam", format);
        assert_eq!(parts.len(), 6, "{format}: 2, 2 and 1 s, twice");
        for half in parts.chunks(3) {
            readers::assert_concatenation(&media::clip(), half);
            half.iter().for_each(|part| readers::assert_well_formed(part));
        }
    }
    let line = server.logged(&["WARN", "gap: the stream was away", "reason=\"reconnect\""]);
    assert!(line.contains("from_ms=5"), "{line}");
    // The transport stream goes on as well: counters, clock, with the hole marked.
    let bytes: Vec<u8> = server.parts("cam", "ts").iter().flat_map(|part| fs::read(part).unwrap()).collect();
    let report = oxideav_mpegts::validate::validate_ts(&bytes);
    assert!(report.is_conformant(), "{report:?}");

    // Not when the window is over, or when there is none: the next run begins at 0 again.
    let server = record(&["--reconnect-window", "0"], "keepAlive=1", &[&media::clip(), &media::clip()]);
    assert!(!server.log().contains("was away"));
    for format in FORMATS {
        assert_eq!(files(&server, format).len(), 2);
        files(&server, format).iter().for_each(|file| readers::assert_recorded(&media::clip(), file));
    }
}

/// The tags of the second file behind those of the first.
fn behind(first: &[Tag], second: &[Tag], at_ms: i64) -> Vec<Tag> {
    let second = second.iter().filter(|tag| tag.kind != SCRIPT);
    first.iter().cloned().chain(second.map(|tag| Tag { ms: tag.ms + at_ms, ..tag.clone() })).collect()
}

#[test]
fn another_picture_and_sample_rate_begin_a_file_without_loss() {
    let sent = write(&behind(&read(&media::both()), &read(&media::clip()), 3_040));
    let server = record(&[], "", &[&sent]);
    for format in FORMATS {
        let parts = files(&server, format);
        let expected = [media::both(), media::clip()];
        if format == "ts" {
            // It can change amid a file.
            assert_eq!(parts.len(), 1);
            let all = joined(&expected.each_ref().map(|file| readers::sent(file, format)));
            readers::comparable(&parts[0]).assert_same(&all, format);
            continue;
        }
        assert_eq!(parts.len(), 2, "{format}");
        for (part, sent) in parts.iter().zip(expected) {
            readers::assert_recorded(&sent, part);
        }
    }
}

#[test]
fn another_sample_rate_alone_waits_for_the_key_frame_without_loss() {
    let (clip, other) = (read(&media::clip()), read(&media::audio_only()));
    let is_sound = |tag: &&Tag| tag.kind == media::AUDIO;
    let early: Vec<Tag> = clip.iter().filter(|tag| !is_sound(tag) || tag.ms < AT_MS).cloned().collect();
    let late: Vec<Tag> =
        other.iter().filter(is_sound).map(|t| Tag { ms: t.ms + AT_MS, ..t.clone() }).collect();
    let mut tags = [early, late].concat();
    tags.sort_by_key(|tag| (tag.ms, !tag.is_header()));
    let server = record(&[], "", &[&write(&tags)]);
    let sent_late = tags.iter().filter(|tag| is_sound(tag) && tag.is_media() && tag.ms >= AT_MS).count();
    for format in FORMATS {
        let parts = files(&server, format);
        assert_eq!(parts.len(), if format == "ts" { 1 } else { 2 }, "{format}");
        let found: Vec<Hashes> = parts.iter().map(|part| readers::comparable(part)).collect();
        let (video, audio) =
            (readers::sent(&media::clip(), format), readers::sent(&media::audio_only(), format));
        let before = readers::sent(&media::clip(), format).audio;
        let first = tags.iter().filter(|tag| is_sound(tag) && tag.is_media() && tag.ms < AT_MS).count();
        let expected = Hashes {
            video: video.video,
            audio: [&before[..first], &audio.audio[..sent_late]].concat(),
            bytes: 0,
        };
        joined(&found).assert_same(&expected, format);
        if format != "ts" {
            assert_eq!((found[0].video.len(), found[0].audio.len()), (90, first), "{format}: up to 3 s");
            parts.iter().for_each(|part| drop(readers::decoded(part)));
        }
    }
}

#[test]
fn a_late_track_joins_and_one_that_never_comes_delays_nothing_for_long() {
    let clip = read(&media::clip());
    // Nothing says that there is sound, and it comes 2.5 s late: after the start.
    let header = |tag: &Tag| if tag.is_header() && tag.kind == media::AUDIO { AT_MS } else { 0 };
    let mut late = moved(&clip, header);
    late.retain(|tag| tag.kind == media::VIDEO || (tag.kind == media::AUDIO && tag.ms >= AT_MS));
    late.sort_by_key(|tag| tag.ms);
    let sounds = late.iter().filter(|tag| tag.kind == media::AUDIO && tag.is_media()).count();
    let server = record(&[], "", &[&write(&late)]);
    for format in FORMATS {
        let parts = files(&server, format);
        assert_eq!(parts.len(), if format == "ts" { 1 } else { 2 }, "{format}");
        let found = joined(&parts.iter().map(|part| readers::comparable(part)).collect::<Vec<_>>());
        let sent = readers::sent(&media::clip(), format);
        let audio = sent.audio[sent.audio.len() - sounds..].to_vec();
        found.assert_same(&Hashes { audio, ..sent }, format);
    }
    // The clip's metadata says that there is sound, but none comes.
    let mut silent = clip;
    silent.retain(|tag| tag.kind != media::AUDIO);
    for timeout in ["0", "1s", "60s"] {
        let server = record(&["--track-timeout", timeout], "", &[&write(&silent)]);
        for format in FORMATS {
            let found = readers::comparable(&server.media(&format!("cam.{format}")));
            let sent = readers::sent(&media::clip(), format);
            found.assert_same(&Hashes { audio: Vec::new(), ..sent }, format);
        }
    }
}

#[test]
fn a_flapping_configuration_makes_few_files() {
    // Key frames of two pictures in turns, 50 ms apart.
    let keys = |file: &Path| {
        let tags = read(file);
        let header = tags.iter().find(|tag| tag.is_header() && tag.kind == media::VIDEO).unwrap().clone();
        [header, tags.iter().find(|tag| tag.is_key()).unwrap().clone()]
    };
    let turns = [keys(&media::clip()), keys(&media::video_only())];
    let tags: Vec<Tag> = (0..200i64)
        .flat_map(|i| turns[(i % 2) as usize].clone().map(|tag| Tag { ms: i * 50, ..tag }))
        .collect();
    let server = record(&["--track-timeout", "0"], "", &[&write(&tags)]);
    for format in ["flv", "mp4"] {
        let parts = files(&server, format);
        assert!((10..=20).contains(&parts.len()), "{format}: {} files", parts.len());
        for part in &parts {
            readers::tracks(part);
        }
        let found: usize = parts.iter().map(|part| readers::comparable(part).video.len()).sum();
        assert!(found >= 90, "{format}: {found} of 200");
    }
    assert_eq!(readers::comparable(&server.media("cam.ts")).video.len(), 200);
    server.logged(&["WARN", "reason=\"flapping\""]);
}

/// 27 hours: over the wrap of the 33 bits of MPEG-TS (26.5 h) and of 24 bits of an FLV tag (4.7 h).
#[test]
fn after_27_hours_sound_and_picture_are_as_far_apart_as_on_the_wire() {
    const HOURS: i64 = 27;
    let clip = read(&media::clip());
    let of = |kind| {
        clip.iter()
            .find(move |tag| tag.kind == kind && (tag.kind == media::AUDIO || tag.is_key()) && tag.is_media())
    };
    let (picture, sound) = (of(media::VIDEO).unwrap(), of(media::AUDIO).unwrap());
    let mut tags: Vec<Tag> = clip.iter().filter(|tag| tag.is_header()).cloned().collect();
    // Sound is 7 ms late, then 3 ms a day later; nothing falls on a round number.
    let end = HOURS * 3_600_000;
    for i in 0..end / 4000 {
        tags.push(Tag { ms: i * 4000 + i % 3, ..picture.clone() });
        tags.push(Tag { ms: i * 4000 + 7 + i * 4000 * 3 / 86_400_000, ..sound.clone() });
        tags.push(Tag { ms: i * 4000 + 2010 + i % 5, ..sound.clone() });
    }
    let sent = write(&tags);
    let server = record(&[], "", &[&sent]);
    let wire = |kind| tags.iter().filter(move |t| t.kind == kind && t.is_media()).map(|t| t.ms);
    for format in FORMATS {
        let tracks = readers::tracks(&server.media(&format!("cam.{format}")));
        let composition =
            f64::from(i32::from_be_bytes([picture.body[2], picture.body[3], picture.body[4], 0]) >> 8);
        let zero = tracks["video"].pts[0] - composition / 1000.0;
        // Its times have 33 bits, and ffprobe gives them as they are.
        let wrap = if format == "ts" { (1_u64 << 33) as f64 / 90.0 } else { f64::INFINITY };
        for (name, kind, composition) in [("video", media::VIDEO, composition), ("audio", media::AUDIO, 0.0)]
        {
            let found = &tracks[name].pts;
            assert_eq!(found.len(), wire(kind).count(), "{format} {name}");
            for (found, sent) in found.iter().zip(wire(kind)) {
                let sent_here = sent as f64 + composition;
                let wrapped = if (zero * 1000.0 + sent_here) >= wrap { wrap } else { 0.0 };
                let off = (found - zero) * 1000.0 + wrapped - sent_here;
                assert!(off.abs() < 1.02, "{format} {name} at {sent} ms: {off} ms off");
            }
        }
    }
}

/// What needs a wall clock that is told: the server's plan drives the formats, compiled for this machine.
mod simulated {
    use std::{
        path::PathBuf,
        sync::Arc,
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use reelwright::{
        media::{Kind, Sample, Track},
        recorder::{
            plan::{GapRecord, Now, Plan, Policy, Step},
            timeline::Timestamps,
        },
        registry::{Item, Tracks},
    };
    use reelwright_sdk as sdk;
    use sdk::{Writer, mock::Harness};

    use super::{Tag, media, read};
    use crate::readers;

    const VIDEO: u32 = 1;
    const AUDIO: u32 = 2;

    /// A run of one format, and the files that it has written.
    struct Run<W: Writer> {
        plan: Plan,
        start: Instant,
        writer: Option<Harness<W>>,
        carry: Vec<u8>,
        dir: tempfile::TempDir,
        format: &'static str,
        files: Vec<PathBuf>,
        gaps: Vec<GapRecord>,
    }

    impl<W: Writer> Run<W> {
        fn new(format: &'static str, timestamps: Timestamps) -> Self {
            let policy = Policy {
                wait_for_key: true,
                audio: true,
                track_timeout: Duration::from_secs(2),
                timestamps,
                min_segment: Duration::from_secs(1),
                ..Policy::default()
            };
            Self {
                plan: Plan::new(policy, false),
                start: Instant::now(),
                writer: None,
                carry: Vec::new(),
                dir: tempfile::tempdir().unwrap(),
                format,
                files: Vec::new(),
                gaps: Vec::new(),
            }
        }

        fn now(&self, ms: i64) -> Now {
            let instant = self.start + Duration::from_millis(ms.unsigned_abs());
            Now { instant, epoch_us: 1_700_000_000_000_000 + ms * 1000 }
        }

        fn push(&mut self, item: Item, ms: i64) {
            self.plan.push(item, self.now(ms));
            self.steps();
        }

        fn end(&mut self, ms: i64) {
            self.plan.end("stream-ended", self.now(ms));
            self.steps();
        }

        fn steps(&mut self) {
            while let Some(step) = self.plan.step() {
                match step {
                    Step::Open { number, epoch_us, origin_ms, tracks } => {
                        let start = sdk::Start {
                            segment: number,
                            epoch_us,
                            origin_ms,
                            head_room: 4096,
                            head_align: 4096,
                            tracks: tracks.iter().map(track).collect(),
                            options: W::describe()
                                .options
                                .iter()
                                .map(|o| sdk::Property { key: o.key.clone(), value: o.default_value.clone() })
                                .collect(),
                            carry: std::mem::take(&mut self.carry),
                        };
                        self.writer = Some(Harness::open(start).unwrap());
                    }
                    Step::Sample(sample) => {
                        let header = sdk::Sample {
                            seq: 0,
                            dts: sample.dts_ms,
                            pts: sample.pts_ms,
                            duration: 0,
                            track: sample.track,
                            size: 0,
                            bits: u32::from(sample.key) | u32::from(sample.discontinuity) << 1,
                        };
                        self.writer.as_mut().unwrap().write(&[(header, &sample.data)]).unwrap();
                    }
                    Step::Tracks(tracks) => {
                        let tracks = tracks.iter().map(track).collect();
                        let taken = self.writer.as_mut().unwrap().update_tracks(tracks).unwrap();
                        self.plan.tracks_taken(taken);
                    }
                    Step::Close { reason, ends } => {
                        let ends = ends.into_iter().map(|(track, dts)| sdk::TrackEnd { track, dts });
                        let end = sdk::End {
                            reason: reason.into(),
                            tracks: ends.collect(),
                            properties: Vec::new(),
                        };
                        let (summary, files) = self.writer.take().unwrap().finish(end).unwrap();
                        self.carry = summary.carry;
                        let path = self.dir.path().join(format!("{}.{}", self.files.len(), self.format));
                        std::fs::write(&path, files.main()).unwrap();
                        self.files.push(path);
                    }
                    Step::Note(note) => self.gaps.extend(note.gap()),
                }
            }
        }
    }

    fn track(track: &Track) -> sdk::Track {
        sdk::Track {
            id: track.id,
            kind: track.kind.as_str().into(),
            codec: track.codec.clone(),
            timebase: sdk::Timebase { num: 1, den: 1000 },
            config: track.config.to_vec(),
            properties: Vec::new(),
        }
    }

    /// The tracks of a file, and its samples with their times.
    fn stream(tags: &[Tag]) -> (Item, Vec<Sample>) {
        let id = |tag: &Tag| if tag.kind == media::VIDEO { VIDEO } else { AUDIO };
        let body = |tag: &Tag| Bytes::copy_from_slice(&tag.body[if id(tag) == VIDEO { 5 } else { 2 }..]);
        let known = tags.iter().filter(|tag| tag.is_header()).map(|tag| {
            let (kind, codec) = if id(tag) == VIDEO { (Kind::Video, "avc1") } else { (Kind::Audio, "mp4a") };
            Track { id: id(tag), kind, codec: codec.into(), config: body(tag), properties: Vec::new() }
        });
        let samples = tags.iter().filter(|tag| tag.is_media()).map(|tag| {
            let composition = match id(tag) {
                VIDEO => i64::from(i32::from_be_bytes([tag.body[2], tag.body[3], tag.body[4], 0]) >> 8),
                _ => 0,
            };
            Sample {
                track: id(tag),
                dts_ms: tag.ms,
                pts_ms: tag.ms + composition,
                key: id(tag) == AUDIO || tag.is_key(),
                discontinuity: false,
                data: body(tag),
            }
        });
        let tracks = Tracks { known: known.collect(), declared: None };
        (Item::Tracks(Arc::new(tracks)), samples.collect())
    }

    fn pause<W: Writer>(format: &'static str, timestamps: Timestamps, at_ms: i64) {
        const HOUR: i64 = 3_600_000;
        let (tracks, samples) = stream(&read(&media::clip()));
        let mut run = Run::<W>::new(format, timestamps);
        run.push(tracks, 0);
        for sample in samples {
            let by = if sample.dts_ms >= at_ms { HOUR } else { 0 };
            let (dts_ms, pts_ms) = (sample.dts_ms + by, sample.pts_ms + by);
            run.push(Item::Sample(Sample { dts_ms, pts_ms, ..sample }), dts_ms);
        }
        run.end(HOUR + 5000);
        let [gap] = &run.gaps[..] else { panic!("{:?}", run.gaps) };
        assert_eq!((gap.reason.as_str(), gap.samples), ("paused", 0));
        assert!((HOUR..HOUR + 60).contains(&(gap.to_ms - gap.from_ms)), "{gap:?}");
        assert_eq!(run.files.len(), 2, "{format}");
        readers::assert_concatenation(&media::clip(), &run.files);
        for (file, seconds) in run.files.iter().zip([3.0, 5.06 - at_ms as f64 / 1000.0]) {
            readers::assert_well_formed(file);
            assert!((super::length(file) - seconds).abs() < 0.3, "{format}: {} s", super::length(file));
        }
        if format == "ts" {
            // The run's own time: in the second file by the true hour later.
            let starts: Vec<f64> =
                run.files.iter().map(|file| readers::tracks(file)["video"].start).collect();
            assert!((starts[1] - starts[0] - 3603.0).abs() < 0.05, "{starts:?}");
        }
    }

    #[test]
    fn a_pause_of_an_hour_is_between_two_files() {
        for timestamps in [Timestamps::Repair, Timestamps::Split] {
            // Amid a group; 3 s is a key frame.
            for at_ms in [super::AT_MS, 2990] {
                pause::<reelwright_flv::Flv>("flv", timestamps, at_ms);
                pause::<reelwright_ts::Ts>("ts", timestamps, at_ms);
                pause::<reelwright_mp4::Mp4>("mp4", timestamps, at_ms);
            }
        }
    }

    /// A day of sound at its true rate, 8 kHz in frames of 128 ms, whose times are rounded on the wire; a picture a
    /// second, and both clocks wrap at 24 bits on the way.
    fn day<W: Writer>(format: &'static str) {
        const DAY: i64 = 24 * 3_600_000;
        let (tracks, samples) = stream(&read(&media::half_an_hour()));
        let of = |track| samples.iter().find(|s| s.track == track && s.key).unwrap();
        let (picture, sound) = (of(VIDEO), of(AUDIO));
        let mut run = Run::<W>::new(format, Timestamps::Repair);
        run.push(tracks, 0);
        let mut sent = [Vec::new(), Vec::new()];
        // 127.7 ms a frame of sound: a crystal that is 0.2 % off.
        let sounds = (0..).map(|i| (13 + i * 1277 / 10, sound)).take_while(|s| s.0 < DAY);
        let mut pictures = (0..DAY / 1000).map(|i| (i * 1000 + i % 2, picture)).peekable();
        let mut push = |ms: i64, sample: &Sample| {
            let wire = (16_000_000 + ms) % (1 << 24);
            sent[usize::from(sample.track == AUDIO)].push(ms);
            run.push(Item::Sample(Sample { dts_ms: wire, pts_ms: wire, ..sample.clone() }), ms);
        };
        for (ms, sound) in sounds {
            while let Some((at, picture)) = pictures.next_if(|picture| picture.0 <= ms) {
                push(at, picture);
            }
            push(ms, sound);
        }
        run.end(DAY);
        assert!(run.gaps.is_empty(), "{:?}", run.gaps);
        let [file] = &run.files[..] else { panic!("{} files", run.files.len()) };
        let found = readers::tracks(file);
        let zero = found["video"].pts[0];
        for (kind, sent) in ["video", "audio"].into_iter().zip(&sent) {
            let found = &found[kind].pts;
            assert_eq!(found.len(), sent.len(), "{format} {kind}");
            for (found, sent) in found.iter().zip(sent) {
                let off = (found - zero) * 1000.0 - *sent as f64;
                assert!(off.abs() < 1.02, "{format} {kind} at {sent} ms: {off} ms off");
            }
        }
    }

    #[test]
    fn after_a_day_the_distance_of_flv_is_that_of_the_wire() {
        day::<reelwright_flv::Flv>("flv");
    }

    #[test]
    fn after_a_day_the_distance_of_ts_is_that_of_the_wire() {
        day::<reelwright_ts::Ts>("ts");
    }

    #[test]
    fn after_a_day_the_distance_of_mp4_is_that_of_the_wire() {
        day::<reelwright_mp4::Mp4>("mp4");
    }
}
