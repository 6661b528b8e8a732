//! The HTTP CLI: `GET /<command>?params=<base64 of the parameters>`, JSON out.
//!
//! A reply has status 200 whether the command did what it was asked for or not. Other codes are for requests that
//! are no commands at all. Below `/api/v1` is the REST API instead ([`api`]), and at `/metrics` what Prometheus
//! reads.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::control::{Caller, Context, answer, metrics, query, reply::Reply};

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
    let busy = peer.busy();
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
        Err(denied) => return login::refuse(denied, is_api, &peer),
    };
    if is_api {
        return api::serve(&web, &peer, &busy, &caller, request).await;
    }
    let (head, _) = request.into_parts();
    // Whoever may enter may read.
    if head.uri.path() == metrics::PATH && head.method == Method::GET {
        let (server, formats) = metrics::collect(&web.context);
        let mut response = Response::new(Body::from(metrics::text(&server, &formats)));
        api::add_headers(&mut response, metrics::MIME);
        return response;
    }
    command(&web, &caller, &head.method, &head.uri).await
}

async fn command(web: &Web, caller: &Caller, method: &Method, uri: &Uri) -> Response {
    if method != Method::GET {
        let reply = Reply::fail(format!("Commands are sent with GET, not {method}"));
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, &reply);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let line = query::read(uri.path(), uri.query());
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
