//! Short recordings on a disk, and what of them has to survive.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reelwright::{
    format::{Begin, Engine, Formats, limits::Limits},
    media::Sample,
    output::{Disk, Roots, Segment, orphan, path::Folder, storage::Directory},
    repair::{self, Outcome},
};

use crate::{
    disk::{Model, Profile},
    support::{self, Clip},
};

/// Sync points are where a test wants them, not at times.
const NEVER: Duration = Duration::from_secs(3600);

/// The recorder's code, for any number of disks.
pub struct World {
    pub formats: Formats,
    pub disk: Disk,
    device: u64,
    folders: AtomicU64,
    _dir: tempfile::TempDir,
}

impl World {
    /// The components that are built in.
    pub async fn formats() -> Formats {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("formats");
        Formats::open(Engine::new().unwrap(), Some(&cache), None, Limits::default()).await.unwrap()
    }

    /// Each has volumes of its own.
    pub fn new(formats: Formats, device: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(Roots::open(dir.path(), &[]).unwrap(), Some(NEVER));
        Self { formats, disk, device, folders: AtomicU64::new(1), _dir: dir }
    }

    /// A folder on this world's volume.
    pub fn folder(&self, dir: Arc<dyn Directory>) -> Arc<Folder> {
        self.folder_on(self.device, dir)
    }

    pub fn folder_on(&self, device: u64, dir: Arc<dyn Directory>) -> Arc<Folder> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        Arc::new(Folder { path: "/model".into(), dir, id: (device, number) })
    }
}

/// A short recording.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub format: &'static str,
    pub profile: Profile,
    /// Bytes kept free in front.
    pub head_room: u64,
    /// Samples a batch, and batches from one sync point to the next; 0: none.
    pub batch: usize,
    pub sync_every: usize,
    /// Sync points are those of the whole volume.
    pub rounds: bool,
    /// GOPs, and which of them begin another segment.
    pub gops: usize,
    pub cuts: &'static [usize],
    pub audio_only: bool,
    /// A finished file of the first segment's name is there, and is to be overwritten.
    pub overwrites: bool,
    /// Files get a manifest.
    pub manifest: bool,
}

impl Scenario {
    pub const fn new(name: &'static str, format: &'static str, profile: Profile) -> Self {
        Self {
            name,
            format,
            profile,
            head_room: 4096,
            batch: 8,
            sync_every: 3,
            rounds: false,
            gops: 2,
            cuts: &[],
            audio_only: false,
            overwrites: false,
            manifest: false,
        }
    }

    pub fn old(&self) -> Option<Vec<u8>> {
        self.overwrites.then(|| (0..9000u32).flat_map(u32::to_le_bytes).collect())
    }

    /// What is on the disk before.
    pub fn disk(&self) -> Model {
        let empty = Model::new(self.profile);
        if let Some(old) = self.old() {
            let file = empty.create(&format!("x.{}", self.format)).unwrap();
            file.write_at(&[old.into()], 0).unwrap();
        }
        Model::load(self.profile, &empty.image())
    }

    /// The stream, by segments.
    pub fn clips(&self) -> Vec<Clip> {
        let mut clip = short_clip(self.gops);
        if self.audio_only {
            clip = support::clip();
            clip.tracks.retain(|track| track.id == 2);
            clip.samples.retain(|sample| sample.track == 2);
        }
        let key = |gop: &usize| {
            let keys = clip.samples.iter().enumerate().filter(|(_, s)| s.track == 1 && s.key);
            keys.map(|(i, _)| i).nth(*gop).expect("a GOP")
        };
        let ends = self.cuts.iter().map(key).chain([clip.samples.len()]);
        let mut begin = 0;
        ends.map(|end| {
            let samples = clip.samples[begin..end].to_vec();
            begin = end;
            Clip { tracks: clip.tracks.clone(), samples }
        })
        .collect()
    }
}

