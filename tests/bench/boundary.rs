//! The boundary between host and component: what a call costs, and what a sample costs in a batch.
//!
//! The contract's records stand beside the same facts packed into `list<u64>`, which wasmtime copies as a
//! whole where it takes records field by field. A call includes what each shape asks of both sides: the host
//! makes the samples' list anew from its own, the component reads each sample and, where it appends, builds
//! the pieces of all of them for one call of the host, two a sample, and the host checks every piece. The
//! engine is the server's: epochs on, concurrency off. `call` can't wait; `call_async` runs on a fiber that
//! can, with host functions that may, which is how the server calls.
//!
//! What was decided by it: **records stay.** The server's case is `call_async` with some 10 samples and one
//! append. There packing saves on the order of 100 ns a sample; a stream has 77 samples a second, so for a
//! hundred streams that is a thousandth of one core. It does not pay for a contract whose fields are shifts in
//! a comment. Look at it again when records cost over 1 µs a sample in a batch of 8, or if a format is
//! to take units much smaller than frames.

use std::rc::Rc;

use reelwright::{
    format::{Engine, limits::Limits},
    media::Sample,
};
use tokio::runtime::{Builder, Runtime};
use wasmtime::{
    AsContextMut, Store, UpdateDeadline,
    component::{Component, Instance, Linker, Resource, ResourceTable, ResourceType, TypedFunc},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::{
    Effort,
    baseline::Figures,
    from_wasmtime,
    part::{Part, Prepare, Work},
    stream::{self, Payload},
    timing::{Rounds, Table, cpu_time, figure},
};

/// The records; the functions are typed by hand, once for each way to call.
mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/0.1.0", "../tests/components/boundary.wit"],
        world: "reelwright:bench/boundary",
    });
}

use bindings::reelwright::writer::{
    host::{Piece, Source},
    types::{Error, Sample as Record},
};

const BATCHES: [usize; 4] = [1, 8, 32, 64];
/// The one whose figures are compared with the baseline.
const BASELINE_BATCH: usize = 8;
/// The top bit of a packed piece's first word: it is of a sample.
const SAMPLE: u64 = 1 << 63;
/// Words of a packed sample.
const WORDS: usize = 6;

type Answer = (Result<u64, Error>,);
type Empty = TypedFunc<(), ()>;
type Records = TypedFunc<(Vec<Record>, Vec<u8>), Answer>;
type Packed = TypedFunc<(Vec<u64>, Vec<u8>), Answer>;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Empty,
    Records { append: bool },
    Packed { append: bool },
}

impl Case {
    const ALL: [Self; 5] = [
        Self::Empty,
        Self::Records { append: false },
        Self::Packed { append: false },
        Self::Records { append: true },
        Self::Packed { append: true },
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Empty => "empty call",
            Self::Records { append: false } => "records in",
            Self::Packed { append: false } => "packed in",
            Self::Records { append: true } => "records in, one append of 2 pieces a sample",
            Self::Packed { append: true } => "packed in, one packed append",
        }
    }

    fn batches(self) -> &'static [usize] {
        if self == Self::Empty { &BATCHES[..1] } else { &BATCHES }
    }
}

/// What the component's host functions work on.
struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    /// Sizes of the samples that pieces may name.
    held: Vec<u32>,
    appended: u64,
}

/// A file that forgets.
struct Output;

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl State {
    /// Checks pieces as the server does, and counts their bytes.
    fn append(
        &mut self,
        output: &Resource<Output>,
        inline: &[u8],
        pieces: impl Iterator<Item = Piece>,
    ) -> wasmtime::Result<Answer> {
        self.table.get(output)?;
        let offset = self.appended;
        for piece in pieces {
            let size = match piece.source {
                Source::Inline => Some(inline.len() as u64),
                Source::Sample => usize::try_from(piece.seq)
                    .ok()
                    .and_then(|seq| self.held.get(seq))
                    .map(|&size| size.into()),
            };
            if size.is_none_or(|size| u64::from(piece.offset) + u64::from(piece.len) > size) {
                return Err(wasmtime::Error::msg(format!("{piece:?} is out of range")));
            }
            self.appended += u64::from(piece.len);
        }
        Ok((Ok(offset),))
    }
}

fn unpack_pieces(words: &[u64]) -> impl Iterator<Item = Piece> {
    words.as_chunks::<2>().0.iter().map(|&[source_seq, offset_len]| Piece {
        source: if source_seq & SAMPLE == 0 { Source::Inline } else { Source::Sample },
        seq: source_seq & !SAMPLE,
        offset: (offset_len >> 32) as u32,
        len: offset_len as u32,
    })
}

