//! Where a recording may be written: `pathToFile` to a folder's descriptor and a file name.
//!
//! A relative path lies in the media root, an absolute one in the media root or an allowed path. The
//! folder is opened with `openat2(RESOLVE_BENEATH)`, so that neither `..` nor a symbolic link, not even
//! one put there in between, leads outside.

use std::{
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::storage::{Directory, RealDirectory};
use crate::names::is_hidden;

/// Longest file name on Linux file systems, less room for what is added (`_0001_part0000`, extension, spool name).
const MAX_STEM: usize = 255 - 64;

/// How often a path is resolved anew because something was renamed meanwhile.
const MAX_TRIES: u32 = 1000;

/// Whose creation tells whether a folder can be written to.
const TRIAL: &str = ".reelwright-writable";

/// Characters of a path that messages show.
const MAX_SHOWN: usize = 300;

/// Why a path can't be recorded to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("pathToFile {path:?} has the character U+{character:04X}: it is hidden, or a control character")]
    Hidden { path: String, character: u32 },
    #[error("pathToFile `{path}` is a Windows path; this server runs on Linux")]
    Windows { path: String },
    #[error("pathToFile `{path}` has no file name")]
    NoFileName { path: String },
    #[error("pathToFile `{path}`: the file name is over {MAX_STEM} bytes")]
    NameTooLong { path: String },
    #[error("pathToFile `{path}` has `..`; give a path below the media root {root}")]
    ParentFolder { path: String, root: PathBuf },
    #[error("{path} lies outside the media root {root}; allow its folder with --allow-path")]
    Outside { path: PathBuf, root: PathBuf },
    #[error("{path} leads outside {root} by a symbolic link; allow where it leads with --allow-path")]
    Escapes { path: PathBuf, root: PathBuf },
    #[error("{path}: {}", describe(*.errno))]
    Folder { path: PathBuf, errno: Errno },
    #[error("{path}: no free name among {path} and 9,999 numbered ones")]
    NoFreeName { path: PathBuf },
}

/// A folder that recordings may be written to.
#[derive(Debug)]
struct Root {
    /// Without symbolic links.
    path: PathBuf,
    /// As it was given, made absolute: who asks may call it the same.
    given: PathBuf,
    fd: OwnedFd,
}

/// The media root and the other allowed folders.
#[derive(Debug)]
pub struct Roots {
    media: Root,
    allowed: Vec<Root>,
}

/// A folder, open, and the path it was reached by (for messages).
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    pub dir: Arc<dyn Directory>,
    /// Device and inode: which folder it is, however it was spelled.
    pub id: (u64, u64),
}

/// A folder and the file name that was asked for, extension included if it had one.
#[derive(Clone, Debug)]
pub struct Target {
    pub folder: Arc<Folder>,
    pub name: String,
}

/// A path taken apart.
#[derive(Debug)]
struct Place<'a> {
    root: &'a Root,
    /// The folder's way from there; empty: the root itself.
    below: PathBuf,
    name: String,
}

