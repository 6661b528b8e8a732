//! The `evo-mp4writer` program: repairs by hand what a recording left, as the server does by itself when it starts.

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use reelwright::{
    format::{Engine, Formats, limits::Limits},
    output::{
        Disk, Roots,
        orphan::{self, OrphanError},
        path::Folder,
    },
    repair::{self, Outcome, Repair, RepairError},
};
use tracing_subscriber::EnvFilter;

/// How often a terminal is told how far it is.
const TICK: Duration = Duration::from_millis(200);

/// Finishes recordings that were cut off: MP4 from its spool, FLV and MPEG-TS in their place.
///
/// The server does this by itself when it starts; this is for files that were moved away from it, or while it
/// does not run. A file that a running server records or repairs is left alone. Media is never removed before
/// the finished file is durable.
///
/// Exit codes: 0 done, 1 wrong usage, 2 nothing to do, 3 recovered with loss, 4 input or output failed, or a
/// file could not be repaired (it is kept as it was).
#[derive(Debug, Parser)]
#[command(name = "evo-mp4writer", version, about, arg_required_else_help = true)]
struct Arguments {
    /// The recording, with or without its extension; or a folder, to repair all in and below it
    #[arg(long, value_name = "PATH", required = true, visible_alias = "p")]
    path: PathBuf,
    /// Not needed any more: whether to recover is seen from the files
    #[arg(long)]
    recovery: bool,
    /// Folder with components (*.wasm), for recordings that other than the built-in ones have written
    #[arg(long, value_name = "DIR")]
    formats: Option<PathBuf>,
}

/// How it ended, from best to worst, and as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done = 0,
    NothingToDo = 2,
    Loss = 3,
    Failed = 4,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os().map(two_dashes)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if arguments.recovery {
        eprintln!("evo-mp4writer: --recovery is not needed any more");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("starting").and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(end) => ExitCode::from(end as u8),
        Err(error) => {
            eprintln!("evo-mp4writer: {error:#}");
            ExitCode::from(End::Failed as u8)
        }
    }
}

/// EvoStream's programs take their options with one dash.
fn two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text)
            if ["-path", "-recovery", "-formats", "-help", "-version"].iter().any(|option| {
                text == *option || text.strip_prefix(option).is_some_and(|r| r.starts_with('='))
            }) =>
        {
            format!("-{text}").into()
        }
        _ => argument,
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<End> {
    let path = &arguments.path;
    let is_folder = path.is_dir();
    let orphans = match is_folder {
        true => below(path).await?,
        false => named(path).await?,
    };
    let Some((disk, orphans)) = orphans.filter(|(_, orphans)| !orphans.is_empty()) else {
        eprintln!("evo-mp4writer: {}: nothing to do", path.display());
        return Ok(End::NothingToDo);
    };
    let engine = Engine::new().map_err(|e| anyhow::anyhow!("wasmtime: {e:#}"))?;
    let formats = Formats::open(engine, None, arguments.formats, Limits::default()).await?;
    let mut end = End::Done;
    for (folder, name) in orphans {
        let path = folder.path.join(&name);
        let result = showing_progress(&path, repair::repair(&disk, &formats, &folder, &name)).await;
        end = end.max(match result {
            Err(RepairError::Orphan(OrphanError::Owned(path))) if is_folder => {
                println!("{}: left to the server that has it", path.display());
                End::Done
            }
            result => report(&path, result),
        });
    }
    Ok(end)
}

type Orphans = Option<(Disk, Vec<(Arc<Folder>, String)>)>;

/// All orphans in a folder and below.
async fn below(path: &Path) -> anyhow::Result<Orphans> {
    let disk = Disk::new(Roots::open(path, &[]).context("opening the folder")?, None);
    let mut folders = disk.roots.clone().walk();
    let mut orphans = Vec::new();
    while let Some(folder) = folders.recv().await {
        let names = folder.map_err(anyhow::Error::from).and_then(|folder| {
            let names = orphan::unclosed(&folder).with_context(|| folder.path.display().to_string())?;
            Ok((Arc::new(folder), names))
        });
        let (folder, names) = match names {
            Ok(found) => found,
            // The others are not to suffer for it.
            Err(error) => {
                eprintln!("evo-mp4writer: {error:#}; left out");
                continue;
            }
        };
        orphans.extend(names.into_iter().map(|orphan| (folder.clone(), orphan.name)));
    }
    Ok(Some((disk, orphans)))
}

