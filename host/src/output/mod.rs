//! All file I/O of recordings: the only code that touches them on disk.
//!
//! Invariants (see `host/design/files.md` for the crash points):
//!
//! 1. Nothing is written outside the media roots: every file is reached through the descriptor of its
//!    folder, which was opened below a root by the kernel's own confined resolution ([`path`]).
//! 2. Two segments never share a file name while one of them lives ([`claim`]), and a file that exists
//!    is never opened for writing by a new segment.
//! 3. A spooled segment gets its final name by rename, when it is complete and on disk; its other spools
//!    are removed after that ([`segment`]).
//! 4. A journal record is written after the media that it speaks of ([`journal`]).
//! 5. No disk work happens on a thread that moves samples ([`volume`]).

pub mod claim;
mod durable;
pub mod guard;
pub mod headroom;
pub mod journal;
pub mod orphan;
pub mod path;
pub mod segment;
pub mod sidecar;
pub mod storage;
pub mod volume;

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
