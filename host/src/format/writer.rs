//! One instance of a component, writing one segment.

use std::{sync::Arc, time::Duration};

use wasmtime::{Store, Trap, UpdateDeadline, component::ResourceTableError};

use super::{
    Cause, FormatError, Version,
    bindings::reelwright::writer::types::{
        End as WitEnd, Error as WitError, Property, Sample as WitSample, Start as WitStart, Timebase,
        Track as WitTrack, TrackEnd,
    },
    bundle::Step,
    engine::Engine,
    guest_log::one_line,
    imports::{NO_HOSTCALL_BYTES, Session, State},
    instance::Instance,
    limits::{Limit, Limits},
    meters::{Call, Mark, Meters},
    plugin::{Plugin, PluginPre},
};
use crate::{
    media::{Sample, Track},
    output::{Segment, journal, orphan::Orphan, segment, sidecar::MANIFEST},
};

/// Most samples of one `write`.
const MAX_BATCH: usize = 64;
/// Most bytes of the samples of one `write`, if there are several.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// The same of what is copied into the component, whose memory then is as large as the largest batch was.
const MAX_COPIED_BYTES: usize = 96 << 10;
/// Most bytes of `carry`.
const MAX_CARRY: usize = 64 << 10;
/// What heads are rounded up to. Larger than the blocks of most file systems would cost space, smaller would
/// make each shift a copy.
pub const HEAD_ALIGN: u32 = 4096;

/// What a segment starts from.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Number in the run.
    pub segment: u64,
    pub epoch_us: i64,
    pub origin_ms: i64,
    /// Bytes kept free in front of a spool; a multiple of [`HEAD_ALIGN`].
    pub head_room: u64,
    /// Whether the file gets a manifest.
    pub manifest: bool,
    /// The recording's id and the stream's name, for reports of a repair.
    pub config_id: u64,
    pub stream: String,
    pub whose: journal::Whose,
    pub tracks: Vec<Track>,
    /// Options that differ from their defaults. Those that the format does not have are left out.
    pub options: Vec<(String, String)>,
    pub carry: Vec<u8>,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub reason: &'static str,
    /// By track, the DTS at which it ends.
    pub tracks: Vec<(u32, i64)>,
}

/// A segment that its component has ended, and that is not yet durable.
#[derive(Debug)]
pub struct Closing {
    component: String,
    segment: Segment,
    properties: Vec<(String, String)>,
    /// For the next segment of the run.
    pub carry: Vec<u8>,
    /// Of all calls, and bytes of memory that the instance had at the end.
    pub(super) computing: Duration,
    pub(super) memory: usize,
}

/// A segment that its writer could not go on with, and why. What was committed can be repaired.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    pub error: FormatError,
    pub orphan: Orphan,
}

impl Failed {
    /// Keeps in mind how many samples the writer was given.
    pub fn with_given(self, samples: u64) -> Self {
        Self { orphan: self.orphan.with_given(samples), ..self }
    }
}

/// A segment that is complete.
#[derive(Clone, Debug)]
pub struct Finished {
    pub file: segment::Finished,
    /// What the format says of it: `duration-ms`, …
    pub properties: Vec<(String, String)>,
}

impl Closing {
    /// What the format says of it: `duration-ms`, …
    pub fn properties(&self) -> &[(String, String)] {
        &self.properties
    }

    /// Adds a manifest; see [`Segment::add_manifest`].
    pub async fn add_manifest(mut self, text: impl FnOnce(u64, String) -> Vec<u8>) -> Result<Self, Failed> {
        match self.segment.add_manifest(text).await {
            Ok(()) => Ok(self),
            Err(error) => Err(Failed {
                error: FormatError { component: self.component, call: "finish", cause: Cause::Output(error) },
                orphan: self.segment.abandon().await,
            }),
        }
    }

    /// Bytes that the file will have.
    pub fn bytes(&self) -> u64 {
        self.segment.file_bytes()
    }

    /// Makes the file durable under its final name, and removes what is left beside it.
    pub async fn complete(self) -> Result<Finished, Failed> {
        self.close(Vec::new()).await?.clear_up().await
    }

