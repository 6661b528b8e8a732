//! How a command is declared, and how what a client sent becomes its arguments. Pure.
//!
//! A [`Command`] says all there is to know of it: `help` is made from the same table that checks parameters.

use std::{collections::BTreeMap, pin::Pin};

use super::{
    Context,
    parse::{Line, Value},
    reply::Reply,
};

/// A reply to come.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// A command that clients can send.
#[derive(Debug)]
pub struct Command {
    /// As documented; clients may write it in any case.
    pub name: &'static str,
    /// Older names.
    pub aliases: &'static [&'static str],
    pub help: &'static str,
    pub params: &'static [Param],
    /// It makes no sense without any parameter, though none need be mandatory.
    pub needs_params: bool,
    /// What a caller must be allowed to do.
    pub role: Role,
    /// Where the REST API has it, below `/api/v1`; first the usual place.
    pub routes: &'static [Route],
    pub run: for<'a> fn(&'a Context, Args) -> Answer<'a>,
}

/// What a caller may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at things.
    Read,
    /// Start and stop recordings and streams.
    Operate,
    /// Change the server itself.
    Admin,
}

impl Role {
    /// The word for it in settings and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }
}

/// A command's place in the REST API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `POST`, `PUT`, `DELETE`.
    pub method: &'static str,
    /// With parameters of the command in braces: `/recordings/{id}`.
    pub path: &'static str,
    /// What of the reply's data is answered, as a JSON pointer; empty: all of it.
    pub data: &'static str,
}

impl Route {
    /// A route that answers all of the data.
    pub const fn new(method: &'static str, path: &'static str) -> Self {
        Self { method, path, data: "" }
    }
}

/// A parameter of a command.
#[derive(Debug)]
pub struct Param {
    /// As documented; clients may write it in any case.
    pub name: &'static str,
    pub kind: Kind,
    pub need: Need,
    pub help: &'static str,
}

/// What a parameter holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text but an empty one.
    Text,
    /// Any text; an empty one is as good as none.
    AnyText,
    /// `0 1 false true no yes`, in any case.
    Bool,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Decimal digits, without a leading zero; both ends belong to the range.
    Int(u64, u64),
}

/// Whether a parameter must be given, and what holds if it is not.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    Mandatory,
    Optional,
    /// Optional, with a value in the syntax of its kind.
    Default(&'static str),
}

/// `commandId`, which every command takes.
pub const COMMAND_ID: Param = Param {
    name: "commandId",
    kind: Kind::Text,
    need: Need::Optional,
    help: "Comes back as responseId in JSON, to tell replies apart.",
};

/// A value of the kind that its parameter declares.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arg {
    Text(String),
    Bool(bool),
    Int(u64),
}

