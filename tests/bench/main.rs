//! `make bench`: what the parts cost. It takes some four minutes and prints tables in Markdown, at the end each figure
//! beside that of the baseline.
//!
//! - [`publishing`]: from a publisher's bytes to samples
//! - [`fanout`]: from a publisher to those who listen
//! - [`boundary`]: calls and records between host and component, in the contract's shape and packed
//! - [`muxers`]: each format as a component beside the same code compiled natively
//! - [`closing`]: a 4 GB and a 50 GB MP4, beside FFmpeg
//! - [`recovery`]: repairs after a kill
//! - [`commands`]: from a line of text to its answer
//! - [`loading`]: compiling, loading, opening, memory
//! - [`swapping`]: pauses of recordings at swaps, what a canary costs
//! - [`counting`]: instructions of what one thread does alone, under callgrind
//! - [`baseline`]: what the figures were before
//!
//! `--bless` makes the figures those of the baseline. `--quick` runs everything once with next to no work; the figures
//! mean nothing then. `cargo test` does that too, so that the benchmark keeps working.
//!
//! The allocator is the system's, not that of the server, so that the allocations of another thread are not in what
//! is measured here.

mod baseline;
mod boundary;
mod closing;
mod commands;
mod counting;
mod fanout;
mod files;
mod loading;
mod muxers;
mod native;
mod part;
mod publishing;
mod recorder;
mod recovery;
mod stream;
mod swapping;
mod timing;

use std::fs;

use baseline::Figures;
use reelwright::format::{Engine, Formats, limits::Limits};

/// How much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    Full,
    Quick,
}

impl Effort {
    fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let Some(arguments) = Arguments::read(std::env::args().skip(1)) else { return Ok(()) };
    if let Some(part) = &arguments.count {
        return counting::child(part);
    }
    let effort = arguments.effort;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let engine = Engine::new().map_err(from_wasmtime)?;
    let data = files::scratch()?;
    let formats =
        runtime.block_on(Formats::open(engine.clone(), Some(data.path()), None, Limits::default()))?;
    let mut figures = Figures::new(machine());

    println!("# Reelwright: what the parts cost\n");
    if effort == Effort::Quick {
        println!("**A quick run: these figures mean nothing.**\n");
    }
    println!("{}", conditions());
    let memory = loading::memory(&runtime, &formats, effort)?;
    publishing::run(effort, &mut figures)?;
    fanout::run(effort, &mut figures)?;
    boundary::run(&runtime, &engine, effort, &mut figures).map_err(from_wasmtime)?;
    muxers::run(&runtime, &formats, effort, &mut figures)?;
    closing::run(&runtime, &formats, effort, &mut figures)?;
    recovery::run(&runtime, &formats, effort, &mut figures)?;
    commands::run(&formats, effort, &mut figures)?;
    loading::run(&runtime, &engine, &memory, effort)?;
    swapping::run(&engine, effort)?;
    counting::run(effort, &mut figures)?;
    match (effort, arguments.bless) {
        (Effort::Quick, _) => Ok(()),
        (Effort::Full, true) => figures.bless(),
        (Effort::Full, false) => figures.compare(),
    }
}

/// What is asked for.
struct Arguments {
    effort: Effort,
    /// The figures become those of the baseline.
    bless: bool,
    /// Do this part only, to have its instructions counted.
    count: Option<String>,
}

impl Arguments {
    /// `cargo bench` gives `--bench`; without it this is a test named `bench`, which a filter or a flag of the test
    /// harness can leave out.
    fn read(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = Self { effort: Effort::Quick, bless: false, count: None };
        let (mut quick, mut wanted) = (false, true);
        while let Some(arg) = args.next() {
            match &*arg {
                "--bench" => arguments.effort = Effort::Full,
                "--quick" => quick = true,
                "--bless" => arguments.bless = true,
                "--count" => arguments.count = args.next(),
                "--list" | "--ignored" => return None,
                flag if flag.starts_with('-') => {}
                filter => wanted &= "bench".contains(filter),
            }
        }
        if quick {
            arguments.effort = Effort::Quick;
        }
        wanted.then_some(arguments)
    }
}

fn from_wasmtime(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

/// The processor and the kernel.
fn machine() -> String {
    let unknown = || "unknown".to_owned();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or_else(unknown, |line| line.trim_matches([' ', '\t', ':']).to_owned());
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// What the figures depend on besides the code.
fn conditions() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!(
        "- {}; load {load} at the beginning\n\
         - wasmtime {}\n\
         - build: {}\n",
        machine(),
        wasmtime_version().unwrap_or("unknown"),
        if cfg!(debug_assertions) { "**not optimised**" } else { "optimised" },
    )
}

/// From the lock file: the library does not say it itself.
fn wasmtime_version() -> Option<&'static str> {
    let (_, package) = include_str!("../../Cargo.lock").split_once("name = \"wasmtime\"\nversion = \"")?;
    package.split('"').next()
}
