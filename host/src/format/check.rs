//! What can be said of a component before it is compiled: its size, its structure, and whether it fits the contract.
//!
//! Function bodies are not looked at here, so this is quick. wasmtime checks everything again; but it would say so
//! in terms of the component model, and these messages are for who wrote the component.

use std::collections::BTreeMap;

use wasmparser::{
    Encoding, Parser, Payload, Validator, WasmFeatures,
    component_types::{
        ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId, ComponentInstanceTypeId,
        ComponentValType,
    },
    types::Types,
};

use super::{
    contract::{Contract, FITS, Func, PACKAGE, Ty, VERSION},
    guest_log::{cut, one_line},
    version::LoadError,
};

/// Largest component file, in bytes.
pub(super) const MAX_COMPONENT: u64 = 64 << 20;
/// How much of each thing a component may have, what is nested in it counted.
const MOST: [(&str, u64); 8] = [
    ("modules and components", 64),
    ("functions", 100_000),
    ("memories", 32),
    ("tables", 64),
    ("imports", 4_000),
    ("exports", 4_000),
    ("types", 100_000),
    ("globals", 100_000),
];
/// What a component is told that was built for something else.
const REBUILD: &str = "build it against wit/0.1.0, world `plugin`";
/// What WASI 0.2 has here.
const WASI: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Where a component does not fit the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: expected {expected}, found {found}; {advice}")]
pub struct Mismatch {
    /// Interface and function: `import reelwright:writer/host@0.1.0, create`.
    pub subject: String,
    pub expected: String,
    pub found: String,
    /// What to do.
    pub advice: String,
}

/// Checks all that can be checked without compiling.
pub(super) fn check(wasm: &[u8]) -> Result<(), LoadError> {
    check_size(wasm.len() as u64)?;
    check_kind(wasm)?;
    let component = Component::read(wasm)?;
    let contract = Contract::current().map_err(|e| LoadError::Compile(format!("wit/0.1.0: {e}")))?;
    component.check_exports(&contract)?;
    component.check_imports(&contract)
}

/// Before a file is read.
pub(super) fn check_size(size: u64) -> Result<(), LoadError> {
    if size > MAX_COMPONENT { Err(LoadError::TooLarge { size }) } else { Ok(()) }
}

/// Tells a component by its preamble (component model, Binary.md: layer 1) from a core module (layer 0).
pub(super) fn check_kind(wasm: &[u8]) -> Result<(), LoadError> {
    match wasm {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm(wasm[..wasm.len().min(8)].to_vec())),
    }
}

/// What a component imports and exports.
struct Component {
    imports: Vec<String>,
    exports: Vec<String>,
    types: Types,
}

