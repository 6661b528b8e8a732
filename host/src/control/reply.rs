//! What a command answers, and how it looks on each transport. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::names::is_hidden;

/// Whether a command did what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success,
    Fail,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: Status,
    pub description: String,
    pub data: Value,
    /// The `commandId` that came with the command. Shown in JSON only.
    pub response_id: Option<String>,
    /// What of `data` the text form shows, as paths of keys with dots; lists are looked through. `None`: all.
    pub shown: Option<&'static [&'static str]>,
    /// The connection ends after this reply.
    pub close: bool,
    /// What kind of failure it is, for who looks at codes and not at words. Means nothing with success.
    pub fault: Fault,
    /// The command changed nothing this time, so that its `commandId` is free again.
    pub unchanged: bool,
}

/// Kinds of failure; each transport with codes of its own has one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command or its parameters are wrong.
    Invalid,
    /// What it is about does not exist.
    NotFound,
    /// What is there already does not allow it.
    Conflict,
    /// Who calls must say who it is.
    Unauthenticated,
    /// Who calls may not.
    Forbidden,
    /// Who calls does it too often.
    TooMany,
    /// The server could not, though the command was right.
    Failed,
}

impl Reply {
    pub fn success(description: impl Into<String>, data: Value) -> Self {
        Self {
            status: Status::Success,
            description: description.into(),
            data,
            response_id: None,
            shown: None,
            close: false,
            fault: Fault::Invalid,
            unchanged: false,
        }
    }

    pub fn fail(description: impl Into<String>) -> Self {
        Self { status: Status::Fail, ..Self::success(description, Value::Null) }
    }

    /// A failure of that kind.
    pub fn fault(fault: Fault, description: impl Into<String>) -> Self {
        Self { fault, ..Self::fail(description) }
    }

    /// The same with a part of the data in the text form.
    pub fn showing(self, keys: &'static [&'static str]) -> Self {
        Self { shown: Some(keys), ..self }
    }

    /// One JSON object: keys sorted, no blanks, `/` escaped, four decimals.
    pub fn json(&self) -> String {
        let mut out = String::from("{\"data\":");
        json(&mut out, &self.data);
        out.push_str(",\"description\":");
        json_string(&mut out, &self.description);
        if let Some(id) = &self.response_id {
            out.push_str(",\"responseId\":");
            json_string(&mut out, id);
        }
        out.push_str(match self.status {
            Status::Success => ",\"status\":\"SUCCESS\"}",
            Status::Fail => ",\"status\":\"FAIL\"}",
        });
        out
    }

    /// Lines of text, each ended by CR LF, the last one blank.
    pub fn ascii(&self) -> String {
        let mut out = String::new();
        let success = self.status == Status::Success;
        line(&mut out, 0, if success { "Command entered successfully!" } else { "Command failed!" });
        line(&mut out, 0, &self.description);
        line(&mut out, 0, "");
        if success {
            match self.shown {
                Some(keys) => ascii(&mut out, 4, &select(&self.data, keys)),
                None => ascii(&mut out, 4, &self.data),
            }
            line(&mut out, 0, "");
        }
        out
    }
}

/// The keys of an object in order, whatever order the map keeps.
fn sorted(map: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

fn json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => json_string(out, text),
        Value::Array(items) => list(out, '[', ']', items, json),
        Value::Object(map) => list(out, '{', '}', sorted(map), |out, (key, value)| {
            json_string(out, key);
            out.push(':');
            json(out, value);
        }),
        scalar => out.push_str(&plain(scalar)),
    }
}

fn list<T>(
    out: &mut String,
    open: char,
    close: char,
    items: impl IntoIterator<Item = T>,
    each: impl Fn(&mut String, T),
) {
    out.push(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        each(out, item);
    }
    out.push(close);
}

fn json_string(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string().replace('/', "\\/"));
}

/// A value that is neither list nor object, without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.4}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Lines for a list or an object, or one for anything else but null.
fn ascii(out: &mut String, indent: usize, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| entry(out, indent, "--", item)),
        Value::Object(map) => {
            sorted(map).into_iter().for_each(|(key, value)| entry(out, indent, &format!("{key}:"), value));
        }
        scalar => line(out, indent, &plain(scalar)),
    }
}

/// `label value`, with what a list or an object holds on lines of its own.
fn entry(out: &mut String, indent: usize, label: &str, value: &Value) {
    match value {
        Value::Array(items) if items.is_empty() => line(out, indent, &format!("{label} []")),
        Value::Array(_) | Value::Object(_) => {
            line(out, indent, &format!("{label} "));
            ascii(out, indent + 2, value);
        }
        Value::Null => line(out, indent, &format!("{label} ")),
        scalar => line(out, indent, &format!("{label} {}", plain(scalar))),
    }
}

