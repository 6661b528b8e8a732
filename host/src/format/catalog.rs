//! The formats that can be recorded: those in the binary, and those in the formats folder, which win.
//!
//! The folder is looked at when a segment begins and each second. A file that is new or changed is loaded
//! and used from the next segment on; segments that run keep theirs. A file that can't be loaded is said
//! once, and what was loaded from it before stays; when a file is gone, so is its component.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};

use serde_json::json;

use super::{Engine, LoadError, Version, cache::Cache, check, limits::Limits};
use crate::events::{Event, Events};

/// The components in the binary.
const EMBEDDED: [&[u8]; 3] = [
    include_bytes!(concat!(env!("OUT_DIR"), "/guests/flv.wasm")),
    include_bytes!(concat!(env!("OUT_DIR"), "/guests/mp4.wasm")),
    include_bytes!(concat!(env!("OUT_DIR"), "/guests/ts.wasm")),
];

/// All formats. Clones share them.
#[derive(Clone, Debug)]
pub struct Formats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    cache: Cache,
    limits: Arc<Limits>,
    folder: Option<PathBuf>,
    embedded: Vec<Arc<Version>>,
    files: tokio::sync::Mutex<BTreeMap<PathBuf, Loaded>>,
    active: RwLock<BTreeMap<String, Arc<Version>>>,
    events: OnceLock<Events>,
}

/// A file of the formats folder.
#[derive(Clone, Debug)]
struct Loaded {
    stamp: Stamp,
    /// The last version of it that could be loaded.
    version: Option<Arc<Version>>,
}

/// Changes when a file is written or replaced.
type Stamp = (u64, u64, i64, i64, i64, i64);

impl Formats {
    /// Loads the embedded formats and those of the folder. `data` gets the cache of compiled components, if there
    /// is to be one.
    pub async fn open(
        engine: Engine,
        data: Option<&Path>,
        folder: Option<PathBuf>,
        limits: Limits,
    ) -> Result<Self, LoadError> {
        let cache = match data {
            Some(data) => Cache::open(&data.join("components"))?,
            None => Cache::none(),
        };
        let limits = Arc::new(limits);
        let mut embedded = Vec::new();
        for wasm in EMBEDDED {
            let version = Version::load(&engine, &cache, &limits, wasm.to_vec(), None).await?;
            embedded.push(Arc::new(version));
        }
        let formats = Self(Arc::new(Inner {
            engine,
            cache,
            limits,
            folder,
            embedded,
            files: tokio::sync::Mutex::default(),
            active: RwLock::default(),
            events: OnceLock::new(),
        }));
        formats.activate(&BTreeMap::new());
        formats.refresh().await;
        Ok(formats)
    }

    /// From here on `formatSwapped` and `formatFailed` tell what becomes of files in the folder. Once.
    pub fn tell(&self, events: Events) {
        let _ = self.0.events.set(events);
    }

    /// The component that writes a format now.
    pub fn get(&self, name: &str) -> Option<Arc<Version>> {
        self.read_active().get(name).cloned()
    }

    /// Who may write a format in place of the component with that hash, best first.
    pub fn fallbacks(&self, format: &str, sha256: &str) -> Vec<Arc<Version>> {
        let its = |v: &&Arc<Version>| v.manifest.format == format && v.sha256 != sha256;
        self.0.embedded.iter().filter(its).cloned().collect()
    }

    /// Who writes when all else fails: FLV, out of the binary.
    pub fn last_resort(&self) -> Arc<Version> {
        self.0.embedded[0].clone()
    }

    /// A writer failed by its own fault.
    pub fn failed(&self, version: &Arc<Version>, config_id: u64, error: &super::FormatError) {
        tracing::debug!(format = version.label(), config_id, %error, "a strike");
    }

    /// The components that may know how to finish a segment, best first: the one that wrote it, the one that
    /// writes its format now, the embedded one.
    pub fn for_repair(&self, format: &str, sha256: &str) -> Vec<Arc<Version>> {
        let active = self.list();
        let all = || self.0.embedded.iter().chain(&active);
        let writer = all().filter(|v| v.sha256 == sha256);
        let current = active.iter().filter(|v| v.manifest.format == format);
        let embedded = self.0.embedded.iter().filter(|v| v.manifest.format == format);
        let mut found: Vec<Arc<Version>> = Vec::new();
        for version in writer.chain(current).chain(embedded) {
            if found.iter().all(|v| v.sha256 != version.sha256) {
                found.push(version.clone());
            }
        }
        found
    }