impl Component {
    /// Walks the whole file and counts what is in it.
    fn read(wasm: &[u8]) -> Result<Self, LoadError> {
        let damaged = |e: wasmparser::BinaryReaderError| LoadError::Compile(one_line(&e.to_string()));
        // What this server does not support is wasmtime's to say.
        let features = WasmFeatures::all();
        let mut validator = Validator::new_with_features(features);
        let mut parser = Parser::new(0);
        parser.set_features(features);
        let (mut imports, mut exports, mut types) = (Vec::new(), Vec::new(), None);
        let mut counts = [0u64; MOST.len()];
        let mut depth = 0;
        for payload in parser.parse_all(wasm) {
            let payload = payload.map_err(damaged)?;
            // Counted before anything is made of it.
            let count: Option<(usize, u32)> = match &payload {
                Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => {
                    depth += 1;
                    Some((0, 1))
                }
                Payload::FunctionSection(s) => Some((1, s.count())),
                Payload::MemorySection(s) => Some((2, s.count())),
                Payload::TableSection(s) => Some((3, s.count())),
                Payload::ImportSection(s) => Some((4, s.count())),
                Payload::ComponentImportSection(s) => Some((4, s.count())),
                Payload::ExportSection(s) => Some((5, s.count())),
                Payload::ComponentExportSection(s) => Some((5, s.count())),
                Payload::TypeSection(s) => Some((6, s.count())),
                Payload::CoreTypeSection(s) => Some((6, s.count())),
                Payload::ComponentTypeSection(s) => Some((6, s.count())),
                Payload::GlobalSection(s) => Some((7, s.count())),
                _ => None,
            };
            if let Some((what, count)) = count {
                counts[what] += u64::from(count);
                let ((what, most), found) = (MOST[what], counts[what]);
                if found > most {
                    return Err(LoadError::Structure { what, found, most });
                }
            }
            match &payload {
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section.clone() {
                        imports.push(import.map_err(damaged)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section.clone() {
                        exports.push(export.map_err(damaged)?.name.name.to_owned());
                    }
                }
                Payload::End(_) => depth -= 1,
                _ => {}
            }
            if let wasmparser::ValidPayload::End(found) = validator.payload(&payload).map_err(damaged)? {
                types = Some(found);
            }
        }
        let types = types.ok_or_else(|| LoadError::Compile("it is cut off".into()))?;
        Ok(Self { imports, exports, types })
    }

    /// The interface `writer` has to be there, `recovery` may be.
    fn check_exports(&self, contract: &Contract) -> Result<(), LoadError> {
        let ours = |interface: &str| {
            let mut found =
                self.exports.iter().filter_map(|name| split(name)).filter(|name| name.package == PACKAGE);
            found.find(|name| name.interface == interface)
        };
        let Some(writer) = ours("writer") else {
            let found: Vec<String> =
                self.exports.iter().take(5).map(|name| format!("`{}`", cut(name, 80))).collect();
            let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
            return Err(LoadError::NoWriter { found });
        };
        for name in [Some(writer), ours("recovery")].into_iter().flatten() {
            let subject = format!("export {}", name.full);
            check_version("export", &name)?;
            let item = self.types.as_ref().component_item_for_export(name.full).map(|item| item.ty);
            let Some(ComponentEntityType::Instance(instance)) = item else {
                return Err(mismatch(subject, "an interface", "something else", REBUILD));
            };
            let functions = self.functions(instance);
            for (function, expected) in contract.interface(name.interface).into_iter().flatten() {
                let subject = format!("{subject}, {function}");
                let found = functions.get(function.as_str());
                let missing = || mismatch(subject.clone(), signature(expected), "no such function", REBUILD);
                self.compare(&subject, expected, *found.ok_or_else(missing)?)?;
            }
        }
        Ok(())
    }

    /// Only the contract's `host` and WASI 0.2 are there to be imported.
    fn check_imports(&self, contract: &Contract) -> Result<(), LoadError> {
        for import in &self.imports {
            let subject = format!("import {}", cut(import, 120));
            let item = self.types.as_ref().component_item_for_import(import).map(|item| item.ty);
            let instance = match item {
                Some(ComponentEntityType::Instance(instance)) => instance,
                // Names of types that functions of the world use.
                Some(ComponentEntityType::Type { .. }) => continue,
                _ => {
                    let found = "a function of that name outside of an interface";
                    return Err(mismatch(
                        subject,
                        "interfaces of wit/0.1.0 and WASI 0.2 only",
                        found,
                        REBUILD,
                    ));
                }
            };
            let functions = self.functions(instance);
            let uses = || {
                let names: Vec<String> =
                    functions.keys().take(5).map(|name| format!("`{}`", cut(name, 80))).collect();
                if names.is_empty() {
                    "an interface".into()
                } else {
                    format!("its functions {}", names.join(", "))
                }
            };
            let Some(name) = split(import) else {
                let only = "interfaces of wit/0.1.0 and WASI 0.2 only";
                return Err(mismatch(subject, only, uses(), REBUILD));
            };
            if name.package == PACKAGE {
                check_version("import", &name)?;
                let ours = ["host", "types"].contains(&name.interface);
                let Some(known) = contract.interface(name.interface).filter(|_| ours) else {
                    let expected = format!("{PACKAGE}/host@{VERSION}");
                    return Err(mismatch(subject, expected, uses(), REBUILD));
                };
                for (function, &found) in &functions {
                    let subject = format!("{subject}, {}", cut(function, 120));
                    let Some(expected) = known.get(*function) else {
                        let names: Vec<&str> = known.keys().map(String::as_str).collect();
                        let expected = format!("one of {}", names.join(", "));
                        let advice = "this server does not have that function; leave it out";
                        return Err(mismatch(subject, expected, "another function", advice));
                    };
                    self.compare(&subject, expected, found)?;
                }
                continue;
            }
            let wasi = format!("{}/{}", name.package, name.interface);
            if !WASI.contains(&wasi.as_str()) {
                let advice = match name.package.starts_with("wasi:") {
                    true => "a writer has neither network nor HTTP; build it for wasm32-wasip2 without",
                    false => "this server has wit/0.1.0 and WASI 0.2 only; compose it in, or leave it out",
                };
                return Err(mismatch(subject, "interfaces of wit/0.1.0 and WASI 0.2 only", uses(), advice));
            }
            if !name.version.starts_with("0.2.") {
                let expected = format!("{wasi}@0.2.x");
                return Err(mismatch(
                    subject,
                    expected,
                    format!("version {}", name.version),
                    "build it for wasm32-wasip2",
                ));
            }
        }
        Ok(())
    }

    /// The functions of an interface, by name.
    fn functions(&self, instance: ComponentInstanceTypeId) -> BTreeMap<&str, ComponentFuncTypeId> {
        let exports = self.types[instance].exports.iter();
        let functions = exports.filter_map(|(name, item)| match item.ty {
            ComponentEntityType::Func(id) => Some((name.as_str(), id)),
            _ => None,
        });
        functions.collect()
    }

    fn compare(&self, subject: &str, expected: &Func, found: ComponentFuncTypeId) -> Result<(), LoadError> {
        let found = &self.types[found];
        let names: Vec<&str> = found.params.iter().map(|(name, _)| name.as_str()).collect();
        let wrong = |(at, expected, found): (String, String, String)| {
            let subject = if at.is_empty() { subject.to_owned() } else { format!("{subject}, {at}") };
            mismatch(subject, expected, found, "rebuild it with the bindings of wit/0.1.0")
        };
        if found.async_ {
            return Err(wrong((String::new(), "a plain function".into(), "an async one".into())));
        }
        if !expected.params.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied()) {
            let names = names.iter().take(10).map(|name| cut(name, 80)).collect::<Vec<_>>().join(", ");
            return Err(wrong((String::new(), signature(expected), format!("parameters ({names})"))));
        }
        for ((name, expected), (_, found)) in expected.params.iter().zip(&found.params) {
            self.differs(&format!("parameter {name}"), expected, found)
                .map_or(Ok(()), |what| Err(wrong(what)))?;
        }
        let difference = match (&expected.result, &found.result) {
            (None, None) => None,
            (Some(expected), Some(found)) => self.differs("its result", expected, found),
            (expected, found) => Some((
                "its result".into(),
                expected.as_ref().map_or("nothing".into(), Ty::to_string),
                found.as_ref().map_or("nothing".into(), |found| self.name(found)),
            )),
        };
        difference.map_or(Ok(()), |what| Err(wrong(what)))
    }

