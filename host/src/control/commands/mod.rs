//! The commands, a file each or for a small family, and the one table that all transports and `help` use.

mod config;
mod disks;
mod formats;
mod inbound;
mod ingest;
mod list_streams;
mod record;
mod recoveries;
mod rules;
mod server;
mod session;
mod shutdown_stream;
mod split;
mod stream_info;
mod timers;

pub use session::AUTH;

use super::table::{Command, Kind, Need, Param};

/// Every command, in the order of `help`.
pub static COMMANDS: [&Command; 41] = [
    &session::HELP,
    &session::QUIT,
    &AUTH,
    &session::VERSION,
    &record::RECORD,
    &config::LIST_CONFIG,
    &config::GET_CONFIG_INFO,
    &config::REMOVE_CONFIG,
    &split::SPLIT_RECORD,
    &split::PAUSE_RECORD,
    &split::RESUME_RECORD,
    &rules::RECORD_RULE,
    &rules::LIST_RECORD_RULES,
    &rules::REMOVE_RECORD_RULE,
    &recoveries::LIST_RECOVERIES,
    &disks::LIST_DISKS,
    &formats::LOAD_FORMAT,
    &formats::SWAP_FORMAT,
    &formats::ROLLBACK_FORMAT,
    &formats::UNLOAD_FORMAT,
    &formats::PIN_FORMAT,
    &formats::LIST_FORMATS,
    &formats::GET_FORMAT_INFO,
    &shutdown_stream::SHUTDOWN_STREAM,
    &list_streams::LIST_STREAMS,
    &list_streams::LIST_STREAMS_IDS,
    &list_streams::GET_STREAMS_COUNT,
    &stream_info::GET_STREAM_INFO,
    &inbound::IS_STREAM_RUNNING,
    &inbound::LIST_INBOUND_STREAMS,
    &inbound::LIST_INBOUND_STREAM_NAMES,
    &inbound::GET_INBOUND_STREAMS_COUNT,
    &inbound::CLIENTS_CONNECTED,
    &timers::SET_TIMER,
    &timers::LIST_TIMERS,
    &timers::REMOVE_TIMER,
    &ingest::CREATE_INGEST_POINT,
    &ingest::LIST_INGEST_POINTS,
    &ingest::REMOVE_INGEST_POINT,
    &server::SET_LOG_LEVEL,
    &server::SHUTDOWN_SERVER,
];

/// The command that a client means.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.into_iter().find(|command| command.is_called(name))
}

/// Any id: of a stream, or of a config.
const ID: Kind = Kind::Int(0, u64::MAX);

/// A stream by its id …
const STREAM_ID: Param = Param {
    name: "id",
    kind: ID,
    need: Need::Optional,
    help: "Id of the stream, live or recorded; see listStreams.",
};

/// … or a live one by its name.
const STREAM_NAME: Param = Param {
    name: "localStreamName",
    kind: Kind::Text,
    need: Need::Optional,
    help: "Name of the live stream; instead of id.",
};

/// What to say to a client that gives neither …
const ID_NOR_NAME: &str = "id or localStreamName parameters needs to be supplied";

/// … or both.
const ID_OR_NAME: &str = "id and localStreamName must not go together, choose only 1";
