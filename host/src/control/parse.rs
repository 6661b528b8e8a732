//! A command line, taken apart. Pure.
//!
//! Fields are separated by blanks; the first is the command, the others are `key=value`. A backslash takes the
//! meaning off a following backslash, blank, `=` or `,`; before anything else it stands for itself. A `,`
//! makes the value a list. There are no quotes.

use std::collections::HashMap;

/// Longest command line, in bytes.
pub const MAX_LINE: usize = 16 << 10;

/// What a parameter was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    /// A value with commas; at least two items.
    List(Vec<String>),
}

/// A command and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// In lower case; empty if the line is blank.
    pub command: String,
    /// In order of first mention. Of names that differ in case only, the last one counts.
    pub params: Vec<(String, Value)>,
}

/// Why a line can't be read. Positions count bytes, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("The command is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("The command is not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("The command has a control character (U+{:04X}) at byte {at}", *char as u32)]
    Control { at: usize, char: char },
    #[error("The parameter at byte {at} has no name")]
    NoName { at: usize },
    /// Parameters that came in an encoding of the transport's, which was broken.
    #[error("{0}")]
    Encoding(String),
}

impl Line {
    /// Reads a line, without its end.
    pub fn parse(line: &[u8]) -> Result<Self, ParseError> {
        let text = checked(line)?;
        let start = text.len() - text.trim_start_matches(' ').len();
        let end = text[start..].find(' ').map_or(text.len(), |blank| start + blank);
        Ok(Self { command: text[start..end].to_ascii_lowercase(), params: params(text, end)? })
    }

    /// A command whose parameters came apart from it.
    pub fn with_params(command: &str, line: &[u8]) -> Result<Self, ParseError> {
        let command = checked(command.as_bytes())?.to_ascii_lowercase();
        Ok(Self { command, params: params(checked(line)?, 0)? })
    }
}

/// A text as it must be written to be one value, or one item of a list.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_special(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn is_special(c: char) -> bool {
    matches!(c, '\\' | ' ' | '=' | ',')
}

fn checked(line: &[u8]) -> Result<&str, ParseError> {
    if line.len() > MAX_LINE {
        return Err(ParseError::TooLong);
    }
    let text = str::from_utf8(line).map_err(|e| ParseError::NotUtf8 { at: e.valid_up_to() + 1 })?;
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, char)) => Err(ParseError::Control { at: at + 1, char }),
        None => Ok(text),
    }
}

/// The parameters in `text`, from byte `start` on.
fn params(text: &str, start: usize) -> Result<Vec<(String, Value)>, ParseError> {
    let mut params: Vec<(String, Value)> = Vec::new();
    let mut places = HashMap::new();
    let mut rest = &text[start..];
    loop {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return Ok(params);
        }
        let at = text.len() - rest.len() + 1;
        let (param, after) = field(rest);
        rest = after;
        if param.0.is_empty() {
            return Err(ParseError::NoName { at });
        }
        let place = *places.entry(param.0.to_ascii_lowercase()).or_insert(params.len());
        match params.get_mut(place) {
            Some(earlier) => *earlier = param,
            None => params.push(param),
        }
    }
}

