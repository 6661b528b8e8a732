//! Formats that are files: loaded, refused and replaced while the server records.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    guests::{component, embedded, marked},
    media,
    process::until,
    readers::{self, FORMATS},
    senders::{self, Pace, Sender},
    server::Server,
};

/// Puts a file into the formats folder, whole or not at all.
fn install(server: &Server, name: &str, wasm: &[u8]) {
    let new = server.formats().join(format!("{name}.new"));
    fs::write(&new, wasm).unwrap();
    fs::rename(new, server.formats().join(name)).unwrap();
}

/// All that the senders' files hold, in the order in which it was sent.
fn payloads(file: &Path) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    media::tags(&bytes).iter().filter_map(media::Tag::payload).flatten().copied().collect()
}

/// Waits for an event that has all the words.
fn told(server: &Server, words: &[&str]) {
    let events = server.media("../events");
    until(&format!("an event with {words:?}"), || {
        let log = fs::read_to_string(&events).unwrap_or_default();
        log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

#[test]
fn a_new_format_is_one_file() {
    let server = Server::start();
    let refused = server.cli("record localStreamName=cam pathToFile=cam type=raw");
    assert!(!refused.success && refused.description.contains("flv, mp4, ts"), "{refused:?}");
    install(&server, "raw.wasm", &component("passthrough"));
    until("format raw", || {
        server.cli("record localStreamName=cam pathToFile=cam type=raw").success.then_some(())
    });
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &[]);
    let expected = [b"raw 1.0.0\n".as_slice(), &payloads(&media::clip())].concat();
    until("all of it", || (fs::read(server.media("cam.raw")).ok()? == expected).then_some(()));
}

#[test]
fn a_format_is_replaced_between_two_files_without_loss() {
    let server = Server::start_with(|dir| {
        fs::write(dir.join("formats/raw.wasm"), component("passthrough")).unwrap();
        Vec::new()
    });
    let id = server.record("cam", "cam", "raw", "chunkLength=1");
    let _sender = senders::endless(&media::clip(), &server.url("cam"));
    until("the first file", || server.media("cam_part0000.raw").exists().then_some(()));
    install(&server, "raw.wasm", &component("passthrough_v2"));
    // Its first line says which version wrote a file.
    let is_new = |part: &PathBuf| fs::read(part).is_ok_and(|bytes| bytes.starts_with(b"raw 2.0.0\n"));
    until("a file by the new version", || server.parts("cam", "raw").last().filter(|p| is_new(p)).map(drop));
    server.stop(&[id]);

    let mut all = Vec::new();
    let mut versions = Vec::new();
    for part in server.parts("cam", "raw") {
        let bytes = fs::read(part).unwrap();
        let line = bytes.iter().position(|b| *b == b'\n').unwrap();
        versions.push(String::from_utf8_lossy(&bytes[..line]).into_owned());
        all.extend_from_slice(&bytes[line + 1..]);
    }
    let sent = payloads(&media::clip());
    assert!(all.iter().eq(sent.iter().cycle().take(all.len())), "{versions:?}: {} bytes", all.len());
    assert_eq!(versions.first().map(String::as_str), Some("raw 1.0.0"));
    assert!(versions.is_sorted(), "{versions:?}");
}

#[test]
fn a_built_in_format_is_replaced_between_two_files_without_loss() {
    let server = Server::start();
    let id = server.record("cam", "cam", "flv", "chunkLength=1");
    let _sender = senders::endless(&media::clip(), &server.url("cam"));
    until("the first file", || server.media("cam_part0000.flv").exists().then_some(()));
    install(&server, "flv.wasm", &marked(embedded("flv"), b"1"));
    // The log says which component writes a file: by its hash, for the version is the same.
    let component = |part: &str| {
        let line = server.logged(&[" recording ", part, "component="]);
        line.split_once("(sha256 ").unwrap().1[..12].to_owned()
    };
    let first = component("_part0000");
    let last = until("a file by the new component", || {
        let last = server.parts("cam", "flv").len() - 1;
        (component(&format!("_part{last:04}")) != first).then_some(last)
    });
    server.stop(&[id]);
    let parts = server.parts("cam", "flv");
    assert!(parts.len() > last && last > 0);
    readers::assert_repeated(&media::clip(), &parts);
    for part in &parts {
        readers::assert_well_formed(part);
    }
}

#[test]
fn what_is_no_format_is_refused_with_its_name_and_the_rest_works() {
    let server = Server::start_with(|dir| {
        let good = component("passthrough");
        fs::write(dir.join("formats/truncated.wasm"), &good[..good.len() / 2]).unwrap();
        fs::write(dir.join("formats/empty.wasm"), b"").unwrap();
        fs::write(dir.join("formats/text.wasm"), b"not a component").unwrap();
        fs::write(dir.join("formats/other.wasm"), component("wrong_world")).unwrap();
        fs::write(dir.join("formats/spins.wasm"), component("spin_in_describe")).unwrap();
        fs::write(dir.join("formats/good.wasm"), good).unwrap();
        Vec::new()
    });
    for file in ["truncated.wasm", "empty.wasm", "text.wasm", "spins.wasm"] {
        server.logged(&["ERROR", file]);
    }
    server.logged(&["ERROR", "other.wasm", "reelwright:writer"]);
    let ids = ["flv", "raw"].map(|format| server.record("cam", "cam", format, ""));
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    readers::assert_recorded(&media::clip(), &server.media("cam.flv"));
    assert!(fs::read(server.media("cam.raw")).unwrap().ends_with(&payloads(&media::clip())));
}

#[test]
fn a_bad_file_does_not_push_out_the_good_one_that_it_replaces() {
    let server = Server::start_with(|dir| {
        fs::write(dir.join("formats/raw.wasm"), component("passthrough")).unwrap();
        vec!["--event-log".into(), dir.join("events").display().to_string()]
    });
    install(&server, "raw.wasm", b"\0asm no more");
    server.logged(&["ERROR", "raw.wasm", "raw 1.0.0"]);
    told(&server, &["\"formatFailed\"", "raw.wasm", "\"version\":\"1.0.0\""]);
    let id = server.record("cam", "cam", "raw", "");
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &[id]);
    assert!(fs::read(server.media("cam.raw")).unwrap().starts_with(b"raw 1.0.0\n"));
    // Without its file the format is gone.
    fs::remove_file(server.formats().join("raw.wasm")).unwrap();
    told(&server, &["\"formatSwapped\"", "\"format\":\"raw\"", "\"to\":null"]);
}

/// The hostile component, told to misbehave behind the 200th sample of a file, as a format of that name.
fn told_to(what: &str, name: &str) -> Vec<u8> {
    let mut wasm = component("hostile");
    let title = b"hostile order: ";
    let at = wasm.windows(title.len()).position(|bytes| bytes == title).unwrap() + title.len();
    let order = format!("{:64}", format!("late {what} {name}"));
    wasm[at..at + order.len()].copy_from_slice(order.as_bytes());
    wasm
}

/// A component that passes its probe and misbehaves later costs the recordings beside it nothing, and the log says what it
/// did. All that there are: `tests/formats`.
#[test]
fn components_that_misbehave_harm_no_recording_beside_them() {
    let faults = [
        ("trap", "this component was told to"),
        ("write-loop", "limit `write-time`"),
        ("memory", "limit `memory`"),
        ("exit", "exit(0)"),
    ];
    let name = |what: &str| format!("bad-{what}");
    let server = Server::start_with(|dir| {
        for (what, _) in faults {
            fs::write(dir.join(format!("formats/{what}.wasm")), told_to(what, &name(what))).unwrap();
        }
        // This one misbehaves at once, so it never gets that far.
        fs::write(dir.join("formats/trap_in_write.wasm"), component("trap_in_write")).unwrap();
        Vec::new()
    });
    server.logged(&["ERROR", "trap_in_write.wasm", "probe", "this component panics in its third write"]);
    assert!(!server.cli("record localStreamName=cam pathToFile=x type=trap-in-write").success);
    for (what, _) in faults {
        server.logged(&["INFO", &format!("{} 1.0.0", name(what))]);
    }
    let good = FORMATS.map(|format| server.record("cam", "cam", format, ""));
    let bad = faults.map(|(what, _)| server.record("cam", what, &name(what), ""));
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &good);
    server.finish("cam", &bad);
    for (what, words) in faults {
        server.logged(&["ERROR", &format!("{} 1.0.0", name(what)), words]);
    }
    for format in FORMATS {
        readers::assert_recorded(&media::clip(), &server.media(&format!("cam.{format}")));
    }
}
