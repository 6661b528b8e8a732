//! The REST API of a real server with a real stream, held against its own description.

use serde_json::{Value, json};

use crate::{
    media,
    process::until,
    senders,
    server::{Server, ask_open},
};

/// Sends a request; returns the status and the JSON.
fn send(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = ask_open(server.address("http-cli"), request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body:?}")))
}

/// Checks an answer against what the document says of the operation.
fn check(document: &Value, method: &str, path: &str, status: u16, answer: &Value) {
    let responses = &document["paths"][path][method.to_lowercase()]["responses"];
    let mut response = &responses[status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
    }
    let content = response["content"]
        .as_object()
        .unwrap_or_else(|| panic!("{method} {path}: {status} is not described"));
    let (_, content) = content.iter().next().unwrap();
    let mut schema = content["schema"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {path}: {errors:#?} in {answer:#}");
}

#[test]
fn answers_are_as_described() {
    let server = Server::start();
    let (status, document) = send(&server, "GET", "/openapi.json", "");
    assert_eq!(status, 200);
    let ask = |method: &str, path: &str, at: &str, body: &str| {
        let (status, answer) = send(&server, method, at, body);
        check(&document, method, path, status, &answer);
        (status, answer)
    };
    let _sender = senders::endless(&media::clip(), &server.url("cam1"));
    until("the stream", || server.is_live("cam1").then_some(()));
    let body = json!({"localStreamName": "cam1", "pathToFile": "rest", "chunkLength": 1, "_who": "me"});
    let (status, made) = ask("POST", "/recordings", "/recordings", &body.to_string());
    assert_eq!((status, &made["_who"]), (201, &json!("me")));
    let id = made["configId"].as_u64().unwrap();
    // Both kinds of streams, and a disk, are there then.
    let streams = until("the recorded stream", || {
        let (_, streams) = ask("GET", "/streams", "/streams", "");
        (streams.as_array().unwrap().len() == 2).then_some(streams)
    });
    let stream = streams.as_array().unwrap().iter().find(|stream| stream["type"] == "OFMP4").unwrap();
    let (_, disks) = ask("GET", "/disks", "/disks", "");
    assert_eq!(disks.as_array().unwrap().len(), 1, "{disks}");

    // Every other GET that needs nothing, or an id.
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_none() || path == "/events" || path == "/openapi.json" {
            continue;
        }
        let id = if path.starts_with("/streams") { stream["uniqueId"].as_u64().unwrap() } else { id };
        let at = path.replace("{id}", &id.to_string());
        if at.contains('{') {
            continue;
        }
        let parameters = methods["get"]["parameters"].as_array().unwrap();
        let takes = |name: &str| parameters.iter().any(|p| p["name"] == name && p["in"] == "query");
        let at =
            if takes("localStreamName") && !path.contains('{') { at + "?localStreamName=cam1" } else { at };
        let (status, answer) = ask("GET", path, &at, "");
        assert_eq!(status, 200, "{at}: {answer}");
        asked += 1;
    }
    assert!(asked >= 10, "{asked}");

    for (method, path, at, body, expected) in [
        ("GET", "/recordings/{id}", "/recordings/999", "", 404),
        ("POST", "/recordings", "/recordings", "{\"x\":1}", 400),
        ("DELETE", "/streams/{id}", "/streams/999", "", 404),
    ] {
        let (status, answer) = ask(method, path, at, body);
        assert_eq!(status, expected, "{at}: {answer}");
    }
    until("its file", || {
        server.media_names().iter().any(|name| name.starts_with("rest_part0000.mp4")).then_some(())
    });
    let (status, _) = ask("DELETE", "/recordings/{id}", &format!("/recordings/{id}"), "");
    assert_eq!(status, 200);
    assert!(server.media_names().contains(&"rest_part0000.mp4".to_owned()));
    let (status, _) = ask("DELETE", "/streams", "/streams?localStreamName=cam1", "");
    assert_eq!(status, 200);
}

/// To the byte, but for the date: what was there before the API goes on as it was.
#[test]
fn the_old_command_line_is_as_it_was() {
    let server = Server::start();
    for (request, body) in [
        ("GET /quit", r#"{"data":null,"description":"Bye!","status":"SUCCESS"}"#),
        (
            "GET /getconfiginfo?params=aWQ9OTk=",
            r#"{"data":null,"description":"Config ID not found","status":"FAIL"}"#,
        ),
        (
            "GET /record?params=cGF0aFRvRmlsZT1h",
            r#"{"data":null,"description":"Syntax error. Parameter localStreamName is invalid","status":"FAIL"}"#,
        ),
    ] {
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = ask_open(server.address("http-cli"), request.as_bytes());
        let (head, rest) = answer.split_once("\r\ndate: ").unwrap_or_else(|| panic!("{answer}"));
        let (_, rest) = rest.split_once("\r\n").unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let length = body.len() + 4;
        let expected = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\nserver: Reelwright/{version}\r\n\
             cache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-length: {length}"
        );
        assert_eq!((head, rest), (expected.as_str(), format!("\r\n{body}\r\n\r\n").as_str()));
    }
}
