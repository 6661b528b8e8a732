//! The files of one segment, from creation to the final name.
//!
//! Appends gather in memory and go to the disk in one piece with [`Segment::flush`], which the writer's
//! driver calls after each batch. All work of a segment runs in order on its volume's thread, so a journal
//! record follows the media that it counts. A failure shows in the next call, and stays.

use std::{
    fs::File,
    io::IoSlice,
    os::{fd::AsFd, unix::fs::FileExt},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, Mode, OFlags, RenameFlags},
    io::Errno,
};

use super::{
    Disk,
    claim::Claim,
    headroom,
    journal::{self, Record},
    path::{Folder, PathError, describe},
    volume::Volume,
};
use crate::sync::lock;

/// Buffers in one `pwritev`; the kernel takes 1,024.
const MAX_SLICES: usize = 1024;
/// Spools of the built-in formats: while one is there, the name is taken.
const SPOOLS: [&str; 4] = ["info", "mdat", "track1", "track2"];

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
    folder: Arc<Folder>,
    /// The final file name.
    name: String,
    /// Whether a finished file of that name is to be replaced.
    replaces: bool,
    /// The main file has its final name. Until a format has opened, one that replaces another has a name of its own.
    named: bool,
    _claim: Claim,
    volume: Volume,
    outputs: Vec<Output>,
    journal: Option<Journal>,
    error: Arc<Mutex<Option<OutputError>>>,
}

#[derive(Debug)]
struct Output {
    name: String,
    role: Role,
    file: Arc<File>,
    /// Bytes in front of what the writer counts from.
    head: u64,
    /// Bytes appended, pending ones included.
    size: u64,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    promoted: bool,
}

impl Output {
    fn record(&self) -> Record {
        Record::Output(journal::Output { name: self.name.clone(), role: self.role.as_str().into() })
    }
}

#[derive(Debug)]
struct Journal {
    file: Arc<File>,
    position: u64,
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
            let Some(claim) = disk.claims.claim(folder, &name) else { continue };
            let (its_folder, its_name) = (folder.clone(), name.clone());
            let (file, spool) = volume.run(move || look(&its_folder, &its_name)).await;
            let replaces = file && replace_first && i == 0;
            if spool || (file && !replaces) {
                continue;
            }
            return Ok(Self {
                folder: folder.clone(),
                name,
                replaces,
                named: !replaces,
                _claim: claim,
                volume,
                outputs: Vec::new(),
                journal: None,
                error: Arc::default(),
            });
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

    /// Number of outputs created.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The role of an output.
    pub fn role(&self, id: OutputId) -> Role {
        self.outputs[id].role
    }

    /// Whether there is an output of that name.
    pub fn has(&self, name: &str) -> bool {
        self.outputs.iter().any(|o| o.name == name)
    }

    /// Whether there is a main file, or a spool that will be it.
    pub fn has_main(&self) -> bool {
        self.main_size().is_some()
    }

    /// Bytes of what is, or will be, the main file.
    pub fn main_size(&self) -> Option<u64> {
        self.outputs.iter().find(|o| o.role == Role::Main || o.promoted).map(|o| o.size)
    }

    /// Bytes appended to an output.
    pub fn size(&self, id: OutputId) -> u64 {
        self.outputs[id].size
    }

    /// Bytes appended to all outputs.
    pub fn total_size(&self) -> u64 {
        self.outputs.iter().map(|o| o.size).sum()
    }

    /// Creates the file of an output: the final name, or that, a dot and `name`. The journal is begun with the first
    /// spool, from `start`. A spool gets a hole of `start.head_room` in front.
    pub async fn create(
        &mut self,
        name: &str,
        role: Role,
        start: &journal::Start,
    ) -> Result<OutputId, OutputError> {
        self.check()?;
        if role == Role::Spool && self.journal.is_none() {
            let file = self.create_file("info").await?;
            self.journal = Some(Journal { file, position: 0 });
            let mut bytes = journal::MAGIC.to_vec();
            Record::Start(Box::new(start.clone())).encode(&mut bytes);
            for output in &self.outputs {
                output.record().encode(&mut bytes);
            }
            self.write_journal(bytes).await;
        }
        if role == Role::Main && !self.named {
            // Left over from a start that was cut off.
            let (folder, name) = (self.folder.clone(), self.file_name(""));
            self.on_volume("remove", move || remove(&folder, &name)).await?;
        }
        let file = self.create_file(name).await?;
        let output = Output {
            name: name.into(),
            role,
            file,
            head: if role == Role::Spool { start.head_room } else { 0 },
            size: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            promoted: false,
        };
        if self.journal.is_some() {
            let mut bytes = Vec::new();
            output.record().encode(&mut bytes);
            self.write_journal(bytes).await;
        }
        self.outputs.push(output);
        Ok(self.outputs.len() - 1)
    }

