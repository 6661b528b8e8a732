//! Recordings: orders to record a live stream by name, whether it exists yet or not.
//!
//! [`Recordings`] keeps the orders. When a stream starts, each recording that names it gets a run
//! ([`task`]), which asks a [`plan`] where segments start and end, and drives a writer for each.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

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
    /// The `_name` variables, underscore included.
    pub user: BTreeMap<String, String>,
}

/// Why a recording can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("there is no format `{name}`; there are: {known}")]
    UnknownFormat { name: String, known: String },
    #[error(transparent)]
    Path(#[from] crate::output::PathError),
    #[error("{0} is being recorded already, by config {1}")]
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
}

/// All recordings. Clones share them.
#[derive(Clone, Debug)]
pub struct Recordings(Arc<()>);

impl Recordings {
    /// Starts to record a stream, now or when it comes. Checks format and path at once.
    pub async fn add(&self, settings: Settings) -> Result<Arc<Recording>, RecordError> {
        let _ = settings;
        unimplemented!()
    }

    /// Removes a recording; a running one is stopped, and its files are complete when this returns.
    pub async fn remove(&self, config_id: u64) -> Option<Arc<Recording>> {
        let _ = config_id;
        unimplemented!()
    }

    /// Stops the run of a recording; the order stays, and starts again (next file) if its stream is still live
    /// and it is keep-alive. Files are complete when this returns.
    pub async fn restart(&self, config_id: u64) -> Option<Arc<Recording>> {
        let _ = config_id;
        unimplemented!()
    }

    /// A recording by its id.
    pub fn get(&self, config_id: u64) -> Option<Arc<Recording>> {
        let _ = config_id;
        unimplemented!()
    }

    /// All recordings, by id.
    pub fn list(&self) -> Vec<Arc<Recording>> {
        unimplemented!()
    }

    /// Names of the formats that can be recorded, sorted.
    pub fn formats(&self) -> Vec<String> {
        unimplemented!()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
