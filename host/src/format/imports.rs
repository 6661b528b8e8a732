//! The host's functions of the contract, over the segment's files.
//!
//! A wrong call of a component gets an error of the contract and changes nothing. Everything a component
//! gives is checked here: ranges, names, order, amounts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{
    bindings::reelwright::writer::{
        host::{self, Error, Piece, Source},
        types,
    },
    guest_log::{GuestLog, MAX_LINE, cut},
    held::Held,
    limits::{Exceeded, Growth, Limits},
    needs::Needs,
    wasi,
};
use crate::output::{
    Segment, journal,
    segment::{OutputError, OutputId, Role},
};

/// Longest read of an output.
const MAX_READ: u32 = 1 << 20;
/// Bytes that may wait for the end of a call before they go to the disk.
const FLUSH_AT: usize = 4 << 20;
/// Names of outputs that are the host's own.
const RESERVED: [&str; 3] = ["info", "json", "new"];
/// Most pieces of one append.
const MAX_PIECES: usize = 1 << 16;
/// Output that a sample justifies besides its payload: MPEG-TS needs a packet of 188 bytes, and tables.
const SAMPLE_OVERHEAD: u64 = 512;
/// And that a second of media justifies, however little is in it: MPEG-TS needs clock references.
const SECOND_OVERHEAD: u64 = 8 << 10;
/// Resources of a component: its outputs, and what WASI gives it.
const MAX_RESOURCES: usize = 256;

/// What belongs to one instance.
pub(crate) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    pub(super) log: GuestLog,
    pub(super) growth: Growth,
    /// Epoch ticks used in this call, and how many are allowed.
    pub(super) ticks: u64,
    pub(super) ticks_allowed: u64,
    limits: Arc<Limits>,
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
    pub(super) appended_in_call: u64,
    pub(super) appended: u64,
    /// From the origin to the latest DTS given.
    pub(super) media_ms: i64,
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
            media_ms: 0,
            heads: Vec::new(),
        }
    }

    /// A function is for those whose manifest says that they need it.
    fn needs(&self, need: Needs, function: &str) -> Result<(), Error> {
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

impl State {
    /// For an instance that is only asked what it is.
    pub(super) fn bare(limits: &Arc<Limits>, epoch: Duration, from: &str) -> Self {
        let log = GuestLog::new(from.to_owned());
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            table,
            wasi: wasi::context(epoch, &log),
            log,
            growth: Growth::new(limits),
            ticks: 0,
            ticks_allowed: 0,
            limits: limits.clone(),
            session: None,
        }
    }

    /// For an instance that writes a segment.
    pub(super) fn with_session(limits: &Arc<Limits>, from: &str, session: Session) -> Self {
        let epoch = Duration::from_micros(u64::try_from(session.start.epoch_us).unwrap_or(0));
        Self { session: Some(session), ..Self::bare(limits, epoch, from) }
    }

    fn session(&mut self) -> wasmtime::Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| wasmtime::Error::msg("it called the host from `describe`"))
    }

    /// The session and an open output of it.
    fn output(
        &mut self,
        output: &Resource<Output>,
    ) -> wasmtime::Result<Result<(&mut Session, OutputId), Error>> {
        let &Output { id, closed } = self.table.get(output)?;
        let session = self.session()?;
        Ok(if closed { Err(bad_call("the output is closed")) } else { Ok((session, id)) })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

fn error(code: &str, message: impl Into<String>) -> Error {
    Error { code: code.into(), message: message.into() }
}

fn bad_call(message: impl Into<String>) -> Error {
    error("bad-call", message)
}

impl From<OutputError> for Error {
    fn from(e: OutputError) -> Self {
        error("output", e.to_string())
    }
}

impl From<Exceeded> for Error {
    fn from(e: Exceeded) -> Self {
        error("limit", e.to_string())
    }
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// Ends a host function with an error of the contract.
macro_rules! check {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error.into())),
        }
    };
}

impl types::Host for State {}

