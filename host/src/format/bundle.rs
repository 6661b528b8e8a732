//! Crash bundles: all that it takes to see a component fail again.
//!
//! A writer that traps, exceeds a limit or breaks the contract leaves one file in the data folder, `crashes/`. It has
//! a head in JSON (component, start, limits, what failed and how, the last calls of the host, the last lines of the
//! log) and the last steps: batches of samples as they were given, tracks announced anew, the end.
//!
//! ```text
//! magic       8 bytes   "RWCRASH1"
//! head        u32, then so many bytes of JSON
//! step        u8 kind, u32, then so many bytes; up to the end of the file
//!   samples   kind 1    by sample: u32 track, i64 dts, i64 pts, u8 bits (1 key, 2 discontinuity), u32, payload
//!   tracks    kind 2    JSON
//!   end       kind 3    JSON
//! ```
//!
//! Numbers are little-endian. Steps are kept from the segment's start on as long as they fit, 8 MiB and 512 of them, less
//! when there are many writers; then the newest are. Payloads are shared with the stream, so keeping them costs
//! memory only when nobody else does.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    Begin, Cause, End, Engine, FormatError, LoadError, Version, Writer, cache::Cache, catalog::EMBEDDED,
    check::MAX_COMPONENT, guest_log::cut, imports::State, limits::Limits,
};
use crate::{
    events::{Event, Events},
    media::{Kind, Sample, Track},
    output::{Disk, PathError, Roots, Segment, hex, journal},
    sync::lock,
};

/// Bundles that are kept, unless `crash-bundles` says otherwise.
pub const KEPT: usize = 32;
/// And bytes of them all.
const KEPT_BYTES: u64 = 256 << 20;
/// Time between two bundles of one version.
const INTERVAL: Duration = Duration::from_secs(60);
/// Steps that a writer keeps, and their payload in bytes.
const MAX_STEPS: usize = 512;
const MAX_BYTES: u64 = 8 << 20;
/// Payload that all writers keep together, and what each may keep however many they are.
const ALL_BYTES: u64 = 32 << 20;
const MIN_BYTES: u64 = 64 << 10;
/// Calls of the host that a writer keeps.
const MAX_CALLS: usize = 256;
/// Largest head, and largest bundle, in bytes.
const MAX_HEAD: usize = 4 << 20;
const MAX_BUNDLE: u64 = 32 << 20;
/// Longest backtrace.
const MAX_BACKTRACE: usize = 16 << 10;
const MAGIC: &[u8; 8] = b"RWCRASH1";
const SUFFIX: &str = ".bundle";

/// Why a bundle can't be read or run.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("it is no crash bundle: {0}")]
    Malformed(String),
    #[error("the scratch folder: {0}")]
    Scratch(#[from] std::io::Error),
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Something that was asked of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Samples(Vec<Sample>),
    Tracks(Vec<Track>),
    End(End),
}

impl Step {
    fn bytes(&self) -> u64 {
        match self {
            Step::Samples(samples) => samples.iter().map(|sample| sample.data.len() as u64).sum(),
            Step::Tracks(_) | Step::End(_) => 0,
        }
    }

    /// The function that does it.
    fn call(&self) -> &'static str {
        match self {
            Step::Samples(_) => "write",
            Step::Tracks(_) => "update-tracks",
            Step::End(_) => "finish",
        }
    }
}

/// The last steps of a writer.
#[derive(Debug)]
pub(super) struct Recent {
    steps: VecDeque<Step>,
    bytes: u64,
    /// Steps that were forgotten.
    forgotten: u64,
    shared: Arc<Inner>,
}

