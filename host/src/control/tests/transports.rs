//! The transports over real sockets, with commands that need no recording.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::*;
use crate::control::{
    client,
    server::{serve_ascii, serve_http, serve_json},
};

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    pub(super) context: Arc<Context>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _media: TempDir,
}

impl Server {
    pub(super) async fn stop(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.task).await.expect("it stops").unwrap();
    }
}

/// Binds a port, and serves it.
pub(super) async fn serve<F: Future<Output = ()> + Send + 'static>(
    limits: Limits,
    transport: fn(TcpListener, Arc<Context>, CancellationToken) -> F,
) -> Server {
    serve_for(Arc::default(), limits, transport).await
}

/// The same, for those who may enter.
pub(super) async fn serve_for<F: Future<Output = ()> + Send + 'static>(
    access: Arc<Access>,
    limits: Limits,
    transport: fn(TcpListener, Arc<Context>, CancellationToken) -> F,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (context, media) = context(limits).await;
    let context = Arc::new(Context { access, ..(*context).clone() });
    let task = tokio::spawn(transport(listener, context.clone(), stop.clone()));
    Server { addr, context, stop, task, _media: media }
}

async fn ascii(limits: Limits) -> Server {
    serve(limits, serve_ascii).await
}

pub(super) async fn http(limits: Limits) -> Server {
    serve(limits, serve_http).await
}

/// Sends bytes and reads until the server closes.
pub(super) async fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    rest(&mut socket).await
}

pub(super) async fn rest(socket: &mut TcpStream) -> String {
    let mut reply = Vec::new();
    let read = timeout(Duration::from_secs(10), socket.read_to_end(&mut reply)).await;
    read.expect("the server closes").expect("without a reset");
    String::from_utf8(reply).unwrap()
}

const BYE: &str = "Command entered successfully!\r\nBye!\r\n\r\n\r\n";
const NOT_KNOWN: &str = "Command failed!\r\ncommand foobar not known. Type help for list of commands\r\n\r\n";

fn version() -> String {
    let release = env!("CARGO_PKG_VERSION");
    format!(
        "Command entered successfully!\r\nVersion\r\n\r\n    banner: Reelwright live-stream recorder version \
         {release}\r\n    buildDate: \r\n    buildNumber: \r\n    codeName: Reelwright\r\n    \
         releaseNumber: {release}\r\n\r\n"
    )
}

#[tokio::test]
async fn commands_in_one_write_are_answered_in_order() {
    let server = ascii(Limits::default()).await;
    let reply = exchange(server.addr, b"\xff\xfd\x03version\r\n\r\n\n  FooBar \rquit\r\nversion\r\n").await;
    assert_eq!(reply, version() + NOT_KNOWN + BYE);
    server.stop().await;
}

#[tokio::test]
async fn json_replies_come_behind_their_length() {
    let server = serve(Limits::default(), serve_json).await;
    let reply = exchange(server.addr, b"foobar\r\n\r\nquit commandId=9\r\n").await;
    let framed = |json: &str| format!("\0\0\0{}{json}\r\n\r\n", char::from(json.len() as u8 + 4));
    let not_known =
        r#"{"data":null,"description":"command foobar not known. Type help for list of commands","#;
    let bye = r#"{"data":null,"description":"Bye!","responseId":"9","status":"SUCCESS"}"#;
    assert_eq!(reply, framed(&format!("{not_known}\"status\":\"FAIL\"}}")) + &framed(bye));
    server.stop().await;
}

#[tokio::test]
async fn a_command_in_pieces_is_one_command() {
    let server = ascii(Limits::default()).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in [&b"foo"[..], b"bar", b"\r", b"\nqu", b"it\n"] {
        socket.write_all(piece).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rest(&mut socket).await, NOT_KNOWN.to_owned() + BYE);
    server.stop().await;
}

#[tokio::test]
async fn a_megabyte_line_is_refused_and_others_go_on() {
    let server = ascii(Limits::default()).await;
    let mut other = TcpStream::connect(server.addr).await.unwrap();
    let mut line = vec![b'a'; 1 << 20];
    line.extend(b"\nversion\n");
    let reply = exchange(server.addr, &line).await;
    assert_eq!(reply, "Command failed!\r\nSyntax error. The command is longer than 16384 bytes\r\n\r\n");
    other.write_all(b"quit\n").await.unwrap();
    assert_eq!(rest(&mut other).await, BYE);
    server.stop().await;
}

