//! What a writer that fails leaves, and whether it shows the failure again.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use reelwright::{
    events::Events,
    format::{
        bundle::{Bundle, Bundles, Replayed},
        limits::Limits,
    },
};

use crate::support::{Host, component};

/// A host that leaves bundles, and who is told.
async fn host(limits: Limits) -> (Host, Events) {
    let host = Host::with(limits).await;
    let events = Events::default();
    host.engine.keep_bundles(Bundles::new(host.dir.path().join("crashes"), 32, events.clone()));
    (host, events)
}

/// Lets a component fail, and waits for the bundle of that.
async fn fail(host: &Host, events: &Events, name: &str) -> (PathBuf, String) {
    let mut told = events.subscribe();
    let (error, _) = host.fail(name, &[]).await;
    let event = told.recv().await.unwrap();
    let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
    assert_eq!(event["type"], "formatCrashed", "{event}");
    assert_eq!(event["payload"]["error"], error.cause.to_string());
    (event["payload"]["bundle"].as_str().unwrap().into(), error.to_string())
}

#[tokio::test]
async fn each_failure_comes_again() {
    for (name, call, kind) in [
        ("trap_in_write", "write", "trap"),
        ("trap_in_finish", "finish", "trap"),
        ("hoard_memory", "write", "limit"),
        ("spin_in_write", "write", "limit"),
        ("exits", "write", "trap"),
        ("bad_piece", "write", "refused"),
    ] {
        // Short for the one that reaches it: one that fills its memory takes time, too.
        let mut limits = Limits::default();
        if name == "spin_in_write" {
            limits.write_time = Duration::from_millis(200);
        }
        let write_time = limits.write_time.as_millis();
        let (host, events) = host(limits).await;
        let (path, error) = fail(&host, &events, name).await;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bundle = Bundle::read(&path).unwrap();
        let head = &bundle.head;
        assert!(head.complete && u128::from(head.limits["write-time"]) == write_time, "{name}: {head:?}");
        assert_eq!((head.failure.call.as_str(), head.failure.kind.as_str()), (call, kind), "{error}");
        assert!(head.host_calls[0].starts_with("create("), "{name}: {:?}", head.host_calls);
        if name.starts_with("trap") {
            let said = head.log.iter().any(|(_, line)| line.contains("this component panics"));
            assert!(said, "the panic's message: {:?}", head.log);
            assert!(head.backtrace.as_ref().unwrap().contains("wasm backtrace"), "{:?}", head.backtrace);
        }

        // It is found by its hash, in the store or in a folder.
        let data = host.dir.path().join("data");
        assert!(bundle.find_component(&data, None).is_none());
        let store = data.join("formats");
        std::fs::create_dir_all(&store).unwrap();
        std::fs::copy(component(name), store.join("any.wasm")).unwrap();
        assert!(bundle.find_component(Path::new("none"), Some(&store)).is_some());
        std::fs::rename(store.join("any.wasm"), store.join(format!("{}.wasm", head.sha256))).unwrap();
        let (wasm, file) = bundle.find_component(&data, None).unwrap();
        let version = Arc::new(bundle.load(wasm, file).await.unwrap());
        match bundle.replay(version).await.unwrap() {
            Replayed::Same { failure, step } => {
                assert_eq!((&failure, step), (&head.failure, bundle.steps()), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
        let good = std::fs::read(component("passthrough")).unwrap();
        let version = Arc::new(bundle.load(good, None).await.unwrap());
        assert_eq!(bundle.replay(version).await.unwrap(), Replayed::Nothing, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_fault_of_a_component_leaves_none() {
    let (host, events) = host(Limits::default()).await;
    let mut told = events.subscribe();
    // It says no in `open`.
    assert!(host.fail("uses_fs", &[]).await.0.is_refusal());
    fail(&host, &events, "trap_in_write").await;
    assert!(told.recv().await.unwrap().json.contains("trap-in-write"), "the first that was told");
    // The next within a minute is not kept.
    for name in host.files() {
        std::fs::remove_file(host.dir.path().join("media").join(name)).unwrap();
    }
    host.fail("trap_in_write", &[]).await;
    let there = std::fs::read_dir(host.dir.path().join("crashes")).unwrap().count();
    assert_eq!(there, 1);
}

#[tokio::test]
async fn the_command_says_whether_it_comes_again() {
    let (host, events) = host(Limits::default()).await;
    let (path, _) = fail(&host, &events, "trap_in_write").await;
    let replay = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_reelwright"))
            .args(["format", "replay", path.to_str().unwrap()])
            .args(arguments)
            .current_dir(host.dir.path())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let bad = component("trap_in_write");
    let (code, text) = replay(&["--component", bad.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("reproduced: write (step 3): it trapped"), "{text}");
    let good = component("passthrough");
    let (code, text) = replay(&["--component", good.to_str().unwrap()]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("is not the component that failed") && text.contains("nothing fails"), "{text}");
    assert_eq!(replay(&[]).0, 2, "there is none in the data folder");
}
