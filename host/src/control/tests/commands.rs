//! The commands on a real recorder, with streams that send nothing.

use serde_json::{Value, json};

use super::*;
use crate::{control::reply::Status, registry};

/// The data of a command that must succeed, with this description.
pub(super) async fn ok(context: &Arc<Context>, line: &str, description: &str) -> Value {
    let reply = ask(context, line).await;
    assert_eq!((reply.status, reply.description.as_str()), (Status::Success, description), "{line}");
    reply.data
}

/// The description of a command that must fail.
pub(super) async fn fails(context: &Arc<Context>, line: &str) -> String {
    let reply = ask(context, line).await;
    assert_eq!((reply.status, reply.data), (Status::Fail, Value::Null), "{line}");
    reply.description
}

pub(super) fn publish(context: &Context, name: &str) -> registry::Publisher {
    let source = registry::Source {
        app: "live".into(),
        tc_url: "rtmp://h/live".into(),
        page_url: String::new(),
        swf_url: String::new(),
        user_agent: "FMLE/3.0".into(),
        near: ([127, 0, 0, 1], 1935).into(),
        far: ([10, 0, 0, 9], 40_000).into(),
    };
    context.registry.publish(name, source).unwrap()
}

/// Waits until as many streams are there: a run begins, and ends, a moment after its cause.
pub(super) async fn streams(context: &Arc<Context>, count: u64) {
    let wait = async {
        while ask(context, "getStreamsCount").await.data["streamCount"] != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the streams come or go");
}

#[tokio::test]
async fn nothing_is_there_at_first() {
    let (context, _media) = context(Limits::default()).await;
    assert_eq!(ok(&context, "listStreams", "Available streams").await, Value::Null);
    assert_eq!(ok(&context, "listStreamsIds", "Available stream IDs").await, Value::Null);
    assert_eq!(ok(&context, "getStreamsCount", "Active streams count").await, json!({"streamCount": 0}));
    let configs = ok(&context, "listConfig", "Run-time configuration").await;
    let kinds = "dash hds hls metalistener mss process pull push record webrtc";
    for kind in kinds.split(' ') {
        assert_eq!(configs[kind], json!([]), "{kind}");
    }
    for (line, error) in [
        ("getStreamInfo id=999", "Stream 0:999 not found"),
        ("getStreamInfo localStreamName=none", "Stream none not found"),
        (
            "getStreamInfo id=1 localStreamName=a",
            "id and localStreamName must not go together, choose only 1",
        ),
        ("getStreamInfo", "Syntax error. No parameters provided"),
        ("getStreamInfo _a=1", "id or localStreamName parameters needs to be supplied"),
        ("getConfigInfo id=999", "Config ID not found"),
        ("removeConfig id=999", "Config ID not found"),
        ("removeConfig groupName=a", "Config group not found"),
        ("removeConfig removeHlsHdsFiles=1", "No id nor group name provided"),
        ("shutdownStream id=999", "Stream no longer available"),
        ("shutdownStream localStreamName=none", "Stream no longer available"),
        ("shutdownStream permanently=0", "id or localStreamName parameters needs to be supplied"),
    ] {
        assert_eq!(fails(&context, line).await, error, "{line}");
    }
}

#[tokio::test]
async fn what_can_not_be_recorded_is_refused_with_the_reason() {
    let (context, _media) = context(Limits::default()).await;
    for (params, error) in [
        (
            "type=avi pathToFile=x",
            "Syntax error for type parameter. Type help for details. Known types: flv, mp4, ts",
        ),
        (r"pathToFile=C:\media\x", "Unable to record stream: pathToFile `C:\\media\\x` is a Windows path; "),
        ("pathToFile=no/such/folder/x", "Unable to record stream: "),
        ("pathToFile=a/", "Unable to record stream: pathToFile `a/` has no file name"),
        ("pathToFile=x preset=7", "Unable to record stream: there is no preset 7; there are: 0, 1"),
        (
            "pathToFile={steam}",
            "Unable to record stream: pathToFile has `{steam}`, which is no name; there are ",
        ),
        (
            "pathToFile=x preRoll=1",
            "Unable to record stream: preRoll 1 is more than the 0 s that this server",
        ),
        (
            "pathToFile=x chunkAlign=week",
            "Syntax error. Parameter chunkAlign is invalid; it takes minute, hour",
        ),
    ] {
        let got = fails(&context, &format!("record localStreamName=cam1 {params}")).await;
        assert!(got.starts_with(error), "{params}: {got}");
    }
    assert_eq!(ok(&context, "listConfig", "Run-time configuration").await["record"], json!([]));
}

#[tokio::test]
async fn a_waiting_recording_is_listed_and_cancelled() {
    let (context, _media) = context(Limits::default()).await;
    let line = "record localStreamName=cam1 pathToFile=../media/cam1 type=TS _who=me commandId=7";
    let reply = ask(&context, line).await;
    assert_eq!((reply.description.as_str(), reply.response_id.as_deref()), ("Recording Stream", Some("7")));
    let mut config = reply.data;
    let path = config["computedPathToFile"].take();
    assert!(path.as_str().unwrap().ends_with("/cam1.ts"), "{path}");
    let expected = json!({
        "_who": "me", "chunkLength": 0, "computedPathToFile": null, "configId": 1, "dateFolderStructure": false,
        "hasAudio": true, "keepAlive": true, "localStreamName": "cam1", "operationType": 7, "overwrite": false,
        "pathToFile": "../media/cam1", "preset": 0, "type": "ts", "waitForIDR": true, "winQtCompat": false,
    });
    assert_eq!(config, expected);

    let info = ok(&context, "getConfigInfo id=1", "Configuration Info").await;
    assert_eq!(info["computedPathToFile"], path);
    let status = &info["status"];
    assert_eq!((&status["current"]["code"], &status["previous"]), (&json!(2), &Value::Null));
    assert_eq!(status["current"]["description"], "Waiting for stream");
    let list = ok(&context, "listPullPushConfig", "Run-time configuration").await;
    assert_eq!(list["record"], json!([info]));
    let text = ask(&context, "listConfig").await.ascii();
    let shown = "    record: \r\n      -- \r\n        configId: 1\r\n        localStreamName: cam1\r\n        \
        pathToFile: ../media/cam1\r\n        status: \r\n          current: \r\n            \
        description: Waiting for stream\r\n            uniqueStreamId: 0\r\n    webrtc: []\r\n\r\n";
    assert!(text.ends_with(shown), "{text}");

    let removed = ok(&context, "removePullPushConfig id=1", "Configuration terminated").await;
    assert_eq!(removed["configId"], 1);
    assert_eq!(fails(&context, "removeConfig id=1").await, "Config ID not found");
}

#[tokio::test]
async fn recordings_that_wait_are_cancelled_by_the_name_of_their_stream() {
    let (context, _media) = context(Limits::default()).await;
    for line in ["cam1 pathToFile=a", "cam1 pathToFile=b", "cam2 pathToFile=c"] {
        ok(&context, &format!("record localStreamName={line}"), "Recording Stream").await;
    }
    let line = "shutdownStream localStreamName=cam1 permanently=0";
    assert_eq!(fails(&context, line).await, "Stream no longer available");
    let closed = ok(&context, "shutdownStream localStreamName=cam1", "Stream closed").await;
    let ids: Vec<_> = closed["configs"].as_array().unwrap().iter().map(|c| &c["configId"]).collect();
    assert_eq!(ids, [&json!(1), &json!(2)]);
    let left = ok(&context, "listConfig", "Run-time configuration").await;
    assert_eq!((left["record"].as_array().unwrap().len(), &left["record"][0]["configId"]), (1, &json!(3)));
}

#[tokio::test]
async fn a_recording_is_a_stream_of_its_own() {
    let (context, _media) = context(Limits::default()).await;
    let publisher = publish(&context, "cam1");
    let config = ok(&context, "record localStreamName=cam1 pathToFile=a", "Recording Stream").await;
    assert_eq!(config["mp4BinPath"], "evo-mp4writer", "for mp4, when the stream is live");
    let config = ok(&context, "record localStreamName=cam1 pathToFile=b type=flv", "Recording Stream").await;
    assert!(config.get("mp4BinPath").is_none());
    streams(&context, 3).await;

    assert_eq!(ok(&context, "listStreamsIds", "Available stream IDs").await, json!([1, 2, 3]));
    let list = ok(&context, "listStreams", "Available streams").await;
    assert_eq!((&list[0]["type"], &list[0]["outStreamsUniqueIds"]), (&json!("INR"), &json!([2, 3])));
    assert_eq!((&list[1]["type"], &list[1]["inStreamUniqueId"]), (&json!("OFMP4"), &json!(1)));
    assert_eq!((&list[2]["type"], &list[2]["connectionType"]), (&json!("OFRFLV"), &json!(7)));
    assert_eq!(list[2]["recordSettings"], config);
    assert_eq!(list[2]["edgePid"], 0);
    let info = ok(&context, "getStreamInfo id=2", "Stream information").await;
    assert_eq!((&info["name"], info.get("edgePid")), (&json!("cam1"), None));
    let info = ok(&context, "getStreamInfo localStreamName=cam1", "Stream information").await;
    assert_eq!(info["uniqueId"], 1);

    // The first goes on under another id, and then for good.
    let closed = ok(&context, "shutdownStream id=2 permanently=0", "Stream closed").await;
    assert_eq!(
        (&closed["streamInfo"]["uniqueId"], &closed["protocolStackInfo"]["carrier"]),
        (&json!(2), &Value::Null)
    );
    streams(&context, 3).await;
    assert_eq!(ok(&context, "listStreamsIds", "Available stream IDs").await, json!([1, 3, 4]));
    ok(&context, "shutdownStream id=4", "Stream closed").await;
    streams(&context, 2).await;
    assert_eq!(fails(&context, "getConfigInfo id=1").await, "Config ID not found");

    // The live stream: its publisher is asked to go; what recorded it waits.
    let closed = ok(&context, "shutdownStream localStreamName=cam1", "Stream closed").await;
    assert_eq!(closed["protocolStackInfo"]["carrier"]["farIP"], "10.0.0.9");
    tokio::time::timeout(Duration::from_secs(1), publisher.stream().closed()).await.expect("it is told");
    drop(publisher);
    streams(&context, 0).await;
    let status = ok(&context, "getConfigInfo id=2", "Configuration Info").await["status"].take();
    assert_eq!(status["current"]["description"], "Waiting for stream");
}

#[tokio::test]
async fn live_streams_have_lists_of_their_own() {
    let (context, _media) = context(Limits::default()).await;
    let nothing = [
        ("listInboundStreams", "Available inbound streams", Value::Null),
        ("listInboundStreamNames", "Inbound local stream names", Value::Null),
        ("getInboundStreamsCount", "Active inbound streams", json!({ "inboundStreamsCount": 0 })),
        ("clientsConnected", "EMS outbound client connections count", json!({ "outboundCount": 0 })),
        ("isStreamRunning localStreamName=cam1", "Stream status:", json!({ "Running": false })),
    ];
    for (line, description, data) in nothing {
        assert_eq!(ok(&context, line, description).await, data, "{line}");
    }
    for (line, error) in [
        ("clientsConnected localStreamName=cam1", "Stream cam1 not found"),
        ("isStreamRunning", "Syntax error. No parameters provided"),
        ("isStreamRunning _a=1", "id or localStreamName parameters needs to be supplied"),
        ("isStreamRunning id=9", "Config ID not found"),
        (
            "isStreamRunning id=9 localStreamName=a",
            "id and localStreamName must not go together, choose only 1",
        ),
    ] {
        assert_eq!(fails(&context, line).await, error, "{line}");
    }
    ok(&context, "record localStreamName=cam1 pathToFile=a", "Recording Stream").await;
    let running = async |line: &str| ok(&context, line, "Stream status:").await["Running"].clone();
    assert_eq!(running("isStreamRunning id=1").await, false);

    let _publisher = publish(&context, "cam1");
    streams(&context, 2).await;
    assert_eq!(running("isStreamRunning id=1").await, true);
    assert_eq!(running("isStreamRunning localStreamName=cam1").await, true);
    let names = ok(&context, "listInboundStreamNames", "Inbound local stream names").await;
    assert_eq!(names, json!([{ "name": "cam1" }]));
    let list = ok(&context, "listInboundStreams", "Available inbound streams").await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["type"]), (1, &json!("INR")));
    let count = ok(&context, "getInboundStreamsCount", "Active inbound streams").await;
    assert_eq!(count, json!({ "inboundStreamsCount": 1 }));
    let line = "clientsConnected localStreamName=cam1";
    let words = "EMS outbound client connections count for the corresponding localstreamname: cam1";
    assert_eq!(ok(&context, line, words).await, json!({ "outboundCount": 0 }));
}

