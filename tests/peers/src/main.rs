//! `make bench-peers`: Reelwright beside other recorders, on the same streams, in one run. It takes twenty minutes and
//! writes tables and a plot to `target/bench-peers`.
//!
//! - [`plan`]: which servers record what, in which order
//! - [`servers`]: starts and stops them
//! - [`floor`]: a program that only receives and writes, for comparison
//! - [`usage`]: what a process has used
//! - [`check`]: whether the files hold what was sent
//! - [`delay`]: from a sample's time to its being in the file
//! - [`report`]: tables, ratios and the plot
//!
//! ```text
//! make bench-peers ARGS='--only "reelwright-flv;nginx" --cells 200 --rounds 1 --window 5'
//! ```

mod check;
mod delay;
mod floor;
mod media;
mod plan;
mod report;
mod servers;
mod usage;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use plan::{Cell, Options};
use report::Run;
use servers::{Kind, Server};
use usage::Usage;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, folder] = &arguments[..]
        && mode == "--floor"
    {
        return floor::run(folder.as_ref());
    }
    let options = Options::parse(&arguments)?;
    let folder = folder()?;
    // What another build's files had.
    for made in ["frames", "components"] {
        let _ = fs::remove_dir_all(folder.join(made));
    }
    fs::create_dir_all(folder.join("frames"))?;
    raise_files()?;
    let mut log = fs::File::create(folder.join("runs.jsonl"))?;
    let mut runs = Vec::new();
    let mut keep = |checking: Option<Checking>| -> anyhow::Result<()> {
        let Some(checking) = checking else { return Ok(()) };
        for run in checking.join().expect("the thread does not panic")? {
            eprintln!("  {}: {}", run.server, run.in_short());
            writeln!(log, "{}", serde_json::to_string(&run)?)?;
            runs.push(run);
        }
        Ok(())
    };
    let begun = Instant::now();
    let mut checking: Option<Checking> = None;
    for round in 0..options.rounds {
        for cell in plan::cells(&options) {
            for kinds in plan::servers(&cell, &options, round) {
                let names = kinds.iter().map(Kind::to_string).collect::<Vec<_>>().join(", ");
                eprintln!("round {} of {}: {}: {names}", round + 1, options.rounds, cell.name);
                let what = || format!("{} {names}, round {}", cell.name, round + 1);
                if !cell.is_paced {
                    // That takes all there is from its first moment on.
                    keep(checking.take())?;
                }
                let recorded = record(&cell, &kinds, round, &folder).with_context(what)?;
                keep(checking.take())?;
                let (cell, folder) = (cell.clone(), folder.clone());
                checking = Some(thread::spawn(move || {
                    recorded.into_iter().map(|one| one.checked(&cell, &folder)).collect()
                }));
            }
        }
    }
    keep(checking)?;
    let text = report::markdown(&runs, begun.elapsed());
    fs::write(folder.join("report.md"), &text)?;
    fs::write(folder.join("report.svg"), report::plot(&runs))?;
    println!("{text}");
    eprintln!("written to {}", folder.display());
    match runs.iter().filter(|run| run.void.is_some()).count() {
        0 => Ok(()),
        void => bail!("{void} of {} runs are void: see the report", runs.len()),
    }
}

/// Where what is made is kept: beside the folder that this program was built into.
fn folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target =
        program.parent().and_then(Path::parent).context("the program is not in a folder of cargo's")?;
    Ok(target.join("bench-peers"))
}

/// The server, which is built into the folder of this program.
fn reelwright() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("reelwright"))
}

/// Files are looked at while the next servers begin, which is before anything of them is measured.
type Checking = thread::JoinHandle<anyhow::Result<Vec<Run>>>;

/// Servers record a cell once, all at the same time.
fn record(cell: &Cell, kinds: &[Kind], round: usize, folder: &Path) -> anyhow::Result<Vec<Recorded>> {
    let clip = media::clip(cell.media, folder)?;
    let started = kinds.iter().map(|&kind| Started::new(kind, cell, folder));
    let started = started.collect::<anyhow::Result<Vec<_>>>()?;
    let published = thread::scope(|scope| {
        let publish = |one: &Started| {
            let (clip, url) = (&clip, one.server.url().to_owned());
            scope.spawn(move || publish(cell, clip, &url))
        };
        let senders: Vec<_> = started.iter().map(publish).collect();
        let sent = senders.into_iter().map(|sender| sender.join().expect("the thread does not panic"));
        sent.collect::<anyhow::Result<Vec<_>>>()
    })?;
    started.into_iter().zip(published).map(|(one, sent)| one.recorded(cell, round, sent)).collect()
}

