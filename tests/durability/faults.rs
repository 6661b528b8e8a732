//! A call to the disk fails: each of a recording's, once or for good, with each error that a disk has.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use reelwright::{
    format::{Begin, Writer},
    output::{Segment, orphan::Found, path::Folder},
};
use rustix::io::Errno;

use crate::{
    check,
    disk::{BTRFS, EXT4, TMPFS},
    hooked::{Gate, Hook, Hooked},
    scenario::{Scenario, World, Written, record, repair},
    support::{self, Clip},
};

/// How a disk fails.
#[derive(Clone, Copy, Debug)]
enum Way {
    Once,
    /// Half of a write is done.
    Short,
    /// From some call on: with `IO` all calls, else those that need space.
    ForGood,
}

#[derive(Debug)]
struct Fault {
    /// The first call that fails.
    at: usize,
    errno: Errno,
    way: Way,
    calls: AtomicUsize,
    over: AtomicBool,
}

impl Fault {
    fn new(at: usize, errno: Errno, way: Way) -> Arc<Self> {
        Arc::new(Self { at, errno, way, calls: AtomicUsize::new(0), over: AtomicBool::new(false) })
    }

    /// Space has returned.
    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Hook for Fault {
    fn change(&self, needs_space: bool) -> Result<(), Errno> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let later = matches!(self.way, Way::ForGood) && (needs_space || self.errno == Errno::IO);
        let fails = call == self.at || (later && call > self.at);
        if fails && !self.over.load(Ordering::SeqCst) { Err(self.errno) } else { Ok(()) }
    }

    fn is_short(&self) -> bool {
        matches!(self.way, Way::Short)
    }
}

/// Says which call failed when a check does.
struct Scene<'a>(&'a Scenario, &'a Fault);

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("`{}`: {:?}", self.0.name, self.1);
        }
    }
}

/// What became of a recording.
#[derive(Debug, Default)]
struct Recorded {
    complete: bool,
    /// Samples before the last sync point that succeeded.
    synced: usize,
}

/// Records a clip as the recorder does, as far as the disk allows, and lets go of what is left.
async fn record_on(
    world: &World,
    folder: &Arc<Folder>,
    scenario: &Scenario,
    name: &str,
    clip: &Clip,
) -> Recorded {
    let mut result = Recorded::default();
    let names = std::iter::once(format!("{name}.{}", scenario.format));
    let Ok(segment) = Segment::claim(&world.disk, folder, names, scenario.overwrites).await else {
        return result;
    };
    let begin = Begin { head_room: scenario.head_room, ..support::begin(clip, &[]) };
    let version = world.formats.get(scenario.format).unwrap();
    let Ok(mut writer) = Writer::open(version, segment, begin).await else { return result };
    let mut given = 0;
    for (i, batch) in clip.samples.chunks(scenario.batch).enumerate() {
        let mut written = writer.write(batch).await;
        given += batch.len();
        if written.is_ok() && i % scenario.sync_every == scenario.sync_every - 1 {
            written = writer.sync().await;
            if written.is_ok() {
                result.synced = given;
            }
        }
        if written.is_err() {
            drop(writer.abandon().await);
            return result;
        }
    }
    if let Ok(closing) = writer.finish(clip.end()).await {
        result.complete = closing.complete().await.is_ok();
    }
    result
}

