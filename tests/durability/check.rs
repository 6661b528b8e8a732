//! Judges a file that was recovered: by readers that share no code with the writers, against what was recorded.

use std::process::Command;

use reelwright::output::{
    journal::{Commit, Reader, Record},
    storage::Directory,
};
use sha2::{Digest, Sha256};

use crate::{disk::Model, flv_reader::Flv, scenario::Written, ts_reader};

/// Samples that a segment's journal counts, and those of them that it says are durable.
pub fn in_journal(disk: &Model, name: &str) -> (usize, usize) {
    let Ok(journal) = disk.open(&format!("{name}.info")) else { return (0, 0) };
    let Some(mut reader) = Reader::open(journal).unwrap() else { return (0, 0) };
    let mut commits: Vec<Commit> = Vec::new();
    let mut durable = 0;
    while let Some(record) = reader.record().unwrap() {
        match record {
            Record::Commit(commit) => commits.push(commit),
            Record::Cut(commit) => {
                durable = commit.samples;
                commits = vec![commit];
            }
            Record::Synced(sizes) => {
                let synced = |commit: &&Commit| {
                    commit.outputs.iter().enumerate().all(|(i, (size, _))| Some(size) <= sizes.get(i))
                };
                durable = commits.iter().rfind(synced).map_or(0, |commit| commit.samples);
            }
            _ => {}
        }
    }
    (commits.last().map_or(0, |commit| commit.samples as usize), durable as usize)
}

/// Fails unless a manifest is that of a file.
pub fn manifest(text: &[u8], file: &[u8]) {
    let manifest: serde_json::Value = serde_json::from_slice(text).unwrap();
    let sha256: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(manifest["bytes"], file.len(), "{manifest}");
    assert_eq!(manifest["sha256"], sha256, "{manifest}");
}

/// How many of a segment's samples, from the first on, are in a file. Fails unless it is nothing but them, whole and
/// readable.
pub fn samples_in(written: &Written, bytes: &[u8]) -> usize {
    match written.format {
        "flv" => flv(written, bytes),
        "ts" => ts(written, bytes),
        "mp4" => mp4(written, bytes),
        other => panic!("no reader for {other}"),
    }
}

fn flv(written: &Written, bytes: &[u8]) -> usize {
    let file = Flv::read(bytes);
    let tags: Vec<_> = file.samples().collect();
    assert!(tags.len() <= written.samples.len());
    for (i, (tag, sample)) in tags.iter().zip(&written.samples).enumerate() {
        assert_eq!(tag.is_video(), sample.track == 1, "tag {i}");
        assert_eq!(i64::from(tag.time_ms), sample.dts_ms - written.origin_ms, "tag {i}");
        if tag.is_video() {
            assert_eq!(i64::from(tag.composition_time()), sample.pts_ms - sample.dts_ms, "tag {i}");
            assert_eq!(tag.is_key(), sample.key, "tag {i}");
        }
        assert!(tag.payload() == &sample.data[..], "payload of tag {i}");
    }
    let keys = tags.iter().filter(|tag| tag.is_key()).count();
    // One alone is no index.
    assert_eq!(file.index().len(), if keys < 2 { 0 } else { keys }, "key frames in the index");
    let last_ms = tags.iter().map(|tag| tag.time_ms).max().unwrap_or(0);
    let duration_ms = (file.metadata.number("duration") * 1000.0).round() as u32;
    assert!((last_ms..last_ms + 100).contains(&duration_ms), "{duration_ms} ms, last tag at {last_ms}");
    assert_eq!(file.metadata.number("filesize"), bytes.len() as f64);
    tags.len()
}

/// What is written is not changed later, so the file is a begin of the whole one.
fn ts(written: &Written, bytes: &[u8]) -> usize {
    assert!(written.bytes.starts_with(bytes), "{} bytes are not those that were written", bytes.len());
    ts_reader::demux(bytes);
    let samples = written.sizes.get(&(bytes.len() as u64));
    *samples.unwrap_or_else(|| panic!("{} bytes end within a batch", bytes.len()))
}

fn mp4(written: &Written, bytes: &[u8]) -> usize {
    let mut names = boxes(bytes);
    names.retain(|name| name != "free");
    assert_eq!(names, ["ftyp", "moov", "mdat"]);
    let mp4 = re_mp4::Mp4::read_bytes(bytes).unwrap();
    let whole = re_mp4::Mp4::read_bytes(&written.bytes).unwrap();
    let moov = bytes.windows(4).position(|name| name == b"moov").expect("a moov") - 4;
    let moov = {
        use mp4_atom::ReadFrom;
        mp4_atom::Moov::read_from(&mut &bytes[moov..]).unwrap()
    };
    assert_eq!(moov.trak.len(), mp4.tracks().len());
    let mut total = 0;
    let mut counts = [0; 3];
    for (id, track) in mp4.tracks() {
        let its = if track.kind == Some(re_mp4::TrackKind::Video) { 1 } else { 2 };
        let expected = written.samples.iter().filter(|sample| sample.track == its);
        let whole = &whole.tracks()[id];
        assert!(track.samples.len() <= whole.samples.len());
        for (i, ((found, sample), whole)) in
            track.samples.iter().zip(expected).zip(&whole.samples).enumerate()
        {
            let (at, size) = (found.offset as usize, found.size as usize);
            assert!(bytes.get(at..at + size) == Some(&sample.data[..]), "payload {i} of track {id}");
            let is = (found.decode_timestamp, found.composition_timestamp, found.is_sync, found.timescale);
            let should =
                (whole.decode_timestamp, whole.composition_timestamp, whole.is_sync, whole.timescale);
            assert_eq!(is, should, "sample {i} of track {id}");
        }
        counts[its as usize] = track.samples.len();
        total += track.samples.len();
    }
    let of = |track: u32| written.samples[..total].iter().filter(|s| s.track == track).count();
    assert_eq!((counts[1], counts[2]), (of(1), of(2)), "the first {total} samples, by track");
    total
}

/// Names of the boxes, which must fill the bytes, as must those in them: the readers take a size of 0 for good.
fn boxes(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (size, after) = rest.split_first_chunk().expect("a size");
        let size = u32::from_be_bytes(*size) as usize;
        assert!((8..=rest.len()).contains(&size), "a box of {size} bytes behind {names:?}");
        let name = String::from_utf8_lossy(&after[..4]).into_owned();
        if ["moov", "trak", "mdia", "minf", "stbl"].contains(&name.as_str()) {
            boxes(&rest[8..size]);
        }
        names.push(name);
        rest = &rest[size..];
    }
    names
}

/// Fails unless FFmpeg reads and decodes a file without a word.
pub fn play(format: &str, bytes: &[u8]) {
    let file = tempfile::Builder::new().suffix(&format!(".{format}")).tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "warning", "-xerror", "-i"])
        .arg(file.path())
        .args(["-map", "0", "-fps_mode", "passthrough", "-f", "framemd5", "-"])
        .output()
        .expect("ffmpeg is there: make setup");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
