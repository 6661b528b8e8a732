//! Orders to record: kept over restarts, told of by events, split, paused, by rules.

use std::fs;

use serde_json::Value;

use crate::{
    media,
    process::{Process, until},
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
    // It is of the server that was killed.
    before.as_object_mut().unwrap().remove("formatHistory").expect("a version wrote");
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

#[test]
fn a_recording_is_cut_and_paused_while_it_goes_on() {
    let server = telling();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, "manifest=1"));
    assert_eq!(server.json("splitRecord", "localStreamName=cam")["status"], "FAIL", "nothing to cut");
    let sender = senders::endless(&media::clip(), &server.url("cam"));
    told(&server, "recordChunkCreated", 3);
    let reply = server.json("splitRecord", "localStreamName=cam");
    assert_eq!(
        (&reply["description"], reply["data"]["configs"].as_array().unwrap().len()),
        (&"Recording split".into(), 3)
    );
    told(&server, "recordChunkClosed", 3);
    let reply = server.json("splitRecord", &format!("configId={} now=1", ids[0]));
    assert_eq!(reply["status"], "SUCCESS");
    told(&server, "recordChunkClosed", 4);

    let frames = server.video_samples("cam");
    until("a second", || (server.video_samples("cam") > frames + 30).then_some(()));
    for id in ids {
        assert!(server.cli(&format!("pauseRecord configId={id}")).success);
        let again = server.cli(&format!("pauseRecord configId={id}"));
        assert_eq!(again.description, "Unable to pause: it is paused already");
        until("the pause", || {
            (config(&server, id)?["status"]["current"]["description"] == "Paused").then_some(())
        });
    }
    let frames = server.video_samples("cam");
    until("two seconds", || (server.video_samples("cam") > frames + 60).then_some(()));
    let reply = server.json("resumeRecord", "localStreamName=cam");
    assert_eq!(reply["description"], "Recording resumed");
    let gaps = told(&server, "recordGap", 3);
    assert!(
        gaps.iter().all(|gap| gap["reason"] == "paused-by-operator" && gap["samples"].as_u64() >= Some(60)),
        "{gaps:?}"
    );
    let frames = server.video_samples("cam");
    until("a second", || (server.video_samples("cam") > frames + 30).then_some(()));
    server.stop(&ids);
    drop(sender);
    for (format, id) in FORMATS.into_iter().zip(ids) {
        let closed: Vec<_> = events(&server, "recordChunkClosed")
            .into_iter()
            .filter(|event| event["configId"] == id)
            .collect();
        assert_eq!(closed.len(), if id == ids[0] { 3 } else { 2 });
        for event in &closed {
            let path = std::path::PathBuf::from(event["file"].as_str().unwrap());
            // Readers miss the frames that those before the first key frame refer to, so its tags are counted.
            let begins_with_key = id != ids[0] || event["index"] != 2;
            let frames = if begins_with_key {
                readers::assert_well_formed(&path);
                readers::comparable(&path).video.len()
            } else {
                let file = fs::read(&path).unwrap();
                let is_frame = |tag: &&media::Tag| tag.kind == media::VIDEO && tag.payload().is_some();
                media::tags(&file).iter().filter(is_frame).count()
            };
            assert_eq!(frames as u64, event["videoFrames"].as_u64().unwrap(), "{format}: {event}");
        }
        // The pause is in the last file, takes no time there, and is said.
        let last = closed.last().unwrap();
        let manifest = format!("{}.json", last["file"].as_str().unwrap());
        let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        let gap =
            manifest["gaps"].as_array().unwrap().iter().find(|gap| gap["reason"] == "paused-by-operator");
        assert!(gap.is_some(), "{manifest}");
        let (ms, frames) = (last["durationMs"].as_u64().unwrap(), last["videoFrames"].as_u64().unwrap());
        assert!(ms.abs_diff(frames * 1000 / 30) < 200, "{last}");
    }
}

