//! `X.info`: what recovery needs to finish a segment that lost its writer.
//!
//! The host keeps it for every segment, from before its first file is made until its last file is durable. It
//! starts with [`MAGIC`]; then records follow, each
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
//! 3. `Commit`: what was appended to the outputs so far, with checksums. Written after the bytes it counts, so
//!    the process may die at any moment; the power may not, since the bytes can still be in memory.
//! 4. `Synced`: sizes up to which the outputs were made durable before this was written.
//! 5. `Resize` (JSON): the head of an output is about to be resized. Synced before that begins.
//! 6. `Resized` (JSON): it was. Synced before the head is written to.
//! 7. `Closed`: the main file is complete and durable under its final name; the rest is to be removed.
//! 8. `Cut`: a repair cut the outputs back to this commit and synced them. Commits before it that count more are
//!    void.
//! 9. `Summary` (JSON): what will be announced when the main file is complete; the last one counts. Written before
//!    `Closed`, and of no meaning without it.
//! 10. `Void` (JSON): what the outputs have beyond this is void, as the same samples are in the next segment; the last
//!     one counts.
//!
//! A reader takes records up to the first that is cut short or has a wrong checksum. Unknown kinds are passed
//! over. Sizes do not count an output's head.
//!
//! Behind the last record there may be zeros, which are no record: the file grows by whole blocks, so that most syncs
//! have a block to write and no size.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::storage::DiskFile;

/// First bytes of the file: name and version of this layout.
pub const MAGIC: &[u8; 8] = b"RWINFO01";

const START: u8 = 1;
const OUTPUT: u8 = 2;
const COMMIT: u8 = 3;
const SYNCED: u8 = 4;
const RESIZE: u8 = 5;
const RESIZED: u8 = 6;
const CLOSED: u8 = 7;
const CUT: u8 = 8;
const SUMMARY: u8 = 9;
const VOID: u8 = 10;

/// Longest body that is believed. A `Start` with 64 KiB of carry has a fifth of a mebibyte.
const MAX_BODY: usize = 16 << 20;
/// What a reserve is rounded up to.
const RESERVE_STEP: u64 = 64 << 10;
/// What the file's size is a multiple of while it is written.
const BLOCK: u64 = 4096;
/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Bytes read at once.
const WINDOW: usize = 256 << 10;

/// Who wrote a segment, and from what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Format and version of the component, and the SHA-256 of its file in hexadecimal.
    pub format: String,
    pub version: String,
    pub sha256: String,
    /// The final file name.
    pub file: String,
    /// Whether a finished file of that name is to be replaced.
    #[serde(default)]
    pub replaces: bool,
    /// The recording's id and the stream's name, for reports.
    #[serde(default)]
    pub config_id: u64,
    #[serde(default)]
    pub stream: String,
    #[serde(default, skip_serializing_if = "Whose::is_empty")]
    pub whose: Whose,
    /// Milliseconds between two sync points; 0: there are none.
    #[serde(default)]
    pub sync_ms: u64,
    /// Whether the finished file gets a manifest beside it.
    #[serde(default)]
    pub manifest: bool,
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

/// What else events tell of the recording that a segment belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    /// The rule that ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<u64>,
    /// Its `_name` variables, underscore included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

impl Whose {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// Tells its file from another that has, or had, the same name.
    #[serde(default)]
    pub inode: u64,
}

/// What was written so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Wall clock when it was written, in microseconds since 1970.
    pub epoch_us: i64,
    /// Samples whose bytes are in the outputs.
    pub samples: u64,
    /// The latest DTS among the samples, in milliseconds of the run.
    pub last_ms: i64,
    /// By output: its size, and the CRC-32 of the bytes appended since the commit before.
    pub outputs: Vec<(u64, u32)>,
}

/// The head of an output and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    pub output: usize,
    pub from: u64,
    pub to: u64,
    /// Bytes of the whole file before.
    pub size: u64,
}

/// The head of an output as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resized {
    pub output: usize,
    pub head: u64,
    /// The file's inode, which a copy changes.
    pub inode: u64,
}

/// Where a segment ends whose last samples are in the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Void {
    /// As in the commit that it ends with.
    pub samples: u64,
    pub sizes: Vec<u64>,
    /// The final name of the next segment, in the same folder: this holds if that has at least as many samples as are
    /// void here. Empty: it holds.
    #[serde(default)]
    pub next: String,
}

