//! The formats that can be recorded: those in the binary, those that operators load, those in the formats folder.
//!
//! Every component goes the same way, whoever brings it: it is checked and compiled ([`Version::load`]), kept by its
//! hash (`vault`), tried on a sample stream (`probe`), and only then one of the versions of its format (`lineup`) that
//! may write. A change of the active version is one exchange of a pointer: segments that run keep theirs.
//!
//! The folder is looked at each second, so that it may lie where nothing tells of changes; no recording waits for that. A
//! file that is new or changed takes over as by `swapFormat mode=drain`; when it is gone, the version before it comes
//! back. What an operator changed since is left alone, also over a restart.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    Engine, FormatError, LoadError, Version,
    cache::Cache,
    compile::{CompileError, Urgency},
    intake,
    limits::Limits,
    lineup::{Kept, Lineup, LineupError, Member, Mode, Source, Stage, Swap, prefix_of, short},
    meters::Snapshot,
    probe::{self, ProbeError},
    signature,
    trial::{Terms, Trial, Verdict},
    vault::{Registry, Vault},
};
use crate::{
    events::{Event, Events},
    output::hex,
    sync::lock,
    wall_clock,
};

/// The components in the binary.
pub(super) const EMBEDDED: [(&str, &[u8]); 3] = [
    ("flv", include_bytes!(concat!(env!("OUT_DIR"), "/flv.wasm"))),
    ("mp4", include_bytes!(concat!(env!("OUT_DIR"), "/mp4.wasm"))),
    ("ts", include_bytes!(concat!(env!("OUT_DIR"), "/ts.wasm"))),
];
/// The format that is written when nothing else can be.
const LAST_RESORT: &str = "flv";
/// Components that are being loaded at once.
const MAX_LOADING: usize = 16;
/// Recordings that end their segments in the same moment for a version that is to write at once.
const SWAPS_AT_ONCE: usize = 2;
/// Swaps of a format that are remembered.
const REMEMBERED: usize = 64;
/// A file that is damaged and younger than this may still be on its way.
const SETTLING: Duration = Duration::from_secs(2);

/// All formats. Clones share them.
#[derive(Clone, Debug)]
pub struct Formats(Arc<Inner>);

/// Where formats come from, and what they may.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Folder of the cache of compiled components; `None`: there is none.
    pub cache: Option<PathBuf>,
    /// Folder of loaded components and their states; `None`: nothing outlives the process.
    pub store: Option<PathBuf>,
    /// The formats folder.
    pub folder: Option<PathBuf>,
    pub limits: Limits,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    cache: Cache,
    limits: Arc<Limits>,
    vault: Arc<Vault>,
    embedded: Vec<Arc<Version>>,
    formats: RwLock<BTreeMap<String, Format>>,
    /// Components on their way, by hash.
    loading: Mutex<BTreeMap<String, Loading>>,
    folder: Option<PathBuf>,
    files: tokio::sync::Mutex<Files>,
    /// One at a time loads what is missing.
    restoring: tokio::sync::Mutex<()>,
    /// Versions of which was said that they can't be loaded for now.
    late: Mutex<BTreeSet<String>>,
    /// One write of the registry at a time.
    keeping: tokio::sync::Mutex<()>,
    /// Of the folder, as the registry has it.
    taken: Mutex<BTreeMap<PathBuf, String>>,
    changed: watch::Sender<u64>,
    swapping: Arc<Semaphore>,
    events: OnceLock<Events>,
}

/// A format: its versions, and what became of them.
#[derive(Debug, Default)]
struct Format {
    lineup: Lineup<Arc<Version>>,
    /// The latest last.
    swaps: VecDeque<Swap>,
    /// Of the canary, if there is one.
    trial: Option<Trial>,
}

/// What the last look at the folder found.
#[derive(Debug, Default)]
struct Files {
    /// What was taken, or refused for good.
    seen: BTreeMap<PathBuf, Stamp>,
    /// What could not be taken for a reason that may pass.
    later: BTreeMap<PathBuf, (Stamp, Later)>,
    /// What can't be looked at, so that it is said once.
    hidden: BTreeSet<PathBuf>,
}

/// Changes when a file is written or replaced.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// When something that failed is tried again.
#[derive(Clone, Copy, Debug)]
struct Later {
    at: Instant,
    wait: Duration,
}

impl Later {
    const FIRST: Duration = Duration::from_secs(1);
    const LAST: Duration = Duration::from_secs(60);

    fn first() -> Self {
        Self { at: Instant::now() + Self::FIRST, wait: Self::FIRST }
    }

    fn next(self) -> Self {
        let wait = (self.wait * 2).min(Self::LAST);
        Self { at: Instant::now() + wait, wait }
    }
}

type Outcome = Result<Arc<Version>, Arc<ChangeError>>;

/// A component on its way.
#[derive(Clone, Debug)]
pub struct Loading {
    pub sha256: String,
    /// Known when it has been compiled.
    version: watch::Receiver<Option<Arc<Version>>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Loading {
    /// Waits until it has passed its probe, or has not.
    pub async fn outcome(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited for"),
            Err(_) => Err(Arc::new(ChangeError::Lost)),
        }
    }

    /// What it is, if that is known yet.
    pub fn version(&self) -> Option<Arc<Version>> {
        self.version.borrow().clone()
    }
}

/// Why formats are not changed as somebody wants them to be.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Lineup(#[from] LineupError),
    #[error("there is no format `{0}`")]
    NoFormat(String),
    #[error("it is format `{found}`, not `{expected}`")]
    OtherFormat { expected: String, found: String },
    #[error("its sha256 is {found}, not {expected}")]
    OtherHash { expected: String, found: String },
    #[error("{MAX_LOADING} components are being loaded already")]
    Busy,
    #[error("it can't be kept: {0}")]
    Keep(std::io::Error),
    #[error("{} in the formats folder has it; remove that, and it goes", .0.display())]
    InFolder(PathBuf),
    #[error("format `{0}` has no version that writes, to compare it with")]
    NoActive(String),
    #[error("loading it was broken off")]
    Lost,
}

/// A version, as lists show it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub format: String,
    pub version: String,
    pub sha256: String,
    /// `staged`, `probed`, `failed`, `canary`, `active`, `draining`, `retired`; `missing` if it can't be loaded for now.
    pub state: &'static str,
    /// Why it failed, or was the canary no longer.
    pub reason: Option<String>,
    /// Files of it that are being written.
    pub recordings: u64,
    pub source: Source,
    /// Since when it is in that state, in microseconds since 1970.
    pub since_us: i64,
    pub pinned: bool,
    pub rolled_back: bool,
    pub code: Option<Arc<Version>>,
}

