//! What an operator sets: one TOML file, and a flag for each of its keys, which wins.
//!
//! ```toml
//! rtmp = "0.0.0.0:1935"
//! ascii-cli = "127.0.0.1:1222"
//! media-root = "/srv/media"
//! allow-path = ["/mnt/archive"]
//! reconnect-window = "30s"
//! ```

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::{
    events::{self, Backoff, HttpSink},
    format::{Key, Needs, Policy, limits::Limits},
    ingest::{self, PublishAuth},
    recorder::{self, timeline::Timestamps},
};

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
    /// Certificate chain in PEM, for TLS on the three command lines; with tls-key. Read again when it changes
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM, for tls-cert
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Tokens of who may give commands, as `reelwright token` makes them. Read again when it changes
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Another name that HTTP requests may call the server by; may be given again
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Takes tokens without TLS from elsewhere: for those behind a proxy that speaks TLS [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_plaintext: Option<bool>,
    /// Who comes over the loopback interface needs no token [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub loopback_trusted: Option<bool>,
    /// Folder that relative recording paths lie in; made if it is missing [default: ./media]
    #[arg(long, value_name = "DIR")]
    pub media_root: Option<PathBuf>,
    /// Another folder that may be recorded to, by absolute path; may be given again
    #[arg(long, value_name = "DIR")]
    pub allow_path: Vec<PathBuf>,
    /// Folder of the server's own files; made if it is missing [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Time between two sync points: what a power cut can cost; 0: files are synced when they are closed
    /// [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub sync_interval: Option<Span>,
    /// How long a stop waits for files to be closed; the next start finishes what is left [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub stop_timeout: Option<Span>,
    /// Free bytes of a disk below which it is said; 0: never [default: 5 GiB, or 5 % of a smaller disk]
    #[arg(long, value_name = "BYTES")]
    pub disk_warn: Option<u64>,
    /// Free bytes of a disk below which recordings are closed, to go on when there is room; 0: none are kept free
    /// [default: 1 GiB, or 1 % of a smaller disk]
    #[arg(long, value_name = "BYTES")]
    pub disk_stop: Option<u64>,
    /// File that events are appended to, a JSON object a line
    #[arg(long, value_name = "FILE")]
    pub event_log: Option<PathBuf>,
    /// URL that events are posted to; may be given again
    #[arg(long, value_name = "URL")]
    pub event_url: Vec<String>,
    /// How long an event that its receiver does not take is tried again; then it is given up [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub event_retry_for: Option<Span>,
    /// First wait after a failed delivery; each one after it is twice as long [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub event_retry_min: Option<Span>,
    /// Longest wait after a failed delivery [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub event_retry_max: Option<Span>,
    /// Events that may wait for a receiver; then the oldest are given up [default: 100000]
    #[arg(long, value_name = "N")]
    pub event_outbox_max: Option<usize>,
    /// `[[event-sink]]` tables: receivers with more settings than a URL.
    #[arg(skip)]
    #[serde(rename = "event-sink")]
    pub event_sinks: Vec<HttpSink>,
    /// What publishers have to show: open, or some of ingest-points, token, callback [default: open]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORDS")]
    #[serde(deserialize_with = "ingest::publish_auth")]
    pub publish_auth: Vec<PublishAuth>,
    /// File with a token a line, and perhaps a glob of streams behind it; read for each publisher
    #[arg(long, value_name = "FILE")]
    pub publish_token_file: Option<PathBuf>,
    /// URL that is asked, as by nginx-rtmp's on_publish, whether somebody may publish
    #[arg(long, value_name = "URL")]
    pub publish_callback: Option<String>,
    /// Folder with components (*.wasm) that replace or add formats; watched
    #[arg(long, value_name = "DIR")]
    pub formats: Option<PathBuf>,
    /// What components from there may ask for: some of payload, patch, read-back, head-room [default: all]
    #[arg(long, value_delimiter = ',', num_args = 0.., value_name = "WORDS")]
    pub format_grant: Option<Vec<String>>,
    /// Public key of minisign, RW…: only components that it signed are taken, by FILE.wasm.minisig beside FILE.wasm
    #[arg(long, value_name = "KEY")]
    pub format_key: Option<String>,
    /// The server's own program, to compile components in a process of its own.
    #[arg(skip)]
    #[serde(skip)]
    pub compiler: Option<PathBuf>,
    /// `[limits]`: what components may use, in `[limits.NAME]` those of a format.
    #[arg(skip)]
    pub limits: Limits,
    /// Crash bundles that are kept in the data folder; 0: none are written [default: 32]
    #[arg(long, value_name = "N")]
    pub crash_bundles: Option<usize>,

    /// What becomes of leaps of a publisher's clock [default: repair]
    #[arg(long, value_enum)]
    pub timestamps: Option<Timestamps>,
    /// How long a keep-alive recording waits for its stream to come back and go on in the same run; 0: not at all
    /// [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub reconnect_window: Option<Span>,
    /// Shorter files are cut by changes of the stream only some times in a row [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub min_segment: Option<Span>,
    /// How much media of each stream is kept in memory for recordings that ask for it by preRoll; at most 64 MiB a
    /// stream [default: 0: the current group of pictures]
    #[arg(long, value_name = "TIME")]
    pub pre_roll: Option<Span>,
    /// How long a recording's start waits for tracks that were announced [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub track_timeout: Option<Span>,
    /// Longest time that media waits in the server before it is written [default: 250ms]
    #[arg(long, value_name = "TIME")]
    pub flush_interval: Option<Span>,
}

