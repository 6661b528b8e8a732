//! The power goes at any moment of a short recording, and again while it is repaired.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use reelwright::output::Segment;

use crate::{
    check,
    crash::Sweep,
    disk::{BTRFS, EXT4, History, Image, Lie, Model, TMPFS, XFS},
    rng::{self, Rng},
    scenario::{Scenario, World, Written, record, repair},
};

/// Failures of a scenario that are shown.
const SHOWN: usize = 3;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Disks at each call, beside those that are always tried.
    samples: usize,
    /// One in so many repairs is cut off itself, and repaired again, so many times at each of its calls.
    again_once_in: u64,
    again_samples: usize,
    /// One in so many files is decoded.
    play_once_in: u64,
}

fn scenarios() -> Vec<Scenario> {
    let of = Scenario::new;
    vec![
        of("flv", "flv", EXT4),
        Scenario { overwrites: true, sync_every: 4, ..of("flv over another", "flv", BTRFS) },
        Scenario { cuts: &[1], gops: 3, sync_every: 5, ..of("flv in two", "flv", XFS) },
        of("ts", "ts", EXT4),
        Scenario { overwrites: true, batch: 3, ..of("ts over another", "ts", XFS) },
        Scenario { sync_every: 0, ..of("ts without sync points", "ts", EXT4) },
        of("mp4", "mp4", EXT4),
        Scenario { head_room: 0, ..of("mp4, shifted", "mp4", EXT4) },
        Scenario { head_room: 0, ..of("mp4, copied", "mp4", TMPFS) },
        Scenario { head_room: 0, sync_every: 0, ..of("mp4, cloned", "mp4", BTRFS) },
        Scenario { audio_only: true, batch: 30, ..of("mp4 of sound, shifted", "mp4", XFS) },
        Scenario { overwrites: true, sync_every: 4, ..of("mp4 over another", "mp4", EXT4) },
        Scenario { cuts: &[1, 2], gops: 3, head_room: 0, ..of("mp4 in three", "mp4", EXT4) },
        Scenario { manifest: true, ..of("flv with manifest", "flv", EXT4) },
        Scenario { manifest: true, head_room: 0, ..of("mp4 with manifest", "mp4", XFS) },
        Scenario { batch: 1, sync_every: 20, ..of("mp4 of small batches", "mp4", EXT4) },
        Scenario { batch: 1, sync_every: 7, gops: 3, ..of("flv of small batches", "flv", EXT4) },
        Scenario { rounds: true, batch: 4, ..of("flv by the volume", "flv", EXT4) },
        Scenario { rounds: true, cuts: &[1], sync_every: 2, ..of("ts in two by the volume", "ts", XFS) },
        Scenario { rounds: true, head_room: 0, sync_every: 2, ..of("mp4 by the volume", "mp4", EXT4) },
    ]
}

/// A recording to be cut off.
struct Run {
    scenario: Scenario,
    written: Vec<Written>,
    history: History,
    shown: AtomicUsize,
}

#[derive(Default)]
struct Tally {
    /// Disks that were tried, and the calls after which they were.
    seen: Mutex<HashMap<u64, usize>>,
    /// Those of the second cut.
    again: Mutex<HashSet<u64>>,
    /// Samples in the files that were judged.
    files: Mutex<HashMap<u64, usize>>,
    played: AtomicUsize,
    /// Disks that were not repaired as they should.
    failed: AtomicUsize,
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Says where a check failed, and keeps the disk for a look.
struct Scene<'a> {
    run: &'a Run,
    at: usize,
    image: &'a Image,
    again: bool,
    /// The power stayed, and only the process died: nothing is lost that the journal counts.
    killed: bool,
}

impl Scene<'_> {
    fn show(&self, number: usize) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-cut-{number}"));
        let _ = std::fs::remove_dir_all(&folder);
        let kept = self.image.write_to(&folder);
        let ops = &self.run.history.ops;
        let how = match (self.killed, self.again) {
            (true, _) => "killed",
            (false, false) => "cut",
            (false, true) => "cut in a repair that was cut",
        };
        eprintln!(
            "`{}`, seed {}, {how} after call {} of {}:",
            self.run.scenario.name,
            rng::seed(),
            self.at,
            ops.len()
        );
        ops[self.at.saturating_sub(12)..self.at].iter().for_each(|op| eprintln!("    {op:?}"));
        eprintln!("the disk, in {} ({kept:?}):", folder.display());
        self.image.files.iter().for_each(|(name, file)| eprintln!("    {name}: {file:?}"));
    }
}

