//! One run of a recording: takes what the subscription gives, asks the plan, drives writers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use super::{
    Align, Config, Parts, RecordError, Recording,
    failover::{Candidate, Failover},
    handover::Handover,
    kept::Kept,
    manifest::{self, Manifest, Moment, Tally},
    naming::Names,
    plan::{Begun, GapReason, GapRecord, Note, Now, Plan, Policy, Step},
    recording::Wishes,
    report::{self, Untold},
};
use crate::{
    format::{Begin, End, Failed, FormatError, HEAD_ALIGN, Shadow, Version, Writer, lineup::Mode},
    media::{Kind, Sample, Track},
    output::{PathError, Segment, Target, guard::Guard, orphan::Orphan, path::Folder, segment::Point},
    registry::{BatchLimits, Subscription},
    repair::Repairs,
};

/// Samples and bytes of one batch.
const BATCH_SAMPLES: usize = 64;
const BATCH_BYTES: usize = 4 << 20;
/// Segments of a run that may be on their way to the disk at once.
const MAX_CLOSING: usize = 4;
/// Reports of one kind of trouble: so many at once, then one a second.
const NOTES_AT_ONCE: u32 = 8;
/// How often the log says how far a segment is.
const PROGRESS: Duration = Duration::from_secs(300);
/// How long a recording lets others go first when a version is to write at once.
const SWAP_PATIENCE: Duration = Duration::from_secs(1);
/// Segments that may fail one after the other, with the last resort, before the run is given up.
const MAX_STRIKES: u32 = 3;
/// A segment that got this far in run time takes the strikes back.
const GOOD_LENGTH_MS: i64 = 10_000;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{MAX_STRIKES} segments in a row failed; the last: {0}")]
    Strikes(SegmentError),
}

impl RunError {
    /// Whether events have told of it.
    pub(super) fn was_told(&self) -> bool {
        matches!(self, RunError::Strikes(_))
    }
}

/// Why a segment failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    #[error(transparent)]
    Place(#[from] RecordError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What a run works with.
pub(super) struct Run {
    pub(super) recording: Arc<Recording>,
    pub(super) stream_id: u64,
    pub(super) parts: Parts,
    pub(super) config: Config,
    pub(super) stop: CancellationToken,
    pub(super) handover: Arc<Handover>,
}

/// A run that goes on.
struct Running {
    run: Run,
    target: Target,
    plan: Plan,
    /// Samples for the writer, and their bytes.
    batch: Vec<Sample>,
    batch_bytes: usize,
    segment: Option<Current>,
    tracks: Vec<Track>,
    /// Name of the last segment, component that wrote it, and what it left for the next.
    last_name: Option<String>,
    /// Segments that are being made durable.
    closing: JoinSet<()>,
    /// The last of them has been announced, or never will be.
    announced: Option<oneshot::Receiver<()>>,
    /// The beginning of the last segment has been told, or never will be.
    begun: Option<oneshot::Receiver<()>>,
    notes: NoteRate,
    /// What the next manifest has to list.
    gaps: Gaps,
    /// What events have not told.
    untold: Untold,
    carry: Option<(String, Vec<u8>)>,
    strikes: u32,
    /// Versions that failed, and who writes, or was to write, the segment.
    failover: Failover,
    picked: Option<Picked>,
    /// Name of the last segment that was written as a last resort.
    last_resort_name: Option<String>,
    /// What can be given again if the writer fails.
    kept: Kept<Mark>,
    /// The next segment goes on for one that failed.
    over: Option<Over>,
    /// Segments that failed, whose last samples are to be durable in the next one before they are cut back.
    voided: Vec<Orphan>,
    /// Of the folder with that id.
    guard: Guard,
    guarded: (u64, u64),
    /// Nothing is written, since the guard says so.
    halted: bool,
    /// What the plan was told of an operator's wishes.
    heeded: Wishes,
    /// Bytes of the files that were closed.
    closed_bytes: u64,
    /// Why the recording is done, if it is.
    done: Option<&'static str>,
    /// The active version, as far as it was heeded, and the one that wrote last: its hash and its label.
    heeded_version: Option<String>,
    last_version: Option<(String, String)>,
    /// When the last segment was cut or failed, if the next was to begin at once.
    cut_at: Option<Instant>,
    /// Writes beside it, for comparison.
    shadow: Option<Shadow>,
    /// Since when the segment is to be ended for a version that is to write at once, if it is.
    swap_due: Option<Instant>,
}

/// The segment that is being written.
struct Current {
    writer: Writer,
    origin_ms: i64,
    samples: u64,
    last_ms: i64,
    tally: Tally,
    /// How long it was paused by an operator.
    away_ms: i64,
    /// When the log last said how far it is.
    said: Instant,
    /// How it goes on for one that failed, if it does.
    over: Option<Over>,
    /// Tells of its beginning when its files are there, unless that has been told.
    told: Option<JoinHandle<()>>,
}

/// A version to write with.
#[derive(Clone, Debug)]
struct Picked {
    version: Arc<Version>,
    who: Who,
}

/// What a version is to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Active,
    Fallback,
    LastResort,
}

/// A point of a segment at which another could begin.
#[derive(Clone, Debug, Default)]
struct Mark {
    point: Point,
    /// How long the segment was paused before it.
    away_ms: i64,
}

/// What a segment is given again.
#[derive(Clone, Copy, Debug)]
struct Over {
    samples: u64,
    /// How long the recording was paused among them.
    away_ms: i64,
    /// When the segment before failed.
    since: Instant,
}

/// A segment that could not be ended.
struct Unfinished {
    failed: Failed,
    /// Before that was tried.
    point: Point,
    number: u64,
    epoch_us: i64,
    origin_ms: i64,
}

impl Run {
    /// Where a file goes that begins then.
    async fn target(&self, epoch_us: i64, number: u64) -> Result<Target, RecordError> {
        let (roots, recording) = (self.parts.disk.roots.clone(), self.recording.clone());
        blocking(move || recording.destination.target(&roots, epoch_us, number)).await
    }

    /// Who watches a folder. Fails only when there can't be another thread.
    fn guard(&self, folder: &Folder) -> Result<Guard, RecordError> {
        let Folder { id, path, dir } = folder;
        self.parts
            .disk
            .guards
            .get(*id, path, dir)
            .map_err(|_| RecordError::Path(PathError::Folder { path: path.clone(), errno: Errno::AGAIN }))
    }

