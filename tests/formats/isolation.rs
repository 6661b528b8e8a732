//! What a component that computes without end costs the others.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use reelwright::format::{
    Cause, FormatError, Policy,
    limits::{Limit, Limits},
    lineup::{Mode, Source},
};
use reelwright_built_components::marked;

use crate::{
    checks::server,
    contained::hostile,
    support::{Host, begin, clip, embedded},
};

/// Recordings that must not notice.
const NEIGHBOURS: usize = 10;
/// How long a spinner may compute.
const TIME: Duration = Duration::from_millis(500);

/// One whose test components may compute for so long.
async fn host() -> Host {
    let mut limits = Limits::default();
    let time = (Limit::WriteTime, u64::try_from(TIME.as_millis()).unwrap());
    limits.overrides.insert("spin-in-write".into(), vec![time]);
    Host::with(limits).await
}

/// Twice as many threads as may be taken by those who compute long, and eight times as many who do.
#[test]
fn however_many_spin_half_of_the_cores_are_left() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let permits = (cores / 2).max(1);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2 * permits).enable_all().build().unwrap();
    let spinners = 8 * permits;
    runtime.block_on(async {
        let (clip, host) = (clip(), Arc::new(host().await));
        let flv = host.formats.get("flv").unwrap();
        let mut writers = Vec::new();
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
        let neighbour = host.clone();
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
        assert!(*first < together / 2, "they are found out one by one: {first:?} of {together:?}");
        assert!(done < *last, "the neighbour was done after {done:?}, the last spinner after {last:?}");
        assert!(p99 < TIME / 4, "a write of the neighbour took {p99:?}");
    });
}

/// What still computes when its version has failed too often elsewhere is ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_taken_out_of_use_is_ended_where_it_computes() {
    let host = Host::with(Limits { write_time: Duration::from_secs(3600), ..Limits::default() }).await;
    for order in ["early nothing x", "late write-loop x"] {
        let loading =
            host.formats.stage(hostile(order), Source::Command("/x.wasm".into()), None, None).unwrap();
        let version = loading.outcome().await.unwrap_or_else(|error| panic!("{order}: {error}"));
        host.formats.swap("x", &version.sha256, Mode::Drain).await.unwrap();
    }
    let bad = host.formats.get("x").unwrap();
    let clip = clip();
    let mut writer = host.open(&bad, begin(&clip, &[])).await.unwrap();
    let mut batches = clip.samples.chunks(50);
    for batch in batches.by_ref().take(4) {
        writer.write(batch).await.unwrap();
    }
    let late = batches.next().unwrap();
    let mut write = Box::pin(writer.write(late));
    let is_pending = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_pending()));
    assert!(is_pending.await, "it loops, and gives way");
    for _ in 0..3 {
        let cause = Cause::Trap("in another recording".into());
        host.formats.failed(&bad, 1, &FormatError { component: bad.label(), call: "write", cause });
    }
    assert_ne!(host.formats.get("x").unwrap().sha256, bad.sha256);
    let error = write.await.unwrap_err().to_string();
    assert!(error.contains("its version was taken out of use meanwhile"), "{error}");
    drop(writer.abandon().await);
}

