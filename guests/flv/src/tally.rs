//! What a file holds so far. Kept while recording and rebuilt by recovery, from the same facts.

use crate::index::{Entry, Index};
use crate::metadata::Totals;
use crate::tracks::Kind;

/// A sample's tag, as far as closing the file needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) kind: Kind,
    /// Counts for video only.
    pub(crate) key: bool,
    pub(crate) time_ms: u32,
    /// Of the tag's first byte in the file.
    pub(crate) offset: u64,
}

/// Counts, times and the key frame index.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) video: Times,
    pub(crate) audio: Times,
    pub(crate) key_frames: u64,
    last_key_ms: u32,
    ends_with_key: bool,
    index: Index,
}

/// Of one track.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) frames: u64,
    last_ms: u32,
    /// From the last but one frame to the last; 0 while there is none.
    delta_ms: u32,
}

impl Tally {
    /// Of a file without samples. An AVC sequence header becomes the index's first entry, at time 0: its tag
    /// counts as a key frame by its FrameType, players that fetch a file in ranges need it first, and tools
    /// take an index without it for wrong. A key frame at time 0 has no entry of its own then.
    pub(crate) fn new(index_capacity: usize, avc_sequence_header: Option<u64>) -> Self {
        let mut index = Index::new(index_capacity);
        if let Some(offset) = avc_sequence_header {
            index.offer(Entry { time_ms: 0, offset });
        }
        Self {
            video: Times::default(),
            audio: Times::default(),
            key_frames: 0,
            last_key_ms: 0,
            ends_with_key: avc_sequence_header.is_some(),
            index,
        }
    }

    pub(crate) fn add(&mut self, tag: Written) {
        let times = match tag.kind {
            Kind::Video => {
                self.ends_with_key = tag.key;
                if tag.key {
                    self.key_frames += 1;
                    self.last_key_ms = tag.time_ms;
                    self.index.offer(Entry { time_ms: tag.time_ms, offset: tag.offset });
                }
                &mut self.video
            }
            Kind::Audio => &mut self.audio,
        };
        if times.frames > 0 {
            times.delta_ms = tag.time_ms.saturating_sub(times.last_ms);
        }
        times.frames += 1;
        times.last_ms = tag.time_ms;
    }

    /// Time of the last sample of all.
    pub(crate) fn last_ms(&self) -> u32 {
        self.video.last_ms.max(self.audio.last_ms)
    }

    /// Where the file ends if each track's last sample lasts as long as the one before.
    pub(crate) fn estimated_end_ms(&self) -> u64 {
        let end = |times: &Times| u64::from(times.last_ms) + u64::from(times.delta_ms);
        end(&self.video).max(end(&self.audio))
    }

    pub(crate) fn totals(&self, duration_ms: u64, file_size: u64) -> Totals<'_> {
        Totals {
            duration_ms,
            file_size,
            last_ms: self.last_ms(),
            last_key_ms: self.last_key_ms,
            ends_with_key: self.ends_with_key,
            index: self.index.entries(),
        }
    }
}
