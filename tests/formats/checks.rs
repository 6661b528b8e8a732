//! What a component has to pass before it is used: signature, grant, and the compiler in a process of its own.

use std::{fs, path::PathBuf};

use reelwright::format::{LoadError, Needs, Policy, limits::Limits};
use reelwright_built_components::marked;

use crate::support::{Host, begin, built_in, clip, component};

/// The server's program, which knows how to compile.
pub fn server() -> PathBuf {
    env!("CARGO_BIN_EXE_reelwright").into()
}

async fn under(policy: Policy) -> Host {
    Host::under(Limits::default(), policy).await
}

#[tokio::test]
async fn what_is_not_granted_is_refused() {
    let grant = Needs::PATCH;
    let host = under(Policy { grant, ..Policy::default() }).await;
    let refused = async |file: PathBuf| host.formats.load(&file).await.unwrap_err().to_string();
    let said = "it needs read-back, which this server does not grant: `format-grant` is patch";
    assert_eq!(refused(built_in("flv")).await, said);
    let said = "it needs read-back, head-room, which this server does not grant: `format-grant` is patch";
    assert_eq!(refused(built_in("mp4")).await, said);
    let said = "it needs payload, which this server does not grant: `format-grant` is patch";
    assert_eq!(refused(component("h264")).await, said);
    assert!(host.formats.load(&component("passthrough")).await.is_ok(), "it needs nothing");
    assert!(host.formats.load(&built_in("ts")).await.is_ok(), "nor does it");
    assert!(host.formats.get("mp4").is_some(), "the embedded ones are the server's own");
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_there() {
    let host = Host::new().await;
    let clip = clip();
    let version = host.load("undeclared").await;
    let mut writer = host.open(&version, begin(&clip, &[])).await.unwrap();
    writer.write(&clip.samples).await.unwrap();
    let finished = writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
    let said = fs::read_to_string(&finished.file.path).unwrap();
    let refusal = |function: &str, need: &str| {
        format!("bad-call: {function}: the manifest's needs do not list `{need}`")
    };
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "undeclared".into(),
            refusal("patch", "patch"),
            refusal("read", "read-back"),
            refusal("head", "head-room")
        ]
    );
    assert_eq!(lines[4], "bad-call: write-head of 1 bytes at 0, the head has 0");
}

#[tokio::test]
async fn what_is_not_signed_is_refused() {
    // Nothing that is here was signed with it.
    let key = "RWRHy3utwTACUqmZAC1f78G8UP2tI6PPr+TvJ3japbXI1pi4EnJB9IKF".parse().unwrap();
    let host = under(Policy { key: Some(key), ..Policy::default() }).await;
    let file = host.dir.path().join("raw.wasm");
    fs::copy(component("passthrough"), &file).unwrap();
    let error = host.formats.load(&file).await.unwrap_err().to_string();
    assert!(
        error.contains("it is not signed: there is no ") && error.contains("raw.wasm.minisig"),
        "{error}"
    );
    let of_another = "untrusted comment: signature from minisign secret key\n\
        RURHy3utwTACUq+cfafOFx0EC9R5i7oiC8ML9MyLgcOBlCWgxBuwqk0s+cTw3pNM4IRtW0ETCzrkTNWFrkJqOIyyme9KEK/E5g8=\n\
        trusted comment: timestamp:1795410880\tfile:x.wasm\thashed\n\
        QNayTTVqEjYhibYoUOZjRyirHMXdniPbmtgW0Fle2HSLH2EIPvxyWrEtt4XP9qK4UhKDwEdnoQP+fw3tDDPDCQ==\n";
    fs::write(host.dir.path().join("raw.wasm.minisig"), of_another).unwrap();
    let error = host.formats.load(&file).await.unwrap_err().to_string();
    assert!(error.contains("raw.wasm.minisig is not good"), "{error}");
    assert!(host.formats.get("flv").is_some(), "the embedded ones need no signature");
}

/// A component with another hash than any before, so that nothing is in the cache.
fn fresh(host: &Host, note: &str) -> PathBuf {
    let stamp = format!("{note} {:?} {}", std::time::SystemTime::now(), host.dir.path().display());
    let stamp = &stamp.as_bytes()[..stamp.len().min(100)];
    let wasm = marked(fs::read(component("passthrough")).unwrap(), stamp);
    let file = host.dir.path().join(note).with_extension("wasm");
    fs::write(&file, wasm).unwrap();
    file
}

#[tokio::test]
async fn a_process_of_its_own_compiles_what_works_here() {
    let host = under(Policy { compiler: Some(server()), ..Policy::default() }).await;
    let version = host.formats.load(&fresh(&host, "good")).await.unwrap();
    let clip = clip();
    let (_, bytes) = host.record(&version.into(), &clip, 64, &[]).await.unwrap();
    assert!(bytes.ends_with(&clip.payload()));
}

#[tokio::test]
async fn the_compiler_has_little_memory_and_time() {
    let refused = async |limits: Limits, note: &str| {
        let policy = Policy { compiler: Some(server()), ..Policy::default() };
        let host = Host::under(limits, policy).await;
        host.formats.load(&fresh(&host, note)).await.unwrap_err()
    };
    let error = refused(Limits { compile_memory: 6 << 20, ..Limits::default() }, "memory").await;
    assert!(matches!(error, LoadError::Compiler(_)), "{error}");
    assert_eq!(error.to_string(), "compiling it exceeded the limit `compile-memory` of 6 MiB");
    let none = Limits { compile_time: std::time::Duration::ZERO, ..Limits::default() };
    assert_eq!(
        refused(none, "time").await.to_string(),
        "compiling it exceeded the limit `compile-time` of 0ns"
    );
}

#[tokio::test]
async fn what_only_the_compiler_finds_is_told() {
    let host = under(Policy { compiler: Some(server()), ..Policy::default() }).await;
    let mut wasm = fs::read(component("passthrough")).unwrap();
    let bodies = wasmparser::Parser::new(0).parse_all(&wasm).filter_map(|payload| match payload.unwrap() {
        wasmparser::Payload::CodeSectionEntry(body) => Some(body.range().end),
        _ => None,
    });
    // A function without its `end`.
    let end = bodies.into_iter().next().unwrap();
    wasm[end - 1] = 0x01;
    let file = host.dir.path().join("damaged.wasm");
    fs::write(&file, wasm).unwrap();
    let error = host.formats.load(&file).await.unwrap_err();
    assert!(matches!(error, LoadError::Compile(_)), "{error:?}");
}
