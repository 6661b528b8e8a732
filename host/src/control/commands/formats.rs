//! `loadFormat`, `swapFormat`, `rollbackFormat`, `unloadFormat`, `pinFormat`, `listFormats`, `getFormatInfo`: the
//! components that write.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        shape::epoch_seconds,
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    format::{
        self, ChangeError, Formats, Listed, LoadError, Version,
        lineup::{LineupError, Mode, Source, Swap},
        trial::{Terms, Who},
    },
};

/// How long `loadFormat` waits for a component to be compiled.
const COMPILING: Duration = Duration::from_secs(3);

const FORMAT: Param = Param {
    name: "format",
    kind: Kind::Text,
    need: Need::Mandatory,
    help: "The format's name, as type= of record has it.",
};

const SHA256: Param = Param {
    name: "sha256",
    kind: Kind::Text,
    need: Need::Mandatory,
    help: "The version's SHA-256 in hexadecimal, or its first digits: at least 8.",
};

const MODE: Param = Param {
    name: "mode",
    kind: Kind::OneOf(&Mode::WORDS),
    need: Need::Default("drain"),
    help: "When recordings that run take it: drain: with their next file. next-chunk: at the next key frame, in a new \
           file. now: at the next frame, in a new file.",
};

pub(super) static LOAD_FORMAT: Command = Command {
    name: "loadFormat",
    aliases: &[],
    help: "Loads a component, checks it and has it write a sample stream. It writes no recording before swapFormat.",
    params: &[
        Param {
            name: "path",
            kind: Kind::Text,
            need: Need::Mandatory,
            help: "The component's file: in the formats folder, the media root or an allowed path.",
        },
        Param { need: Need::Optional, help: "The format that it has to be.", ..FORMAT },
        Param {
            need: Need::Optional,
            help: "The SHA-256 that it has to have, or its first digits.",
            ..SHA256
        },
        Param {
            name: "wait",
            kind: Kind::Bool,
            need: Need::Default("1"),
            help: "0: answers at once, and swapFormat waits until it has been tried.",
        },
    ],
    needs_params: true,
    role: Role::Admin,
    routes: &[Route::new("POST", "/formats")],
    run: |context, args| Box::pin(async move { load(context, &args).await }),
};

pub(super) static SWAP_FORMAT: Command = Command {
    name: "swapFormat",
    aliases: &[],
    help: "Has a version that was loaded write a format, in place of the one that does.",
    params: &[
        FORMAT,
        SHA256,
        MODE,
        Param {
            name: "canary",
            kind: Kind::Text,
            need: Need::Optional,
            help: "Has it write beside the one that does, to take over when it has proved itself: for so many \
                   recordings, for a share of them such as 10%, or for those of the streams named, with commas between.",
        },
        Param {
            name: "canaryTime",
            kind: Kind::Int(1, 86_400),
            need: Need::Default("60"),
            help: "Seconds of media that each of these recordings has to show; with canary.",
        },
    ],
    needs_params: true,
    role: Role::Admin,
    routes: &[Route::new("POST", "/formats/{format}/swap")],
    run: |context, args| Box::pin(async move { swap(context, &args).await }),
};

pub(super) static ROLLBACK_FORMAT: Command = Command {
    name: "rollbackFormat",
    aliases: &[],
    help: "Goes back to the version of a format that wrote before.",
    params: &[FORMAT, Param { need: Need::Default("next-chunk"), ..MODE }],
    needs_params: true,
    role: Role::Admin,
    routes: &[Route::new("POST", "/formats/{format}/rollback")],
    run: |context, args| Box::pin(async move { roll_back(context, &args).await }),
};

pub(super) static UNLOAD_FORMAT: Command = Command {
    name: "unloadFormat",
    aliases: &[],
    help: "Forgets a version of a format that was loaded. Files that it is writing are finished by it.",
    params: &[
        FORMAT,
        Param {
            need: Need::Optional,
            help: "The version. Without it: the one that writes; the one before it takes over, if there is one.",
            ..SHA256
        },
    ],
    needs_params: true,
    role: Role::Admin,
    routes: &[Route::new("DELETE", "/formats/{format}")],
    run: |context, args| Box::pin(async move { unload(context, &args).await }),
};

pub(super) static PIN_FORMAT: Command = Command {
    name: "pinFormat",
    aliases: &[],
    help: "Keeps a format at a version: neither the formats folder, nor a canary, nor failures, nor swapFormat change it.",
    params: &[
        FORMAT,
        Param { need: Need::Optional, help: "The version; without it the one that writes now.", ..SHA256 },
        Param { name: "pinned", kind: Kind::Bool, need: Need::Default("1"), help: "0: lets it go." },
    ],
    needs_params: true,
    role: Role::Admin,
    routes: &[Route::new("POST", "/formats/{format}/pin")],
    run: |context, args| Box::pin(async move { pin(context, &args).await }),
};

