//! One order to record: what was asked for, and what it does now.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
    time::SystemTime,
};

use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::{
    RecordError, Settings,
    naming::Names,
    template::{self, Template},
};
use crate::{
    output::{Disk, Roots, Segment, Target, guard, journal::Whose},
    sync::lock,
};

/// What a recording does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Streaming,
    WaitingForStream,
    Disconnected,
    /// An operator has it paused.
    Paused,
    /// The last run ended with an error.
    Failed,
}

impl Phase {
    /// EvoStream's status code; 6 is ours.
    pub fn code(self) -> u32 {
        match self {
            Phase::Streaming => 0,
            Phase::WaitingForStream => 2,
            Phase::Disconnected => 4,
            Phase::Failed => 5,
            Phase::Paused => 6,
        }
    }

    /// EvoStream's words for it.
    pub fn description(self) -> &'static str {
        match self {
            Phase::Streaming => "Streaming",
            Phase::WaitingForStream => "Waiting for stream",
            Phase::Disconnected => "Disconnected",
            Phase::Failed => "Connection failed",
            Phase::Paused => "Paused",
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
    pub(super) fn new(phase: Phase, stream_id: u64, reason: Option<String>) -> Self {
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
    /// That file is open.
    pub writing: bool,
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

/// Where a recording's files go.
#[derive(Clone, Debug)]
pub struct Destination {
    template: Template,
    /// The format's, as it was when the recording was ordered.
    extension: String,
    /// The file that will be written, without numbers for chunks and repetitions. Where each file has a path of its
    /// own, as it would be now.
    pub computed_path: PathBuf,
    /// Where each file has a path of its own: that path, with names for what is known when a file begins.
    pattern: Option<PathBuf>,
    /// Device and inode of the folder, which tell it however it is spelled. `None`: it is not known to be there.
    folder: Option<(u64, u64)>,
}

impl Destination {
    /// Finds it, with what is there. Nothing is checked that a disk has to be asked for.
    pub(super) fn new(
        roots: &Roots,
        settings: &Settings,
        config_id: u64,
        extension: &str,
    ) -> Result<Self, RecordError> {
        let template = Template::new(settings, config_id)?;
        let path = path_now(&template, 0);
        let located = roots.locate(&path)?;
        let name = located.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let computed_path = located.with_file_name(Names::new(name, extension, false).plain());
        let pattern = template.is_by_file().then(|| {
            let pattern = template.pattern();
            let located = roots.locate(&pattern).unwrap_or_else(|_| pattern.into());
            let name = located.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            located.with_file_name(Names::new(name, extension, false).plain())
        });
        Ok(Self { template, extension: extension.into(), computed_path, pattern, folder: None })
    }

    /// One that can't be found now.
    pub(super) fn unknown(settings: &Settings) -> Self {
        let path = PathBuf::from(&settings.path_to_file);
        // Whatever it is, it is looked for again when it is needed.
        let template = Template::new(settings, 0).unwrap_or_default();
        let pattern = template.is_by_file().then(|| path.clone());
        Self { template, extension: settings.format.clone(), computed_path: path, pattern, folder: None }
    }

    /// Checks that it can be written to. Blocks.
    pub(super) fn check(mut self, roots: &Roots) -> Result<Self, RecordError> {
        let path = path_now(&self.template, 0);
        if self.template.makes_folders() {
            roots.may_make(&path)?;
        } else {
            let target = roots.resolve(&path)?;
            let name = Names::new(&target.name, &self.extension, false).plain();
            self.computed_path = target.folder.path.join(&name);
            if !self.template.is_by_file() {
                self.folder = Some(target.folder.id);
            }
        }
        Ok(self)
    }

    /// The folder and name for a file, with folders made if that is asked for. Blocks.
    pub(super) fn target(&self, roots: &Roots, epoch_us: i64, number: u64) -> Result<Target, RecordError> {
        let path = self.template.path(&template::Moment { epoch_us, number, zone: &TimeZone::system() });
        let target = if self.template.makes_folders() { roots.make(&path) } else { roots.find(&path) };
        Ok(target?)
    }

    /// The first file that would be written if it began now. Blocks, and makes nothing.
    pub(super) fn first_file(&self, disk: &Disk, settings: &Settings) -> Result<PathBuf, RecordError> {
        let chunked = settings.is_chunked() && !self.is_by_file();
        let Ok(target) = disk.roots.find(&path_now(&self.template, 0)) else {
            // Its folder is still to be made, and has nothing in it.
            let name = self.computed_path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = Names::new(name, &self.extension, chunked).first().next().unwrap_or_default();
            return Ok(self.computed_path.with_file_name(name));
        };
        let names = Names::new(&target.name, &self.extension, chunked);
        let name = Segment::free_name(disk, &target.folder, names.first(), settings.overwrite)?;
        Ok(target.folder.path.join(name))
    }

    /// Whether each file has a path of its own.
    pub(super) fn is_by_file(&self) -> bool {
        self.template.is_by_file()
    }

    /// Whether two write to the same names.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (&self.pattern, &other.pattern) {
            (Some(its), Some(others)) => its == others,
            (None, None) => match (self.folder, other.folder) {
                (Some(its), Some(others)) => {
                    its == others && self.computed_path.file_name() == other.computed_path.file_name()
                }
                _ => self.computed_path == other.computed_path,
            },
            _ => false,
        }
    }
}

/// The path of a file that begins now.
fn path_now(template: &Template, number: u64) -> String {
    let epoch_us = jiff::Timestamp::now().as_microsecond();
    template.path(&template::Moment { epoch_us, number, zone: &TimeZone::system() })
}

/// An order to record.
#[derive(Debug)]
pub struct Recording {
    /// Names the recording; 1, 2, … over all of the server's life.
    pub config_id: u64,
    pub settings: Settings,
    /// The rule that ordered it.
    pub rule_id: Option<u64>,
    pub destination: Destination,
    /// Whether `overwrite` was made use of.
    pub(super) replaced: AtomicBool,
    pub(super) wishes: watch::Sender<Wishes>,
    state: Mutex<State>,
}

/// What an operator wants of the runs of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Splits that were asked for so far, and whether the last of them may be at any frame.
    pub(super) splits: u64,
    pub(super) any_frame: bool,
    pub(super) paused: bool,
}