fn record((seq, sample): (usize, &Sample)) -> Record {
    Record {
        seq: seq as u64,
        dts: sample.dts_ms,
        pts: sample.pts_ms,
        duration: 0,
        track: sample.track,
        size: size(sample),
        bits: u32::from(sample.key) | u32::from(sample.discontinuity) << 1,
    }
}

fn words(sample: (usize, &Sample)) -> [u64; WORDS] {
    let r = record(sample);
    let track_size = u64::from(r.track) << 32 | u64::from(r.size);
    [r.seq, r.dts as u64, r.pts as u64, r.duration.into(), track_size, r.bits.into()]
}

fn size(sample: &Sample) -> u32 {
    u32::try_from(sample.data.len()).expect("a frame is small")
}

/// The component, and how it is called.
struct Callee {
    store: Store<State>,
    instance: Instance,
    fiber: bool,
}

impl Callee {
    async fn new(engine: &Engine, component: &Component, fiber: bool) -> wasmtime::Result<Self> {
        let engine = engine.wasmtime();
        let mut linker = Linker::new(engine);
        match fiber {
            true => wasmtime_wasi::p2::add_to_linker_async(&mut linker)?,
            false => wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?,
        }
        link(&mut linker, fiber)?;
        let samples = stream::samples(4, Payload::Tiny);
        let state = State {
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().build(),
            held: samples.iter().map(size).collect(),
            appended: 0,
        };
        let mut store = Store::new(engine, state);
        store.set_hostcall_fuel(Limits::default().hostcall_bytes as usize);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            Ok(if fiber { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
        });
        let instance = match fiber {
            true => linker.instantiate_async(&mut store, component).await?,
            false => linker.instantiate(&mut store, component)?,
        };
        Ok(Self { store, instance, fiber })
    }

    /// Calls so often with a batch of that many samples.
    async fn run(&mut self, case: Case, samples: &[Sample], calls: usize) -> wasmtime::Result<()> {
        match case {
            Case::Empty => {
                let empty: Empty = self.instance.get_typed_func(&mut self.store, "empty")?;
                self.repeat(empty, calls, || (), |()| Ok(())).await
            }
            Case::Records { append } => {
                let name = if append { "records-append" } else { "records" };
                let function: Records = self.instance.get_typed_func(&mut self.store, name)?;
                let records = || (samples.iter().enumerate().map(record).collect(), Vec::new());
                self.repeat(function, calls, records, answered).await
            }
            Case::Packed { append } => {
                let name = if append { "packed-append" } else { "packed" };
                let function: Packed = self.instance.get_typed_func(&mut self.store, name)?;
                let packed = || (samples.iter().enumerate().flat_map(words).collect(), Vec::new());
                self.repeat(function, calls, packed, answered).await
            }
        }
    }

