//! `reelwright publish`: sends an FLV file to an RTMP server as if it were live. For demos, tests and load.
//!
//! `flv` reads the file, `clip` says which tag is due when, `sender` drives one connection, `load` many that send the
//! same. However many connections there are, the file is in memory a few times at most.

mod clip;
mod flv;
mod load;
mod sender;
mod url;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{task::JoinSet, time::Instant};

use clip::Clip;
use sender::Pace;
use url::Url;

/// Files are read as a whole.
const MAX_FILE_BYTES: u64 = 4 << 30;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What to publish, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// An FLV file with codecs that the server takes.
    pub file: PathBuf,
    /// `rtmp://host[:port]/app/name[?query]`
    pub url: String,
    /// 1 is real time, 2 twice as fast; 0 as fast as the server takes it.
    pub speed: f64,
    /// Connections at the same time, 1 or more. With more than one, their names end in `_1`, `_2`, …, and
    /// they start so that their key frames are spread out.
    pub streams: usize,
    /// Length of media to send: the file is repeated, with timestamps that go on, or cut. `None`: once.
    pub duration: Option<Duration>,
    /// Bytes of the RTMP chunks that are sent, 128 to 16777215. OBS takes 4096.
    pub chunk_size: u32,
}

/// Chunk size unless somebody says otherwise.
pub const CHUNK_SIZE: u32 = 65_536;

/// What was sent, over all connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Bytes on the wire.
    pub bytes: u64,
    /// Audio and video tags.
    pub tags: u64,
    pub seconds: f64,
    /// How much later than due a tag was with the kernel, at worst, and for 99 of 100 tags; 0 for speed 0.
    pub worst_lateness_ms: u64,
    pub p99_lateness_ms: u64,
}

/// Counters that all connections share.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    tags: AtomicU64,
    lateness: Lateness,
}

/// Tags by how late they were sent.
#[derive(Debug)]
struct Lateness {
    worst_ms: AtomicU64,
    /// By milliseconds; the last one is for all that were later.
    counts: [AtomicU64; 256],
}

impl Default for Lateness {
    fn default() -> Self {
        Self { worst_ms: AtomicU64::default(), counts: std::array::from_fn(|_| AtomicU64::default()) }
    }
}

/// Publishes until everything was sent and the server has closed each connection, which is how it says that
/// it took everything. Fails if a connection did, after the others are done. To drop the future is to break
/// all connections off.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let file = options.file.clone();
    let clip = tokio::task::spawn_blocking(move || load(&file)).await.context("reading the file")??;
    publish(clip, &options).await
}

async fn publish(clip: Clip, options: &Options) -> anyhow::Result<Report> {
    ensure!(options.streams >= 1, "no streams to publish");
    ensure!(options.speed >= 0.0 && options.speed.is_finite(), "speed {} makes no sense", options.speed);
    let url: Url = options.url.parse()?;
    let clip = Arc::new(clip);
    ensure!(
        (128..=0xff_ffff).contains(&options.chunk_size),
        "chunks of {} bytes: 128 to 16777215 can be",
        options.chunk_size
    );
    let pace = Pace { speed: options.speed, duration: options.duration, chunk_size: options.chunk_size };
    let spread = match options.speed {
        0.0 => Duration::ZERO,
        speed => clip.key_interval().div_f64(speed).div_f64(options.streams as f64),
    };

    let started = Instant::now();
    let progress = Arc::new(Progress::default());
    let mut connections = JoinSet::new();
    if options.streams > 1 && options.speed > 0.0 {
        let urls = (1..=options.streams).map(|i| url.numbered(i)).collect();
        let progress = progress.clone();
        connections.spawn(async move { load::publish(urls, &clip, pace, spread, &progress).await });
    } else {
        for i in 0..options.streams {
            let url = if options.streams == 1 { url.clone() } else { url.numbered(i + 1) };
            let (clip, progress) = (clip.clone(), progress.clone());
            connections.spawn(async move {
                let name = url.name.clone();
                let sent = sender::publish(url, &clip, pace, progress).await;
                sent.with_context(|| format!("stream `{name}`"))
            });
        }
    }

    let mut failures = Vec::new();
    let mut ticks = tokio::time::interval_at(started + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            finished = connections.join_next() => match finished {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => failures.push(error),
                Some(Err(error)) => failures.push(error.into()),
            },
            _ = ticks.tick() => {
                let Report { bytes, tags, seconds, worst_lateness_ms, .. } = progress.report(started);
                let streams = options.streams;
                tracing::info!(streams, tags, bytes, worst_lateness_ms, "{seconds:.0} s published");
            }
        }
    }
    let failed = failures.len();
    match failures.into_iter().next() {
        None => Ok(progress.report(started)),
        Some(error) if options.streams == 1 => Err(error),
        Some(error) => {
            Err(error.context(format!("{failed} of {} streams failed, the first", options.streams)))
        }
    }
}

fn load(file: &std::path::Path) -> anyhow::Result<Clip> {
    let read = || -> anyhow::Result<Clip> {
        let bytes = std::fs::metadata(file)?.len();
        if bytes > MAX_FILE_BYTES {
            bail!("{bytes} bytes, at most {MAX_FILE_BYTES}");
        }
        let file = flv::read(std::fs::read(file)?.into())?;
        if let Some(position) = file.truncated {
            tracing::warn!("the file ends inside the tag at byte {position}, which is left out");
        }
        Clip::new(file)
    };
    read().with_context(|| format!("{}", file.display()))
}

impl Progress {
    fn report(&self, started: Instant) -> Report {
        Report {
            bytes: self.bytes.load(Ordering::Relaxed),
            tags: self.tags.load(Ordering::Relaxed),
            seconds: started.elapsed().as_secs_f64(),
            worst_lateness_ms: self.lateness.worst_ms.load(Ordering::Relaxed),
            p99_lateness_ms: self.lateness.percentile(99),
        }
    }

    /// Counts a tag that was sent so late.
    fn late(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let Lateness { worst_ms, counts } = &self.lateness;
        worst_ms.fetch_max(ms, Ordering::Relaxed);
        let bucket = usize::try_from(ms).unwrap_or(usize::MAX).min(counts.len() - 1);
        counts[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

impl Lateness {
    /// Milliseconds that so many of a hundred tags were not later than.
    fn percentile(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        match reached {
            // Those are later than can be told apart.
            Some(ms) if ms + 1 < counts.len() => ms as u64,
            _ => self.worst_ms.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
