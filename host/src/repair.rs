//! Finishes segments that lost their writer: after a crash or a power cut when the server starts, and at once when
//! a component or a disk failed.
//!
//! The files are cut back to what holds ([`orphan`]), then the component that wrote the segment, or else the
//! one that writes its format now, finishes it with the same code that closes a normal one. What can't be
//! repaired is kept as it is, and its name stays taken.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::io::Errno;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    events::{Event, Events},
    format::{self, Formats, Version},
    output::{
        Disk, Segment, guard,
        journal::{self, Start, Whose},
        orphan::{self, Complete, Cut, Found, Orphan, OrphanError},
        path::Folder,
        segment::OutputError,
    },
    recorder::{
        manifest::{self, Manifest, Moment},
        report,
    },
    sync::lock,
};

/// Results that are remembered.
const REMEMBERED: usize = 1000;
/// Repairs at once on a volume.
const AT_ONCE: usize = 2;
/// How long a repair that the disk did not allow waits before it is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What came of an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was cut back and finished.
    Repaired,
    /// It had been finished, and only remains were removed.
    Complete,
    /// There was nothing to save, and its files are gone.
    Nothing,
    /// It can't be repaired; its files are as they were. Why.
    Kept(String),
}

impl Outcome {
    /// A word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Repaired => "repaired",
            Outcome::Complete => "complete",
            Outcome::Nothing => "nothing",
            Outcome::Kept(_) => "kept",
        }
    }
}

/// A repair.
#[derive(Clone, Debug)]
pub struct Repair {
    pub at: SystemTime,
    /// The final path.
    pub path: PathBuf,
    /// The recording and its stream; 0 and empty if that is not known.
    pub config_id: u64,
    pub stream: String,
    pub whose: Whose,
    /// When the segment began, in microseconds since 1970, and its number in the run, if that is known.
    pub begun: Option<(i64, u64)>,
    pub format: String,
    pub outcome: Outcome,
    /// Who finished it, and whether that is who wrote it.
    pub component: Option<(String, bool)>,
    /// Bytes of the main file.
    pub bytes: u64,
    pub samples: u64,
    /// Length of what was saved, in milliseconds.
    pub saved_ms: u64,
    /// Media that was on the disk and did not hold: bytes, and from the last good commit to the last one, in
    /// milliseconds. What never got to the disk (at most the flush interval) is not counted.
    pub lost_bytes: u64,
    pub lost_ms: u64,
    /// Samples that its writer was given and that are not in it, if that is known: not after a crash.
    pub lost_samples: Option<u64>,
    /// Some of what was kept does not have the checksums that it should.
    pub damaged: bool,
}

/// Why a repair did not come to an end. The files can be repaired later.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Orphan(#[from] OrphanError),
    /// What was being finished when the disk failed.
    #[error(transparent)]
    Disk(#[from] OutputError),
}

impl Repair {
    /// Whether media was lost, as far as known.
    pub fn is_lossy(&self) -> bool {
        self.lost_bytes > 0 || self.damaged
    }

    fn new(path: PathBuf, start: Option<&Start>, outcome: Outcome) -> Self {
        Self {
            at: SystemTime::now(),
            path,
            config_id: start.map_or(0, |s| s.config_id),
            stream: start.map(|s| s.stream.clone()).unwrap_or_default(),
            whose: start.map(|s| s.whose.clone()).unwrap_or_default(),
            begun: start.map(|s| (s.epoch_us, s.segment)),
            format: start.map(|s| s.format.clone()).unwrap_or_default(),
            outcome,
            component: None,
            bytes: 0,
            samples: 0,
            saved_ms: 0,
            lost_bytes: 0,
            lost_ms: 0,
            lost_samples: None,
            damaged: false,
        }
    }

    /// Knows what was lost, given how many samples there should be.
    fn of(self, given: Option<u64>) -> Self {
        let lost_samples = match self.outcome {
            Outcome::Repaired | Outcome::Nothing => given.map(|given| given.saturating_sub(self.samples)),
            Outcome::Complete | Outcome::Kept(_) => None,
        };
        Self { lost_samples, ..self }
    }

