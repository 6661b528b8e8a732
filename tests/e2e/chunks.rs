//! Recordings in many files.

use crate::{
    media,
    readers::{self, FORMATS},
    senders::{Pace, Sender},
    server::Server,
};

#[test]
fn half_an_hour_in_five_second_files_is_what_was_sent() {
    let server = Server::start();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, "chunkLength=5"));
    Sender::Own.send(&media::half_an_hour(), &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    for format in FORMATS {
        let parts = server.parts("cam", format);
        assert_eq!(parts.len(), 360, "{format}: a key frame comes each second");
        readers::assert_concatenation(&media::half_an_hour(), &parts);
        for part in [&parts[0], &parts[1], &parts[180], &parts[359]] {
            readers::assert_well_formed(part);
        }
    }
    assert_eq!(server.media_names().len(), 3 * 360, "nothing else is left");
}

#[test]
fn each_sender_is_cut_at_key_frames_without_loss() {
    for sender in [Sender::Ffmpeg5, Sender::Ffmpeg9, Sender::Gstreamer] {
        let server = Server::start();
        let ids = FORMATS.map(|format| server.record("cam", "cam", format, "chunkLength=1"));
        sender.send(&media::clip(), &server.url("cam"), Pace::Full);
        server.finish("cam", &ids);
        for format in FORMATS {
            let parts = server.parts("cam", format);
            assert!((3..=5).contains(&parts.len()), "{sender:?} {format}: {} files", parts.len());
            readers::assert_concatenation(&media::clip(), &parts);
            for part in &parts {
                readers::assert_well_formed(part);
            }
        }
    }
}
