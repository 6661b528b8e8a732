//! Orders that outlive their server: in its database, in the copy of it, and as a text.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use serde_json::Value;

use crate::{
    process::until,
    senders,
    server::{self, Server},
};

/// What the server was ordered, without what it does about it.
fn orders(server: &Server) -> (Value, Value) {
    let mut configs = server.json("listConfig", "")["data"]["record"].take();
    for config in configs.as_array_mut().unwrap() {
        let config = config.as_object_mut().unwrap();
        config.remove("status");
        config.remove("computedPathToFile");
    }
    (configs, server.json("listIngestPoints", "")["data"].take())
}

/// Has a server ordered some things. Returns those that it is to keep.
fn order(server: &Server) -> (Value, Value) {
    server.record("cam1", "one", "ts", "chunkLength=60 _who=me");
    server.record(r"cam\ 2", "two", "mp4", "keepAlive=1");
    server.record("cam3", "once", "flv", "keepAlive=0");
    let point = "createIngestPoint privateStreamName=secret publicStreamName=cam4";
    assert!(server.cli(point).success);
    let (mut configs, points) = orders(server);
    configs.as_array_mut().unwrap().retain(|config| config["keepAlive"] == true);
    (configs, points)
}

fn state(arguments: &[&str], data: &Path) -> Output {
    senders::reelwright().arg("state").args(arguments).arg("--data-dir").arg(data).output().unwrap()
}

#[test]
fn a_damaged_database_costs_no_order() {
    let mut server = Server::start();
    let kept = order(&server);
    let data = server.media("").join("../data");
    until("the copy", || fs::read_to_string(data.join("state.toml")).ok()?.contains("secret").then_some(()));
    assert_eq!(fs::metadata(data.join("state.toml")).unwrap().permissions().mode() & 0o777, 0o600);
    server.kill();
    let database = data.join("reelwright.redb");
    let damaged: Vec<u8> = fs::read(&database).unwrap().iter().map(|byte| byte ^ 0x55).collect();
    fs::write(&database, &damaged).unwrap();

    let server = Server::start_in(server.home(), &[]);
    assert_eq!(orders(&server), kept);
    server.logged(&["the database was damaged", "orders=3"]);
    let files = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = files.filter(|path| path.to_string_lossy().contains("damaged-")).collect();
    assert_eq!(fs::read(&aside[0]).unwrap(), damaged);
    // Ids are not given again, nor is that of the recording that was not kept.
    assert_eq!(server.record("cam5", "five", "flv", ""), 5);
}

#[test]
fn orders_move_to_another_server_as_a_text() {
    let mut server = Server::start();
    let kept = order(&server);
    let data = server.media("").join("../data");
    let running = state(&["export"], &data);
    assert_eq!(running.status.code(), Some(4));
    let said = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(said.contains("is another server running"), "{said}");
    server.terminate();
    server.ended();

    for format in ["toml", "json"] {
        let exported = state(&["export", "--format", format], &data);
        assert!(exported.status.success(), "{exported:?}");
        let home = server::home(&std::env::temp_dir());
        let file = home.path().join(format!("orders.{format}"));
        fs::write(&file, exported.stdout).unwrap();
        let file = file.to_str().unwrap();
        // Twice is as good as once.
        for arguments in [&["import", file][..], &["import", file], &["import", "--replace", file]] {
            let imported = state(arguments, &home.path().join("data"));
            assert!(imported.status.success(), "{imported:?}");
        }
        let other = Server::start_in(home, &[]);
        assert_eq!(orders(&other), kept, "{format}");
    }
}
