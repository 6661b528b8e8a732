//! Independent readers: what they find in a recording, and whether they complain.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    media,
    process::{Process, run_silently},
};

/// The formats that are built in.
pub(crate) const FORMATS: [&str; 3] = ["flv", "ts", "mp4"];

/// What must be the same in a recording as in what was sent: a hash for each frame of each track.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hashes {
    pub(crate) video: Vec<String>,
    pub(crate) audio: Vec<String>,
    /// Of all frames.
    pub(crate) bytes: usize,
}

impl Hashes {
    /// What is sent when this is sent again and again: so many frames, from those on.
    pub(crate) fn repeated(&self, from_video: usize, video: usize, from_audio: usize, audio: usize) -> Self {
        let part = |track: &[String], from, len| track.iter().cycle().skip(from).take(len).cloned().collect();
        Self {
            video: part(&self.video, from_video, video),
            audio: part(&self.audio, from_audio, audio),
            bytes: 0,
        }
    }

    /// Fails with the first frame that is not the same.
    pub(crate) fn assert_same(&self, sent: &Self, what: &str) {
        assert!(!sent.video.is_empty() || !sent.audio.is_empty(), "{what}: nothing was sent");
        for (track, found, sent) in [("video", &self.video, &sent.video), ("audio", &self.audio, &sent.audio)]
        {
            let same = found.iter().zip(sent).take_while(|(a, b)| a == b).count();
            assert!(
                found.len() == sent.len() && same == sent.len(),
                "{what}: {track} has {} frames, sent were {}; the first {same} are the same",
                found.len(),
                sent.len()
            );
        }
    }
}

/// Which form of the samples a file can be compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As RTMP, FLV and MP4 hold them.
    Sample,
    /// NAL units of the access units but parameter sets, SEI and delimiters, which MPEG-TS adds; raw AAC.
    Units { annex_b: bool },
}

impl Form {
    /// In which a recording is compared with what was sent, and that form of what was sent.
    fn of(format: &str) -> (Self, Self) {
        match format {
            "ts" => (Form::Units { annex_b: true }, Form::Units { annex_b: false }),
            _ => (Form::Sample, Form::Sample),
        }
    }

    fn filters(self) -> &'static [&'static str] {
        match self {
            Form::Sample => &[],
            Form::Units { annex_b: true } => {
                &["-bsf:v", "filter_units=remove_types=6-9", "-bsf:a", "aac_adtstoasc"]
            }
            Form::Units { annex_b: false } => &["-bsf:v", "h264_mp4toannexb,filter_units=remove_types=6-9"],
        }
    }
}

fn ffmpeg() -> Command {
    let mut command = Command::new("/usr/bin/ffmpeg");
    command.args(["-nostdin", "-v", "warning"]);
    command
}

/// Hashes of the frames as they are in the file, those before the first key frame too.
pub(crate) fn hashes(file: &Path, form: Form) -> Hashes {
    framemd5(ffmpeg().arg("-i").arg(file), &[&["-c", "copy", "-copyinkf"], form.filters()].concat())
}

/// Hashes of the decoded frames.
pub(crate) fn decoded(file: &Path) -> Hashes {
    framemd5(ffmpeg().arg("-i").arg(file), &["-fps_mode", "passthrough"])
}

/// Hashes of the frames of files, one after the other.
fn concatenated(files: &[PathBuf], form: Form) -> Hashes {
    let lines: String = files.iter().map(|file| format!("file '{}'\n", file.display())).collect();
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), lines).unwrap();
    let mut command = ffmpeg();
    // Times of what was cut do not matter here.
    command.args(["-v", "error", "-f", "concat", "-safe", "0", "-auto_convert", "0", "-i"]).arg(list.path());
    framemd5(&mut command, &[&["-c", "copy"], form.filters()].concat())
}

fn framemd5(command: &mut Command, options: &[&str]) -> Hashes {
    command.args(["-map", "0:v?", "-map", "0:a?"]).args(options).args(["-f", "framemd5", "-"]);
    parse_framemd5(&run_silently(command))
}

fn parse_framemd5(text: &str) -> Hashes {
    let mut kinds = BTreeMap::new();
    let mut hashes = Hashes::default();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("#media_type ") {
            let (index, kind) = kind.split_once(": ").unwrap();
            kinds.insert(index.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            // stream, dts, pts, duration, size, hash, and hashes of side data, if there is any.
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            let track = match kinds[fields[0]].as_str() {
                "video" => &mut hashes.video,
                _ => &mut hashes.audio,
            };
            track.push(fields[5].to_owned());
            hashes.bytes += fields[4].parse::<usize>().unwrap();
        }
    }
    hashes
}