    /// Makes the file durable under its final name. Needs nothing of the component. See [`Segment::close`].
    pub async fn close(self, summary: Vec<u8>) -> Result<Closed, Failed> {
        let Self { component, segment, properties, .. } = self;
        match segment.close(summary).await {
            Ok(segment) => Ok(Closed { component, segment, properties }),
            Err(failed) => Err(not_finished(component, failed)),
        }
    }
}

/// A segment whose file is complete, and that can still be announced safely; see [`segment::Closed`].
#[derive(Debug)]
pub struct Closed {
    component: String,
    segment: segment::Closed,
    properties: Vec<(String, String)>,
}

impl Closed {
    /// The file.
    pub fn file(&self) -> &segment::Finished {
        self.segment.file()
    }

    /// Removes what is left beside the file, the journal last.
    pub async fn clear_up(self) -> Result<Finished, Failed> {
        let Self { component, segment, properties } = self;
        match segment.clear_up().await {
            Ok(file) => Ok(Finished { file, properties }),
            Err(failed) => Err(not_finished(component, failed)),
        }
    }
}

/// What a component is given of a payload of which it is given so many bytes at most.
fn beginning(sample: &Sample, most: usize) -> &[u8] {
    &sample.data[..sample.data.len().min(most)]
}

fn not_finished(component: String, (error, orphan): (segment::OutputError, Orphan)) -> Failed {
    Failed { error: FormatError { component, call: "finish", cause: Cause::Output(error) }, orphan }
}

/// Writes one segment. After an error only [`Writer::abandon`] makes sense.
pub struct Writer {
    version: Arc<Version>,
    instance: Instance,
    store: Store<State>,
    /// In the version's counters.
    mark: Mark,
    /// The latest DTS given.
    last_ms: i64,
    dead: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Writer {
    /// Instantiates the component and opens the segment, whose files are there when this returns. On an error they are
    /// removed.
    pub async fn open(version: Arc<Version>, segment: Segment, begin: Begin) -> Result<Self, FormatError> {
        let meters = version.meters.clone();
        Self::open_counted(version, meters, segment, begin, true).await
    }

    /// The same, without waiting for the files: what is written waits for them, and what keeps them from being made is
    /// the error of a later call.
    pub async fn open_ahead(
        version: Arc<Version>,
        segment: Segment,
        begin: Begin,
    ) -> Result<Self, FormatError> {
        let meters = version.meters.clone();
        Self::open_counted(version, meters, segment, begin, false).await
    }

    /// The same for a segment that is nobody's recording: it does not count.
    pub(super) async fn open_aside(
        version: Arc<Version>,
        segment: Segment,
        begin: Begin,
    ) -> Result<Self, FormatError> {
        Self::open_counted(version, Arc::default(), segment, begin, true).await
    }

    async fn open_counted(
        version: Arc<Version>,
        meters: Arc<Meters>,
        segment: Segment,
        begin: Begin,
        waits: bool,
    ) -> Result<Self, FormatError> {
        let last_ms = begin.origin_ms;
        let start = journal_start(&version, &segment, begin);
        let from = format!("{} {}", version.label(), segment.path().display());
        let wit = wit_start(&start);
        let mut session = Session::new(segment, start, false, version.needs);
        session.recent = version.engine.bundles().map(|bundles| bundles.recent());
        let mut state = State::with_session(&version.engine, &version.limits, &meters, &from, session);
        state.recalls = version.recalls.clone();
        let mut store = store(&version.engine, &version.limits, state);
        let result = async {
            check_codecs(&version, &wit.tracks)?;
            let mut instance = Instance::new(&mut store, &version).await?;
            let time = Time::of(&version.limits, Limit::OpenTime);
            let opened = call(&mut store, time, async |store| instance.open(store, &wit).await).await?;
            opened.map_err(|error| refused(&store, &error))?;
            let session = store.data_mut().session.as_mut().expect("a writer has a session");
            session.segment.begun().await?;
            if waits {
                session.segment.settled().await?;
            }
            Ok(instance)
        }
        .await;
        match result {
            Ok(instance) => {
                let mark = Mark::new(meters);
                let mut writer = Self { version, instance, store, mark, last_ms, dead: false };
                writer.measure();
                Ok(writer)
            }
            Err(mut cause) => {
                if let Some(session) = &store.data().session {
                    cause = blame(cause, &session.segment);
                }
                blamed(&version, &store, "open", &cause);
                if let Some(session) = store.data_mut().session.take() {
                    session.segment.discard().await;
                }
                Err(FormatError { component: version.label(), call: "open", cause })
            }
        }
    }

    /// The component.
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// What the segment started from.
    pub fn start(&self) -> &journal::Start {
        &self.session().start
    }

    /// Where the segment is written to.
    pub fn path(&self) -> std::path::PathBuf {
        self.session().segment.path()
    }

    /// Bytes appended to all outputs.
    pub fn bytes(&self) -> u64 {
        self.session().segment.total_size()
    }

    /// Time of computing so far, over all calls.
    pub fn computing(&self) -> Duration {
        self.store.data().computing
    }

    /// Bytes of memory that the instance uses.
    pub fn memory(&self) -> usize {
        usize::try_from(self.store.data().growth.memory_used()).unwrap_or(usize::MAX)
    }

    /// Brings the version's counters up to date.
    fn measure(&mut self) {
        let (memory, appended) = (self.store.data().growth.memory_used(), self.session().appended);
        self.mark.now(memory, appended);
    }

    /// Writes samples: any number, in run time. What is appended is on its way to the disk when this returns.
    pub async fn write(&mut self, samples: &[Sample]) -> Result<(), FormatError> {
        let most_of_each = self.version.copied;
        let mut rest = samples;
        while !rest.is_empty() {
            let (mut bytes, mut copied) = (0, 0);
            let fits = |sample: &&Sample| {
                bytes += sample.data.len();
                copied += beginning(sample, most_of_each).len();
                bytes <= MAX_BATCH_BYTES && copied <= MAX_COPIED_BYTES
            };
            let count = rest.iter().take(MAX_BATCH).take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count);
            let result = self.write_batch(batch).await;
            self.check("write", result)?;
            rest = after;
        }
        // At once, with one commit. What is too much to wait for that was flushed when it was appended.
        let flushed = self.session_mut().segment.flush().await;
        self.check("write", flushed.map_err(Cause::Output))
    }

