//! The files of one segment, from creation to the final name.
//!
//! Appends gather in memory and go to the disk in one piece with [`Segment::flush`], which the writer's
//! driver calls after each batch. All work of a segment is done in order, so a journal record follows the media that it
//! counts, and nothing is written before the journal durably knows of the files. Nobody waits for that: what is
//! appended meanwhile waits in the segment's line. A failure shows in the next call, and stays.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use rustix::io::Errno;

use super::{
    Disk,
    claim::Claim,
    durable::{Durable, ROOM_TO_CLOSE, Write},
    headroom,
    journal::{self, Journal, Record},
    line::Line,
    orphan::Orphan,
    path::{Folder, PathError, describe},
    storage::Directory,
    waiting::Waiting,
};

/// The journal's name as an output.
pub(super) const JOURNAL: &str = "info";
/// What the name of a main file that is to replace another gets until its format has opened.
pub(super) const NEW: &str = ".new";
/// Bytes that wait for a flush at most when they are held back.
const MAX_HOLD: usize = 32 << 20;
/// What makes a name taken: the journal, and spools that have lost theirs, those of earlier versions among them.
pub(super) const SPOOLS: [&str; 5] = [JOURNAL, "mdat", "index", "track1", "track2"];

/// What the disk said no to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}: {}", describe(*.errno))]
pub struct OutputError {
    pub path: PathBuf,
    /// What was being done.
    pub what: &'static str,
    pub errno: Errno,
}

/// What an output is for; see `host.create` in the WIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Main,
    Spool,
    Sidecar,
}

impl Role {
    /// The name the contract uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Main => "main",
            Role::Spool => "spool",
            Role::Sidecar => "sidecar",
        }
    }

    /// The role of a name.
    pub fn parse(name: &str) -> Option<Self> {
        [Role::Main, Role::Spool, Role::Sidecar].into_iter().find(|role| role.as_str() == name)
    }
}

/// An output of a [`Segment`], by its number.
pub type OutputId = usize;

/// A segment's files.
#[derive(Debug)]
pub struct Segment {
    pub(super) folder: Arc<Folder>,
    /// The final file name.
    pub(super) name: String,
    /// Whether a finished file of that name is to be replaced.
    pub(super) replaces: bool,
    /// The main file has its final name. One that replaces another has a name of its own until samples of it are
    /// durable.
    pub(super) named: bool,
    /// The format has opened.
    pub(super) begun: bool,
    pub(super) claim: Arc<Claim>,
    pub(super) line: Line,
    pub(super) waiting: Waiting,
    /// Milliseconds between sync points; 0: files are not synced before they are closed.
    pub(super) sync_ms: u64,
    pub(super) outputs: Vec<Output>,
    pub(super) durable: Arc<Durable>,
    /// The journal was begun, or is in the line.
    pub(super) journal: bool,
    /// Outputs of which the journal durably knows, or will before the next write: the first so many.
    pub(super) recorded: usize,
    /// Samples that are in the outputs, and the latest DTS among them.
    pub(super) samples: u64,
    pub(super) last_ms: i64,
    /// Samples that the last commit counts.
    pub(super) committed: u64,
    /// Nothing is committed before so many samples are.
    pub(super) hold: u64,
}

/// How far a segment is whole: where it can be cut back to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Samples that are in the outputs, by what their writer says.
    pub samples: u64,
    /// Bytes of the outputs.
    pub sizes: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) role: Role,
    /// Bytes in front of what the writer counts from.
    pub(super) head: u64,
    /// Bytes appended, pending ones included.
    pub(super) size: u64,
    pub(super) pending: Vec<Bytes>,
    pub(super) pending_bytes: usize,
    pub(super) promoted: bool,
    /// Bytes that are durable when what is in the line has been done.
    pub(super) safe: u64,
}

impl Output {
    pub(super) fn new(name: &str, role: Role, head: u64, size: u64) -> Self {
        let (pending, pending_bytes, promoted, safe) = (Vec::new(), 0, false, 0);
        Self { name: name.into(), role, head, size, pending, pending_bytes, promoted, safe }
    }
}

/// A segment that is complete and on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub path: PathBuf,
    pub bytes: u64,
}

