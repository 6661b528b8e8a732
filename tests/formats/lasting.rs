//! Versions over a restart, in a formats folder that makes trouble, and as long as files of them are open.

use std::{fs, os::unix::fs::symlink, sync::Arc, time::Duration};

use reelwright::format::{
    ChangeError, Formats,
    lineup::{Mode, Source},
    trial::{Terms, Who},
};

use crate::{
    recorder::until,
    support::{Host, begin, clip, component, embedded, marked},
};

async fn load(formats: &Formats, wasm: Vec<u8>) -> Result<String, Arc<ChangeError>> {
    let loading = formats.stage(wasm, Source::Command("/x.wasm".into()), None, None).unwrap();
    Ok(loading.outcome().await?.sha256.clone())
}

fn version(formats: &Formats, format: &str) -> Option<String> {
    formats.get(format).map(|version| version.manifest.version.clone())
}

fn state(formats: &Formats, format: &str, sha256: &str) -> Option<&'static str> {
    formats.versions(Some(format)).into_iter().find(|version| version.sha256 == sha256).map(|its| its.state)
}

fn passthrough(version: u8) -> Vec<u8> {
    fs::read(component(if version == 1 { "passthrough" } else { "passthrough_v2" })).unwrap()
}

#[tokio::test]
async fn what_cannot_be_looked_at_stays() {
    let host = Host::new().await;
    let path = |name: &str| host.dir.path().join(name);
    fs::write(path("formats/raw.wasm"), passthrough(1)).unwrap();
    host.formats.refresh().await;
    let stays = async |what: &str| {
        host.formats.refresh().await;
        assert_eq!(version(&host.formats, "raw").as_deref(), Some("1.0.0"), "{what}");
    };
    fs::rename(path("formats"), path("aside")).unwrap();
    stays("no folder").await;
    fs::write(path("formats"), "").unwrap();
    stays("no folder, but a file").await;
    fs::remove_file(path("formats")).unwrap();
    fs::rename(path("aside"), path("formats")).unwrap();
    fs::rename(path("formats/raw.wasm"), path("raw.wasm")).unwrap();
    symlink("raw.wasm", path("formats/raw.wasm")).unwrap();
    stays("a link to itself").await;
    fs::remove_file(path("formats/raw.wasm")).unwrap();
    host.formats.refresh().await;
    assert_eq!(version(&host.formats, "raw"), None);
}

#[tokio::test]
async fn what_is_no_file_keeps_nobody_waiting() {
    let host = Host::new().await;
    let path = |name: &str| host.dir.path().join("formats").join(name);
    rustix::fs::mknodat(rustix::fs::CWD, path("a.wasm"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    symlink("/dev/zero", path("b.wasm")).unwrap();
    fs::create_dir(path("c.wasm")).unwrap();
    fs::File::create(path("d.wasm")).unwrap().set_len(1 << 40).unwrap();
    fs::write(path("raw.wasm"), passthrough(1)).unwrap();
    let looked = tokio::time::timeout(Duration::from_secs(30), host.formats.refresh()).await;
    if looked.is_err() {
        // Whoever waits for the other end has it.
        drop(fs::OpenOptions::new().write(true).open(path("a.wasm")));
    }
    assert!(looked.is_ok());
    assert!(version(&host.formats, "raw").is_some());
}

#[tokio::test]
async fn a_component_goes_with_the_last_file_that_has_it() {
    let host = Host::new().await;
    let path = |name: &str| host.dir.path().join("formats").join(name);
    // First by command, then in the folder.
    let sha256 = load(&host.formats, passthrough(1)).await.unwrap();
    host.formats.swap("raw", &sha256, Mode::Drain).await.unwrap();
    fs::write(path("a.wasm"), passthrough(1)).unwrap();
    host.formats.refresh().await;
    fs::rename(path("a.wasm"), path("b.wasm")).unwrap();
    host.formats.refresh().await;
    assert_eq!((state(&host.formats, "raw", &sha256), host.formats.swaps("raw").len()), (Some("active"), 1));
    fs::copy(path("b.wasm"), path("c.wasm")).unwrap();
    host.formats.refresh().await;
    fs::remove_file(path("b.wasm")).unwrap();
    host.formats.refresh().await;
    assert_eq!((state(&host.formats, "raw", &sha256), host.formats.swaps("raw").len()), (Some("active"), 1));
    fs::remove_file(path("c.wasm")).unwrap();
    host.formats.refresh().await;
    assert_eq!(version(&host.formats, "raw"), None);
}

#[tokio::test]
async fn a_pin_ends_a_trial() {
    let host = Host::new().await;
    let canary = load(&host.formats, marked(embedded("flv"), b"a")).await.unwrap();
    let terms = Terms { who: Who::First(1), pass_ms: 1000, mode: Mode::Drain };
    host.formats.try_beside("flv", &canary, terms).await.unwrap();
    let active = host.formats.get("flv").unwrap().sha256.clone();
    assert_eq!(host.formats.pin("flv", None, true).await.unwrap(), Some(active));
    assert!(host.formats.trial("flv").is_none() && host.formats.seat("flv", 1, "cam").is_none());
    let listed = host.formats.versions(Some("flv"));
    let its = listed.iter().find(|version| version.sha256 == canary).unwrap();
    assert_eq!((its.state, its.reason.as_deref()), ("probed", Some("the format was pinned")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_stays_as_long_as_files_of_it_are_open() {
    let host = Host::new().await;
    let formats = &host.formats;
    let mut loaded = Vec::new();
    for mark in [b"a", b"b", b"c", b"d"] {
        loaded.push(load(formats, marked(embedded("flv"), mark)).await.unwrap());
    }
    formats.swap("flv", &loaded[0], Mode::Drain).await.unwrap();
    let clip = clip();
    let mut writer = host.open(&formats.get("flv").unwrap(), begin(&clip, &[])).await.unwrap();
    for sha256 in &loaded[1..] {
        formats.swap("flv", sha256, Mode::Drain).await.unwrap();
    }
    assert_eq!(state(formats, "flv", &loaded[0]), Some("draining"));
    writer.write(&clip.samples).await.unwrap();
    let watch = tokio::spawn({
        let formats = formats.clone();
        async move { formats.watch().await }
    });
    writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
    until("it has gone", || state(formats, "flv", &loaded[0]).is_none()).await;
    watch.abort();
    assert_eq!(state(formats, "flv", &loaded[1]), Some("retired"));
}
