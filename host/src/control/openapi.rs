//! The OpenAPI 3.1 description of the REST API, made from the table of commands. Pure.

use serde_json::{Map, Value, json};

use super::{
    rest::{BASE, PROBLEM, PROBLEMS},
    table::{Command, Kind, Need, Param, Route},
};

/// Where the document is, below [`BASE`].
pub const PATH: &str = "/openapi.json";
/// Where events are, below [`BASE`].
pub const EVENTS: &str = "/events";

/// Whether a command's data is a list, as its routes answer it.
pub fn is_list(command: &Command) -> bool {
    answered(command.name)["type"] == "array"
}

/// The document.
pub fn document(commands: &[&'static Command]) -> Value {
    let mut paths = Map::new();
    for command in commands {
        for (number, route) in command.routes.iter().enumerate() {
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method.to_lowercase()] = operation(command, route, number);
        }
    }
    paths.insert(EVENTS.to_owned(), json!({ "get": events() }));
    paths.insert(PATH.to_owned(), json!({ "get": own() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Reelwright",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Records live streams.",
            "description": "Each operation is a command of the command lines; its operationId begins with the name. \
                Parameters may come in the query of any method, and of all but GET in a body instead.",
        },
        "servers": [{ "url": BASE }],
        "security": [{}, { "bearer": [] }, { "basic": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": responses(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "basic": {
                    "type": "http", "scheme": "basic", "description": "Any user name; the password is the token.",
                },
            },
        },
    })
}

fn operation(command: &Command, route: &Route, number: usize) -> Value {
    let in_path = |param: &Param| route.path.contains(&format!("{{{}}}", param.name));
    let (path, rest): (Vec<&Param>, Vec<&Param>) = command.params.iter().partition(|param| in_path(param));
    let mut parameters: Vec<Value> = path.iter().map(|param| parameter(param, "path")).collect();
    let mut operation = json!({
        "operationId": match number {
            0 => command.name.to_owned(),
            more => format!("{}_{}", command.name, more + 1),
        },
        "summary": command.help,
        "tags": [route.path.split('/').nth(1).unwrap_or_default()],
        "x-role": command.role.as_str(),
        "responses": answers(command, route),
    });
    if route.method == "GET" {
        parameters.extend(rest.iter().map(|param| parameter(param, "query")));
    } else {
        operation["requestBody"] = body(&rest);
    }
    parameters.push(json!({
        "name": "Idempotency-Key", "in": "header", "required": false, "schema": { "type": "string", "minLength": 1 },
        "description": "The commandId: comes back as responseId of a problem.",
    }));
    operation["parameters"] = json!(parameters);
    operation
}

fn parameter(param: &Param, place: &str) -> Value {
    json!({
        "name": param.name,
        "in": place,
        "required": place == "path" || matches!(param.need, Need::Mandatory),
        "description": param.help,
        "schema": schema(param),
    })
}

/// What a parameter takes.
fn schema(param: &Param) -> Value {
    let mut schema = match param.kind {
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::AnyText => json!({ "type": "string" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Int(min, u64::MAX) => json!({ "type": "integer", "minimum": min }),
        Kind::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
    };
    if let Need::Default(text) = param.need {
        schema["default"] = match param.kind {
            Kind::Text | Kind::AnyText | Kind::OneOf(_) => json!(text),
            Kind::Bool => json!(text == "1"),
            Kind::Int(..) => json!(text.parse::<u64>().unwrap_or_default()),
        };
    }
    schema
}

fn body(params: &[&Param]) -> Value {
    let mut properties = Map::new();
    for param in params {
        let mut schema = schema(param);
        schema["description"] = json!(param.help);
        properties.insert(param.name.to_owned(), schema);
    }
    let required: Vec<&str> =
        params.iter().filter(|param| matches!(param.need, Need::Mandatory)).map(|param| param.name).collect();
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "patternProperties": { "^_": { "type": "string", "description": "A variable of yours, kept and shown." } },
        "additionalProperties": false,
    });
    json!({ "required": !required.is_empty(), "content": { "application/json": { "schema": schema } } })
}

