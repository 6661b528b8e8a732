//! The sub-commands, each a command of the server's under a shorter name.

use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Command as Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    api::{Api, Failure},
    show,
};
use crate::control::{
    commands::{COMMANDS, find},
    percent,
    table::{Command, Kind, Need, Param, Route, closest},
};

/// What a sub-command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// These parameters need no flag; what may be left out last.
    Params(&'static [&'static str]),
    /// The server.
    Nothing,
    /// Recordings, by id or by the name of their stream.
    Recordings,
}

/// A sub-command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    command: &'static Command,
    route: &'static Route,
    about: About,
}

/// Names, and where the API has what they mean.
const VERBS: [(&str, &str, &str, About); 10] = [
    ("record", "POST", "/recordings", About::Params(&["localStreamName"])),
    ("streams", "GET", "/streams", About::Nothing),
    ("recordings", "GET", "/recordings", About::Nothing),
    ("stop", "DELETE", "/recordings/{id}", About::Recordings),
    ("split", "POST", "/recordings/{configId}/split", About::Recordings),
    ("pause", "POST", "/recordings/{configId}/pause", About::Recordings),
    ("resume", "POST", "/recordings/{configId}/resume", About::Recordings),
    ("rules", "GET", "/rules", About::Nothing),
    ("disks", "GET", "/disks", About::Nothing),
    ("recoveries", "GET", "/recoveries", About::Nothing),
];

/// Those of `format`.
const FORMAT_VERBS: [(&str, &str, &str, About); 7] = [
    ("list", "GET", "/formats", About::Nothing),
    ("info", "GET", "/formats/{format}", About::Params(&["format", "sha256"])),
    ("load", "POST", "/formats", About::Params(&["path"])),
    ("swap", "POST", "/formats/{format}/swap", About::Params(&["format", "sha256"])),
    ("rollback", "POST", "/formats/{format}/rollback", About::Params(&["format"])),
    ("pin", "POST", "/formats/{format}/pin", About::Params(&["format", "sha256"])),
    ("unload", "DELETE", "/formats/{format}", About::Params(&["format", "sha256"])),
];

/// Those whose command the server has.
pub(super) fn all() -> impl Iterator<Item = Verb> {
    found(&VERBS)
}

/// The sub-commands of `format` that talk to a server.
pub(super) fn of_formats() -> impl Iterator<Item = Verb> {
    found(&FORMAT_VERBS)
}

fn found(verbs: &'static [(&'static str, &'static str, &'static str, About)]) -> impl Iterator<Item = Verb> {
    verbs.iter().filter_map(|&(name, method, path, about)| {
        let routes =
            COMMANDS.iter().flat_map(|command| command.routes.iter().map(move |route| (*command, route)));
        let (command, route) =
            routes.into_iter().find(|(_, route)| (route.method, route.path) == (method, path))?;
        Some(Verb { name, command, route, about })
    })
}

/// Every parameter's name as a flag has it.
static FLAGS: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    let names = COMMANDS.iter().flat_map(|command| command.params).map(|param| param.name);
    // The parser keeps names for as long as the program runs.
    let mut flags: Vec<(&str, &str)> = Vec::new();
    for name in names {
        if flags.iter().all(|(known, _)| *known != name) {
            flags.push((name, kebab(name).leak()));
        }
    }
    flags
});

/// `waitForIDR` as `wait-for-idr`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            kebab.push('-');
        }
        after_lower = !c.is_ascii_uppercase();
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

impl Verb {
    pub(super) fn subcommand(&self) -> Subcommand {
        let mut command = Subcommand::new(self.name).about(self.command.help);
        for param in self.command.params {
            match self.about {
                About::Params(names) if names.contains(&param.name) => {
                    let value_name = match param.name {
                        "localStreamName" => "STREAM",
                        "path" => "FILE",
                        "format" => "FORMAT",
                        "sha256" => "SHA256",
                        name => name,
                    };
                    let required = matches!(param.need, Need::Mandatory);
                    let arg = Arg::new(param.name).required(required).value_name(value_name);
                    command = command.arg(arg.help(param.help));
                }
                About::Recordings if ["id", "configId", "localStreamName"].contains(&param.name) => {}
                _ => command = command.arg(flag(param)),
            }
        }
        if self.about == About::Recordings {
            let which = Arg::new("which").required(true).num_args(1..).value_name("ID|STREAM");
            command = command.arg(which.help("The recording's id, or its stream: all recordings of that"));
        }
        if self.command.name == "record" {
            let user = Arg::new("user").long("user").value_name("NAME=VALUE").action(ArgAction::Append);
            command =
                command.arg(user.help("A variable that is kept and shown as _NAME; may be given again"));
        }
        command
    }