    /// One log line.
    pub fn log(&self) {
        let file = self.path.display();
        let Self {
            config_id,
            stream,
            bytes,
            samples,
            saved_ms,
            lost_bytes,
            lost_ms,
            lost_samples,
            damaged,
            ..
        } = self;
        let component = self.component.as_ref().map(|(label, same)| {
            if *same { label.clone() } else { format!("{label}, which did not write it") }
        });
        match &self.outcome {
            Outcome::Repaired => tracing::warn!(
                %file, config_id, stream, bytes, samples, saved_ms, lost_bytes, lost_ms, lost_samples, damaged, component,
                "repaired"
            ),
            Outcome::Complete => {
                tracing::info!(%file, config_id, stream, bytes, "complete; its remains are removed");
            }
            Outcome::Nothing => {
                tracing::warn!(%file, config_id, stream, lost_bytes, lost_samples, "nothing to save; its files are removed");
            }
            Outcome::Kept(why) => {
                tracing::error!(%file, config_id, stream, why, "can't be repaired; its files are kept");
            }
        }
    }

    /// The payload of an event.
    pub fn to_json(&self) -> serde_json::Value {
        let path = self.path.display().to_string();
        let own = json!({
            "path": path,
            "file": path,
            "configId": self.config_id,
            "localStreamName": self.stream,
            "type": self.format,
            "format": self.format,
            "startTime": self.begun.map(|(epoch_us, _)| report::time(epoch_us)),
            "index": self.begun.map(|(_, index)| index),
            "outcome": self.outcome.as_str(),
            "reason": if let Outcome::Kept(why) = &self.outcome { why } else { "" },
            "component": self.component.as_ref().map(|c| &c.0),
            "sameComponent": self.component.as_ref().is_none_or(|c| c.1),
            "bytes": self.bytes,
            "samples": self.samples,
            "savedSeconds": self.saved_ms as f64 / 1000.0,
            "lostBytes": self.lost_bytes,
            "lostSeconds": self.lost_ms as f64 / 1000.0,
            "lostSamples": self.lost_samples,
            "damaged": self.damaged,
        });
        report::about(&self.whose, own)
    }
}

/// Repairs one segment in a folder, by its final name.
pub async fn repair(
    disk: &Disk,
    formats: &Formats,
    folder: &Arc<Folder>,
    name: &str,
) -> Result<Repair, RepairError> {
    finish(formats, Orphan::take(disk, folder, name).await?, None).await
}

