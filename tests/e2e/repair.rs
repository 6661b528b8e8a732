//! What a server that was killed has left, finished by the next one or by hand; and files known by their manifests.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    media,
    process::{Process, until},
    readers::{self, FORMATS},
    senders::{self, Pace, Sender},
    server::Server,
};

/// Runs a program of ours. Returns its exit code and all that it says.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

fn evo_mp4writer(arguments: &[&str]) -> (Option<i32>, String) {
    run(Command::new(env!("CARGO_BIN_EXE_evo-mp4writer")).args(arguments))
}

fn verify(path: &Path) -> (Option<i32>, String) {
    run(senders::reelwright().arg("verify").arg(path))
}

/// Records a stream in all formats and kills the server after some frames.
fn kill_while_recording(more: &str) -> Server {
    let mut server = Server::start();
    for format in FORMATS {
        server.record("cam", "cam", format, more);
    }
    let sender = senders::endless(&media::clip(), &server.url("cam"));
    until("frames", || (server.video_samples("cam") >= 60).then_some(()));
    let recorded = |format| fs::metadata(server.media(&format!("cam.{format}.info"))).is_ok();
    until("three recordings", || FORMATS.into_iter().all(recorded).then_some(()));
    server.kill();
    drop::<Process>(sender);
    server
}

/// Readers that do not complain, and frames that are the first of what was sent.
fn assert_whole(path: &Path, format: &str) {
    let sent = readers::sent(&media::clip(), format);
    let found = readers::comparable(path);
    assert!(found.video.len() > 30, "{}: {} frames", path.display(), found.video.len());
    let expected = sent.repeated(0, found.video.len(), 0, found.audio.len());
    found.assert_same(&expected, &path.display().to_string());
    readers::assert_well_formed(path);
}

#[test]
fn the_next_start_finishes_what_was_cut_off_and_tells_what_it_saved() {
    let server = kill_while_recording("manifest=1");
    let home = server.home();
    let log = home.path().join("events");
    drop(server);
    let arguments = ["--event-log".into(), log.display().to_string()];
    let server = Server::start_in(home, &arguments);
    let listed = server.json("listRecoveries", "");
    let listed = listed["data"]["recoveries"].as_array().unwrap();
    assert_eq!(listed.len(), 3, "{listed:?}");
    for format in FORMATS {
        let path = server.media(&format!("cam.{format}"));
        assert_whole(&path, format);
        let (code, text) = verify(&path);
        assert!(code == Some(0) && text.contains("as it was recorded"), "{text}");
        let manifest: Value =
            serde_json::from_slice(&fs::read(path.with_extension(format!("{format}.json"))).unwrap())
                .unwrap();
        assert_eq!(manifest["reason"], "recovered");
        let told = listed.iter().find(|r| r["path"] == path.display().to_string()).unwrap();
        assert_eq!((&told["outcome"], &told["sameComponent"]), (&"repaired".into(), &true.into()));
        assert!(told["savedSeconds"].as_f64().unwrap() > 1.0 && told["lostBytes"] == 0, "{told}");
        let events = fs::read_to_string(&log).unwrap();
        let name = format!("cam.{format}\"");
        assert!(events.lines().any(|l| l.contains("recordRecovered") && l.contains(&name)), "{events}");
    }
    assert_eq!(server.media_names().len(), 6, "files and manifests: {:?}", server.media_names());
}

#[test]
fn evo_mp4writer_finishes_by_hand_with_or_without_the_extension() {
    let server = kill_while_recording("");
    let path = server.media("cam.mp4").display().to_string();
    let spool = server.media("cam.mp4.mdat").display().to_string();
    assert_eq!(evo_mp4writer(&[]).0, Some(1));
    assert_eq!(evo_mp4writer(&["-path"]).0, Some(1));
    assert_eq!(evo_mp4writer(&["-path=/nowhere/at/all.mp4"]).0, Some(4));
    assert_eq!(evo_mp4writer(&[&format!("-path={}", server.media("other.mp4").display())]).0, Some(2));
    let (code, text) = evo_mp4writer(&[&format!("-path={path}"), "--recovery"]);
    assert!(code == Some(0) && text.contains("not needed"), "{code:?} {text}");
    assert_whole(&server.media("cam.mp4"), "mp4");
    assert_eq!(evo_mp4writer(&["--path", &path]).0, Some(2), "nothing is left to do");
    assert_eq!(evo_mp4writer(&["--path", &spool]).0, Some(2));
    // Without its extension this can mean both others.
    let stem = server.media("cam").display().to_string();
    let (code, text) = evo_mp4writer(&["-path", &stem]);
    assert_eq!(code, Some(0), "{text}");
    assert_whole(&server.media("cam.flv"), "flv");
    assert_whole(&server.media("cam.ts"), "ts");
    assert_eq!(server.media_names(), ["cam.flv", "cam.mp4", "cam.ts"]);
}

#[test]
fn evo_mp4writer_takes_a_folder_and_says_what_was_lost() {
    let server = kill_while_recording("");
    // As a disk that lost the end of a file.
    let spool = fs::File::options().write(true).open(server.media("cam.mp4.mdat")).unwrap();
    let size = spool.metadata().unwrap().len();
    spool.set_len(size - 1000).unwrap();
    let (code, text) = evo_mp4writer(&["-path", server.media("").to_str().unwrap()]);
    assert!(code == Some(3) && text.contains("did not hold"), "{code:?} {text}");
    for format in FORMATS {
        assert_whole(&server.media(&format!("cam.{format}")), format);
    }
    assert_eq!(server.media_names(), ["cam.flv", "cam.mp4", "cam.ts"]);
}

