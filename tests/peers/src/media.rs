//! What is sent. Made by FFmpeg once and kept beside the results.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

/// H.264 main with B-frames, a key frame each 2 s, and AAC; 10 s, repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// 1280x720, 30/s, 2.5 Mb/s and 128 kb/s: what the baseline was measured with.
    Usual,
    /// 1920x1080, 30/s, 20 Mb/s.
    High,
    /// 640x360, 25/s, 250 kb/s and 48 kb/s.
    Low,
}

/// The file, in a folder.
pub(super) fn clip(media: Media, folder: &Path) -> anyhow::Result<PathBuf> {
    let (name, size, rate, video, audio) = match media {
        Media::Usual => ("2500k", "1280x720", 30, "2500k", "128k"),
        Media::High => ("20M", "1920x1080", 30, "20M", "192k"),
        Media::Low => ("300k", "640x360", 25, "250k", "48k"),
    };
    let path = folder.join(format!("{name}.flv"));
    if path.exists() {
        return Ok(path);
    }
    let part = path.with_extension("part");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"]);
    ffmpeg.arg(format!("testsrc2=size={size}:rate={rate}:duration=10,noise=alls=20:allf=t"));
    ffmpeg.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=10"]);
    ffmpeg.args(
        "-c:v libx264 -preset veryfast -profile:v main -bf 2 -sc_threshold 0 -pix_fmt yuv420p".split(' '),
    );
    let group = (2 * rate).to_string();
    ffmpeg.args(["-g", &group, "-keyint_min", &group, "-b:v", video, "-minrate", video, "-maxrate", video]);
    ffmpeg.args(["-bufsize", video, "-x264-params", "nal-hrd=cbr", "-c:a", "aac", "-ac", "2", "-b:a", audio]);
    ensure!(ffmpeg.args(["-f", "flv"]).arg(&part).status()?.success(), "ffmpeg could not make {name}");
    std::fs::rename(part, &path)?;
    Ok(path)
}