/// Repairs a segment that was taken, or given up by its writer. It is announced before the last of it is removed, so
/// that whatever happens meanwhile it will be.
async fn finish(
    formats: &Formats,
    mut orphan: Orphan,
    events: Option<&Events>,
) -> Result<Repair, RepairError> {
    let given = orphan.given();
    let mut refused: Vec<String> = Vec::new();
    loop {
        let path = orphan.path();
        let cut = match orphan.cut_back().await? {
            Found::Nothing { start, lost_bytes } => {
                let nothing = Repair::new(path, start.as_deref(), Outcome::Nothing);
                return announced(Repair { lost_bytes, ..nothing }.of(given), events).await;
            }
            Found::Complete(complete) => {
                let repair = Repair {
                    bytes: complete.file.bytes,
                    samples: complete.commit.samples,
                    ..Repair::new(path, Some(&complete.start), Outcome::Complete)
                };
                if announce(found_event(&complete), repair.config_id, events).await {
                    complete.clear_up().await?;
                }
                return Ok(repair);
            }
            Found::Kept { start, why } => {
                return announced(Repair::new(path, start.as_deref(), Outcome::Kept(why)), events).await;
            }
            Found::Cut(cut) => cut,
        };
        let Cut { start, segment, commit, lost_bytes, lost_until_us, damaged } = *cut;
        let ms = |us: i64| u64::try_from(us / 1000).unwrap_or(0);
        let found = Repair {
            samples: commit.samples,
            saved_ms: u64::try_from(commit.last_ms - start.origin_ms).unwrap_or(0),
            lost_bytes,
            lost_ms: ms(lost_until_us - commit.epoch_us),
            damaged,
            ..Repair::new(path.clone(), Some(&start), Outcome::Repaired)
        }
        .of(given);
        let candidates = formats.for_repair(&start.format, &start.sha256);
        let next = candidates.into_iter().find(|v| !refused.contains(&v.sha256) && (v.recovers()));
        let failed = match next {
            None if segment.has_main() && refused.is_empty() => {
                // Its format has no `recover`: the file is as good as it was while it grew.
                let bytes = segment.file_bytes();
                let repair = Repair { bytes, ..found };
                let closed = segment.close(summary(&repair)).await.map_err(|(error, _)| error)?;
                if announce(repair_event(&repair), repair.config_id, events).await {
                    closed.clear_up().await.map_err(|(error, _)| error)?;
                }
                return Ok(repair);
            }
            None => {
                drop(segment.abandon().await);
                let why = match refused.is_empty() {
                    true => format!("there is no component that can recover format `{}`", start.format),
                    false => format!("no component of format `{}` could recover it", start.format),
                };
                return announced(Repair { outcome: Outcome::Kept(why), ..found }, events).await;
            }
            Some(version) => match recover(&version, segment, &start, &found, events).await {
                Ok(repair) => return Ok(repair),
                Err(failed) => {
                    refused.push(version.sha256.clone());
                    failed
                }
            },
        };
        match failed.error.disk_error() {
            Some(error) if guard::is_trouble(error.errno) => return Err(error.clone().into()),
            // That will not pass: say, a file of that name that somebody put there.
            Some(error) => {
                return announced(Repair { outcome: Outcome::Kept(error.to_string()), ..found }, events)
                    .await;
            }
            None => {}
        }
        tracing::error!(file = %path.display(), error = %failed.error, "recover failed");
        orphan = failed.orphan;
    }
}

/// Has a segment finished by a component.
async fn recover(
    version: &Arc<Version>,
    segment: Segment,
    start: &Start,
    found: &Repair,
    events: Option<&Events>,
) -> Result<Repair, format::Failed> {
    let mut closing = format::recover(version, segment, start.clone()).await?;
    let duration = closing.properties().iter().find(|(key, _)| key == "duration-ms");
    let saved_ms = duration.and_then(|(_, ms)| ms.parse().ok()).unwrap_or(found.saved_ms);
    if start.manifest {
        let manifest = manifest(version, start, found, saved_ms);
        closing =
            closing.add_manifest(|bytes, sha256| Manifest { bytes, sha256, ..manifest }.to_json()).await?;
    }
    let component = Some((version.label(), version.sha256 == start.sha256));
    let repair = Repair { component, bytes: closing.bytes(), saved_ms, ..found.clone() };
    let closed = closing.close(summary(&repair)).await?;
    if announce(repair_event(&repair), repair.config_id, events).await {
        closed.clear_up().await?;
    }
    Ok(repair)
}

/// Announces what came of a repair that leaves nothing to be cleared up.
async fn announced(repair: Repair, events: Option<&Events>) -> Result<Repair, RepairError> {
    announce(repair_event(&repair), repair.config_id, events).await;
    Ok(repair)
}

/// Returns whether the event will be delivered, or nobody wants it.
async fn announce(event: Event, config_id: u64, events: Option<&Events>) -> bool {
    let event = if config_id > 0 { event.of(config_id) } else { event };
    match events {
        Some(events) => events.commit(event).await,
        None => true,
    }
}

fn repair_event(repair: &Repair) -> Event {
    Event::new("recordRecovered", repair.to_json())
}

/// What the journal remembers of a repair until it is announced.
fn summary(repair: &Repair) -> Vec<u8> {
    report::summary(&repair_event(repair))
}

/// The event of a segment that was found complete: nobody can tell whether it was sent before.
fn found_event(complete: &Complete) -> Event {
    report::found(&complete.summary).unwrap_or_else(|| {
        let Complete { start, file, commit, .. } = complete;
        let length_ms = (commit.last_ms - start.origin_ms).max(0);
        let payload = json!({
            "file": file.path.display().to_string(),
            "configId": start.config_id,
            "localStreamName": start.stream,
            "type": start.format,
            "index": start.segment,
            "startTime": report::time(start.epoch_us),
            "stopTime": report::time(start.epoch_us.saturating_add(length_ms.saturating_mul(1000))),
            "durationMs": length_ms,
            "frameCount": commit.samples,
            "size": file.bytes,
            "codecs": start.tracks.iter().map(|track| track.codec.as_str()).collect::<Vec<_>>(),
            "recovered": true,
        });
        Event::new("recordChunkClosed", report::about(&start.whose, payload))
    })
}

