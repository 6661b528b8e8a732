//! The readers on files that the formats write when they are compiled natively, whole and damaged.

use std::{io::Cursor, sync::LazyLock};

use proptest::prelude::*;
use reelwright_sdk::{
    End, Property, Sample as SdkSample, Start, Timebase, Track as SdkTrack, TrackEnd, Writer, mock,
};

use super::*;
use crate::format::probe::Stream;

/// A format's file of the built-in stream, and what it was given.
struct Whole {
    format: &'static str,
    file: Vec<u8>,
    given: Contents,
}

static WHOLE: LazyLock<[Whole; 3]> = LazyLock::new(|| {
    [
        write::<reelwright_flv::Flv>("flv"),
        write::<reelwright_ts::Ts>("ts"),
        write::<reelwright_mp4::Mp4>("mp4"),
    ]
});

fn write<W: Writer>(format: &'static str) -> Whole {
    let stream = Stream::built_in().unwrap();
    let mut given = Given::new(&stream.tracks);
    let track = |track: &Track| SdkTrack {
        id: track.id,
        kind: track.kind.as_str().into(),
        codec: track.codec.clone(),
        timebase: Timebase { num: 1, den: 1000 },
        config: track.config.to_vec(),
        properties: Vec::new(),
    };
    let options = W::describe().options.into_iter();
    let mut harness = mock::Harness::<W>::open(Start {
        segment: 0,
        epoch_us: 1_700_000_000_000_000,
        origin_ms: 0,
        head_room: 4096,
        head_align: 4096,
        tracks: stream.tracks.iter().map(track).collect(),
        options: options.map(|o| Property { key: o.key, value: o.default_value }).collect(),
        carry: Vec::new(),
    })
    .unwrap();
    for (seq, sample) in (0..).zip(&stream.samples) {
        given.sample(sample);
        let header = SdkSample {
            seq,
            dts: sample.dts_ms,
            pts: sample.pts_ms,
            duration: 0,
            track: sample.track,
            size: u32::try_from(sample.data.len()).unwrap(),
            bits: u32::from(sample.key),
        };
        harness.write(&[(header, &sample.data)]).unwrap();
    }
    let tracks = [1, 2].map(|track| TrackEnd { track, dts: 2000 }).to_vec();
    let (_, files) =
        harness.finish(End { reason: "stopped".into(), tracks, properties: Vec::new() }).unwrap();
    Whole { format, file: files.main(), given: given.contents() }
}

fn read_bytes(format: &str, bytes: &[u8]) -> Result<Contents, Invalid> {
    read_from(format, Cursor::new(bytes))
}

#[test]
fn what_was_given_is_found_in_every_format() {
    for Whole { format, file, given } in &*WHOLE {
        assert!(has_reader(format));
        let found = read_bytes(format, file).unwrap_or_else(|e| panic!("{format}: {e}"));
        assert_eq!(found.differs_from(given), None, "{format}");
        let (video, audio) = (found.video.unwrap(), found.audio.unwrap());
        assert_eq!((video.samples, audio.samples), (50, 88), "{format}");
        assert_eq!(video.span_ms(), 49 * 40, "{format}");
    }
    assert!(!has_reader("raw"));
    assert!(matches!(read_bytes("raw", b""), Err(Invalid::NoReader(_))));
}

#[test]
fn no_file_that_is_cut_off_passes_for_whole() {
    for Whole { format, file, given } in &*WHOLE {
        for length in (0..file.len()).step_by(97).chain(file.len() - 190..file.len()) {
            if let Ok(found) = read_bytes(format, &file[..length]) {
                assert_ne!(found.differs_from(given), None, "{format}, {length} of {} bytes", file.len());
            }
        }
    }
}

