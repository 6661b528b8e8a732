//! `reelwright format`: the versions of formats that a server has, and components as files.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use sha2::{Digest, Sha256};

use super::{connection, ended, run_verb, verbs, with_options};
use crate::{
    format::{
        Formats,
        bundle::{Bundle, Replayed},
    },
    output::hex,
};

/// The bundle's failure did not come again.
const NOT_REPRODUCED: u8 = 3;
/// There is no such component.
const NO_COMPONENT: u8 = 2;

pub(super) fn subcommand() -> Command {
    let verbs = verbs::of_formats().map(|verb| with_options(verb.subcommand()));
    Command::new("format")
        .about("Loads, swaps and rolls back the components that write, and shows them")
        .subcommand_required(true)
        .subcommands(verbs)
        .subcommand(export())
        .subcommand(replay_command())
}

fn export() -> Command {
    Command::new("export")
        .about("Writes a component that is in this program to a file")
        .arg(Arg::new("name").required(true).value_name("FORMAT").help("flv, mp4 or ts"))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .required(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Where to; a file that is there is not overwritten"),
        )
}

fn replay_command() -> Command {
    let path = || value_parser!(PathBuf);
    Command::new("replay")
        .about(
            "Runs a component once more with what made it fail. Exit codes: 0 it fails in the same way, 3 it does not, 2 \
             the component is not found",
        )
        .arg(
            Arg::new("bundle")
                .required(true)
                .value_name("BUNDLE")
                .value_parser(path())
                .help("File that the failure left in the data folder, below crashes/"),
        )
        .arg(
            Arg::new("component")
                .long("component")
                .value_name("FILE")
                .value_parser(path())
                .help("Component to run [default: the one that failed, by its hash]"),
        )
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .value_parser(path())
                .default_value("data")
                .help("Folder of the server's own files"),
        )
        .arg(
            Arg::new("formats")
                .long("formats")
                .value_name("DIR")
                .value_parser(path())
                .help("Folder with components that may have the one that failed"),
        )
}

pub(super) async fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    match arguments.subcommand() {
        Some(("export", arguments)) => write_out(arguments),
        Some(("replay", arguments)) => {
            let path = |name: &str| arguments.get_one::<PathBuf>(name);
            let bundle = path("bundle").context("a bundle is needed")?;
            let data = path("data-dir").context("a data folder is needed")?;
            let formats = path("formats").map(PathBuf::as_path);
            replay(bundle, path("component").cloned(), data, formats).await
        }
        Some((name, arguments)) => {
            let verb = verbs::of_formats().find(|verb| verb.name == name).context("no such sub-command")?;
            let api = connection(arguments)?;
            ended(run_verb(&api, &verb, arguments).await)
        }
        None => anyhow::bail!("a sub-command is needed"),
    }
}

fn write_out(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let name = arguments.get_one::<String>("name").map_or("", String::as_str);
    let path = arguments.get_one::<PathBuf>("output").context("-o FILE is needed")?;
    let Some(wasm) = Formats::embedded(name) else {
        eprintln!("reelwright: there is no format `{name}` in this program: flv, mp4, ts");
        return Ok(ExitCode::FAILURE);
    };
    let write = || std::io::Write::write_all(&mut std::fs::File::create_new(path)?, wasm);
    write().with_context(|| path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

async fn replay(
    path: &Path,
    component: Option<PathBuf>,
    data: &Path,
    formats: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::read(path).with_context(|| path.display().to_string())?;
    let head = &bundle.head;
    println!("{}", describe(&bundle));
    let found = match component {
        Some(file) => {
            let wasm = std::fs::read(&file).with_context(|| file.display().to_string())?;
            if hex(&Sha256::digest(&wasm)) != head.sha256 {
                println!("{} is not the component that failed", file.display());
            }
            Some((wasm, Some(file)))
        }
        None => bundle.find_component(data, formats),
    };
    let Some((wasm, file)) = found else {
        eprintln!(
            "reelwright: there is no component with sha256 {}; give it by --component, or say where it is by \
             --data-dir or --formats",
            head.sha256
        );
        return Ok(ExitCode::from(NO_COMPONENT));
    };
    let version = Arc::new(bundle.load(wasm, file).await?);
    println!("replaying with {}", version.label());
    let (code, text) = match bundle.replay(version).await? {
        Replayed::Same { failure, step } => {
            (0, format!("reproduced: {} (step {step}): {}", failure.call, failure.text))
        }
        Replayed::Other { failure, step } => (
            NOT_REPRODUCED,
            format!("not reproduced: it fails otherwise: {} (step {step}): {}", failure.call, failure.text),
        ),
        Replayed::Nothing => (NOT_REPRODUCED, "not reproduced: nothing fails".to_owned()),
    };
    println!("{text}");
    Ok(ExitCode::from(code))
}

/// What a bundle says, in a few lines.
fn describe(bundle: &Bundle) -> String {
    let head = &bundle.head;
    let time = jiff::Timestamp::from_microsecond(head.epoch_us).unwrap_or_default();
    let mut lines = vec![
        format!("{} in {} at {}", head.component, head.start.file, time.strftime("%Y-%m-%dT%H:%M:%SZ")),
        format!("failed: {} (step {}): {}", head.failure.call, bundle.steps(), head.failure.text),
    ];
    if !head.complete {
        lines.push(format!(
            "{} steps before these are not in the bundle, so it may not fail again",
            head.more_steps
        ));
    }
    let last = head.host_calls.len().saturating_sub(8);
    lines.extend(head.host_calls[last..].iter().map(|call| format!("  it called {call}")));
    lines.extend(head.log.iter().rev().take(8).rev().map(|(level, line)| format!("  log {level}: {line}")));
    if let Some(backtrace) = &head.backtrace {
        lines.extend(backtrace.lines().map(|line| format!("  {}", line.escape_debug())));
    }
    lines.join("\n")
}
