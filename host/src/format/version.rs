//! A component, loaded: checked against the contract, compiled, asked what it is.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, types::ComponentItem};

use super::{
    Engine,
    cache::Cache,
    check::{self, Mismatch},
    compile::{CompileError, Urgency},
    guest_log::cut,
    imports::State,
    limits::{Limit, Limits},
    meters::Meters,
    needs::Needs,
    plugin::PluginPre,
    recovery_bindings::PluginWithRecoveryPre,
    signature::SignatureError,
    writer::{self, Time},
};
use crate::output::hex;

/// What it may export as well.
const RECOVERY: &str = "reelwright:writer/recovery@0.1";

/// Most codecs, needs or options of a manifest.
const MAX_LISTED: usize = 64;
/// Most bytes of each payload that a component is given unless it needs all.
const MAX_START: usize = 4096;

/// Why a component is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("it has {size} bytes; a component has at most {}", check::MAX_COMPONENT)]
    TooLarge { size: u64 },
    #[error("{} lies outside the formats folder, the media root and the allowed paths", path.display())]
    Outside { path: PathBuf },
    #[error("{} is not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("it is not WebAssembly: it begins with {0:02x?}")]
    NotWasm(Vec<u8>),
    #[error("it is a core module, not a component; build it for wasm32-wasip2")]
    CoreModule,
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("it has {found} {what}; a component has at most {most}")]
    Structure { what: &'static str, found: u64, most: u64 },
    #[error("it is damaged, or uses what this server does not support: {0}")]
    Compile(String),
    #[error(
        "it exports {found}, but not reelwright:writer/writer@0.1.x; build it against wit/0.1.0, world `plugin`"
    )]
    NoWriter { found: String },
    #[error(transparent)]
    Contract(#[from] Box<Mismatch>),
    /// What only wasmtime found.
    #[error("it does not fit the contract reelwright:writer@0.1.x: {0}")]
    Mismatch(String),
    #[error(transparent)]
    Compiler(CompileError),
    #[error("it needs {missing}, which this server does not grant: `format-grant` is {grant}")]
    NotGranted { missing: Needs, grant: Needs },
    #[error(transparent)]
    Describe(#[from] super::FormatError),
    #[error("its manifest is wrong: {0}")]
    Manifest(String),
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Component(what) => Self::Compile(what),
            error => Self::Compiler(error),
        }
    }
}

/// What a component says it is; see `writer.manifest` in the WIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub format: String,
    pub version: String,
    pub extension: String,
    pub mime: String,
    pub codecs: Vec<String>,
    pub needs: Vec<String>,
    pub options: Vec<OptionSpec>,
    /// Keys and values; those of which nothing is known here are left alone.
    pub properties: Vec<(String, String)>,
}

/// An option of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    pub key: String,
    pub default_value: String,
    pub help: String,
}

/// A component that can write segments. What runs on it keeps it alive.
pub struct Version {
    pub manifest: Manifest,
    /// Of the component's file, in hexadecimal.
    pub sha256: String,
    /// Where it came from; `None`: from the binary.
    pub file: Option<PathBuf>,
    pub(super) engine: Engine,
    pub(super) pre: PluginPre<State>,
    /// If it can finish what lost its writer.
    pub(super) recovery: Option<PluginWithRecoveryPre<State>>,
    /// What holds for its format.
    pub(super) limits: Arc<Limits>,
    /// What is counted of it.
    pub meters: Arc<Meters>,
    /// How often it was taken out of use while it wrote.
    pub(super) recalls: Arc<AtomicU64>,
    /// Bytes of each payload that `write` is given, at most.
    pub(super) copied: usize,
    /// What its manifest says that it needs.
    pub(super) needs: Needs,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").field("name", &self.label()).field("file", &self.file).finish()
    }
}

impl Version {
    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// It is taken out of use as it fails again and again: calls of it that compute long are ended.
    pub(super) fn recall(&self) {
        self.recalls.fetch_add(1, Relaxed);
    }

