//! The whole server: opens what it needs, binds, serves, and closes everything in order.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    control::{self, auth::Access, process::LogLevel, server},
    events::{Event, Events},
    format::{
        self, Engine, Formats,
        bundle::{self, Bundles},
    },
    ingest::Ingest,
    output::{
        Disk, Roots,
        guard::{self, Guards, Thresholds},
        path,
    },
    recorder::{Parts, Recordings},
    registry::Registry,
    repair::Repairs,
    rtmp, state,
    store::ConfigIds,
};

/// How long a stop waits for publishers to be gone, before files are closed.
const PUBLISHERS_LIMIT: Duration = Duration::from_secs(5);

/// How long it waits for files to be closed, unless `stop-timeout` says otherwise.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// What a power cut can cost, unless `sync-interval` says otherwise.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// How long a stop waits for receivers of events.
const EVENTS_LIMIT: Duration = Duration::from_secs(5);
/// How long ports stay closed for versions of formats that do not write, and for the formats folder.
const FORMATS_BEFORE_PORTS: Duration = Duration::from_secs(10);
/// How long `ready` waits for repairs.
const REPAIRS_BEFORE_READY: Duration = Duration::from_secs(10);

/// Where the server listens, as in `addresses.json`.
pub type Addresses = BTreeMap<&'static str, SocketAddr>;

