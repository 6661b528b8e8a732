//! Live streams by name, and the queues of those who listen. No files, no formats, no protocol.
//!
//! A [`Publisher`] pushes batches of samples into its [`LiveStream`], which hands them to the queue of
//! each [`Subscription`]. A queue is bounded in bytes, over which it may go by a batch. When one is full, a publisher whose media runs ahead
//! of the wall clock is held back, so that nothing is lost; one that sends in real time can't be, so
//! whole groups of pictures are dropped for that subscriber, counted, and announced by [`Item::Gap`].

mod history;
mod queue;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use history::History;
use queue::{Queue, QueueState};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    media::{Kind, Sample, Track},
    sync::lock,
};

/// Longest name of a live stream, in bytes.
pub const MAX_NAME: usize = 255;
/// What of the current group of pictures is kept for those who join: bytes and milliseconds.
const GOP_BYTES: usize = 8 << 20;
const GOP_MS: i64 = 10_000;
/// Bytes of older groups that are kept for a stream at most, if any are.
const PRE_ROLL_BYTES: usize = 64 << 20;
/// What an item costs besides its payload, so that tiny ones count as well.
const ITEM_BYTES: usize = 128;

/// Why a stream can't be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("stream name `{name}` is taken: {far} is publishing it")]
    NameTaken { name: String, far: SocketAddr },
    #[error("stream name {0}")]
    BadName(String),
}

/// Where a live stream comes from.
#[derive(Clone, Debug)]
pub struct Source {
    pub app: String,
    pub tc_url: String,
    pub page_url: String,
    pub swf_url: String,
    /// `flashVer` of RTMP's connect.
    pub user_agent: String,
    /// Our end.
    pub near: SocketAddr,
    /// The publisher's end.
    pub far: SocketAddr,
}

/// Which tracks a publisher says it has, by its onMetaData.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub video: bool,
    pub audio: bool,
}

/// The tracks of a live stream at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Those whose codec configuration is known, in order of [`Track::id`].
    pub known: Vec<Track>,
    /// `None`: the publisher did not say.
    pub declared: Option<Declared>,
}

impl Tracks {
    /// Whether each declared track is known. Where nothing is declared video and audio are expected.
    pub fn complete(&self) -> bool {
        let has = |kind| self.known.iter().any(|t| t.kind == kind);
        let both = Declared { video: true, audio: true };
        let declared = self.declared.filter(|d| d.video || d.audio).unwrap_or(both);
        (!declared.video || has(Kind::Video)) && (!declared.audio || has(Kind::Audio))
    }
}

/// What a subscriber gets, in order.
#[derive(Clone, Debug)]
pub enum Item {
    /// The tracks as they are from here on.
    Tracks(Arc<Tracks>),
    Sample(Sample),
    /// Samples that were dropped here because the queue was full.
    Gap(Gap),
}

impl Item {
    /// Bytes of memory that it stands for.
    fn cost(&self) -> usize {
        let payload = match self {
            Item::Sample(sample) => sample.data.len(),
            Item::Tracks(tracks) => tracks
                .known
                .iter()
                .map(|t| t.config.len() + t.properties.len() * ITEM_BYTES + ITEM_BYTES)
                .sum(),
            Item::Gap(_) => 0,
        };
        ITEM_BYTES + payload
    }
}

/// A stretch of media that a subscriber did not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    pub samples: u64,
    pub bytes: u64,
    pub from_dts_ms: i64,
    pub to_dts_ms: i64,
}

/// Whether a stream can have that name.
pub fn check_name(name: &str) -> Result<(), PublishError> {
    match crate::names::fault(name) {
        Some(fault) => {
            let shown: String = name.chars().take(80).collect();
            Err(PublishError::BadName(format!("{shown:?} is {fault}")))
        }
        None => Ok(()),
    }
}

/// Called for each new stream, before its first sample.
type Observer = Box<dyn Fn(&Arc<LiveStream>) + Send + Sync>;

/// Names of streams whose tracks are remembered at most.
const MAX_REMEMBERED: usize = 1000;