impl Recent {
    pub(super) fn push(&mut self, step: Step) {
        self.bytes += step.bytes();
        self.steps.push_back(step);
        let writers = self.shared.writers.load(Relaxed).max(1);
        let max = (ALL_BYTES / writers).clamp(MIN_BYTES, MAX_BYTES);
        while self.steps.len() > 1 && (self.bytes > max || self.steps.len() > MAX_STEPS) {
            if let Some(step) = self.steps.pop_front() {
                self.bytes -= step.bytes();
                self.forgotten += 1;
            }
        }
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.shared.writers.fetch_sub(1, Relaxed);
    }
}

/// The last calls of the host by a component.
#[derive(Debug, Default)]
pub(super) struct Trace {
    calls: VecDeque<HostCall>,
    forgotten: u64,
}

impl Trace {
    pub(super) fn push(&mut self, call: HostCall) {
        if self.calls.len() == MAX_CALLS {
            self.calls.pop_front();
            self.forgotten += 1;
        }
        self.calls.push_back(call);
    }
}

/// A call of the host, in short.
#[derive(Debug)]
pub(super) struct HostCall {
    call: &'static str,
    name: Box<str>,
    args: [Option<u64>; 3],
    answer: Result<u64, Box<str>>,
}

impl HostCall {
    pub(super) fn new(call: &'static str, name: &str, args: &[u64], answer: Result<u64, String>) -> Self {
        let mut few = [None; 3];
        few.iter_mut().zip(args).for_each(|(place, arg)| *place = Some(*arg));
        let answer = answer.map_err(|error| cut(&error, 200).into());
        Self { call, name: name.into(), args: few, answer }
    }
}

/// `append(0, 11, 3) = 4096`
impl std::fmt::Display for HostCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Some(self.name.to_string()).filter(|name| !name.is_empty());
        let args = self.args.iter().flatten().map(u64::to_string);
        let args: Vec<String> = name.into_iter().chain(args).collect();
        write!(f, "{}({}) = ", self.call, args.join(", "))?;
        match &self.answer {
            Ok(value) => write!(f, "{value}"),
            Err(error) => write!(f, "{error:?}"),
        }
    }
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The function of the contract.
    pub call: String,
    /// `trap`, `limit`, `contract`, `refused`, …
    pub kind: String,
    /// What tells it from others of its kind: the limit's name, the text of a trap.
    pub detail: String,
    /// All of it in words.
    pub text: String,
}

impl Failure {
    fn new(call: &str, cause: &Cause) -> Self {
        let (kind, detail) = match cause {
            Cause::Trap(text) => ("trap", text.clone()),
            Cause::Limit { name, .. } => ("limit", (*name).to_owned()),
            Cause::Contract(text) => ("contract", text.clone()),
            Cause::Instantiate(text) => ("instantiate", text.clone()),
            Cause::Refused { code, message, .. } => ("refused", format!("{code}: {message}")),
            Cause::NoRecovery => ("no-recovery", String::new()),
            Cause::Output(error) => ("output", error.to_string()),
        };
        Self { call: call.into(), kind: kind.into(), detail, text: cause.to_string() }
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.call, &self.kind, &self.detail) == (&other.call, &other.kind, &other.detail)
    }
}

/// Whether a component is to blame for it.
fn is_fault(cause: &Cause) -> bool {
    match cause {
        Cause::Trap(_) | Cause::Limit { .. } | Cause::Contract(_) | Cause::Instantiate(_) => true,
        Cause::Refused { .. } => !cause.is_refusal(),
        Cause::NoRecovery | Cause::Output(_) => false,
    }
}

/// What a bundle says before its steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The server's version.
    pub server: String,
    pub epoch_us: i64,
    /// Name, version and start of the hash of the component, and its hash.
    pub component: String,
    pub sha256: String,
    /// What the segment started from, options included.
    pub start: journal::Start,
    /// The limits in force, in their units.
    pub limits: BTreeMap<String, u64>,
    pub failure: Failure,
    pub backtrace: Option<String>,
    /// Bytes of memory that the instance had.
    pub memory: u64,
    /// The last calls of the host, the oldest first, and how many there were before.
    pub host_calls: Vec<String>,
    pub more_host_calls: u64,
    /// The last lines that it logged, by level.
    pub log: Vec<(u8, String)>,
    /// Whether all that the writer was given is here, from `open` on; else how many steps are not.
    pub complete: bool,
    pub more_steps: u64,
}

