//! Recordings: orders to record a live stream by name, whether it exists yet or not.
//!
//! [`Recordings`] keeps the orders. When a stream starts, each recording that names it gets a run (`task`),
//! which asks a [`plan`] where segments start and end, and drives a writer for each.

mod failover;
mod handover;
mod kept;
pub mod manifest;
pub mod naming;
pub mod plan;
mod recording;
pub mod report;
mod rules;
mod settings;
mod task;
pub mod template;
pub mod timeline;

pub use recording::{Destination, History, Phase, Recording, RunInfo, Status, Stretch};
pub use rules::Rule;
pub use settings::{Align, NoAlign, Settings};

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use handover::Handover;
use template::TemplateError;
use timeline::Timestamps;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    events::Events,
    format::Formats,
    output::{Disk, PathError},
    registry::{self, LiveStream, PublishError, Registry, Subscription},
    repair::Repairs,
    store::{Change, ConfigIds, Store, StoreError, Table},
    sync::lock,
};

/// How long a command waits for files to be closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

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
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Name(#[from] PublishError),
    #[error("preRoll {asked} is more than the {kept} s that this server keeps; see its setting pre-roll")]
    PreRoll { asked: u32, kept: u64 },
    #[error("streams is no pattern: {0}")]
    Glob(String),
    #[error("a rule can't overwrite: each time a stream comes it would replace what it has recorded before")]
    Overwrites,
    #[error("it can't be kept: {0}")]
    Store(#[from] StoreError),
    #[error("{0} is the destination of config {1}, and one of the two would overwrite the other")]
    Taken(PathBuf, u64),
}

/// What recordings work with.
#[derive(Clone, Debug)]
pub struct Parts {
    pub registry: Registry,
    pub formats: Formats,
    pub disk: Disk,
    pub repairs: Repairs,
    pub events: Events,
    pub store: Store,
    pub ids: ConfigIds,
}

/// All recordings. Clones share them.
#[derive(Clone, Debug)]
pub struct Recordings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    config: Config,
    orders: Mutex<BTreeMap<u64, Order>>,
    rules: Mutex<BTreeMap<u64, rules::Kept>>,
    runs: TaskTracker,
}

/// A recording and its runs: one, or two while an earlier one closes its files.
#[derive(Debug)]
struct Order {
    recording: Arc<Recording>,
    runs: Vec<RunHandle>,
    /// It waits to be kept, or could not be forgotten: it does not run.
    held: bool,
    /// It is about to run again, so the end of its run is not its own.
    stays: bool,
}

impl Order {
    /// Whether it has no run, or none that is not through with its files.
    fn is_idle(&self) -> bool {
        self.runs.iter().all(|run| run.done.is_cancelled())
    }
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
    /// No recordings yet. Streams that start in the registry are recorded from their first sample on.
    pub fn new(parts: Parts, config: Config) -> Self {
        let registry = parts.registry.clone();
        let (orders, rules) = (Mutex::default(), Mutex::default());
        let recordings = Self(Arc::new(Inner { parts, config, orders, rules, runs: TaskTracker::new() }));
        let weak = Arc::downgrade(&recordings.0);
        registry.observe(move |stream| {
            if let Some(inner) = weak.upgrade() {
                Recordings(inner).stream_started(stream);
            }
        });
        recordings
    }

    /// Takes up the recordings that an earlier server was ordered to make. One whose place is not there stays, and is
    /// tried again when its stream starts.
    pub async fn restore(&self) -> Result<(), StoreError> {
        let kept: Vec<(u64, serde_json::Value)> = self.0.parts.store.all(Table::Recordings)?;
        self.restore_rules().await?;
        for (config_id, value) in kept {
            let settings: Settings = match serde_json::from_value(value) {
                Ok(settings) => settings,
                Err(error) => {
                    tracing::error!(config_id, %error, "a recording that was kept makes no sense; it stays in the database");
                    continue;
                }
            };
            let (destination, failed) = match self.destination(&settings, config_id).await {
                Ok(destination) => (destination, None),
                Err(error) => {
                    let roots = &self.0.parts.disk.roots;
                    let extension = &settings.format;
                    let destination = Destination::new(roots, &settings, config_id, extension);
                    (destination.unwrap_or_else(|_| Destination::unknown(&settings)), Some(error.to_string()))
                }
            };
            if let Some(reason) = &failed {
                let stream = &settings.local_stream_name;
                tracing::error!(config_id, stream, reason, "a recording can't be made now");
            }
            let recording = Arc::new(Recording::new(config_id, settings, destination, true));
            if failed.is_some() {
                recording.set_status(Status::new(Phase::Failed, 0, failed));
            }
            let stream = recording.settings.local_stream_name.clone();
            tracing::info!(config_id, stream, "recording taken up again");
            lock(&self.0.orders)
                .insert(config_id, Order { recording, runs: Vec::new(), held: false, stays: false });
            // Streams that came before us.
            if let Some(stream) = self.0.parts.registry.get(&stream) {
                self.start(config_id, &stream);
            }
        }
        Ok(())
    }