/// Ten recordings in real time, until it is over. Returns how long their writes took, sorted.
async fn neighbours(host: &Arc<Host>, over: &Arc<AtomicBool>) -> Vec<Duration> {
    let mut tasks = Vec::new();
    for i in 0..NEIGHBOURS {
        let version = host.formats.get(["flv", "ts", "mp4"][i % 3]).unwrap();
        let (host, over) = (host.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let clip = clip();
            let mut waits = Vec::new();
            let mut writer = host.open_as(&version, begin(&clip, &[]), &format!("n{i}")).await.unwrap();
            // 77 samples a second.
            let mut due = tokio::time::interval(Duration::from_millis(130));
            let mut shift_ms = 0;
            'all: loop {
                for batch in clip.samples.chunks(10) {
                    due.tick().await;
                    if over.load(Relaxed) {
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
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    waits.sort();
    waits
}

/// Says how long writes took, and asserts that they were on time.
fn on_time(waits: &[Duration], beside: &str) {
    let at = |part: usize| waits[(waits.len() * part / 1000).min(waits.len() - 1)];
    let (p50, p99, most) = (at(500), at(990), at(1000));
    println!(
        "{} writes of {NEIGHBOURS} neighbours beside {beside}: p50 {p50:?}, p99 {p99:?}, most {most:?}",
        waits.len()
    );
    assert!(p99 <= Duration::from_millis(10), "p99 {p99:?}");
}

/// `make soak`: for 20 s, beside eight components that spin whenever they are called, and four that hoard memory until
/// they are stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn soak_neighbours_of_hostile_components_write_on_time() {
    let over = Arc::new(AtomicBool::new(false));
    let host = Arc::new(Host::new().await);
    let mut hostile = Vec::new();
    for i in 0..12 {
        let version = host.load(if i < 8 { "spin_in_write" } else { "hoard_memory" }).await;
        let (host, over) = (host.clone(), over.clone());
        hostile.push(tokio::spawn(async move {
            let clip = clip();
            let mut stopped = 0u32;
            while !over.load(Relaxed) {
                let mut writer =
                    host.open_as(&version, begin(&clip, &[]), &format!("h{i}-{stopped}")).await.unwrap();
                let mut batches = clip.samples.chunks(10).cycle();
                while writer.write(batches.next().unwrap()).await.is_ok() {}
                drop(writer.abandon().await);
                stopped += 1;
            }
            stopped
        }));
    }
    let end = over.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        end.store(true, Relaxed);
    });
    let waits = neighbours(&host, &over).await;
    let mut stopped = 0;
    for hostile in hostile {
        stopped += hostile.await.unwrap();
    }
    assert!(stopped > 0);
    on_time(&waits, &format!("{stopped} hostile writers that were stopped"));
}

/// `make soak`: beside a component of 20 MB that is compiled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn soak_neighbours_of_the_compiler_write_on_time() {
    let policy = Policy { compiler: Some(server()), ..Policy::default() };
    let host = Arc::new(Host::under(Limits::default(), policy).await);
    let over = Arc::new(AtomicBool::new(false));
    let mut wasm = embedded("flv");
    let module = large_module(20 << 20);
    // One module more, which nobody instantiates, and which is compiled (component model, Binary.md).
    wasm.push(1);
    wasm.extend(leb(module.len()));
    wasm.extend(module);
    // What was compiled before comes from the cache.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_le_bytes();
    let wasm = marked(wasm, &now);
    let size = wasm.len();
    let (its, end) = (host.clone(), over.clone());
    let compiled = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let file = its.dir.path().join("large.wasm");
        std::fs::write(&file, wasm).unwrap();
        let loaded = its.formats.load(&file).await;
        end.store(true, Relaxed);
        loaded.unwrap_or_else(|error| panic!("{error}"));
        begun.elapsed()
    });
    let waits = neighbours(&host, &over).await;
    on_time(
        &waits,
        &format!("a component of {} MB that was compiled in {:?}", size / 1_000_000, compiled.await.unwrap()),
    );
}

/// A module of functions that compute something, of at least so many bytes.
fn large_module(bytes: usize) -> Vec<u8> {
    // Of one argument, an i64, and one such result: WebAssembly core, 5.
    let mut body = vec![0];
    for i in 0..100 {
        // local.get 0, i64.const, i64.mul, local.get 0, i64.xor, local.set 0
        body.extend([0x20, 0, 0x42, i % 64, 0x7e, 0x20, 0, 0x85, 0x21, 0]);
    }
    body.extend([0x20, 0, 0x0b]);
    let function = [leb(body.len()), body].concat();
    let count = bytes / function.len() + 1;
    let types = [leb(count), vec![0; count]].concat();
    let code = [leb(count), function.repeat(count)].concat();
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, section) in [(1, vec![1, 0x60, 1, 0x7e, 1, 0x7e]), (3, types), (10, code)] {
        module.push(id);
        module.extend(leb(section.len()));
        module.extend(section);
    }
    module
}

/// Unsigned, seven bits a byte.
fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}