/// Where bundles are left. Clones share it.
#[derive(Clone, Debug)]
pub struct Bundles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    kept: usize,
    interval: Duration,
    events: Events,
    /// By version, when it last left one.
    last: Mutex<HashMap<String, Instant>>,
    written: AtomicU64,
    /// Writers that keep their last steps.
    writers: AtomicU64,
}

impl Bundles {
    /// Bundles in a folder, which is made when there is one: at most so many, and 256 MiB.
    pub fn new(folder: PathBuf, kept: usize, events: Events) -> Self {
        Self(Arc::new(Inner {
            folder,
            kept,
            interval: INTERVAL,
            events,
            last: Mutex::default(),
            written: AtomicU64::new(0),
            writers: AtomicU64::new(0),
        }))
    }

    /// For a writer that begins.
    pub(super) fn recent(&self) -> Recent {
        self.0.writers.fetch_add(1, Relaxed);
        Recent { steps: VecDeque::new(), bytes: 0, forgotten: 0, shared: self.0.clone() }
    }

    /// Leaves a bundle, if the component is to blame and none was left for it just before. The file is written beside
    /// all else.
    pub(super) fn leave(&self, version: &Version, state: &State, call: &'static str, cause: &Cause) {
        let Some(session) = &state.session else { return };
        let Some(recent) = &session.recent else { return };
        if !is_fault(cause) || !self.may_leave(&version.sha256) {
            return;
        }
        let calls = state.trace.as_ref();
        let head = Head {
            server: env!("CARGO_PKG_VERSION").into(),
            epoch_us: crate::wall_clock::epoch_us(),
            component: version.label(),
            sha256: version.sha256.clone(),
            start: session.start.clone(),
            limits: state.limits.values(),
            failure: Failure::new(call, cause),
            backtrace: state.backtrace.as_deref().map(|text| cut(text, MAX_BACKTRACE).to_owned()),
            memory: state.growth.memory_used(),
            host_calls: calls.into_iter().flat_map(|t| t.calls.iter().map(HostCall::to_string)).collect(),
            more_host_calls: calls.map_or(0, |trace| trace.forgotten),
            log: state.log.last_lines(),
            complete: recent.forgotten == 0,
            more_steps: recent.forgotten,
        };
        let steps: Vec<Step> = recent.steps.iter().cloned().collect();
        let number = self.0.written.fetch_add(1, Relaxed);
        let (bundles, file) = (self.clone(), session.segment.path());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn_blocking(move || bundles.write(&head, &steps, number, &file));
    }

    fn may_leave(&self, sha256: &str) -> bool {
        let mut last = lock(&self.0.last);
        last.retain(|_, at| at.elapsed() < self.0.interval);
        if last.contains_key(sha256) {
            return false;
        }
        last.insert(sha256.to_owned(), Instant::now());
        true
    }

    fn write(&self, head: &Head, steps: &[Step], number: u64, recorded: &Path) {
        let failure = &head.failure;
        let component = &head.component;
        let path = match self.try_write(head, steps, number) {
            Ok(path) => path,
            Err(error) => {
                let folder = self.0.folder.display();
                tracing::error!(component, %folder, %error, "no crash bundle could be written");
                return;
            }
        };
        tracing::error!(
            component,
            file = %recorded.display(),
            call = failure.call,
            error = failure.text,
            bundle = %path.display(),
            "a component failed; `reelwright format replay` shows it again"
        );
        let start = &head.start;
        self.0.events.send(Event::new(
            "formatCrashed",
            json!({
                "format": start.format, "version": start.version, "sha256": head.sha256,
                "configId": start.config_id, "localStreamName": start.stream,
                "file": recorded.to_string_lossy(), "call": failure.call, "error": failure.text,
                "bundle": path.to_string_lossy(),
            }),
        ));
    }

