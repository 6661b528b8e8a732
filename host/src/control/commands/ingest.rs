//! `createIngestPoint`, `listIngestPoints`, `removeIngestPoint`. A private name is shown to nobody but who gives it.

use serde_json::{Value, json};

use super::ID;
use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    ingest::{Point, PointError, mask},
};

pub(super) static CREATE_INGEST_POINT: Command = Command {
    name: "createIngestPoint",
    aliases: &[],
    help: "Makes a stream key: who publishes as privateStreamName appears as publicStreamName, and nobody else may \
           publish as that. It is kept over restarts.",
    params: &[
        Param {
            name: "privateStreamName",
            kind: Kind::Text,
            need: Need::Mandatory,
            help: "The name that only the publisher knows; lists, events and logs do not show it.",
        },
        Param {
            name: "publicStreamName",
            kind: Kind::Text,
            need: Need::Mandatory,
            help: "The localStreamName of what is published.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/ingest-points")],
    run: |context, args| Box::pin(create(context, args)),
};

pub(super) static LIST_INGEST_POINTS: Command = Command {
    name: "listIngestPoints",
    aliases: &[],
    help: "Lists the ingest points; of private names only what may be shown.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/ingest-points")],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static REMOVE_INGEST_POINT: Command = Command {
    name: "removeIngestPoint",
    aliases: &[],
    help: "Removes an ingest point. A stream that is live by it goes on.",
    params: &[
        Param {
            name: "privateStreamName",
            kind: Kind::Text,
            need: Need::Optional,
            help: "Its private name.",
        },
        Param {
            name: "id",
            kind: ID,
            need: Need::Optional,
            help: "Its configId, instead of privateStreamName; see listIngestPoints.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("DELETE", "/ingest-points/{id}")],
    run: |context, args| Box::pin(remove(context, args)),
};

/// With what is to be shown of the private name.
fn shape(point: &Point, private: &str) -> Value {
    json!({
        "configId": point.config_id,
        "privateStreamName": private,
        "publicStreamName": point.public_stream_name,
    })
}

async fn create(context: &Context, args: Args) -> Reply {
    let text = |name| args.text(name).unwrap_or_default();
    match context.ingest.points().create(text("privateStreamName"), text("publicStreamName")).await {
        Ok(point) => Reply::success("Ingest point created", shape(&point, &point.private_stream_name)),
        Err(error) => unable("create", &error),
    }
}

fn list(context: &Context) -> Reply {
    let points = context.ingest.points().list();
    let list = points.iter().map(|point| shape(point, &mask(&point.private_stream_name))).collect();
    Reply::success("Available ingest points", list)
}

async fn remove(context: &Context, args: Args) -> Reply {
    let points = context.ingest.points();
    let removed = match (args.text("privateStreamName"), args.int("id")) {
        (Some(private), None) => points.remove(private).await,
        (None, Some(id)) => points.remove_id(id).await,
        (Some(_), Some(_)) => {
            return Reply::fail("id and privateStreamName must not go together, choose only 1");
        }
        (None, None) => return Reply::fail("id or privateStreamName parameters needs to be supplied"),
    };
    match removed {
        Ok(point) => {
            let masked = mask(&point.private_stream_name);
            let private = args.text("privateStreamName").unwrap_or(&masked);
            Reply::success("Ingest point removed", shape(&point, private))
        }
        Err(error) => unable("remove", &error),
    }
}

fn unable(what: &str, error: &PointError) -> Reply {
    let fault = match error {
        PointError::BadName(..) => Fault::Invalid,
        PointError::Taken | PointError::TooMany => Fault::Conflict,
        PointError::Unknown => Fault::NotFound,
        PointError::Store(_) => Fault::Failed,
    };
    Reply::fault(fault, format!("Unable to {what} ingest point: {error}"))
}
