//! Recordings: orders to record a live stream by name, whether it exists yet or not.
//!
//! [`Recordings`] keeps the orders. When a stream starts, each recording that names it gets a run (`task`),
//! which asks a [`plan`] where segments start and end, and drives a writer for each.

mod handover;
pub mod manifest;
pub mod naming;
pub mod plan;
mod task;
pub mod timeline;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use handover::Handover;
use timeline::Timestamps;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    format::Formats,
    output::{Disk, PathError, guard},
    registry::{LiveStream, Registry, Subscription},
    repair::Repairs,
    sync::lock,
};

/// How long a command waits for files to be closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What `record` asked for, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub local_stream_name: String,
    /// As it was asked for.
    pub path_to_file: String,
    /// The format's name, in lower case.
    pub format: String,
    pub overwrite: bool,
    pub keep_alive: bool,
    /// Seconds after which a new file begins; 0: never.
    pub chunk_length: u32,
    pub wait_for_idr: bool,
    pub win_qt_compat: bool,
    pub date_folder_structure: bool,
    pub preset: u32,
    pub has_audio: bool,
    /// Each file gets a [`manifest`] beside it.
    pub manifest: bool,
    /// The `_name` variables, underscore included.
    pub user: BTreeMap<String, String>,
}

/// What holds for all recordings.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that may wait for one recording.
    pub queue_bytes: usize,
    /// Longest time from the socket to the file's `write`.
    pub flush_interval: Duration,
    /// How long a start waits for tracks that were declared.
    pub track_timeout: Duration,
    /// What becomes of leaps of a publisher's clock.
    pub timestamps: Timestamps,
    /// Shorter segments are cut by new codec configurations and leaps of the clock only some times in a row.
    pub min_segment: Duration,
    /// How long a keep-alive recording's run waits for its stream to come back; 0: not at all.
    pub reconnect_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
            flush_interval: Duration::from_millis(250),
            track_timeout: Duration::from_secs(2),
            timestamps: Timestamps::Repair,
            min_segment: Duration::from_secs(1),
            reconnect_window: Duration::from_secs(10),
        }
    }
}

/// Why a recording can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("there is no format `{name}`; there are: {known}")]
    UnknownFormat { name: String, known: String },
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("{0} is the destination of config {1}, and one of the two would overwrite the other")]
    Taken(PathBuf, u64),
}

/// What a recording does now. Codes and words are EvoStream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Streaming,
    WaitingForStream,
    Disconnected,
    /// The last run ended with an error.
    Failed,
}

impl Phase {
    /// EvoStream's status code.
    pub fn code(self) -> u32 {
        match self {
            Phase::Streaming => 0,
            Phase::WaitingForStream => 2,
            Phase::Disconnected => 4,
            Phase::Failed => 5,
        }
    }

    /// EvoStream's words for it.
    pub fn description(self) -> &'static str {
        match self {
            Phase::Streaming => "Streaming",
            Phase::WaitingForStream => "Waiting for stream",
            Phase::Disconnected => "Disconnected",
            Phase::Failed => "Connection failed",
        }
    }
}

/// A phase and when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    pub since: SystemTime,
    /// Id of the recorded stream in that phase; 0: none.
    pub stream_id: u64,
    /// Why, for [`Phase::Failed`].
    pub reason: Option<String>,
}

impl Status {
    fn new(phase: Phase, stream_id: u64, reason: Option<String>) -> Self {
        Self { phase, since: SystemTime::now(), stream_id, reason }
    }
}

/// What a run is doing: the recorded stream of EvoStream's lists (`OFMP4`, …).
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// Unique among all streams.
    pub stream_id: u64,
    /// The inbound stream that is recorded.
    pub in_stream_id: u64,
    pub started: SystemTime,
    /// The file that is being written; empty before the first segment.
    pub file: PathBuf,
    /// Segments begun.
    pub segments: u64,
    /// Written so far in this run, over all segments.
    pub video_samples: u64,
    pub video_bytes: u64,
    pub audio_samples: u64,
    pub audio_bytes: u64,
    /// Lost in this run: samples that a full queue or a failed segment cost.
    pub dropped_samples: u64,
    /// Who writes it: `flv 0.1.0 (sha256 0123456789ab)`.
    pub component: String,
}