impl Segment {
    /// Claims the first name of `names` that is free: no segment has it, and neither it nor a spool of it is there.
    /// With `replace_first` a finished file does not count for the first name.
    pub async fn claim(
        disk: &Disk,
        folder: &Arc<Folder>,
        names: impl Iterator<Item = String>,
        replace_first: bool,
    ) -> Result<Self, PathError> {
        let volume = disk
            .volumes
            .get(folder.id.0)
            .map_err(|_| PathError::Folder { path: folder.path.clone(), errno: Errno::AGAIN })?;
        let mut first = None;
        for (i, name) in names.enumerate() {
            first.get_or_insert_with(|| name.clone());
            // What is taken is not even claimed, as its owner or who repairs it may want to do that.
            let is_free = async || {
                let (its_folder, its_name) = (folder.clone(), name.clone());
                let found = volume.run_read(move || look(&its_folder, &its_name)).await;
                let (file, spool) =
                    found.map_err(|errno| PathError::Folder { path: folder.path.clone(), errno })?;
                let replaces = file && replace_first && i == 0;
                Ok((!spool && (!file || replaces)).then_some(replaces))
            };
            if is_free().await?.is_none() {
                continue;
            }
            let Some(claim) = disk.claims.claim(folder, &name) else { continue };
            let Some(replaces) = is_free().await? else { continue };
            return Ok(Self {
                folder: folder.clone(),
                replaces,
                named: !replaces,
                begun: false,
                claim,
                line: Line::new(volume),
                waiting: Waiting::default(),
                sync_ms: disk.volumes.sync_interval().map_or(0, |i| i.as_millis() as u64),
                outputs: Vec::new(),
                durable: Arc::new(Durable::new(folder.clone(), &name)),
                journal: false,
                recorded: 0,
                samples: 0,
                last_ms: 0,
                committed: 0,
                hold: 0,
                name,
            });
        }
        Err(PathError::NoFreeName { path: folder.path.join(first.unwrap_or_default()) })
    }

    /// The name that [`Segment::claim`] would take now, without taking it. Blocks.
    pub fn free_name(
        disk: &Disk,
        folder: &Folder,
        names: impl Iterator<Item = String>,
        replace_first: bool,
    ) -> Result<String, PathError> {
        let mut first = None;
        for (i, name) in names.enumerate() {
            first.get_or_insert_with(|| name.clone());
            let found = look(folder, &name);
            let (file, spool) =
                found.map_err(|errno| PathError::Folder { path: folder.path.clone(), errno })?;
            let replaces = replace_first && i == 0;
            if !spool && (!file || replaces) && !disk.claims.is_claimed(folder, &name) {
                return Ok(name);
            }
        }
        Err(PathError::NoFreeName { path: folder.path.join(first.unwrap_or_default()) })
    }

    /// The final path.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// The final file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Milliseconds between sync points; 0: there are none.
    pub fn sync_ms(&self) -> u64 {
        self.sync_ms
    }

