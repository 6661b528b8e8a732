//! A disk in memory that remembers everything that was asked of it, so that its power can be cut afterwards.
//!
//! It keeps names, files with holes, and locks, in blocks of 4 KiB. What a file's blocks held, and which
//! blocks it had, is kept for every moment ([`History`]); [`crash`](crate::crash) makes of it what a real
//! disk could hold after a power cut. An [`Image`] is such a content, and what a disk can be made of.
//!
//! What it promises, and no more:
//! - a file's `sync` makes its bytes and size durable, and nothing of the folder
//! - the folder's `sync` makes names durable, and nothing of any file
//! - `sync_volume` makes all of both durable
//! - all else is on its way to the disk, in any order

pub mod history;
pub mod image;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use reelwright::output::storage::{Directory, DiskFile, Space};
use rustix::io::Errno;

pub use self::{
    history::{History, Inode, Op},
    image::Image,
};

/// Bytes of a block: what is either data or a hole, and what ranges are inserted in.
pub const BLOCK: usize = 4096;
/// Bytes that are written whole or not at all.
pub const SECTOR: usize = 512;
/// Bytes that one copy does at most, so that copies come in steps.
const COPY_STEP: u64 = 64 << 10;

/// What a file system can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    /// Ranges can be inserted and collapsed.
    pub shifts: bool,
    /// Copies share blocks.
    pub shares: bool,
}

pub const EXT4: Profile = Profile { name: "ext4", shifts: true, shares: false };
pub const XFS: Profile = Profile { name: "xfs", shifts: true, shares: true };
pub const BTRFS: Profile = Profile { name: "btrfs", shifts: false, shares: true };
/// No other than these can be had on tmpfs, which of course keeps nothing; it stands for NFS and its like.
pub const TMPFS: Profile = Profile { name: "tmpfs", shifts: false, shares: false };

/// A folder on a disk of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Model(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    history: History,
    /// Which opening of a file has it locked.
    locks: BTreeMap<Inode, u64>,
    openings: u64,
    lie: Option<Lie>,
}

/// Syncs that a disk says it has done and has not: to see that a test finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Journal,
    Media,
    Folder,
    Volume,
}

/// An open file of a [`Model`].
#[derive(Debug)]
pub struct ModelFile {
    disk: Model,
    inode: Inode,
    opening: u64,
}

impl Model {
    pub fn new(profile: Profile) -> Self {
        Self::load(profile, &Image::default())
    }

    /// A disk after its power is back: all that it holds is durable.
    pub fn load(profile: Profile, image: &Image) -> Self {
        let history = History::new(profile, image);
        Self(Arc::new(Mutex::new(State { history, locks: BTreeMap::new(), openings: 0, lie: None })))
    }

    /// From now on it lies.
    pub fn lie(&self, lie: Option<Lie>) {
        self.state().lie = lie;
    }

    /// How many calls changed or synced anything so far.
    pub fn ops(&self) -> usize {
        self.state().history.ops.len()
    }

    /// All that happened so far.
    pub fn history(&self) -> History {
        self.state().history.clone()
    }

    /// What programs see now.
    pub fn image(&self) -> Image {
        self.state().history.image()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the model does not panic")
    }

    fn open_inode(&self, state: &mut State, inode: Inode) -> Arc<dyn DiskFile> {
        state.openings += 1;
        Arc::new(ModelFile { disk: self.clone(), inode, opening: state.openings })
    }
}