#[test]
fn limits_end_a_recording_for_good() {
    let server = telling();
    let long = server.record("cam", "long", "ts", "maxDuration=2");
    let large = server.record("cam", "large", "mp4", "maxSize=1000000 chunkSize=100000");
    let sender = senders::endless(&media::clip(), &server.url("cam"));
    for id in [long, large] {
        until("its end", || config(&server, id).is_none().then_some(()));
    }
    let closed = events(&server, "recordChunkClosed");
    let its = |id: u64| closed.iter().filter(|event| event["configId"] == id).collect::<Vec<_>>();
    let [only] = its(long)[..] else { panic!("{closed:?}") };
    assert_eq!((&only["reason"], &only["videoFrames"]), (&"max-duration".into(), &60.into()));
    readers::assert_well_formed(&server.media("long.ts"));
    let files = its(large);
    assert_eq!(files.iter().filter(|event| event["reason"] == "max-size").count(), 1);
    assert!(files.len() >= 2, "{files:?}");
    let bytes: u64 = files.iter().map(|event| event["size"].as_u64().unwrap()).sum();
    assert!((1_000_000..2_000_000).contains(&bytes), "{bytes}");
    server.parts("large", "mp4").iter().for_each(|part| readers::assert_well_formed(part));
    drop(sender);
    assert!(server.json("listConfig", "")["data"]["record"].as_array().unwrap().is_empty());
}

#[test]
fn what_was_before_the_order_is_recorded_from_memory() {
    let server = Server::start_with(|_| vec!["--pre-roll".into(), "30s".into()]);
    let refused = server.cli("record localStreamName=cam pathToFile=x preRoll=31");
    assert_eq!(
        refused.description,
        "Unable to record stream: preRoll 31 is more than the 30 s that this server keeps; see its setting pre-roll"
    );
    let url = server.url("cam");
    let arguments = ["--speed", "20", "--duration", "86400"];
    let sender =
        Process::start(senders::reelwright().arg("publish").arg(media::clip()).arg(url).args(arguments));
    until("twenty seconds", || (server.video_samples("cam") >= 150 * 4).then_some(()));
    let reply = server.json("record", "localStreamName=cam pathToFile=cam type=ts preRoll=10");
    let ms = reply["data"]["preRollMs"].as_u64().unwrap();
    assert!((10_000..12_000).contains(&ms), "{reply}");
    server.stop(&[reply["data"]["configId"].as_u64().unwrap()]);
    drop(sender);
    let found = readers::comparable(&server.media("cam.ts"));
    assert!(found.video.len() >= 300, "{}", found.video.len());
    readers::assert_well_formed(&server.media("cam.ts"));
}

#[test]
fn names_have_in_them_what_they_are_asked_to() {
    let server = telling();
    let stream = "a..x";
    let ids = [
        server.record(stream, "{stream}/{configId}-{seq}", "ts", "chunkLength=2"),
        server.record(stream, "folders", "flv", "dateFolderStructure=1"),
    ];
    let checked = server.json("record", "localStreamName=../a pathToFile={stream}/x type=mp4 check=1");
    assert_eq!(checked["description"], "Recording would start");
    assert_eq!((&checked["data"]["configId"], &checked["data"]["isLive"]), (&0.into(), &false.into()));
    let first = checked["data"]["firstFile"].as_str().unwrap_or_default();
    assert_eq!(first, server.media("").canonicalize().unwrap().join("_._a/x.mp4").display().to_string());
    Sender::Own.send(&media::clip(), &server.url(stream), Pace::Full);
    server.finish(stream, &ids);
    let closed = events(&server, "recordChunkClosed");
    assert_eq!(closed.len(), 4, "{closed:?}");
    for i in 0..3 {
        let path = server.media(&format!("{stream}/{}-{i:04}.ts", ids[0]));
        readers::assert_well_formed(&path);
    }
    let dated = closed.iter().find(|event| event["configId"] == ids[1]).unwrap()["file"].as_str().unwrap();
    let below = dated.split("/folders/").nth(1).unwrap();
    let parts: Vec<_> = below.split('/').collect();
    assert_eq!((parts.len(), parts[0]), (3, stream), "{dated}");
    assert!(parts[1].len() == 8 && parts[2].starts_with(&format!("{stream}-{}-", parts[1])), "{dated}");
    assert!(!server.media("_._a").exists(), "it was only checked");
}

