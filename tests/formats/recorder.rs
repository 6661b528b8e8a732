//! Recordings through the registry, as the server makes them, and what is said meanwhile.

use std::{
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use reelwright::{
    events::Events,
    format::{limits::Limits, validate},
    media::Kind,
    recorder::{Config, Parts, Recording, Recordings, Settings},
    registry::{Declared, Publisher, Registry},
    repair::Repairs,
    store::{ConfigIds, Store},
};

use crate::{
    named::source,
    support::{Clip, Host, clip},
};

/// The stream's name.
pub const STREAM: &str = "cam";

/// A component host that records streams.
pub struct Recorder {
    pub host: Host,
    pub recordings: Recordings,
    pub events: Events,
    registry: Registry,
}

impl Recorder {
    pub async fn new(limits: Limits) -> Self {
        let host = Host::with(limits).await;
        let (registry, events, store) = (Registry::default(), Events::default(), Store::in_memory());
        let (formats, disk) = (host.formats.clone(), host.disk.clone());
        formats.tell(events.clone());
        let parts = Parts {
            registry: registry.clone(),
            repairs: Repairs::new(disk.clone(), formats.clone(), events.clone()),
            formats,
            disk,
            events: events.clone(),
            ids: ConfigIds::open(&store).unwrap(),
            store,
        };
        Self { host, recordings: Recordings::new(parts, Config::default()), events, registry }
    }

    /// Orders to record the stream.
    pub async fn record(&self, path: &str, format: &str) -> Arc<Recording> {
        let settings = Settings {
            local_stream_name: STREAM.into(),
            path_to_file: path.into(),
            format: format.into(),
            ..Settings::default()
        };
        self.recordings.add(settings).await.unwrap()
    }

    /// Sends a stream, ends it, and waits until all files are complete.
    pub async fn send(&self, clip: &Clip) {
        let mut publisher = self.publish(clip);
        until("all recordings run", || self.recordings.list().iter().all(|r| r.run().is_some())).await;
        for batch in clip.samples.chunks(10) {
            publisher.send(&mut batch.to_vec()).await;
        }
        drop(publisher);
        until("all recordings are done", || self.recordings.list().iter().all(|r| r.run().is_none())).await;
    }

    /// Begins a stream.
    pub fn publish(&self, clip: &Clip) -> Publisher {
        let mut publisher = self.registry.publish(STREAM, source()).unwrap();
        let has = |kind| clip.tracks.iter().any(|t| t.kind == kind);
        publisher.declare(Declared { video: has(Kind::Video), audio: has(Kind::Audio) });
        clip.tracks.iter().for_each(|t| publisher.track(t.clone()));
        publisher
    }

    /// A file in the media folder.
    pub fn media(&self, name: &str) -> PathBuf {
        self.host.dir.path().join("media").join(name)
    }

    /// Asserts that a file of a built-in format holds all that was sent, and nothing else.
    #[track_caller]
    pub fn assert_whole(&self, name: &str, sent: &Clip) {
        let path = self.media(name);
        let format = path.extension().unwrap().to_str().unwrap();
        let found = validate::read(format, &path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut given = validate::Given::new(&sent.tracks);
        sent.samples.iter().for_each(|sample| given.sample(sample));
        assert_eq!(found.differs_from(&given.contents()), None, "{name}");
    }
}

/// The bundled clip, so many times.
pub fn long_clip(times: i64) -> Clip {
    let mut clip = clip();
    let once = std::mem::take(&mut clip.samples);
    for n in 0..times {
        let by_ms = n * 6000;
        clip.samples.extend(once.iter().cloned().map(|mut sample| {
            (sample.dts_ms, sample.pts_ms) = (sample.dts_ms + by_ms, sample.pts_ms + by_ms);
            sample
        }));
    }
    clip
}

/// Waits for what has to come, however busy the machine is.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let begun = Instant::now();
    async move {
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "not so: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// What the log of this process says, from the first call on.
pub fn log() -> String {
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);
    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static LOG: OnceLock<Said> = OnceLock::new();
    let said = LOG.get_or_init(|| {
        let said = Said::default();
        let writer = said.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::set_global_default(log.finish()).unwrap();
        said
    });
    String::from_utf8_lossy(&said.0.lock().unwrap()).into_owned()
}