impl Directory for Model {
    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        let mut state = self.state();
        if state.history.names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let inode = state.history.create(name);
        Ok(self.open_inode(&mut state, inode))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        let mut state = self.state();
        let inode = *state.history.names.get(name).ok_or(Errno::NOENT)?;
        Ok(self.open_inode(&mut state, inode))
    }

    fn exists(&self, name: &str) -> Result<bool, Errno> {
        Ok(self.state().history.names.contains_key(name))
    }

    fn names(&self) -> Result<Vec<String>, Errno> {
        Ok(self.state().history.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Errno> {
        let mut state = self.state();
        let names = &state.history.names;
        if !names.contains_key(from) {
            return Err(Errno::NOENT);
        }
        if names.contains_key(to) && !replace {
            return Err(Errno::EXIST);
        }
        state.history.rename(from, to);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        let mut state = self.state();
        if state.history.names.contains_key(name) {
            state.history.remove(name);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        let mut state = self.state();
        if state.lie != Some(Lie::Folder) {
            state.history.push(Op::SyncFolder);
        }
        Ok(())
    }

    fn sync_volume(&self) -> Result<(), Errno> {
        let mut state = self.state();
        if state.lie != Some(Lie::Volume) {
            state.history.push(Op::SyncAll);
        }
        Ok(())
    }

    fn space(&self) -> Result<Space, Errno> {
        Ok(Space { total: 1 << 40, free: 1 << 39 })
    }
}

impl DiskFile for ModelFile {
    fn write_at(&self, pieces: &[Bytes], at: u64) -> Result<(), Errno> {
        self.disk.state().history.write(self.inode, &pieces.concat(), at);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        Ok(self.disk.state().history.read(self.inode, buffer, at))
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(self.disk.state().history.now(self.inode).size)
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        self.disk.state().history.truncate(self.inode, size);
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        let mut state = self.disk.state();
        let mut names = state.history.names.iter();
        let is_journal = names.any(|(name, &inode)| inode == self.inode && name.ends_with(".info"));
        let lie = if is_journal { Lie::Journal } else { Lie::Media };
        if state.lie != Some(lie) {
            state.history.push(Op::SyncFile { inode: self.inode });
        }
        Ok(())
    }

    fn reserve(&self, len: u64) -> Result<(), Errno> {
        self.disk.state().history.push(Op::Reserve { inode: self.inode, len });
        Ok(())
    }

    fn insert_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        let mut state = self.disk.state();
        if !state.history.profile.shifts {
            return Err(Errno::OPNOTSUPP);
        }
        if !aligned(at) || !aligned(len) || len == 0 || at >= state.history.now(self.inode).size {
            return Err(Errno::INVAL);
        }
        state.history.insert_range(self.inode, at, len);
        Ok(())
    }

    fn collapse_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        let mut state = self.disk.state();
        if !state.history.profile.shifts {
            return Err(Errno::OPNOTSUPP);
        }
        if !aligned(at) || !aligned(len) || len == 0 || at + len >= state.history.now(self.inode).size {
            return Err(Errno::INVAL);
        }
        state.history.collapse_range(self.inode, at, len);
        Ok(())
    }

    fn next_data(&self, from: u64) -> Result<Option<u64>, Errno> {
        let state = self.disk.state();
        let file = state.history.now(self.inode);
        let next = file.blocks.range(from / BLOCK as u64..).next();
        let at = next.map(|(&block, _)| from.max(block * BLOCK as u64));
        Ok(at.filter(|&at| at < file.size))
    }

    fn next_hole(&self, from: u64) -> Result<u64, Errno> {
        let state = self.disk.state();
        let file = state.history.now(self.inode);
        let mut block = from / BLOCK as u64;
        if from >= file.size || !file.blocks.contains_key(&block) {
            return Ok(from.min(file.size));
        }
        while file.blocks.contains_key(&block) {
            block += 1;
        }
        Ok((block * BLOCK as u64).min(file.size))
    }

    fn copy_to(&self, from: u64, to: &dyn DiskFile, at: u64, len: u64) -> Result<u64, Errno> {
        let to = to.inode()?;
        let mut state = self.disk.state();
        let history = &mut state.history;
        let size = history.now(self.inode).size;
        let len = len.min(size.saturating_sub(from)).min(COPY_STEP);
        if len == 0 {
            return Ok(0);
        }
        let whole = aligned(len) || from + len == size;
        if history.profile.shares && aligned(from) && aligned(at) && whole {
            history.share(self.inode, from, to, at, len);
        } else {
            let mut bytes = vec![0; usize::try_from(len).expect("a step")];
            history.read(self.inode, &mut bytes, from);
            history.write(to, &bytes, at);
        }
        Ok(len)
    }

    fn lock(&self) -> Result<bool, Errno> {
        let mut state = self.disk.state();
        Ok(*state.locks.entry(self.inode).or_insert(self.opening) == self.opening)
    }

    fn inode(&self) -> Result<u64, Errno> {
        Ok(self.inode)
    }
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        // A test that fails elsewhere may leave the lock poisoned.
        if let Ok(mut state) = self.disk.0.lock()
            && state.locks.get(&self.inode) == Some(&self.opening)
        {
            state.locks.remove(&self.inode);
        }
    }
}