/// An order to record.
#[derive(Debug)]
pub struct Recording {
    /// Names the recording; 1, 2, … over all of the server's life.
    pub config_id: u64,
    pub settings: Settings,
    /// The file that will be written, without numbers for chunks and repetitions.
    pub computed_path: PathBuf,
    /// Device and inode of its folder, which tell it however it is spelled.
    folder: (u64, u64),
    /// Whether `overwrite` was made use of.
    replaced: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Status,
    previous: Option<Status>,
    run: Option<RunInfo>,
}

impl Recording {
    /// The status now and the one before.
    pub fn status(&self) -> (Status, Option<Status>) {
        let state = lock(&self.state);
        (state.current.clone(), state.previous.clone())
    }

    /// What the run does, if one is going on.
    pub fn run(&self) -> Option<RunInfo> {
        lock(&self.state).run.clone()
    }

    /// The stream of a run has ended, and the run waits for it to come back. Returns what it did so far.
    fn away(&self, stream_id: u64) -> Option<RunInfo> {
        let run = lock(&self.state).run.take_if(|run| run.stream_id == stream_id);
        if run.is_some() {
            self.set_status(Status::new(Phase::Disconnected, 0, None));
            self.set_status(Status::new(Phase::WaitingForStream, 0, None));
        }
        run
    }

    /// It is back.
    fn back(&self, run: RunInfo) {
        let stream_id = run.stream_id;
        lock(&self.state).run = Some(run);
        self.set_status(Status::new(Phase::Streaming, stream_id, None));
    }

    fn set_status(&self, status: Status) {
        let mut state = lock(&self.state);
        state.previous = Some(std::mem::replace(&mut state.current, status));
    }

    /// The run goes on, and can write nothing for now.
    fn waits_for_disk(&self, stream_id: u64, state: guard::State) {
        let reason = match state {
            guard::State::Full => "the disk is full; it goes on when there is room",
            _ => "the disk fails; it goes on when that is over",
        };
        self.set_status(Status::new(Phase::Failed, stream_id, Some(reason.into())));
    }

    fn goes_on(&self, stream_id: u64) {
        self.set_status(Status::new(Phase::Streaming, stream_id, None));
    }

    /// Changes what is known of a run, unless a later one has taken its place.
    fn update_run(&self, stream_id: u64, update: impl FnOnce(&mut RunInfo)) {
        if let Some(run) = lock(&self.state).run.as_mut().filter(|run| run.stream_id == stream_id) {
            update(run);
        }
    }
}

/// All recordings. Clones share them.
#[derive(Clone, Debug)]
pub struct Recordings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    formats: Formats,
    disk: Disk,
    repairs: Repairs,
    config: Config,
    last_id: AtomicU64,
    orders: Mutex<BTreeMap<u64, Order>>,
    runs: TaskTracker,
}

/// A recording and its runs: one, or two while an earlier one closes its files.
#[derive(Debug)]
struct Order {
    recording: Arc<Recording>,
    runs: Vec<RunHandle>,
}

#[derive(Clone, Debug)]
struct RunHandle {
    /// Of the stream that it got last.
    in_stream_id: u64,
    handover: Arc<Handover>,
    stop: CancellationToken,
    done: CancellationToken,
}

impl Recordings {
    /// No recordings yet. Streams that start in `registry` are recorded from their first sample on.
    pub fn new(registry: Registry, formats: Formats, disk: Disk, repairs: Repairs, config: Config) -> Self {
        let recordings = Self(Arc::new(Inner {
            registry: registry.clone(),
            formats,
            disk,
            repairs,
            config,
            last_id: AtomicU64::new(0),
            orders: Mutex::default(),
            runs: TaskTracker::new(),
        }));
        let weak = Arc::downgrade(&recordings.0);
        registry.observe(move |stream| {
            if let Some(inner) = weak.upgrade() {
                Recordings(inner).stream_started(stream);
            }
        });
        recordings
    }