#[tokio::test]
async fn the_server_stops_when_it_is_asked_twice() {
    let (context, _media) = context(Limits::default()).await;
    let words = "Call shutdownserver again with the provided key";
    let old = ok(&context, "shutdownServer", words).await["key"].as_str().unwrap().to_owned();
    let key = ok(&context, "shutdownServer", words).await["key"].as_str().unwrap().to_owned();
    assert_eq!((key.len(), key == old), (16, false));
    for wrong in ["x", &old] {
        let error = fails(&context, &format!("shutdownServer key={wrong}")).await;
        assert!(error.starts_with("The key is not the one of the last call"), "{error}");
    }
    assert!(!context.shutdown.is_cancelled());
    let reply = ask(&context, &format!("shutdownServer key={key}")).await;
    assert!(reply.close && context.shutdown.is_cancelled(), "{reply:?}");
}

#[tokio::test]
async fn the_log_gets_a_level() {
    let (context, _media) = context(Limits::default()).await;
    let levels = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = levels.clone();
    let log_level = LogLevel::new(move |level| {
        seen.lock().unwrap().push(level.to_string());
        Ok(())
    });
    let context = Arc::new(Context { log_level, ..(*context).clone() });
    for level in ["-1", "1", "2", "3", "4", "6"] {
        let data = ok(&context, &format!("setLogLevel level={level}"), "Log level is set").await;
        assert_eq!(data, Value::Null);
    }
    assert_eq!(*levels.lock().unwrap(), ["off", "error", "warn", "info", "debug", "trace"]);
    let words = "-1, 0, 1, 2, 3, 4, 5, 6";
    let error = format!("Syntax error. Parameter level is invalid. It takes one of: {words}");
    for line in ["setLogLevel level=7", "setLogLevel level=debug"] {
        assert_eq!(fails(&context, line).await, error);
    }
}

