//! The REST API, apart from its sockets: which command a request means, and what it is answered. Pure.
//!
//! ```text
//! GET    /api/v1/recordings/7          getConfigInfo id=7
//! POST   /api/v1/recordings  {…}       record localStreamName=… pathToFile=…
//! DELETE /api/v1/recordings/7?x=1      removeConfig id=7 x=1
//! ```
//!
//! Parameters come in the path, in the query, and for all methods but GET in a body, which is a JSON object; each
//! one once. A success is answered with the data as it is, a failure with a problem (RFC 9457).

use serde_json::{Value as Json, json};

use super::{
    openapi,
    parse::{Line, MAX_LINE, ParseError, Value},
    percent,
    reply::{Fault, Reply, Status},
    table::{COMMAND_ID, Command, Route},
};

/// Where the API begins.
pub const BASE: &str = "/api/v1";
/// Longest body of a request, in bytes: that of a command line.
pub const MAX_BODY: usize = MAX_LINE;
/// What problems are, as `Content-Type` has it.
pub const PROBLEM: &str = "application/problem+json";

/// What is at a path.
#[derive(Debug)]
pub enum Place {
    /// A command, and parameters that the path holds.
    Command {
        command: &'static Command,
        route: &'static Route,
        params: Vec<(String, String)>,
    },
    /// Something, but not for that method; for these.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

/// Finds what a request to a path below [`BASE`] means. Of two routes the one with more literal segments counts.
pub fn find(commands: &[&'static Command], method: &str, path: &str) -> Place {
    let mut fitting: Vec<_> = commands
        .iter()
        .flat_map(|command| command.routes.iter().map(move |route| (*command, route)))
        .filter_map(|(command, route)| Some((command, route, params(route.path, path)?)))
        .collect();
    fitting.sort_by_key(|(_, _, params)| params.len());
    match fitting.iter().position(|(_, route, _)| route.method == method) {
        Some(place) => {
            let (command, route, params) = fitting.swap_remove(place);
            Place::Command { command, route, params }
        }
        None if fitting.is_empty() => Place::Nothing,
        None => {
            let mut methods: Vec<_> = fitting.iter().map(|(_, route, _)| route.method).collect();
            methods.sort_unstable();
            methods.dedup();
            Place::OtherMethods(methods)
        }
    }
}

/// What a path has in place of a pattern's `{name}`s; `None` if it does not fit.
fn params(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut params = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(params),
            (Some(wanted), Some(given)) => {
                let given = String::from_utf8(percent::decode(given)).ok()?;
                match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(name) if !given.is_empty() => params.push((name.to_owned(), given)),
                    None if wanted == given => {}
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
}

/// The parameters in a query, where `+` is a blank.
pub fn query(query: &str) -> Result<Vec<(String, String)>, ParseError> {
    let text = |text: &str| {
        String::from_utf8(percent::decode(&text.replace('+', " ")))
            .map_err(|_| ParseError::Encoding("The query is not UTF-8".into()))
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| Ok((text(k)?, text(v)?)))
        .collect()
}

/// The parameters in a body; an empty one has none. Nulls are not given.
pub fn body(body: &[u8]) -> Result<Vec<(String, Value)>, ParseError> {
    let wrong = |what: String| ParseError::Encoding(what);
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let body: Json =
        serde_json::from_slice(body).map_err(|error| wrong(format!("The body is not JSON: {error}")))?;
    let Json::Object(body) = body else {
        return Err(wrong("The body is no JSON object".into()));
    };
    let mut params = Vec::new();
    for (name, value) in body {
        let value = match value {
            Json::Null => continue,
            Json::Object(_) => {
                return Err(wrong(format!("Parameter {} is an object", shown(&name))));
            }
            Json::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                match items {
                    Some(mut items) if items.len() == 1 => Value::Text(items.swap_remove(0)),
                    Some(items) if !items.is_empty() => Value::List(items),
                    _ => {
                        let what = "is a list of something else than texts, numbers and booleans";
                        return Err(wrong(format!("Parameter {} {what}", shown(&name))));
                    }
                }
            }
            value => Value::Text(scalar(&value).unwrap_or_default()),
        };
        params.push((name, value));
    }
    Ok(params)
}

fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(bool) => Some(bool.to_string()),
        _ => None,
    }
}

/// A command line from all that a request has; no parameter may come twice.
pub fn line(command: &Command, params: Vec<(String, Value)>) -> Result<Line, ParseError> {
    let mut names: Vec<String> = params.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ParseError::Encoding(format!("Parameter {} is given twice", shown(&twice[0]))));
    }
    let mut length = 0;
    for (name, value) in &params {
        if name.is_empty() {
            return Err(ParseError::Encoding("A parameter has no name".into()));
        }
        let items = match value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::List(items) => items,
        };
        for text in items.iter().chain([name]) {
            length += text.len();
            if let Some(control) = text.chars().find(|c| c.is_control()) {
                let (name, control) = (shown(name), control as u32);
                let what = format!("Parameter {name} has a control character (U+{control:04X})");
                return Err(ParseError::Encoding(what));
            }
        }
    }
    if length > MAX_LINE {
        return Err(ParseError::TooLong);
    }
    Ok(Line { command: command.name.to_ascii_lowercase(), params })
}

