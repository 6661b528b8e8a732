//! The host's functions of the contract, over the segment's files.
//!
//! A wrong call of a component gets an error of the contract and changes nothing. Everything a component
//! gives is checked here: ranges, names, order, amounts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceTable, ResourceTableError, WasmList},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{
    bindings::reelwright::writer::{
        host::{self, Error, Piece, Source},
        types,
    },
    bundle::{HostCall, Recent, Trace},
    engine::Engine,
    flat::Pieces,
    guest_log::{GuestLog, cut},
    held::Held,
    limits::{Exceeded, Growth, Limit, Limits},
    meters::Meters,
    needs::Needs,
    turn::Turn,
    wasi,
};
use crate::output::{
    Segment, journal,
    segment::{OutputError, OutputId, Role},
};

/// Longest read of an output.
const MAX_READ: u32 = 1 << 20;
/// Bytes of a piece that is worth to be shared, not copied.
const SHARED: u32 = 1 << 10;
/// Bytes that may wait for the end of a call before they go to the disk.
const FLUSH_AT: usize = 4 << 20;
/// What wasmtime says, in a type that is not public, when a call of the host passes more than its limit of bytes.
pub(super) const NO_HOSTCALL_BYTES: &str = "fuel allocated for hostcalls has been exhausted";
/// Names of outputs that are the host's own.
const RESERVED: [&str; 3] = ["info", "json", "new"];
/// Output that a sample justifies besides its payload: MPEG-TS needs a packet of 188 bytes, and tables.
const SAMPLE_OVERHEAD: u64 = 512;
/// And that a second of media justifies, however little is in it: MPEG-TS needs clock references.
const SECOND_OVERHEAD: u64 = 8 << 10;

/// What belongs to one instance.
pub(crate) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    pub(super) log: GuestLog,
    pub(super) growth: Growth,
    pub(super) turn: Turn,
    /// How long the call may compute.
    pub(super) time_allowed: Duration,
    /// Time of computing in all measured calls.
    pub(super) computing: Duration,
    pub(super) limits: Arc<Limits>,
    pub(super) meters: Arc<Meters>,
    /// The code of the last error that a function gave in this call.
    pub(super) said_no: Option<String>,
    /// Told when its version is taken out of use, and what it was told when the call began.
    pub(super) recalls: Arc<AtomicU64>,
    recalls_before: u64,
    /// The last calls of the host, if a failure is to leave them.
    pub(super) trace: Option<Trace>,
    /// Where the last call trapped, in full.
    pub(super) backtrace: Option<String>,
    /// `None` while a component is only described.
    pub(super) session: Option<Session>,
}

/// What a segment's writer works on.
pub(super) struct Session {
    pub(super) segment: Segment,
    pub(super) start: journal::Start,
    pub(super) held: Held,
    /// Bytes of payload given so far, and appended so far: in this call, in all.
    pub(super) given: u64,
    appended_in_call: u64,
    pub(super) appended: u64,
    /// Calls of `patch` in this call.
    patches: u64,
    /// From the origin to the latest DTS given.
    pub(super) media_ms: i64,
    /// What the writer was given lately, if a failure is to leave it.
    pub(super) recent: Option<Recent>,
    heads: Vec<OutputId>,
    /// Whether outputs of an earlier instance may be opened.
    recovers: bool,
    /// What the component has said that it needs.
    needs: Needs,
}

impl Session {
    pub(super) fn new(segment: Segment, start: journal::Start, recovers: bool, needs: Needs) -> Self {
        Self {
            segment,
            recovers,
            needs,
            start,
            held: Held::default(),
            given: 0,
            appended_in_call: 0,
            appended: 0,
            patches: 0,
            media_ms: 0,
            recent: None,
            heads: Vec::new(),
        }
    }

    /// A function is for those whose manifest says that they need it.
    fn needs(&self, need: Needs, function: &str) -> Result<(), No> {
        match self.needs.contains(need) {
            true => Ok(()),
            false => Err(bad_call(format!("{function}: the manifest's needs do not list `{need}`"))),
        }
    }
}

