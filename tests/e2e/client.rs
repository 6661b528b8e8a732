//! The client program against a real server.

use std::process::Command;

use serde_json::Value;

use crate::{media, process::until, senders, server::Server};

/// Runs the program with arguments; returns exit code, output and errors.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reelwright"));
    command.args(arguments).env_remove("REELWRIGHT_SERVER").env_remove("REELWRIGHT_TOKEN");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_recording_from_its_order_to_its_end() {
    let server = Server::start();
    let url = format!("http://{}", server.address("http-cli"));
    let ask = |line: &str| {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.extend(["--server", &url]);
        run(&arguments)
    };
    let done = |line: &str| {
        let (code, out, err) = ask(line);
        assert_eq!(code, 0, "{line}: {out}{err}");
        out
    };
    let _sender = senders::endless(&media::clip(), &server.url("cam1"));
    until("the stream", || server.is_live("cam1").then_some(()));

    let out = done("record cam1 --path one --chunk-length 1 --overwrite --keep-alive=yes --user who=me");
    let file = server.media("one.mp4");
    assert_eq!(out, format!("record 1: cam1 to {}\n", file.display()));
    let made: Value = serde_json::from_str(&done("record cam1 --path-to-file=two --type TS --json")).unwrap();
    assert_eq!((&made["configId"], &made["type"]), (&2.into(), &"ts".into()));
    let info = done("call getConfigInfo ID=1 --json");
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (&info["_who"], &info["overwrite"], &info["chunkLength"]),
        (&"me".into(), &true.into(), &1.into())
    );

    until("both recordings in the list, with codecs", || {
        let streams = done("streams");
        let all = streams.lines().count() == 4;
        (all && streams.contains("H264+AAC") && streams.contains("OFTS")).then_some(())
    });
    let recordings = done("recordings");
    assert!(recordings.lines().nth(1).unwrap().starts_with(" 1  cam1"), "{recordings}");

    let watched = done("watch --rounds 3");
    let lines = |kind: &str| watched.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!((lines("stream "), lines("recording "), lines("disk ")), (9, 6, 3), "{watched}");
    let (_, rest) = watched.rsplit_once("H264+AAC").unwrap();
    let rate: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!(rate > 0, "{watched}");
    let watched = done("watch --rounds 1 --json");
    let watched: Value = serde_json::from_str(&watched).unwrap();
    assert_eq!(watched["recordings"][0]["configId"], 1);

    assert!(done("split 1").starts_with("split 1: cam1 to "));
    assert!(done("pause 1 2 --json").contains("configs"));
    let (code, _, err) = ask("pause cam1");
    assert!(code == 1 && err.contains("paused already"), "{err}");
    assert_eq!(done("resume cam1").lines().count(), 2);
    let tried = done("record cam1 --path three --check");
    assert_eq!(tried, format!("record would begin with {}\n", server.media("three.mp4").display()));

    assert_eq!(done("stop 2").lines().count(), 1);
    assert_eq!(done("stop cam1"), format!("stop 1: cam1 to {}\n", file.display()));
    assert!(server.media("one_part0000.mp4").exists() && server.media("two.ts").exists());
    let (code, out, err) = ask("stop cam1");
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "reelwright: no recording of a stream `cam1`\n"));
    assert_eq!(done("recordings").lines().count(), 1);
}

#[test]
fn what_goes_wrong_is_said() {
    let server = Server::start();
    let url = format!("http://{}", server.address("http-cli"));
    let rtmp = format!("http://{}", server.address("ascii-cli"));
    for (line, server, code, words) in [
        ("streams", "http://127.0.0.1:1", 4, "can't reach the server at http://127.0.0.1:1: "),
        ("streams", "127.0.0.1:7777", 4, "it is no http:// or https:// address"),
        ("streams", &rtmp, 4, "at http://127.0.0.1:"),
        ("stop 99", &url, 1, "reelwright: recording 99: Config ID not found\n"),
        ("record cam1 --path x --type avi", &url, 1, "Known types: flv, mp4, ts"),
        ("record cam1 --path /etc/x", &url, 1, "Unable to record stream: "),
        ("record cam1 --path x --chunk-length many", &url, 1, "Parameter chunkLength is invalid"),
        ("record cam1 --path x --user who", &url, 1, "`who` is not NAME=VALUE"),
        ("call foobar", &url, 1, "command foobar not known. There are help, version, record"),
        ("call quit", &url, 1, "quit is for the command lines only"),
        ("call getConfigInfo", &url, 1, "getConfigInfo needs what is in braces: /recordings/{id}"),
        ("recordigns", &url, 1, "'recordings'"),
    ] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.extend(["--server", server]);
        let (got, out, err) = run(&arguments);
        assert!(got == code && err.contains(words) && out.is_empty(), "{line}: {got} {out} {err}");
    }
}

#[test]
fn shells_complete_what_the_table_has() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!(code, 0, "{err}");
        for word in ["record", "watch", "chunk-length", "wait-for-idr"] {
            assert!(out.contains(word), "{shell}: {word}");
        }
    }
    let (code, _, err) = run(&["completions", "dos"]);
    assert!(code == 1 && err.contains("possible values"), "{err}");
}