fn answers(command: &Command, route: &Route) -> Value {
    let content = json!({ "application/json": { "schema": answered(command.name) } });
    let mut answers = json!({ "200": { "description": "Done.", "content": content } });
    if route.method == "POST" {
        answers["201"] = json!({
            "description": "Made.",
            "headers": { "Location": { "description": "Where it is.", "schema": { "type": "string" } } },
            "content": content,
        });
    }
    add_problems(&mut answers, &[400, 401, 403, 404, 409, 429, 500]);
    if route.method != "GET" {
        add_problems(&mut answers, &[408, 413, 415]);
    }
    answers
}

fn add_problems(answers: &mut Value, codes: &[u16]) {
    for code in codes {
        answers[code.to_string()] = json!({ "$ref": format!("#/components/responses/Problem{code}") });
    }
}

fn responses() -> Value {
    let content = json!({ PROBLEM: { "schema": reference("Problem") } });
    let one = |(code, title): &(u16, &str)| {
        (format!("Problem{code}"), json!({ "description": title, "content": content }))
    };
    Value::Object(PROBLEMS.iter().map(one).collect())
}

fn own() -> Value {
    let mut answers = json!({
        "200": { "description": "This document.", "content": { "application/json": { "schema": { "type": "object" } } } },
    });
    add_problems(&mut answers, &[401, 403, 429]);
    json!({
        "operationId": "openapi", "summary": "Describes the API.", "tags": ["about"], "x-role": "read",
        "responses": answers,
    })
}

