//! `listStreams`, `listStreamsIds`, `getStreamsCount`: all streams, live and recorded.

use serde_json::{Value, json};

use crate::control::{
    Context,
    reply::Reply,
    shape::{Stream, Streams},
    table::{Command, Kind, Need, Param, Role, Route},
};

/// The server has no internal streams, so it changes nothing.
const DISABLE_INTERNAL: Param = Param {
    name: "disableInternalStreams",
    kind: Kind::Bool,
    need: Need::Default("1"),
    help: "1: leave out streams of the server's own.",
};

pub(super) static LIST_STREAMS: Command = Command {
    name: "listStreams",
    aliases: &[],
    help: "Lists all streams, live and recorded, with their statistics.",
    params: &[DISABLE_INTERNAL],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams")],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static LIST_STREAMS_IDS: Command = Command {
    name: "listStreamsIds",
    aliases: &[],
    help: "Lists the ids of all streams.",
    params: &[DISABLE_INTERNAL],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/ids")],
    run: |context, _| Box::pin(async { ids(context) }),
};

pub(super) static GET_STREAMS_COUNT: Command = Command {
    name: "getStreamsCount",
    aliases: &[],
    help: "Counts all streams.",
    params: &[DISABLE_INTERNAL],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/count")],
    run: |context, _| Box::pin(async { count(context) }),
};

fn list(context: &Context) -> Reply {
    let streams = Streams::now(context);
    let object = |stream: &Stream| {
        let mut object = streams.object(*stream);
        object["edgePid"] = json!(0);
        object
    };
    Reply::success("Available streams", null_if_empty(streams.list().iter().map(object)))
}

fn ids(context: &Context) -> Reply {
    let streams = Streams::now(context);
    let ids = streams.list().into_iter().map(|stream| json!(stream.id()));
    Reply::success("Available stream IDs", null_if_empty(ids))
}

fn count(context: &Context) -> Reply {
    Reply::success("Active streams count", json!({ "streamCount": Streams::now(context).list().len() }))
}

/// EvoStream says null for no streams.
pub(super) fn null_if_empty(items: impl Iterator<Item = Value>) -> Value {
    let items: Vec<Value> = items.collect();
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}
