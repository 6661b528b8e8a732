//! Recordings whose segments end in other ways than they should, with samples straight from the registry.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use reelwright::{
    events::{Events, Published},
    format::{Policy, limits::Limits},
    media::{Kind, Sample},
    recorder::{Config, Parts, Phase, Recording, Recordings, Settings},
    registry::{Declared, Publisher, Registry},
    repair::Repairs,
    store::{ConfigIds, Store},
};
use reelwright_built_components::marked;

use crate::{
    contained::hostile,
    named::source,
    support::{Clip, Host, clip, component, stalling_compiler},
};

struct Recorder {
    host: Host,
    registry: Registry,
    recordings: Recordings,
    events: Events,
}

impl Recorder {
    async fn new(components: &[&str]) -> Self {
        let host = Host::new().await;
        for name in components {
            fs::copy(component(name), host.dir.path().join(format!("formats/{name}.wasm"))).unwrap();
        }
        host.formats.refresh().await;
        Self::on(host)
    }

    /// With a component that passes the probe.
    async fn with(wasm: &[u8]) -> Self {
        let host = Host::new().await;
        fs::write(host.dir.path().join("formats/bad.wasm"), wasm).unwrap();
        host.formats.refresh().await;
        assert!(host.formats.get("bad").is_some());
        Self::on(host)
    }

    fn on(host: Host) -> Self {
        let registry = Registry::default();
        let events = Events::default();
        let (formats, disk) = (host.formats.clone(), host.disk.clone());
        let repairs = Repairs::new(disk.clone(), formats.clone(), events.clone());
        let store = Store::in_memory();
        let ids = ConfigIds::open(&store).unwrap();
        let parts =
            Parts { registry: registry.clone(), formats, disk, repairs, events: events.clone(), store, ids };
        let recordings = Recordings::new(parts, Config::default());
        Self { host, registry, recordings, events }
    }

    fn publish(&self, clip: &Clip) -> Publisher {
        let mut publisher = self.registry.publish("cam", source()).unwrap();
        let has = |kind| clip.tracks.iter().any(|t| t.kind == kind);
        publisher.declare(Declared { video: has(Kind::Video), audio: has(Kind::Audio) });
        clip.tracks.iter().for_each(|t| publisher.track(t.clone()));
        publisher
    }

    /// Sends samples and ends the stream; returns when all files are complete.
    async fn send(&self, clip: &Clip, samples: &[Sample]) {
        let mut publisher = self.publish(clip);
        while self.recordings.list().iter().any(|r| r.run().is_none()) {
            tokio::task::yield_now().await;
        }
        for batch in samples.chunks(10) {
            publisher.send(&mut batch.to_vec()).await;
        }
        drop(publisher);
        // Nothing is being recorded any more.
        while self.recordings.list().iter().any(|r| r.run().is_some()) {
            tokio::task::yield_now().await;
        }
    }

    fn media(&self, name: &str) -> PathBuf {
        self.host.dir.path().join("media").join(name)
    }

    fn files(&self) -> Vec<String> {
        let mut files = self.host.files();
        files.sort();
        files
    }
}

fn settings(format: &str) -> Settings {
    Settings {
        local_stream_name: "cam".into(),
        path_to_file: "x".into(),
        format: format.into(),
        ..Settings::default()
    }
}

/// What the errors say that a recording had since its events were subscribed.
fn errors(events: &mut tokio::sync::broadcast::Receiver<Arc<Published>>, config_id: u64) -> Vec<String> {
    let mut errors = Vec::new();
    while let Ok(event) = events.try_recv() {
        let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        let payload = &event["payload"];
        if event["type"] == "recordChunkError" && payload["configId"] == config_id {
            errors.push(payload["error"].as_str().unwrap().to_owned());
        }
    }
    errors
}

fn phase(recording: &Recording) -> Phase {
    recording.status().0.phase
}

/// Nor for the compiler.
#[tokio::test(flavor = "multi_thread")]
async fn no_segment_waits_for_the_formats_folder() {
    // What is in the binary is compiled.
    drop(Host::new().await);
    let dir = tempfile::tempdir().unwrap();
    let (compiler, busy) = stalling_compiler(dir.path());
    let policy = Policy { compiler: Some(compiler), ..Policy::default() };
    let host = Host::under(Limits::default(), policy).await;
    let mark = dir.path().display().to_string();
    let new = marked(fs::read(component("passthrough")).unwrap(), mark.as_bytes());
    fs::write(host.dir.path().join("formats/new.wasm"), new).unwrap();
    let recorder = Recorder::on(host);
    recorder.recordings.add(settings("flv")).await.unwrap();
    let clip = clip();
    let sent = tokio::time::timeout(Duration::from_secs(30), recorder.send(&clip, &clip.samples)).await;
    fs::remove_file(busy).unwrap();
    assert!(sent.is_ok());
    assert_eq!(recorder.files(), ["x.flv"]);
}

