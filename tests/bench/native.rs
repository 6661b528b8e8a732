//! The formats compiled for this machine, driven as the component host drives components.

use std::{cell::RefCell, collections::BTreeMap, collections::VecDeque, rc::Rc};

use bytes::Bytes;
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

/// A sink that only counts: what is left is the format's own work.
#[derive(Debug, Default)]
pub(crate) struct Discard(BTreeMap<String, u64>);

impl Sink for Discard {
    fn append(&mut self, output: &str, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        let len = match pieces {
            [] => inline.len() as u64,
            pieces => pieces.iter().map(|piece| u64::from(piece.len)).sum(),
        };
        let Some(size) = self.0.get_mut(output) else {
            self.0.insert(output.into(), len);
            return Ok(0);
        };
        *size += len;
        Ok(*size - len)
    }

    fn size(&self, output: &str) -> u64 {
        self.0.get(output).copied().unwrap_or(0)
    }
}

/// A segment's files and the payloads that pieces may name: what the component host has for an instance.
#[derive(Debug)]
struct Files {
    segment: Segment,
    outputs: Vec<(String, OutputId)>,
    held: VecDeque<Bytes>,
    first_held: u64,
}

impl Files {
    fn output(&self, name: &str) -> Result<OutputId, Error> {
        let found = self.outputs.iter().find(|(output, _)| output == name);
        found.map(|&(_, id)| id).ok_or_else(|| Error::new("bad-call", "no such output"))
    }

    /// A piece's bytes, shared.
    fn slice(&self, inline: &Bytes, piece: &Piece) -> Option<Bytes> {
        let source = match piece.source {
            Source::Inline => inline,
            Source::Sample => {
                let place = piece.seq.checked_sub(self.first_held)?;
                self.held.get(usize::try_from(place).ok()?)?
            }
        };
        let start = piece.offset as usize;
        let end = start.checked_add(piece.len as usize)?;
        (end <= source.len()).then(|| source.slice(start..end))
    }
}

/// Gathers pieces into the segment, as the component host does.
struct IntoFiles(Rc<RefCell<Files>>);

impl Sink for IntoFiles {
    fn append(&mut self, output: &str, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        let files = &mut *self.0.borrow_mut();
        let id = files.output(output)?;
        let inline = Bytes::copy_from_slice(inline);
        let bytes: Option<Vec<Bytes>> = match pieces {
            [] => Some(vec![inline]),
            pieces => pieces.iter().map(|piece| files.slice(&inline, piece)).collect(),
        };
        let bytes = bytes.ok_or_else(|| Error::new("bad-call", "a piece out of range"))?;
        files.segment.append(id, bytes).map_err(|error| Error::new("output", error.to_string()))
    }

    fn size(&self, output: &str) -> u64 {
        let files = self.0.borrow();
        files.output(output).map_or(0, |id| files.segment.size(id))
    }
}

/// A format's writer on one of the sinks.
pub(crate) struct NativeWriter<W> {
    writer: W,
    copies_payload: bool,
    next_seq: u64,
    files: Option<Rc<RefCell<Files>>>,
}

impl<W: Writer> NativeWriter<W> {
    /// On a sink that only counts.
    pub(crate) fn discarding(begin: &Begin) -> anyhow::Result<Self> {
        Self::new(mock::open_on(start(begin), Discard::default()), None)
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
        let files = Files { segment, outputs: ids, held: VecDeque::new(), first_held: 0 };
        let files = Rc::new(RefCell::new(files));
        Self::new(mock::open_on(start(begin), IntoFiles(files.clone())), Some(files))
    }

    fn new(writer: Result<W, Error>, files: Option<Rc<RefCell<Files>>>) -> anyhow::Result<Self> {
        let copies_payload = W::describe().needs.iter().any(|need| need == "payload");
        Ok(Self { writer: writer.map_err(failed)?, copies_payload, next_seq: 0, files })
    }

    /// Writes a batch.
    #[expect(clippy::await_holding_refcell_ref, reason = "nobody else runs meanwhile on this thread")]
    pub(crate) async fn write(&mut self, batch: &[Sample]) -> anyhow::Result<()> {
        let mut payloads = Vec::new();
        if self.copies_payload {
            payloads.reserve_exact(batch.iter().map(|sample| sample.data.len()).sum());
        }
        let mut files = self.files.as_ref().map(|files| files.borrow_mut());
        let samples: Vec<sdk::Sample> = batch
            .iter()
            .map(|sample| {
                if self.copies_payload {
                    payloads.extend_from_slice(&sample.data);
                }
                if let Some(files) = &mut files {
                    files.held.push_back(sample.data.clone());
                }
                self.next_seq += 1;
                header(sample, self.next_seq - 1)
            })
            .collect();
        drop(files);
        let needed = self.writer.write(&samples, &payloads).map_err(failed)?;
        if let Some(files) = &self.files {
            let files = &mut *files.borrow_mut();
            while files.first_held < needed {
                files.held.pop_front();
                files.first_held += 1;
            }
            files.segment.flush().await?;
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
