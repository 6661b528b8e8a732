//! Components that do not fit, and what they are told. Made of the contract's own text with a word replaced; what
//! they would have to implement is imported instead, which is refused only after all that is tried here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::*;

const WIT: &str = include_str!("../../../../wit/0.1.0/writer.wit");
const WRITER: &str = "reelwright:writer/writer@0.1.0";
const HOST: &str = "reelwright:writer/host@0.1.0";

/// The contract with one text in place of another.
fn contract(from: &str, to: &str) -> Contract {
    let text = WIT.replacen(from, to, 1);
    assert!(from == to || text != WIT, "{from} is not there");
    Contract::parse(&text).unwrap()
}

/// The declarations of an instance type.
fn instance(functions: &BTreeMap<String, Func>) -> String {
    let (mut text, mut known, mut funcs) = (String::new(), BTreeSet::new(), String::new());
    for (name, func) in functions {
        let params = func
            .params
            .iter()
            .map(|(name, ty)| format!("(param \"{name}\" {})", declare(ty, &mut text, &mut known)));
        let params: Vec<String> = params.collect();
        let result =
            func.result.as_ref().map(|ty| format!("(result {})", declare(ty, &mut text, &mut known)));
        writeln!(funcs, "(export \"{name}\" (func {} {}))", params.join(" "), result.unwrap_or_default())
            .unwrap();
    }
    text + &funcs
}

/// A type's text, behind declarations of what has a name in it.
fn declare(ty: &Ty, text: &mut String, known: &mut BTreeSet<String>) -> String {
    match ty {
        Ty::Primitive(name) => name.clone(),
        Ty::List(element) => format!("(list {})", declare(element, text, known)),
        Ty::Option(some) => format!("(option {})", declare(some, text, known)),
        Ty::Result(ok, err) => {
            let ok = ok.as_ref().map(|ty| declare(ty, text, known)).unwrap_or_default();
            let err = err.as_ref().map(|ty| format!("(error {})", declare(ty, text, known)));
            format!("(result {ok} {})", err.unwrap_or_default())
        }
        Ty::Enum(its, cases) => {
            let cases: Vec<String> = cases.iter().map(|case| format!("\"{case}\"")).collect();
            declare_named(its, &format!("(enum {})", cases.join(" ")), text, known)
        }
        Ty::Record(its, fields) => {
            let fields =
                fields.iter().map(|(name, ty)| format!("(field \"{name}\" {})", declare(ty, text, known)));
            let fields = fields.collect::<Vec<_>>().join(" ");
            declare_named(its, &format!("(record {fields})"), text, known)
        }
        Ty::Own(name) | Ty::Borrow(name) => {
            if known.insert(name.clone()) {
                writeln!(text, "(export \"{name}\" (type ${name} (sub resource)))").unwrap();
            }
            format!("({} ${name})", if matches!(ty, Ty::Own(_)) { "own" } else { "borrow" })
        }
    }
}

fn declare_named(name: &str, body: &str, text: &mut String, known: &mut BTreeSet<String>) -> String {
    if known.insert(name.into()) {
        writeln!(text, "(type $of-{name} {body}) (export \"{name}\" (type ${name} (eq $of-{name})))")
            .unwrap();
    }
    format!("${name}")
}

fn import(name: &str, functions: &BTreeMap<String, Func>) -> String {
    format!("(import \"{name}\" (instance {}))\n", instance(functions))
}

/// A component with these imports that exports a writer, under a name and with the functions of a contract.
fn component(imports: &str, writer: &str, contract: &Contract) -> Vec<u8> {
    let functions = instance(contract.interface("writer").unwrap());
    let export = format!(
        "(import \"test:test/writer\" (instance $w {functions})) (export \"{writer}\" (instance $w))"
    );
    wat::parse_str(format!("(component {imports} {export})")).unwrap()
}

fn importing(imports: &str) -> Vec<u8> {
    component(imports, WRITER, &contract("", ""))
}

fn exporting(from: &str, to: &str) -> Vec<u8> {
    component("", WRITER, &contract(from, to))
}

