//! Versions of formats: loaded, swapped, rolled back and kept, while a real encoder sends.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use serde_json::Value;

use crate::{
    guests::{component, embedded, marked},
    media,
    process::{self, until},
    readers,
    senders::{self, Pace, Sender},
    server::{self, Server},
};

/// Loads a component from the media root, and returns its hash.
fn load(server: &Server, name: &str, wasm: &[u8]) -> String {
    fs::write(server.media(name), wasm).unwrap();
    // On a busy machine it is answered before it is compiled. Once more waits for the same.
    let reply = until("it is tried", || {
        let reply = server.json("loadFormat", &format!("path={name}"));
        (reply["data"]["state"] != "staged").then_some(reply)
    });
    assert_eq!((&reply["status"], &reply["data"]["state"]), (&"SUCCESS".into(), &"probed".into()), "{reply}");
    fs::remove_file(server.media(name)).unwrap();
    reply["data"]["sha256"].as_str().unwrap().to_owned()
}

fn swap(server: &Server, params: &str) {
    let reply = server.json("swapFormat", params);
    assert_eq!(reply["data"]["state"], "active", "{reply}");
}

/// State and files of each version, by the start of its hash.
fn versions(server: &Server, format: &str) -> Vec<(String, String, u64)> {
    let info = server.json("getFormatInfo", &format!("format={format}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let version = |v: &Value| (text(&v["sha256"]), text(&v["state"]), v["recordings"].as_u64().unwrap());
    info["data"]["versions"].as_array().unwrap().iter().map(version).collect()
}

fn state(server: &Server, format: &str, sha256: &str) -> (String, u64) {
    let found = versions(server, format).into_iter().find(|(its, ..)| its == sha256);
    found.map(|(_, state, recordings)| (state, recordings)).unwrap()
}

/// The files of a recording that is not chunked, in their order.
fn files(server: &Server, format: &str) -> Vec<PathBuf> {
    let name = |i: usize| if i == 0 { format!("cam.{format}") } else { format!("cam_{i:04}.{format}") };
    (0..).map(|i| server.media(&name(i))).take_while(|path| path.exists()).collect()
}

/// The NAL units of a byte stream (ITU-T H.264, Annex B) but parameter sets.
fn units(bytes: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&[0, 0, 0, 1])).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| &bytes[start + 4..end]);
    units.filter(|unit| !matches!(unit[0] & 0x1f, 7 | 8)).collect()
}

/// Those of a picture as FLV holds it.
fn length_prefixed(mut picture: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    while let Some((length, rest)) = picture.split_first_chunk::<4>() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        units.push(unit);
        picture = rest;
    }
    units.retain(|unit| !matches!(unit[0] & 0x1f, 7 | 8));
    units
}