/// All live streams. Clones share them.
#[derive(Clone, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How long the tracks of a stream that ended are remembered.
    memory: Duration,
    /// How much media of each stream is kept besides the current group.
    pre_roll: Duration,
    remembered: Mutex<HashMap<String, (Instant, Arc<Tracks>)>>,
    streams: Mutex<HashMap<String, Arc<LiveStream>>>,
    last_id: AtomicU64,
    observer: OnceLock<Observer>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// No streams. The tracks of one that ends are remembered for so long, for a publisher that comes back and does
    /// not repeat its headers.
    pub fn new(memory: Duration) -> Self {
        Self(Arc::new(Shared { memory, ..Shared::default() }))
    }

    /// The same, with whole groups of pictures of each stream kept for so long, for those who ask for what was before
    /// they came. At most 64 MiB a stream.
    pub fn keeping(self, pre_roll: Duration) -> Self {
        let memory = self.0.memory;
        Self(Arc::new(Shared { memory, pre_roll, ..Shared::default() }))
    }

    /// How much media of each stream is kept at most; zero: the current group only.
    pub fn pre_roll(&self) -> Duration {
        self.0.pre_roll
    }

    /// Sets who is told of each new stream, synchronously and before its first sample, so that a waiting
    /// recording loses none. Once.
    pub fn observe(&self, observer: impl Fn(&Arc<LiveStream>) + Send + Sync + 'static) {
        let set = self.0.observer.set(Box::new(observer));
        assert!(set.is_ok(), "the registry has one observer");
    }

    /// A new id for a stream, inbound or recorded: 1, 2, …
    pub fn next_id(&self) -> u64 {
        self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Starts a live stream. It ends when the publisher is dropped.
    pub fn publish(&self, name: &str, source: Source) -> Result<Publisher, PublishError> {
        check_name(name)?;
        let stream = {
            let mut streams = lock(&self.0.streams);
            if let Some(taken) = streams.get(name) {
                return Err(PublishError::NameTaken { name: name.into(), far: taken.source.far });
            }
            let stream = Arc::new(LiveStream {
                id: self.next_id(),
                name: name.into(),
                source,
                created: SystemTime::now(),
                started: Instant::now(),
                shutdown: CancellationToken::new(),
                state: Mutex::new(State { history: History::new(self.0.pre_roll), ..State::default() }),
            });
            streams.insert(name.into(), stream.clone());
            stream
        };
        if let Some(observer) = self.0.observer.get() {
            observer(&stream);
        }
        let remembered = lock(&self.0.remembered).remove(name);
        let remembered = remembered.filter(|(since, _)| since.elapsed() <= self.0.memory);
        Ok(Publisher {
            registry: self.clone(),
            stream,
            remembered: remembered.map(|(_, tracks)| tracks).unwrap_or_default(),
            first: None,
            progress: HashMap::new(),
        })
    }

    fn remember(&self, name: &str, tracks: Arc<Tracks>) {
        let mut remembered = lock(&self.0.remembered);
        remembered.retain(|_, (since, _)| since.elapsed() <= self.0.memory);
        if !self.0.memory.is_zero() && !tracks.known.is_empty() && remembered.len() < MAX_REMEMBERED {
            remembered.insert(name.into(), (Instant::now(), tracks));
        }
    }

    /// The live stream of that name.
    pub fn get(&self, name: &str) -> Option<Arc<LiveStream>> {
        lock(&self.0.streams).get(name).cloned()
    }

    /// All live streams, by id.
    pub fn list(&self) -> Vec<Arc<LiveStream>> {
        let mut list: Vec<_> = lock(&self.0.streams).values().cloned().collect();
        list.sort_by_key(|s| s.id);
        list
    }
}

/// One published source.
#[derive(Debug)]
pub struct LiveStream {
    pub id: u64,
    pub name: String,
    pub source: Source,
    pub created: SystemTime,
    started: Instant,
    shutdown: CancellationToken,
    state: Mutex<State>,
}

/// Counters of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackStats {
    pub samples: u64,
    pub bytes: u64,
    pub dropped_samples: u64,
    pub dropped_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    tracks: Arc<Tracks>,
    stats: HashMap<u32, TrackStats>,
    history: History,
    subscribers: Vec<Arc<Queue>>,
    ended: bool,
}

impl LiveStream {
    /// The tracks known now.
    pub fn tracks(&self) -> Arc<Tracks> {
        lock(&self.state).tracks.clone()
    }

    /// Counters of a track.
    pub fn stats(&self, track: u32) -> TrackStats {
        lock(&self.state).stats.get(&track).copied().unwrap_or_default()
    }

