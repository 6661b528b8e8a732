//! Tells of a live stream: that it began, that its codecs changed, that it ended.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    control::shape,
    events::{Event, Events},
    registry::LiveStream,
};

/// Codecs that change more often than this are told of together.
const PAUSE: Duration = Duration::from_millis(500);

/// Eyes on a live stream.
#[derive(Debug)]
pub struct Watch {
    events: Events,
    stream: Arc<LiveStream>,
    codecs_changed: bool,
    codecs_told: Option<Instant>,
}

impl Watch {
    pub(super) fn begin(events: Events, stream: Arc<LiveStream>) -> Self {
        let watch = Self { events, stream, codecs_changed: false, codecs_told: None };
        watch.tell("inStreamCreated");
        watch
    }

    /// The stream has other tracks than before.
    pub fn codecs_changed(&mut self) {
        self.codecs_changed = true;
    }

    /// To be called now and then: tells of new codecs, when it is time.
    pub fn poll(&mut self) {
        if self.codecs_changed && self.codecs_told.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.tell_codecs();
        }
    }

    /// The stream is over.
    pub fn closed(mut self) {
        if self.codecs_changed {
            self.tell_codecs();
        }
        self.tell("inStreamClosed");
    }

    fn tell_codecs(&mut self) {
        (self.codecs_changed, self.codecs_told) = (false, Some(Instant::now()));
        self.tell("inStreamCodecsUpdated");
    }

    fn tell(&self, kind: &'static str) {
        self.events.send(Event::new(kind, shape::in_stream(&self.stream)));
    }
}