/// Format `h264` is one that the server has never heard of.
#[test]
fn a_built_in_format_and_a_foreign_one_are_swapped_under_a_real_encoder() {
    let server = Server::start();
    let foreign = component("h264");
    let first = load(&server, "a.wasm", &foreign);
    swap(&server, &format!("format=h264 sha256={first}"));
    let built_in = versions(&server, "flv")[0].0.clone();
    let loaded = [
        load(&server, "b.wasm", &marked(foreign, b"1")),
        load(&server, "c.wasm", &marked(embedded("flv"), b"1")),
    ];
    let formats = ["h264", "flv"];
    let ids = formats.map(|format| server.record("cam", "cam", format, ""));
    let sent = media::two_and_a_half_megabits();
    let mut sender = Sender::Ffmpeg5.start(&sent, &server.url("cam"), Pace::RealTime);

    let number = |count: usize| {
        for format in formats {
            until(&format!("file {count} of {format}"), || {
                (files(&server, format).len() == count).then_some(())
            });
        }
    };
    let active = [(&built_in, "flv"), (&first, "h264")];
    number(1);
    for (format, sha256) in formats.iter().zip(&loaded) {
        swap(&server, &format!("format={format} sha256={} mode=next-chunk", &sha256[..8]));
    }
    number(2);
    for (sha256, format) in active {
        assert_ne!(state(&server, format, sha256).0, "active");
        swap(&server, &format!("format={format} sha256={sha256} mode=now"));
    }
    number(3);
    for (format, sha256) in formats.iter().zip(&loaded) {
        let reply = server.json("rollbackFormat", &format!("format={format}"));
        assert_eq!(reply["data"]["sha256"], **sha256, "{reply}");
    }
    number(4);
    for format in formats {
        // A drain leaves the file that is open alone.
        let before = server.json("getFormatInfo", &format!("format={format}"))["data"]["swaps"].clone();
        assert_eq!(before.as_array().unwrap().len(), if format == "h264" { 4 } else { 3 }, "{before}");
    }
    swap(&server, &format!("format=flv sha256={built_in}"));
    until("the old one drains", || {
        (state(&server, "flv", &loaded[1]) == ("draining".into(), 1)).then_some(())
    });
    until("more", || (server.video_samples("cam") > 200).then_some(()));
    assert_eq!(files(&server, "flv").len(), 4);
    // What came when, for each recording.
    let info = server.json("getConfigInfo", &format!("id={}", ids[1]));
    let stretches = info["data"]["formatHistory"]["stretches"].as_array().unwrap();
    let who: Vec<&str> = stretches.iter().map(|s| &s["component"].as_str().unwrap()[18..30]).collect();
    let expected = [&built_in, &loaded[1], &built_in, &loaded[1]].map(|sha256| &sha256[..12]);
    assert_eq!(who, expected);
    sender.kill();
    server.finish("cam", &ids);
    assert_eq!(state(&server, "flv", &loaded[1]), ("retired".into(), 0));

    for format in formats {
        let files = files(&server, format);
        assert_eq!(files.len(), 4);
        let bytes = fs::read(&sent).unwrap();
        let tags = media::tags(&bytes);
        if format == "flv" {
            // Not by FFmpeg: it complains of a file that begins without a key frame, as those by `now` do.
            let all: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
            let found: Vec<media::Tag<'_>> = all.iter().flat_map(|bytes| media::tags(bytes)).collect();
            for kind in [media::VIDEO, media::AUDIO] {
                let sent = tags.iter().filter(|tag| tag.kind == kind).filter_map(media::Tag::payload);
                let found: Vec<_> =
                    found.iter().filter(|tag| tag.kind == kind).filter_map(media::Tag::payload).collect();
                assert!(found.len() > 200 && found.iter().copied().eq(sent.take(found.len())), "{kind}");
            }
            continue;
        }
        let pictures: Vec<&[u8]> =
            tags.iter().filter(|tag| tag.kind == media::VIDEO).filter_map(media::Tag::payload).collect();
        let all: Vec<u8> = files.iter().flat_map(|file| fs::read(file).unwrap()).collect();
        let found = units(&all);
        let sent: Vec<&[u8]> = pictures.iter().flat_map(|picture| length_prefixed(picture)).collect();
        assert!(found.len() > 200 && found.iter().eq(sent.iter().take(found.len())));
        // A picture a packet: a file that was swapped out at once has one only.
        let packets = |file: &PathBuf| -> usize {
            let mut ffprobe = Command::new("/usr/bin/ffprobe");
            ffprobe.args([
                "-v",
                "error",
                "-count_packets",
                "-show_entries",
                "stream=codec_name,nb_read_packets",
            ]);
            let text = process::run(ffprobe.args(["-of", "csv=p=0"]).arg(file));
            let packets = text.trim().strip_prefix("h264,").and_then(|count| count.parse().ok());
            packets.filter(|&count| count > 0).unwrap_or_else(|| panic!("{}: {text}", file.display()))
        };
        let read: usize = files.iter().map(packets).sum();
        let mut units = 0;
        let written = pictures.iter().take_while(|picture| {
            units += length_prefixed(picture).len();
            units <= found.len()
        });
        assert_eq!(read, written.count());
    }
}

#[test]
fn what_an_operator_chose_outlives_a_crash() {
    let dir = server::home(&std::env::temp_dir());
    let mut server = Server::start_in(dir.clone(), &[]);
    let built_in = versions(&server, "flv")[0].0.clone();
    let loaded = load(&server, "a.wasm", &marked(embedded("flv"), b"1"));
    let waiting = load(&server, "b.wasm", &marked(embedded("flv"), b"2"));
    swap(&server, &format!("format=flv sha256={loaded}"));
    assert_eq!(server.json("pinFormat", "format=flv")["data"]["pinned"], true);
    server.kill();
    let server = Server::start_in(dir, &[]);
    assert_eq!(state(&server, "flv", &loaded).0, "active");
    assert_eq!(state(&server, "flv", &waiting).0, "probed");
    let refused = server.json("swapFormat", &format!("format=flv sha256={waiting}"));
    assert!(refused["description"].as_str().unwrap().contains("it is pinned to"), "{refused}");
    server.json("pinFormat", "format=flv pinned=0");
    let back = server.json("rollbackFormat", "format=flv");
    assert_eq!(back["data"]["sha256"], *built_in, "{back}");
    let id = server.record("cam", "cam", "flv", "");
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &[id]);
    readers::assert_recorded(&media::clip(), &server.media("cam.flv"));
}