    /// The format has opened: a main file that replaces another takes its place.
    pub async fn begun(&mut self) -> Result<(), OutputError> {
        let has_main = self.outputs.iter().any(|o| o.role == Role::Main);
        if !self.named && has_main {
            let (folder, from, to) = (self.folder.clone(), self.file_name(""), self.name.clone());
            self.on_volume("replace", move || rename(&folder, &from, &to, true)).await?;
        }
        self.named = true;
        self.flush().await
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
        let cost = self.pending_cost();
        if cost == 0 {
            return Ok(());
        }
        let mut writes = Vec::new();
        for output in &mut self.outputs {
            if output.pending.is_empty() {
                continue;
            }
            let at = output.head + output.size - output.pending_bytes as u64;
            output.pending_bytes = 0;
            writes.push((output.name.clone(), output.file.clone(), std::mem::take(&mut output.pending), at));
        }
        let (error, path) = (self.error.clone(), self.path());
        self.volume
            .queue(cost, move || {
                for (name, file, pieces, at) in writes {
                    let result = if lock(&error).is_some() { Ok(()) } else { write_all(&file, &pieces, at) };
                    note(&error, &path, &name, "write", result);
                }
            })
            .await;
        self.commit(false).await;
        Ok(())
    }

    /// Overwrites bytes that were appended before. The range has been checked.
    pub async fn patch(&mut self, id: OutputId, offset: u64, bytes: Vec<u8>) -> Result<(), OutputError> {
        self.flush().await?;
        let at = self.outputs[id].head + offset;
        self.queue_write(id, "patch", bytes, at).await;
        Ok(())
    }

    /// Reads back up to `len` bytes.
    pub async fn read(&mut self, id: OutputId, offset: u64, len: u32) -> Result<Vec<u8>, OutputError> {
        self.flush().await?;
        let output = &self.outputs[id];
        let len = output.size.saturating_sub(offset).min(u64::from(len));
        if len == 0 {
            return Ok(Vec::new());
        }
        let (file, at) = (output.file.clone(), output.head + offset);
        let mut bytes = vec![0; usize::try_from(len).expect("at most 4 GiB")];
        self.on_volume("read", move || {
            file.read_exact_at(&mut bytes, at).map_err(errno)?;
            Ok(bytes)
        })
        .await
    }

    /// Makes the head of a spool `head` bytes long.
    pub async fn grow_head(&mut self, id: OutputId, head: u64) -> Result<(), OutputError> {
        self.settle().await?;
        let output = &self.outputs[id];
        let (folder, old) = (self.folder.clone(), output.head);
        let name = self.file_name(&output.name);
        let file = output.file.try_clone();
        let grown = self
            .volume
            .run_slow(move || headroom::grow(&folder.fd, &name, file.map_err(errno)?, old, head))
            .await
            .map_err(|errno| self.fail(&self.outputs[id].name, "make room in front", errno))?;
        self.outputs[id].file = Arc::new(grown);
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
        self.queue_write(id, "write the head", bytes, offset).await;
        Ok(())
    }

    /// Says that a spool becomes the main file.
    pub fn promote(&mut self, id: OutputId) {
        self.outputs[id].promoted = true;
    }