/// The `output` resource.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Output {
    id: OutputId,
    closed: bool,
}

/// Ends a host function with an error of the contract.
macro_rules! check {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error.into())),
        }
    };
}

impl State {
    /// For an instance that is only asked what it is.
    pub(super) fn bare(engine: &Engine, limits: &Arc<Limits>, epoch: Duration, from: &str) -> Self {
        Self::new(engine, limits, engine.loading(), epoch, from)
    }

    fn new(engine: &Engine, limits: &Arc<Limits>, meters: &Arc<Meters>, epoch: Duration, from: &str) -> Self {
        let log = GuestLog::new(from.to_owned(), limits, meters.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(limits.resources).unwrap_or(usize::MAX));
        Self {
            table,
            wasi: wasi::context(epoch, &log),
            log,
            growth: Growth::new(limits),
            turn: Turn::new(engine.turns().clone()),
            time_allowed: Duration::ZERO,
            computing: Duration::ZERO,
            limits: limits.clone(),
            meters: meters.clone(),
            said_no: None,
            recalls: Arc::default(),
            recalls_before: 0,
            trace: None,
            backtrace: None,
            session: None,
        }
    }

    /// For an instance that writes a segment.
    pub(super) fn with_session(
        engine: &Engine,
        limits: &Arc<Limits>,
        meters: &Arc<Meters>,
        from: &str,
        session: Session,
    ) -> Self {
        let epoch = Duration::from_micros(u64::try_from(session.start.epoch_us).unwrap_or(0));
        let trace = session.recent.is_some().then(Trace::default);
        Self { session: Some(session), trace, ..Self::new(engine, limits, meters, epoch, from) }
    }

    /// Gives a component the answer to a call, and keeps what it was.
    fn noted<T: Short>(
        &mut self,
        call: &'static str,
        name: &str,
        args: &[u64],
        result: wasmtime::Result<Result<T, No>>,
    ) -> Answer<T> {
        if let Ok(Err(No::Limit(Exceeded { limit, .. }))) = &result {
            self.meters.limit(*limit);
        }
        let answer = result.map(|result| result.map_err(Error::from));
        if let Ok(Err(error)) = &answer {
            self.said_no = Some(error.code.clone());
        }
        if let Some(trace) = &mut self.trace {
            let said = match &answer {
                Ok(Ok(value)) => Ok(value.short()),
                Ok(Err(error)) => Err(format!("{}: {}", error.code, error.message)),
                Err(error) => Err(format!("trap: {error}")),
            };
            trace.push(HostCall::new(call, name, args, said));
        }
        answer
    }

    /// A call of the component begins, which may compute for so long.
    pub(super) fn begin_call(&mut self, allowed: Duration) {
        self.time_allowed = allowed;
        self.growth.refused = None;
        self.said_no = None;
        self.recalls_before = self.recalls.load(Relaxed);
        if let Some(session) = &mut self.session {
            (session.appended_in_call, session.patches) = (0, 0);
        }
    }

    /// Whether its version was taken out of use since the call began.
    pub(super) fn is_recalled(&self) -> bool {
        self.recalls.load(Relaxed) != self.recalls_before
    }

    fn session(&mut self) -> wasmtime::Result<&mut Session> {
        self.session.as_mut().ok_or_else(no_session)
    }

    /// The session and an open output of it.
    fn output(&mut self, output: &Resource<Output>) -> Checked<(&mut Session, OutputId)> {
        let id = check!(self.open_output(output)?);
        Ok(Ok((self.session()?, id)))
    }