    /// Says where a recording would go and which file would be its first, or why it can't be made. Changes nothing.
    pub async fn preview(&self, settings: &Settings) -> Result<(Destination, PathBuf), RecordError> {
        let destination = self.check(settings).await?;
        let (disk, its, settings) = (self.0.parts.disk.clone(), destination.clone(), settings.clone());
        let first = task::blocking(move || its.first_file(&disk, &settings)).await?;
        Ok((destination, first))
    }

    async fn check(&self, settings: &Settings) -> Result<Destination, RecordError> {
        registry::check_name(&settings.local_stream_name)?;
        self.check_alone(settings)?;
        let destination = self.destination(settings, 0).await?;
        self.rival(&lock(&self.0.orders), settings, &destination)?;
        Ok(destination)
    }

    /// What can be checked without looking anywhere.
    fn check_alone(&self, settings: &Settings) -> Result<(), RecordError> {
        let kept = self.0.parts.registry.pre_roll().as_secs();
        match u64::from(settings.pre_roll) > kept {
            true => Err(RecordError::PreRoll { asked: settings.pre_roll, kept }),
            false => Ok(()),
        }
    }

    /// Starts to record a stream, now or when it comes. Checks format and path at once. When this returns the order
    /// outlives the server, if it is keep-alive.
    pub async fn add(&self, settings: Settings) -> Result<Arc<Recording>, RecordError> {
        let Parts { registry, store, ids, .. } = &self.0.parts;
        let mut destination = self.check(&settings).await?;
        let config_id = ids.next();
        if settings.path_to_file.contains('{') {
            destination = self.destination(&settings, config_id).await?;
        }
        let recording = {
            let mut orders = lock(&self.0.orders);
            self.rival(&orders, &settings, &destination)?;
            let recording = Arc::new(Recording::new(config_id, settings, destination, false));
            let order = Order { recording: recording.clone(), runs: Vec::new(), held: true, stays: false };
            orders.insert(config_id, order);
            recording
        };
        let mut changes = vec![ids.change()];
        if recording.is_kept() {
            changes.push(Change::put(Table::Recordings, config_id, &recording.settings));
        }
        if let Err(error) = store.apply(changes).await {
            lock(&self.0.orders).remove(&config_id);
            return Err(error.into());
        }
        if let Some(order) = lock(&self.0.orders).get_mut(&config_id) {
            order.held = false;
        }
        let name = &recording.settings.local_stream_name;
        match registry.get(name) {
            Some(stream) => {
                let pre_roll = Duration::from_secs(recording.settings.pre_roll.into());
                self.start_from(config_id, &stream, pre_roll);
            }
            None => tracing::info!(
                config_id,
                stream = name,
                path = %recording.destination.computed_path.display(),
                "waiting for the stream"
            ),
        }
        Ok(recording)
    }

    /// Finds and checks where a recording goes.
    async fn destination(&self, settings: &Settings, config_id: u64) -> Result<Destination, RecordError> {
        let Parts { formats, disk, .. } = &self.0.parts;
        let version = formats.get(&settings.format).ok_or_else(|| RecordError::UnknownFormat {
            name: settings.format.clone(),
            known: self.formats().join(", "),
        })?;
        let extension = version.manifest.extension.clone();
        let destination = Destination::new(&disk.roots, settings, config_id, &extension)?;
        if naming::Names::contradicts(&settings.path_to_file, &extension) {
            tracing::warn!(
                path = settings.path_to_file,
                extension,
                "the name ends in another format's extension"
            );
        }
        let roots = disk.roots.clone();
        task::blocking(move || destination.check(&roots)).await
    }

    /// Fails if there is a recording of which the new one would overwrite files, or the other way round.
    fn rival(
        &self,
        orders: &BTreeMap<u64, Order>,
        settings: &Settings,
        destination: &Destination,
    ) -> Result<(), RecordError> {
        let rival = orders.values().map(|order| &order.recording).find(|other| {
            other.destination.meets(destination) && (other.settings.overwrite || settings.overwrite)
        });
        match rival {
            Some(rival) => Err(RecordError::Taken(destination.computed_path.clone(), rival.config_id)),
            None => Ok(()),
        }
    }

