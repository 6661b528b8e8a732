//! How a run gets its next stream: the recordings offer it when a stream of that name starts, the run takes it when
//! its own has ended.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use tokio::sync::Notify;

use crate::{registry::Subscription, sync::lock};

/// Streams that wait for a run that is still busy with the one before.
const MAX_OFFERED: usize = 4;

/// Where streams wait for a run.
#[derive(Debug, Default)]
pub(super) struct Handover {
    state: Mutex<State>,
    offered: Notify,
}

#[derive(Debug, Default)]
struct State {
    streams: VecDeque<Subscription>,
    /// The run takes no more.
    closed: bool,
}

impl Handover {
    /// Hands a stream to the run; it is given back by a run that takes no more.
    pub(super) fn offer(&self, stream: Subscription) -> Result<(), Subscription> {
        let mut state = lock(&self.state);
        if state.closed || state.streams.len() >= MAX_OFFERED {
            return Err(stream);
        }
        state.streams.push_back(stream);
        self.offered.notify_one();
        Ok(())
    }

    /// The next stream, if it comes within the window. If not, the run takes no more. Cancel safe.
    pub(super) async fn next(&self, window: Duration) -> Option<Subscription> {
        let deadline = tokio::time::Instant::now() + window;
        loop {
            let offered = self.offered.notified();
            {
                let mut state = lock(&self.state);
                if let Some(stream) = state.streams.pop_front() {
                    return Some(stream);
                }
                if state.closed || tokio::time::Instant::now() >= deadline {
                    state.closed = true;
                    return None;
                }
            }
            let _ = tokio::time::timeout_at(deadline, offered).await;
        }
    }

    /// Takes no more; gives back what waits.
    pub(super) fn close(&self) -> Vec<Subscription> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.streams.drain(..).collect()
    }
}
