//! When a recording begins and ends: before the stream, amid it, with it, again.

use crate::{
    media,
    process::until,
    readers::{self, FORMATS},
    senders::{Pace, Sender},
    server::Server,
};

#[test]
fn a_late_recording_begins_at_the_key_frame_of_the_current_group() {
    let server = Server::start();
    let sender = Sender::Own.start(&media::clip(), &server.url("cam"), Pace::RealTime);
    // Frames 60 to 89 are the third group.
    until("frame 70", || (server.video_samples("cam") >= 70).then_some(()));
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, ""));
    sender.succeed();
    server.finish("cam", &ids);
    for format in FORMATS {
        let recording = server.media(&format!("cam.{format}"));
        let found = readers::comparable(&recording);
        let sent = readers::sent(&media::clip(), format);
        let (video, audio) = (sent.video.len() - found.video.len(), sent.audio.len() - found.audio.len());
        assert!(video % 30 == 0 && (60..=120).contains(&video), "{format} begins at frame {video}");
        found.assert_same(&sent.from(video, audio), format);
        // 46.875 audio frames a second; those that came with the group, give or take what is interleaved.
        let seconds = (audio as f64 / 46.875 - video as f64 / 30.0).abs();
        assert!(seconds < 0.1, "{format}: audio begins {seconds} s off");
        readers::assert_well_formed(&recording);
    }
}

#[test]
fn stopping_a_recording_keeps_what_came_until_then() {
    let server = Server::start();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, ""));
    let mut sender = Sender::Own.start(&media::clip(), &server.url("cam"), Pace::RealTime);
    until("frame 40", || (server.video_samples("cam") >= 40).then_some(()));
    for id in ids {
        assert!(server.cli(&format!("removeConfig id={id}")).success);
    }
    assert!(sender.runs(), "the stream goes on");
    assert_eq!(server.media_names(), ["cam.flv", "cam.mp4", "cam.ts"], "complete when the command returns");
    for format in FORMATS {
        let recording = server.media(&format!("cam.{format}"));
        let found = readers::comparable(&recording);
        let sent = readers::sent(&media::clip(), format);
        let (video, audio) = (found.video.len(), found.audio.len());
        assert!(video >= 40, "{format}: {video} frames");
        found.assert_same(&sent.up_to(video, audio), format);
        readers::assert_well_formed(&recording);
    }
}

#[test]
fn a_stream_that_comes_back_goes_to_the_next_file() {
    let server = Server::start();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, "keepAlive=1"));
    for _ in 0..3 {
        Sender::Own.send(&media::video_only(), &server.url("cam"), Pace::Full);
        until("the stream's end", || (!server.is_live("cam")).then_some(()));
    }
    server.finish("cam", &ids);
    for format in FORMATS {
        for name in ["cam", "cam_0001", "cam_0002"] {
            readers::assert_recorded(&media::video_only(), &server.media(&format!("{name}.{format}")));
        }
    }
    assert_eq!(server.media_names().len(), 9);
}

#[test]
fn overwrite_replaces_and_its_absence_does_not() {
    let server = Server::start();
    for (file, more) in [(media::video_only(), ""), (media::both(), "overwrite=1"), (media::clip(), "")] {
        let ids = FORMATS.map(|format| server.record("cam", "cam", format, more));
        Sender::Own.send(&file, &server.url("cam"), Pace::Full);
        server.finish("cam", &ids);
    }
    for format in FORMATS {
        readers::assert_recorded(&media::both(), &server.media(&format!("cam.{format}")));
        readers::assert_recorded(&media::clip(), &server.media(&format!("cam_0001.{format}")));
    }
    assert_eq!(server.media_names().len(), 6);
}
