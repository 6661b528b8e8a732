//! The formats compiled for this machine, driven as the component host drives components.

use std::{cell::RefCell, collections::BTreeMap, collections::VecDeque, rc::Rc};

use bytes::{Bytes, BytesMut};
use reelwright::{
    format::{Begin, End, HEAD_ALIGN},
    media::Sample,
    output::{
        Segment, journal,
        segment::{OutputId, Role},
    },
};
use reelwright_sdk as sdk;
use sdk::{
    Error, Piece, Source, Writer,
    mock::{self, Harness, Sink},
};

/// Bytes of a piece of a payload that is shared, as in the component host.
const SHARED: u32 = 1 << 10;

/// The payloads that pieces may name.
#[derive(Debug, Default)]
struct Held {
    first: u64,
    payloads: VecDeque<Bytes>,
}

impl Held {
    fn get(&self, seq: u64) -> Result<&Bytes, Error> {
        let place = seq.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let held = place.and_then(|place| self.payloads.get(place));
        held.ok_or_else(|| Error::new("bad-call", "no such sample"))
    }

    fn read(&self, seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
        let payload = self.get(seq)?;
        let start = payload.len().min(offset as usize);
        Ok(payload[start..payload.len().min(start + len as usize)].to_vec())
    }

    fn free_before(&mut self, seq: u64) {
        while self.first < seq && self.payloads.pop_front().is_some() {
            self.first += 1;
        }
    }
}

/// A sink that only counts: what is left is the format's own work.
#[derive(Debug, Default)]
struct Discard {
    sizes: BTreeMap<String, u64>,
    held: Rc<RefCell<Held>>,
}

impl Sink for Discard {
    fn append(&mut self, output: &str, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        let len = match pieces {
            [] => inline.len() as u64,
            pieces => pieces.iter().map(|piece| u64::from(piece.len)).sum(),
        };
        let Some(size) = self.sizes.get_mut(output) else {
            self.sizes.insert(output.into(), len);
            return Ok(0);
        };
        *size += len;
        Ok(*size - len)
    }

    fn size(&self, output: &str) -> u64 {
        self.sizes.get(output).copied().unwrap_or(0)
    }

    fn read_sample(&self, seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
        self.held.borrow().read(seq, offset, len)
    }
}

/// A segment's files: what the component host has for an instance.
#[derive(Debug)]
struct Files {
    segment: Segment,
    outputs: Vec<(String, OutputId)>,
}

impl Files {
    fn output(&self, name: &str) -> Result<OutputId, Error> {
        let found = self.outputs.iter().find(|(output, _)| output == name);
        found.map(|&(_, id)| id).ok_or_else(|| Error::new("bad-call", "no such output"))
    }
}

/// Gathers pieces into the segment, as the component host does.
struct IntoFiles {
    files: Rc<RefCell<Files>>,
    held: Rc<RefCell<Held>>,
}

impl Sink for IntoFiles {
    fn append(&mut self, output: &str, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        let (files, held) = (&mut *self.files.borrow_mut(), self.held.borrow());
        let id = files.output(output)?;
        let is_shared = |piece: &Piece| piece.source == Source::Sample && piece.len >= SHARED;
        let copied = pieces.iter().filter(|piece| !is_shared(piece)).map(|piece| piece.len as usize);
        let mut copies = BytesMut::with_capacity(copied.sum());
        let mut blocks = Vec::new();
        if pieces.is_empty() {
            copies.extend_from_slice(inline);
        }
        for piece in pieces {
            // In range: these formats are ours.
            let range = piece.offset as usize..piece.offset as usize + piece.len as usize;
            match piece.source {
                Source::Sample if is_shared(piece) => {
                    blocks.extend([copies.split().freeze(), held.get(piece.seq)?.slice(range)]);
                }
                Source::Sample => copies.extend_from_slice(&held.get(piece.seq)?[range]),
                Source::Inline => copies.extend_from_slice(&inline[range]),
            }
        }
        blocks.push(copies.freeze());
        files.segment.append(id, blocks).map_err(|error| Error::new("output", error.to_string()))
    }

    fn size(&self, output: &str) -> u64 {
        let files = self.files.borrow();
        files.output(output).map_or(0, |id| files.segment.size(id))
    }

    fn read_sample(&self, seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
        self.held.borrow().read(seq, offset, len)
    }
}

/// A format's writer on one of the sinks.
pub(crate) struct NativeWriter<W> {
    writer: W,
    /// Bytes of each payload that `write` is given, at most.
    copied: usize,
    next_seq: u64,
    held: Rc<RefCell<Held>>,
    files: Option<Rc<RefCell<Files>>>,
}

impl<W: Writer> NativeWriter<W> {
    /// On a sink that only counts.
    pub(crate) fn discarding(begin: &Begin) -> anyhow::Result<Self> {
        let discard = Discard::default();
        let held = discard.held.clone();
        Self::new(mock::open_on(start(begin), discard), held, None)
    }

