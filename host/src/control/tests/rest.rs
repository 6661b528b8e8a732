//! The REST API and its events over real sockets: every status, and bounds.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    transports::{Server, exchange, http},
    *,
};
use crate::events::Event;

/// What an answer has.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: Value,
}

async fn send(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n{body}"
    );
    let answer = exchange(server.addr, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer}"));
    Answer { status, head: head.to_ascii_lowercase(), body }
}

const JSON: &str = "Content-Type: application/json; charset=utf-8\r\n";

#[tokio::test]
async fn every_status_says_what_it_is() {
    let server = http(Limits { request: Duration::from_millis(500), ..Limits::default() }).await;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    let table = [
        ("GET", "/version", "", "", 200, ""),
        ("GET", "/nowhere", "", "", 404, "Nothing is at this path; /api/v1/openapi.json has all"),
        ("GET", "", "", "", 404, "Nothing is at this path; /api/v1/openapi.json has all"),
        ("PATCH", "/recordings", "", "", 405, "This takes GET, POST"),
        ("POST", "/events", "", "", 405, "This takes GET"),
        ("DELETE", "/openapi.json", "", "", 405, "This takes GET"),
        (
            "POST",
            "/recordings",
            JSON,
            "[",
            400,
            "Syntax error. The body is not JSON: EOF while parsing a list",
        ),
        ("POST", "/recordings", JSON, "{}", 400, "Syntax error. No parameters provided"),
        ("POST", "/recordings", "", "{}", 415, "The body has to be application/json"),
        (
            "POST",
            "/recordings",
            "Content-Type: text/plain\r\n",
            "{}",
            415,
            "The body has to be application/json",
        ),
        ("POST", "/recordings", JSON, &long, 413, "The body is longer than 16384 bytes"),
        ("POST", "/recordings", "Content-Length: 5\r\n", "", 408, "The request did not come within 0.5 s"),
        (
            "POST",
            "/recordings?localStreamName=a",
            JSON,
            r#"{"pathToFile":"x","chunklenght":1}"#,
            400,
            "Syntax error. Parameter chunklenght is not known; did you mean chunkLength?",
        ),
        (
            "POST",
            "/recordings?localStreamName=a",
            JSON,
            r#"{"localStreamName":"b"}"#,
            400,
            "Syntax error. Parameter localstreamname is given twice",
        ),
        ("GET", "/recordings/99", "", "", 404, "Config ID not found"),
        ("GET", "/recordings/x", "", "", 400, "Syntax error. Parameter id is invalid"),
        (
            "GET",
            "/recordings/%0A",
            "",
            "",
            400,
            "Syntax error. Parameter id has a control character (U+000A)",
        ),
        ("DELETE", "/streams/99", "", "", 404, "Stream no longer available"),
        (
            "GET",
            "/version",
            "Origin: http://evil.example\r\n",
            "",
            403,
            "Origin `http://evil.example` is another",
        ),
        ("GET", "/events?types=a&x=1", "", "", 400, "Parameter x is not known; there are types and configId"),
    ];
    for (method, path, headers, body, status, detail) in table {
        let answer = send(&server, method, path, headers, body).await;
        let at = format!("{method} {path}: {}", answer.body);
        assert_eq!(answer.status, status, "{at}");
        if status == 200 {
            assert!(answer.head.contains("\r\ncontent-type: application/json\r\n"), "{at}");
            continue;
        }
        assert!(answer.head.contains("\r\ncontent-type: application/problem+json\r\n"), "{at}");
        assert!(answer.body["detail"].as_str().unwrap().starts_with(detail), "{at}");
        assert_eq!(answer.body["status"], status, "{at}");
        assert_eq!(answer.head.contains("\r\nallow: "), status == 405, "{at}");
    }
    server.stop().await;
}