#[tokio::test]
async fn bad_input_gets_an_error_and_the_connection_goes_on() {
    let server = ascii(Limits::default()).await;
    let table: [(&[u8], &str); 7] = [
        (b"x \x01", "Syntax error. The command has a control character (U+0001) at byte 3"),
        (b"x \xc3", "Syntax error. The command is not UTF-8 at byte 3"),
        (b"x =1", "Syntax error. The parameter at byte 3 has no name"),
        (b"version verbose=1", "Syntax error. Parameter verbose is not known. Type help for details"),
        (b"version comandId=1", "Syntax error. Parameter comandId is not known; did you mean commandId?"),
        (b"version commandId=a,b", "Syntax error. Parameter commandId is invalid"),
        (
            b"record chunklenght=1",
            "Syntax error. Parameter chunklenght is not known; did you mean chunkLength?",
        ),
    ];
    for (line, error) in table {
        let reply = exchange(server.addr, &[line, b"\nquit\n"].concat()).await;
        assert_eq!(reply, format!("Command failed!\r\n{error}\r\n\r\n{BYE}"));
    }
    let reply = exchange(server.addr, b"version _any=1\nquit\n").await;
    assert_eq!(reply, version() + BYE);
    server.stop().await;
}

/// What a web page can make a browser send here.
#[tokio::test]
async fn commands_in_a_web_request_are_not_run() {
    let server = ascii(Limits::default()).await;
    let request = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:1222\r\nContent-Type: text/plain\r\n\r\nversion\r\n";
    for start in [&request[..], &request[17..]] {
        let replies = exchange(server.addr, start).await;
        assert_eq!(replies.matches("Command").count(), 1, "{replies}");
        assert!(replies.contains("no HTTP port"), "{replies}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_command_cut_off_is_not_run() {
    let server = ascii(Limits::default()).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"foobar\nvers").await.unwrap();
    socket.shutdown().await.unwrap();
    let error = "Command failed!\r\nSyntax error. The last command has no line end\r\n\r\n";
    assert_eq!(rest(&mut socket).await, NOT_KNOWN.to_owned() + error);
    server.stop().await;
}

#[tokio::test]
async fn clients_and_their_patience_are_bounded() {
    let limits = Limits { clients: 1, idle: Duration::from_millis(100), ..Limits::default() };
    let server = ascii(limits).await;
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    // Answered, so it has its seat.
    first.write_all(b"foobar\n").await.unwrap();
    let mut answered = vec![0; NOT_KNOWN.len()];
    first.read_exact(&mut answered).await.unwrap();
    let refused = exchange(server.addr, b"").await;
    assert_eq!(refused, "Command failed!\r\nToo many connections: 1 clients are served already\r\n\r\n");
    assert_eq!(rest(&mut first).await, "Command failed!\r\nNo command came in 0.1 s\r\n\r\n");
    drop(first);
    // The seat is free again, at the latest when the server has done with the first client.
    let again = async {
        while exchange(server.addr, b"quit\n").await != BYE {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), again).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn stopping_ends_idle_clients() {
    let server = ascii(Limits::default()).await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(b"foobar\n").await.unwrap();
    idle.read_exact(&mut vec![0; NOT_KNOWN.len()]).await.unwrap();
    let addr = server.addr;
    server.stop().await;
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn the_client_tells_success_from_failure() {
    let server = ascii(Limits::default()).await;
    assert_eq!(client::ascii(server.addr, "version").await.unwrap(), (true, version()));
    assert_eq!(client::ascii(server.addr, " FOOBAR ").await.unwrap(), (false, NOT_KNOWN.into()));
    assert_eq!(client::ascii(server.addr, "quit").await.unwrap(), (true, BYE.into()));
    let long = client::ascii(server.addr, &"a".repeat(1 << 20)).await.unwrap();
    assert!(!long.0 && long.1.contains("longer than 16384 bytes"));
    for bad in ["", " ", "version\nquit"] {
        assert!(matches!(client::ascii(server.addr, bad).await, Err(client::ClientError::NotALine)));
    }
    let addr = server.addr;
    server.stop().await;
    assert!(matches!(client::ascii(addr, "version").await, Err(client::ClientError::Connect(_))));
}

#[tokio::test]
async fn the_client_does_not_take_anything_for_a_reply() {
    let server = http(Limits::default()).await;
    assert!(matches!(client::ascii(server.addr, "version").await, Err(client::ClientError::NotAReply(_))));
    server.stop().await;
}

/// Head and body of a reply to a GET with these header lines.
async fn get(server: &Server, target: &str, headers: &str) -> (String, String) {
    let request = format!("GET {target} HTTP/1.1\r\n{headers}\r\n");
    let reply = exchange(server.addr, request.as_bytes()).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

const HOST: &str = "Host: localhost:7777\r\n";

#[tokio::test]
async fn http_has_what_prometheus_reads() {
    let server = http(Limits::default()).await;
    let (head, body) = get(&server, "/metrics", &format!("{HOST}Connection: close\r\n")).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("\n# TYPE reelwright_streams gauge\nreelwright_streams 0\n"), "{body}");
    for format in ["flv", "mp4", "ts"] {
        let line = format!("\nreelwright_format_segments_total{{format=\"{format}\",version=\"");
        assert!(body.contains(&line), "{line}: {body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn http_replies_are_json_whatever_the_status() {
    let server = http(Limits::default()).await;
    let (head, body) = get(&server, "/version?params=Y29tbWFuZElkPTc3", HOST).await;
    let release = env!("CARGO_PKG_VERSION");
    let expected = format!(
        r#"{{"data":{{"banner":"Reelwright live-stream recorder version {release}","branchName":"","#
    ) + &format!(
        r#""buildDate":"","buildNumber":"","codeName":"Reelwright","hash":"","releaseNumber":"{release}"}},"#
    ) + r#""description":"Version","responseId":"77","status":"SUCCESS"}"#;
    assert_eq!(body, expected.clone() + "\r\n\r\n");
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    for line in [
        "connection: close",
        "content-type: text/plain",
        &format!("content-length: {}", body.len()),
        &format!("server: reelwright/{release}"),
    ] {
        assert!(head.lines().any(|l| l == line), "{line} in {head}");
    }

    let fail =
        |text: &str| format!("{{\"data\":null,\"description\":\"{text}\",\"status\":\"FAIL\"}}\r\n\r\n");
    let table = [
        ("/", fail("command  not known. Type help for list of commands")),
        ("/FooBar", fail("command foobar not known. Type help for list of commands")),
        ("/record", fail("Syntax error. No parameters provided")),
        // localStreamName=cam1
        (
            "/record?params=%20bG9jYWxTdHJlYW1OYW1lPWNhbTE=",
            fail("Syntax error. Parameter pathToFile is invalid"),
        ),
        ("/quit", r#"{"data":null,"description":"Bye!","status":"SUCCESS"}"#.to_owned() + "\r\n\r\n"),
    ];
    for (target, expected) in table {
        let (head, body) = get(&server, target, HOST).await;
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{target}: {head}");
        assert_eq!(body, expected, "{target}");
    }
    let (head, body) = get(&server, "/record?params=not+base64!", HOST).await;
    assert!(
        head.starts_with("http/1.1 200 ok\r\n") && body.contains("must hold base64 of key=value"),
        "{body}"
    );
    server.stop().await;
}

#[tokio::test]
async fn http_refuses_other_sites_and_other_methods() {
    let server = http(Limits::default()).await;
    for headers in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        let (head, body) = get(&server, "/version", headers).await;
        assert!(head.starts_with("http/1.1 403 forbidden\r\n"), "{headers}: {head}");
        assert!(body.starts_with(r#"{"data":null,"description":"Forbidden: "#), "{body}");
    }
    let post =
        exchange(server.addr, b"POST /version HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            .await;
    assert!(post.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{post}");
    assert!(post.contains("Commands are sent with GET, not POST"), "{post}");
    let old = exchange(server.addr, b"GET /foobar HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
    server.stop().await;
}

#[tokio::test]
async fn http_requests_are_bounded_in_size_and_time() {
    let limits = Limits { request: Duration::from_millis(200), http_clients: 1, ..Limits::default() };
    let server = http(limits).await;
    let (head, body) = get(&server, &format!("/record?params={}", "YWFh".repeat(6000)), HOST).await;
    assert!(head.starts_with("http/1.1 200") && body.contains("longer than 16384 bytes"), "{head} {body}");
    let (head, _) = get(&server, &format!("/record?params={}", "YWFh".repeat(20_000)), HOST).await;
    assert!(head.starts_with("http/1.1 414"), "{head}");

    // A request that trickles in, while another client waits for the only seat.
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    slow.write_all(b"GET /version HTTP/1.1\r\n").await.unwrap();
    let waiting = tokio::spawn(exchange(server.addr, b"GET /quit HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    for _ in 0..100 {
        if slow.write_all(b"X: y\r\n").await.is_err() || waiting.is_finished() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(waiting.await.unwrap().contains("Bye!"));
    server.stop().await;
}
