//! A recorder without sockets, and publishers for it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reelwright::{
    control::{Context, process::LogLevel},
    events::Events,
    format::{Engine, Formats, limits::Limits, lineup},
    output::{Disk, Roots},
    recorder::{Config, Parts, Recording, Recordings, Settings},
    registry::{Declared, Publisher, Registry, Source},
    repair::Repairs,
    store::{ConfigIds, Store},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    files,
    stream::{self, Payload},
};

/// A recorder with folders of its own, which syncs as the server does.
pub(crate) struct Recorder {
    _dir: TempDir,
    pub(crate) formats: Formats,
    pub(crate) recordings: Recordings,
    registry: Registry,
    repairs: Repairs,
    events: Events,
    store: Store,
}

impl Recorder {
    /// One with formats of its own.
    pub(crate) async fn new(engine: &Engine) -> anyhow::Result<Arc<Self>> {
        let dir = files::scratch()?;
        let formats = Formats::open(engine.clone(), Some(dir.path()), None, Limits::default()).await?;
        Self::with(formats, dir)
    }

    /// One with these formats, in this folder.
    pub(crate) fn with(formats: Formats, dir: TempDir) -> anyhow::Result<Arc<Self>> {
        let roots = Roots::open(&dir.path().join("media"), &[])?;
        let disk = Disk::new(roots, Some(Duration::from_secs(2)));
        let (registry, events, store) = (Registry::default(), Events::default(), Store::in_memory());
        let repairs = Repairs::new(disk.clone(), formats.clone(), events.clone());
        let parts = Parts {
            registry: registry.clone(),
            formats: formats.clone(),
            repairs: repairs.clone(),
            disk,
            events: events.clone(),
            ids: ConfigIds::open(&store)?,
            store: store.clone(),
        };
        let recordings = Recordings::new(parts, Config::default());
        Ok(Arc::new(Self { _dir: dir, formats, recordings, registry, repairs, events, store }))
    }

    /// Loads a built-in format once more, as another version. Returns the hashes of both.
    pub(crate) async fn versions(&self, format: &str) -> anyhow::Result<[String; 2]> {
        let file = Path::new(env!("OUT_DIR")).join(format).with_extension("wasm");
        // A custom section, which means nothing (component model, Binary.md).
        let wasm = [std::fs::read(&file)?, vec![0, 5, 4, b'n', b'o', b't', b'e']].concat();
        let loaded = self.formats.stage(wasm, lineup::Source::Command(file), None, None)?.outcome().await?;
        let active = self.formats.get(format).map(|version| version.sha256.clone());
        Ok([active.unwrap_or_default(), loaded.sha256.clone()])
    }

    pub(crate) async fn record(&self, stream: &str, format: &str) -> anyhow::Result<Arc<Recording>> {
        let settings = Settings {
            local_stream_name: stream.into(),
            path_to_file: stream.into(),
            format: format.into(),
            ..Settings::default()
        };
        Ok(self.recordings.add(settings).await?)
    }

    /// What commands act on.
    pub(crate) fn context(&self) -> anyhow::Result<Arc<Context>> {
        let context = Context::new(
            self.registry.clone(),
            self.recordings.clone(),
            self.repairs.clone(),
            self.events.clone(),
            self.store.clone(),
            LogLevel::default(),
            CancellationToken::new(),
        )?;
        Ok(Arc::new(context))
    }

    /// Begins a live stream.
    pub(crate) fn begin(&self, stream: &str) -> anyhow::Result<Publisher> {
        begin(&self.registry, stream)
    }

    /// Publishes a stream in real time, or as fast as it is taken, until it is to stop or at its end.
    pub(crate) async fn publish(
        &self,
        stream: &str,
        seconds: i64,
        paced: bool,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let mut publisher = self.begin(stream)?;
        let begun = tokio::time::Instant::now();
        for batch in stream::samples(seconds, Payload::Real).chunks(4) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if paced {
                let due = Duration::from_millis(u64::try_from(batch[0].dts_ms).unwrap_or(0));
                tokio::time::sleep_until(begun + due).await;
            }
            publisher.send(&mut batch.to_vec()).await;
        }
        Ok(())
    }
}

/// Begins a live stream with both tracks.
pub(crate) fn begin(registry: &Registry, stream: &str) -> anyhow::Result<Publisher> {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let source = Source {
        app: "live".into(),
        tc_url: String::new(),
        page_url: String::new(),
        swf_url: String::new(),
        user_agent: String::new(),
        near: addr,
        far: addr,
    };
    let mut publisher = registry.publish(stream, source)?;
    publisher.declare(Declared { video: true, audio: true });
    stream::tracks().into_iter().for_each(|track| publisher.track(track));
    Ok(publisher)
}
