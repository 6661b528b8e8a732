//! When a recording begins and ends: before the stream, amid it, with it, again.

use crate::{
    media,
    process::until,
    readers::{self, FORMATS},
    senders::{self, Pace, Sender},
    server::Server,
};

#[test]
fn a_late_recording_begins_at_the_key_frame_of_the_current_group() {
    let server = Server::start();
    let _sender = senders::endless(&media::clip(), &server.url("cam"));
    until("frame 70", || (server.video_samples("cam") >= 70).then_some(()));
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, ""));
    let live = server.video_samples("cam");
    until("two seconds more", || (server.video_samples("cam") >= live + 60).then_some(()));
    server.stop(&ids);
    for format in FORMATS {
        let recording = server.media(&format!("cam.{format}"));
        let found = readers::comparable(&recording);
        let sent = readers::sent(&media::clip(), format);
        let video = sent.video.iter().position(|hash| *hash == found.video[0]).unwrap();
        let audio = sent.audio.iter().position(|hash| *hash == found.audio[0]).unwrap();
        // A group has 30 frames; the first two are over.
        assert!(video % 30 == 0, "{format} begins at frame {video}");
        assert!(video >= 60 || live >= 150, "{format} begins at frame {video}");
        assert!(found.video.len() >= 60, "{format}: {} frames", found.video.len());
        let expected = sent.repeated(video, found.video.len(), audio, found.audio.len());
        found.assert_same(&expected, format);
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
    let _sender = senders::endless(&media::clip(), &server.url("cam"));
    let live = until("frame 40", || Some(server.video_samples("cam")).filter(|live| *live >= 40));
    server.stop(&ids);
    assert_eq!(server.media_names(), ["cam.flv", "cam.mp4", "cam.ts"], "complete when the command returns");
    assert!(server.is_live("cam"), "the stream goes on");
    for format in FORMATS {
        let recording = server.media(&format!("cam.{format}"));
        let found = readers::comparable(&recording);
        let (video, audio) = (found.video.len(), found.audio.len());
        assert!(video >= live, "{format}: {video} of {live} frames");
        let sent = readers::sent(&media::clip(), format);
        found.assert_same(&sent.repeated(0, video, 0, audio), format);
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