#[test]
fn the_shell_loads_swaps_and_rolls_back() {
    let server = Server::start();
    let dir = server.home();
    let url = format!("http://{}", server.address("http-cli"));
    let format = |arguments: &[&str]| {
        let mut command = senders::reelwright();
        command.arg("format").args(arguments).current_dir(dir.path().join("media"));
        if arguments[0] != "export" {
            command.args(["--server", &url]);
        }
        process::Process::start(&mut command).wait()
    };
    let exported = format(&["export", "ts", "-o", "ts.wasm"]);
    assert!(exported.status.success(), "{}", exported.stderr);
    let wasm = fs::read(server.media("ts.wasm")).unwrap();
    assert!(wasm == embedded("ts"));
    assert!(!format(&["export", "ts", "-o", "ts.wasm"]).status.success(), "it is not overwritten");
    assert!(format(&["export", "avi", "-o", "x"]).stderr.contains("there is no format `avi`"));

    fs::write(server.media("ts.wasm"), marked(wasm, b"1")).unwrap();
    let list = until("it is tried", || {
        let loaded = format(&["load", "ts.wasm", "--format", "ts"]);
        assert!(loaded.status.success(), "{}", loaded.stderr);
        Some(format(&["list"]).stdout).filter(|list| list.contains("probed"))
    });
    let line = |list: &str, state: &str| {
        let line =
            list.lines().find(|line| line.starts_with("ts ") && line.contains(state)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {state} in {list}"))
    };
    let sha256 = line(&list, "probed").split_whitespace().nth(2).unwrap().to_owned();
    assert!(line(&list, "active").contains("embedded"), "{list}");
    let swapped = format(&["swap", "ts", &sha256, "--mode", "now"]);
    assert!(swapped.status.success(), "{}", swapped.stderr);
    assert!(line(&format(&["list"]).stdout, "active").contains(&sha256));
    assert!(format(&["rollback", "ts"]).status.success());
    assert!(line(&format(&["list"]).stdout, "active").contains("embedded"));
    let again = format(&["rollback", "ts"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("there is no version to go back to"), "{}", again.stderr);
    assert!(format(&["info", "ts"]).stdout.contains("video/mp2t"));
    assert!(format(&["unload", "ts", &sha256]).status.success());
    drop(Arc::clone(&dir));
}

/// A version that passes its probe and fails in the field goes by itself, and costs nothing.
#[test]
fn a_version_that_fails_again_and_again_goes_by_itself() {
    let server =
        Server::start_with(|dir| vec!["--event-log".into(), dir.join("events").display().to_string()]);
    let loaded = load(&server, "a.wasm", &component("late_trap_flv"));
    swap(&server, &format!("format=flv sha256={loaded}"));
    let ids: Vec<u64> = (0..3).map(|i| server.record("cam", &format!("cam{i}"), "flv", "")).collect();
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    assert_eq!(server.json("getFormatInfo", "format=flv")["data"]["versions"][0]["source"], "embedded");
    let info = server.json("getFormatInfo", &format!("format=flv sha256={loaded}"));
    assert_eq!(info["data"]["versions"][0]["rolledBack"], true, "{info}");
    for i in 0..3 {
        let mut files: Vec<PathBuf> = server
            .media_names()
            .into_iter()
            .filter(|name| name.starts_with(&format!("cam{i}")))
            .map(|name| server.media(&name))
            .collect();
        // `cam0.flv`, `cam0_0001.flv`.
        files.sort_by_key(|path| path.file_stem().unwrap().to_owned());
        assert!(files.len() > 1);
        readers::assert_concatenation(&media::clip(), &files);
    }
    let events = fs::read_to_string(server.media("../events")).unwrap();
    assert!(
        events.lines().any(|line| line.contains("\"formatSwapped\"") && line.contains("again and again")),
        "{events}"
    );
}
