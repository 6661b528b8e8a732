//! `getStreamInfo`: one stream.

use super::{ID_NOR_NAME, ID_OR_NAME, STREAM_ID, STREAM_NAME};
use crate::control::{
    Context,
    reply::{Fault, Reply},
    shape::Streams,
    table::{Args, Command, Role, Route},
};

pub(super) static GET_STREAM_INFO: Command = Command {
    name: "getStreamInfo",
    aliases: &[],
    help: "Shows a stream, live or recorded, and its statistics.",
    params: &[STREAM_ID, STREAM_NAME],
    needs_params: true,
    role: Role::Read,
    routes: &[Route::new("GET", "/streams/{id}"), Route::new("GET", "/stream")],
    run: |context, args| Box::pin(async move { info(context, &args) }),
};

fn info(context: &Context, args: &Args) -> Reply {
    let streams = Streams::now(context);
    let (stream, asked) = match (args.int("id"), args.text("localStreamName")) {
        (Some(_), Some(_)) => return Reply::fail(ID_OR_NAME),
        (Some(id), None) => (streams.find(id), format!("0:{id}")),
        (None, Some(name)) => (streams.named(name), name.to_owned()),
        (None, None) => return Reply::fail(ID_NOR_NAME),
    };
    match stream {
        Some(stream) => Reply::success("Stream information", streams.object(stream)),
        None => Reply::fault(Fault::NotFound, format!("Stream {asked} not found")),
    }
}