#[test]
fn what_is_damaged_is_said_with_its_place() {
    let [flv, ts, mp4] = &*WHOLE;
    let find = |file: &[u8], what: &[u8]| file.windows(what.len()).position(|w| w == what).unwrap();
    let packet = |pid: [u8; 2], from: usize| {
        let packets = ts.file.chunks(188).enumerate().skip(from);
        packets.into_iter().find(|(_, p)| [p[1] & 0x1f, p[2]] == pid).unwrap().0 * 188
    };
    let stsz = find(&mp4.file, b"stsz");
    let stco = find(&mp4.file, b"stco");
    for (whole, at, byte, message) in [
        (flv, 0, b'G', "at byte 0: no FLV header"),
        (flv, 13, 7, "at byte 13: TagType 7"),
        (flv, 23, 1, "at byte 13: a StreamID that is not 0"),
        (flv, flv.file.len() - 1, 0xff, "PreviousTagSize is"),
        (flv, find(&flv.file, b"filesize") + 9 + 5, 0x77, "filesize is"),
        (ts, 188, 0x48, "at byte 188: sync_byte is 0x48"),
        (ts, packet([0, 0], 0) + 12, 9, "table 0: CRC_32 does not fit"),
        (ts, packet([1, 0], 0) + 12, 9, "table 2: CRC_32 does not fit"),
        (ts, packet([1, 1], 8) + 3, 0x1f, "continuity_counter of PID 257"),
        (mp4, 4, b'g', "at byte 0: box `gtyp` where ftyp is due"),
        (mp4, find(&mp4.file, b"moov"), b'n', "box `noov`"),
        (mp4, stsz + 15, 0, "sample_count is 0"),
        (mp4, stsz + 17, 0xff, "are not in mdat"),
        (mp4, stco + 12, 0xff, "are not in mdat"),
        (mp4, find(&mp4.file, b"stts") + 11, 9, "entry_count is 9"),
    ] {
        let mut file = whole.file.clone();
        file[at] = byte;
        let error = read_bytes(whole.format, &file).expect_err(message).to_string();
        assert!(error.contains(message), "{} byte {at}: `{message}` is not in: {error}", whole.format);
    }
}

#[test]
fn other_media_is_told_apart() {
    let stream = Stream::built_in().unwrap();
    let contents = |change: &dyn Fn(&mut Vec<Sample>)| {
        let mut given = Given::new(&stream.tracks);
        let mut samples = stream.samples.clone();
        change(&mut samples);
        samples.iter().for_each(|sample| given.sample(sample));
        given.contents()
    };
    let all = contents(&|_| {});
    let video: Vec<usize> = (0..stream.samples.len()).filter(|&i| stream.samples[i].track == 1).collect();
    for (what, found) in [
        ("video: 49 samples, 50 were given", contents(&|s| drop(s.remove(video[7])))),
        (
            "video: the payload is not what was given, or in another order",
            contents(&|s| s.swap(video[7], video[8])),
        ),
        ("no audio, of 88 samples that were given", contents(&|s| s.retain(|s| s.track == 1))),
        (
            "video: it lasts 2960 ms, what was given 1960 ms",
            contents(&|s| s[*video.last().unwrap()].dts_ms += 1000),
        ),
    ] {
        assert_eq!(found.differs_from(&all).as_deref(), Some(what));
    }
    // Parameter sets and delimiters are not media, and what holds nothing else is no sample.
    let mut given = Given::new(&stream.tracks);
    let sample = |data: &'static [u8]| Sample { data: data.into(), ..stream.samples[0].clone() };
    given.sample(&sample(&[0, 0, 0, 2, 0x09, 0xf0, 0, 0, 0, 3, 0x65, 1, 0]));
    given.sample(&sample(&[0, 0, 0, 2, 0x67, 1]));
    given.sample(&sample(&[]));
    let video = given.contents().video.unwrap();
    assert_eq!((video.samples, video.bytes), (1, 2));
}

proptest! {
    /// A flipped bit either is found, or is in something that no sample is made of.
    #[test]
    fn nothing_panics(at: prop::sample::Index, bit in 0..8u8, cut: prop::sample::Index, which in 0..3usize) {
        let Whole { format, file, .. } = &WHOLE[which];
        let mut file = file.clone();
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let _ = read_bytes(format, &file);
        file.truncate(cut.index(file.len()));
        let _ = read_bytes(format, &file);
    }

    /// What is in front, where boxes, tables and program maps are, in any state.
    #[test]
    fn nothing_panics_at_a_damaged_front(bytes: [u8; 16], at in 0..2000usize, which in 0..3usize) {
        let Whole { format, file, .. } = &WHOLE[which];
        let mut file = file.clone();
        file[at..at + 16].copy_from_slice(&bytes);
        let _ = read_bytes(format, &file);
    }
}