/// The field at the start of `text`, and what comes after it.
fn field(text: &str) -> ((String, Value), &str) {
    let (mut key, mut items, mut item) = (None, Vec::new(), String::new());
    let mut end = text.len();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => item.push(chars.next_if(|(_, next)| is_special(*next)).map_or(c, |(_, next)| next)),
            ' ' => {
                end = at;
                break;
            }
            '=' if key.is_none() => key = Some(std::mem::take(&mut item)),
            ',' if key.is_some() => items.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    let param = match key {
        None => (item, Value::Text(String::new())),
        Some(key) if items.is_empty() => (key, Value::Text(item)),
        Some(key) => {
            items.push(item);
            (key, Value::List(items))
        }
    };
    (param, &text[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(key: &str, value: &str) -> (String, Value) {
        (key.into(), Value::Text(value.into()))
    }

    #[test]
    fn lines() {
        let list = |key: &str, items: &[&str]| {
            (key.to_owned(), Value::List(items.iter().map(|&i| i.to_owned()).collect()))
        };
        type Params = Vec<(String, Value)>;
        let table: &[(&str, &str, Params)] = &[
            ("", "", vec![]),
            ("   ", "", vec![]),
            ("version", "version", vec![]),
            ("  listStreams  ", "liststreams", vec![]),
            (
                "record localStreamName=cam1  pathToFile=../media/cam1 ",
                "record",
                vec![text("localStreamName", "cam1"), text("pathToFile", "../media/cam1")],
            ),
            // The first `=` ends the key.
            ("pullStream uri=rtmp://h/a?b=c", "pullstream", vec![text("uri", "rtmp://h/a?b=c")]),
            ("x bare a=", "x", vec![text("bare", ""), text("a", "")]),
            // The last one wins, in the place of the first.
            ("x a=1 b=2 A=3", "x", vec![text("A", "3"), text("b", "2")]),
            // Escapes.
            (r"x p=my\ file", "x", vec![text("p", "my file")]),
            (r"x p=a\,b\=c\\d", "x", vec![text("p", r"a,b=c\d")]),
            (r"x a\=b=c", "x", vec![text("a=b", "c")]),
            (r"x p=C:\media\cam", "x", vec![text("p", r"C:\media\cam")]),
            (r"x p=C:\\media\\cam\ 1", "x", vec![text("p", r"C:\media\cam 1")]),
            (r"x p=end\", "x", vec![text("p", r"end\")]),
            (r"x p=end\\ q=1", "x", vec![text("p", r"end\"), text("q", "1")]),
            // Lists; a comma in a key is a comma.
            ("x p=a,b", "x", vec![list("p", &["a", "b"])]),
            ("x p=,", "x", vec![list("p", &["", ""])]),
            (r"x p=a\,b,c", "x", vec![list("p", &["a,b", "c"])]),
            ("x a,b=c", "x", vec![text("a,b", "c")]),
            ("x p=Überwachung", "x", vec![text("p", "Überwachung")]),
        ];
        for (line, command, params) in table {
            let expected = Line { command: command.to_string(), params: params.clone() };
            assert_eq!(Line::parse(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_and_where() {
        let long = vec![b'a'; MAX_LINE + 1];
        let table: &[(&[u8], &str)] = &[
            (&long, "The command is longer than 16384 bytes"),
            (b"record a=\0", "The command has a control character (U+0000) at byte 10"),
            (b"re\tcord", "The command has a control character (U+0009) at byte 3"),
            ("x \u{85}".as_bytes(), "The command has a control character (U+0085) at byte 3"),
            (b"x p=\xff", "The command is not UTF-8 at byte 5"),
            (b"x a=1 =2", "The parameter at byte 7 has no name"),
        ];
        for (line, error) in table {
            assert_eq!(Line::parse(line).unwrap_err().to_string(), *error);
        }
        assert!(Line::parse(&long[1..]).is_ok());
        assert!(matches!(Line::with_params("a\nb", b""), Err(ParseError::Control { .. })));
    }

    #[test]
    fn parameters_apart_from_their_command() {
        let line = Line::with_params("Record", b" a=1 b ").unwrap();
        assert_eq!(line.command, "record");
        assert_eq!(line.params, [text("a", "1"), text("b", "")]);
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(line: Vec<u8>) {
            let _ = Line::parse(&line);
        }

        #[test]
        fn any_text_of_special_characters_is_read(line in r"[ab\\ =,]{0,40}") {
            let _ = Line::parse(line.as_bytes());
        }

        #[test]
        fn what_was_escaped_comes_back(key in r"[a-z=\\ ,]{1,8}", value in r"[^\p{Cc}]{0,40}") {
            let line = format!("x {}={}", escape(&key), escape(&value));
            prop_assert_eq!(Line::parse(line.as_bytes()).unwrap().params, [text(&key, &value)]);
        }
    }
}
