//! Who sends a request: the token in `Authorization`, as `Bearer TOKEN`, or as the password of `Basic`.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{api, connection::Peer, respond};
use crate::control::{
    Caller,
    auth::{Access, Denied},
    rest,
};

/// What says that a request was passed on by somebody.
const OF_PROXIES: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Lets a request in, or not.
pub(super) fn enter(access: &Access, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Denied> {
    let direct = !OF_PROXIES.iter().any(|name| headers.contains_key(*name));
    let token = headers.get(header::AUTHORIZATION).and_then(token);
    access.enter(peer.far, direct, token.as_deref())
}

/// The token that a header has; `None` if it has none.
fn token(header: &HeaderValue) -> Option<String> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// What who may not enter is answered. A browser is asked for the token only where nobody can listen.
pub(super) fn refuse(denied: Denied, is_api: bool, peer: &Peer) -> Response {
    let reply = denied.reply();
    let status = rest::status(reply.fault);
    let mut response = match is_api {
        true => api::problem(status, &reply.description),
        false => respond(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN), &reply),
    };
    let headers = response.headers_mut();
    if let Denied::Wait(time) = denied {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(time.as_secs() + 1));
    } else {
        let mut challenge = |value| headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
        challenge("Bearer realm=\"reelwright\"");
        if peer.is_tls() || peer.far.ip().to_canonical().is_loopback() {
            challenge("Basic realm=\"reelwright\"");
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_headers() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            // any:abc:d
            ("Basic YW55OmFiYzpk", Some("abc:d")),
            ("BASIC OmFiYw==", Some("abc")),
            ("Basic YW55", None),
            ("Basic !", None),
            ("Digest abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(token(&header.parse().unwrap()).as_deref(), expected, "{header}");
        }
    }
}
