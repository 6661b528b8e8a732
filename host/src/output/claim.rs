//! Names that segments own while they live, so that two can't share a file, however its folder is spelled.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::path::Folder;
use crate::sync::lock;

type Key = ((u64, u64), String);

/// All claimed names, with their paths as they were asked for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<BTreeMap<Key, PathBuf>>>);

/// A claimed name; it is free when all have let go of it.
#[derive(Debug)]
pub struct Claim {
    key: Key,
    claims: Claims,
}

impl Claims {
    /// Claims a file name in a folder; `None` if a segment has it.
    pub fn claim(&self, folder: &Folder, name: &str) -> Option<Arc<Claim>> {
        let key = (folder.id, name.to_owned());
        let mut claims = lock(&self.0);
        if claims.contains_key(&key) {
            return None;
        }
        claims.insert(key.clone(), folder.path.join(name));
        Some(Arc::new(Claim { key, claims: self.clone() }))
    }

    /// Whether a segment has a file name in a folder.
    pub fn is_claimed(&self, folder: &Folder, name: &str) -> bool {
        lock(&self.0).contains_key(&(folder.id, name.to_owned()))
    }

    /// The paths that are claimed: what is being recorded, closed or repaired.
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.0).values().cloned().collect()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims.0).remove(&self.key);
    }
}