    /// Starts to record a stream, now or when it comes. Checks format and path at once.
    pub async fn add(&self, settings: Settings) -> Result<Arc<Recording>, RecordError> {
        let Inner { registry, formats, disk, last_id, orders, .. } = &*self.0;
        let version = formats.get(&settings.format).ok_or_else(|| RecordError::UnknownFormat {
            name: settings.format.clone(),
            known: self.formats().join(", "),
        })?;
        let (roots, path) = (disk.roots.clone(), settings.path_to_file.clone());
        let target = task::blocking(move || roots.resolve(&path)).await?;
        let extension = &version.manifest.extension;
        if naming::Names::contradicts(&target.name, extension) {
            tracing::warn!(
                path = settings.path_to_file,
                extension,
                "the name ends in another format's extension"
            );
        }
        let name = naming::Names::new(&target.name, extension, false).plain();
        let computed_path = target.folder.path.join(name);
        let recording = {
            let mut orders = lock(orders);
            let rival = orders.values().map(|o| &o.recording).find(|other| {
                other.folder == target.folder.id
                    && other.computed_path.file_name() == computed_path.file_name()
                    && (other.settings.overwrite || settings.overwrite)
            });
            if let Some(rival) = rival {
                return Err(RecordError::Taken(computed_path, rival.config_id));
            }
            let recording = Arc::new(Recording {
                config_id: last_id.fetch_add(1, Ordering::Relaxed) + 1,
                settings,
                computed_path,
                folder: target.folder.id,
                replaced: AtomicBool::new(false),
                state: Mutex::new(State {
                    current: Status::new(Phase::WaitingForStream, 0, None),
                    previous: None,
                    run: None,
                }),
            });
            orders.insert(recording.config_id, Order { recording: recording.clone(), runs: Vec::new() });
            recording
        };
        let name = &recording.settings.local_stream_name;
        match registry.get(name) {
            Some(stream) => self.start(recording.config_id, &stream),
            None => tracing::info!(
                config_id = recording.config_id,
                stream = name,
                path = %recording.computed_path.display(),
                "waiting for the stream"
            ),
        }
        Ok(recording)
    }

    /// Removes a recording; a running one is stopped, and its files are complete when this returns.
    pub async fn remove(&self, config_id: u64) -> Option<Arc<Recording>> {
        let order = lock(&self.0.orders).remove(&config_id)?;
        tracing::info!(config_id, stream = order.recording.settings.local_stream_name, "recording removed");
        stop(order.runs).await;
        Some(order.recording)
    }

    /// Stops the run of a recording; the order stays, and starts again (next file) if its stream is still live
    /// and it is keep-alive. Files are complete when this returns.
    pub async fn restart(&self, config_id: u64) -> Option<Arc<Recording>> {
        let (recording, runs) = {
            let orders = lock(&self.0.orders);
            let order = orders.get(&config_id)?;
            (order.recording.clone(), order.runs.clone())
        };
        stop(runs).await;
        if recording.settings.keep_alive
            && let Some(stream) = self.0.registry.get(&recording.settings.local_stream_name)
        {
            self.start(config_id, &stream);
        }
        Some(recording)
    }

    /// A recording by its id.
    pub fn get(&self, config_id: u64) -> Option<Arc<Recording>> {
        lock(&self.0.orders).get(&config_id).map(|o| o.recording.clone())
    }

    /// All recordings, by id.
    pub fn list(&self) -> Vec<Arc<Recording>> {
        lock(&self.0.orders).values().map(|o| o.recording.clone()).collect()
    }

    /// The folders that are recorded to, and how their disks are.
    pub fn disks(&self) -> Vec<(PathBuf, guard::View)> {
        self.0.disk.guards.list()
    }

    /// Names of the formats that can be recorded, sorted.
    pub fn formats(&self) -> Vec<String> {
        self.0.formats.list().iter().map(|v| v.manifest.format.clone()).collect()
    }

    /// Stops all runs and waits until their files are complete, but no longer than `limit`.
    pub async fn shut_down(&self, limit: Duration) {
        for order in lock(&self.0.orders).values() {
            order.runs.iter().for_each(|run| run.stop.cancel());
        }
        self.0.runs.close();
        let _ = tokio::time::timeout(limit, self.0.runs.wait()).await;
    }

    fn stream_started(&self, stream: &Arc<LiveStream>) {
        let waiting: Vec<u64> = lock(&self.0.orders)
            .values()
            .filter(|o| o.recording.settings.local_stream_name == stream.name)
            .map(|o| o.recording.config_id)
            .collect();
        waiting.into_iter().for_each(|config_id| self.start(config_id, stream));
    }

