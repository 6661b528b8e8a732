//! FLV, MPEG-TS and MP4 as components: the same bytes as natively, however batched.

use reelwright_sdk::{End, Property, Sample, Start, Timebase, Track, TrackEnd, Writer, mock::Harness};

use reelwright::{format::limits::Limits, media};

use crate::support::{Clip, EPOCH_US, Host, clip};

/// The same segment, written by the format's code compiled for this machine, against the kit's host.
fn native<W: Writer>(clip: &Clip) -> Vec<u8> {
    let tracks = clip.tracks.iter().map(|t| Track {
        id: t.id,
        kind: t.kind.as_str().into(),
        codec: t.codec.clone(),
        timebase: Timebase { num: 1, den: 1000 },
        config: t.config.to_vec(),
        properties: t
            .properties
            .iter()
            .map(|(key, value)| Property { key: key.clone(), value: value.clone() })
            .collect(),
    });
    let start = Start {
        segment: 0,
        epoch_us: EPOCH_US,
        origin_ms: 0,
        head_room: 4096,
        head_align: 4096,
        tracks: tracks.collect(),
        options: vec![],
        carry: vec![],
    };
    let mut harness = Harness::<W>::open(start).unwrap();
    for s in &clip.samples {
        let sample = Sample {
            seq: 0,
            dts: s.dts_ms,
            pts: s.pts_ms,
            duration: 0,
            track: s.track,
            size: 0,
            bits: u32::from(s.key),
        };
        harness.write(&[(sample, &s.data)]).unwrap();
    }
    let end = clip.end();
    let tracks = end.tracks.iter().map(|&(track, dts)| TrackEnd { track, dts }).collect();
    let (_, files) = harness.finish(End { reason: end.reason.into(), tracks, properties: vec![] }).unwrap();
    files.main()
}

#[tokio::test]
async fn a_component_writes_what_its_code_writes_natively_however_batched() {
    let host = Host::new().await;
    let clip = clip();
    for (format, expected) in [
        ("flv", native::<reelwright_flv::Flv>(&clip)),
        ("ts", native::<reelwright_ts::Ts>(&clip)),
        ("mp4", native::<reelwright_mp4::Mp4>(&clip)),
    ] {
        let version = host.formats.get(format).unwrap();
        for batch in [1, 7, 64, 1000] {
            let (finished, bytes) = host.record(&version, &clip, batch, &[]).await.unwrap();
            assert_eq!(finished.file.bytes, bytes.len() as u64);
            assert!(bytes == expected, "{format} in batches of {batch}: {} bytes", bytes.len());
        }
    }
}

#[tokio::test]
async fn one_track_alone_will_do() {
    let host = Host::new().await;
    for track in [1, 2] {
        let mut clip = clip();
        clip.tracks.retain(|t| t.id == track);
        clip.samples.retain(|s| s.track == track);
        for format in ["flv", "ts", "mp4"] {
            let version = host.formats.get(format).unwrap();
            let (_, bytes) = host.record(&version, &clip, 10, &[]).await.unwrap();
            assert!(bytes.len() > clip.payload().len(), "{format}, track {track}");
        }
    }
}

#[tokio::test]
async fn what_a_format_can_not_hold_is_said_and_leaves_no_file() {
    let host = Host::new().await;
    let mut clip = clip();
    clip.tracks[0].codec = "hvc1".into();
    let version = host.formats.get("flv").unwrap();
    let error = host.record(&version, &clip, 10, &[]).await.unwrap_err().to_string();
    assert!(error.contains("open: unsupported: video codec hvc1 can't be held by flv"), "{error}");

    let mut clip = crate::support::clip();
    clip.tracks[0].config = vec![1, 2, 3].into();
    for format in ["flv", "ts", "mp4"] {
        let version = host.formats.get(format).unwrap();
        let error = host.record(&version, &clip, 10, &[]).await.unwrap_err().to_string();
        assert!(error.contains("AVCDecoderConfigurationRecord"), "{error}");
    }
    assert!(host.files().is_empty());
}

#[tokio::test]
async fn a_wrong_option_is_named() {
    let host = Host::new().await;
    let version = host.formats.get("mp4").unwrap();
    let error = host.record(&version, &clip(), 10, &[("win-qt-compat", "maybe")]).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("bad-option") && error.contains("win-qt-compat"), "{error}");
}

/// A packet of 188 bytes for six bytes of silence is no flood.
#[tokio::test]
async fn tiny_samples_do_not_run_into_the_output_limit() {
    let limits = Limits { output_total: 100 << 10, ..Limits::default() };
    let host = Host::with(limits).await;
    let mut clip = clip();
    clip.tracks.retain(|t| t.id == 2);
    let silence = clip.samples.iter().find(|s| s.track == 2).unwrap().clone();
    clip.samples = (0..3000)
        .map(|i| {
            let dts_ms = i * 21;
            media::Sample { dts_ms, pts_ms: dts_ms, data: silence.data.slice(..6), ..silence.clone() }
        })
        .collect();
    let version = host.formats.get("ts").unwrap();
    let (finished, _) = host.record(&version, &clip, 64, &[]).await.unwrap();
    assert!(finished.file.bytes > 500_000);
}

/// However many samples come at once, a format that gets payload gets 4 MiB of it.
#[tokio::test]
async fn a_stream_with_next_to_nothing_in_it_is_recorded_for_days() {
    let host = Host::new().await;
    let version = host.formats.get("ts").unwrap();
    // A small picture each 5 s, for three days: mostly clock references.
    let clip = clip();
    let video: Vec<_> = clip.tracks.iter().filter(|t| t.kind == media::Kind::Video).cloned().collect();
    let first = clip.samples.iter().find(|s| s.track == video[0].id && s.key).unwrap().clone();
    let sample = |i: i64| media::Sample { dts_ms: i * 5000, pts_ms: i * 5000, ..first.clone() };
    let clip = Clip { tracks: video, samples: (0..3 * 24 * 720).map(sample).collect() };
    let (finished, _) = host.record(&version, &clip, 64, &[]).await.unwrap();
    assert!(finished.file.bytes > 300 << 20, "{} bytes", finished.file.bytes);
}

#[tokio::test]
async fn large_samples_come_in_small_batches() {
    let host = Host::new().await;
    let mut clip = clip();
    let data = bytes::Bytes::from([[0, 31, 0xff, 0xfc, 0x41].as_slice(), &vec![0x55; 0x1f_fffb]].concat());
    clip.samples.truncate(64);
    for sample in clip.samples.iter_mut().filter(|s| s.track == 1) {
        sample.data = data.clone();
    }
    let version = host.formats.get("ts").unwrap();
    let (finished, _) = host.record(&version, &clip, 64, &[]).await.unwrap();
    assert!(finished.file.bytes > 20 << 20);
}
