//! `reelwright` as a client: `record`, `streams`, `stop`, `watch`, …, over the REST API.
//!
//! Sub-commands and their flags are made from the table of commands (`verbs`), so that a new command, or a new
//! parameter, is there without anything being added here.

mod api;
mod format;
mod show;
mod verbs;
mod watch;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand, value_parser};
use serde_json::Value;

use api::{Api, Failure};
use verbs::Verb;

/// Where a server is that nobody says anything else of.
const SERVER: &str = "http://127.0.0.1:7777";

/// A sub-command that talks to a server, with its arguments.
#[derive(Debug)]
pub struct Client {
    name: String,
    arguments: ArgMatches,
}

impl FromArgMatches for Client {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (name, arguments) = matches
            .subcommand()
            .ok_or_else(|| clap::Error::new(clap::error::ErrorKind::MissingSubcommand))?;
        Ok(Self { name: name.to_owned(), arguments: arguments.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Client {
    fn augment_subcommands(command: Command) -> Command {
        let subcommands = verbs::all().map(|verb| verb.subcommand()).chain([call(), watch()]);
        command.subcommands(subcommands.map(with_options)).subcommand(format::subcommand())
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        ["call", "watch", "format"].contains(&name) || verbs::all().any(|verb| verb.name == name)
    }
}

fn call() -> Command {
    Command::new("call")
        .about("Runs any command of the server")
        .arg(
            Arg::new("command")
                .required(true)
                .value_name("COMMAND")
                .help("Its name, as `call help` lists them"),
        )
        .arg(Arg::new("parameters").value_name("NAME=VALUE").num_args(0..).help("Its parameters"))
}

fn watch() -> Command {
    Command::new("watch")
        .about("Shows streams, recordings, disks and events as they change, until it is interrupted")
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64).range(1..))
                .help("Ends after so many seconds"),
        )
}

/// The flags that say where the server is, and what comes out.
fn with_options(command: Command) -> Command {
    command.args([
        Arg::new("server")
            .long("server")
            .value_name("URL")
            .help("The server's HTTP address [default: $REELWRIGHT_SERVER, or http://127.0.0.1:7777]"),
        Arg::new("token-file")
            .long("token-file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("File that holds the token [default: the token in $REELWRIGHT_TOKEN]"),
        Arg::new("ca")
            .long("ca")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Certificates in PEM that the server's is checked against [default: the system's]"),
        Arg::new("json").long("json").action(ArgAction::SetTrue).help("Prints the data as JSON"),
    ])
}

/// Does what a sub-command says. What the server refuses is printed, and gives exit code 1.
pub async fn run(client: Client) -> anyhow::Result<ExitCode> {
    let Client { name, arguments } = client;
    if name == "format" {
        return format::run(&arguments).await;
    }
    let api = connection(&arguments)?;
    let result = match name.as_str() {
        "watch" => watch::run(&api, arguments.get_one("rounds").copied(), arguments.get_flag("json")).await,
        "call" => {
            let result = verbs::call(&api, &arguments).await;
            result.and_then(|data| print(&arguments, &data, show::any))
        }
        name => match verbs::all().find(|verb| verb.name == name) {
            Some(verb) => run_verb(&api, &verb, &arguments).await,
            None => Err(Failure::Usage(format!("`{name}` is no command of this server"))),
        },
    };
    ended(result)
}

/// The exit code of what was asked of a server.
fn ended(result: Result<(), Failure>) -> anyhow::Result<ExitCode> {
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure @ (Failure::Refused(_) | Failure::Usage(_))) => {
            eprintln!("reelwright: {failure}");
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => Err(failure.into()),
    }
}

async fn run_verb(api: &Api, verb: &Verb, arguments: &ArgMatches) -> Result<(), Failure> {
    verb.run(api, arguments, |data| print(arguments, &data, |data| verb.show(data))).await
}

/// Prints what came. Who reads may be gone by then.
fn print(arguments: &ArgMatches, data: &Value, text: impl Fn(&Value) -> String) -> Result<(), Failure> {
    let text = if arguments.get_flag("json") { show::json(&format!("{data:#}\n")) } else { text(data) };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn connection(arguments: &ArgMatches) -> anyhow::Result<Api> {
    let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let server = arguments.get_one::<String>("server").cloned().or_else(|| env("REELWRIGHT_SERVER"));
    let server = server.unwrap_or_else(|| SERVER.into());
    let token = match arguments.get_one::<PathBuf>("token-file") {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(text.trim().to_owned())
        }
        None => env("REELWRIGHT_TOKEN"),
    };
    let ca = match arguments.get_one::<PathBuf>("ca") {
        Some(path) => Some(std::fs::read(path).with_context(|| path.display().to_string())?),
        None => None,
    };
    if token.is_some() && api::is_exposed(&server) && std::io::stderr().is_terminal() {
        eprintln!("reelwright: {server} is no https:// address: who listens on the way sees the token");
    }
    Api::new(&server, token, ca.as_deref()).with_context(|| server.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Client, clap::Error> {
        let command = Client::augment_subcommands(Command::new("reelwright"));
        Client::from_arg_matches(&command.try_get_matches_from(line.split(' '))?)
    }

    #[test]
    fn sub_commands_are_sound() {
        Client::augment_subcommands(Command::new("reelwright")).debug_assert();
        for name in ["record", "streams", "recordings", "stop", "watch", "call"] {
            assert!(Client::has_subcommand(name), "{name}");
        }
        assert!(!Client::has_subcommand("serve"));
    }

    #[test]
    fn what_is_misspelt_is_suggested() {
        for (line, words) in [
            ("reelwright recrod cam1", "record"),
            ("reelwright record cam1 --pth x", "--path"),
            ("reelwright record cam1 --path x --chunk-lenght 60", "--chunk-length"),
            ("reelwright record", "STREAM"),
            ("reelwright watch --rounds 0", "0"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
        let client =
            parse("reelwright record cam1 --path x --overwrite --keep-alive=no --user who=me").unwrap();
        assert_eq!(client.name, "record");
    }
}