    async fn write_batch(&mut self, batch: &[Sample]) -> Result<(), Cause> {
        let most_of_each = self.version.copied;
        self.last_ms = batch.iter().map(|s| s.dts_ms).fold(self.last_ms, i64::max);
        let last_ms = self.last_ms;
        let mut payloads =
            Vec::with_capacity(batch.iter().map(|sample| beginning(sample, most_of_each).len()).sum());
        let bytes = batch.iter().map(|sample| sample.data.len() as u64).sum();
        self.store.data().meters.given(batch.len() as u64, bytes);
        let session = self.session_mut();
        if let Some(recent) = &mut session.recent {
            recent.push(Step::Samples(batch.to_vec()));
        }
        session.media_ms = last_ms.saturating_sub(session.start.origin_ms);
        session.given += bytes;
        let headers: Vec<WitSample> = batch
            .iter()
            .map(|sample| {
                payloads.extend_from_slice(beginning(sample, most_of_each));
                WitSample {
                    seq: session.held.push(sample.dts_ms, sample.data.clone()),
                    dts: sample.dts_ms,
                    pts: sample.pts_ms,
                    duration: 0,
                    track: sample.track,
                    size: u32::try_from(sample.data.len()).expect("samples are at most 8 MiB"),
                    bits: u32::from(sample.key) | u32::from(sample.discontinuity) << 1,
                }
            })
            .collect();
        let time = Time::of(&self.version.limits, Limit::WriteTime);
        let instance = &mut self.instance;
        let result =
            call(&mut self.store, time, async |store| instance.write(store, &headers, &payloads).await)
                .await?;
        let needed = result.map_err(|error| refused(&self.store, &error))?;
        let limits = self.version.limits.clone();
        let session = self.session_mut();
        let (first, next) = (session.held.first(), session.held.next());
        if !(first..=next).contains(&needed) {
            return Err(Cause::Contract(format!(
                "write returned {needed} as the first sample still needed; {first} to {next} are legal"
            )));
        }
        session.held.free_before(needed);
        session.segment.contains(needed, last_ms);
        let held_ms = session.held.first_ms().map_or(0, |first_ms| last_ms.saturating_sub(first_ms));
        let exceeded = if session.held.bytes() > limits.held {
            Some(Limit::Held)
        } else if i128::from(held_ms) > limits.held_time.as_millis() as i128 {
            Some(Limit::HeldTime)
        } else {
            None
        };
        if let Some(limit) = exceeded {
            self.store.data().meters.limit(limit);
            return Err(limits.exceeded(limit).into());
        }
        Ok(())
    }

