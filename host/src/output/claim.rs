//! Names that segments own while they live, so that two can't share a file, however its folder is spelled.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use super::path::Folder;
use crate::sync::lock;

type Key = ((u64, u64), String);

/// All claimed names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<HashSet<Key>>>);

/// A claimed name; dropping it frees it.
#[derive(Debug)]
pub struct Claim {
    key: Key,
    claims: Claims,
}

impl Claims {
    /// Claims a file name in a folder; `None` if a segment has it.
    pub fn claim(&self, folder: &Folder, name: &str) -> Option<Claim> {
        let key = (folder.id, name.to_owned());
        lock(&self.0).insert(key.clone()).then(|| Claim { key, claims: self.clone() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims.0).remove(&self.key);
    }
}