/// What a sender came to.
struct Published {
    sent: report::Sent,
    took: Duration,
    cpu: f64,
}

/// Sends the streams of a cell.
fn publish(cell: &Cell, clip: &Path, url: &str) -> anyhow::Result<Published> {
    let begun = Instant::now();
    let mut publish = Command::new(reelwright()?);
    publish.arg("publish").arg(clip).arg(url);
    publish.args(["--streams", &cell.streams.to_string()]);
    publish.args(["--duration", &cell.seconds.to_string(), "--chunk-size", &cell.chunk_size.to_string()]);
    publish.args(["--speed", if cell.is_paced { "1" } else { "0" }]);
    let sender = publish.env("RUST_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (said, sender) = usage::wait(sender)?;
    let took = begun.elapsed();
    if !sender.success {
        bail!("publishing: {said}");
    }
    let sent = report::Sent::parse(&said).with_context(|| format!("{said:?}"))?;
    Ok(Published { sent, took, cpu: sender.cpu })
}

/// A server that waits for its streams.
struct Started {
    kind: Kind,
    server: Server,
    idle: Usage,
    watch: Option<delay::Watch>,
    meter: usage::Meter,
    home: tempfile::TempDir,
}

/// What a server has made.
struct Recorded {
    kind: Kind,
    run: Run,
    files: Vec<PathBuf>,
    _home: tempfile::TempDir,
}

impl Started {
    fn new(kind: Kind, cell: &Cell, folder: &Path) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("run-").tempdir_in(folder)?;
        let server = Server::start(kind, cell, home.path())?;
        let idle = server.usage()?;
        let watch = (cell.measures_delay && kind.is_flv()).then(|| delay::Watch::start(server.files(8)));
        let meter = usage::Meter::start(server.pid());
        Ok(Self { kind, server, idle, watch, meter, home })
    }

    /// Waits until all is closed, and ends the server.
    fn recorded(self, cell: &Cell, round: usize, published: Published) -> anyhow::Result<Recorded> {
        let Self { kind, mut server, idle, watch, meter, home } = self;
        let Published { sent, took, cpu } = published;
        let metered = meter.stop();
        let rss = server.usage()?.rss_kib;
        server.finish(Duration::from_secs(60))?;
        let used = server.usage()?;
        let watched = watch.map(delay::Watch::stop);
        let files = server.media()?;
        let delays = match (&watched, sent.begin_us) {
            (Some(watched), Some(begin_us)) => Some(watched.delays(begin_us, sent.spread_us)?),
            _ => None,
        };
        let sizes = files.iter().map(|file| fs::metadata(file).map(|file| file.len()));
        let bytes = sizes.sum::<Result<u64, _>>()?;
        drop(server);
        let run = Run {
            cell: cell.name.into(),
            server: kind.to_string(),
            round,
            streams: cell.streams,
            media_seconds: cell.seconds * cell.streams as f64,
            seconds: took.as_secs_f64(),
            used: used.since(&idle),
            steady: steady(cell, &sent, &metered),
            rss_kib: rss,
            idle_rss_kib: idle.rss_kib,
            sender_cpu: cpu,
            sent,
            bytes,
            delays,
            void: None,
        };
        Ok(Recorded { kind, run, files, _home: home })
    }
}

impl Recorded {
    /// Looks at what was recorded, which goes then.
    fn checked(self, cell: &Cell, folder: &Path) -> anyhow::Result<Run> {
        let Self { kind, mut run, files, _home } = self;
        run.void = check::fault(cell, kind, &run.sent, &files, folder)?;
        Ok(run)
    }
}

/// Processor time a second while all streams run: from a second after the last has begun until the first ends.
fn steady(cell: &Cell, sent: &report::Sent, metered: &usage::Metered) -> Option<f64> {
    let begin = sent.begin_us?;
    let all = begin + sent.spread_us * cell.streams as i64 + 1_000_000;
    cell.is_paced.then(|| metered.rate(all, begin + (cell.seconds * 1e6) as i64))?
}

/// As many open files as the system gives.
fn raise_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}