    /// Removes a recording, for good when this returns; a running one is stopped, and its files are complete. One
    /// that can't be removed from the database is stopped all the same, and stays listed as failed: it runs no more
    /// until the next start, and can be removed again.
    pub async fn remove(&self, config_id: u64) -> Result<Option<Arc<Recording>>, StoreError> {
        let Some(recording) = self.get(config_id) else { return Ok(None) };
        if let Err(error) = self.forget(&recording).await {
            let runs = lock(&self.0.orders).get_mut(&config_id).map(|order| {
                order.held = true;
                order.runs.clone()
            });
            stop(runs.unwrap_or_default()).await;
            let reason = format!("it could not be forgotten: {error}");
            recording.set_status(Status::new(Phase::Failed, 0, Some(reason)));
            return Err(error);
        }
        let order = lock(&self.0.orders).remove(&config_id);
        let Some(order) = order else { return Ok(None) };
        tracing::info!(config_id, stream = order.recording.settings.local_stream_name, "recording removed");
        stop(order.runs).await;
        Ok(Some(order.recording))
    }

    /// Takes an order out of the database, if it was ever in there.
    async fn forget(&self, recording: &Recording) -> Result<(), StoreError> {
        if !recording.is_kept() {
            return Ok(());
        }
        self.0.parts.store.apply(vec![Change::remove(Table::Recordings, recording.config_id)]).await
    }

    /// Stops the run of a recording; the order stays, and starts again (next file) if its stream is still live
    /// and it is keep-alive. Files are complete when this returns.
    pub async fn restart(&self, config_id: u64) -> Option<Arc<Recording>> {
        let (recording, runs) = {
            let mut orders = lock(&self.0.orders);
            let order = orders.get_mut(&config_id)?;
            order.stays = true;
            (order.recording.clone(), order.runs.clone())
        };
        stop(runs).await;
        let stream = self.0.parts.registry.get(&recording.settings.local_stream_name);
        let mut orders = lock(&self.0.orders);
        if let Some(order) = orders.get_mut(&config_id) {
            order.stays = false;
            if let Some(stream) = stream.filter(|_| recording.settings.keep_alive) {
                self.start_order(order, &stream, Duration::ZERO);
            }
            // Its stream has ended meanwhile; its rule makes another.
            if recording.rule_id.is_some() && order.is_idle() {
                orders.remove(&config_id);
            }
        }
        drop(orders);
        Some(recording)
    }

    /// Has runs of recordings end their file: at the next key frame, or the next frame of video if `any_frame`.
    /// Returns those that have a file to end.
    pub fn split(&self, config_ids: &[u64], any_frame: bool) -> Vec<Arc<Recording>> {
        let recordings = config_ids.iter().filter_map(|&id| self.get(id));
        let is_writing = |r: &Arc<Recording>| r.run().is_some_and(|run| run.writing) && !r.is_paused();
        let running = recordings.filter(is_writing);
        running
            .inspect(|recording| {
                recording.wishes.send_modify(|wishes| {
                    wishes.splits += 1;
                    wishes.any_frame = any_frame;
                });
            })
            .collect()
    }

