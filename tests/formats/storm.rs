//! Versions of formats swapped again and again while streams are recorded: every sample is in a file, once.
//!
//! Time is compressed: streams come as fast as they are taken. `make soak` does it with 100 streams.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reelwright::{
    events::Events,
    format::{
        Formats,
        lineup::{Mode, Source},
    },
    output::Disk,
    recorder::{Config, Parts, Recording, Recordings, Settings},
    registry::{Declared, Registry},
    repair::Repairs,
    store::{ConfigIds, Store},
};

use crate::{
    named::{Stream, samples_of, source},
    support::{Host, embedded, marked},
};

const FORMATS: [&str; 3] = ["flv", "ts", "mp4"];
const MODES: [Mode; 3] = [Mode::Drain, Mode::NextChunk, Mode::Now];

struct Storm {
    host: Host,
    registry: Registry,
    recordings: Recordings,
    /// By format, two versions that differ in a section without meaning.
    versions: Vec<[String; 2]>,
}

impl Storm {
    /// `sync`: time between sync points.
    async fn new(sync: Option<Duration>) -> Self {
        let mut host = Host::new().await;
        host.disk =
            Disk::new(reelwright::output::Roots::open(&host.dir.path().join("media"), &[]).unwrap(), sync);
        let (registry, events, store) = (Registry::default(), Events::default(), Store::in_memory());
        let (formats, disk) = (host.formats.clone(), host.disk.clone());
        let parts = Parts {
            registry: registry.clone(),
            repairs: Repairs::new(disk.clone(), formats.clone(), events.clone()),
            formats,
            disk,
            events,
            ids: ConfigIds::open(&store).unwrap(),
            store,
        };
        let recordings = Recordings::new(parts, Config::default());
        let mut versions = Vec::new();
        for format in FORMATS {
            let other = marked(embedded(format), b"");
            let loading = host.formats.stage(other, Source::Command(format.into()), None, None).unwrap();
            let loaded = loading.outcome().await.unwrap().sha256.clone();
            versions.push([host.formats.get(format).unwrap().sha256.clone(), loaded]);
        }
        Self { host, registry, recordings, versions }
    }

    fn formats(&self) -> &Formats {
        &self.host.formats
    }

