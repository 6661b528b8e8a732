//! The `reelwright` program: arguments, logging, exit code.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use reelwright::{
    cli,
    config::Config,
    control::{self, auth::tokens, process::LogLevel, table::Role},
    format, publish,
    recorder::manifest::{self, Manifest},
    server,
    state::{self, Form, State},
    store::Store,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Payloads are allocated by one thread and freed by another, seconds later: glibc's allocator takes a third more of the
/// server's time for that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Records live streams to FLV, MPEG-TS and MP4, each written by a WebAssembly component.
///
/// Exit codes: 0 done, 1 wrong usage or a command that failed, 2 nothing to do, 3 a file is not what its manifest
/// says, 4 input or output failed.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Client(cli::Client),
    /// Runs the server until SIGTERM or SIGINT, then closes all files
    Serve {
        /// Settings in TOML; the flags win over it
        #[arg(long = "config", value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Config>,
    },
    /// Publishes an FLV file over RTMP, in real time
    Publish {
        /// FLV file with H.264 and AAC
        file: PathBuf,
        /// rtmp://host[:port]/app/name
        url: String,
        /// 1 is real time; 0 as fast as the server takes it
        #[arg(long, default_value_t = 1.0)]
        speed: f64,
        /// Connections at once; with more than one their names end in _1, _2, …
        #[arg(long, default_value_t = 1)]
        streams: usize,
        /// Length of media to send: the file is repeated or cut
        #[arg(long, value_name = "SECONDS")]
        duration: Option<f64>,
        /// RTMP chunks of so many bytes; OBS takes 4096
        #[arg(long, value_name = "BYTES", default_value_t = publish::CHUNK_SIZE)]
        chunk_size: u32,
    },
    /// Checks a recorded file against the manifest beside it (FILE.json) and lists its gaps
    Verify {
        /// The file, or several
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Makes a token for who gives commands from elsewhere, and prints it with its entry for the token file
    Token {
        /// Who it is for
        name: String,
        /// What it allows: read, operate (start and stop recordings) or admin
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Writes out the orders that a server keeps, or takes them in; the server must not be running
    State {
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Compiles a component, for the server: from standard input to standard output
    #[command(hide = true)]
    CompileComponent {
        /// Most bytes of memory
        memory: u64,
        /// Most seconds of computing
        seconds: u64,
        /// 0 to 19
        niceness: i32,
    },
    /// Prints what a shell needs to complete the arguments of this program
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Sends one command to a running server and prints the reply
    Cli {
        /// A command with its parameters, such as 'listStreams'
        command: String,
        /// The server's ASCII command line
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1222")]
        addr: String,
    },
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Prints recordings, rules and ingest points, keys of publishers included
    Export {
        /// Folder of the server's own files
        #[arg(long, value_name = "DIR", default_value = "data")]
        data_dir: PathBuf,
        #[arg(long, value_enum, default_value = "toml")]
        format: Form,
    },
    /// Takes in what was exported: TOML, or JSON if the name ends in .json
    Import {
        file: PathBuf,
        /// Folder of the server's own files; made if it is missing
        #[arg(long, value_name = "DIR", default_value = "data")]
        data_dir: PathBuf,
        /// Forget the orders that are there
        #[arg(long)]
        replace: bool,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    if let Command::CompileComponent { memory, seconds, niceness } = arguments.command {
        return exit_code(format::compile::child(memory, seconds, niceness).map(|()| ExitCode::SUCCESS));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    let log_level = LogLevel::new(move |level| {
        handle.reload(EnvFilter::new(level.to_string())).map_err(|error| error.to_string())
    });
    // What speaks TLS as a client takes it from here. Nobody else has set one yet.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.context("starting").and_then(|runtime| {
        let result = runtime.block_on(run(arguments.command, log_level));
        // Work that a dead disk holds up does not hold us up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    exit_code(result)
}

/// That of a command that is done, or failed; then it is said why.
fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("reelwright: {error:#}");
        ExitCode::from(4)
    })
}

async fn run(command: Command, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { file, flags } => {
            let Some(config) = settings(file, *flags)? else { return Ok(ExitCode::FAILURE) };
            // Of itself, also when there is another program of its name by now.
            let compiler = Some(PathBuf::from("/proc/self/exe")).filter(|path| path.exists());
            serve(Config { compiler, ..config }, log_level).await?;
        }
        Command::Publish { file, url, speed, streams, duration, chunk_size } => {
            let duration = duration.map(Duration::try_from_secs_f64).transpose().context("--duration")?;
            let report =
                publish::run(publish::Options { file, url, speed, streams, duration, chunk_size }).await?;
            println!(
                "published {streams} stream(s): {} bytes in {} tags in {:.1} s, at worst {} ms late, {} ms for 99 %",
                report.bytes, report.tags, report.seconds, report.worst_lateness_ms, report.p99_lateness_ms
            );
        }
        Command::Verify { files } => return Ok(verify(&files)),
        Command::Token { name, role } => {
            let (token, entry) = tokens::new(&name, role)?;
            println!(
                "The token, which is shown this once only:\n\n{token}\n\nIts entry for the token file:\n"
            );
            print!("{entry}");
        }
        Command::State { command: StateCommand::Export { data_dir, format } } => {
            let text = State::of(&Store::existing(&data_dir)?)?.to_text(format);
            std::io::stdout().write_all(text.as_bytes())?;
        }
        Command::State { command: StateCommand::Import { file, data_dir, replace } } => {
            let state = State::read(&file)?;
            std::fs::create_dir_all(&data_dir).with_context(|| data_dir.display().to_string())?;
            state.import(&state::open(&data_dir).await?, replace).await?;
            println!("{} orders taken in", state.count());
        }
        Command::Client(client) => return cli::run(client).await,
        Command::CompileComponent { memory, seconds, niceness } => {
            format::compile::child(memory, seconds, niceness)?
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "reelwright", &mut script);
            // Who reads may have seen enough.
            let _ = std::io::stdout().write_all(&script);
        }
        Command::Cli { command, addr } => {
            let (succeeded, reply) = control::client::ascii(&addr, &command).await.context(addr)?;
            print!("{}", reply.replace('\r', ""));
            return Ok(ExitCode::from(u8::from(!succeeded)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn role(text: &str) -> Result<Role, String> {
    tokens::role_of(text).ok_or_else(|| "the roles are read, operate and admin".into())
}

/// Compares files with their manifests; the worst of them gives the exit code.
fn verify(files: &[PathBuf]) -> ExitCode {
    let mut worst = 0;
    for file in files {
        let path = file.display();
        let mut manifest = file.clone().into_os_string();
        manifest.push(".json");
        let text = match std::fs::read(&manifest) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("reelwright: {path}: it has no manifest");
                worst = worst.max(2);
                continue;
            }
            Err(error) => {
                eprintln!("reelwright: {}: {error}", manifest.display());
                worst = 4;
                continue;
            }
        };
        let result = serde_json::from_slice::<Manifest>(&text)
            .map_err(std::io::Error::from)
            .and_then(|manifest| Ok((manifest::verify(file, &manifest)?, manifest)));
        match result {
            Ok((Ok(()), manifest)) => {
                let frames: u64 = manifest.tracks.iter().map(|track| track.frames).sum();
                println!(
                    "{path}: as it was recorded: {} bytes, {frames} frames, {} gaps",
                    manifest.bytes,
                    manifest.gaps.len() as u64 + manifest.more_gaps
                );
                for gap in &manifest.gaps {
                    let manifest::Gap { reason, from_ms, to_ms, samples, bytes } = gap;
                    println!("  gap: {reason}, {from_ms} to {to_ms} ms, {samples} samples, {bytes} bytes");
                }
            }
            Ok((Err(difference), _)) => {
                eprintln!("reelwright: {path}: {difference}");
                worst = worst.max(3);
            }
            Err(error) => {
                eprintln!("reelwright: {path}: {error}");
                worst = 4;
            }
        }
    }
    ExitCode::from(worst)
}

/// Flags over the file's settings; `None` if the file is wrong, which has been said.
fn settings(file: Option<PathBuf>, flags: Config) -> anyhow::Result<Option<Config>> {
    let Some(path) = file else { return Ok(Some(flags)) };
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    match Config::parse(&text) {
        Ok(config) => Ok(Some(flags.or(config))),
        Err(error) => {
            eprintln!("reelwright: {}: {error}", path.display());
            Ok(None)
        }
    }
}

async fn serve(config: Config, log_level: LogLevel) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        on_signal.cancel();
    });
    server::serve(config, log_level, stop, |addresses| {
        let list: Vec<_> = addresses.iter().map(|(name, addr)| format!("{name}={addr}")).collect();
        let mut out = std::io::stdout().lock();
        // Who started us may not read.
        let _ = writeln!(out, "ready {}", list.join(" "));
        let _ = out.flush();
    })
    .await
}
