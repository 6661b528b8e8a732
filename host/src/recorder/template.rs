//! `pathToFile` with names in it that stand for something else. Pure.
//!
//! | name | stands for |
//! | --- | --- |
//! | `{stream}` | the stream's name, made safe for one file name |
//! | `{date}` `{time}` | when the file begins, local time: `20260131` `235959` |
//! | `{start}` | the same in seconds since 1970 |
//! | `{seq}` | the file's number in the run: `0000`, `0001`, … |
//! | `{configId}` | the recording's id |
//!
//! `{{` and `}}` stand for braces. `dateFolderStructure` is `PATH/{stream}/{date}/{stream}-{date}-{time}`.

use jiff::{Timestamp, tz::TimeZone};

use super::Settings;
use crate::names::is_hidden;

/// Longest name that a stream's name becomes, in bytes.
const MAX_SAFE: usize = 100;
/// The names, for messages.
const KNOWN: &str = "{stream} {date} {time} {start} {seq} {configId}";

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("pathToFile has `{{{0}}}`, which is no name; there are {KNOWN}, and {{{{ for a brace")]
    Unknown(String),
    #[error("pathToFile has a brace without its other half; write {{{{ or }}}} for a brace")]
    Unbalanced,
}

/// A path with what is known of a recording filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    makes_folders: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Date,
    Time,
    Start,
    Seq,
}

/// Which file a path is for.
#[derive(Clone, Debug)]
pub struct Moment<'a> {
    /// When it begins, in microseconds since 1970.
    pub epoch_us: i64,
    /// Its number in the run.
    pub number: u64,
    pub zone: &'a TimeZone,
}

impl Template {
    /// Of a recording's `pathToFile`.
    pub fn new(settings: &Settings, config_id: u64) -> Result<Self, TemplateError> {
        let stream = safe(&settings.local_stream_name);
        let asked = &settings.path_to_file;
        let mut template = Self { pieces: Vec::new(), makes_folders: settings.date_folder_structure };
        let mut rest = asked.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            template.text(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                template.text(brace);
                rest = behind;
                continue;
            }
            let end = rest.find(['{', '}']).filter(|&end| brace == "{" && rest[end..].starts_with('}'));
            let Some(end) = end else { return Err(TemplateError::Unbalanced) };
            let name = &rest[..end];
            rest = &rest[end + 1..];
            // What is in the folder's part may have to be made.
            template.makes_folders |= rest.contains('/');
            match name.to_ascii_lowercase().as_str() {
                "stream" => template.text(&stream),
                "configid" => template.text(&config_id.to_string()),
                "date" => template.pieces.push(Piece::Date),
                "time" => template.pieces.push(Piece::Time),
                "start" => template.pieces.push(Piece::Start),
                "seq" => template.pieces.push(Piece::Seq),
                _ => return Err(TemplateError::Unknown(name.chars().take(80).collect())),
            }
        }
        template.text(rest);
        if settings.date_folder_structure {
            if !asked.ends_with('/') {
                template.text("/");
            }
            template.text(&format!("{stream}/"));
            template.pieces.push(Piece::Date);
            template.text(&format!("/{stream}-"));
            template.pieces.push(Piece::Date);
            template.text("-");
            template.pieces.push(Piece::Time);
        }
        Ok(template)
    }

    /// Whether each file has a path of its own, by when it begins or by its number.
    pub fn is_by_file(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// Whether folders that are missing are made.
    pub fn makes_folders(&self) -> bool {
        self.makes_folders
    }

    /// What the paths of all files have in common: what is known of a file only when it begins stands as its name.
    /// Braces that stand for themselves are doubled.
    pub fn pattern(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Piece::Date => "{date}".into(),
            Piece::Time => "{time}".into(),
            Piece::Start => "{start}".into(),
            Piece::Seq => "{seq}".into(),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// The path for a file.
    pub fn path(&self, file: &Moment<'_>) -> String {
        let local =
            Timestamp::from_microsecond(file.epoch_us).unwrap_or_default().to_zoned(file.zone.clone());
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Date => local.strftime("%Y%m%d").to_string(),
            Piece::Time => local.strftime("%H%M%S").to_string(),
            Piece::Start => local.timestamp().as_second().to_string(),
            Piece::Seq => format!("{:04}", file.number),
        };
        self.pieces.iter().map(piece).collect()
    }

    fn text(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => self.pieces.push(Piece::Text(text.into())),
        }
    }
}

