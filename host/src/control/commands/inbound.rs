//! `listInboundStreams`, `listInboundStreamNames`, `getInboundStreamsCount`, `clientsConnected`, `isStreamRunning`:
//! the live streams.

use serde_json::json;

use super::{ID, ID_OR_NAME, STREAM_NAME, list_streams::null_if_empty};
use crate::control::{
    Context,
    reply::{Fault, Reply},
    shape::{Stream, Streams},
    table::{Args, Command, Need, Param, Role, Route},
};

pub(super) static LIST_INBOUND_STREAMS: Command = Command {
    name: "listInboundStreams",
    aliases: &[],
    help: "Lists the live streams that come in, with their statistics.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/inbound")],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static LIST_INBOUND_STREAM_NAMES: Command = Command {
    name: "listInboundStreamNames",
    aliases: &[],
    help: "Lists the names of the live streams that come in.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/inbound/names")],
    run: |context, _| Box::pin(async { names(context) }),
};

pub(super) static GET_INBOUND_STREAMS_COUNT: Command = Command {
    name: "getInboundStreamsCount",
    aliases: &[],
    help: "Counts the live streams that come in.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/inbound/count")],
    run: |context, _| {
        Box::pin(async {
            let data = json!({ "inboundStreamsCount": context.registry.list().len() });
            Reply::success("Active inbound streams", data)
        })
    },
};

pub(super) static CLIENTS_CONNECTED: Command = Command {
    name: "clientsConnected",
    aliases: &[],
    help: "Counts the clients that play streams. This server plays none to anybody, so there are none.",
    params: &[Param { help: "Name of a live stream, to count its clients only.", ..STREAM_NAME }],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/clients/count")],
    run: |context, args| Box::pin(async move { clients(context, &args) }),
};

pub(super) static IS_STREAM_RUNNING: Command = Command {
    name: "isStreamRunning",
    aliases: &[],
    help: "Tells whether a stream is live, or a configuration's run goes on.",
    params: &[
        Param { name: "id", kind: ID, need: Need::Optional, help: "The configId." },
        Param { help: "Name of a stream; instead of id.", ..STREAM_NAME },
    ],
    needs_params: true,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/running")],
    run: |context, args| Box::pin(async move { is_running(context, &args) }),
};

fn list(context: &Context) -> Reply {
    let streams = Streams::now(context);
    let live = streams.list().into_iter().filter(|stream| matches!(stream, Stream::Live(_)));
    Reply::success("Available inbound streams", null_if_empty(live.map(|stream| streams.object(stream))))
}

fn names(context: &Context) -> Reply {
    let streams = context.registry.list();
    let names = streams.iter().map(|stream| json!({ "name": stream.name }));
    Reply::success("Inbound local stream names", null_if_empty(names))
}

fn clients(context: &Context, args: &Args) -> Reply {
    const WORDS: &str = "EMS outbound client connections count";
    let none = json!({ "outboundCount": 0 });
    match args.text("localStreamName") {
        None => Reply::success(WORDS, none),
        Some(name) if context.registry.get(name).is_none() => {
            Reply::fault(Fault::NotFound, format!("Stream {name} not found"))
        }
        Some(name) => Reply::success(format!("{WORDS} for the corresponding localstreamname: {name}"), none),
    }
}

fn is_running(context: &Context, args: &Args) -> Reply {
    let running = match (args.int("id"), args.text("localStreamName")) {
        (Some(_), Some(_)) => return Reply::fail(ID_OR_NAME),
        (Some(id), None) => match context.recordings.get(id) {
            Some(recording) => recording.run().is_some(),
            None => return Reply::fault(Fault::NotFound, super::config::NOT_FOUND),
        },
        (None, Some(name)) => context.registry.get(name).is_some(),
        (None, None) => return Reply::fail(super::ID_NOR_NAME),
    };
    Reply::success("Stream status:", json!({ "Running": running }))
}
