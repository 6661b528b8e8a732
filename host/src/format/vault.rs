//! The components that operators brought, by their content, and what is known of them: `<data>/formats`.
//!
//! ```text
//! <sha256>.wasm     a component, as it came, and its signature beside it (.minisig), if there was one
//! registry.json     the lineups of all formats, and what of the formats folder was taken
//! ```
//!
//! Files are written beside, synced, and renamed; so each is there whole or not at all. A component that does not have
//! the hash of its name is not run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lineup::Kept;
use crate::{output::hex, sync::lock};

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registry {
    pub(super) formats: BTreeMap<String, Kept>,
    /// Files of the formats folder, and the sha256 of what was taken from them last.
    #[serde(default)]
    pub(super) folder: BTreeMap<PathBuf, String>,
}

/// See the module. Its calls block.
#[derive(Debug)]
pub(super) struct Vault {
    /// `None`: nothing outlives the process.
    folder: Option<PathBuf>,
    memory: Mutex<BTreeMap<String, Vec<u8>>>,
}

const REGISTRY: &str = "registry.json";
const DAMAGED: &str = "registry.json.damaged-";

impl Vault {
    /// Opens the store in a folder, which is made if it is missing.
    pub(super) fn open(folder: Option<&Path>) -> io::Result<Self> {
        if let Some(folder) = folder {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // Left over from a write, a probe or a canary that was cut off.
            for path in fs::read_dir(folder)?.flatten().map(|entry| entry.path()) {
                let _ = match path.extension().and_then(|extension| extension.to_str()) {
                    Some("new") => fs::remove_file(path),
                    Some("tmp") => fs::remove_dir_all(path),
                    _ => Ok(()),
                };
            }
        }
        Ok(Self { folder: folder.map(Path::to_owned), memory: Mutex::default() })
    }

