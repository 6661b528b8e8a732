//! The track spools: one record of fixed size for each sample, in order of arrival.
//!
//! Recovery reads them, maybe in a later version than the one that wrote them: the layout is a contract.
//! All numbers are big-endian.
//!
//! | bytes | header, once |
//! | --- | --- |
//! | 0..8 | `rwtrack` and a zero |
//! | 8..10 | version, 1 |
//! | 10..12 | size of a record, 32 |
//! | 12..16 | the track's `id` |
//!
//! | bytes | record |
//! | --- | --- |
//! | 0..8 | `u64` where the payload begins in the body of `mdat` |
//! | 8..16 | `i64` dts, in ticks of the track |
//! | 16..20 | `i32` pts minus dts, in ticks |
//! | 20..24 | `u32` size of the payload |
//! | 24..28 | `u32` the sample's bits |
//! | 28..32 | `u32` the sample's duration in ticks, 0 for unknown |

use reelwright_sdk::{Error, KEY, Output, Sample};

const MAGIC: [u8; 8] = *b"rwtrack\0";
const VERSION: u16 = 1;
const HEADER_SIZE: u64 = 16;
const RECORD_SIZE: usize = 32;
/// Bytes of one `read`: a whole number of records, and what the host gives at most.
const WINDOW: u32 = 1 << 20;

/// What is kept of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) dts: i64,
    pub(crate) composition: i32,
    pub(crate) size: u32,
    pub(crate) bits: u32,
    pub(crate) duration: u32,
}

impl Record {
    /// The record of a sample whose payload begins at `offset`.
    /// `bad-input`: presentation and decoding time are over 32 bits apart.
    pub(crate) fn new(sample: &Sample, offset: u64) -> Result<Self, Error> {
        let &Sample { seq, dts, pts, duration, size, bits, .. } = sample;
        let composition = pts
            .checked_sub(dts)
            .and_then(|offset| i32::try_from(offset).ok())
            .ok_or_else(|| Error::bad_input(format!("sample {seq}: dts is {dts}, pts is {pts}")))?;
        Ok(Self { offset, dts, composition, size, bits, duration })
    }

    pub(crate) fn is_key(&self) -> bool {
        self.bits & KEY != 0
    }

    /// Writes the record to the end of a vector.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.dts.to_be_bytes());
        bytes.extend_from_slice(&self.composition.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
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
            bits: u32::from_be_bytes(field(bytes, 24)),
            duration: u32::from_be_bytes(field(bytes, 28)),
        }
    }
}

/// What a track spool begins with.
pub(crate) fn header(track: u32) -> [u8; HEADER_SIZE as usize] {
    let mut header = [0; HEADER_SIZE as usize];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_be_bytes());
    header[10..12].copy_from_slice(&(RECORD_SIZE as u16).to_be_bytes());
    header[12..16].copy_from_slice(&track.to_be_bytes());
    header
}

/// A track spool to be read.
#[derive(Debug)]
pub(crate) struct Spool {
    /// `None`: the segment died before the spool was made.
    output: Option<Output>,
    /// Bytes of whole and torn records.
    size: u64,
}

impl Spool {
    /// Checks the header. A spool that ends within it is empty.
    /// `unsupported`: not a spool of this track, or of a version that is not known here.
    pub(crate) fn open(output: Option<Output>, track: u32) -> Result<Self, Error> {
        let size = output.as_ref().map_or(0, Output::size);
        let Some(size) = size.checked_sub(HEADER_SIZE) else {
            return Ok(Self { output: None, size: 0 });
        };
        if let Some(output) = &output {
            let found = output.read(0, HEADER_SIZE as u32)?;
            if found != header(track) {
                let expected = header(track);
                return Err(Error::unsupported(format!(
                    "the spool of track {track} begins with {found:02x?}, not {expected:02x?}"
                )));
            }
        }
        Ok(Self { output, size })
    }

    /// Records that were begun, the torn one at the end included.
    pub(crate) fn begun(&self) -> u64 {
        self.size.div_ceil(RECORD_SIZE as u64)
    }

    /// The whole records whose payload lies in `media`, a range of the body of `mdat`.
    pub(crate) fn records(&self, media: std::ops::Range<u64>) -> Records<'_> {
        Records { spool: self, media, position: 0, window: Vec::new(), at: 0 }
    }
}

/// Iterator of [`Spool::records`]; reads a window at a time.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    spool: &'a Spool,
    media: std::ops::Range<u64>,
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
                let output = self.spool.output.as_ref().filter(|_| self.position < self.spool.size)?;
                match output.read(HEADER_SIZE + self.position, WINDOW) {
                    Ok(window) => self.window = window,
                    Err(error) => return Some(Err(error)),
                }
                self.at = 0;
                self.position += u64::from(WINDOW);
                continue;
            };
            self.at += RECORD_SIZE;
            let record = Record::decode(bytes);
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
        assert_eq!(header(7), *b"rwtrack\0\x00\x01\x00\x20\x00\x00\x00\x07");
        let sample = Sample { seq: 9, dts: -2, pts: 38, duration: 40, track: 7, size: 0x1234, bits: 5 };
        let record = Record::new(&sample, 0x1_0000_0010).unwrap();
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let expected: [&[u8]; 6] = [
            &[0, 0, 0, 1, 0, 0, 0, 0x10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
            &[0, 0, 0, 40],
            &[0, 0, 0x12, 0x34],
            &[0, 0, 0, 5],
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
            assert_eq!(Record::new(&sample, 16).unwrap_err().code, "bad-input");
        }
    }
}
