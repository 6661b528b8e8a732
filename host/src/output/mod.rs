//! All file I/O of recordings: the only code that touches them on disk.
//!
//! What must stay true, the order of writes and syncs, and what is found after a crash at any of them is written
//! down in `host/design/files.md`. In short:
//!
//! - [`path`] says where may be written, [`claim`] who owns a name;
//! - [`segment`] makes a segment's files, [`journal`] is what repair has to know of them, `durable` the order in
//!   which both get to the disk, [`headroom`] makes room in front of an MP4's media, [`sidecar`] adds the manifest;
//! - [`orphan`] finds out how far a segment is whole that lost its writer, and cuts it back to that;
//! - [`volume`] has the threads, `line` the order of a segment's work on them, `waiting` what
//!   of it is not done, [`guard`] looks after room and health;
//! - [`storage`] is all that is ever asked of the system.

pub mod claim;
mod durable;
#[cfg(test)]
mod fixture;
pub mod guard;
pub mod headroom;
pub mod journal;
mod line;
pub mod orphan;
pub mod path;
mod rounds;
pub mod segment;
pub mod sidecar;
pub mod storage;
pub mod volume;
mod waiting;

pub use path::{PathError, Roots, Target};
pub use segment::Segment;

use std::{sync::Arc, time::Duration};

use guard::Guards;
use volume::Volumes;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What every segment needs to get at the disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    pub roots: Arc<Roots>,
    pub claims: claim::Claims,
    pub volumes: Volumes,
    pub guards: Guards,
}

impl Disk {
    /// Files below `roots`, synced while they grow so that a power cut costs at most `sync_interval`.
    pub fn new(roots: Roots, sync_interval: Option<Duration>) -> Self {
        Self {
            roots: Arc::new(roots),
            claims: claim::Claims::default(),
            volumes: Volumes::new(sync_interval),
            guards: Guards::default(),
        }
    }

    /// The same, with room and health watched in this way.
    pub fn guarded(self, guards: Guards) -> Self {
        Self { guards, ..self }
    }
}