/// A name from outside as one file name that leads nowhere else and hides nothing: no separators or what looks like
/// them, nothing that can't be seen, no leading dot or dash, none of the names that stand for devices elsewhere.
fn safe(name: &str) -> String {
    let is_odd = |c: char| {
        is_hidden(c)
            || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '{' | '}')
            // Slashes, dots and colons of other scripts.
            || matches!(c, '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{ff0f}' | '\u{ff3c}' | '\u{2216}' | '\u{ff1a}')
            || matches!(c, '\u{2024}'..='\u{2026}' | '\u{ff0e}' | '\u{fe52}')
    };
    let mut safe = String::new();
    for c in name.chars().map(|c| if is_odd(c) { '_' } else { c }) {
        let c = if safe.is_empty() && (c == '.' || c == '-' || c.is_whitespace()) { '_' } else { c };
        if safe.len() + c.len_utf8() > MAX_SAFE {
            break;
        }
        safe.push(c);
    }
    let base = safe.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = ["COM", "LPT"].iter().any(|device| {
        base.strip_prefix(device).is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit())
    });
    if numbered || ["CON", "PRN", "AUX", "NUL"].contains(&base.as_str()) || safe.is_empty() {
        safe.insert(0, '_');
    }
    // Elsewhere these are left out.
    let end = safe.trim_end_matches(['.', ' ']).len();
    safe.replace_range(end.., &"_".repeat(safe.len() - end));
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(stream: &str, path: &str) -> Settings {
        Settings { local_stream_name: stream.into(), path_to_file: path.into(), ..Settings::default() }
    }

    fn path(settings: &Settings) -> String {
        // Saturday, 31 January 2026, 23:59:59.999 in Berlin.
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let file = Moment { epoch_us: 1_769_900_399_999_000, number: 7, zone: &zone };
        Template::new(settings, 12).unwrap().path(&file)
    }

    #[test]
    fn names_stand_for_what_they_say() {
        for (asked, expected) in [
            ("cam", "cam"),
            ("../media/cam.mp4", "../media/cam.mp4"),
            ("{stream}/{date}/{time}-{seq}-{configId}", "cam1/20260131/235959-0007-12"),
            ("{START}{{x}}", "1769900399{x}"),
            ("a{{", "a{"),
        ] {
            assert_eq!(path(&settings("cam1", asked)), expected);
        }
        let folders = Settings { date_folder_structure: true, ..settings("cam1", "archive") };
        assert_eq!(path(&folders), "archive/cam1/20260131/cam1-20260131-235959");
        let folders = Settings { path_to_file: "/m/".into(), ..folders };
        assert_eq!(path(&folders), "/m/cam1/20260131/cam1-20260131-235959");
    }

    #[test]
    fn what_a_template_needs() {
        let template = |asked| Template::new(&settings("cam1", asked), 1).unwrap();
        assert!(!template("a/cam").is_by_file() && !template("a/cam").makes_folders());
        assert!(!template("a/{stream}").is_by_file() && !template("a/{stream}").makes_folders());
        assert!(!template("{stream}/a").is_by_file() && template("{stream}/a").makes_folders());
        assert!(template("a/{seq}").is_by_file() && !template("a/{seq}").makes_folders());
    }

    #[test]
    fn a_pattern_tells_streams_and_recordings_apart() {
        let pattern = |stream, asked, id| Template::new(&settings(stream, asked), id).unwrap().pattern();
        assert_eq!(pattern("cam1", "a/{Stream}-{DATE}-{time}", 1), "a/cam1-{date}-{time}");
        assert_ne!(pattern("cam2", "{stream}-{seq}", 1), pattern("cam1", "{stream}-{seq}", 1));
        assert_ne!(pattern("cam1", "{configId}-{seq}", 1), pattern("cam1", "{configId}-{seq}", 2));
        assert_ne!(pattern("cam1", "a{{date}}", 1), pattern("cam1", "a{date}", 1));
        let folders = Settings { date_folder_structure: true, ..settings("cam1", "archive") };
        assert_eq!(Template::new(&folders, 1).unwrap().pattern(), "archive/cam1/{date}/cam1-{date}-{time}");
    }

    #[test]
    fn errors_list_what_there_is() {
        let error = |asked| Template::new(&settings("cam1", asked), 1).unwrap_err().to_string();
        let unknown = "pathToFile has `{steam}`, which is no name; there are {stream} {date} {time} {start} {seq} \
            {configId}, and {{ for a brace";
        assert_eq!(error("a/{steam}"), unknown);
        for unbalanced in ["{", "a{stream", "stream}", "{a{b}}", "{{}"] {
            assert!(error(unbalanced).contains("other half"), "{unbalanced}");
        }
    }

    #[test]
    fn a_hostile_name_stays_one_file_name() {
        for (name, expected) in [
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("..", "__"),
            (".", "_"),
            ("", "_"),
            ("-rf", "_rf"),
            ("a/b\\c:d", "a_b_c_d"),
            ("a\0b\nc\u{7f}", "a_b_c_"),
            ("CON", "_CON"),
            ("con.mp4", "_con.mp4"),
            ("Lpt1", "_Lpt1"),
            ("COMET", "COMET"),
            ("a\u{202e}4pm\u{ff0f}b", "a_4pm_b"),
            ("{date}", "_date_"),
            ("end. ", "end__"),
            ("Kamera Süd", "Kamera Süd"),
        ] {
            assert_eq!(safe(name), expected, "{name:?}");
        }
        assert_eq!(safe(&"é".repeat(2048)).len(), 100);
    }
}