    /// Waits until the segment's files are there, and what was written so far is in them. `false`: the disk said no, as
    /// the next call will tell.
    pub fn settled(&self) -> impl Future<Output = bool> + Send + use<> {
        let settled = self.session().segment.settled();
        async move { settled.await.is_ok() }
    }

    /// A sync point: what was written so far survives a power cut when this returns.
    pub async fn sync(&mut self) -> Result<(), FormatError> {
        let result = self.session_mut().segment.sync().await;
        self.check("write", result.map_err(Cause::Output))
    }

    /// Announces the tracks anew. `false`: the format wants a new segment for them.
    pub async fn update_tracks(&mut self, given: &[Track]) -> Result<bool, FormatError> {
        let tracks: Vec<WitTrack> = given.iter().map(wit_track).collect();
        let result = async {
            if check_codecs(&self.version, &tracks).is_err() {
                return Ok(false);
            }
            let session = self.session_mut();
            if let Some(recent) = &mut session.recent {
                recent.push(Step::Tracks(given.to_vec()));
            }
            let time = Time::of(&self.version.limits, Limit::WriteTime).measured(Call::UpdateTracks);
            let instance = &mut self.instance;
            let answer =
                call(&mut self.store, time, async |store| instance.update_tracks(store, &tracks).await)
                    .await?;
            let answer = answer.map_err(|error| refused(&self.store, &error))?;
            self.session_mut().segment.flush().await?;
            Ok(answer)
        }
        .await;
        self.check("update-tracks", result)
    }

    /// Lets the component end the segment; [`Closing::complete`] does the rest. On an error the files stay as they are.
    pub async fn finish(mut self, end: End) -> Result<Closing, Failed> {
        let tracks = end.tracks.iter().map(|&(track, dts)| TrackEnd { track, dts }).collect();
        let session = self.session_mut();
        if let Some(recent) = &mut session.recent {
            recent.push(Step::End(end.clone()));
        }
        let end = WitEnd { reason: end.reason.into(), tracks, properties: Vec::new() };
        let result = async {
            self.session_mut().segment.begin_to_close().await?;
            let time = Time::of(&self.version.limits, Limit::FinishTime);
            let instance = &mut self.instance;
            let summary =
                call(&mut self.store, time, async |store| instance.finish(store, &end).await).await?;
            let summary = summary.map_err(|error| refused(&self.store, &error))?;
            if summary.carry.len() > MAX_CARRY {
                let length = summary.carry.len();
                return Err(Cause::Contract(format!("carry has {length} bytes, at most {MAX_CARRY}")));
            }
            let session = self.session_mut();
            if !session.segment.has_main() {
                return Err(no_main_file());
            }
            if session.given > 0 && session.segment.main_size() == Some(0) {
                let samples = session.held.next();
                return Err(Cause::Contract(format!("the file is empty after {samples} samples")));
            }
            Ok(summary)
        }
        .await;
        let summary = match self.check("finish", result) {
            Ok(summary) => summary,
            Err(error) => return Err(Failed { error, orphan: self.abandon().await }),
        };
        self.store.data().meters.finished();
        let (computing, memory) = (self.computing(), self.memory());
        let session = self.store.data_mut().session.take().expect("a writer has a session");
        let properties = summary.properties.into_iter().map(|p| (p.key, p.value)).collect();
        Ok(Closing {
            component: self.version.label(),
            segment: session.segment,
            carry: summary.carry,
            properties,
            computing,
            memory,
        })
    }