impl Formats {
    /// The formats in the binary and in a folder. `data` gets the cache of compiled components, if there is to be one.
    /// Nothing else outlives the process.
    pub async fn open(
        engine: Engine,
        data: Option<&Path>,
        folder: Option<PathBuf>,
        limits: Limits,
    ) -> Result<Self, LoadError> {
        let cache = data.map(|data| data.join("components"));
        let formats = Self::open_with(engine, Settings { cache, folder, limits, store: None }).await?;
        formats.settle(Duration::MAX).await;
        Ok(formats)
    }

    /// The versions that are to write, as these settings give them: the embedded ones, and those that were active before.
    /// The rest, and the folder, come with [`Formats::settle`].
    pub async fn open_with(engine: Engine, settings: Settings) -> Result<Self, LoadError> {
        let Settings { cache, store, folder, limits } = settings;
        let cache = match cache {
            Some(folder) => Cache::open(&folder)?,
            None => Cache::none(),
        };
        let limits = Arc::new(limits);
        let mut embedded = Vec::new();
        for (_, wasm) in EMBEDDED {
            let version = Version::load(&engine, &cache, &limits, wasm.to_vec(), None).await?;
            embedded.push(Arc::new(version));
        }
        let vault = Arc::new(Vault::open(store.as_deref())?);
        let registry = vault.registry()?;
        if store.is_some() {
            let mut named: BTreeSet<String> = registry.folder.values().cloned().collect();
            let members = registry.formats.values().flat_map(|kept| &kept.members);
            named.extend(members.filter(|m| !matches!(m.stage, Stage::Failed(_))).map(|m| m.sha256.clone()));
            named.extend(embedded.iter().map(|version| version.sha256.clone()));
            if let Err(error) = vault.sweep(&named).and_then(|()| cache.sweep(&engine, &named)) {
                tracing::warn!(%error, "what is left of former versions can't be removed");
            }
        }
        let formats = Self(Arc::new(Inner {
            engine,
            cache,
            limits,
            vault,
            embedded,
            formats: RwLock::default(),
            loading: Mutex::default(),
            folder,
            files: tokio::sync::Mutex::default(),
            restoring: tokio::sync::Mutex::default(),
            late: Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            taken: Mutex::new(registry.folder.clone()),
            changed: watch::Sender::new(0),
            swapping: Arc::new(Semaphore::new(SWAPS_AT_ONCE)),
            events: OnceLock::new(),
        }));
        formats.restore(registry);
        formats.load_missing(Urgency::Start).await;
        for version in formats.list() {
            tracing::info!(format = version.label(), "format");
        }
        formats.keep().await;
        Ok(formats)
    }

    /// Loads the versions that do not write, and takes what is in the folder. That is waited for so long, then it goes on
    /// by itself.
    pub async fn settle(&self, limit: Duration) {
        let formats = self.clone();
        let settled = tokio::spawn(async move {
            formats.load_missing(Urgency::Idle).await;
            formats.refresh().await;
        });
        if tokio::time::timeout(limit, settled).await.is_err() {
            tracing::warn!("versions of before, or of the formats folder, are still being loaded");
        }
    }

    /// From here on `formatSwapped` and `formatFailed` tell what becomes of formats. Once.
    pub fn tell(&self, events: Events) {
        let _ = self.0.events.set(events);
    }

    /// The component that writes a format now.
    pub fn get(&self, name: &str) -> Option<Arc<Version>> {
        self.read(|formats| formats.get(name)?.lineup.active()?.code.clone())
    }

    /// Counts the changes of active versions.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// How a segment of a version has to end for the active one to take over; `None`: it does not.
    pub fn due(&self, name: &str, sha256: &str) -> Option<Mode> {
        self.read(|formats| {
            let lineup = &formats.get(name)?.lineup;
            let due = lineup.mode != Mode::Drain && lineup.active()?.sha256 != sha256;
            due.then_some(lineup.mode)
        })
    }

    /// A recording's turn to end its segment in the middle for a version that is to write at once, unless it is others'.
    pub fn turn_to_swap(&self) -> Option<OwnedSemaphorePermit> {
        self.0.swapping.clone().try_acquire_owned().ok()
    }

    /// Who may write in place of a version, best first: those that were active before, then the embedded one.
    pub fn fallbacks(&self, name: &str, sha256: &str) -> Vec<Arc<Version>> {
        self.read(|formats| {
            formats.get(name).map(|format| format.lineup.fallbacks(sha256)).unwrap_or_default()
        })
    }

    /// What is written when nothing else can be.
    pub fn last_resort(&self) -> Arc<Version> {
        let embedded = self.0.embedded.iter().find(|version| version.manifest.format == LAST_RESORT);
        embedded.expect("it is in the binary").clone()
    }

    /// The components that may know how to finish a segment, best first: the one that wrote it, the one that
    /// writes its format now, those before it, the embedded one.
    pub fn for_repair(&self, format: &str, sha256: &str) -> Vec<Arc<Version>> {
        let all: Vec<(bool, Arc<Version>)> = self.read(|formats| {
            let members = formats.values().flat_map(|format| format.lineup.members());
            let loaded = members.filter_map(|m| Some((m.stage == Stage::Active, m.code.clone()?)));
            loaded.chain(self.0.embedded.iter().map(|version| (false, version.clone()))).collect()
        });
        let writer = all.iter().filter(|(_, v)| v.sha256 == sha256);
        let active = all.iter().filter(|(active, v)| *active && v.manifest.format == format);
        let before = self.fallbacks(format, sha256);
        let embedded = self.0.embedded.iter().filter(|v| v.manifest.format == format);
        let mut found: Vec<Arc<Version>> = Vec::new();
        for version in writer.chain(active).map(|(_, v)| v).chain(&before).chain(embedded) {
            if found.iter().all(|v| v.sha256 != version.sha256) {
                found.push(version.clone());
            }
        }
        found
    }

    /// All components that write, by format.
    pub fn list(&self) -> Vec<Arc<Version>> {
        self.read(|formats| {
            formats.values().filter_map(|format| format.lineup.active()?.code.clone()).collect()
        })
    }

    /// All versions of all formats, or of one.
    pub fn versions(&self, name: Option<&str>) -> Vec<Listed> {
        self.read(|formats| {
            let wanted = formats.iter().filter(|(format, _)| name.is_none_or(|name| name == *format));
            let listed = wanted.flat_map(|(name, Format { lineup, .. })| {
                lineup.members().into_iter().map(|member| listed(name, lineup, member))
            });
            listed.collect()
        })
    }