impl Void {
    /// Whether a commit counts nothing that is void.
    pub fn spares(&self, commit: &Commit) -> bool {
        let size = |i: usize| self.sizes.get(i).copied().unwrap_or(0);
        commit.outputs.iter().enumerate().all(|(i, &(its, _))| its <= size(i))
    }
}

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Start(Box<Start>),
    Output(Output),
    Commit(Commit),
    /// Sizes of the outputs.
    Synced(Vec<u64>),
    Resize(Resize),
    Resized(Resized),
    Closed,
    Cut(Commit),
    Summary(Vec<u8>),
    Void(Void),
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; 5]);
        let kind = match self {
            Record::Start(start) => json(START, start, out),
            Record::Output(output) => json(OUTPUT, output, out),
            Record::Resize(resize) => json(RESIZE, resize, out),
            Record::Resized(resized) => json(RESIZED, resized, out),
            Record::Void(void) => json(VOID, void, out),
            Record::Commit(commit) | Record::Cut(commit) => {
                out.extend_from_slice(&commit.epoch_us.to_le_bytes());
                out.extend_from_slice(&commit.samples.to_le_bytes());
                out.extend_from_slice(&commit.last_ms.to_le_bytes());
                for (size, checksum) in &commit.outputs {
                    out.extend_from_slice(&size.to_le_bytes());
                    out.extend_from_slice(&checksum.to_le_bytes());
                }
                if matches!(self, Record::Cut(_)) { CUT } else { COMMIT }
            }
            Record::Synced(sizes) => {
                sizes.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
                SYNCED
            }
            Record::Closed => CLOSED,
            Record::Summary(text) => {
                out.extend_from_slice(text);
                SUMMARY
            }
        };
        out[at + 4] = kind;
        let length = u32::try_from(out.len() - at - 5).expect("a record below 4 GiB");
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32fast::hash(&out[at..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    /// A record's body; `None` inside is one of an unknown kind.
    fn decode(kind: u8, body: &[u8]) -> Option<Option<Self>> {
        Some(Some(match kind {
            START => Record::Start(serde_json::from_slice(body).ok()?),
            OUTPUT => Record::Output(serde_json::from_slice(body).ok()?),
            RESIZE => Record::Resize(serde_json::from_slice(body).ok()?),
            RESIZED => Record::Resized(serde_json::from_slice(body).ok()?),
            VOID => Record::Void(serde_json::from_slice(body).ok()?),
            COMMIT => Record::Commit(commit(body)?),
            CUT => Record::Cut(commit(body)?),
            SYNCED => {
                let (sizes, rest) = body.as_chunks::<8>();
                let sizes = sizes.iter().map(|size| u64::from_le_bytes(*size)).collect();
                rest.is_empty().then_some(Record::Synced(sizes))?
            }
            CLOSED => Record::Closed,
            SUMMARY => Record::Summary(body.to_vec()),
            _ => return Some(None),
        }))
    }
}

fn json(kind: u8, value: &impl Serialize, out: &mut Vec<u8>) -> u8 {
    serde_json::to_writer(out, value).expect("plain data is valid JSON");
    kind
}

fn commit(body: &[u8]) -> Option<Commit> {
    let (epoch_us, rest) = body.split_first_chunk()?;
    let (samples, rest) = rest.split_first_chunk()?;
    let (last_ms, rest) = rest.split_first_chunk()?;
    let (outputs, rest) = rest.as_chunks::<12>();
    let output = |bytes: &[u8; 12]| {
        let (size, checksum) = bytes.split_first_chunk()?;
        Some((u64::from_le_bytes(*size), u32::from_le_bytes(checksum.try_into().ok()?)))
    };
    rest.is_empty().then_some(Commit {
        epoch_us: i64::from_le_bytes(*epoch_us),
        samples: u64::from_le_bytes(*samples),
        last_ms: i64::from_le_bytes(*last_ms),
        outputs: outputs.iter().map(output).collect::<Option<_>>()?,
    })
}

/// The end of a journal that records are appended to.
#[derive(Debug)]
pub struct Journal {
    file: Arc<dyn DiskFile>,
    position: u64,
    /// Where the file ends, at least: from the position on it has zeros up to here.
    end: u64,
    /// Disk space that is taken behind the end, for what closing the segment needs.
    reserved: u64,
    /// The segment is being closed: nothing is reserved any more.
    released: bool,
}

impl Journal {
    /// A new journal in an empty file, with its first record.
    pub fn begin(file: Arc<dyn DiskFile>, start: &Start) -> Result<Self, Errno> {
        let mut journal = Self { file, position: 0, end: 0, reserved: 0, released: false };
        let mut bytes = MAGIC.to_vec();
        Record::Start(Box::new(start.clone())).encode(&mut bytes);
        journal.write(bytes)?;
        Ok(journal)
    }

    /// A journal to be gone on with at a byte, behind which is nothing.
    pub fn resume(file: Arc<dyn DiskFile>, position: u64) -> Self {
        Self { file, position, end: position, reserved: 0, released: true }
    }

    /// Keeps so many bytes of disk space, to be given back by [`Journal::release`]. `NOSPC` or `DQUOT`: there are
    /// not so many. File systems that can't do it are let be.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), Errno> {
        if self.released || bytes <= self.reserved {
            return Ok(());
        }
        // A quarter more, so that it is not asked for at each turn.
        let bytes = (bytes + bytes / 4).next_multiple_of(RESERVE_STEP);
        match self.file.reserve(bytes) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => return Err(errno),
            _ => self.reserved = bytes,
        }
        Ok(())
    }

    /// Gives back what was reserved, for good.
    pub fn release(&mut self) -> Result<(), Errno> {
        self.released = true;
        match std::mem::take(&mut self.reserved) {
            0 => Ok(()),
            _ => {
                self.file.truncate(self.position)?;
                self.end = self.position;
                Ok(())
            }
        }
    }

    /// Appends a record. It is durable after a sync of the file.
    pub fn append(&mut self, record: &Record) -> Result<(), Errno> {
        let mut bytes = Vec::with_capacity(96);
        record.encode(&mut bytes);
        self.write(bytes)
    }

    /// The file.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    fn write(&mut self, bytes: Vec<u8>) -> Result<(), Errno> {
        let position = self.position + bytes.len() as u64;
        let mut pieces = vec![Bytes::from(bytes)];
        let mut end = self.end.max(position);
        if position > self.end && !self.released {
            static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
            end = position.next_multiple_of(BLOCK);
            pieces.push(Bytes::from_static(&ZEROS[..(end - position) as usize]));
        }
        self.file.write_at(&pieces, self.position)?;
        self.position = position;
        // It has grown into that.
        self.reserved = self.reserved.saturating_sub(end - self.end);
        self.end = end;
        Ok(())
    }
}

