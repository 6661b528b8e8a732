//! `recordRule`, `listRecordRules`, `removeRecordRule`: streams that are recorded by their names.

use serde_json::{Value, json};

use super::{
    ID,
    record::{params::*, refusal, settings},
};
use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        shape,
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    recorder::Rule,
};

pub(super) static RECORD_RULE: Command = Command {
    name: "recordRule",
    aliases: &[],
    help: "Records every live stream whose name fits, from its first frame on, as long as the rule is there.",
    params: &[
        Param {
            name: "streams",
            kind: Kind::Text,
            need: Need::Mandatory,
            help: "Pattern for names of streams: * any text, ? a character, [ab] one of these. A comma needs a \\.",
        },
        Param { need: Need::Default("{stream}"), ..PATH_TO_FILE },
        TYPE,
        Param {
            help: "1: a stream that comes back at once goes on in the same run. 0: each has a recording of its own.",
            ..KEEP_ALIVE
        },
        CHUNK_LENGTH,
        WAIT_FOR_IDR,
        WIN_QT_COMPAT,
        DATE_FOLDERS,
        PRESET,
        HAS_AUDIO,
        CHUNK_SIZE,
        CHUNK_ALIGN,
        MAX_DURATION,
        MAX_SIZE,
        MANIFEST,
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/rules")],
    run: |context, args| Box::pin(add(context, args)),
};

pub(super) static LIST_RECORD_RULES: Command = Command {
    name: "listRecordRules",
    aliases: &[],
    help: "Lists the rules by which streams are recorded, and the recordings that they have begun.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/rules")],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static REMOVE_RECORD_RULE: Command = Command {
    name: "removeRecordRule",
    aliases: &[],
    help: "Removes a rule. What it has begun to record goes on until its stream ends.",
    params: &[Param { name: "id", kind: ID, need: Need::Mandatory, help: "The rule's id." }],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("DELETE", "/rules/{id}")],
    run: |context, args| Box::pin(async move { remove(context, &args).await }),
};

const WORDS: &str = "Unable to make the rule";
const SHOWN: &[&str] = &["chunkLength", "id", "pathToFile", "streams", "type"];

async fn add(context: &Context, args: Args) -> Reply {
    let streams = args.text("streams").unwrap_or_default().to_owned();
    let record = match settings(args) {
        Ok(record) => record,
        Err(refused) => return refused.reply(WORDS),
    };
    let rule = Rule { streams, record };
    match context.recordings.add_rule(rule.clone()).await {
        Ok(id) => Reply::success("Streams will be recorded", object(context, id, &rule)).showing(SHOWN),
        Err(error) => refusal(WORDS, &error),
    }
}

fn list(context: &Context) -> Reply {
    let rules = context.recordings.rules();
    let rules: Vec<Value> = rules.iter().map(|(id, rule)| object(context, *id, rule)).collect();
    Reply::success("Record rules", json!(rules)).showing(SHOWN)
}

async fn remove(context: &Context, args: &Args) -> Reply {
    let id = args.int("id").unwrap_or_default();
    match context.recordings.remove_rule(id).await {
        Ok(Some(rule)) => Reply::success("Rule removed", object(context, id, &rule)).showing(SHOWN),
        Ok(None) => Reply::fault(Fault::NotFound, "Rule not found"),
        Err(error) => Reply::fault(Fault::Failed, format!("Rule not removed: {error}")),
    }
}

/// A rule as replies show it: its own, and what its recordings have in common.
fn object(context: &Context, id: u64, rule: &Rule) -> Value {
    let recordings = context.recordings.list();
    let its = recordings.iter().filter(|recording| recording.rule_id == Some(id));
    let ids: Vec<u64> = its.map(|recording| recording.config_id).collect();
    let mut object = shape::config(id, &rule.record, std::path::Path::new(""));
    if let Value::Object(object) = &mut object {
        for key in ["configId", "computedPathToFile", "localStreamName", "operationType"] {
            object.remove(key);
        }
        object.insert("id".into(), json!(id));
        object.insert("streams".into(), json!(rule.streams));
        object.insert("configIds".into(), json!(ids));
    }
    object
}