pub(super) static LIST_FORMATS: Command = Command {
    name: "listFormats",
    aliases: &[],
    help: "Lists the versions of all formats, and what they do now.",
    params: &[],
    needs_params: false,
    role: Role::Read,
    routes: &[Route::new("GET", "/formats")],
    run: |context, _| Box::pin(async { list(context) }),
};

pub(super) static GET_FORMAT_INFO: Command = Command {
    name: "getFormatInfo",
    aliases: &[],
    help: "Shows all that is known of a format: its versions, what they may and did, and what became active when.",
    params: &[FORMAT, Param { need: Need::Optional, help: "Only that version.", ..SHA256 }],
    needs_params: true,
    role: Role::Read,
    routes: &[Route::new("GET", "/formats/{format}")],
    run: |context, args| Box::pin(async move { info(context, &args) }),
};

const SHOWN: &[&str] = &["format", "version", "sha256", "state", "recordings"];

async fn load(context: &Context, args: &Args) -> Reply {
    let formats = context.recordings.catalog();
    let (folder, disk) = (formats.folder().map(ToOwned::to_owned), context.recordings.disk().clone());
    let path = args.text("path").unwrap_or_default().to_owned();
    let read = move || format::intake::read(&path, folder.as_deref(), &disk.roots);
    let read = tokio::task::spawn_blocking(read).await;
    let (path, wasm) =
        match read.map_err(|error| LoadError::Read(std::io::Error::other(error))).and_then(|read| read) {
            Ok(read) => read,
            Err(error) => return refused("load", &error.into()),
        };
    let format = args.text("format").map(str::to_lowercase);
    let loading = match formats.stage(wasm, Source::Command(path), format, args.text("sha256")) {
        Ok(loading) => loading,
        Err(error) => return refused("load", &error),
    };
    let sha256 = loading.sha256.clone();
    let staged = |version: Option<Arc<Version>>| {
        let known = version.and_then(|version| found(formats, &version.manifest.format, &sha256));
        let data = known.map_or_else(
            || json!({ "format": null, "version": null, "sha256": sha256, "state": "staged", "recordings": 0 }),
            |listed| shape(&listed),
        );
        Reply::success("Format loaded", data).showing(SHOWN)
    };
    if !args.is("wait") {
        return staged(loading.version());
    }
    tokio::select! {
        outcome = loading.clone().outcome() => match outcome {
            Ok(version) => staged(Some(version)),
            Err(error) => refused("load", &error),
        },
        () = tokio::time::sleep(COMPILING), if loading.version().is_none() => match loading.version() {
            // It is compiled, and the probe has its own limit.
            Some(_) => match loading.outcome().await {
                Ok(version) => staged(Some(version)),
                Err(error) => refused("load", &error),
            },
            None => staged(None),
        },
    }
}

async fn swap(context: &Context, args: &Args) -> Reply {
    let (formats, name) = (context.recordings.catalog(), name(args));
    if let Some(canary) = args.text("canary") {
        let who = match Who::parse(canary) {
            Ok(who) => who,
            Err(expected) => {
                return Reply::fail(format!(
                    "Syntax error. Parameter canary is invalid. It takes {expected}"
                ));
            }
        };
        let pass_ms = args.int("canaryTime").unwrap_or_default() * 1000;
        let terms = Terms { who, pass_ms, mode: mode(args) };
        return match formats.try_beside(&name, args.text("sha256").unwrap_or_default(), terms).await {
            Ok(canary) => swapped(formats, &name, "Canary begins", Some(&canary.sha256)),
            Err(error) => refused("swap", &error),
        };
    }
    match formats.swap(&name, args.text("sha256").unwrap_or_default(), mode(args)).await {
        Ok(swap) => swapped(formats, &name, "Format swapped", swap.to.as_deref()),
        Err(error) => refused("swap", &error),
    }
}

async fn roll_back(context: &Context, args: &Args) -> Reply {
    let (formats, name) = (context.recordings.catalog(), name(args));
    match formats.roll_back(&name, mode(args)).await {
        Ok(swap) => swapped(formats, &name, "Format rolled back", swap.to.as_deref()),
        Err(error) => refused("roll back", &error),
    }
}

async fn unload(context: &Context, args: &Args) -> Reply {
    let (formats, name) = (context.recordings.catalog(), name(args));
    match formats.unload(&name, args.text("sha256")).await {
        Ok(sha256) => Reply::success("Format unloaded", json!({ "format": name, "sha256": sha256 })),
        Err(error) => refused("unload", &error),
    }
}