    /// The first difference: where, what is expected there, what was found. Goes along what is expected, so what was
    /// found may be as large as it likes.
    fn differs(&self, at: &str, expected: &Ty, found: &ComponentValType) -> Option<(String, String, String)> {
        let other = || Some((at.to_owned(), expected.to_string(), self.name(found)));
        let optional = |at: &str, expected: &Option<Box<Ty>>, found: &Option<ComponentValType>| match (
            expected, found,
        ) {
            (None, None) => None,
            (Some(expected), Some(found)) => self.differs(at, expected, found),
            _ => other(),
        };
        let defined = match found {
            ComponentValType::Primitive(found) => {
                return match expected {
                    Ty::Primitive(expected) if *expected == found.to_string() => None,
                    _ => other(),
                };
            }
            ComponentValType::Type(id) => &self.types[*id],
        };
        match (expected, defined) {
            (Ty::Primitive(expected), ComponentDefinedType::Primitive(found))
                if *expected == found.to_string() =>
            {
                None
            }
            (Ty::List(expected), ComponentDefinedType::List { element, .. }) => {
                self.differs(&format!("{at}, element"), expected, element)
            }
            (Ty::Option(expected), ComponentDefinedType::Option { ty, .. }) => self.differs(at, expected, ty),
            (Ty::Result(ok, err), ComponentDefinedType::Result { ok: found_ok, err: found_err, .. }) => {
                optional(at, ok, found_ok).or_else(|| optional(&format!("{at}, error"), err, found_err))
            }
            (Ty::Record(name, fields), ComponentDefinedType::Record(found)) => {
                if !fields
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .eq(found.fields.keys().map(|key| key.as_str()))
                {
                    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                    let expected = format!("record {name} {{ {} }}", names.join(", "));
                    return Some((at.to_owned(), expected, self.describe(defined)));
                }
                let pairs = fields.iter().zip(found.fields.values());
                pairs.into_iter().find_map(|((name, expected), found)| {
                    self.differs(&format!("{at}, field {name}"), expected, found)
                })
            }
            (Ty::Enum(name, cases), ComponentDefinedType::Enum(found)) => {
                let same = cases.iter().map(String::as_str).eq(found.iter().map(|case| case.as_str()));
                let expected = || format!("enum {name} {{ {} }}", cases.join(", "));
                (!same).then(|| (at.to_owned(), expected(), self.describe(defined)))
            }
            (Ty::Own(_), ComponentDefinedType::Own(_)) | (Ty::Borrow(_), ComponentDefinedType::Borrow(_)) => {
                None
            }
            _ => other(),
        }
    }

