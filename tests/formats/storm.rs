//! Versions of formats swapped again and again while streams are recorded: every sample is in a file, once.
//!
//! In `make test` time is compressed: streams come as fast as they are taken. `make soak` has 100 of them in real time.

use std::{
    fs,
    sync::{
        Arc, Barrier, Mutex,
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
    media::Sample,
    output::Disk,
    recorder::{Config, Parts, Recording, Recordings, Settings},
    registry::{Declared, Publisher, Registry},
    repair::Repairs,
    store::{ConfigIds, Store},
};
use reelwright_built_components::marked;

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::{
    named::{Name, Stream, samples_of, source},
    support::{Host, embedded},
};

const FORMATS: [&str; 3] = ["flv", "ts", "mp4"];
const MODES: [Mode; 3] = [Mode::Drain, Mode::NextChunk, Mode::Now];

/// How streams come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As fast as they are taken.
    Compressed,
    /// In real time, with what a server reads from a socket at once, and with key frames at any time of a second.
    RealTime,
}

/// Pictures that come at once in real time: 200 ms.
const AT_ONCE: usize = 5;

struct Storm {
    pace: Pace,
    host: Host,
    registry: Registry,
    recordings: Recordings,
    /// By format, two versions that differ in a section without meaning.
    versions: Vec<[String; 2]>,
}

impl Storm {
    /// `sync`: time between sync points.
    async fn new(pace: Pace, sync: Option<Duration>) -> Self {
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
        Self { pace, host, registry, recordings, versions }
    }

    fn formats(&self) -> &Formats {
        &self.host.formats
    }

    /// Swaps each format so many times while so many streams are recorded, chunk by chunk, and reads all files.
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
                chunk_length: if self.pace == Pace::Compressed { 4 } else { 1 },
                ..Settings::default()
            };
            let recording = self.recordings.add(settings).await.unwrap();
            recordings.push(recording.clone());
            let (storm, stop) = (self.clone(), stop.clone());
            feeders.push(tokio::spawn(async move {
                match storm.pace {
                    Pace::Compressed => storm.feed(&name, &recording, &stop).await,
                    Pace::RealTime => {
                        let behind = Duration::from_secs(1) * number as u32 / streams as u32;
                        storm.feed_in_time(&name, &recording, &stop, behind).await
                    }
                }
            }));
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

    async fn publish(&self, stream: &Stream, name: &str, recording: &Recording) -> Publisher {
        let mut publisher = self.registry.publish(name, source()).unwrap();
        publisher.declare(Declared { video: true, audio: true });
        stream.tracks().into_iter().for_each(|track| publisher.track(track));
        until(|| recording.run().is_some()).await;
        publisher
    }

    /// Sends a stream until it is to stop. Returns the names of all samples.
    async fn feed(&self, name: &str, recording: &Recording, stop: &AtomicBool) -> Vec<Name> {
        let mut stream = Stream::new();
        let mut publisher = self.publish(&stream, name, recording).await;
        let mut names = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for batch in stream.second() {
                send(batch, &mut publisher, &mut names).await;
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

    /// The same in real time, beginning after a while.
    async fn feed_in_time(
        &self,
        name: &str,
        recording: &Recording,
        stop: &AtomicBool,
        behind: Duration,
    ) -> Vec<Name> {
        let begun = tokio::time::Instant::now() + behind;
        tokio::time::sleep_until(begun).await;
        let mut stream = Stream::of_usual_size();
        let mut publisher = self.publish(&stream, name, recording).await;
        let (mut names, mut pictures) = (Vec::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            for batches in stream.second().chunks_mut(AT_ONCE) {
                tokio::time::sleep_until(begun + pictures * Duration::from_millis(40)).await;
                pictures += batches.len() as u32;
                let batch = batches.iter_mut().flat_map(std::mem::take).collect();
                send(batch, &mut publisher, &mut names).await;
            }
        }
        names.sort_unstable();
        names
    }
}

async fn send(batch: Vec<(Name, Sample)>, publisher: &mut Publisher, names: &mut Vec<Name>) {
    names.extend(batch.iter().map(|(name, _)| *name));
    publisher.send(&mut batch.into_iter().map(|(_, sample)| sample).collect()).await;
}

async fn until(mut ready: impl FnMut() -> bool) {
    while !ready() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_swaps_with_ten_streams_lose_and_double_nothing() {
    let storm = Arc::new(Storm::new(Pace::Compressed, None).await);
    storm.round(10, 30, &MODES).await;
}

/// Pauses of recordings at swaps, by format, as the log tells them.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<[Vec<Duration>; FORMATS.len()]>>);

impl Pauses {
    /// Listens to the log of this process from here on.
    fn listen() -> Self {
        let pauses = Self::default();
        let log = tracing_subscriber::registry().with(pauses.clone());
        tracing::subscriber::set_global_default(log).expect("no other test of this process listens");
        pauses
    }

    /// Those so far, from the shortest to the longest; the next ones are counted anew.
    fn take(&self) -> [Vec<Duration>; FORMATS.len()] {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap());
        all.iter_mut().for_each(|pauses| pauses.sort_unstable());
        all
    }
}

impl<S: Subscriber> Layer<S> for Pauses {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        #[derive(Default)]
        struct Told {
            pause: Option<Duration>,
            format: Option<usize>,
        }
        impl Visit for Told {
            fn record_u64(&mut self, field: &Field, value: u64) {
                if field.name() == "pause_us" {
                    self.pause = Some(Duration::from_micros(value));
                }
            }
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "file" {
                    let file = format!("{value:?}");
                    self.format = FORMATS.iter().position(|format| file.ends_with(format));
                }
            }
        }
        let mut told = Told::default();
        event.record(&mut told);
        if let Told { pause: Some(pause), format: Some(format) } = told {
            self.0.lock().unwrap()[format].push(pause);
        }
    }
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

