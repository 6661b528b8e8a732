//! `listConfig`, `getConfigInfo`, `removeConfig`: the orders that the server holds.

use serde_json::{Value, json};

use super::ID;
use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        shape::{config_with_status, epoch_seconds},
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    recorder::Recording,
};

pub(super) const NOT_FOUND: &str = "Config ID not found";

pub(super) static LIST_CONFIG: Command = Command {
    name: "listConfig",
    aliases: &["listPullPushConfig"],
    help: "Lists the configurations and what they do now.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route { method: "GET", path: "/recordings", data: "/record" }],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static GET_CONFIG_INFO: Command = Command {
    name: "getConfigInfo",
    aliases: &[],
    help: "Shows a configuration and what it does now.",
    params: &[Param { name: "id", kind: ID, need: Need::Mandatory, help: "The configId." }],
    needs_params: true,
    role: Role::Read,
    routes: &[Route::new("GET", "/recordings/{id}")],
    run: |context, args| Box::pin(async move { info(context, &args) }),
};

pub(super) static REMOVE_CONFIG: Command = Command {
    name: "removeConfig",
    aliases: &["removePullPushConfig"],
    help: "Stops a configuration and forgets it. Files that it was writing are complete when this returns.",
    params: &[
        Param { name: "id", kind: ID, need: Need::Optional, help: "The configId." },
        Param {
            name: "groupName",
            kind: Kind::Text,
            need: Need::Optional,
            help: "Name of a group, instead of id. Recordings have none.",
        },
        Param {
            name: "removeHlsHdsFiles",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "Is for HLS and HDS only.",
        },
        // As EvoStream's own PHP client has them, whatever its server says: both, with each call.
        Param {
            name: "HlsHdsGroup",
            kind: Kind::AnyText,
            need: Need::Optional,
            help: "The same as groupName; empty: none.",
        },
        Param {
            name: "removeHLSFiles",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "The same as removeHlsHdsFiles.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("DELETE", "/recordings/{id}")],
    run: |context, args| Box::pin(remove(context, args)),
};

/// All kinds of configurations that clients expect; ours are all `record`.
fn list(context: &Context) -> Reply {
    let records: Vec<Value> = context.recordings.list().iter().map(|r| config_with_status(r)).collect();
    let data = json!({
        "dash": [], "hds": [], "hls": [], "metalistener": [], "mss": [], "process": [], "pull": [], "push": [],
        "record": records, "webrtc": [],
    });
    Reply::success("Run-time configuration", data).showing(&[
        "dash",
        "hds",
        "hls",
        "metalistener",
        "mss",
        "process",
        "pull",
        "push",
        "record.configId",
        "record.localStreamName",
        "record.pathToFile",
        "record.status.current.description",
        "record.status.current.reason",
        "record.status.current.uniqueStreamId",
        "webrtc",
    ])
}

/// What a configuration does now, and which versions of its format wrote its files.
fn with_history(recording: &Recording) -> Value {
    let mut config = config_with_status(recording);
    let history = recording.history();
    let stretches: Vec<Value> = (history.stretches.iter())
        .map(|stretch| {
            json!({
                "component": stretch.component,
                "since": epoch_seconds(stretch.since_us),
                "file": stretch.file.to_string_lossy(),
                "files": stretch.files,
            })
        })
        .collect();
    if !stretches.is_empty() {
        config["formatHistory"] = json!({ "dropped": history.dropped, "stretches": stretches });
    }
    config
}

fn info(context: &Context, args: &Args) -> Reply {
    match args.int("id").and_then(|id| context.recordings.get(id)) {
        Some(recording) => Reply::success("Configuration Info", with_history(&recording)).showing(&[
            "chunkLength",
            "configId",
            "keepAlive",
            "localStreamName",
            "operationType",
            "pathToFile",
            "status",
        ]),
        None => Reply::fault(Fault::NotFound, NOT_FOUND),
    }
}

async fn remove(context: &Context, args: Args) -> Reply {
    let Some(id) = args.int("id") else {
        return match args.text("groupName").or(args.text("HlsHdsGroup")) {
            Some(_) => Reply::fault(Fault::NotFound, "Config group not found"),
            None => Reply::fail("No id nor group name provided"),
        };
    };
    match context.recordings.remove(id).await {
        Ok(Some(recording)) => Reply::success("Configuration terminated", config_with_status(&recording))
            .showing(&["configId", "localStreamName", "pathToFile"]),
        Ok(None) => Reply::fault(Fault::NotFound, NOT_FOUND),
        Err(error) => Reply::fault(Fault::Failed, format!("Configuration not terminated: {error}")),
    }
}
