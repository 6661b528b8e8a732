//! `listDisks`: the folders that are recorded to, and how much room they have.

use serde_json::{Value, json};

use crate::control::{
    Context,
    reply::Reply,
    table::{Command, Role, Route},
};

pub(super) static LIST_DISKS: Command = Command {
    name: "listDisks",
    aliases: &[],
    help: "Lists the folders that are recorded to now, and how much room there is.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/disks")],
    run: |context, _| Box::pin(async { list(context) }),
};

fn list(context: &Context) -> Reply {
    let disks = context.recordings.disks().into_iter().map(|(path, view)| {
        json!({
            "path": path.to_string_lossy(),
            "state": view.state.as_str(),
            "freeBytes": view.space.map(|space| space.free),
            "totalBytes": view.space.map(|space| space.total),
        })
    });
    Reply::success("Disks", disks.collect::<Vec<Value>>().into())
}
