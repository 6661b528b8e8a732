//! The way of events with a file and without; receivers over HTTP are tested end to end.

use super::*;

async fn to_file(store: &Store, path: &std::path::Path) -> Events {
    let settings = Settings { file: Some(path.to_owned()), ..Settings::default() };
    Events::open(settings, store.clone()).await.unwrap()
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_event_has_evostream_s_envelope() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    let events = to_file(&Store::in_memory(), &path).await;
    let mut listener = events.subscribe();
    events.send(Event::new("recordRecovered", json!({ "file": "/m/a.mp4", "_who": "me" })));
    events.shut_down(Duration::from_secs(60)).await;
    let process = std::process::id();
    let [event] = &lines(&path)[..] else { panic!("one line") };
    assert_eq!(event["payload"], json!({ "PID": process, "_who": "me", "file": "/m/a.mp4" }));
    let seconds = event["timestamp"].as_u64().unwrap();
    assert_eq!(event["timestampMs"].as_u64().unwrap() / 1000, seconds);
    assert!(seconds > 1_600_000_000);
    assert_eq!((&event["id"], &event["processId"]), (&json!(1), &json!(process)));
    assert_eq!(event["type"], "recordRecovered");
    assert_eq!(event.as_object().unwrap().len(), 6);
    let heard = listener.recv().await.unwrap();
    assert_eq!((heard.id, heard.kind), (1, "recordRecovered"));
    assert_eq!(serde_json::from_str::<Value>(&heard.json).unwrap(), *event);
}

#[tokio::test]
async fn ids_grow_over_restarts_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    let store = Store::in_memory();
    let first = to_file(&store, &path).await;
    (0..1700).for_each(|_| first.send(Event::new("x", json!({}))));
    first.shut_down(Duration::from_secs(60)).await;
    let second = to_file(&store, &path).await;
    second.send(Event::new("x", json!({})));
    let id = lines_after(&second, &path, 1701).await;
    assert!(id > 1700);
    drop(second);
    // As after a crash: nothing was said at the end.
    let third = to_file(&store, &path).await;
    third.send(Event::new("x", json!({})));
    assert!(lines_after(&third, &path, 1702).await > id);
}

/// The id of the last of so many lines.
async fn lines_after(events: &Events, path: &std::path::Path, count: usize) -> u64 {
    events.0.file.as_ref().unwrap().flush().await;
    let lines = lines(path);
    assert_eq!(lines.len(), count);
    lines.last().unwrap()["id"].as_u64().unwrap()
}

#[tokio::test]
async fn settings_that_can_t_be_are_refused_with_the_reason() {
    let sink = HttpSink::to_url;
    let table = [
        (vec![sink("ftp://h/x".into())], "`ftp` is no scheme"),
        (vec![sink("nowhere".into())], "url"),
        (
            vec![sink("http://h/x?key=1".into()), sink("http://h/x".into())],
            "two event sinks are called http://h/x",
        ),
        (vec![sink("http://h/".into()); 17], "17 event sinks; at most 16"),
        (vec![HttpSink { types: vec!["a[".into()], ..sink("http://h".into()) }], "types"),
        (vec![HttpSink { secret_file: Some("/no/secret".into()), ..sink("http://h".into()) }], "/no/secret"),
        (vec![HttpSink { secret: Some(sink::Secret(String::new())), ..sink("http://h".into()) }], "empty"),
        (vec![HttpSink { ca: Some("/no/ca".into()), ..sink("https://h".into()) }], "/no/ca"),
    ];
    for (sinks, words) in table {
        let settings = Settings { sinks, ..Settings::default() };
        let error = Events::open(settings, Store::in_memory()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(!error.contains("key=1"), "{error}");
    }
}
