//! Who may publish: stream keys, tokens and callbacks, tried by real encoders.

use std::fs;

use serde_json::json;

use crate::{
    media,
    process::until,
    receiver::Receiver,
    senders::{Pace, Sender},
    server::Server,
};

const SENDERS: [Sender; 2] = [Sender::Ffmpeg5, Sender::Own];

/// Whether a publisher gets through to its end.
fn may_publish(server: &Server, sender: Sender, name: &str) -> bool {
    sender.start(&media::clip(), &server.url(name), Pace::Full).wait().status.success()
}

#[test]
fn a_stream_key_leads_to_its_public_name_and_is_not_shown() {
    let home = crate::server::home(&std::env::temp_dir());
    let log = home.path().join("events");
    let arguments = ["--publish-auth=ingest-points".to_owned(), format!("--event-log={}", log.display())];
    let key = "s3cret-key-of-cam1";
    let mut server = Server::start_in(home.clone(), &arguments);
    let created = server.json("createIngestPoint", &format!("privateStreamName={key} publicStreamName=cam1"));
    assert_eq!(created["description"], "Ingest point created");
    assert_eq!(created["data"]["publicStreamName"], "cam1");
    let again = server.cli(&format!("createIngestPoint privateStreamName={key} publicStreamName=cam2"));
    assert!(!again.success && again.description.contains("there is an ingest point"), "{again:?}");
    // It survives what a server can suffer.
    server.kill();
    drop(server);
    let server = Server::start_in(home, &arguments);
    let listed = server.json("listIngestPoints", "");
    let point = json!({ "configId": created["data"]["configId"], "privateStreamName": "s3***", "publicStreamName": "cam1" });
    assert_eq!(listed["data"], json!([point]));

    for sender in SENDERS {
        let id = server.record("cam1", &format!("cam-{sender:?}"), "flv", "");
        assert!(may_publish(&server, sender, key), "{sender:?}");
        server.finish("cam1", &[id]);
        assert!(server.media(&format!("cam-{sender:?}.flv")).exists());
        assert!(!may_publish(&server, sender, "cam1"), "{sender:?}");
        assert!(!may_publish(&server, sender, "s3cret-key-of-cam2"), "{sender:?}");
    }
    server.logged(&["WARN", "refused a stream", "s3***", "no ingest point"]);
    let events = fs::read_to_string(&log).unwrap();
    assert!(events.contains("\"inStreamClosed\"") && events.contains("\"cam1\""), "{events}");
    for text in [events, server.log(), server.json("listStreams", "").to_string()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    let removed = server.json("removeIngestPoint", &format!("privateStreamName={key}"));
    assert_eq!(removed["status"], "SUCCESS");
    assert!(!may_publish(&server, Sender::Own, key));
}

#[test]
fn a_token_opens_the_streams_that_it_is_for() {
    let server = Server::start_with(|dir| {
        let file = dir.join("tokens");
        fs::write(&file, "# cameras\nt0ken-of-cams cam*\n").unwrap();
        vec!["--publish-auth=token".into(), format!("--publish-token-file={}", file.display())]
    });
    for sender in SENDERS {
        assert!(may_publish(&server, sender, "cam1?token=t0ken-of-cams"), "{sender:?}");
        until("its end", || (!server.is_live("cam1")).then_some(()));
        for wrong in ["cam1", "cam1?token=t0ken-of-camx", "other?token=t0ken-of-cams"] {
            assert!(!may_publish(&server, sender, wrong), "{sender:?} {wrong}");
        }
    }
    server.logged(&["WARN", "refused a stream", "cam1", "token"]);
    assert!(!server.log().contains("t0ken"), "{}", server.log());
}

#[test]
fn who_guesses_too_often_is_refused_for_a_while() {
    let server = Server::start_with(|_| vec!["--publish-auth=ingest-points".into()]);
    assert!(server.cli("createIngestPoint privateStreamName=right-key publicStreamName=cam1").success);
    for i in 0..10 {
        assert!(!may_publish(&server, Sender::Own, &format!("guess-{i}")));
    }
    server.logged(&["WARN", "too many failed attempts"]);
    let output = Sender::Own.start(&media::clip(), &server.url("right-key"), Pace::Full).wait();
    assert!(!output.status.success() && output.stderr.contains("too many failed attempts"), "{output:?}");
}

#[test]
fn a_callback_says_yes_or_no_and_one_that_does_not_answer_holds_up_nobody_else() {
    let callback = Receiver::answering(|got, _| match got.body.as_str() {
        body if body.contains("name=good") => Some(204),
        body if body.contains("name=slow") => None,
        _ => Some(403),
    });
    let server = Server::start_with(|_| {
        vec!["--publish-auth=callback".into(), format!("--publish-callback={}", callback.url())]
    });
    let slow = Sender::Own.start(&media::clip(), &server.url("slow"), Pace::Full);
    for sender in SENDERS {
        assert!(may_publish(&server, sender, "good?user=me&token=x"), "{sender:?}");
        until("its end", || (!server.is_live("good")).then_some(()));
        assert!(!may_publish(&server, sender, "bad"), "{sender:?}");
    }
    let output = slow.wait();
    assert!(!output.status.success() && output.stderr.contains("try again later"), "{output:?}");
    let asked = callback.got();
    let good = asked.iter().find(|got| got.body.contains("name=good")).unwrap();
    assert_eq!(good.headers["content-type"], "application/x-www-form-urlencoded");
    for part in ["call=publish", "app=live", "addr=127.0.0.1", "user=me", "token=x"] {
        assert!(good.body.split('&').any(|pair| pair == part), "{part}: {}", good.body);
    }
    server.logged(&["WARN", "refused a stream", "bad", "403"]);
}

#[test]
fn a_callback_that_is_dead_lets_nobody_in() {
    let callback = Receiver::deaf();
    let server = Server::start_with(|_| {
        vec!["--publish-auth=callback".into(), format!("--publish-callback={}", callback.url())]
    });
    assert!(!may_publish(&server, Sender::Ffmpeg5, "cam1"));
    server.logged(&["ERROR", "nobody may publish", "publish-callback"]);
}
