//! The REST API's requests: read whole, within bounds of size and time, and handed to the commands.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{SERVER, Web, connection::Peer, events};
use crate::control::{
    Caller, answer,
    commands::COMMANDS,
    openapi,
    parse::{self, Line, ParseError},
    rest::{self, Place},
    server::seats::Busy,
    table::Command,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Whether a path is the API's.
pub(super) fn is_below(path: &str) -> bool {
    path.strip_prefix(rest::BASE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request of a caller who is known.
pub(super) async fn serve(
    web: &Web,
    peer: &Peer,
    busy: &Busy,
    caller: &Caller,
    request: Request,
) -> Response {
    let path = request.uri().path().strip_prefix(rest::BASE).unwrap_or_default().to_owned();
    let is_get = request.method() == Method::GET;
    if path == openapi::PATH || path == openapi::EVENTS {
        return match (is_get, path == openapi::EVENTS) {
            (false, _) => other_methods(&["GET"]),
            (true, true) => events::serve(web, peer, request.uri().query()),
            (true, false) => json(200, "application/json", &openapi::document(&COMMANDS)),
        };
    }
    match rest::find(&COMMANDS, request.method().as_str(), &path) {
        Place::Nothing => {
            problem(404, &format!("Nothing is at this path; {}{} has all", rest::BASE, openapi::PATH))
        }
        Place::OtherMethods(methods) => other_methods(&methods),
        Place::Command { command, route, params } => {
            let line = match read(web, busy, command, params, request).await {
                Ok(line) => line,
                Err(refusal) => return *refusal,
            };
            let reply = answer(&web.context, caller, line).await;
            let answer = rest::answer(&COMMANDS, command, route, reply);
            let kind = if answer.status < 300 { "application/json" } else { rest::PROBLEM };
            let mut response = json(answer.status, kind, &answer.body);
            if let Some(Ok(location)) = answer.location.map(HeaderValue::try_from) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
    }
}

/// The command line that a request makes. What is wrong with its form is an error; what with its parameters, a
/// [`ParseError`], which is answered like that of any command line.
async fn read(
    web: &Web,
    busy: &Busy,
    command: &Command,
    in_path: Vec<(String, String)>,
    request: Request,
) -> Result<Result<Line, ParseError>, Box<Response>> {
    let (head, body) = request.into_parts();
    let key = head.headers.get(IDEMPOTENCY_KEY);
    let body = if head.method == Method::GET {
        None
    } else {
        let read = timeout(web.context.limits.request, to_bytes(body, rest::MAX_BODY));
        let body = match busy.wait_for(read).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                let error = error.into_inner();
                let (status, what) = if is_too_long(&*error) {
                    (413, format!("The body is longer than {} bytes", rest::MAX_BODY))
                } else {
                    (400, format!("The body can't be read: {error}"))
                };
                return Err(Box::new(last(problem(status, &what))));
            }
            Err(_) => {
                let seconds = web.context.limits.request.as_secs_f64();
                let what = format!("The request did not come within {seconds} s");
                return Err(Box::new(last(problem(408, &what))));
            }
        };
        let kind = head.headers.get(header::CONTENT_TYPE);
        if !body.is_empty() && !kind.is_some_and(is_json) {
            return Err(Box::new(problem(415, "The body has to be application/json")));
        }
        Some(body)
    };
    let line = || {
        let text = |(name, text)| (name, parse::Value::Text(text));
        let mut params: Vec<_> = in_path.into_iter().map(text).collect();
        params.extend(rest::query(head.uri.query().unwrap_or_default())?.into_iter().map(text));
        params.extend(rest::body(body.as_deref().unwrap_or_default())?);
        if let Some(key) = key {
            let key =
                key.to_str().map_err(|_| ParseError::Encoding("Idempotency-Key is not ASCII".into()))?;
            params.push(rest::command_id(key));
        }
        rest::line(command, params)
    };
    Ok(line())
}

fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    // The crate that has its type is none of ours.
    error.to_string().contains("length limit")
}

fn is_json(kind: &HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// A failure as JSON.
pub(super) fn problem(status: u16, detail: &str) -> Response {
    json(status, rest::PROBLEM, &rest::problem(status, detail))
}

fn other_methods(methods: &[&str]) -> Response {
    let allow = methods.join(", ");
    let mut response = problem(405, &format!("This takes {allow}"));
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The same, and the connection ends: what is left of the request is not read.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn json(status: u16, kind: &'static str, body: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    add_headers(&mut response, kind);
    response
}

/// The headers of every answer.
pub(super) fn add_headers(response: &mut Response, kind: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