    fn try_write(&self, head: &Head, steps: &[Step], number: u64) -> std::io::Result<PathBuf> {
        let folder = &self.0.folder;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let text = serde_json::to_vec(head)?;
        if text.len() > MAX_HEAD {
            let message = format!("its head would have {} bytes, at most {MAX_HEAD}", text.len());
            return Err(std::io::Error::other(message));
        }
        let time = jiff::Timestamp::from_microsecond(head.epoch_us).unwrap_or_default();
        let (time, format) = (time.strftime("%Y%m%dT%H%M%SZ"), &head.start.format);
        let name = format!("{time}-{format}-{}-{number}{SUFFIX}", &head.sha256[..8]);
        let (path, new) = (folder.join(&name), folder.join(format!("{name}.new")));
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut out = std::io::BufWriter::new(file);
        out.write_all(MAGIC)?;
        put(&mut out, &text)?;
        for step in steps {
            write_step(&mut out, step)?;
        }
        out.into_inner()?.sync_data()?;
        fs::rename(new, &path)?;
        self.prune()?;
        Ok(path)
    }

    /// Removes the oldest beyond what is kept; their names begin with the time.
    fn prune(&self) -> std::io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                found.push((entry.file_name(), entry.metadata()?.len()));
            }
        }
        found.sort();
        let (mut count, mut bytes) = (found.len(), found.iter().map(|(_, bytes)| bytes).sum::<u64>());
        for (name, size) in found {
            if count <= self.0.kept.max(1) && (bytes <= KEPT_BYTES || count == 1) {
                break;
            }
            fs::remove_file(self.0.folder.join(name))?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// A track in JSON.
#[derive(Serialize, Deserialize)]
struct TrackText {
    id: u32,
    kind: String,
    codec: String,
    config: Vec<u8>,
    properties: Vec<(String, String)>,
}

/// An end in JSON.
#[derive(Serialize, Deserialize)]
struct EndText {
    reason: String,
    tracks: Vec<(u32, i64)>,
}

const SAMPLES: u8 = 1;
const TRACKS: u8 = 2;
const END: u8 = 3;
/// Bytes of a sample without its payload.
const SAMPLE_HEAD: usize = 4 + 8 + 8 + 1 + 4;

fn write_step(out: &mut impl Write, step: &Step) -> std::io::Result<()> {
    let (kind, body) = match step {
        Step::Samples(samples) => {
            let size = samples.iter().map(|sample| SAMPLE_HEAD + sample.data.len()).sum::<usize>();
            out.write_all(&[SAMPLES])?;
            out.write_all(&u32::try_from(size).map_err(std::io::Error::other)?.to_le_bytes())?;
            for sample in samples {
                out.write_all(&sample.track.to_le_bytes())?;
                out.write_all(&sample.dts_ms.to_le_bytes())?;
                out.write_all(&sample.pts_ms.to_le_bytes())?;
                out.write_all(&[u8::from(sample.key) | u8::from(sample.discontinuity) << 1])?;
                put(out, &sample.data)?;
            }
            return Ok(());
        }
        Step::Tracks(tracks) => {
            let text = tracks.iter().map(|track| TrackText {
                id: track.id,
                kind: track.kind.as_str().into(),
                codec: track.codec.clone(),
                config: track.config.to_vec(),
                properties: track.properties.clone(),
            });
            (TRACKS, serde_json::to_vec(&text.collect::<Vec<_>>())?)
        }
        Step::End(end) => {
            let text = EndText { reason: end.reason.into(), tracks: end.tracks.clone() };
            (END, serde_json::to_vec(&text)?)
        }
    };
    out.write_all(&[kind])?;
    put(out, &body)
}

/// A bundle that was read.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub head: Head,
    steps: Vec<Step>,
}