    fn open_output(&self, output: &Resource<Output>) -> Checked<OutputId> {
        let &Output { id, closed } = self.table.get(output)?;
        Ok(if closed { Err(bad_call("the output is closed")) } else { Ok(id) })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

fn no_session() -> wasmtime::Error {
    wasmtime::Error::msg("it called the host from `describe`")
}

fn error(code: &str, message: impl Into<String>) -> Error {
    Error { code: code.into(), message: message.into() }
}

fn bad_call(message: impl Into<String>) -> No {
    No::Bad(error("bad-call", message))
}

/// Why a component does not get what it asked for.
enum No {
    Bad(Error),
    Limit(Exceeded),
    Output(OutputError),
}

impl From<Exceeded> for No {
    fn from(error: Exceeded) -> Self {
        No::Limit(error)
    }
}

impl From<OutputError> for No {
    fn from(error: OutputError) -> Self {
        No::Output(error)
    }
}

impl From<No> for Error {
    fn from(no: No) -> Self {
        match no {
            No::Bad(error) => error,
            No::Limit(exceeded) => error("limit", exceeded.to_string()),
            No::Output(output) => error("output", output.to_string()),
        }
    }
}

/// What a component gets, and what it is made of. The outer error is a trap.
type Answer<T> = wasmtime::Result<Result<T, Error>>;
type Checked<T> = wasmtime::Result<Result<T, No>>;

/// An answer as a number, for the list of calls.
trait Short {
    fn short(&self) -> u64;
}

impl Short for () {
    fn short(&self) -> u64 {
        0
    }
}

impl Short for u64 {
    fn short(&self) -> u64 {
        *self
    }
}

impl Short for Vec<u8> {
    fn short(&self) -> u64 {
        self.len() as u64
    }
}

impl Short for Resource<Output> {
    fn short(&self) -> u64 {
        self.rep().into()
    }
}

/// What the functions of the contract do.
impl State {
    fn do_create(&mut self, name: &str, role: &str) -> Checked<Resource<Output>> {
        let limits = self.limits.clone();
        let session = self.session()?;
        let Some(role) = Role::parse(role) else {
            return Ok(Err(bad_call(format!("there is no role {:?}", cut(role, 80)))));
        };
        let plain = (1..=32).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if if role == Role::Main { !name.is_empty() } else { !plain || RESERVED.contains(&name) } {
            let name = cut(name, 80);
            return Ok(Err(bad_call(format!("{name:?} can't be the name of a {} output", role.as_str()))));
        }
        if session.segment.find(name).is_some() {
            return Ok(Err(bad_call(format!("there is an output {name:?} already"))));
        }
        if role == Role::Main && session.segment.has_main() {
            return Ok(Err(bad_call("there is a main file already")));
        }
        if session.segment.outputs() as u64 >= limits.outputs {
            return Ok(Err(limits.exceeded(Limit::Outputs).into()));
        }
        let id = check!(session.segment.create(name, role, &session.start));
        Ok(Ok(check!(self.push(id)?)))
    }

    fn do_reopen(&mut self, name: &str) -> Checked<Resource<Output>> {
        let session = self.session()?;
        if !session.recovers {
            return Ok(Err(bad_call(format!("reopen {:?} outside of recover", cut(name, 80)))));
        }
        match session.segment.find(name) {
            Some(id) => self.push(id),
            None => Ok(Err(bad_call(format!("there is no output {:?}", cut(name, 80))))),
        }
    }

    fn do_read_sample(&mut self, seq: u64, offset: u32, len: u32) -> Checked<Vec<u8>> {
        let held = &self.session()?.held;
        let payload = check!(held.get(seq).map_err(bad_call));
        let start = payload.len().min(offset as usize);
        let end = payload.len().min(start.saturating_add(len as usize));
        Ok(Ok(payload[start..end].to_vec()))
    }

    /// What an `append` adds and to what, wherever the pieces and the inline bytes lie.
    fn gather(
        &self,
        this: &Resource<Output>,
        inline: &[u8],
        pieces: impl ExactSizeIterator<Item = Piece> + Clone,
    ) -> Checked<(OutputId, Vec<Bytes>)> {
        let limits = &self.limits;
        let id = check!(self.open_output(this)?);
        let session = self.session.as_ref().ok_or_else(no_session)?;
        if pieces.len() as u64 > limits.pieces {
            return Ok(Err(limits.exceeded(Limit::Pieces).into()));
        }
        if inline.len() as u64 > limits.inline_bytes {
            return Ok(Err(limits.exceeded(Limit::InlineBytes).into()));
        }
        let (most, limit) = room_for_output(session, limits);
        let blocks = match pieces.len() {
            0 if inline.len() as u64 > most => Err(Ungathered::TooMuch),
            0 => Ok(vec![Bytes::copy_from_slice(inline)]),
            _ => gather(&session.held, inline, pieces, most),
        };
        Ok(match blocks {
            Ok(blocks) => Ok((id, blocks)),
            Err(Ungathered::Bad(message)) => Err(bad_call(message)),
            Err(Ungathered::TooMuch) => Err(limits.exceeded(limit).into()),
        })
    }

    async fn do_append(&mut self, gathered: Checked<(OutputId, Vec<Bytes>)>) -> Checked<u64> {
        let (id, blocks) = check!(gathered?);
        let session = self.session()?;
        let len = blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        let offset = check!(session.segment.append(id, blocks));
        session.appended_in_call += len;
        session.appended += len;
        if session.segment.pending_cost() >= FLUSH_AT {
            check!(session.segment.flush().await);
        }
        Ok(Ok(offset))
    }

    /// `append` of what was gathered for it, or of what is wrong with that.
    async fn append_gathered(
        &mut self,
        args: [u64; 3],
        gathered: Checked<(OutputId, Vec<Bytes>)>,
    ) -> Answer<u64> {
        let result = self.do_append(gathered).await;
        self.noted("append", "", &args, result)
    }

    /// `append` of bytes and pieces that are not a component's.
    pub(super) async fn append(
        &mut self,
        this: Resource<Output>,
        inline: &[u8],
        pieces: impl ExactSizeIterator<Item = Piece> + Clone,
    ) -> Answer<u64> {
        let args = [this.rep().into(), inline.len() as u64, pieces.len() as u64];
        let gathered = self.gather(&this, inline, pieces);
        self.append_gathered(args, gathered).await
    }

    async fn do_patch(&mut self, this: Resource<Output>, offset: u64, bytes: Vec<u8>) -> Checked<()> {
        let limits = self.limits.clone();
        let (session, id) = check!(self.output(&this)?);
        check!(session.needs(Needs::PATCH, "patch"));
        session.patches += 1;
        if session.patches > limits.patches {
            return Ok(Err(limits.exceeded(Limit::Patches).into()));
        }
        let size = session.segment.size(id);
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
            let len = bytes.len();
            return Ok(Err(bad_call(format!("patch of {len} bytes at {offset}, the output has {size}"))));
        }
        check!(session.segment.patch(id, offset, bytes).await);
        Ok(Ok(()))
    }

    async fn do_read(&mut self, this: Resource<Output>, offset: u64, len: u32) -> Checked<Vec<u8>> {
        let (session, id) = check!(self.output(&this)?);
        check!(session.needs(Needs::READ_BACK, "read"));
        if len > MAX_READ {
            let message = format!("read of {len} bytes, at most {MAX_READ} at once");
            return Ok(Err(No::Bad(error("limit", message))));
        }
        Ok(Ok(check!(session.segment.read(id, offset, len).await)))
    }

    async fn do_head(&mut self, this: Resource<Output>, min: u64) -> Checked<u64> {
        let limits = self.limits.clone();
        let (session, id) = check!(self.output(&this)?);
        check!(session.needs(Needs::HEAD_ROOM, "head"));
        if session.segment.role(id) != Role::Spool
            || session.heads.contains(&id)
            || session.segment.has_main()
        {
            return Ok(Err(bad_call("head is for a spool, once, before promote")));
        }
        if min > limits.head {
            return Ok(Err(limits.exceeded(Limit::Head).into()));
        }
        let rounded = min.next_multiple_of(u64::from(session.start.head_align));
        let head = rounded.max(session.start.head_room);
        check!(session.segment.resize_head(id, head).await);
        session.heads.push(id);
        Ok(Ok(head))
    }

    async fn do_write_head(&mut self, this: Resource<Output>, offset: u64, bytes: Vec<u8>) -> Checked<()> {
        let (session, id) = check!(self.output(&this)?);
        let head = if session.heads.contains(&id) { session.segment.head(id) } else { 0 };
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > head) {
            let len = bytes.len();
            return Ok(Err(bad_call(format!("write-head of {len} bytes at {offset}, the head has {head}"))));
        }
        check!(session.segment.write_head(id, offset, bytes).await);
        Ok(Ok(()))
    }

