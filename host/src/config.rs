//! What an operator sets: one TOML file, and a flag for each of its keys, which wins.
//!
//! ```toml
//! rtmp = "0.0.0.0:1935"
//! ascii-cli = "127.0.0.1:1222"
//! media-root = "/srv/media"
//! allow-path = ["/mnt/archive"]
//! ```

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// The settings of `reelwright serve`. Any address may have port 0: a free one is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Address for publishers [default: 0.0.0.0:1935]
    #[arg(long, value_name = "ADDR")]
    pub rtmp: Option<SocketAddr>,
    /// Address of the ASCII command line [default: 127.0.0.1:1222]
    #[arg(long, value_name = "ADDR")]
    pub ascii_cli: Option<SocketAddr>,
    /// Address of the JSON command line [default: 127.0.0.1:1112]
    #[arg(long, value_name = "ADDR")]
    pub json_cli: Option<SocketAddr>,
    /// Address of the HTTP command line [default: 127.0.0.1:7777]
    #[arg(long, value_name = "ADDR")]
    pub http_cli: Option<SocketAddr>,
    /// Folder that relative recording paths lie in; made if it is missing [default: ./media]
    #[arg(long, value_name = "DIR")]
    pub media_root: Option<PathBuf>,
    /// Another folder that may be recorded to, by absolute path; may be given again
    #[arg(long, value_name = "DIR")]
    pub allow_path: Vec<PathBuf>,
    /// Folder of the server's own files; made if it is missing [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Milliseconds between sync points: what a power cut can cost; 0: files are synced when they are closed
    /// [default: 2000]
    #[arg(long, value_name = "MS")]
    pub sync_interval: Option<u64>,
    /// File that events are appended to, a JSON object a line
    #[arg(long, value_name = "FILE")]
    pub event_log: Option<PathBuf>,
    /// Folder with components (*.wasm) that replace or add formats; watched
    #[arg(long, value_name = "DIR")]
    pub formats: Option<PathBuf>,
}

impl Config {
    /// Reads a file's text; the error has the line.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// These settings, and from `other` what they leave open.
    pub fn or(self, other: Self) -> Self {
        Self {
            rtmp: self.rtmp.or(other.rtmp),
            ascii_cli: self.ascii_cli.or(other.ascii_cli),
            json_cli: self.json_cli.or(other.json_cli),
            http_cli: self.http_cli.or(other.http_cli),
            media_root: self.media_root.or(other.media_root),
            allow_path: if self.allow_path.is_empty() { other.allow_path } else { self.allow_path },
            data_dir: self.data_dir.or(other.data_dir),
            sync_interval: self.sync_interval.or(other.sync_interval),
            event_log: self.event_log.or(other.event_log),
            formats: self.formats.or(other.formats),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let file =
            Config::parse("rtmp = \"127.0.0.1:1\"\nmedia-root = \"/m\"\nallow-path = [\"/a\"]").unwrap();
        let flags = Config { rtmp: Some(([127, 0, 0, 1], 2).into()), ..Config::default() };
        let config = flags.or(file);
        assert_eq!(config.rtmp.unwrap().port(), 2);
        assert_eq!(config.media_root.unwrap(), PathBuf::from("/m"));
        assert_eq!(config.allow_path, [PathBuf::from("/a")]);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let error = Config::parse("rtmp = \"127.0.0.1:1\"\nrtpm = 1").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("rtpm"), "{error}");
        let error = Config::parse("rtmp = \"nowhere\"").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("address"), "{error}");
    }
}
