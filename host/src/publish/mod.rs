//! `reelwright publish`: sends an FLV file to an RTMP server as if it were live. For demos, tests and load.
//!
//! `flv` reads the file, `clip` says which tag is due when, `sender` drives one connection. However
//! many connections there are, the file is in memory once.

mod clip;
mod flv;
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
}

/// What was sent, over all connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Bytes on the wire.
    pub bytes: u64,
    /// Audio and video tags.
    pub tags: u64,
    pub seconds: f64,
    /// How much later than due a tag was with the kernel, at worst; 0 for speed 0.
    pub worst_lateness_ms: u64,
}

/// Counters that all connections share.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    tags: AtomicU64,
    worst_lateness_ms: AtomicU64,
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
    let pace = Pace { speed: options.speed, duration: options.duration };
    let spread = match options.speed {
        0.0 => Duration::ZERO,
        speed => clip.key_interval().div_f64(speed).div_f64(options.streams as f64),
    };

    let started = Instant::now();
    let progress = Arc::new(Progress::default());
    let mut connections = JoinSet::new();
    for i in 0..options.streams {
        let url = if options.streams == 1 { url.clone() } else { url.numbered(i + 1) };
        let (clip, progress) = (clip.clone(), progress.clone());
        connections.spawn(async move {
            tokio::time::sleep_until(started + spread.mul_f64(i as f64)).await;
            let name = url.name.clone();
            sender::publish(url, &clip, pace, &progress).await.with_context(|| format!("stream `{name}`"))
        });
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
                let Report { bytes, tags, seconds, worst_lateness_ms } = progress.report(started);
                let streams = connections.len();
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
            worst_lateness_ms: self.worst_lateness_ms.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