fn host(from: &str, to: &str) -> Vec<u8> {
    importing(&import(HOST, contract(from, to).interface("host").unwrap()))
}

fn refused(wasm: &[u8]) -> String {
    check(wasm).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_told_what_to_do() {
    let none = "expected interfaces of wit/0.1.0 and WASI 0.2 only, found ";
    let rebuild = "build it against wit/0.1.0, world `plugin`";
    let bindings = "rebuild it with the bindings of wit/0.1.0";
    let host_as = |name: &str| importing(&import(name, contract("", "").interface("host").unwrap()));
    let cases: Vec<(Vec<u8>, String)> = vec![
        // Exports.
        (
            component("", "reelwright:writer/writer@0.2.0", &contract("", "")),
            format!("export reelwright:writer/writer@0.2.0: expected {WRITER}, found version 0.2.0; {rebuild}"),
        ),
        (
            component("", "reelwright:writer/writer", &contract("", "")),
            format!("export reelwright:writer/writer: expected {WRITER}, found no version; {rebuild}"),
        ),
        (
            component("", "other:place/writer@0.1.0", &contract("", "")),
            format!(
                "it exports `other:place/writer@0.1.0`, but not reelwright:writer/writer@0.1.x; {rebuild}"
            ),
        ),
        (
            exporting("update-tracks: func", "change-tracks: func"),
            format!(
                "export {WRITER}, update-tracks: expected func(tracks: list<record track>) -> result<bool, record \
                 error>, found no such function; {rebuild}"
            ),
        ),
        (
            exporting("origin-ms: s64", "origin-ms: u64"),
            format!("export {WRITER}, open, parameter start, field origin-ms: expected s64, found u64; {bindings}"),
        ),
        (
            exporting("        den: u32,\n", ""),
            format!(
                "export {WRITER}, open, parameter start, field tracks, element, field timebase: expected record \
                 timebase {{ num, den }}, found record {{ num }}; {bindings}"
            ),
        ),
        (
            exporting("finish: func(end: end)", "finish: func(end: end, why: string)"),
            format!(
                "export {WRITER}, finish: expected func(end: record end) -> result<record summary, record error>, \
                 found parameters (end, why); {bindings}"
            ),
        ),
        (
            exporting("describe: func() -> manifest", "describe: func()"),
            format!("export {WRITER}, describe, its result: expected record manifest, found nothing; {bindings}"),
        ),
        (
            exporting("payloads: list<u8>) -> result<u64, error>", "payloads: list<u8>) -> result<u32, error>"),
            format!("export {WRITER}, write, its result: expected u64, found u32; {bindings}"),
        ),
        (
            exporting("tracks: list<track>) -> result<bool, error>", "tracks: list<track>) -> result<bool>"),
            format!(
                "export {WRITER}, update-tracks, its result: expected result<bool, record error>, found \
                 result<bool, _>; {bindings}"
            ),
        ),
        // Imports.
        (
            host_as("reelwright:writer/host@0.2.0"),
            format!("import reelwright:writer/host@0.2.0: expected {HOST}, found version 0.2.0; {rebuild}"),
        ),
        (
            host("log: func(level: u8", "print: func(level: u8"),
            format!(
                "import {HOST}, print: expected one of [method]output.append, [method]output.close, \
                 [method]output.head, [method]output.patch, [method]output.promote, [method]output.read, \
                 [method]output.size, [method]output.write-head, create, log, read-sample, reopen, replace, found \
                 another function; this server does not have that function; leave it out"
            ),
        ),
        (
            host("patch: func(offset: u64", "patch: func(offset: u32"),
            format!("import {HOST}, [method]output.patch, parameter offset: expected u64, found u32; {bindings}"),
        ),
        (
            host("create: func(name: string", "create: func(label: string"),
            format!(
                "import {HOST}, create: expected func(name: string, role: string) -> result<own<output>, record \
                 error>, found parameters (label, role); {bindings}"
            ),
        ),
        (
            host("        inline,\n", "        inline,\n        zeros,\n"),
            format!(
                "import {HOST}, [method]output.append, parameter pieces, element, field source: expected enum source \
                 {{ inline, sample }}, found enum {{ inline, zeros, sample }}; {bindings}"
            ),
        ),
        (
            host_as("reelwright:writer/playlist@0.1.0"),
            format!(
                "import reelwright:writer/playlist@0.1.0: expected {HOST}, found its functions \
                 `[method]output.append`, `[method]output.close`, `[method]output.head`, `[method]output.patch`, \
                 `[method]output.promote`; {rebuild}"
            ),
        ),
        (
            importing("(import \"acme:db/sql@1.0.0\" (instance (export \"query\" (func (param \"q\" string)))))"),
            format!(
                "import acme:db/sql@1.0.0: {none}its functions `query`; this server has wit/0.1.0 and WASI 0.2 only; \
                 compose it in, or leave it out"
            ),
        ),
        (
            importing("(import \"wasi:http/outgoing-handler@0.2.3\" (instance (export \"handle\" (func))))"),
            format!(
                "import wasi:http/outgoing-handler@0.2.3: {none}its functions `handle`; a writer has neither network \
                 nor HTTP; build it for wasm32-wasip2 without"
            ),
        ),
        (
            importing("(import \"wasi:cli/exit@0.3.0\" (instance (export \"exit\" (func))))"),
            "import wasi:cli/exit@0.3.0: expected wasi:cli/exit@0.2.x, found version 0.3.0; build it for wasm32-wasip2"
                .into(),
        ),
        (
            importing("(import \"sleep\" (func (param \"ms\" u32)))"),
            format!("import sleep: {none}a function of that name outside of an interface; {rebuild}"),
        ),
    ];
    for (wasm, message) in cases {
        assert_eq!(refused(&wasm), message);
    }
}

#[test]
fn what_fits_goes_on() {
    // But for what they import instead of having it.
    let only = "import test:test/writer: expected interfaces";
    assert!(refused(&importing("")).starts_with(only));
    assert!(refused(&host("", "")).starts_with(only));
    let later = component("", "reelwright:writer/writer@0.1.7", &contract("", ""));
    assert!(refused(&later).starts_with(only));
    let wasi = "(import \"wasi:cli/exit@0.2.12\" (instance (export \"exit\" (func))))";
    assert!(refused(&importing(wasi)).starts_with(only));
}

#[test]
fn a_writer_that_is_imported_is_not_one_that_is_there() {
    let writer = import(WRITER, contract("", "").interface("writer").unwrap());
    let error = refused(&importing(&writer));
    assert!(error.starts_with(&format!("import {WRITER}: expected {HOST}, found")), "{error}");
}

#[test]
fn structure_has_limits() {
    let structure = |text: &str| refused(&wat::parse_str(format!("(component {text})")).unwrap());
    let modules = "(core module)".repeat(64);
    assert_eq!(structure(&modules), "it has 65 modules and components; a component has at most 64");
    let nested = format!("{}{}", "(component ".repeat(70), ")".repeat(70));
    assert!(structure(&nested).contains("modules and components"));
    let functions = format!("(core module {})", "(func)".repeat(100_001));
    assert_eq!(structure(&functions), "it has 100001 functions; a component has at most 100000");
    let memories = format!("(core module {})", "(memory 0)".repeat(33));
    assert_eq!(structure(&memories), "it has 33 memories; a component has at most 32");
    let tables = format!("(core module {})", "(table 0 funcref)".repeat(65));
    assert_eq!(structure(&tables), "it has 65 tables; a component has at most 64");
    assert!(matches!(check_size(MAX_COMPONENT + 1), Err(LoadError::TooLarge { .. })));
    assert!(check_size(MAX_COMPONENT).is_ok());
}

#[test]
fn what_is_no_component_is_told_so() {
    assert!(matches!(check(b"\0asm\x01\0\0\0"), Err(LoadError::CoreModule)));
    assert!(matches!(check(b"\x7fELF"), Err(LoadError::NotWasm(_))));
    let whole = host("", "");
    for length in 8..whole.len() {
        assert!(check(&whole[..length]).is_err(), "{length} bytes");
    }
    for at in 8..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let _ = check(&flipped);
    }
}