/// The begins of the bundled clip's GOPs with B-frames and audio, joined.
fn short_clip(gops: usize) -> Clip {
    // After so many, all that were sent have been shown.
    const FRAMES: usize = 7;
    let Clip { tracks, samples } = support::clip();
    let mut short = Vec::new();
    let keys = samples.iter().filter(|s| s.track == 1 && s.key).take(gops);
    let mut begin_ms = 0;
    for key in keys {
        let video = samples.iter().filter(|s| s.track == 1 && s.dts_ms >= key.dts_ms).take(FRAMES + 1);
        let until_ms = video.last().expect("longer GOPs").dts_ms;
        let (from, until) = (key.dts_ms, until_ms);
        let shift = begin_ms - from;
        let of_gop = samples.iter().filter(|s| (from..until).contains(&s.dts_ms));
        short.extend(of_gop.map(|s| Sample {
            dts_ms: s.dts_ms + shift,
            pts_ms: s.pts_ms + shift,
            ..s.clone()
        }));
        begin_ms += until - from;
    }
    Clip { tracks, samples: short }
}

/// A segment that was recorded.
#[derive(Debug)]
pub struct Written {
    pub name: String,
    pub format: &'static str,
    pub samples: Vec<Sample>,
    pub origin_ms: i64,
    /// Bytes appended in all, and the samples in them, after each batch.
    pub sizes: BTreeMap<u64, usize>,
    /// After so many calls to the disk, so many samples were synced.
    pub synced: Vec<(usize, usize)>,
    /// Calls after which it was finished.
    pub finished: usize,
    /// The finished file.
    pub bytes: Vec<u8>,
}

/// Records on a disk, from begin to end.
pub async fn record(world: &World, scenario: &Scenario, disk: &Model) -> Vec<Written> {
    let folder = world.folder(Arc::new(disk.clone()));
    let version = world.formats.get(scenario.format).unwrap();
    let mut all = Vec::new();
    let mut carry = Vec::new();
    let extension = scenario.format;
    for (number, clip) in scenario.clips().into_iter().enumerate() {
        let names = [format!("x.{extension}"), format!("x_0001.{extension}"), format!("x_0002.{extension}")];
        let replaces = scenario.overwrites && number == 0;
        let segment = Segment::claim(&world.disk, &folder, names.into_iter(), replaces).await.unwrap();
        let name = segment.name().to_owned();
        let origin_ms = clip.samples[0].dts_ms;
        let begin = Begin {
            segment: number as u64,
            origin_ms,
            head_room: scenario.head_room,
            manifest: scenario.manifest,
            carry,
            ..support::begin(&clip, &[])
        };
        let mut writer = reelwright::format::Writer::open(version.clone(), segment, begin).await.unwrap();
        let (mut sizes, mut synced) = (BTreeMap::new(), Vec::new());
        let mut given = 0;
        for (i, batch) in clip.samples.chunks(scenario.batch).enumerate() {
            writer.write(batch).await.unwrap();
            given += batch.len();
            sizes.insert(writer.bytes(), given);
            if scenario.sync_every > 0 && i % scenario.sync_every == scenario.sync_every - 1 {
                if scenario.rounds {
                    assert!(writer.settled().await);
                    world.disk.volumes.get(world.device).unwrap().sync_round().await;
                } else {
                    writer.sync().await.unwrap();
                }
                synced.push((disk.ops(), given));
            }
        }
        let mut closing = writer.finish(clip.end()).await.unwrap();
        carry = closing.carry.clone();
        if scenario.manifest {
            let text =
                |bytes, sha256| serde_json::json!({"bytes": bytes, "sha256": sha256}).to_string().into();
            closing = closing.add_manifest(text).await.unwrap();
        }
        closing.complete().await.unwrap();
        all.push(Written {
            name,
            format: scenario.format,
            samples: clip.samples,
            origin_ms,
            sizes,
            synced,
            finished: disk.ops(),
            bytes: Vec::new(),
        });
    }
    let image = disk.image();
    for written in &mut all {
        written.bytes = image.read(&written.name).unwrap();
    }
    let files = if scenario.manifest { 2 * all.len() } else { all.len() };
    assert_eq!(image.files.len(), files, "{:?}", image.names());
    all
}

/// Repairs everything in a disk's folder. All of it must be possible.
pub async fn repair(world: &World, disk: &Model) {
    let folder = world.folder(Arc::new(disk.clone()));
    for orphan in orphan::unclosed(&folder).unwrap() {
        let repair = repair::repair(&world.disk, &world.formats, &folder, &orphan.name).await.unwrap();
        assert!(!matches!(repair.outcome, Outcome::Kept(_)), "{repair:?}");
    }
}
