//! What `record` and what goes with it accept and refuse, without media.

use serde_json::{Value, json};

use super::{
    commands::{fails, ok},
    *,
};
use crate::control::reply::Status;

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
    let kept: Vec<(u64, recorder::Settings)> = context.store.all(crate::store::Table::Recordings).unwrap();
    assert_eq!((kept.len(), kept[0].0, kept[0].1.path_to_file.as_str()), (1, 1, "a"));
    ok(&context, "removeConfig id=1", "Configuration terminated").await;
    let kept: Vec<(u64, Value)> = context.store.all(crate::store::Table::Recordings).unwrap();
    assert!(kept.is_empty());
}
