//! Which requests may be a web page's doing, and are refused. Pure.
//!
//! The listener is bound to the loopback interface, and browsers reach that too: for any page that their user looks
//! at. Such a request names the page's site in `Origin` or `Sec-Fetch-Site`; if the page's own name was made to point
//! at us, `Host` gives it away.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, Uri, header};

const FETCH_SITE: &str = "sec-fetch-site";

/// Checks a request that came to the address `near`; an error says what is wrong with it.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, near: SocketAddr) -> Result<(), String> {
    if let Some(authority) = uri.authority()
        && !is_ours(authority.as_str(), near)
    {
        return Err(format!("`{}` is not this server's address", shown(authority.as_str().as_bytes())));
    }
    // HTTP/1.0 needs no Host, and browsers do not speak it.
    for host in headers.get_all(header::HOST) {
        if !host.to_str().is_ok_and(|host| is_ours(host, near)) {
            let host = shown(host.as_bytes());
            return Err(format!(
                "Host `{host}` is neither localhost nor the address that the server is bound to"
            ));
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        if !is_same(origin, headers.get(header::HOST)) {
            return Err(format!("Origin `{}` is another site", shown(origin.as_bytes())));
        }
    }
    for site in headers.get_all(FETCH_SITE) {
        if site != "same-origin" && site != "none" {
            return Err(format!(
                "Sec-Fetch-Site `{}`: the request is a page's of another site",
                shown(site.as_bytes())
            ));
        }
    }
    Ok(())
}

/// Whether `host[:port]` names this machine's loopback interface or the address a request came to. The port may be
/// another one: it is when the connection is forwarded.
fn is_ours(authority: &str, near: SocketAddr) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    let Some(host) = host else { return false };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_ours = |ip: IpAddr| ip.is_loopback() || ip.to_canonical() == near.ip().to_canonical();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_ours)
}

/// Whether an origin is the page's that this server itself served under that `Host`.
fn is_same(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let own = origin.as_bytes().strip_prefix(b"http://");
    own.is_some() && own == host.map(HeaderValue::as_bytes)
}

/// The start of what a client sent, without anything that a terminal could take for itself.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(near: &str, request: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in request {
            headers.append(*name, value.parse().unwrap());
        }
        check(&Uri::from_static("/version"), &headers, near.parse().unwrap()).is_ok()
    }

    #[test]
    fn hosts() {
        let table = [
            ("127.0.0.1:7777", "localhost", true),
            ("127.0.0.1:7777", "LocalHost.:7777", true),
            ("127.0.0.1:7777", "127.0.0.1:7777", true),
            ("127.0.0.1:7777", "127.0.0.1:8080", true),
            ("127.0.0.1:7777", "[::1]:7777", true),
            ("127.0.0.1:7777", "192.0.2.7:7777", false),
            ("192.0.2.7:7777", "192.0.2.7:7777", true),
            ("[::ffff:192.0.2.7]:7777", "192.0.2.7", true),
            ("192.0.2.7:7777", "192.0.2.8:7777", false),
            ("127.0.0.1:7777", "evil.example", false),
            ("127.0.0.1:7777", "localhost.evil.example:7777", false),
            ("127.0.0.1:7777", "127.0.0.1.evil.example", false),
            ("127.0.0.1:7777", "[::1", true),
            ("127.0.0.1:7777", "", false),
        ];
        for (near, host, expected) in table {
            assert_eq!(allowed(near, &[("host", host)]), expected, "{host} at {near}");
        }
        assert!(allowed("127.0.0.1:7777", &[]));
        assert!(!allowed("127.0.0.1:7777", &[("host", "localhost"), ("host", "evil.example")]));
        let proxied = Uri::from_static("http://evil.example/version");
        assert!(check(&proxied, &HeaderMap::new(), ([127, 0, 0, 1], 7777).into()).is_err());
    }

    #[test]
    fn origins() {
        let table: [(&[(&str, &str)], bool); 9] = [
            (&[("origin", "http://localhost:7777")], true),
            (&[("origin", "http://localhost:3000")], false),
            (&[("origin", "https://localhost:7777")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
        ];
        for (headers, expected) in table {
            let request: Vec<_> = [("host", "localhost:7777")].iter().chain(headers).copied().collect();
            assert_eq!(allowed("127.0.0.1:7777", &request), expected, "{headers:?}");
        }
        assert!(
            !allowed("127.0.0.1:7777", &[("origin", "http://localhost:7777")]),
            "with no Host to compare"
        );
    }
}
