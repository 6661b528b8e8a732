//! What of a segment is in its line and not yet done, so that who only wants to know does not wait for it.

use std::{
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{Ordering, fence},
    },
};

use bytes::Bytes;

use super::{durable::Write, segment::OutputId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// What was flushed, in order; it goes when it has been written.
    writes: Vec<Weak<Vec<Write>>>,
    /// Shared with what overwrites, as long as it is not done.
    overwrites: Arc<()>,
    /// Shared with syncs that a patch needs.
    syncs: Arc<()>,
}

/// Keeps what it stands for waiting, as long as it lives.
#[derive(Debug)]
pub(super) struct Waits {
    _of: Arc<()>,
}

impl Waiting {
    /// Takes what is being put into the line.
    pub(super) fn push(&mut self, writes: &Arc<Vec<Write>>) {
        self.writes.retain(|writes| writes.strong_count() > 0);
        self.writes.push(Arc::downgrade(writes));
    }

    /// What has not been written of bytes of an output's file: where that begins, and all from there on.
    pub(super) fn tail(&self, id: OutputId, bytes: Range<u64>) -> (u64, Vec<Bytes>) {
        let (mut begins, mut tail) = (bytes.end, Vec::new());
        let writes: Vec<_> = self.writes.iter().filter_map(Weak::upgrade).collect();
        // Whatever has gone from the line is in the files for who looks now.
        fence(Ordering::Acquire);
        for write in writes.iter().flat_map(|writes| writes.iter()).filter(|write| write.output == id) {
            begins = begins.min(write.at.max(bytes.start));
            let mut at = write.at;
            for piece in &write.pieces {
                let end = at + piece.len() as u64;
                let part = |position: u64| (position.clamp(at, end) - at) as usize;
                tail.push(piece.slice(part(bytes.start)..part(bytes.end)));
                at = end;
            }
        }
        (begins, tail)
    }

    /// For an overwrite that is being put into the line.
    pub(super) fn overwrite(&self) -> Waits {
        Waits { _of: self.overwrites.clone() }
    }

    /// Whether any waits.
    pub(super) fn is_overwriting(&self) -> bool {
        Arc::strong_count(&self.overwrites) > 1
    }

    /// For a sync that is being put into the line.
    pub(super) fn sync(&self) -> Waits {
        Waits { _of: self.syncs.clone() }
    }

    /// Whether any waits.
    pub(super) fn is_syncing(&self) -> bool {
        Arc::strong_count(&self.syncs) > 1
    }
}