/// What came of running it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It failed in the same way.
    Same { failure: Failure, step: usize },
    /// It failed in another way, or somewhere else.
    Other { failure: Failure, step: usize },
    /// Nothing failed.
    Nothing,
}

impl Bundle {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let io = |error| BundleError::Io { path: path.to_owned(), error };
        let size = fs::metadata(path).map_err(io)?.len();
        if size > MAX_BUNDLE {
            return Err(BundleError::Malformed(format!("it has {size} bytes, at most {MAX_BUNDLE}")));
        }
        Self::parse(fs::read(path).map_err(io)?.into()).map_err(BundleError::Malformed)
    }

    fn parse(mut file: Bytes) -> Result<Self, String> {
        if !file.starts_with(MAGIC) {
            return Err("it begins otherwise".into());
        }
        file.advance(MAGIC.len());
        let head = take(&mut file).ok_or("its head is cut off")?;
        let head: Head = serde_json::from_slice(&head).map_err(|error| format!("its head: {error}"))?;
        if head.sha256.len() != 64 || !head.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("its component's sha256 is none".into());
        }
        let mut steps = Vec::new();
        while !file.is_empty() {
            let number = steps.len();
            let kind = file.get_u8();
            let body = take(&mut file).ok_or_else(|| format!("step {number} is cut off"))?;
            let step = match kind {
                SAMPLES => samples(body).map(Step::Samples),
                TRACKS => serde_json::from_slice::<Vec<TrackText>>(&body)
                    .ok()
                    .and_then(|tracks| tracks.into_iter().map(track).collect())
                    .map(Step::Tracks),
                END => serde_json::from_slice::<EndText>(&body).ok().map(end).map(Step::End),
                _ => None,
            };
            steps.push(step.ok_or_else(|| format!("step {number} is none"))?);
        }
        Ok(Self { head, steps })
    }

    /// Steps that the writer was asked for after `open`.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The component's bytes, from the first place that has them, and that place: the binary, the store of
    /// components below the data folder, the formats folder.
    pub fn find_component(&self, data: &Path, formats: Option<&Path>) -> Option<(Vec<u8>, Option<PathBuf>)> {
        let sha256 = &self.head.sha256;
        let is_it = |wasm: &&[u8]| hex(&Sha256::digest(wasm)) == *sha256;
        if let Some(wasm) = EMBEDDED.iter().map(|(_, wasm)| *wasm).find(is_it) {
            return Some((wasm.to_vec(), None));
        }
        let in_store = data.join("formats").join(format!("{sha256}.wasm"));
        let in_folder = formats.and_then(|folder| fs::read_dir(folder).ok());
        let in_folder = in_folder.into_iter().flatten().flatten().map(|entry| entry.path());
        let in_folder = in_folder.filter(|path| path.extension().is_some_and(|e| e == "wasm"));
        std::iter::once(in_store).chain(in_folder).find_map(|path| {
            let size = fs::metadata(&path).ok()?.len();
            let wasm = (size <= MAX_COMPONENT).then(|| fs::read(&path).ok())??;
            (hex(&Sha256::digest(&wasm)) == *sha256).then_some((wasm, Some(path)))
        })
    }

    /// Compiles a component under the limits that held.
    pub async fn load(&self, wasm: Vec<u8>, file: Option<PathBuf>) -> Result<Version, LoadError> {
        let engine = Engine::new().map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        let limits = Limits::of_values(&self.head.limits).map_err(LoadError::Manifest)?;
        Version::load(&engine, &Cache::none(), &Arc::new(limits), wasm, file).await
    }

    /// Does the steps again, in a folder of its own below the system's for such, which is removed.
    pub async fn replay(&self, version: Arc<Version>) -> Result<Replayed, BundleError> {
        let scratch = Scratch::new()?;
        let disk = Disk::new(Roots::open(&scratch.0, &[])?, None);
        let folder = disk.roots.resolve("x")?.folder;
        let name = format!("x.{}", version.manifest.extension);
        let segment = Segment::claim(&disk, &folder, std::iter::once(name), false).await?;
        let failed = |error: FormatError, step| {
            let failure = Failure::new(error.call, &error.cause);
            match failure.is_same(&self.head.failure) && step == self.steps.len() {
                true => Replayed::Same { failure, step },
                false => Replayed::Other { failure, step },
            }
        };
        let Some(begin) = self.begin() else {
            return Err(BundleError::Malformed("a track is of no known kind".into()));
        };
        let mut writer = match Writer::open(version, segment, begin).await {
            Ok(writer) => writer,
            Err(error) => return Ok(failed(error, 0)),
        };
        for (i, step) in self.steps.iter().enumerate() {
            let result = match step {
                Step::Samples(samples) => writer.write(samples).await,
                Step::Tracks(tracks) => writer.update_tracks(tracks).await.map(drop),
                Step::End(end) => {
                    return Ok(match writer.finish(end.clone()).await {
                        Ok(closing) => {
                            // The file is nobody's.
                            drop(closing);
                            Replayed::Nothing
                        }
                        Err(error) => failed(error.error, i + 1),
                    });
                }
            };
            if let Err(error) = result {
                drop(writer.abandon().await);
                return Ok(failed(error, i + 1));
            }
        }
        drop(writer.abandon().await);
        Ok(Replayed::Nothing)
    }

    /// The call of a step, counted from 1; 0 is `open`.
    pub fn call_of(&self, step: usize) -> &'static str {
        step.checked_sub(1).and_then(|i| self.steps.get(i)).map_or("open", Step::call)
    }

    fn begin(&self) -> Option<Begin> {
        let start = &self.head.start;
        let tracks = start.tracks.iter().map(|t| {
            track(TrackText {
                id: t.id,
                kind: t.kind.clone(),
                codec: t.codec.clone(),
                config: t.config.clone(),
                properties: t.properties.clone(),
            })
        });
        Some(Begin {
            segment: start.segment,
            epoch_us: start.epoch_us,
            origin_ms: start.origin_ms,
            head_room: start.head_room,
            manifest: false,
            config_id: start.config_id,
            stream: start.stream.clone(),
            whose: start.whose.clone(),
            tracks: tracks.collect::<Option<_>>()?,
            options: start.options.clone(),
            carry: start.carry.clone(),
        })
    }
}

