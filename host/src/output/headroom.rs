//! Room in front of a file that is written already: how an MP4 gets its moov first without being copied.
//!
//! The spool was begun behind a hole of the expected size. When another size is needed, the file system is asked
//! to shift the file (`FALLOC_FL_INSERT_RANGE`, `FALLOC_FL_COLLAPSE_RANGE`: ext4, XFS); where it can't, the media
//! is copied by the kernel into a new file, which shares the blocks where the file system can (Btrfs). The bytes
//! are the same in all cases.
//!
//! A shift goes extent by extent, and a crash can stop it after any of them. Linux lengthens the file first and
//! then moves extents from the last to the first (insert), or moves them from the first to the last and then
//! shortens it (collapse). So what a crash leaves is the file with a hole of the length of the shift somewhere
//! in it, and [`settle`] closes that, given the intent that the journal holds.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use rustix::io::Errno;

use super::{
    journal::Resize,
    storage::{Directory, DiskFile},
};

/// Name of the file that a copy grows in: the spool's name and this.
pub const COPY: &str = ".copy";
/// Bytes asked of one copy in the kernel; each can be interrupted.
const COPY_STEP: u64 = 64 << 20;
/// How often a long copy says how far it is.
const PROGRESS: std::time::Duration = std::time::Duration::from_secs(5);

/// Makes the head of a file (its first `from` bytes) `to` bytes long. `name` is the file's name in `folder`.
/// Returns the file to go on with, which is another one after a copy. A head that has grown begins with zeros;
/// one that shrinks loses its first bytes.
pub fn resize(
    folder: &dyn Directory,
    name: &str,
    file: &Arc<dyn DiskFile>,
    from: u64,
    to: u64,
) -> Result<Arc<dyn DiskFile>, Errno> {
    let shifted = match from.cmp(&to) {
        std::cmp::Ordering::Equal => return Ok(file.clone()),
        std::cmp::Ordering::Less => file.insert_range(0, to - from),
        std::cmp::Ordering::Greater => file.collapse_range(0, from - to),
    };
    match shifted {
        Ok(()) => Ok(file.clone()),
        // Not this file system, or not at its block size.
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::FBIG) => {
            copy(folder, name, file, from, to)
        }
        Err(errno) => Err(errno),
    }
}

/// Finishes or undoes a resizing that a crash may have stopped; returns how long the head is now. What was
/// written must be in the file: the intent is recorded after a sync.
pub fn settle(file: &dyn DiskFile, resize: &Resize) -> Result<u64, Errno> {
    let &Resize { from, to, size, .. } = resize;
    let now = file.size()?;
    if to >= from {
        let shift = to - from;
        if now < size + shift {
            // It is lengthened first, so nothing happened.
            return Ok(from);
        }
        if file.next_data(from)?.is_none_or(|data| data >= to) {
            return Ok(to);
        }
        match file.next_hole(from)? {
            hole if hole >= size => file.truncate(size)?,
            hole => file.collapse_range(hole, shift)?,
        }
        return Ok(from);
    }
    let shift = from - to;
    if now < size {
        // It is shortened last, so all is done.
        return Ok(to);
    }
    match file.next_hole(0)? {
        hole if hole >= size => Ok(from),
        hole => {
            file.collapse_range(hole, shift)?;
            Ok(to)
        }
    }
}

/// Overwrites a head with zeros, as it was when it was new.
pub fn clear(file: &dyn DiskFile, head: u64) -> Result<(), Errno> {
    const STEP: u64 = 1 << 20;
    let zeros = Bytes::from(vec![0; head.min(STEP) as usize]);
    let mut at = 0;
    while at < head {
        let len = (head - at).min(STEP);
        file.write_at(&[zeros.slice(..len as usize)], at)?;
        at += len;
    }
    Ok(())
}

/// Copies what lies behind the head into a new file with another one, and puts that in the old one's place.
fn copy(
    folder: &dyn Directory,
    name: &str,
    file: &Arc<dyn DiskFile>,
    from: u64,
    to: u64,
) -> Result<Arc<dyn DiskFile>, Errno> {
    let copy_name = format!("{name}{COPY}");
    folder.remove(&copy_name)?;
    let copy = folder.create(&copy_name)?;
    let result = copy_behind(&**file, &*copy, from, to, name)
        .and_then(|()| copy.sync())
        .and_then(|()| folder.rename(&copy_name, name, true));
    match result {
        Ok(()) => Ok(copy),
        Err(errno) => {
            let _ = folder.remove(&copy_name);
            Err(errno)
        }
    }
}

fn copy_behind(
    file: &dyn DiskFile,
    copy: &dyn DiskFile,
    mut from: u64,
    mut to: u64,
    name: &str,
) -> Result<(), Errno> {
    let end = file.size()?;
    copy.truncate(to + end.saturating_sub(from))?;
    let mut said = Instant::now();
    while from < end {
        let copied = file.copy_to(from, copy, to, (end - from).min(COPY_STEP))?;
        if copied == 0 {
            return Err(Errno::IO);
        }
        from += copied;
        to += copied;
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            tracing::info!(file = name, copied = from, of = end, "closing by a copy, which takes a while");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::storage::RealDirectory;

    fn folder(path: &std::path::Path) -> RealDirectory {
        RealDirectory::new(std::fs::File::open(path).unwrap().into())
    }

    fn spool(folder: &RealDirectory, head: u64) -> (Arc<dyn DiskFile>, Vec<u8>) {
        let file = folder.create("x.mdat").unwrap();
        let media: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        file.write_at(&[media.clone().into()], head).unwrap();
        (file, media)
    }

    fn check(file: &dyn DiskFile, path: &std::path::Path, media: &[u8], head: u64) {
        let named = std::fs::read(path.join("x.mdat")).unwrap();
        let head = head as usize;
        assert_eq!(named.len(), head + media.len());
        assert!(named[..head].iter().all(|&b| b == 0), "the head is empty");
        assert_eq!(&named[head..], media);
        file.write_at(&[Bytes::from_static(b"moov")], 0).unwrap();
        assert_eq!(&std::fs::read(path.join("x.mdat")).unwrap()[..4], b"moov", "the file of that name");
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn both_ways_give_the_same_file() {
        for (from, to) in [(4096, 4096), (4096, 8192), (4096, 65_536), (65_536, 8192)] {
            let dir = tempfile::tempdir().unwrap();
            let folder1 = folder(dir.path());
            let (file, media) = spool(&folder1, from);
            let file = resize(&folder1, "x.mdat", &file, from, to).unwrap();
            check(&*file, dir.path(), &media, to);

            let dir = tempfile::tempdir().unwrap();
            let folder2 = folder(dir.path());
            let (file, media) = spool(&folder2, from);
            let file = copy(&folder2, "x.mdat", &file, from, to).unwrap();
            check(&*file, dir.path(), &media, to);
        }
    }

    #[test]
    fn a_head_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        let (file, media) = spool(&folder, 8192);
        file.write_at(&[vec![7; 8192].into()], 0).unwrap();
        clear(&*file, 8192).unwrap();
        check(&*file, dir.path(), &media, 8192);
    }
}
