//! The hostile suite: components that do what they can against the host, each contained, each with a message that says
//! what it did, and none at the cost of a neighbour.
//!
//! Most are one component (`hostile`) that is told by its data what to do, so that each has a hash of its own. `EARLY`
//! ones are refused by the probe, or before; `LATE` ones pass it and misbehave in a recording; `HARMLESS` ones do
//! something odd that is allowed. `files` has those that are wrong as files.

use std::{fs, path::Path, time::Duration};

use reelwright::format::{
    Engine, Formats, Settings,
    limits::Limits,
    lineup::{Mode, Source},
};

use crate::{
    recorder::{Recorder, log, long_clip, until},
    support::{Host, clip, component},
};

/// What it is told, and words of the message that follows.
type Row = (&'static str, &'static [&'static str]);

/// Refused, with little of everything.
const EARLY: [Row; 71] = [
    ("describe-loop", &["describe: it exceeded the limit `describe-time` of 100ms"]),
    ("describe-trap", &["describe: it trapped: wasm trap: wasm `unreachable`"]),
    ("describe-create", &["describe: it trapped: it called the host from `describe`"]),
    ("describe-utf8", &["describe: it trapped", "utf-8"]),
    ("manifest-long", &["its manifest is wrong: format \"xxx", "1 to 32"]),
    ("manifest-control", &["its manifest is wrong: format \"x\\u{1b}[31m\""]),
    ("manifest-lines", &["its manifest is wrong: version \"1.0\\nERROR all is lost\""]),
    ("manifest-path", &["its manifest is wrong: extension \"../../x\""]),
    ("manifest-reserved", &["its manifest is wrong: extension \"info\""]),
    ("manifest-needs", &["its manifest is wrong: it needs \"network\\nnetwork"]),
    ("manifest-codecs", &["its manifest is wrong: 20000 codecs"]),
    ("manifest-mime", &["its manifest is wrong: mime \"text/html\\r\\nSet-Cookie"]),
    ("manifest-option", &["its manifest is wrong: option \"a b\\n\""]),
    ("manifest-start", &["its manifest is wrong: payload-start \"4097\": a whole number from 1 to 4096"]),
    ("manifest-start-words", &["its manifest is wrong: payload-start \"all\\nof it\""]),
    ("manifest-properties", &["its manifest is wrong: 20000 properties"]),
    ("manifest-help", &["its manifest is wrong: option \"x\": its help"]),
    ("open-loop", &["pass 1", "open: it exceeded the limit `open-time` of 200ms"]),
    ("open-trap", &["open: it trapped", "this component opens nothing"]),
    ("no-main", &["finish: it broke the contract: it left no main file"]),
    ("two-mains", &["open: bad-call: there is an output \"\" already"]),
    ("outputs", &["open: limit: limit `outputs` of 8 outputs"]),
    ("name-up", &["open: bad-call: \"../x\" can't be the name of a sidecar output"]),
    ("name-root", &["open: bad-call: \"/x\" can't be the name of a sidecar output"]),
    ("name-nul", &["open: bad-call: \"x\\0y\" can't be the name of a sidecar output"]),
    ("name-long", &["open: bad-call: \"xxxx", "can't be the name of a sidecar output"]),
    ("name-info", &["open: bad-call: \"info\" can't be the name of a sidecar output"]),
    ("name-main", &["open: bad-call: \"x\" can't be the name of a main output"]),
    ("role", &["open: bad-call: there is no role \"device\""]),
    ("update-tracks-loop", &["update-tracks: it exceeded the limit `write-time` of 100ms"]),
    ("update-tracks-trap", &["update-tracks: it trapped", "has had enough tracks"]),
    ("write-loop", &["write: it exceeded the limit `write-time` of 100ms"]),
    ("trap", &["write: it trapped", "this component was told to"]),
    ("recursion", &["write: it exceeded the limit `stack` of 512 KiB"]),
    ("memory", &["write: it exceeded the limit `memory` of 16 MiB"]),
    ("exit", &["write: it trapped: it called exit(0)"]),
    ("sleep", &["write: it trapped: it waits for a time"]),
    ("files", &["write: unsupported: no files: /: "]),
    ("network", &["write: unsupported: no network: "]),
    ("sockets", &["write: unsupported: no sockets"]),
    ("beyond-sample", &["write: bad-call: piece 0: 4294967295 bytes at 0 of sample 6"]),
    ("overflow", &["write: bad-call: piece 0: 4294967295 bytes at 4294967295 of the inline bytes"]),
    ("freed", &["write: bad-call: piece 0: sample 0 was freed: 7 is the first"]),
    ("future", &["write: bad-call: piece 0: there is no sample 18446744073709551615 yet"]),
    ("read-freed", &["write: bad-call: sample 0 was freed"]),
    ("patch-beyond", &["write: bad-call: patch of 6 bytes at"]),
    ("patch-overflow", &["write: bad-call: patch of 6 bytes at 18446744073709551615"]),
    ("read-much", &["write: limit: read of 2147483648 bytes, at most 1048576"]),
    ("patch-loop", &["write: limit: limit `patches` of 256 patches"]),
    ("undeclared-patch", &["write: bad-call: patch: the manifest's needs do not list `patch`"]),
    ("undeclared-read", &["write: bad-call: read: the manifest's needs do not list `read-back`"]),
    ("append-loop", &["write: limit: limit `output-per-call` of 4 MiB"]),
    ("grow", &["write: limit: limit `output-total` of 8 MiB"]),
    ("error-lines", &["write: bad\\u{1b}[31m\\ncode: x\\nERROR all is lost\\r\\n"]),
    ("utf8-error", &["write: it trapped", "utf-8"]),
    ("utf8-log", &["write: it trapped", "utf-8"]),
    ("utf8-name", &["write: it trapped", "utf-8"]),
    ("too-high", &["write: it broke the contract: write returned 8", "0 to 7 are legal"]),
    ("far-too-high", &["write returned 18446744073709551615 as the first sample still needed"]),
    ("falling", &["write returned 0 as the first sample still needed; 7 to 14 are legal"]),
    ("realloc", &["write: it trapped: wasm trap: wasm `unreachable`", "cabi_realloc"]),
    ("realloc-loop", &["write: it exceeded the limit `write-time` of 100ms"]),
    ("batches", &["the same samples gave other bytes in pass 3, in batches of 1"]),
    ("finish-loop", &["finish: it exceeded the limit `finish-time` of 200ms"]),
    ("finish-trap", &["finish: it trapped", "this component does not finish"]),
    ("finish-append", &["finish: limit: limit `output-per-call` of 4 MiB"]),
    ("carry", &["finish: it broke the contract: carry has 1048576 bytes, at most 65536"]),
    ("utf8-property", &["finish: it trapped", "utf-8"]),
    ("post-return", &["finish: it trapped: wasm trap: wasm `unreachable`", "cabi_post"]),
    ("post-return-loop", &["finish: it exceeded the limit `finish-time` of 200ms"]),
    ("head", &["write: bad-call: head is for a spool"]),
];

/// Refused, with much of everything: what they give is too large.
const LARGE: [Row; 4] = [
    ("error-text", &["write: it exceeded the limit `hostcall-bytes` of 32 MiB"]),
    ("giant-inline", &["write: it exceeded the limit `hostcall-bytes` of 32 MiB"]),
    ("pieces", &["write", "limit `pieces` of 65536 pieces"]),
    ("properties", &["finish: it exceeded the limit `hostcall-bytes` of 32 MiB"]),
];

/// They pass the probe.
const LATE: [Row; 31] = [
    ("open-loop", &["open: it exceeded the limit `open-time`"]),
    ("open-trap", &["open: it trapped", "this component opens nothing"]),
    ("name-up", &["open: bad-call: \"../x\""]),
    ("write-loop", &["write: it exceeded the limit `write-time`"]),
    ("trap", &["write: it trapped", "this component was told to"]),
    ("recursion", &["write: it exceeded the limit `stack` of 512 KiB"]),
    ("memory", &["write: it exceeded the limit `memory` of 16 MiB"]),
    ("exit", &["write: it trapped: it called exit(0)"]),
    ("sleep", &["write: it trapped: it waits for a time"]),
    ("network", &["write: unsupported: no network"]),
    ("sockets", &["write: unsupported: no sockets"]),
    ("append-loop", &["write: limit: limit `output-per-call`"]),
    ("grow", &["write: limit: limit `output-total`"]),
    ("hold", &["write: it exceeded the limit `held`"]),
    ("too-high", &["write: it broke the contract: write returned"]),
    ("falling", &["write returned 0 as the first sample still needed"]),
    ("freed", &["write: bad-call: piece 0: sample 0 was freed"]),
    ("realloc", &["write: it trapped: wasm trap: wasm `unreachable`", "cabi_realloc"]),
    ("error-lines", &["write: bad\\u{1b}[31m\\ncode: x\\nERROR all is lost\\r\\n"]),
    ("utf8-error", &["write: it trapped", "utf-8"]),
    ("utf8-log", &["write: it trapped", "utf-8"]),
    ("finish-loop", &["finish: it exceeded the limit `finish-time`"]),
    ("finish-append", &["finish: limit: limit `output-per-call`"]),
    ("carry", &["finish: it broke the contract: carry has 1048576 bytes"]),
    ("post-return", &["finish: it trapped: wasm trap: wasm `unreachable`", "cabi_post"]),
    ("patch-loop", &["write: limit: limit `patches` of 256 patches"]),
    ("realloc-loop", &["write: it exceeded the limit `write-time`"]),
    ("post-return-loop", &["finish: it exceeded the limit `finish-time`"]),
    ("recover-loop", &["recover: it exceeded the limit `finish-time`"]),
    (
        "recover-trap",
        &["recover: it trapped: wasm trap: wasm `unreachable`", "this component does not recover"],
    ),
    ("recover-handles", &["recover: limit: limit `resources` of 256 resources"]),
];

/// Allowed, and their files are good.
const HARMLESS: [&str; 8] =
    ["", "empty", "read-beyond", "wrong-calls", "handles", "clock", "log-flood", "stderr-flood"];

/// Wrong as files: see `files`.
const FILES: usize = 15;

/// Little of everything, so that loops and bombs are soon over.
fn little() -> Limits {
    Limits {
        memory: 16 << 20,
        describe_time: Duration::from_millis(100),
        open_time: Duration::from_millis(200),
        write_time: Duration::from_millis(100),
        finish_time: Duration::from_millis(200),
        output_per_call: 4 << 20,
        output_total: 8 << 20,
        held: 64 << 10,
        ..Limits::default()
    }
}

/// The component, told what to do.
pub fn hostile(order: &str) -> Vec<u8> {
    const TITLE: &[u8] = b"hostile order: ";
    let mut wasm = fs::read(component("hostile")).unwrap();
    let mut found = (0..wasm.len()).filter(|&at| wasm[at..].starts_with(TITLE));
    let at = found.next().unwrap() + TITLE.len();
    assert_eq!(found.next(), None, "its title is there once");
    assert!(order.len() < 64);
    wasm[at..at + 64].fill(b' ');
    wasm[at..at + order.len()].copy_from_slice(order.as_bytes());
    wasm
}

fn by_command() -> Source {
    Source::Command("/hostile.wasm".into())
}

/// Takes a component as a command does. The error is what the operator is told.
async fn stage(formats: &Formats, wasm: Vec<u8>) -> Result<String, String> {
    let loading = formats.stage(wasm, by_command(), None, None).map_err(|e| e.to_string())?;
    loading.outcome().await.map(|version| version.sha256.clone()).map_err(|e| e.to_string())
}

async fn staged(formats: &Formats, wasm: Vec<u8>) -> String {
    stage(formats, wasm).await.unwrap_or_else(|error| panic!("{error}"))
}

/// What is wrong with a message; nothing, if it is a line that has all these words.
fn missing(what: &str, said: &str, words: &[&str]) -> Option<String> {
    let is_good = words.iter().all(|word| said.contains(word));
    let is_line = said.len() < 4096 && !said.contains(char::is_control);
    (!is_good || !is_line).then(|| format!("{what}: {words:?} is not in: {said:?}"))
}

/// Takes a good version into use, then has each of these refused. The good one still writes what it did, and so does
/// the built-in format beside it.
async fn refused(limits: Limits, rows: impl IntoIterator<Item = (String, Vec<u8>, &'static [&'static str])>) {
    log();
    let host = Host::with(limits).await;
    let clip = clip();
    let good = staged(&host.formats, hostile("")).await;
    host.formats.swap("hostile", &good, Mode::Drain).await.unwrap();
    let flv = host.formats.get("flv").unwrap();
    let (_, before) = host.record(&flv, &clip, 10, &[]).await.unwrap();
    let mut wrong = Vec::new();
    for (what, wasm, words) in rows {
        let said = stage(&host.formats, wasm).await.err().unwrap_or_else(|| "nothing".into());
        wrong.extend(missing(&what, &said, words));
        assert_eq!(host.formats.get("hostile").unwrap().sha256, good, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(host.formats.get("flv").unwrap().sha256, flv.sha256);
    let (_, after) = host.record(&flv, &clip, 10, &[]).await.unwrap();
    assert!(before == after, "the built-in format writes what it did");
    let (_, its) = host.record(&host.formats.get("hostile").unwrap(), &clip, 10, &[]).await.unwrap();
    assert!(its == clip.payload());
}

fn early(rows: &'static [Row]) -> impl Iterator<Item = (String, Vec<u8>, &'static [&'static str])> {
    rows.iter().map(|(what, words)| (format!("early {what}"), hostile(&format!("early {what}")), *words))
}

#[test]
fn there_are_enough_of_them() {
    let all = EARLY.len() + LARGE.len() + LATE.len() + HARMLESS.len() + FILES;
    assert!(all >= 100, "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_misbehaves_at_once_is_refused() {
    refused(little(), early(&EARLY[..EARLY.len() / 2])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_misbehaves_at_once_is_refused_too() {
    refused(little(), early(&EARLY[EARLY.len() / 2..])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_too_much_is_refused() {
    let time = Duration::from_secs(10);
    let limits = Limits { memory: 512 << 20, write_time: time, finish_time: time, ..Limits::default() };
    refused(limits, early(&LARGE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_odd_and_allowed_is_harmless() {
    log();
    let host = Host::with(Limits { write_time: Duration::from_secs(10), ..little() }).await;
    let clip = clip();
    for what in HARMLESS {
        let sha256 = staged(&host.formats, hostile(&format!("early {what}"))).await;
        host.formats.swap("hostile", &sha256, Mode::Drain).await.unwrap();
        let version = host.formats.get("hostile").unwrap();
        let (_, bytes) = host.record(&version, &clip, 10, &[]).await.unwrap();
        assert!(bytes.ends_with(&clip.payload()), "{what}");
        let (_, again) = host.record(&version, &clip, 64, &[]).await.unwrap();
        assert!(bytes == again, "{what}: the same each time");
        if what.ends_with("flood") {
            let lines = log().lines().filter(|line| line.contains(&sha256[..12])).count();
            // Six instances, the four of the probe with two segments each.
            assert!((64..2000).contains(&lines), "{what}: {lines} lines");
            assert!(log().contains("log lines dropped"));
        }
    }
}

/// The last line of the log about a failure of that component.
fn last_error(sha256: &str) -> Option<String> {
    log().lines().rfind(|line| line.contains("ERROR") && line.contains(&sha256[..12])).map(str::to_owned)
}

/// All of some at once, in recordings of one stream, beside the built-in formats.
async fn beside(rows: &[Row]) {
    log();
    let recorder = Recorder::new(little()).await;
    let formats = &recorder.host.formats;
    let mut hashes = Vec::new();
    for (what, _) in rows {
        let sha256 = staged(formats, hostile(&format!("late {what} x-{what}"))).await;
        formats.swap(&format!("x-{what}"), &sha256, Mode::Drain).await.unwrap();
        hashes.push(sha256);
    }
    for (what, _) in rows {
        recorder.record(&format!("x-{what}"), &format!("x-{what}")).await;
    }
    for format in ["flv", "ts", "mp4"] {
        recorder.record("good", format).await;
    }
    let clip = long_clip(4);
    recorder.send(&clip).await;
    for format in ["flv", "ts", "mp4"] {
        recorder.assert_whole(&format!("good.{format}"), &clip);
    }
    // What they did, by the log. The last of it comes when their files are repaired.
    let said = |sha256: &str, words: &[&str]| {
        let its = |line: &&str| line.contains("ERROR") && line.contains(&sha256[..12]);
        log().lines().filter(its).any(|line| words.iter().all(|word| line.contains(word)))
    };
    for ((what, words), sha256) in rows.iter().zip(&hashes) {
        let what = format!("late {what} says {words:?}; it said {:?}", last_error(sha256));
        until(&what, || said(sha256, words)).await;
    }
    for id in recorder.recordings.list().iter().map(|recording| recording.config_id) {
        recorder.recordings.remove(id).await.unwrap();
    }
    // Each has touched what is its own only: the name of its recording, and numbers of it.
    for file in recorder.host.files() {
        let is_its = |what: &str| {
            file.strip_prefix(&format!("x-{what}")).is_some_and(|rest| rest.starts_with(['.', '_']))
        };
        assert!(file.starts_with("good.") || rows.iter().any(|(what, _)| is_its(what)), "{file}");
    }
    let around: Vec<_> =
        fs::read_dir(recorder.host.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(around.iter().all(|name| name == "media" || name == "formats"), "{around:?}");
    // The server goes on as if nothing had been.
    for format in ["flv", "ts", "mp4"] {
        recorder.record("again", format).await;
    }
    recorder.send(&clip).await;
    for format in ["flv", "ts", "mp4"] {
        recorder.assert_whole(&format!("again.{format}"), &clip);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_misbehaves_later_costs_no_neighbour_a_frame() {
    beside(&LATE[..10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_these() {
    beside(&LATE[10..20]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_those() {
    beside(&LATE[20..]).await;
}

/// A component with a core module more, which is instantiated last.
fn with_module(text: &str) -> Vec<u8> {
    let mut wasm = hostile("");
    let mut depth = 0;
    let mut modules = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&wasm) {
        match payload.unwrap() {
            wasmparser::Payload::Version { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            wasmparser::Payload::ModuleSection { .. } if depth == 1 => modules += 1,
            _ => {}
        }
    }
    section(&mut wasm, 1, &wat::parse_str(text).unwrap());
    // One core instance: of that module, without arguments.
    section(&mut wasm, 2, &[1, 0, modules, 0]);
    wasm
}

/// Appends a section (component model, Binary.md).
fn section(wasm: &mut Vec<u8>, id: u8, body: &[u8]) {
    wasm.push(id);
    let mut length = body.len();
    while length >= 0x80 {
        wasm.push(length as u8 | 0x80);
        length >>= 7;
    }
    wasm.push(length as u8);
    wasm.extend_from_slice(body);
}

/// With one text in place of another of the same length, wherever it is.
fn with_text(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut wasm = hostile("");
    let found: Vec<usize> = (0..wasm.len()).filter(|&at| wasm[at..].starts_with(from.as_bytes())).collect();
    assert!(!found.is_empty(), "{from}");
    for at in found {
        wasm[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    wasm
}

fn compiled(wasm: &[u8]) -> Vec<u8> {
    Engine::new().unwrap().wasmtime().precompile_component(wasm).unwrap()
}

/// What is wrong as a file, and what is said of it.
fn files() -> [(&'static str, Vec<u8>, &'static [&'static str]); FILES] {
    let good = hostile("");
    let passthrough = fs::read(component("passthrough")).unwrap();
    let many = |what: &str, count: usize| format!("(module {})", what.repeat(count));
    let mut modules = good.clone();
    (0..64).for_each(|_| section(&mut modules, 1, b"\0asm\x01\0\0\0"));
    let mut nested = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..200 {
        let inner = std::mem::replace(&mut nested, b"\0asm\x0d\0\x01\0".to_vec());
        section(&mut nested, 4, &inner);
    }
    let mut large = good.clone();
    section(&mut large, 0, &vec![0; 64 << 20]);
    [
        ("core module", b"\0asm\x01\0\0\0".to_vec(), &["it is a core module, not a component"]),
        ("text", b"(component)".to_vec(), &["it is not WebAssembly"]),
        ("nothing", Vec::new(), &["it is not WebAssembly"]),
        ("truncated", good[..good.len() / 2].to_vec(), &["it is damaged"]),
        ("compiled", compiled(&passthrough), &["it is not WebAssembly: it begins with [7f, 45, 4c, 46"]),
        ("too large", large, &["a component has at most 67108864"]),
        ("functions", with_module(&many("(func)", 100_000)), &["functions; a component has at most 100000"]),
        ("modules", modules, &["modules and components; a component has at most 64"]),
        ("nested", nested, &["modules and components; a component has at most 64"]),
        (
            "version",
            with_text("reelwright:writer/writer@0.1.0", "reelwright:writer/writer@7.1.0"),
            &["export reelwright:writer/writer@7.1.0", "expected reelwright:writer/writer@0.1.0"],
        ),
        (
            "import",
            with_text("wasi:cli/environment@", "evil:cli/environment@"),
            &["import evil:cli/environment@", "expected interfaces of wit/0.1.0 and WASI 0.2 only"],
        ),
        (
            "endless start",
            with_module("(module (func $f (loop (br 0))) (start $f))"),
            &["describe: it exceeded the limit `open-time` of 200ms"],
        ),
        ("start trap", with_module("(module (func $f unreachable) (start $f))"), &["unreachable"]),
        ("memory", with_module("(module (memory 60000))"), &["it exceeded the limit `memory` of 16 MiB"]),
        (
            "table",
            with_module("(module (table 30000 funcref))"),
            &["it exceeded the limit `table` of 20000 elements"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_as_a_file_is_refused() {
    refused(little(), files().into_iter().map(|(what, wasm, words)| (what.into(), wasm, words))).await;
}

/// Whatever comes of it: nothing fails but that file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_break_nothing() {
    log();
    let host = Host::with(little()).await;
    let clip = clip();
    let good = fs::read(component("passthrough")).unwrap();
    let flv = host.formats.get("flv").unwrap();
    let (_, before) = host.record(&flv, &clip, 10, &[]).await.unwrap();
    let step = (good.len() * 8 / 40) | 1;
    let mut refused = 0;
    for bit in (97..good.len() * 8).step_by(step) {
        let mut wasm = good.clone();
        wasm[bit / 8] ^= 1 << (bit % 8);
        refused += usize::from(stage(&host.formats, wasm).await.is_err());
    }
    assert!(refused > 0);
    let (_, after) = host.record(&host.formats.get("flv").unwrap(), &clip, 10, &[]).await.unwrap();
    assert!(before == after);
}

/// A cache file that somebody replaced is not run: its digest is wrong.
#[tokio::test]
async fn a_forged_cache_file_is_compiled_anew() {
    log();
    let dir = tempfile::tempdir().unwrap();
    let open = async || {
        let settings = Settings { cache: Some(dir.path().join("cache")), ..Settings::default() };
        Formats::open_with(Engine::new().unwrap(), settings).await.unwrap()
    };
    let path = component("passthrough");
    let sha256 = open().await.load(&path).await.unwrap().sha256;
    let cached = fs::read_dir(dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let its = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with(&sha256);
    let cached = cached.into_iter().find(|path| its(path)).unwrap();
    let whole = fs::read(&cached).unwrap();
    // What an attacker would like to be run, as it comes from the compiler, and with a digest of something else.
    let foreign = compiled(&fs::read(component("trace")).unwrap());
    let forged =
        [foreign.clone(), [&whole[..32], &foreign].concat(), whole[..whole.len() / 2].to_vec(), Vec::new()];
    for bytes in forged {
        fs::write(&cached, bytes).unwrap();
        let version = open().await.load(&path).await.unwrap();
        assert_eq!(version.manifest.format, "raw");
        assert!(fs::read(&cached).unwrap() == whole, "and it is kept anew");
    }
    let name = cached.display().to_string();
    let said =
        log().lines().filter(|l| l.contains("a compiled component is damaged") && l.contains(&name)).count();
    assert_eq!(said, 3, "nothing is said of an empty one");
}
