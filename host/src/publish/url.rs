//! Addresses of streams.

use anyhow::{Context, anyhow, bail, ensure};

const DEFAULT_PORT: u16 = 1935;

/// `rtmp://host[:port]/app/name[?query]`. The app may have slashes in it, the name not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// `host:port`, to connect to.
    pub(super) address: String,
    /// As written.
    authority: String,
    pub(super) app: String,
    pub(super) name: String,
    query: Option<String>,
}

impl Url {
    /// The same with `_number` behind the name.
    pub(super) fn numbered(&self, number: usize) -> Self {
        Self { name: format!("{}_{number}", self.name), ..self.clone() }
    }

    /// What `connect` says.
    pub(super) fn tc_url(&self) -> String {
        format!("rtmp://{}/{}", self.authority, self.app)
    }

    /// What `publish` says: the name with the query.
    pub(super) fn publishing_name(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.name),
            None => self.name.clone(),
        }
    }
}

impl std::str::FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let parse = || {
            let rest = url.strip_prefix("rtmp://").ok_or_else(|| anyhow!("only rtmp:// is known"))?;
            let (rest, query) = match rest.split_once('?') {
                Some((rest, query)) => (rest, Some(query.to_owned())),
                None => (rest, None),
            };
            let (authority, path) = rest.split_once('/').context("an app and a name are missing")?;
            let (app, name) = path.rsplit_once('/').context("the name is missing")?;
            ensure!(!app.is_empty() && !name.is_empty(), "the app or the name is empty");
            let host_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
            let (host, port) = match authority[host_end..].rfind(':') {
                Some(colon) => authority.split_at(host_end + colon),
                None => (authority, ""),
            };
            let port = match port.strip_prefix(':') {
                Some(port) => port.parse().with_context(|| format!("port `{port}`"))?,
                None => DEFAULT_PORT,
            };
            if host.is_empty() {
                bail!("the host is missing");
            }
            Ok(Self {
                address: format!("{host}:{port}"),
                authority: authority.to_owned(),
                app: app.to_owned(),
                name: name.to_owned(),
                query,
            })
        };
        parse().with_context(|| format!("`{url}` is not like rtmp://host[:port]/app/name[?query]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        for (url, address, tc_url, name) in [
            ("rtmp://h/live/cam1", "h:1935", "rtmp://h/live", "cam1"),
            ("rtmp://h:7000/live/cam1?key=a/b:c", "h:7000", "rtmp://h:7000/live", "cam1?key=a/b:c"),
            ("rtmp://[::1]/a/b/c", "[::1]:1935", "rtmp://[::1]/a/b", "c"),
            ("rtmp://[::1]:80/a/c", "[::1]:80", "rtmp://[::1]:80/a", "c"),
        ] {
            let parsed: Url = url.parse().unwrap();
            assert_eq!((parsed.address.as_str(), parsed.tc_url().as_str()), (address, tc_url), "{url}");
            assert_eq!(parsed.publishing_name(), name);
        }
        let url: Url = "rtmp://h/live/cam?key=k".parse().unwrap();
        assert_eq!(url.numbered(3).publishing_name(), "cam_3?key=k");
    }

    #[test]
    fn wrong_ones_say_what_is_wrong() {
        for (url, message) in [
            ("rtmps://h/live/cam", "only rtmp://"),
            ("rtmp://h", "an app and a name"),
            ("rtmp://h/live", "the name is missing"),
            ("rtmp://h/live/", "empty"),
            ("rtmp:///live/cam", "the host"),
            ("rtmp://h:x/live/cam", "port `x`"),
        ] {
            let error = format!("{:#}", url.parse::<Url>().unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }
}