/// What is wrong with the parameters of a command. The words before the first full stop are EvoStream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error("Syntax error. No parameters provided")]
    None,
    #[error("Syntax error. Parameter {0} is invalid")]
    Invalid(&'static str),
    #[error("Syntax error. Parameter {0} is invalid. Range: {1} - {2}")]
    Range(&'static str, u64, u64),
    #[error("Syntax error. Parameter {0} is invalid. It takes 0 or 1")]
    NotBool(&'static str),
    #[error("Syntax error. Parameter {0} is invalid. It takes one of: {words}", words = .1.join(", "))]
    NotOneOf(&'static str, &'static [&'static str]),
    #[error("Syntax error. Parameter {0} is not known; did you mean {1}?")]
    Misspelt(String, &'static str),
    #[error("Syntax error. Parameter {0} is not known. Type help for details")]
    Unknown(String),
}

/// The checked arguments of a command, with defaults filled in.
#[derive(Debug)]
pub struct Args {
    values: Vec<(&'static str, Option<Arg>)>,
    /// The `_name` variables, underscore included.
    pub user: BTreeMap<String, String>,
}

impl Args {
    /// A text, if it was given or has a default.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Arg::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A truth value; false if it was not given and has no default.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Arg::Bool(true)))
    }

    /// A number, if it was given or has a default.
    pub fn int(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Arg::Int(number)) => Some(*number),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<&Arg> {
        let declared = self.values.iter().find(|(declared, _)| *declared == name);
        declared.unwrap_or_else(|| panic!("no parameter {name} is declared")).1.as_ref()
    }
}

impl Command {
    /// Whether a client means this command.
    pub fn is_called(&self, name: &str) -> bool {
        self.aliases.iter().chain([&self.name]).any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Checks what a client sent.
    pub fn bind(&self, line: Line) -> Result<Args, ArgsError> {
        let known = || self.params.iter().chain([&COMMAND_ID]);
        let mut given: Vec<Option<Value>> = self.params.iter().map(|_| None).collect();
        let mut user = BTreeMap::new();
        for (name, value) in line.params {
            if let Some(place) = self.params.iter().position(|p| p.name.eq_ignore_ascii_case(&name)) {
                given[place] = Some(value);
            } else if name.starts_with('_') {
                let value = match value {
                    Value::Text(text) => text,
                    Value::List(items) => items.join(","),
                };
                user.insert(name, value);
            } else if !COMMAND_ID.name.eq_ignore_ascii_case(&name) {
                let shown = name.chars().take(80).collect();
                return Err(match closest(&name, known().map(|p| p.name)) {
                    Some(meant) => ArgsError::Misspelt(shown, meant),
                    None => ArgsError::Unknown(shown),
                });
            }
        }
        if self.needs_params && user.is_empty() && given.iter().all(Option::is_none) {
            return Err(ArgsError::None);
        }
        let bound = self.params.iter().zip(given).map(|(param, value)| Ok((param.name, param.bind(value)?)));
        Ok(Args { values: bound.collect::<Result<_, _>>()?, user })
    }
}

impl Param {
    fn bind(&self, value: Option<Value>) -> Result<Option<Arg>, ArgsError> {
        match (value, self.need) {
            (Some(Value::Text(text)), Need::Optional)
                if text.is_empty() && matches!(self.kind, Kind::AnyText) =>
            {
                Ok(None)
            }
            (Some(Value::Text(text)), _) => self.read(text).map(Some),
            (Some(Value::List(_)), _) | (None, Need::Mandatory) => Err(ArgsError::Invalid(self.name)),
            (None, Need::Optional) => Ok(None),
            (None, Need::Default(text)) => self.read(text.into()).map(Some),
        }
    }

    fn read(&self, text: String) -> Result<Arg, ArgsError> {
        match self.kind {
            _ if text.is_empty() => Err(ArgsError::Invalid(self.name)),
            Kind::Text | Kind::AnyText => Ok(Arg::Text(text)),
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "0" | "false" | "no" => Ok(Arg::Bool(false)),
                "1" | "true" | "yes" => Ok(Arg::Bool(true)),
                _ => Err(ArgsError::NotBool(self.name)),
            },
            Kind::OneOf(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(&text)) {
                Some(word) => Ok(Arg::Text((*word).into())),
                None => Err(ArgsError::NotOneOf(self.name, words)),
            },
            Kind::Int(min, max) => {
                let leading_zero = text.len() > 1 && text.starts_with('0');
                if leading_zero || !text.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(ArgsError::Invalid(self.name));
                }
                let number = text.parse().ok().filter(|number| (min..=max).contains(number));
                number.map(Arg::Int).ok_or(ArgsError::Range(self.name, min, max))
            }
        }
    }
}

/// Which of the names was meant by one that is none of them, if that can be guessed.
pub(crate) fn closest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > 64 {
        return None;
    }
    let given = given.to_ascii_lowercase();
    names
        .map(|name| (distance(&given, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Command = Command {
        name: "cutStream",
        aliases: &["chopStream"],
        help: "",
        params: &[
            Param { name: "pathToFile", kind: Kind::Text, need: Need::Mandatory, help: "" },
            Param { name: "chunkLength", kind: Kind::Int(0, 999_999), need: Need::Default("0"), help: "" },
            Param { name: "keepAlive", kind: Kind::Bool, need: Need::Default("1"), help: "" },
            Param { name: "id", kind: Kind::Int(1, u64::MAX), need: Need::Optional, help: "" },
        ],
        needs_params: true,
        role: Role::Operate,
        routes: &[],
        run: |_, _| Box::pin(async { Reply::fail("") }),
    };

    fn bind(params: &str) -> Result<Args, ArgsError> {
        CUT.bind(Line::with_params("cutstream", params.as_bytes()).unwrap())
    }

    #[test]
    fn names_in_any_case() {
        assert!(CUT.is_called("cutstream") && CUT.is_called("CHOPSTREAM") && !CUT.is_called("cut"));
    }

    #[test]
    fn defaults_are_filled_in() {
        let args = bind("pathToFile=a").unwrap();
        assert_eq!(args.text("pathToFile"), Some("a"));
        assert_eq!((args.int("chunkLength"), args.is("keepAlive"), args.int("id")), (Some(0), true, None));
        let args =
            bind("PATHTOFILE=A chunklength=60 KeepAlive=No id=18446744073709551615 commandId=7").unwrap();
        assert_eq!(args.text("pathToFile"), Some("A"));
        assert_eq!((args.int("chunkLength"), args.is("keepAlive")), (Some(60), false));
        assert_eq!(args.int("id"), Some(u64::MAX));
    }

    #[test]
    fn user_variables_are_kept() {
        let args = bind("pathToFile=a _who=me _list=a,b _=").unwrap();
        let user: Vec<_> = args.user.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(user, [("_", ""), ("_list", "a,b"), ("_who", "me")]);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let table = [
            ("", "Syntax error. No parameters provided"),
            ("commandId=1", "Syntax error. No parameters provided"),
            ("id=1", "Syntax error. Parameter pathToFile is invalid"),
            ("pathToFile", "Syntax error. Parameter pathToFile is invalid"),
            ("pathToFile=a,b", "Syntax error. Parameter pathToFile is invalid"),
            ("pathToFile=a chunkLength=", "Syntax error. Parameter chunkLength is invalid"),
            ("pathToFile=a chunkLength=abc", "Syntax error. Parameter chunkLength is invalid"),
            ("pathToFile=a chunkLength=-1", "Syntax error. Parameter chunkLength is invalid"),
            ("pathToFile=a chunkLength=+1", "Syntax error. Parameter chunkLength is invalid"),
            ("pathToFile=a chunkLength=1.5", "Syntax error. Parameter chunkLength is invalid"),
            ("pathToFile=a chunkLength=10s", "Syntax error. Parameter chunkLength is invalid"),
            ("pathToFile=a chunkLength=007", "Syntax error. Parameter chunkLength is invalid"),
            (
                "pathToFile=a CHUNKLENGTH=1000000",
                "Syntax error. Parameter chunkLength is invalid. Range: 0 - 999999",
            ),
            (
                "pathToFile=a chunkLength=99999999999999999999999",
                "Syntax error. Parameter chunkLength is invalid. Range: 0 - 999999",
            ),
            ("pathToFile=a keepAlive=2", "Syntax error. Parameter keepAlive is invalid. It takes 0 or 1"),
            ("pathToFile=a keepAlive=on", "Syntax error. Parameter keepAlive is invalid. It takes 0 or 1"),
            ("pathToFile=a keepAlive=", "Syntax error. Parameter keepAlive is invalid"),
            (
                "pathToFile=a chunklenght=60",
                "Syntax error. Parameter chunklenght is not known; did you mean chunkLength?",
            ),
            ("path2file=a", "Syntax error. Parameter path2file is not known; did you mean pathToFile?"),
            ("pathToFile=a colour=red", "Syntax error. Parameter colour is not known. Type help for details"),
        ];
        for (params, error) in table {
            assert_eq!(bind(params).unwrap_err().to_string(), error, "{params}");
        }
    }

    #[test]
    fn a_long_name_is_shown_in_part() {
        let error = bind(&"x".repeat(16_000)).unwrap_err();
        assert_eq!(error, ArgsError::Unknown("x".repeat(80)));
    }

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("abc", "adc", 1), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
