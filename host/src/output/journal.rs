//! `X.info`: what recovery needs to finish a segment that lost its writer.
//!
//! The host keeps it for every segment with spools. It starts with [`MAGIC`]; then records follow, each
//!
//! ```text
//! length    u32, little-endian: bytes of the body
//! kind      u8
//! body
//! checksum  u32, little-endian: CRC-32 of length, kind and body
//! ```
//!
//! 1. `Start` (JSON): who wrote the segment and from what. First, once.
//! 2. `Output` (JSON): an output was created. Outputs are numbered in this order, from 0.
//! 3. `Commit`: a byte of flags (1: what it says was synced before it was written), then the size of each
//!    output so far, u64 little-endian. It is written after the bytes it counts.
//!
//! A reader takes records up to the first that is cut short or has a wrong checksum; the last commit before
//! that says where each output is whole. Unknown kinds are passed over.

use serde::{Deserialize, Serialize};

/// First bytes of the file: name and version of this layout.
pub const MAGIC: &[u8; 8] = b"RWINFO01";

const START: u8 = 1;
const OUTPUT: u8 = 2;
const COMMIT: u8 = 3;

/// Who wrote a segment, and from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Format and version of the component, and the SHA-256 of its file in hexadecimal.
    pub format: String,
    pub version: String,
    pub sha256: String,
    /// The final file name.
    pub file: String,
    /// The `start` record of the contract.
    pub segment: u64,
    pub epoch_us: i64,
    pub origin_ms: i64,
    pub head_room: u64,
    pub head_align: u32,
    pub tracks: Vec<Track>,
    pub options: Vec<(String, String)>,
    /// Base64 would save little: a carry is at most 64 KiB, once a segment.
    pub carry: Vec<u8>,
}

/// A track of the `start` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    pub id: u32,
    pub kind: String,
    pub codec: String,
    pub timebase: (u32, u32),
    pub config: Vec<u8>,
    pub properties: Vec<(String, String)>,
}

/// An output that was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub name: String,
    pub role: String,
}

/// Sizes up to which the outputs are whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Whether the media was synced before this record was written.
    pub synced: bool,
    /// By output, in order of creation; not counting the head.
    pub sizes: Vec<u64>,
}

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Start(Box<Start>),
    Output(Output),
    Commit(Commit),
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let json = |value: Result<Vec<u8>, serde_json::Error>| value.expect("plain data is valid JSON");
        let (kind, body) = match self {
            Record::Start(start) => (START, json(serde_json::to_vec(start))),
            Record::Output(output) => (OUTPUT, json(serde_json::to_vec(output))),
            Record::Commit(commit) => {
                let sizes = commit.sizes.iter().flat_map(|size| size.to_le_bytes());
                (COMMIT, std::iter::once(u8::from(commit.synced)).chain(sizes).collect())
            }
        };
        let at = out.len();
        out.extend_from_slice(&u32::try_from(body.len()).expect("a record below 4 GiB").to_le_bytes());
        out.push(kind);
        out.extend_from_slice(&body);
        let checksum = crc32fast::hash(&out[at..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }
}

/// Reads the records that are whole; whether the file ended with one as well.
pub fn read(file: &[u8]) -> Option<(Vec<Record>, bool)> {
    let mut rest = file.strip_prefix(MAGIC)?;
    let mut records = Vec::new();
    while let Some((record, after)) = read_one(rest) {
        records.extend(record);
        rest = after;
    }
    Some((records, rest.is_empty()))
}

/// The first record (`None` inside: of an unknown kind) and what follows; `None` if it is not whole.
fn read_one(file: &[u8]) -> Option<(Option<Record>, &[u8])> {
    let (length, _) = file.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (record, rest) = file.split_at_checked(length.checked_add(5)?)?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    if crc32fast::hash(record) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let body = &record[5..];
    let record = match record[4] {
        START => Some(Record::Start(serde_json::from_slice(body).ok()?)),
        OUTPUT => Some(Record::Output(serde_json::from_slice(body).ok()?)),
        COMMIT => {
            let (&flags, sizes) = body.split_first()?;
            let size = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
            let sizes = sizes.chunks(8).map(size).collect::<Option<_>>()?;
            Some(Record::Commit(Commit { synced: flags & 1 == 1, sizes }))
        }
        _ => None,
    };
    Some((record, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let start = Start {
            format: "mp4".into(),
            version: "0.1.0".into(),
            sha256: "ab".repeat(32),
            file: "cam.mp4".into(),
            segment: 3,
            epoch_us: 1_700_000_000_000_000,
            origin_ms: 5000,
            head_room: 16_384,
            head_align: 4096,
            tracks: vec![Track {
                id: 1,
                kind: "video".into(),
                codec: "avc1".into(),
                timebase: (1, 1000),
                config: vec![1, 77, 64, 31],
                properties: vec![("width".into(), "1280".into())],
            }],
            options: vec![("win-qt-compat".into(), "0".into())],
            carry: vec![0, 255],
        };
        vec![
            Record::Start(Box::new(start)),
            Record::Output(Output { name: "mdat".into(), role: "spool".into() }),
            Record::Commit(Commit { synced: false, sizes: vec![1 << 40] }),
            Record::Commit(Commit { synced: true, sizes: vec![u64::MAX] }),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_tail_is_left_out() {
        let mut file = MAGIC.to_vec();
        let mut ends = vec![file.len()];
        for record in records() {
            record.encode(&mut file);
            ends.push(file.len());
        }
        for length in MAGIC.len()..=file.len() {
            let whole = ends.iter().filter(|&&end| end <= length).count() - 1;
            let (read, clean) = read(&file[..length]).unwrap();
            assert_eq!(read, records()[..whole]);
            assert_eq!(clean, ends.contains(&length));
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_before_its_record() {
        let mut good = MAGIC.to_vec();
        let mut ends = vec![good.len()];
        for record in records() {
            record.encode(&mut good);
            ends.push(good.len());
        }
        for at in MAGIC.len()..good.len() {
            let mut file = good.clone();
            file[at] ^= 0x10;
            let whole = ends.iter().filter(|&&end| end <= at).count() - 1;
            let (read, clean) = read(&file).unwrap();
            assert_eq!((read.len(), clean), (whole, false), "byte {at}");
        }
        assert_eq!(read(b"RWINFO99"), None);
    }
}