    /// What became of a format, the latest last.
    pub fn swaps(&self, name: &str) -> Vec<Swap> {
        self.read(|formats| formats.get(name).map(|f| f.swaps.iter().cloned().collect()).unwrap_or_default())
    }

    /// What is counted of components as they are loaded.
    pub fn loading(&self) -> Snapshot {
        self.0.engine.loading().snapshot()
    }

    /// The formats folder.
    pub fn folder(&self) -> Option<&Path> {
        self.0.folder.as_deref()
    }

    /// A component of the binary.
    pub fn embedded(name: &str) -> Option<&'static [u8]> {
        EMBEDDED.iter().find(|(format, _)| *format == name).map(|(_, wasm)| *wasm)
    }

    /// Looks at the folder, if there is one, each second, for ever, and loads again what is missing.
    pub async fn watch(&self) {
        let folder = async {
            while self.0.folder.is_some() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.refresh().await;
            }
        };
        let missing = async {
            let mut later = Later::first();
            while self.is_any_missing() {
                tokio::time::sleep(later.wait).await;
                self.load_missing(Urgency::Idle).await;
                later = later.next();
            }
        };
        tokio::join!(folder, missing);
    }

    /// Looks each second, for ever, whether past versions that are too many have closed their last file. Not to be begun
    /// before what a crash has left is repaired, which may need them.
    pub async fn tidy(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.trim_all().await;
        }
    }

    /// Looks at the folder and takes what changed, which takes as long as compiling and probes do. Returns at once if
    /// somebody is just doing that.
    pub async fn refresh(&self) {
        let Some(folder) = self.0.folder.clone() else { return };
        let Ok(mut files) = self.0.files.try_lock() else { return };
        let path = folder.clone();
        let there = tokio::task::spawn_blocking(move || scan(&path)).await;
        let there = match there.map_err(std::io::Error::other).and_then(|there| there) {
            Ok(there) => there,
            Err(error) => {
                if files.hidden.insert(folder.clone()) {
                    tracing::warn!(folder = %folder.display(), %error,
                        "the formats folder can't be read; what was taken from it stays");
                }
                return;
            }
        };
        files.hidden.retain(|path| there.contains_key(path));
        files.seen.retain(|path, _| there.contains_key(path));
        files.later.retain(|path, _| there.contains_key(path));
        let mut is_changed = false;
        for (path, found) in &there {
            match found {
                Ok(stamp) => is_changed |= self.look_at_file(&mut files, path, *stamp).await,
                Err(error) => {
                    if files.hidden.insert(path.clone()) {
                        tracing::warn!(file = %path.display(), %error,
                            "a file of the formats folder can't be looked at; what was taken from it stays");
                    }
                }
            }
        }
        // After what is new, so that a file that was only renamed leaves no format without a version.
        let gone: Vec<PathBuf> = {
            let taken = lock(&self.0.taken);
            taken.keys().filter(|path| !there.contains_key(*path)).cloned().collect()
        };
        for path in &gone {
            self.file_is_gone(path);
        }
        if is_changed || !gone.is_empty() {
            self.keep().await;
        }
    }

    /// Takes a file of the folder if it is new or changed. Returns whether anything may have changed.
    async fn look_at_file(&self, files: &mut Files, path: &Path, stamp: Stamp) -> bool {
        files.hidden.remove(path);
        let later = files.later.get(path).filter(|(its, _)| *its == stamp).map(|(_, later)| *later);
        if files.seen.get(path) == Some(&stamp) || later.is_some_and(|later| later.at > Instant::now()) {
            return false;
        }
        let path = path.to_owned();
        match self.take_file(&path).await {
            Err(_) if stamp.is_young() => {}
            Err(error) if error.may_pass() => {
                if later.is_none() {
                    self.tell_not_taken(&path, &error);
                }
                files.later.insert(path, (stamp, later.map_or_else(Later::first, Later::next)));
            }
            result => {
                if let Err(error) = result {
                    self.tell_not_taken(&path, &error);
                }
                files.later.remove(&path);
                files.seen.insert(path, stamp);
            }
        }
        true
    }

    /// Loads a component from a file, without taking it into use.
    pub async fn load(&self, path: &Path) -> Result<Version, LoadError> {
        let wasm = read_file(path.to_owned()).await?;
        self.load_bytes(wasm, Some(path.to_owned())).await
    }

    /// Begins to load a component, which then has to pass its probe. A format and a hash that it has to have are
    /// checked; of a hash, 8 digits will do.
    pub fn stage(
        &self,
        wasm: Vec<u8>,
        source: Source,
        format: Option<String>,
        sha256: Option<&str>,
    ) -> Result<Loading, ChangeError> {
        let found = hex(&Sha256::digest(&wasm));
        if let Some(expected) = sha256 {
            let expected = prefix_of(expected)?;
            if !found.starts_with(&expected) {
                return Err(ChangeError::OtherHash { expected, found });
            }
        }
        let formats = self.clone();
        let (is_file, from) = (matches!(source, Source::Folder(_)), source.to_text());
        self.begin(found.clone(), MAX_LOADING, async move |told| {
            let admitted = formats.admit(&found, wasm, source, format, &told).await;
            if let Err(error) = &admitted
                && !is_file
            {
                tracing::error!(sha256 = short(&found), %error, "component not taken");
                let payload = json!({ "file": from, "sha256": found, "error": error.to_string() });
                formats.send(Event::new("formatFailed", payload));
            }
            formats.keep().await;
            admitted
        })
    }

    /// Brings a component on its way, unless it is, or `most` are.
    fn begin<W, F>(&self, sha256: String, most: usize, work: W) -> Result<Loading, ChangeError>
    where
        W: FnOnce(watch::Sender<Option<Arc<Version>>>) -> F,
        F: Future<Output = Result<Arc<Version>, ChangeError>> + Send + 'static,
    {
        let mut loading = lock(&self.0.loading);
        if let Some(known) = loading.get(&sha256) {
            return Ok(known.clone());
        }
        if loading.len() >= most {
            return Err(ChangeError::Busy);
        }
        let (tell_version, version) = watch::channel(None);
        let (tell_outcome, outcome) = watch::channel(None);
        let begun = Loading { sha256: sha256.clone(), version, outcome };
        loading.insert(sha256.clone(), begun.clone());
        drop(loading);
        let under_way = UnderWay { formats: self.clone(), sha256, tell_outcome };
        let work = work(tell_version);
        tokio::spawn(async move {
            let outcome = work.await;
            let tell_outcome = under_way.tell_outcome.clone();
            drop(under_way);
            tell_outcome.send_replace(Some(outcome.map_err(Arc::new)));
        });
        Ok(begun)
    }

    /// Makes a version the active one. One that is still being loaded is waited for.
    pub async fn swap(&self, name: &str, sha256: &str, mode: Mode) -> Result<Swap, Arc<ChangeError>> {
        let found = self.awaited(name, sha256).await?;
        self.change(name, |lineup, now_us| lineup.activate(&found, mode, "asked for", now_us)).await
    }

    /// Has a version write beside the active one for some recordings, to take over when it has proved itself there.
    pub async fn try_beside(
        &self,
        name: &str,
        sha256: &str,
        terms: Terms,
    ) -> Result<Arc<Version>, Arc<ChangeError>> {
        let found = self.awaited(name, sha256).await?;
        let result = self.write_format(name, |format, now_us| {
            if format.lineup.active().is_none() {
                return Err(ChangeError::NoActive(name.into()));
            }
            format.lineup.try_out(&found, now_us)?;
            format.trial = Some(Trial::new(terms));
            let canary = format.lineup.canary().and_then(|canary| canary.code.clone());
            Ok((None, canary.ok_or(LineupError::Unknown(found))?))
        });
        let canary = result.map_err(Arc::new)?;
        tracing::info!(format = canary.label(), "canary begins");
        self.0.changed.send_modify(|changes| *changes += 1);
        self.keep().await;
        Ok(canary)
    }

    /// A seat for a recording in the trial of a format's canary, if there is one for it.
    pub fn seat(&self, name: &str, config_id: u64, stream: &str) -> Option<Seat> {
        let is_trial = self.read(|formats| formats.get(name).is_some_and(|format| format.trial.is_some()));
        if !is_trial {
            return None;
        }
        let mut formats = self.0.write();
        let format = formats.get_mut(name)?;
        let canary = format.lineup.canary()?.code.clone()?;
        let active = format.lineup.active()?.code.clone()?;
        let sits = format.trial.as_mut()?.sit(config_id, stream);
        sits.then(|| Seat { formats: self.clone(), config_id, canary, active })
    }

    /// What a format's canary is to show, and how far each recording in its trial is, in milliseconds.
    pub fn trial(&self, name: &str) -> Option<(Terms, Vec<(u64, u64)>)> {
        self.read(|formats| {
            let trial = formats.get(name)?.trial.as_ref()?;
            Some((trial.terms.clone(), trial.seats().collect()))
        })
    }

    /// Notes something in a trial that samples have shown which the recording wrote then, and does what follows. `false`:
    /// the trial is over.
    fn judge(&self, seat: &Seat, written: Instant, note: impl FnOnce(&mut Trial) -> &Verdict) -> bool {
        let name = &seat.canary.manifest.format;
        let judged = self.write_format(name, |format, now_us| {
            let sha256 = &seat.canary.sha256;
            let is_canary = format.lineup.canary().is_some_and(|canary| canary.sha256 == *sha256);
            let is_active = format.lineup.active().is_some_and(|active| active.sha256 == seat.active.sha256);
            let Some(trial) = format.trial.as_mut().filter(|_| is_canary && is_active) else {
                return Ok((None, Verdict::Passed));
            };
            let (verdict, mode) = (note(trial).clone(), trial.terms.mode);
            let swap = match &verdict {
                Verdict::Open => return Ok((None, verdict)),
                Verdict::Passed => {
                    match format.lineup.activate(sha256, mode, "it proved itself as a canary", now_us) {
                        Ok(swap) => Some(swap),
                        Err(error) => {
                            tracing::error!(format = seat.canary.label(), %error, "canary can't take over");
                            format.lineup.end_canary(&format!("it could not take over: {error}"), now_us);
                            None
                        }
                    }
                }
                Verdict::Out(why) => {
                    format.lineup.fail_canary(sha256, why, now_us);
                    None
                }
            };
            format.trial = None;
            Ok((swap, verdict))
        });
        match judged {
            Ok(Verdict::Open) => return true,
            Ok(Verdict::Out(why)) => {
                let after_ms = u64::try_from(written.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::error!(
                    format = seat.canary.label(),
                    config_id = seat.config_id,
                    why,
                    after_ms,
                    "canary is out"
                );
                let payload = json!({
                    "format": name, "canary": true, "configId": seat.config_id, "error": why,
                    "failed": about(&seat.canary), "kept": about(&seat.active), "afterMs": after_ms,
                });
                self.send(Event::new("formatFailed", payload));
                self.0.changed.send_modify(|changes| *changes += 1);
            }
            Ok(Verdict::Passed) => {}
            Err(error) => tracing::error!(format = seat.canary.label(), %error, "a trial is not judged"),
        }
        let formats = self.clone();
        tokio::spawn(async move { formats.keep().await });
        false
    }

    /// Goes back to the version that was active before.
    pub async fn roll_back(&self, name: &str, mode: Mode) -> Result<Swap, Arc<ChangeError>> {
        self.change(name, |lineup, now_us| lineup.roll_back(mode, "rolled back", now_us)).await
    }

    /// Takes a version away, or the active one, if no hash is given: then the one before takes over, if there is one.
    pub async fn unload(&self, name: &str, sha256: Option<&str>) -> Result<String, Arc<ChangeError>> {
        let unloaded = self.write(name, |lineup, now_us| {
            let sha256 = match sha256 {
                Some(prefix) => lineup.find(prefix)?.sha256.clone(),
                None => lineup.chosen().ok_or(LineupError::NoPast)?.sha256.clone(),
            };
            let member = lineup.get(&sha256).ok_or_else(|| LineupError::Unknown(sha256.clone()))?;
            let is_active = member.stage == Stage::Active;
            if member.source == Source::Embedded {
                return Err(LineupError::Embedded.into());
            }
            if let Some(file) = self.0.in_folder(&sha256) {
                return Err(ChangeError::InFolder(file));
            }
            if let Some(pin) = lineup.pin.clone().filter(|pin| *pin == sha256) {
                return Err(LineupError::Pinned(pin).into());
            }
            let swap = is_active.then(|| lineup.leave(Mode::Drain, "unloaded", now_us));
            lineup.end_canary_of(&sha256, "it is unloaded", now_us);
            lineup.remove(&sha256)?;
            Ok((swap, sha256))
        });
        let sha256 = unloaded.map_err(Arc::new)?;
        self.0.vault.remove(&sha256);
        self.keep().await;
        Ok(sha256)
    }

    /// Keeps a format at a version, which becomes active if it is not; or lets it go.
    pub async fn pin(
        &self,
        name: &str,
        sha256: Option<&str>,
        pinned: bool,
    ) -> Result<Option<String>, Arc<ChangeError>> {
        let wanted = match sha256 {
            Some(sha256) => Some(self.awaited(name, sha256).await?),
            None => None,
        };
        let changed = self.write(name, |lineup, now_us| {
            let mut swap = None;
            let before = lineup.pin.take();
            if let Some(wanted) = wanted.filter(|_| pinned)
                && lineup.chosen().is_none_or(|active| active.sha256 != wanted)
            {
                match lineup.activate(&wanted, Mode::Drain, "pinned", now_us) {
                    Ok(done) => swap = Some(done),
                    Err(error) => {
                        lineup.pin = before;
                        return Err(error.into());
                    }
                }
            }
            lineup.pin(pinned, now_us);
            Ok((swap, lineup.pin.clone()))
        });
        let pin = changed.map_err(Arc::new)?;
        self.keep().await;
        Ok(pin)
    }

    /// A writer of a version failed by its own fault. When that happens again and again, the version before takes over.
    pub fn failed(&self, version: &Arc<Version>, config_id: u64, error: &FormatError) {
        version.meters.failover();
        let name = &version.manifest.format;
        let payload = json!({
            "format": name, "configId": config_id, "error": error.to_string(), "failed": about(version),
        });
        self.send(Event::new("formatFailed", payload).of(config_id));
        let rolled_back = self.write(name, |lineup, now_us| {
            let out = lineup.strike(&version.sha256, now_us);
            let reason = format!("it failed again and again; the last time: {error}");
            let swap = out.then(|| lineup.roll_back(Mode::NextChunk, &reason, now_us)).transpose()?;
            Ok((swap, out))
        });
        if matches!(rolled_back, Ok(true)) {
            version.recall();
            let formats = self.clone();
            tokio::spawn(async move { formats.keep().await });
        }
    }

    /// Makes lineups of what was kept and what is in the binary. What is not in the binary is still to be loaded.
    fn restore(&self, registry: Registry) {
        let now_us = wall_clock::epoch_us();
        let names = self.0.embedded.iter().map(|version| version.manifest.format.clone());
        let names: BTreeSet<_> = names.chain(registry.formats.keys().cloned()).collect();
        let mut kept = registry.formats;
        let mut formats = self.0.write();
        for name in names {
            let embedded = self.0.embedded.iter().find(|version| version.manifest.format == name);
            let embedded = embedded.map(|version| member(version, Source::Embedded, now_us));
            let kept = kept.remove(&name).unwrap_or_default();
            let trial = kept.trial.clone();
            let mut lineup = Lineup::restore(kept, embedded);
            if trial.is_none() {
                lineup.end_canary("nothing is known of its trial", now_us);
            }
            if !lineup.is_empty() {
                let trial = lineup.canary().and(trial).map(Trial::new);
                formats.insert(name, Format { lineup, swaps: VecDeque::new(), trial });
            }
        }
    }

    /// Loads versions that are missing: at the start those that are to write, else all. Returns at once if somebody is
    /// just doing that.
    async fn load_missing(&self, urgency: Urgency) {
        let Ok(_turn) = self.0.restoring.try_lock() else { return };
        let mut tried = BTreeSet::new();
        loop {
            let next = self.read(|formats| {
                let mut all = formats.iter();
                all.find_map(|(name, Format { lineup, .. })| {
                    let missing = match urgency {
                        Urgency::Start => lineup.needed(|sha256| tried.contains(sha256)),
                        Urgency::Idle => lineup.missing().find(|member| !tried.contains(&member.sha256)),
                    };
                    missing.map(|member| (name.clone(), member.sha256.clone()))
                })
            });
            let Some((name, sha256)) = next else { break };
            self.load_again(&name, &sha256, urgency).await;
            tried.insert(sha256);
        }
        if !tried.is_empty() {
            self.keep().await;
        }
    }

    /// Loads a version of before. One for which that can't be done now stays without its code.
    async fn load_again(&self, name: &str, sha256: &str, urgency: Urgency) {
        let (vault, its_sha256) = (self.0.vault.clone(), sha256.to_owned());
        let wasm = tokio::task::spawn_blocking(move || vault.get(&its_sha256)).await;
        let wasm = wasm.map_err(std::io::Error::other).and_then(|wasm| wasm).map_err(LoadError::Read);
        let Inner { engine, cache, limits, vault, .. } = &*self.0;
        let result = match wasm {
            Ok(wasm) => Version::load_at(engine, cache, limits, wasm, vault.path(sha256), urgency).await,
            Err(error) => Err(error),
        };
        let result = result.and_then(|version| match version.manifest.format == name {
            true => Ok(Arc::new(version)),
            false => Err(LoadError::Manifest(format!("it is format `{}` now", version.manifest.format))),
        });
        match result {
            Ok(version) => {
                let is_start = urgency == Urgency::Start;
                let is_staged = self.write(name, |lineup, now_us| {
                    let swap = lineup.loaded(sha256, version.clone(), now_us);
                    let is_staged = lineup.get(sha256).is_some_and(|member| member.stage == Stage::Staged);
                    // At the start nobody has seen who wrote meanwhile.
                    Ok((swap.filter(|_| !is_start), is_staged))
                });
                if matches!(is_staged, Ok(true)) {
                    self.try_out_later(version);
                }
                // It may be a canary.
                self.0.changed.send_modify(|changes| *changes += 1);
            }
            Err(error) if is_lost(&error) => {
                tracing::error!(format = name, sha256 = short(sha256), %error, "a version of before is lost");
                let reason = format!("the one before is lost: {error}");
                let _ = self.write(name, |lineup, now_us| Ok((lineup.lost(sha256, &reason, now_us), ())));
            }
            Err(error) => {
                let is_new = lock(&self.0.late).insert(sha256.to_owned());
                if is_new {
                    tracing::warn!(format = name, sha256 = short(sha256), %error,
                        "a version of before can't be loaded now; it is tried again");
                }
            }
        }
    }

    /// Has a version that was staged when the server ended write the sample stream, for which swaps wait.
    fn try_out_later(&self, version: Arc<Version>) {
        let formats = self.clone();
        let begun = self.begin(version.sha256.clone(), usize::MAX, async move |told| {
            told.send_replace(Some(version.clone()));
            let tried = formats.try_out(&version).await;
            if let Err(error) = &tried {
                tracing::error!(format = version.label(), %error, "probe failed");
            }
            formats.keep().await;
            tried?;
            Ok(version)
        });
        drop(begun);
    }

    /// Takes a file of the folder that is new or changed.
    async fn take_file(&self, path: &Path) -> Result<(), TakeError> {
        let wasm = read_file(path.to_owned()).await?;
        let loading = self.stage(wasm, Source::Folder(path.to_owned()), None, None);
        let version = loading.map_err(Arc::new)?.outcome().await?;
        let before = lock(&self.0.taken).insert(path.to_owned(), version.sha256.clone());
        if before.as_ref() == Some(&version.sha256) {
            // Whatever an operator did with it since holds.
            return Ok(());
        }
        let name = &version.manifest.format;
        let swapped = self.write(name, |lineup, now_us| {
            lineup.comes_from(&version.sha256, Source::Folder(path.into()));
            let swap = match lineup.activate(&version.sha256, Mode::Drain, "the formats folder", now_us) {
                Err(LineupError::IsActive) => None,
                swap => Some(swap?),
            };
            Ok((swap, ()))
        });
        if let Err(error) = swapped {
            tracing::warn!(file = %path.display(), format = version.label(), %error, "loaded, and not taken into use");
        }
        Ok(())
    }

    /// Says that a file of the folder is not taken, and what writes instead.
    fn tell_not_taken(&self, path: &Path, error: &TakeError) {
        let before = lock(&self.0.taken).get(path).cloned();
        let kept = self.read(|formats| {
            let mut all = formats.values().flat_map(|format| format.lineup.members());
            all.find(|m| Some(&m.sha256) == before.as_ref() && m.stage == Stage::Active)?.code.clone()
        });
        let label = kept.as_ref().map_or("nothing".into(), |version| version.label());
        let is_tried_again = error.may_pass();
        tracing::error!(file = %path.display(), %error, kept = label, is_tried_again, "format not loaded");
        let payload = json!({
            "file": path.to_string_lossy(), "error": error.to_string(), "kept": kept.as_deref().map(about),
        });
        self.send(Event::new("formatFailed", payload));
    }

    /// A file of the folder is there no longer: what writes from it does not go on, unless another file has it.
    fn file_is_gone(&self, path: &Path) {
        let Some(sha256) = lock(&self.0.taken).remove(path) else { return };
        if let Some(other) = self.0.in_folder(&sha256) {
            let mut formats = self.0.write();
            formats.values_mut().for_each(|f| f.lineup.comes_from(&sha256, Source::Folder(other.clone())));
            return;
        }
        let name = self.read(|formats| {
            let is_its = |member: &&Member<Arc<Version>>| {
                member.sha256 == sha256
                    && member.stage == Stage::Active
                    && member.source == Source::Folder(path.into())
            };
            let name = formats.iter().find(|(_, f)| f.lineup.chosen().filter(is_its).is_some());
            name.map(|(name, _)| name.clone())
        });
        let Some(name) = name else { return };
        let left = self.write(&name, |lineup, now_us| {
            if let Some(pin) = &lineup.pin {
                return Err(LineupError::Pinned(pin.clone()).into());
            }
            lineup.disown(&Source::Folder(path.into()));
            Ok((Some(lineup.leave(Mode::Drain, "its file is gone", now_us)), ()))
        });
        match left {
            Ok(()) => tracing::info!(format = name, file = %path.display(), "format's file is gone"),
            Err(error) => {
                tracing::warn!(format = name, file = %path.display(), %error, "file is gone; the format stays")
            }
        }
    }

    /// Checks, compiles, keeps and tries a component.
    async fn admit(
        &self,
        sha256: &str,
        wasm: Vec<u8>,
        source: Source,
        format: Option<String>,
        told: &watch::Sender<Option<Arc<Version>>>,
    ) -> Result<Arc<Version>, ChangeError> {
        let known = self.read(|formats| {
            let mut all = formats.values().flat_map(|format| format.lineup.members());
            let passed = |m: &&Member<Arc<Version>>| !matches!(m.stage, Stage::Staged | Stage::Failed(_));
            all.find(|m| m.sha256 == sha256 && passed(m)).and_then(|m| m.code.clone())
        });
        let fits = |version: &Version| match format {
            Some(expected) if expected != version.manifest.format => {
                Err(ChangeError::OtherFormat { expected, found: version.manifest.format.clone() })
            }
            _ => Ok(()),
        };
        if let Some(version) = known {
            fits(&version)?;
            told.send_replace(Some(version.clone()));
            return Ok(version);
        }
        let file = match &source {
            Source::Embedded => None,
            Source::Folder(path) | Source::Command(path) => Some(path.clone()),
        };
        let version = Arc::new(self.load_bytes(wasm.clone(), file.clone()).await?);
        fits(&version)?;
        let (vault, its_sha256) = (self.0.vault.clone(), sha256.to_owned());
        let is_signed = self.0.engine.policy().key.is_some();
        let keep = move || {
            let signature = file.filter(|_| is_signed).map(signature::beside);
            let signature = signature.map(|path| signature::read(&path)).transpose()?;
            vault.put(&its_sha256, &wasm, signature.as_ref().map(String::as_bytes))
        };
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(std::io::Error::other).and_then(|kept| kept).map_err(ChangeError::Keep)?;
        let name = version.manifest.format.clone();
        {
            let mut formats = self.0.write();
            let lineup = &mut formats.entry(name).or_default().lineup;
            lineup.add(member(&version, source, wall_clock::epoch_us()))?;
        }
        told.send_replace(Some(version.clone()));
        self.keep().await;
        self.try_out(&version).await?;
        Ok(version)
    }

    /// Has a version that is staged write the sample stream.
    async fn try_out(&self, version: &Arc<Version>) -> Result<(), ProbeError> {
        let scratch = self.scratch(&format!("probe-{}", short(&version.sha256)));
        let result = probe::probe(version, &scratch).await;
        let said = result.as_ref().map(|_| ()).map_err(ToString::to_string);
        let mut formats = self.0.write();
        if let Some(format) = formats.get_mut(&version.manifest.format) {
            format.lineup.probed(&version.sha256, said, wall_clock::epoch_us());
        }
        result.map(|_| ())
    }

    /// A folder for files that are looked at and removed; nobody else's.
    pub(crate) fn scratch(&self, what: &str) -> PathBuf {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        match self.0.vault.folder() {
            Some(folder) => folder.join(format!("{what}-{number}.tmp")),
            None => {
                std::env::temp_dir().join(format!("reelwright-{}-{what}-{number}.tmp", std::process::id()))
            }
        }
    }

    async fn load_bytes(&self, wasm: Vec<u8>, file: Option<PathBuf>) -> Result<Version, LoadError> {
        Version::load(&self.0.engine, &self.0.cache, &self.0.limits, wasm, file).await
    }

    /// The one version of a format with these first digits; one that is being loaded is waited for.
    async fn awaited(&self, name: &str, sha256: &str) -> Result<String, Arc<ChangeError>> {
        let prefix = prefix_of(sha256).map_err(|error| Arc::new(error.into()))?;
        let loading: Vec<Loading> = {
            let loading = lock(&self.0.loading);
            loading.values().filter(|one| one.sha256.starts_with(&prefix)).cloned().collect()
        };
        if let [one] = &loading[..] {
            one.clone().outcome().await?;
        }
        let found = self.read(|formats| {
            let format = formats.get(name).ok_or_else(|| ChangeError::NoFormat(name.into()))?;
            Ok(format.lineup.find(&prefix)?.sha256.clone())
        });
        found.map_err(Arc::new)
    }

    /// Changes which version of a format is active.
    async fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut Lineup<Arc<Version>>, i64) -> Result<Swap, LineupError>,
    ) -> Result<Swap, Arc<ChangeError>> {
        let swap = self.write(name, |lineup, now_us| {
            let swap = change(lineup, now_us)?;
            Ok((Some(swap.clone()), swap))
        });
        let swap = swap.map_err(Arc::new)?;
        self.keep().await;
        Ok(swap)
    }

    /// Changes a lineup, and tells all who write of a swap.
    fn write<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Lineup<Arc<Version>>, i64) -> Result<(Option<Swap>, T), ChangeError>,
    ) -> Result<T, ChangeError> {
        self.write_format(name, |format, now_us| change(&mut format.lineup, now_us))
    }

    fn write_format<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Format, i64) -> Result<(Option<Swap>, T), ChangeError>,
    ) -> Result<T, ChangeError> {
        let mut formats = self.0.write();
        let format = formats.get_mut(name).ok_or_else(|| ChangeError::NoFormat(name.into()))?;
        let (swap, value) = change(format, wall_clock::epoch_us())?;
        if format.lineup.canary().is_none() {
            format.trial = None;
        }
        let Some(swap) = swap else { return Ok(value) };
        let version = |sha256: &Option<String>| format.lineup.get(sha256.as_ref()?)?.code.clone();
        let (from, to) = (version(&swap.from), version(&swap.to));
        from.iter().for_each(|version| version.meters.swap_out());
        to.iter().for_each(|version| version.meters.swap_in());
        self.trim(format);
        if format.swaps.len() >= REMEMBERED {
            format.swaps.pop_front();
        }
        format.swaps.push_back(swap.clone());
        // In the order in which they took place.
        tracing::info!(
            format = name,
            from = from.as_ref().map_or("none".into(), |version| version.label()),
            to = to.as_ref().map_or("none".into(), |version| version.label()),
            mode = swap.mode.as_str(),
            reason = swap.reason,
            "format swapped"
        );
        let payload = json!({
            "format": name,
            "from": from.as_deref().map(about),
            "to": to.as_deref().map(about),
            "mode": swap.mode.as_str(),
            "reason": swap.reason,
        });
        self.send(Event::new("formatSwapped", payload));
        drop(formats);
        self.0.changed.send_modify(|changes| *changes += 1);
        Ok(value)
    }

    fn is_any_missing(&self) -> bool {
        self.read(|formats| formats.values().any(|format| format.lineup.missing().next().is_some()))
    }

    /// Lets go of past versions that are too many, once no file of them is open.
    fn trim(&self, format: &mut Format) {
        for unloaded in format.lineup.trim(is_busy) {
            self.0.vault.remove(&unloaded);
        }
    }

    /// The same for all formats.
    async fn trim_all(&self) {
        let is_due =
            self.read(|formats| formats.values().any(|format| !format.lineup.surplus(is_busy).is_empty()));
        if is_due {
            self.0.write().values_mut().for_each(|format| self.trim(format));
            self.keep().await;
        }
    }

    /// Writes the registry.
    async fn keep(&self) {
        let _turn = self.0.keeping.lock().await;
        let formats = self.read(|formats| {
            let keep = |format: &Format| Kept {
                trial: format.trial.as_ref().map(|trial| trial.terms.clone()),
                ..format.lineup.keep()
            };
            formats.iter().map(|(name, format)| (name.clone(), keep(format))).collect()
        });
        let registry = Registry { formats, folder: lock(&self.0.taken).clone() };
        let vault = self.0.vault.clone();
        let kept = tokio::task::spawn_blocking(move || vault.keep(&registry)).await;
        if let Err(error) = kept.map_err(std::io::Error::other).and_then(|kept| kept) {
            tracing::error!(%error, "the registry of formats can't be kept; a restart goes back to what it was");
        }
    }

    fn send(&self, event: Event) {
        if let Some(events) = self.0.events.get() {
            events.send(event);
        }
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, Format>) -> T) -> T {
        look(&self.0.formats.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Inner {
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Format>> {
        self.formats.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The file of the formats folder that has that component, so that it would come back.
    fn in_folder(&self, sha256: &str) -> Option<PathBuf> {
        lock(&self.taken).iter().find(|(_, taken)| *taken == sha256).map(|(path, _)| path.clone())
    }
}

/// A recording's part in a trial. When it is dropped the seat is free.
#[derive(Debug)]
pub struct Seat {
    formats: Formats,
    pub(super) config_id: u64,
    pub(super) canary: Arc<Version>,
    pub(super) active: Arc<Version>,
}

impl Seat {
    /// Notes in the trial what samples have shown that the recording had written then. `false`: the trial is over.
    pub(super) fn judge(&self, written: Instant, note: impl FnOnce(&mut Trial) -> &Verdict) -> bool {
        self.formats.judge(self, written, note)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut formats = self.formats.0.write();
        let format = formats.get_mut(&self.canary.manifest.format);
        let its = format.filter(|format| {
            format.lineup.canary().is_some_and(|canary| canary.sha256 == self.canary.sha256)
        });
        if let Some(trial) = its.and_then(|format| format.trial.as_mut()) {
            trial.stand_up(self.config_id);
        }
    }
}

/// A component in `loading`, however its way ends. Who waits for it learns of that afterwards.
#[derive(Debug)]
struct UnderWay {
    formats: Formats,
    sha256: String,
    tell_outcome: watch::Sender<Option<Outcome>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.formats.0.loading).remove(&self.sha256);
    }
}

/// Why a file of the folder is not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Read(#[from] LoadError),
    #[error(transparent)]
    Change(#[from] Arc<ChangeError>),
}

impl TakeError {
    /// Whether it is worth to try the same file again.
    fn may_pass(&self) -> bool {
        match self {
            TakeError::Read(error) => may_pass(error),
            TakeError::Change(error) => match &**error {
                ChangeError::Load(error) => may_pass(error),
                ChangeError::Busy | ChangeError::Keep(_) | ChangeError::Lost => true,
                _ => false,
            },
        }
    }
}

/// Whether a version that worked before can't come back, whatever the system or an operator does.
fn is_lost(error: &LoadError) -> bool {
    match error {
        LoadError::Read(_) => !may_pass(error),
        LoadError::Compiler(_)
        | LoadError::Signature(_)
        | LoadError::NotGranted { .. }
        | LoadError::Describe(_) => false,
        _ => true,
    }
}

/// Whether it is worth to load the same component again: the disk, or the system, said no.
fn may_pass(error: &LoadError) -> bool {
    match error {
        LoadError::Read(error) => {
            error.raw_os_error().is_some() && error.kind() != std::io::ErrorKind::NotFound
        }
        LoadError::Compiler(error) => !matches!(error, CompileError::Limit { .. }),
        _ => false,
    }
}

fn member(version: &Arc<Version>, source: Source, now_us: i64) -> Member<Arc<Version>> {
    let Version { sha256, manifest, .. } = &**version;
    let mut member =
        Member::staged(sha256.clone(), manifest.version.clone(), source.clone(), version.clone(), now_us);
    if source == Source::Embedded {
        // Its tests are its probe.
        member.stage = Stage::Probed;
    }
    member
}

fn listed(name: &str, lineup: &Lineup<Arc<Version>>, member: &Member<Arc<Version>>) -> Listed {
    let recordings = member.code.as_ref().map_or(0, |version| version.recordings());
    let writes = lineup.active().is_some_and(|active| active.sha256 == member.sha256);
    let state = match &member.stage {
        _ if writes => "active",
        _ if member.code.is_none() => "missing",
        Stage::Staged => "staged",
        Stage::Probed => "probed",
        Stage::Failed(_) => "failed",
        Stage::Canary => "canary",
        Stage::Active => "active",
        Stage::Past if recordings > 0 => "draining",
        Stage::Past => "retired",
    };
    Listed {
        format: name.into(),
        version: member.version.clone(),
        sha256: member.sha256.clone(),
        state,
        reason: match &member.stage {
            Stage::Failed(why) => Some(why.clone()),
            _ => member.reason.clone(),
        },
        recordings,
        source: member.source.clone(),
        since_us: member.since_us,
        pinned: lineup.pin.as_ref() == Some(&member.sha256),
        rolled_back: member.rolled_back,
        code: member.code.clone(),
    }
}

/// Whether files of a version are being written.
fn is_busy(version: &Arc<Version>) -> bool {
    version.recordings() > 0
}

/// A version as events have it.
fn about(version: &Version) -> serde_json::Value {
    json!({ "version": version.manifest.version, "sha256": version.sha256 })
}

trait Young {
    fn is_young(&self) -> bool;
}

impl Young for Stamp {
    fn is_young(&self) -> bool {
        let written = Duration::from_secs(u64::try_from(self.4).unwrap_or(0));
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + written);
        age.is_ok_and(|age| age < SETTLING)
    }
}