    /// Number of outputs created.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|o| o.name.clone()).collect()
    }

    /// The role of an output.
    pub fn role(&self, id: OutputId) -> Role {
        self.outputs[id].role
    }

    /// The output of that name.
    pub fn find(&self, name: &str) -> Option<OutputId> {
        self.outputs.iter().position(|o| o.name == name)
    }

    /// Whether there is a main file, or a spool that will be it.
    pub fn has_main(&self) -> bool {
        self.main_size().is_some()
    }

    /// Bytes of what is, or will be, the main file.
    pub fn main_size(&self) -> Option<u64> {
        self.main().map(|id| self.outputs[id].size)
    }

    /// The output that is, or will be, the main file.
    pub(super) fn main(&self) -> Option<OutputId> {
        self.outputs.iter().position(|o| o.role == Role::Main || o.promoted)
    }

    /// Bytes appended to an output.
    pub fn size(&self, id: OutputId) -> u64 {
        self.outputs[id].size
    }

    /// Bytes appended to all outputs.
    pub fn total_size(&self) -> u64 {
        self.outputs.iter().map(|o| o.size).sum()
    }

    /// Says how many samples are in what was appended, and the latest DTS among them in milliseconds: the next
    /// commit has it.
    pub fn contains(&mut self, samples: u64, last_ms: i64) {
        (self.samples, self.last_ms) = (samples, last_ms);
    }

    /// Where the segment is. It can be cut back to that once it was flushed, if what was appended is what was said by
    /// [`Segment::contains`].
    pub fn point(&self) -> Point {
        Point { samples: self.samples, sizes: self.outputs.iter().map(|o| o.size).collect() }
    }

    /// Commits nothing before so many samples are in it, so that a crash leaves all of them or none.
    pub fn hold(&mut self, samples: u64) {
        self.hold = samples;
    }

    /// Has the file of an output created: the final name, or that, a dot and `name`. The journal is begun with the first
    /// one, from `start`, and durable before it. A spool gets a hole of `start.head_room` in front. Does not wait for any
    /// of that; see [`Segment::settled`].
    pub fn create(
        &mut self,
        name: &str,
        role: Role,
        start: &journal::Start,
    ) -> Result<OutputId, OutputError> {
        self.check()?;
        if !self.journal {
            self.begin_journal(start);
        }
        let replaces = role == Role::Main && !self.named;
        let (folder, file_name) = (self.folder.clone(), self.file_name(name));
        let (durable, its_name, claim) = (self.durable.clone(), name.to_owned(), self.claim.clone());
        // Quick as it is, it can wait for a sync of the folder.
        self.line.then_slow(move || {
            // The name is not free before that, whatever becomes of the segment.
            let _claim = claim;
            if durable.failed() {
                return;
            }
            let create = || {
                if replaces {
                    // Left over from a start that was cut off.
                    folder.dir.remove(&file_name)?;
                }
                let file = folder.dir.create(&file_name)?;
                let inode = file.inode()?;
                let record = journal::Output { name: its_name.clone(), role: role.as_str().into(), inode };
                durable.add(Record::Output(record), &its_name, file).inspect_err(|_| {
                    let _ = folder.dir.remove(&file_name);
                })
            };
            if let Err(errno) = create() {
                durable.fail(&its_name, "create", errno);
            }
        });
        let head = if role == Role::Spool { start.head_room } else { 0 };
        self.outputs.push(Output::new(name, role, head, 0));
        Ok(self.outputs.len() - 1)
    }

    fn begin_journal(&mut self, start: &journal::Start) {
        let start = journal::Start { replaces: self.replaces, ..start.clone() };
        let (folder, name, durable) = (self.folder.clone(), self.file_name(JOURNAL), self.durable.clone());
        let (syncs, volume) = (self.sync_ms > 0, self.line.volume().clone());
        self.line.then_slow(move || match begin_journal(&*folder.dir, &name, &start, syncs) {
            Ok(journal) => {
                durable.begin(journal);
                volume.sync_at_intervals(&durable);
            }
            Err(errno) => drop(durable.fail(JOURNAL, "create", errno)),
        });
        self.journal = true;
    }

    /// The format has opened. From here on a main file that replaces another takes its place, once it is worth more.
    pub async fn begun(&mut self) -> Result<(), OutputError> {
        self.begun = true;
        self.record_outputs();
        self.flush().await
    }

    /// Waits until what was handed to the disk so far has been done: files are created, what was flushed is written.
    pub fn settled(&self) -> impl Future<Output = Result<(), OutputError>> + Send + use<> {
        let durable = self.durable.clone();
        self.line.look(move || durable.check())
    }

    /// Appends bytes and returns where they start. They wait in memory for [`Segment::flush`].
    pub fn append(
        &mut self,
        id: OutputId,
        pieces: impl IntoIterator<Item = Bytes>,
    ) -> Result<u64, OutputError> {
        self.check()?;
        let output = &mut self.outputs[id];
        let offset = output.size;
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            output.size += piece.len() as u64;
            output.pending_bytes += piece.len();
            output.pending.push(piece);
        }
        Ok(offset)
    }

    /// Memory that waits for a flush: bytes, and what each piece costs.
    pub fn pending_cost(&self) -> usize {
        self.outputs.iter().map(|o| o.pending_bytes + o.pending.len() * size_of::<Bytes>()).sum()
    }

    /// Hands what was appended to the disk, with a commit. Waits while the volume's queue is full, not for the disk.
    pub async fn flush(&mut self) -> Result<(), OutputError> {
        self.check()?;
        if self.samples < self.hold && self.pending_cost() < MAX_HOLD {
            return Ok(());
        }
        self.flush_all().await
    }

    async fn flush_all(&mut self) -> Result<(), OutputError> {
        let cost = self.pending_cost();
        // What was flushed in the middle of a call was not counted then.
        if cost == 0 && self.samples == self.committed {
            return Ok(());
        }
        self.committed = self.samples;
        self.record_outputs();
        let mut writes = Vec::new();
        for (id, output) in self.outputs.iter_mut().enumerate().filter(|(_, o)| !o.pending.is_empty()) {
            let at = output.head + output.size - output.pending_bytes as u64;
            output.pending_bytes = 0;
            let pieces = std::mem::take(&mut output.pending);
            writes.push(Write { output: id, pieces, at, size: output.size });
        }
        let (durable, samples, last_ms) = (self.durable.clone(), self.samples, self.last_ms);
        let writes = Arc::new(writes);
        self.waiting.push(&writes);
        self.line.queue(cost, move || durable.write(&writes, samples, last_ms)).await;
        let has_main = || self.outputs.iter().any(|o| o.role == Role::Main);
        if self.begun && !self.named && samples > 0 && has_main() {
            self.replace().await?;
        }
        Ok(())
    }

    /// Has the journal made durable if there are outputs that it does not know of: repair has to find whatever has
    /// anything in it.
    fn record_outputs(&mut self) {
        if self.sync_ms > 0 && self.recorded < self.outputs.len() {
            let durable = self.durable.clone();
            self.line.then_slow(move || {
                // After an error it is not written to any more.
                let _ = durable.check().and_then(|()| durable.sync_journal());
            });
            self.recorded = self.outputs.len();
        }
    }

    /// Makes what was written durable, and puts the main file in the place of the one that it replaces.
    async fn replace(&mut self) -> Result<(), OutputError> {
        let (folder, from, to) = (self.folder.clone(), self.file_name(""), self.name.clone());
        let durable = self.durable.clone();
        let replace = move || {
            durable.sync()?;
            let replaced = folder.dir.rename(&from, &to, true).and_then(|()| folder.dir.sync());
            replaced.map_err(|errno| durable.fail("", "replace", errno))
        };
        self.line.run_slow(replace).await?;
        self.named = true;
        Ok(())
    }

    /// A sync point: what was appended so far survives a power cut when this returns.
    pub async fn sync(&mut self) -> Result<(), OutputError> {
        self.flush().await?;
        let durable = self.durable.clone();
        self.line.run_slow(move || durable.sync()).await
    }

    /// Overwrites bytes that were appended before. The range has been checked. The checksums of commits do not
    /// hold for bytes that changed, so these are made durable first.
    pub async fn patch(&mut self, id: OutputId, offset: u64, bytes: Vec<u8>) -> Result<(), OutputError> {
        self.check()?;
        self.flush_all().await?;
        let end = offset + bytes.len() as u64;
        if self.outputs[id].safe < end && self.durable.synced(id) < end {
            // One sync after the other is what the disk takes.
            if self.waiting.is_syncing() {
                self.line.done().await;
            }
            self.outputs.iter_mut().for_each(|output| output.safe = output.size);
            let (durable, waits) = (self.durable.clone(), self.waiting.sync());
            self.line.then_slow(move || {
                let _waits = waits;
                let _ = durable.sync();
            });
        }
        let at = self.outputs[id].head + offset;
        self.overwrite(id, "patch", bytes, at).await;
        Ok(())
    }

    /// Reads back up to `len` bytes. What waits for the disk is read from memory: a cut does not wait for that.
    pub async fn read(&mut self, id: OutputId, offset: u64, len: u32) -> Result<Vec<u8>, OutputError> {
        self.check()?;
        self.flush_all().await?;
        let output = &self.outputs[id];
        let len = output.size.saturating_sub(offset).min(u64::from(len));
        if len == 0 {
            return Ok(Vec::new());
        }
        // Memory does not have what was overwritten.
        if self.waiting.is_overwriting() {
            self.line.done().await;
        }
        let (from, to) = (output.head + offset, output.head + offset + len);
        let (begins, tail) = self.waiting.tail(id, from..to);
        let mut bytes = self.read_written(id, from, begins - from).await?;
        tail.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Ok(bytes)
    }

    /// Reads bytes of a file, which have been written.
    async fn read_written(&self, id: OutputId, at: u64, len: u64) -> Result<Vec<u8>, OutputError> {
        let mut bytes = vec![0; usize::try_from(len).expect("at most 4 GiB")];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        // After an error it may never have been.
        self.check()?;
        let durable = self.durable.clone();
        let file = durable.file(id);
        // Mostly it is in memory still.
        if file.read_cached(&mut bytes, at) == Ok(bytes.len()) {
            return Ok(bytes);
        }
        let read = move || {
            durable.check()?;
            let result = file.read_at(&mut bytes, at);
            match result.and_then(|read| if read == bytes.len() { Ok(()) } else { Err(Errno::IO) }) {
                Ok(()) => Ok(bytes),
                Err(errno) => Err(durable.fail_output(id, "read", errno)),
            }
        };
        // Not between the writes of others.
        self.line.volume().run_read(read).await
    }

    /// Makes the head of a spool `head` bytes long.
    pub async fn resize_head(&mut self, id: OutputId, head: u64) -> Result<(), OutputError> {
        self.check()?;
        let output = &self.outputs[id];
        if output.head == head {
            return Ok(());
        }
        let (folder, name, from) = (self.folder.clone(), self.file_name(&output.name), output.head);
        // Whatever moves has to be on the disk, and the journal has to say from where to where.
        self.sync().await?;
        let durable = self.durable.clone();
        let resize = move || {
            let (file, fail) =
                (durable.file(id), |errno| durable.fail_output(id, "make room in front", errno));
            let size = file.size().map_err(fail)?;
            durable.record(&Record::Resize(journal::Resize { output: id, from, to: head, size }))?;
            let file = headroom::resize(&*folder.dir, &name, &file, from, head).map_err(fail)?;
            let synced = file.sync().and_then(|()| file.inode()).and_then(|inode| {
                // A copy has taken the name over.
                folder.dir.sync().map(|()| inode)
            });
            let inode = synced.map_err(fail)?;
            durable.replace(id, file);
            durable.record(&Record::Resized(journal::Resized { output: id, head, inode }))
        };
        self.line.volume().run_long(resize).await?;
        self.outputs[id].head = head;
        Ok(())
    }

    /// Bytes in front of an output.
    pub fn head(&self, id: OutputId) -> u64 {
        self.outputs[id].head
    }

    /// Writes into the head. The range has been checked.
    pub async fn write_head(&mut self, id: OutputId, offset: u64, bytes: Vec<u8>) -> Result<(), OutputError> {
        self.check()?;
        self.overwrite(id, "write the head", bytes, offset).await;
        Ok(())
    }

    /// The segment is about to be closed: gives back the room that was kept for that.
    pub async fn begin_to_close(&mut self) -> Result<(), OutputError> {
        self.hold = 0;
        self.flush().await?;
        let durable = self.durable.clone();
        self.line.then(move || durable.release());
        Ok(())
    }

    /// Says that a spool becomes the main file.
    pub fn promote(&mut self, id: OutputId) {
        self.outputs[id].promoted = true;
    }

    /// Makes the segment complete and removes what is left beside it: [`Segment::close`], then [`Closed::clear_up`].
    pub async fn finish(self) -> Result<Finished, (OutputError, Orphan)> {
        self.close(Vec::new()).await?.clear_up().await
    }

    /// Makes the segment complete: syncs the files that stay, gives a promoted spool the final name, syncs the folder.
    /// The journal goes on to tell of it, with `summary` (JSON, or nothing), until it is cleared up. On an error
    /// everything is left as it is.
    pub async fn close(mut self, summary: Vec<u8>) -> Result<Closed, (OutputError, Orphan)> {
        match self.try_close(summary).await {
            Ok((file, spools)) => Ok(Closed { segment: self, file, spools }),
            Err(error) => Err((error, self.abandon().await)),
        }
    }

    async fn try_close(&mut self, summary: Vec<u8>) -> Result<(Finished, Vec<String>), OutputError> {
        self.settle().await?;
        let Some(main) = self.main().map(|id| &self.outputs[id]) else {
            return Err(self.fail("", "finish: the format left no main file", Errno::NOENT));
        };
        let bytes = self.file_bytes();
        let from = (main.promoted || !self.named).then(|| self.file_name(&main.name));
        let stays = |o: &Output| o.role != Role::Spool || o.promoted;
        let stay = self.outputs.iter().enumerate().filter(|(_, output)| stays(output));
        let sync: Vec<OutputId> = stay.map(|(id, _)| id).collect();
        let spools: Vec<_> =
            self.outputs.iter().filter(|output| !stays(output)).map(|o| self.file_name(&o.name)).collect();
        let sidecars = self.outputs.iter().any(|o| o.role == Role::Sidecar);
        let (folder, name, replaces) = (self.folder.clone(), self.name.clone(), self.replaces);
        let durable = self.durable.clone();
        let work = move || {
            let fail = |errno| durable.fail("", "finish", errno);
            if !summary.is_empty() {
                durable.append(&Record::Summary(summary))?;
            }
            sync.iter().try_for_each(|id| durable.file(*id).sync()).map_err(fail)?;
            if let Some(from) = from {
                if sidecars {
                    // They are there before the file that they belong to.
                    folder.dir.sync().map_err(fail)?;
                }
                folder.dir.rename(&from, &name, replaces).map_err(fail)?;
            }
            folder.dir.sync().map_err(fail)?;
            durable.record(&Record::Closed)
        };
        self.line.run_slow(work).await?;
        Ok((Finished { path: self.path(), bytes }, spools))
    }

    /// Bytes of the file that is, or will be, the main one, with its head.
    pub fn file_bytes(&self) -> u64 {
        self.main().map_or(0, |id| self.outputs[id].head + self.outputs[id].size)
    }

    /// Gives the segment up as far as it got: what was appended is handed to the disk, as far as that works, and
    /// the files wait to be repaired. The name stays claimed as long as the result lives.
    pub async fn abandon(mut self) -> Orphan {
        if self.samples < self.hold {
            self.drop_pending();
        }
        let _ = self.settle().await;
        // Nobody writes any more, not even a sync that has begun.
        let durable = self.durable.clone();
        let journal = self.line.run_slow(move || durable.close()).await;
        Orphan::new(self.folder, self.name, self.claim, self.line.volume().clone(), journal)
    }

    /// Gives the segment up, to be cut back to a point that was flushed. What waits for a flush is dropped.
    pub async fn abandon_at(mut self, point: &Point) -> Orphan {
        self.drop_pending();
        self.abandon().await.with_end(point)
    }

    /// Forgets what was not flushed.
    fn drop_pending(&mut self) {
        for output in &mut self.outputs {
            output.size -= output.pending_bytes as u64;
            output.pending_bytes = 0;
            output.pending.clear();
        }
        self.samples = self.committed;
    }

    /// Removes what was created: the segment never began.
    pub async fn discard(mut self) {
        if !self.journal {
            return;
        }
        let _ = self.settle().await;
        let (folder, journal, durable) = (self.folder.clone(), self.file_name(JOURNAL), self.durable.clone());
        let names: Vec<_> = self.outputs.iter().map(|o| self.file_name(&o.name)).collect();
        let remove = move || {
            // What could not be created may be somebody else's.
            let created = &names[..durable.outputs()];
            if durable.close().is_some() {
                let _ = clear_up(&*folder.dir, created, &journal);
            }
        };
        self.line.run_slow(remove).await;
    }

    pub(super) fn file_name(&self, output: &str) -> String {
        match output {
            "" if !self.named => format!("{}{NEW}", self.name),
            output => file_name(&self.name, output),
        }
    }

    async fn overwrite(&self, id: OutputId, what: &'static str, bytes: Vec<u8>, at: u64) {
        let (durable, waits) = (self.durable.clone(), self.waiting.overwrite());
        let cost = bytes.len();
        let work = move || {
            let _waits = waits;
            durable.overwrite(id, what, bytes, at);
        };
        self.line.queue(cost, work).await;
    }

    /// Flushes, and waits until everything was done.
    async fn settle(&mut self) -> Result<(), OutputError> {
        let flushed = self.flush().await;
        self.settled().await?;
        flushed
    }

    /// The first error of the disk, if there was one: nothing is written any more.
    pub fn check(&self) -> Result<(), OutputError> {
        self.durable.check()
    }

    fn fail(&self, output: &str, what: &'static str, errno: Errno) -> OutputError {
        self.durable.fail(output, what, errno)
    }
}