/// One line. What peers can put into texts to break it or to make it look like another is escaped: a reply's lines are
/// ours.
fn line(out: &mut String, indent: usize, text: &str) {
    out.extend(std::iter::repeat_n(' ', indent));
    for c in text.chars() {
        if is_hidden(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push_str("\r\n");
}

/// What of a value is named by paths of keys.
fn select(value: &Value, keys: &[&str]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| select(item, keys)).collect(),
        Value::Object(map) => {
            let mut selected = serde_json::Map::new();
            for (key, value) in map {
                if keys.contains(&key.as_str()) {
                    selected.insert(key.clone(), value.clone());
                    continue;
                }
                let below: Vec<&str> = keys
                    .iter()
                    .filter_map(|path| path.strip_prefix(key.as_str())?.strip_prefix('.'))
                    .collect();
                if !below.is_empty() {
                    selected.insert(key.clone(), select(value, &below));
                }
            }
            Value::Object(selected)
        }
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_as_documented() {
        let reply = Reply::success(
            "Recording Stream",
            json!({
                "winQtCompat": true, "waitForIDR": false, "type": "mp4", "preset": 0,
                "pathToFile": "../media/testRecord ", "overwrite": true, "operationType": 7,
                "mp4BinPath": "..\\evo-mp4writer.exe", "localStreamName": "testpullstream",
                "keepAlive": true, "hasAudio": true, "dateFolderStructure": false, "configId": 12,
                "computedPathToFile": "../media/testRecord.mp4", "chunkLength": 0,
            }),
        );
        let documented = concat!(
            r#"{"data":{"chunkLength":0,"computedPathToFile":"..\/media\/testRecord.mp4","configId":12,"#,
            r#""dateFolderStructure":false,"hasAudio":true,"keepAlive":true,"localStreamName":"testpullstream","#,
            r#""mp4BinPath":"..\\evo-mp4writer.exe","operationType":7,"overwrite":true,"#,
            r#""pathToFile":"..\/media\/testRecord ","preset":0,"type":"mp4","waitForIDR":false,"winQtCompat":true},"#,
            r#""description":"Recording Stream","status":"SUCCESS"}"#
        );
        assert_eq!(reply.json(), documented);
    }

    #[test]
    fn json_of_every_kind() {
        let table = [
            (json!(null), "null"),
            (json!([]), "[]"),
            (json!([1, -2, true, "a\"/\n\u{1}"]), r#"[1,-2,true,"a\"\/\n\u0001"]"#),
            // Milliseconds with four decimals.
            (json!(1_448_008_702_871.899), "1448008702871.8989"),
            (json!(27154.915), "27154.9150"),
            (json!(0.0), "0.0000"),
            (json!(6217274493967007744u64), "6217274493967007744"),
            (json!({"b": {}, "a/": 1}), r#"{"a\/":1,"b":{}}"#),
        ];
        for (data, text) in table {
            let expected = format!(r#"{{"data":{text},"description":"","status":"SUCCESS"}}"#);
            assert_eq!(Reply::success("", data).json(), expected);
        }
        let bye = Reply { response_id: Some("77".into()), ..Reply::fail("a/b") };
        assert_eq!(bye.json(), r#"{"data":null,"description":"a\/b","responseId":"77","status":"FAIL"}"#);
    }

    #[test]
    fn ascii_as_documented() {
        let data = json!({
            "type": "mp4", "pathToFile": "../media/testRecord", "localStreamName": "testpullstream",
            "configId": 5, "chunkLength": 0, "keepAlive": true, "computedPathToFile": "x",
        });
        let reply = Reply::success("Recording Stream", data).showing(&[
            "chunkLength",
            "configId",
            "localStreamName",
            "pathToFile",
            "type",
        ]);
        let documented = "Command entered successfully!\r\n\
            Recording Stream\r\n\
            \r\n\
            \x20   chunkLength: 0\r\n\
            \x20   configId: 5\r\n\
            \x20   localStreamName: testpullstream\r\n\
            \x20   pathToFile: ../media/testRecord\r\n\
            \x20   type: mp4\r\n\
            \r\n";
        assert_eq!(reply.ascii(), documented);
        let empty = "Command entered successfully!\r\nAvailable streams\r\n\r\n\r\n";
        assert_eq!(Reply::success("Available streams", Value::Null).ascii(), empty);
        let failed = "Command failed!\r\ncommand foobar not known. Type help for list of commands\r\n\r\n";
        let reply = Reply::fail("command foobar not known. Type help for list of commands");
        assert_eq!(reply.ascii(), failed);
    }

    /// The body of a text reply, with `|` at the end of each line.
    fn body(data: Value, keys: Option<&'static [&'static str]>) -> String {
        let text = Reply { shown: keys, ..Reply::success("", data) }.ascii();
        let body = text.strip_prefix("Command entered successfully!\r\n\r\n\r\n").unwrap();
        body.strip_suffix("\r\n").unwrap().replace("\r\n", "|")
    }

    #[test]
    fn ascii_of_every_kind() {
        let table = [
            (json!(7), "    7|"),
            (json!({"streamCount": 1}), "    streamCount: 1|"),
            (json!({"dash": [], "previous": null, "on": true}), "    dash: []|    on: true|    previous: |"),
            (json!({"destinations": ["a", 2]}), "    destinations: |      -- a|      -- 2|"),
            (json!([2, 3]), "    -- 2|    -- 3|"),
            (
                json!([{"name": "s1", "audio": {"codec": "AAAC"}, "upTime": 1.5}]),
                "    -- |      audio: |        codec: AAAC|      name: s1|      upTime: 1.5000|",
            ),
            (json!({"agent": "a\r\nCommand failed!"}), r"    agent: a\r\nCommand failed!|"),
            (json!({"_a": "a\u{2028}b\u{202e}c\u{85}"}), r"    _a: a\u{2028}b\u{202e}c\u{85}|"),
        ];
        for (data, expected) in table {
            assert_eq!(body(data, None), expected);
        }
    }

    #[test]
    fn a_part_of_the_data_is_shown() {
        let data = json!({
            "hls": [],
            "record": [{"configId": 1, "type": "ts", "status": {"current": {"code": 0, "uniqueStreamId": 4}}}],
        });
        let keys: &[&str] = &["hls", "record.configId", "record.status.current.uniqueStreamId", "none"];
        let expected = "    hls: []|    record: |      -- |        configId: 1|        status: |\
            \x20         current: |            uniqueStreamId: 4|";
        assert_eq!(body(data, Some(keys)), expected);
    }
}
