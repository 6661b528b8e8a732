//! Which requests may be a web page's doing, and are refused. Pure.
//!
//! The listener is bound to the loopback interface, and browsers reach that too: for any page that their user looks
//! at. Such a request names the page's site in `Origin`, `Referer` or `Sec-Fetch-Site`; if the page's own name was made to point
//! at us, `Host` gives it away.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, Uri, header};

const FETCH_SITE: &str = "sec-fetch-site";

/// What a server may be called by, and is reached over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    /// The address that the request came to.
    pub(super) near: SocketAddr,
    pub(super) tls: bool,
    /// Further names: those of a proxy, or in a certificate.
    pub(super) hosts: &'a [String],
}

/// Checks a request that came to us; an error says what is wrong with it.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, own: Own<'_>) -> Result<(), String> {
    if let Some(authority) = uri.authority()
        && !own.is_called(authority.as_str())
    {
        return Err(format!("`{}` is not this server's address", shown(authority.as_str().as_bytes())));
    }
    // HTTP/1.0 needs no Host, and browsers do not speak it.
    for host in headers.get_all(header::HOST) {
        if !host.to_str().is_ok_and(|host| own.is_called(host)) {
            let host = shown(host.as_bytes());
            return Err(format!(
                "Host `{host}` is neither localhost nor the address that the server is bound to; allow-host names \
                 others"
            ));
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        if !own.is_same(origin.as_bytes(), headers.get(header::HOST)) {
            return Err(format!("Origin `{}` is another site", shown(origin.as_bytes())));
        }
    }
    // All that a browser tells of a page that it came from in the clear.
    for page in headers.get_all(header::REFERER) {
        let page = page.as_bytes();
        if !page.is_empty() && !own.is_same(site(page), headers.get(header::HOST)) {
            return Err(format!("Referer `{}` is another site", shown(site(page))));
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

impl Own<'_> {
    /// Whether `host[:port]` names this machine's loopback interface, the address a request came to, or one of the
    /// further names. The port may be another one: it is when the connection is forwarded.
    fn is_called(&self, authority: &str) -> bool {
        let Some(host) = host(authority) else { return false };
        let near = self.near.ip().to_canonical();
        let is_ours = |ip: IpAddr| ip.is_loopback() || ip.to_canonical() == near;
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_ours) || self.is_further(host)
    }

    fn is_further(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// Whether an origin is the page's that this server itself served under that `Host`; behind a proxy, which has a
    /// further name, TLS may be the proxy's.
    fn is_same(&self, origin: &[u8], called: Option<&HeaderValue>) -> bool {
        let Some(called) = called else { return false };
        let by_proxy = called.to_str().ok().and_then(host).is_some_and(|host| self.is_further(host));
        let secure = origin.strip_prefix(b"https://").filter(|_| self.tls || by_proxy);
        let own = secure.or(origin.strip_prefix(b"http://").filter(|_| !self.tls));
        own == Some(called.as_bytes())
    }
}

/// What of a page's URL an `Origin` would have: the scheme and the authority.
fn site(page: &[u8]) -> &[u8] {
    let mut slashes = page.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
    slashes.nth(2).map_or(page, |end| &page[..end])
}

/// The host of `host[:port]`.
fn host(authority: &str) -> Option<&str> {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    }?;
    Some(host.strip_suffix('.').unwrap_or(host))
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
        allowed_by(Own { near: near.parse().unwrap(), tls: false, hosts: &[] }, request)
    }

    fn allowed_by(own: Own<'_>, request: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in request {
            headers.append(*name, value.parse().unwrap());
        }
        check(&Uri::from_static("/version"), &headers, own).is_ok()
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
        assert!(check(&proxied, &HeaderMap::new(), own(false, &[])).is_err());
    }

    fn own(tls: bool, hosts: &[String]) -> Own<'_> {
        Own { near: ([127, 0, 0, 1], 7777).into(), tls, hosts }
    }

    #[test]
    fn further_names_and_tls() {
        let hosts = ["rec.example".to_owned()];
        let table: [(bool, &[String], &str, &str, bool); 8] = [
            (false, &hosts, "rec.example", "https://rec.example", true),
            (false, &hosts, "Rec.Example:8443", "http://Rec.Example:8443", true),
            (false, &hosts, "rec.example", "https://other.example", false),
            (false, &hosts, "localhost", "https://localhost", false),
            (false, &[], "rec.example", "https://rec.example", false),
            (true, &[], "localhost", "https://localhost", true),
            (true, &hosts, "rec.example", "http://rec.example", false),
            (true, &hosts, "rec.example", "https://rec.example", true),
        ];
        for (tls, hosts, host, origin, expected) in table {
            let request = [("host", host), ("origin", origin)];
            assert_eq!(allowed_by(own(tls, hosts), &request), expected, "{tls} {hosts:?} {host} {origin}");
        }
    }

    #[test]
    fn origins() {
        let table: [(&[(&str, &str)], bool); 16] = [
            (&[("referer", "http://localhost:7777/api/v1/streams?a=/")], true),
            (&[("referer", "http://localhost:7777")], true),
            (&[("referer", "")], true),
            (&[("referer", "http://localhost:3000/")], false),
            (&[("referer", "http://evil.example/http://localhost:7777/")], false),
            (&[("referer", "http://localhost:7777@evil.example/")], false),
            (&[("referer", "about:blank")], false),
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