    /// Records until the stream ends or the run is stopped. Files are complete when it returns. Returns why the
    /// recording is done, if it has reached one of its limits.
    pub(super) async fn record(self, subscription: Subscription) -> Result<Option<&'static str>, RunError> {
        let settings = &self.recording.settings;
        let target = self.target(now().epoch_us, 0).await?;
        let policy = Policy {
            chunk_ms: (settings.chunk_length > 0).then(|| i64::from(settings.chunk_length) * 1000),
            chunk_bytes: (settings.chunk_size > 0).then_some(settings.chunk_size),
            align: settings.chunk_align,
            max_ms: i64::try_from(settings.max_duration)
                .ok()
                .filter(|s| *s > 0)
                .map(|s| s.saturating_mul(1000)),
            wait_for_key: settings.wait_for_idr,
            audio: settings.has_audio,
            track_timeout: self.config.track_timeout,
            timestamps: self.config.timestamps,
            min_segment: self.config.min_segment,
        };
        let mut plan = Plan::new(policy, subscription.joined());
        plan.has_backlog(subscription.backlog_ms());
        let (guard, guarded) = (self.guard(&target.folder)?, target.folder.id);
        let limits = BatchLimits { samples: BATCH_SAMPLES, bytes: BATCH_BYTES };
        let stop = self.stop.clone();
        // Splits that were asked for before are not for this run.
        let heeded = Wishes { paused: false, ..*self.recording.wishes.borrow() };
        let mut running = Running {
            run: self,
            target,
            plan,
            batch: Vec::new(),
            batch_bytes: 0,
            closing: JoinSet::new(),
            announced: None,
            begun: None,
            notes: NoteRate::default(),
            gaps: Gaps::default(),
            untold: Untold::default(),
            segment: None,
            tracks: Vec::new(),
            last_name: None,
            carry: None,
            strikes: 0,
            failover: Failover::default(),
            picked: None,
            last_resort_name: None,
            kept: Kept::new(Mark::default(), 0),
            over: None,
            voided: Vec::new(),
            guard,
            guarded,
            halted: false,
            heeded,
            closed_bytes: 0,
            done: None,
            heeded_version: None,
            last_version: None,
            cut_at: None,
            shadow: None,
            swap_due: None,
        };
        let result = running.drive(subscription, limits, &stop).await;
        running.closed().await;
        result.map(|()| running.done)
    }
}

impl Running {
    /// Records stream after stream, as long as the next comes in time.
    async fn drive(
        &mut self,
        mut subscription: Subscription,
        limits: BatchLimits,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        loop {
            self.stream(subscription, limits, stop).await?;
            if self.done.is_some() {
                return Ok(());
            }
            let Some(next) = self.next_stream(stop).await else { return Ok(()) };
            self.plan.resume(next.joined());
            subscription = next;
        }
    }

    /// Waits for the stream to come back. When all files are complete before that, the recording has no run as far
    /// as others can see.
    async fn next_stream(&mut self, stop: &CancellationToken) -> Option<Subscription> {
        let Run { recording, stream_id, handover, config, .. } = &self.run;
        if !recording.settings.keep_alive || config.reconnect_window.is_zero() {
            return None;
        }
        let deadline = tokio::time::Instant::now() + config.reconnect_window;
        let closing = &mut self.closing;
        // What has come is recorded, also when we are to stop.
        let mut next = handover.take();
        let mut away = None;
        if next.is_none() {
            tokio::select! {
                came = handover.next(deadline) => next = Some(came?),
                () = all(closing) => {
                    away = recording.ends(*stream_id, None);
                    if let Some(run) = &away {
                        report::out_stream_closed(&self.run.parts.events, recording, run);
                    }
                }
                () = stop.cancelled() => next = Some(handover.take()?),
            }
        }
        let next = match next {
            Some(next) => next,
            None => tokio::select! {
                next = handover.next(deadline) => next?,
                () = stop.cancelled() => handover.take()?,
            },
        };
        let in_stream_id = next.stream().id;
        tracing::info!(
            config_id = recording.config_id,
            stream = recording.settings.local_stream_name,
            "the stream is back; the recording goes on"
        );
        match away {
            Some(run) => {
                let run = super::RunInfo { in_stream_id, file: std::path::PathBuf::new(), ..run };
                let live = Some(next.stream().clone());
                report::out_stream_created(&self.run.parts.events, recording, &run, live);
                recording.begins(run);
            }
            None => recording.update_run(*stream_id, |run| run.in_stream_id = in_stream_id),
        }
        Some(next)
    }

    /// Takes all that comes, until the stream ends or the run is stopped.
    async fn stream(
        &mut self,
        mut subscription: Subscription,
        limits: BatchLimits,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        let mut items = Vec::new();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut wishes = Changes::of(self.run.recording.wishes.subscribe());
        let mut swaps = Changes::of(self.run.parts.formats.changes());
        // A pause from before.
        self.heed_wishes().await?;
        let reason = loop {
            let mut wished = false;
            let end = tokio::select! {
                biased;
                () = &mut stopped => {
                    // What has come is recorded.
                    subscription.drain(&mut items);
                    Some("stopped")
                }
                () = wishes.next() => {
                    // They are about what comes after this.
                    subscription.drain(&mut items);
                    wished = true;
                    None
                }
                () = swaps.next() => None,
                more = subscription.recv(limits, &mut items) => (!more).then_some("stream-ended"),
            };
            self.take(&mut items).await?;
            self.heed_swaps().await?;
            if wished {
                self.heed_wishes().await?;
            }
            let max_size = self.run.recording.settings.max_size;
            if self.plan.is_over() {
                self.done = Some("max-duration");
            } else if max_size > 0 && self.bytes() >= max_size {
                self.done = Some("max-size");
            }
            if let Some(reason) = self.done.or(end) {
                break reason;
            }
        };
        drop(subscription);
        self.plan.end(reason, now());
        self.steps().await
    }

    async fn take(&mut self, items: &mut Vec<crate::registry::Item>) -> Result<(), RunError> {
        self.heed_disk().await?;
        let _turn = if items.is_empty() { None } else { self.swap_turn() };
        let now = now();
        for item in items.drain(..) {
            self.plan.push(item, now);
            self.steps().await?;
        }
        while let Err(error) = self.write().await {
            self.failed(error, None).await?;
            self.steps().await?;
        }
        Ok(())
    }

    /// Bytes of all files of the run.
    fn bytes(&self) -> u64 {
        self.closed_bytes + self.segment.as_ref().map_or(0, |current| current.writer.bytes())
    }

