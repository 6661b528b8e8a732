//! Writes slices of a recording with a canary and with the active version, beside the recording, and compares them.
//!
//! It gets the batches that the recording's writer has taken. What it writes lies in a folder of its own, is read and
//! then removed. When it can't keep up it breaks the slice off; the recording never waits for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Begin, End, FormatError, HEAD_ALIGN, Version, Writer,
    catalog::Seat,
    trial::{Measured, Trial, Verdict},
    validate::{self, Contents, Given},
};
use crate::{
    media::{Kind, Sample, Track},
    output::{Disk, PathError, Roots, Segment},
    wall_clock,
};

/// Length from which the first slice ends at the next key frame, and how much longer it may be, in milliseconds. Each
/// further slice takes twice as long, to see what only shows with time, up to so many times.
const SLICE_MS: i64 = 5_000;
const LONGER_MS: i64 = 55_000;
const DOUBLINGS: u64 = 4;
/// How much earlier than the first sample others of a slice may be: tracks are not quite side by side.
const EARLY_MS: i64 = 1_000;
/// Batches and bytes that wait; with more the slice is broken off.
const QUEUE: usize = 64;
const QUEUE_BYTES: usize = 16 << 20;
/// How long a recording is left alone when it can't be compared.
const PAUSE: Duration = Duration::from_secs(60);

/// What was written of a recording.
#[derive(Debug)]
struct Batch {
    tracks: Arc<[Track]>,
    samples: Vec<Sample>,
    bytes: usize,
    /// Batches before it were left out.
    broken: bool,
    /// When the recording had written it.
    written: Instant,
}

/// A shadow of one recording.
#[derive(Debug)]
pub struct Shadow {
    batches: mpsc::Sender<Batch>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
    tracks: Arc<[Track]>,
    broken: bool,
}