/// The orphans that a file name can mean: it may lack its extension, or be that of one of the spools.
async fn named(path: &Path) -> anyhow::Result<Orphans> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|n| n.to_str()).context("the path has no file name")?;
    if !parent.is_dir() {
        anyhow::bail!("{}: no such folder", parent.display());
    }
    let disk = Disk::new(Roots::open(parent, &[])?, None);
    let folder = disk.roots.resolve(name).map(|target| target.folder)?;
    let unclosed = orphan::unclosed(&folder).with_context(|| folder.path.display().to_string())?;
    let unclosed: Vec<String> = unclosed.into_iter().map(|orphan| orphan.name).collect();
    let spool_of = |orphan: &str| name.strip_prefix(orphan).is_some_and(|rest| rest.starts_with('.'));
    let lacks_extension = |orphan: &str| orphan.rsplit_once('.').is_some_and(|(stem, _)| stem == name);
    let exact: Vec<_> = unclosed.iter().filter(|orphan| *orphan == name).collect();
    let found = match exact.is_empty() {
        false => exact,
        true => unclosed.iter().filter(|o| lacks_extension(o) || spool_of(o)).collect(),
    };
    let orphans = found.into_iter().map(|name| (folder.clone(), name.clone())).collect();
    Ok(Some((disk, orphans)))
}

fn report(path: &Path, result: Result<Repair, RepairError>) -> End {
    let path = path.display();
    let repair = match result {
        Ok(repair) => repair,
        Err(error) => {
            eprintln!("evo-mp4writer: {error}");
            return End::Failed;
        }
    };
    let seconds = repair.saved_ms as f64 / 1000.0;
    if let Some((component, same)) = &repair.component {
        let other = if *same { "" } else { ", which is not the one that wrote it" };
        println!("{path}: finished by {component}{other}");
    }
    let lost = repair.lost_bytes;
    match &repair.outcome {
        Outcome::Repaired => {
            println!("{path}: {seconds:.3} s in {} samples, {} bytes", repair.samples, repair.bytes);
            if lost > 0 {
                println!(
                    "{path}: {lost} bytes at the end did not hold ({:.3} s)",
                    repair.lost_ms as f64 / 1000.0
                );
            }
            if repair.damaged {
                println!("{path}: some of it is damaged");
            }
        }
        Outcome::Complete => println!("{path}: was complete; its remains are removed"),
        Outcome::Nothing => {
            println!("{path}: nothing to save ({lost} bytes did not hold); its files are removed")
        }
        Outcome::Kept(why) => {
            eprintln!("evo-mp4writer: {path}: {why}; its files are kept");
            return End::Failed;
        }
    }
    if repair.is_lossy() { End::Loss } else { End::Done }
}

/// Does it, with a line on a terminal that tells how far it is.
async fn showing_progress<T>(path: &Path, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => {
                let _ = write!(std::io::stderr(), "\r\x1b[K{}", progress(path, begun.elapsed()));
            }
        }
    };
    let _ = write!(std::io::stderr(), "\r\x1b[K");
    result
}

/// Only a copy takes long; how much of it is there shows in the blocks that its file has.
fn progress(path: &Path, elapsed: Duration) -> String {
    const WIDTH: usize = 40;
    let mut copy = path.as_os_str().to_owned();
    copy.push(".mdat.copy");
    match std::fs::metadata(PathBuf::from(copy)) {
        Ok(copy) if copy.len() > 0 => {
            let done = (copy.blocks() * 512) as f64 / copy.len() as f64;
            let done = done.min(1.0);
            let bar = "#".repeat((done * WIDTH as f64) as usize);
            format!("[{bar:<WIDTH$}] {:3.0} %  copying {}", done * 100.0, path.display())
        }
        _ => format!("{:5.1} s  {}", elapsed.as_secs_f64(), path.display()),
    }
}
