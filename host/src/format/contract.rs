//! The contract as data: what `wit/0.1.0/writer.wit` says of each function, to be compared with what a component has.
//!
//! The text is our own, and frozen; the parser knows what it uses of WIT and no more.

use std::{collections::BTreeMap, fmt};

/// The package of the contract.
pub(super) const PACKAGE: &str = "reelwright:writer";
/// Its version, and what versions that fit begin with.
pub(super) const VERSION: &str = "0.1.0";
pub(super) const FITS: &str = "0.1.";

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ty {
    Primitive(String),
    List(Box<Ty>),
    Option(Box<Ty>),
    Result(Option<Box<Ty>>, Option<Box<Ty>>),
    Record(String, Vec<(String, Ty)>),
    Enum(String, Vec<String>),
    /// A handle: `own` or `borrow`, of the resource of that name.
    Own(String),
    Borrow(String),
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Func {
    pub(super) params: Vec<(String, Ty)>,
    pub(super) result: Option<Ty>,
}

/// The functions of each interface, by the names that they have in a component.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contract {
    interfaces: BTreeMap<String, BTreeMap<String, Func>>,
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |ty: &Option<Box<Ty>>| ty.as_ref().map_or("_".into(), |ty| ty.to_string());
        match self {
            Self::Primitive(name) => f.write_str(name),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Option(some) => write!(f, "option<{some}>"),
            Self::Result(None, None) => f.write_str("result"),
            Self::Result(ok, None) => write!(f, "result<{}>", part(ok)),
            Self::Result(ok, err) => write!(f, "result<{}, {}>", part(ok), part(err)),
            Self::Record(name, _) => write!(f, "record {name}"),
            Self::Enum(name, _) => write!(f, "enum {name}"),
            Self::Own(name) => write!(f, "own<{name}>"),
            Self::Borrow(name) => write!(f, "borrow<{name}>"),
        }
    }
}

impl Contract {
    /// Reads `wit/0.1.0`.
    pub(super) fn current() -> Result<Self, String> {
        Self::parse(include_str!("../../../wit/0.1.0/writer.wit"))
    }

    /// The functions of an interface of the contract, by its name without package and version.
    pub(super) fn interface(&self, name: &str) -> Option<&BTreeMap<String, Func>> {
        self.interfaces.get(name)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text).into_iter().rev().collect() };
        let mut contract = Self::default();
        let mut known: BTreeMap<String, BTreeMap<String, Ty>> = BTreeMap::new();
        while let Some(token) = parser.tokens.pop() {
            match token {
                "interface" => {
                    let name = parser.word()?;
                    let (types, funcs) = parser.interface(&known)?;
                    known.insert(name.clone(), types);
                    contract.interfaces.insert(name, funcs);
                }
                "package" => parser.skip_to(";")?,
                // Worlds say which interfaces there are, which `check` knows.
                "world" => parser.skip_to("}")?,
                other => return Err(format!("`{other}` outside of an interface")),
            }
        }
        Ok(contract)
    }
}

/// Words and signs, without comments and gates.
fn tokens(text: &str) -> Vec<&str> {
    let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    let code = code.filter(|line| !line.trim_start().starts_with('@'));
    let mut tokens = Vec::new();
    for line in code {
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let mut end = rest.find(|c: char| !is_word(c) && c != '-').unwrap_or(rest.len());
            if rest.starts_with("->") {
                end = 2;
            } else if end == 0 {
                end = rest.chars().next().map_or(1, char::len_utf8);
            }
            let (token, after) = rest.split_at(end);
            tokens.push(token);
            rest = after.trim_start();
        }
    }
    tokens
}

type Interface = (BTreeMap<String, Ty>, BTreeMap<String, Func>);

/// The tokens that are left, in reverse.
struct Parser<'a> {
    tokens: Vec<&'a str>,
}

