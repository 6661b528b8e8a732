//! What a component costs before its first sample, and while it is live.

use std::{path::Path, sync::Arc, time::Instant};

use reelwright::{
    format::{Engine, Formats, Version, Writer, limits::Limits},
    media::Sample,
};
use tokio::runtime::Runtime;

use crate::{
    Effort,
    files::{Media, remove_files, scratch},
    muxers::{begin, get},
    stream::{self, Payload},
    timing::{Rounds, Table, figure},
};

const FORMATS: [&str; 3] = ["flv", "ts", "mp4"];

/// Memory of a writer of each format, in the order of the formats.
#[derive(Debug)]
pub(crate) struct Memory(Vec<WriterMemory>);

/// KiB a writer.
#[derive(Debug)]
struct WriterMemory {
    /// What the process grew by for one that has opened its file, and has been given no sample.
    idle: f64,
    /// For one after 2 s of stream.
    live: f64,
    /// What the component has as linear memory, used or not.
    linear: f64,
}

/// Measures memory. Comes first in the process and keeps all writers until the end, so that none lives in what
/// something else has freed.
pub(crate) fn memory(runtime: &Runtime, formats: &Formats, effort: Effort) -> anyhow::Result<Memory> {
    let samples = stream::samples(2, Payload::Real);
    let media = Media::new()?;
    let count = effort.pick(100, 2);
    runtime.block_on(async {
        let mut live = Vec::new();
        let mut memory = Vec::new();
        for format in FORMATS {
            let (version, first) = (get(formats, format)?, live.len());
            // The first one pays for what all share.
            live.push(open(&version, &media).await?);
            write(&mut live[first], &samples).await?;
            media.settle().await?;
            let before = resident()?;
            for _ in 0..count {
                live.push(open(&version, &media).await?);
            }
            media.settle().await?;
            let idle = (resident()? - before) / count as f64;
            let new = &mut live[first + 1..];
            for writer in &mut *new {
                write(writer, &samples).await?;
            }
            media.settle().await?;
            let linear: usize = new.iter().map(Writer::memory).sum();
            memory.push(WriterMemory {
                idle,
                live: (resident()? - before) / count as f64,
                linear: linear as f64 / 1024.0 / count as f64,
            });
        }
        for writer in live {
            writer.abandon().await;
        }
        Ok(Memory(memory))
    })
}

async fn open(version: &Arc<Version>, media: &Media) -> anyhow::Result<Writer> {
    let segment = media.segment(&version.manifest.extension).await?;
    Ok(Writer::open(version.clone(), segment, begin()).await?)
}

async fn write(writer: &mut Writer, samples: &[Sample]) -> anyhow::Result<()> {
    for batch in samples.chunks(10) {
        writer.write(batch).await?;
    }
    Ok(())
}

/// Measures times and prints.
pub(crate) fn run(runtime: &Runtime, engine: &Engine, memory: &Memory, effort: Effort) -> anyhow::Result<()> {
    let media = Media::new()?;
    let mut table = Table::new(&[
        "",
        "size, KiB",
        "compile, ms",
        "load from the cache, ms",
        "first open, µs",
        "open, µs",
        "an idle writer, KiB",
        "a live writer, KiB",
        "linear memory, KiB",
    ]);
    runtime.block_on(async {
        let data = scratch()?;
        let cache = data.path().join("components");
        let formats = Formats::open(engine.clone(), Some(data.path()), None, Limits::default()).await?;
        for (format, memory) in FORMATS.into_iter().zip(&memory.0) {
            let file = Path::new(env!("OUT_DIR")).join(format!("{format}.wasm"));
            let mut compile = Rounds::new();
            for _ in 0..effort.pick(5, 1) {
                remove_files(&cache)?;
                compile.add(milliseconds(formats.load(&file)).await?.0);
            }
            let (mut cached, mut first) = (Rounds::new(), Rounds::new());
            let mut open = Rounds::new();
            for _ in 0..effort.pick(15, 1) {
                let (time, version) = milliseconds(formats.load(&file)).await?;
                cached.add(time);
                let version = Arc::new(version);
                for number in 0..effort.pick(20, 2) {
                    let segment = media.segment(format).await?;
                    let (time, writer) =
                        milliseconds(Writer::open(version.clone(), segment, begin())).await?;
                    if number == 0 { &mut first } else { &mut open }.add(time * 1e3);
                    writer.abandon().await;
                }
                media.clear().await?;
            }
            table.row([
                format.to_owned(),
                figure(std::fs::metadata(&file)?.len() as f64 / 1024.0),
                compile.to_string(),
                cached.to_string(),
                first.to_string(),
                open.to_string(),
                figure(memory.idle),
                figure(memory.live),
                figure(memory.linear),
            ]);
        }
        anyhow::Ok(())
    })?;
    println!("## Loading\n");
    println!(
        "By the clock on the wall: median (least–most). Loading reads the file, checks it, compiles it or takes\n\
         it from the cache, and calls `describe`. Opening instantiates, calls `open` and creates the files.\n\
         Memory is what the process grows by for a writer, of {} each: an idle one has opened its file, a live\n\
         one has been given 2 s of stream.\n",
        effort.pick(100, 2)
    );
    println!("{table}");
    Ok(())
}

/// What a future gives, and how many milliseconds it takes.
async fn milliseconds<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<(f64, T), E> {
    let begin = Instant::now();
    let result = work.await?;
    Ok((begin.elapsed().as_secs_f64() * 1e3, result))
}

/// KiB of memory that this process has.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