/// Records on a disk with a fault, beside a recording without one; then the fault is over, and what is left is
/// repaired. Returns whether the recording was completed.
async fn judge(world: &World, scenario: &Scenario, clip: &Clip, good: &Written, fault: &Arc<Fault>) -> bool {
    let _scene = Scene(scenario, fault);
    let disk = scenario.disk();
    let bad_folder = world.folder(Arc::new(Hooked { folder: Arc::new(disk.clone()), hook: fault.clone() }));
    let good_folder = world.folder(Arc::new(disk.clone()));
    let (result, other) = tokio::join!(
        record_on(world, &bad_folder, scenario, "x", clip),
        record_on(world, &good_folder, scenario, "y", clip)
    );
    fault.end();
    assert!(other.complete, "the other recording");
    let name = format!("x.{}", scenario.format);
    let (committed, _) = check::in_journal(&disk, &name);
    assert!(result.complete || committed >= result.synced, "{committed} committed, {result:?}");
    repair(world, &disk).await;
    let after = disk.image();
    let other = format!("y.{}", scenario.format);
    assert!(after.read(&other).as_ref() == Some(&good.bytes), "the other recording");
    let strange: Vec<_> = after.names().into_iter().filter(|n| *n != name && *n != other).collect();
    assert!(strange.is_empty(), "left over: {strange:?}");
    match after.read(&name) {
        None => assert!(
            committed == 0 && !result.complete && scenario.old().is_none(),
            "{committed} committed, and no file"
        ),
        found if found == scenario.old() => {
            assert!(committed == 0 && !result.complete, "{committed} committed, and the old file");
        }
        Some(bytes) if result.complete => assert!(bytes == good.bytes, "it was finished"),
        Some(bytes) => {
            let samples = check::samples_in(good, &bytes);
            assert!(samples >= committed, "{samples} samples of {committed}");
        }
    }
    result.complete
}

#[tokio::test]
async fn whichever_call_fails_the_file_is_readable_and_others_go_on() {
    let of = Scenario::new;
    let scenarios = [
        of("flv", "flv", EXT4),
        Scenario { overwrites: true, ..of("flv over another", "flv", EXT4) },
        of("ts", "ts", EXT4),
        Scenario { head_room: 0, ..of("mp4, shifted", "mp4", EXT4) },
        Scenario { head_room: 0, ..of("mp4, copied", "mp4", TMPFS) },
        Scenario { overwrites: true, ..of("mp4 over another", "mp4", BTRFS) },
    ];
    let world = World::new(World::formats().await, 1);
    let mut runs = 0;
    for scenario in scenarios {
        let good = record(&world, &scenario, &scenario.disk()).await.remove(0);
        let clip = &scenario.clips()[0];
        let none = Fault::new(usize::MAX, Errno::IO, Way::Once);
        assert!(judge(&world, &scenario, clip, &good, &none).await);
        let calls = none.calls.load(Ordering::SeqCst);
        assert!(calls > 20, "{calls}");
        for at in 0..calls {
            for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO] {
                for way in [Way::Once, Way::Short, Way::ForGood] {
                    let fault = Fault::new(at, errno, way);
                    judge(&world, &scenario, clip, &good, &fault).await;
                    runs += 1;
                }
            }
        }
        eprintln!("{:17} {calls:3} calls", scenario.name);
    }
    eprintln!("{runs} recordings on a disk with a fault");
}

/// A disk that says no, and takes its time for it.
#[derive(Debug)]
struct Late(Gate);

impl Hook for Late {
    fn change(&self, _: bool) -> Result<(), Errno> {
        self.0.pass();
        Err(Errno::NOSPC)
    }
}

/// A recording that goes on in its next file gives samples to it before the disk has said whether it takes it.
#[tokio::test]
async fn whose_a_file_is_that_was_not_even_begun_is_known() {
    let world = World::new(World::formats().await, 1);
    let scenario = Scenario::new("flv", "flv", EXT4);
    let late = Arc::new(Late(Gate::closed()));
    let folder = world.folder(Arc::new(Hooked { folder: Arc::new(scenario.disk()), hook: late.clone() }));
    let names = std::iter::once("x.flv".to_owned());
    let segment = Segment::claim(&world.disk, &folder, names, false).await.unwrap();
    let clip = &scenario.clips()[0];
    let begin = Begin { config_id: 7, stream: "cam".into(), ..support::begin(clip, &[]) };
    let version = world.formats.get("flv").unwrap();
    let mut writer = Writer::open_ahead(version, segment, begin).await.unwrap();
    writer.write(&clip.samples[..10]).await.unwrap();
    late.0.set(false);
    assert!(!writer.settled().await);
    let found = writer.abandon().await.cut_back().await.unwrap();
    let Found::Nothing { start: Some(start), .. } = found else { panic!("{found:?}") };
    assert_eq!((start.config_id, start.stream.as_str()), (7, "cam"));
}
