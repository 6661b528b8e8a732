//! Writers that fail at any call of a recording: the recording goes on, and its files have every sample once.
//!
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reelwright::{
    events::Events,
    recorder::{Config, Parts, Phase, Recordings, Settings},
    registry::{Declared, Registry},
    repair::Repairs,
    store::{ConfigIds, Store},
};

use crate::{
    named::{Stream, samples_of, source},
    support::{Clip, Host, component},
};

/// Length of what is recorded, and of a chunk, in seconds.
const SECONDS: i64 = 10;
const CHUNK: u32 = 4;
/// Samples of a chunk: pictures 40 ms apart, and sound of 20 ms.
const CHUNK_SAMPLES: u64 = CHUNK as u64 * 75;
/// Recordings at once.
const AT_ONCE: usize = 16;

/// 10 s with a key frame each second.
fn stream() -> Clip {
    let mut stream = Stream::new();
    let samples = (0..SECONDS).flat_map(|_| stream.second()).flatten().map(|(_, sample)| sample).collect();
    Clip { tracks: stream.tracks(), samples }
}

/// The samples of a file, and its name.
type File = (Vec<(u32, u32)>, String);

struct Recorder {
    host: Host,
    registry: Registry,
    recordings: Recordings,
    events: Events,
    stream: Clip,
}

impl Recorder {
    async fn new(components: &[&str]) -> Arc<Self> {
        let host = Host::new().await;
        for name in components {
            fs::copy(component(name), host.dir.path().join(format!("formats/{name}.wasm"))).unwrap();
        }
        host.formats.refresh().await;
        let (registry, events, store) = (Registry::default(), Events::default(), Store::in_memory());
        let (formats, disk) = (host.formats.clone(), host.disk.clone());
        let parts = Parts {
            registry: registry.clone(),
            repairs: Repairs::new(disk.clone(), formats.clone(), events.clone()),
            formats,
            disk,
            events: events.clone(),
            ids: ConfigIds::open(&store).unwrap(),
            store,
        };
        let recordings = Recordings::new(parts, Config::default());
        Arc::new(Self { host, registry, recordings, events, stream: stream() })
    }

    /// Records the stream with a component that panics as it is told. Returns the files in the order of what they have:
    /// samples and name.
    async fn run(&self, id: usize, format: &str, order: &str, chunk_length: u32) -> Vec<File> {
        let name = format!("cam{id:04}");
        let settings = Settings {
            local_stream_name: name.clone(),
            path_to_file: name.clone(),
            format: format.into(),
            chunk_length,
            ..Settings::default()
        };
        let recording = self.recordings.add(settings).await.unwrap();
        let mut publisher = self.registry.publish(&name, source()).unwrap();
        publisher.declare(Declared { video: true, audio: true });
        for track in &self.stream.tracks {
            let mut track = track.clone();
            track.properties.push(("trap".into(), order.into()));
            publisher.track(track);
        }
        while recording.run().is_none() {
            tokio::task::yield_now().await;
        }
        for (i, batch) in self.stream.samples.chunks(10).enumerate() {
            publisher.send(&mut batch.to_vec()).await;
            if i == 50 && order.starts_with("update-tracks") {
                // It is announced anew, and changes nothing that a format has to know.
                for track in &self.stream.tracks {
                    let mut track = track.clone();
                    track.properties.push(("trap".into(), order.into()));
                    track.properties.push(("encoder".into(), "x".into()));
                    publisher.track(track);
                }
            }
        }
        drop(publisher);
        while recording.run().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(recording.status().0.phase, Phase::WaitingForStream, "{order}: {:?}", recording.status());
        self.recordings.remove(recording.config_id).await.unwrap();

        let media = self.host.dir.path().join("media");
        let files = self.host.files().into_iter().filter(|file| file.starts_with(&name));
        let mut files: Vec<File> = files.map(|file| (samples_of(&media.join(&file)), file)).collect();
        let begins = |(samples, _): &File| {
            samples.iter().map(|&(track, number)| if track == 1 { number * 2 } else { number }).min()
        };
        files.sort_by_key(begins);
        files
    }

