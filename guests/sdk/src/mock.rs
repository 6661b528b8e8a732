//! An in-memory host, for tests of a format on the author's own machine.
//!
//! [`Harness`] drives a [`Writer`] as the server does and checks what the server checks: order of calls,
//! range of pieces, freed samples, one main file. What it wrote is in [`Files`].
//! A host belongs to one thread, so tests run in parallel.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use crate::{End, Error, Piece, Property, Recover, Sample, Source, Start, Summary, Track, Writer};

/// Largest `read` of an output, in bytes; the server's limit.
pub const MAX_READ: u32 = 1 << 20;
const MAX_OUTPUTS: usize = 8;

/// One file of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// `main`, `spool` or `sidecar`.
    pub role: String,
    /// The head in front of a spool; empty unless the writer asked for one.
    pub head: Vec<u8>,
    /// Everything after the head.
    pub body: Vec<u8>,
    /// Whether the writer made it the main file.
    pub promoted: bool,
}

/// The files of a segment, by output name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, File>);

impl Files {
    /// The bytes of the finished file: the main output, or the promoted spool with its head.
    pub fn main(&self) -> Vec<u8> {
        let mut mains = self.0.values().filter(|f| f.role == "main" || f.promoted);
        let main = mains.next().expect("the segment has a main file");
        assert!(mains.next().is_none(), "the segment has one main file");
        [main.head.as_slice(), &main.body].concat()
    }
}

