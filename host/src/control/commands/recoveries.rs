//! `listRecoveries`: what was repaired since the server started.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::{
    control::{
        Context,
        reply::Reply,
        table::{Command, Role, Route},
    },
    repair::Repair,
};

pub(super) static LIST_RECOVERIES: Command = Command {
    name: "listRecoveries",
    aliases: &[],
    help: "Lists the segments that lost their writer (by a crash, a power cut, a failed disk or component) and what \
           became of them since the server started: what was saved and what was lost.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/recoveries")],
    run: |context, _| Box::pin(async { list(context) }),
};

fn list(context: &Context) -> Reply {
    let list: Vec<Value> = context.repairs.list().iter().map(one).collect();
    Reply::success("Recoveries", json!({ "unfinished": context.repairs.unfinished(), "recoveries": list }))
        .showing(&[
            "unfinished",
            "recoveries.path",
            "recoveries.outcome",
            "recoveries.reason",
            "recoveries.savedSeconds",
            "recoveries.bytes",
            "recoveries.lostSeconds",
            "recoveries.lostBytes",
        ])
}

fn one(repair: &Repair) -> Value {
    let mut value = repair.to_json();
    let at = repair.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    value["timestamp"] = json!(at.as_millis() as u64);
    value
}