/// A length of time: a number with `ms`, `s`, `m` or `h` behind it, seconds without. Up to a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
        let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let ms = match text.trim()[digits.len()..].trim() {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            unit => return Err(format!("`{unit}` is no unit of time: ms, s, m, h")),
        };
        let number: u64 =
            digits.trim().parse().map_err(|_| format!("`{text}` is no time, such as 250ms or 10s"))?;
        let span = number.checked_mul(ms).map(Duration::from_millis).filter(|span| *span <= YEAR);
        span.map(Self).ok_or_else(|| format!("{text} is over a year"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Seconds(u64),
            Unit(String),
        }
        let text = match Text::deserialize(deserializer)? {
            Text::Seconds(seconds) => seconds.to_string(),
            Text::Unit(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
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
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            token_file: self.token_file.or(other.token_file),
            allow_host: if self.allow_host.is_empty() { other.allow_host } else { self.allow_host },
            insecure_plaintext: self.insecure_plaintext.or(other.insecure_plaintext),
            loopback_trusted: self.loopback_trusted.or(other.loopback_trusted),
            media_root: self.media_root.or(other.media_root),
            allow_path: if self.allow_path.is_empty() { other.allow_path } else { self.allow_path },
            data_dir: self.data_dir.or(other.data_dir),
            sync_interval: self.sync_interval.or(other.sync_interval),
            stop_timeout: self.stop_timeout.or(other.stop_timeout),
            disk_warn: self.disk_warn.or(other.disk_warn),
            disk_stop: self.disk_stop.or(other.disk_stop),
            event_log: self.event_log.or(other.event_log),
            event_url: if self.event_url.is_empty() { other.event_url } else { self.event_url },
            event_retry_for: self.event_retry_for.or(other.event_retry_for),
            event_retry_min: self.event_retry_min.or(other.event_retry_min),
            event_retry_max: self.event_retry_max.or(other.event_retry_max),
            event_outbox_max: self.event_outbox_max.or(other.event_outbox_max),
            event_sinks: if self.event_sinks.is_empty() { other.event_sinks } else { self.event_sinks },
            publish_auth: if self.publish_auth.is_empty() { other.publish_auth } else { self.publish_auth },
            publish_token_file: self.publish_token_file.or(other.publish_token_file),
            publish_callback: self.publish_callback.or(other.publish_callback),
            formats: self.formats.or(other.formats),
            format_grant: self.format_grant.or(other.format_grant),
            format_key: self.format_key.or(other.format_key),
            compiler: self.compiler.or(other.compiler),
            limits: if self.limits == Limits::default() { other.limits } else { self.limits },
            crash_bundles: self.crash_bundles.or(other.crash_bundles),
            timestamps: self.timestamps.or(other.timestamps),
            reconnect_window: self.reconnect_window.or(other.reconnect_window),
            min_segment: self.min_segment.or(other.min_segment),
            pre_roll: self.pre_roll.or(other.pre_roll),
            track_timeout: self.track_timeout.or(other.track_timeout),
            flush_interval: self.flush_interval.or(other.flush_interval),
        }
    }

    /// Where events go.
    pub fn events(&self) -> events::Settings {
        let default = events::Settings::default();
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        let min = span(self.event_retry_min, default.backoff.min);
        let urls = self.event_url.iter().map(|url| HttpSink::to_url(url.clone()));
        events::Settings {
            file: self.event_log.clone(),
            sinks: self.event_sinks.iter().cloned().chain(urls).collect(),
            backoff: Backoff { min, max: span(self.event_retry_max, default.backoff.max).max(min) },
            retry_for: span(self.event_retry_for, default.retry_for),
            outbox_max: self.event_outbox_max.unwrap_or(default.outbox_max),
        }
    }

    /// What of it concerns publishers.
    pub fn ingest(&self) -> ingest::Settings {
        ingest::Settings {
            auth: self.publish_auth.clone(),
            token_file: self.publish_token_file.clone(),
            callback: self.publish_callback.clone(),
        }
    }

    /// What of it concerns components. The error names the key that is wrong.
    pub fn policy(&self) -> Result<Policy, String> {
        let grant = match &self.format_grant {
            Some(words) => Needs::parse(words)
                .map_err(|word| format!("format-grant: `{word}` is none of {}", Needs::ALL))?,
            None => Needs::ALL,
        };
        let key = self.format_key.as_ref().map(|key| key.parse::<Key>());
        let key = key.transpose().map_err(|error| format!("format-key: {error}"))?;
        Ok(Policy { grant, key, compiler: self.compiler.clone() })
    }

    /// What of it concerns recordings.
    pub fn recorder(&self) -> recorder::Config {
        let default = recorder::Config::default();
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        recorder::Config {
            timestamps: self.timestamps.unwrap_or(default.timestamps),
            reconnect_window: span(self.reconnect_window, default.reconnect_window),
            min_segment: span(self.min_segment, default.min_segment),
            track_timeout: span(self.track_timeout, default.track_timeout),
            flush_interval: span(self.flush_interval, default.flush_interval),
            ..default
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
        let file = Config { limits: Limits { outputs: 3, ..Limits::default() }, ..file };
        let flags = Config { rtmp: Some(([127, 0, 0, 1], 2).into()), ..Config::default() };
        let config = flags.or(file);
        assert_eq!(config.rtmp.unwrap().port(), 2);
        assert_eq!(config.limits.outputs, 3);
        assert_eq!(config.media_root.unwrap(), PathBuf::from("/m"));
        assert_eq!(config.allow_path, [PathBuf::from("/a")]);
    }

    #[test]
    fn times_have_units() {
        let ms = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("10s"), Ok(10_000));
        assert_eq!(ms("10"), Ok(10_000));
        assert_eq!(ms("2 m"), Ok(120_000));
        assert_eq!(ms("24h"), Ok(86_400_000));
        for bad in ["", "s", "-1s", "1.5s", "1d", "10sm", "99999h", "18446744073709551615h"] {
            assert!(ms(bad).is_err(), "{bad}");
        }
        let file = "timestamps = \"split\"\nreconnect-window = 0\nmin-segment = \"500ms\"\ntrack-timeout = 3";
        let config = Config::parse(file).unwrap().recorder();
        assert_eq!(config.timestamps, Timestamps::Split);
        assert_eq!(config.reconnect_window, Duration::ZERO);
        assert_eq!(config.min_segment, Duration::from_millis(500));
        assert_eq!(config.track_timeout, Duration::from_secs(3));
        assert_eq!(config.flush_interval, recorder::Config::default().flush_interval);
        let error = Config::parse("min-segment = \"1 day\"").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("day"), "{error}");
    }

    #[test]
    fn what_components_may_ask_for() {
        let grant = |text: &str| Config::parse(text).unwrap().policy().map(|policy| policy.grant);
        assert_eq!(grant(""), Ok(Needs::ALL));
        assert_eq!(grant("format-grant = []"), Ok(Needs::NONE));
        assert_eq!(grant("format-grant = [\"patch\"]"), Ok(Needs::PATCH));
        let error = grant("format-grant = [\"magic\"]").unwrap_err();
        assert_eq!(error, "format-grant: `magic` is none of payload, patch, read-back, head-room");
        let error = Config::parse("format-key = \"abc\"").unwrap().policy().unwrap_err();
        assert!(error.starts_with("format-key: no public key of minisign"), "{error}");
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let error = Config::parse("rtmp = \"127.0.0.1:1\"\nrtpm = 1").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("rtpm"), "{error}");
        let error = Config::parse("rtmp = \"127.0.0.1:1\"\n[limits]\nmemroy = 1").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("did you mean `memory`?"), "{error}");
        let error = Config::parse("rtmp = \"nowhere\"").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("address"), "{error}");
    }
}