    async fn repeat<P, R>(
        &mut self,
        function: TypedFunc<P, R>,
        calls: usize,
        params: impl Fn() -> P,
        check: impl Fn(R) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<()>
    where
        P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower + Send + 'static,
        R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift + Send + 'static,
    {
        let store = &mut self.store;
        if self.fiber {
            for _ in 0..calls {
                check(function.call_async(&mut *store, params()).await?)?;
            }
        } else {
            for _ in 0..calls {
                check(function.call(&mut *store, params())?)?;
            }
        }
        Ok(())
    }
}

fn answered((answer,): Answer) -> wasmtime::Result<()> {
    answer.map(drop).map_err(|error| wasmtime::Error::msg(error.message))
}

/// The sink, as functions that may wait or that may not.
fn link(linker: &mut Linker<State>, fiber: bool) -> wasmtime::Result<()> {
    type Append = (Resource<Output>, Vec<u8>, Vec<Piece>);
    type AppendPacked = (Resource<Output>, Vec<u8>, Vec<u64>);
    const APPEND: &str = "[method]output.append";
    const APPEND_PACKED: &str = "[method]output.append-packed";

    let mut sink = linker.instance("reelwright:bench/sink@0.1.0")?;
    sink.resource("output", ResourceType::host::<Output>(), |_, _| Ok(()))?;
    sink.func_wrap("[constructor]output", |mut store, (): ()| {
        Ok((store.as_context_mut().data_mut().table.push(Output)?,))
    })?;
    if fiber {
        sink.func_wrap_async(APPEND, |mut store, (output, inline, pieces): Append| {
            Box::new(async move { store.data_mut().append(&output, &inline, pieces.into_iter()) })
        })?;
        sink.func_wrap_async(APPEND_PACKED, |mut store, (output, inline, words): AppendPacked| {
            Box::new(async move { store.data_mut().append(&output, &inline, unpack_pieces(&words)) })
        })
    } else {
        sink.func_wrap(APPEND, |mut store, (output, inline, pieces): Append| {
            store.data_mut().append(&output, &inline, pieces.into_iter())
        })?;
        sink.func_wrap(APPEND_PACKED, |mut store, (output, inline, words): AppendPacked| {
            store.data_mut().append(&output, &inline, unpack_pieces(&words))
        })
    }
}

/// One case with one batch, called in one way.
struct Cell {
    case: Case,
    batch: usize,
    callee: Callee,
    /// Of one call, in nanoseconds.
    rounds: Rounds,
}

/// Batches as the server has them, called in either way.
pub(crate) fn parts(effort: Effort) -> Vec<Part> {
    [false, true].map(|fiber| part(fiber, effort)).into()
}

fn part(fiber: bool, effort: Effort) -> Part {
    let (case, way) = (Case::Records { append: true }, if fiber { "call_async" } else { "call" });
    let name = format!("boundary, {}, batch {BASELINE_BATCH}, {way}", case.title());
    Part::new(name, "sample", move || {
        let runtime = Rc::new(Builder::new_current_thread().build()?);
        let engine = Engine::new().map_err(from_wasmtime)?;
        let component = component(&engine).map_err(from_wasmtime)?;
        let samples: Rc<[Sample]> = stream::samples(4, Payload::Tiny).into();
        let calls = effort.pick(100, 2);
        let prepare = move || {
            let (runtime, samples) = (runtime.clone(), samples.clone());
            let callee = Callee::new(&engine, &component, fiber);
            let mut callee = runtime.block_on(callee).map_err(from_wasmtime)?;
            Ok(Box::new(move || {
                let run = callee.run(case, &samples[..BASELINE_BATCH], calls);
                runtime.block_on(run).map_err(from_wasmtime)?;
                Ok(calls * BASELINE_BATCH)
            }) as Work)
        };
        Ok(Box::new(prepare) as Prepare)
    })
}

fn component(engine: &Engine) -> wasmtime::Result<Component> {
    Component::from_file(engine.wasmtime(), reelwright_built_components::component("boundary"))
}

/// Measures and prints.
pub(crate) fn run(
    runtime: &Runtime,
    engine: &Engine,
    effort: Effort,
    figures: &mut Figures,
) -> wasmtime::Result<()> {
    let component = component(engine)?;
    let samples = stream::samples(4, Payload::Tiny);
    let mut cells = Vec::new();
    for case in Case::ALL {
        for &batch in case.batches() {
            for fiber in [false, true] {
                let callee = runtime.block_on(Callee::new(engine, &component, fiber))?;
                cells.push(Cell { case, batch, callee, rounds: Rounds::new() });
            }
        }
    }
    // Round by round, so that a bad moment of the machine is no single cell's.
    for _ in 0..effort.pick(21, 1) {
        for cell in &mut cells {
            let calls = effort.pick(60_000, 200) / (cell.batch + 2);
            let batch = &samples[..cell.batch];
            runtime.block_on(cell.callee.run(cell.case, batch, calls / 8))?;
            let begin = cpu_time();
            runtime.block_on(cell.callee.run(cell.case, batch, calls))?;
            cell.rounds.add_time(cpu_time() - begin, calls);
        }
    }

    println!("## The boundary\n");
    println!(
        "Median (least–most) in ns of the calling thread; a call of a batch, and its part for each sample.\n"
    );
    let mut table = Table::new(&["", "batch", "`call`", "a sample", "`call_async`", "a sample"]);
    for pair in cells.chunks(2) {
        let Cell { case, batch, .. } = pair[0];
        let mut row = vec![case.title().to_owned(), batch.to_string()];
        for cell in pair {
            let sample = cell.rounds.median() / batch as f64;
            row.push(cell.rounds.to_string());
            row.push(if case == Case::Empty { "–".into() } else { figure(sample) });
        }
        let asynchronous = pair[1].rounds.median();
        match (case, batch) {
            (Case::Empty, _) => {
                row[1] = "–".into();
                figures.time("boundary, empty call, call_async", "ns a call", asynchronous);
            }
            // Nearest to what the server does.
            (Case::Records { .. }, BASELINE_BATCH) => {
                let part = format!("boundary, {}, batch {batch}, call_async", case.title());
                figures.time(&part, "ns a sample", asynchronous / batch as f64);
            }
            _ => {}
        }
        table.row(row);
    }
    println!("{table}");
    Ok(())
}
