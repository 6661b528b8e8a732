//! What is counted of a version.

use crate::support::{Host, begin, clip};

#[tokio::test]
async fn a_recording_is_counted() {
    let host = Host::new().await;
    let version = host.load("passthrough").await;
    let clip = clip();
    let (_, file) = host.record(&version, &clip, 10, &[]).await.unwrap();
    let now = version.meters.snapshot();
    let samples = clip.samples.len() as u64;
    assert_eq!((now.open, now.opened, now.finished), (0, 1, 1));
    assert_eq!((now.samples, now.payload_bytes), (samples, clip.payload().len() as u64));
    assert_eq!(now.output_bytes, file.len() as u64);
    let calls = |name| now.calls[name].count();
    assert_eq!((calls("instantiate"), calls("open"), calls("finish"), calls("recover")), (1, 1, 1, 0));
    assert_eq!(calls("write"), samples.div_ceil(10));
    assert!(now.calls["instantiate"].sum_us > 0 && now.computing_us() >= now.calls["write"].sum_us);
    assert!(now.memory == 0 && now.memory_peak > 0);
    assert_eq!((now.traps, now.refusals, now.contract_breaks), (0, 0, 0));

    let mut writer = host.open(&version, begin(&clip, &[])).await.unwrap();
    writer.write(&clip.samples[..10]).await.unwrap();
    let now = version.meters.snapshot();
    assert_eq!((now.open, now.opened, now.memory), (1, 2, writer.memory() as u64));
    drop(writer.abandon().await);
    assert_eq!(version.meters.snapshot().open, 0);
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let host = Host::new().await;
    let clip = clip();
    let version = host.load("trap_in_write").await;
    assert!(host.record(&version, &clip, 10, &[]).await.is_err());
    let now = version.meters.snapshot();
    assert_eq!((now.opened, now.finished, now.open, now.traps, now.refusals), (1, 0, 0, 1, 0));

    let host = Host::new().await;
    let version = host.load("uses_fs").await;
    assert!(host.record(&version, &clip, 10, &[]).await.is_err());
    let now = version.meters.snapshot();
    assert_eq!((now.opened, now.traps, now.refusals), (0, 0, 1), "it says no in `open`");
}