async fn pin(context: &Context, args: &Args) -> Reply {
    let (formats, name) = (context.recordings.catalog(), name(args));
    match formats.pin(&name, args.text("sha256"), args.is("pinned")).await {
        Ok(Some(sha256)) => swapped(formats, &name, "Format pinned", Some(&sha256)),
        Ok(None) => Reply::success("Format is not pinned", json!({ "format": name })),
        Err(error) => refused("pin", &error),
    }
}

fn list(context: &Context) -> Reply {
    let versions = context.recordings.catalog().versions(None);
    Reply::success("Formats", versions.iter().map(shape).collect())
}

fn info(context: &Context, args: &Args) -> Reply {
    let (formats, name) = (context.recordings.catalog(), name(args));
    let mut versions = formats.versions(Some(&name));
    if versions.is_empty() {
        return refused("show", &ChangeError::NoFormat(name));
    }
    if let Some(prefix) = args.text("sha256") {
        match format::lineup::prefix_of(prefix) {
            Ok(prefix) => versions.retain(|version| version.sha256.starts_with(&prefix)),
            Err(error) => return refused("show", &error.into()),
        }
        if versions.is_empty() {
            return refused("show", &LineupError::Unknown(prefix.into()).into());
        }
    }
    let swaps: Vec<Value> = formats.swaps(&name).iter().rev().map(swap_shape).collect();
    let versions: Vec<Value> = versions.iter().map(detailed).collect();
    let mut data = json!({ "format": name, "versions": versions, "swaps": swaps });
    if let Some((terms, seats)) = formats.trial(&name) {
        let seats: Vec<Value> =
            seats.into_iter().map(|(id, ms)| json!({ "configId": id, "passedSeconds": ms / 1000 })).collect();
        data["canary"] = json!({
            "who": terms.who.to_text(),
            "seconds": terms.pass_ms / 1000,
            "mode": terms.mode.as_str(),
            "recordings": seats,
        });
    }
    Reply::success("Format info", data)
}

fn name(args: &Args) -> String {
    args.text("format").unwrap_or_default().to_lowercase()
}

fn mode(args: &Args) -> Mode {
    args.text("mode").and_then(Mode::parse).unwrap_or_default()
}

fn found(formats: &Formats, name: &str, sha256: &str) -> Option<Listed> {
    formats.versions(Some(name)).into_iter().find(|version| version.sha256 == sha256)
}

fn swapped(formats: &Formats, name: &str, description: &str, sha256: Option<&str>) -> Reply {
    let listed = sha256.and_then(|sha256| found(formats, name, sha256));
    Reply::success(description, listed.as_ref().map_or(Value::Null, shape)).showing(SHOWN)
}

/// A version as lists have it.
fn shape(listed: &Listed) -> Value {
    let mut value = json!({
        "format": listed.format,
        "version": listed.version,
        "sha256": listed.sha256,
        "state": listed.state,
        "recordings": listed.recordings,
        "source": listed.source.to_text(),
        "since": epoch_seconds(listed.since_us),
        "pinned": listed.pinned,
        "rolledBack": listed.rolled_back,
    });
    if let Some(reason) = &listed.reason {
        value["reason"] = json!(reason);
    }
    value
}

/// A version with all that it says of itself.
fn detailed(listed: &Listed) -> Value {
    let mut value = shape(listed);
    if let Some(version) = &listed.code {
        let manifest = &version.manifest;
        let options: Vec<Value> = (manifest.options.iter())
            .map(|o| json!({ "name": o.key, "defaultValue": o.default_value, "description": o.help }))
            .collect();
        value["extension"] = json!(manifest.extension);
        value["mime"] = json!(manifest.mime);
        value["codecs"] = json!(manifest.codecs);
        value["needs"] = json!(manifest.needs);
        value["options"] = json!(options);
        value["recovers"] = json!(version.recovers());
        value["limits"] = json!(version.limits().values());
        value["metrics"] = json!(version.meters.snapshot());
    }
    value
}

fn swap_shape(swap: &Swap) -> Value {
    json!({
        "at": epoch_seconds(swap.at_us),
        "from": swap.from,
        "to": swap.to,
        "mode": swap.mode.as_str(),
        "reason": swap.reason,
    })
}

fn refused(what: &str, error: &ChangeError) -> Reply {
    let fault = match error {
        ChangeError::NoFormat(_) | ChangeError::Lineup(LineupError::Unknown(_)) => Fault::NotFound,
        ChangeError::Load(LoadError::Read(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Fault::NotFound
        }
        ChangeError::Lineup(LineupError::Prefix | LineupError::Ambiguous(_)) => Fault::Invalid,
        ChangeError::Lineup(_) | ChangeError::Busy | ChangeError::InFolder(_) | ChangeError::NoActive(_) => {
            Fault::Conflict
        }
        ChangeError::Keep(_) | ChangeError::Lost => Fault::Failed,
        _ => Fault::Invalid,
    };
    Reply::fault(fault, format!("Unable to {what} format: {error}"))
}