    /// How far the segment is whole. Between calls that succeeded; see [`Segment::point`].
    pub fn point(&self) -> segment::Point {
        self.session().segment.point()
    }

    /// Commits nothing before the segment has so many samples: a crash leaves all of them or none.
    pub fn hold(&mut self, samples: u64) {
        self.session_mut().segment.hold(samples);
    }

    /// Gives the segment up, to be cut back to a point that it was at.
    pub async fn abandon_at(mut self, point: &segment::Point) -> Orphan {
        let session = self.store.data_mut().session.take().expect("a writer has a session");
        session.segment.abandon_at(point).await.with_start(session.start)
    }

    /// Gives the segment up: what was appended stays, and waits to be repaired.
    pub async fn abandon(mut self) -> Orphan {
        let session = self.store.data_mut().session.take().expect("a writer has a session");
        session.segment.abandon().await.with_start(session.start)
    }

    fn session(&self) -> &Session {
        self.store.data().session.as_ref().expect("a writer has a session")
    }

    fn session_mut(&mut self) -> &mut Session {
        self.store.data_mut().session.as_mut().expect("a writer has a session")
    }

    fn check<T>(&mut self, call: &'static str, result: Result<T, Cause>) -> Result<T, FormatError> {
        debug_assert!(!self.dead, "{call} after an error");
        self.measure();
        result.map_err(|cause| {
            // Who does not take what it is given can still end.
            self.dead = !cause.is_refusal();
            let cause = blame(cause, &self.session().segment);
            blamed(&self.version, &self.store, call, &cause);
            FormatError { component: self.version.label(), call, cause }
        })
    }
}

/// Finishes a segment that was cut back, by the component's `recover` in an instance of its own.
pub async fn recover(
    version: &Arc<Version>,
    segment: Segment,
    start: journal::Start,
) -> Result<Closing, Failed> {
    let fail = |cause| FormatError { component: version.label(), call: "recover", cause };
    let Some(pre) = &version.recovery else {
        return Err(Failed { error: fail(Cause::NoRecovery), orphan: segment.abandon().await });
    };
    let from = format!("{} {}", version.label(), segment.path().display());
    let wit = wit_start(&start);
    let outputs = segment.output_names().into_iter().filter(|name| name != MANIFEST).collect::<Vec<_>>();
    let session = Session::new(segment, start, true, version.needs);
    let state = State::with_session(&version.engine, &version.limits, &version.meters, &from, session);
    let mut store = store(&version.engine, &version.limits, state);
    let result = async {
        let limits = &version.limits;
        let time = Time::of(limits, Limit::OpenTime);
        let time = time.measured(Call::Instantiate);
        let plugin = call(&mut store, time, async |store| pre.instantiate_async(store).await).await?;
        let time = Time::of(limits, Limit::FinishTime).measured(Call::Recover);
        let recovery = plugin.reelwright_writer_recovery();
        let summary =
            call(&mut store, time, async |store| recovery.call_recover(store, &wit, &outputs).await).await?;
        let summary = summary.map_err(|error| refused(&store, &error))?;
        let session = store.data().session.as_ref().expect("it was given above");
        if !session.segment.has_main() {
            return Err(no_main_file());
        }
        Ok(summary)
    }
    .await;
    let state = store.data_mut();
    let (computing, memory) = (state.computing, state.growth.memory_used() as usize);
    let session = state.session.take().expect("it was given above");
    match result {
        Ok(summary) => Ok(Closing {
            computing,
            memory,
            component: version.label(),
            segment: session.segment,
            carry: summary.carry,
            properties: summary.properties.into_iter().map(|p| (p.key, p.value)).collect(),
        }),
        Err(cause) => {
            let cause = blame(cause, &session.segment);
            version.meters.failed(&cause);
            let error = fail(cause);
            Err(Failed { error, orphan: session.segment.abandon().await })
        }
    }
}

