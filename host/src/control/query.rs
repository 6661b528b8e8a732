//! What HTTP clients of EvoStream's send: the command in the path, base64 of its parameters in the query. Pure.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    parse::{Line, ParseError},
    percent,
};

/// The command in the path, the parameters in the query's first parameter, whatever its name.
pub fn read(path: &str, query: Option<&str>) -> Result<Line, ParseError> {
    let command = percent::decode(path.strip_prefix('/').unwrap_or(path));
    let command = String::from_utf8(command)
        .map_err(|e| ParseError::NotUtf8 { at: e.utf8_error().valid_up_to() + 1 })?;
    let first = query.and_then(|query| query.split('&').next()).unwrap_or_default();
    let encoded = first.split_once('=').map_or("", |(_, value)| value);
    Line::with_params(&command, decoded(encoded)?.as_bytes())
}

/// Clients send base64 as it is, so `+` is a plus sign; some percent-encode it, some use the alphabet for URLs.
fn decoded(encoded: &str) -> Result<String, ParseError> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let mut encoded = percent::decode(encoded);
    for byte in &mut encoded {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    let wrong = |what: &dyn std::fmt::Display| {
        let rule = "The first parameter of the query must hold base64 of key=value …";
        ParseError::Encoding(format!("{rule}: {what}"))
    };
    let decoded = LENIENT.decode(encoded.trim_ascii()).map_err(|error| wrong(&error))?;
    match str::from_utf8(&decoded) {
        Ok(text) => Ok(text.trim_ascii().into()),
        Err(error) => Err(wrong(&error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::parse::Value;

    #[test]
    fn parameters_in_every_coding() {
        // Documented: localStreamName=cam1 pathToFile=../media/cam1 type=mp4 chunkLength=60
        let documented =
            "bG9jYWxTdHJlYW1OYW1lPWNhbTEgcGF0aFRvRmlsZT0uLi9tZWRpYS9jYW0xIHR5cGU9bXA0IGNodW5rTGVuZ3RoPTYw";
        let line = read("/Record", Some(&format!("params={documented}"))).unwrap();
        assert_eq!(line.command, "record");
        assert_eq!(line.params[1], ("pathToFile".into(), Value::Text("../media/cam1".into())));
        assert_eq!(line.params.len(), 4);

        // `p=>>>~~~??~` needs both special characters and padding.
        let expected = vec![("p".to_owned(), Value::Text(">>>~~~??~".into()))];
        for query in [
            "params=cD0+Pj5+fn4/P34=",
            "anything=cD0+Pj5+fn4/P34=&params=x",
            "params=cD0%2BPj5%2bfn4%2FP34%3D",
            "params=cD0-Pj5-fn4_P34",
            "params=cD0+Pj5+fn4/P34",
            "params=%20cD0+Pj5+fn4/P34=",
            "=cD0+Pj5+fn4/P34=",
        ] {
            assert_eq!(read("/x", Some(query)).unwrap().params, expected, "{query}");
        }
    }

    #[test]
    fn no_parameters() {
        for query in [None, Some(""), Some("params"), Some("params="), Some("params=%20"), Some("&a=eA==")] {
            assert_eq!(read("/version", query), Ok(Line { command: "version".into(), params: vec![] }));
        }
        assert_eq!(read("/", None).unwrap().command, "");
        // A line end after the parameters, as from echo.
        assert_eq!(read("/x", Some("p=YT0xCg==")).unwrap().params, [("a".into(), Value::Text("1".into()))]);
    }

    #[test]
    fn what_is_no_command_line() {
        let table = [
            (
                "/x",
                "params=localStreamName",
                "The first parameter of the query must hold base64 of key=value …: ",
            ),
            (
                "/x",
                "localStreamName=cam!",
                "The first parameter of the query must hold base64 of key=value …: ",
            ),
            // `a=\0`
            ("/x", "params=YT0A", "The command has a control character (U+0000) at byte 3"),
            ("/a%00b", "", "The command has a control character (U+0000) at byte 2"),
            ("/%ff", "", "The command is not UTF-8 at byte 1"),
        ];
        for (path, query, error) in table {
            let got = read(path, Some(query)).unwrap_err().to_string();
            assert!(got.starts_with(error), "{path} {query}: {got}");
        }
        let long = format!("params={}", "YWFh".repeat(6000));
        assert_eq!(read("/x", Some(&long)), Err(ParseError::TooLong));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(path in ".{0,30}", query in "[A-Za-z0-9+/=%_ &-]{0,40}") {
            let _ = read(&path, Some(&query));
        }
    }
}
