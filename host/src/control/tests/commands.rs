//! The commands on a real recorder, with streams that send nothing.

use serde_json::{Value, json};

use super::*;
use crate::{control::reply::Status, registry};

/// The data of a command that must succeed, with this description.
async fn ok(context: &Arc<Context>, line: &str, description: &str) -> Value {
    let reply = ask(context, line).await;
    assert_eq!((reply.status, reply.description.as_str()), (Status::Success, description), "{line}");
    reply.data
}

/// The description of a command that must fail.
async fn fails(context: &Arc<Context>, line: &str) -> String {
    let reply = ask(context, line).await;
    assert_eq!((reply.status, reply.data), (Status::Fail, Value::Null), "{line}");
    reply.description
}

fn publish(context: &Context, name: &str) -> registry::Publisher {
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
async fn streams(context: &Arc<Context>, count: u64) {
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
async fn hostile_names_lead_nowhere() {
    let (context, media) = context(Limits::default()).await;
    let root = media.path().canonicalize().unwrap().display().to_string();
    let long = "x".repeat(4096);
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "CON",
        "-rf",
        ".hidden",
        "a\u{202e}b",
        "a\u{ff0f}b",
        "{date}",
    ] {
        let line =
            format!("record localStreamName={name} pathToFile=x/{{stream}}/f dateFolderStructure=0 check=1");
        let data = ok(&context, &line, "Recording would start").await;
        let file = data["firstFile"].as_str().unwrap();
        let below = file.strip_prefix(&format!("{root}/x/")).unwrap_or_else(|| panic!("{file}"));
        let parts: Vec<_> = below.split('/').collect();
        assert!(parts.len() == 2 && parts[1] == "f.mp4", "{file}");
        let odd = |c: char| c.is_control() || c == '\u{202e}' || c == '\u{ff0f}';
        assert!(!parts[0].starts_with(['.', '-']) && parts[0] != "CON" && !parts[0].contains(odd), "{file}");
    }
    for (params, error) in [
        (format!("localStreamName={long} pathToFile=x"), "Unable to record stream: stream name "),
        ("localStreamName=a\\\nb pathToFile=x".into(), "Unable to record stream: stream name "),
        (format!("localStreamName=a pathToFile={long}"), "Unable to record stream: pathToFile "),
        ("localStreamName=a pathToFile=a\0b".into(), "Unable to record stream: pathToFile "),
    ] {
        let params = params.replace("\\\n", "\u{1}");
        let got = fails(&context, &format!("record {params}")).await;
        assert!(got.starts_with(error) && got.len() < 600, "{got}");
    }
    assert_eq!(std::fs::read_dir(media.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn a_check_changes_nothing() {
    let (context, media) = context(Limits::default()).await;
    std::fs::write(media.path().join("cam1_part0000.ts"), "").unwrap();
    let line = "record localStreamName=cam1 pathToFile=cam1 type=ts chunkSize=1 check=1";
    let data = ok(&context, line, "Recording would start").await;
    assert!(data["firstFile"].as_str().unwrap().ends_with("/cam1_0001_part0000.ts"), "{data}");
    assert!(data["computedPathToFile"].as_str().unwrap().ends_with("/cam1.ts"), "{data}");
    assert_eq!(
        (&data["configId"], &data["isLive"], &data["chunkSize"]),
        (&json!(0), &json!(false), &json!(1))
    );
    assert_eq!(ok(&context, "listConfig", "Run-time configuration").await["record"], json!([]));
    // What would be refused is.
    ok(&context, "record localStreamName=cam1 pathToFile=a overwrite=1", "Recording Stream").await;
    let taken = ask(&context, "record localStreamName=cam2 pathToFile=a check=1").await;
    assert_eq!((taken.status, taken.fault), (Status::Fail, Fault::Conflict));
    assert!(taken.description.contains("destination of config 1"), "{}", taken.description);
}

#[tokio::test]
async fn what_is_not_recorded_can_be_paused_and_not_split() {
    let (context, _media) = context(Limits::default()).await;
    ok(&context, "record localStreamName=cam1 pathToFile=a", "Recording Stream").await;
    for (line, error) in [
        ("splitRecord configId=1", "Unable to split: it is not recording now"),
        ("splitRecord configId=9", "Config ID not found"),
        ("splitRecord localStreamName=none", "Stream has no recordings"),
        ("splitRecord now=1", "configId or localStreamName parameters needs to be supplied"),
        ("resumeRecord configId=1", "Unable to resume: it is not paused"),
        (
            "pauseRecord configId=1 localStreamName=cam1",
            "configId and localStreamName must not go together, choose only 1",
        ),
    ] {
        assert_eq!(fails(&context, line).await, error, "{line}");
    }
    ok(&context, "pauseRecord localStreamName=cam1", "Recording paused").await;
    let status = ok(&context, "getConfigInfo id=1", "Configuration Info").await;
    assert_eq!(status["status"]["current"]["description"], "Paused");
    ok(&context, "resumeRecord configId=1", "Recording resumed").await;
    let status = ok(&context, "getConfigInfo id=1", "Configuration Info").await;
    assert_eq!(status["status"]["current"]["code"], 2);
}

#[tokio::test]
async fn an_order_is_kept_until_it_is_removed() {
    let (context, _media) = context(Limits::default()).await;
    ok(&context, "record localStreamName=cam1 pathToFile=a", "Recording Stream").await;
    let kept: Vec<(u64, crate::recorder::Settings)> =
        context.store.all(crate::store::Table::Recordings).unwrap();
    assert_eq!((kept.len(), kept[0].0, kept[0].1.path_to_file.as_str()), (1, 1, "a"));
    ok(&context, "removeConfig id=1", "Configuration terminated").await;
    let kept: Vec<(u64, Value)> = context.store.all(crate::store::Table::Recordings).unwrap();
    assert!(kept.is_empty());
}
