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
pub mod guard;
pub mod headroom;
pub mod journal;
pub mod path;
pub mod segment;
pub mod storage;
pub mod volume;

pub use path::{PathError, Roots, Target};
pub use segment::Segment;

use volume::Volumes;

/// What every segment needs to get at the disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    pub roots: std::sync::Arc<Roots>,
    pub claims: claim::Claims,
    pub volumes: Volumes,
}

impl Disk {
    /// Files below `roots`.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots: std::sync::Arc::new(roots),
            claims: claim::Claims::default(),
            volumes: Volumes::default(),
        }
    }
}
