//! What a recording was asked for, as it is kept in the database. Fields that a later version adds have defaults.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// What `record` asked for, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub local_stream_name: String,
    /// As it was asked for; see [`template`](super::template) for what may be in it.
    pub path_to_file: String,
    /// The format's name, in lower case.
    #[serde(rename = "type")]
    pub format: String,
    pub overwrite: bool,
    pub keep_alive: bool,
    /// Seconds after which a new file begins; 0: never.
    pub chunk_length: u32,
    /// Bytes after which a new file begins; 0: never.
    pub chunk_size: u64,
    /// Moments at which a new file begins.
    pub chunk_align: Option<Align>,
    /// Seconds of media after which the recording is done; 0: never.
    pub max_duration: u64,
    /// Bytes in all files after which it is done; 0: never.
    pub max_size: u64,
    /// Seconds before the order that are recorded as well, if they are in memory.
    pub pre_roll: u32,
    #[serde(rename = "waitForIDR")]
    pub wait_for_idr: bool,
    pub win_qt_compat: bool,
    /// `pathToFile` is a folder, below which are folders by stream and date.
    pub date_folder_structure: bool,
    pub preset: u32,
    pub has_audio: bool,
    /// Each file gets a [`manifest`](super::manifest) beside it.
    pub manifest: bool,
    /// The `_name` variables, underscore included.
    pub user: BTreeMap<String, String>,
}

impl Default for Settings {
    /// The documented defaults.
    fn default() -> Self {
        Self {
            local_stream_name: String::new(),
            path_to_file: String::new(),
            format: "mp4".into(),
            overwrite: false,
            keep_alive: true,
            chunk_length: 0,
            chunk_size: 0,
            chunk_align: None,
            max_duration: 0,
            max_size: 0,
            pre_roll: 0,
            wait_for_idr: true,
            win_qt_compat: false,
            date_folder_structure: false,
            preset: 0,
            has_audio: true,
            manifest: false,
            user: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether a run makes more than one file by itself, so that they are numbered as parts.
    pub fn is_chunked(&self) -> bool {
        self.chunk_length > 0 || self.chunk_size > 0 || self.chunk_align.is_some()
    }
}

/// Moments of local time at which files begin: `minute`, `hour`, `day`, or a number of seconds (1 to 86,400), whose
/// multiples count from midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Align {
    Minute,
    Hour,
    Day,
    Seconds(u32),
}

const DAY: u32 = 86_400;

impl Align {
    /// Seconds between two of them.
    pub fn seconds(self) -> u32 {
        match self {
            Align::Minute => 60,
            Align::Hour => 3_600,
            Align::Day => DAY,
            Align::Seconds(seconds) => seconds,
        }
    }

    /// The first of them after a moment; both in microseconds since 1970.
    pub fn after(self, epoch_us: i64, zone: &TimeZone) -> i64 {
        let now = Timestamp::from_microsecond(epoch_us).unwrap_or_default();
        let offset = i64::from(zone.to_offset(now).seconds());
        let second = epoch_us.div_euclid(1_000_000);
        let of_day = (second + offset).rem_euclid(i64::from(DAY));
        let step = i64::from(self.seconds().max(1));
        let next = (of_day / step + 1) * step;
        let midnight = || {
            let tomorrow = now.to_zoned(zone.clone()).tomorrow().and_then(|day| day.start_of_day());
            tomorrow.map(|midnight| midnight.timestamp().as_second())
        };
        let plain = second + (next - of_day).min(i64::from(DAY) - of_day);
        // A day may have another hour, or one less.
        let next = if next >= i64::from(DAY) { midnight().unwrap_or(plain) } else { plain };
        next.saturating_mul(1_000_000)
    }
}

impl fmt::Display for Align {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Align::Minute => f.write_str("minute"),
            Align::Hour => f.write_str("hour"),
            Align::Day => f.write_str("day"),
            Align::Seconds(seconds) => write!(f, "{seconds}"),
        }
    }
}

impl From<Align> for String {
    fn from(align: Align) -> Self {
        align.to_string()
    }
}

/// A text that is no [`Align`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it takes minute, hour, day or a number of seconds from 1 to {DAY}")]
pub struct NoAlign;

impl FromStr for Align {
    type Err = NoAlign;

    fn from_str(text: &str) -> Result<Self, NoAlign> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "minute" => Align::Minute,
            "hour" => Align::Hour,
            "day" => Align::Day,
            number => {
                let digits = number.bytes().all(|b| b.is_ascii_digit());
                let seconds = number.parse().ok().filter(|seconds| digits && (1..=DAY).contains(seconds));
                Align::Seconds(seconds.ok_or(NoAlign)?)
            }
        })
    }
}

impl TryFrom<String> for Align {
    type Error = NoAlign;

    fn try_from(text: String) -> Result<Self, NoAlign> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_kept_can_be_read() {
        let old = r#"{"localStreamName":"a","type":"ts","keepAlive":false,"chunkAlign":"90","ofALaterVersion":[1]}"#;
        let settings: Settings = serde_json::from_str(old).unwrap();
        let expected = Settings {
            local_stream_name: "a".into(),
            format: "ts".into(),
            keep_alive: false,
            chunk_align: Some(Align::Seconds(90)),
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        let kept = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&kept).unwrap(), settings);
        assert!(kept.contains(r#""chunkAlign":"90""#) && kept.contains(r#""waitForIDR":true"#), "{kept}");
    }

    #[test]
    fn moments_are_of_local_time() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        for (align, now, next) in [
            ("minute", "2026-07-01T12:00:00.5Z", "2026-07-01T12:01:00Z"),
            ("hour", "2026-07-01T12:00:00Z", "2026-07-01T13:00:00Z"),
            ("day", "2026-07-01T12:00:00Z", "2026-07-01T22:00:00Z"),
            ("day", "2026-01-01T22:59:59.9Z", "2026-01-01T23:00:00Z"),
            // 25 hours, and 23.
            ("day", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("day", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("hour", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"),
            // Nine times 2 h 40 min, from midnight on.
            ("9600", "2026-01-01T22:00:00Z", "2026-01-01T23:00:00Z"),
            ("50000", "2026-01-01T00:00:00Z", "2026-01-01T12:53:20Z"),
            ("50000", "2026-01-01T13:00:00Z", "2026-01-01T23:00:00Z"),
        ] {
            let next_us = align.parse::<Align>().unwrap().after(at(now), &berlin);
            assert_eq!(
                Timestamp::from_microsecond(next_us).unwrap().to_string(),
                next,
                "{align} after {now}"
            );
        }
    }

    #[test]
    fn alignments() {
        for (text, seconds) in [("Hour", 3600), ("minute", 60), ("day", 86_400), ("1", 1), ("86400", 86_400)]
        {
            assert_eq!(text.parse::<Align>().unwrap().seconds(), seconds);
        }
        for bad in ["", "0", "86401", "-1", "+1", "1h", "week", "99999999999999"] {
            assert!(bad.parse::<Align>().is_err(), "{bad}");
        }
    }
}
