//! The trial of a component before any recording depends on it.

use std::{path::Path, sync::Arc, time::Duration};

use reelwright::format::{
    limits::Limits,
    probe::{ProbeError, Probed, probe},
};

use crate::support::Host;

async fn try_out(host: &Host, name: &str) -> Result<Probed, ProbeError> {
    let version = match host.formats.get(name) {
        Some(version) => version,
        None => host.load(name).await,
    };
    probed(host, &version).await
}

async fn probed(host: &Host, version: &Arc<reelwright::format::Version>) -> Result<Probed, ProbeError> {
    let scratch = host.dir.path().join("scratch");
    let result = probe(version, &scratch).await;
    assert!(is_empty(&scratch), "nothing is left");
    result
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test]
async fn the_built_in_formats_pass() {
    let host = Host::new().await;
    for (format, segments) in [("flv", 2), ("ts", 2), ("mp4", 2)] {
        let probed = try_out(&host, format).await.unwrap_or_else(|e| panic!("{format}: {e}"));
        assert_eq!(probed.codecs, ["avc1", "mp4a"], "{format}");
        assert_eq!((probed.segments, probed.validated), (segments, true), "{format}");
        assert!(probed.bytes > 15_000 && probed.memory > 0, "{format}: {probed:?}");
    }
}

#[tokio::test]
async fn a_format_without_a_reader_is_only_compared_with_itself() {
    let host = Host::new().await;
    let probed = try_out(&host, "passthrough").await.unwrap();
    // It does not go on with tracks that are announced again, so there is one segment more.
    assert_eq!((probed.segments, probed.validated), (3, false));
}

#[tokio::test]
async fn a_format_of_other_codecs_is_only_asked_to_open() {
    let host = Host::new().await;
    let probed = try_out(&host, "foreign_codec").await.unwrap();
    assert!(probed.codecs.is_empty() && probed.segments == 0 && !probed.validated);
}

#[tokio::test]
async fn what_fails_is_named() {
    let host = Host::new().await;
    for (name, parts) in [
        ("batch_dependent", &["pass 3", "in batches of 1", "0.raw differs from byte 0 on"][..]),
        ("not_flv", &["0.raw is not a valid flv: at byte 0: no FLV header"]),
        ("trap_in_write", &["pass 1, segment 0: format trap-in-write 1.0.0", "write: it trapped"]),
        ("trap_in_finish", &["pass 1, segment 0: format trap-in-finish 1.0.0", "finish: it trapped"]),
    ] {
        let error = probed(&host, &host.load(name).await).await.expect_err(name).to_string();
        for part in parts {
            assert!(error.contains(part), "{name}: `{part}` is not in: {error}");
        }
    }
}

#[tokio::test]
async fn a_probe_has_little_time() {
    let limits = Limits { probe_time: Duration::from_millis(100), ..Limits::default() };
    let host = Host::with(Limits { write_time: Duration::from_secs(3600), ..limits }).await;
    let error = probed(&host, &host.load("spin_in_write").await).await.unwrap_err().to_string();
    assert_eq!(error, "probe: it exceeded the limit `probe-time` of 100ms");
}
