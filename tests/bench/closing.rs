//! What it takes to close a large MP4, beside what FFmpeg takes to move the index of the same file to its front.
//!
//! The files lie on a real disk, synced while they grow as the server does. The first is written in full; of the
//! second, which is larger than most disks have room for, the media is a hole, and everything else is real.

use std::{
    io::{BufRead, BufReader},
    os::{fd::BorrowedFd, unix::fs::MetadataExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use reelwright::{
    format::{Begin, End, Formats, Writer},
    media::Sample,
    output::{
        Disk, Roots, Segment,
        path::Folder,
        storage::{Directory, DiskFile, Space},
    },
};
use rustix::io::Errno;
use tokio::runtime::Runtime;

use crate::{
    Effort,
    baseline::Figures,
    muxers::{begin, get},
    stream::{self, Payload},
    timing::{Table, figure},
};

const GB: f64 = 1e9;
/// What a recording of unknown length is begun with.
const HEAD_ROOM: u64 = 16 << 10;
/// Seconds of the stream that is repeated.
const SECONDS: i64 = 60;

/// A file that was closed.
struct Closed {
    bytes: u64,
    samples: u64,
    time: Duration,
    /// Disk space of the file beyond its media, in bytes.
    extra: i64,
}

/// Measures and prints.
pub(crate) fn run(
    runtime: &Runtime,
    formats: &Formats,
    effort: Effort,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut table = Table::new(&["MP4", "GB", "samples", "close", "extra disk"]);
    let mut row = |name: &str, closed: &Closed| {
        table.row([
            name.to_owned(),
            figure(closed.bytes as f64 / GB),
            closed.samples.to_string(),
            format!("{} s", figure(closed.time.as_secs_f64())),
            format!("{} %", figure(closed.extra as f64 / closed.bytes as f64 * 100.0)),
        ]);
        figures.time(&format!("close of MP4, {name}"), "ms", closed.time.as_secs_f64() * 1e3);
    };

    let media = effort.pick(4_000_000_000, 4_000_000);
    let closed = runtime.block_on(record(formats, dir.path(), media, false))?;
    row("written in full", &closed);
    let path = dir.path().join("x.mp4");
    let faststart = match effort {
        Effort::Full => {
            check_frames(&path, &closed)?;
            Some(faststart(&path, &dir.path().join("faststart.mp4"))?)
        }
        Effort::Quick => None,
    };
    std::fs::remove_file(&path)?;

    let media = effort.pick(50_000_000_000, 50_000_000);
    row("media is a hole", &runtime.block_on(record(formats, dir.path(), media, true))?);

    println!("## Closing\n");
    println!("{table}");
    if let Some(faststart) = faststart {
        println!(
            "`ffmpeg -c copy -movflags +faststart` takes {} s for the first: {} times as long.\n",
            figure(faststart.as_secs_f64()),
            figure(faststart.as_secs_f64() / closed.time.as_secs_f64())
        );
    }
    Ok(())
}

/// Records so many bytes of media, and closes.
async fn record(formats: &Formats, dir: &Path, media: u64, hole: bool) -> anyhow::Result<Closed> {
    let disk = Disk::new(Roots::open(dir, &[])?, Some(Duration::from_secs(2)));
    let mut folder = disk.roots.resolve("x")?.folder;
    if hole {
        let Folder { path, dir, id } = &*folder;
        folder = Arc::new(Folder { path: path.clone(), dir: Arc::new(Holes(dir.clone())), id: *id });
    }
    let version = get(formats, "mp4")?;
    let segment = Segment::claim(&disk, &folder, std::iter::once("x.mp4".into()), false).await?;
    let mut writer = Writer::open(version, segment, Begin { head_room: HEAD_ROOM, ..begin() }).await?;
    // Holes need no real frames, and fewer of them make a stream of 20 Mb/s.
    let minute = stream::samples(SECONDS, Payload::Real);
    let (mut bytes, mut samples, mut minutes) = (0, 0, 0);
    let larger = if hole { Bytes::from(vec![0; 80_000]) } else { Bytes::new() };
    while bytes < media {
        let shift = minutes * SECONDS * 1000;
        let shifted: Vec<Sample> = minute
            .iter()
            .map(|sample| {
                let data = match hole && sample.track == stream::VIDEO {
                    true => larger.clone(),
                    false => sample.data.clone(),
                };
                let (dts_ms, pts_ms) = (sample.dts_ms + shift, sample.pts_ms + shift);
                Sample { dts_ms, pts_ms, data, ..sample.clone() }
            })
            .collect();
        for batch in shifted.chunks(64) {
            writer.write(batch).await?;
        }
        bytes += shifted.iter().map(|s| s.data.len() as u64).sum::<u64>();
        samples += shifted.len() as u64;
        minutes += 1;
    }
    // In real time, the disk would be as far as it is now.
    writer.sync().await?;
    let end = End { reason: "stopped", tracks: stream::ends(minutes * SECONDS) };
    let begun = Instant::now();
    let finished = writer.finish(end).await?.complete().await?;
    let time = begun.elapsed();
    let used = i64::try_from(std::fs::metadata(&finished.file.path)?.blocks() * 512)?;
    let media = if hole { 0 } else { i64::try_from(bytes)? };
    Ok(Closed { bytes: finished.file.bytes, samples, time, extra: used - media })
}

/// Has FFmpeg read every frame, which must be what was written.
fn check_frames(path: &Path, closed: &Closed) -> anyhow::Result<()> {
    let minute = stream::samples(SECONDS, Payload::Real);
    let expected = [stream::VIDEO, stream::AUDIO].map(|track| -> Vec<String> {
        let samples = minute.iter().filter(|s| s.track == track);
        samples.map(|s| format!("{:08x}", crc32fast::hash(&s.data))).collect()
    });
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0:v", "-map", "0:a", "-c", "copy", "-f", "framehash", "-hash", "crc32", "-"])
        .stdout(Stdio::piped())
        // It looks into frames that have nothing in them.
        .stderr(Stdio::null())
        .spawn()
        .context("ffmpeg")?;
    let mut counts = [0; 2];
    for line in BufReader::new(ffmpeg.stdout.take().context("its output")?).lines() {
        let line = line?;
        if line.starts_with('#') {
            continue;
        }
        let mut fields = line.split(',').map(str::trim);
        let track: usize = fields.next().context("a track")?.parse()?;
        let hash = fields.next_back().context("a hash")?;
        let expected = &expected[track];
        ensure!(hash == expected[counts[track] % expected.len()], "frame {} of track {track}", counts[track]);
        counts[track] += 1;
    }
    ensure!(ffmpeg.wait()?.success(), "ffmpeg failed");
    ensure!(counts.iter().sum::<usize>() as u64 == closed.samples, "{counts:?} frames");
    Ok(())
}

fn faststart(path: &Path, into: &Path) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0", "-c", "copy", "-movflags", "+faststart"])
        .arg(into)
        .stderr(Stdio::null())
        .status()
        .context("ffmpeg")?;
    ensure!(status.success(), "ffmpeg failed");
    let time = begun.elapsed();
    std::fs::remove_file(into)?;
    Ok(time)
}

/// A folder where media is not written: its file only grows.
#[derive(Debug)]
struct Holes(Arc<dyn Directory>);

#[derive(Debug)]
struct Hole {
    file: Arc<dyn DiskFile>,
    is_media: bool,
}

impl Holes {
    fn wrap(name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(Hole { file, is_media: name.ends_with(".mdat") })
    }
}

impl Directory for Holes {
    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        Ok(Self::wrap(name, self.0.create(name)?))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, Errno> {
        Ok(Self::wrap(name, self.0.open(name)?))
    }

    fn exists(&self, name: &str) -> Result<bool, Errno> {
        self.0.exists(name)
    }

    fn names(&self) -> Result<Vec<String>, Errno> {
        self.0.names()
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Errno> {
        self.0.rename(from, to, replace)
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        self.0.remove(name)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.0.sync()
    }

    fn space(&self) -> Result<Space, Errno> {
        self.0.space()
    }
}

impl DiskFile for Hole {
    fn write_at(&self, pieces: &[Bytes], at: u64) -> Result<(), Errno> {
        let end = at + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        match self.is_media && self.file.size()? <= at {
            true => self.file.truncate(end),
            false => self.file.write_at(pieces, at),
        }
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        self.file.read_at(buffer, at)
    }

    fn size(&self) -> Result<u64, Errno> {
        self.file.size()
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        self.file.truncate(size)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.file.sync()
    }

    fn reserve(&self, len: u64) -> Result<(), Errno> {
        self.file.reserve(len)
    }

    fn insert_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        self.file.insert_range(at, len)
    }

    fn collapse_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        self.file.collapse_range(at, len)
    }

    fn next_data(&self, from: u64) -> Result<Option<u64>, Errno> {
        self.file.next_data(from)
    }

    fn next_hole(&self, from: u64) -> Result<u64, Errno> {
        self.file.next_hole(from)
    }

    fn copy_to(&self, from: u64, to: &dyn DiskFile, at: u64, len: u64) -> Result<u64, Errno> {
        self.file.copy_to(from, to, at, len)
    }

    fn lock(&self) -> Result<bool, Errno> {
        self.file.lock()
    }

    fn inode(&self) -> Result<u64, Errno> {
        self.file.inode()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }
}