    /// The same; every sample is in one of the files, whose names are returned.
    async fn record(&self, id: usize, format: &str, order: &str, chunk_length: u32) -> Vec<String> {
        let files = self.run(id, format, order, chunk_length).await;
        for track in [1, 2] {
            let all = files.iter().flat_map(|(samples, _)| samples).filter(|sample| sample.0 == track);
            let found: Vec<u32> = all.map(|sample| sample.1).collect();
            let count = self.stream.samples.iter().filter(|sample| sample.track == track).count() as u32;
            let parts: Vec<_> = files.iter().map(|(samples, file)| (file, samples.len())).collect();
            let wrong = (0..count).zip(&found).find(|(a, b)| a != *b);
            assert_eq!(found.len(), count as usize, "{format} {order}: track {track}: {wrong:?} {parts:?}");
            assert_eq!(wrong, None, "{format} {order}: track {track}, in {parts:?}");
        }
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// Records with each of the orders, some at once.
    async fn record_all(self: &Arc<Self>, format: &'static str, orders: Vec<String>) -> Vec<Vec<String>> {
        let mut running = tokio::task::JoinSet::new();
        let mut results = vec![Vec::new(); orders.len()];
        let mut orders = orders.into_iter().enumerate();
        loop {
            while running.len() < AT_ONCE
                && let Some((i, order)) = orders.next()
            {
                let recorder = self.clone();
                running.spawn(async move { (i, recorder.record(i, format, &order, CHUNK).await) });
            }
            let Some(done) = running.join_next().await else { return results };
            let (i, files) = done.unwrap();
            results[i] = files;
        }
    }
}

/// A trap in every call of `write`: before and after it appended what it was given, at each sample of the first
/// chunk, and around the beginning and end of the others.
async fn traps_in_write(component: &str, format: &'static str) {
    let recorder = Recorder::new(&[component]).await;
    let ends = (0..8).chain(CHUNK_SAMPLES - 8..CHUNK_SAMPLES);
    let places = (0..CHUNK_SAMPLES).map(|n| (0, n)).chain(ends.map(|n| (1, n))).chain((0..4).map(|n| (2, n)));
    let call = |n: u64| if n.is_multiple_of(2) { "write" } else { "written" };
    let orders: Vec<String> = places.map(|(segment, n)| format!("{} {segment} {n}", call(n))).collect();
    let begun = Instant::now();
    let files = recorder.record_all(format, orders).await;
    // The file that failed goes when nothing is left for it; the others are the three chunks and one more.
    let counts: Vec<usize> = files.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|count| (3..=4).contains(count)), "{counts:?}");
    assert!(counts.contains(&4), "{counts:?}");
    println!("{format}: {} recordings in {:?}", counts.len(), begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn flv_loses_nothing_wherever_a_write_traps() {
    traps_in_write("trap_flv", "trap-flv").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ts_loses_nothing_wherever_a_write_traps() {
    traps_in_write("trap_ts", "trap-ts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mp4_loses_nothing_wherever_a_write_traps() {
    traps_in_write("trap_mp4", "trap-mp4").await;
}

/// It gives way seven samples late.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_held_back_is_not_lost() {
    traps_in_write("trap_lagging", "trap-lagging").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_other_calls_trap() {
    let names = ["trap_flv", "trap_ts", "trap_mp4", "trap_lagging"];
    let recorder = Recorder::new(&names).await;
    for (i, format) in ["trap-flv", "trap-ts", "trap-mp4", "trap-lagging"].into_iter().enumerate() {
        for (j, call) in ["open", "opened", "finish", "finished", "update-tracks"].into_iter().enumerate() {
            for segment in ["0", "1", "2", "*"] {
                let id = 1000 * i + 100 * j + segment.len() + segment.bytes().map(usize::from).sum::<usize>();
                let files = recorder.record(id, format, &format!("{call} {segment}"), CHUNK).await;
                // What fails twice is replaced by FLV, in names of its own. A segment is opened under its number again.
                let is_last_resort = |file: &String| *file == format!("cam{id:04}_0001.flv");
                let twice = segment == "*" || call.starts_with("open");
                assert_eq!(files.iter().any(is_last_resort), twice, "{format} {call} {segment}: {files:?}");
            }
        }
    }
}

/// No version can write: plain FLV, marked, and told.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_resort_loses_nothing_either() {
    let recorder = Recorder::new(&["trap_mp4"]).await;
    let mut events = recorder.events.subscribe();
    let files = recorder.record(1, "trap-mp4", "write * 5", CHUNK).await;
    assert_eq!(files, ["cam0001_0001.flv", "cam0001_0002.flv", "cam0001_0003.flv"]);
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let mut event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        told.push((event["type"].as_str().unwrap().to_owned(), event["payload"].take()));
    }
    let its =
        |kind: &str| told.iter().filter(|event| event.0 == kind).map(|event| &event.1).collect::<Vec<_>>();
    let next: Vec<_> = its("recordChunkError").iter().map(|event| event["next"].as_str().unwrap()).collect();
    assert_eq!(next, ["replayed", "replayed", "last-resort"]);
    assert!(its("recordGap").is_empty(), "{told:?}");
    assert_eq!(its("recordChunkCreated")[1]["reason"], "failover");
    let lost: Vec<_> = its("recordRecovered").iter().map(|event| event["lostSamples"].as_u64()).collect();
    assert_eq!(lost, [Some(0), Some(0)]);
}

/// A format whose file is taken away while it records.
#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_has_gone_is_replaced_by_the_last_resort() {
    let recorder = Recorder::new(&["trap_mp4"]).await;
    let file = recorder.host.dir.path().join("formats/trap_mp4.wasm");
    let gone = async {
        while !recorder.host.files().iter().any(|file| file.ends_with(".mdat")) {
            tokio::task::yield_now().await;
        }
        fs::remove_file(file).unwrap();
        recorder.host.formats.refresh().await;
    };
    let (files, ()) = tokio::join!(recorder.record(1, "trap-mp4", "", 1), gone);
    assert!(files[0].ends_with("_part0000.mp4") && files.last().unwrap().ends_with(".flv"), "{files:?}");
}

