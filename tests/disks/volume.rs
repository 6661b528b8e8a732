//! Small file systems of a test's own, mounted in a temporary folder.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
};

use crate::process;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    /// With blocks of 1 KiB.
    Ext4SmallBlocks,
    Xfs,
    Btrfs,
    Tmpfs,
}

/// A mounted file system; gone when it is dropped. Drop it after what uses it.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Of the image and the mount point. Its name has the process id; see [`sweep`].
    dir: tempfile::TempDir,
}

/// A volume that is frozen; thawed when it is dropped.
#[derive(Debug)]
pub(crate) struct Frozen(PathBuf);

const PREFIX: &str = "reelwright-volume-";

/// Whether tests may mount; `REELWRIGHT_NO_MOUNT=1` says no. Without the right to mount, [`Volume::mount`] fails.
pub(crate) fn allowed() -> bool {
    std::env::var_os("REELWRIGHT_NO_MOUNT").is_none_or(|value| value != "1")
}

/// As [`allowed`]; if not, says that the test is skipped.
pub(crate) fn may_mount() -> bool {
    if !allowed() {
        let thread = std::thread::current();
        eprintln!("{} skipped: REELWRIGHT_NO_MOUNT=1", thread.name().unwrap_or_default());
    }
    allowed()
}

impl Kind {
    fn make(self) -> Option<&'static [&'static str]> {
        match self {
            // All room is for everybody.
            Kind::Ext4 => Some(&["mkfs.ext4", "-q", "-F", "-m", "0"]),
            Kind::Ext4SmallBlocks => Some(&["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "1024"]),
            Kind::Xfs => Some(&["mkfs.xfs", "-q", "-f"]),
            Kind::Btrfs => Some(&["mkfs.btrfs", "-q", "-f"]),
            Kind::Tmpfs => None,
        }
    }
}

impl Volume {
    /// Makes one of `mib` MiB. mkfs.xfs makes none below 300, mkfs.btrfs none below 109. Its blocks are in memory,
    /// if there is room for them: its syncs do not wait for others' work.
    pub(crate) fn mount(kind: Kind, mib: u64) -> Self {
        sweep();
        let memory = Path::new("/dev/shm");
        let room = rustix::fs::statvfs(memory).is_ok_and(|stat| stat.f_bavail * stat.f_frsize >= mib << 20);
        let folder = if room { memory.to_owned() } else { std::env::temp_dir() };
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let volume = Self { dir: tempfile::Builder::new().prefix(&prefix).tempdir_in(folder).unwrap() };
        let point = volume.path();
        fs::create_dir(&point).unwrap();
        let mut mount = tool("mount");
        match kind.make() {
            Some(make) => {
                let image = volume.dir.path().join("image");
                File::create(&image).unwrap().set_len(mib << 20).unwrap();
                process::run(tool(make[0]).args(&make[1..]).arg(&image));
                // The loop device goes with the mount.
                mount.args(["-o", "loop"]).arg(image);
            }
            None => {
                mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "reelwright-test"]);
            }
        }
        let output = process::Process::start(mount.arg(&point)).wait();
        assert!(
            output.status.success(),
            "can't mount {kind:?}, which takes root; REELWRIGHT_NO_MOUNT=1 skips such tests: {}",
            output.stderr
        );
        volume
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("volume")
    }

    /// Arguments that let a server record to it.
    pub(crate) fn allowed(&self) -> [String; 2] {
        ["--allow-path".into(), self.path().display().to_string()]
    }

    /// A file's path, as an order to record takes it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    /// Names of all files in it, sorted; not those of a [`Volume::fill`].
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = names(&self.path());
        names.retain(|name| name != "filler" && name != "lost+found");
        names
    }

    /// Takes all room, to the last block.
    pub(crate) fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.path().join("filler")).unwrap();
        let mut len = 4 << 20;
        let zeros = vec![0; len];
        while len >= 512 {
            if file.write_all(&zeros[..len]).is_err() {
                len /= 2;
            }
        }
    }

    /// Gives back what [`Volume::fill`] took.
    pub(crate) fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    /// Lets all who write to it wait.
    pub(crate) fn freeze(&self) -> Frozen {
        process::run(tool("fsfreeze").arg("--freeze").arg(self.path()));
        Frozen(self.path())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        unmount(&self.path());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        process::run(tool("fsfreeze").arg("--unfreeze").arg(&self.0));
    }
}

/// Names of all in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn unmount(point: &Path) {
    let quiet = |arguments: &[&str]| {
        let mut command = tool("umount");
        command.args(arguments).arg(point).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    // Who was killed may still be closing its files; at the latest they go with the last of them.
    let polite = (0..50).any(|_| {
        quiet(&[]) || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            false
        }
    });
    if !polite {
        quiet(&["--lazy"]);
    }
}

/// Unmounts what tests that were killed left.
fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            let Some((_, name)) = point.split_once(PREFIX) else { continue };
            let owner = name.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(owner).exists() {
                let _ = tool("fsfreeze").arg("--unfreeze").arg(point).stderr(Stdio::null()).status();
                unmount(Path::new(point));
                let _ = Path::new(point).parent().map(fs::remove_dir_all);
            }
        }
    });
}

/// One of those that may lie where only root looks.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

#[test]
fn a_volume_is_full_to_its_last_block_and_goes_away() {
    if !may_mount() {
        return;
    }
    let mut points = Vec::new();
    for (kind, mib) in [(Kind::Ext4, 16), (Kind::Xfs, 300), (Kind::Btrfs, 110), (Kind::Tmpfs, 16)] {
        let volume = Volume::mount(kind, mib);
        volume.fill();
        assert!(fs::write(volume.path().join("x"), vec![1; 64 << 10]).is_err(), "{kind:?}");
        let _ = fs::remove_file(volume.path().join("x"));
        volume.free();
        // Some give back what was freed a little later.
        let write = || fs::write(volume.path().join("x"), vec![1; 64 << 10]).ok();
        process::until(&format!("room on {kind:?}"), write);
        assert_eq!(volume.names(), ["x"], "{kind:?}");
        if kind != Kind::Tmpfs {
            drop(volume.freeze());
        }
        points.push(volume.path());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let devices = process::run(tool("losetup").arg("--all"));
    for point in points {
        let image = point.with_file_name("image").display().to_string();
        assert!(!point.exists() && !mounts.contains(point.to_str().unwrap()) && !devices.contains(&image));
    }
}
