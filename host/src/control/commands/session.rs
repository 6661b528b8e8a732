//! `version`, `help`, `quit`, `auth`: about the server and the connection.

use serde_json::{Value, json};

use super::COMMANDS;
use crate::control::{
    Context,
    reply::Reply,
    table::{COMMAND_ID, Command, Kind, Need, Param, Role, Route},
};

pub(super) static VERSION: Command = Command {
    name: "version",
    aliases: &[],
    help: "Shows the version of the server.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/version")],
    run: |context, _| Box::pin(async { version(context) }),
};

pub(super) static HELP: Command = Command {
    name: "help",
    aliases: &[],
    help: "Lists the commands and their parameters.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/commands")],
    run: |_, _| Box::pin(async { help() }),
};

pub(super) static QUIT: Command = Command {
    name: "quit",
    aliases: &[],
    help: "Ends the connection.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[],
    run: |_, _| Box::pin(async { Reply { close: true, ..Reply::success("Bye!", Value::Null) } }),
};

/// Tells who sends what follows. The command lines see to it themselves, as it is about the connection.
pub static AUTH: Command = Command {
    name: "auth",
    aliases: &[],
    help: "Logs in on the ASCII and the JSON command line, before other commands. Needed with tokens only, and from \
           this machine not even then.",
    params: &[Param {
        name: "token",
        kind: Kind::Text,
        need: Need::Mandatory,
        help: "The token, as `reelwright token` made it.",
    }],
    needs_params: true,
    role: Role::Read,
    routes: &[],
    run: |_, _| {
        Box::pin(async { Reply::fail("HTTP takes the token in the header Authorization, with each request") })
    },
};

fn version(context: &Context) -> Reply {
    let version = &context.version;
    let data = json!({
        "banner": version.banner(),
        "branchName": version.branch_name,
        "buildDate": version.build_date,
        "buildNumber": version.build_number,
        "codeName": version.code_name,
        "hash": version.hash,
        "releaseNumber": version.release_number,
    });
    Reply::success("Version", data).showing(&[
        "banner",
        "buildDate",
        "buildNumber",
        "codeName",
        "releaseNumber",
    ])
}

fn help() -> Reply {
    let entries = COMMANDS.iter().flat_map(|command| {
        let params: Vec<Value> = command.params.iter().chain([&COMMAND_ID]).map(param).collect();
        let entry = move |name: &str, deprecated: bool| {
            json!({
                "command": name, "deprecated": deprecated, "description": command.help, "parameters": params,
            })
        };
        let aliases: Vec<Value> = command.aliases.iter().map(|alias| entry(alias, true)).collect();
        [entry(command.name, false)].into_iter().chain(aliases)
    });
    Reply::success("Available commands", entries.collect())
}

fn param(param: &Param) -> Value {
    json!({
        "defaultValue": match param.need {
            Need::Default(value) => value,
            Need::Mandatory | Need::Optional => "-No default value-",
        },
        "description": param.help,
        "mandatory": matches!(param.need, Need::Mandatory),
        "name": param.name,
    })
}