    /// Swaps each format so many times while so many streams are recorded, and reads all files.
    async fn round(self: &Arc<Self>, streams: usize, swaps: usize, modes: &[Mode]) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut recordings = Vec::new();
        let mut feeders = Vec::new();
        for number in 0..streams {
            let name = format!("cam{number:03}");
            let settings = Settings {
                local_stream_name: name.clone(),
                path_to_file: name.clone(),
                format: FORMATS[number % 3].into(),
                chunk_length: 4,
                ..Settings::default()
            };
            let recording = self.recordings.add(settings).await.unwrap();
            recordings.push(recording.clone());
            let (storm, stop) = (self.clone(), stop.clone());
            feeders.push(tokio::spawn(async move { storm.feed(&name, &recording, &stop).await }));
        }
        for recording in &recordings {
            until(|| recording.run().is_some_and(|run| run.segments > 0)).await;
        }
        for swap in 0..swaps {
            let mode = modes[swap % modes.len()];
            let mut active = Vec::new();
            for (format, versions) in FORMATS.iter().zip(&self.versions) {
                let now = self.formats().get(format).unwrap().sha256.clone();
                let next = versions.iter().find(|version| **version != now).unwrap();
                self.formats().swap(format, next, mode).await.unwrap();
                active.push(next);
            }
            let writes = |recording: &Arc<Recording>| {
                let format = FORMATS.iter().position(|f| *f == recording.settings.format).unwrap();
                recording.run().is_some_and(|run| run.component.contains(&active[format][..12]))
            };
            // A drain comes with the next chunk of each.
            until(|| recordings.iter().all(writes)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for feeder in feeders {
            sent.push(feeder.await.unwrap());
        }
        for (recording, sent) in recordings.iter().zip(sent) {
            until(|| recording.run().is_none()).await;
            assert_eq!(recording.history().dropped, 0);
            self.recordings.remove(recording.config_id).await.unwrap();
            let name = &recording.settings.local_stream_name;
            let mut found = Vec::new();
            let mut files = 0;
            for file in self.host.files().into_iter().filter(|file| file.starts_with(name)) {
                let path = self.host.dir.path().join("media").join(file);
                found.extend(samples_of(&path));
                fs::remove_file(path).unwrap();
                files += 1;
            }
            found.sort_unstable();
            assert!(
                found == sent,
                "{name}: {} samples in {files} files, {} were sent",
                found.len(),
                sent.len()
            );
            assert!(files >= swaps, "{name}: {files} files");
        }
        assert!(self.host.files().is_empty(), "nothing else is left: {:?}", self.host.files());
    }

    /// Sends a stream until it is to stop. Returns the names of all samples.
    async fn feed(&self, name: &str, recording: &Recording, stop: &AtomicBool) -> Vec<(u32, u32)> {
        let mut stream = Stream::new();
        let mut publisher = self.registry.publish(name, source()).unwrap();
        publisher.declare(Declared { video: true, audio: true });
        stream.tracks().into_iter().for_each(|track| publisher.track(track));
        until(|| recording.run().is_some()).await;
        let mut names = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for mut batch in stream.second() {
                names.extend(batch.iter().map(|(name, _)| *name));
                let mut samples = batch.drain(..).map(|(_, sample)| sample).collect();
                publisher.send(&mut samples).await;
            }
            // What is sent in this second is recorded before the next one.
            let sent = names.len() as u64;
            until(|| {
                stop.load(Ordering::Relaxed)
                    || recording.run().is_none_or(|run| run.video_samples + run.audio_samples + 300 > sent)
            })
            .await;
        }
        names.sort_unstable();
        names
    }
}

async fn until(mut ready: impl FnMut() -> bool) {
    while !ready() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_swaps_with_ten_streams_lose_and_double_nothing() {
    let storm = Arc::new(Storm::new(None).await);
    storm.round(10, 30, &MODES).await;
}

/// Resident memory in KiB, open files, mappings.
fn held() -> [u64; 3] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss = rss.trim().trim_end_matches(" kB").parse().unwrap();
    let files = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let mappings = fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64;
    [rss, files, mappings]
}

/// `make soak`: 1,000 swaps in each mode (SWAPS) with 100 streams, with sync points as the server has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn soak_swap_storm() {
    const STREAMS: usize = 100;
    const ROUND: usize = 50;
    let swaps: usize = std::env::var("REELWRIGHT_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let storm = Arc::new(Storm::new(Some(Duration::from_secs(2))).await);
    // What is made once.
    storm.round(STREAMS, 10, &MODES).await;
    let before = held();
    for mode in MODES {
        let begun = Instant::now();
        for _ in 0..swaps.div_ceil(ROUND) {
            storm.round(STREAMS, ROUND.min(swaps), &[mode]).await;
        }
        println!("{} swaps, mode {}, {STREAMS} streams: {:?}", swaps, mode.as_str(), begun.elapsed());
    }
    let after = held();
    println!("RSS in KiB, files, mappings: {before:?} before, {after:?} after");
    for format in FORMATS {
        for version in storm.formats().versions(Some(format)) {
            let pauses = version.code.unwrap().meters.snapshot().pauses;
            println!(
                "{format}: {} pauses, p50 {:?}, p99 {:?}",
                pauses.count(),
                pauses.quantile(0.5),
                pauses.quantile(0.99)
            );
            assert!(pauses.quantile(0.99) < Duration::from_millis(50), "{format}");
        }
    }
    for (before, after) in before.into_iter().zip(after) {
        assert!(after <= before + before / 20, "{before} have become {after}");
    }
}