    /// Segments of it that are being written.
    pub fn recordings(&self) -> u64 {
        self.meters.open()
    }

    /// Whether it can finish a segment that lost its writer.
    pub fn recovers(&self) -> bool {
        self.recovery.is_some()
    }

    /// Name, version and the start of the hash: `flv 0.1.0 (sha256 0123456789ab)`.
    pub fn label(&self) -> String {
        let Manifest { format, version, .. } = &self.manifest;
        format!("{format} {version} (sha256 {})", &self.sha256[..12])
    }

    /// Checks and compiles a component, and asks it what it is. What comes from a file has to be signed, if the
    /// operator wants that; what is in the binary need not be.
    pub(super) async fn load(
        engine: &Engine,
        cache: &Cache,
        limits: &Arc<Limits>,
        wasm: Vec<u8>,
        file: Option<PathBuf>,
    ) -> Result<Self, LoadError> {
        let urgency = if file.is_some() { Urgency::Idle } else { Urgency::Start };
        Self::load_at(engine, cache, limits, wasm, file, urgency).await
    }

    /// The same, with a word on who waits for it.
    pub(super) async fn load_at(
        engine: &Engine,
        cache: &Cache,
        limits: &Arc<Limits>,
        wasm: Vec<u8>,
        file: Option<PathBuf>,
        urgency: Urgency,
    ) -> Result<Self, LoadError> {
        let (component, sha256) = {
            let (engine, cache, limits, file) = (engine.clone(), cache.clone(), limits.clone(), file.clone());
            let work = move || {
                check::check_size(wasm.len() as u64)?;
                if let (Some(key), Some(file)) = (&engine.policy().key, &file) {
                    key.check(file, &wasm)?;
                }
                check::check(&wasm)?;
                let sha256 = hex(&Sha256::digest(&wasm));
                let compiled = cache.component(&engine, &limits, urgency, &sha256, &wasm);
                if let Err(CompileError::Limit { name, .. }) = &compiled
                    && let Some(limit) = Limit::named(name)
                {
                    engine.loading().limit(limit);
                }
                Ok::<_, LoadError>((compiled?, sha256))
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|e| LoadError::Read(std::io::Error::other(e)))??
        };
        let mismatch = |e: wasmtime::Error| LoadError::Mismatch(format!("{e:#}"));
        let pre = engine.linker().instantiate_pre(&component).map_err(mismatch)?;
        let recovery = exports(engine, &component).any(|name| name.starts_with(RECOVERY));
        let recovery = recovery.then(|| PluginWithRecoveryPre::new(pre.clone()));
        let recovery = recovery.transpose().map_err(mismatch)?;
        let pre = PluginPre::new(pre).map_err(mismatch)?;
        let from = file.as_ref().map_or("embedded".into(), |f| f.display().to_string());
        let manifest = describe(engine, &pre, &Arc::new(limits.to_describe()), &from).await?;
        let needs = check_manifest(&manifest).map_err(LoadError::Manifest)?;
        let start = payload_start(&manifest).map_err(LoadError::Manifest)?;
        let grant = engine.policy().grant;
        if file.is_some() && !grant.contains(needs) {
            return Err(LoadError::NotGranted { missing: needs.without(grant), grant });
        }
        let resolved = Arc::new(limits.for_format(&manifest.format));
        Ok(Self {
            copied: if needs.contains(Needs::PAYLOAD) { usize::MAX } else { start },
            needs,
            manifest,
            sha256,
            file,
            engine: engine.clone(),
            pre,
            recovery,
            meters: Arc::default(),
            recalls: Arc::default(),
            limits: resolved,
        })
    }
}

/// Names of the interfaces that a component exports.
fn exports<'a>(engine: &'a Engine, component: &Component) -> impl Iterator<Item = String> + use<'a> {
    let ty = component.component_type();
    let names: Vec<String> = ty
        .exports(engine.wasmtime())
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentInstance(_)))
        .map(|(name, _)| name.to_owned())
        .collect();
    names.into_iter()
}

