//! What of a segment is on its way to the disk, and the order in which it gets there.
//!
//! Bytes go to an output first, then a commit that counts them to the journal; at a sync point the outputs are
//! made durable first, then the journal that says so. Where the whole volume is made durable at once, the journal says so
//! afterwards, and that becomes durable with the next sync point. [`Durable`] is what the segment, its line's threads and
//! the volume's sync thread share. All of its calls block, but for those on errors.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rustix::io::Errno;

use super::{
    journal::{Commit, Journal, Record},
    path::Folder,
    segment::{OutputError, OutputId},
    storage::DiskFile,
};
use crate::sync::lock;

/// Room kept for closing whatever the segment is like.
pub(super) const ROOM_TO_CLOSE: u64 = 128 << 10;

/// Bytes of media that memory forgets at once. To shift so many takes some milliseconds more; to forget them with each sync
/// took a twentieth of the server's time.
const FORGET_STEP: u64 = 64 << 20;

/// Pieces to be written to an output.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) output: OutputId,
    pub(super) pieces: Vec<Bytes>,
    /// Where in the file.
    pub(super) at: u64,
    /// The output's size behind them, not counting the head.
    pub(super) size: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Durable {
    folder: Arc<Folder>,
    /// The segment's final path, for errors.
    path: PathBuf,
    state: Mutex<State>,
    /// One sync at a time.
    turn: Mutex<()>,
    error: Mutex<Option<OutputError>>,
}

#[derive(Debug, Default)]
struct State {
    journal: Option<Journal>,
    outputs: Vec<Output>,
    /// Something was written since the last sync point, or since a round has noted what there is.
    dirty: bool,
    /// A round has noted what there is since the last sync point of this segment's own.
    noted: bool,
    /// Counts the beginnings of its own sync points, and what they say in the journal.
    syncs: u64,
    /// Sizes by output in the last `Synced`, which is not durable itself.
    promised: Vec<u64>,
    /// Outputs whose names are durable: the first so many.
    named: usize,
    /// Bytes of media that memory was told to forget.
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Output {
    name: String,
    file: Arc<dyn DiskFile>,
    /// Bytes that the last commit counts, and the last `Synced` that is durable.
    committed: u64,
    synced: u64,
}

impl Durable {
    pub(super) fn new(folder: Arc<Folder>, name: &str) -> Self {
        let path = folder.path.join(name);
        Self { folder, path, state: Mutex::default(), turn: Mutex::default(), error: Mutex::default() }
    }

    /// Takes the journal, which has its first record.
    pub(super) fn begin(&self, journal: Journal) {
        lock(&self.state).journal = Some(journal);
    }

    /// Ends all writing. Returns the journal's file when nobody writes any more.
    pub(super) fn close(&self) -> Option<Arc<dyn DiskFile>> {
        self.fail("", "given up", Errno::CANCELED);
        let _turn = lock(&self.turn);
        lock(&self.state).journal.take().map(|journal| journal.file().clone())
    }

    /// Adds an output with so many bytes, all of them synced, of which the journal knows.
    pub(super) fn known(&self, name: &str, file: Arc<dyn DiskFile>, size: u64) {
        let output = Output { name: name.into(), file, committed: size, synced: size };
        let mut state = lock(&self.state);
        state.outputs.push(output);
        state.named = state.outputs.len();
    }

    /// Adds an empty output.
    pub(super) fn add(&self, record: Record, name: &str, file: Arc<dyn DiskFile>) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        state.append(&record)?;
        state.outputs.push(Output { name: name.into(), file, committed: 0, synced: 0 });
        Ok(())
    }

    /// Outputs whose files were created.
    pub(super) fn outputs(&self) -> usize {
        lock(&self.state).outputs.len()
    }

    /// The file of an output, which has been created.
    pub(super) fn file(&self, output: OutputId) -> Arc<dyn DiskFile> {
        lock(&self.state).outputs[output].file.clone()
    }

    /// The file of an output is another one from here on.
    pub(super) fn replace(&self, output: OutputId, file: Arc<dyn DiskFile>) {
        lock(&self.state).outputs[output].file = file;
    }

    /// Bytes of an output that are safe from a power cut.
    pub(super) fn synced(&self, output: OutputId) -> u64 {
        lock(&self.state).outputs.get(output).map_or(0, |output| output.synced)
    }