/// What a file that is called like a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Journal,
    /// A journal of a version that is not known here.
    Unknown,
    /// What a power cut can leave of one that was just begun.
    Torn,
    /// Nothing of ours.
    Foreign,
}

/// Looks at how a file begins.
pub fn kind(file: &dyn DiskFile) -> Result<Kind, Errno> {
    let mut front = [0; 4096];
    let read = file.read_at(&mut front, 0)?;
    let front = &front[..read];
    let known = front.len().min(MAGIC.len());
    Ok(if front.starts_with(MAGIC) {
        Kind::Journal
    } else if front.iter().take(SECTOR).all(|&byte| byte == 0) || front == &MAGIC[..known] {
        // The first sector may be lost, and others be there.
        Kind::Torn
    } else if front.starts_with(b"RWINFO") {
        Kind::Unknown
    } else {
        Kind::Foreign
    })
}

/// Reads the records of a journal one by one, in constant memory.
#[derive(Debug)]
pub struct Reader {
    file: Arc<dyn DiskFile>,
    /// Where `window` begins in the file.
    at: u64,
    window: Vec<u8>,
    /// Bytes of the window that were taken.
    taken: usize,
}

impl Reader {
    /// `None`: the file does not begin as a journal does.
    pub fn open(file: Arc<dyn DiskFile>) -> Result<Option<Self>, Errno> {
        let mut reader = Self { file, at: 0, window: Vec::new(), taken: 0 };
        let found = reader.fill(MAGIC.len())? && reader.window.starts_with(MAGIC);
        reader.taken = MAGIC.len();
        Ok(found.then_some(reader))
    }

    /// Where the records that were taken end.
    pub fn position(&self) -> u64 {
        self.at + self.taken as u64
    }

    /// The next record; `None`: there is none that is whole.
    pub fn record(&mut self) -> Result<Option<Record>, Errno> {
        loop {
            if !self.fill(5)? {
                return Ok(None);
            }
            let front = &self.window[self.taken..];
            let length = u32::from_le_bytes([front[0], front[1], front[2], front[3]]) as usize;
            let kind = front[4];
            if length > MAX_BODY || !self.fill(length + 9)? {
                return Ok(None);
            }
            let record = &self.window[self.taken..self.taken + length + 9];
            let (record, checksum) = record.split_at(length + 5);
            if crc32fast::hash(record).to_le_bytes() != checksum {
                return Ok(None);
            }
            let Some(record) = Record::decode(kind, &record[5..]) else { return Ok(None) };
            self.taken += length + 9;
            if record.is_some() {
                return Ok(record);
            }
        }
    }