/// What is held once it falls no more: the allocator gives pages back ten seconds after they were freed.
async fn held_at_rest() -> [u64; 3] {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut least, mut since) = (held(), Instant::now());
    while since.elapsed() < Duration::from_secs(15) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = held();
        if now.iter().zip(&least).any(|(now, least)| now < least) {
            (least, since) = (now, Instant::now());
        }
    }
    held()
}

/// `make soak`: 1,000 swaps (SWAPS) in each mode, of one format or another, with 100 streams, whose chunks last a second,
/// and with sync points as the server has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn soak_swap_storm() {
    const STREAMS: usize = 100;
    /// Of each format, before all files are read.
    const ROUND: usize = 50;
    let swaps: usize = std::env::var("REELWRIGHT_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let each = swaps.div_ceil(FORMATS.len());
    let pauses = Pauses::listen();
    let storm = Arc::new(Storm::new(Pace::RealTime, Some(Duration::from_secs(2))).await);
    // What is made once; and what the C library keeps of threads that have ended, forty mebibytes of stacks at most.
    storm.round(STREAMS, 10, &MODES).await;
    let all_run = Arc::new(Barrier::new(64));
    for _ in 0..64 {
        let all_run = all_run.clone();
        tokio::task::spawn_blocking(move || all_run.wait());
    }
    let (before, mut long) = (held_at_rest().await, Vec::new());
    for mode in MODES {
        let begun = Instant::now();
        pauses.take();
        let mut left = each;
        while left > 0 {
            let round = left.min(ROUND);
            storm.round(STREAMS, round, &[mode]).await;
            left -= round;
        }
        println!("{swaps} swaps, mode {}, {STREAMS} streams: {:?}", mode.as_str(), begun.elapsed());
        for (format, pauses) in FORMATS.iter().zip(pauses.take()) {
            let part = |part: f64| pauses[(pauses.len() as f64 * part) as usize];
            let (p50, p99, most) = (part(0.5), part(0.99), pauses.last().unwrap());
            println!("{format}: {} pauses, p50 {p50:.1?}, p99 {p99:.1?}, most {most:.1?}", pauses.len());
            if p99 >= Duration::from_millis(50) {
                long.push(format!("{format} by {}: {p99:?}", mode.as_str()));
            }
        }
    }
    let after = held_at_rest().await;
    println!("RSS in KiB, files, mappings: {before:?} before, {after:?} after");
    let is_back = after.iter().zip(&before).all(|(after, before)| *after <= before + before / 20);
    assert!(is_back, "{before:?} have become {after:?}");
    assert!(long.is_empty(), "pauses: {long:?}");
}