/// Repairs a disk that was cut off after so many calls, judges what comes of it, and returns what the repair did.
async fn judge(world: &World, scene: &Scene<'_>, tally: &Tally, effort: Effort) -> History {
    let Scene { run, at, image, killed, .. } = *scene;
    let scenario = &run.scenario;
    let disk = Model::load(scenario.profile, image);
    assert_new_names(world, scenario, &disk, image).await;
    // Nor does a journal say so too early.
    let promised = |written: &Written| match check::in_journal(&disk, &written.name) {
        (committed, _) if killed => committed,
        (_, synced) => synced,
    };
    let promised: Vec<_> = run.written.iter().map(promised).collect();
    repair(world, &disk).await;
    let history = disk.history();
    let after = disk.image();
    let old = scenario.old();
    for (i, written) in run.written.iter().enumerate() {
        let synced = written.synced.iter().filter(|(op, _)| *op <= at).map(|(_, samples)| *samples).max();
        let synced = synced.unwrap_or(0).max(promised[i]);
        let finished = at >= written.finished;
        let bytes = after.read(&written.name);
        if i == 0 && old.is_some() && bytes == old {
            assert!(synced == 0 && !finished, "the old file is in the place of {synced} samples");
            continue;
        }
        let Some(bytes) = bytes else {
            assert!(synced == 0 && !finished, "no {}, {synced} samples were synced", written.name);
            assert!(i > 0 || old.is_none(), "neither the old file nor the new one is there");
            continue;
        };
        if finished {
            assert!(bytes == written.bytes, "{} is not as it was finished", written.name);
        }
        if scenario.manifest {
            let manifest = after.read(&format!("{}.json", written.name)).expect("a manifest");
            check::manifest(&manifest, &bytes);
        }
        let file = digest((scenario.name, i, &bytes));
        let known = tally.files.lock().unwrap().get(&file).copied();
        let samples = known.unwrap_or_else(|| check::samples_in(written, &bytes));
        assert!(samples >= synced, "{}: {samples} samples, {synced} were synced", written.name);
        if known.is_none() {
            tally.files.lock().unwrap().insert(file, samples);
            if samples >= 10 && file % effort.play_once_in == 0 {
                tally.played.fetch_add(1, Ordering::Relaxed);
                check::play(written.format, &bytes);
            }
        }
    }
    let known = |name: &str| match name.strip_suffix(".json") {
        Some(name) if scenario.manifest => after.files.contains_key(name),
        _ => run.written.iter().any(|w| w.name == name),
    };
    let strange: Vec<_> = after.names().into_iter().filter(|name| !known(name)).collect();
    assert!(strange.is_empty(), "left over: {strange:?}");
    repair(world, &disk).await;
    assert!(disk.image() == after, "a second repair changed {:?} to {:?}", after.files, disk.image().files);
    history
}

/// A new segment takes no name of which there is anything.
async fn assert_new_names(world: &World, scenario: &Scenario, disk: &Model, image: &Image) {
    let names = (0..5).map(|n| match n {
        0 => format!("x.{}", scenario.format),
        n => format!("x_{n:04}.{}", scenario.format),
    });
    let folder = world.folder(Arc::new(disk.clone()));
    let segment = Segment::claim(&world.disk, &folder, names, false).await.unwrap();
    let taken = image.files.keys().find(|name| name.starts_with(segment.name()));
    assert_eq!(taken, None, "{} is given away", segment.name());
}

/// Who tries.
struct Worker<'a> {
    world: World,
    runtime: tokio::runtime::Runtime,
    run: &'a Run,
    tally: &'a Tally,
    effort: Effort,
}

