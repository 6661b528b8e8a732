//! What `record` and what goes with it accept and refuse, without media.

use serde_json::{Value, json};

use super::{
    commands::{fails, ok},
    *,
};
use crate::{
    control::reply::Status,
    output::journal::{self, Record, Start, Whose},
    store::{Change, Counter, Table},
};

#[tokio::test]
async fn hostile_names_lead_nowhere() {
    let (context, media) = context(Limits::default()).await;
    let root = media.path().canonicalize().unwrap().display().to_string();
    let long = "x".repeat(4096);
    for name in ["../../etc/passwd", "/etc/passwd", "..", "CON", "-rf", ".hidden", "a\u{ff0f}b", "{date}"] {
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
    let control = "Syntax error. The command has a control character";
    for (params, error) in [
        (format!("localStreamName={long} pathToFile=x"), "Unable to record stream: stream name "),
        (format!("localStreamName=a pathToFile={long}"), "Unable to record stream: pathToFile "),
        ("localStreamName=a\u{202e}b pathToFile=x".into(), "Unable to record stream: stream name "),
        ("localStreamName=a pathToFile=a\u{2028}b".into(), "Unable to record stream: pathToFile "),
        ("localStreamName=a\u{1}b pathToFile=x".into(), control),
        ("localStreamName=a pathToFile=a\0b".into(), control),
    ] {
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
    let kept: Vec<(u64, recorder::Settings)> = context.store.all(Table::Recordings).unwrap();
    assert_eq!((kept.len(), kept[0].0, kept[0].1.path_to_file.as_str()), (1, 1, "a"));
    ok(&context, "removeConfig id=1", "Configuration terminated").await;
    let kept: Vec<(u64, Value)> = context.store.all(Table::Recordings).unwrap();
    assert!(kept.is_empty());
}

#[tokio::test]
async fn an_order_that_can_not_be_kept_is_none() {
    let (context, _media) = context_with(Limits::default(), Store::in_memory().broken()).await;
    let _publisher = commands::publish(&context, "cam1");
    for keep_alive in [0, 1] {
        let line = format!("record localStreamName=cam1 pathToFile=a overwrite=1 keepAlive={keep_alive}");
        let reply = ask(&context, &line).await;
        assert_eq!((reply.status, reply.fault), (Status::Fail, Fault::Failed));
        assert!(reply.description.starts_with("Unable to record stream: it can't be kept: "), "{reply:?}");
    }
    let reply = ask(&context, "recordRule streams=*").await;
    assert_eq!((reply.status, reply.fault), (Status::Fail, Fault::Failed));
    assert_eq!(ok(&context, "listConfig", "Run-time configuration").await["record"], json!([]));
    assert_eq!(ok(&context, "listRecordRules", "Record rules").await, json!([]));
    assert_eq!(ok(&context, "getStreamsCount", "Active streams count").await["streamCount"], 1);
}

#[tokio::test]
async fn a_recording_can_be_stopped_though_the_database_fails() {
    let store = Store::in_memory();
    let its = |name: &str, path: &str| recorder::Settings {
        local_stream_name: name.into(),
        path_to_file: path.into(),
        format: "ts".into(),
        ..recorder::Settings::default()
    };
    let rule = recorder::Rule { streams: "rule*".into(), record: its("", "{stream}") };
    let kept = vec![
        Change::put(Table::Recordings, 7, &its("cam1", "a")),
        Change::put(Table::Rules, 8, &rule),
        Change::count(Counter::ConfigId, 8),
    ];
    store.apply(kept).await.unwrap();
    let (context, _media) = context_with(Limits::default(), store.broken()).await;
    context.recordings.restore().await.unwrap();
    let _cam = commands::publish(&context, "cam1");
    let _rule = commands::publish(&context, "rule1");
    let ids: Vec<_> = context.recordings.list().iter().map(|r| r.config_id).collect();
    assert_eq!(ids, [7, 9]);
    // What was never kept needs no database to be removed.
    ok(&context, "removeConfig id=9", "Configuration terminated").await;
    for _ in 0..2 {
        let reply = ask(&context, "removeConfig id=7").await;
        assert_eq!((reply.status, reply.fault), (Status::Fail, Fault::Failed));
        let stopped =
            ok(&context, "getConfigInfo id=7", "Configuration Info").await["status"]["current"].take();
        assert_eq!(stopped["code"], 5, "{stopped}");
        assert!(stopped["reason"].as_str().unwrap().starts_with("it could not be forgotten: "), "{stopped}");
        assert!(context.recordings.get(7).unwrap().run().is_none());
    }
}

#[tokio::test]
async fn a_rule_orders_before_the_first_sample_and_for_who_is_there() {
    let (context, _media) = context(Limits::default()).await;
    let _first = commands::publish(&context, "front-1");
    ok(&context, "recordRule streams=front-? type=ts chunkAlign=hour", "Streams will be recorded").await;
    let _second = commands::publish(&context, "front-2");
    let _other = commands::publish(&context, "front-10");
    let listed = ok(&context, "listConfig", "Run-time configuration").await["record"].take();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|r| r["localStreamName"].clone()).collect();
    assert_eq!(names, ["front-1", "front-2"]);
    assert!(listed[1]["computedPathToFile"].as_str().unwrap().ends_with("/front-2.ts"), "{listed}");
    assert_eq!((&listed[1]["ruleId"], &listed[1]["chunkAlign"]), (&json!(1), &json!("hour")));
    let rules = ok(&context, "listRecordRules", "Record rules").await;
    assert_eq!(rules[0]["configIds"], json!([2, 3]));
    ok(&context, "removeRecordRule id=1", "Rule removed").await;
    assert_eq!(
        ok(&context, "listConfig", "Run-time configuration").await["record"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn what_a_crash_left_of_a_recording_is_told_in_its_order() {
    let (context, media) = context(Limits::default()).await;
    let mut listener = context.events.subscribe();
    // A journal that has just begun: there is nothing to save, and that is told.
    let leave = |name: String, segment: u64| {
        let whose = Whose { rule_id: Some(3), user: [("_who".to_owned(), "me".to_owned())].into() };
        let start = Start {
            file: name.rsplit('/').next().unwrap().into(),
            format: "ts".into(),
            config_id: 7,
            stream: "cam1".into(),
            whose,
            segment,
            epoch_us: 1_700_000_000_000_000 + segment as i64 * 1_000_000,
            ..Start::default()
        };
        let mut bytes = journal::MAGIC.to_vec();
        Record::Start(Box::new(start)).encode(&mut bytes);
        std::fs::write(media.path().join(format!("{name}.info")), bytes).unwrap();
    };
    std::fs::create_dir_all(media.path().join("20231114")).unwrap();
    std::fs::create_dir_all(media.path().join("20231115")).unwrap();
    let mut expected = Vec::new();
    for segment in 9995..10_005 {
        let folder = if segment < 10_001 { "20231114" } else { "20231115" };
        expected.push(format!("{folder}/cam_part{segment:04}.ts"));
        leave(expected[expected.len() - 1].clone(), segment);
    }
    context.repairs.everywhere().await;
    let mut told = Vec::new();
    while let Ok(event) = listener.try_recv() {
        let event: Value = serde_json::from_str(&event.json).unwrap();
        let payload = &event["payload"];
        assert_eq!(event["type"], "recordRecovered");
        let common =
            ["configId", "localStreamName", "type", "ruleId", "_who"].map(|key| payload[key].clone());
        assert_eq!(common, [json!(7), json!("cam1"), json!("ts"), json!(3), json!("me")], "{event}");
        assert_eq!(payload["file"], payload["path"]);
        let file = payload["file"].as_str().unwrap();
        told.push(
            file.strip_prefix(&format!("{}/", media.path().canonicalize().unwrap().display()))
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(told, expected);
    assert_eq!(context.repairs.unfinished(), 0);
}
