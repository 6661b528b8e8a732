//! Tokens, roles, TLS and floods over real sockets.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    transports::{exchange, serve_for},
    *,
};
use crate::{
    config::Config,
    control::{
        auth::tests::with_tokens,
        server::{serve_ascii, serve_http, serve_json},
    },
};

const BYE: &str = "Command entered successfully!\r\nBye!\r\n\r\n\r\n";

fn failed(description: &str) -> String {
    format!("Command failed!\r\n{description}\r\n\r\n")
}

#[tokio::test]
async fn the_command_lines_take_a_token_first() {
    let access = Arc::new(with_tokens(false));
    let server = serve_for(access.clone(), Limits::default(), serve_ascii).await;
    let denied = failed("Not authenticated. Send auth token=… before other commands");
    let reply = exchange(
        server.addr,
        b"version\nauth secret-read\nauth token=x,secret-read\nauth token=wrong\nauth token=secret-read\n\
          getStreamsCount\nshutdownStream id=1\nquit\n",
    )
    .await;
    let syntax = failed("Syntax error. auth takes token=…, and nothing else");
    let expected = denied.clone()
        + &syntax
        + &syntax
        + &failed("Unauthorized: the token is not known")
        + "Command entered successfully!\r\nAuthenticated\r\n\r\n    name: the-read\r\n    role: read\r\n\r\n"
        + "Command entered successfully!\r\nActive streams count\r\n\r\n    streamCount: 0\r\n\r\n"
        + &failed("shutdownStream needs the role `operate`, and yours is `read`")
        + BYE;
    assert_eq!(reply, expected);
    assert_eq!(
        exchange(server.addr, b"record\nquit\n").await,
        denied + BYE,
        "another connection is another one"
    );
    server.stop().await;

    let server = serve_for(access, Limits::default(), serve_json).await;
    let reply = exchange(server.addr, b"auth token=secret-admin commandId=1\nquit\n").await;
    let authenticated = r#"{"data":{"name":"the-admin","role":"admin"},"description":"Authenticated","responseId":"1","status":"SUCCESS"}"#;
    assert!(reply.contains(authenticated), "{reply}");
    server.stop().await;
}

#[tokio::test]
async fn guesses_are_braked_on_every_transport() {
    let access = Arc::new(with_tokens(false));
    let ascii = serve_for(access.clone(), Limits::default(), serve_ascii).await;
    let http = serve_for(access, Limits::default(), serve_http).await;
    let reply = exchange(ascii.addr, &b"auth token=guess\n".repeat(9)).await;
    assert_eq!(reply.matches("the token is not known").count(), 5, "{reply}");
    assert!(reply.ends_with(&failed("Too many failed logins; try again in 1 s")), "and it hangs up: {reply}");
    let (head, body) = get(http.addr, "/api/v1/version", "Authorization: Bearer secret-admin\r\n").await;
    assert!(head.starts_with("http/1.1 429") && head.contains("\r\nretry-after: 1"), "{head}");
    assert!(body.contains("Too many failed logins"), "{body}");
    ascii.stop().await;
    http.stop().await;
}