    /// A type of the component in a few words.
    fn name(&self, ty: &ComponentValType) -> String {
        match ty {
            ComponentValType::Primitive(primitive) => primitive.to_string(),
            ComponentValType::Type(id) => self.describe(&self.types[*id]),
        }
    }

    fn describe(&self, ty: &ComponentDefinedType) -> String {
        let shallow = |ty: &ComponentValType| match ty {
            ComponentValType::Primitive(primitive) => primitive.to_string(),
            ComponentValType::Type(id) => kind(&self.types[*id]).into(),
        };
        let optional = |ty: &Option<ComponentValType>| ty.as_ref().map_or("_".into(), shallow);
        let list = |names: &mut dyn Iterator<Item = &str>| {
            let names: Vec<&str> = names.take(20).map(|name| cut(name, 40)).collect();
            names.join(", ")
        };
        match ty {
            ComponentDefinedType::Primitive(primitive) => primitive.to_string(),
            ComponentDefinedType::Record(record) => {
                format!("record {{ {} }}", list(&mut record.fields.keys().map(|key| key.as_str())))
            }
            ComponentDefinedType::Enum(cases) => {
                format!("enum {{ {} }}", list(&mut cases.iter().map(|case| case.as_str())))
            }
            ComponentDefinedType::List { element, .. } => format!("list<{}>", shallow(element)),
            ComponentDefinedType::Option { ty, .. } => format!("option<{}>", shallow(ty)),
            ComponentDefinedType::Result { ok, err, .. } => {
                format!("result<{}, {}>", optional(ok), optional(err))
            }
            other => kind(other).into(),
        }
    }
}

/// What sort of type it is.
fn kind(ty: &ComponentDefinedType) -> &'static str {
    match ty {
        ComponentDefinedType::Primitive(_) => "a primitive type",
        ComponentDefinedType::Record(_) => "record",
        ComponentDefinedType::Variant(_) => "variant",
        ComponentDefinedType::List { .. } => "list",
        ComponentDefinedType::Tuple(_) => "tuple",
        ComponentDefinedType::Flags(_) => "flags",
        ComponentDefinedType::Enum(_) => "enum",
        ComponentDefinedType::Option { .. } => "option",
        ComponentDefinedType::Result { .. } => "result",
        ComponentDefinedType::Own(_) => "own",
        ComponentDefinedType::Borrow(_) => "borrow",
        _ => "a type of no known sort",
    }
}

/// A function of the contract, in a line.
fn signature(func: &Func) -> String {
    let params: Vec<String> = func.params.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
    let result = func.result.as_ref().map_or(String::new(), |result| format!(" -> {result}"));
    format!("func({}){result}", params.join(", "))
}

/// `package/interface@version`
struct Name<'a> {
    full: &'a str,
    package: &'a str,
    interface: &'a str,
    /// Empty if there is none.
    version: &'a str,
}

fn split(full: &str) -> Option<Name<'_>> {
    let (path, version) = full.split_once('@').unwrap_or((full, ""));
    let (package, interface) = path.split_once('/')?;
    Some(Name { full, package, interface, version })
}

fn check_version(side: &str, name: &Name<'_>) -> Result<(), LoadError> {
    if name.version.starts_with(FITS) {
        return Ok(());
    }
    let expected = format!("{}/{}@{VERSION}", name.package, name.interface);
    let found = if name.version.is_empty() {
        "no version".into()
    } else {
        format!("version {}", cut(name.version, 40))
    };
    Err(mismatch(format!("{side} {}", cut(name.full, 120)), expected, found, REBUILD))
}

fn mismatch(
    subject: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> LoadError {
    let (subject, expected) = (subject.into(), expected.into());
    LoadError::Contract(Box::new(Mismatch { subject, expected, found: found.into(), advice: advice.into() }))
}

#[cfg(test)]
mod tests;