/// A segment whose file is complete, and durable under its final name. Its journal is still there, so that a crash
/// before [`Closed::clear_up`] makes repair find it and tell of it again.
#[derive(Debug)]
pub struct Closed {
    segment: Segment,
    file: Finished,
    spools: Vec<String>,
}

impl Closed {
    /// The file.
    pub fn file(&self) -> &Finished {
        &self.file
    }

    /// Removes the other spools and, last, the journal.
    pub async fn clear_up(self) -> Result<Finished, (OutputError, Orphan)> {
        let Self { segment, file, spools } = self;
        if !segment.journal {
            return Ok(file);
        }
        let (folder, journal, durable) =
            (segment.folder.clone(), segment.file_name(JOURNAL), segment.durable.clone());
        let work = move || {
            let cleared = clear_up(&*folder.dir, &spools, &journal);
            cleared.map_err(|errno| durable.fail("", "clear up", errno))
        };
        match segment.line.run_slow(work).await {
            Ok(()) => Ok(file),
            Err(error) => Err((error, segment.abandon().await)),
        }
    }
}

/// The file of an output of the segment with that final name.
pub(super) fn file_name(name: &str, output: &str) -> String {
    if output.is_empty() { name.to_owned() } else { format!("{name}.{output}") }
}

/// Begins a journal that is locked, and durable before anything else of its segment is there.
fn begin_journal(
    folder: &dyn Directory,
    name: &str,
    start: &journal::Start,
    syncs: bool,
) -> Result<Journal, Errno> {
    let file = folder.create(name)?;
    let begin = || {
        if !file.lock()? {
            // Another server looks for what it can repair, just now.
            return Err(Errno::BUSY);
        }
        let mut journal = Journal::begin(file.clone(), start)?;
        journal.reserve(ROOM_TO_CLOSE + start.head_room)?;
        if syncs {
            file.sync()?;
            folder.sync()?;
        }
        Ok(journal)
    };
    begin().inspect_err(|&errno| {
        // Who has it locked removes it.
        if errno != Errno::BUSY {
            let _ = folder.remove(name);
        }
    })
}

