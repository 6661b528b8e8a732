//! A trial of a component before any recording depends on it.
//!
//! Two seconds of a built-in stream (H.264 with B-frames, AAC) are written as recordings are: with the tracks announced
//! once more, through a cut at a key frame, and closed. Four times: twice in the same batches, then in batches of 1
//! and of 64. Each file has to come out the same each time, and what our reader of the format finds in it, if
//! we have one, has to be what was given.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Begin, End, FormatError, HEAD_ALIGN, Version, Writer,
    limits::Limit,
    validate::{self, Contents, Given, Invalid},
};
use crate::{
    media::{Kind, Sample, Track},
    output::{Disk, PathError, Roots, Segment},
    rtmp::tag,
};

/// 96 by 64 at 25 frames a second with two B-frames, key frames each 640 ms; AAC-LC, 44.1 kHz, mono. Made by FFmpeg
/// 5.1 with x264 from its test picture and a tone.
const STREAM: &[u8] = include_bytes!("testdata/probe.flv");
/// Samples a `write` in each pass.
const BATCHES: [usize; 4] = [7, 7, 1, 64];
/// Wall clock at the stream's begin, in microseconds.
const EPOCH_US: i64 = 1_700_000_000_123_456;
/// Where the tracks are announced again, and where the cut is: at these key frames.
const UPDATE_AT_KEY: usize = 1;
const CUT_AT_KEY: usize = 2;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Codecs of the tracks that were written. Empty: the format takes neither of ours, so it was only asked to open a
    /// segment with a broken track, and said no as it should (or took it).
    pub codecs: Vec<String>,
    /// Segments of a pass, and bytes in their files.
    pub segments: usize,
    pub bytes: u64,
    /// Whether our own reader found in the files what was given.
    pub validated: bool,
    /// Bytes of memory that an instance used at most.
    pub memory: usize,
    pub took: Duration,
}

/// Which check a component failed. `pass` counts from 1.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("probe, pass {pass}, segment {segment}: {error}")]
    Call { pass: usize, segment: u64, error: FormatError },
    #[error("probe: the same samples gave other bytes in pass {pass}, in batches of {batch}: {file} {what}")]
    Differs { pass: usize, batch: usize, file: String, what: Difference },
    #[error("probe: {file} is not a valid {format}: {error}")]
    Invalid { file: String, format: String, error: Invalid },
    #[error("probe: {file} does not hold what was given: {what}")]
    Contents { file: String, what: String },
    #[error("probe: it exceeded the limit `probe-time` of {limit:?}")]
    Time { limit: Duration },
    #[error("probe: the folder for its files: {0}")]
    Scratch(#[from] io::Error),
    #[error("probe: the folder for its files: {0}")]
    Path(#[from] PathError),
    #[error("probe: the built-in stream can't be read")]
    Stream,
}

/// How two passes differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("differs from byte {0} on")]
    From(u64),
    #[error("is not there in both")]
    Missing,
}

/// Tries a component. `scratch` is a folder for its files, which is emptied before and after.
pub async fn probe(version: &Arc<Version>, scratch: &Path) -> Result<Probed, ProbeError> {
    let begun = Instant::now();
    let limit = version.limits.probe_time;
    clear(scratch).await?;
    let result = tokio::time::timeout(limit, run(version, scratch)).await;
    // Files of a probe that was cut off may still be open; they are gone with their last writer.
    let cleared = clear(scratch).await;
    let probed = result.unwrap_or_else(|_| {
        version.engine.loading().limit(Limit::ProbeTime);
        Err(ProbeError::Time { limit })
    })?;
    cleared?;
    Ok(Probed { took: begun.elapsed(), ..probed })
}