#[derive(Debug)]
struct State {
    current: Status,
    previous: Option<Status>,
    run: Option<RunInfo>,
    history: History,
}

impl State {
    fn set_status(&mut self, status: Status) {
        self.previous = Some(std::mem::replace(&mut self.current, status));
    }
}

/// Which versions of its format wrote a recording.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The latest last; at most 256.
    pub stretches: VecDeque<Stretch>,
    /// Older ones that are not kept.
    pub dropped: u64,
}

/// Files one after the other that the same version wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Who: `flv 0.1.0 (sha256 0123456789ab)`.
    pub component: String,
    /// When the first of them begins, in microseconds since 1970.
    pub since_us: i64,
    /// The first of them.
    pub file: PathBuf,
    /// How many they are.
    pub files: u64,
}

/// Stretches of a recording that are remembered.
const MAX_STRETCHES: usize = 256;

impl History {
    fn add(&mut self, file: &Path, component: &str, since_us: i64) {
        match self.stretches.back_mut().filter(|last| last.component == component) {
            Some(last) => last.files += 1,
            None => {
                if self.stretches.len() >= MAX_STRETCHES {
                    self.stretches.pop_front();
                    self.dropped += 1;
                }
                let component = component.to_owned();
                self.stretches.push_back(Stretch { component, since_us, file: file.into(), files: 1 });
            }
        }
    }
}

impl Recording {
    /// One that waits for its stream. `restored`: what it finds is its own work.
    pub(super) fn new(config_id: u64, settings: Settings, destination: Destination, restored: bool) -> Self {
        Self {
            config_id,
            settings,
            rule_id: None,
            destination,
            replaced: AtomicBool::new(restored),
            wishes: watch::Sender::default(),
            state: Mutex::new(State {
                current: Status::new(Phase::WaitingForStream, 0, None),
                previous: None,
                run: None,
                history: History::default(),
            }),
        }
    }

    /// What events tell of it besides its name.
    pub(super) fn whose(&self) -> Whose {
        Whose { rule_id: self.rule_id, user: self.settings.user.clone() }
    }

    /// The same, ordered by a rule.
    pub(super) fn of_rule(self, rule_id: u64) -> Self {
        Self { rule_id: Some(rule_id), ..self }
    }

    /// Whether it outlives the server, in the database.
    pub(super) fn is_kept(&self) -> bool {
        self.settings.keep_alive && self.rule_id.is_none()
    }

