//! A media root for the tests of this folder.

use std::sync::Arc;

use super::{Disk, Roots, path::Folder};

/// A folder that goes when this does, without sync points.
pub(super) struct Media {
    pub(super) dir: tempfile::TempDir,
    pub(super) disk: Disk,
    pub(super) folder: Arc<Folder>,
}

impl Media {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(Roots::open(dir.path(), &[]).unwrap(), None);
        let folder = disk.roots.resolve("x").unwrap().folder;
        Self { dir, disk, folder }
    }

    /// Names of all files, sorted.
    pub(super) fn files(&self) -> Vec<String> {
        let mut names = self.folder.dir.names().unwrap();
        names.sort();
        names
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }
}