    /// Pauses recordings, or has them go on. Returns those that were not paused, or that were.
    pub fn pause(&self, config_ids: &[u64], paused: bool) -> Vec<Arc<Recording>> {
        let recordings = config_ids.iter().filter_map(|&id| self.get(id));
        let changes = |recording: &Arc<Recording>| {
            recording
                .wishes
                .send_if_modified(|wishes| std::mem::replace(&mut wishes.paused, paused) != paused)
        };
        let changed: Vec<_> = recordings.filter(changes).collect();
        for recording in changed.iter().filter(|recording| recording.run().is_none()) {
            recording.show_waiting();
        }
        changed
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
    pub fn disks(&self) -> Vec<(PathBuf, crate::output::guard::View)> {
        self.0.parts.disk.guards.list()
    }

    /// The formats.
    pub fn catalog(&self) -> &Formats {
        &self.0.parts.formats
    }

    /// The folders and disks.
    pub fn disk(&self) -> &Disk {
        &self.0.parts.disk
    }

    /// Names of the formats that can be recorded, sorted.
    pub fn formats(&self) -> Vec<String> {
        self.0.parts.formats.list().iter().map(|v| v.manifest.format.clone()).collect()
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
        let rules = self.rules_for(&stream.name);
        // In one hold: a run that ends meanwhile must not take away what was found for this stream.
        let mut orders = lock(&self.0.orders);
        for (rule_id, rule) in rules {
            self.apply_rule(&mut orders, rule_id, rule, stream);
        }
        let its = |order: &&mut Order| order.recording.settings.local_stream_name == stream.name;
        orders.values_mut().filter(its).for_each(|order| self.start_order(order, stream, Duration::ZERO));
    }

    /// Starts a run, unless the recording has one of that stream or is gone.
    fn start(&self, config_id: u64, stream: &Arc<LiveStream>) {
        self.start_from(config_id, stream, Duration::ZERO);
    }

    fn start_from(&self, config_id: u64, stream: &Arc<LiveStream>, pre_roll: Duration) {
        if let Some(order) = lock(&self.0.orders).get_mut(&config_id) {
            self.start_order(order, stream, pre_roll);
        }
    }

    fn start_order(&self, order: &mut Order, stream: &Arc<LiveStream>, pre_roll: Duration) {
        order.runs.retain(|run| !run.done.is_cancelled());
        if order.held {
            return;
        }
        let running = order.runs.iter().any(|run| run.in_stream_id == stream.id);
        // Without keep-alive the one run is all there is, also while it closes its files.
        if running || (!order.recording.settings.keep_alive && !order.runs.is_empty()) {
            return;
        }
        let mut subscription = stream.subscribe_from(self.0.config.queue_bytes, pre_roll);
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

    /// A recording has reached one of its limits: it is no order any more.
    async fn done(&self, recording: &Recording, reason: &str) {
        let config_id = recording.config_id;
        tracing::info!(config_id, stream = recording.settings.local_stream_name, reason, "recording done");
        if let Err(error) = self.forget(recording).await {
            tracing::error!(config_id, %error, "a recording that is done will be taken up again by the next start");
        }
        lock(&self.0.orders).remove(&config_id);
    }

    async fn run(self, recording: Arc<Recording>, subscription: Subscription, handle: RunHandle) {
        let done = handle.done.clone().drop_guard();
        let stream_id = self.0.parts.registry.next_id();
        recording.begins(RunInfo {
            stream_id,
            in_stream_id: handle.in_stream_id,
            started: SystemTime::now(),
            file: PathBuf::new(),
            writing: false,
            segments: 0,
            video_samples: 0,
            video_bytes: 0,
            audio_samples: 0,
            audio_bytes: 0,
            dropped_samples: 0,
            component: String::new(),
        });
        let events = &self.0.parts.events;
        if let Some(run) = recording.run() {
            let live = self.0.parts.registry.get(&recording.settings.local_stream_name);
            report::out_stream_created(events, &recording, &run, live);
        }
        let run = task::Run {
            recording: recording.clone(),
            stream_id,
            parts: self.0.parts.clone(),
            config: self.0.config,
            stop: handle.stop.clone(),
            handover: handle.handover.clone(),
        };
        // In a task of its own, so that a fault of ours ends this run with a message and nothing else.
        let result = match tokio::spawn(run.record(subscription)).await {
            Ok(result) => result.map_err(|error| {
                let reason = error.to_string();
                if !error.was_told() {
                    let path = &recording.destination.computed_path;
                    events.send(report::error(&recording, path, &reason, (0, 0, 0), report::Next::Nothing));
                }
                reason
            }),
            Err(error) => Err(format!("internal error: {error}")),
        };
        let over = result.as_ref().ok().copied().flatten();
        let failed = result.err().inspect(|reason| {
            tracing::error!(
                config_id = recording.config_id,
                stream = recording.settings.local_stream_name,
                reason,
                "recording failed"
            );
        });
        if let Some(run) = recording.ends(stream_id, failed) {
            report::out_stream_closed(events, &recording, &run);
        }
        if let Some(reason) = over {
            self.done(&recording, reason).await;
        }
        if !recording.settings.keep_alive {
            lock(&self.0.orders).remove(&recording.config_id);
        }
        // A run that failed may leave a stream behind that came meanwhile.
        let left = handle.handover.close();
        drop(done);
        let mut orders = lock(&self.0.orders);
        let Some(order) = orders.get_mut(&recording.config_id) else { return };
        if !handle.stop.is_cancelled() {
            left.into_iter().for_each(|subscription| self.begin(order, subscription));
        }
        // Its rule makes another when the stream comes again.
        if recording.rule_id.is_some() && order.is_idle() && !order.stays {
            orders.remove(&recording.config_id);
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