async fn get(addr: SocketAddr, target: &str, headers: &str) -> (String, String) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    let reply = exchange(addr, request.as_bytes()).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn http_takes_a_token_with_each_request() {
    let server = serve_for(Arc::new(with_tokens(false)), Limits::default(), serve_http).await;
    // any:secret-read
    let basic = "Authorization: Basic YW55OnNlY3JldC1yZWFk\r\n";
    let bearer = |role: &str| format!("Authorization: Bearer secret-{role}\r\n");
    for (target, headers, status) in [
        ("/version", String::new(), 401),
        ("/api/v1/version", String::new(), 401),
        ("/api/v1/events", String::new(), 401),
        ("/api/v1/openapi.json", String::new(), 401),
        ("/api/v1/version", "Authorization: Digest x\r\n".into(), 401),
        ("/version", "Authorization: Bearer wrong\r\n".into(), 401),
        ("/version", basic.into(), 200),
        ("/api/v1/version", basic.into(), 200),
        ("/api/v1/version", bearer("admin"), 200),
        ("/api/v1/version", bearer("read") + "Origin: http://evil.example\r\n", 403),
    ] {
        let (head, body) = get(server.addr, target, &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{target} {headers}: {head}");
        assert_eq!(head.contains("\r\nwww-authenticate: bearer"), status == 401, "{head}");
        assert!(!body.contains("wrong"), "{body}");
    }
    let delete = |role: &str| {
        let line = "DELETE /api/v1/recordings/9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        format!("{line}{}\r\n", bearer(role))
    };
    let refused = exchange(server.addr, delete("read").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(refused.contains("removeConfig needs the role `operate`, and yours is `read`"), "{refused}");
    assert!(exchange(server.addr, delete("operate").as_bytes()).await.starts_with("HTTP/1.1 404"));
    server.stop().await;
}

#[tokio::test]
async fn a_proxy_on_this_machine_is_not_trusted() {
    let server = serve_for(Arc::new(with_tokens(true)), Limits::default(), serve_http).await;
    assert!(get(server.addr, "/version", "").await.0.starts_with("http/1.1 200"));
    for header in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "X-Real-IP: 192.0.2.1\r\n",
        "Via: 1.1 proxy\r\n",
    ] {
        assert!(get(server.addr, "/version", header).await.0.starts_with("http/1.1 401"), "{header}");
    }
    server.stop().await;
}

/// Access by TLS with a certificate of its own, and what trusts it.
fn with_tls() -> (Arc<Access>, TlsConnector, TempDir) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let config = Config { tls_cert: Some(cert), tls_key: Some(key), ..Config::default() };
    let access = Arc::new(Access::open(&config).unwrap());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(own.cert.pem().as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (access, TlsConnector::from(Arc::new(client)), dir)
}

async fn connect(addr: SocketAddr, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(addr).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
}

async fn secretly(addr: SocketAddr, connector: &TlsConnector, bytes: &[u8]) -> String {
    let mut stream = connect(addr, connector).await;
    stream.write_all(bytes).await.unwrap();
    let mut reply = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut reply)).await;
    read.expect("the server closes").expect("in order, with close_notify");
    String::from_utf8(reply).unwrap()
}

#[tokio::test]
async fn every_transport_speaks_tls_and_this_machine_may_go_without() {
    let (access, connector, _dir) = with_tls();
    let ascii = serve_for(access.clone(), Limits::default(), serve_ascii).await;
    assert_eq!(secretly(ascii.addr, &connector, b"quit\n").await, BYE);
    assert_eq!(exchange(ascii.addr, b"quit\n").await, BYE);
    ascii.stop().await;

    let json = serve_for(access.clone(), Limits::default(), serve_json).await;
    assert!(secretly(json.addr, &connector, b"quit\n").await.contains("Bye!"));
    json.stop().await;

    let http = serve_for(access, Limits::default(), serve_http).await;
    let request = |origin: &str| {
        format!(
            "GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: {origin}\r\n\r\n"
        )
    };
    let reply = secretly(http.addr, &connector, request("https://localhost").as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let reply = secretly(http.addr, &connector, request("http://localhost").as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    let reply = exchange(http.addr, request("http://localhost").as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    // Not a handshake, though it begins like one.
    let mut broken = TcpStream::connect(http.addr).await.unwrap();
    broken.write_all(&[22, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(10), broken.read_to_end(&mut rest)).await;
    let _ = end.expect("it is closed");
    http.stop().await;
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_out() {
    let limits = Limits { clients: 8, http_clients: 8, ..Limits::default() };
    let (access, connector, _dir) = with_tls();
    let ascii = serve_for(access.clone(), limits, serve_ascii).await;
    let http = serve_for(access, limits, serve_http).await;
    let mut settled = TcpStream::connect(ascii.addr).await.unwrap();
    settled.write_all(b"foobar\n").await.unwrap();
    settled.read_u8().await.unwrap();
    let mut idle = Vec::new();
    for i in 0..50 {
        for addr in [ascii.addr, http.addr] {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            // Some send the start of a command, some of a request, some of a handshake.
            let start: &[u8] = [&b""[..], b"versi", b"GET /vers", b"\x16\x03\x01"][i % 4];
            socket.write_all(start).await.unwrap();
            idle.push(socket);
        }
    }
    assert_eq!(exchange(ascii.addr, b"quit\n").await, BYE);
    assert_eq!(secretly(ascii.addr, &connector, b"quit\n").await, BYE);
    assert!(get(http.addr, "/version", "").await.0.starts_with("http/1.1 200"));
    // Who was there before, and has done something, still is.
    settled.write_all(b"quit\n").await.unwrap();
    let mut rest = String::new();
    timeout(Duration::from_secs(10), settled.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.ends_with(BYE), "{rest}");
    drop(idle);
    ascii.stop().await;
    http.stop().await;
}