/// MP4 can't hold a gap of over 24.8 hours between two audio samples (`stts`, at 48 kHz).
#[tokio::test]
async fn a_format_that_says_no_ends_its_file_and_the_next_begins() {
    let recorder = Recorder::new(&[]).await;
    let recording = recorder.recordings.add(settings("mp4")).await.unwrap();
    let clip = clip();
    let at = |s: &Sample, dts_ms: i64| Sample { dts_ms, pts_ms: dts_ms, key: true, ..s.clone() };
    let later = 25 * 3600 * 1000;
    // Pictures go on, so that it is no leap of the clock.
    let picture = clip.samples.iter().filter(|s| s.track == 1).min_by_key(|s| s.data.len()).unwrap();
    let end = clip.samples.iter().map(|s| s.dts_ms).max().unwrap();
    let pictures = (end + 40..later).step_by(9000).map(|dts_ms| at(picture, dts_ms));
    let again = clip.samples.iter().map(|s| Sample {
        dts_ms: s.dts_ms + later,
        pts_ms: s.pts_ms + later,
        ..s.clone()
    });
    let all: Vec<Sample> = clip.samples.iter().cloned().chain(pictures).chain(again).collect();
    recorder.send(&clip, &all).await;
    assert_eq!(recorder.files(), ["x.mp4", "x_0001.mp4"], "both are whole, and no spool is left");
    assert_eq!(phase(&recording), Phase::WaitingForStream);
    for name in ["x.mp4", "x_0001.mp4"] {
        assert!(fs::metadata(recorder.media(name)).unwrap().len() > 10_000);
    }
}

/// The bundled clip, four times.
fn long_clip() -> Clip {
    let mut clip = clip();
    let again = |n: i64| {
        let shift = move |s: &Sample| Sample {
            dts_ms: s.dts_ms + n * 6000,
            pts_ms: s.pts_ms + n * 6000,
            ..s.clone()
        };
        clip.samples.iter().map(shift).collect::<Vec<_>>()
    };
    clip.samples = (0..4).flat_map(again).collect();
    clip
}

#[tokio::test]
async fn a_component_that_always_traps_is_replaced_and_no_other_recording_notices() {
    let recorder = Recorder::with(&hostile("late trap bad")).await;
    let bad = recorder.recordings.add(settings("bad")).await.unwrap();
    let good = recorder.recordings.add(settings("flv")).await.unwrap();
    let mut events = recorder.events.subscribe();
    let clip = long_clip();
    recorder.send(&clip, &clip.samples).await;
    assert_eq!((phase(&bad), phase(&good)), (Phase::WaitingForStream, Phase::WaitingForStream));
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let mut event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        if event["payload"]["configId"] == bad.config_id {
            told.push((event["type"].as_str().unwrap().to_owned(), event["payload"].take()));
        }
    }
    let its =
        |kind: &str| told.iter().filter(|event| event.0 == kind).map(|event| &event.1).collect::<Vec<_>>();
    // Each of its files failed by an event, and another follows that says what was saved.
    let errors = its("recordChunkError");
    let next: Vec<_> = errors.iter().map(|event| event["next"].as_str().unwrap()).collect();
    assert_eq!(next, ["replayed", "replayed", "last-resort"], "{told:?}");
    for (error, created) in errors.iter().zip(its("recordChunkCreated")).take(2) {
        assert_eq!((&error["file"], &error["follows"]), (&created["file"], &"recordRecovered".into()));
        assert!(error["error"].as_str().unwrap().contains("trapped"), "{error}");
    }
    assert_eq!((its("recordChunkCreated").len(), its("recordRecovered").len()), (3, 2), "{told:?}");
    assert!(its("recordGap").is_empty(), "{told:?}");
    let frames: u64 =
        its("recordChunkClosed").iter().map(|closed| closed["frameCount"].as_u64().unwrap()).sum();
    let saved: u64 = its("recordRecovered").iter().map(|event| event["samples"].as_u64().unwrap()).sum();
    assert_eq!(frames + saved, clip.samples.len() as u64);
    assert_eq!((its("outStreamCreated").len(), its("outStreamClosed").len()), (1, 1));
    let version = recorder.host.formats.get("flv").unwrap();
    let flv = fs::read(recorder.media("x.flv")).unwrap();
    let payload = clip.samples.iter().map(|s| s.data.len()).sum::<usize>();
    assert!(flv.len() > payload, "{}: {} bytes of {payload}", version.label(), flv.len());
}

