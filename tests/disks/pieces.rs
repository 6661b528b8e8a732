//! The place of recorded frames in a file that is sent again and again.

use std::path::Path;

use crate::{
    media,
    readers::{self, Hashes},
};

/// What a recording has of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Number of its first frame of video in the clip.
    pub(crate) begins: usize,
    /// Frames.
    pub(crate) video: usize,
    pub(crate) audio: usize,
}

/// A file and its frames, by their hashes.
#[derive(Debug)]
pub(crate) struct Sent {
    format: String,
    hashes: Hashes,
}

impl Sent {
    /// The bundled clip, to compare with recordings of a format.
    pub(crate) fn clip(format: &str) -> Self {
        Self { format: format.into(), hashes: readers::sent(&media::clip(), format) }
    }

    /// Fails unless a recording is read without complaint, begins with a key frame, and is what was sent from some
    /// frame to another, all of it.
    pub(crate) fn piece(&self, recording: &Path) -> Piece {
        let what = recording.display();
        readers::tracks(recording);
        let bytes = std::fs::read(recording).unwrap();
        assert!(readers::begins_with_key_frame(&self.format, &bytes), "{what}");
        let found = readers::comparable(recording);
        let place = |sent: &[String], found: &[String]| {
            let Some(first) = found.first() else { return 0 };
            sent.iter().position(|hash| hash == first).unwrap_or_else(|| panic!("{what}: was not sent"))
        };
        let video = place(&self.hashes.video, &found.video);
        let audio = place(&self.hashes.audio, &found.audio);
        let expected = self.hashes.repeated(video, found.video.len(), audio, found.audio.len());
        found.assert_same(&expected, &what.to_string());
        Piece { begins: video, video: found.video.len(), audio: found.audio.len() }
    }
}
