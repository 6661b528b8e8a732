//! Versions over a restart, in a formats folder that makes trouble, and as long as files of them are open.

use std::{fs, os::unix::fs::symlink, path::PathBuf, sync::Arc, time::Duration};

use reelwright::format::{
    ChangeError, Engine, Formats, Policy, Settings,
    lineup::{LineupError, Mode, Source},
    trial::{Terms, Who},
};
use reelwright_built_components::marked;
use tempfile::TempDir;

use crate::{
    recorder::until,
    support::{Host, begin, clip, component, embedded, stalling_compiler},
};

/// What a server keeps.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::create_dir(home.path("formats")).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts with what writes.
    async fn open(&self, compiler: Option<PathBuf>) -> Formats {
        let settings = Settings {
            cache: Some(self.path("components")),
            store: Some(self.path("store")),
            folder: Some(self.path("formats")),
            ..Settings::default()
        };
        let engine = Engine::new().unwrap().under(Policy { compiler, ..Policy::default() });
        Formats::open_with(engine, settings).await.unwrap()
    }

    /// Starts with all that there is.
    async fn settled(&self) -> Formats {
        let formats = self.open(None).await;
        formats.settle(Duration::MAX).await;
        formats
    }

    fn kept(&self, sha256: &str) -> PathBuf {
        self.path("store").join(sha256).with_extension("wasm")
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_now_is_not_forgotten() {
    let home = Home::new();
    let formats = home.settled().await;
    let old = load(&formats, passthrough(1)).await.unwrap();
    let new = load(&formats, passthrough(2)).await.unwrap();
    for sha256 in [&old, &new] {
        formats.swap("raw", sha256, Mode::Now).await.unwrap();
    }
    formats.pin("raw", None, true).await.unwrap();
    // A disk that fails for now: reading a folder is an error, even for root.
    let aside = home.path("aside");
    fs::rename(home.kept(&new), &aside).unwrap();
    fs::create_dir(home.kept(&new)).unwrap();
    for _ in 0..2 {
        let formats = home.settled().await;
        assert_eq!(version(&formats, "raw").as_deref(), Some("1.0.0"), "what was active before");
        assert_eq!(state(&formats, "raw", &old), Some("active"));
        assert_eq!(state(&formats, "raw", &new), Some("missing"));
    }
    let formats = home.settled().await;
    let watch = tokio::spawn({
        let formats = formats.clone();
        async move { formats.watch().await }
    });
    fs::remove_dir(home.kept(&new)).unwrap();
    fs::rename(&aside, home.kept(&new)).unwrap();
    until("it is back", || version(&formats, "raw").as_deref() == Some("2.0.0")).await;
    watch.abort();
    assert_eq!(state(&formats, "raw", &old), Some("retired"));
    assert!(formats.versions(Some("raw")).iter().any(|version| version.pinned && version.sha256 == new));
    // A damaged one is lost, and the one before is active.
    fs::write(home.kept(&new), "x").unwrap();
    let formats = home.settled().await;
    assert_eq!((version(&formats, "raw").as_deref(), state(&formats, "raw", &new)), (Some("1.0.0"), None));
    assert!(fs::exists(home.kept(&old)).unwrap());
    drop(home.settled().await);
    assert!(!fs::exists(home.kept(&new)).unwrap(), "nobody names it");
}

/// Versions whose probe was cut off by the end of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_waits_for_the_probe_after_a_restart() {
    let home = Home::new();
    let formats = home.settled().await;
    let good = load(&formats, passthrough(1)).await.unwrap();
    load(&formats, fs::read(component("trap_in_write")).unwrap()).await.unwrap_err();
    let bad = formats.versions(Some("trap-in-write"))[0].sha256.clone();
    drop(formats);
    let registry = home.path("store/registry.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&registry).unwrap()).unwrap();
    for format in ["raw", "trap-in-write"] {
        kept["formats"][format]["members"][0]["stage"] = "staged".into();
    }
    fs::write(&registry, kept.to_string()).unwrap();
    let formats = home.open(None).await;
    let error = formats.swap("raw", &good, Mode::Now).await.unwrap_err();
    assert!(matches!(&*error, ChangeError::Lineup(LineupError::Staged)), "{error}");
    formats.settle(Duration::MAX).await;
    let error = formats.swap("trap-in-write", &bad, Mode::Now).await.unwrap_err().to_string();
    assert!(error.contains("this component panics in its third write"), "{error}");
    formats.swap("raw", &good, Mode::Now).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_waits_for_what_writes_and_little_for_the_rest() {
    let home = Home::new();
    drop(home.settled().await);
    let old = fs::read_dir(home.path("components")).unwrap().count();
    assert_eq!(old, 3, "what is in the binary is compiled");
    fs::write(home.path("formats/raw.wasm"), marked(passthrough(1), b"slow")).unwrap();
    let (compiler, busy) = stalling_compiler(home.0.path());
    let begun = std::time::Instant::now();
    let formats = home.open(Some(compiler)).await;
    formats.settle(Duration::from_millis(200)).await;
    let took = begun.elapsed();
    let found = (version(&formats, "flv").is_some(), version(&formats, "raw"));
    fs::remove_file(busy).unwrap();
    assert_eq!(found, (true, None));
    assert!(took < Duration::from_secs(20), "{took:?}");
    until("the rest has come", || version(&formats, "raw").is_some()).await;
}

#[tokio::test]
async fn a_file_that_went_while_the_server_was_down_is_gone() {
    let home = Home::new();
    let file = home.path("formats/raw.wasm");
    fs::write(&file, passthrough(1)).unwrap();
    assert!(version(&home.settled().await, "raw").is_some());
    assert!(version(&home.settled().await, "raw").is_some());
    fs::remove_file(file).unwrap();
    assert_eq!(version(&home.settled().await, "raw"), None);
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
        async move { formats.tidy().await }
    });
    writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
    until("it has gone", || state(formats, "flv", &loaded[0]).is_none()).await;
    watch.abort();
    assert_eq!(state(formats, "flv", &loaded[1]), Some("retired"));
}
