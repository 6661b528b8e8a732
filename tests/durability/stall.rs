//! A disk that does not answer, such as an NFS server that is gone: who writes to another one must not notice.

use std::{cell::Cell, sync::Arc};

use bytes::Bytes;
use reelwright::{
    format::{Begin, Writer},
    media::Sample,
    output::Segment,
};
use rustix::io::Errno;

use crate::{
    disk::{EXT4, Model},
    hooked::{Gate, Hook, Hooked},
    scenario::{Scenario, World, record},
    support,
};

impl Hook for Gate {
    fn change(&self, _: bool) -> Result<(), Errno> {
        self.pass();
        Ok(())
    }

    fn look(&self) {
        self.pass();
    }
}

/// A recording on a volume of its own, that can be made to stall.
struct Stream {
    disk: Model,
    gate: Arc<Gate>,
    writer: Writer,
}

impl Stream {
    async fn open(world: &World, scenario: &Scenario, device: u64) -> Self {
        let (disk, gate) = (scenario.disk(), Arc::<Gate>::default());
        let folder =
            world.folder_on(device, Arc::new(Hooked { folder: Arc::new(disk.clone()), hook: gate.clone() }));
        let names = std::iter::once(format!("x.{}", scenario.format));
        let segment = Segment::claim(&world.disk, &folder, names, false).await.unwrap();
        let begin = Begin { head_room: scenario.head_room, ..support::begin(&scenario.clips()[0], &[]) };
        let version = world.formats.get(scenario.format).unwrap();
        let mut writer = Writer::open(version, segment, begin).await.unwrap();
        writer.sync().await.unwrap();
        Self { disk, gate, writer }
    }
}

#[tokio::test]
async fn a_disk_that_stalls_holds_up_neither_its_stream_nor_other_disks() {
    let world = World::new(World::formats().await, 1);
    for format in ["flv", "ts", "mp4"] {
        let scenario = Scenario::new(format, format, EXT4);
        let expected = record(&world, &scenario, &scenario.disk()).await.remove(0).bytes;
        let clip = &scenario.clips()[0];
        let mut stalled = Stream::open(&world, &scenario, 11).await;
        let mut good = Stream::open(&world, &scenario, 12).await;
        stalled.gate.set(true);
        let before = stalled.disk.ops();
        for batch in clip.samples.chunks(10) {
            stalled.writer.write(batch).await.unwrap();
            good.writer.write(batch).await.unwrap();
            good.writer.sync().await.unwrap();
        }
        good.writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
        assert!(good.disk.image().read(&format!("x.{format}")).unwrap() == expected, "{format}");
        assert_eq!(stalled.disk.ops(), before, "{format}: it stalls");
        stalled.gate.set(false);
        stalled.writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
        assert!(stalled.disk.image().read(&format!("x.{format}")).unwrap() == expected, "{format}");
    }
}

/// Ingest is held back when so much waits for a disk that memory would grow.
#[tokio::test]
async fn what_waits_for_a_disk_is_bounded() {
    const SAMPLE: usize = 1 << 20;
    const COUNT: usize = 80;
    let world = World::new(World::formats().await, 1);
    let scenario = Scenario::new("flv", "flv", EXT4);
    let Stream { disk, gate, mut writer } = Stream::open(&world, &scenario, 21).await;
    let mut good = Stream::open(&world, &scenario, 22).await;
    let data = Bytes::from(vec![0x55; SAMPLE]);
    let sample = |i: usize| Sample {
        track: 1,
        dts_ms: i as i64,
        pts_ms: i as i64,
        key: i == 0,
        discontinuity: false,
        data: data.clone(),
    };
    gate.set(true);
    let accepted = Cell::new(0);
    let flood = async {
        for i in 0..COUNT {
            writer.write(&[sample(i)]).await.unwrap();
            accepted.set(i + 1);
        }
        writer
    };
    let meanwhile = async {
        while accepted.get() < 60 {
            tokio::task::yield_now().await;
        }
        for i in 0..10 {
            good.writer.write(&[sample(i)]).await.unwrap();
        }
        good.writer.sync().await.unwrap();
        assert!(accepted.get() * SAMPLE <= 64 << 20, "{} MiB are in memory", accepted.get());
        gate.set(false);
    };
    let (writer, ()) = tokio::join!(flood, meanwhile);
    let end = support::clip().end();
    writer.finish(end).await.unwrap().complete().await.unwrap();
    assert!(disk.image().files["x.flv"].size > (COUNT * SAMPLE) as u64);
}