async fn run(version: &Arc<Version>, scratch: &Path) -> Result<Probed, ProbeError> {
    let stream = Stream::built_in().ok_or(ProbeError::Stream)?.limited_to(&version.manifest.codecs);
    let (root, paths) = (scratch.to_owned(), Vec::new());
    let roots = blocking(move || Roots::open(&root, &paths)).await??;
    let mut probe = Probe { version, disk: Disk::new(roots, None), stream, memory: 0 };
    if probe.stream.tracks.is_empty() {
        return probe.refusal().await;
    }
    let (mut segments, mut bytes) = (0, 0);
    for (pass, batch) in BATCHES.into_iter().enumerate() {
        let done = probe.pass(pass, batch).await?;
        if pass == 0 {
            segments = done.len();
            bytes = done.iter().map(|segment| segment.bytes).sum();
            probe.validate(done).await?;
        } else {
            let (first, this) = (folder(scratch, 0), folder(scratch, pass));
            if let Some((file, what)) = blocking(move || compare(&first, &this)).await?? {
                return Err(ProbeError::Differs { pass: pass + 1, batch, file, what });
            }
        }
    }
    Ok(Probed {
        codecs: probe.stream.tracks.iter().map(|track| track.codec.clone()).collect(),
        segments,
        bytes,
        validated: validate::has_reader(&version.manifest.format),
        memory: probe.memory,
        took: Duration::ZERO,
    })
}

struct Probe<'a> {
    version: &'a Arc<Version>,
    disk: Disk,
    stream: Stream,
    memory: usize,
}

/// A segment that was written: its file, and what was given.
struct Written {
    path: PathBuf,
    bytes: u64,
    given: Contents,
}

