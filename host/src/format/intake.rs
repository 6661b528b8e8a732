//! Component files, read without trust in what they are; those that commands name only from where the operator keeps
//! such files.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    LoadError,
    check::{MAX_COMPONENT, check_size},
};
use crate::output::Roots;

/// Reads a component. A relative path lies in the formats folder or in the media root; where a file really lies, with
/// all symbolic links followed, must be in the formats folder, the media root or an allowed path. Blocks.
pub fn read(text: &str, folder: Option<&Path>, roots: &Roots) -> Result<(PathBuf, Vec<u8>), LoadError> {
    let text = text.strip_prefix("../media/").unwrap_or(text);
    let mut tried = Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    for base in folder.into_iter().chain([roots.media()]) {
        tried = open(&base.join(text));
        if !matches!(&tried, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
            break;
        }
    }
    let file = tried?;
    // Of what was opened, so that nobody can exchange it in between.
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let folder = folder.and_then(|folder| folder.canonicalize().ok());
    let allowed = folder.as_deref().into_iter().chain(roots.all()).any(|root| path.starts_with(root));
    if !allowed {
        return Err(LoadError::Outside { path });
    }
    let wasm = read_all(file, &path)?;
    Ok((path, wasm))
}

/// Reads a component that the operator named. Blocks, but not for ever, whatever it is.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    read_all(open(path)?, path)
}

fn read_all(file: File, path: &Path) -> Result<Vec<u8>, LoadError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    check_size(metadata.len())?;
    let mut wasm = Vec::new();
    file.take(MAX_COMPONENT + 1).read_to_end(&mut wasm)?;
    check_size(wasm.len() as u64)?;
    Ok(wasm)
}

/// Opens whatever it is, without waiting for a FIFO's other end.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn files_are_read_where_they_may_lie() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["formats", "media", "allowed", "elsewhere"] {
            fs::create_dir(path(folder)).unwrap();
            fs::write(path(folder).join(format!("{folder}.wasm")), folder).unwrap();
        }
        symlink(path("elsewhere/elsewhere.wasm"), path("media/link.wasm")).unwrap();
        symlink(path("allowed/allowed.wasm"), path("media/good.wasm")).unwrap();
        let roots = Roots::open(&path("media"), &[path("allowed")]).unwrap();
        let read = |text: &str| read(text, Some(&path("formats")), &roots);
        for (text, found) in [
            ("formats.wasm", "formats"),
            ("media.wasm", "media"),
            ("../media/media.wasm", "media"),
            ("good.wasm", "allowed"),
            (path("allowed/allowed.wasm").to_str().unwrap(), "allowed"),
        ] {
            assert_eq!(read(text).unwrap().1, found.as_bytes(), "{text}");
        }
        for text in ["../elsewhere/elsewhere.wasm", "link.wasm", "/etc/passwd", "/proc/self/maps"] {
            assert!(matches!(read(text), Err(LoadError::Outside { .. })), "{text}");
        }
        for text in ["none.wasm", "/nowhere"] {
            assert!(matches!(read(text), Err(LoadError::Read(_))), "{text}");
        }
        assert!(matches!(read("../media"), Err(LoadError::NotAFile { .. })));
        let fifo = path("media/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(read("fifo"), Err(LoadError::NotAFile { .. })));
    }
}
