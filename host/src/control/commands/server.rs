//! `shutdownServer`, `setLogLevel`: the server itself.

use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use crate::control::{
    Context,
    reply::{Fault, Reply},
    table::{Args, Command, Kind, Need, Param, Role, Route},
};

pub(super) static SHUTDOWN_SERVER: Command = Command {
    name: "shutdownServer",
    aliases: &[],
    help: "Stops the server when all files are complete. The first call answers a key; the second, with it, stops.",
    params: &[Param {
        name: "key",
        kind: Kind::Text,
        need: Need::Optional,
        help: "What the first call answered.",
    }],
    needs_params: false,
    role: Role::Admin,
    routes: &[Route::new("POST", "/shutdown")],
    run: |context, args| Box::pin(async move { shut_down(context, &args) }),
};

pub(super) static SET_LOG_LEVEL: Command = Command {
    name: "setLogLevel",
    aliases: &[],
    help: "Changes how much the server logs, until it is started again.",
    params: &[Param {
        name: "level",
        kind: Kind::OneOf(&["-1", "0", "1", "2", "3", "4", "5", "6"]),
        need: Need::Mandatory,
        help: "-1: nothing. 0 and 1: errors. 2: warnings too. 3: what happens. 4: commands and connections. 5 and 6: all.",
    }],
    needs_params: true,
    role: Role::Admin,
    routes: &[Route::new("PUT", "/log-level")],
    run: |context, args| Box::pin(async move { set_log_level(context, &args) }),
};

fn shut_down(context: &Context, args: &Args) -> Reply {
    let Some(key) = args.text("key") else {
        let key = context.stop_key.new_key();
        return Reply::success("Call shutdownserver again with the provided key", json!({ "key": key }));
    };
    if !context.stop_key.take(key) {
        let text =
            "The key is not the one of the last call of shutdownServer. Call it without a key for a new one";
        return Reply::fault(Fault::Conflict, text);
    }
    tracing::info!("a client shuts the server down");
    context.shutdown.cancel();
    Reply { close: true, ..Reply::success("The server shuts down", Value::Null) }
}

fn set_log_level(context: &Context, args: &Args) -> Reply {
    let level = match args.text("level") {
        Some("-1") => LevelFilter::OFF,
        Some("0" | "1") => LevelFilter::ERROR,
        Some("2") => LevelFilter::WARN,
        Some("3") => LevelFilter::INFO,
        Some("4") => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    match context.log_level.set(level) {
        Ok(()) => Reply::success("Log level is set", Value::Null),
        Err(error) => Reply::fault(Fault::Failed, format!("The log level can't be set: {error}")),
    }
}