    /// The status now and the one before.
    pub fn status(&self) -> (Status, Option<Status>) {
        let state = lock(&self.state);
        (state.current.clone(), state.previous.clone())
    }

    /// Which versions of its format wrote it, since the server started.
    pub fn history(&self) -> History {
        lock(&self.state).history.clone()
    }

    /// A version has begun a file.
    pub(super) fn written_by(&self, file: &Path, component: &str, since_us: i64) {
        lock(&self.state).history.add(file, component, since_us);
    }

    /// Whether an operator has it paused.
    pub fn is_paused(&self) -> bool {
        self.wishes.borrow().paused
    }

    /// What it is in while it has a run that writes.
    fn going_on(&self) -> Phase {
        if self.is_paused() { Phase::Paused } else { Phase::Streaming }
    }

    /// The paused state of one without a run has changed. Why it failed stays to be seen.
    pub(super) fn show_waiting(&self) {
        if lock(&self.state).current.phase == Phase::Failed {
            return;
        }
        let phase = if self.is_paused() { Phase::Paused } else { Phase::WaitingForStream };
        self.set_status(Status::new(phase, 0, None));
    }

    /// What the run does, if one is going on.
    pub fn run(&self) -> Option<RunInfo> {
        lock(&self.state).run.clone()
    }

    pub(super) fn set_status(&self, status: Status) {
        lock(&self.state).set_status(status);
    }

    /// The run goes on, and can write nothing for now.
    pub(super) fn waits_for_disk(&self, stream_id: u64, state: guard::State) {
        let reason = match state {
            guard::State::Full => "the disk is full; it goes on when there is room",
            _ => "the disk fails; it goes on when that is over",
        };
        self.set_status(Status::new(Phase::Failed, stream_id, Some(reason.into())));
    }

    /// A run writes again, or is paused or resumed.
    pub(super) fn goes_on(&self, stream_id: u64) {
        self.set_status(Status::new(self.going_on(), stream_id, None));
    }

    /// A run begins, or its stream is back.
    pub(super) fn begins(&self, run: RunInfo) {
        let stream_id = run.stream_id;
        lock(&self.state).run = Some(run);
        self.goes_on(stream_id);
    }

    /// A run is over, or waits for its stream to come back. Returns what it did so far, unless a later one has taken
    /// its place, or its stream was away.
    pub(super) fn ends(&self, stream_id: u64, failed: Option<String>) -> Option<RunInfo> {
        // At once: who sees no run sees why.
        let mut state = lock(&self.state);
        let run = state.run.take_if(|run| run.stream_id == stream_id)?;
        match failed {
            Some(reason) => state.set_status(Status::new(Phase::Failed, 0, Some(reason))),
            None => {
                state.set_status(Status::new(Phase::Disconnected, 0, None));
                state.set_status(Status::new(Phase::WaitingForStream, 0, None));
            }
        }
        Some(run)
    }

    /// Changes what is known of a run, unless a later one has taken its place.
    pub(super) fn update_run(&self, stream_id: u64, update: impl FnOnce(&mut RunInfo)) {
        if let Some(run) = lock(&self.state).run.as_mut().filter(|run| run.stream_id == stream_id) {
            update(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_meet_if_a_name_could_be_of_both() {
        let media = tempfile::tempdir().unwrap();
        let roots = Roots::open(media.path(), &[]).unwrap();
        let to = |stream: &str, path: &str| {
            let settings = Settings {
                local_stream_name: stream.into(),
                path_to_file: path.into(),
                ..Settings::default()
            };
            Destination::new(&roots, &settings, 1, "mp4").unwrap()
        };
        // Each file has a path of its own, and so has each stream.
        assert!(!to("cam1", "{stream}-{date}").meets(&to("cam2", "{stream}-{date}")));
        assert!(to("cam1", "{stream}-{date}").meets(&to("cam2", "cam1-{date}.mp4")));
        assert!(to("cam1", "../media/x-{seq}").meets(&to("cam2", "x-{seq}")));
        assert!(!to("cam1", "x-{seq}").meets(&to("cam1", "x-0001")));
        // Whether the folder was looked at or not.
        let checked = to("cam1", "x").check(&roots).unwrap();
        assert!(checked.meets(&to("cam2", "x")) && to("cam2", "x").meets(&checked));
        assert!(checked.meets(&to("cam2", "x").check(&roots).unwrap()));
        assert!(!checked.meets(&to("cam2", "y")));
    }
}
