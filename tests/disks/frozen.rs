//! A disk that does not answer for a while: nobody but the recordings to it notice.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    media,
    pieces::Sent,
    process::until,
    readers::{self, FORMATS},
    senders,
    server::Server,
    volume::{Kind, Volume, may_mount},
};

/// Frames of the clip in a second.
const RATE: usize = 30;

fn frozen_for(seconds: usize) {
    if !may_mount() {
        return;
    }
    let volume = Volume::mount(Kind::Ext4, 256);
    let server = Server::start_with(|_| volume.allowed().into());
    let ids: Vec<_> = FORMATS
        .iter()
        .flat_map(|format| {
            [("cam".to_owned(), ""), (volume.file("cam"), ""), (volume.file("part"), "chunkLength=1")]
                .map(|(name, more)| server.record("cam", &name, format, more))
        })
        .collect();
    let _sender = senders::endless(&media::clip(), &server.url("cam"));
    until("45 frames", || (server.video_samples("cam") >= 45).then_some(()));

    let frozen = volume.freeze();
    let (begun, first) = (Instant::now(), server.video_samples("cam"));
    let beside = || fs::metadata(server.media("cam.flv")).unwrap().len();
    let (mut size, mut slowest) = (beside(), Duration::ZERO);
    for second in 1..=seconds {
        // The publisher is not held back: its frames come in real time.
        until("a second more", || {
            let asked = Instant::now();
            let samples = server.video_samples("cam");
            slowest = slowest.max(asked.elapsed());
            (samples >= first + second * RATE).then_some(())
        });
        assert!(server.cli("listConfig").success);
        let now = beside();
        assert!(now > size, "the recording beside goes on");
        size = now;
    }
    let took = begun.elapsed();
    drop(frozen);
    println!("frozen for {took:.1?}, slowest answer {slowest:?}");
    assert!(took < Duration::from_secs(seconds as u64) + Duration::from_secs(3), "the publisher waited");
    assert!(slowest < Duration::from_secs(1), "a command waited for {slowest:?}");

    let live = server.video_samples("cam");
    until("a second more", || (server.video_samples("cam") >= live + RATE).then_some(()));
    server.stop(&ids);
    for format in FORMATS {
        let sent = Sent::clip(format);
        // Nothing was lost: the queues are long enough for this.
        for file in [server.media(&format!("cam.{format}")), volume.path().join(format!("cam.{format}"))] {
            let piece = sent.piece(&file);
            assert!(piece.begins == 0 && piece.video >= live, "{}: {piece:?} of {live}", file.display());
        }
        let parts: Vec<_> = (0..)
            .map(|i| volume.path().join(format!("part_part{i:04}.{format}")))
            .take_while(|part| part.exists())
            .collect();
        readers::assert_repeated(&media::clip(), &parts);
        let frames: usize = parts.iter().map(|part| sent.piece(part).video).sum();
        assert!(frames >= live, "{frames} of {live} frames in {} files", parts.len());
    }
    assert!(volume.names().iter().all(|name| FORMATS.iter().any(|f| name.ends_with(&format!(".{f}")))));
}

#[test]
fn a_frozen_disk_holds_up_nobody_and_loses_nothing() {
    frozen_for(5);
}

#[test]
#[ignore = "make soak"]
fn soak_a_disk_frozen_for_half_a_minute() {
    frozen_for(30);
}

/// A thread that the kernel holds can't end, nor can its process be waited for; but all that the server does is over.
#[test]
fn a_stop_does_not_wait_for_a_frozen_disk() {
    if !may_mount() {
        return;
    }
    let volume = Volume::mount(Kind::Ext4, 64);
    let arguments: Vec<String> =
        volume.allowed().into_iter().chain(["--stop-timeout".into(), "2".into()]).collect();
    let mut server = Server::start_with(|_| arguments.clone());
    let home = server.home();
    for format in FORMATS {
        server.record("cam", &volume.file("cam"), format, "");
        server.record("cam", "cam", format, "");
    }
    let _sender = senders::endless(&media::clip(), &server.url("cam"));
    until("60 frames", || (server.video_samples("cam") >= 60).then_some(()));
    let frozen = volume.freeze();
    let live = until("30 frames more", || Some(server.video_samples("cam")).filter(|live| *live >= 90));

    let begun = Instant::now();
    server.terminate();
    server.logged(&["INFO", "stopped"]);
    let stat = format!("/proc/{}/stat", server.id());
    until("the end of the server's main thread", || {
        let stat = fs::read_to_string(&stat).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('Z').then_some(())
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let left = FORMATS.map(|format| server.logged(&["WARN", &volume.file(&format!("cam.{format}"))]));
    println!("stopped in {took:?}; {left:#?}");
    drop(frozen);
    server.ended();
    for format in FORMATS {
        let piece = Sent::clip(format).piece(&server.media(&format!("cam.{format}")));
        assert!(piece.begins == 0 && piece.video >= live, "{format}: {piece:?} of {live} on the good disk");
    }

    drop(server);
    let server = Server::start_in(home, &arguments);
    until("the repair", || (volume.names().len() == FORMATS.len()).then_some(()));
    for format in FORMATS {
        let piece = Sent::clip(format).piece(&volume.path().join(format!("cam.{format}")));
        // What was written before the disk stood still, less half a second.
        assert!(piece.begins == 0 && piece.video >= 45, "{format}: {piece:?}");
    }
    drop(server);
}