    /// How long the stream has been live.
    pub fn up_time(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks the publisher to go.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Resolves when the publisher was asked to go.
    pub async fn closed(&self) {
        self.shutdown.cancelled().await;
    }

    /// Listens, from the key frame of the current group of pictures on, with a queue of `max_bytes`. A stream
    /// without video, or whose group is longer than what is kept, is joined at its next sample.
    pub fn subscribe(self: &Arc<Self>, max_bytes: usize) -> Subscription {
        self.subscribe_from(max_bytes, Duration::ZERO)
    }

    /// How much media of before now a subscriber can get, in milliseconds.
    pub fn pre_roll_ms(&self, pre_roll: Duration) -> u64 {
        let state = lock(&self.state);
        state.history.length_ms(&state.history.since(pre_roll))
    }

    /// Listens, from so long ago on as far as that is kept, by whole groups. What is from before now has room in the
    /// queue besides `max_bytes`.
    pub fn subscribe_from(self: &Arc<Self>, max_bytes: usize, pre_roll: Duration) -> Subscription {
        let mut state = lock(&self.state);
        // Of a stream that has ended meanwhile there is nothing to come.
        let groups = if state.ended { 0..0 } else { state.history.since(pre_roll) };
        let backlog_ms = state.history.length_ms(&groups);
        let older = groups.start..groups.end.saturating_sub(1).max(groups.start);
        let queue = Arc::new(Queue {
            max_bytes: max_bytes + state.history.bytes(older),
            state: Mutex::default(),
            readable: Notify::new(),
            writable: Notify::new(),
        });
        {
            let mut q = lock(&queue.state);
            if *state.tracks != Tracks::default() {
                q.push(Item::Tracks(state.tracks.clone()));
            }
            state.history.samples(groups).for_each(|sample| q.push(Item::Sample(sample.clone())));
            q.ended = state.ended;
        }
        state.subscribers.push(queue.clone());
        let joined = !state.stats.is_empty();
        drop(state);
        Subscription { queue, stream: self.clone(), joined, backlog_ms }
    }
}

/// The publishing end of a live stream; dropping it ends the stream.
#[derive(Debug)]
pub struct Publisher {
    registry: Registry,
    stream: Arc<LiveStream>,
    remembered: Arc<Tracks>,
    /// When the first sample came.
    first: Option<Instant>,
    /// By track: the last DTS, and the length of its media without leaps of the clock.
    progress: HashMap<u32, (i64, i64)>,
}

/// A longer step of a track's time is a leap of the clock, and no media.
const MAX_STEP_MS: i64 = 10_000;

impl Publisher {
    /// The tracks that the stream of that name had before, if it ended a moment ago.
    pub fn remembered(&self) -> &[Track] {
        &self.remembered.known
    }

    /// The stream that is published.
    pub fn stream(&self) -> &Arc<LiveStream> {
        &self.stream
    }

    /// Says which tracks there will be.
    pub fn declare(&mut self, declared: Declared) {
        self.change_tracks(|tracks| tracks.declared = Some(declared));
    }

    /// Adds a track, or replaces the one of that id.
    pub fn track(&mut self, track: Track) {
        self.change_tracks(|tracks| {
            tracks.known.retain(|t| t.id != track.id);
            tracks.known.push(track);
            tracks.known.sort_by_key(|t| t.id);
        });
    }

    fn change_tracks(&mut self, change: impl FnOnce(&mut Tracks)) {
        let mut state = lock(&self.stream.state);
        let mut tracks = (*state.tracks).clone();
        change(&mut tracks);
        if tracks == *state.tracks {
            return;
        }
        state.tracks = Arc::new(tracks);
        // A group that began with another configuration can't be joined.
        state.history.forget();
        for queue in &state.subscribers {
            queue.push_tracks(&state.tracks);
        }
    }

    /// Hands samples to everybody and empties the batch. Waits while a subscriber's queue is full and the media
    /// runs ahead of the wall clock; cancelled then, it has taken nothing.
    pub async fn send(&mut self, batch: &mut Vec<Sample>) {
        if batch.is_empty() {
            return;
        }
        self.first.get_or_insert_with(Instant::now);
        for sample in &*batch {
            let (last_ms, length_ms) = self.progress.entry(sample.track).or_insert((sample.dts_ms, 0));
            let step_ms = sample.dts_ms - *last_ms;
            *length_ms += if step_ms <= MAX_STEP_MS { step_ms.max(0) } else { 0 };
            *last_ms = sample.dts_ms;
        }
        self.hold_back().await;
        let mut state = lock(&self.stream.state);
        let state = &mut *state;
        let has_video = state.tracks.known.iter().find(|t| t.kind == Kind::Video).map(|t| t.id);
        state.subscribers.retain(|q| Arc::strong_count(q) > 1);
        for queue in &state.subscribers {
            for (track, samples, bytes) in queue.push_samples(batch, has_video) {
                let stats = state.stats.entry(track).or_default();
                stats.dropped_samples += samples;
                stats.dropped_bytes += bytes;
            }
        }
        for sample in batch.drain(..) {
            let stats = state.stats.entry(sample.track).or_default();
            stats.samples += 1;
            stats.bytes += sample.data.len() as u64;
            state.history.keep(has_video, sample);
        }
    }