/// What their own component made of the same files.
#[test]
fn spools_of_the_first_versions_are_finished_as_they_would_have_been() {
    let home = tempfile::tempdir().unwrap();
    let spools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/track-spools");
    for entry in fs::read_dir(spools).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), home.path().join(entry.file_name())).unwrap();
    }
    let (code, text) = evo_mp4writer(&["-path", home.path().to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("not the one that wrote it"), "{code:?} {text}");
    let names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["cam.mp4"]);
    let digest = Sha256::digest(fs::read(home.path().join("cam.mp4")).unwrap());
    let expected = "6860d7ffdc43469ec70219610bf0fc3ba1367ac2f8d76fbd29d96b6f56977aae";
    assert_eq!(format!("{digest:x}"), expected);
}

#[test]
fn evo_mp4writer_leaves_alone_what_a_server_owns_and_what_makes_no_sense() {
    let server = Server::start();
    let id = server.record("cam", "cam", "mp4", "");
    let sender = senders::endless(&media::clip(), &server.url("cam"));
    until("frames", || (server.video_samples("cam") >= 30).then_some(()));
    until("a spool", || server.media("cam.mp4.mdat").exists().then_some(()));
    let (code, text) = evo_mp4writer(&["-path", server.media("cam.mp4").to_str().unwrap()]);
    assert!(code == Some(4) && text.contains("running server"), "{code:?} {text}");
    server.stop(&[id]);
    drop(sender);
    assert_whole(&server.media("cam.mp4"), "mp4");

    fs::write(server.media("film.info"), "of somebody else").unwrap();
    assert_eq!(evo_mp4writer(&["-path", server.media("film").to_str().unwrap()]).0, Some(2));
    fs::write(server.media("odd.mp4.info"), "RWINFO99, of a version to come").unwrap();
    fs::write(server.media("odd.mp4.mdat"), "media").unwrap();
    let (code, text) = evo_mp4writer(&["-path", server.media("odd").to_str().unwrap()]);
    assert!(code == Some(4) && text.contains("kept"), "{code:?} {text}");
    assert_eq!(fs::read(server.media("odd.mp4.mdat")).unwrap(), b"media");
    assert!(server.media("film.info").exists());
}

#[test]
fn two_recordings_never_own_one_path_however_it_is_spelled() {
    let server = Server::start();
    fs::create_dir(server.media("folder")).unwrap();
    std::os::unix::fs::symlink("folder", server.media("link")).unwrap();
    let absolute = server.media("folder/cam.mp4").canonicalize().unwrap_or(server.media("folder/cam.mp4"));
    let ids: Vec<u64> = ["folder/cam", "link/cam", "./folder/./cam.mp4", absolute.to_str().unwrap()]
        .into_iter()
        .map(|path| server.record("cam", path, "mp4", ""))
        .collect();
    let clip = media::clip();
    Sender::Own.send(&clip, &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    let mut names: Vec<_> = fs::read_dir(server.media("folder"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["cam.mp4", "cam_0001.mp4", "cam_0002.mp4", "cam_0003.mp4"]);
    for name in names {
        readers::assert_recorded(&clip, &server.media("folder").join(name));
    }
    // What one is to overwrite is nobody else's.
    let taken = server.cli("record localStreamName=cam pathToFile=link/cam type=mp4 overwrite=1");
    assert!(taken.success, "nobody has it now: {taken:?}");
    let taken = server.cli("record localStreamName=other pathToFile=folder/cam type=mp4 overwrite=1");
    assert!(!taken.success && taken.description.contains("cam.mp4"), "{taken:?}");
}

#[test]
fn a_manifest_tells_what_is_in_a_file_and_whether_it_is_still_that() {
    let server = Server::start();
    let ids: Vec<u64> = FORMATS.map(|format| server.record("cam", "cam", format, "manifest=1")).into();
    let clip = media::clip();
    Sender::Own.send(&clip, &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    for format in FORMATS {
        let path = server.media(&format!("cam.{format}"));
        let (code, text) = verify(&path);
        assert_eq!(code, Some(0), "{text}");
        let text = fs::read(path.with_extension(format!("{format}.json"))).unwrap();
        let manifest: Value = serde_json::from_slice(&text).unwrap();
        let sha256 = crate::process::run(Command::new("sha256sum").arg(&path));
        assert_eq!(manifest["sha256"], sha256.split(' ').next().unwrap());
        let sent = readers::sent(&clip, format);
        let frames = |i: usize| manifest["tracks"][i]["frames"].as_u64().unwrap() as usize;
        assert_eq!((frames(0), frames(1)), (sent.video.len(), sent.audio.len()));
        assert_eq!(manifest["gaps"], Value::Array(vec![]));

        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (code, text) = verify(&path);
        assert!(code == Some(3) && text.contains("SHA-256"), "{text}");
    }
    assert_eq!(verify(&server.media("none.mp4")).0, Some(2));
}
