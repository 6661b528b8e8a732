//! `shutdownStream`: ends a live stream, or a recording of one.

use serde_json::{Value, json};

use super::{ID_NOR_NAME, ID_OR_NAME, STREAM_ID, STREAM_NAME};
use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        shape::{Stream, Streams, config_with_status},
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    registry::LiveStream,
    store::StoreError,
};

pub(super) static SHUTDOWN_STREAM: Command = Command {
    name: "shutdownStream",
    aliases: &[],
    help: "Ends a stream. Files that it was recorded to are complete when this returns, if id is a recorded one's.",
    params: &[
        STREAM_ID,
        Param {
            help: "Name of the live stream, instead of id. If it is not live, recordings that wait for it are cancelled.",
            ..STREAM_NAME
        },
        Param {
            name: "permanently",
            kind: Kind::Bool,
            need: Need::Default("1"),
            help: "For a recording. 1: forget it. 0: go on in the next file.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("DELETE", "/streams/{id}"), Route::new("DELETE", "/streams")],
    run: |context, args| Box::pin(shutdown(context, args)),
};

async fn shutdown(context: &Context, args: Args) -> Reply {
    let streams = Streams::now(context);
    let permanently = args.is("permanently");
    let stream = match (args.int("id"), args.text("localStreamName")) {
        (Some(_), Some(_)) => return Reply::fail(ID_OR_NAME),
        (Some(id), None) => streams.find(id),
        (None, Some(name)) => match streams.named(name) {
            None if permanently => return cancel(context, name).await,
            found => found,
        },
        (None, None) => return Reply::fail(ID_NOR_NAME),
    };
    let Some(stream) = stream else { return gone() };
    let info = streams.object(stream);
    let carrier = match stream {
        Stream::Live(live) => {
            live.shut_down();
            carrier(live)
        }
        Stream::Recorded(recording, _) => {
            let id = recording.config_id;
            let known = if permanently {
                context.recordings.remove(id).await
            } else {
                Ok(context.recordings.restart(id).await)
            };
            match known {
                Ok(Some(_)) => {}
                Ok(None) => return gone(),
                Err(error) => return not_closed(&error),
            }
            Value::Null
        }
    };
    closed(json!({ "protocolStackInfo": { "carrier": carrier, "stack": [] }, "streamInfo": info }))
}

/// Removes the recordings that name a stream which is not live.
async fn cancel(context: &Context, name: &str) -> Reply {
    let mut configs = Vec::new();
    for recording in context.recordings.list() {
        if recording.settings.local_stream_name != name {
            continue;
        }
        match context.recordings.remove(recording.config_id).await {
            Ok(removed) => configs.extend(removed.map(|removed| config_with_status(&removed))),
            Err(error) => return not_closed(&error),
        }
    }
    if configs.is_empty() {
        return gone();
    }
    closed(json!({ "configs": configs, "protocolStackInfo": null, "streamInfo": null }))
}

fn gone() -> Reply {
    Reply::fault(Fault::NotFound, "Stream no longer available")
}

fn not_closed(error: &StoreError) -> Reply {
    Reply::fault(Fault::Failed, format!("Stream not closed: {error}"))
}

fn closed(data: Value) -> Reply {
    Reply::success("Stream closed", data).showing(&[
        "configs.configId",
        "configs.localStreamName",
        "configs.pathToFile",
        "streamInfo",
    ])
}

/// The connection that brings a live stream.
fn carrier(live: &LiveStream) -> Value {
    let source = &live.source;
    json!({
        "farIP": source.far.ip().to_string(),
        "farPort": source.far.port(),
        "nearIP": source.near.ip().to_string(),
        "nearPort": source.near.port(),
        "type": "IOHT_TCP_CARRIER",
    })
}
