//! Compiled components, kept from one start of the server to the next.
//!
//! A compiled component is native code, so only files that this server wrote are loaded: the folder is the
//! server's own (mode 0700), and each file begins with the SHA-256 of the rest, so that a torn one is
//! never run. Named by the component's SHA-256 and the engine's compatibility hash.

use std::{
    fs,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::{
    Engine,
    compile::{self, CompileError, Urgency},
    limits::Limits,
};

const DIGEST: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct Cache {
    /// `None`: nothing is kept.
    folder: Option<PathBuf>,
}

impl Cache {
    /// Opens the cache in a folder, which is created if it is missing.
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: Some(folder.to_owned()) })
    }

    /// A cache that keeps nothing.
    pub(super) fn none() -> Self {
        Self { folder: None }
    }

    /// The component compiled, from the cache if it is there. Compiling takes up to minutes; call it on a thread
    /// that may block.
    pub(super) fn component(
        &self,
        engine: &Engine,
        limits: &Limits,
        urgency: Urgency,
        sha256: &str,
        wasm: &[u8],
    ) -> Result<Component, CompileError> {
        let path = self
            .folder
            .as_ref()
            .map(|folder| (folder, folder.join(format!("{sha256}-{:016x}.cwasm", engine.compatibility()))));
        if let Some(component) = path.as_ref().and_then(|(_, path)| load(engine, path)) {
            return Ok(component);
        }
        let compiled = compile::compile(engine, engine.policy().compiler.as_deref(), limits, urgency, wasm)?;
        if let Some((folder, path)) = path
            && let Err(error) = store(folder, &path, &compiled)
        {
            tracing::warn!(path = %path.display(), %error, "can't keep a compiled component");
        }
        // SAFETY: the bytes are what our own program has just compiled: `compile` ran it, and nobody else had them.
        let component = unsafe { Component::deserialize(engine.wasmtime(), &compiled) };
        component.map_err(|e| CompileError::Component(format!("{e:#}")))
    }
}

fn store(folder: &Path, path: &Path, compiled: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile_in(folder)?;
    file.1.write_all(&Sha256::digest(compiled))?;
    file.1.write_all(compiled)?;
    file.1.sync_data()?;
    fs::rename(&file.0, path)
}

/// A new file with a name that nothing else has.
fn tempfile_in(folder: &Path) -> std::io::Result<(PathBuf, fs::File)> {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = folder.join(format!("new-{}-{number}", std::process::id()));
    let file = fs::File::create(&path)?;
    Ok((path, file))
}

fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let file = fs::read(path).ok()?;
    let (digest, compiled) = file.split_at_checked(DIGEST)?;
    if Sha256::digest(compiled).as_slice() != digest {
        tracing::warn!(path = %path.display(), "a compiled component is damaged; it is compiled anew");
        return None;
    }
    // SAFETY: the bytes are what `store` wrote: the folder is only ours to write, and the digest holds.
    let component = unsafe { Component::deserialize(engine.wasmtime(), compiled) };
    component.ok()
}
