//! The program itself: what it prints, and how it ends.

use std::process::Command;

use crate::server::Server;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_reelwright")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn exit_codes_tell_done_from_failed_and_wrong_usage() {
    let server = Server::start();
    let cli = server.address("ascii-cli").to_string();
    let (code, out, _) = run(&["cli", "--addr", &cli, "version"]);
    assert!(code == Some(0) && out.starts_with("Command entered successfully!\nVersion\n"), "{out}");
    let (code, out, _) = run(&["cli", "--addr", &cli, "getConfigInfo id=99"]);
    assert!(code == Some(1) && out.contains("Config ID not found"), "{out}");
    let (code, _, err) = run(&["recrod"]);
    assert!(code == Some(1) && err.contains("unrecognized subcommand") && err.contains("'record'"), "{err}");
    let (code, _, err) = run(&["serve", "--rtmp", "nowhere"]);
    assert!(code == Some(1) && err.contains("--rtmp"), "{err}");
    let (code, out, _) = run(&["--help"]);
    assert!(code == Some(0) && out.contains("serve"), "{out}");
    let (code, _, err) = run(&["publish", "/nowhere.flv", "rtmp://127.0.0.1/live/x"]);
    assert!(code == Some(4) && err.contains("/nowhere.flv: No such file"), "{err}");

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "rtmp = \"127.0.0.1:0\"\nrtpm = 1\n").unwrap();
    let (code, _, err) = run(&["serve", "--config", config.to_str().unwrap()]);
    assert!(code == Some(1) && err.contains("line 2") && err.contains("rtpm"), "{err}");
    let (code, _, err) = run(&[
        "serve",
        "--rtmp",
        &cli,
        "--media-root",
        dir.path().to_str().unwrap(),
        "--data-dir",
        dir.path().join("data").to_str().unwrap(),
    ]);
    assert!(code == Some(4) && err.contains(&format!("--rtmp {cli}")), "a taken port: {err}");
}