    /// Makes the segment complete: syncs the main file, gives a promoted spool the final name, syncs the folder, then
    /// removes the other spools. On an error everything is left as it is.
    pub async fn finish(mut self) -> Result<Finished, OutputError> {
        self.settle().await?;
        let (folder, name, replaces) = (self.folder.clone(), self.name.clone(), self.replaces);
        let main = self.outputs.iter().find(|o| o.role == Role::Main || o.promoted);
        let Some(main) = main else {
            return Err(self.fail("", "finish: the format left no main file", Errno::NOENT));
        };
        let bytes = main.head + main.size;
        let from = main.promoted.then(|| self.file_name(&main.name));
        let sync: Vec<_> = self
            .outputs
            .iter()
            .filter(|o| o.role != Role::Spool || o.promoted)
            .map(|o| o.file.clone())
            .collect();
        let others = self.spool_names(false);
        let work = move || {
            for file in sync {
                rustix::fs::fdatasync(&file)?;
            }
            if let Some(from) = from {
                rename(&folder, &from, &name, replaces)?;
            }
            rustix::fs::fsync(&folder.fd)?;
            others.iter().try_for_each(|name| remove(&folder, name))
        };
        self.volume.run_slow(work).await.map_err(|errno| self.fail("", "finish", errno))?;
        Ok(Finished { path: self.path(), bytes })
    }

    /// Leaves the segment as far as it got: everything appended is handed to the disk, spools stay for
    /// recovery, and a main file without a byte is removed. Returns the path and size of the main file, if there is one.
    pub async fn abandon(mut self) -> Option<Finished> {
        let _ = self.flush().await;
        let main = self.outputs.iter().find(|o| o.role == Role::Main)?;
        let (size, folder, name) = (main.size, self.folder.clone(), self.name.clone());
        self.volume
            .run(move || {
                if size == 0 {
                    let _ = remove(&folder, &name);
                }
            })
            .await;
        (size > 0).then(|| Finished { path: self.path(), bytes: size })
    }

    /// Removes what was created: the segment never began.
    pub async fn discard(self) {
        let mut names = self.spool_names(true);
        names.extend(self.outputs.iter().filter(|o| o.role != Role::Spool).map(|o| self.file_name(&o.name)));
        let folder = self.folder.clone();
        self.volume
            .run(move || {
                for name in &names {
                    let _ = remove(&folder, name);
                }
            })
            .await;
    }

    /// The spools and, last, the journal; with the promoted one or without.
    fn spool_names(&self, promoted: bool) -> Vec<String> {
        let spools = self.outputs.iter().filter(|o| o.role == Role::Spool && (promoted || !o.promoted));
        let journal = self.journal.iter().map(|_| self.file_name("info"));
        spools.map(|o| self.file_name(&o.name)).chain(journal).collect()
    }

    fn file_name(&self, output: &str) -> String {
        match output {
            "" if self.named => self.name.clone(),
            "" => format!("{}.new", self.name),
            output => format!("{}.{output}", self.name),
        }
    }

    async fn create_file(&self, output: &str) -> Result<Arc<File>, OutputError> {
        let (folder, name) = (self.folder.clone(), self.file_name(output));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let create = move || rustix::fs::openat(&folder.fd, &name, flags, Mode::from(0o644));
        let created = self.volume.run(create).await;
        created.map(|fd| Arc::new(fd.into())).map_err(|errno| self.fail(output, "create", errno))
    }

    /// Writes a commit for everything flushed so far, if there is a journal.
    async fn commit(&mut self, synced: bool) {
        if self.journal.is_some() {
            let sizes = self.outputs.iter().map(|o| o.size).collect();
            let mut bytes = Vec::new();
            Record::Commit(journal::Commit { synced, sizes }).encode(&mut bytes);
            self.write_journal(bytes).await;
        }
    }

    async fn write_journal(&mut self, bytes: Vec<u8>) {
        let Some(journal) = &mut self.journal else { return };
        let (file, at) = (journal.file.clone(), journal.position);
        journal.position += bytes.len() as u64;
        let (error, path) = (self.error.clone(), self.path());
        self.volume
            .queue(bytes.len(), move || {
                // After a failed write nothing more is promised.
                let result =
                    if lock(&error).is_some() { Ok(()) } else { write_all(&file, &[bytes.into()], at) };
                note(&error, &path, "info", "write", result);
            })
            .await;
    }

    async fn queue_write(&self, id: OutputId, what: &'static str, bytes: Vec<u8>, at: u64) {
        let output = &self.outputs[id];
        let (file, name) = (output.file.clone(), output.name.clone());
        let (error, path) = (self.error.clone(), self.path());
        self.volume
            .queue(bytes.len(), move || {
                note(&error, &path, &name, what, write_all(&file, &[bytes.into()], at));
            })
            .await;
    }

