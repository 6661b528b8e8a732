//! Each sender, each kind of source, each format: what was sent is in the file, all of it, and every reader
//! likes the file.

use std::path::Path;

use crate::{
    media,
    readers::{self, FORMATS, Form},
    senders::{Pace, Sender},
    server::Server,
};

fn records_all_formats(sender: Sender, file: &Path, pace: Pace) {
    let server = Server::start();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, ""));
    sender.send(file, &server.url("cam"), pace);
    server.finish("cam", &ids);
    let on_wire = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
    let sent = sender.on_wire(file, on_wire.path());
    readers::hashes(&sent, Form::Sample).assert_same(&readers::hashes(file, Form::Sample), "the wire");
    assert_eq!(server.media_names(), ["cam.flv", "cam.mp4", "cam.ts"], "nothing else is left");
    for format in FORMATS {
        let recording = server.media(&format!("cam.{format}"));
        readers::assert_recorded(&sent, &recording);
        readers::assert_plays_from_its_half(&recording);
    }
}

macro_rules! matrix {
    ($($name:ident: $sender:expr, $file:expr, $pace:expr;)*) => {
        $(
            #[test]
            fn $name() {
                records_all_formats($sender, &$file, $pace);
            }
        )*
    };
}

matrix! {
    ffmpeg_5_video_and_audio: Sender::Ffmpeg5, media::both(), Pace::RealTime;
    ffmpeg_5_audio: Sender::Ffmpeg5, media::audio_only(), Pace::Full;
    ffmpeg_5_video: Sender::Ffmpeg5, media::video_only(), Pace::Full;
    ffmpeg_9_video_and_audio: Sender::Ffmpeg9, media::both(), Pace::RealTime;
    ffmpeg_9_audio: Sender::Ffmpeg9, media::audio_only(), Pace::Full;
    ffmpeg_9_video: Sender::Ffmpeg9, media::video_only(), Pace::Full;
    gstreamer_video_and_audio: Sender::Gstreamer, media::both(), Pace::RealTime;
    gstreamer_audio: Sender::Gstreamer, media::audio_only(), Pace::Full;
    gstreamer_video: Sender::Gstreamer, media::video_only(), Pace::Full;
    own_video_and_audio: Sender::Own, media::clip(), Pace::RealTime;
    own_audio: Sender::Own, media::audio_only(), Pace::Full;
    own_video: Sender::Own, media::video_only(), Pace::Full;
}