#[test]
fn a_rule_records_what_fits_from_the_first_frame_and_outlives_a_restart() {
    let mut server = telling();
    let reply = server.json("recordRule", "streams=cam* type=ts _who=rule");
    assert_eq!(reply["description"], "Streams will be recorded", "{reply}");
    let rule = reply["data"]["id"].as_u64().unwrap();
    assert_eq!(reply["data"]["pathToFile"], "{stream}");
    for refused in ["streams=[ type=ts", "streams=* overwrite=1", "streams=* type=avi"] {
        assert_eq!(server.json("recordRule", refused)["status"], "FAIL", "{refused}");
    }
    server.kill();
    let home = server.home();
    drop(server);
    let log = vec!["--event-log".into(), home.path().join("events").display().to_string()];
    let log = [log, vec!["--reconnect-window".into(), "0".into()]].concat();
    let server = Server::start_in(home, &log);
    for stream in ["cam1", "other", "cam2", "cam1"] {
        Sender::Own.send(&media::clip(), &server.url(stream), Pace::Full);
        until("its end", || (!server.is_live(stream)).then_some(()));
        until("its recording's end", || {
            server.json("listConfig", "")["data"]["record"].as_array().unwrap().is_empty().then_some(())
        });
    }
    for name in ["cam1.ts", "cam1_0001.ts", "cam2.ts"] {
        readers::assert_recorded(&media::clip(), &server.media(name));
    }
    assert_eq!(server.media_names(), ["cam1.ts", "cam1_0001.ts", "cam2.ts"]);
    let closed = told(&server, "recordChunkClosed", 3);
    assert!(closed.iter().all(|event| event["ruleId"] == rule && event["_who"] == "rule"), "{closed:?}");
    let listed = server.json("listRecordRules", "");
    assert_eq!(listed["data"][0]["id"], rule);
    assert_eq!(server.json("removeRecordRule", &format!("id={rule}"))["status"], "SUCCESS");
    assert_eq!(server.json("removeRecordRule", &format!("id={rule}"))["description"], "Rule not found");
    Sender::Own.send(&media::clip(), &server.url("cam9"), Pace::Full);
    assert!(!server.media("cam9.ts").exists());
}

#[test]
fn files_are_cut_by_the_wall_clock() {
    const ALIGN: f64 = 4.0;
    let server = telling();
    let id = server.record("cam", "cam", "ts", "chunkAlign=4");
    let sender = senders::endless(&media::clip(), &server.url("cam"));
    let created = told(&server, "recordChunkCreated", 4);
    drop(sender);
    server.finish("cam", &[id]);
    for event in &created[1..] {
        let start = event["startTime"].as_str().unwrap();
        let seconds: f64 = start.rsplit(':').next().unwrap().parse().unwrap();
        // A key frame comes each second, and a machine that is busy may be late.
        assert!(seconds % ALIGN < ALIGN / 2.0, "{start}");
    }
    readers::assert_repeated(&media::clip(), &server.parts("cam", "ts"));
}

#[test]
fn a_disk_with_little_room_is_told_of() {
    let server = Server::start_with(|dir| {
        let log = dir.join("events").display().to_string();
        // More than any disk has.
        ["--event-log", &log, "--disk-warn", "1000000000000000000"].map(str::to_owned).to_vec()
    });
    let id = server.record("cam", "cam", "ts", "");
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    let low = &told(&server, "diskLow", 1)[0];
    assert!(low["path"].as_str().unwrap().ends_with("/media"), "{low}");
    let (free, total) = (low["freeBytes"].as_u64().unwrap(), low["totalBytes"].as_u64().unwrap());
    assert!(0 < free && free <= total, "{low}");
    // It is a warning: everything is recorded.
    server.finish("cam", &[id]);
    readers::assert_recorded(&media::clip(), &server.media("cam.ts"));
    server.logged(&["WARN", "room"]);
}