    fn do_promote(&mut self, this: Resource<Output>) -> Checked<()> {
        let (session, id) = check!(self.output(&this)?);
        if session.segment.role(id) != Role::Spool || session.segment.has_main() {
            return Ok(Err(bad_call("promote is for one spool of a segment without a main file")));
        }
        session.segment.promote(id);
        Ok(Ok(()))
    }

    async fn do_close(&mut self, this: Resource<Output>) -> Checked<()> {
        let (session, _) = check!(self.output(&this)?);
        check!(session.segment.flush().await);
        self.table.get_mut(&this)?.closed = true;
        Ok(Ok(()))
    }

    /// A handle for an output.
    fn push(&mut self, id: OutputId) -> Checked<Resource<Output>> {
        match self.table.push(Output { id, closed: false }) {
            Err(ResourceTableError::Full) => Ok(Err(self.limits.exceeded(Limit::Resources).into())),
            handle => Ok(Ok(handle?)),
        }
    }
}

impl types::Host for State {}

impl host::Host for State {
    fn create(&mut self, name: String, role: String) -> Answer<Resource<Output>> {
        let result = self.do_create(&name, &role);
        self.noted("create", &format!("{} {}", cut(&name, 40), cut(&role, 40)), &[], result)
    }

    fn reopen(&mut self, name: String) -> Answer<Resource<Output>> {
        let result = self.do_reopen(&name);
        self.noted("reopen", cut(&name, 80), &[], result)
    }

