//! The spool `index`: one record of fixed size for each sample, in order of arrival.
//!
//! Recovery reads it, maybe in a later version than the one that wrote it: the layout is a contract. All numbers are
//! big-endian.
//!
//! | bytes | header, once |
//! | --- | --- |
//! | 0..8 | `rwindex` and a zero |
//! | 8..10 | version, 1 |
//! | 10..12 | size of a record, 32 |
//! | 12..16 | zeros |
//!
//! | bytes | record |
//! | --- | --- |
//! | 0..8 | `u64` where the payload begins in the body of `mdat` |
//! | 8..16 | `i64` dts, in ticks of the track |
//! | 16..20 | `i32` pts minus dts, in ticks |
//! | 20..24 | `u32` size of the payload |
//! | 24..26 | `u16` the track's place in `start.tracks`, from 0 |
//! | 26..28 | `u16` the lower half of the sample's bits |
//! | 28..32 | `u32` the sample's duration in ticks, 0 for unknown |
//!
//! The first versions of this format had a spool for each track instead, `track1`, `track2` and so on. They are
//! recovered still:
//!
//! | bytes | header of a track spool, once |
//! | --- | --- |
//! | 0..8 | `rwtrack` and a zero |
//! | 8..10 | version, 1 |
//! | 10..12 | size of a record, 32 |
//! | 12..16 | the track's `id` |
//!
//! Their records differ in bytes 24..28, which are all bits of the sample.

use std::ops::Range;

use reelwright_sdk::{Error, KEY, Output, Sample, host};

const VERSION: u16 = 1;
const HEADER_SIZE: u64 = 16;
const RECORD_SIZE: usize = 32;
/// Bytes of one `read`: a whole number of records, and what the host gives at most.
const WINDOW: u32 = 1 << 20;

/// The name of the spool.
pub(crate) const INDEX: &str = "index";

/// What is kept of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The track's place in `start.tracks`.
    pub(crate) track: u16,
    pub(crate) offset: u64,
    pub(crate) dts: i64,
    pub(crate) composition: i32,
    pub(crate) size: u32,
    pub(crate) bits: u16,
    pub(crate) duration: u32,
}

impl Record {
    /// The record of a sample whose payload begins at `offset`, of the track at a place in `start.tracks`.
    /// `bad-input`: presentation and decoding time are over 32 bits apart.
    pub(crate) fn new(sample: &Sample, track: u16, offset: u64) -> Result<Self, Error> {
        let &Sample { seq, dts, pts, duration, size, bits, .. } = sample;
        let composition = pts
            .checked_sub(dts)
            .and_then(|offset| i32::try_from(offset).ok())
            .ok_or_else(|| Error::bad_input(format!("sample {seq}: dts is {dts}, pts is {pts}")))?;
        Ok(Self { track, offset, dts, composition, size, bits: bits as u16, duration })
    }

    pub(crate) fn is_key(&self) -> bool {
        u32::from(self.bits) & KEY != 0
    }

    /// Writes the record to the end of a vector.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.dts.to_be_bytes());
        bytes.extend_from_slice(&self.composition.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.track.to_be_bytes());
        bytes.extend_from_slice(&self.bits.to_be_bytes());
        bytes.extend_from_slice(&self.duration.to_be_bytes());
    }

    fn decode(bytes: &[u8; RECORD_SIZE]) -> Self {
        fn field<const N: usize>(bytes: &[u8; RECORD_SIZE], at: usize) -> [u8; N] {
            bytes[at..at + N].try_into().expect("the field lies in the record")
        }
        Self {
            offset: u64::from_be_bytes(field(bytes, 0)),
            dts: i64::from_be_bytes(field(bytes, 8)),
            composition: i32::from_be_bytes(field(bytes, 16)),
            size: u32::from_be_bytes(field(bytes, 20)),
            track: u16::from_be_bytes(field(bytes, 24)),
            bits: u16::from_be_bytes(field(bytes, 26)),
            duration: u32::from_be_bytes(field(bytes, 28)),
        }
    }
}

/// What `index` begins with.
pub(crate) fn header() -> [u8; HEADER_SIZE as usize] {
    begin(b"rwindex\0", 0)
}

/// What the spool of a single track begins with.
fn track_header(id: u32) -> [u8; HEADER_SIZE as usize] {
    begin(b"rwtrack\0", id)
}

fn begin(magic: &[u8; 8], id: u32) -> [u8; HEADER_SIZE as usize] {
    let mut header = [0; HEADER_SIZE as usize];
    header[0..8].copy_from_slice(magic);
    header[8..10].copy_from_slice(&VERSION.to_be_bytes());
    header[10..12].copy_from_slice(&(RECORD_SIZE as u16).to_be_bytes());
    header[12..16].copy_from_slice(&id.to_be_bytes());
    header
}

/// All records of a segment.
#[derive(Debug)]
pub(crate) struct Index(Vec<Spool>);