/// What is known of a segment that lost its writer: no counts by track, which went with it.
fn manifest(version: &Version, start: &Start, found: &Repair, saved_ms: u64) -> Manifest {
    let saved_ms = i64::try_from(saved_ms).unwrap_or(0);
    let track = |t: &journal::Track| manifest::Track {
        id: t.id,
        kind: t.kind.clone(),
        codec: t.codec.clone(),
        ..manifest::Track::default()
    };
    Manifest {
        reason: "recovered".into(),
        end: Moment::new(
            start.epoch_us.saturating_add(saved_ms.saturating_mul(1000)),
            start.origin_ms.saturating_add(saved_ms),
        ),
        tracks: start.tracks.iter().map(track).collect(),
        repair: Some(manifest::Repair {
            samples: found.samples,
            lost_bytes: found.lost_bytes,
            lost_ms: found.lost_ms,
            damaged: found.damaged,
        }),
        ..Manifest::begin(version, start)
    }
}

/// One more, as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Repairs what needs it, and remembers what came of it. Clones share it.
#[derive(Clone, Debug)]
pub struct Repairs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    formats: Formats,
    events: Events,
    done: Mutex<VecDeque<Repair>>,
    /// Orphans that are being repaired, or wait for it.
    unfinished: AtomicUsize,
    /// By device, so that a volume that stalls keeps no other from being repaired.
    room: Mutex<HashMap<u64, Arc<Semaphore>>>,
}

impl Repairs {
    pub fn new(disk: Disk, formats: Formats, events: Events) -> Self {
        Self(Arc::new(Inner {
            disk,
            formats,
            events,
            done: Mutex::default(),
            unfinished: AtomicUsize::new(0),
            room: Mutex::default(),
        }))
    }

    /// Looks through all media roots and repairs every orphan, until all of them are done. Those of a recording are
    /// repaired, and so announced, in the order in which they were begun; one that the disk does not allow to be
    /// repaired now does not hold up those after it.
    pub async fn everywhere(&self) {
        let mut folders = self.0.disk.roots.clone().walk();
        let mut repairs = JoinSet::new();
        // By recording: when those of it that were found in other folders have been tried.
        let mut before: HashMap<u64, CancellationToken> = HashMap::new();
        while let Some(folder) = folders.recv().await {
            let folder = match folder {
                Ok(folder) => Arc::new(folder),
                Err(error) => {
                    tracing::warn!(%error, "not looked through for what is to be repaired");
                    continue;
                }
            };
            let its = folder.clone();
            let found = match tokio::task::spawn_blocking(move || orphan::unclosed(&its)).await {
                Ok(Ok(found)) => found,
                Ok(Err(errno)) => {
                    let why = crate::output::path::describe(errno);
                    tracing::warn!(folder = %folder.path.display(), why, "not looked through");
                    continue;
                }
                Err(_) => continue,
            };
            for group in found.chunk_by(|a, b| a.config_id == b.config_id && a.config_id > 0) {
                let (repairs_, folder, tried) = (self.clone(), folder.clone(), CancellationToken::new());
                let names: Vec<String> = group.iter().map(|one| one.name.clone()).collect();
                let earlier = match group[0].config_id {
                    0 => None,
                    config_id => before.insert(config_id, tried.clone()),
                };
                repairs.spawn(
                    async move { repairs_.in_order(folder, names, earlier, tried.drop_guard()).await },
                );
            }
        }
        while repairs.join_next().await.is_some() {}
    }

