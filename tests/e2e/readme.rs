//! The README's walk-through, as it stands.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use reelwright::config::Config;

use crate::{
    client, guests, media, process, readers, senders,
    server::{self, Server, kill_group},
};

/// The shell's blocks of a section, up to its first subsection, in order.
fn blocks(readme: &str, section: &str) -> String {
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).expect("the section");
    let (section, _) = rest.split_once("\n### ").expect("its first subsection");
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("the block's end").0).collect()
}

/// The blocks of a language, in order.
fn of_language<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    let blocks = readme.split(begin.as_str()).skip(1);
    blocks.map(|block| block.split_once("\n```").expect("the block's end").0).collect()
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap()
}

#[test]
fn the_settings_are_settings() {
    let readme = readme();
    let [settings] = of_language(&readme, "toml")[..] else { panic!("one block of settings") };
    let config = Config::parse(settings).unwrap();
    assert_eq!(config.event_sinks.len(), 1, "{config:?}");
    config.policy().unwrap();
}

/// The blocks on tokens and formats, line by line: a server on its own ports, and a component with another hash than
/// the README's.
#[test]
fn tokens_and_formats_work_as_shown() {
    let readme = readme();
    let blocks = of_language(&readme, "sh");
    let block = |words: &str| *blocks.iter().find(|block| block.contains(words)).expect(words);
    let words: Vec<&str> = block("reelwright token").split_whitespace().collect();
    let (code, out, err) = client::run(&words[1..]);
    assert!(code == 0 && out.contains("[[token]]"), "{out}{err}");

    let wasm = guests::marked(guests::embedded("flv"), b"1");
    let server = Server::start_with(|dir| {
        fs::write(dir.join("media/my-flv.wasm"), &wasm).unwrap();
        Vec::new()
    });
    let url = format!("http://{}", server.address("http-cli"));
    let mut hash = "0123abcd".to_owned();
    let mut lines = 0;
    for line in block("reelwright format load").lines() {
        let line = line.split(" #").next().unwrap_or_default().replace("0123abcd", &hash);
        let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
        words.extend(["--server", &url]);
        let (code, out, err) = client::run(&words);
        assert_eq!(code, 0, "{line}: {out}{err}");
        lines += 1;
        let listed = server.json("listFormats", "");
        let probed = listed["data"].as_array().unwrap().iter().find(|one| one["state"] == "probed");
        if let Some(probed) = probed {
            hash = probed["sha256"].as_str().unwrap()[..8].to_owned();
        }
    }
    assert_eq!(lines, 5);
}

/// It uses the ports that operators use, so it gets a network of its own.
#[test]
fn the_walk_through_works() {
    let script = blocks(&readme(), "Record");
    assert!(script.lines().count() > 15, "{script}");
    let home = server::home(&std::env::temp_dir());
    let dir = home.path();
    let clip = media::clip();
    let mut make = Command::new("ffmpeg");
    make.args(["-loglevel", "error", "-stream_loop", "9", "-i"]).arg(clip).args(["-c", "copy"]);
    process::run(make.arg(dir.join("input.mp4")));

    let program = senders::reelwright();
    let bin = Path::new(program.get_program()).parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // Blocks are typed one after the other, and each has to work.
    let script = format!("set -eEuo pipefail\nip link set lo up\n{script}");
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--net", "bash", "-c", &script]);
    shell.current_dir(dir).env("PATH", path).env("NO_COLOR", "1").env("HOME", dir).process_group(0);
    let output = fs::File::create(dir.join("output")).unwrap();
    shell.stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = shell.spawn().unwrap();
    let ended = process::until("the walk-through's end", || child.try_wait().unwrap());
    kill_group(&mut child);
    let said = fs::read_to_string(dir.join("output")).unwrap();
    let log = fs::read_to_string(dir.join("server.log")).unwrap_or_default();
    assert!(ended.success(), "{ended}\n{said}\n{log}");

    let names: Vec<_> = fs::read_dir(dir.join("media")).unwrap().map(|e| e.unwrap().path()).collect();
    let of = |extension: &str| {
        names.iter().filter(|name| name.extension().is_some_and(|e| e == extension)).count()
    };
    assert!(of("mp4") >= 1 && of("ts") >= 1 && of("info") == 0, "{names:?}");
    for name in &names {
        readers::tracks(name);
    }
    let orders = fs::read_to_string(dir.join("orders.toml")).unwrap();
    assert!(orders.contains("studio*"), "{orders}");
    let events = fs::read_to_string(dir.join("events.jsonl")).unwrap();
    assert!(events.contains("recordChunkClosed") && events.contains("serverStopping"), "{events}");
}
