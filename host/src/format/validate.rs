//! Reads finished files of the built-in formats, strictly and with code of its own: what a component wrote is
//! compared with what it was given.
//!
//! Each reader walks the whole file, checks its structure, and takes the samples out. These are counted and hashed
//! in one form for all formats: for H.264 the NAL units without access unit delimiters and parameter sets (which
//! MPEG-TS adds), for AAC the raw frames. Memory is bounded by the largest sample, and an MP4's `moov`.

mod flv;
mod mp4;
mod ts;

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use reelwright_codec::{avc::AvcConfig, nal};
use sha2::{Digest, Sha256};

use crate::{
    media::{Kind, Sample, Track},
    output::hex,
};

/// Largest sample that is read, in bytes; the contract's is 8 MiB, and start codes can make it larger.
const MAX_SAMPLE: u64 = 16 << 20;
/// How much times may differ: formats have clocks of their own.
const TOLERANCE_MS: u64 = 100;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("there is no reader for the format `{0}`")]
    NoReader(String),
    #[error("at byte {at}: {what}")]
    Broken { at: u64, what: String },
}

/// The samples of a file, or those that a writer was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub video: Option<Media>,
    pub audio: Option<Media>,
}

/// The samples of one kind. Those in which nothing is left (see the module) do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub samples: u64,
    /// Bytes of payload: NAL units without lengths, start codes, parameter sets and delimiters; raw AAC frames.
    pub bytes: u64,
    /// Over these bytes, and where each sample and NAL unit begins. In hexadecimal.
    pub sha256: String,
    /// On the file's own time line, in milliseconds.
    pub first_dts_ms: i64,
    pub last_dts_ms: i64,
}

impl Media {
    /// From the first sample to the last one, in milliseconds.
    pub fn span_ms(&self) -> i64 {
        self.last_dts_ms.saturating_sub(self.first_dts_ms)
    }
}

impl Contents {
    /// How a file's contents differ from those that its writer was given; `None` if they do not. Times may be
    /// shifted as a whole, and by up to 100 ms over the file.
    pub fn differs_from(&self, given: &Self) -> Option<String> {
        let kinds = [("video", &self.video, &given.video), ("audio", &self.audio, &given.audio)];
        kinds.into_iter().find_map(|(kind, found, given)| match (found, given) {
            (None, None) => None,
            (None, Some(given)) => Some(format!("no {kind}, of {} samples that were given", given.samples)),
            (Some(found), None) => Some(format!("{} samples of {kind}, none was given", found.samples)),
            (Some(found), Some(given)) => found.differs_from(given).map(|what| format!("{kind}: {what}")),
        })
    }
}

impl Media {
    fn differs_from(&self, given: &Self) -> Option<String> {
        if self.samples != given.samples {
            return Some(format!("{} samples, {} were given", self.samples, given.samples));
        }
        if self.bytes != given.bytes {
            return Some(format!("{} bytes of payload, {} were given", self.bytes, given.bytes));
        }
        if self.sha256 != given.sha256 {
            return Some("the payload is not what was given, or in another order".into());
        }
        (self.span_ms().abs_diff(given.span_ms()) > TOLERANCE_MS)
            .then(|| format!("it lasts {} ms, what was given {} ms", self.span_ms(), given.span_ms()))
    }
}

/// Whether there is a reader for a format, by its name.
pub fn has_reader(format: &str) -> bool {
    ["flv", "ts", "mp4"].contains(&format)
}

/// Reads a finished file. Blocks for as long as the disk takes.
pub fn read(format: &str, path: &Path) -> Result<Contents, Invalid> {
    read_from(format, File::open(path)?)
}

fn read_from(format: &str, file: impl Read + Seek) -> Result<Contents, Invalid> {
    let mut source = Source::new(file)?;
    match format {
        "flv" => flv::read(&mut source),
        "ts" => ts::read(&mut source),
        "mp4" => mp4::read(&mut source),
        _ => Err(Invalid::NoReader(format.into())),
    }
}

/// Counts what a writer is given, as [`read`] counts what is in a file.
#[derive(Debug, Default)]
pub struct Given {
    tracks: Vec<(u32, Kind, u8)>,
    tallies: Tallies,
}

impl Given {
    /// For a segment with these tracks.
    pub fn new(tracks: &[Track]) -> Self {
        let mut given = Self::default();
        given.tracks(tracks);
        given
    }

    /// The tracks were announced anew.
    pub fn tracks(&mut self, tracks: &[Track]) {
        let length_size = |track: &Track| AvcConfig::parse(&track.config).map_or(4, |c| c.length_size);
        self.tracks = tracks.iter().map(|track| (track.id, track.kind, length_size(track))).collect();
    }

    /// A sample was given.
    pub fn sample(&mut self, sample: &Sample) {
        match self.tracks.iter().find(|(id, ..)| *id == sample.track) {
            Some((_, Kind::Video, length_size)) => {
                self.tallies.video.picture(sample.dts_ms, &sample.data, *length_size);
            }
            Some((_, Kind::Audio, _)) => self.tallies.audio.add(sample.dts_ms, &[&sample.data]),
            None => {}
        }
    }