    /// All components in use, by format.
    pub fn list(&self) -> Vec<Arc<Version>> {
        self.read_active().values().cloned().collect()
    }

    /// Looks at the folder each second, for ever.
    pub async fn watch(&self) {
        if self.0.folder.is_some() {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.refresh().await;
            }
        }
    }

    /// Looks at the folder and takes what changed. Returns at once if somebody is just doing that, so that a component
    /// that takes long to compile holds up nobody else.
    pub async fn refresh(&self) {
        let Some(folder) = self.0.folder.clone() else { return };
        let Ok(mut files) = self.0.files.try_lock() else { return };
        let there = tokio::task::spawn_blocking(move || scan(&folder)).await.unwrap_or_default();
        let same = files.len() == there.len()
            && there.iter().all(|(path, stamp)| files.get(path).is_some_and(|f| f.stamp == *stamp));
        if same {
            return;
        }
        for (path, loaded) in files.iter().filter(|(path, _)| !there.contains_key(*path)) {
            if let Some(version) = &loaded.version {
                tracing::info!(format = version.label(), file = %path.display(), "format's file is gone");
            }
        }
        files.retain(|path, _| there.contains_key(path));
        for (path, stamp) in there {
            let known = files.get(&path);
            if known.is_some_and(|f| f.stamp == stamp) {
                continue;
            }
            let before = known.and_then(|f| f.version.clone());
            let version = match self.load(&path).await {
                Ok(version) => Some(Arc::new(version)),
                Err(error) => {
                    let kept = before.as_ref().map_or("nothing".into(), |v| v.label());
                    tracing::error!(file = %path.display(), %error, kept, "format not loaded");
                    let payload = json!({
                        "file": path.to_string_lossy(), "error": error.to_string(), "kept": before.as_deref().map(about),
                    });
                    self.send(Event::new("formatFailed", payload));
                    before
                }
            };
            files.insert(path, Loaded { stamp, version });
        }
        self.activate(&files);
    }

    /// Loads a component from a file, without taking it into use.
    pub async fn load(&self, path: &Path) -> Result<Version, LoadError> {
        let file = path.to_owned();
        let wasm = tokio::task::spawn_blocking(move || read(&file))
            .await
            .map_err(|e| LoadError::Read(std::io::Error::other(e)))??;
        Version::load(&self.0.engine, &self.0.cache, &self.0.limits, wasm, Some(path.to_owned())).await
    }

    /// Makes the embedded components and those of files, in the order of their names, the active ones.
    fn activate(&self, files: &BTreeMap<PathBuf, Loaded>) {
        let mut active: BTreeMap<String, Arc<Version>> = BTreeMap::new();
        let from_files = files.values().filter_map(|f| f.version.as_ref());
        for version in self.0.embedded.iter().chain(from_files) {
            active.insert(version.manifest.format.clone(), version.clone());
        }
        let mut current = self.0.active.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for name in current.keys().filter(|name| !active.contains_key(*name)) {
            let payload = json!({ "format": name, "from": about(&current[name]), "to": null });
            self.send(Event::new("formatSwapped", payload));
        }
        for (name, version) in &active {
            if current.get(name).is_none_or(|c| c.sha256 != version.sha256) {
                let file = version.file.as_ref().map_or("embedded".into(), |f| f.display().to_string());
                tracing::info!(
                    format = version.label(),
                    from = file,
                    "format is used from the next segment on"
                );
                let from = current.get(name).map(|version| about(version));
                let payload = json!({ "format": name, "from": from, "to": about(version) });
                self.send(Event::new("formatSwapped", payload));
            }
        }
        *current = active;
    }

    fn send(&self, event: Event) {
        if let Some(events) = self.0.events.get() {
            events.send(event);
        }
    }

    fn read_active(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Version>>> {
        self.0.active.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A version as events have it.
fn about(version: &Version) -> serde_json::Value {
    json!({ "version": version.manifest.version, "sha256": version.sha256 })
}

/// The components in a folder. One that can't be read is as good as empty.
fn scan(folder: &Path) -> BTreeMap<PathBuf, Stamp> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let components = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "wasm"));
    components
        .filter_map(|path| {
            let m = std::fs::metadata(&path).ok()?;
            let stamp = (m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            Some((path, stamp))
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    check::check_size(std::fs::metadata(path)?.len())?;
    Ok(std::fs::read(path)?)
}