/// The components in a folder. What can't be looked at is there all the same.
fn scan(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, std::io::Result<Stamp>>> {
    let mut there = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let stamp = std::fs::metadata(&path)
            .map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()));
        if !matches!(&stamp, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
            there.insert(path, stamp);
        }
    }
    Ok(there)
}

async fn read_file(path: PathBuf) -> Result<Vec<u8>, LoadError> {
    tokio::task::spawn_blocking(move || intake::read_file(&path))
        .await
        .map_err(|e| LoadError::Read(std::io::Error::other(e)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A format of the binary under another hash, in a folder.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut wasm = EMBEDDED[0].1.to_vec();
        // A custom section at the end (component model, Binary.md).
        wasm.extend_from_slice(b"\0\x05\x04note");
        std::fs::write(dir.path().join("flv.wasm"), wasm).unwrap();
        dir
    }

    async fn open(folder: Option<PathBuf>) -> Formats {
        let settings = Settings { folder, ..Settings::default() };
        Formats::open_with(Engine::new().unwrap(), settings).await.unwrap()
    }

    #[tokio::test]
    async fn a_component_whose_loading_panics_can_be_loaded_again() {
        let formats = open(None).await;
        let sha256 = "00".repeat(32);
        let panics = formats.begin(sha256.clone(), 1, async |_| panic!("as a test"));
        let outcome = panics.unwrap().outcome().await;
        assert!(matches!(*outcome.unwrap_err(), ChangeError::Lost));
        let again = formats.begin(sha256, 1, async |_| Err(ChangeError::Busy));
        assert!(matches!(*again.unwrap().outcome().await.unwrap_err(), ChangeError::Busy));
    }

    #[tokio::test]
    async fn a_file_that_comes_when_many_are_loaded_is_taken_later() {
        let dir = folder();
        let formats = open(Some(dir.path().to_owned())).await;
        let before = formats.get("flv").unwrap().sha256.clone();
        let (done, is_done) = watch::channel(false);
        for i in 0..MAX_LOADING {
            let mut is_done = is_done.clone();
            let begun = formats.begin(format!("{i:064}"), usize::MAX, async move |_| {
                let _ = is_done.wait_for(|done| *done).await;
                Err(ChangeError::Lost)
            });
            begun.unwrap();
        }
        tokio::time::sleep(SETTLING + Duration::from_millis(100)).await;
        formats.refresh().await;
        assert_eq!(formats.get("flv").unwrap().sha256, before);
        done.send_replace(true);
        tokio::time::sleep(Later::FIRST + Duration::from_millis(100)).await;
        formats.refresh().await;
        assert_ne!(formats.get("flv").unwrap().sha256, before);
    }
}