    /// Does what an operator asked for.
    async fn heed_wishes(&mut self) -> Result<(), RunError> {
        let wishes = *self.run.recording.wishes.borrow();
        let before = std::mem::replace(&mut self.heeded, wishes);
        if wishes.splits != before.splits {
            self.plan.split(wishes.any_frame);
        }
        if wishes.paused != before.paused {
            if wishes.paused {
                self.plan.pause();
            } else {
                self.plan.unpause();
            }
            // What it waits for is told first.
            if !self.halted {
                self.run.recording.goes_on(self.run.stream_id);
            }
        }
        self.steps().await
    }

    /// Ends the segment for a version that has become active, if it is not to wait for the next one.
    async fn heed_swaps(&mut self) -> Result<(), RunError> {
        let Some(current) = &self.segment else { return Ok(()) };
        let (formats, format) = (&self.run.parts.formats, &self.run.recording.settings.format);
        let config_id = self.run.recording.config_id;
        if self.shadow.is_none()
            && let Some(seat) =
                formats.seat(format, config_id, &self.run.recording.settings.local_stream_name)
        {
            let scratch = formats.scratch(&format!("canary-{config_id}"));
            self.shadow = Some(Shadow::start(seat, scratch));
        }
        let active = formats.get(format).map(|version| version.sha256.clone());
        if active == self.heeded_version {
            return Ok(());
        }
        let due = formats.due(format, &current.writer.version().sha256);
        self.heeded_version = active;
        self.swap_due = (due == Some(Mode::Now)).then(|| self.swap_due.unwrap_or_else(Instant::now));
        if due == Some(Mode::NextChunk) {
            self.plan.split(false);
        }
        self.steps().await
    }

    /// Lets the segment end with the next picture for a version that is to write at once, when it is this recording's turn,
    /// which lasts as long as the result: if all ended theirs in the same moment each would stand still until all have
    /// the next. Whose turn does not come goes on with the former version for so long, and then waits for nobody.
    fn swap_turn(&mut self) -> Option<OwnedSemaphorePermit> {
        let due = self.swap_due?;
        let turn = self.run.parts.formats.turn_to_swap();
        if turn.is_some() || due.elapsed() >= SWAP_PATIENCE {
            self.swap_due = None;
            self.plan.split(true);
        }
        turn
    }

    /// Ends the segment when the disk can't take more, and lets the next begin when it can.
    async fn heed_disk(&mut self) -> Result<(), RunError> {
        let view = self.guard.view();
        if view.is_in_trouble() == self.halted {
            return Ok(());
        }
        self.halted = !self.halted;
        let recording = &self.run.recording;
        if self.halted {
            recording.waits_for_disk(self.run.stream_id, view.state);
            self.plan.halt("disk");
        } else {
            recording.goes_on(self.run.stream_id);
            self.plan.carry_on();
        }
        self.steps().await
    }

    /// Heeds the disk of the folder that is written to now. If it can't be watched the one before is, until the next
    /// file: no reason to lose this one.
    fn guard_folder(&mut self) {
        let folder = &self.target.folder;
        if folder.id == self.guarded {
            return;
        }
        match self.run.guard(folder) {
            Ok(guard) => (self.guard, self.guarded) = (guard, folder.id),
            Err(error) => tracing::error!(%error, "the folder can't be watched; the one before still is"),
        }
    }

    /// Tells the guard of an error, if it is the disk's.
    fn is_trouble(&self, error: &SegmentError) -> bool {
        let errno = match error {
            SegmentError::Path(PathError::Folder { errno, .. })
            | SegmentError::Place(RecordError::Path(PathError::Folder { errno, .. })) => Some(*errno),
            SegmentError::Format(error) => error.disk_error().map(|error| error.errno),
            _ => None,
        };
        errno.is_some_and(|errno| self.guard.heed(errno))
    }

    /// Waits until all segments are complete.
    async fn closed(&mut self) {
        self.let_go(false);
        all(&mut self.closing).await;
        if let Some(event) = report::gaps_left(&self.run.recording, &mut self.untold) {
            self.run.parts.events.send(event);
        }
    }

    /// Does what the plan says.
    async fn steps(&mut self) -> Result<(), RunError> {
        loop {
            // The step stays until what comes before it is written, or cared for.
            if self.ends_batch()
                && let Err(error) = self.write().await
            {
                self.failed(error, None).await?;
                continue;
            }
            let Some(step) = self.plan.step() else { return Ok(()) };
            let again = matches!(step, Step::Open { .. } | Step::Tracks(_)).then(|| step.clone());
            if let Err(error) = self.step(step).await {
                self.failed(error, again).await?;
            }
        }
    }

    /// Whether the batch ends before the next step: at all but samples, and where another segment could begin.
    fn ends_batch(&self) -> bool {
        match (self.plan.peek(), self.batch.first()) {
            (_, None) | (None, _) => false,
            (Some(Step::Sample(next)), Some(first)) => self.may_begin(next) && !self.may_begin(first),
            _ => true,
        }
    }