/// More requests that never come whole than there are places.
#[tokio::test]
async fn half_sent_requests_keep_nobody_waiting() {
    let server = http(Limits { request: Duration::from_secs(600), ..Limits::default() }).await;
    let half = format!(
        "POST /api/v1/recordings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{JSON}Content-Length: 99\r\n\r\n{{\"a"
    );
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(half.as_bytes()).await.unwrap();
        waiting.push(socket);
    }
    // The server reads all heads before it is asked: none of these connections is new to it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = timeout(Duration::from_secs(30), send(&server, "GET", "/version", "", "")).await;
    assert_eq!(asked.expect("an answer").status, 200);
    // One that goes on in time is served.
    let mut last = waiting.pop().unwrap();
    last.write_all(&[b'x'; 96]).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(30), last.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    drop(waiting);
    server.stop().await;
}

#[tokio::test]
async fn what_is_made_has_a_place() {
    let server = http(Limits::default()).await;
    let body =
        r#"{"localStreamName":"cam1","pathToFile":"b","keepAlive":false,"chunkLength":60,"_who":"me/you"}"#;
    let made = send(&server, "POST", "/recordings", JSON, body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.head.contains("\r\nlocation: /api/v1/recordings/1\r\n"), "{}", made.head);
    assert_eq!((&made.body["keepAlive"], &made.body["_who"]), (&json!(false), &json!("me/you")));

    let list = send(&server, "GET", "/recordings", "", "").await;
    assert_eq!(list.body[0]["configId"], 1);
    assert_eq!(send(&server, "GET", "/recordings/1", "", "").await.body, list.body[0]);
    assert_eq!(send(&server, "GET", "/streams", "", "").await.body, json!([]));
    assert_eq!(send(&server, "DELETE", "/recordings/1", "", "").await.status, 200);
    let gone = send(&server, "DELETE", "/recordings/1?commandId=k", "", "").await;
    let expected = json!({
        "type": "about:blank", "title": "Not Found", "status": 404, "detail": "Config ID not found",
        "command": "removeConfig", "responseId": "k",
    });
    assert_eq!(gone.body, expected);
    let keyed = send(&server, "DELETE", "/recordings/1", "Idempotency-Key: key-7\r\n", "").await;
    assert_eq!(keyed.body["responseId"], "key-7");
    server.stop().await;
}

#[tokio::test]
async fn it_describes_itself() {
    let server = http(Limits::default()).await;
    let document = send(&server, "GET", "/openapi.json", "", "").await;
    assert_eq!(document.body, openapi::document(&COMMANDS));
    server.stop().await;
}

/// Opens a stream of events, and reads its head and first line.
async fn listen(server: &Server, query: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let request = format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut socket, "retry: 2000\n\n").await;
    assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
    socket
}

async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&text).contains(end) {
            let byte = socket.read_u8().await;
            text.push(byte.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text))));
        }
    };
    let result = timeout(Duration::from_secs(10), read).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    result.unwrap_or_else(|_| panic!("no {end:?} in {text:?}"));
    text
}

#[tokio::test]
async fn events_come_as_they_happen() {
    // Longer than a request may take.
    let limits = Limits { request: Duration::from_millis(50), ..Limits::default() };
    let server = http(limits).await;
    let (mut all, mut some) = (listen(&server, "").await, listen(&server, "?types=b&configId=7").await);
    tokio::time::sleep(Duration::from_millis(150)).await;
    for (kind, id) in [("a", 7), ("b", 8), ("b", 7)] {
        server.context.events.send(Event::new(kind, json!({ "configId": id })).of(id));
    }
    let text = read_until(&mut all, "\"configId\":7}").await;
    assert!(text.contains("id: 1\nevent: a\ndata: {"), "{text}");
    let text = read_until(&mut some, "\"configId\":7}").await;
    assert!(text.contains("id: 3\nevent: b\ndata: {") && !text.contains("id: 2"), "{text}");

    let mut more = Vec::new();
    for _ in 2..32 {
        more.push(listen(&server, "").await);
    }
    let refused = send(&server, "GET", "/events", "", "").await;
    assert_eq!((refused.status, &refused.body["detail"]), (429, &json!("32 listen to events already")));
    // All end when the server does.
    server.stop().await;
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(5), all.read_to_end(&mut rest)).await;
    end.expect("it ends").expect("in order");
}