async fn describe(
    engine: &Engine,
    pre: &PluginPre<State>,
    limits: &Arc<Limits>,
    from: &str,
) -> Result<Manifest, super::FormatError> {
    let fail = |cause| super::FormatError { component: from.to_owned(), call: "describe", cause };
    let mut store = writer::store(engine, limits, State::bare(engine, limits, Duration::ZERO, from));
    let plugin = writer::instantiate(&mut store, pre, limits).await.map_err(fail)?;
    let time = Time::of(limits, Limit::DescribeTime);
    let result = writer::call(&mut store, time, async |store| {
        plugin.reelwright_writer_writer().call_describe(store).await
    })
    .await;
    let m = result.map_err(fail)?;
    Ok(Manifest {
        format: m.format,
        version: m.version,
        extension: m.extension,
        mime: m.mime,
        codecs: m.codecs,
        needs: m.needs,
        options: m
            .options
            .into_iter()
            .map(|o| OptionSpec { key: o.key, default_value: o.default_value, help: o.help })
            .collect(),
        properties: m.properties.into_iter().map(|p| (p.key, p.value)).collect(),
    })
}

/// Checks the manifest's words, and says what it needs.
fn check_manifest(manifest: &Manifest) -> Result<Needs, String> {
    let word = |text: &str, max: usize, dash: bool| {
        (1..=max).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9') || (dash && b == b'-'))
    };
    if !word(&manifest.format, 32, true) {
        return Err(format!("format {:?}: 1 to 32 of a-z, 0-9 and -", cut(&manifest.format, 80)));
    }
    if !word(&manifest.extension, 16, false) || ["info", "json"].contains(&&*manifest.extension) {
        return Err(format!(
            "extension {:?}: 1 to 16 of a-z and 0-9, not info or json",
            cut(&manifest.extension, 80)
        ));
    }
    let version = &manifest.version;
    if version.is_empty() || version.len() > 64 || !version.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("version {:?}: 1 to 64 printable characters", cut(version, 80)));
    }
    let plain = |text: &str, max: usize| text.len() <= max && !text.contains(char::is_control);
    let mime = &manifest.mime;
    if !(1..=128).contains(&mime.len()) || !mime.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(format!("mime {:?}: 1 to 128 printable characters", cut(mime, 80)));
    }
    let Manifest { codecs, needs, options, properties, .. } = manifest;
    for (what, found) in [
        ("codecs", codecs.len()),
        ("needs", needs.len()),
        ("options", options.len()),
        ("properties", properties.len()),
    ] {
        if found > MAX_LISTED {
            return Err(format!("{found} {what}, at most {MAX_LISTED}"));
        }
    }
    if let Some(codec) = codecs.iter().find(|codec| codec.is_empty() || !plain(codec, 64)) {
        return Err(format!("codec {:?}: 1 to 64 bytes without control characters", cut(codec, 80)));
    }
    for OptionSpec { key, default_value, help } in options {
        if !word(key, 64, true) {
            return Err(format!("option {:?}: 1 to 64 of a-z, 0-9 and -", cut(key, 80)));
        }
        for (what, text) in [("default", default_value), ("help", help)] {
            if !plain(text, 1024) {
                let said = "at most 1024 bytes without control characters";
                return Err(format!("option {key:?}: its {what}, {:?}: {said}", cut(text, 80)));
            }
        }
    }
    Needs::parse(needs).map_err(|need| {
        format!("it needs {:?}, which this server does not have: {}", cut(need, 80), Needs::ALL)
    })
}

/// How many first bytes of each payload it asks for.
fn payload_start(manifest: &Manifest) -> Result<usize, String> {
    let Some((_, value)) = manifest.properties.iter().find(|(key, _)| key == "payload-start") else {
        return Ok(0);
    };
    let bytes = value.parse().ok().filter(|bytes| (1..=MAX_START).contains(bytes));
    bytes.ok_or_else(|| format!("payload-start {:?}: a whole number from 1 to {MAX_START}", cut(value, 80)))
}
