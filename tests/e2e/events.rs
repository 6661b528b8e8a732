//! Events on their way to receivers: in order, signed, again after failures, and over the server's death.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    media,
    process::until,
    receiver::{Got, Receiver},
    senders::{self, Pace, Sender},
    server::{self, Server},
};

/// Retries that do not make a test wait.
const QUICK: [&str; 2] = ["--event-retry-min=20ms", "--event-retry-max=100ms"];

fn to(receivers: &[&Receiver], more: &[&str]) -> Vec<String> {
    let urls = receivers.iter().map(|receiver| format!("--event-url={}", receiver.url()));
    urls.chain(QUICK.iter().chain(more).map(|argument| (*argument).to_owned())).collect()
}

fn kinds(events: &[Got]) -> Vec<&str> {
    events.iter().map(Got::kind).collect()
}

/// Fails unless the first coming of each event is in the order of ids.
fn assert_in_order(events: &[Got]) {
    let ids: Vec<_> = events.iter().map(Got::id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn events_are_signed_and_come_in_order_and_again_after_a_refusal() {
    // The first attempt of each is refused.
    let receiver = Receiver::answering(|got, all| {
        let known = all.iter().any(|other| other.id() == got.id());
        Some(if known { 200 } else { 500 })
    });
    let server = Server::start_with(|dir| {
        let config = format!(
            "event-retry-min = \"20ms\"\n[[event-sink]]\nurl = \"{}\"\ntypes = [\"inStream*\", \"timer*\"]\n\
             secret-file = \"{}\"\ncustom-data = \"site 7\"\ntimeout = \"30s\"\n",
            receiver.url(),
            dir.join("secret").display()
        );
        fs::write(dir.join("secret"), "a secret\n").unwrap();
        fs::write(dir.join("config.toml"), config).unwrap();
        vec!["--config".into(), dir.join("config.toml").display().to_string()]
    });
    Sender::Own.send(&media::clip(), &server.url("cam?token=not-to-be-seen"), Pace::Full);
    receiver.wait_for("inStreamClosed");
    assert!(server.cli("setTimer value=86399").success);
    let last = receiver.wait_for("timerCreated");
    let taken = receiver.taken();
    assert_in_order(&taken);
    let mut expected = kinds(&taken);
    expected.dedup();
    assert_eq!(expected, ["inStreamCreated", "inStreamCodecsUpdated", "inStreamClosed", "timerCreated"]);
    assert_eq!(last.json["payload"]["value"], 86_399);

    let got = receiver.got();
    for event in &taken {
        let attempts: Vec<_> = got.iter().filter(|other| other.id() == event.id()).collect();
        assert_eq!(attempts.len(), 2, "{}", event.kind());
        assert_eq!(attempts[0].body, attempts[1].body);
        assert_eq!(attempts[0].headers["idempotency-key"], attempts[1].headers["idempotency-key"]);
        assert!(event.headers["idempotency-key"].ends_with(&format!("-{}", event.id())));
        assert_eq!(event.headers["content-type"], "application/json");
        assert_eq!(event.headers["x-reelwright-event"], event.kind());
        let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret").unwrap();
        mac.update(format!("{}.{}", event.headers["x-reelwright-timestamp"], event.body).as_bytes());
        let signature = event.headers["x-reelwright-signature"].strip_prefix("sha256=").unwrap();
        let signature: Vec<u8> = (0..signature.len() / 2)
            .map(|i| u8::from_str_radix(&signature[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        mac.verify_slice(&signature).unwrap();
        let payload = &event.json["payload"];
        assert_eq!((&payload["customData"], &payload["PID"]), (&json!("site 7"), &event.json["processId"]));
        assert!(!event.body.contains("not-to-be-seen"), "{}", event.body);
    }
    let closed = taken.iter().find(|event| event.kind() == "inStreamClosed").unwrap();
    let stream = &closed.json["payload"];
    assert_eq!(
        (&stream["name"], &stream["type"], &stream["appName"]),
        (&json!("cam"), &json!("INR"), &json!("live"))
    );
    assert_eq!((&stream["video"]["codec"], &stream["audio"]["codec"]), (&json!("VH264"), &json!("AAAC")));
    assert_eq!(stream["video"]["packetsCount"], 150);
    assert!(!server.log().contains("not-to-be-seen"));
}

#[test]
fn a_dead_receiver_holds_up_nobody_and_gets_all_when_it_is_back_even_after_a_crash() {
    let (mut dead, alive) = (Receiver::deaf(), Receiver::start());
    let arguments = to(&[&dead, &alive], &[]);
    let mut server = Server::start_in(server::home(&std::env::temp_dir()), &arguments);
    for _ in 0..20 {
        assert!(server.cli("setTimer value=86399").success);
    }
    until("all events at the other receiver", || {
        (alive.taken().iter().filter(|got| got.kind() == "timerCreated").count() == 20).then_some(())
    });
    server.logged(&["WARN", "the next try is in"]);
    server.kill();
    let home = server.home();
    drop(server);
    let server = Server::start_in(home, &arguments);
    server.logged(&["the outbox has events from before"]);
    dead.listen();
    assert!(server.cli("setTimer value=1234").success);
    until("the last event", || dead.taken().into_iter().find(|got| got.json["payload"]["value"] == 1234));
    let taken = dead.taken();
    assert_in_order(&taken);
    let mut expected = vec!["serverStarted"];
    expected.extend(["timerCreated"; 20]);
    expected.extend(["serverStarted", "timerCreated"]);
    assert_eq!(kinds(&taken), expected);
    assert!(taken.iter().all(|got| got.json.get("lost").is_none()));
}

#[test]
fn when_too_many_wait_the_oldest_are_given_up_and_their_number_is_told() {
    let mut receiver = Receiver::deaf();
    let server = Server::start_with(|_| to(&[&receiver], &["--event-outbox-max=5"]));
    for _ in 0..20 {
        assert!(server.cli("setTimer value=86399").success);
    }
    server.logged(&["ERROR", "events are lost for a receiver", "event-outbox-max"]);
    receiver.listen();
    assert!(server.cli("setTimer value=1234").success);
    until("the last event", || receiver.taken().into_iter().find(|got| got.json["payload"]["value"] == 1234));
    let taken = receiver.taken();
    assert_in_order(&taken);
    let lost: u64 = taken.iter().filter_map(|got| got.json["lost"].as_u64()).sum();
    // serverStarted and 21 timers.
    assert_eq!(lost + taken.len() as u64, 22, "{:?}", kinds(&taken));
    assert!(lost >= 15, "{lost}");
}

#[test]
fn what_is_refused_for_too_long_is_given_up_and_lets_the_others_pass() {
    let receiver = Receiver::answering(|got, _| Some(if got.kind() == "serverStarted" { 400 } else { 200 }));
    let server = Server::start_with(|_| to(&[&receiver], &["--event-retry-for=200ms"]));
    assert!(server.cli("setTimer value=1234").success);
    let event = receiver.wait_for("timerCreated");
    assert_eq!(event.json["lost"], 1);
    server.logged(&["ERROR", "an event is given up", "serverStarted", "answered 400"]);
}

#[test]
fn redirects_are_not_followed_and_a_slow_receiver_is_asked_again() {
    let elsewhere = Receiver::start();
    let mut answers = [Some(302), None].into_iter();
    let receiver = Receiver::answering(move |_, _| answers.next().unwrap_or(Some(200)));
    let server = Server::start_with(|dir| {
        let config = format!(
            "event-retry-min = \"20ms\"\n[[event-sink]]\nurl = \"{}\"\ntimeout = \"300ms\"\n",
            receiver.url()
        );
        fs::write(dir.join("config.toml"), config).unwrap();
        vec!["--config".into(), dir.join("config.toml").display().to_string()]
    });
    receiver.wait_for("serverStarted");
    server.logged(&["WARN", "an event was not taken", "302"]);
    // One that takes no event in time is asked again as well; only the first failure is logged.
    assert_eq!(elsewhere.got().len(), 0);
    assert_eq!(receiver.got().len(), 3);
}

#[test]
fn the_event_log_may_be_renamed_and_has_all_lines_at_the_end() {
    let home = server::home(&std::env::temp_dir());
    let (log, old) = (home.path().join("events"), home.path().join("events.1"));
    let mut server = Server::start_in(home, &["--event-log".into(), log.display().to_string()]);
    until("the first line", || (lines(&log).len() == 1).then_some(()));
    fs::rename(&log, &old).unwrap();
    for _ in 0..100 {
        assert!(server.cli("setTimer value=86399").success);
    }
    server.terminate();
    server.ended();
    let types = |path: &Path| -> Vec<String> {
        lines(path).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&old), ["serverStarted"]);
    let mut expected = vec!["timerCreated"; 100];
    expected.push("serverStopping");
    assert_eq!(types(&log), expected);
}

#[test]
fn a_sink_that_makes_no_sense_keeps_the_server_from_starting() {
    for (argument, words) in [("--event-url=ftp://h/", "`ftp` is no scheme"), ("--event-url=x", "url")] {
        let home = server::home(&std::env::temp_dir());
        let arguments = [argument.to_owned()];
        let output = server::command(senders::reelwright(), home.path(), &arguments).output().unwrap();
        let log = fs::read_to_string(home.path().join("log")).unwrap();
        assert!(!output.status.success() && log.contains("event-sink") && log.contains(words), "{log}");
    }
}

/// Files of recordings, which are complete under these names.
fn files(server: &Server) -> BTreeSet<String> {
    let path = |name: String| server.media(&name).display().to_string();
    server
        .media_names()
        .into_iter()
        .filter(|name| name.ends_with(".ts") || name.ends_with(".flv"))
        .map(path)
        .collect()
}

/// The file that an event says is complete.
fn completed(event: &Got) -> Option<&str> {
    let payload = &event.json["payload"];
    match event.kind() {
        "recordChunkClosed" => payload["file"].as_str(),
        "recordRecovered" => payload["path"].as_str().or(payload["file"].as_str()),
        _ => None,
    }
}

/// Kills the server while it closes files and delivers events, again and again; then every file has its event, and
/// the events of a recording came in their order.
fn kill_between_close_and_delivery(rounds: usize) {
    let receiver = Receiver::start();
    let home = server::home(&std::env::temp_dir());
    let arguments = to(&[&receiver], &[]);
    for round in 0..rounds {
        // It takes events, or refuses some, or leaves some without an answer.
        let mut count = 0;
        receiver.answer(move |_, _| {
            count += 1;
            match (round % 3, count % 3) {
                (0, _) | (_, 0) => Some(200),
                (1, _) => Some(503),
                _ => None,
            }
        });
        let mut server = Server::start_in(home.clone(), &arguments);
        let before = files(&server).len();
        for format in ["ts", "flv"] {
            server.record("cam", &format!("cam-{round}"), format, "chunkLength=1 keepAlive=0");
        }
        // All at once, so that files are closed one after the other.
        let sender = Sender::Own.start(&media::clip(), &server.url("cam"), Pace::Full);
        until("a file", || (files(&server).len() > before).then_some(()));
        // The moment differs from round to round.
        let spin = std::time::Instant::now();
        while spin.elapsed().as_millis() < (round as u128 * 37) % 250 {
            std::thread::yield_now();
        }
        server.kill();
        drop(sender);
    }
    receiver.answer(|_, _| Some(200));
    let server = Server::start_in(home, &arguments);
    let missing = || -> Vec<String> {
        let taken = receiver.taken();
        let told: BTreeSet<_> = taken.iter().filter_map(completed).collect();
        files(&server).into_iter().filter(|file| !told.contains(file.as_str())).collect()
    };
    until("an event for each file", || {
        let missing = missing();
        missing.is_empty().then_some(())
    });
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last_file: BTreeMap<u64, (String, u64)> = BTreeMap::new();
    let taken = receiver.taken();
    for event in &taken {
        let Some(config) = event.json["payload"]["configId"].as_u64() else { continue };
        let before = last.insert(config, event.id());
        assert!(before.is_none_or(|before| before < event.id()), "{config}: {before:?}, {}", event.id());
        // What tells that a file is complete, in the order of the files; it may be told twice.
        if completed(event).is_none() {
            continue;
        }
        let payload = &event.json["payload"];
        let Some(begun) = payload["startTime"].as_str() else {
            // Killed before the journal had its first record.
            assert_eq!((&payload["outcome"], config), (&"nothing".into(), 0), "{payload}");
            continue;
        };
        let now = (begun.to_owned(), payload["index"].as_u64().unwrap());
        if let Some(before) = last_file.insert(config, now.clone()) {
            let rises = before.0 < now.0 && before.1 < now.1;
            assert!(
                rises || before == now && payload["recovered"] == true,
                "{config}: {before:?}, {payload}"
            );
        }
    }
    let of = |kind: &str| taken.iter().filter(|event| event.kind() == kind).count();
    let again = taken.iter().filter(|event| event.json["payload"]["recovered"] == true).count();
    println!(
        "{rounds} kills, {} files, {} closed ({again} told by the next start), {} recovered, {} deliveries",
        files(&server).len(),
        of("recordChunkClosed"),
        of("recordRecovered"),
        receiver.got().len()
    );
}

#[test]
fn killed_twenty_times_no_event_is_lost() {
    kill_between_close_and_delivery(20);
}

/// `REELWRIGHT_KILLS` times, 200 if it is not set.
#[test]
#[ignore = "takes minutes"]
fn killed_as_often_as_wanted_no_event_is_lost() {
    let kills = std::env::var("REELWRIGHT_KILLS").ok().and_then(|kills| kills.parse().ok());
    kill_between_close_and_delivery(kills.unwrap_or(200));
}
