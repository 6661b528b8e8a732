//! The HTTP CLI: `GET /<command>?params=<base64 of the parameters>`, JSON out.
//!
//! A reply has status 200 whether the command did what it was asked for or not. Other codes are for requests that
//! are no commands at all. Below `/api/v1` is the REST API instead ([`api`]).

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::control::{
    Caller, Context, answer,
    parse::{Line, ParseError},
    percent,
    reply::Reply,
};

mod api;
mod connection;
mod events;
mod login;
mod origin;

use connection::{Bounded, Peer};
use origin::Own;

/// Who answers, as the `Server` header has it.
const SERVER: &str = concat!("Reelwright/", env!("CARGO_PKG_VERSION"));

/// What requests share.
struct Web {
    context: Arc<Context>,
    stop: CancellationToken,
    /// Who may listen to events.
    listeners: Arc<Semaphore>,
}

/// Serves until `stop`, then lets each client have the reply it waits for.
pub async fn serve_http(listener: TcpListener, context: Arc<Context>, stop: CancellationToken) {
    let listener = Bounded::new(listener, &context.limits, context.access.clone());
    let listeners = Arc::new(Semaphore::new(events::MAX_LISTENERS));
    let web = Arc::new(Web { context, stop: stop.clone(), listeners });
    let service = router(web).into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP command line ended");
    }
}

fn router(web: Arc<Web>) -> Router {
    Router::new().fallback(serve).with_state(web)
}

/// Lets no web page of somebody else's give commands by the browser of one who may, and marks the connection busy.
async fn serve(
    State(web): State<Arc<Web>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let _busy = peer.busy();
    let is_api = api::is_below(request.uri().path());
    let own = Own { near: peer.near, tls: peer.is_tls(), hosts: web.context.access.hosts() };
    if let Err(reason) = origin::check(request.uri(), request.headers(), own) {
        tracing::warn!(far = %peer.far, reason, "an HTTP request was refused");
        return match is_api {
            true => api::problem(403, &reason),
            false => respond(StatusCode::FORBIDDEN, &Reply::fail(format!("Forbidden: {reason}"))),
        };
    }
    let caller = match login::enter(&web.context.access, &peer, request.headers()) {
        Ok(caller) => caller,
        Err(denied) => return login::refuse(denied, is_api),
    };
    if is_api {
        return api::serve(&web, &peer, &caller, request).await;
    }
    let (head, _) = request.into_parts();
    command(&web, &caller, &head.method, &head.uri).await
}

async fn command(web: &Web, caller: &Caller, method: &Method, uri: &Uri) -> Response {
    if method != Method::GET {
        let reply = Reply::fail(format!("Commands are sent with GET, not {method}"));
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, &reply);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let line = read(uri.path(), uri.query());
    respond(StatusCode::OK, &answer(&web.context, caller, line).await)
}

/// A reply as EvoStream's HTTP clients expect it.
fn respond(status: StatusCode, reply: &Reply) -> Response {
    let mut response = Response::new(Body::from(reply.json() + "\r\n\r\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    api::add_headers(&mut response, "text/plain");
    response
}

/// The command in the path, the parameters in the query's first parameter, whatever its name.
fn read(path: &str, query: Option<&str>) -> Result<Line, ParseError> {
    let command = percent::decode(path.strip_prefix('/').unwrap_or(path));
    let command = String::from_utf8(command)
        .map_err(|e| ParseError::NotUtf8 { at: e.utf8_error().valid_up_to() + 1 })?;
    let first = query.and_then(|query| query.split('&').next()).unwrap_or_default();
    let encoded = first.split_once('=').map_or("", |(_, value)| value);
    Line::with_params(&command, decoded(encoded)?.as_bytes())
}

/// Clients send base64 as it is, so `+` is a plus sign; some percent-encode it, some use the alphabet for URLs.
fn decoded(encoded: &str) -> Result<String, ParseError> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let mut encoded = percent::decode(encoded);
    for byte in &mut encoded {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    let wrong = |what: &dyn std::fmt::Display| {
        let rule = "The first parameter of the query must hold base64 of key=value …";
        ParseError::Encoding(format!("{rule}: {what}"))
    };
    let decoded = LENIENT.decode(encoded.trim_ascii()).map_err(|error| wrong(&error))?;
    match str::from_utf8(&decoded) {
        Ok(text) => Ok(text.trim_ascii().into()),
        Err(error) => Err(wrong(&error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::parse::Value;

    #[test]
    fn parameters_in_every_coding() {
        // Documented: localStreamName=cam1 pathToFile=../media/cam1 type=mp4 chunkLength=60
        let documented =
            "bG9jYWxTdHJlYW1OYW1lPWNhbTEgcGF0aFRvRmlsZT0uLi9tZWRpYS9jYW0xIHR5cGU9bXA0IGNodW5rTGVuZ3RoPTYw";
        let line = read("/Record", Some(&format!("params={documented}"))).unwrap();
        assert_eq!(line.command, "record");
        assert_eq!(line.params[1], ("pathToFile".into(), Value::Text("../media/cam1".into())));
        assert_eq!(line.params.len(), 4);

        // `p=>>>~~~??~` needs both special characters and padding.
        let expected = vec![("p".to_owned(), Value::Text(">>>~~~??~".into()))];
        for query in [
            "params=cD0+Pj5+fn4/P34=",
            "anything=cD0+Pj5+fn4/P34=&params=x",
            "params=cD0%2BPj5%2bfn4%2FP34%3D",
            "params=cD0-Pj5-fn4_P34",
            "params=cD0+Pj5+fn4/P34",
            "params=%20cD0+Pj5+fn4/P34=",
            "=cD0+Pj5+fn4/P34=",
        ] {
            assert_eq!(read("/x", Some(query)).unwrap().params, expected, "{query}");
        }
    }

    #[test]
    fn no_parameters() {
        for query in [None, Some(""), Some("params"), Some("params="), Some("params=%20"), Some("&a=eA==")] {
            assert_eq!(read("/version", query), Ok(Line { command: "version".into(), params: vec![] }));
        }
        assert_eq!(read("/", None).unwrap().command, "");
        // A line end after the parameters, as from echo.
        assert_eq!(read("/x", Some("p=YT0xCg==")).unwrap().params, [("a".into(), Value::Text("1".into()))]);
    }

    #[test]
    fn what_is_no_command_line() {
        let table = [
            (
                "/x",
                "params=localStreamName",
                "The first parameter of the query must hold base64 of key=value …: ",
            ),
            (
                "/x",
                "localStreamName=cam!",
                "The first parameter of the query must hold base64 of key=value …: ",
            ),
            // `a=\0`
            ("/x", "params=YT0A", "The command has a control character (U+0000) at byte 3"),
            ("/a%00b", "", "The command has a control character (U+0000) at byte 2"),
            ("/%ff", "", "The command is not UTF-8 at byte 1"),
        ];
        for (path, query, error) in table {
            let got = read(path, Some(query)).unwrap_err().to_string();
            assert!(got.starts_with(error), "{path} {query}: {got}");
        }
        let long = format!("params={}", "YWFh".repeat(6000));
        assert_eq!(read("/x", Some(&long)), Err(ParseError::TooLong));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(path in ".{0,30}", query in "[A-Za-z0-9+/=%_ &-]{0,40}") {
            let _ = read(&path, Some(&query));
        }
    }
}