impl Worker<'_> {
    /// Every `of`th cut of a run, beginning with number `worker`.
    fn cut_all(&self, worker: usize, of: usize) {
        let Self { run, tally, effort, .. } = self;
        let mut sweep = Sweep::new(&run.history);
        loop {
            let at = sweep.at();
            if at % of == worker {
                let mut rng = Rng::new(digest((run.scenario.name, at, rng::seed())));
                let pending = sweep.pending(&mut rng);
                self.judge(&Scene { run, at, image: &pending.kept(), again: false, killed: true });
                for image in pending.images(effort.samples, &mut rng) {
                    let before = tally.seen.lock().unwrap().insert(digest((run.scenario.name, &image)), at);
                    // The same disk again: only what it has to hold may be more.
                    let more = |before: &usize| {
                        run.written.iter().any(|w| {
                            let new = |op: usize| (before + 1..=at).contains(&op);
                            new(w.finished) || w.synced.iter().any(|(op, _)| new(*op))
                        })
                    };
                    if before.as_ref().is_some_and(|before| !more(before)) {
                        continue;
                    }
                    let repair = self.judge(&Scene { run, at, image: &image, again: false, killed: false });
                    if let Some(repair) = repair
                        && before.is_none()
                        && !repair.ops.is_empty()
                        && rng.once_in(effort.again_once_in)
                    {
                        self.cut_repair(at, &repair, &mut rng);
                    }
                }
            }
            if !sweep.advance() {
                break;
            }
        }
    }

    fn cut_repair(&self, at: usize, repair: &History, rng: &mut Rng) {
        let mut sweep = Sweep::new(repair);
        while sweep.advance() {
            for image in sweep.pending(rng).images(self.effort.again_samples, rng) {
                if self.tally.again.lock().unwrap().insert(digest((self.run.scenario.name, &image))) {
                    self.judge(&Scene { run: self.run, at, image: &image, again: true, killed: false });
                }
            }
        }
    }

    /// What the repair did; nothing if it failed.
    fn judge(&self, scene: &Scene<'_>) -> Option<History> {
        let judge = || self.runtime.block_on(judge(&self.world, scene, self.tally, self.effort));
        let judged = catch_unwind(AssertUnwindSafe(judge));
        if judged.is_err() {
            let number = self.tally.failed.fetch_add(1, Ordering::Relaxed);
            if self.run.shown.fetch_add(1, Ordering::Relaxed) < SHOWN {
                scene.show(number);
            }
        }
        judged.ok()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Tries scenarios on all processors. Returns how many different disks were tried, and how many of them were not
/// repaired as they should.
fn cut_power(scenarios: Vec<Scenario>, lie: Option<Lie>, effort: Effort) -> (usize, usize) {
    let began = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let formats = runtime().block_on(World::formats());
    let tally = Tally::default();
    let mut total = 0;
    let mut total_again = 0;
    for scenario in scenarios {
        let began = Instant::now();
        let disk = scenario.disk();
        disk.lie(lie);
        let world = World::new(formats.clone(), 100);
        let written = runtime().block_on(record(&world, &scenario, &disk));
        let run = Run { scenario, written, history: disk.history(), shown: AtomicUsize::new(0) };
        std::thread::scope(|threads| {
            for worker in 0..workers {
                let (formats, run, tally) = (formats.clone(), &run, &tally);
                threads.spawn(move || {
                    let world = World::new(formats, worker as u64);
                    Worker { world, runtime: runtime(), run, tally, effort }.cut_all(worker, workers);
                });
            }
        });
        let (states, again) = (tally.seen.lock().unwrap().len(), tally.again.lock().unwrap().len());
        eprintln!(
            "{:24} on {:5}: {:4} calls, {:6} disks, {:6} more cut again in their repair, {} failed, {:?}",
            run.scenario.name,
            run.scenario.profile.name,
            run.history.ops.len(),
            states - total,
            again - total_again,
            tally.failed.load(Ordering::Relaxed),
            began.elapsed(),
        );
        (total, total_again) = (states, again);
    }
    let files = tally.files.lock().unwrap().len();
    let played = tally.played.load(Ordering::Relaxed);
    eprintln!(
        "{} different disks after a power cut ({total_again} of them in a repair), seed {}: {files} different files, {played} \
         of them decoded, in {:?}",
        total + total_again,
        rng::seed(),
        began.elapsed(),
    );
    (total + total_again, tally.failed.into_inner())
}

#[test]
fn what_was_synced_survives_a_power_cut_at_any_call() {
    let effort = Effort { samples: 24, again_once_in: 20, again_samples: 4, play_once_in: 8 };
    let (states, failed) = cut_power(scenarios(), None, effort);
    assert_eq!(failed, 0);
    assert!(states >= 10_000, "{states}");
}

#[test]
#[ignore = "takes minutes: make power-cut"]
fn what_was_synced_survives_a_power_cut_at_any_call_long() {
    let effort = Effort { samples: 400, again_once_in: 10, again_samples: 8, play_once_in: 1 };
    let (states, failed) = cut_power(scenarios(), None, effort);
    assert_eq!(failed, 0);
    assert!(states >= 100_000, "{states}");
}

#[test]
fn a_sync_that_was_not_done_is_found_out() {
    let few = |name: &str| scenarios().into_iter().filter(|scenario| scenario.name == name).collect();
    let effort = Effort { samples: 24, again_once_in: u64::MAX, again_samples: 0, play_once_in: u64::MAX };
    for name in ["flv", "ts over another", "mp4, shifted"] {
        for lie in [Lie::Journal, Lie::Media, Lie::Folder] {
            let (states, failed) = cut_power(few(name), Some(lie), effort);
            assert!(failed > 0, "{name}: {lie:?}, {states} disks");
        }
    }
    for name in ["flv by the volume", "mp4 by the volume"] {
        let (states, failed) = cut_power(few(name), Some(Lie::Volume), effort);
        assert!(failed > 0, "{name}: {states} disks");
    }
}