impl host::Host for State {
    async fn create(&mut self, name: String, role: String) -> Answer<Resource<Output>> {
        let max = self.limits.outputs;
        let session = self.session()?;
        let Some(role) = Role::parse(&role) else {
            return Ok(Err(bad_call(format!("there is no role {:?}", cut(&role, 80)))));
        };
        let plain = (1..=32).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if if role == Role::Main { !name.is_empty() } else { !plain || RESERVED.contains(&&*name) } {
            let name = cut(&name, 80);
            return Ok(Err(bad_call(format!("{name:?} can't be the name of a {} output", role.as_str()))));
        }
        if session.segment.find(&name).is_some() {
            return Ok(Err(bad_call(format!("there is an output {name:?} already"))));
        }
        if role == Role::Main && session.segment.has_main() {
            return Ok(Err(bad_call("there is a main file already")));
        }
        if session.segment.outputs() >= max {
            return Ok(Err(Exceeded { name: "outputs", limit: max.to_string() }.into()));
        }
        let id = check!(session.segment.create(&name, role, &session.start).await);
        Ok(Ok(self.table.push(Output { id, closed: false })?))
    }

    async fn reopen(&mut self, name: String) -> Answer<Resource<Output>> {
        let session = self.session()?;
        if !session.recovers {
            return Ok(Err(bad_call(format!("reopen {:?} outside of recover", cut(&name, 80)))));
        }
        match session.segment.find(&name) {
            Some(id) => Ok(Ok(self.table.push(Output { id, closed: false })?)),
            None => Ok(Err(bad_call(format!("there is no output {:?}", cut(&name, 80))))),
        }
    }

    async fn replace(&mut self, _name: String, _bytes: Vec<u8>) -> Answer<()> {
        self.session()?;
        Ok(Err(error("unsupported", "this server keeps no files of a run yet")))
    }

    async fn read_sample(&mut self, seq: u64, offset: u32, len: u32) -> Answer<Vec<u8>> {
        let held = &self.session()?.held;
        let payload = check!(held.get(seq).map_err(bad_call));
        let start = payload.len().min(offset as usize);
        let end = payload.len().min(start.saturating_add(len as usize));
        Ok(Ok(payload[start..end].to_vec()))
    }

    async fn log(&mut self, level: u8, message: String) -> wasmtime::Result<()> {
        self.log.line(level, cut(&message, MAX_LINE));
        Ok(())
    }
}

impl host::HostOutput for State {
    async fn append(&mut self, this: Resource<Output>, inline: Vec<u8>, pieces: Vec<Piece>) -> Answer<u64> {
        let limits = self.limits.clone();
        let (session, id) = check!(self.output(&this)?);
        if pieces.len() > MAX_PIECES {
            return Ok(Err(error("limit", format!("{} pieces, at most {MAX_PIECES} at once", pieces.len()))));
        }
        let inline = Bytes::from(inline);
        let bytes = check!(gather(&session.held, inline, &pieces).map_err(bad_call));
        let len = bytes.iter().map(|b| b.len() as u64).sum::<u64>();
        check!(allow_output(session, &limits, len));
        let offset = check!(session.segment.append(id, bytes));
        session.appended_in_call += len;
        session.appended += len;
        if session.segment.pending_cost() >= FLUSH_AT {
            check!(session.segment.flush().await);
        }
        Ok(Ok(offset))
    }

