//! A host with a folder to write to, and samples to write.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use reelwright::{
    format::{Begin, End, Engine, Finished, FormatError, Formats, Policy, Version, Writer, limits::Limits},
    media::{Kind, Sample, Track},
    output::{Disk, Roots, Segment},
    rtmp::tag,
};
use tempfile::TempDir;

/// Wall clock at the origin of every segment here.
pub const EPOCH_US: i64 = 1_700_000_000_123_456;

pub use reelwright_built_components::component;

/// The file of a component that is in the binary.
pub fn built_in(format: &str) -> PathBuf {
    Path::new(env!("OUT_DIR")).join(format).with_extension("wasm")
}

/// A component of the binary.
pub fn embedded(format: &str) -> Vec<u8> {
    std::fs::read(built_in(format)).unwrap()
}

/// A compiler that does its work only when a file is removed, and that file.
pub fn stalling_compiler(folder: &Path) -> (PathBuf, PathBuf) {
    let (compiler, busy) = (folder.join("compiler"), folder.join("busy"));
    let server = env!("CARGO_BIN_EXE_reelwright");
    let script = format!(
        "#!/bin/sh\nwhile [ -e '{}' ]; do /bin/sleep 0.1; done\nexec '{server}' \"$@\"\n",
        busy.display()
    );
    std::fs::write(&busy, "").unwrap();
    std::fs::write(&compiler, script).unwrap();
    std::fs::set_permissions(&compiler, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (compiler, busy)
}

/// A component host with a media folder and a formats folder.
pub struct Host {
    pub dir: TempDir,
    pub engine: Engine,
    pub formats: Formats,
    pub disk: Disk,
}

impl Host {
    pub async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        Self::under(limits, Policy::default()).await
    }

    pub async fn under(limits: Limits, policy: Policy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("formats");
        std::fs::create_dir(&folder).unwrap();
        // Compiled once for all tests of a run.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("formats");
        let engine = Engine::new().unwrap().under(policy);
        let formats = Formats::open(engine.clone(), Some(&cache), Some(folder), limits).await.unwrap();
        let disk = Disk::new(Roots::open(&dir.path().join("media"), &[]).unwrap(), None);
        Self { dir, engine, formats, disk }
    }

    /// A test component.
    pub async fn load(&self, name: &str) -> Arc<Version> {
        Arc::new(self.formats.load(&component(name)).await.unwrap_or_else(|e| panic!("{name}: {e}")))
    }

    /// Opens a segment named `x` and the format's extension.
    pub async fn open(&self, version: &Arc<Version>, begin: Begin) -> Result<Writer, FormatError> {
        self.open_as(version, begin, "x").await
    }

    /// The same, with another name.
    pub async fn open_as(
        &self,
        version: &Arc<Version>,
        begin: Begin,
        name: &str,
    ) -> Result<Writer, FormatError> {
        let folder = self.disk.roots.resolve(name).unwrap().folder;
        let name = format!("{name}.{}", version.manifest.extension);
        let segment = Segment::claim(&self.disk, &folder, std::iter::once(name), false).await.unwrap();
        Writer::open(version.clone(), segment, begin).await
    }

    /// Writes a whole segment in batches of a size, and reads the file.
    pub async fn record(
        &self,
        version: &Arc<Version>,
        clip: &Clip,
        batch: usize,
        options: &[(&str, &str)],
    ) -> Result<(Finished, Vec<u8>), FormatError> {
        let mut writer = self.open(version, begin(clip, options)).await?;
        for samples in clip.samples.chunks(batch) {
            writer.write(samples).await?;
        }
        let closing = writer.finish(clip.end()).await.map_err(|failed| failed.error)?;
        let finished = closing.complete().await.map_err(|failed| failed.error)?;
        let bytes = std::fs::read(&finished.file.path).unwrap();
        std::fs::remove_file(&finished.file.path).unwrap();
        assert!(self.files().is_empty(), "nothing else is left: {:?}", self.files());
        Ok((finished, bytes))
    }

    /// Records with a component that will fail, and returns its error and what its file holds.
    pub async fn fail(&self, name: &str, options: &[(&str, &str)]) -> (FormatError, Option<Vec<u8>>) {
        let clip = clip();
        let version = self.load(name).await;
        let mut writer = match self.open(&version, begin(&clip, options)).await {
            Ok(writer) => writer,
            Err(error) => return (error, None),
        };
        let path = writer.path();
        for samples in clip.samples.chunks(10) {
            if let Err(error) = writer.write(samples).await {
                drop(writer.abandon().await);
                return (error, std::fs::read(path).ok());
            }
        }
        let failed = writer.finish(clip.end()).await.expect_err("it fails at the latest in finish");
        (failed.error, std::fs::read(path).ok())
    }

    /// Names in the media folder.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("media")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A stream: its tracks, and its samples in run time.
#[derive(Clone)]
pub struct Clip {
    pub tracks: Vec<Track>,
    pub samples: Vec<Sample>,
}

impl Clip {
    pub fn end(&self) -> End {
        let end = |t: &Track| self.samples.iter().filter(|s| s.track == t.id).map(|s| s.dts_ms).max();
        let tracks = self.tracks.iter().filter_map(|t| Some((t.id, end(t)? + 20))).collect();
        End { reason: "stream-ended", tracks }
    }

    pub fn payload(&self) -> Vec<u8> {
        self.samples.iter().flat_map(|s| s.data.to_vec()).collect()
    }
}

pub fn begin(clip: &Clip, options: &[(&str, &str)]) -> Begin {
    Begin {
        segment: 0,
        epoch_us: EPOCH_US,
        origin_ms: 0,
        head_room: 4096,
        manifest: false,
        config_id: 1,
        stream: "cam".into(),
        whose: Default::default(),
        tracks: clip.tracks.clone(),
        options: options.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        carry: vec![],
    }
}

/// The bundled clip: H.264 with B-frames, and AAC.
pub fn clip() -> Clip {
    let file = Bytes::from_static(include_bytes!("../data/clip.flv"));
    let (mut tracks, mut samples) = (Vec::new(), Vec::new());
    let mut at = 9 + 4;
    while at + tag::HEADER_BYTES < file.len() {
        let header = tag::Header::read(file[at..at + tag::HEADER_BYTES].try_into().unwrap());
        at += tag::HEADER_BYTES;
        let body = file.slice(at..at + header.data_bytes);
        at += header.data_bytes + 4;
        let (id, kind, body) = match header.tag_type {
            tag::kind::VIDEO => (1, Kind::Video, tag::video(body).unwrap()),
            tag::kind::AUDIO => (2, Kind::Audio, tag::audio(body).unwrap()),
            _ => continue,
        };
        match body {
            tag::Body::Configuration { codec, config } => {
                let properties = vec![];
                tracks.push(Track { id, kind, codec: codec.into(), config, properties });
            }
            tag::Body::Sample(payload) => {
                let dts_ms = i64::from(header.timestamp_ms);
                samples.push(Sample {
                    track: id,
                    dts_ms,
                    pts_ms: dts_ms + i64::from(payload.composition_time_ms),
                    key: payload.key,
                    discontinuity: false,
                    data: payload.data,
                });
            }
            _ => {}
        }
    }
    Clip { tracks, samples }
}
