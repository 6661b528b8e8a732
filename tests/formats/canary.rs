//! Canaries: versions that are tried beside the active one, in slices of a recording that the recording never sees.

use std::{fs, time::Duration};

use reelwright::format::{
    limits::Limits,
    lineup::{Mode, Source},
    trial::{Terms, Who},
};
use reelwright_built_components::marked;
use serde_json::Value;

use crate::{
    recorder::{Recorder, log, long_clip, until},
    support::{component, embedded},
};

/// More than one slice, of which each has a sample 200: the first may begin a second or two late.
const PASS_MS: u64 = 8_000;

/// What came of a trial.
struct Outcome {
    recorder: Recorder,
    active: String,
    canary: String,
    /// In the order in which they were sent.
    events: Vec<Value>,
}

impl Outcome {
    fn events(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == kind).map(|event| &event["payload"]).collect()
    }

    fn state(&self) -> (&'static str, Option<String>) {
        let versions = self.recorder.host.formats.versions(Some("flv"));
        let its = versions.into_iter().find(|version| version.sha256 == self.canary).unwrap();
        (its.state, its.reason)
    }
}

/// Has a canary of format `flv` tried by the first recording of three that comes, and records a stream, as fast as it is
/// taken or in real time.
async fn tried(wasm: Vec<u8>, in_time: bool) -> Outcome {
    log();
    let recorder = Recorder::new(Limits::default()).await;
    let formats = &recorder.host.formats;
    let active = formats.get("flv").unwrap().sha256.clone();
    let loading = formats.stage(wasm, Source::Command("/flv.wasm".into()), None, None).unwrap();
    let canary = loading.outcome().await.unwrap_or_else(|e| panic!("{e}")).sha256.clone();
    let terms = Terms { who: Who::First(1), pass_ms: PASS_MS, mode: Mode::Drain };
    formats.try_beside("flv", &canary, terms).await.unwrap();
    let mut told = recorder.events.subscribe();
    let clip = long_clip(3);
    for (path, format) in [("a", "flv"), ("b", "flv"), ("c", "ts")] {
        recorder.record(path, format).await;
    }
    let mut publisher = recorder.publish(&clip);
    until("all recordings run", || recorder.recordings.list().iter().all(|r| r.run().is_some())).await;
    let begun = tokio::time::Instant::now();
    // In batches so large that all of them fit into the shadow's queue.
    for batch in clip.samples.chunks(if in_time { 16 } else { 64 }) {
        if in_time {
            let at_ms = u64::try_from(batch[0].dts_ms).unwrap();
            tokio::time::sleep_until(begun + Duration::from_millis(at_ms)).await;
        }
        publisher.send(&mut batch.to_vec()).await;
        assert!(formats.trial("flv").is_none_or(|(_, seats)| seats.len() <= 1), "others have no seat");
    }
    drop(publisher);
    until("all recordings are done", || recorder.recordings.list().iter().all(|r| r.run().is_none())).await;
    until("the trial is over", || formats.trial("flv").is_none()).await;
    for file in ["a.flv", "b.flv", "c.ts"] {
        recorder.assert_whole(file, &clip);
    }
    let mut files = recorder.host.files();
    files.sort();
    assert_eq!(files, ["a.flv", "b.flv", "c.ts"]);
    let mut events = Vec::new();
    while let Ok(event) = told.try_recv() {
        events.push(serde_json::from_str(&event.json).unwrap());
    }
    let outcome = Outcome { recorder, active, canary, events };
    let closed = outcome.events("recordChunkClosed");
    assert_eq!(closed.len(), 3);
    assert!(!closed.iter().any(|event| event.to_string().contains(&outcome.canary[..12])), "{closed:?}");
    outcome
}

/// Has a bad canary tried. Returns the milliseconds that it was used after it had shown what it is.
async fn out((name, words): Bad, in_time: bool) -> u64 {
    let outcome = tried(fs::read(component(name)).unwrap(), in_time).await;
    let failed = outcome.events("formatFailed");
    assert_eq!(failed.len(), 1, "{:?}", outcome.state());
    let id = failed[0]["configId"].as_u64().unwrap();
    assert!(outcome.recorder.recordings.list().iter().any(|recording| recording.config_id == id));
    assert_eq!(failed[0]["canary"], true);
    assert_eq!(failed[0]["failed"]["sha256"], *outcome.canary);
    assert_eq!(failed[0]["kept"]["sha256"], *outcome.active);
    let error = failed[0]["error"].as_str().unwrap();
    let (state, reason) = outcome.state();
    assert_eq!((state, reason.as_deref()), ("failed", Some(error)));
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(outcome.events("formatSwapped").is_empty());
    assert_eq!(outcome.recorder.host.formats.get("flv").unwrap().sha256, outcome.active);
    failed[0]["afterMs"].as_u64().unwrap()
}

/// A bad canary, and words of why it is out.
type Bad = (&'static str, &'static [&'static str]);

const TRAPS: Bad = ("late_trap_flv", &["write: it trapped", "this component can't bear sample 200"]);
const WRONG: Bad = ("canary_wrong", &["its file is wrong: video: ", "were given"]);
const LEAKS: Bad = ("canary_leak", &["it needs ", "KiB of memory, the active version"]);
const SLOW: Bad = ("canary_slow", &["a sample takes it ", "of computing, the active version"]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_as_well_takes_over_by_itself() {
    let outcome = tried(marked(embedded("flv"), b"canary"), false).await;
    assert_eq!(outcome.state().0, "active");
    assert_eq!(outcome.recorder.host.formats.get("flv").unwrap().sha256, outcome.canary);
    let swapped = outcome.events("formatSwapped");
    assert_eq!((swapped.len(), &swapped[0]["to"]["sha256"]), (1, &outcome.canary.as_str().into()));
    assert_eq!(swapped[0]["reason"], "it proved itself as a canary");
    assert!(outcome.events("formatFailed").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_traps_is_out() {
    out(TRAPS, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_writes_something_else_is_out() {
    out(WRONG, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_leaks_is_out() {
    out(LEAKS, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_slow_is_out() {
    out(SLOW, false).await;
}

/// `make soak`: in real time each bad canary is out within a second of what it is being there to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "times that depend on the machine"]
async fn soak_bad_canaries_are_out_within_a_second() {
    for bad in [TRAPS, WRONG, LEAKS, SLOW] {
        let after_ms = out(bad, true).await;
        println!("{}: out after {after_ms} ms", bad.0);
        assert!(after_ms < 1000, "{}: {after_ms} ms", bad.0);
    }
}