    /// Flushes, and waits until everything was done.
    async fn settle(&mut self) -> Result<(), OutputError> {
        self.flush().await?;
        self.volume.run(|| ()).await;
        self.check()
    }

    async fn on_volume<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, OutputError> {
        let result = self.volume.run(work).await;
        self.check()?;
        result.map_err(|errno| self.fail("", what, errno))
    }

    fn check(&self) -> Result<(), OutputError> {
        lock(&self.error).clone().map_or(Ok(()), Err)
    }

    fn fail(&self, output: &str, what: &'static str, errno: Errno) -> OutputError {
        note(&self.error, &self.path(), output, what, Err(errno));
        lock(&self.error).clone().expect("an error was noted")
    }
}

/// Whether a file of that name is there, and whether a spool of it is.
fn look(folder: &Folder, name: &str) -> (bool, bool) {
    let exists = |name: &str| {
        rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW).err() != Some(Errno::NOENT)
    };
    (exists(name), SPOOLS.iter().any(|spool| exists(&format!("{name}.{spool}"))))
}

fn remove(folder: &Folder, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(&folder.fd, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Renames a file; onto another one only if that is to be replaced.
fn rename(folder: &Folder, from: &str, to: &str, replaces: bool) -> Result<(), Errno> {
    if replaces {
        return rustix::fs::renameat(&folder.fd, from, &folder.fd, to);
    }
    match rustix::fs::renameat_with(&folder.fd, from, &folder.fd, to, RenameFlags::NOREPLACE) {
        // Network file systems know no flags; a link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(&folder.fd, from, &folder.fd, to, AtFlags::empty())?;
            remove(folder, from)
        }
        result => result,
    }
}

/// Keeps the first error.
fn note(
    error: &Mutex<Option<OutputError>>,
    path: &std::path::Path,
    output: &str,
    what: &'static str,
    result: Result<(), Errno>,
) {
    if let Err(errno) = result {
        let mut path = path.as_os_str().to_owned();
        if !output.is_empty() {
            path.push(".");
            path.push(output);
        }
        lock(error).get_or_insert(OutputError { path: path.into(), what, errno });
    }
}

/// Writes all pieces at an offset, as few calls as the kernel allows.
fn write_all(file: &impl AsFd, pieces: &[Bytes], mut at: u64) -> Result<(), Errno> {
    for pieces in pieces.chunks(MAX_SLICES) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        let mut slices = slices.as_mut_slice();
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match rustix::io::pwritev(file, slices, at) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Roots;

    struct Setup {
        dir: tempfile::TempDir,
        disk: Disk,
        folder: Arc<Folder>,
    }

    fn setup() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(Roots::open(dir.path(), &[]).unwrap());
        let folder = disk.roots.resolve("x").unwrap().folder;
        Setup { dir, disk, folder }
    }

    impl Setup {
        async fn claim(&self, replace_first: bool) -> Result<Segment, PathError> {
            let names = ["x.flv".to_owned(), "x_0001.flv".into(), "x_0002.flv".into()];
            Segment::claim(&self.disk, &self.folder, names.into_iter(), replace_first).await
        }

        fn files(&self) -> Vec<String> {
            let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn put(&self, name: &str) {
            std::fs::write(self.dir.path().join(name), "old").unwrap();
        }

        fn read(&self, name: &str) -> Vec<u8> {
            std::fs::read(self.dir.path().join(name)).unwrap()
        }
    }

    fn start(head_room: u64) -> journal::Start {
        journal::Start {
            format: "test".into(),
            version: "1".into(),
            sha256: String::new(),
            file: "x.flv".into(),
            segment: 0,
            epoch_us: 0,
            origin_ms: 0,
            head_room,
            head_align: 4096,
            tracks: vec![],
            options: vec![],
            carry: vec![],
        }
    }

    #[tokio::test]
    async fn a_main_file_grows_is_patched_and_read_back() {
        let s = setup();
        let mut segment = s.claim(false).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).await.unwrap();
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
        let s = setup();
        let mut segment = s.claim(false).await.unwrap();
        let start = start(4096);
        let mdat = segment.create("mdat", Role::Spool, &start).await.unwrap();
        let track = segment.create("track1", Role::Spool, &start).await.unwrap();
        segment.append(mdat, ["media".into()]).unwrap();
        segment.append(track, ["index".into()]).unwrap();
        segment.flush().await.unwrap();
        assert_eq!(segment.read(track, 0, 5).await.unwrap(), b"index");
        assert_eq!(s.files(), ["x.flv.info", "x.flv.mdat", "x.flv.track1"]);
        let (records, clean) = journal::read(&s.read("x.flv.info")).unwrap();
        assert!(clean && matches!(&records[0], Record::Start(s) if **s == start));
        assert_eq!(
            records.last(),
            Some(&Record::Commit(journal::Commit { synced: false, sizes: vec![5, 5] }))
        );

        segment.grow_head(mdat, 8192).await.unwrap();
        segment.write_head(mdat, 8190, b"ov".to_vec()).await.unwrap();
        segment.promote(mdat);
        segment.finish().await.unwrap();
        assert_eq!(s.files(), ["x.flv"]);
        let file = s.read("x.flv");
        assert_eq!((file.len(), &file[8190..]), (8197, &b"ovmedia"[..]));
    }

    #[tokio::test]
    async fn names_in_use_are_passed_over() {
        let s = setup();
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
        let s = setup();
        s.put("x.flv");
        let mut segment = s.claim(true).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).await.unwrap();
        segment.append(main, ["n".into()]).unwrap();
        assert_eq!(s.read("x.flv"), b"old", "not before the format has opened");
        segment.begun().await.unwrap();
        assert_eq!(s.files(), ["x.flv"]);
        segment.finish().await.unwrap();
        assert_eq!(s.read("x.flv"), b"n");

        let mut segment = s.claim(true).await.unwrap();
        segment.create("", Role::Main, &start(0)).await.unwrap();
        segment.discard().await;
        assert_eq!((s.files(), s.read("x.flv")), (vec!["x.flv".to_owned()], b"n".to_vec()));
    }

    #[tokio::test]
    async fn what_never_began_leaves_nothing_and_what_broke_off_leaves_its_bytes() {
        let s = setup();
        let mut segment = s.claim(false).await.unwrap();
        segment.create("mdat", Role::Spool, &start(0)).await.unwrap();
        segment.create("notes", Role::Sidecar, &start(0)).await.unwrap();
        segment.discard().await;
        assert!(s.files().is_empty());

        let mut segment = s.claim(false).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).await.unwrap();
        segment.append(main, ["good".into()]).unwrap();
        assert_eq!(segment.abandon().await.unwrap().bytes, 4);
        assert_eq!(s.read("x.flv"), b"good");

        let mut segment = s.claim(false).await.unwrap();
        segment.create("", Role::Main, &start(0)).await.unwrap();
        assert_eq!(segment.abandon().await, None);
        assert_eq!(s.files(), ["x.flv"], "an empty file is no use");
    }

    #[tokio::test]
    async fn an_error_of_the_disk_stays() {
        let s = setup();
        let mut segment = s.claim(false).await.unwrap();
        let main = segment.create("", Role::Main, &start(0)).await.unwrap();
        // A read-only descriptor stands for a disk that refuses.
        segment.outputs[main].file = Arc::new(File::open(s.dir.path().join("x.flv")).unwrap());
        segment.append(main, ["x".into()]).unwrap();
        segment.flush().await.unwrap();
        segment.volume.run(|| ()).await;
        let error = segment.append(main, ["y".into()]).unwrap_err();
        assert_eq!((error.what, error.errno), ("write", Errno::BADF));
        assert!(segment.finish().await.is_err());
    }

    #[test]
    fn many_pieces_are_written_in_order() {
        let file = tempfile::tempfile().unwrap();
        let pieces: Vec<Bytes> = (0..3000u32).map(|i| i.to_be_bytes().to_vec().into()).collect();
        write_all(&file, &pieces, 3).unwrap();
        let mut read = vec![0; 12_000];
        file.read_exact_at(&mut read, 3).unwrap();
        assert_eq!(read, pieces.concat());
    }
}