impl Parser<'_> {
    fn word(&mut self) -> Result<String, String> {
        self.tokens.pop().map(Into::into).ok_or_else(|| "the text ends".into())
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        let found = self.word()?;
        if found == token { Ok(()) } else { Err(format!("`{found}` where `{token}` is due")) }
    }

    /// Takes the next token if it is this one.
    fn take(&mut self, token: &str) -> bool {
        let found = self.tokens.last() == Some(&token);
        if found {
            self.tokens.pop();
        }
        found
    }

    fn skip_to(&mut self, token: &str) -> Result<(), String> {
        while self.word()? != token {}
        Ok(())
    }

    fn interface(&mut self, known: &BTreeMap<String, BTreeMap<String, Ty>>) -> Result<Interface, String> {
        let (mut types, mut funcs) = Interface::default();
        self.expect("{")?;
        while !self.take("}") {
            match self.word()?.as_str() {
                "use" => {
                    let from = self.word()?;
                    let from = known.get(&from).ok_or_else(|| format!("there is no interface `{from}`"))?;
                    self.expect(".")?;
                    for name in self.names()? {
                        let ty = from.get(&name).ok_or_else(|| format!("there is no type `{name}`"))?;
                        types.insert(name, ty.clone());
                    }
                    self.expect(";")?;
                }
                "record" => {
                    let name = self.word()?;
                    self.expect("{")?;
                    let mut fields = Vec::new();
                    while !self.take("}") {
                        fields.push(self.field(&types)?);
                        self.take(",");
                    }
                    types.insert(name.clone(), Ty::Record(name, fields));
                }
                "enum" => {
                    let name = self.word()?;
                    let cases = self.names()?;
                    types.insert(name.clone(), Ty::Enum(name, cases));
                }
                "resource" => {
                    let resource = self.word()?;
                    types.insert(resource.clone(), Ty::Own(resource.clone()));
                    self.expect("{")?;
                    while !self.take("}") {
                        let name = self.word()?;
                        let mut func = self.func(&types)?;
                        func.params.insert(0, ("self".into(), Ty::Borrow(resource.clone())));
                        funcs.insert(format!("[method]{resource}.{name}"), func);
                    }
                }
                name => {
                    let func = self.func(&types)?;
                    funcs.insert(name.into(), func);
                }
            }
        }
        Ok((types, funcs))
    }

    /// `{a, b, c}`
    fn names(&mut self) -> Result<Vec<String>, String> {
        self.expect("{")?;
        let mut names = Vec::new();
        while !self.take("}") {
            names.push(self.word()?);
            self.take(",");
        }
        Ok(names)
    }

    /// `name: type`
    fn field(&mut self, types: &BTreeMap<String, Ty>) -> Result<(String, Ty), String> {
        let name = self.word()?;
        self.expect(":")?;
        Ok((name, self.ty(types)?))
    }

    /// `: func(…) -> …;`
    fn func(&mut self, types: &BTreeMap<String, Ty>) -> Result<Func, String> {
        for token in [":", "func", "("] {
            self.expect(token)?;
        }
        let mut params = Vec::new();
        while !self.take(")") {
            params.push(self.field(types)?);
            self.take(",");
        }
        let result = if self.take("->") { Some(self.ty(types)?) } else { None };
        self.expect(";")?;
        Ok(Func { params, result })
    }

    fn ty(&mut self, types: &BTreeMap<String, Ty>) -> Result<Ty, String> {
        let name = self.word()?;
        let primitive =
            ["bool", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f32", "f64", "char", "string"];
        if primitive.contains(&name.as_str()) {
            return Ok(Ty::Primitive(name));
        }
        if let Some(ty) = types.get(&name) {
            return Ok(ty.clone());
        }
        self.expect("<")?;
        let mut inside = Vec::new();
        while !self.take(">") {
            inside.push(if self.take("_") { None } else { Some(Box::new(self.ty(types)?)) });
            self.take(",");
        }
        let mut inside = inside.into_iter();
        let (first, second) = (inside.next().flatten(), inside.next().flatten());
        match (name.as_str(), first, second) {
            ("list", Some(element), None) => Ok(Ty::List(element)),
            ("option", Some(some), None) => Ok(Ty::Option(some)),
            ("result", ok, err) => Ok(Ty::Result(ok, err)),
            _ => Err(format!("there is no type `{name}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_read_as_it_stands() {
        let contract = Contract::current().unwrap();
        let names = |name: &str| contract.interface(name).unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names("writer"), ["describe", "finish", "open", "update-tracks", "write"]);
        assert_eq!(names("recovery"), ["recover"]);
        assert_eq!(names("types"), Vec::<String>::new());
        let host = contract.interface("host").unwrap();
        assert_eq!(host.len(), 5 + 8);
        let append = &host["[method]output.append"];
        let params: Vec<_> = append.params.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
        assert_eq!(params, ["self: borrow<output>", "inline: list<u8>", "pieces: list<record piece>"]);
        assert_eq!(append.result.as_ref().unwrap().to_string(), "result<u64, record error>");
        assert_eq!(host["create"].result.as_ref().unwrap().to_string(), "result<own<output>, record error>");
        let write = &contract.interface("writer").unwrap()["write"];
        let Ty::List(sample) = &write.params[0].1 else { panic!("{write:?}") };
        let Ty::Record(_, fields) = &**sample else { panic!("{sample:?}") };
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["seq", "dts", "pts", "duration", "track", "size", "bits"]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in
            ["hello", "interface x {", "interface x { f: func(a: foo); }", "interface x { use y.{z}; }"]
        {
            assert!(Contract::parse(text).is_err(), "{text}");
        }
    }
}