/// Removes the spools, and the journal when they are gone for good: a spool never is without its journal.
pub(super) fn clear_up(folder: &dyn Directory, spools: &[String], journal: &str) -> Result<(), Errno> {
    spools.iter().try_for_each(|name| folder.remove(name))?;
    if !spools.is_empty() {
        folder.sync()?;
    }
    folder.remove(journal)
}

/// Whether a file of that name is there, and whether a spool of it is.
fn look(folder: &Folder, name: &str) -> Result<(bool, bool), Errno> {
    let mut spool = false;
    for suffix in SPOOLS {
        spool |= folder.dir.exists(&format!("{name}.{suffix}"))?;
    }
    Ok((folder.dir.exists(name)?, spool))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::output::fixture::Media;

    impl Media {
        async fn claim(&self, replace_first: bool) -> Result<Segment, PathError> {
            let names = ["x.flv".to_owned(), "x_0001.flv".into(), "x_0002.flv".into()];
            Segment::claim(&self.disk, &self.folder, names.into_iter(), replace_first).await
        }

        fn put(&self, name: &str) {
            std::fs::write(self.dir.path().join(name), "old").unwrap();
        }
    }

    fn start(head_room: u64) -> journal::Start {
        journal::Start {
            format: "test".into(),
            file: "x.flv".into(),
            head_room,
            head_align: 4096,
            ..journal::Start::default()
        }
    }

    #[tokio::test]
    async fn a_main_file_grows_is_patched_and_read_back() {
        let s = Media::new();
        let mut segment = s.claim(false).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).unwrap();
        assert_eq!(segment.append(main, ["head".into(), "er".into()]).unwrap(), 0);
        segment.flush().await.unwrap();
        assert_eq!(segment.append(main, ["body".into()]).unwrap(), 6);
        segment.patch(main, 1, b"EA".to_vec()).await.unwrap();
        assert_eq!(segment.read(main, 0, 100).await.unwrap(), b"hEAderbody");
        assert_eq!(segment.read(main, 8, 1).await.unwrap(), b"d");
        assert_eq!(segment.read(main, u64::MAX, 1).await.unwrap(), b"");
        let finished = segment.finish().await.unwrap();
        assert_eq!(finished.bytes, 10);
        assert_eq!(s.files(), ["x.flv"]);
        assert_eq!(s.read("x.flv"), b"hEAderbody");
    }

    #[tokio::test]
    async fn a_spool_is_promoted_and_the_others_go() {
        let s = Media::new();
        let mut segment = s.claim(false).await.unwrap();
        let start = start(4096);
        let mdat = segment.create("mdat", Role::Spool, &start).unwrap();
        let track = segment.create("track1", Role::Spool, &start).unwrap();
        segment.append(mdat, ["media".into()]).unwrap();
        segment.append(track, ["index".into()]).unwrap();
        segment.flush().await.unwrap();
        assert_eq!(segment.read(track, 0, 5).await.unwrap(), b"index");
        segment.settled().await.unwrap();
        assert_eq!(s.files(), ["x.flv.info", "x.flv.mdat", "x.flv.track1"]);
        let mut journal = journal::Reader::open(s.folder.dir.open("x.flv.info").unwrap()).unwrap().unwrap();
        let records: Vec<_> = std::iter::from_fn(|| journal.record().unwrap()).collect();
        assert!(matches!(&records[0], Record::Start(s) if **s == start));
        let Some(Record::Commit(commit)) = records.last() else { panic!("{records:?}") };
        assert_eq!(commit.outputs, [(5, crc32fast::hash(b"media")), (5, crc32fast::hash(b"index"))]);

        segment.resize_head(mdat, 8192).await.unwrap();
        segment.write_head(mdat, 8190, b"ov".to_vec()).await.unwrap();
        segment.promote(mdat);
        segment.finish().await.unwrap();
        assert_eq!(s.files(), ["x.flv"]);
        let file = s.read("x.flv");
        assert_eq!((file.len(), &file[8190..]), (8197, &b"ovmedia"[..]));
    }

    #[tokio::test]
    async fn what_waits_for_the_disk_is_read_from_memory() {
        let s = Media::new();
        let mut segment = s.claim(false).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).unwrap();
        segment.append(main, ["abc".into()]).unwrap();
        segment.flush().await.unwrap();
        segment.settled().await.unwrap();
        let (go, waits) = std::sync::mpsc::channel::<()>();
        segment.line.then_slow(move || waits.recv().unwrap());
        let other = segment.create("other", Role::Sidecar, &start(0)).unwrap();
        segment.append(main, ["de".into(), "f".into()]).unwrap();
        segment.append(other, ["other".into()]).unwrap();
        segment.flush().await.unwrap();
        segment.append(main, ["ghi".into()]).unwrap();
        for (offset, len, bytes) in
            [(0, 100, "abcdefghi"), (1, 3, "bcd"), (4, 1, "e"), (5, 3, "fgh"), (0, 2, "ab")]
        {
            assert_eq!(segment.read(main, offset, len).await.unwrap(), bytes.as_bytes(), "{len} at {offset}");
        }
        assert_eq!(segment.read(other, 1, 3).await.unwrap(), b"the", "there is no such file yet");
        assert_eq!(s.read("x.flv"), b"abc");
        segment.patch(main, 4, b"E".to_vec()).await.unwrap();
        let patched = segment.read(main, 3, 3);
        tokio::pin!(patched);
        let early = std::future::poll_fn(|context| Poll::Ready(patched.as_mut().poll(context).is_ready()));
        assert!(!early.await, "memory does not have what was patched");
        go.send(()).unwrap();
        assert_eq!(patched.await.unwrap(), b"dEf");
        assert_eq!(s.read("x.flv"), b"abcdEfghi");
    }

    #[tokio::test]
    async fn names_in_use_are_passed_over() {
        let s = Media::new();
        let first = s.claim(true).await.unwrap();
        assert_eq!(first.name(), "x.flv");
        s.put("x_0001.flv.info");
        let third = s.claim(true).await.unwrap();
        assert_eq!(third.name(), "x_0002.flv", "one is claimed, one has a spool");
        let error = s.claim(false).await.unwrap_err();
        assert!(matches!(error, PathError::NoFreeName { .. }));
        drop(first);
        s.put("x.flv");
        assert!(s.claim(false).await.is_err(), "a file is there");
        let again = s.claim(true).await.unwrap();
        assert_eq!(again.name(), "x.flv", "and may be replaced");
        drop(again);
        s.put("x.flv.mdat");
        assert!(s.claim(true).await.is_err(), "but not its spool");
    }

    #[tokio::test]
    async fn replacing_begins_a_new_file() {
        let s = Media::new();
        s.put("x.flv");
        let mut segment = s.claim(true).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).unwrap();
        segment.append(main, ["n".into()]).unwrap();
        segment.begun().await.unwrap();
        segment.sync().await.unwrap();
        assert_eq!(s.read("x.flv"), b"old", "not for a head");
        assert_eq!(s.files(), ["x.flv", "x.flv.info", "x.flv.new"]);
        segment.append(main, ["ew".into()]).unwrap();
        segment.contains(1, 0);
        segment.flush().await.unwrap();
        assert_eq!(
            (s.files(), s.read("x.flv")),
            (vec!["x.flv".into(), "x.flv.info".into()], b"new".to_vec())
        );
        segment.finish().await.unwrap();
        assert_eq!(s.read("x.flv"), b"new");

        let mut segment = s.claim(true).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).unwrap();
        segment.append(main, ["n".into()]).unwrap();
        segment.begun().await.unwrap();
        segment.finish().await.unwrap();
        assert_eq!((s.files(), s.read("x.flv")), (vec!["x.flv".to_owned()], b"n".to_vec()));

        let mut segment = s.claim(true).await.unwrap();
        segment.create("", Role::Main, &start(0)).unwrap();
        segment.discard().await;
        assert_eq!((s.files(), s.read("x.flv")), (vec!["x.flv".to_owned()], b"n".to_vec()));
    }

    #[tokio::test]
    async fn what_never_began_leaves_nothing() {
        let s = Media::new();
        let mut segment = s.claim(false).await.unwrap();
        segment.create("mdat", Role::Spool, &start(0)).unwrap();
        segment.create("notes", Role::Sidecar, &start(0)).unwrap();
        segment.discard().await;
        assert!(s.files().is_empty());
    }

    #[tokio::test]
    async fn a_patch_of_what_is_not_synced_makes_a_sync_point() {
        let s = Media::new();
        let mut segment = s.claim(false).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).unwrap();
        segment.append(main, ["0123".into()]).unwrap();
        segment.patch(main, 2, b"x".to_vec()).await.unwrap();
        segment.settled().await.unwrap();
        assert_eq!(segment.durable.synced(main), 4);
        segment.append(main, ["4567".into()]).unwrap();
        segment.patch(main, 3, b"x".to_vec()).await.unwrap();
        segment.settled().await.unwrap();
        assert_eq!(segment.durable.synced(main), 4, "it is synced already");
        segment.finish().await.unwrap();
        assert_eq!(s.read("x.flv"), b"01xx4567");
    }
}
