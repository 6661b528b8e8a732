//! Memory of a recording that goes on for a day: no more in its last hour than in its first.
//!
//! A day's stream with frames of a few bytes goes through the registry, the recorder, a component and the files, as
//! fast as it can. A target of its own, with one test, so that the process has nothing else in its memory.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt, path::Path, time::Duration};

use bytes::Bytes;
use reelwright::{
    events::Events,
    format::{Engine, Formats, limits::Limits},
    media::{Kind, Sample, Track},
    output::{Disk, Roots},
    recorder::{Config, Parts, Recordings, Settings},
    registry::{Declared, Registry, Source},
    repair::Repairs,
    store::{ConfigIds, Store},
};

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;
const STRETCH_MS: i64 = 20_000;
const HOUR_MS: i64 = 3_600_000;
/// How much more a recording may take after a day than after an hour, in KiB.
const GROWTH: i64 = 1024;

/// 1280x720, main profile, level 3.1; AAC-LC, 48 kHz, stereo.
const AVC: &[u8] = &[
    0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80, 0x28, 0x02, 0xdd,
    0x80, 0xb5, 0x01, 0x01, 0x01, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x01, 0x00, 0x04,
    0x68, 0xeb, 0xef, 0x20,
];
const AAC: &[u8] = &[0x11, 0x90];

/// The samples of 2 s, from a time on: a key frame each.
fn group(from_ms: i64) -> Vec<Sample> {
    let video = (0..60).map(|i| (VIDEO, from_ms + i * 1000 / 30, i == 0));
    let audio = (0..94).map(|i| (AUDIO, from_ms + i * 1024 / 48, true));
    let mut all: Vec<_> = video.chain(audio).collect();
    all.sort_by_key(|&(track, dts_ms, _)| (dts_ms, track));
    let frame = |track, key| match (track, key) {
        (VIDEO, true) => Bytes::from_static(&[0, 0, 0, 4, 0x65, 1, 2, 3]),
        (VIDEO, false) => Bytes::from_static(&[0, 0, 0, 2, 0x41, 9]),
        _ => Bytes::from_static(&[1, 2, 3, 4, 5]),
    };
    all.into_iter()
        .map(|(track, dts_ms, key)| Sample {
            track,
            dts_ms,
            pts_ms: dts_ms,
            key,
            discontinuity: false,
            data: frame(track, key),
        })
        .collect()
}

/// Resident memory of this process, in KiB.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn settings(format: &str) -> Settings {
    Settings {
        local_stream_name: "cam".into(),
        path_to_file: "cam".into(),
        format: format.into(),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_recording_takes_no_more_memory_after_a_day_than_after_an_hour() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory");
    let formats = Formats::open(Engine::new().unwrap(), Some(&cache), None, Limits::default()).await.unwrap();
    // The first one, which is not counted, makes the process as large as queues and threads want it.
    for (round, format) in ["flv", "flv", "ts", "mp4"].into_iter().enumerate() {
        let media = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disk = Disk::new(Roots::open(media.path(), &[]).unwrap(), Some(Duration::from_secs(2)));
        let volume = disk.volumes.get(fs::metadata(media.path()).unwrap().dev()).unwrap();
        let registry = Registry::new(Duration::ZERO);
        let events = Events::default();
        let repairs = Repairs::new(disk.clone(), formats.clone(), events.clone());
        // What waits is not what is measured.
        let config = Config { queue_bytes: 1 << 20, ..Config::default() };
        let store = Store::in_memory();
        let ids = ConfigIds::open(&store).unwrap();
        let (registry_, formats_) = (registry.clone(), formats.clone());
        let parts = Parts { registry: registry_, formats: formats_, disk, repairs, events, store, ids };
        let recordings = Recordings::new(parts, config);
        let recording = recordings.add(settings(format)).await.unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let nothing = String::new;
        let source = Source {
            app: nothing(),
            tc_url: nothing(),
            page_url: nothing(),
            swf_url: nothing(),
            user_agent: nothing(),
            near: addr,
            far: addr,
        };
        let mut publisher = registry.publish("cam", source).unwrap();
        publisher.declare(Declared { video: true, audio: true });
        let config = Bytes::from_static;
        for (id, kind, codec, config) in
            [(VIDEO, Kind::Video, "avc1", config(AVC)), (AUDIO, Kind::Audio, "mp4a", config(AAC))]
        {
            publisher.track(Track { id, kind, codec: codec.into(), config, properties: vec![] });
        }
        let (mut first, mut last) = (0, 0);
        let hours = if round == 0 { 1 } else { 24 };
        for hour in 0..hours {
            for at in (0..HOUR_MS).step_by(STRETCH_MS as usize) {
                for group_at in (0..STRETCH_MS).step_by(2000) {
                    publisher.send(&mut group(hour * HOUR_MS + at + group_at)).await;
                }
                // What was sent is written, all but a batch.
                let sent = (hour * HOUR_MS + at + STRETCH_MS) as u64 / 1000 * 30;
                while recording.run().is_none_or(|run| run.video_samples + 200 < sent) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // Nor does anything wait for the disk.
                volume.settle().await;
            }
            last = resident();
            if hour == 0 {
                first = last;
            }
        }
        drop(publisher);
        recordings.remove(recording.config_id).await.unwrap();
        let dropped = recording.run().map_or(0, |run| run.dropped_samples);
        let bytes = fs::metadata(media.path().join(format!("cam.{format}"))).unwrap().len();
        println!("{format}: {first} KiB after an hour, {last} KiB after a day, {bytes} bytes");
        assert_eq!(dropped, 0, "{format}");
        assert!(bytes > hours as u64 * 3600 * 100, "{format}");
        assert!(
            round == 0 || last - first < GROWTH,
            "{format}: {first} KiB after an hour, {last} KiB after a day"
        );
    }
}