    async fn patch(&mut self, this: Resource<Output>, offset: u64, bytes: Vec<u8>) -> Answer<()> {
        let (session, id) = check!(self.output(&this)?);
        check!(session.needs(Needs::PATCH, "patch"));
        let size = session.segment.size(id);
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
            let len = bytes.len();
            return Ok(Err(bad_call(format!("patch of {len} bytes at {offset}, the output has {size}"))));
        }
        check!(session.segment.patch(id, offset, bytes).await);
        Ok(Ok(()))
    }

    async fn read(&mut self, this: Resource<Output>, offset: u64, len: u32) -> Answer<Vec<u8>> {
        let (session, id) = check!(self.output(&this)?);
        check!(session.needs(Needs::READ_BACK, "read"));
        if len > MAX_READ {
            return Ok(Err(error("limit", format!("read of {len} bytes, at most {MAX_READ} at once"))));
        }
        Ok(Ok(check!(session.segment.read(id, offset, len).await)))
    }

    async fn size(&mut self, this: Resource<Output>) -> wasmtime::Result<u64> {
        let id = self.table.get(&this)?.id;
        Ok(self.session()?.segment.size(id))
    }

    async fn head(&mut self, this: Resource<Output>, min: u64) -> Answer<u64> {
        let max = self.limits.head;
        let (session, id) = check!(self.output(&this)?);
        check!(session.needs(Needs::HEAD_ROOM, "head"));
        if session.segment.role(id) != Role::Spool
            || session.heads.contains(&id)
            || session.segment.has_main()
        {
            return Ok(Err(bad_call("head is for a spool, once, before promote")));
        }
        if min > max {
            return Ok(Err(Exceeded { name: "head", limit: format!("{} MiB", max >> 20) }.into()));
        }
        let rounded = min.next_multiple_of(u64::from(session.start.head_align));
        let head = rounded.max(session.start.head_room);
        check!(session.segment.resize_head(id, head).await);
        session.heads.push(id);
        Ok(Ok(head))
    }

    async fn write_head(&mut self, this: Resource<Output>, offset: u64, bytes: Vec<u8>) -> Answer<()> {
        let (session, id) = check!(self.output(&this)?);
        let head = if session.heads.contains(&id) { session.segment.head(id) } else { 0 };
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > head) {
            let len = bytes.len();
            return Ok(Err(bad_call(format!("write-head of {len} bytes at {offset}, the head has {head}"))));
        }
        check!(session.segment.write_head(id, offset, bytes).await);
        Ok(Ok(()))
    }

    async fn promote(&mut self, this: Resource<Output>) -> Answer<()> {
        let (session, id) = check!(self.output(&this)?);
        if session.segment.role(id) != Role::Spool || session.segment.has_main() {
            return Ok(Err(bad_call("promote is for one spool of a segment without a main file")));
        }
        session.segment.promote(id);
        Ok(Ok(()))
    }

    async fn close(&mut self, this: Resource<Output>) -> Answer<()> {
        let (session, _) = check!(self.output(&this)?);
        check!(session.segment.flush().await);
        self.table.get_mut(&this)?.closed = true;
        Ok(Ok(()))
    }

    async fn drop(&mut self, this: Resource<Output>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// The bytes that the pieces name. Payload is shared; so are inline bytes, unless most of them are not used.
fn gather(held: &Held, inline: Bytes, pieces: &[Piece]) -> Result<Vec<Bytes>, String> {
    if pieces.is_empty() {
        return Ok(if inline.is_empty() { vec![] } else { vec![inline] });
    }
    let used = pieces.iter().filter(|p| matches!(p.source, Source::Inline)).map(|p| p.len as usize);
    let wasteful = used.fold(0, usize::saturating_add) < inline.len() / 2;
    let piece = |(i, piece): (usize, &Piece)| {
        let source = match piece.source {
            Source::Inline => &inline,
            Source::Sample => held.get(piece.seq).map_err(|e| format!("piece {i}: {e}"))?,
        };
        let (start, len) = (piece.offset as usize, piece.len as usize);
        match start.checked_add(len) {
            Some(end) if end <= source.len() => Ok(match piece.source {
                Source::Inline if wasteful => Bytes::copy_from_slice(&source[start..end]),
                _ => source.slice(start..end),
            }),
            _ => Err(format!(
                "piece {i}: {len} bytes at {start} of {}, which has {}",
                match piece.source {
                    Source::Inline => "the inline bytes".to_owned(),
                    Source::Sample => format!("sample {}", piece.seq),
                },
                source.len()
            )),
        }
    };
    let pieces = pieces.iter().enumerate().map(piece);
    pieces.filter(|piece| !piece.as_ref().is_ok_and(Bytes::is_empty)).collect()
}

fn allow_output(session: &Session, limits: &Limits, len: u64) -> Result<(), Exceeded> {
    if session.appended_in_call + len > limits.output_per_call {
        let limit = format!("{} MiB", limits.output_per_call >> 20);
        return Err(Exceeded { name: "output-per-call", limit });
    }
    let media_s = u64::try_from(session.media_ms / 1000).unwrap_or(0);
    let total = limits.output_total
        + 4 * session.given
        + SAMPLE_OVERHEAD * session.held.next()
        + SECOND_OVERHEAD.saturating_mul(media_s);
    if session.appended + len > total {
        let limit = format!("{} MiB, four times the payload, and 8 KiB a second", limits.output_total >> 20);
        return Err(Exceeded { name: "output-total", limit });
    }
    Ok(())
}