/// The bytes behind a length.
fn take(file: &mut Bytes) -> Option<Bytes> {
    let length = file.try_get_u32_le().ok()?;
    let length = usize::try_from(length).ok().filter(|length| *length <= file.len())?;
    Some(file.split_to(length))
}

fn samples(mut body: Bytes) -> Option<Vec<Sample>> {
    let mut samples = Vec::new();
    while !body.is_empty() {
        let (track, dts_ms) = (body.try_get_u32_le().ok()?, body.try_get_i64_le().ok()?);
        let (pts_ms, bits) = (body.try_get_i64_le().ok()?, body.try_get_u8().ok()?);
        let (key, discontinuity) = (bits & 1 != 0, bits & 2 != 0);
        let data = take(&mut body).filter(|data| data.len() <= 8 << 20)?;
        samples.push(Sample { track, dts_ms, pts_ms, key, discontinuity, data });
    }
    Some(samples)
}

fn track(text: TrackText) -> Option<Track> {
    let TrackText { id, kind, codec, config, properties } = text;
    let kind = [Kind::Video, Kind::Audio].into_iter().find(|known| known.as_str() == kind)?;
    Some(Track { id, kind, codec, config: config.into(), properties })
}

fn end(text: EndText) -> End {
    const REASONS: [&str; 7] =
        ["cut", "stopped", "stream-ended", "error", "disk", "max-duration", "max-size"];
    let reason = REASONS.into_iter().find(|reason| *reason == text.reason).unwrap_or("stopped");
    End { reason, tracks: text.tracks }
}