    /// Passes on what the server says: once, or for each recording that is meant, until one is refused.
    pub(super) async fn run(
        &self,
        api: &Api,
        arguments: &ArgMatches,
        mut told: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut params = Map::new();
        for param in self.command.params {
            if let Ok(Some(value)) = arguments.try_get_one::<String>(param.name) {
                params.insert(param.name.to_owned(), json!(meant(param.name, value)));
            }
        }
        for pair in arguments.try_get_many::<String>("user").ok().flatten().into_iter().flatten() {
            let (name, value) = pair_of(pair)?;
            params.insert(format!("_{name}"), json!(value));
        }
        if self.about != About::Recordings {
            return told(send(api, self.route, params).await?);
        }
        let which = arguments.get_many::<String>("which").into_iter().flatten();
        for which in which {
            let list = api.get("/recordings").await?;
            for id in self.recordings(&list, which)? {
                let mut params = params.clone();
                params.insert(self.id().to_owned(), json!(id));
                let data = send(api, self.route, params).await.map_err(|failure| match failure {
                    Failure::Refused(reason) => Failure::Refused(format!("recording {id}: {reason}")),
                    failure => failure,
                })?;
                told(data)?;
            }
        }
        Ok(())
    }

    /// The ids that somebody means by an id, or by the name of a stream; not by what may be either.
    fn recordings(&self, list: &Value, which: &str) -> Result<Vec<u64>, Failure> {
        let list = || list.as_array().into_iter().flatten();
        let of_stream: Vec<u64> = list()
            .filter(|one| one["localStreamName"] == which)
            .filter_map(|one| one["configId"].as_u64())
            .collect();
        match which.parse() {
            Ok(id) if of_stream.is_empty() || of_stream.contains(&id) => Ok(vec![id]),
            Ok(id) => {
                let ids: Vec<_> = of_stream.iter().map(u64::to_string).collect();
                Err(Failure::Usage(format!(
                    "{which} is an id, and a stream's name as well. The recordings of that stream have the ids {}; the \
                     one of the id {id} is reached by `call {} {}={id}`",
                    ids.join(", "),
                    self.command.name,
                    self.id()
                )))
            }
            Err(_) if of_stream.is_empty() => {
                let streams = list().filter_map(|one| one["localStreamName"].as_str());
                let hint = did_you_mean(closest(which, streams));
                Err(Failure::Refused(format!("no recording of a stream `{}`{hint}", show::line(which))))
            }
            Err(_) => Ok(of_stream),
        }
    }

    /// What the path calls the recording's id.
    fn id(&self) -> &'static str {
        if self.route.path.contains("{configId}") { "configId" } else { "id" }
    }

    /// Data as text for people.
    pub(super) fn show(&self, data: &Value) -> String {
        match self.name {
            "streams" => show::streams(data),
            "recordings" => show::recordings(data),
            "disks" => show::disks(data),
            "list" => show::formats(data),
            name if data["configId"].is_u64() => show::recording(name, data),
            name if data["configs"].is_array() => {
                let configs = data["configs"].as_array().into_iter().flatten();
                configs.map(|config| show::recording(name, config)).collect()
            }
            _ => show::any(data),
        }
    }
}

fn flag(param: &Param) -> Arg {
    let long = FLAGS.iter().find(|(name, _)| *name == param.name).map_or(param.name, |(_, flag)| flag);
    let arg = Arg::new(param.name).long(long).help(param.help);
    let arg = if param.name == "pathToFile" { arg.visible_alias("path") } else { arg };
    let arg = arg.required(matches!(param.need, Need::Mandatory));
    match param.kind {
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("1").value_name("BOOL"),
        Kind::Int(..) => arg.value_name("NUMBER"),
        Kind::OneOf(words) => arg.value_parser(words.to_vec()),
        Kind::Text | Kind::AnyText => arg.value_name("TEXT"),
    }
}

/// A file that is here is meant as it lies here, wherever the server runs.
fn meant(name: &str, value: &str) -> String {
    let here =
        (name == "path").then(|| std::path::absolute(value).ok().filter(|path| path.exists())).flatten();
    here.map_or_else(|| value.to_owned(), |path| path.display().to_string())
}