impl Probe<'_> {
    /// Writes the stream once.
    async fn pass(&mut self, pass: usize, batch: usize) -> Result<Vec<Written>, ProbeError> {
        let Stream { tracks, samples } = self.stream.clone();
        let video = |track: u32| tracks.iter().any(|t| t.id == track && t.kind == Kind::Video);
        let mut marks = samples.iter().enumerate().filter(|(_, s)| s.key && video(s.track)).map(|(i, _)| i);
        let update_at = marks.nth(UPDATE_AT_KEY).unwrap_or(samples.len() / 3);
        let cut_at = marks.nth(CUT_AT_KEY - UPDATE_AT_KEY - 1).unwrap_or(samples.len() / 2);
        let mut written = Vec::new();
        let mut carry = Vec::new();
        let mut rest = &samples[..];
        let mut until = vec![samples.len(), cut_at, update_at];
        while !rest.is_empty() {
            let segment = written.len() as u64;
            let fail = |error| ProbeError::Call { pass: pass + 1, segment, error };
            let mut writer = self.open(pass, segment, rest, std::mem::take(&mut carry)).await?;
            let mut given = Given::new(&tracks);
            // Up to the cut; to where the tracks are announced, and on if the format takes them.
            while let Some(end) = until.pop() {
                let (now, after) = rest.split_at(end - (samples.len() - rest.len()));
                for samples in now.chunks(batch) {
                    writer.write(samples).await.map_err(fail)?;
                }
                now.iter().for_each(|sample| given.sample(sample));
                rest = after;
                if end != update_at || !writer.update_tracks(&tracks).await.map_err(fail)? {
                    break;
                }
            }
            self.memory = self.memory.max(writer.memory());
            let reason = if rest.is_empty() { "stream-ended" } else { "cut" };
            let end = End { reason, tracks: ends(&tracks, &samples[..samples.len() - rest.len()], rest) };
            let closing = writer.finish(end).await.map_err(|failed| fail(failed.error))?;
            carry.clone_from(&closing.carry);
            // Compared like the files, since the next segment rests on it.
            let told = format!("{:?}\n{:?}", closing.properties(), closing.carry);
            let finished = closing.complete().await.map_err(|failed| fail(failed.error))?;
            let (path, bytes) = (finished.file.path, finished.file.bytes);
            let mut summary = path.clone().into_os_string();
            summary.push(".summary");
            blocking(move || fs::write(summary, told)).await??;
            written.push(Written { path, bytes, given: given.contents() });
        }
        Ok(written)
    }

    async fn open(
        &self,
        pass: usize,
        segment: u64,
        samples: &[Sample],
        carry: Vec<u8>,
    ) -> Result<Writer, ProbeError> {
        let begin = self.begin(segment, samples, carry);
        let opened = Writer::open_aside(self.version.clone(), self.claim(pass, segment).await?, begin).await;
        opened.map_err(|error| ProbeError::Call { pass: pass + 1, segment, error })
    }

    fn begin(&self, segment: u64, samples: &[Sample], carry: Vec<u8>) -> Begin {
        let origin_ms = samples.iter().map(|sample| sample.dts_ms).min().unwrap_or(0);
        Begin {
            segment,
            epoch_us: EPOCH_US + origin_ms * 1000,
            origin_ms,
            head_room: HEAD_ALIGN.into(),
            manifest: false,
            config_id: 0,
            stream: "probe".into(),
            whose: Default::default(),
            tracks: self.stream.tracks.clone(),
            options: Vec::new(),
            carry,
        }
    }

    async fn claim(&self, pass: usize, segment: u64) -> Result<Segment, ProbeError> {
        let name = format!("{segment}.{}", self.version.manifest.extension);
        let (roots, path) = (self.disk.roots.clone(), format!("{pass}/{segment}"));
        let folder = roots.media().join(pass.to_string());
        blocking(move || fs::create_dir_all(folder)).await??;
        let target = blocking(move || roots.resolve(&path)).await??;
        Ok(Segment::claim(&self.disk, &target.folder, std::iter::once(name), false).await?)
    }

    /// Reads the files of a pass, if there is a reader for the format.
    async fn validate(&self, written: Vec<Written>) -> Result<(), ProbeError> {
        let format = self.version.manifest.format.clone();
        if !validate::has_reader(&format) {
            return Ok(());
        }
        for Written { path, given, .. } in written {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let its = format.clone();
            let found = match blocking(move || validate::read(&its, &path)).await? {
                Ok(found) => found,
                Err(error) => return Err(ProbeError::Invalid { file, format, error }),
            };
            if let Some(what) = found.differs_from(&given) {
                return Err(ProbeError::Contents { file, what });
            }
        }
        Ok(())
    }

    /// For a format that takes none of our codecs: a track without configuration may be refused, but not more.
    async fn refusal(&mut self) -> Result<Probed, ProbeError> {
        if let Some(codec) = self.version.manifest.codecs.first() {
            let codec = codec.clone();
            self.stream.tracks =
                vec![Track { id: 1, kind: Kind::Video, codec, config: Bytes::new(), properties: Vec::new() }];
            match self.open(0, 0, &[], Vec::new()).await {
                Ok(writer) => drop(writer.abandon().await),
                Err(ProbeError::Call { error, .. }) if error.is_refusal() => {}
                Err(error) => return Err(error),
            }
        }
        let (codecs, validated, took) = (Vec::new(), false, Duration::ZERO);
        Ok(Probed { codecs, segments: 0, bytes: 0, validated, memory: 0, took })
    }
}

/// Where each track that had a sample ends: at its next sample, or a step behind its last one.
fn ends(tracks: &[Track], before: &[Sample], after: &[Sample]) -> Vec<(u32, i64)> {
    let end = |track: &Track| {
        let mut times = before.iter().rev().filter(|s| s.track == track.id).map(|s| s.dts_ms);
        let last = times.next()?;
        let next = after.iter().find(|s| s.track == track.id).map(|s| s.dts_ms);
        Some((track.id, next.unwrap_or(last + times.next().map_or(20, |before| last - before))))
    };
    tracks.iter().filter_map(end).collect()
}

/// Tracks, and samples in the order of arrival.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) tracks: Vec<Track>,
    pub(super) samples: Vec<Sample>,
}