    /// Repairs orphans one after the other when others were tried, and says when these were. Returns when all are done.
    async fn in_order(
        &self,
        folder: Arc<Folder>,
        names: Vec<String>,
        others: Option<CancellationToken>,
        tried: DropGuard,
    ) {
        let counted: Vec<_> = names.iter().map(|_| Counted::new(&self.0.unfinished)).collect();
        if let Some(others) = others {
            others.cancelled().await;
        }
        let mut later = JoinSet::new();
        for (name, _counted) in names.into_iter().zip(counted) {
            let Err(error) = self.attempt(&folder, &name, None).await else { continue };
            let wait = match error {
                RepairError::Orphan(OrphanError::Owned(_)) => Duration::ZERO,
                error => {
                    tracing::error!(file = %folder.path.join(&name).display(), %error, "to be repaired later");
                    RETRY.0
                }
            };
            let (repairs, folder) = (self.clone(), folder.clone());
            later.spawn(async move { repairs.orphan(folder, name, wait, None).await });
        }
        drop(tried);
        while later.join_next().await.is_some() {}
    }

    /// Repairs a segment that its writer gave up. If the disk does not allow it now, it is tried again and again.
    pub async fn given_up(&self, folder: Arc<Folder>, orphan: Orphan) {
        let _counted = Counted::new(&self.0.unfinished);
        let (name, given) = (orphan.name().to_owned(), orphan.given());
        match finish(&self.0.formats, orphan, Some(&self.0.events)).await {
            Ok(repair) => self.done(repair),
            Err(error) => {
                tracing::warn!(file = %folder.path.join(&name).display(), %error, "to be repaired later");
                let repairs = self.clone();
                tokio::spawn(async move { repairs.orphan(folder, name, RETRY.0, given).await });
            }
        }
    }

    /// Orphans that are known and not done with.
    pub fn unfinished(&self) -> usize {
        self.0.unfinished.load(Ordering::Relaxed)
    }

    /// Results, the latest last.
    pub fn list(&self) -> Vec<Repair> {
        lock(&self.0.done).iter().cloned().collect()
    }

    /// Repairs an orphan after a while, and again and again if the disk does not allow it.
    async fn orphan(&self, folder: Arc<Folder>, name: String, mut wait: Duration, given: Option<u64>) {
        let _counted = Counted::new(&self.0.unfinished);
        loop {
            tokio::time::sleep(wait).await;
            let error = match self.attempt(&folder, &name, given).await {
                Ok(()) => return,
                // Its owner takes care of it. If that fails, it is for us.
                Err(RepairError::Orphan(OrphanError::Owned(path))) => {
                    tracing::debug!(path = %path.display(), "has an owner");
                    let repairs = self.clone();
                    tokio::spawn(async move { repairs.when_free(folder, name, given).await });
                    return;
                }
                Err(error) => error,
            };
            if wait.is_zero() {
                tracing::error!(file = %folder.path.join(&name).display(), %error, "to be repaired later");
            }
            wait = (wait * 2).clamp(RETRY.0, RETRY.1);
        }
    }

    /// Looks again and again whether what has an owner is still there, and has lost it.
    async fn when_free(&self, folder: Arc<Folder>, name: String, given: Option<u64>) {
        let mut wait = RETRY.0;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
            if self.attempt(&folder, &name, given).await.is_ok() {
                return;
            }
        }
    }

    /// Repairs an orphan in its turn; fine if somebody else did it.
    async fn attempt(&self, folder: &Arc<Folder>, name: &str, given: Option<u64>) -> Result<(), RepairError> {
        let room = lock(&self.0.room)
            .entry(folder.id.0)
            .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)))
            .clone();
        let _permit = room.acquire().await;
        let repaired = async {
            let orphan = Orphan::take(&self.0.disk, folder, name).await?;
            let orphan = if let Some(given) = given { orphan.with_given(given) } else { orphan };
            finish(&self.0.formats, orphan, Some(&self.0.events)).await
        };
        match repaired.await {
            Ok(repair) => self.done(repair),
            Err(RepairError::Orphan(OrphanError::Disk(error))) if error.errno == Errno::NOENT => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn done(&self, repair: Repair) {
        repair.log();
        let mut done = lock(&self.0.done);
        done.push_back(repair);
        if done.len() > REMEMBERED {
            done.pop_front();
        }
    }
}
