//! `splitRecord`, `pauseRecord`, `resumeRecord`: what an operator does to recordings that go on.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        shape::config_with_status,
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    recorder::Recording,
};

const CONFIG_ID: Param =
    Param { name: "configId", kind: super::ID, need: Need::Optional, help: "The recording's configId." };

const ITS_STREAM: Param = Param {
    name: "localStreamName",
    kind: Kind::Text,
    need: Need::Optional,
    help: "Instead of configId: all recordings of that stream.",
};

pub(super) static SPLIT_RECORD: Command = Command {
    name: "splitRecord",
    aliases: &[],
    help: "Ends the file of a recording and goes on in the next, without a frame lost.",
    params: &[
        CONFIG_ID,
        ITS_STREAM,
        Param {
            name: "now",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "1: at the next frame of video. 0: at the next key frame.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/recordings/{configId}/split")],
    run: |context, args| Box::pin(async move { split(context, &args) }),
};

pub(super) static PAUSE_RECORD: Command = Command {
    name: "pauseRecord",
    aliases: &[],
    help: "Pauses a recording: what comes is left out until resumeRecord, and the file goes on behind it.",
    params: &[CONFIG_ID, ITS_STREAM],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/recordings/{configId}/pause")],
    run: |context, args| Box::pin(async move { pause(context, &args, true) }),
};

pub(super) static RESUME_RECORD: Command = Command {
    name: "resumeRecord",
    aliases: &[],
    help: "Has a recording that is paused go on with the next key frame.",
    params: &[CONFIG_ID, ITS_STREAM],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/recordings/{configId}/resume")],
    run: |context, args| Box::pin(async move { pause(context, &args, false) }),
};

/// The recordings that are meant.
fn meant(context: &Context, args: &Args) -> Result<Vec<u64>, Reply> {
    let ids: Vec<u64> = match (args.int("configId"), args.text("localStreamName")) {
        (Some(_), Some(_)) => {
            return Err(Reply::fail("configId and localStreamName must not go together, choose only 1"));
        }
        (None, None) => {
            return Err(Reply::fail("configId or localStreamName parameters needs to be supplied"));
        }
        (Some(id), None) => context.recordings.get(id).into_iter().map(|r| r.config_id).collect(),
        (None, Some(name)) => {
            let all = context.recordings.list().into_iter();
            all.filter(|r| r.settings.local_stream_name == name).map(|r| r.config_id).collect()
        }
    };
    if ids.is_empty() {
        let what =
            if args.int("configId").is_some() { "Config ID not found" } else { "Stream has no recordings" };
        return Err(Reply::fault(Fault::NotFound, what));
    }
    Ok(ids)
}

fn split(context: &Context, args: &Args) -> Reply {
    let ids = match meant(context, args) {
        Ok(ids) => ids,
        Err(reply) => return reply,
    };
    let split = context.recordings.split(&ids, args.is("now"));
    if split.is_empty() {
        return Reply::fault(Fault::Conflict, "Unable to split: it is not recording now");
    }
    Reply::success("Recording split", data(&split)).showing(SHOWN)
}

fn pause(context: &Context, args: &Args, paused: bool) -> Reply {
    let ids = match meant(context, args) {
        Ok(ids) => ids,
        Err(reply) => return reply,
    };
    let changed = context.recordings.pause(&ids, paused);
    match (changed.is_empty(), paused) {
        (true, true) => Reply::fault(Fault::Conflict, "Unable to pause: it is paused already"),
        (true, false) => Reply::fault(Fault::Conflict, "Unable to resume: it is not paused"),
        (false, true) => Reply::success("Recording paused", data(&changed)).showing(SHOWN),
        (false, false) => Reply::success("Recording resumed", data(&changed)).showing(SHOWN),
    }
}

const SHOWN: &[&str] = &["configs.configId", "configs.localStreamName", "configs.pathToFile"];

fn data(recordings: &[Arc<Recording>]) -> Value {
    json!({ "configs": recordings.iter().map(|r| config_with_status(r)).collect::<Vec<_>>() })
}