/// Why a call failed: the disk, if that did, whatever the component made of the error that it got.
fn blame(cause: Cause, segment: &Segment) -> Cause {
    segment.check().err().map_or(cause, Cause::Output)
}

/// Counts a failure, and leaves a crash bundle if the component is to blame.
fn blamed(version: &Version, store: &Store<State>, call: &'static str, cause: &Cause) {
    store.data().meters.failed(cause);
    if let Some(bundles) = version.engine.bundles() {
        bundles.leave(version, store.data(), call, cause);
    }
}

/// How long a call may compute, and as what it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    limit: Limit,
    allowed: Duration,
    call: Option<Call>,
}

impl Time {
    /// The time that a limit gives.
    pub(super) fn of(limits: &Limits, limit: Limit) -> Self {
        let call = match limit {
            Limit::OpenTime => Some(Call::Open),
            Limit::WriteTime => Some(Call::Write),
            Limit::FinishTime => Some(Call::Finish),
            _ => None,
        };
        Self { limit, allowed: Duration::from_millis(limits.get(limit)), call }
    }

    /// The same for another call than the limit's name says.
    fn measured(self, call: Call) -> Self {
        Self { call: Some(call), ..self }
    }
}

/// A store with all limits set.
pub(super) fn store(engine: &Engine, limits: &Limits, state: State) -> Store<State> {
    let mut store = Store::new(engine.wasmtime(), state);
    store.limiter(|state| &mut state.growth);
    store.set_hostcall_fuel(usize::try_from(limits.hostcall_bytes).unwrap_or(usize::MAX));
    store.epoch_deadline_callback(|store| {
        let state = store.data();
        if state.turn.computing() > state.time_allowed {
            return Err(OutOfTime.into());
        }
        if state.is_recalled() {
            return Err(Recalled.into());
        }
        // Others get their turn.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(state.turn.clone().give_way())))
    });
    store
}

#[derive(Debug, thiserror::Error)]
#[error("out of time")]
struct OutOfTime;

#[derive(Debug, thiserror::Error)]
#[error("its version was taken out of use meanwhile")]
struct Recalled;

/// Instantiates a component within the limits of `open`.
pub(super) async fn instantiate(
    store: &mut Store<State>,
    pre: &PluginPre<State>,
    limits: &Limits,
) -> Result<Plugin, Cause> {
    let time = Time::of(limits, Limit::OpenTime).measured(Call::Instantiate);
    call(store, time, async |store| pre.instantiate_async(store).await).await.map_err(|cause| match cause {
        Cause::Trap(message) => Cause::Instantiate(message),
        cause => cause,
    })
}