/// A folder that goes when this does.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("reelwright-replay-{}-{}", std::process::id(), LAST.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(bytes: usize) -> Sample {
        Sample {
            track: 1,
            dts_ms: -40,
            pts_ms: 40,
            key: true,
            discontinuity: true,
            data: vec![7; bytes].into(),
        }
    }

    fn head(n: usize) -> Head {
        Head {
            server: "0".into(),
            epoch_us: 1_700_000_000_000_000 + n as i64 * 1_000_000,
            component: "raw 1".into(),
            sha256: format!("{n:064x}"),
            start: journal::Start { format: "raw".into(), ..journal::Start::default() },
            limits: Limits::default().values(),
            failure: Failure::new("write", &Cause::Trap("it fell".into())),
            backtrace: None,
            memory: 0,
            host_calls: vec![HostCall::new("append", "", &[0, 11, 3], Ok(4096)).to_string()],
            more_host_calls: 0,
            log: vec![(0, "panicked".into())],
            complete: true,
            more_steps: 0,
        }
    }

    fn bundles(dir: &Path, kept: usize) -> Bundles {
        Bundles::new(dir.join("crashes"), kept, Events::default())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let tracks = vec![Track {
            id: 2,
            kind: Kind::Audio,
            codec: "mp4a".into(),
            config: vec![1, 2].into(),
            properties: vec![("a".into(), "b".into())],
        }];
        let steps = vec![
            Step::Samples(vec![sample(3), sample(0)]),
            Step::Tracks(tracks),
            Step::End(End { reason: "stream-ended", tracks: vec![(2, 77)] }),
        ];
        let path = bundles(dir.path(), 9).try_write(&head(1), &steps, 0).unwrap();
        let bundle = Bundle::read(&path).unwrap();
        assert_eq!(bundle.steps, steps);
        assert_eq!(bundle.head.host_calls, ["append(0, 11, 3) = 4096"]);
        assert_eq!((bundle.call_of(0), bundle.call_of(1), bundle.call_of(3)), ("open", "write", "finish"));
        let bytes = fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            // Cut between two steps it is a bundle with fewer.
            let cut = Bundle::parse(Bytes::copy_from_slice(&bytes[..len]));
            assert!(cut.is_err() || cut.is_ok_and(|bundle| bundle.steps.len() < steps.len()), "{len}");
        }
    }

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = bundles(dir.path(), 3);
        let paths: Vec<_> = (0..5).map(|n| bundles.try_write(&head(n), &[], n as u64).unwrap()).collect();
        let there: Vec<_> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(there, [false, false, true, true, true]);
        assert!(bundles.may_leave("a") && bundles.may_leave("b") && !bundles.may_leave("a"));
    }

    #[test]
    fn the_newest_steps_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = bundles(dir.path(), 3);
        let mut recent = bundles.recent();
        for _ in 0..MAX_STEPS + 5 {
            recent.push(Step::Samples(vec![sample(10)]));
        }
        assert_eq!((recent.steps.len(), recent.forgotten), (MAX_STEPS, 5));
        recent.push(Step::Samples(vec![sample(MAX_BYTES as usize)]));
        assert_eq!((recent.steps.len(), recent.bytes), (1, MAX_BYTES));
        let many: Vec<_> = (0..1000).map(|_| bundles.recent()).collect();
        recent.push(Step::Samples(vec![sample(MIN_BYTES as usize / 2 + 1)]));
        recent.push(Step::Samples(vec![sample(MIN_BYTES as usize / 2)]));
        assert_eq!(recent.steps.len(), 1, "many writers share the memory");
        drop(many);
        recent.push(Step::Samples(vec![sample(MIN_BYTES as usize / 2 + 1)]));
        assert_eq!(recent.steps.len(), 2);
    }
}