fn pair_of(pair: &str) -> Result<(&str, &str), Failure> {
    pair.split_once('=').ok_or_else(|| Failure::Usage(format!("`{pair}` is not NAME=VALUE")))
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{}`?", show::line(meant)))
}

/// Runs any command by its name.
pub(super) async fn call(api: &Api, arguments: &ArgMatches) -> Result<Value, Failure> {
    let name = arguments.get_one::<String>("command").map_or("", String::as_str);
    let Some(command) = find(name) else {
        let known: Vec<_> = COMMANDS
            .iter()
            .filter(|command| !command.routes.is_empty())
            .map(|command| command.name)
            .collect();
        let hint = did_you_mean(closest(name, known.iter().copied()));
        let name = show::line(name);
        let text = format!("command {name} not known{hint}. There are {}", known.join(", "));
        return Err(Failure::Usage(text));
    };
    let mut params = Map::new();
    for pair in arguments.get_many::<String>("parameters").into_iter().flatten() {
        let (name, value) = pair_of(pair)?;
        let declared = command.params.iter().find(|param| param.name.eq_ignore_ascii_case(name));
        params.insert(declared.map_or(name, |param| param.name).to_owned(), json!(value));
    }
    // The route whose place in the path is given.
    let fits = |route: &&Route| {
        let mut needed = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        needed.all(|name| params.contains_key(name))
    };
    match command.routes.iter().find(fits) {
        Some(route) => send(api, route, params).await,
        None => match command.routes.first() {
            Some(route) => {
                Err(Failure::Usage(format!("{} needs what is in braces: {}", command.name, route.path)))
            }
            None => Err(Failure::Usage(format!("{} is for the command lines only", command.name))),
        },
    }
}

/// Sends a request: parameters in the path where the route has them; the others in a body or the query.
async fn send(api: &Api, route: &Route, mut params: Map<String, Value>) -> Result<Value, Failure> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut path = String::new();
    for part in route.path.split('/').skip(1) {
        path.push('/');
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        match name.map(|name| params.remove(name).unwrap_or_default()) {
            Some(value) => path.push_str(&percent::encode(&text(&value))),
            None => path.push_str(part),
        }
    }
    if matches!(route.method, "POST" | "PUT") {
        let method = if route.method == "POST" { Method::POST } else { Method::PUT };
        return api.ask(method, &path, Some(&Value::Object(params))).await;
    }
    for (number, (name, value)) in params.iter().enumerate() {
        path.push(if number == 0 { '?' } else { '&' });
        path.push_str(&format!("{}={}", percent::encode(name), percent::encode(&text(value))));
    }
    let method = if route.method == "DELETE" { Method::DELETE } else { Method::GET };
    api.ask(method, &path, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_command() {
        let found: Vec<_> = all().map(|verb| verb.name).collect();
        assert_eq!(found, VERBS.map(|(name, ..)| name));
        let found: Vec<_> = of_formats().map(|verb| verb.name).collect();
        assert_eq!(found, FORMAT_VERBS.map(|(name, ..)| name));
    }

    #[test]
    fn ids_and_names_are_told_apart() {
        let list = json!([
            {"configId": 1, "localStreamName": "cam1"}, {"configId": 2, "localStreamName": "cam1"},
            {"configId": 3, "localStreamName": "1"}, {"configId": 4, "localStreamName": "4"},
        ]);
        let stop = all().find(|verb| verb.name == "stop").unwrap();
        let ids = |which| stop.recordings(&list, which).map_err(|failure| failure.to_string());
        assert_eq!(ids("cam1"), Ok(vec![1, 2]));
        assert_eq!((ids("2"), ids("4"), ids("9")), (Ok(vec![2]), Ok(vec![4]), Ok(vec![9])));
        assert_eq!(ids("cam2"), Err("no recording of a stream `cam2`; did you mean `cam1`?".into()));
        assert_eq!(ids("studio"), Err("no recording of a stream `studio`".into()));
        let hint = ids("1").unwrap_err();
        assert!(hint.contains("the ids 3;") && hint.contains("`call removeConfig id=1`"), "{hint}");
    }

    #[test]
    fn flags_of_names() {
        for (name, flag) in [
            ("pathToFile", "path-to-file"),
            ("waitForIDR", "wait-for-idr"),
            ("winQtCompat", "win-qt-compat"),
            ("removeHlsHdsFiles", "remove-hls-hds-files"),
            ("id", "id"),
            ("type", "type"),
        ] {
            assert_eq!(kebab(name), flag);
        }
    }
}