    /// On the files of a segment. `outputs`: the names that the format creates.
    pub(crate) async fn on_files(
        begin: &Begin,
        mut segment: Segment,
        outputs: &[&str],
    ) -> anyhow::Result<Self> {
        let start_of_journal = journal_start(begin, &segment);
        let mut ids = Vec::new();
        for &name in outputs {
            let role = if name.is_empty() { Role::Main } else { Role::Spool };
            ids.push((name.to_owned(), segment.create(name, role, &start_of_journal)?));
        }
        segment.settled().await?;
        let files = Rc::new(RefCell::new(Files { segment, outputs: ids }));
        let held = Rc::<RefCell<Held>>::default();
        let sink = IntoFiles { files: files.clone(), held: held.clone() };
        Self::new(mock::open_on(start(begin), sink), held, Some(files))
    }

    fn new(
        writer: Result<W, Error>,
        held: Rc<RefCell<Held>>,
        files: Option<Rc<RefCell<Files>>>,
    ) -> anyhow::Result<Self> {
        let copied = W::describe().copied();
        Ok(Self { writer: writer.map_err(failed)?, copied, next_seq: 0, held, files })
    }

    /// Writes a batch.
    #[expect(clippy::await_holding_refcell_ref, reason = "nobody else runs meanwhile on this thread")]
    pub(crate) async fn write(&mut self, batch: &[Sample]) -> anyhow::Result<()> {
        let start = |sample: &Sample| sample.data.len().min(self.copied);
        let mut payloads = Vec::with_capacity(batch.iter().map(start).sum());
        let mut held = self.held.borrow_mut();
        let samples: Vec<sdk::Sample> = batch
            .iter()
            .map(|sample| {
                payloads.extend_from_slice(&sample.data[..start(sample)]);
                held.payloads.push_back(sample.data.clone());
                self.next_seq += 1;
                header(sample, self.next_seq - 1)
            })
            .collect();
        drop(held);
        let needed = self.writer.write(&samples, &payloads).map_err(failed)?;
        self.held.borrow_mut().free_before(needed);
        if let Some(files) = &self.files {
            files.borrow_mut().segment.flush().await?;
        }
        Ok(())
    }
}

/// Opens a segment on the kit's own host, which keeps files in memory, and writes all samples.
pub(crate) fn record<W: Writer>(begin: &Begin, samples: &[Sample]) -> anyhow::Result<Harness<W>> {
    let mut harness = Harness::open(start(begin)).map_err(failed)?;
    for batch in samples.chunks(64) {
        let batch: Vec<_> = batch.iter().map(|sample| (header(sample, 0), &sample.data[..])).collect();
        harness.write(&batch).map_err(failed)?;
    }
    Ok(harness)
}

/// Ends a segment on the kit's own host.
pub(crate) fn finish<W: Writer>(harness: Harness<W>, end: &End) -> anyhow::Result<mock::Files> {
    let tracks = end.tracks.iter().map(|&(track, dts)| sdk::TrackEnd { track, dts }).collect();
    let end = sdk::End { reason: end.reason.into(), tracks, properties: Vec::new() };
    Ok(harness.finish(end).map_err(failed)?.1)
}

fn failed(error: Error) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", error.code, error.message)
}

fn header(sample: &Sample, seq: u64) -> sdk::Sample {
    sdk::Sample {
        seq,
        dts: sample.dts_ms,
        pts: sample.pts_ms,
        duration: 0,
        track: sample.track,
        size: u32::try_from(sample.data.len()).expect("a frame is small"),
        bits: u32::from(sample.key) | u32::from(sample.discontinuity) << 1,
    }
}

fn start(begin: &Begin) -> sdk::Start {
    let track = |track: &reelwright::media::Track| sdk::Track {
        id: track.id,
        kind: track.kind.as_str().into(),
        codec: track.codec.clone(),
        timebase: sdk::Timebase { num: 1, den: 1000 },
        config: track.config.to_vec(),
        properties: Vec::new(),
    };
    sdk::Start {
        segment: begin.segment,
        epoch_us: begin.epoch_us,
        origin_ms: begin.origin_ms,
        head_room: begin.head_room,
        head_align: HEAD_ALIGN,
        tracks: begin.tracks.iter().map(track).collect(),
        options: Vec::new(),
        carry: Vec::new(),
    }
}

/// What a journal begins with; nobody reads this one.
fn journal_start(begin: &Begin, segment: &Segment) -> journal::Start {
    journal::Start {
        file: segment.name().to_owned(),
        segment: begin.segment,
        epoch_us: begin.epoch_us,
        origin_ms: begin.origin_ms,
        head_room: begin.head_room,
        head_align: HEAD_ALIGN,
        ..journal::Start::default()
    }
}
