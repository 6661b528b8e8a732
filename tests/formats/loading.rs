//! What is taken from the formats folder, and what is not.

use std::{fs, path::Path, time::Duration};

use reelwright::format::LoadError;
use reelwright_built_components::marked;

use crate::support::{Host, clip, component, embedded};

/// As an operator does it: written beside, then renamed.
fn install(host: &Host, from: impl AsRef<[u8]>, name: &str) {
    let folder = host.dir.path().join("formats");
    fs::write(folder.join("new"), from).unwrap();
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

fn version(host: &Host, format: &str) -> Option<String> {
    host.formats.get(format).map(|v| v.manifest.version.clone())
}

#[tokio::test]
async fn a_file_is_used_from_the_next_segment_on() {
    let host = Host::new().await;
    assert_eq!(version(&host, "raw"), None);
    install(&host, fs::read(component("passthrough")).unwrap(), "raw.wasm");
    host.formats.refresh().await;
    assert_eq!(version(&host, "raw").unwrap(), "1.0.0");

    // A segment keeps the component that it began with.
    let clip = clip();
    let old = host.formats.get("raw").unwrap();
    let mut writer = host.open(&old, crate::support::begin(&clip, &[])).await.unwrap();
    writer.write(&clip.samples[..50]).await.unwrap();
    install(&host, fs::read(component("passthrough_v2")).unwrap(), "raw.wasm");
    host.formats.refresh().await;
    assert_eq!(version(&host, "raw").unwrap(), "2.0.0");
    writer.write(&clip.samples[50..]).await.unwrap();
    let finished = writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
    assert!(fs::read(&finished.file.path).unwrap().ends_with(&clip.payload()));
    fs::remove_file(&finished.file.path).unwrap();
    let new = host.formats.get("raw").unwrap();
    let (_, bytes) = host.record(&new, &clip, 64, &[]).await.unwrap();
    assert!(bytes.ends_with(&clip.payload()));

    fs::remove_file(host.dir.path().join("formats/raw.wasm")).unwrap();
    host.formats.refresh().await;
    assert_eq!(version(&host, "raw"), None);
}

#[tokio::test]
async fn a_bad_file_leaves_what_was_loaded_before() {
    let host = Host::new().await;
    let good = fs::read(component("passthrough")).unwrap();
    install(&host, &good, "raw.wasm");
    host.formats.refresh().await;
    for bad in [&good[..good.len() / 2], b"", b"not wasm"] {
        install(&host, bad, "raw.wasm");
        host.formats.refresh().await;
        assert_eq!(version(&host, "raw").unwrap(), "1.0.0");
    }
    install(&host, "junk", "other.wasm");
    install(&host, fs::read(component("passthrough_v2")).unwrap(), "raw.wasm");
    host.formats.refresh().await;
    assert_eq!(version(&host, "raw").unwrap(), "2.0.0", "the bad neighbour changes nothing");
}

#[tokio::test]
async fn a_built_in_format_can_be_replaced_and_comes_back() {
    let host = Host::new().await;
    let built_in = host.formats.get("flv").unwrap();
    install(&host, marked(embedded("flv"), b""), "my-flv.wasm");
    host.formats.refresh().await;
    let replaced = host.formats.get("flv").unwrap();
    assert_ne!(replaced.sha256, built_in.sha256);
    assert!(replaced.file.as_ref().unwrap().ends_with("formats/my-flv.wasm"));
    fs::remove_file(host.dir.path().join("formats/my-flv.wasm")).unwrap();
    host.formats.refresh().await;
    assert_eq!(host.formats.get("flv").unwrap().sha256, built_in.sha256);
}

#[tokio::test]
async fn what_is_refused_is_told_why() {
    let host = Host::new().await;
    let good = fs::read(component("passthrough")).unwrap();
    let file = host.dir.path().join("x.wasm");
    let refused = async |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        host.formats.load(&file).await.expect_err("it is refused")
    };
    let core_module = b"\0asm\x01\0\0\0";
    assert!(matches!(refused(core_module).await, LoadError::CoreModule));
    assert!(matches!(refused(b"").await, LoadError::NotWasm(_)));
    assert!(matches!(refused(b"\x7fELF\x02\x01\x01\0").await, LoadError::NotWasm(_)));
    for length in [8, 100, good.len() / 2, good.len() - 1] {
        let error = refused(&good[..length]).await;
        assert!(matches!(error, LoadError::Compile(_) | LoadError::NoWriter { .. }), "{length}: {error}");
    }
    let wrong = refused(&fs::read(component("wrong_world")).unwrap()).await.to_string();
    assert!(wrong.contains("not reelwright:writer/writer@0.1"), "{wrong}");

    let large = fs::File::create(&file).unwrap();
    large.set_len(100 << 20).unwrap();
    assert!(matches!(host.formats.load(&file).await, Err(LoadError::TooLarge { .. })));
    assert!(matches!(host.formats.load(Path::new("/nowhere.wasm")).await, Err(LoadError::Read(_))));
}

#[tokio::test]
async fn describe_has_little_time() {
    let host = Host::new().await;
    let begun = std::time::Instant::now();
    let error = host.formats.load(&component("spin_in_describe")).await.unwrap_err().to_string();
    assert!(error.contains("describe: it exceeded the limit `describe-time`"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60), "bounded, even on a busy machine");
}
