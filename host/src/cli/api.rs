//! Requests to a server, and what can become of them.

use std::{error::Error, net::IpAddr, time::Duration};

use reqwest::{Certificate, Client, Method, Response, StatusCode, Url, redirect};
use serde_json::Value;

use crate::control::rest::BASE;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: a recording that is stopped closes its files first.
const ANSWER: Duration = Duration::from_secs(300);
/// Longest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "can't reach the server at {server}: {reason}. Is it running there? --server or REELWRIGHT_SERVER says \
         where it is"
    )]
    Unreachable { server: String, reason: String },
    #[error("what answers at {server} is no Reelwright server: {reason}")]
    NotOurs { server: String, reason: String },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
}

/// A server.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    server: String,
    token: Option<String>,
}

impl Api {
    /// A server at a URL. `ca`: what its certificate is checked against, in PEM; the system's if it is `None`.
    pub(super) fn new(server: &str, token: Option<String>, ca: Option<&[u8]>) -> anyhow::Result<Self> {
        let builder =
            Client::builder().connect_timeout(CONNECT).no_proxy().redirect(redirect::Policy::none());
        let builder = match ca {
            Some(pem) => {
                let certificates = Certificate::from_pem_bundle(pem)?;
                anyhow::ensure!(!certificates.is_empty(), "--ca has no certificate in PEM");
                builder.tls_certs_only(certificates)
            }
            // Not needed, and the system may have none.
            None if !server.starts_with("https:") => builder.tls_certs_only([]),
            None => builder,
        };
        let server = server.trim_end_matches('/').to_owned();
        anyhow::ensure!(
            server.starts_with("http://") || server.starts_with("https://"),
            "it is no http:// or https:// address"
        );
        Ok(Self { client: builder.build()?, server, token })
    }

    /// The data of an answer.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// The same for any request; a body is sent as JSON.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut text = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            text.extend_from_slice(&piece);
            if text.len() > MAX_ANSWER {
                return Err(self.not_ours(format!("its answer is longer than {MAX_ANSWER} bytes")));
            }
        }
        let json: Result<Value, _> = serde_json::from_slice(&text);
        match json {
            Ok(data) if status.is_success() => Ok(data),
            Ok(problem) if problem["detail"].is_string() => Err(refused(status, &problem)),
            _ => Err(self.not_ours(format!("it answers {status}"))),
        }
    }

    /// Opens the stream of events.
    pub(super) async fn events(&self) -> Result<Response, Failure> {
        let response = self.request(Method::GET, "/events").send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.not_ours(format!("it answers {status} to /events"))),
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{BASE}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::Unreachable { server: self.server.clone(), reason: root(error) }
    }

    fn not_ours(&self, reason: String) -> Failure {
        Failure::NotOurs { server: self.server.clone(), reason }
    }
}

fn refused(status: StatusCode, problem: &Value) -> Failure {
    let detail = super::show::line(problem["detail"].as_str().unwrap_or_default());
    Failure::Refused(match status {
        StatusCode::UNAUTHORIZED => format!("{detail}; --token-file or REELWRIGHT_TOKEN gives one"),
        _ => detail,
    })
}

/// The innermost cause, which says most.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether what is sent to a URL can be read on the way.
pub(super) fn is_exposed(server: &str) -> bool {
    let Ok(url) = Url::parse(server) else { return false };
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_local = host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
    url.scheme() == "http" && !is_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_listen() {
        for server in
            ["http://127.0.0.1:7777", "http://localhost", "http://[::1]:7777/", "https://rec.example"]
        {
            assert!(!is_exposed(server), "{server}");
        }
        for server in
            ["http://rec.example", "http://127.evil.example", "http://localhost.evil.example", "http://[::2]"]
        {
            assert!(is_exposed(server), "{server}");
        }
    }
}