impl Stream {
    pub(super) fn built_in() -> Option<Self> {
        let file = Bytes::from_static(STREAM);
        let (mut tracks, mut samples) = (Vec::new(), Vec::new());
        // Behind the header and PreviousTagSize0.
        let mut at = 13;
        while let Some(header) = file.get(at..)?.first_chunk().map(tag::Header::read) {
            let start = at + tag::HEADER_BYTES;
            let end = start + header.data_bytes;
            let body = (end <= file.len()).then(|| file.slice(start..end))?;
            at = end + 4;
            let (track, kind, body) = match header.tag_type {
                tag::kind::VIDEO => (1, Kind::Video, tag::video(body).ok()?),
                tag::kind::AUDIO => (2, Kind::Audio, tag::audio(body).ok()?),
                _ => continue,
            };
            let dts_ms = i64::from(header.timestamp_ms);
            match body {
                tag::Body::Configuration { codec, config } => {
                    tracks.push(Track {
                        id: track,
                        kind,
                        codec: codec.into(),
                        config,
                        properties: Vec::new(),
                    });
                }
                tag::Body::Sample(payload) => samples.push(Sample {
                    track,
                    dts_ms,
                    pts_ms: dts_ms + i64::from(payload.composition_time_ms),
                    key: payload.key,
                    discontinuity: false,
                    data: payload.data,
                }),
                tag::Body::EndOfSequence | tag::Body::Nothing => {}
            }
        }
        (!tracks.is_empty() && !samples.is_empty()).then_some(Self { tracks, samples })
    }

    /// Without the tracks that a format does not take.
    fn limited_to(mut self, codecs: &[String]) -> Self {
        self.tracks.retain(|track| codecs.contains(&track.codec));
        self.samples.retain(|sample| self.tracks.iter().any(|track| track.id == sample.track));
        self
    }
}

fn folder(scratch: &Path, pass: usize) -> PathBuf {
    scratch.join(pass.to_string())
}

/// The first difference of the files of two folders; the second one is removed.
fn compare(first: &Path, this: &Path) -> io::Result<Option<(String, Difference)>> {
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for folder in [first, this] {
        for entry in fs::read_dir(folder)? {
            *files.entry(entry?.file_name().to_string_lossy().into_owned()).or_default() += 1;
        }
    }
    for (file, count) in files {
        let what = match count {
            2 => first_difference(&first.join(&file), &this.join(&file))?.map(Difference::From),
            _ => Some(Difference::Missing),
        };
        if let Some(what) = what {
            return Ok(Some((file, what)));
        }
    }
    fs::remove_dir_all(this)?;
    Ok(None)
}

/// The first byte in which two files differ.
fn first_difference(a: &Path, b: &Path) -> io::Result<Option<u64>> {
    const WINDOW: u64 = 64 << 10;
    let (mut a, mut b) = (fs::File::open(a)?, fs::File::open(b)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(WINDOW).read_to_end(&mut left)?;
        b.by_ref().take(WINDOW).read_to_end(&mut right)?;
        if left != right {
            let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + same as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        at += left.len() as u64;
    }
}

/// Empties a folder, which is made if it is missing.
async fn clear(folder: &Path) -> io::Result<()> {
    let folder = folder.to_owned();
    let clear = move || match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&folder),
    };
    blocking(clear).await?
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_has_what_a_format_can_get_wrong() {
        let stream = Stream::built_in().unwrap();
        let codecs: Vec<_> = stream.tracks.iter().map(|track| track.codec.as_str()).collect();
        assert_eq!(codecs, ["avc1", "mp4a"]);
        let video = || stream.samples.iter().filter(|s| s.track == 1);
        assert_eq!(video().count(), 50);
        assert_eq!(video().filter(|s| s.key).map(|s| s.dts_ms).collect::<Vec<_>>(), [0, 640, 1280, 1920]);
        assert!(video().any(|s| s.pts_ms - s.dts_ms > 80), "B-frames");
        assert_eq!(stream.samples.len() - 50, 88);
        let audio = stream.clone().limited_to(&["mp4a".into()]);
        assert_eq!((audio.tracks.len(), audio.samples.len()), (1, 88));
        assert!(stream.limited_to(&["hvc1".into()]).samples.is_empty());
    }
}