    fn replace(&mut self, name: String, bytes: Vec<u8>) -> Answer<()> {
        let no = No::Bad(error("unsupported", "this server keeps no files of a run yet"));
        let result = self.session().map(|_| Err(no));
        self.noted("replace", cut(&name, 80), &[bytes.len() as u64], result)
    }

    fn read_sample(&mut self, seq: u64, offset: u32, len: u32) -> Answer<Vec<u8>> {
        let result = self.do_read_sample(seq, offset, len);
        self.noted("read-sample", "", &[seq, offset.into(), len.into()], result)
    }

    fn log(&mut self, level: u8, message: String) -> wasmtime::Result<()> {
        self.log.line(level, &message);
        Ok(())
    }
}

impl host::HostOutput for State {
    /// Components get [`add_append`].
    async fn append(&mut self, this: Resource<Output>, inline: Vec<u8>, pieces: Vec<Piece>) -> Answer<u64> {
        self.append(this, &inline, pieces.into_iter()).await
    }

    async fn patch(&mut self, this: Resource<Output>, offset: u64, bytes: Vec<u8>) -> Answer<()> {
        let args = [this.rep().into(), offset, bytes.len() as u64];
        let result = self.do_patch(this, offset, bytes).await;
        self.noted("patch", "", &args, result)
    }

    async fn read(&mut self, this: Resource<Output>, offset: u64, len: u32) -> Answer<Vec<u8>> {
        let args = [this.rep().into(), offset, len.into()];
        let result = self.do_read(this, offset, len).await;
        self.noted("read", "", &args, result)
    }