    /// Writes, and commits what was written as so many samples up to a time. After an error nothing is written any
    /// more, so that what is there stays as it is.
    pub(super) fn write(&self, writes: &[Write], samples: u64, last_ms: i64) {
        if self.failed() {
            return;
        }
        let mut checksums = Vec::with_capacity(writes.len());
        for write in writes {
            let file = self.file(write.output);
            if let Err(errno) = file.write_at(&write.pieces, write.at) {
                self.fail_output(write.output, "write", errno);
                return;
            }
            let mut hasher = crc32fast::Hasher::new();
            write.pieces.iter().for_each(|piece| hasher.update(piece));
            checksums.push(hasher.finalize());
        }
        let mut state = lock(&self.state);
        let mut outputs: Vec<(u64, u32)> = state.outputs.iter().map(|o| (o.committed, 0)).collect();
        for (write, checksum) in writes.iter().zip(checksums) {
            outputs[write.output] = (write.size, checksum);
            state.outputs[write.output].committed = write.size;
        }
        state.dirty = true;
        let commit = Commit { epoch_us: crate::wall_clock::epoch_us(), samples, last_ms, outputs };
        if let Err(errno) = state.append(&Record::Commit(commit)) {
            drop(state);
            self.fail("info", "write", errno);
        }
    }

    /// Overwrites bytes of an output's file.
    pub(super) fn overwrite(&self, output: OutputId, what: &'static str, bytes: Vec<u8>, at: u64) {
        if self.failed() {
            return;
        }
        let file = {
            let mut state = lock(&self.state);
            state.dirty = true;
            state.outputs[output].file.clone()
        };
        if let Err(errno) = file.write_at(&[bytes.into()], at) {
            self.fail_output(output, what, errno);
        }
    }

    pub(super) fn fail_output(&self, output: OutputId, what: &'static str, errno: Errno) -> OutputError {
        let name = lock(&self.state).outputs[output].name.clone();
        self.fail(&name, what, errno)
    }

    /// A sync point: makes the outputs durable, then says so in the journal and makes that durable.
    pub(super) fn sync(&self) -> Result<(), OutputError> {
        let _turn = lock(&self.turn);
        self.check()?;
        let (outputs, named, journal) = {
            let mut state = lock(&self.state);
            if !state.dirty && !state.noted {
                return Ok(());
            }
            (state.dirty, state.noted) = (false, false);
            state.syncs += 1;
            let journal = state.journal.as_ref().map(|journal| journal.file().clone());
            (state.outputs.clone(), state.named, journal)
        };
        if named < outputs.len() {
            self.folder.dir.sync().map_err(|errno| self.fail("", "sync the folder", errno))?;
        }
        for output in &outputs {
            output.file.sync().map_err(|errno| self.fail(&output.name, "sync", errno))?;
        }
        let Some(journal) = journal else { return Ok(()) };
        let sizes: Vec<u64> = outputs.iter().map(|output| output.committed).collect();
        {
            let mut state = lock(&self.state);
            // What a round has noted meanwhile is more than this says.
            state.syncs += 1;
            state.promised.clear();
            self.promise(&mut state, &sizes)?;
        }
        journal.sync().map_err(|errno| self.fail("info", "sync", errno))?;
        lock(&self.state).synced(&sizes);
        self.forget_media(&outputs);
        Ok(())
    }

    /// Lets the disk begin with what has been written. Waits for nothing.
    pub(super) fn start_writeback(&self) {
        let state = lock(&self.state);
        if state.dirty || state.noted {
            state.outputs.iter().for_each(|output| output.file.start_writeback());
        }
    }

    /// Notes what has been written, if there is anything new: all of it is durable when the volume has been made so
    /// afterwards.
    pub(super) fn note(&self) -> Option<Noted> {
        let mut state = lock(&self.state);
        if self.failed() || state.journal.is_none() || state.outputs.is_empty() || !state.dirty {
            return None;
        }
        (state.dirty, state.noted) = (false, true);
        let promised = std::mem::take(&mut state.promised);
        let (folder, outputs) = (self.folder.clone(), state.outputs.clone());
        Some(Noted { folder, outputs, promised, syncs: state.syncs })
    }