    /// All that was given.
    pub fn contents(self) -> Contents {
        self.tallies.contents()
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Tallies {
    video: Tally,
    audio: Tally,
}

impl Tallies {
    fn contents(self) -> Contents {
        Contents { video: self.video.media(), audio: self.audio.media() }
    }
}

/// Samples of one kind.
#[derive(Debug, Default)]
struct Tally {
    samples: u64,
    bytes: u64,
    hash: Sha256,
    times: Option<(i64, i64)>,
}

impl Tally {
    /// Adds a length-prefixed access unit, up to the first damage in it.
    fn picture(&mut self, dts_ms: i64, data: &[u8], length_size: u8) {
        let whole = nal::length_prefixed(data, length_size).map_while(Result::ok);
        let units: Vec<&[u8]> = whole.flat_map(units).filter(|unit| counts(unit)).collect();
        self.add(dts_ms, &units);
    }

    /// Adds an access unit in the byte stream format.
    fn byte_stream(&mut self, dts_ms: i64, data: &[u8]) {
        let units: Vec<&[u8]> = units(data).filter(|unit| counts(unit)).collect();
        self.add(dts_ms, &units);
    }

    fn add(&mut self, dts_ms: i64, units: &[&[u8]]) {
        let bytes = units.iter().map(|unit| unit.len() as u64).sum::<u64>();
        if bytes == 0 {
            return;
        }
        self.samples += 1;
        self.bytes += bytes;
        self.hash.update((units.len() as u64).to_be_bytes());
        for unit in units {
            self.hash.update((unit.len() as u64).to_be_bytes());
            self.hash.update(unit);
        }
        self.times = Some((self.times.map_or(dts_ms, |(first, _)| first), dts_ms));
    }

    fn media(self) -> Option<Media> {
        let (first_dts_ms, last_dts_ms) = self.times?;
        let sha256 = hex(&self.hash.finalize());
        Some(Media { samples: self.samples, bytes: self.bytes, sha256, first_dts_ms, last_dts_ms })
    }
}

/// NAL units between start codes, without trailing zeros. A unit that holds a start code, which is illegal, counts as
/// the two that it becomes in MPEG-TS.
fn units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next = move || {
        let unit = match data.windows(3).position(|window| window == [0, 0, 1]) {
            Some(at) => {
                let unit = &data[..at];
                data = &data[at + 3..];
                unit
            }
            None if data.is_empty() => return None,
            None => std::mem::take(&mut data),
        };
        let zeros = unit.iter().rev().take_while(|&&byte| byte == 0).count();
        Some(&unit[..unit.len() - zeros])
    };
    std::iter::from_fn(next).filter(|unit| !unit.is_empty())
}

/// Whether a NAL unit is media, and in every format.
fn counts(unit: &[u8]) -> bool {
    use nal::kind::{ACCESS_UNIT_DELIMITER, PPS, SPS};
    ![SPS, PPS, ACCESS_UNIT_DELIMITER].contains(&nal::unit_type(unit))
}

fn broken(at: u64, what: impl Into<String>) -> Invalid {
    Invalid::Broken { at, what: what.into() }
}

/// A file, read in windows from front to back.
struct Source<R> {
    file: BufReader<R>,
    at: u64,
    size: u64,
}

impl<R: Read + Seek> Source<R> {
    fn new(mut file: R) -> Result<Self, Invalid> {
        let size = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self { file: BufReader::with_capacity(64 << 10, file), at: 0, size })
    }

    fn rest(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    /// The next bytes, so many as `buffer` holds.
    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), Invalid> {
        if (buffer.len() as u64) > self.rest() {
            return Err(broken(self.at, format!("{what} is cut off: {} bytes are left", self.rest())));
        }
        self.file.read_exact(buffer)?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Invalid> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// The next `len` bytes in `buffer`, which takes no more than there are in the file.
    fn bytes(&mut self, buffer: &mut Vec<u8>, len: u64, what: &str) -> Result<(), Invalid> {
        if len > self.rest() || len > MAX_SAMPLE {
            let rest = self.rest();
            return Err(broken(
                self.at,
                format!("{what} of {len} bytes: {rest} are left, {MAX_SAMPLE} are read"),
            ));
        }
        buffer.resize(usize::try_from(len).map_err(|_| broken(self.at, "too large for this machine"))?, 0);
        self.fill(buffer, what)
    }

    /// Goes to a byte of the file.
    fn seek(&mut self, to: u64) -> Result<(), Invalid> {
        let by = i64::try_from(to).ok().zip(i64::try_from(self.at).ok()).map(|(to, at)| to - at);
        self.file.seek_relative(by.ok_or_else(|| broken(self.at, format!("there is no byte {to}")))?)?;
        self.at = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
