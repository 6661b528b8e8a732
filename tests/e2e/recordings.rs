//! Orders to record: kept over restarts, told of by events, split, paused, by rules.

use std::fs;

use serde_json::Value;

use crate::{
    media,
    process::until,
    readers::{self, FORMATS},
    senders::{self, Pace, Sender},
    server::Server,
};

/// A server that writes its events to a file.
fn telling() -> Server {
    Server::start_with(|dir| vec!["--event-log".into(), dir.join("events").display().to_string()])
}

/// Payloads of the events of a kind that were told so far.
fn events(server: &Server, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(server.home().path().join("events")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["type"] == kind).map(|mut event| event["payload"].take()).collect()
}

/// Waits for so many events of a kind.
fn told(server: &Server, kind: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} {kind}"), || Some(events(server, kind)).filter(|events| events.len() >= count))
}

/// The config of a recording, with its status.
fn config(server: &Server, id: u64) -> Option<Value> {
    let mut reply = server.json("getConfigInfo", &format!("id={id}"));
    (reply["status"] == "SUCCESS").then(|| reply["data"].take())
}

#[test]
fn orders_are_there_again_after_a_kill_and_their_ids_are_never_given_twice() {
    let mut server = Server::start();
    let kept = server.record("cam", "cam", "ts", "chunkLength=60 overwrite=1 _who=me");
    let once = server.record("cam", "once", "ts", "keepAlive=0");
    let removed = server.record("cam", "removed", "ts", "");
    let lost = server.media("folder");
    fs::create_dir(&lost).unwrap();
    let homeless = server.record("away", "folder/x", "flv", "");
    server.stop(&[removed]);
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    until("the end of what is recorded once", || config(&server, once).is_none().then_some(()));
    let before = config(&server, kept).unwrap();
    server.kill();
    fs::remove_dir(&lost).unwrap();
    let home = server.home();
    drop(server);

    let mut server = Server::start_in(home.clone(), &[]);
    let mut after = config(&server, kept).unwrap();
    let waiting = after["status"].take();
    assert_eq!(waiting["current"]["code"], 2, "{waiting}");
    let mut before = before;
    before["status"] = Value::Null;
    assert_eq!(after, before);
    assert!(config(&server, once).is_none() && config(&server, removed).is_none());
    let failed = config(&server, homeless).unwrap()["status"]["current"].take();
    assert_eq!(failed["code"], 5);
    assert!(failed["reason"].as_str().unwrap().contains("no such file"), "{failed}");
    let next = server.record("cam", "next", "ts", "keepAlive=0");
    assert_eq!(next, homeless + 1);
    server.kill();
    drop(server);

    // It did not outlive the server, and its id is used up all the same.
    let server = Server::start_in(home, &[]);
    assert!(config(&server, next).is_none());
    let last = server.record("cam", "last", "ts", "");
    assert_eq!(last, next + 1);
    // What was recorded before is not for overwriting, and what had no folder gets on when there is one.
    fs::create_dir(&lost).unwrap();
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    Sender::Own.send(&media::clip(), &server.url("away"), Pace::Full);
    until("the end of away", || (!server.is_live("away")).then_some(()));
    server.finish("cam", &[kept, last, homeless]);
    let names = server.media_names();
    let expected =
        ["cam_0001_part0000.ts", "cam_part0000.ts", "folder", "last.ts", "once.ts"].map(str::to_owned);
    assert_eq!(names, expected);
    readers::assert_well_formed(&server.media("folder/x.flv"));
}

#[test]
fn events_tell_of_each_file_from_beginning_to_end() {
    let server = telling();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, "chunkLength=2 _who=me"));
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    told(&server, "outStreamClosed", 3);
    for (format, id) in FORMATS.into_iter().zip(ids) {
        let its = |kind| -> Vec<Value> {
            events(&server, kind).into_iter().filter(|event| event["configId"] == id).collect()
        };
        let parts = server.parts("cam", format);
        let (created, closed) = (its("recordChunkCreated"), its("recordChunkClosed"));
        assert_eq!((created.len(), closed.len()), (parts.len(), parts.len()));
        let mut frames = 0;
        for (i, part) in parts.iter().enumerate() {
            let path = part.canonicalize().unwrap().display().to_string();
            assert_eq!((&created[i]["file"], &created[i]["index"]), (&path.clone().into(), &i.into()));
            // Files are closed beside each other.
            let closed = closed.iter().find(|event| event["file"] == path.as_str()).unwrap();
            assert_eq!(closed["size"], fs::metadata(part).unwrap().len());
            assert_eq!(closed["startTime"], created[i]["startTime"]);
            let (video, audio) = (&closed["videoFrames"], &closed["audioFrames"]);
            let sum = video.as_u64().unwrap() + audio.as_u64().unwrap();
            assert_eq!((&closed["frameCount"], &closed["recovered"]), (&sum.into(), &false.into()));
            assert!(closed["durationMs"].as_u64().unwrap() > 900, "{closed}");
            let names = [("localStreamName", "cam"), ("type", format), ("_who", "me")];
            assert!(names.iter().all(|(key, value)| closed[*key] == *value), "{closed}");
            frames += video.as_u64().unwrap();
        }
        assert_eq!(frames, 150, "{format}");
        for stream in [its("outStreamCreated"), its("outStreamClosed")] {
            assert_eq!(stream.len(), 1);
            assert_eq!(stream[0]["recordSettings"]["configId"], id);
            assert_eq!(stream[0]["connectionType"], 7);
        }
    }
    assert!(events(&server, "recordChunkError").is_empty() && events(&server, "recordRecovered").is_empty());
}