impl Shadow {
    /// Begins to compare, in a folder that is removed when it is over.
    pub fn start(seat: Seat, scratch: PathBuf) -> Self {
        let (batches, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = waiting.clone();
        tokio::spawn(async move {
            let result = Comparison::run(&seat, &scratch, queue, &taken).await;
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(scratch)).await;
            if let Err(error) = result {
                tracing::warn!(canary = seat.canary.label(), %error, "a canary can't be compared");
                // The seat is kept that long, so that the recording does not try again at once.
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { batches, waiting, tracks: Arc::new([]), broken: false }
    }

    /// Shows it what was written. `false`: the trial is over.
    pub fn offer(&mut self, tracks: &[Track], samples: &[Sample]) -> bool {
        if *self.tracks != *tracks {
            self.tracks = tracks.into();
        }
        if self.batches.is_closed() {
            return false;
        }
        let bytes = samples.iter().map(|sample| sample.data.len()).sum();
        if self.waiting.load(Relaxed) + bytes > QUEUE_BYTES {
            self.broken = true;
            return true;
        }
        let (tracks, broken, written) = (self.tracks.clone(), self.broken, Instant::now());
        // Before it can be taken.
        self.waiting.fetch_add(bytes, Relaxed);
        self.broken = self
            .batches
            .try_send(Batch { tracks, samples: samples.to_vec(), bytes, broken, written })
            .is_err();
        if self.broken {
            self.waiting.fetch_sub(bytes, Relaxed);
        }
        true
    }
}

/// Why nothing can be compared. Nobody's fault of the two.
#[derive(Debug, thiserror::Error)]
enum ShadowError {
    #[error("its folder: {0}")]
    Folder(#[from] io::Error),
    #[error("its folder: {0}")]
    Path(#[from] PathError),
    #[error("its folder: {0}")]
    Disk(FormatError),
    #[error("the active version can't write it: {0}")]
    Active(FormatError),
}

/// Whether the trial goes on for this recording.
type GoesOn = Result<bool, ShadowError>;

struct Comparison<'a> {
    seat: &'a Seat,
    disk: Disk,
    slice: Option<Slice>,
    /// Slices begun.
    slices: u64,
    /// When the recording had written what is being looked at.
    written: Instant,
}

/// A stretch of media, as both write it.
struct Slice {
    tracks: Arc<[Track]>,
    canary: Writer,
    active: Writer,
    given: Given,
    samples: u64,
    origin_ms: i64,
    /// From when on it may end.
    length_ms: i64,
    /// By track: its last DTS, and the distance from the one before.
    last: Vec<(u32, i64, i64)>,
}

impl Comparison<'_> {
    async fn run(
        seat: &Seat,
        scratch: &Path,
        mut queue: mpsc::Receiver<Batch>,
        waiting: &AtomicUsize,
    ) -> Result<(), ShadowError> {
        let root = scratch.to_owned();
        let roots = tokio::task::spawn_blocking(move || Roots::open(&root, &[])).await;
        let roots = roots.map_err(io::Error::other)??;
        let (disk, written) = (Disk::new(roots, None), Instant::now());
        let mut comparison = Comparison { seat, disk, slice: None, slices: 0, written };
        while let Some(batch) = queue.recv().await {
            comparison.written = batch.written;
            waiting.fetch_sub(batch.bytes, Relaxed);
            if !comparison.take(batch).await? {
                return comparison.leave().await;
            }
        }
        comparison.end("stream-ended").await.map(|_| ())
    }

    async fn take(&mut self, batch: Batch) -> GoesOn {
        if batch.broken {
            self.leave().await?;
            if !self.judge(Trial::fell_behind) {
                return Ok(false);
            }
        }
        if self.slice.as_ref().is_some_and(|slice| slice.tracks != batch.tracks) && !self.end("cut").await? {
            return Ok(false);
        }
        let video = batch.tracks.iter().find(|track| track.kind == Kind::Video).map(|track| track.id);
        let begins = |sample: &Sample| sample.key && video.is_none_or(|video| video == sample.track);
        let mut rest = &batch.samples[..];
        while !rest.is_empty() {
            if self.slice.is_none() {
                let Some(at) = rest.iter().position(begins) else { return Ok(true) };
                rest = &rest[at..];
                self.slice = self.begin(&batch.tracks, &rest[0]).await?;
                if self.slice.is_none() {
                    return Ok(false);
                }
            }
            let Some(slice) = &mut self.slice else { return Ok(true) };
            let is_end = |sample: &Sample| {
                let length_ms = sample.dts_ms - slice.origin_ms;
                (begins(sample) && length_ms >= slice.length_ms) || length_ms >= slice.length_ms + LONGER_MS
            };
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            let (now, after) = rest.split_at(end);
            if !now.is_empty() && !self.write(now).await? {
                return Ok(false);
            }
            rest = after;
            if !rest.is_empty() && !self.end("cut").await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens both. `None`: the trial is over.
    async fn begin(&mut self, tracks: &Arc<[Track]>, first: &Sample) -> Result<Option<Slice>, ShadowError> {
        self.slices += 1;
        let active = match open(&self.disk, &self.seat.active, self.slices, "active", tracks, first).await? {
            Ok(writer) => writer,
            Err(error) => return Err(ShadowError::Active(error)),
        };
        let canary = match open(&self.disk, &self.seat.canary, self.slices, "canary", tracks, first).await? {
            Ok(writer) => writer,
            Err(error) => {
                active.abandon().await;
                self.judge(|trial| trial.out(error.to_string()));
                return Ok(None);
            }
        };
        Ok(Some(Slice {
            tracks: tracks.clone(),
            canary,
            active,
            given: Given::new(tracks),
            samples: 0,
            origin_ms: first.dts_ms,
            length_ms: SLICE_MS << (self.slices - 1).min(DOUBLINGS),
            last: Vec::new(),
        }))
    }

    /// Has both write. The active version first: what it can't take is not the canary's fault.
    async fn write(&mut self, samples: &[Sample]) -> GoesOn {
        let Some(slice) = &mut self.slice else { return Ok(true) };
        // Stragglers of before the slice.
        let earliest_ms = slice.origin_ms - EARLY_MS;
        let samples: Vec<Sample> = samples.iter().filter(|s| s.dts_ms >= earliest_ms).cloned().collect();
        if its_own(slice.active.write(&samples).await)?.is_err() {
            self.leave().await?;
            return Ok(true);
        }
        if let Err(error) = its_own(slice.canary.write(&samples).await)? {
            self.judge(|trial| trial.out(error.to_string()));
            return Ok(false);
        }
        slice.took(&samples);
        let (canary, active) = slice.measured();
        Ok(self.judge(|trial| trial.goes_on(canary, active)))
    }

    /// Ends the slice and looks at what both wrote.
    async fn end(&mut self, reason: &'static str) -> GoesOn {
        let Some(slice) = self.slice.take() else { return Ok(true) };
        let end =
            End { reason, tracks: slice.last.iter().map(|&(id, dts, step)| (id, dts + step)).collect() };
        let length_ms = slice.last.iter().map(|&(_, dts, _)| dts).max().unwrap_or(0) - slice.origin_ms;
        let Slice { canary, active, given, samples, .. } = slice;
        let given = given.contents();
        let active_done = finish(active, end.clone(), samples).await?;
        let canary_done = finish(canary, end, samples).await?;
        let (Ok((active_file, active)), canary_done) = (active_done, canary_done) else { return Ok(true) };
        let (canary_file, canary) = match canary_done {
            Ok(done) => done,
            Err(error) => {
                self.judge(|trial| trial.out(error.to_string()));
                return Ok(false);
            }
        };
        let format = &self.seat.canary.manifest.format;
        if validate::has_reader(format) {
            let its = look(format, &canary_file, &given).await;
            // A stream so odd that the reader does not take what the active version makes of it says nothing.
            if let Some(wrong) = its
                && look(&self.seat.active.manifest.format, &active_file, &given).await.is_none()
            {
                self.judge(|trial| trial.out(format!("its file is wrong: {wrong}")));
                return Ok(false);
            }
        }
        for file in [canary_file, active_file] {
            let _ = tokio::fs::remove_file(file).await;
        }
        let media_ms = u64::try_from(length_ms).unwrap_or(0);
        Ok(self.judge(|trial| trial.passed(self.seat.config_id, media_ms, canary, active)))
    }

    /// Notes in the trial what is being looked at. `false`: it is over.
    fn judge(&self, note: impl FnOnce(&mut Trial) -> &Verdict) -> bool {
        self.seat.judge(self.written, note)
    }

    /// Breaks the slice off.
    async fn leave(&mut self) -> Result<(), ShadowError> {
        if let Some(Slice { canary, active, .. }) = self.slice.take() {
            drop((canary.abandon().await, active.abandon().await));
        }
        Ok(())
    }
}

impl Slice {
    fn took(&mut self, samples: &[Sample]) {
        self.samples += samples.len() as u64;
        for sample in samples {
            self.given.sample(sample);
            match self.last.iter_mut().find(|(id, ..)| *id == sample.track) {
                Some((_, dts, step)) => (*step, *dts) = (sample.dts_ms - *dts, sample.dts_ms),
                None => self.last.push((sample.track, sample.dts_ms, 0)),
            }
        }
    }

    fn measured(&self) -> (Measured, Measured) {
        (measured(&self.canary, self.samples), measured(&self.active, self.samples))
    }
}

/// Opens a writer of its own for a slice.
async fn open(
    disk: &Disk,
    version: &Arc<Version>,
    slice: u64,
    who: &str,
    tracks: &[Track],
    first: &Sample,
) -> Result<Result<Writer, FormatError>, ShadowError> {
    let roots = disk.roots.clone();
    let target = tokio::task::spawn_blocking(move || roots.resolve("x")).await;
    let folder = target.map_err(io::Error::other)??.folder;
    let name = format!("{slice}-{who}.{}", version.manifest.extension);
    let segment = Segment::claim(disk, &folder, std::iter::once(name), false).await?;
    let begin = Begin {
        segment: slice - 1,
        epoch_us: wall_clock::epoch_us(),
        origin_ms: first.dts_ms - EARLY_MS,
        head_room: HEAD_ALIGN.into(),
        manifest: false,
        config_id: 0,
        stream: "canary".into(),
        whose: Default::default(),
        tracks: tracks.to_vec(),
        options: Vec::new(),
        carry: Vec::new(),
    };
    its_own(Writer::open_aside(version.clone(), segment, begin).await)
}

fn measured(writer: &Writer, samples: u64) -> Measured {
    Measured { samples, time: writer.computing(), memory: writer.memory() as u64, bytes: writer.bytes() }
}

/// Ends a file. What the writer needed, up to its end, and where the file is.
async fn finish(
    writer: Writer,
    end: End,
    samples: u64,
) -> Result<Result<(PathBuf, Measured), FormatError>, ShadowError> {
    let result = async {
        let closing = writer.finish(end).await.map_err(|failed| failed.error)?;
        let (time, memory, bytes) = (closing.computing, closing.memory as u64, closing.bytes());
        let finished = closing.complete().await.map_err(|failed| failed.error)?;
        Ok((finished.file.path, Measured { samples, time, memory, bytes }))
    };
    its_own(result.await)
}

/// What is wrong with a file.
async fn look(format: &str, file: &Path, given: &Contents) -> Option<String> {
    let (format, file) = (format.to_owned(), file.to_owned());
    match tokio::task::spawn_blocking(move || validate::read(&format, &file)).await {
        Ok(Ok(found)) => found.differs_from(given),
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// Tells a writer's own failure from the disk's.
fn its_own<T>(result: Result<T, FormatError>) -> Result<Result<T, FormatError>, ShadowError> {
    match result {
        Err(error) if error.disk_error().is_some() => Err(ShadowError::Disk(error)),
        result => Ok(result),
    }
}