/// Serves until `stop`, or until a command says so. `ready` is called when all ports are open.
pub async fn serve(
    config: Config,
    log_level: LogLevel,
    stop: CancellationToken,
    ready: impl FnOnce(&Addresses),
) -> anyhow::Result<()> {
    take_files();
    let (recorder, event_settings, ingest_settings) = (config.recorder(), config.events(), config.ingest());
    let policy = config.policy().map_err(anyhow::Error::msg)?;
    let access = Arc::new(Access::open(&config)?);
    let media = config.media_root.unwrap_or_else(|| "media".into());
    let data = config.data_dir.unwrap_or_else(|| "data".into());
    fs::create_dir_all(&data).with_context(|| format!("the data folder {}", data.display()))?;
    let roots = Roots::open(&media, &config.allow_path).context("the media folders")?;
    tracing::info!(media = %roots.media().display(), data = %data.display(), "folders");
    let engine = Engine::new().map_err(|e| anyhow::anyhow!("wasmtime: {e:#}"))?.under(policy);
    let settings = format::Settings {
        cache: Some(data.join("components")),
        store: Some(data.join("formats")),
        folder: config.formats,
        limits: config.limits,
    };
    // It says whether another server has the data folder, before anything in there is cleaned up.
    let store = state::open(&data).await?;
    let formats =
        Formats::open_with(engine.clone(), settings).await.context("loading the embedded formats")?;
    formats.settle(FORMATS_BEFORE_PORTS).await;

    let pre_roll = config.pre_roll.map_or(Duration::ZERO, |span| span.0);
    let registry = Registry::new(recorder.reconnect_window).keeping(pre_roll);
    let events = Events::open(event_settings, store.clone()).await?;
    formats.tell(events.clone());
    let kept = config.crash_bundles.unwrap_or(bundle::KEPT);
    if kept > 0 {
        engine.keep_bundles(Bundles::new(data.join("crashes"), kept, events.clone()));
    }
    let config_ids = ConfigIds::open(&store)?;
    let ingest = Ingest::open(ingest_settings, events.clone(), store.clone(), config_ids.clone())?;
    let stop_timeout = config.stop_timeout.map_or(STOP_TIMEOUT, |span| span.0);
    let sync_interval = config.sync_interval.map_or(SYNC_INTERVAL, |span| span.0);
    let thresholds = Thresholds { warn: config.disk_warn, stop: config.disk_stop };
    let disk = Disk::new(roots, Some(sync_interval).filter(|interval| !interval.is_zero()))
        .guarded(Guards::new(thresholds, disk_events(events.clone())));
    let repairs = Repairs::new(disk.clone(), formats.clone(), events.clone());
    let claims = disk.claims.clone();
    let parts = Parts {
        registry: registry.clone(),
        formats: formats.clone(),
        disk,
        repairs: repairs.clone(),
        events: events.clone(),
        store: store.clone(),
        ids: config_ids,
    };
    let settings = rtmp::server::Settings {
        // The rest is left for the way to the disk.
        gather: recorder.flush_interval * 9 / 10,
        ..rtmp::server::Settings::default()
    };
    let recordings = Recordings::new(parts, recorder);
    recordings.restore().await?;
    let context = control::Context::new(
        registry.clone(),
        recordings.clone(),
        repairs.clone(),
        events.clone(),
        store.clone(),
        log_level,
        stop.clone(),
    )?;
    let context = Arc::new(context.for_those(access.clone()).with_ingest(ingest.clone()));

    let mut addresses = Addresses::new();
    let mut bind = async |name: &'static str, addr: Option<SocketAddr>, default: ([u8; 4], u16)| {
        let addr = addr.unwrap_or_else(|| default.into());
        let listener = TcpListener::bind(addr).await.with_context(|| format!("--{name} {addr}"))?;
        addresses.insert(name, listener.local_addr()?);
        anyhow::Ok(listener)
    };
    let local = [127, 0, 0, 1];
    let rtmp = bind("rtmp", config.rtmp, ([0, 0, 0, 0], 1935)).await?;
    let ascii = bind("ascii-cli", config.ascii_cli, (local, 1222)).await?;
    let json = bind("json-cli", config.json_cli, (local, 1112)).await?;
    let http = bind("http-cli", config.http_cli, (local, 7777)).await?;
    for (name, listener) in [("ascii-cli", &ascii), ("json-cli", &json), ("http-cli", &http)] {
        access.may_listen(name, listener.local_addr()?)?;
    }

    // Publishers stop first, so that recordings get everything that was sent; then files are closed, which
    // a client may be waiting for; then clients are sent away.
    let (no_publishers, no_clients) = (CancellationToken::new(), CancellationToken::new());
    let repaired = CancellationToken::new();
    let is_repaired = repaired.clone();
    let watch = tokio::spawn(async move {
        let tidy = async {
            is_repaired.cancelled().await;
            formats.tidy().await;
        };
        tokio::join!(formats.watch(), tidy)
    });
    let copy = tokio::spawn(state::keep_copy(store.clone(), data.clone()));
    let watch_access = tokio::spawn(access.watch());
    let publishers =
        tokio::spawn(rtmp::server::serve(rtmp, registry, ingest, settings, no_publishers.clone()));
    let clients = [
        tokio::spawn(server::serve_ascii(ascii, context.clone(), no_clients.clone())),
        tokio::spawn(server::serve_json(json, context.clone(), no_clients.clone())),
        tokio::spawn(server::serve_http(http, context, no_clients.clone())),
    ];
    events.send(Event::new("serverStarted", json!({ "version": env!("CARGO_PKG_VERSION") })));
    // Publishers are served already, and names of orphans are taken; who waits for us may as well find their
    // files whole.
    let mut repairing = tokio::spawn(async move {
        repairs.everywhere().await;
        repaired.cancel();
    });
    tokio::select! {
        _ = &mut repairing => {}
        () = tokio::time::sleep(REPAIRS_BEFORE_READY) => tracing::warn!("repairs go on"),
        () = stop.cancelled() => {}
    }
    write_addresses(&data, &addresses).context("addresses.json")?;
    ready(&addresses);
    stop.cancelled().await;

    tracing::info!("stopping");
    events.send(Event::new("serverStopping", json!({ "version": env!("CARGO_PKG_VERSION") })));
    watch.abort();
    copy.abort();
    watch_access.abort();
    no_publishers.cancel();
    if tokio::time::timeout(PUBLISHERS_LIMIT, publishers).await.is_err() {
        tracing::warn!("publishers did not go in time");
    }
    recordings.shut_down(stop_timeout).await;
    for path in claims.paths() {
        tracing::warn!(path = %path.display(), "not closed in time; the next start finishes it");
    }
    no_clients.cancel();
    for client in clients {
        let _ = tokio::time::timeout(Duration::from_secs(2), client).await;
    }
    if let Err(error) = state::write(&store, &data) {
        tracing::warn!(%error, "the copy of the orders can't be written");
    }
    events.shut_down(EVENTS_LIMIT).await;
    let _ = fs::remove_file(addresses_path(&data));
    tracing::info!("stopped");
    Ok(())
}

/// Makes an event of each change of a disk's state.
fn disk_events(events: Events) -> Arc<guard::Hook> {
    Arc::new(move |change| {
        let space = change.to.space;
        let payload = json!({
            "path": change.path.display().to_string(),
            "freeBytes": space.map(|space| space.free),
            "totalBytes": space.map(|space| space.total),
            "error": change.to.errno.map(path::describe),
        });
        events.send(Event::new(change.to.state.event(), payload));
    })
}

/// Takes as many open files as the system gives: connections must not leave none for recordings.
fn take_files() {
    const ENOUGH: u64 = 4096;
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < ENOUGH) {
        tracing::warn!(files, "few files may be open at once; {ENOUGH} would do for all connections");
    }
}

fn addresses_path(data: &Path) -> PathBuf {
    data.join("addresses.json")
}

/// Written whole or not at all, for those who wait for it.
fn write_addresses(data: &Path, addresses: &Addresses) -> std::io::Result<()> {
    let path = addresses_path(data);
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec_pretty(addresses)?)?;
    fs::rename(new, path)
}
