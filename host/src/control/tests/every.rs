//! Every command by every transport, as it is documented and as clients misspell it.
//!
//! A table of lines with what must be answered; `…` stands for what differs from run to run. Where EvoStream's
//! documentation has a sample reply, ours has to be the same bytes, but for what is marked so.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    commands::{publish, streams},
    *,
};
use crate::{
    control::server::{serve_ascii, serve_http, serve_json},
    output::hex,
};

/// A command line, and the reply's JSON from `"data":` on; see [`Case::json`].
struct Case {
    line: &'static str,
    success: bool,
    description: &'static str,
    /// JSON as on the wire; `null` for a failure.
    data: &'static str,
}

const fn ok(line: &'static str, description: &'static str, data: &'static str) -> Case {
    Case { line, success: true, description, data }
}

const fn no(line: &'static str, description: &'static str) -> Case {
    Case { line, success: false, description, data: "null" }
}

/// What is sent in this order to a server with a live stream `cam1`, id 1, that has sent nothing.
const CASES: &[Case] = &[
    // Samples of the documentation, with other names and numbers.
    ok("version", "Version", r#"{"banner":"Reelwright …","branchName":"…","releaseNumber":"…"}"#),
    ok("getStreamsCount", "Active streams count", r#"{"streamCount":1}"#),
    ok("listStreamsIds", "Available stream IDs", "[1]"),
    ok("isStreamRunning localStreamName=cam1", "Stream status:", r#"{"Running":true}"#),
    ok("isStreamRunning localStreamName=cam2", "Stream status:", r#"{"Running":false}"#),
    ok("listInboundStreamNames", "Inbound local stream names", r#"[{"name":"cam1"}]"#),
    ok("getInboundStreamsCount", "Active inbound streams", r#"{"inboundStreamsCount":1}"#),
    ok("clientsConnected", "EMS outbound client connections count", r#"{"outboundCount":0}"#),
    ok(
        "clientsConnected localStreamName=cam1",
        "EMS outbound client connections count for the corresponding localstreamname: cam1",
        r#"{"outboundCount":0}"#,
    ),
    ok("shutdownServer", "Call shutdownserver again with the provided key", r#"{"key":"…"}"#),
    // computedPathToFile is absolute.
    ok(
        "record localStreamName=testpullstream pathtofile=../media/testRecord type=mp4 overwrite=1 waitForIDR=0 winQtCompat=1",
        "Recording Stream",
        concat!(
            r#"{"chunkLength":0,"computedPathToFile":"…\/testRecord.mp4","configId":1,"#,
            r#""dateFolderStructure":false,"hasAudio":true,"keepAlive":true,"localStreamName":"testpullstream","#,
            r#""operationType":7,"overwrite":true,"pathToFile":"..\/media\/testRecord","preset":0,"type":"mp4","#,
            r#""waitForIDR":false,"winQtCompat":true}"#
        ),
    ),
    // What a live stream adds.
    ok(
        "record localStreamName=cam1 pathToFile=a _who=me",
        "Recording Stream",
        r#"{"_who":"me",…,"configId":2,…,"localStreamName":"cam1","mp4BinPath":"evo-mp4writer",…}"#,
    ),
    no("record", "Syntax error. No parameters provided"),
    no("record localStreamName=a", "Syntax error. Parameter pathToFile is invalid"),
    no("record localStreamName= pathToFile=b", "Syntax error. Parameter localStreamName is invalid"),
    no("record localStreamName=a,b pathToFile=b", "Syntax error. Parameter localStreamName is invalid"),
    no(
        "record localStreamName=a pathToFile=b chunkLength=1000000",
        "Syntax error. Parameter chunkLength is invalid. Range: 0 - 999999",
    ),
    no(
        "record localStreamName=a pathToFile=b chunkLength=10s",
        "Syntax error. Parameter chunkLength is invalid",
    ),
    no(
        "record localStreamName=a pathToFile=b keepAlive=2",
        "Syntax error. Parameter keepAlive is invalid. It takes 0 or 1",
    ),
    no(
        "record localStreamName=a pathToFile=b type=avi",
        "Syntax error for type parameter. Type help for details. Known types: flv, mp4, ts",
    ),
    no("record localStreamName=a pathToFile=/etc/b", "Unable to record stream: \\/etc\\/b lies outside …"),
    no(
        "record localStreamName=a pathToFile=no/b",
        "Unable to record stream: …\\/no: no such file or directory",
    ),
    no("record localStreamName=a pathToFile=../../b", "Unable to record stream: pathToFile …has `..`…"),
    no("record localStreamName=a pathToFile=testRecord", "Unable to record stream: …config 1…"),
    no(
        "record localStreamName=a pathToFile=b chunklenght=1",
        "Syntax error. Parameter chunklenght is not known; did you mean chunkLength?",
    ),
    ok(
        "record localStreamName=later pathToFile={stream}-{seq} type=flv check=1",
        "Recording would start",
        r#"{…"configId":0,…"firstFile":"…\/later-…flv",…"isLive":false,…}"#,
    ),
    // Nothing has come, so there is no file.
    no("splitRecord configId=2", "Unable to split: it is not recording now"),
    no("splitRecord configId=1", "Unable to split: it is not recording now"),
    no("splitRecord configId=99", "Config ID not found"),
    no("splitRecord localStreamName=none now=1", "Stream has no recordings"),
    no("splitRecord", "Syntax error. No parameters provided"),
    ok("pauseRecord configId=2", "Recording paused", r#"{"configs":[{…"configId":2,…}]}"#),
    no("pauseRecord configId=2", "Unable to pause: it is paused already"),
    ok("resumeRecord configId=2", "Recording resumed", r#"{"configs":[{…"configId":2,…}]}"#),
    no("resumeRecord configId=2", "Unable to resume: it is not paused"),
    ok("recordRule streams=studio* type=ts", "Streams will be recorded", r#"{…"streams":"studio*",…}"#),
    no("recordRule streams=[", "Unable to make the rule: …"),
    no("recordRule", "Syntax error. No parameters provided"),
    ok("listRecordRules", "Record rules", r#"[{…"streams":"studio*",…}]"#),
    ok("removeRecordRule id=3", "Rule removed", r#"{…"streams":"studio*",…}"#),
    no("removeRecordRule id=3", "Rule not found"),
    ok("listConfig", "Run-time configuration", r#"{"dash":[],…,"record":[{"chunkLength":0,…}],"webrtc":[]}"#),
    ok("listPullPushConfig", "Run-time configuration", r#"{"dash":[],…,"record":[{…}],"webrtc":[]}"#),
    ok(
        "getConfigInfo id=1",
        "Configuration Info",
        r#"{…"configId":1,…,"status":{"current":{"code":2,…},…}…}"#,
    ),
    no("getConfigInfo id=9", "Config ID not found"),
    no("getConfigInfo", "Syntax error. No parameters provided"),
    no("getConfigInfo id=x", "Syntax error. Parameter id is invalid"),
    ok("isStreamRunning id=1", "Stream status:", r#"{"Running":false}"#),
    no("isStreamRunning id=99", "Config ID not found"),
    no("isStreamRunning", "Syntax error. No parameters provided"),
    ok("removeConfig id=1", "Configuration terminated", r#"{…"configId":1,…}"#),
    no("removeConfig id=1", "Config ID not found"),
    no("removePullPushConfig id=1", "Config ID not found"),
    no("removeConfig groupName=x", "Config group not found"),
    ok("listRecoveries", "Recoveries", r#"{"recoveries":[],"unfinished":0}"#),
    ok("listStreams", "Available streams", r#"[{…"name":"cam1",…}…]"#),
    ok("listInboundStreams", "Available inbound streams", r#"[{…"name":"cam1",…}]"#),
    ok("getStreamInfo localStreamName=cam1", "Stream information", r#"{"appName":"live",…"uniqueId":1,…}"#),
    no("getStreamInfo id=99", "Stream 0:99 not found"),
    no("getStreamInfo localStreamName=none", "Stream none not found"),
    no(
        "getStreamInfo id=1 localStreamName=cam1",
        "id and localStreamName must not go together, choose only 1",
    ),
    no("clientsConnected localStreamName=none", "Stream none not found"),
    no("shutdownStream id=99", "Stream no longer available"),
    no("shutdownStream localStreamName=none", "Stream no longer available"),
    no("shutdownStream", "Syntax error. No parameters provided"),
    ok(
        "shutdownStream localStreamName=cam1 permanently=1",
        "Stream closed",
        r#"{"protocolStackInfo":{"carrier":{"farIP":"10.0.0.9",…}…},"streamInfo":{…"name":"cam1",…}}"#,
    ),
    no(
        "setLogLevel level=7",
        "Syntax error. Parameter level is invalid. It takes one of: -1, 0, 1, 2, 3, 4, 5, 6",
    ),
    no("setLogLevel", "Syntax error. No parameters provided"),
    // Timers and ingest points, as in the documentation's samples.
    ok("setTimer value=10", "Custom timer enqueued", r#"{"timerId":1,"triggerCount":0,"value":10}"#),
    no("setTimer value=0", "Syntax error. Parameter value is invalid. …"),
    no("setTimer value=25:00:00", "Syntax error. Parameter value is invalid. …"),
    no("setTimer", "Syntax error. No parameters provided"),
    ok("listTimers", "List of armed timers", r#"[{"timerId":1,"triggerCount":0,"value":10}]"#),
    ok("removeTimer id=1", "Timer removed", r#"{"timerId":1,"triggerCount":0,"value":10}"#),
    no("removeTimer id=1", "Timer 1 not found"),
    ok(
        "createIngestPoint privateStreamName=theIngestPoint publicStreamName=useMeToViewStream",
        "Ingest point created",
        r#"{…"privateStreamName":"theIngestPoint","publicStreamName":"useMeToViewStream"}"#,
    ),
    no(
        "createIngestPoint privateStreamName=theIngestPoint publicStreamName=b",
        "Unable to create ingest point: …",
    ),
    no("createIngestPoint privateStreamName=a", "Syntax error. Parameter publicStreamName is invalid"),
    ok("listIngestPoints", "Available ingest points", r#"[{…"publicStreamName":"useMeToViewStream"}]"#),
    ok(
        "removeIngestPoint privateStreamName=theIngestPoint",
        "Ingest point removed",
        r#"{…"publicStreamName":"useMeToViewStream"}"#,
    ),
    no("removeIngestPoint privateStreamName=theIngestPoint", "Unable to remove ingest point: …"),
    ok("listDisks", "Disks", "[…]"),
    // The components that write. {raw} stands for the hash of the one in the media root.
    ok("listFormats", "Formats", r#"[{"format":"flv",…,"recordings":…,"state":"active",…}…]"#),
    no("loadFormat path=none.wasm", "Unable to load format: it can't be read: …"),
    no("loadFormat path=/etc/hostname", "Unable to load format: … lies outside …"),
    no("loadFormat path=text.wasm", "Unable to load format: it is not WebAssembly…"),
    no("loadFormat path=raw.wasm format=flv", "Unable to load format: it is format `raw`, not `flv`"),
    no("loadFormat path=raw.wasm sha256=0123", "Unable to load format: at least 8 digits …"),
    no(
        "loadFormat path=raw.wasm sha256=00000000",
        "Unable to load format: its sha256 is {raw}, not 00000000",
    ),
    no("loadFormat", "Syntax error. No parameters provided"),
    ok(
        "loadFormat path=raw.wasm format=raw",
        "Format loaded",
        r#"{"format":"raw",…"recordings":0,…"sha256":"{raw}",…"state":"probed","version":"1.0.0"}"#,
    ),
    ok("loadFormat path=../media/raw.wasm wait=0", "Format loaded", r#"{…"sha256":"{raw}",…}"#),
    no("record localStreamName=r pathToFile=r type=raw", "Syntax error for type parameter. …"),
    no("swapFormat format=raw sha256=00000000", "Unable to swap format: there is no version …"),
    no("swapFormat format=none sha256=00000000", "Unable to swap format: there is no format `none`"),
    no("swapFormat format=raw sha256=zzzzzzzz", "Unable to swap format: at least 8 digits …"),
    no(
        "swapFormat format=raw sha256=00000000 mode=later",
        "Syntax error. Parameter mode is invalid. It takes one of: drain, next-chunk, now",
    ),
    no("rollbackFormat format=raw", "Unable to roll back format: there is no version to go back to"),
    ok(
        "swapFormat format=raw sha256={raw} mode=now",
        "Format swapped",
        r#"{"format":"raw",…"state":"active",…}"#,
    ),
    no("swapFormat format=raw sha256={raw}", "Unable to swap format: that version is active already"),
    ok("pinFormat format=raw", "Format pinned", r#"{…"pinned":true,…}"#),
    no("unloadFormat format=raw", "Unable to unload format: it is pinned to …"),
    no("pinFormat format=raw sha256=00000000", "Unable to pin format: there is no version …"),
    ok("pinFormat format=raw pinned=0", "Format is not pinned", r#"{"format":"raw"}"#),
    ok(
        "getFormatInfo format=RAW",
        "Format info",
        r#"{"format":"raw","swaps":[{…"mode":"now",…}],"versions":[{…"extension":"raw",…}]}"#,
    ),
    ok("getFormatInfo format=raw sha256={raw}", "Format info", r#"{"format":"raw",…}"#),
    no("getFormatInfo format=raw sha256=00000000", "Unable to show format: there is no version …"),
    no("getFormatInfo format=none", "Unable to show format: there is no format `none`"),
    no("unloadFormat format=flv", "Unable to unload format: it is in the binary, and stays"),
    ok("unloadFormat format=raw", "Format unloaded", r#"{"format":"raw","sha256":"{raw}"}"#),
    // A second load, and the embedded format to go back to.
    ok(
        "loadFormat path=flv.wasm",
        "Format loaded",
        r#"{"format":"flv",…"sha256":"{flv}",…"state":"probed",…}"#,
    ),
    no("swapFormat format=flv sha256={flv} canary=0", "Syntax error. Parameter canary is invalid. …"),
    no(
        "swapFormat format=flv sha256={flv} canary=a canaryTime=0",
        "Syntax error. Parameter canaryTime is invalid. …",
    ),
    ok("swapFormat format=flv sha256={flv} canary=2", "Canary begins", r#"{…"state":"canary",…}"#),
    ok(
        "getFormatInfo format=flv",
        "Format info",
        r#"{"canary":{"mode":"drain","recordings":[],"seconds":60,"who":"2"},"format":"flv",…}"#,
    ),
    ok("swapFormat format=flv sha256={flv}", "Format swapped", r#"{…"state":"active",…}"#),
    ok("rollbackFormat format=flv", "Format rolled back", r#"{…"source":"embedded","state":"active",…}"#),
    ok("unloadFormat format=flv sha256={flv}", "Format unloaded", r#"{…"sha256":"{flv}"}"#),
    ok("setLogLevel level=1", "Log level is set", "null"),
    no("shutdownServer key=x", "The key is not the one of the last call of shutdownServer. …"),
    ok("help", "Available commands", r#"[{"command":"help","deprecated":false,…}…]"#),
    no("foobar", "command foobar not known. Type help for list of commands"),
    ok("quit", "Bye!", "null"),
];

/// Puts components into the media root, and returns what stands for their hashes.
fn components(media: &Path) -> [(&'static str, String); 2] {
    let guests = Path::new(env!("REELWRIGHT_GUESTS_DIR"));
    let put = |name: &str, wasm: &[u8]| {
        std::fs::write(media.join(name), wasm).unwrap();
        hex(&Sha256::digest(wasm))
    };
    put("text.wasm", b"not a component");
    // The embedded one with another hash: a custom section at the end (component model, Binary.md).
    let flv =
        [std::fs::read(guests.join("flv.wasm")).unwrap(), vec![0, 5, 4, b'n', b'o', b't', b'e']].concat();
    let raw = std::fs::read(guests.join("components/passthrough.wasm")).unwrap();
    [("{raw}", put("raw.wasm", &raw)), ("{flv}", put("flv.wasm", &flv))]
}

impl Case {
    /// The same with hashes in the place of what stands for them. Leaked: they are few, and it is a test.
    fn with(&self, hashes: &[(&str, String)]) -> Self {
        let fill = |text: &'static str| {
            let fill = |text: String, (name, hash): &(&str, String)| text.replace(name, hash);
            match text.contains("{raw}") || text.contains("{flv}") {
                true => &*hashes.iter().fold(text.to_owned(), fill).leak(),
                false => text,
            }
        };
        Self { line: fill(self.line), description: fill(self.description), data: fill(self.data), ..*self }
    }

    /// The whole reply, as JSON clients get it.
    fn json(&self) -> String {
        let status = if self.success { "SUCCESS" } else { "FAIL" };
        let description = self.description;
        format!(r#"{{"data":{},"description":"{description}","status":"{status}"}}"#, self.data)
    }

    /// The whole response of the REST API: the data alone, or a problem.
    fn rest(&self) -> String {
        let plain = self.description.replace("\\/", "/");
        match self.success {
            true => "HTTP/1.1 20…\r\ncontent-type: application/json\r\n…".into(),
            false => {
                format!("HTTP/1.1 4…\r\ncontent-type: application/problem+json\r\n…\"detail\":\"{plain}\"…")
            }
        }
    }

    /// How the text form begins.
    fn ascii(&self) -> String {
        let first = if self.success { "Command entered successfully!" } else { "Command failed!" };
        let description = self.description.replace("\\/", "/");
        format!("{first}\r\n{description}\r\n\r\n…")
    }
}

/// Whether a text is as a pattern has it, in which `…` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<_> = pieces.collect();
    let Some((last, between)) = pieces.split_last() else { return rest.is_empty() };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Ascii,
    Json,
    Http,
    Rest,
}

/// A line as careless clients send it: other case, blanks around and between.
fn careless(line: &str) -> String {
    let words: Vec<String> = line
        .split(' ')
        .enumerate()
        .map(|(i, word)| match word.split_once('=') {
            _ if i == 0 => word.to_uppercase(),
            // The names of variables are the client's own.
            Some((name, value)) if !name.starts_with('_') => format!("{}={value}", name.to_uppercase()),
            _ => word.to_owned(),
        })
        .collect();
    format!("  {} ", words.join("   "))
}

/// Sends a line and reads the whole reply, on a connection of its own.
async fn ask(transport: Transport, addr: SocketAddr, line: &str) -> String {
    let request = match transport {
        Transport::Ascii | Transport::Json => format!("{line}\r\n"),
        Transport::Http => {
            let (command, params) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            // Unescaped, as PHP's clients send it.
            format!("GET /{command}?params={} HTTP/1.1\r\nHost: localhost\r\n\r\n", STANDARD.encode(params))
        }
        Transport::Rest => rest_request(line),
    };
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    if matches!(transport, Transport::Ascii | Transport::Json) {
        socket.shutdown().await.unwrap();
    }
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).await.unwrap();
    match transport {
        Transport::Ascii => String::from_utf8(reply).unwrap(),
        Transport::Json => {
            // As Ruby's and Python's clients do: four bytes of length, then so many.
            let (length, json) = reply.split_first_chunk().unwrap();
            assert_eq!(u32::from_be_bytes(*length) as usize, json.len());
            body(json)
        }
        Transport::Http => {
            let head = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"));
            body(&reply[head..])
        }
        Transport::Rest => String::from_utf8(reply).unwrap(),
    }
}

/// A line as a request of the REST API: at its command's first route, with the other parameters in a body.
fn rest_request(line: &str) -> String {
    let line = Line::parse(line.as_bytes()).unwrap();
    let command = crate::control::commands::find(&line.command).unwrap();
    let mut body = serde_json::Map::new();
    for (name, value) in line.params {
        body.insert(
            name,
            match value {
                Value::Text(text) => text.into(),
                Value::List(items) => items.into(),
            },
        );
    }
    // The route whose parameters are given.
    let names = |path: &str| -> Vec<String> {
        path.split('/')
            .filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned()))
            .collect()
    };
    let has_all = |route: &&table::Route| names(route.path).iter().all(|name| body.contains_key(name));
    let route = command.routes.iter().find(has_all).unwrap_or(&command.routes[0]);
    let mut path = route.path.to_owned();
    for name in names(route.path) {
        let value = body.remove(&name).map_or("x".into(), |value| value.as_str().unwrap().to_owned());
        path = path.replace(&format!("{{{name}}}"), &value);
    }
    let method = route.method;
    let (query, body) = if method == "GET" {
        let pairs: Vec<_> = body.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap())).collect();
        (format!("?{}", pairs.join("&")), String::new())
    } else {
        (String::new(), serde_json::Value::from(body).to_string())
    };
    format!(
        "{method} /api/v1{path}{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn body(json: &[u8]) -> String {
    str::from_utf8(json).unwrap().strip_suffix("\r\n\r\n").unwrap().to_owned()
}

async fn run(transport: Transport, spelling: fn(&str) -> String) {
    let (context, media) = context(Limits::default()).await;
    let hashes = components(media.path());
    let log_level = LogLevel::new(|_| Ok(()));
    let context = Arc::new(Context { log_level, ..(*context).clone() });
    let publisher = publish(&context, "cam1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = match transport {
        Transport::Ascii => tokio::spawn(serve_ascii(listener, context.clone(), stop.clone())),
        Transport::Json => tokio::spawn(serve_json(listener, context.clone(), stop.clone())),
        Transport::Http | Transport::Rest => {
            tokio::spawn(serve_http(listener, context.clone(), stop.clone()))
        }
    };
    for case in CASES {
        let case = &case.with(&hashes);
        let line = spelling(case.line);
        // Neither is a command of the REST API: not by any path, or not without what its path needs.
        let command = crate::control::commands::find(case.line.split(' ').next().unwrap_or_default());
        if matches!(transport, Transport::Rest) && command.is_none_or(|command| !has_route(command, case)) {
            continue;
        }
        let reply = ask(transport, addr, &line).await;
        let expected = match transport {
            Transport::Ascii => case.ascii(),
            Transport::Json | Transport::Http => case.json(),
            Transport::Rest => case.rest(),
        };
        // What a client misspelt is shown as it was spelt.
        let same = is_like(&reply, &expected) || is_like(&reply.to_lowercase(), &expected.to_lowercase());
        assert!(same, "{transport:?} {line}\n  got {reply}\n  not {expected}");
        if case.line.starts_with("record localStreamName=cam1") {
            // Its run begins a moment later.
            streams(&context, 2).await;
        }
    }
    drop(publisher);
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn ascii() {
    run(Transport::Ascii, str::to_owned).await;
}

#[tokio::test]
async fn json() {
    run(Transport::Json, str::to_owned).await;
}

#[tokio::test]
async fn http() {
    run(Transport::Http, str::to_owned).await;
}

#[tokio::test]
async fn rest() {
    run(Transport::Rest, str::to_owned).await;
}

/// Whether the REST API can ask the same.
fn has_route(command: &table::Command, case: &Case) -> bool {
    let has = |name: &str| case.line.to_lowercase().contains(&format!("{}=", name.to_lowercase()));
    let fits = |route: &table::Route| {
        let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        names.into_iter().all(has)
    };
    command.routes.iter().any(fits)
}

#[tokio::test]
async fn careless_spelling() {
    for transport in [Transport::Ascii, Transport::Json, Transport::Http] {
        run(transport, careless).await;
    }
}

#[test]
fn the_table_has_every_command() {
    let called = |success: bool| -> BTreeSet<&str> {
        let lines = CASES.iter().filter(|case| case.success == success);
        let names = lines.filter_map(|case| case.line.split(' ').next());
        names.filter_map(crate::control::commands::find).map(|command| command.name).collect()
    };
    let (succeed, fail) = (called(true), called(false));
    for command in COMMANDS {
        let name = command.name;
        // It belongs to a connection; `access` has it.
        if name == "auth" {
            continue;
        }
        // It needs a file, so media; the end-to-end test of recordings has it.
        let needs_media = name == "splitRecord";
        assert!(needs_media || succeed.contains(name), "{name} succeeds nowhere");
        let can_fail = !command.params.is_empty();
        assert!(!can_fail || fail.contains(name) || takes_only_booleans(command), "{name} fails nowhere");
        for alias in command.aliases {
            assert!(
                CASES.iter().any(|case| case.line.split(' ').next() == Some(alias)),
                "{alias} is nowhere"
            );
        }
    }
}

/// What can be wrong with these is tested once, for all.
fn takes_only_booleans(command: &table::Command) -> bool {
    command.params.iter().all(|param| matches!(param.kind, Kind::Bool))
}

#[test]
fn patterns() {
    for (text, pattern, expected) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abc", "a…c", true),
        ("abc", "…", true),
        ("abc", "b…", false),
        ("abcabd", "a…b…d", true),
        ("ab", "ab…b", false),
    ] {
        assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
    }
}