impl Roots {
    /// Opens the media root, which is created if it is missing, and the allowed paths, which must exist.
    pub fn open(media: &Path, allowed: &[PathBuf]) -> std::io::Result<Self> {
        std::fs::create_dir_all(media)?;
        let open = |path: &Path| -> std::io::Result<Root> {
            let given = std::path::absolute(path)?;
            let path = path.canonicalize()?;
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(Root { fd: rustix::fs::open(&path, flags, Mode::empty())?, path, given })
        };
        let with_path = |path: &Path, error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        Ok(Self {
            media: open(media).map_err(|e| with_path(media, e))?,
            allowed: allowed
                .iter()
                .map(|path| open(path).map_err(|e| with_path(path, e)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The media root's path, without symbolic links.
    pub fn media(&self) -> &Path {
        &self.media.path
    }

    /// The paths of all roots, without symbolic links.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.media).chain(&self.allowed).map(|root| root.path.as_path())
    }

    /// Finds the folder of a `pathToFile`. It has to exist and to be writable.
    pub fn resolve(&self, path_to_file: &str) -> Result<Target, PathError> {
        let target = self.find(path_to_file)?;
        check_writable(&target.folder)?;
        Ok(target)
    }

    /// Finds the folder of a `pathToFile`, which has to exist.
    pub fn find(&self, path_to_file: &str) -> Result<Target, PathError> {
        let place = self.place(path_to_file)?;
        let folder = open_below(place.root, &place.below)?;
        Ok(Target { folder: Arc::new(folder), name: place.name })
    }

    /// Finds the folder of a `pathToFile`, and makes it if it is missing. What is made is durable.
    pub fn make(&self, path_to_file: &str) -> Result<Target, PathError> {
        let place = self.place(path_to_file)?;
        let folder = match open_below(place.root, &place.below) {
            Err(PathError::Folder { errno: Errno::NOENT, .. }) => make_below(place.root, &place.below)?,
            found => found?,
        };
        Ok(Target { folder: Arc::new(folder), name: place.name })
    }

    /// Whether [`Roots::make`] may make the folder of a `pathToFile`: what of it is there has to be writable.
    pub fn may_make(&self, path_to_file: &str) -> Result<(), PathError> {
        let place = self.place(path_to_file)?;
        let mut below = place.below.as_path();
        loop {
            match open_below(place.root, below) {
                Err(PathError::Folder { errno: Errno::NOENT, .. }) if !below.as_os_str().is_empty() => {
                    below = below.parent().unwrap_or(Path::new(""));
                }
                folder => return check_writable(&folder?),
            }
        }
    }

    /// The path that a `pathToFile` means, be it there or not.
    pub fn locate(&self, path_to_file: &str) -> Result<PathBuf, PathError> {
        let place = self.place(path_to_file)?;
        Ok(place.root.path.join(place.below).join(place.name))
    }

    /// Takes a `pathToFile` apart. Looks at nothing on the disk.
    fn place(&self, path_to_file: &str) -> Result<Place<'_>, PathError> {
        let asked = || path_to_file.chars().take(MAX_SHOWN).collect::<String>();
        if let Some(hidden) = path_to_file.chars().find(|c| is_hidden(*c)) {
            return Err(PathError::Hidden { path: asked(), character: hidden.into() });
        }
        if path_to_file.contains('\\') || path_to_file.as_bytes().get(1) == Some(&b':') {
            return Err(PathError::Windows { path: asked() });
        }
        // `../media/NAME` of the EvoStream documentation means the media root.
        let path = Path::new(path_to_file.strip_prefix("../media/").unwrap_or(path_to_file));
        if path_to_file.ends_with('/') || path_to_file.ends_with("/.") || path.file_name().is_none() {
            return Err(PathError::NoFileName { path: asked() });
        }
        if path.components().any(|c| c == Component::ParentDir) {
            return Err(PathError::ParentFolder { path: asked(), root: self.media.path.clone() });
        }
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            return Err(PathError::NoFileName { path: asked() });
        };
        if name.len() > MAX_STEM {
            return Err(PathError::NameTooLong { path: asked() });
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let (root, below) = self
            .root_of(parent)
            .ok_or_else(|| PathError::Outside { path: asked().into(), root: self.media.path.clone() })?;
        Ok(Place { root, below: below.to_owned(), name: name.into() })
    }

    /// All folders below the roots, the roots included. Symbolic links are not followed; what can't be opened is an
    /// error, and the walk goes on.
    pub fn walk(self: Arc<Self>) -> tokio::sync::mpsc::Receiver<Result<Folder, PathError>> {
        let (folders, walked) = tokio::sync::mpsc::channel(16);
        // Each on its own: one may lie on a disk that stalls.
        for root in 0..=self.allowed.len() {
            let (roots, folders) = (self.clone(), folders.clone());
            tokio::task::spawn_blocking(move || {
                let root = if root == 0 { &roots.media } else { &roots.allowed[root - 1] };
                let mut todo = vec![PathBuf::new()];
                while let Some(below) = todo.pop() {
                    let folder = open_below(root, &below).inspect(|folder| {
                        // Which folders are in it; a folder that can't be read shows again when its files are.
                        let entries = std::fs::read_dir(&folder.path).into_iter().flatten().flatten();
                        let folders = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
                        let mut folders: Vec<_> = folders.map(|e| below.join(e.file_name())).collect();
                        // The last is next: folders of dates come in their order.
                        folders.sort_unstable_by(|a, b| b.cmp(a));
                        todo.append(&mut folders);
                    });
                    if folders.blocking_send(folder).is_err() {
                        return;
                    }
                }
            });
        }
        walked
    }

    /// The root that a folder lies in, and the way from there.
    fn root_of<'p>(&self, folder: &'p Path) -> Option<(&Root, &'p Path)> {
        if !folder.is_absolute() {
            return Some((&self.media, folder));
        }
        let below =
            |root: &Root| folder.strip_prefix(&root.path).or_else(|_| folder.strip_prefix(&root.given)).ok();
        std::iter::once(&self.media).chain(&self.allowed).find_map(|root| Some((root, below(root)?)))
    }
}

fn open_below(root: &Root, below: &Path) -> Result<Folder, PathError> {
    let (path, way) = match below.as_os_str().is_empty() {
        true => (root.path.clone(), Path::new(".")),
        false => (root.path.join(below), below),
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    let fd = loop {
        tries += 1;
        match rustix::fs::openat2(&root.fd, way, flags, Mode::empty(), resolve) {
            // A rename raced with the resolution, which the kernel then can't vouch for; or a signal.
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => {}
            Err(Errno::XDEV) => {
                return Err(PathError::Escapes { path, root: root.path.clone() });
            }
            result => break result.map_err(|errno| PathError::Folder { path: path.clone(), errno })?,
        }
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| PathError::Folder { path: path.clone(), errno })?;
    Ok(Folder { path, dir: Arc::new(RealDirectory::new(fd)), id: (stat.st_dev, stat.st_ino) })
}

/// Makes a folder and those that it lies in, as far as they are missing. Each is looked up from the root, so that a link
/// that somebody puts there in between does not help.
fn make_below(root: &Root, below: &Path) -> Result<Folder, PathError> {
    let mut way = PathBuf::new();
    let mut folder = open_below(root, &way)?;
    for component in below.components() {
        let Component::Normal(name) = component else { continue };
        way.push(name);
        let failed = |errno| PathError::Folder { path: root.path.join(&way), errno };
        let name = name.to_str().ok_or_else(|| failed(Errno::ILSEQ))?;
        folder = match open_below(root, &way) {
            Err(PathError::Folder { errno: Errno::NOENT, .. }) => {
                match folder.dir.make_folder(name) {
                    // Somebody else has just made it.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                // Files in it are only as durable as it is.
                folder.dir.sync().map_err(failed)?;
                open_below(root, &way)?
            }
            found => found?,
        };
    }
    Ok(folder)
}

/// Tries to create a file, since permissions say nothing of read-only mounts or of other modules' rules.
fn check_writable(folder: &Folder) -> Result<(), PathError> {
    let tried = match folder.dir.create(TRIAL) {
        // Somebody else is just trying, or died in between.
        Ok(_) | Err(Errno::EXIST) => folder.dir.remove(TRIAL),
        Err(errno) => Err(errno),
    };
    match tried {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(PathError::Folder { path: folder.path.clone(), errno }),
    }
}

/// An error's text in the words of the C library, in lower case: `permission denied`.
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn roots() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let path = |p: &str| dir.path().join(p);
        for folder in ["media/sub", "allowed", "outside"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        symlink(path("outside"), path("media/absolute")).unwrap();
        symlink("../outside", path("media/relative")).unwrap();
        symlink("sub", path("media/inner")).unwrap();
        let roots = Roots::open(&path("media"), &[path("allowed")]).unwrap();
        (dir, roots)
    }

    #[test]
    fn paths_that_are_allowed() {
        let (dir, roots) = roots();
        let media = dir.path().canonicalize().unwrap().join("media");
        let absolute = media.with_file_name("allowed").join("x.mp4");
        for (asked, folder, name) in [
            ("cam", media.clone(), "cam"),
            ("./cam.mp4", media.clone(), "cam.mp4"),
            ("../media/cam.flv", media.clone(), "cam.flv"),
            ("sub/-cam 1", media.join("sub"), "-cam 1"),
            ("inner/cam", media.join("inner"), "cam"),
            (absolute.to_str().unwrap(), media.with_file_name("allowed"), "x.mp4"),
        ] {
            let target = roots.resolve(asked).unwrap_or_else(|e| panic!("{asked}: {e}"));
            assert_eq!(target.name, name);
            assert_eq!(target.folder.path.canonicalize().unwrap(), folder.canonicalize().unwrap());
        }
        let inner = roots.resolve("inner/cam").unwrap();
        assert_eq!(inner.folder.id, roots.resolve("sub/cam").unwrap().folder.id);
    }

    #[test]
    fn paths_that_are_not() {
        let (dir, roots) = roots();
        let outside = dir.path().join("outside/x").display().to_string();
        let long = "x".repeat(192);
        for (asked, message) in [
            ("../x", "has `..`"),
            ("sub/../../outside/x", "has `..`"),
            ("../media/../x", "has `..`"),
            ("..", "no file name"),
            ("sub/", "no file name"),
            ("sub/.", "no file name"),
            ("", "no file name"),
            (outside.as_str(), "outside the media root"),
            ("/etc/passwd", "--allow-path"),
            ("absolute/x", "symbolic link"),
            ("relative/x", "symbolic link"),
            ("a\0b", "control character"),
            ("a\nb", "control character"),
            ("a\u{202e}4pm", "U+202E: it is hidden"),
            ("a\u{2028}b", "U+2028: it is hidden"),
            ("C:\\media\\x", "Windows"),
            ("missing/x", "no such file or directory"),
            (long.as_str(), "over 191 bytes"),
        ] {
            let error = roots.resolve(asked).unwrap_err().to_string();
            assert!(error.contains(message), "{asked:?}: {error}");
        }
    }

    #[test]
    fn folders_are_made_below_the_roots_and_nowhere_else() {
        let (dir, roots) = roots();
        roots.may_make("new/deep/x").unwrap();
        assert!(!dir.path().join("media/new").exists(), "only asked");
        let target = roots.make("new/deep/x").unwrap();
        assert_eq!(
            (target.name.as_str(), roots.find("new/deep/x").unwrap().folder.id),
            ("x", target.folder.id)
        );
        assert_eq!(roots.make("./new/./deep/y").unwrap().folder.id, target.folder.id);
        for (asked, message) in [
            ("relative/new/x", "symbolic link"),
            ("absolute/new/x", "symbolic link"),
            ("../new/x", "has `..`"),
            ("/elsewhere/x", "outside the media root"),
        ] {
            for result in [roots.make(asked).map(|_| ()), roots.may_make(asked)] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(message), "{asked}: {error}");
            }
        }
        assert_eq!(std::fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        std::fs::write(dir.path().join("media/file"), "").unwrap();
        let error = roots.make("file/new/x").unwrap_err().to_string();
        assert!(error.contains("not a directory"), "{error}");
    }

    #[test]
    fn a_root_may_be_called_as_it_was_given() {
        let (dir, _) = roots();
        let link = dir.path().join("link");
        symlink(dir.path().join("media"), &link).unwrap();
        let roots = Roots::open(&link, &[]).unwrap();
        for folder in [link, dir.path().canonicalize().unwrap().join("media")] {
            let target = roots.resolve(folder.join("sub/x").to_str().unwrap()).unwrap();
            assert_eq!(
                (target.folder.path.as_path(), target.name.as_str()),
                (&*roots.media().join("sub"), "x")
            );
        }
        let error = roots.resolve("/elsewhere/x").unwrap_err().to_string();
        assert!(error.contains("outside the media root"), "{error}");
    }

    #[test]
    fn a_trial_leaves_nothing_and_minds_no_leftover() {
        let (dir, roots) = roots();
        let names = || std::fs::read_dir(dir.path().join("media/sub")).unwrap().count();
        std::fs::write(dir.path().join("media/sub").join(TRIAL), "").unwrap();
        for _ in 0..2 {
            roots.resolve("sub/x").unwrap();
            assert_eq!(names(), 0);
        }
    }

    #[test]
    fn a_link_that_is_put_there_in_between_leads_nowhere() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};

        let (dir, roots) = roots();
        let path = |p: &str| dir.path().join(p);
        std::fs::create_dir(path("media/d")).unwrap();
        symlink(path("outside"), path("media/e")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (mut made, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    renameat_with(CWD, path("media/d"), CWD, path("media/e"), RenameFlags::EXCHANGE).unwrap();
                }
            });
            // Until it was seen both ways, and often.
            for round in 0..20_000 {
                match roots.make(&format!("d/new{round}/x")) {
                    Ok(target) => {
                        target.folder.dir.create("x").unwrap();
                        made += 1;
                    }
                    Err(PathError::Escapes { .. } | PathError::Folder { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                if made >= 100 && refused >= 100 {
                    break;
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(made > 0 && refused > 0, "{made} were made, {refused} refused");
        assert_eq!(std::fs::read_dir(path("outside")).unwrap().count(), 0);
    }

    #[test]
    fn a_long_path_is_shown_in_part() {
        let (_dir, roots) = roots();
        let error = roots.find(&"x".repeat(4096)).unwrap_err().to_string();
        assert!(error.len() < 500, "{error}");
    }

    #[test]
    fn an_unwritable_folder_says_so() {
        let dir = tempfile::tempdir().unwrap();
        // Even root can't create files there.
        let roots = Roots::open(&dir.path().join("media"), &["/sys/kernel".into()]).unwrap();
        let error = roots.resolve("/sys/kernel/x").unwrap_err().to_string();
        assert_eq!(error, "/sys/kernel: permission denied");
    }
}
