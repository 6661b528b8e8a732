//! What recordings ask of a disk: the one place where system calls on them are made.
//!
//! [`Directory`] and [`DiskFile`] are the whole vocabulary of the recorder's file work, so that a test can put
//! a model of a disk in the place of the real one, cut its power after any of these calls, or let any of them
//! fail. Calls block; they are made on a volume's threads (see [`volume`](super::volume)).
//!
//! Names are single file names. Errors are those of the system.

use std::{
    fmt::Debug,
    fs::File,
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use bytes::Bytes;
use rustix::{
    fs::{Advice, AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, SeekFrom},
    io::{Errno, ReadWriteFlags},
};

/// File systems whose syncfs makes everything durable, and tells of pages that could not be written (Linux 5.8): ext4, XFS,
/// Btrfs.
const WHOLE_VOLUMES: [u64; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
/// Buffers in one `pwritev`; the kernel takes 1,024.
const MAX_SLICES: usize = 1024;

/// Room on a disk, in bytes, as far as we may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub free: u64,
}

/// A folder.
pub trait Directory: Debug + Send + Sync {
    /// Makes a file; `EXIST` if there is anything of that name.
    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno>;

    /// Opens a regular file to read and write. Symbolic links are not followed (`LOOP`).
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno>;

    /// Whether there is anything of that name.
    fn exists(&self, name: &str) -> Result<bool, Errno>;

    /// Names of the regular files, in any order. Names that are not UTF-8 are left out: none is ours.
    fn names(&self) -> Result<Vec<String>, Errno>;

    /// Makes a folder; `EXIST` if there is anything of that name.
    fn make_folder(&self, _name: &str) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Renames a file; unless `replace` is set, `EXIST` if there is anything of the new name.
    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Errno>;

    /// Removes a file; fine if there is none.
    fn remove(&self, name: &str) -> Result<(), Errno>;

    /// Makes all that was created, renamed and removed here durable.
    fn sync(&self) -> Result<(), Errno>;

    /// Makes durable all that was written to the folder's file system, names as well: much cheaper than to do it for each
    /// of many files, but it waits for what other programs wrote there, too. An error may be about any file; its own
    /// sync says so again. `OPNOTSUPP`: not known to be good for that file system.
    fn sync_volume(&self) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Room on the disk that the folder is on.
    fn space(&self) -> Result<Space, Errno>;
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Writes all pieces, one behind the other.
    fn write_at(&self, pieces: &[Bytes], at: u64) -> Result<(), Errno>;

    /// Fills the buffer, as far as the file goes. Returns the bytes read.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno>;

    /// The same for what is in memory, without waiting for a disk. `AGAIN`: not all of it is, or that is not known.
    fn read_cached(&self, _buffer: &mut [u8], _at: u64) -> Result<usize, Errno> {
        Err(Errno::AGAIN)
    }

    /// Bytes up to the file's end.
    fn size(&self) -> Result<u64, Errno>;

    /// Cuts the file off, or lengthens it by a hole. Frees what was reserved behind.
    fn truncate(&self, size: u64) -> Result<(), Errno>;

    /// Makes what was written durable, and what is needed to read it; not the file's name.
    fn sync(&self) -> Result<(), Errno>;

    /// Lets the disk begin to take what was written, of which a sync then finds less. Waits for nothing.
    fn start_writeback(&self) {}

    /// Says that the first `len` bytes, which are durable, will not be read soon, so that memory need not hold them.
    fn forget(&self, _len: u64) {}

    /// Takes disk space for `len` bytes behind the file's end without changing its size. What is written
    /// there later needs no more.
    fn reserve(&self, len: u64) -> Result<(), Errno>;

    /// Shifts everything from `at` on by `len` and leaves a hole. `OPNOTSUPP` or `INVAL`: not this file system,
    /// or not at these numbers.
    fn insert_range(&self, at: u64, len: u64) -> Result<(), Errno>;

    /// Takes `len` bytes at `at` out of the file and shifts what is behind to the front.
    fn collapse_range(&self, at: u64, len: u64) -> Result<(), Errno>;

    /// Where data begins, at `from` or behind it; `None`: only a hole is left.
    fn next_data(&self, from: u64) -> Result<Option<u64>, Errno>;

    /// Where a hole begins, at `from` or behind it; the file's end counts as one.
    fn next_hole(&self, from: u64) -> Result<u64, Errno>;

    /// Copies up to `len` bytes at `from` into another file of the same folder, by sharing the blocks where the file
    /// system can. Returns how many; 0 at the end.
    fn copy_to(&self, from: u64, to: &dyn DiskFile, at: u64, len: u64) -> Result<u64, Errno>;

    /// Locks the file for this opening of it; `false` if another has it locked. The lock goes with the process.
    fn lock(&self) -> Result<bool, Errno>;

    /// Which file this is, for as long as it exists.
    fn inode(&self) -> Result<u64, Errno>;

    /// The descriptor, if there is one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A folder on a real disk.
#[derive(Debug)]
pub struct RealDirectory(OwnedFd);

/// A file on a real disk.
#[derive(Debug)]
pub struct RealFile(File);

impl RealDirectory {
    /// From an open folder.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> Result<Arc<dyn DiskFile>, Errno> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = retry(|| rustix::fs::openat(&self.0, name, flags, Mode::from(0o644)))?;
        Ok(Arc::new(RealFile(fd.into())))
    }
}

impl Directory for RealDirectory {
    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        self.open_with(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        // A pipe or a device would block, or do worse; their openings end here.
        let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.open_with(name, OFlags::NONBLOCK),
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::INVAL),
        }
    }

    fn exists(&self, name: &str) -> Result<bool, Errno> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn names(&self) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let regular = match entry.file_type() {
                FileType::RegularFile => true,
                // File systems that do not say.
                FileType::Unknown => rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
                _ => false,
            };
            if regular {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn make_folder(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777))
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Errno> {
        if replace {
            return rustix::fs::renameat(&self.0, from, &self.0, to);
        }
        match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
            // Network file systems know no flags.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if self.exists(to)? {
                    return Err(Errno::EXIST);
                }
                rustix::fs::renameat(&self.0, from, &self.0, to)
            }
            result => result,
        }
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.0)
    }

    fn sync_volume(&self) -> Result<(), Errno> {
        let kind = rustix::fs::fstatfs(&self.0)?.f_type;
        // Of others, syncfs may tell no errors, or not reach the disk.
        if !WHOLE_VOLUMES.contains(&u64::try_from(kind).unwrap_or(0)) {
            return Err(Errno::OPNOTSUPP);
        }
        rustix::fs::syncfs(&self.0)?;
        // ext4 without a journal writes inodes behind the last flush of the disk's cache that this makes. A sync of the
        // folder ends with one, and takes no file's error from who has it open: each opening is told of an error once.
        self.sync()
    }

    fn space(&self) -> Result<Space, Errno> {
        let stat = rustix::fs::fstatvfs(&self.0)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, pieces: &[Bytes], mut at: u64) -> Result<(), Errno> {
        for pieces in pieces.chunks(MAX_SLICES) {
            let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut slices = &mut slices[..];
            while slices.iter().any(|slice| !slice.is_empty()) {
                let written = match retry(|| rustix::io::pwritev(&self.0, slices, at))? {
                    0 => return Err(Errno::IO),
                    written => written,
                };
                at += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], at + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
            }
        }
        Ok(read)
    }

    fn read_cached(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT)
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(rustix::fs::fstat(&self.0)?.st_size.unsigned_abs())
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        retry(|| rustix::fs::ftruncate(&self.0, size))
    }

    fn sync(&self) -> Result<(), Errno> {
        retry(|| rustix::fs::fdatasync(&self.0))
    }

    fn start_writeback(&self) {
        let (fd, all) = (self.0.as_raw_fd(), 0);
        // An advice; a fault shows in the sync.
        // SAFETY: the descriptor is open as long as the file is, and no memory is passed.
        unsafe { libc::sync_file_range(fd, 0, all, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn forget(&self, len: u64) {
        // An advice; nothing depends on it.
        let _ = rustix::fs::fadvise(&self.0, 0, std::num::NonZeroU64::new(len), Advice::DontNeed);
    }

    fn reserve(&self, len: u64) -> Result<(), Errno> {
        let end = self.size()?;
        retry(|| rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, end, len))
    }

    fn insert_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        retry(|| rustix::fs::fallocate(&self.0, FallocateFlags::INSERT_RANGE, at, len))
    }

    fn collapse_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        retry(|| rustix::fs::fallocate(&self.0, FallocateFlags::COLLAPSE_RANGE, at, len))
    }

    fn next_data(&self, from: u64) -> Result<Option<u64>, Errno> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(from)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn next_hole(&self, from: u64) -> Result<u64, Errno> {
        match rustix::fs::seek(&self.0, SeekFrom::Hole(from)) {
            Err(Errno::NXIO) => self.size(),
            result => result,
        }
    }

    fn copy_to(&self, from: u64, to: &dyn DiskFile, at: u64, len: u64) -> Result<u64, Errno> {
        let Some(to) = to.descriptor() else { return Err(Errno::XDEV) };
        let (mut from, mut at) = (from, at);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let copied = retry(|| rustix::fs::copy_file_range(&self.0, Some(&mut from), to, Some(&mut at), len))?;
        Ok(copied as u64)
    }

    fn lock(&self) -> Result<bool, Errno> {
        match retry(|| rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            // Network file systems without locks: nobody can have it.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    fn inode(&self) -> Result<u64, Errno> {
        Ok(rustix::fs::fstat(&self.0)?.st_ino)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, RealDirectory) {
        let dir = tempfile::tempdir().unwrap();
        let fd =
            rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let folder = RealDirectory::new(fd.unwrap());
        (dir, folder)
    }

    #[test]
    fn many_pieces_are_written_in_order() {
        let (_dir, folder) = folder();
        let file = folder.create("x").unwrap();
        let pieces: Vec<Bytes> = (0..3000u32).map(|i| i.to_be_bytes().to_vec().into()).collect();
        file.write_at(&pieces, 3).unwrap();
        let mut read = vec![0; 13_000];
        assert_eq!(file.read_at(&mut read, 3).unwrap(), 12_000);
        assert_eq!(read[..12_000], pieces.concat());
    }

    #[test]
    fn names_are_created_once_and_links_are_not_followed() {
        let (dir, folder) = folder();
        folder.create("a").unwrap();
        assert_eq!(folder.create("a").unwrap_err(), Errno::EXIST);
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        assert_eq!(folder.open("link").unwrap_err(), Errno::LOOP);
        assert_eq!(folder.open("none").unwrap_err(), Errno::NOENT);
        folder.create("b").unwrap();
        assert_eq!(folder.rename("a", "b", false).unwrap_err(), Errno::EXIST);
        folder.rename("a", "b", true).unwrap();
        assert_eq!(folder.names().unwrap(), ["b"]);
        folder.remove("a").unwrap();
    }

    #[test]
    fn a_lock_is_for_one() {
        let (_dir, folder) = folder();
        let first = folder.create("x").unwrap();
        assert!(first.lock().unwrap());
        let second = folder.open("x").unwrap();
        assert!(!second.lock().unwrap());
        drop(first);
        assert!(second.lock().unwrap());
    }
}
