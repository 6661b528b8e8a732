//! How a run gets its next stream: the recordings offer it when a stream of that name starts, the run takes it when
//! its own has ended.

use std::{collections::VecDeque, sync::Mutex};

use tokio::{sync::Notify, time::Instant};

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

    /// The next stream, if it comes in time. If not, the run takes no more. Cancel safe.
    pub(super) async fn next(&self, deadline: Instant) -> Option<Subscription> {
        loop {
            let offered = self.offered.notified();
            {
                let mut state = lock(&self.state);
                if let Some(stream) = state.streams.pop_front() {
                    return Some(stream);
                }
                if state.closed || Instant::now() >= deadline {
                    state.closed = true;
                    return None;
                }
            }
            let _ = tokio::time::timeout_at(deadline, offered).await;
        }
    }

    /// A stream that waits, if there is one.
    pub(super) fn take(&self) -> Option<Subscription> {
        lock(&self.state).streams.pop_front()
    }

    /// Takes no more; gives back what waits.
    pub(super) fn close(&self) -> Vec<Subscription> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.streams.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::registry::{Registry, Source};

    fn stream(registry: &Registry, name: &str) -> Subscription {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let source = Source {
            app: String::new(),
            tc_url: String::new(),
            page_url: String::new(),
            swf_url: String::new(),
            user_agent: String::new(),
            near: addr,
            far: addr,
        };
        registry.publish(name, source).unwrap().stream().subscribe(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_in_time_is_handed_over_and_one_after_that_is_not() {
        const WINDOW: Duration = Duration::from_secs(10);
        let registry = Registry::default();
        let handover = Arc::new(Handover::default());
        // Before the run asks, while it waits, and after.
        handover.offer(stream(&registry, "a")).unwrap();
        assert_eq!(handover.next(Instant::now() + WINDOW).await.unwrap().stream().name, "a");
        let waiting = tokio::spawn({
            let handover = handover.clone();
            async move { handover.next(Instant::now() + WINDOW).await.unwrap().stream().name.clone() }
        });
        tokio::time::sleep(Duration::from_secs(9)).await;
        handover.offer(stream(&registry, "b")).unwrap();
        assert_eq!(waiting.await.unwrap(), "b");
        let start = Instant::now();
        assert!(handover.next(start + WINDOW).await.is_none());
        assert_eq!(start.elapsed(), WINDOW);
        assert!(handover.offer(stream(&registry, "c")).is_err());
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_given_back() {
        let registry = Registry::default();
        let handover = Handover::default();
        for i in 0..MAX_OFFERED {
            handover.offer(stream(&registry, &i.to_string())).unwrap();
        }
        assert!(handover.offer(stream(&registry, "more")).is_err());
        assert_eq!(handover.close().len(), MAX_OFFERED);
        assert!(handover.next(Instant::now() + Duration::from_secs(1)).await.is_none());
    }
}