/// A group of pictures that is longer than what is kept costs what today's failure costs: a gap, that is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_to_be_kept_is_a_gap() {
    let recorder = Recorder::new(&["trap_flv"]).await;
    let mut recorder = Arc::into_inner(recorder).unwrap();
    let big = Bytes::from(vec![0; 1 << 20]);
    let pictures = recorder.stream.samples.iter_mut().filter(|sample| sample.track == 1);
    for (i, sample) in pictures.enumerate() {
        sample.key = i == 0 || i >= 200;
        let mut nal = sample.data.to_vec();
        if i < 12 {
            nal.extend(&big);
            let length = u32::try_from(nal.len() - 4).unwrap();
            nal[..4].copy_from_slice(&length.to_be_bytes());
        }
        sample.data = nal.into();
    }
    let mut events = recorder.events.subscribe();
    let files = recorder.run(1, "trap-flv", "write 0 100", 0).await;
    // From the next key frame on it is whole again.
    let names: Vec<_> = files.iter().map(|(_, file)| &**file).collect();
    assert_eq!(names, ["cam0001.flv", "cam0001_0001.flv"]);
    assert_eq!(files[1].0.len(), 150);
    let mut gaps = 0;
    while let Ok(event) = events.try_recv() {
        let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        if event["type"] == "recordGap" {
            assert_eq!(event["payload"]["reason"], "failed-segment");
            gaps += 1;
        }
    }
    assert_eq!(gaps, 1);
}