impl Index {
    /// Of a segment that was recorded.
    /// `unsupported`: the header is another one.
    pub(crate) fn open(index: Output) -> Result<Self, Error> {
        Ok(Self(vec![Spool::open(INDEX, index, header(), None)?]))
    }

    /// Of a segment that was cut off, with the spools `names`, whose tracks have the ids `tracks`. Without media a spool may
    /// be missing, for the crash came before all were made.
    /// `unsupported`: a spool that is not known here; `bad-call`: one that is lost.
    pub(crate) fn recover(names: &[String], tracks: &[u32], has_media: bool) -> Result<Self, Error> {
        let of_tracks = tracks.iter().zip(0..);
        let of_tracks =
            of_tracks.map(|(&id, place)| (format!("track{}", place + 1), track_header(id), Some(place)));
        let mut spools: Vec<_> = of_tracks.collect();
        if !spools.iter().any(|(name, ..)| names.contains(name)) {
            spools = vec![(INDEX.into(), header(), None)];
        }
        spools.retain(|(name, ..)| has_media || names.contains(name));
        let open =
            |(name, header, track): (String, _, _)| Spool::open(&name, host::reopen(&name)?, header, track);
        spools.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Records that were begun, a torn one at the end of a spool included.
    pub(crate) fn begun(&self) -> u64 {
        self.0.iter().map(|spool| spool.size.div_ceil(RECORD_SIZE as u64)).sum()
    }

    /// The whole records whose payload lies in `media`, a range of the body of `mdat`; those of a track in order.
    pub(crate) fn records(&self, media: Range<u64>) -> impl Iterator<Item = Result<Record, Error>> {
        self.0.iter().flat_map(move |spool| spool.records(media.clone()))
    }
}

/// A spool to be read.
#[derive(Debug)]
struct Spool {
    output: Output,
    /// Bytes of whole and torn records.
    size: u64,
    /// The track whose spool it is, if it is not that of all.
    track: Option<u16>,
}

impl Spool {
    /// Checks the header. A spool that ends within it is empty.
    /// `unsupported`: another header than was expected.
    fn open(
        name: &str,
        output: Output,
        header: [u8; HEADER_SIZE as usize],
        track: Option<u16>,
    ) -> Result<Self, Error> {
        let Some(size) = output.size().checked_sub(HEADER_SIZE) else {
            return Ok(Self { output, size: 0, track });
        };
        let found = output.read(0, HEADER_SIZE as u32)?;
        if found != header {
            return Err(Error::unsupported(format!("`{name}` begins with {found:02x?}, not {header:02x?}")));
        }
        Ok(Self { output, size, track })
    }

    fn records(&self, media: Range<u64>) -> Records<'_> {
        Records { spool: self, media, position: 0, window: Vec::new(), at: 0 }
    }
}

/// Iterator of [`Spool::records`]; reads a window at a time.
#[derive(Debug)]
struct Records<'a> {
    spool: &'a Spool,
    media: Range<u64>,
    /// Bytes of records that were read.
    position: u64,
    window: Vec<u8>,
    at: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((bytes, _)) = self.window[self.at..].split_first_chunk() else {
                if self.position >= self.spool.size {
                    return None;
                }
                match self.spool.output.read(HEADER_SIZE + self.position, WINDOW) {
                    Ok(window) => self.window = window,
                    Err(error) => return Some(Err(error)),
                }
                self.at = 0;
                self.position += u64::from(WINDOW);
                continue;
            };
            self.at += RECORD_SIZE;
            let mut record = Record::decode(bytes);
            if let Some(track) = self.spool.track {
                record.track = track;
            }
            let end = record.offset.checked_add(u64::from(record.size));
            if record.offset >= self.media.start && end.is_some_and(|end| end <= self.media.end) {
                return Some(Ok(record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_a_contract() {
        assert_eq!(header(), *b"rwindex\0\x00\x01\x00\x20\x00\x00\x00\x00");
        assert_eq!(track_header(7), *b"rwtrack\0\x00\x01\x00\x20\x00\x00\x00\x07");
        let sample =
            Sample { seq: 9, dts: -2, pts: 38, duration: 40, track: 7, size: 0x1234, bits: 0x8_0005 };
        let record = Record::new(&sample, 3, 0x1_0000_0010).unwrap();
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let expected: [&[u8]; 6] = [
            &[0, 0, 0, 1, 0, 0, 0, 0x10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
            &[0, 0, 0, 40],
            &[0, 0, 0x12, 0x34],
            &[0, 3, 0, 5],
            &[0, 0, 0, 40],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(Record::decode(&bytes.try_into().unwrap()), record);
        assert_eq!(WINDOW as usize % RECORD_SIZE, 0);
    }

    #[test]
    fn times_far_apart_are_refused() {
        for (dts, pts) in [(0, 1 << 31), (i64::MIN, i64::MAX)] {
            let sample = Sample { seq: 3, dts, pts, duration: 0, track: 1, size: 0, bits: 0 };
            assert_eq!(Record::new(&sample, 0, 16).unwrap_err().code, "bad-input");
        }
    }
}