fn events() -> Value {
    let mut answers = json!({
        "200": {
            "description": "A stream of events, `id` their number, `event` their type, `data` in JSON (Event). \
                `lagged` says how many were missed by who reads too slowly.",
            "content": { "text/event-stream": { "schema": { "type": "string" } } },
        },
    });
    add_problems(&mut answers, &[400, 401, 403, 429]);
    json!({
        "operationId": "events",
        "summary": "Tells what happens from now on, as server-sent events.",
        "tags": ["events"],
        "x-role": "read",
        "parameters": [
            {
                "name": "types", "in": "query", "required": false, "style": "form", "explode": false,
                "description": "Types of events; all without it.",
                "schema": { "type": "array", "items": { "type": "string" } },
            },
            {
                "name": "configId", "in": "query", "required": false,
                "description": "Only events about this recording.",
                "schema": { "type": "integer", "minimum": 0 },
            },
        ],
        "responses": answers,
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What a command answers; anything for those that are not known here.
fn answered(command: &str) -> Value {
    let list = |items: Value| json!({ "type": "array", "items": items });
    match command {
        "help" => list(reference("Command")),
        "version" => reference("Version"),
        "record" | "getConfigInfo" | "removeConfig" => reference("Recording"),
        "listConfig" => list(reference("Recording")),
        "listDisks" => list(reference("Disk")),
        "listRecoveries" => reference("Recoveries"),
        "splitRecord" | "pauseRecord" | "resumeRecord" => {
            object(&[("configs", list(reference("Recording")))])
        }
        "listFormats" => list(reference("FormatVersion")),
        "loadFormat" | "swapFormat" | "rollbackFormat" => reference("FormatVersion"),
        "getFormatInfo" => object(&[
            ("format", text()),
            ("versions", list(reference("FormatVersion"))),
            ("swaps", list(json!({ "type": "object" }))),
        ]),
        "listRecordRules" | "listTimers" | "listIngestPoints" => list(json!({ "type": "object" })),
        "shutdownStream" => reference("Closed"),
        "listStreams" | "listInboundStreams" => list(reference("Stream")),
        "getStreamInfo" => reference("Stream"),
        "listStreamsIds" => list(json!({ "type": "integer", "minimum": 0 })),
        "listInboundStreamNames" => list(object(&[("name", text())])),
        "getStreamsCount" => object(&[("streamCount", count())]),
        _ => json!({}),
    }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn number() -> Value {
    json!({ "type": "number", "minimum": 0 })
}

/// An object that has at least these.
fn object(properties: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// Its optional parts.
fn with(mut object: Value, optional: &[(&str, Value)]) -> Value {
    for (name, schema) in optional {
        object["properties"][*name] = schema.clone();
    }
    object
}

fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn schemas() -> Value {
    let list = |items: Value| json!({ "type": "array", "items": items });
    let track = || {
        object(&[
            ("bytesCount", count()),
            ("codec", text()),
            ("codecNumeric", count()),
            ("droppedBytesCount", count()),
            ("droppedPacketsCount", count()),
            ("packetsCount", count()),
        ])
    };
    let status = object(&[
        ("code", count()),
        ("description", text()),
        ("timestamp", count()),
        ("uniqueStreamId", count()),
    ]);
    let recording = object(&[
        ("chunkLength", count()),
        ("computedPathToFile", text()),
        ("configId", count()),
        ("dateFolderStructure", flag()),
        ("hasAudio", flag()),
        ("keepAlive", flag()),
        ("localStreamName", text()),
        ("operationType", count()),
        ("overwrite", flag()),
        ("pathToFile", text()),
        ("preset", count()),
        ("type", text()),
        ("waitForIDR", flag()),
        ("winQtCompat", flag()),
    ]);
    let both = object(&[("current", reference("Status")), ("previous", nullable(reference("Status")))]);
    let mut recording = with(recording, &[("mp4BinPath", text()), ("status", both)]);
    recording["patternProperties"] = json!({ "^_": text() });
    let stream = object(&[
        ("appName", text()),
        ("audio", reference("Audio")),
        ("bandwidth", count()),
        ("connectionType", count()),
        ("creationTimestamp", number()),
        ("farIp", text()),
        ("farPort", count()),
        ("name", text()),
        ("nearIp", text()),
        ("nearPort", count()),
        ("processId", count()),
        ("queryTimestamp", number()),
        ("type", text()),
        ("typeNumeric", count()),
        ("uniqueId", count()),
        ("upTime", number()),
        ("video", reference("Video")),
    ]);
    let file = object(&[("component", text()), ("file", text()), ("segments", count())]);
    let stream = with(
        stream,
        &[
            ("inStreamUniqueId", count()),
            ("outStreamsUniqueIds", nullable(list(count()))),
            ("recordInfo", file),
            ("recordSettings", reference("Recording")),
        ],
    );
    json!({
        "Audio": track(),
        "Closed": with(
            object(&[("protocolStackInfo", json!({})), ("streamInfo", nullable(reference("Stream")))]),
            &[("configs", list(reference("Recording")))],
        ),
        "Command": object(&[
            ("command", text()),
            ("deprecated", flag()),
            ("description", text()),
            ("parameters", list(reference("Parameter"))),
        ]),
        "Disk": object(&[
            ("path", text()),
            ("state", json!({ "type": "string", "enum": ["good", "low", "full", "failing"] })),
            ("freeBytes", nullable(count())),
            ("totalBytes", nullable(count())),
        ]),
        "Event": object(&[("type", text()), ("timestamp", count()), ("payload", json!({ "type": "object" }))]),
        "FormatVersion": with(
            object(&[
                ("format", nullable(text())),
                ("version", nullable(text())),
                ("sha256", text()),
                ("state", json!({
                    "type": "string",
                    "enum": ["staged", "probed", "failed", "canary", "active", "draining", "retired", "missing"],
                })),
                ("recordings", count()),
            ]),
            &[("source", text()), ("since", count()), ("pinned", flag()), ("rolledBack", flag()), ("reason", text())],
        ),
        "Parameter": object(&[
            ("defaultValue", text()),
            ("description", text()),
            ("mandatory", flag()),
            ("name", text()),
        ]),
        "Problem": with(
            object(&[("type", text()), ("title", text()), ("status", count()), ("detail", text())]),
            &[("command", text()), ("responseId", text())],
        ),
        "Recording": recording,
        "Recoveries": object(&[
            ("recoveries", list(object(&[("outcome", text()), ("path", text()), ("timestamp", count())]))),
            ("unfinished", count()),
        ]),
        "Status": with(status, &[("reason", text())]),
        "Stream": stream,
        "Version": object(&[("banner", text()), ("buildDate", text()), ("releaseNumber", text())]),
        "Video": with(
            track(),
            &[("height", count()), ("level", count()), ("profile", count()), ("width", count())],
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::control::commands::COMMANDS;

    fn operations(document: &Value) -> Vec<(String, String, &Value)> {
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                all.push((method.to_uppercase(), path.clone(), operation));
            }
        }
        all
    }

    #[test]
    fn every_route_is_in_it_and_nothing_else() {
        let document = document(&COMMANDS);
        let described: HashSet<_> =
            operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
        let mut routes: HashSet<_> = COMMANDS
            .iter()
            .flat_map(|command| command.routes)
            .map(|route| (route.method.to_owned(), route.path.to_owned()))
            .collect();
        routes.extend([EVENTS, PATH].map(|path| ("GET".to_owned(), path.to_owned())));
        assert_eq!(described, routes);
    }

    #[test]
    fn it_is_sound() {
        let document = document(&COMMANDS);
        assert_eq!(document["openapi"], "3.1.0");
        for key in ["title", "version"] {
            assert!(document["info"][key].is_string(), "{key}");
        }
        let mut ids = HashSet::new();
        for (method, path, operation) in operations(&document) {
            let at = format!("{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{at}: the operationId is used twice"
            );
            let mut named: HashSet<_> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let mut seen = HashSet::new();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                assert!(seen.insert((name, parameter["in"].as_str().unwrap())), "{at} {name}");
                assert!(parameter["schema"].is_object(), "{at} {name}");
                if parameter["in"] == "path" {
                    assert!(named.remove(name) && parameter["required"] == true, "{at} {name}");
                }
            }
            assert!(named.is_empty(), "{at}: {named:?} not described");
            assert_eq!(operation.get("requestBody").is_some(), method != "GET", "{at}");
            for (code, _) in operation["responses"].as_object().unwrap() {
                assert!(code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)), "{at} {code}");
            }
        }
        let mut references = Vec::new();
        all_references(&document, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some(), "{reference} leads nowhere");
        }
    }

    fn all_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.push(reference);
                }
                map.values().for_each(|value| all_references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| all_references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn its_schemas_are_json_schema() {
        let document = document(&COMMANDS);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut count = 0;
        for (name, schema) in schemas {
            assert!(jsonschema::meta::is_valid(schema), "{name}");
            count += 1;
        }
        for (method, path, operation) in operations(&document) {
            let bodies = operation.pointer("/requestBody/content/application~1json/schema");
            let answers = operation.pointer("/responses/200/content/application~1json/schema");
            let parameters = operation["parameters"].as_array().into_iter().flatten().map(|p| &p["schema"]);
            for schema in bodies.into_iter().chain(answers).chain(parameters) {
                assert!(jsonschema::meta::is_valid(schema), "{method} {path}: {schema}");
                count += 1;
            }
        }
        assert!(count > 30);
    }

    #[test]
    fn parameters_are_described_with_their_ranges() {
        let document = document(&COMMANDS);
        let record = &document["paths"]["/recordings"]["post"];
        let body = &record["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["localStreamName", "pathToFile"]));
        let length = &body["properties"]["chunkLength"];
        assert_eq!((&length["maximum"], &length["default"]), (&json!(999_999), &json!(0)));
        assert_eq!(body["properties"]["keepAlive"]["default"], true);
        assert_eq!(record["x-role"], "operate");
    }
}
