//! Room in front of a file that is written already: how an MP4 gets its moov first without being copied.
//!
//! The spool was begun behind a hole of the expected size. When more is needed, the file system is asked to
//! shift the file (`FALLOC_FL_INSERT_RANGE`: ext4, XFS); where it can't, the media is copied by the kernel
//! into a new file, which shares the blocks where the file system can (XFS, Btrfs). The bytes are the same
//! in all cases.

use std::{fs::File, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, FallocateFlags, Mode, OFlags},
    io::Errno,
};

/// Name of the file that a copy grows in: the spool's name and this.
const COPY: &str = ".copy";
/// Bytes asked of one `copy_file_range`; each is interruptible.
const COPY_STEP: usize = 64 << 20;

/// Makes the head of `file` (its first `old` bytes) `new` bytes long. `name` is the file's name in `folder`.
/// Returns the file to go on with, which is another one after a copy.
pub fn grow(folder: &OwnedFd, name: &str, file: File, old: u64, new: u64) -> Result<File, Errno> {
    if new <= old {
        return Ok(file);
    }
    match rustix::fs::fallocate(&file, FallocateFlags::INSERT_RANGE, 0, new - old) {
        Ok(()) => Ok(file),
        // Not this file system, or not at its block size.
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::FBIG) => {
            copy(folder, name, &file, old, new)
        }
        Err(errno) => Err(errno),
    }
}

/// Copies what lies behind the head into a new file with a longer one, and puts that in the old one's place.
fn copy(folder: &OwnedFd, name: &str, file: &File, old: u64, new: u64) -> Result<File, Errno> {
    let copy_name = format!("{name}{COPY}");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let copy = rustix::fs::openat(folder, &copy_name, flags, Mode::from(0o644))?;
    let result = copy_behind(file, &copy, old, new)
        .and_then(|()| rustix::fs::fdatasync(&copy))
        .and_then(|()| rustix::fs::renameat(folder, &copy_name, folder, name));
    match result {
        Ok(()) => Ok(copy.into()),
        Err(errno) => {
            let _ = rustix::fs::unlinkat(folder, &copy_name, AtFlags::empty());
            Err(errno)
        }
    }
}

fn copy_behind(file: &File, copy: &OwnedFd, old: u64, new: u64) -> Result<(), Errno> {
    let end = rustix::fs::fstat(file)?.st_size.unsigned_abs();
    let (mut from, mut to) = (old, new);
    rustix::fs::ftruncate(copy, new + end.saturating_sub(old))?;
    while from < end {
        let step = usize::try_from(end - from).map_or(COPY_STEP, |rest| rest.min(COPY_STEP));
        match rustix::fs::copy_file_range(file, Some(&mut from), copy, Some(&mut to), step) {
            Ok(0) => return Err(Errno::IO),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn folder(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap()
    }

    fn spool(path: &std::path::Path) -> (File, Vec<u8>) {
        let file = File::options().read(true).write(true).create_new(true).open(path.join("x.mdat")).unwrap();
        let media: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all_at(&media, 4096).unwrap();
        (file, media)
    }

    fn check(file: &File, path: &std::path::Path, media: &[u8], head: usize) {
        let named = std::fs::read(path.join("x.mdat")).unwrap();
        assert_eq!(named.len(), head + media.len());
        assert!(named[..head].iter().all(|&b| b == 0), "the head is empty");
        assert_eq!(&named[head..], media);
        file.write_all_at(b"moov", 0).unwrap();
        assert_eq!(&std::fs::read(path.join("x.mdat")).unwrap()[..4], b"moov", "the file of that name");
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn both_ways_give_the_same_file() {
        for head in [4096, 8192, 65_536] {
            let dir = tempfile::tempdir().unwrap();
            let (file, media) = spool(dir.path());
            let file = grow(&folder(dir.path()), "x.mdat", file, 4096, head).unwrap();
            check(&file, dir.path(), &media, head as usize);

            let dir = tempfile::tempdir().unwrap();
            let (file, media) = spool(dir.path());
            let file = copy(&folder(dir.path()), "x.mdat", &file, 4096, head).unwrap();
            check(&file, dir.path(), &media, head as usize);
        }
    }
}