/// Makes a call within its time, and says in the contract's words why it failed.
pub(super) async fn call<T>(
    store: &mut Store<State>,
    time: Time,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, Cause> {
    let state = store.data_mut();
    state.begin_call(time.allowed);
    let turn = state.turn.clone();
    store.set_epoch_deadline(1);
    let result = turn.run(call(store)).await;
    let state = store.data_mut();
    if let Some(call) = time.call {
        state.meters.called(call, turn.computed());
        state.computing += turn.computed();
    }
    let error = match result {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    state.backtrace = state.trace.is_some().then(|| format!("{error:?}"));
    if let Some(limit) = exceeded(&error, time.limit).or(state.growth.refused) {
        state.meters.limit(limit);
        return Err(state.limits.exceeded(limit).into());
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return Err(Cause::Trap(format!("it called exit({})", exit.0)));
    }
    let said = state.log.last_error();
    let said = said.map(|said| format!("; it said: {}", one_line(&said))).unwrap_or_default();
    Err(Cause::Trap(format!("{}{said}", describe_trap(&error))))
}

/// The limit that an error is about. `time` is that of the call.
fn exceeded(error: &wasmtime::Error, time: Limit) -> Option<Limit> {
    if error.downcast_ref::<OutOfTime>().is_some() {
        return Some(time);
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::StackOverflow)) {
        return Some(Limit::Stack);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Some(Limit::Resources);
    }
    error.root_cause().to_string().ends_with(NO_HOSTCALL_BYTES).then_some(Limit::HostcallBytes)
}

/// The root cause, and the functions of the component that led there, innermost first.
fn describe_trap(error: &wasmtime::Error) -> String {
    let cause = error.root_cause().to_string();
    let frames = error.downcast_ref::<wasmtime::WasmBacktrace>().map_or(&[][..], |b| b.frames());
    let names: Vec<_> = frames.iter().filter_map(|f| f.func_name()).take(4).collect();
    let text = if names.is_empty() { cause } else { format!("{cause} in {}", names.join(" < ")) };
    one_line(&text)
}

fn no_main_file() -> Cause {
    Cause::Contract("it left no main file: none was created, and no spool promoted".into())
}

/// An error that a component gave.
fn refused(store: &Store<State>, error: &WitError) -> Cause {
    let passed_on = store.data().said_no.as_ref() == Some(&error.code);
    Cause::Refused { code: one_line(&error.code), message: one_line(&error.message), passed_on }
}

fn check_codecs(version: &Version, tracks: &[WitTrack]) -> Result<(), Cause> {
    let codecs = &version.manifest.codecs;
    match tracks.iter().find(|t| !codecs.contains(&t.codec)) {
        Some(track) => Err(Cause::Refused {
            code: "unsupported".into(),
            message: format!(
                "{} codec {} can't be held by {}, which takes {}",
                track.kind,
                one_line(&track.codec),
                version.manifest.format,
                one_line(&codecs.join(", "))
            ),
            passed_on: false,
        }),
        None => Ok(()),
    }
}

fn journal_start(version: &Version, segment: &Segment, begin: Begin) -> journal::Start {
    let options = version.manifest.options.iter().map(|spec| {
        let set = begin.options.iter().find(|(key, _)| *key == spec.key).map(|(_, value)| value.clone());
        (spec.key.clone(), set.unwrap_or_else(|| spec.default_value.clone()))
    });
    journal::Start {
        format: version.manifest.format.clone(),
        version: version.manifest.version.clone(),
        sha256: version.sha256.clone(),
        file: segment.name().to_owned(),
        segment: begin.segment,
        epoch_us: begin.epoch_us,
        origin_ms: begin.origin_ms,
        head_room: begin.head_room,
        head_align: HEAD_ALIGN,
        replaces: false,
        config_id: begin.config_id,
        stream: begin.stream,
        whose: begin.whose,
        sync_ms: segment.sync_ms(),
        manifest: begin.manifest,
        tracks: begin
            .tracks
            .into_iter()
            .map(|t| journal::Track {
                id: t.id,
                kind: t.kind.as_str().into(),
                codec: t.codec,
                timebase: (1, 1000),
                config: t.config.to_vec(),
                properties: t.properties,
            })
            .collect(),
        options: options.collect(),
        carry: begin.carry,
    }
}

fn wit_start(start: &journal::Start) -> WitStart {
    WitStart {
        segment: start.segment,
        epoch_us: start.epoch_us,
        origin_ms: start.origin_ms,
        head_room: start.head_room,
        head_align: start.head_align,
        tracks: start
            .tracks
            .iter()
            .map(|t| WitTrack {
                id: t.id,
                kind: t.kind.clone(),
                codec: t.codec.clone(),
                timebase: Timebase { num: t.timebase.0, den: t.timebase.1 },
                config: t.config.clone(),
                properties: properties(&t.properties),
            })
            .collect(),
        options: properties(&start.options),
        carry: start.carry.clone(),
    }
}

fn wit_track(track: &Track) -> WitTrack {
    WitTrack {
        id: track.id,
        kind: track.kind.as_str().into(),
        codec: track.codec.clone(),
        timebase: Timebase { num: 1, den: 1000 },
        config: track.config.to_vec(),
        properties: properties(&track.properties),
    }
}

fn properties(pairs: &[(String, String)]) -> Vec<Property> {
    pairs.iter().map(|(key, value)| Property { key: key.clone(), value: value.clone() }).collect()
}