#[tokio::test]
async fn a_command_with_an_id_runs_once() {
    let (context, _media) = context(Limits::default()).await;
    let line = "record localStreamName=cam1 pathToFile=a commandId=7";
    // What was only checked leaves the id free.
    assert_eq!(ask(&context, &format!("{line} check=1")).await.status, Status::Success);
    let recorded = ask(&context, line).await;
    assert_eq!((recorded.status, recorded.response_id.as_deref()), (Status::Success, Some("7")));
    for again in [line, "removeConfig id=1 commandId=7"] {
        let refused = ask(&context, again).await;
        assert_eq!((refused.fault, refused.response_id.as_deref()), (Fault::Conflict, Some("7")));
        let words = "commandId 7 was used before: record answered `Recording Stream` ";
        assert!(refused.description.starts_with(words), "{refused:?}");
    }
    let configs = ok(&context, "listConfig", "Run-time configuration").await;
    assert_eq!(configs["record"].as_array().unwrap().len(), 1);
    // What changes nothing is answered each time, and what failed may be tried again.
    for line in ["version commandId=8", "version commandId=8", "removeConfig id=9 commandId=9"] {
        assert_eq!(ask(&context, line).await.response_id.as_deref(), line.rsplit('=').next());
    }
    assert_eq!(ask(&context, "removeConfig id=1 commandId=9").await.status, Status::Success);
    let long = format!("version commandId={}", "x".repeat(257));
    assert_eq!(fails(&context, &long).await, "Syntax error. Parameter commandId is invalid");
}

#[tokio::test]
async fn a_role_may_do_what_it_may() {
    let (context, _media) = context(Limits::default()).await;
    let caller = |role| Caller { role, ..Caller::local(([127, 0, 0, 1], 1).into()) };
    let ask = async |role, line: &str| {
        let reply = answer(&context, &caller(role), Line::parse(line.as_bytes())).await;
        (reply.status == Status::Success, reply.fault)
    };
    let record = "record localStreamName=cam1 pathToFile=a";
    let forbidden = (false, Fault::Forbidden);
    assert!(ask(Role::Read, "listStreams").await.0);
    assert_eq!(ask(Role::Read, record).await, forbidden);
    assert!(ask(Role::Operate, record).await.0);
    assert_eq!(ask(Role::Operate, "shutdownServer").await, forbidden);
    assert!(ask(Role::Admin, "shutdownServer").await.0);
}
