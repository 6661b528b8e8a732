//! Reads MP4 files: boxes by an independent library, and the tables expanded to samples again.

use mp4_atom::{Atom, Buf, Header, Moov, ReadFrom, StszSamples, Trak};

/// A file, as a reader sees it.
#[derive(Debug)]
pub(crate) struct File {
    /// Kinds of the top-level boxes, in order; they fill the file.
    pub(crate) kinds: Vec<String>,
    pub(crate) moov: Moov,
    pub(crate) tracks: Vec<Track>,
}

#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) trak: Trak,
    pub(crate) timescale: i64,
    pub(crate) samples: Vec<Sample>,
    /// Milliseconds before the presentation, and the media time with which it begins.
    pub(crate) edit: (i64, i64),
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) offset: usize,
    pub(crate) size: usize,
    /// In media time.
    pub(crate) dts: i64,
    pub(crate) composition: i64,
    pub(crate) duration: i64,
    pub(crate) key: bool,
}

impl Track {
    /// When a sample is presented, in units of media time that count from the movie's start.
    pub(crate) fn presented(&self, sample: &Sample) -> i64 {
        let (delay_ms, media_time) = self.edit;
        delay_ms * self.timescale / 1000 + sample.dts + sample.composition - media_time
    }
}

/// Reads a file and checks what holds for all of them.
pub(crate) fn read(bytes: &[u8]) -> File {
    let mut kinds = Vec::new();
    let mut moov = None;
    let mut media = 0..0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let position = bytes.len() - rest.len();
        let header = Header::read_from(&mut rest).unwrap();
        let size = header.size.expect("a box with a size");
        kinds.push(header.kind.to_string());
        if header.kind == Moov::KIND {
            let mut body = &rest[..size];
            moov = Some(Moov::decode_body(&mut body).unwrap());
            assert!(!body.has_remaining());
        }
        if &header.kind.to_string() == "mdat" {
            media = bytes.len() - rest.len()..bytes.len() - rest.len() + size;
        }
        if &header.kind.to_string() == "free" {
            assert!(rest[..size].iter().all(|&b| b == 0), "free at {position} is empty");
        }
        rest = &rest[size..];
    }
    let moov = moov.expect("a moov");
    let tracks: Vec<Track> = moov.trak.iter().map(expand).collect();
    for track in &tracks {
        let sum: i64 = track.samples.iter().map(|s| s.duration).sum();
        assert_eq!(sum, track.trak.mdia.mdhd.duration as i64, "mdhd is the sum of stts");
        for sample in &track.samples {
            assert!(media.start <= sample.offset && sample.offset + sample.size <= media.end);
        }
    }
    let longest = moov.trak.iter().map(|t| t.tkhd.duration).max().unwrap();
    assert_eq!((moov.mvhd.timescale, moov.mvhd.duration), (1000, longest));
    File { kinds, moov, tracks }
}

fn expand(trak: &Trak) -> Track {
    let stbl = &trak.mdia.minf.stbl;
    let StszSamples::Different { sizes } = &stbl.stsz.samples else { panic!("sizes of their own") };
    let durations: Vec<u32> = stbl
        .stts
        .entries
        .iter()
        .flat_map(|e| std::iter::repeat_n(e.sample_delta, e.sample_count as usize))
        .collect();
    let compositions: Vec<i64> = match &stbl.ctts {
        Some(ctts) => ctts
            .entries
            .iter()
            .flat_map(|e| std::iter::repeat_n(e.sample_offset, e.sample_count as usize))
            .collect(),
        None => vec![0; sizes.len()],
    };
    assert_eq!((durations.len(), compositions.len()), (sizes.len(), sizes.len()));
    let offsets: Vec<u64> = match (&stbl.stco, &stbl.co64) {
        (Some(stco), None) => stco.entries.iter().map(|&offset| offset.into()).collect(),
        (None, Some(co64)) => co64.entries.clone(),
        _ => panic!("one of stco and co64"),
    };
    let mut samples = Vec::new();
    let mut dts = 0;
    for (chunk, &offset) in (1..).zip(&offsets) {
        let row = stbl.stsc.entries.iter().rfind(|row| row.first_chunk <= chunk).unwrap();
        assert_eq!(row.sample_description_index, 1);
        let mut offset = offset as usize;
        for _ in 0..row.samples_per_chunk {
            let i = samples.len();
            let size = sizes[i] as usize;
            let key = stbl.stss.as_ref().is_none_or(|stss| stss.entries.contains(&(i as u32 + 1)));
            let duration = i64::from(durations[i]);
            samples.push(Sample { offset, size, dts, composition: compositions[i], duration, key });
            offset += size;
            dts += duration;
        }
    }
    assert_eq!(samples.len(), sizes.len());
    let elst = trak.edts.as_ref().and_then(|edts| edts.elst.as_ref());
    let mut edit = (0, 0);
    let mut length =
        (dts * 1000 + i64::from(trak.mdia.mdhd.timescale) - 1) / i64::from(trak.mdia.mdhd.timescale);
    if let Some(elst) = elst {
        length = elst.entries.iter().map(|e| e.segment_duration as i64).sum();
        match &elst.entries[..] {
            [normal] => edit = (0, normal.media_time.unwrap() as i64),
            [empty, normal] => {
                assert_eq!(empty.media_time, None);
                edit = (empty.segment_duration as i64, normal.media_time.unwrap() as i64);
            }
            other => panic!("one or two edits, not {other:?}"),
        }
    }
    assert_eq!(trak.tkhd.duration as i64, length, "tkhd is the sum of the edits, or of the samples");
    Track { trak: trak.clone(), timescale: trak.mdia.mdhd.timescale.into(), samples, edit }
}