    /// Waits until no queue is full, but no longer than the media is ahead of the clock.
    async fn hold_back(&self) {
        loop {
            let full = {
                let state = lock(&self.stream.state);
                state.subscribers.iter().find(|q| q.is_full()).cloned()
            };
            let (Some(queue), Some(first)) = (full, self.first) else { return };
            let length_ms = self.progress.values().map(|progress| progress.1).max().unwrap_or(0);
            let due = first + Duration::from_millis(length_ms.unsigned_abs());
            if due <= Instant::now() {
                return;
            }
            let wait = async {
                let writable = queue.writable.notified();
                if queue.is_full() {
                    writable.await;
                }
            };
            let _ = tokio::time::timeout_at(due, wait).await;
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.registry.remember(&self.stream.name, self.stream.tracks());
        // Out of the registry first, so that who sees the end can publish or wait for the same name.
        lock(&self.registry.0.streams).remove(&self.stream.name);
        let mut state = lock(&self.stream.state);
        state.ended = true;
        for queue in &state.subscribers {
            lock(&queue.state).ended = true;
            queue.readable.notify_one();
        }
    }
}

/// The listening end of a live stream; dropping it stops listening.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    stream: Arc<LiveStream>,
    joined: bool,
    backlog_ms: u64,
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub samples: usize,
    pub bytes: usize,
}

impl Subscription {
    /// The stream that is listened to.
    pub fn stream(&self) -> &Arc<LiveStream> {
        &self.stream
    }

    /// Whether samples had come before we listened.
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// Length of the media of before we listened that we got, in milliseconds.
    pub fn backlog_ms(&self) -> u64 {
        self.backlog_ms
    }

    /// Takes everything that waits.
    pub fn drain(&mut self, batch: &mut Vec<Item>) {
        let all = BatchLimits { samples: usize::MAX, bytes: usize::MAX };
        let mut state = lock(&self.queue.state);
        self.take(&mut state, all, batch);
        batch.extend(state.gap.take().map(Item::Gap));
    }

    /// Bytes that wait.
    pub fn queued_bytes(&self) -> usize {
        lock(&self.queue.state).bytes
    }

    /// Waits until there is something and moves it to `batch`, up to the limits. Who publishes sees to it that not each
    /// sample comes alone. `false`: the stream has ended and everything was taken. Cancel safe.
    pub async fn recv(&mut self, limits: BatchLimits, batch: &mut Vec<Item>) -> bool {
        loop {
            {
                let mut state = lock(&self.queue.state);
                if state.ended || !state.items.is_empty() {
                    return self.take(&mut state, limits, batch);
                }
            }
            self.queue.readable.notified().await;
        }
    }

