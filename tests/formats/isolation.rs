//! What a component that computes without end costs the others.

use std::time::{Duration, Instant};

use reelwright::format::limits::Limits;

use crate::support::{Host, begin, clip};

/// How long a spinner may compute.
const TIME: Duration = Duration::from_millis(500);

/// Twice as many threads as may be taken by those who compute long, and eight times as many who do.
#[test]
fn however_many_spin_half_of_the_cores_are_left() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let permits = (cores / 2).max(1);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2 * permits).enable_all().build().unwrap();
    let spinners = 8 * permits;
    runtime.block_on(async {
        let neighbour = std::sync::Arc::new(Host::new().await);
        let flv = neighbour.formats.get("flv").unwrap();
        let limits = Limits { write_time: TIME, ..Limits::default() };
        let mut writers = Vec::new();
        let (clip, host) = (clip(), Host::with(limits).await);
        let spinner = host.load("spin_in_write").await;
        for i in 0..spinners {
            let writer = host.open_as(&spinner, begin(&clip, &[]), &format!("x{i}")).await.unwrap();
            writers.push(writer);
        }
        let begun = Instant::now();
        let tasks: Vec<_> = writers
            .into_iter()
            .map(|mut writer| {
                let samples = clip.samples[..10].to_vec();
                tokio::spawn(async move {
                    let error = writer.write(&samples).await.unwrap_err();
                    drop(writer.abandon().await);
                    (error.to_string(), begun.elapsed())
                })
            })
            .collect();
        let recorded = tokio::spawn(async move {
            let mut waits = Vec::new();
            for _ in 0..3 {
                let mut writer = neighbour.open(&flv, begin(&clip, &[])).await.unwrap();
                for batch in clip.samples.chunks(10) {
                    let begun = Instant::now();
                    writer.write(batch).await.unwrap();
                    waits.push(begun.elapsed());
                }
                let closing = writer.finish(clip.end()).await.unwrap();
                std::fs::remove_file(closing.complete().await.unwrap().file.path).unwrap();
            }
            waits.sort();
            (waits[waits.len() * 99 / 100], begun.elapsed())
        });
        let (p99, done) = recorded.await.unwrap();
        let mut ends = Vec::new();
        for task in tasks {
            let (error, end) = task.await.unwrap();
            assert!(error.contains("limit `write-time` of 500ms"), "{error}");
            ends.push(end);
        }
        let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
        println!("p99 of a write {p99:?}, done after {done:?}; spinners ended after {first:?} to {last:?}");
        // They took turns, so each had to wait for all others; threads for all would have let them end twice as soon.
        let together = TIME * u32::try_from(spinners / permits).unwrap();
        assert!(*last >= together.mul_f64(0.8), "{last:?} of {together:?}");
        assert!(*first >= together.mul_f64(0.6), "turns are fair: {first:?} of {together:?}");
        assert!(done < *first, "the neighbour was done after {done:?}, the first spinner after {first:?}");
        assert!(p99 < TIME / 4, "a write of the neighbour took {p99:?}");
    });
}

/// `make soak`: ten recordings in real time for 20 s, beside eight components that spin whenever they are called, and
/// four that hoard memory until they are stopped. The p99 of a neighbour's writes stays within 10 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn soak_neighbours_of_hostile_components_write_on_time() {
    const NEIGHBOURS: usize = 10;
    const LENGTH: Duration = Duration::from_secs(20);
    let end = Instant::now() + LENGTH;
    let good = std::sync::Arc::new(Host::new().await);
    let bad = std::sync::Arc::new(Host::new().await);
    let mut hostile = Vec::new();
    for i in 0..12 {
        let version = bad.load(if i < 8 { "spin_in_write" } else { "hoard_memory" }).await;
        let bad = bad.clone();
        hostile.push(tokio::spawn(async move {
            let clip = clip();
            let mut stopped = 0u32;
            while Instant::now() < end {
                let mut writer =
                    bad.open_as(&version, begin(&clip, &[]), &format!("h{i}-{stopped}")).await.unwrap();
                let mut batches = clip.samples.chunks(10).cycle();
                while writer.write(batches.next().unwrap()).await.is_ok() {}
                drop(writer.abandon().await);
                stopped += 1;
            }
            stopped
        }));
    }
    let mut neighbours = Vec::new();
    for i in 0..NEIGHBOURS {
        let version = good.formats.get(["flv", "ts", "mp4"][i % 3]).unwrap();
        let good = good.clone();
        neighbours.push(tokio::spawn(async move {
            let clip = clip();
            let mut waits = Vec::new();
            let mut writer = good.open_as(&version, begin(&clip, &[]), &format!("n{i}")).await.unwrap();
            // 77 samples a second.
            let mut due = tokio::time::interval(Duration::from_millis(130));
            let mut shift_ms = 0;
            'all: loop {
                for batch in clip.samples.chunks(10) {
                    due.tick().await;
                    if Instant::now() >= end {
                        break 'all;
                    }
                    let mut batch = batch.to_vec();
                    batch
                        .iter_mut()
                        .for_each(|s| (s.dts_ms, s.pts_ms) = (s.dts_ms + shift_ms, s.pts_ms + shift_ms));
                    let begun = Instant::now();
                    writer.write(&batch).await.unwrap();
                    waits.push(begun.elapsed());
                }
                shift_ms += 6_000;
            }
            drop(writer.abandon().await);
            waits
        }));
    }
    let mut waits = Vec::new();
    for neighbour in neighbours {
        waits.extend(neighbour.await.unwrap());
    }
    let mut stopped = 0;
    for hostile in hostile {
        stopped += hostile.await.unwrap();
    }
    waits.sort();
    let at = |part: usize| waits[(waits.len() * part / 1000).min(waits.len() - 1)];
    println!(
        "{} writes of {NEIGHBOURS} neighbours beside {stopped} hostile writers that were stopped: p50 {:?}, p99 {:?}, most {:?}",
        waits.len(),
        at(500),
        at(990),
        waits.last().unwrap()
    );
    assert!(stopped > 0 && at(990) < Duration::from_millis(10), "p99 {:?}", at(990));
}
