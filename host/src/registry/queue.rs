//! What waits for one subscriber: bounded, and what does not fit is dropped by whole groups and counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;

use super::{Gap, Item, Tracks};
use crate::{media::Sample, sync::lock};

/// What waits for one subscriber.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) max_bytes: usize,
    pub(super) state: Mutex<QueueState>,
    pub(super) readable: Notify,
    pub(super) writable: Notify,
}

#[derive(Debug, Default)]
pub(super) struct QueueState {
    pub(super) items: VecDeque<Item>,
    pub(super) bytes: usize,
    /// What is being dropped, until the next key frame that finds room.
    pub(super) gap: Option<Gap>,
    /// Tracks that came while the queue was full.
    pub(super) late_tracks: Option<Arc<Tracks>>,
    /// Nobody reads any more.
    pub(super) closed: bool,
    pub(super) ended: bool,
}

impl QueueState {
    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.cost();
        self.items.push_back(item);
    }
}

impl Queue {
    pub(super) fn is_full(&self) -> bool {
        let state = lock(&self.state);
        !state.closed && state.bytes >= self.max_bytes
    }

    /// Tracks that nothing followed are replaced. When the queue is full they wait for the end of the gap.
    pub(super) fn push_tracks(&self, tracks: &Arc<Tracks>) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        if let Some(last) = state.items.pop_back_if(|last| matches!(last, Item::Tracks(_))) {
            state.bytes -= last.cost();
            state.push(Item::Tracks(tracks.clone()));
            return;
        }
        if state.bytes >= self.max_bytes {
            state.late_tracks = Some(tracks.clone());
            return;
        }
        let was_empty = state.items.is_empty();
        state.push(Item::Tracks(tracks.clone()));
        if was_empty {
            self.readable.notify_one();
        }
    }

    /// Takes a batch in, but for what has to be dropped, which is nothing while the queue is not full before it. Returns
    /// what was dropped as (track, samples, bytes).
    pub(super) fn push_samples(&self, batch: &[Sample], video: Option<u32>) -> Vec<(u32, u64, u64)> {
        let mut state = lock(&self.state);
        let was_empty = state.items.is_empty();
        let mut dropped: Vec<(u32, u64, u64)> = Vec::new();
        if state.closed {
            return dropped;
        }
        // Once for all of it: a publisher that can be held back is, before a batch and not amid one.
        let full = state.bytes >= self.max_bytes;
        for sample in batch {
            let joins = !full && video.is_none_or(|id| id == sample.track && sample.key);
            match &mut state.gap {
                None if !full => {
                    let tracks = state.late_tracks.take().map(Item::Tracks);
                    tracks.into_iter().for_each(|tracks| state.push(tracks));
                }
                Some(_) if joins => {
                    let gap = state.gap.take().map(Item::Gap);
                    let tracks = state.late_tracks.take().map(Item::Tracks);
                    gap.into_iter().chain(tracks).for_each(|item| state.push(item));
                }
                gap => {
                    let bytes = sample.data.len() as u64;
                    let gap = gap.get_or_insert(Gap { from_dts_ms: sample.dts_ms, ..Gap::default() });
                    gap.samples += 1;
                    gap.bytes += bytes;
                    gap.to_dts_ms = sample.dts_ms;
                    match dropped.iter_mut().find(|d| d.0 == sample.track) {
                        Some(count) => {
                            count.1 += 1;
                            count.2 += bytes;
                        }
                        None => dropped.push((sample.track, 1, bytes)),
                    }
                    continue;
                }
            }
            state.push(Item::Sample(sample.clone()));
        }
        if was_empty && !state.items.is_empty() {
            self.readable.notify_one();
        }
        dropped
    }
}
