//! Compiled components, kept from one start of the server to the next.
//!
//! A compiled component is native code, so only files that this server wrote are loaded: the folder is the
//! server's own (mode 0700), and each file begins with the SHA-256 of the rest, so that a torn one is
//! never run. Named by the component's SHA-256 and the engine's compatibility hash.

use std::{
    collections::BTreeSet,
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
/// How files begin that are being written.
const NEW: &str = "new-";
/// Compiled components that are kept though no version is them: who tries one again need not wait.
const OTHERS: usize = 32;

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

    /// Removes what was compiled for other engines, or of none of these components, but for the newest of it.
    pub(super) fn sweep(&self, engine: &Engine, named: &BTreeSet<String>) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let ours = format!("-{:016x}.cwasm", engine.compatibility());
        let mut others = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let sha256 = name.to_str().and_then(|name| name.strip_suffix(&ours));
            if name.as_encoded_bytes().starts_with(NEW.as_bytes()) {
                // Left over from a write that was cut off.
                fs::remove_file(entry.path())?;
            } else if sha256.is_none_or(|sha256| !named.contains(sha256)) {
                others.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        others.sort();
        others.reverse();
        others.iter().skip(OTHERS).try_for_each(|(_, path)| fs::remove_file(path))
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
    let path = folder.join(format!("{NEW}{}-{number}", std::process::id()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_names_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, engine) = (Cache::open(dir.path()).unwrap(), Engine::new().unwrap());
        let file = |sha256: &str, engine: u64| dir.path().join(format!("{sha256}-{engine:016x}.cwasm"));
        let named = file("named", engine.compatibility());
        fs::write(&named, "").unwrap();
        fs::write(dir.path().join("new-1-1"), "").unwrap();
        // Of another engine, and the oldest.
        let old = file("named", !engine.compatibility());
        for (i, path) in
            [old.clone()].into_iter().chain((0..OTHERS).map(|i| file(&format!("{i}"), 1))).enumerate()
        {
            let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(i as u64);
            fs::File::create(path).unwrap().set_modified(written).unwrap();
        }
        cache.sweep(&engine, &["named".into()].into()).unwrap();
        assert!(named.exists() && !old.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1 + OTHERS);
    }
}