#[tokio::test]
async fn a_component_that_always_gives_an_error_is_replaced() {
    for order in ["late error-lines bad", "late append-loop bad", "late freed bad"] {
        let recorder = Recorder::with(&hostile(order)).await;
        let bad = recorder.recordings.add(settings("bad")).await.unwrap();
        let mut events = recorder.events.subscribe();
        let clip = long_clip();
        recorder.send(&clip, &clip.samples).await;
        assert_eq!(phase(&bad), Phase::WaitingForStream, "{order}");
        let names: Vec<String> = recorder.files();
        assert!(names.iter().any(|name| name.ends_with(".flv")), "{order}: {names:?}");
        let errors = errors(&mut events, bad.config_id);
        assert!(errors.last().is_some_and(|error| error.contains("all versions of format `bad` failed")));
    }
}

/// What it says of its input may be true, so that each time only the rest of its group of pictures is lost.
#[tokio::test]
async fn a_component_that_takes_nothing_is_replaced_in_the_end() {
    let recorder = Recorder::with(&hostile("late network bad")).await;
    let bad = recorder.recordings.add(settings("bad")).await.unwrap();
    let mut clip = long_clip();
    // Key frames are 2 s apart: three files end behind their sample 200, and then there is another.
    let more = clip.samples.iter().map(|s| Sample {
        dts_ms: s.dts_ms + 24_000,
        pts_ms: s.pts_ms + 24_000,
        ..s.clone()
    });
    clip.samples.extend(more.collect::<Vec<_>>());
    let mut events = recorder.events.subscribe();
    recorder.send(&clip, &clip.samples).await;
    assert_eq!(phase(&bad), Phase::WaitingForStream);
    let errors = errors(&mut events, bad.config_id);
    let refused = errors.iter().filter(|error| error.contains("unsupported: no network")).count();
    assert_eq!(refused, 3, "{errors:?}");
    assert!(errors[3].contains("all versions of format `bad` failed"), "{errors:?}");
}

#[tokio::test]
async fn overwrite_is_for_the_first_file_of_a_recording() {
    let recorder = Recorder::new(&[]).await;
    fs::create_dir_all(recorder.media("")).unwrap();
    fs::write(recorder.media("x.flv"), "old").unwrap();
    recorder.recordings.add(Settings { overwrite: true, ..settings("flv") }).await.unwrap();
    let clip = clip();
    recorder.send(&clip, &clip.samples).await;
    assert_eq!(recorder.files(), ["x.flv"]);
    let first = fs::read(recorder.media("x.flv")).unwrap();
    assert!(first.len() > 100_000);
    recorder.send(&clip, &clip.samples).await;
    assert_eq!(recorder.files(), ["x.flv", "x_0001.flv"]);
    assert!(fs::read(recorder.media("x.flv")).unwrap() == first, "what it wrote itself stays");
}

#[tokio::test]
async fn without_keep_alive_one_stream_is_all() {
    let recorder = Recorder::new(&[]).await;
    recorder.recordings.add(Settings { keep_alive: false, ..settings("ts") }).await.unwrap();
    let clip = clip();
    recorder.send(&clip, &clip.samples).await;
    while !recorder.recordings.list().is_empty() {
        tokio::task::yield_now().await;
    }
    recorder.send(&clip, &clip.samples).await;
    assert_eq!(recorder.files(), ["x.ts"]);
}

/// The names of the working files, and that they go when the file is complete.
#[tokio::test]
async fn an_mp4_is_spooled_until_it_is_complete() {
    let recorder = Recorder::new(&[]).await;
    let recording = recorder.recordings.add(settings("mp4")).await.unwrap();
    let clip = clip();
    let mut publisher = recorder.publish(&clip);
    publisher.send(&mut clip.samples.clone()).await;
    while recording.run().is_none_or(|run| run.video_samples == 0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(recorder.files(), ["x.mp4.index", "x.mp4.info", "x.mp4.mdat"]);
    recorder.recordings.remove(recording.config_id).await.unwrap();
    assert_eq!(recorder.files(), ["x.mp4"]);
}
