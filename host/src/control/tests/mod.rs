//! The table of commands as a whole; in modules, the transports and the commands on a real recorder.

mod access;
mod commands;
mod every;
mod recordings;
mod rest;
mod transports;

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    commands::COMMANDS,
    table::{Kind, Need},
    *,
};
use crate::{
    events::Events,
    format::{Engine, Formats, limits},
    output::{Disk, Roots},
    recorder,
    store::ConfigIds,
};

/// A context, and its media root, which is gone when dropped.
async fn context(limits: Limits) -> (Arc<Context>, TempDir) {
    context_with(limits, Store::in_memory()).await
}

/// The same, with orders kept there.
async fn context_with(limits: Limits, store: Store) -> (Arc<Context>, TempDir) {
    /// Compiled once for all tests, each of which has its own formats.
    static COMPILED: OnceCell<(Engine, TempDir)> = OnceCell::const_new();
    let compile = async || {
        let (engine, data) = (Engine::new().unwrap(), tempfile::tempdir().unwrap());
        let limits = limits::Limits::default();
        Formats::open(engine.clone(), Some(data.path()), None, limits).await.unwrap();
        (engine, data)
    };
    let (engine, data) = COMPILED.get_or_init(compile).await;
    let limits_of_formats = limits::Limits::default();
    let formats = Formats::open(engine.clone(), Some(data.path()), None, limits_of_formats).await.unwrap();
    let media = tempfile::tempdir().unwrap();
    let disk = Disk::new(Roots::open(media.path(), &[]).unwrap(), None);
    let registry = Registry::default();
    let events = Events::default();
    let repairs = Repairs::new(disk.clone(), formats.clone(), events.clone());
    let parts = recorder::Parts {
        registry: registry.clone(),
        formats,
        disk,
        repairs: repairs.clone(),
        events: events.clone(),
        ids: ConfigIds::open(&store).unwrap(),
        store: store.clone(),
    };
    let recordings = Recordings::new(parts, recorder::Config::default());
    let context = Context::new(
        registry,
        recordings,
        repairs,
        events,
        store,
        LogLevel::default(),
        CancellationToken::new(),
    )
    .unwrap();
    let context = Context { limits, ..context };
    (Arc::new(context), media)
}

/// Has a line answered.
async fn ask(context: &Arc<Context>, line: &str) -> Reply {
    answer(context, &Caller::local(([127, 0, 0, 1], 1).into()), Line::parse(line.as_bytes())).await
}

#[test]
fn the_table_is_sound() {
    for command in COMMANDS {
        for name in command.aliases.iter().chain([&command.name]) {
            let same = COMMANDS.iter().filter(|c| c.is_called(name)).count();
            assert_eq!(same, 1, "{name}");
        }
        assert!(!command.help.is_empty(), "{}", command.name);
        for param in command.params {
            assert!(!param.help.is_empty(), "{} {}", command.name, param.name);
            let same = command.params.iter().filter(|p| p.name.eq_ignore_ascii_case(param.name)).count();
            assert_eq!(same, 1, "{} {}", command.name, param.name);
        }
        // Every default is one that a client could send.
        let mut given = vec!["_any=1".to_owned()];
        given.extend(command.params.iter().map(|param| match param.need {
            Need::Mandatory => match param.kind {
                Kind::OneOf(words) => format!("{}={}", param.name, words[0]),
                _ => format!("{}=1", param.name),
            },
            Need::Default(value) => format!("{}={value}", param.name),
            Need::Optional => String::new(),
        }));
        let line = Line::with_params(command.name, given.join(" ").as_bytes()).unwrap();
        command.bind(line).unwrap();
    }
}

#[tokio::test]
async fn help_tells_all_that_the_table_knows() {
    let (context, _media) = context(Limits::default()).await;
    let reply = ask(&context, "help").await;
    assert_eq!(reply.description, "Available commands");
    let list = reply.data.as_array().unwrap();
    let names: Vec<_> = list.iter().map(|c| c["command"].as_str().unwrap()).collect();
    assert_eq!(names[..5], ["help", "quit", "auth", "version", "record"]);
    assert!(names.contains(&"removePullPushConfig"));
    let record = list.iter().find(|c| c["command"] == "record").unwrap();
    let expected = serde_json::json!({
        "defaultValue": "0", "description": "Seconds after which a new file begins; 0: never.",
        "mandatory": false, "name": "chunkLength",
    });
    let params = record["parameters"].as_array().unwrap();
    assert!(params.contains(&expected), "{record}");
    assert_eq!(params.last().unwrap()["name"], "commandId");
    assert_eq!(params.last().unwrap()["defaultValue"], "-No default value-");
    assert_eq!(params[0]["mandatory"], true);
}
