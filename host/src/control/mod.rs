//! The control plane: commands as EvoStream's clients send them, and the transports they come by.
//!
//! ```text
//! server::ascii   lines of text   ┐           ┌ commands::record, …   what it does
//! server::http    GET, base64     ┼→ answer() ┤
//! server::http    REST: rest      ┘           └ table::Command        what it takes, its help, its routes
//! ```
//!
//! All transports read a [`parse::Line`], have it answered by [`answer`], and write the [`reply::Reply`] in
//! their own form. None of them knows any command.

pub mod auth;
pub mod client;
pub mod commands;
mod ids;
pub mod metrics;
pub mod openapi;
pub mod parse;
pub mod percent;
pub mod process;
pub mod query;
pub mod reply;
pub mod rest;
pub mod server;
pub mod shape;
pub mod table;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    ingest::Ingest,
    recorder::Recordings,
    registry::Registry,
    repair::Repairs,
    store::{Store, StoreError},
    timers::Timers,
};
use auth::Access;
use ids::{CommandIds, IdError};
use parse::{Line, ParseError, Value};
use process::{LogLevel, StopKey};
use reply::{Fault, Reply};
use table::Role;

/// What commands act on.
#[derive(Clone, Debug)]
pub struct Context {
    pub registry: Registry,
    pub recordings: Recordings,
    pub repairs: Repairs,
    pub events: Events,
    pub store: Store,
    pub timers: Timers,
    pub ingest: Ingest,
    pub version: Version,
    pub limits: Limits,
    /// Who may send commands.
    pub access: Arc<Access>,
    pub log_level: LogLevel,
    pub stop_key: StopKey,
    ids: CommandIds,
    /// Stops the server when a command cancels it.
    pub shutdown: CancellationToken,
}

impl Context {
    /// A context with the usual limits, and the ids of commands that the store knows.
    pub fn new(
        registry: Registry,
        recordings: Recordings,
        repairs: Repairs,
        events: Events,
        store: Store,
        log_level: LogLevel,
        shutdown: CancellationToken,
    ) -> Result<Self, StoreError> {
        let access = Arc::default();
        let (version, limits, stop_key) = (Version::default(), Limits::default(), StopKey::default());
        let (ids, timers) = (CommandIds::open(store.clone())?, Timers::new(events.clone()));
        let ingest = Ingest::open_to_all();
        Ok(Self {
            registry,
            recordings,
            repairs,
            events,
            store,
            timers,
            ingest,
            version,
            limits,
            access,
            log_level,
            stop_key,
            ids,
            shutdown,
        })
    }

    /// The same, for those who may enter.
    pub fn for_those(self, access: Arc<Access>) -> Self {
        Self { access, ..self }
    }

    /// The same with a door for publishers; without one there are no ingest points to be found.
    pub fn with_ingest(self, ingest: Ingest) -> Self {
        Self { ingest, ..self }
    }
}

/// What `version` tells. What the build does not know is empty.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    pub release_number: &'static str,
    pub code_name: &'static str,
    pub build_number: &'static str,
    pub build_date: &'static str,
    pub branch_name: &'static str,
    pub hash: &'static str,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            release_number: env!("CARGO_PKG_VERSION"),
            code_name: "Reelwright",
            build_number: "",
            build_date: "",
            branch_name: "",
            hash: "",
        }
    }
}

impl Version {
    /// One line about the server.
    pub fn banner(&self) -> String {
        format!("Reelwright live-stream recorder version {}", self.release_number)
    }
}

/// What a client may take of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections to a command line at the same time; one more is refused with a reason.
    pub clients: usize,
    /// How long a command line waits for the next command.
    pub idle: Duration,
    /// Connections over HTTP at the same time; one more waits.
    pub http_clients: usize,
    /// How long an HTTP request may take to arrive, head and all.
    pub request: Duration,
    /// How long a reply may find no room in the client's window.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 512,
            idle: Duration::from_secs(300),
            http_clients: 128,
            request: Duration::from_secs(10),
            write: Duration::from_secs(30),
        }
    }
}

/// Who sends a command.
#[derive(Clone, Debug)]
pub struct Caller {
    pub far: SocketAddr,
    pub role: Role,
    /// By what name a token knows it; none on the loopback interface.
    pub name: Option<String>,
}

impl Caller {
    /// Somebody on this machine, who may do anything.
    pub fn local(far: SocketAddr) -> Self {
        Self { far, role: Role::Admin, name: None }
    }
}

/// Runs a command line of a caller's, or says what is wrong with it.
///
/// A command runs in a task of its own, to its end even if who asked is gone by then. One that breaks costs
/// its reply, and no connection.
pub async fn answer(context: &Arc<Context>, caller: &Caller, line: Result<Line, ParseError>) -> Reply {
    let far = caller.far;
    let name = line.as_ref().map(|line| line.command.clone()).unwrap_or_default();
    let command = {
        let (context, role) = (context.clone(), caller.role);
        tokio::spawn(async move { run(&context, role, line).await })
    };
    let reply = command.await.unwrap_or_else(|error| {
        tracing::error!(%far, command = name, %error, "a command broke");
        Reply::fault(Fault::Failed, format!("command {name} broke; the server's log has more"))
    });
    tracing::debug!(%far, by = caller.name, command = name, status = ?reply.status, reply.description, "command");
    reply
}

async fn run(context: &Context, role: Role, line: Result<Line, ParseError>) -> Reply {
    let mut line = match line {
        Ok(line) => line,
        Err(error) => return Reply::fail(format!("Syntax error. {error}")),
    };
    let id = line.params.iter().position(|(name, _)| name.eq_ignore_ascii_case(table::COMMAND_ID.name));
    let response_id = match id.map(|place| line.params.remove(place).1) {
        None => None,
        Some(Value::Text(id)) if !id.is_empty() && id.len() <= ids::MAX_LENGTH => Some(id),
        Some(_) => return Reply::fail(table::ArgsError::Invalid(table::COMMAND_ID.name).to_string()),
    };
    let reply = dispatch(context, role, response_id.as_deref(), line).await;
    Reply { response_id, ..reply }
}

async fn dispatch(context: &Context, role: Role, id: Option<&str>, line: Line) -> Reply {
    let Some(command) = commands::find(&line.command) else {
        let name: String = line.command.chars().take(80).collect();
        let text = format!("command {name} not known. Type help for list of commands");
        return Reply::fault(Fault::NotFound, text);
    };
    if command.role > role {
        let (needed, given) = (command.role.as_str(), role.as_str());
        let text = format!("{} needs the role `{needed}`, and yours is `{given}`", command.name);
        return Reply::fault(Fault::Forbidden, text);
    }
    let args = match command.bind(line) {
        Ok(args) => args,
        Err(error) => return Reply::fail(error.to_string()),
    };
    let Some(id) = id.filter(|_| command.role > Role::Read) else {
        return (command.run)(context, args).await;
    };
    match context.ids.begin(id, command.name).await {
        Ok(running) => {
            let reply = (command.run)(context, args).await;
            let done = reply.status == reply::Status::Success && !reply.unchanged;
            context.ids.end(running, done, &reply.description).await;
            reply
        }
        Err(IdError::Store(error)) => Reply::fault(Fault::Failed, IdError::Store(error).to_string()),
        Err(error) => Reply::fault(Fault::Conflict, error.to_string()),
    }
}

#[cfg(test)]
mod tests;
