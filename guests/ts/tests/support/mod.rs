//! What the tests of segments share: a publisher's samples, a plain reader of transport streams, and the rules
//! that every file has to keep.

#![allow(dead_code, unreachable_pub, reason = "a module of several test files, each of which uses a part")]

use std::collections::BTreeMap;

use oxideav_mpegts::validate::validate_ts;
use reelwright_sdk::mock::{Files, Harness};
use reelwright_sdk::{End, KEY, Sample, Start, Summary, Timebase, Track, TrackEnd};
use reelwright_ts::Ts;

pub const PMT: u16 = 0x100;
pub const VIDEO: u16 = 0x101;
pub const AUDIO: u16 = 0x102;

pub const SPS: &[u8] = &[0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80];
pub const PPS: &[u8] = &[0x68, 0xeb, 0xef, 0x20];
/// The delimiter of an access unit that came without one.
pub const AUD: &[u8] = &[0x09, 0xf0];

pub const fn sample(track: u32, dts: i64, pts: i64, bits: u32) -> Sample {
    Sample { seq: 0, dts, pts, duration: 0, track, size: 0, bits }
}

pub fn avc_config(length_size: u8, sps: &[u8], pps: &[u8]) -> Vec<u8> {
    let mut config = vec![1, 0x4d, 0x40, 0x1f, 0xfc | (length_size - 1), 0xe1, 0, sps.len() as u8];
    config.extend_from_slice(sps);
    config.extend_from_slice(&[1, 0, pps.len() as u8]);
    config.extend_from_slice(pps);
    config
}

fn track(id: u32, kind: &str, codec: &str, config: Vec<u8>) -> Track {
    Track {
        id,
        kind: kind.into(),
        codec: codec.into(),
        timebase: Timebase { num: 1, den: 1000 },
        config,
        properties: Vec::new(),
    }
}

pub fn video() -> Track {
    track(1, "video", "avc1", avc_config(4, SPS, PPS))
}

/// AAC-LC, 48 kHz, stereo.
pub fn audio() -> Track {
    track(2, "audio", "mp4a", vec![0x11, 0x90])
}

pub fn start(tracks: &[Track]) -> Start {
    Start {
        segment: 0,
        epoch_us: 1_700_000_000_000_000,
        origin_ms: 0,
        head_room: 0,
        head_align: 4096,
        tracks: tracks.to_vec(),
        options: Vec::new(),
        carry: Vec::new(),
    }
}

pub fn end(tracks: &[(u32, i64)]) -> End {
    let tracks = tracks.iter().map(|&(track, dts)| TrackEnd { track, dts }).collect();
    End { reason: "stopped".into(), tracks, properties: Vec::new() }
}

/// Units with four-byte lengths.
pub fn access_unit(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes(), *unit].concat()).collect()
}

/// A slice NAL unit of `len` bytes, IDR or not.
pub fn slice(idr: bool, len: usize) -> Vec<u8> {
    let mut slice = vec![if idr { 0x65 } else { 0x41 }];
    slice.extend((1..len.max(2)).map(|i| (i % 251) as u8 | 4));
    slice
}

pub type Media = Vec<(Sample, Vec<u8>)>;

/// Video of 25 frames a second, a key frame each second, and audio of one frame in 21.3 ms, in order of DTS
/// plus the audio's delay.
pub fn publish(duration_ms: i64, audio_late_ms: i64) -> Media {
    let mut media = Vec::new();
    for i in 0..duration_ms / 40 {
        let idr = i % 25 == 0;
        let pts = i * 40 + [40, 120, 40, 0][(i % 4) as usize];
        let slice = slice(idr, if idr { 9000 } else { 700 + (i as usize * 37) % 600 });
        media.push((i * 40, sample(1, i * 40, pts, if idr { KEY } else { 0 }), access_unit(&[&slice])));
    }
    for i in 0..duration_ms * 48 / 1024 {
        let dts = i * 1024 / 48;
        media.push((
            dts + audio_late_ms,
            sample(2, dts, dts, KEY),
            vec![0x21; 200 + (i as usize * 13) % 150],
        ));
    }
    media.sort_by_key(|&(at, ..)| at);
    media.into_iter().map(|(_, sample, payload)| (sample, payload)).collect()
}

pub fn batch(media: &[(Sample, Vec<u8>)]) -> Vec<(Sample, &[u8])> {
    media.iter().map(|(sample, payload)| (*sample, payload.as_slice())).collect()
}

