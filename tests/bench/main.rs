//! `make bench`: what components cost. It takes a minute or two and prints tables in Markdown.
//!
//! - [`boundary`]: calls and records between host and component, in the contract's shape and packed
//! - [`muxers`]: each format as a component beside the same code compiled natively
//! - [`closing`]: a 4 GB and a 50 GB MP4, beside FFmpeg
//! - [`loading`]: compiling, loading, opening, memory
//! - [`swapping`]: pauses of recordings at swaps, what a canary costs
//!
//! `--quick` runs everything once with next to no work; the figures mean nothing then. `cargo test` does that too,
//! so that the benchmark keeps working.

mod boundary;
mod closing;
mod files;
mod loading;
mod muxers;
mod native;
mod stream;
mod swapping;
mod timing;

use std::fs;

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
    let Some(effort) = effort(std::env::args().skip(1)) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let engine = Engine::new().map_err(from_wasmtime)?;
    let data = files::scratch()?;
    let formats =
        runtime.block_on(Formats::open(engine.clone(), Some(data.path()), None, Limits::default()))?;

    println!("# Reelwright: what components cost\n");
    if effort == Effort::Quick {
        println!("**A quick run: these figures mean nothing.**\n");
    }
    println!("{}", conditions());
    let memory = loading::memory(&runtime, &formats, effort)?;
    boundary::run(&runtime, &engine, effort).map_err(from_wasmtime)?;
    muxers::run(&runtime, &formats, effort)?;
    closing::run(&runtime, &formats, effort)?;
    loading::run(&runtime, &engine, &memory, effort)?;
    swapping::run(&engine, effort)
}

/// What the arguments ask for. `cargo bench` gives `--bench`; without it this is a test named `bench`, which a
/// filter or a flag of the test harness can leave out.
fn effort(args: impl Iterator<Item = String>) -> Option<Effort> {
    let (mut effort, mut wanted) = (Effort::Quick, true);
    let mut quick = false;
    for arg in args {
        match &*arg {
            "--bench" => effort = Effort::Full,
            "--quick" => quick = true,
            "--list" | "--ignored" => return None,
            flag if flag.starts_with('-') => {}
            filter => wanted &= "bench".contains(filter),
        }
    }
    wanted.then_some(if quick { Effort::Quick } else { effort })
}

fn from_wasmtime(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

/// What the figures depend on besides the code.
fn conditions() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.map(|line| line.trim_matches([' ', '\t', ':']).to_owned())
    };
    let unknown = || "unknown".to_owned();
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!(
        "- processor: {}, {cores} cores\n\
         - Linux {}, load {load} at the beginning\n\
         - wasmtime {}\n\
         - build: {}\n",
        field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        wasmtime_version().unwrap_or("unknown"),
        if cfg!(debug_assertions) { "**not optimised**" } else { "optimised" },
    )
}

/// From the lock file: the library does not say it itself.
fn wasmtime_version() -> Option<&'static str> {
    let (_, package) = include_str!("../../Cargo.lock").split_once("name = \"wasmtime\"\nversion = \"")?;
    package.split('"').next()
}