/// What ffprobe says of a track.
#[derive(Debug)]
pub(crate) struct Track {
    /// Of the first frame, in seconds.
    pub(crate) start: f64,
    /// Of each frame, in decoding order.
    pub(crate) pts: Vec<f64>,
    pub(crate) keys: Vec<bool>,
}

/// Tracks by `video` and `audio`, by ffprobe, which must not complain.
pub(crate) fn tracks(file: &Path) -> BTreeMap<String, Track> {
    let json = run_silently(
        Command::new("/usr/bin/ffprobe")
            .args(["-v", "warning", "-of", "json", "-show_streams", "-show_packets"])
            .args(["-show_entries", "stream=codec_type,start_time:packet=codec_type,pts_time,flags"])
            .arg(file),
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let mut tracks = BTreeMap::new();
    for stream in json["streams"].as_array().unwrap() {
        let kind = stream["codec_type"].as_str().unwrap().to_owned();
        let start = number(&stream["start_time"]);
        tracks.insert(kind, Track { start, pts: Vec::new(), keys: Vec::new() });
    }
    for packet in json["packets"].as_array().unwrap() {
        let track = tracks.get_mut(packet["codec_type"].as_str().unwrap()).unwrap();
        track.pts.push(number(&packet["pts_time"]));
        track.keys.push(packet["flags"].as_str().unwrap().starts_with('K'));
    }
    tracks
}

/// Fails unless a file without the second half of its media has frames to show, from its first on.
pub(crate) fn assert_plays_from_its_half(recording: &Path) {
    let bytes = fs::read(recording).unwrap();
    let whole = framemd5(ffmpeg().arg("-i").arg(recording), &["-c", "copy"]);
    let half = tempfile::Builder::new().suffix(&format!(".{}", format_of(recording))).tempfile().unwrap();
    fs::write(half.path(), &bytes[..bytes.len() - whole.bytes / 2]).unwrap();
    // What is cut off is an error to it, and fair enough.
    let mut command = Command::new("/usr/bin/ffmpeg");
    command.args(["-nostdin", "-v", "fatal", "-i"]).arg(half.path());
    let part = framemd5(&mut command, &["-c", "copy"]);
    for (part, whole) in [(&part.video, &whole.video), (&part.audio, &whole.audio)] {
        // The last frame may be half of one.
        let part = &part[..part.len().saturating_sub(1)];
        assert!(part.len() >= whole.len() / 4, "{} of {} frames", part.len(), whole.len());
        assert_eq!(part, &whole[..part.len()]);
    }
}

/// Fails unless a recording is `sent`, all of it, and every reader likes it.
pub(crate) fn assert_recorded(sent: &Path, recording: &Path) {
    let format = format_of(recording);
    let what = format!("{} in {}", sent.display(), recording.display());
    let (form, sent_form) = Form::of(&format);
    hashes(recording, form).assert_same(&hashes(sent, sent_form), &what);
    decoded(recording).assert_same(&decoded(sent), &format!("decoded {what}"));
    assert_same_times(&tracks(sent), &tracks(recording), &what);
    assert_well_formed(recording);
}

/// Fails unless the files, one after the other, are `sent`, and each begins with a key frame.
pub(crate) fn assert_concatenation(sent: &Path, files: &[PathBuf]) {
    let found = assert_parts(sent, files);
    let whole = self::sent(sent, &format_of(&files[0]));
    assert_eq!((found.video.len(), found.audio.len()), (whole.video.len(), whole.audio.len()));
}

/// Fails unless the files, one after the other, are what is sent when `sent` is sent again and again, up to
/// some frame, and each begins with a key frame.
pub(crate) fn assert_repeated(sent: &Path, files: &[PathBuf]) {
    assert_parts(sent, files);
}

fn assert_parts(sent: &Path, files: &[PathBuf]) -> Hashes {
    let format = format_of(&files[0]);
    let what = format!("{} in {} files like {}", sent.display(), files.len(), files[0].display());
    let found = concatenated(files, Form::of(&format).0);
    let sent = self::sent(sent, &format).repeated(0, found.video.len(), 0, found.audio.len());
    found.assert_same(&sent, &what);
    for file in files {
        assert!(begins_with_key_frame(&format, &fs::read(file).unwrap()), "{}", file.display());
    }
    found
}

/// Hashes of a recording in the form in which `sent` gives those to compare with.
pub(crate) fn comparable(recording: &Path) -> Hashes {
    hashes(recording, Form::of(&format_of(recording)).0)
}

/// Hashes of what was sent, to compare with recordings of a format.
pub(crate) fn sent(file: &Path, format: &str) -> Hashes {
    hashes(file, Form::of(format).1)
}

/// Times may be rounded by 1 ms, and all moved together.
pub(crate) fn assert_same_times(sent: &BTreeMap<String, Track>, found: &BTreeMap<String, Track>, what: &str) {
    assert!(sent.keys().eq(found.keys()), "{what}: tracks {:?}", found.keys());
    let starts = |tracks: &BTreeMap<String, Track>| tracks.values().map(|t| t.start).fold(f64::MAX, f64::min);
    let (sent_start, found_start) = (starts(sent), starts(found));
    // A millisecond, and what binary fractions and 90 kHz add to it.
    let same = |a: f64, b: f64| ((a - sent_start) - (b - found_start)).abs() < 0.001_02;
    for (kind, sent) in sent {
        let found = &found[kind];
        assert!(
            same(sent.start, found.start),
            "{what}: {kind} starts at {} of {found_start}, was sent at {} of {sent_start}",
            found.start,
            sent.start
        );
        for (i, (sent_pts, found_pts)) in sent.pts.iter().zip(&found.pts).enumerate() {
            assert!(same(*sent_pts, *found_pts), "{what}: {kind} frame {i}: {found_pts}, sent {sent_pts}");
        }
        assert_eq!(sent.keys, found.keys, "{what}: key frames of {kind}");
    }
}

/// Fails if a reader finds fault with a file.
pub(crate) fn assert_well_formed(file: &Path) {
    tracks(file);
    let report = run_silently(Command::new("mediainfo").args(["--Output=JSON", "-f"]).arg(file));
    for fault in ["Conformance", "IsTruncated", "\"Errors\""] {
        assert!(!report.contains(fault), "mediainfo of {}: {report}", file.display());
    }
    let bytes = fs::read(file).unwrap();
    match format_of(file).as_str() {
        "flv" => assert_flv(file, &bytes),
        "ts" => assert_ts(file, &bytes),
        "mp4" => assert_mp4(file, &bytes),
        other => panic!("no reader for {other}"),
    }
}

/// flvmeta takes AAC's fixed sound rate and stereo bit for real, guesses data and frame rates, and wants each file to have
/// video, and more of it than a single frame.
fn assert_flv(file: &Path, bytes: &[u8]) {
    let output = Process::start(Command::new("flvmeta").arg("--check").arg(file)).wait();
    let known = [
        "audiosamplerate should",
        "stereo should be true",
        "audiodatarate should",
        "videodatarate should",
        "framerate should",
        "does not contain video tags",
        "unable to determine video resolution",
    ];
    assert!(output.stdout.lines().any(|line| line.starts_with("0 error(s)")), "{output:?}");
    let frames = || {
        media::tags(bytes).iter().filter(|tag| tag.kind == media::VIDEO && tag.payload().is_some()).count()
    };
    for line in output.stdout.lines().filter(|line| line.contains(": warning ")) {
        let is_known = known.iter().any(|words| line.contains(words))
            || (line.contains("only keyframes detected") && frames() == 1);
        assert!(is_known, "{}: {line}", file.display());
    }
}

/// Continuity, PCR and PSI by one parser; times against PCR by another.
fn assert_ts(file: &Path, bytes: &[u8]) {
    let what = file.display();
    let report = oxideav_mpegts::validate::validate_ts(bytes);
    assert!(report.is_conformant(), "{what}: {report:?}");
    assert!(report.packets as usize * 188 == bytes.len(), "{what}: {report:?}");
    assert!(report.programs.len() == 1 && report.pcr.len() == 1 && report.pcr[0].samples > 1, "{what}");

    let output = Process::start(Command::new("tsreport").args(["-b", "-err", "stderr"]).arg(file)).wait();
    assert!(output.status.success() && output.stderr.is_empty(), "{what}: {}", output.stderr);
    assert!(!output.stdout.contains("###"), "{what}: {}", output.stdout);
    // A negative one: a decoder needs a frame before it has come.
    assert!(output.stdout.contains("Minimum difference was "), "{what}: {}", output.stdout);
    assert!(!output.stdout.contains("Minimum difference was -"), "{what}: {}", output.stdout);
}

/// Two parsers agree on the samples; the index is in front, and media in the order of time.
fn assert_mp4(file: &Path, bytes: &[u8]) {
    let what = file.display();
    let names: Vec<_> = boxes(bytes).iter().map(|(name, _)| name.clone()).collect();
    let at = |name: &str| names.iter().position(|n| n == name).unwrap_or_else(|| panic!("{what}: {names:?}"));
    assert!(at("ftyp") == 0 && at("moov") < at("mdat"), "{what}: {names:?}");
    assert_eq!(names.iter().filter(|n| *n == "mdat").count(), 1, "{what}: {names:?}");

    let mp4 = re_mp4::Mp4::read_bytes(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
    let moov = boxes(bytes).into_iter().find(|(name, _)| name == "moov").unwrap().1;
    let moov = {
        use mp4_atom::ReadFrom;
        mp4_atom::Moov::read_from(&mut &bytes[moov]).unwrap_or_else(|e| panic!("{what}: {e}"))
    };
    assert_eq!(moov.trak.len(), mp4.tracks().len(), "{what}");
    let mut samples = Vec::new();
    for (id, track) in mp4.tracks() {
        let other = moov.trak.iter().find(|t| t.tkhd.track_id == *id).unwrap();
        let sizes = match &other.mdia.minf.stbl.stsz.samples {
            mp4_atom::StszSamples::Identical { count, size } => vec![*size; *count as usize],
            mp4_atom::StszSamples::Different { sizes } => sizes.clone(),
        };
        assert!(track.samples.iter().map(|s| s.size).eq(sizes.iter().map(|&s| u64::from(s))), "{what}");
        for sample in &track.samples {
            assert!(sample.offset + sample.size <= bytes.len() as u64, "{what}: {sample:?}");
            samples.push((sample.offset, sample.decode_timestamp as f64 / sample.timescale as f64));
        }
    }
    // A player that has the first part of a file has the first part of both tracks.
    samples.sort_by_key(|(offset, _)| *offset);
    let mut latest = f64::MIN;
    for (offset, seconds) in samples {
        assert!(seconds > latest - 1.0, "{what}: byte {offset} of {seconds} s comes after {latest} s");
        latest = latest.max(seconds);
    }
}

/// The names and ranges of the boxes of a file, which they must fill.
pub(crate) fn boxes(bytes: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut boxes = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let number = |at: usize, len: usize| {
            bytes[start + at..start + at + len].iter().fold(0, |n, b| n << 8 | usize::from(*b))
        };
        let size = match number(0, 4) {
            1 => number(8, 8),
            size => size,
        };
        let name = String::from_utf8_lossy(&bytes[start + 4..start + 8]).into_owned();
        assert!(size >= 8 && start + size <= bytes.len(), "box {name} at {start} has {size} bytes");
        boxes.push((name, start..start + size));
        start += size;
    }
    boxes
}

/// Whether the first frame of a file's video is a key frame.
pub(crate) fn begins_with_key_frame(format: &str, bytes: &[u8]) -> bool {
    match format {
        "flv" => {
            let tags = media::tags(bytes);
            let mut media = tags.iter().filter(|tag| tag.kind == media::VIDEO && tag.payload().is_some());
            media.next().is_some_and(media::Tag::is_key)
        }
        "mp4" => {
            let mp4 = re_mp4::Mp4::read_bytes(bytes).unwrap();
            let video = mp4.tracks().values().find(|t| t.kind == Some(re_mp4::TrackKind::Video));
            video.is_some_and(|track| track.samples[0].is_sync)
        }
        "ts" => {
            // The first PES packet of stream_id 0xe0, in a packet with random_access_indicator.
            let payload = |packet: &[u8]| match packet[3] & 0x20 {
                0 => 4,
                _ => 5 + usize::from(packet[4]),
            };
            let first = bytes.chunks_exact(188).find(|packet| {
                packet[1] & 0x40 != 0 && packet[payload(packet)..].starts_with(&[0, 0, 1, 0xe0])
            });
            let Some(first) = first else { return false };
            let marked = first[3] & 0x20 != 0 && first[4] > 0 && first[5] & 0x40 != 0;
            // And its first slice is one of an IDR picture.
            let pid = |packet: &[u8]| (packet[1] & 0x1f, packet[2]);
            let video = bytes.chunks_exact(188).filter(|packet| pid(packet) == pid(first));
            let video: Vec<u8> = video.flat_map(|packet| packet[payload(packet)..].to_vec()).collect();
            let units = video.windows(4).filter(|b| b[..3] == [0, 0, 1]).map(|b| b[3]);
            let slices = units.filter(|b| b & 0x80 == 0).map(|b| b & 0x1f);
            marked && slices.into_iter().find(|kind| matches!(kind, 1 | 5)) == Some(5)
        }
        other => panic!("no reader for {other}"),
    }
}

fn format_of(file: &Path) -> String {
    file.extension().unwrap().to_string_lossy().into_owned()
}