    /// Makes sure that so many bytes can be taken.
    fn fill(&mut self, bytes: usize) -> Result<bool, Errno> {
        if self.window.len() - self.taken >= bytes {
            return Ok(true);
        }
        self.at += self.taken as u64;
        self.window.drain(..self.taken);
        self.taken = 0;
        let have = self.window.len();
        self.window.resize(have + bytes.max(WINDOW), 0);
        let read = self.file.read_at(&mut self.window[have..], self.at + have as u64)?;
        self.window.truncate(have + read);
        Ok(self.window.len() >= bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::storage::{Directory, RealDirectory};

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
            ..Start::default()
        };
        let commit =
            Commit { epoch_us: -1, samples: 7, last_ms: 1 << 40, outputs: vec![(1 << 40, 9), (0, u32::MAX)] };
        vec![
            Record::Start(Box::new(start)),
            Record::Output(Output { name: "mdat".into(), role: "spool".into(), inode: 12 }),
            Record::Commit(commit.clone()),
            Record::Cut(commit),
            Record::Synced(vec![u64::MAX, 3]),
            Record::Resize(Resize { output: 0, from: 4096, to: 8192, size: 99 }),
            Record::Resized(Resized { output: 0, head: 8192, inode: 13 }),
            Record::Void(Void { samples: 5, sizes: vec![1 << 40], next: "cam_0001.mp4".into() }),
            Record::Closed,
        ]
    }

    /// A journal of these records, and where each ends.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = MAGIC.to_vec();
        let mut ends = vec![bytes.len()];
        for record in records() {
            record.encode(&mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    /// The records that are whole, and where they end.
    fn read(folder: &dyn Directory, bytes: &[u8]) -> Option<(Vec<Record>, u64)> {
        folder.remove("x").unwrap();
        let file = folder.create("x").unwrap();
        file.write_at(&[bytes.to_vec().into()], 0).unwrap();
        let mut reader = Reader::open(file).unwrap()?;
        let records = std::iter::from_fn(|| reader.record().unwrap()).collect();
        Some((records, reader.position()))
    }

    fn folder() -> (tempfile::TempDir, RealDirectory) {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, RealDirectory::new(fd))
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_tail_is_left_out() {
        let (_dir, folder) = folder();
        let (bytes, ends) = journal();
        for length in MAGIC.len()..=bytes.len() {
            let whole = ends.iter().filter(|&&end| end <= length).count() - 1;
            let (read, position) = read(&folder, &bytes[..length]).unwrap();
            assert_eq!(read, records()[..whole]);
            assert_eq!(position, ends[whole] as u64);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_before_its_record() {
        let (_dir, folder) = folder();
        let (good, ends) = journal();
        for at in MAGIC.len()..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let whole = ends.iter().filter(|&&end| end <= at).count() - 1;
            assert_eq!(read(&folder, &bytes).unwrap().0.len(), whole, "byte {at}");
        }
        assert_eq!(read(&folder, b"RWINFO99"), None);
        assert_eq!(read(&folder, b""), None);
    }

    #[test]
    fn a_long_journal_is_read_in_windows_and_gone_on_with() {
        let (_dir, folder) = folder();
        let file = folder.create("long").unwrap();
        let mut journal = Journal::begin(file.clone(), &Start::default()).unwrap();
        let synced = |i: u64| Record::Synced(vec![i; 5]);
        (0..20_000).for_each(|i| journal.append(&synced(i)).unwrap());
        let mut reader = Reader::open(file.clone()).unwrap().unwrap();
        assert!(matches!(reader.record().unwrap(), Some(Record::Start(_))));
        (0..20_000).for_each(|i| assert_eq!(reader.record().unwrap(), Some(synced(i))));
        assert_eq!(reader.record().unwrap(), None);
        Journal::resume(file.clone(), reader.position()).append(&Record::Closed).unwrap();
        let mut reader = Reader::open(file).unwrap().unwrap();
        let last = std::iter::from_fn(|| reader.record().unwrap()).last();
        assert_eq!(last, Some(Record::Closed));
    }

    #[test]
    fn the_file_grows_by_blocks_of_zeros_that_are_no_record() {
        let (_dir, folder) = folder();
        let file = folder.create("x").unwrap();
        let mut journal = Journal::begin(file.clone(), &Start::default()).unwrap();
        for _ in 0..200 {
            journal.append(&Record::Synced(vec![7; 3])).unwrap();
            assert_eq!(file.size().unwrap(), journal.position.next_multiple_of(BLOCK));
            let mut reader = Reader::open(file.clone()).unwrap().unwrap();
            while reader.record().unwrap().is_some() {}
            assert_eq!(reader.position(), journal.position);
        }
        journal.reserve(1 << 20).unwrap();
        journal.release().unwrap();
        journal.append(&Record::Closed).unwrap();
        assert_eq!(file.size().unwrap(), journal.position);
    }

    #[test]
    fn kinds_of_later_versions_are_passed_over() {
        let (_dir, folder) = folder();
        let (mut bytes, _) = journal();
        let mut later = Vec::new();
        Record::Closed.encode(&mut later);
        later[4] = 200;
        let at = later.len() - 4;
        let checksum = crc32fast::hash(&later[..at]);
        later[at..].copy_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&later);
        Record::Closed.encode(&mut bytes);
        assert_eq!(read(&folder, &bytes).unwrap().0.len(), records().len() + 1);
    }
}
