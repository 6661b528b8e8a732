//! Rounds that make a whole volume durable.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use reelwright::{
    format::Writer,
    output::{Disk, Roots, Segment, journal::Start, segment::Role, volume::Volume},
};
use rustix::io::Errno;

use crate::{
    check,
    disk::{EXT4, Model, Op},
    hooked::{Gate, Hook, Hooked},
    scenario::{Scenario, World},
    support,
};

const DEVICE: u64 = 31;
const NEVER: Duration = Duration::from_secs(3600);

/// What a volume says when it is to be made durable as a whole.
#[derive(Debug, Default)]
struct Whole {
    error: Option<Errno>,
    asked: AtomicUsize,
    gate: Gate,
}

impl Hook for Whole {
    fn change(&self, _: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn sync_volume(&self) -> Result<(), Errno> {
        self.asked.fetch_add(1, Relaxed);
        self.gate.pass();
        self.error.map_or(Ok(()), Err)
    }
}

/// A recording on that volume, and what its disk was asked from then on, by name.
struct Stream {
    disk: Model,
    volume: Volume,
    writer: Writer,
    scenario: Scenario,
    begun: usize,
    _world: World,
}

impl Stream {
    /// Rounds come by themselves at `interval`, at once at its half.
    async fn open(whole: &Arc<Whole>, interval: Duration) -> Self {
        let mut world = World::new(World::formats().await, DEVICE);
        let dir = tempfile::tempdir().unwrap();
        world.disk = Disk::new(Roots::open(dir.path(), &[]).unwrap(), Some(interval));
        let scenario = Scenario::new("flv", "flv", EXT4);
        let disk = scenario.disk();
        let folder = world.folder(Arc::new(Hooked { folder: Arc::new(disk.clone()), hook: whole.clone() }));
        let names = std::iter::once("x.flv".to_owned());
        let segment = Segment::claim(&world.disk, &folder, names, false).await.unwrap();
        let version = world.formats.get("flv").unwrap();
        let mut writer =
            Writer::open(version, segment, support::begin(&scenario.clips()[0], &[])).await.unwrap();
        writer.sync().await.unwrap();
        let volume = world.disk.volumes.get(DEVICE).unwrap();
        Self { begun: disk.ops(), disk, volume, writer, scenario, _world: world }
    }

    async fn write(&mut self, part: usize) {
        let clip = &self.scenario.clips()[0];
        self.writer.write(clip.samples.chunks(10).nth(part).unwrap()).await.unwrap();
        assert!(self.writer.settled().await);
    }

    /// Writes, and has a round made.
    async fn round(&mut self, part: usize) {
        self.write(part).await;
        self.volume.sync_round().await;
    }

    fn count(&self, is: impl Fn(&Op) -> bool) -> usize {
        self.disk.history().ops[self.begun..].iter().filter(|op| is(op)).count()
    }
}

fn is_file(op: &Op) -> bool {
    matches!(op, Op::SyncFile { .. })
}

fn is_all(op: &Op) -> bool {
    matches!(op, Op::SyncAll)
}

#[tokio::test]
async fn one_sync_is_for_all_files() {
    let whole = Arc::new(Whole::default());
    let mut stream = Stream::open(&whole, NEVER).await;
    stream.round(0).await;
    stream.round(1).await;
    assert_eq!((stream.count(is_all), stream.count(is_file)), (2, 0));
    stream.volume.sync_round().await;
    assert_eq!(stream.count(is_all), 2, "nothing is new");
}

/// While a round waits for the volume, a segment makes a sync point of its own, of more than the round has noted.
#[tokio::test]
async fn a_round_says_nothing_of_a_segment_that_has_said_more() {
    let whole = Arc::new(Whole { gate: Gate::closed(), ..Whole::default() });
    let mut stream = Stream::open(&whole, NEVER).await;
    stream.write(0).await;
    let volume = stream.volume.clone();
    let round = tokio::spawn(async move { volume.sync_round().await });
    while whole.asked.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    stream.write(1).await;
    stream.writer.sync().await.unwrap();
    whole.gate.set(false);
    round.await.unwrap();
    assert_eq!(check::in_journal(&stream.disk, "x.flv"), (20, 20));
    stream.round(2).await;
    assert_eq!(check::in_journal(&stream.disk, "x.flv"), (30, 30));
}

#[tokio::test]
async fn who_waits_too_long_for_others_syncs_its_own_files() {
    let whole = Arc::new(Whole { gate: Gate::closed(), ..Whole::default() });
    // A quarter of it is waited for.
    let mut stream = Stream::open(&whole, Duration::from_secs(8)).await;
    stream.round(0).await;
    let files = stream.count(is_file);
    assert!(files >= 2, "the media and its journal: {files}");
    stream.round(1).await;
    assert!(stream.count(is_file) >= files + 2);
    assert_eq!(
        whole.asked.load(Relaxed),
        1,
        "while it waits there, and for a while after, it does not ask again"
    );
    whole.gate.set(false);
}

#[tokio::test]
async fn which_file_an_error_is_about_is_found_out() {
    let whole = Arc::new(Whole { error: Some(Errno::IO), ..Whole::default() });
    let mut stream = Stream::open(&whole, NEVER).await;
    stream.round(0).await;
    assert_eq!(stream.count(is_file), 2, "the media and its journal");
    assert!(stream.writer.settled().await, "it is about neither");
    stream.round(1).await;
    assert_eq!(whole.asked.load(Relaxed), 2, "it is tried again");
}

/// No checksum holds for bytes that changed, so they are patched only when a `Synced` that counts them is durable itself:
/// one round later than they are.
#[tokio::test]
async fn what_is_durable_is_patched_when_the_journal_durably_says_so() {
    let whole = Arc::new(Whole::default());
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(Roots::open(dir.path(), &[]).unwrap(), Some(NEVER));
    let world = World::new(World::formats().await, DEVICE);
    let model = Model::new(EXT4);
    let folder = world.folder(Arc::new(Hooked { folder: Arc::new(model.clone()), hook: whole }));
    let volume = disk.volumes.get(DEVICE).unwrap();
    // In a segment of its own, a patch behind so many rounds; whether that made a sync point.
    for (rounds, syncs) in [(1, true), (2, false)] {
        let names = std::iter::once(format!("{rounds}.flv"));
        let mut segment = Segment::claim(&disk, &folder, names, false).await.unwrap();
        let start = Start { format: "flv".into(), file: segment.name().into(), ..Start::default() };
        let main = segment.create("", Role::Main, &start).unwrap();
        segment.begun().await.unwrap();
        segment.append(main, ["0123".into()]).unwrap();
        for _ in 0..rounds {
            segment.append(main, ["x".into()]).unwrap();
            segment.flush().await.unwrap();
            segment.settled().await.unwrap();
            volume.sync_round().await;
        }
        let before = model.ops();
        segment.patch(main, 2, b"x".to_vec()).await.unwrap();
        segment.settled().await.unwrap();
        let made = model.history().ops[before..].iter().any(is_file);
        assert_eq!(made, syncs, "after {rounds} rounds");
        segment.finish().await.unwrap();
    }
}