    /// The volume was made durable since that was noted. Says so in the journal, without waiting.
    pub(super) fn is_durable(&self, noted: &Noted) {
        let mut state = lock(&self.state);
        // A sync point of its own counts more than this does, and bytes that it counts may have been patched since.
        if self.failed() || state.syncs != noted.syncs {
            return;
        }
        state.synced(&noted.promised);
        let sizes: Vec<u64> = noted.outputs.iter().map(|output| output.committed).collect();
        // The segment finds the error with its next call.
        if self.promise(&mut state, &sizes).is_ok() {
            state.promised = sizes;
            drop(state);
            self.forget_media(&noted.outputs);
        }
    }

    /// Media in a spool is not read again, and a file that memory holds in large part is slow to shift. What lies beside it
    /// is small, and read when the segment closes. Nobody waits meanwhile for what is shared.
    fn forget_media(&self, outputs: &[Output]) {
        if outputs.len() > 1
            && let Some(media) = outputs.iter().max_by_key(|output| output.committed)
            && lock(&self.state).is_time_to_forget(media.committed)
        {
            media.file.forget(media.committed);
        }
    }

    /// Outputs are durable up to these sizes: keeps room for closing, and says so in the journal.
    fn promise(&self, state: &mut State, sizes: &[u64]) -> Result<(), OutputError> {
        if let Some(Err(errno)) = state.journal.as_mut().map(|journal| journal.reserve(room_to_close(sizes)))
        {
            return Err(self.fail("info", "reserve room to close", errno));
        }
        state.named = state.named.max(sizes.len());
        state.append(&Record::Synced(sizes.into())).map_err(|errno| self.fail("info", "write", errno))
    }

    /// Gives back the room that was kept for closing.
    pub(super) fn release(&self) {
        if self.failed() {
            return;
        }
        let result = lock(&self.state).journal.as_mut().map_or(Ok(()), Journal::release);
        if let Err(errno) = result {
            self.fail("info", "give back reserved room", errno);
        }
    }

    /// Appends a record to the journal, if there is one. The next sync makes it durable.
    pub(super) fn append(&self, record: &Record) -> Result<(), OutputError> {
        lock(&self.state).append(record).map_err(|errno| self.fail("info", "write", errno))
    }

    /// Appends a record to the journal, if there is one, and makes it durable.
    pub(super) fn record(&self, record: &Record) -> Result<(), OutputError> {
        self.append(record)?;
        self.sync_journal()
    }

    /// Makes the journal durable, if there is one.
    pub(super) fn sync_journal(&self) -> Result<(), OutputError> {
        let journal = lock(&self.state).journal.as_ref().map(|journal| journal.file().clone());
        match journal {
            Some(journal) => journal.sync().map_err(|errno| self.fail("info", "sync", errno)),
            None => Ok(()),
        }
    }

    pub(super) fn check(&self) -> Result<(), OutputError> {
        lock(&self.error).clone().map_or(Ok(()), Err)
    }

    pub(super) fn failed(&self) -> bool {
        lock(&self.error).is_some()
    }

    /// Keeps the first error, which is returned, and which every later call gets.
    pub(super) fn fail(&self, output: &str, what: &'static str, errno: Errno) -> OutputError {
        let mut path = self.path.as_os_str().to_owned();
        if !output.is_empty() {
            path.push(".");
            path.push(output);
        }
        lock(&self.error).get_or_insert(OutputError { path: path.into(), what, errno }).clone()
    }
}

/// What a segment had written at some moment.
#[derive(Debug)]
pub(super) struct Noted {
    folder: Arc<Folder>,
    outputs: Vec<Output>,
    /// What the journal had promised at that moment, so that the promise is durable when this is.
    promised: Vec<u64>,
    /// [`State::syncs`] then.
    syncs: u64,
}

impl Noted {
    /// The folder that the segment is in.
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }
}

impl State {
    fn append(&mut self, record: &Record) -> Result<(), Errno> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(record))
    }

    /// A `Synced` with these sizes is durable.
    fn synced(&mut self, sizes: &[u64]) {
        for (output, &size) in self.outputs.iter_mut().zip(sizes) {
            output.synced = size;
        }
    }

    fn is_time_to_forget(&mut self, media: u64) -> bool {
        let is_time = media.saturating_sub(self.forgotten) >= FORGET_STEP;
        if is_time {
            self.forgotten = media;
        }
        is_time
    }
}

/// What closing will need: a head that says of each sample no more than the working files beside the media do, and a
/// little for the file system.
fn room_to_close(sizes: &[u64]) -> u64 {
    ROOM_TO_CLOSE + sizes.iter().sum::<u64>() - sizes.iter().max().unwrap_or(&0)
}
