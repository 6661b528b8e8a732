//! A folder with something in front of each call, which may fail or wait.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex},
};

use bytes::Bytes;
use reelwright::output::storage::{Directory, DiskFile, Space};
use rustix::io::Errno;

/// What is asked before each call.
pub trait Hook: fmt::Debug + Send + Sync {
    /// Before a call that changes or syncs something, and whether it needs space on the disk.
    fn change(&self, needs_space: bool) -> Result<(), Errno>;

    /// Before the whole volume is made durable.
    fn sync_volume(&self) -> Result<(), Errno> {
        self.change(false)
    }

    /// Before any other call.
    fn look(&self) {}

    /// Whether half of a write is done when it fails.
    fn is_short(&self) -> bool {
        false
    }
}

/// Whoever passes waits while it is closed.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn closed() -> Self {
        Self { closed: true.into(), ..Self::default() }
    }

    pub fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }

    pub fn pass(&self) {
        drop(self.changed.wait_while(self.closed.lock().unwrap(), |closed| *closed).unwrap());
    }
}

/// A folder behind a hook.
#[derive(Debug)]
pub struct Hooked {
    pub folder: Arc<dyn Directory>,
    pub hook: Arc<dyn Hook>,
}

#[derive(Debug)]
struct HookedFile {
    file: Arc<dyn DiskFile>,
    hook: Arc<dyn Hook>,
}

impl Hooked {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile { file, hook: self.hook.clone() })
    }
}

impl Directory for Hooked {
    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        self.hook.change(true)?;
        self.folder.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        self.hook.look();
        self.folder.open(name).map(|file| self.file(file))
    }

    fn exists(&self, name: &str) -> Result<bool, Errno> {
        self.hook.look();
        self.folder.exists(name)
    }

    fn names(&self) -> Result<Vec<String>, Errno> {
        self.hook.look();
        self.folder.names()
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Errno> {
        self.hook.change(false)?;
        self.folder.rename(from, to, replace)
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        self.hook.change(false)?;
        self.folder.remove(name)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.hook.change(false)?;
        self.folder.sync()
    }

    fn sync_volume(&self) -> Result<(), Errno> {
        self.hook.sync_volume()?;
        self.folder.sync_volume()
    }

    fn space(&self) -> Result<Space, Errno> {
        self.hook.look();
        self.folder.space()
    }
}

impl DiskFile for HookedFile {
    fn write_at(&self, pieces: &[Bytes], at: u64) -> Result<(), Errno> {
        let result = self.hook.change(true);
        if result.is_err() && self.hook.is_short() {
            let all: Bytes = pieces.concat().into();
            self.file.write_at(&[all.slice(..all.len() / 2)], at)?;
        }
        result?;
        self.file.write_at(pieces, at)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        self.hook.look();
        self.file.read_at(buffer, at)
    }

    fn size(&self) -> Result<u64, Errno> {
        self.hook.look();
        self.file.size()
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        self.hook.change(false)?;
        self.file.truncate(size)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.hook.change(false)?;
        self.file.sync()
    }

    fn reserve(&self, len: u64) -> Result<(), Errno> {
        self.hook.change(true)?;
        self.file.reserve(len)
    }

    fn insert_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        self.hook.change(true)?;
        self.file.insert_range(at, len)
    }

    fn collapse_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        self.hook.change(true)?;
        self.file.collapse_range(at, len)
    }

    fn next_data(&self, from: u64) -> Result<Option<u64>, Errno> {
        self.hook.look();
        self.file.next_data(from)
    }

    fn next_hole(&self, from: u64) -> Result<u64, Errno> {
        self.hook.look();
        self.file.next_hole(from)
    }

    fn copy_to(&self, from: u64, to: &dyn DiskFile, at: u64, len: u64) -> Result<u64, Errno> {
        self.hook.change(true)?;
        self.file.copy_to(from, to, at, len)
    }

    fn lock(&self) -> Result<bool, Errno> {
        self.hook.look();
        self.file.lock()
    }

    fn inode(&self) -> Result<u64, Errno> {
        self.file.inode()
    }
}
