//! Publishers.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::{
    media,
    process::{self, Process},
};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Debian's FFmpeg 5.1.
    Ffmpeg5,
    /// The FFmpeg 9 in PyPI's imageio-ffmpeg.
    Ffmpeg9,
    /// GStreamer's rtmp2sink.
    Gstreamer,
    /// `reelwright publish`.
    Own,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    RealTime,
    /// As fast as the server takes it.
    Full,
}

static FFMPEG_9: LazyLock<PathBuf> = LazyLock::new(|| {
    let python = media::root().join("target/venv/bin/python");
    let script = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    let path = process::run(Command::new(python).args(["-c", script]));
    let path = PathBuf::from(path.trim());
    let version = process::run(Command::new(&path).arg("-version"));
    assert!(version.starts_with("ffmpeg version n9."), "{version}");
    path
});

/// The program under test.
pub(crate) fn reelwright() -> Command {
    Command::new(env!("CARGO_BIN_EXE_reelwright"))
}

/// Starts to send an FLV file in real time, again and again, until it is killed: for tests that stop when they
/// have seen enough.
pub(crate) fn endless(file: &Path, url: &str) -> Process {
    Process::start(reelwright().arg("publish").arg(file).arg(url).args(["--duration", "86400"]))
}

impl Sender {
    /// Starts to send an FLV file, as it is, to a URL.
    pub(crate) fn start(self, file: &Path, url: &str, pace: Pace) -> Process {
        Process::start(&mut match self {
            Sender::Ffmpeg5 => ffmpeg(Path::new("/usr/bin/ffmpeg"), file, url, pace),
            Sender::Ffmpeg9 => ffmpeg(&FFMPEG_9, file, url, pace),
            Sender::Gstreamer => {
                gstreamer(file, &format!("rtmp2sink location={url} sync={}", pace == Pace::RealTime))
            }
            Sender::Own => {
                let mut command = reelwright();
                let speed = if pace == Pace::RealTime { "1" } else { "0" };
                command.arg("publish").arg(file).arg(url).args(["--speed", speed]);
                command
            }
        })
    }

    /// Sends all of it.
    pub(crate) fn send(self, file: &Path, url: &str, pace: Pace) {
        self.start(file, url, pace).succeed();
    }

    /// What is on the wire when a file is sent, as a file. GStreamer's muxer alone gives other times.
    pub(crate) fn on_wire(self, file: &Path, into: &Path) -> PathBuf {
        if self != Sender::Gstreamer {
            return file.to_owned();
        }
        process::run(&mut gstreamer(file, &format!("filesink location={}", into.display())));
        into.to_owned()
    }
}

fn ffmpeg(program: &Path, file: &Path, url: &str, pace: Pace) -> Command {
    let mut command = Command::new(program);
    command.args(["-nostdin", "-v", "warning"]);
    if pace == Pace::RealTime {
        command.arg("-re");
    }
    command.arg("-i").arg(file).args(["-c", "copy", "-f", "flv", url]);
    command
}

fn gstreamer(file: &Path, sink: &str) -> Command {
    let bytes = std::fs::read(file).unwrap();
    let tags = media::tags(&bytes);
    let mut pipeline = format!(
        "filesrc location={} ! flvdemux name=in flvmux name=out streamable=true ! {sink}",
        file.display()
    );
    for (kind, name) in [(media::VIDEO, "video"), (media::AUDIO, "audio")] {
        if tags.iter().any(|tag| tag.kind == kind) {
            pipeline += &format!(" in.{name} ! queue max-size-time=0 max-size-buffers=0 ! out.{name}");
        }
    }
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    command
}