/// Writes one segment in batches of `size`.
pub fn segment_of(start: Start, media: &[(Sample, Vec<u8>)], size: usize) -> (Summary, Vec<u8>) {
    let mut harness = Harness::<Ts>::open(start).expect("tracks that MPEG-TS can hold");
    for media in media.chunks(size) {
        harness.write(&batch(media)).expect("good samples");
    }
    let (summary, files) = harness.finish(end(&[])).expect("a segment that ends well");
    (summary, files.main())
}

pub fn segment(start: Start, media: &[(Sample, Vec<u8>)]) -> Vec<u8> {
    segment_of(start, media, 7).1
}

pub fn property(summary: &Summary, key: &str) -> u64 {
    let property = summary.properties.iter().find(|p| p.key == key).expect("a known property");
    property.value.parse().expect("a number")
}

pub fn main_of(files: &Files) -> Demuxed {
    demux(&files.main())
}

/// One PES packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pes {
    pub stream_id: u8,
    pub pts: u64,
    pub dts: u64,
    pub random_access: bool,
    /// Of its first packet.
    pub pcr: Option<u64>,
    /// Last PCR of the stream at its first packet.
    pub clock: Option<u64>,
    pub length: usize,
    pub data: Vec<u8>,
}

/// A transport stream, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Demuxed {
    pub pes: BTreeMap<u16, Vec<Pes>>,
    /// PCR and whether it was marked as a discontinuity, in order.
    pub pcr: Vec<(u64, bool)>,
    /// Program map sections, in order.
    pub maps: Vec<Vec<u8>>,
    /// Number and PID of packets in order; a PES packet counts by its first one.
    pub order: Vec<u16>,
    pub pcr_pid: u16,
    pub discontinuities: usize,
}

/// Takes a stream apart and checks what holds for all of ours: counters, syntax, PCR at most 100 ms apart and
/// never backwards, PAT and PMT at most 500 ms apart.
pub fn demux(bytes: &[u8]) -> Demuxed {
    let report = validate_ts(bytes);
    assert!(bytes.len() < 4 * 188 || report.is_conformant(), "{report:#?}");

    let mut found = Demuxed::default();
    let mut counters = BTreeMap::<u16, u8>::new();
    let mut pat_clock = None;
    for packet in bytes.chunks(188) {
        assert_eq!((packet.len(), packet[0]), (188, 0x47));
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let unit_start = packet[1] & 0x40 != 0;
        let (adaptation, payload) = match packet[3] >> 4 {
            1 => (&[][..], &packet[4..]),
            2 | 3 => packet[5..].split_at(packet[4].into()),
            other => panic!("adaptation_field_control {other}"),
        };
        let flags = adaptation.first().copied().unwrap_or(0);
        found.discontinuities += usize::from(flags & 0x80 != 0);
        let moves = u8::from(!payload.is_empty());
        if let Some(last) = counters.insert(pid, packet[3] & 15)
            && flags & 0x80 == 0
        {
            assert_eq!(packet[3] & 15, (last + moves) & 15, "continuity_counter of PID {pid:#x}");
        }
        let pcr = (flags & 0x10 != 0).then(|| {
            let [a, b, c, d, e] = adaptation[1..6] else { panic!("a short adaptation field") };
            u64::from(u32::from_be_bytes([a, b, c, d])) << 1 | u64::from(e >> 7)
        });
        if let Some(pcr) = pcr {
            if let Some(&(last, _)) = found.pcr.last()
                && flags & 0x80 == 0
            {
                let step = pcr.wrapping_sub(last) & ((1 << 33) - 1);
                assert!((1..=9000).contains(&step), "PCR {pcr} after {last}");
            }
            found.pcr.push((pcr, flags & 0x80 != 0));
        }
        match pid {
            0 => {
                let clock = found.pcr.last().map(|p| p.0);
                if let (Some(last), Some(now)) = (pat_clock, clock) {
                    let step = u64::wrapping_sub(now, last) & ((1 << 33) - 1);
                    let leap = found.pcr.iter().rev().take_while(|p| p.0 != last).any(|p| p.1);
                    assert!(leap || step <= 45_000, "PAT at {now} after {last}");
                }
                pat_clock = clock;
            }
            PMT => {
                let length = usize::from(payload[3]) + 3;
                found.maps.push(payload[1..1 + length].to_vec());
                found.pcr_pid = u16::from_be_bytes([payload[9] & 0x1f, payload[10]]);
            }
            _ if unit_start => {
                let clock = found.pcr.last().map(|p| p.0);
                let random_access = flags & 0x40 != 0;
                found.pes.entry(pid).or_default().push(pes(payload, random_access, pcr, clock));
            }
            _ if !payload.is_empty() => {
                let pes = found.pes.get_mut(&pid).and_then(|list| list.last_mut());
                pes.expect("a PES packet that began").data.extend_from_slice(payload);
            }
            _ => {}
        }
        if unit_start {
            found.order.push(pid);
        }
    }
    for pes in found.pes.values().flatten().filter(|pes| pes.length > 0) {
        assert_eq!(pes.length, pes.data.len() + if pes.pts == pes.dts { 8 } else { 13 });
    }
    found
}

