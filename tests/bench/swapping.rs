//! What it costs to change a version while streams are recorded, and to compare a canary.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reelwright::format::{
    Engine,
    lineup::Mode,
    trial::{Terms, Who},
};
use tokio::runtime::Runtime;

use crate::{
    Effort,
    recorder::Recorder,
    timing::{Rounds, Table, cpu_time, figure},
};

const FORMATS: [&str; 3] = ["flv", "ts", "mp4"];

/// Measures and prints.
pub(crate) fn run(engine: &Engine, effort: Effort) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut table = Table::new(&["", "recordings", "swaps", "pause p50, ms", "pause p99, ms"]);
    for mode in [Mode::NextChunk, Mode::Now] {
        runtime.block_on(pauses(engine, mode, effort, &mut table))?;
    }
    println!("## Swaps\n");
    println!(
        "Streams of 2.5 Mb/s in real time, with sync points. A pause is the time from where a recording's writer stops\n\
         to where the next version's begins; what comes meanwhile waits in memory. Upper bounds: times are counted by\n\
         powers of two.\n"
    );
    println!("{table}");
    canary(&runtime, engine, effort)
}

async fn pauses(engine: &Engine, mode: Mode, effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let (streams, swaps) = (effort.pick(30, 3), effort.pick(10, 1));
    let recorder = Recorder::new(engine).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut versions = Vec::new();
    for format in FORMATS {
        versions.push(recorder.versions(format).await?);
    }
    let (mut recordings, mut publishers) = (Vec::new(), Vec::new());
    for number in 0..streams {
        let name = format!("cam{number}");
        recordings.push(recorder.record(&name, FORMATS[number % 3]).await?);
        let (recorder, stop) = (recorder.clone(), stop.clone());
        publishers.push(tokio::spawn(async move { recorder.publish(&name, 120, true, &stop).await }));
    }
    let written_by = async |number: usize| {
        while recordings.iter().any(|r| r.history().stretches.len() < number) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    written_by(1).await;
    for swap in 0..swaps {
        for (format, versions) in FORMATS.iter().zip(&versions) {
            recorder.formats.swap(format, &versions[(swap + 1) % 2], mode).await?;
        }
        written_by(swap + 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await??;
    }
    recorder.recordings.shut_down(Duration::from_secs(30)).await;
    for format in FORMATS {
        let snapshots =
            recorder.formats.versions(Some(format)).into_iter().filter_map(|version| version.code);
        let mut pauses = snapshots.map(|version| version.meters.snapshot().pauses);
        let Some(mut all) = pauses.next() else { continue };
        for more in pauses {
            all.buckets.iter_mut().zip(more.buckets).for_each(|(all, more)| *all += more);
        }
        let ms = |part: f64| figure(all.quantile(part).as_secs_f64() * 1e3);
        table.row([
            format!("{format}, {}", mode.as_str()),
            (streams / 3).to_string(),
            swaps.to_string(),
            ms(0.5),
            ms(0.99),
        ]);
    }
    Ok(())
}

/// Processor time of a recording with and without a canary.
fn canary(runtime: &Runtime, engine: &Engine, effort: Effort) -> anyhow::Result<()> {
    let seconds = effort.pick(120, 4);
    let mut table = Table::new(&["", "alone, ms CPU a minute", "with a canary", "ratio"]);
    for format in FORMATS {
        let (mut alone, mut compared) = (Rounds::new(), Rounds::new());
        for _ in 0..effort.pick(5, 1) {
            for with_canary in [false, true] {
                let time = runtime.block_on(async {
                    let recorder = Recorder::new(engine).await?;
                    let versions = recorder.versions(format).await?;
                    if with_canary {
                        let terms = Terms { who: Who::First(1), pass_ms: u64::MAX, mode: Mode::Drain };
                        recorder.formats.try_beside(format, &versions[1], terms).await?;
                    }
                    let recording = recorder.record("cam", format).await?;
                    let begun = cpu_time();
                    recorder.publish("cam", seconds, false, &AtomicBool::new(false)).await?;
                    while recording.run().is_some() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    let time = cpu_time() - begun;
                    anyhow::Ok(time)
                })?;
                let ms = time.as_secs_f64() * 1e3 * 60.0 / seconds as f64;
                if with_canary { &mut compared } else { &mut alone }.add(ms);
            }
        }
        let ratio = compared.median() / alone.median();
        table.row([format.to_owned(), alone.to_string(), compared.to_string(), figure(ratio)]);
    }
    println!("## Canaries\n");
    println!(
        "Processor time of one recording of 2.5 Mb/s, fed as fast as it is written, per minute of media. A canary adds two\n\
         writers, the reading of their files, and hashes of all that was given; slices that fall behind are left out.\n"
    );
    println!("{table}");
    Ok(())
}