/// Takes what a format appends in place of [`Files`]: to measure a format without the cost of keeping its files,
/// or with that of another place for them.
pub trait Sink {
    /// See `output.append`; `output` is the output's name.
    fn append(&mut self, output: &str, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error>;

    /// See `output.size`.
    fn size(&self, output: &str) -> u64;

    /// See `host.read-sample`.
    fn read_sample(&self, seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error>;
}

#[derive(Default)]
struct Host {
    head_room: u64,
    head_align: u64,
    files: Files,
    held: VecDeque<Vec<u8>>,
    first_held: u64,
    log: Vec<(u8, String)>,
    sink: Option<Box<dyn Sink>>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

fn bad_call(message: impl Into<String>) -> Error {
    Error::new("bad-call", message)
}

/// Stands in for the `output` resource.
#[derive(Debug)]
pub struct Output {
    name: String,
}

impl Output {
    fn with<R>(&self, f: impl FnOnce(&mut Host, &mut File) -> R) -> R {
        HOST.with_borrow_mut(|host| {
            let mut file = host.files.0.remove(&self.name).expect("an output that exists");
            let result = f(host, &mut file);
            host.files.0.insert(self.name.clone(), file);
            result
        })
    }

    /// See `output.append`.
    pub fn append(&self, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        let sunk = HOST
            .with_borrow_mut(|host| host.sink.as_mut().map(|sink| sink.append(&self.name, inline, pieces)));
        if let Some(result) = sunk {
            return result;
        }
        self.with(|host, file| {
            let offset = file.body.len();
            for piece in pieces {
                let source = match piece.source {
                    Source::Inline => Ok(inline),
                    Source::Sample => host.sample(piece.seq),
                };
                let bytes = source.and_then(|bytes| {
                    let end = u64::from(piece.offset) + u64::from(piece.len);
                    bytes
                        .get(piece.offset as usize..end as usize)
                        .ok_or_else(|| bad_call(format!("piece {piece:?} ends beyond its source")))
                });
                match bytes {
                    Ok(bytes) => file.body.extend_from_slice(bytes),
                    Err(error) => {
                        file.body.truncate(offset);
                        return Err(error);
                    }
                }
            }
            if pieces.is_empty() {
                file.body.extend_from_slice(inline);
            }
            Ok(offset as u64)
        })
    }

    /// See `output.patch`.
    pub fn patch(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.with(|_, file| {
            let size = file.body.len();
            usize::try_from(offset)
                .ok()
                .and_then(|start| file.body.get_mut(start..start.checked_add(bytes.len())?))
                .ok_or_else(|| bad_call(format!("patch of {} at {offset} of {size}", bytes.len())))?
                .copy_from_slice(bytes);
            Ok(())
        })
    }

    /// See `output.read`.
    pub fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
        if len > MAX_READ {
            return Err(Error::limit(format!("read of {len} bytes, at most {MAX_READ}")));
        }
        self.with(|_, file| {
            let size = file.body.len() as u64;
            let start = offset.min(size);
            let end = (offset.saturating_add(u64::from(len))).min(size);
            Ok(file.body[start as usize..end as usize].to_vec())
        })
    }

    /// See `output.size`.
    pub fn size(&self) -> u64 {
        let sunk = HOST.with_borrow(|host| host.sink.as_ref().map(|sink| sink.size(&self.name)));
        sunk.unwrap_or_else(|| self.with(|_, file| file.body.len() as u64))
    }

    /// See `output.head`.
    pub fn head(&self, min: u64) -> Result<u64, Error> {
        self.with(|host, file| {
            if file.role != "spool" || !file.head.is_empty() || file.promoted {
                return Err(bad_call("head is for a spool, once, before promote"));
            }
            let head = host.head_room.max(min.next_multiple_of(host.head_align));
            file.head = vec![0; usize::try_from(head).expect("a head that fits in memory")];
            Ok(head)
        })
    }

    /// See `output.write-head`.
    pub fn write_head(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.with(|_, file| {
            let size = file.head.len();
            let start = usize::try_from(offset).expect("a head that fits in memory");
            file.head
                .get_mut(start..start + bytes.len())
                .ok_or_else(|| bad_call(format!("write-head of {} at {offset} of {size}", bytes.len())))?
                .copy_from_slice(bytes);
            Ok(())
        })
    }

    /// See `output.promote`.
    pub fn promote(&self) -> Result<(), Error> {
        self.with(|host, file| {
            let taken = host.files.0.values().any(|f| f.role == "main" || f.promoted);
            if file.role != "spool" || file.promoted || taken {
                return Err(bad_call("promote is for one spool of a segment without a main file"));
            }
            file.promoted = true;
            Ok(())
        })
    }

    /// See `output.close`.
    pub fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl Host {
    fn sample(&self, seq: u64) -> Result<&[u8], Error> {
        seq.checked_sub(self.first_held)
            .and_then(|i| self.held.get(usize::try_from(i).ok()?))
            .map(Vec::as_slice)
            .ok_or_else(|| {
                let end = self.first_held + self.held.len() as u64;
                bad_call(format!("sample {seq} is not held; {} to {end} are", self.first_held))
            })
    }
}

/// See `host.create`.
pub fn create(name: &str, role: &str) -> Result<Output, Error> {
    HOST.with_borrow_mut(|host| {
        let files = &mut host.files.0;
        let plain = name.len() <= 32 && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let named = match role {
            "main" => name.is_empty(),
            "spool" | "sidecar" => plain && !name.is_empty() && name != "info",
            _ => return Err(bad_call(format!("unknown role `{role}`"))),
        };
        if !named {
            return Err(bad_call(format!("`{name}` is no name for an output of role {role}")));
        }
        if files.contains_key(name) {
            return Err(bad_call(format!("output `{name}` exists")));
        }
        if files.len() >= MAX_OUTPUTS {
            return Err(Error::limit(format!("more than {MAX_OUTPUTS} outputs")));
        }
        files.insert(name.into(), File { role: role.into(), ..File::default() });
        Ok(Output { name: name.into() })
    })
}

/// See `host.reopen`.
pub fn reopen(name: &str) -> Result<Output, Error> {
    HOST.with_borrow(|host| match host.files.0.contains_key(name) {
        true => Ok(Output { name: name.into() }),
        false => Err(bad_call(format!("there is no output `{name}`"))),
    })
}

/// See `host.replace`; this host keeps no files of a run.
pub fn replace(_name: &str, _bytes: &[u8]) -> Result<(), Error> {
    Err(Error::unsupported("the mock host keeps no files of a run"))
}

/// See `host.read-sample`.
pub fn read_sample(seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
    HOST.with_borrow(|host| {
        if let Some(sink) = &host.sink {
            return sink.read_sample(seq, offset, len);
        }
        let payload = host.sample(seq)?;
        let start = payload.len().min(offset as usize);
        let end = payload.len().min(start + len as usize);
        Ok(payload[start..end].to_vec())
    })
}

/// See `host.log`; [`Harness::log`] gives the lines.
pub fn log(level: u8, message: &str) {
    HOST.with_borrow_mut(|host| host.log.push((level, message.into())));
}

/// Drives one segment of a format.
#[derive(Debug)]
pub struct Harness<W> {
    writer: W,
    /// Bytes of each payload that `write` is given, at most.
    copied: usize,
    next_seq: u64,
}

impl<W: Writer> Harness<W> {
    /// Opens a segment. Options that `start` does not give get the manifest's defaults.
    pub fn open(start: Start) -> Result<Self, Error> {
        let writer = open(start, None)?;
        Ok(Self { writer, copied: W::describe().copied(), next_seq: 0 })
    }

    /// Writes one batch. Sequence numbers and sizes are filled in.
    pub fn write(&mut self, batch: &[(Sample, &[u8])]) -> Result<(), Error> {
        let mut payloads = Vec::new();
        let samples: Vec<Sample> = batch
            .iter()
            .map(|&(sample, payload)| {
                let size = u32::try_from(payload.len()).expect("a payload below 4 GiB");
                let seq = self.next_seq;
                self.next_seq += 1;
                payloads.extend_from_slice(&payload[..payload.len().min(self.copied)]);
                HOST.with_borrow_mut(|host| host.held.push_back(payload.to_vec()));
                Sample { seq, size, ..sample }
            })
            .collect();
        let needed = self.writer.write(&samples, &payloads)?;
        HOST.with_borrow_mut(|host| {
            assert!(
                (host.first_held..=self.next_seq).contains(&needed),
                "write returned {needed}, legal is {} to {}",
                host.first_held,
                self.next_seq
            );
            host.held.drain(..(needed - host.first_held) as usize);
            host.first_held = needed;
        });
        Ok(())
    }

    /// Announces tracks.
    pub fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        self.writer.update_tracks(tracks)
    }

    /// Ends the segment and gives what was written, without the spools.
    pub fn finish(self, end: End) -> Result<(Summary, Files), Error> {
        let summary = self.writer.finish(end)?;
        let mut files = HOST.take().files;
        files.0.retain(|_, f| f.role != "spool" || f.promoted);
        Ok((summary, files))
    }

    /// Drops the writer, as a trap does, and gives the files as they are.
    pub fn abandon(self) -> Files {
        HOST.take().files
    }

    /// The lines that the format logged so far.
    pub fn log(&self) -> Vec<(u8, String)> {
        HOST.with_borrow(|host| host.log.clone())
    }
}

/// Opens a segment whose appends go to `sink`, one a thread. There is no harness then: the caller gives the writer
/// its samples, and the sink knows their payloads. Outputs can't be read back, so not every format can be finished.
pub fn open_on<W: Writer>(start: Start, sink: impl Sink + 'static) -> Result<W, Error> {
    open(start, Some(Box::new(sink)))
}

/// Opens a segment on a new host. Options that `start` does not give get the manifest's defaults.
fn open<W: Writer>(mut start: Start, sink: Option<Box<dyn Sink>>) -> Result<W, Error> {
    for option in W::describe().options {
        if start.option(&option.key).is_none() {
            start.options.push(Property { key: option.key, value: option.default_value });
        }
    }
    let (head_room, head_align) = (start.head_room, u64::from(start.head_align));
    HOST.set(Host { head_room, head_align, sink, ..Host::default() });
    W::open(start)
}

/// Finishes a segment from its files, as the server does after a crash.
pub fn recover<W: Recover>(start: Start, files: Files) -> Result<(Summary, Files), Error> {
    let names = files.0.keys().cloned().collect();
    HOST.set(Host {
        head_room: start.head_room,
        head_align: u64::from(start.head_align),
        files,
        ..Host::default()
    });
    let summary = W::recover(start, names)?;
    let mut files = HOST.take().files;
    files.0.retain(|_, f| f.role != "spool" || f.promoted);
    Ok((summary, files))
}