    fn take(&self, state: &mut QueueState, limits: BatchLimits, batch: &mut Vec<Item>) -> bool {
        let (mut samples, mut bytes) = (0, 0);
        while samples < limits.samples && bytes < limits.bytes {
            let Some(item) = state.items.pop_front() else { break };
            bytes += item.cost();
            samples += usize::from(matches!(item, Item::Sample(_)));
            batch.push(item);
        }
        state.bytes -= bytes;
        if state.items.is_empty()
            && state.ended
            && let Some(gap) = state.gap.take()
        {
            batch.push(Item::Gap(gap));
        }
        self.queue.writable.notify_one();
        !batch.is_empty()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        *state = QueueState { closed: true, ..QueueState::default() };
        drop(state);
        // A publisher that was held back for us goes on.
        self.queue.writable.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn source() -> Source {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        Source {
            app: "live".into(),
            tc_url: String::new(),
            page_url: String::new(),
            swf_url: String::new(),
            user_agent: String::new(),
            near: addr,
            far: addr,
        }
    }

    fn track(id: u32, kind: Kind) -> Track {
        let codec = if kind == Kind::Video { "avc1" } else { "mp4a" };
        Track { id, kind, codec: codec.into(), config: Bytes::new(), properties: vec![] }
    }

    fn sample(track: u32, dts_ms: i64, key: bool, len: usize) -> Sample {
        Sample { track, dts_ms, pts_ms: dts_ms, key, discontinuity: false, data: vec![0; len].into() }
    }

    const NOW: BatchLimits = BatchLimits { samples: 64, bytes: 4 << 20 };

    fn times(batch: &[Item]) -> Vec<i64> {
        let dts = |item: &Item| match item {
            Item::Sample(sample) => Some(sample.dts_ms),
            _ => None,
        };
        batch.iter().filter_map(dts).collect()
    }

    #[tokio::test]
    async fn a_name_is_published_once_at_a_time() {
        let registry = Registry::default();
        let first = registry.publish("cam", source()).unwrap();
        assert!(matches!(registry.publish("cam", source()), Err(PublishError::NameTaken { .. })));
        drop(first);
        assert!(registry.publish("cam", source()).is_ok());
        assert!(matches!(registry.publish("a\nb", source()), Err(PublishError::BadName(_))));
        assert!(matches!(registry.publish("", source()), Err(PublishError::BadName(_))));
        let error = check_name("a\u{202e}b").unwrap_err().to_string();
        assert_eq!(error, r#"stream name "a\u{202e}b" is not allowed: it has the character U+202E"#);
    }

    #[test]
    fn tracks_are_complete_when_what_was_declared_is_known() {
        let (video, audio) = (track(1, Kind::Video), track(2, Kind::Audio));
        let complete = |declared: Option<(bool, bool)>, known: &[&Track]| {
            let declared = declared.map(|(video, audio)| Declared { video, audio });
            Tracks { known: known.iter().map(|&t| t.clone()).collect(), declared }.complete()
        };
        assert!(complete(Some((true, true)), &[&video, &audio]));
        assert!(!complete(Some((true, true)), &[&video]));
        assert!(complete(Some((true, false)), &[&video]));
        assert!(!complete(Some((false, true)), &[&video]));
        for nothing_said in [None, Some((false, false))] {
            assert!(!complete(nothing_said, &[]) && !complete(nothing_said, &[&video]));
            assert!(complete(nothing_said, &[&video, &audio]));
        }
    }

    #[tokio::test]
    async fn who_joins_gets_the_current_group_from_its_key_frame_on() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        publisher.track(track(1, Kind::Video));
        let group = |at: i64| (0..10).map(move |i| sample(1, at + i * 40, i == 0, 100));
        publisher.send(&mut group(0).chain(group(400)).collect()).await;
        let mut late = publisher.stream().subscribe(1 << 20);
        publisher.send(&mut vec![sample(1, 800, true, 100)]).await;
        drop(publisher);
        let mut batch = Vec::new();
        assert!(late.recv(NOW, &mut batch).await);
        assert!(matches!(&batch[0], Item::Tracks(t) if t.known.len() == 1));
        assert_eq!(times(&batch), (400..=800).step_by(40).collect::<Vec<_>>());
        assert!(!late.recv(NOW, &mut Vec::new()).await, "the stream has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_drops_whole_groups_and_says_so() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        publisher.track(track(1, Kind::Video));
        // Room for the track and ten samples.
        let mut slow = publisher.stream().subscribe(2 * ITEM_BYTES + 10 * (100 + ITEM_BYTES));
        // In real time: one frame of 100 bytes each 40 ms, a key frame each tenth.
        for i in 0..40 {
            publisher.send(&mut vec![sample(1, i * 40, i % 10 == 0, 100)]).await;
            tokio::time::advance(Duration::from_millis(40)).await;
            if i == 24 {
                let mut batch = Vec::new();
                slow.recv(NOW, &mut batch).await;
                assert_eq!(times(&batch), (0..10).map(|i| i * 40).collect::<Vec<_>>());
            }
        }
        assert_eq!(publisher.stream().stats(1).dropped_samples, 20, "groups 1 and 2");
        drop(publisher);
        let mut batch = Vec::new();
        slow.recv(NOW, &mut batch).await;
        let Item::Gap(gap) = batch[0] else { panic!("{:?}", batch[0]) };
        assert_eq!((gap.samples, gap.bytes), (20, 2000));
        assert_eq!((gap.from_dts_ms, gap.to_dts_ms), (400, 1160));
        assert_eq!(times(&batch), (30..40).map(|i| i * 40).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_ahead_of_the_clock_is_held_back_and_loses_nothing() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        publisher.track(track(1, Kind::Video));
        let limit = 10 * (100 + ITEM_BYTES);
        let mut slow = publisher.stream().subscribe(limit);
        let sender = tokio::spawn(async move {
            // An hour of media at once, in batches of one to seven.
            let mut at = 0..3600;
            for batch in (1..8).cycle() {
                let mut batch: Vec<_> =
                    at.by_ref().take(batch).map(|i| sample(1, i * 1000, true, 100)).collect();
                if batch.is_empty() {
                    break;
                }
                publisher.send(&mut batch).await;
            }
        });
        let mut got = Vec::new();
        let mut batch = Vec::new();
        while slow.recv(NOW, &mut batch).await {
            assert!(slow.queued_bytes() <= limit + 7 * (100 + ITEM_BYTES));
            got.append(&mut times(&batch));
            batch.clear();
        }
        sender.await.unwrap();
        assert_eq!(got, (0..3600).map(|i| i * 1000).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_that_is_held_back_goes_on_when_the_listener_is_gone() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        publisher.track(track(1, Kind::Video));
        let slow = publisher.stream().subscribe(1000);
        let sender = tokio::spawn(async move {
            for i in 0..100 {
                publisher.send(&mut vec![sample(1, i * 1000, true, 100)]).await;
            }
        });
        tokio::task::yield_now().await;
        let start = Instant::now();
        drop(slow);
        sender.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "not when the clock has caught up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_of_the_clock_is_no_media() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        publisher.track(track(1, Kind::Video));
        let slow = publisher.stream().subscribe(10 * (100 + ITEM_BYTES));
        // In real time, but for a leap of an hour: nobody has to wait.
        let start = Instant::now();
        for i in 0..100 {
            let leap = if i < 50 { 0 } else { 3_600_000 };
            publisher.send(&mut vec![sample(1, i * 40 + leap, true, 100)]).await;
            tokio::time::advance(Duration::from_millis(40)).await;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(4000));
        drop(slow);
    }

    #[tokio::test(start_paused = true)]
    async fn tracks_are_remembered_for_a_while() {
        let registry = Registry::new(Duration::from_secs(10));
        let publish = |known: bool| {
            let mut publisher = registry.publish("cam", source()).unwrap();
            if known {
                publisher.track(track(1, Kind::Video));
            }
            publisher.remembered().len()
        };
        assert_eq!(publish(true), 0);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(publish(true), 1);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(publish(false), 0, "too late");
        assert_eq!(publish(false), 0, "there was none");
        let registry = Registry::default();
        drop(registry.publish("cam", source()).map(|mut p| p.track(track(1, Kind::Video))));
        assert_eq!(registry.publish("cam", source()).unwrap().remembered().len(), 0, "off");
    }

    #[tokio::test]
    async fn tracks_can_not_fill_a_queue() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        let mut slow = publisher.stream().subscribe(10_000);
        for i in 0..1000u32 {
            let mut track = track(1, Kind::Video);
            track.config = i.to_be_bytes().to_vec().into();
            publisher.track(track.clone());
            track.config = Bytes::from(vec![0; i as usize]);
            publisher.track(track.clone());
            track.config = i.to_be_bytes().to_vec().into();
            publisher.track(track);
            publisher.send(&mut vec![sample(1, 0, true, 100)]).await;
            assert!(slow.queued_bytes() < 12_000);
        }
        let mut batch = Vec::new();
        slow.drain(&mut batch);
        publisher.send(&mut vec![sample(1, 0, true, 1)]).await;
        slow.drain(&mut batch);
        let last = batch.iter().rev().find_map(|i| if let Item::Tracks(t) = i { Some(t) } else { None });
        assert_eq!(last.unwrap().known[0].config, 999u32.to_be_bytes()[..]);
    }

    #[tokio::test]
    async fn a_batch_has_its_limits() {
        let registry = Registry::default();
        let mut publisher = registry.publish("cam", source()).unwrap();
        let mut subscription = publisher.stream().subscribe(1 << 20);
        publisher.send(&mut (0..7).map(|i| sample(2, i, true, 1000)).collect()).await;
        let mut take = async |samples, bytes| {
            let mut batch = Vec::new();
            subscription.recv(BatchLimits { samples, bytes }, &mut batch).await;
            times(&batch)
        };
        assert_eq!(take(3, 1 << 20).await, [0, 1, 2], "by count");
        assert_eq!(take(64, 2000).await, [3, 4], "by bytes");
        assert_eq!(take(64, 1 << 20).await, [5, 6], "all that there is");
    }
}