    /// Whether a segment could begin with a sample of the open one.
    fn may_begin(&self, sample: &Sample) -> bool {
        match self.tracks.iter().find(|track| track.kind == Kind::Video) {
            Some(video) => {
                sample.track == video.id && (sample.key || !self.run.recording.settings.wait_for_idr)
            }
            None => true,
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), SegmentError> {
        if let Step::Sample(sample) = step {
            self.batch_bytes += sample.data.len();
            self.batch.push(sample);
            let full = self.batch.len() >= BATCH_SAMPLES || self.batch_bytes >= BATCH_BYTES;
            return if full { self.write().await } else { Ok(()) };
        }
        match step {
            Step::Sample(_) => {}
            Step::Open { number, epoch_us, origin_ms, tracks } => {
                self.open(number, epoch_us, origin_ms, tracks).await?;
            }
            Step::Tracks(tracks) => {
                if let Some(current) = &mut self.segment {
                    let taken = current.writer.update_tracks(&tracks).await?;
                    if taken {
                        self.tracks = tracks;
                        // What came before is not of these tracks.
                        let mark = Mark { point: current.writer.point(), away_ms: current.away_ms };
                        match mark.point.samples == current.samples {
                            true => self.kept.mark(current.samples, mark),
                            false => self.kept.give_up(),
                        }
                    }
                    self.plan.tracks_taken(taken);
                }
            }
            Step::Close { reason, ends } => {
                // A segment that can't be finished does not keep the next from beginning.
                match self.close(reason, ends.clone()).await {
                    Ok(()) => self.strikes = 0,
                    Err(unfinished) => self.unfinished(unfinished, Step::Close { reason, ends }),
                }
            }
            Step::Note(note) => self.note(note),
        }
        Ok(())
    }

    async fn open(
        &mut self,
        number: u64,
        epoch_us: i64,
        origin_ms: i64,
        tracks: Vec<Track>,
    ) -> Result<(), SegmentError> {
        let recording = self.run.recording.clone();
        let settings = &recording.settings;
        self.heeded_version =
            self.run.parts.formats.get(&settings.format).map(|version| version.sha256.clone());
        self.swap_due = None;
        let Picked { version, who } = self.pick(&tracks);
        // Once: what the recording itself wrote in an earlier run is not for overwriting.
        let replaced = &recording.replaced;
        let replace = settings.overwrite && !replaced.load(Ordering::Relaxed);
        let by_file = recording.destination.is_by_file();
        if by_file {
            self.target = self.run.target(epoch_us, number).await?;
            self.guard_folder();
        }
        let names =
            Names::new(&self.target.name, &version.manifest.extension, settings.is_chunked() && !by_file);
        let (disk, folder) = (&self.run.parts.disk, &self.target.folder);
        let segment = match self.last_name.as_ref().filter(|_| !by_file) {
            _ if who == Who::LastResort => {
                let names = self.last_resort_names(&version, by_file);
                Segment::claim(disk, folder, names, false).await?
            }
            None => Segment::claim(disk, folder, names.first(), replace).await?,
            Some(last) => Segment::claim(disk, folder, names.after(last), false).await?,
        };
        let name = segment.name().to_owned();
        let carry = self.carry.take().filter(|(sha256, _)| *sha256 == version.sha256);
        let begin = Begin {
            segment: number,
            epoch_us,
            origin_ms,
            head_room: head_room(settings.chunk_align.map_or(settings.chunk_length, Align::seconds)),
            manifest: settings.manifest,
            config_id: self.run.recording.config_id,
            stream: settings.local_stream_name.clone(),
            whose: self.run.recording.whose(),
            tracks: tracks.clone(),
            options: vec![("win-qt-compat".into(), u8::from(settings.win_qt_compat).to_string())],
            carry: carry.map(|(_, carry)| carry).unwrap_or_default(),
        };
        void_in(&self.voided, &self.target.folder, &name).await;
        // What comes after a cut does not wait for the disk. At a beginning nothing is lost by that, and it is known at once
        // whether there can be a file.
        let goes_on = self.cut_at.is_some() && !replace;
        let mut writer = match goes_on {
            true => Writer::open_ahead(version, segment, begin).await?,
            false => Writer::open(version, segment, begin).await?,
        };
        replaced.store(true, Ordering::Relaxed);
        match who {
            Who::LastResort => self.tell_of_last_resort(&writer, name),
            _ => (self.last_name, self.last_resort_name) = (Some(name), None),
        }
        let over = self.over.take();
        let again = over.map_or(0, |over| over.samples);
        writer.hold(again);
        self.kept = Kept::new(Mark { point: writer.point(), away_ms: 0 }, again);
        self.run.recording.update_run(self.run.stream_id, |run| {
            run.file = writer.path();
            run.writing = true;
            run.segments += 1;
            run.component = writer.version().label();
            if who == Who::LastResort {
                run.component += ", the last resort";
            }
        });
        let component = (writer.version().sha256.clone(), writer.version().label());
        let cut_at = self.cut_at.take();
        let former = self.last_version.replace(component.clone()).filter(|former| former.0 != component.0);
        if let Some(former) = &former {
            let pause = cut_at.map_or(Duration::ZERO, |cut_at| cut_at.elapsed());
            writer.version().meters.swap_pause(pause);
            tracing::info!(
                config_id = self.run.recording.config_id,
                stream = settings.local_stream_name,
                file = %writer.path().display(),
                from = former.1,
                to = component.1,
                pause_us = pause.as_micros() as u64,
                "another version of the format goes on"
            );
        }
        self.run.recording.written_by(&writer.path(), &component.1, epoch_us);
        let former = former.map(|former| former.1);
        let event = report::created(
            &self.run.recording,
            &writer.path(),
            epoch_us,
            number,
            &component.1,
            former,
            over.is_some(),
        );
        let (there, events) = (writer.settled(), self.run.parts.events.clone());
        let (config_id, stream) = (self.run.recording.config_id, settings.local_stream_name.clone());
        let (file, component, codecs) = (writer.path(), component.1, codecs(&tracks));
        let (told, begun) = oneshot::channel::<()>();
        let mut turn = Turn(self.begun.replace(begun));
        let tell = async move {
            turn.comes().await;
            if there.await {
                tracing::info!(
                    config_id,
                    stream,
                    file = %file.display(),
                    component,
                    tracks = codecs,
                    "recording"
                );
                events.send(event);
            }
            drop(told);
        };
        let told = match goes_on {
            true => Some(tokio::spawn(tell)),
            false => {
                tell.await;
                None
            }
        };
        self.segment = Some(Current {
            writer,
            origin_ms,
            samples: 0,
            last_ms: origin_ms,
            tally: Tally::new(&tracks),
            away_ms: over.map_or(0, |over| over.away_ms),
            said: Instant::now(),
            over,
            told,
        });
        self.tracks = tracks;
        self.taken_over().await
    }

    /// Who writes the next segment.
    fn pick(&mut self, tracks: &[Track]) -> Picked {
        let (formats, format) = (&self.run.parts.formats, &self.run.recording.settings.format);
        let active = formats.get(format);
        let sha256 = active.as_ref().map_or("", |version| &*version.sha256);
        let fallbacks = formats.fallbacks(format, sha256);
        let active = active.into_iter().map(|version| Picked { version, who: Who::Active });
        let fallbacks = fallbacks.into_iter().map(|version| Picked { version, who: Who::Fallback });
        let mut all: Vec<Picked> = active.chain(fallbacks).collect();
        let holds =
            |version: &Version| tracks.iter().all(|track| version.manifest.codecs.contains(&track.codec));
        // If the active one can't hold them that is for it to say.
        let fits = |picked: &Picked| picked.who == Who::Active || holds(&picked.version);
        let candidates: Vec<Candidate<'_>> = (all.iter())
            .map(|picked| Candidate { sha256: &picked.version.sha256, fits: fits(picked) })
            .collect();
        let chosen = self.failover.choose(&candidates, self.over.is_none(), Instant::now());
        let picked = match chosen {
            Some(i) => all.swap_remove(i),
            None => Picked { version: formats.last_resort(), who: Who::LastResort },
        };
        self.picked.insert(picked).clone()
    }

    /// What the next segment may be called that is written as a last resort.
    fn last_resort_names(&self, version: &Version, by_file: bool) -> impl Iterator<Item = String> + use<> {
        let settings = &self.run.recording.settings;
        let active = self.run.parts.formats.get(&settings.format);
        let its = active.map_or(settings.format.clone(), |active| active.manifest.extension.clone());
        let before = self.last_resort_name.as_deref().filter(|_| !by_file);
        Names::new(&self.target.name, &its, false).last_resort(&version.manifest.extension, before)
    }

    /// Says, when it begins, that nobody but the last resort can write.
    fn tell_of_last_resort(&mut self, writer: &Writer, name: String) {
        let is_new = self.last_resort_name.replace(name).is_none();
        if !is_new {
            return;
        }
        let Recording { config_id, settings, .. } = &*self.run.recording;
        let why = match self.run.parts.formats.get(&settings.format) {
            Some(_) => format!("all versions of format `{}` failed", settings.format),
            None => format!("there is no format `{}` any more", settings.format),
        };
        let component = writer.version().label();
        tracing::error!(
            config_id,
            stream = settings.local_stream_name,
            file = %writer.path().display(),
            component,
            "{why}; recording goes on with the last resort"
        );
        let error = format!("{why}; it is written by {component}");
        let next = report::Next::LastResort;
        let event = report::error(&self.run.recording, &writer.path(), &error, (0, 0, 0), next);
        self.run.parts.events.send(event);
    }

    /// Has segments that failed cut back when what they lose is durable in the open one.
    async fn taken_over(&mut self) -> Result<(), SegmentError> {
        let Some(current) = self.segment.as_mut().filter(|_| !self.voided.is_empty()) else { return Ok(()) };
        if current.over.is_some_and(|over| current.writer.point().samples < over.samples) {
            return Ok(());
        }
        if current.writer.start().sync_ms > 0 {
            current.writer.sync().await?;
        }
        self.let_go(true);
        Ok(())
    }

    /// Has segments that failed repaired: cut back, if what they lose is `safe` in another one, else as far as the
    /// journals say that it is.
    fn let_go(&mut self, safe: bool) {
        for orphan in self.voided.drain(..) {
            let repairs = self.run.parts.repairs.clone();
            self.closing.spawn(cut_back(repairs, orphan, safe));
        }
    }

    /// Hands the batch to the writer.
    async fn write(&mut self) -> Result<(), SegmentError> {
        self.batch_bytes = 0;
        if self.segment.is_none() {
            self.batch.clear();
        }
        let may_begin = self.batch.first().is_some_and(|first| self.may_begin(first));
        let Some(current) = self.segment.as_mut().filter(|_| !self.batch.is_empty()) else { return Ok(()) };
        // What failed before is not given up for a part of what was to take its place.
        if self.voided.is_empty() && may_begin {
            let mark = Mark { point: current.writer.point(), away_ms: current.away_ms };
            self.kept.mark(mark.point.samples, mark);
        }
        let first = current.samples == 0;
        current.writer.write(&self.batch).await?;
        self.shadow.take_if(|shadow| !shadow.offer(&self.tracks, &self.batch));
        if let Some(over) = current.over.filter(|_| first) {
            tracing::info!(
                config_id = self.run.recording.config_id,
                stream = self.run.recording.settings.local_stream_name,
                file = %current.writer.path().display(),
                samples = over.samples,
                after_us = over.since.elapsed().as_micros() as u64,
                "goes on for the segment that failed"
            );
        }
        self.plan.has_grown(current.writer.start().segment, current.writer.bytes());
        current.samples += self.batch.len() as u64;
        self.batch.iter().for_each(|sample| current.tally.add(sample));
        current.last_ms = self.batch.iter().map(|s| s.dts_ms).fold(current.last_ms, i64::max);
        if current.last_ms - current.origin_ms >= GOOD_LENGTH_MS {
            self.strikes = 0;
        }
        if current.said.elapsed() >= PROGRESS {
            current.said = Instant::now();
            tracing::info!(
                config_id = self.run.recording.config_id,
                stream = self.run.recording.settings.local_stream_name,
                file = %current.writer.path().display(),
                seconds = (current.last_ms - current.origin_ms) as f64 / 1000.0,
                bytes = current.writer.bytes(),
                samples = current.samples,
                "recording goes on"
            );
        }
        self.count(&self.batch, |count, written| *count += written);
        self.kept.push(self.batch.drain(..));
        self.end_substitute();
        self.taken_over().await
    }

    /// Ends a segment that is not the active version's when that may be tried again, if nothing else ever ends it.
    fn end_substitute(&mut self) {
        let settings = &self.run.recording.settings;
        let is_substitute = self.picked.as_ref().is_some_and(|picked| picked.who != Who::Active);
        if !is_substitute || settings.is_chunked() || self.segment.is_none() {
            return;
        }
        let active = self.run.parts.formats.get(&settings.format);
        if active.is_some_and(|active| self.failover.is_due(&active.sha256, Instant::now())) {
            self.plan.split(false);
        }
    }

    /// Changes how much the run says that it has written.
    fn count(&self, samples: &[Sample], change: impl Fn(&mut u64, u64)) {
        let tracks = &self.tracks;
        let is_video = |s: &Sample| tracks.iter().any(|t| t.id == s.track && t.kind == Kind::Video);
        self.run.recording.update_run(self.run.stream_id, |run| {
            for sample in samples {
                let (samples, bytes) = match is_video(sample) {
                    true => (&mut run.video_samples, &mut run.video_bytes),
                    false => (&mut run.audio_samples, &mut run.audio_bytes),
                };
                change(samples, 1);
                change(bytes, sample.data.len() as u64);
            }
        });
    }

    /// Lets the writer end its segment. The disk's part goes on beside the next segment.
    async fn close(&mut self, reason: &'static str, ends: Vec<(u32, i64)>) -> Result<(), Unfinished> {
        let Some(current) = self.segment.take() else { return Ok(()) };
        // At a cut the next is opened at once.
        let is_cut = reason == "cut";
        self.cut_at = is_cut.then(Instant::now);
        self.run.recording.update_run(self.run.stream_id, |run| run.writing = is_cut);
        let Current { writer, origin_ms, samples, tally, away_ms, over, told, .. } = current;
        let version = writer.version().clone();
        let manifest =
            self.run.recording.settings.manifest.then(|| Manifest::begin(&version, writer.start()));
        let end_ms = ends.iter().map(|&(_, dts)| dts).max().unwrap_or(origin_ms);
        let begun = Instant::now();
        let (epoch_us, index) = (writer.start().epoch_us, writer.start().segment);
        let file = writer.path().display().to_string();
        let media_bytes = tally.bytes();
        let point = writer.point();
        let closing = match writer.finish(End { reason, tracks: ends }).await {
            Ok(closing) => closing,
            Err(failed) => {
                told_of(told).await;
                let failed = failed.with_given(samples);
                return Err(Unfinished { failed, point, number: index, epoch_us, origin_ms });
            }
        };
        // What their writer had not let go of is in this one.
        let voided = std::mem::take(&mut self.voided);
        self.closed_bytes += closing.bytes();
        self.carry = Some((version.sha256.clone(), closing.carry.clone()));
        let recording = self.run.recording.clone();
        let tracks = codecs(&self.tracks);
        let parts = self.run.parts.clone();
        let (folder, guard) = (self.target.folder.clone(), self.guard.clone());
        let gaps = std::mem::take(&mut self.gaps);
        let chunk = report::Chunk {
            file,
            index,
            epoch_us,
            end_us: epoch_us.saturating_add((end_ms - origin_ms + away_ms).saturating_mul(1000)),
            duration_ms: end_ms - origin_ms,
            tally,
            reason,
            gaps: gaps.listed,
            more_gaps: gaps.more,
            component: version.label(),
        };
        let manifest = manifest.map(|begun| Manifest {
            begun_by: if over.is_some() { "failover".into() } else { String::new() },
            reason: reason.into(),
            end: Moment::new(chunk.end_us, end_ms),
            tracks: chunk.tally.tracks().to_vec(),
            gaps: chunk.gaps.clone(),
            more_gaps: chunk.more_gaps,
            ..begun
        });
        while self.closing.len() >= MAX_CLOSING {
            self.closing.join_next().await.into_iter().for_each(said);
        }
        // Files are made durable side by side, and announced in their order.
        let (ended, announced) = oneshot::channel::<()>();
        let mut turn = Turn(self.announced.replace(announced));
        self.closing.spawn(async move {
            told_of(told).await;
            let stream = &recording.settings.local_stream_name;
            let closing = match manifest {
                Some(manifest) => {
                    closing
                        .add_manifest(|bytes, sha256| Manifest { bytes, sha256, ..manifest }.to_json())
                        .await
                }
                None => Ok(closing),
            };
            // It is announced before its journal goes, so that a crash in between does not keep it from being.
            let announced = async {
                let closing = closing?;
                let event = chunk.closed(&recording, closing.bytes());
                let closed = closing.close(report::summary(&event)).await?;
                let file = closed.file().path.clone();
                turn.comes().await;
                if parts.events.commit(event).await {
                    return closed.clear_up().await.map(Some);
                }
                tracing::error!(file = %file.display(), "its end can't be announced; the next start does it");
                Ok(None)
            };
            let announced = announced.await;
            for orphan in voided {
                cut_back(parts.repairs.clone(), orphan, announced.is_ok()).await;
            }
            let finished = match announced {
                Ok(Some(finished)) => finished,
                Ok(None) => return,
                Err(Failed { error, orphan }) => {
                    if let Some(disk) = error.disk_error() {
                        guard.heed(disk.errno);
                    }
                    tracing::error!(config_id = recording.config_id, stream, %error, "segment not closed");
                    let given = (samples, media_bytes, chunk.duration_ms);
                    let path = orphan.path();
                    let event =
                        report::error(&recording, &path, &error.to_string(), given, report::Next::Repair);
                    turn.comes().await;
                    parts.events.send(event);
                    drop(ended);
                    return parts.repairs.given_up(folder, orphan.with_given(samples)).await;
                }
            };
            tracing::debug!(file = %finished.file.path.display(), properties = ?finished.properties, "summary");
            tracing::info!(
                config_id = recording.config_id,
                stream,
                file = %finished.file.path.display(),
                component = version.label(),
                seconds = (end_ms - origin_ms) as f64 / 1000.0,
                bytes = finished.file.bytes,
                tracks,
                samples,
                reason,
                closed_in_ms = begun.elapsed().as_millis() as u64,
                "recorded"
            );
        });
        Ok(())
    }

    /// The writer that failed by its own fault, if that is the error.
    fn fault(&self, error: &SegmentError) -> Option<Picked> {
        let SegmentError::Format(error) = error else { return None };
        let picked = self.picked.clone().filter(|_| error.disk_error().is_none())?;
        // Who goes on for another has to take what that took.
        let stands_in = !self.voided.is_empty() || (self.segment.is_none() && picked.who == Who::Fallback);
        (!error.is_refusal() || stands_in).then_some(picked)
    }

    /// Counts a failure of a writer.
    fn strike(&mut self, picked: &Picked, error: &SegmentError) {
        let Picked { version, who } = picked;
        match who {
            Who::LastResort => self.strikes += 1,
            _ => self.failover.failed(&version.sha256, Instant::now()),
        }
        if let SegmentError::Format(error) = error {
            self.run.parts.formats.failed(version, self.run.recording.config_id, error);
        }
    }

    /// Whoever takes nothing that it is given has another try in its place.
    fn refused(&mut self, error: &SegmentError) {
        let refuses = matches!(error, SegmentError::Format(error) if error.is_refusal());
        if refuses
            && self.strikes >= MAX_STRIKES
            && let Some(picked) = self.picked.as_ref().filter(|picked| picked.who != Who::LastResort)
        {
            self.failover.put_out(&picked.version.sha256, Instant::now());
            self.strikes = 0;
        }
    }

    /// Lets another segment begin with what the one that failed, if it was begun, does not have. `false`: that is not
    /// known any more.
    async fn fail_over(&mut self, error: &SegmentError, again: Option<Step>) -> bool {
        let since = Instant::now();
        self.cut_at.get_or_insert(since);
        if self.segment.is_none() {
            self.report_failure(error, report::Next::Again);
            self.over.get_or_insert(Over { samples: 0, away_ms: 0, since });
            again.into_iter().for_each(|step| self.plan.again(step));
            return true;
        }
        let Some((mark, mut samples)) = self.kept().take() else { return false };
        self.report_failure(error, report::Next::Replayed);
        let Some(current) = self.segment.take() else { return false };
        self.count(&samples, |count, written| *count = count.saturating_sub(written));
        samples.append(&mut self.batch);
        again.into_iter().for_each(|step| self.plan.again(step));
        let Current { writer, origin_ms, away_ms, .. } = current;
        let failed = Begun {
            number: writer.start().segment,
            epoch_us: writer.start().epoch_us.saturating_add(mark.away_ms.saturating_mul(1000)),
            origin_ms,
            tracks: &self.tracks,
        };
        let over = Over { samples: samples.len() as u64, away_ms: away_ms - mark.away_ms, since };
        self.plan.fail_over(failed, samples, None);
        self.over = Some(over);
        self.voided.push(writer.abandon_at(&mark.point).await);
        true
    }

    /// What is kept of the open segment. Nothing is any more.
    fn kept(&mut self) -> Kept<Mark> {
        std::mem::replace(&mut self.kept, Kept::new(Mark::default(), 0))
    }

    /// The segment could not be ended. What it had is repaired, and what its writer had not let go of begins another,
    /// which is to end in the same way.
    fn unfinished(&mut self, unfinished: Unfinished, close: Step) {
        let Unfinished { failed, point, number, epoch_us, origin_ms } = unfinished;
        let error = failed.error.into();
        let rest = self.kept().since(point.samples);
        match self.fault(&error) {
            Some(picked) => self.strike(&picked, &error),
            None => {
                self.strikes += u32::from(!self.is_trouble(&error));
                self.refused(&error);
            }
        }
        let is_disk = matches!(&error, SegmentError::Format(error) if error.disk_error().is_some());
        let all_is_there = rest.as_ref().is_some_and(Vec::is_empty) && !is_disk;
        let may_go_on = !is_disk && self.strikes < MAX_STRIKES;
        let Some(rest) = rest.filter(|rest| !rest.is_empty() && may_go_on) else {
            self.let_go(false);
            let next = if all_is_there { report::Next::Replayed } else { report::Next::Repair };
            return self.given_up(&error, failed.orphan, next);
        };
        self.count(&rest, |count, written| *count = count.saturating_sub(written));
        let samples = rest.len() as u64;
        self.plan.fail_over(Begun { number, epoch_us, origin_ms, tracks: &self.tracks }, rest, Some(close));
        self.over = Some(Over { samples, away_ms: 0, since: Instant::now() });
        self.tell_given_up(&error, &failed.orphan, report::Next::Replayed);
        self.voided.push(failed.orphan.with_end(&point));
    }

    /// Keeps what a failed segment has and lets the plan begin another, unless too many failed. `again`: the step that
    /// it failed in, if that is to be done all the same.
    async fn failed(&mut self, error: SegmentError, again: Option<Step>) -> Result<(), RunError> {
        self.batch_bytes = 0;
        told_of(self.segment.as_mut().and_then(|current| current.told.take())).await;
        let fault = self.fault(&error);
        if let Some(picked) = &fault {
            self.strike(picked, &error);
            if self.strikes < MAX_STRIKES && self.fail_over(&error, again).await {
                self.run.recording.update_run(self.run.stream_id, |run| run.writing = false);
                return Ok(());
            }
        }
        (self.over, self.cut_at) = (None, None);
        self.let_go(false);
        let unwritten = std::mem::take(&mut self.batch);
        if matches!(&error, SegmentError::Format(e) if e.is_refusal()) && self.segment.is_some() {
            // The format said no, and can still end what it has.
            self.report_failure(&error, report::Next::Closed);
            let ends = self.plan.ends_now();
            if let Err(Unfinished { failed, .. }) = self.close("error", ends).await {
                self.given_up(&failed.error.into(), failed.orphan, report::Next::Repair);
            }
        } else if self.segment.is_some() {
            self.report_failure(&error, report::Next::Repair);
            if let Some(current) = self.segment.take() {
                let orphan = current.writer.abandon().await.with_given(current.samples);
                self.repair(orphan);
            }
        } else {
            self.report_failure(&error, report::Next::Nothing);
        }
        self.run.recording.update_run(self.run.stream_id, |run| run.writing = false);
        self.plan.segment_failed(&unwritten);
        if self.is_trouble(&error) {
            // Nobody is to blame, and it may pass.
            return Box::pin(self.heed_disk()).await;
        }
        if fault.is_none() {
            self.strikes += 1;
            self.refused(&error);
        }
        if self.strikes < MAX_STRIKES {
            return Ok(());
        }
        self.plan.end("error", now());
        while let Some(step) = self.plan.step() {
            if let Step::Note(note) = step {
                self.note(note);
            }
        }
        Err(RunError::Strikes(error))
    }

    /// A segment could not be ended.
    fn given_up(&mut self, error: &SegmentError, orphan: Orphan, next: report::Next) {
        self.tell_given_up(error, &orphan, next);
        self.repair(orphan);
    }

    fn tell_given_up(&self, error: &SegmentError, orphan: &Orphan, next: report::Next) {
        let (path, given) = (orphan.path(), (orphan.given().unwrap_or(0), 0, 0));
        self.log_failure(error);
        let event = report::error(&self.run.recording, &path, &error.to_string(), given, next);
        self.run.parts.events.send(event);
    }

    /// A segment has lost its writer. What it has is finished beside the next one.
    fn repair(&mut self, orphan: Orphan) {
        self.closing.spawn(cut_back(self.run.parts.repairs.clone(), orphan, false));
    }

    /// Tells of the failure of the segment that is open, or could not be opened.
    fn report_failure(&self, error: &SegmentError, next: report::Next) {
        self.log_failure(error);
        let recording = &self.run.recording;
        let (path, given) = match &self.segment {
            Some(current) => {
                let given = (current.samples, current.tally.bytes(), current.last_ms - current.origin_ms);
                (current.writer.path(), given)
            }
            None => (recording.destination.computed_path.clone(), (0, 0, 0)),
        };
        self.run.parts.events.send(report::error(recording, &path, &error.to_string(), given, next));
    }

    fn log_failure(&self, error: &SegmentError) {
        tracing::error!(
            config_id = self.run.recording.config_id,
            stream = self.run.recording.settings.local_stream_name,
            %error,
            "segment failed"
        );
    }

    fn note(&mut self, note: Note) {
        if let (Note::Intermission { away_ms, .. }, Some(current)) = (note, &mut self.segment) {
            current.away_ms += away_ms;
        }
        let gap = note.gap();
        if let Some(GapRecord { reason, from_ms, to_ms, samples, bytes }) = gap {
            let gap = manifest::Gap { reason: reason.as_str().into(), from_ms, to_ms, samples, bytes };
            self.untold.add(&gap);
            self.gaps.add(gap);
        }
        if let Some(gap) = gap.filter(|gap| gap.reason != GapReason::BeforeKeyFrame) {
            self.run.recording.update_run(self.run.stream_id, |run| run.dropped_samples += gap.samples);
        }
        if !self.notes.allows() {
            return;
        }
        if let Some(GapRecord { reason, from_ms, to_ms, samples, bytes }) = gap {
            let gap = manifest::Gap { reason: reason.as_str().into(), from_ms, to_ms, samples, bytes };
            self.untold.remove(&gap);
            let file = self.segment.as_ref().map(|current| current.writer.path()).unwrap_or_default();
            let event = report::gap(&self.run.recording, &file, &gap, &mut self.untold);
            self.run.parts.events.send(event);
        }
        let config_id = self.run.recording.config_id;
        let stream = &self.run.recording.settings.local_stream_name;
        match (note, gap) {
            (Note::NoKeyFrame { waited_ms }, _) => {
                tracing::warn!(
                    config_id,
                    stream,
                    waited_ms,
                    "no key frame came; a segment starts without one"
                );
            }
            (Note::ClockWrap { track, by_ms }, _) => {
                tracing::info!(config_id, stream, track, by_ms, "the publisher's clock wrapped; undone");
            }
            (Note::Aligned { track, apart_ms }, _) => {
                tracing::warn!(
                    config_id,
                    stream,
                    track,
                    apart_ms,
                    "the tracks' clocks are far apart; put side by side as they came"
                );
            }
            (_, Some(GapRecord { reason, from_ms, to_ms, samples, bytes })) => {
                let reason = reason.as_str();
                let what = match note {
                    Note::Gap(_) => "the recording was too slow for the stream".into(),
                    Note::Lost(_) => "lost with the failed segment".into(),
                    Note::Halted(_) => "lost while the disk could not be written to".into(),
                    Note::Skipped(_) => "left out up to the next key frame".into(),
                    Note::Intermission { .. } => {
                        "left out while the recording was paused by an operator".into()
                    }
                    Note::Flapping(_) => "left out, as codec configurations change too fast".into(),
                    Note::Paused { track: Some(track), .. } => format!("track {track} was silent"),
                    Note::Paused { .. } => "the stream paused".into(),
                    Note::ClockStep { track, step_ms, .. } => {
                        format!("the publisher's clock leapt by {step_ms} ms (track {track})")
                    }
                    _ => "the stream was away".to_owned(),
                };
                let ms = to_ms - from_ms;
                tracing::warn!(config_id, stream, reason, samples, bytes, from_ms, to_ms, ms, "gap: {what}");
            }
            _ => {}
        }
    }
}

/// Writes down that the last samples of segments that failed are to be in the next one, which is about to be created.
/// Without that a crash could leave them in both.
async fn void_in(voided: &[Orphan], folder: &Folder, next: &str) {
    for orphan in voided.iter().filter(|orphan| orphan.folder().id == folder.id) {
        if let Err(error) = orphan.void(Some(next)).await {
            tracing::warn!(file = %orphan.path().display(), %error, "where it goes on is not written down");
        }
    }
}

/// Repairs a segment that has lost its writer; `safe`: what it is to lose is durable in another one.
async fn cut_back(repairs: Repairs, orphan: Orphan, safe: bool) {
    if safe && let Err(error) = orphan.void(None).await {
        tracing::warn!(file = %orphan.path().display(), %error, "where it goes on is not written down");
    }
    repairs.given_up(orphan.folder().clone(), orphan).await;
}

/// Waits until the beginning of a segment has been told: what comes of it is told after that.
async fn told_of(told: Option<JoinHandle<()>>) {
    if let Some(told) = told {
        let _ = told.await;
    }
}

/// Changes of a value. It waits on where it left off, which is cheaper than to begin each time.
struct Changes<T>(ReusableBoxFuture<'static, Option<watch::Receiver<T>>>);

impl<T: Send + Sync + 'static> Changes<T> {
    /// From now on.
    fn of(value: watch::Receiver<T>) -> Self {
        Self(ReusableBoxFuture::new(Self::wait(value)))
    }

    async fn wait(mut value: watch::Receiver<T>) -> Option<watch::Receiver<T>> {
        value.changed().await.ok().map(|()| value)
    }

    /// The next one; never, if there are none any more. Cancel safe.
    async fn next(&mut self) {
        match (&mut self.0).await {
            Some(value) => self.0.set(Self::wait(value)),
            None => {
                self.0.set(std::future::pending());
                std::future::pending().await
            }
        }
    }
}

/// When the beginning or the end of a file may be told: after that of the one before it.
struct Turn(Option<oneshot::Receiver<()>>);

impl Turn {
    async fn comes(&mut self) {
        if let Some(before) = self.0.take() {
            // Whether it was announced or lost with its task.
            let _ = before.await;
        }
    }
}

/// Gaps for a manifest.
#[derive(Debug, Default)]
struct Gaps {
    listed: Vec<manifest::Gap>,
    more: u64,
}

impl Gaps {
    fn add(&mut self, gap: manifest::Gap) {
        match self.listed.len() < manifest::MAX_GAPS {
            true => self.listed.push(gap),
            false => self.more += 1,
        }
    }
}

/// Keeps a stream that is in trouble all the time from flooding the log.
#[derive(Debug, Default)]
struct NoteRate {
    lines: u32,
    last: Option<Instant>,
    dropped: u64,
}

impl NoteRate {
    fn allows(&mut self) -> bool {
        let passed = self.last.map_or(u64::MAX, |last| last.elapsed().as_secs());
        self.lines = self.lines.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
        if self.lines >= NOTES_AT_ONCE {
            self.dropped += 1;
            return false;
        }
        if self.dropped > 0 {
            tracing::warn!(reports = std::mem::take(&mut self.dropped), "more of these were not logged");
        }
        self.lines += 1;
        self.last = Some(Instant::now());
        true
    }
}

/// Waits until all closes are through. Cancel safe.
async fn all(closing: &mut JoinSet<()>) {
    while let Some(result) = closing.join_next().await {
        said(result);
    }
}

/// Says that a close has a fault of ours. Its files are finished by the next start.
fn said(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "internal error: a segment was not closed; the next start finishes it");
    }
}

/// `avc1+mp4a`
fn codecs(tracks: &[Track]) -> String {
    tracks.iter().map(|t| t.codec.as_str()).collect::<Vec<_>>().join("+")
}

/// Room for the moov of a segment of that length, by some 2 KiB a second for 30 frames and 47 audio frames;
/// little when the length is not known.
fn head_room(chunk_length: u32) -> u64 {
    let bytes = if chunk_length == 0 { 16 << 10 } else { (16 << 10) + u64::from(chunk_length) * (2 << 10) };
    bytes.min(8 << 20).next_multiple_of(u64::from(HEAD_ALIGN))
}

fn now() -> Now {
    Now { instant: Instant::now(), epoch_us: crate::wall_clock::epoch_us() }
}

/// Does what may block for a moment on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}