    /// Where it is.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Keeps a component under its hash.
    pub(super) fn put(&self, sha256: &str, wasm: &[u8], signature: Option<&[u8]>) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            lock(&self.memory).insert(sha256.to_owned(), wasm.to_owned());
            return Ok(());
        };
        if let Some(signature) = signature {
            write(folder, &format!("{sha256}.wasm.minisig"), signature)?;
        }
        if self.get(sha256).is_ok() {
            return Ok(());
        }
        write(folder, &format!("{sha256}.wasm"), wasm)
    }

    /// A component, if it is whole.
    pub(super) fn get(&self, sha256: &str) -> io::Result<Vec<u8>> {
        let Some(folder) = &self.folder else {
            return lock(&self.memory).get(sha256).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        };
        let wasm = fs::read(folder.join(format!("{sha256}.wasm")))?;
        match hex(&Sha256::digest(&wasm)) == sha256 {
            true => Ok(wasm),
            false => Err(io::Error::other("it does not have the sha256 of its name")),
        }
    }

    /// The file of a component.
    pub(super) fn path(&self, sha256: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{sha256}.wasm")))
    }

    /// Gives a component up.
    pub(super) fn remove(&self, sha256: &str) {
        lock(&self.memory).remove(sha256);
        if let Some(folder) = &self.folder {
            for name in [format!("{sha256}.wasm"), format!("{sha256}.wasm.minisig")] {
                let _ = fs::remove_file(folder.join(name));
            }
        }
    }

    /// Gives up all components but these. While a damaged registry lies there, which may name others, nothing goes.
    pub(super) fn sweep(&self, named: &BTreeSet<String>) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let names = fs::read_dir(folder)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names: Vec<String> = names.collect();
        if names.iter().any(|name| name.starts_with(DAMAGED)) {
            return Ok(());
        }
        for name in names {
            let sha256 = name.strip_suffix(".minisig").unwrap_or(&name).strip_suffix(".wasm");
            if sha256.is_some_and(|sha256| !named.contains(sha256)) {
                fs::remove_file(folder.join(name))?;
            }
        }
        Ok(())
    }

    /// What was known. A registry that makes no sense is set aside, and said.
    pub(super) fn registry(&self) -> io::Result<Registry> {
        let Some(folder) = &self.folder else { return Ok(Registry::default()) };
        let path = folder.join(REGISTRY);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Registry::default()),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&text) {
            Ok(registry) => Ok(registry),
            Err(error) => {
                let aside = folder.join(format!("{DAMAGED}{}", crate::wall_clock::epoch_us()));
                fs::rename(&path, &aside)?;
                tracing::error!(path = %path.display(), aside = %aside.display(), %error,
                    "the registry of formats is damaged and set aside; the embedded formats are active");
                Ok(Registry::default())
            }
        }
    }

    /// Keeps what is known.
    pub(super) fn keep(&self, registry: &Registry) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        write(folder, REGISTRY, &serde_json::to_vec_pretty(registry)?)
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_kept_by_their_hash() {
        let dir = tempfile::tempdir().unwrap();
        for vault in [Vault::open(Some(dir.path())).unwrap(), Vault::open(None).unwrap()] {
            let sha256 = hex(&Sha256::digest(b"wasm"));
            assert!(vault.get(&sha256).is_err());
            vault.put(&sha256, b"wasm", Some(b"signed")).unwrap();
            assert_eq!(vault.get(&sha256).unwrap(), b"wasm");
            vault.remove(&sha256);
            assert!(vault.get(&sha256).is_err());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_component_that_was_changed_is_not_taken_and_can_be_put_again() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(Some(dir.path())).unwrap();
        let sha256 = hex(&Sha256::digest(b"wasm"));
        fs::write(dir.path().join(format!("{sha256}.wasm")), b"other").unwrap();
        assert!(vault.get(&sha256).is_err());
        vault.put(&sha256, b"wasm", None).unwrap();
        assert_eq!(vault.get(&sha256).unwrap(), b"wasm");
    }

    #[test]
    fn what_nobody_names_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [named, other] = [b"named", b"other"].map(|wasm| hex(&Sha256::digest(wasm)));
        let vault = Vault::open(Some(dir.path())).unwrap();
        for (sha256, wasm) in [(&named, b"named"), (&other, b"other")] {
            vault.put(sha256, wasm, Some(b"signed")).unwrap();
        }
        vault.keep(&Registry::default()).unwrap();
        fs::create_dir_all(dir.path().join("probe-x-0.tmp/media")).unwrap();
        fs::write(dir.path().join("registry.json.new"), "{").unwrap();
        let damaged = dir.path().join(format!("{DAMAGED}1"));
        fs::write(&damaged, "{").unwrap();
        let vault = Vault::open(Some(dir.path())).unwrap();
        vault.sweep(&[named.clone()].into()).unwrap();
        assert!(vault.get(&other).is_ok(), "the damaged registry may name it");
        fs::remove_file(damaged).unwrap();
        vault.sweep(&[named.clone()].into()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let mut expected = [format!("{named}.wasm"), format!("{named}.wasm.minisig"), REGISTRY.into()];
        expected.sort();
        assert_eq!(left, expected.map(std::ffi::OsString::from));
    }

    #[test]
    fn a_damaged_registry_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(Some(dir.path())).unwrap();
        let registry = Registry { folder: [("x.wasm".into(), "00".into())].into(), ..Registry::default() };
        vault.keep(&registry).unwrap();
        assert_eq!(vault.registry().unwrap(), registry);
        fs::write(dir.path().join(REGISTRY), "{").unwrap();
        assert_eq!(vault.registry().unwrap(), Registry::default());
        let aside = fs::read_dir(dir.path()).unwrap().flatten().next().unwrap().file_name();
        assert!(aside.to_string_lossy().starts_with("registry.json.damaged-"), "{aside:?}");
        assert_eq!(vault.registry().unwrap(), Registry::default());
    }
}
