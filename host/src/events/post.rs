//! One event to one receiver: an HTTP POST, signed if there is a secret.

use std::{error::Error as _, time::Duration};

use hmac::{Hmac, Mac};
use reqwest::{Client, Url, redirect};
use sha2::Sha256;

use super::sink::SinkError;

/// Bytes of a response's body that are read, so that the connection can be used again; the body means nothing.
const MAX_BODY: usize = 16 << 10;

/// Why an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// It takes nothing from anybody now.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    #[error("answered {0}")]
    Refused(u16),
    /// It took the connection and not the event: no answer in time, or a broken one.
    #[error("{0}")]
    Broke(String),
    /// The event could not be read from the outbox.
    #[error("the outbox can't be read: {0}")]
    Unread(String),
}

/// A receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    client: Client,
    url: Url,
    secret: Option<Vec<u8>>,
    /// Of this server's database; with an event's id it names the event in the whole world.
    instance: u64,
}

/// An HTTP client as this server uses it: it follows no redirects, uses no proxy, and trusts the system's certificate
/// authorities or, if there is one, only that of a PEM file's text.
pub(crate) fn client(timeout: Duration, ca: Option<&[u8]>) -> Result<Client, reqwest::Error> {
    // Another part of the server, or a test, may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .user_agent(concat!("reelwright/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = ca {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    builder.build()
}

impl Receiver {
    pub(super) fn new(
        url: Url,
        timeout: Duration,
        secret: Option<Vec<u8>>,
        ca: Option<&[u8]>,
        instance: u64,
    ) -> Result<Self, SinkError> {
        let client = client(timeout, ca).map_err(|error| SinkError::Client(reason(&error)))?;
        Ok(Self { client, url, secret, instance })
    }

    /// Posts an event, at this time in seconds since 1970.
    pub(super) async fn post(&self, id: u64, kind: &str, body: String, now: u64) -> Result<(), Failure> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("x-reelwright-event", kind)
            .header("x-reelwright-timestamp", now)
            .header("idempotency-key", format!("{:016x}-{id}", self.instance));
        if let Some(secret) = &self.secret {
            request = request.header("x-reelwright-signature", signature(secret, now, &body));
        }
        let failure = |error: reqwest::Error| match error.is_connect() {
            true => Failure::Unreachable(reason(&error)),
            false => Failure::Broke(reason(&error)),
        };
        let mut response = request.body(body).send().await.map_err(failure)?;
        let status = response.status();
        let mut read = 0;
        while read < MAX_BODY
            && let Ok(Some(chunk)) = response.chunk().await
        {
            read += chunk.len();
        }
        if status.is_success() { Ok(()) } else { Err(Failure::Refused(status.as_u16())) }
    }
}

/// `sha256=` and the hexadecimal HMAC-SHA256 of `TIMESTAMP.BODY`.
fn signature(secret: &[u8], timestamp: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What went wrong, without the URL, which may hold a secret.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| "the request failed".into(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn signatures_are_those_of_other_implementations() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "sha256=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(signature(b"secret", 1_700_000_000, "{\"a\":1}"), expected);
    }

    /// A server over TLS that says yes to as many requests. Returns its URL and its certificate.
    async fn https(requests: usize) -> (Url, Vec<u8>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for _ in 0..requests {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"the body") {
                    assert!(socket.read_buf(&mut request).await.unwrap() > 0);
                }
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                socket.write_all(answer).await.unwrap();
                let _ = socket.shutdown().await;
            }
        });
        (Url::parse(&format!("https://localhost:{port}/")).unwrap(), issued.cert.pem().into_bytes())
    }

    #[tokio::test]
    async fn a_receiver_over_tls_is_known_by_its_authority() {
        let (url, ca) = https(2).await;
        let post = async |ca: Option<&[u8]>| {
            let receiver = Receiver::new(url.clone(), Duration::from_secs(60), None, ca, 1).unwrap();
            receiver.post(1, "x", "the body".into(), 0).await
        };
        assert_eq!(post(Some(&ca)).await, Ok(()));
        let Err(Failure::Unreachable(reason)) = post(None).await else { panic!("a stranger was trusted") };
        assert!(reason.to_lowercase().contains("certificate"), "{reason}");
    }
}