fn aligned(number: u64) -> bool {
    number.is_multiple_of(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &dyn DiskFile, bytes: &[u8], at: u64) {
        file.write_at(&[Bytes::copy_from_slice(bytes)], at).unwrap();
    }

    fn read(file: &dyn DiskFile) -> Vec<u8> {
        let mut bytes = vec![1; file.size().unwrap() as usize + 10];
        let read = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        bytes
    }

    /// The same calls on the model and on this machine's disk, one after the other.
    #[test]
    fn it_does_what_a_real_disk_does() {
        use reelwright::output::storage::RealDirectory;
        use rustix::fs::{Mode, OFlags};

        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let real = RealDirectory::new(fd);
        let model = Model::new(EXT4);
        let mut rng = crate::rng::Rng::new(7);
        let both: [&dyn Directory; 2] = [&real, &model];
        let [real_file, model_file] = both.map(|folder| folder.create("x").unwrap());
        let [real_copy, model_copy] = both.map(|folder| folder.create("y").unwrap());
        let mut shifted = 0;
        for round in 0..600 {
            let (at, len) = (rng.below(60_000), rng.below(20_000));
            let blocks = |n: u64| n / BLOCK as u64 * BLOCK as u64;
            let run = |file: &dyn DiskFile, copy: &dyn DiskFile| match round % 6 {
                0 | 1 => file.write_at(&[vec![round as u8 | 1; len as usize].into(), Bytes::new()], at),
                2 => file.truncate(at),
                3 if round % 4 == 1 => file.collapse_range(blocks(at / 4), blocks(len)),
                3 => file.insert_range(blocks(at / 4), blocks(len / 2)),
                4 => copy.truncate(0).and_then(|()| {
                    let mut done = 0;
                    loop {
                        match file.copy_to(at / 2 + done, copy, 100 + done, len.max(1)) {
                            Ok(0) => return Ok(()),
                            Ok(n) => done += n,
                            Err(errno) => return Err(errno),
                        }
                    }
                }),
                _ => file.reserve(len.max(1)).and_then(|()| file.sync()),
            };
            let on_model = run(&*model_file, &*model_copy);
            let on_real = run(&*real_file, &*real_copy);
            if on_real == Err(Errno::OPNOTSUPP) {
                eprintln!("skipped: {} has no ranges to insert", dir.path().display());
                return;
            }
            assert_eq!(on_model, on_real, "round {round}: {at} {len}");
            shifted += u32::from(round % 6 == 3 && on_real.is_ok());
            assert_eq!(read(&*model_file), read(&*real_file), "round {round}");
            assert_eq!(read(&*model_copy), read(&*real_copy), "round {round}");
        }
        assert!(shifted > 20, "{shifted}");
    }

    #[test]
    fn holes_are_where_nothing_was_written() {
        for profile in [EXT4, XFS] {
            let disk = Model::new(profile);
            let file = disk.create("x").unwrap();
            write(&*file, &[7; 10_000], 8192);
            let ends = |file: &dyn DiskFile| {
                (file.next_data(0).unwrap(), file.next_hole(0).unwrap(), file.next_hole(8192).unwrap())
            };
            assert_eq!(ends(&*file), (Some(8192), 0, 18_192));
            assert_eq!(file.next_data(18_192).unwrap(), None);
            file.insert_range(8192, 4096).unwrap();
            assert_eq!((file.next_data(0).unwrap(), file.size().unwrap()), (Some(12_288), 22_288));
            file.collapse_range(4096, 8192).unwrap();
            assert_eq!(file.next_data(0).unwrap(), Some(4096));
            assert_eq!(read(&*file)[4096..], [7; 10_000]);
            for (at, len) in [(1, 4096), (0, 100), (16_384, 4096), (0, 0)] {
                assert_eq!(file.insert_range(at, len), Err(Errno::INVAL));
            }
            assert_eq!(file.collapse_range(4096, 12_288), Err(Errno::INVAL), "up to the end");
        }
        let file = Model::new(TMPFS).create("x").unwrap();
        write(&*file, b"x", 0);
        assert_eq!(file.insert_range(0, 4096), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn shared_blocks_are_not_written_for_both() {
        let disk = Model::new(BTRFS);
        let (a, b) = (disk.create("a").unwrap(), disk.create("b").unwrap());
        write(&*a, &[1; 8000], 0);
        assert_eq!(a.copy_to(0, &*b, 4096, 100_000).unwrap(), 8000);
        write(&*a, &[2; 10], 100);
        write(&*b, &[3; 10], 4096);
        let (a, b) = (read(&*a), read(&*b));
        assert_eq!((a.len(), &a[98..112]), (8000, &[1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1][..]));
        assert_eq!((b.len(), &b[4094..4108]), (12_096, &[0, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1][..]));
    }

    #[test]
    fn a_lock_is_for_one_opening() {
        let disk = Model::new(EXT4);
        let first = disk.create("x").unwrap();
        let second = disk.open("x").unwrap();
        assert!(first.lock().unwrap() && first.lock().unwrap() && !second.lock().unwrap());
        drop(first);
        assert!(second.lock().unwrap());
    }

    #[test]
    fn an_image_is_loaded_as_it_was() {
        let disk = Model::new(EXT4);
        let file = disk.create("x").unwrap();
        write(&*file, &[9; 5000], 6000);
        disk.create("y").unwrap();
        disk.rename("x", "z", false).unwrap();
        assert_eq!(disk.rename("z", "y", false), Err(Errno::EXIST));
        let image = disk.image();
        let loaded = Model::load(EXT4, &image);
        assert_eq!(loaded.names().unwrap(), ["y", "z"]);
        assert_eq!(read(&*loaded.open("z").unwrap()), read(&*file));
        assert_eq!(loaded.image().digest(), image.digest());
        assert_eq!(loaded.open("z").unwrap().next_data(0).unwrap(), Some(4096));
        loaded.remove("y").unwrap();
        assert_ne!(loaded.image().digest(), image.digest());
    }
}