    fn size(&mut self, this: Resource<Output>) -> wasmtime::Result<u64> {
        let id = self.table.get(&this)?.id;
        Ok(self.session()?.segment.size(id))
    }

    async fn head(&mut self, this: Resource<Output>, min: u64) -> Answer<u64> {
        let args = [this.rep().into(), min];
        let result = self.do_head(this, min).await;
        self.noted("head", "", &args, result)
    }

    async fn write_head(&mut self, this: Resource<Output>, offset: u64, bytes: Vec<u8>) -> Answer<()> {
        let args = [this.rep().into(), offset, bytes.len() as u64];
        let result = self.do_write_head(this, offset, bytes).await;
        self.noted("write-head", "", &args, result)
    }

    fn promote(&mut self, this: Resource<Output>) -> Answer<()> {
        let args = [this.rep().into()];
        let result = self.do_promote(this);
        self.noted("promote", "", &args, result)
    }

    async fn close(&mut self, this: Resource<Output>) -> Answer<()> {
        let args = [this.rep().into()];
        let result = self.do_close(this).await;
        self.noted("close", "", &args, result)
    }

    fn drop(&mut self, this: Resource<Output>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// Links an `append` that takes a component's bytes and pieces where they lie in its memory: as plain vectors they are
/// taken one by one, and pieces field by field, which a format that appends all of its media feels.
pub(super) fn add_append(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Given = (Resource<Output>, WasmList<u8>, Pieces);
    linker.allow_shadowing(true);
    linker.instance("reelwright:writer/host@0.1.0")?.func_wrap_async(
        "[method]output.append",
        |mut store: StoreContextMut<'_, State>, (this, inline, pieces): Given| {
            Box::new(async move {
                if inline.len() as u64 > store.data().limits.hostcall_bytes {
                    return Err(wasmtime::Error::msg(NO_HOSTCALL_BYTES));
                }
                let pieces =
                    pieces.read(&store).ok_or_else(|| wasmtime::Error::msg("a piece of no known source"))?;
                let args = [this.rep().into(), inline.len() as u64, pieces.len() as u64];
                let gathered = store.data().gather(&this, inline.as_le_slice(&store), pieces);
                Ok((store.data_mut().append_gathered(args, gathered).await?,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The bytes that the pieces name, `most` at most. Long pieces of samples are shared. All others are copied together: every
/// block has its price for the checksum and the system, and a short one would keep a long one of a socket in memory.
fn gather(
    held: &Held,
    inline: &[u8],
    pieces: impl Iterator<Item = Piece> + Clone,
    most: u64,
) -> Result<Vec<Bytes>, Ungathered> {
    let is_shared = |piece: &Piece| piece.len >= SHARED && matches!(piece.source, Source::Sample);
    let copied: u64 =
        pieces.clone().filter(|piece| !is_shared(piece)).map(|piece| u64::from(piece.len)).sum();
    let mut copies = BytesMut::with_capacity(copied.min(most).min(FLUSH_AT as u64) as usize);
    let (mut blocks, mut total) = (Vec::new(), 0);
    for (i, piece) in pieces.enumerate() {
        let shared = match piece.source {
            Source::Inline => None,
            Source::Sample => {
                Some(held.get(piece.seq).map_err(|e| Ungathered::Bad(format!("piece {i}: {e}")))?)
            }
        };
        let source = shared.map_or(inline, |payload| &payload[..]);
        let (start, len) = (piece.offset as usize, piece.len as usize);
        let bytes = start.checked_add(len).and_then(|end| source.get(start..end));
        let bytes = bytes.ok_or_else(|| out_of_range(i, &piece, source.len()))?;
        total += len as u64;
        if total > most {
            return Err(Ungathered::TooMuch);
        }
        match shared {
            Some(payload) if is_shared(&piece) => {
                blocks.extend((!copies.is_empty()).then(|| copies.split().freeze()));
                blocks.push(payload.slice_ref(bytes));
            }
            _ => copies.extend_from_slice(bytes),
        }
    }
    blocks.extend((!copies.is_empty()).then(|| copies.freeze()));
    Ok(blocks)
}

/// Why pieces are not gathered.
enum Ungathered {
    /// What is wrong with one.
    Bad(String),
    /// They are more bytes than may be.
    TooMuch,
}

#[cold]
fn out_of_range(i: usize, piece: &Piece, source_len: usize) -> Ungathered {
    let of = match piece.source {
        Source::Inline => "the inline bytes".to_owned(),
        Source::Sample => format!("sample {}", piece.seq),
    };
    let Piece { offset, len, .. } = piece;
    Ungathered::Bad(format!("piece {i}: {len} bytes at {offset} of {of}, which has {source_len}"))
}

/// How much more the writer may append, and which limit says so.
fn room_for_output(session: &Session, limits: &Limits) -> (u64, Limit) {
    let in_call = limits.output_per_call.saturating_sub(session.appended_in_call);
    let media_s = u64::try_from(session.media_ms / 1000).unwrap_or(0);
    let for_payload = limits.output_rate.saturating_mul(session.given);
    let total = limits
        .output_total
        .saturating_add(for_payload)
        .saturating_add(SAMPLE_OVERHEAD * session.held.next())
        .saturating_add(SECOND_OVERHEAD.saturating_mul(media_s));
    let in_all = total.saturating_sub(session.appended);
    if in_call <= in_all {
        (in_call, Limit::OutputPerCall)
    } else {
        // The one that counts for more is the one to raise.
        let for_payload = for_payload > limits.output_total;
        (in_all, if for_payload { Limit::OutputRate } else { Limit::OutputTotal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(source: Source, seq: u64, offset: u32, len: u32) -> Piece {
        Piece { source, seq, offset, len }
    }

    fn lies_in(block: &Bytes, whole: &Bytes) -> bool {
        whole.as_ptr_range().contains(&block.as_ptr())
    }

    #[test]
    fn long_pieces_are_shared_and_short_ones_put_together() {
        let mut held = Held::default();
        let payload: Bytes = (0..5000u32).map(|i| i as u8).collect::<Vec<_>>().into();
        held.push(0, payload.clone());
        let inline = b"headtail";
        let pieces = [
            piece(Source::Inline, 0, 0, 4),
            piece(Source::Sample, 0, 7, 1023),
            piece(Source::Sample, 0, 0, 0),
            piece(Source::Sample, 0, 1030, 1024),
            piece(Source::Inline, 0, 4, 4),
            piece(Source::Sample, 0, 1, 2),
        ];
        let expected = [b"head", &payload[7..2054], b"tail", &payload[1..3]].concat();
        let Ok(blocks) = gather(&held, inline, pieces.into_iter(), expected.len() as u64) else { panic!() };
        assert_eq!(blocks.concat(), expected);
        let [before, long, after] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
        assert!(lies_in(long, &payload) && !lies_in(before, &payload) && !lies_in(after, &payload));

        let one_less = gather(&held, inline, pieces.into_iter(), expected.len() as u64 - 1);
        assert!(matches!(one_less, Err(Ungathered::TooMuch)));
        let beyond = [pieces[0], piece(Source::Sample, 0, 4999, 2)];
        let Err(Ungathered::Bad(message)) = gather(&held, inline, beyond.into_iter(), u64::MAX) else {
            panic!()
        };
        assert_eq!(message, "piece 1: 2 bytes at 4999 of sample 0, which has 5000");

        let inline: Vec<u8> = (0..3000u32).map(|i| (i / 8) as u8).collect();
        let own = [piece(Source::Inline, 0, 1000, 2000), piece(Source::Inline, 0, 0, 1000)];
        let Ok(blocks) = gather(&held, &inline, own.into_iter(), 3000) else { panic!() };
        assert_eq!(blocks, [[&inline[1000..], &inline[..1000]].concat()]);
    }
}
