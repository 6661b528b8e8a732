//! `setTimer`, `listTimers`, `removeTimer`.

use serde_json::Value;

use super::ID;
use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    timers::{TimerError, When},
};

pub(super) static SET_TIMER: Command = Command {
    name: "setTimer",
    aliases: &[],
    help: "Sets a timer, which tells by the event timerTriggered that it went off. It is gone when the server ends. \
           _user variables come back in lists and events.",
    params: &[Param {
        name: "value",
        kind: Kind::Text,
        need: Need::Mandatory,
        help: "Seconds from 1 to 86399, again and again; or HH:MM:SS, the next such time, or YYYY-MM-DDTHH:MM:SS, \
               once, in the server's time zone.",
    }],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/timers")],
    run: |context, args| Box::pin(async { set(context, args) }),
};

pub(super) static LIST_TIMERS: Command = Command {
    name: "listTimers",
    aliases: &[],
    help: "Lists the timers that are set.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/timers")],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static REMOVE_TIMER: Command = Command {
    name: "removeTimer",
    aliases: &[],
    help: "Removes a timer.",
    params: &[Param { name: "id", kind: ID, need: Need::Mandatory, help: "The timerId; see listTimers." }],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("DELETE", "/timers/{id}")],
    run: |context, args| Box::pin(async move { remove(context, &args) }),
};

fn set(context: &Context, args: Args) -> Reply {
    let value = args.text("value").unwrap_or_default();
    let set = value.parse::<When>().and_then(|when| context.timers.set(when, args.user));
    match set {
        Ok(timer) => Reply::success("Custom timer enqueued", timer.to_json()),
        Err(error @ TimerError::TooMany) => {
            Reply::fault(Fault::Conflict, format!("Unable to set timer: {error}"))
        }
        Err(error) => Reply::fail(format!("Syntax error. Parameter value is invalid. {error}")),
    }
}

fn list(context: &Context) -> Reply {
    let timers: Vec<Value> = context.timers.list().iter().map(|timer| timer.to_json()).collect();
    Reply::success("List of armed timers", Value::Array(timers))
}

fn remove(context: &Context, args: &Args) -> Reply {
    let id = args.int("id").unwrap_or_default();
    match context.timers.remove(id) {
        Some(timer) => Reply::success("Timer removed", timer.to_json()),
        None => Reply::fault(Fault::NotFound, format!("Timer {id} not found")),
    }
}
