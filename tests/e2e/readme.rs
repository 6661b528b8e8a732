//! The README's walk-through, as it stands.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use crate::{
    media, process, readers, senders,
    server::{self, kill_group},
};

/// The shell's blocks of a section, up to its first subsection, in order.
fn blocks(readme: &str, section: &str) -> String {
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).expect("the section");
    let (section, _) = rest.split_once("\n### ").expect("its first subsection");
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("the block's end").0).collect()
}

/// It uses the ports that operators use, so it gets a network of its own.
#[test]
fn the_walk_through_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let script = blocks(&readme, "Record");
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