/// The start of a name that a client sent, fit for a line of text.
fn shown(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// An answer: status code, JSON, and for something that was made its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Json,
    pub location: Option<String>,
}

/// The answer that a reply makes.
pub fn answer(commands: &[&'static Command], command: &Command, route: &Route, reply: Reply) -> Answer {
    if reply.status == Status::Fail {
        let status = status(reply.fault);
        let mut body = problem(status, &reply.description);
        body["command"] = json!(command.name);
        if let Some(id) = reply.response_id {
            body["responseId"] = json!(id);
        }
        return Answer { status, body, location: None };
    }
    let location = location(commands, route, &reply.data);
    let mut data = reply.data;
    let body = match data.pointer_mut(route.data).map(Json::take) {
        // EvoStream's word for an empty list.
        Some(Json::Null) | None if openapi::is_list(command) => json!([]),
        Some(body) => body,
        None => Json::Null,
    };
    Answer { status: if location.is_some() { 201 } else { 200 }, body, location }
}

/// Where what a POST made is, if the API has it.
fn location(commands: &[&'static Command], route: &Route, data: &Json) -> Option<String> {
    if route.method != "POST" {
        return None;
    }
    let below = |one: &Route| {
        let name = one.path.strip_prefix(route.path)?.strip_prefix("/{")?.strip_suffix('}')?;
        let names = if name == "id" { &["configId", "timerId", name][..] } else { &[name] };
        let value = names.iter().find_map(|name| data.get(name));
        let value = match value? {
            Json::Number(number) if number.as_u64() != Some(0) => number.to_string(),
            Json::String(text) if !text.is_empty() => percent::encode(text),
            _ => return None,
        };
        Some(format!("{BASE}{}/{value}", route.path))
    };
    commands.iter().flat_map(|command| command.routes).find_map(below)
}

/// A failure as RFC 9457 has it.
pub fn problem(status: u16, detail: &str) -> Json {
    json!({ "type": "about:blank", "title": title(status), "status": status, "detail": detail })
}

/// The status code of a failure.
pub fn status(fault: Fault) -> u16 {
    match fault {
        Fault::Invalid => 400,
        Fault::Unauthenticated => 401,
        Fault::Forbidden => 403,
        Fault::NotFound => 404,
        Fault::Conflict => 409,
        Fault::TooMany => 429,
        Fault::Failed => 500,
    }
}

/// Every status code that is no success, with its phrase.
pub const PROBLEMS: [(u16, &str); 11] = [
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (413, "Content Too Large"),
    (415, "Unsupported Media Type"),
    (429, "Too Many Requests"),
    (500, "Internal Server Error"),
];

fn title(status: u16) -> &'static str {
    PROBLEMS.iter().find(|(code, _)| *code == status).map_or("Error", |(_, title)| title)
}

/// A `commandId` in a header of its own.
pub fn command_id(key: &str) -> (String, Value) {
    (COMMAND_ID.name.to_owned(), Value::Text(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::{commands::COMMANDS, table::Role};

    fn found(method: &str, path: &str) -> String {
        match find(&COMMANDS, method, path) {
            Place::Command { command, params, .. } => {
                let params: Vec<_> = params.iter().map(|(k, v)| format!(" {k}={v}")).collect();
                command.name.to_owned() + &params.concat()
            }
            Place::OtherMethods(methods) => methods.join(", "),
            Place::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn every_route_is_found_and_is_sound() {
        for command in COMMANDS {
            for route in command.routes {
                let name = command.name;
                assert!(["GET", "POST", "PUT", "DELETE"].contains(&route.method), "{name}");
                assert!(command.role != Role::Read || route.method == "GET", "{name} changes nothing");
                let path = route.path.replace(['{', '}'], "");
                let Place::Command { command: found, route: by, params } =
                    find(&COMMANDS, route.method, &path)
                else {
                    panic!("{name}: {} is not found", route.path);
                };
                assert_eq!((found.name, by), (name, route));
                for (param, _) in params {
                    let known = command.params.iter().any(|known| known.name == param);
                    assert!(known, "{name} has no parameter {param}");
                }
                assert!(route.data.is_empty() || route.data.starts_with('/'), "{name}");
            }
        }
    }

    #[test]
    fn places() {
        for (method, path, expected) in [
            ("GET", "/recordings/7", "getConfigInfo id=7"),
            ("DELETE", "/recordings/7", "removeConfig id=7"),
            ("DELETE", "/streams/a%2Fb%20c", "shutdownStream id=a/b c"),
            ("GET", "/streams/ids", "listStreamsIds"),
            ("PATCH", "/recordings/7", "DELETE, GET"),
            ("get", "/recordings", "GET, POST"),
            ("GET", "/recordings/", "nothing"),
            ("GET", "/recordings/7/", "nothing"),
            ("GET", "//recordings", "nothing"),
            ("GET", "/recordings/%ff", "nothing"),
            ("GET", "", "nothing"),
            ("GET", "/", "nothing"),
            ("GET", "/Recordings", "nothing"),
        ] {
            assert_eq!(found(method, path), expected, "{method} {path}");
        }
    }

    fn text(name: &str, value: &str) -> (String, Value) {
        (name.into(), Value::Text(value.into()))
    }

    #[test]
    fn bodies() {
        let list = ("l".to_owned(), Value::List(vec!["a,b".into(), "1".into()]));
        let table: [(&str, Vec<_>); 5] = [
            ("", vec![]),
            (" \n", vec![]),
            ("{}", vec![]),
            (
                r#"{"a":"x y","b":true,"n":60,"none":null,"one":["x"]}"#,
                vec![text("a", "x y"), text("b", "true"), text("n", "60"), text("one", "x")],
            ),
            (r#"{"l":["a,b",1]}"#, vec![list]),
        ];
        for (json, expected) in table {
            assert_eq!(body(json.as_bytes()).unwrap(), expected, "{json}");
        }
        for (json, error) in [
            ("{", "The body is not JSON: EOF while parsing an object at line 1 column 1"),
            ("[1]", "The body is no JSON object"),
            ("7", "The body is no JSON object"),
            (r#"{"a":{}}"#, "Parameter a is an object"),
            (r#"{"a":[]}"#, "Parameter a is a list of something else than texts, numbers and booleans"),
            (r#"{"a":[[1]]}"#, "Parameter a is a list of something else than texts, numbers and booleans"),
        ] {
            assert_eq!(body(json.as_bytes()).unwrap_err().to_string(), error, "{json}");
        }
        let deep = "[".repeat(MAX_BODY);
        assert!(body(deep.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
    }

    #[test]
    fn lines() {
        let command = COMMANDS[0];
        assert_eq!(line(command, vec![text("a", "é")]).unwrap().command, "help");
        for (params, error) in [
            (vec![text("id", "1"), text("ID", "2")], "Parameter id is given twice"),
            (vec![text("a", "x\0")], "Parameter a has a control character (U+0000)"),
            (vec![text("a\n", "x")], "Parameter a. has a control character (U+000A)"),
            (vec![text("", "x")], "A parameter has no name"),
            (vec![text("a", &"x".repeat(MAX_LINE))], "The command is longer than 16384 bytes"),
        ] {
            assert_eq!(line(command, params).unwrap_err().to_string(), error);
        }
        let pairs = query("a=1+2&b=%2B&&c&=x").unwrap();
        let expected = [("a", "1 2"), ("b", "+"), ("c", ""), ("", "x")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(query("a=%ff").is_err());
    }

    fn answered(method: &str, path: &str, reply: Reply) -> Answer {
        let Place::Command { command, route, .. } = find(&COMMANDS, method, path) else { panic!("{path}") };
        answer(&COMMANDS, command, route, reply)
    }

    #[test]
    fn answers() {
        let made = answered("POST", "/recordings", Reply::success("", json!({"configId": 7})));
        assert_eq!((made.status, made.location.as_deref()), (201, Some("/api/v1/recordings/7")));
        let tried = answered("POST", "/recordings", Reply::success("", json!({"configId": 0})));
        assert_eq!((tried.status, tried.location), (200, None));
        let made = answered("POST", "/rules", Reply::success("", json!({"id": 5, "configIds": []})));
        assert_eq!((made.status, made.location.as_deref()), (201, Some("/api/v1/rules/5")));
        let data = json!({"dash": [], "record": [1]});
        assert_eq!(answered("GET", "/recordings", Reply::success("", data)).body, json!([1]));
        assert_eq!(answered("GET", "/streams", Reply::success("", Json::Null)).body, json!([]));
        let failed = Reply { response_id: Some("k".into()), ..Reply::fault(Fault::NotFound, "a/b") };
        let expected = json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "a/b",
            "command": "getStreamInfo", "responseId": "k",
        });
        let failed = answered("GET", "/streams/9", failed);
        assert_eq!((failed.status, failed.body), (404, expected));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(path in ".{0,40}", asked in ".{0,40}", json: Vec<u8>) {
            let _ = find(&COMMANDS, "GET", &path);
            let _ = query(&asked);
            let _ = body(&json);
        }
    }
}