    /// Starts a run, unless the recording has one of that stream or is gone.
    fn start(&self, config_id: u64, stream: &Arc<LiveStream>) {
        let mut orders = lock(&self.0.orders);
        let Some(order) = orders.get_mut(&config_id) else { return };
        order.runs.retain(|run| !run.done.is_cancelled());
        let running = order.runs.iter().any(|run| run.in_stream_id == stream.id);
        // Without keep-alive the one run is all there is, also while it closes its files.
        if running || (!order.recording.settings.keep_alive && !order.runs.is_empty()) {
            return;
        }
        let mut subscription = stream.subscribe(self.0.config.queue_bytes);
        // A run whose stream is back in time goes on.
        if let Some(run) = order.runs.last_mut().filter(|run| !run.stop.is_cancelled()) {
            subscription = match run.handover.offer(subscription) {
                Ok(()) => return run.in_stream_id = stream.id,
                Err(subscription) => subscription,
            };
        }
        self.begin(order, subscription);
    }

    /// Starts a run.
    fn begin(&self, order: &mut Order, subscription: Subscription) {
        let handle = RunHandle {
            in_stream_id: subscription.stream().id,
            handover: Arc::default(),
            stop: CancellationToken::new(),
            done: CancellationToken::new(),
        };
        if self.0.config.reconnect_window.is_zero() {
            handle.handover.close();
        }
        order.runs.push(handle.clone());
        self.0.runs.spawn(self.clone().run(order.recording.clone(), subscription, handle));
    }

    async fn run(self, recording: Arc<Recording>, subscription: Subscription, handle: RunHandle) {
        let done = handle.done.clone().drop_guard();
        let stream_id = self.0.registry.next_id();
        lock(&recording.state).run = Some(RunInfo {
            stream_id,
            in_stream_id: handle.in_stream_id,
            started: SystemTime::now(),
            file: PathBuf::new(),
            segments: 0,
            video_samples: 0,
            video_bytes: 0,
            audio_samples: 0,
            audio_bytes: 0,
            dropped_samples: 0,
            component: String::new(),
        });
        recording.set_status(Status::new(Phase::Streaming, stream_id, None));
        let run = task::Run {
            recording: recording.clone(),
            stream_id,
            formats: self.0.formats.clone(),
            disk: self.0.disk.clone(),
            repairs: self.0.repairs.clone(),
            config: self.0.config,
            stop: handle.stop.clone(),
            handover: handle.handover.clone(),
        };
        // In a task of its own, so that a fault of ours ends this run with a message and nothing else.
        let result = match tokio::spawn(run.record(subscription)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(format!("internal error: {error}")),
        };
        let failed = result.err().inspect(|reason| {
            tracing::error!(
                config_id = recording.config_id,
                stream = recording.settings.local_stream_name,
                reason,
                "recording failed"
            );
        });
        let newest = {
            let mut state = lock(&recording.state);
            let newest = state.run.as_ref().is_some_and(|run| run.stream_id == stream_id);
            if newest {
                state.run = None;
            }
            newest
        };
        if newest {
            match failed {
                Some(reason) => recording.set_status(Status::new(Phase::Failed, 0, Some(reason))),
                None => {
                    recording.set_status(Status::new(Phase::Disconnected, 0, None));
                    recording.set_status(Status::new(Phase::WaitingForStream, 0, None));
                }
            }
        }
        if !recording.settings.keep_alive {
            lock(&self.0.orders).remove(&recording.config_id);
        }
        // A run that failed may leave a stream behind that came meanwhile.
        let left = handle.handover.close();
        drop(done);
        if !left.is_empty()
            && !handle.stop.is_cancelled()
            && let Some(order) = lock(&self.0.orders).get_mut(&recording.config_id)
        {
            left.into_iter().for_each(|subscription| self.begin(order, subscription));
        }
    }
}

/// Stops runs and waits until their files are complete, but not for ever: a disk may stall. They are closed all the
/// same when it goes on.
async fn stop(runs: Vec<RunHandle>) {
    runs.iter().for_each(|run| run.stop.cancel());
    let all = async {
        for run in runs {
            run.done.cancelled().await;
        }
    };
    if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        tracing::warn!("a recording that was stopped is still being closed; its disk is slow");
    }
}
