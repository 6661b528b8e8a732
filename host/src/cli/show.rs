//! What came from a server as text for people. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::{control::reply::Reply, names::is_hidden};

/// A text in one line, without anything that a terminal could take for itself.
pub(super) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            let _ = write!(line, "{}", c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line
}

/// JSON with the same in its texts escaped, as JSON does it. It still says the same.
pub(super) fn json(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    for c in text.chars() {
        // Below U+0080 it has been escaped where it is not layout, but for the last.
        if is_hidden(c) && c >= '\u{7f}' {
            let _ = write!(json, "\\u{:04x}", u32::from(c));
        } else {
            json.push(c);
        }
    }
    json
}

/// Anything, as the ASCII command line shows it.
pub(super) fn any(data: &Value) -> String {
    let text = Reply::success("", data.clone()).ascii();
    let lines = text.lines().skip(3).filter(|line| !line.is_empty());
    lines.map(|text| format!("{}\n", line(text.strip_prefix("    ").unwrap_or(text)))).collect()
}

/// Columns under their names, two blanks apart, as wide as they need be. Numbers stand on the right.
fn table(names: &[&str], rows: Vec<Vec<String>>) -> String {
    let all: Vec<Vec<String>> =
        [names.iter().map(|name| (*name).to_owned()).collect()].into_iter().chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| match cell.starts_with(|c: char| c.is_ascii_digit()) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Versions of formats.
pub(super) fn formats(list: &Value) -> String {
    let row = |version: &Value| {
        let sha256 = text(&version["sha256"]);
        let state = text(&version["state"]);
        let pinned = if version["pinned"] == true { format!("{state} (pinned)") } else { state };
        vec![
            text(&version["format"]),
            text(&version["version"]),
            sha256.get(..12).unwrap_or(&sha256).to_owned(),
            pinned,
            number(&version["recordings"]).to_string(),
            text(&version["source"]),
        ]
    };
    table(&["FORMAT", "VERSION", "SHA256", "STATE", "FILES", "SOURCE"], items(list).map(row).collect())
}

fn text(value: &Value) -> String {
    line(value.as_str().unwrap_or_default())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Milliseconds as `1:02:03`.
fn span(ms: f64) -> String {
    let seconds = (ms / 1000.0) as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Bytes with a unit.
fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// Bytes of media that a stream had so far.
pub(super) fn bytes(stream: &Value) -> u64 {
    number(&stream["video"]["bytesCount"]) + number(&stream["audio"]["bytesCount"])
}

/// All streams: those that come in, and those that are recorded.
pub(super) fn streams(list: &Value) -> String {
    streams_with(list, |stream| number(&stream["bandwidth"]))
}

/// The same, with rates in kbit/s from elsewhere.
pub(super) fn streams_with(list: &Value, rate: impl Fn(&Value) -> u64) -> String {
    let row = |stream: &Value| {
        let codecs: Vec<String> = ["video", "audio"]
            .iter()
            .map(|kind| text(&stream[kind]["codec"]))
            .filter(|codec| !codec.ends_with("UNK"))
            .map(|codec| codec.chars().skip(1).collect())
            .collect();
        let lost =
            number(&stream["video"]["droppedPacketsCount"]) + number(&stream["audio"]["droppedPacketsCount"]);
        let from = match &stream["recordInfo"]["file"] {
            Value::String(file) => line(file),
            _ => format!("from {}:{}", text(&stream["farIp"]), number(&stream["farPort"])),
        };
        vec![
            number(&stream["uniqueId"]).to_string(),
            text(&stream["name"]),
            text(&stream["type"]),
            codecs.join("+"),
            rate(stream).to_string(),
            span(stream["upTime"].as_f64().unwrap_or_default()),
            size(bytes(stream)),
            lost.to_string(),
            from,
        ]
    };
    let names = ["ID", "STREAM", "TYPE", "CODECS", "KBIT/S", "TIME", "SIZE", "LOST", "FROM, OR FILE"];
    table(&names, items(list).map(row).collect())
}

/// All recordings, with what they do.
pub(super) fn recordings(list: &Value) -> String {
    let row = |recording: &Value| {
        vec![
            number(&recording["configId"]).to_string(),
            text(&recording["localStreamName"]),
            text(&recording["type"]),
            state(recording),
            text(&recording["computedPathToFile"]),
        ]
    };
    table(&["ID", "STREAM", "TYPE", "STATE", "FILE"], items(list).map(row).collect())
}

fn state(recording: &Value) -> String {
    let current = &recording["status"]["current"];
    match &current["reason"] {
        Value::String(reason) => format!("{}: {}", text(&current["description"]), line(reason)),
        _ => text(&current["description"]),
    }
}

/// Disks that are recorded to.
pub(super) fn disks(list: &Value) -> String {
    let room = |value: &Value| value.as_u64().map_or_else(|| "?".into(), size);
    let row = |disk: &Value| {
        vec![text(&disk["state"]), room(&disk["freeBytes"]), room(&disk["totalBytes"]), text(&disk["path"])]
    };
    table(&["DISK", "FREE", "OF", "FOLDER"], items(list).map(row).collect())
}

/// What a sub-command did to a recording, in one line.
pub(super) fn recording(verb: &str, recording: &Value) -> String {
    if let Value::String(file) = &recording["firstFile"] {
        return format!("{verb} would begin with {}\n", line(file));
    }
    let mut shown = format!(
        "{verb} {}: {} to {}",
        number(&recording["configId"]),
        text(&recording["localStreamName"]),
        text(&recording["computedPathToFile"])
    );
    let state = state(recording);
    if !state.is_empty() && verb != "stop" {
        let _ = write!(shown, " ({state})");
    }
    shown + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hostile_names_are_text() {
        let hostile = "a\u{1b}[2J\n\u{202e}b\u{7}é";
        assert_eq!(line(hostile), "a\\u{1b}[2J\\u{a}\\u{202e}b\\u{7}é");
        let list = json!([{"uniqueId": 1, "name": hostile, "type": "INR", "farIp": "h", "farPort": 1}]);
        assert_eq!(streams(&list).lines().count(), 2);
        let shown = any(&json!({ "name": hostile }));
        assert!(!shown.contains(['\u{1b}', '\u{202e}']) && shown.lines().count() == 1, "{shown}");
    }

    #[test]
    fn hostile_json_says_the_same() {
        let value = json!({ "a\u{9b}": "\u{1b}[2J\n\u{7f}\u{202e}\u{2069}\u{61c}é☺" });
        for text in [format!("{value}"), format!("{value:#}")] {
            let json = json(&text);
            assert!(json.chars().all(|c| c == '\n' || !is_hidden(c)) && json.contains("é☺"), "{json}");
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }
    }

    #[test]
    fn tables() {
        let list = json!([
            {"configId": 1, "localStreamName": "cam1", "type": "mp4", "computedPathToFile": "/m/cam1.mp4",
             "status": {"current": {"description": "Waiting for stream"}}},
            {"configId": 12, "localStreamName": "c", "type": "ts", "computedPathToFile": "/m/c.ts",
             "status": {"current": {"description": "Failed", "reason": "disk full"}}},
        ]);
        let expected = "ID  STREAM  TYPE  STATE               FILE\n\
                        \x201  cam1    mp4   Waiting for stream  /m/cam1.mp4\n\
                        12  c       ts    Failed: disk full   /m/c.ts\n";
        assert_eq!(recordings(&list), expected);
        assert_eq!(recording("record", &list[0]), "record 1: cam1 to /m/cam1.mp4 (Waiting for stream)\n");
        let tried = json!({"configId": 0, "firstFile": "/m/x.mp4"});
        assert_eq!(recording("record", &tried), "record would begin with /m/x.mp4\n");
        assert_eq!(streams(&json!([])).lines().count(), 1);
        assert_eq!(any(&json!({"streamCount": 1})), "streamCount: 1\n");
    }

    #[test]
    fn units() {
        assert_eq!(["0 B", "1.0 KiB", "1.5 MiB"].map(str::to_owned), [0, 1024, 3 << 19].map(size));
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
        assert_eq!(span(3_723_900.0), "1:02:03");
        assert_eq!(span(f64::NAN), "0:00:00");
    }
}