fn pes(packet: &[u8], random_access: bool, pcr: Option<u64>, clock: Option<u64>) -> Pes {
    assert_eq!(packet[..3], [0, 0, 1]);
    assert_eq!(packet[6], 0x84, "data_alignment_indicator");
    let time = |at: usize| {
        let [a, b, c, d, e] =
            packet[at..at + 5].try_into().map(|bytes: [u8; 5]| bytes.map(u64::from)).expect("5");
        assert_eq!(a & c & e & 1, 1, "marker bits");
        (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
    };
    let pts = time(9);
    Pes {
        stream_id: packet[3],
        pts,
        dts: if packet[7] & 0x40 != 0 { time(14) } else { pts },
        random_access,
        pcr,
        clock,
        length: usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        data: packet[9 + usize::from(packet[8])..].to_vec(),
    }
}

impl Demuxed {
    pub fn pes_of(&self, pid: u16) -> &[Pes] {
        self.pes.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// NAL units of each access unit of the video.
    pub fn pictures(&self) -> Vec<Vec<Vec<u8>>> {
        let units = |pes: &Pes| {
            assert!(pes.data.starts_with(&[0, 0, 0, 1, 9]), "an access unit delimiter comes first");
            reelwright_codec::nal::annex_b(&pes.data).map(<[u8]>::to_vec).collect()
        };
        self.pes_of(VIDEO).iter().map(units).collect()
    }

    /// AAC frames, and their ADTS headers as far as all have them in common.
    pub fn frames(&self) -> Vec<([u8; 3], Vec<u8>)> {
        let frame = |pes: &Pes| {
            let [a, b, c, d, e, f, _, frame @ ..] = pes.data.as_slice() else { panic!("an ADTS header") };
            let length = usize::from(d & 3) << 11 | usize::from(*e) << 3 | usize::from(f >> 5);
            assert_eq!(length, pes.data.len(), "aac_frame_length");
            ([*a, *b, *c], frame.to_vec())
        };
        self.pes_of(AUDIO).iter().map(frame).collect()
    }
}

/// What [`Demuxed::pictures`] gives for the video of `media`.
pub fn expected_pictures(media: &[(Sample, Vec<u8>)]) -> Vec<Vec<Vec<u8>>> {
    let picture = |(sample, payload): &(Sample, Vec<u8>)| {
        let mut units = vec![AUD.to_vec()];
        if sample.is_key() {
            units.extend([SPS.to_vec(), PPS.to_vec()]);
        }
        let own = reelwright_codec::nal::length_prefixed(payload, 4);
        units.extend(own.map(|unit| unit.expect("a good unit").to_vec()));
        units
    };
    media.iter().filter(|(sample, _)| sample.track == 1).map(picture).collect()
}

/// Checks that a stream holds exactly the media, times included.
pub fn assert_holds(found: &Demuxed, media: &[(Sample, Vec<u8>)]) {
    assert_eq!(found.pictures(), expected_pictures(media));
    let of = |track: u32| media.iter().filter(move |(s, p)| s.track == track && !p.is_empty());
    let frames: Vec<_> = of(2).map(|(_, frame)| ([0xff, 0xf1, 0x4c], frame.clone())).collect();
    assert_eq!(found.frames(), frames);
    let stamp = |ms: i64| (ms * 90 + 126_000) as u64 & ((1 << 33) - 1);
    for (track, pid) in [(1, VIDEO), (2, AUDIO)] {
        let times: Vec<_> = found.pes_of(pid).iter().map(|p| (p.pts, p.dts)).collect();
        let expected: Vec<_> = of(track).map(|(s, _)| (stamp(s.pts), stamp(s.dts))).collect();
        assert_eq!(times, expected);
    }
}
