//! A media root in memory, where it can be, so that no disk is measured.

use std::{path::Path, sync::Arc};

use reelwright::output::{Disk, Roots, Segment, path::Folder};

/// A media root that goes when this does.
pub(crate) struct Media {
    dir: tempfile::TempDir,
    disk: Disk,
    folder: Arc<Folder>,
}

impl Media {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let dir = scratch()?;
        let disk = Disk::new(Roots::open(dir.path(), &[])?, None);
        let folder = disk.roots.resolve("x")?.folder;
        Ok(Self { dir, disk, folder })
    }

    /// The files of a new segment, named after a format.
    pub(crate) async fn segment(&self, format: &str) -> anyhow::Result<Segment> {
        let names = (0..).map(|number| format!("{number}.{format}"));
        Ok(Segment::claim(&self.disk, &self.folder, names, false).await?)
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Waits until the disk's thread is through with everything.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        self.disk.volumes.get(self.folder.id.0)?.settle().await;
        Ok(())
    }

    /// Settles, and removes all files.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        self.settle().await?;
        remove_files(self.dir.path())
    }
}

/// A folder of its own, in memory if the machine has such a file system.
pub(crate) fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    Ok(builder.tempdir_in(memory).or_else(|_| builder.tempdir())?)
}

/// Removes the files of a folder.
pub(crate) fn remove_files(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}
