//! What is sent: the bundled clip, and files that ffmpeg makes once and that stay in `target/e2e-media`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::process;

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The bundled clip: 5 s of H.264 with B-frames and AAC.
pub(crate) fn clip() -> PathBuf {
    root().join("tests/data/clip.flv")
}

const TONES: &str = "aevalsrc='0.2*sin(2*PI*(220*t+66*t*t))|0.2*sin(2*PI*(880*t-66*t*t))':s=44100";
const AAC: &str = "-c:a aac -b:a 96k";

/// 3 s of H.264 with B-frames and AAC at 44.1 kHz, whose frames do not fall on milliseconds.
pub(crate) fn both() -> PathBuf {
    made(
        "both",
        &["testsrc2=size=320x180:rate=30000/1001:duration=3", &format!("{TONES}:d=3")],
        &format!("-c:v libx264 -preset veryfast -bf 2 -g 30 -sc_threshold 0 -pix_fmt yuv420p {AAC}"),
    )
}

/// 3 s of AAC.
pub(crate) fn audio_only() -> PathBuf {
    made("audio", &[&format!("{TONES}:d=3")], AAC)
}

/// 3 s of H.264 with B-frames.
pub(crate) fn video_only() -> PathBuf {
    made(
        "video",
        &["testsrc2=size=320x180:rate=25:duration=3"],
        "-c:v libx264 -preset veryfast -bf 2 -g 25 -sc_threshold 0 -pix_fmt yuv420p",
    )
}

/// 30 minutes that take no time: 5 tiny frames a second, a key frame each second, 8 kHz mono.
pub(crate) fn half_an_hour() -> PathBuf {
    made(
        "half-an-hour",
        &["testsrc2=size=64x36:rate=5:duration=1800", "sine=frequency=440:sample_rate=8000:duration=1800"],
        "-c:v libx264 -preset ultrafast -bf 2 -g 5 -sc_threshold 0 -pix_fmt yuv420p -c:a aac -b:a 12k",
    )
}

/// 20 s at 2.5 Mb/s.
pub(crate) fn two_and_a_half_megabits() -> PathBuf {
    made(
        "2500k",
        &["testsrc2=size=1280x720:rate=30:duration=20,noise=alls=20:allf=t", &format!("{TONES}:d=20")],
        &format!(
            "-c:v libx264 -preset veryfast -bf 2 -g 60 -sc_threshold 0 -pix_fmt yuv420p -b:v 2400k \
             -minrate 2400k -maxrate 2400k -bufsize 2400k -x264-params nal-hrd=cbr {AAC}"
        ),
    )
}

/// Something with codecs that the server does not take.
pub(crate) fn unknown_codec() -> PathBuf {
    made("unknown", &["testsrc2=size=64x36:rate=5:duration=2"], "-c:v flv1 -g 5")
}

/// An FLV file made of lavfi sources with the given options; kept under a name that tells them apart.
fn made(name: &str, sources: &[&str], options: &str) -> PathBuf {
    let mut command = Command::new("/usr/bin/ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    for source in sources {
        command.args(["-f", "lavfi", "-i", source]);
    }
    command.args(options.split_whitespace());
    command.args(["-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-f", "flv"]);

    let key = format!("{:x}", Sha256::digest(format!("{command:?}")));
    let dir = root().join("target/e2e-media");
    let path = dir.join(format!("{name}-{}.flv", &key[..12]));
    if !path.exists() {
        fs::create_dir_all(&dir).unwrap();
        // Tests run at once, so each makes its own, and the last one stays.
        let new = tempfile::Builder::new().suffix(".flv").tempfile_in(&dir).unwrap();
        process::run(command.arg(new.path()));
        new.persist(&path).unwrap();
    }
    path
}

/// A tag of an FLV file.
#[derive(Debug)]
pub(crate) struct Tag<'a> {
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
}

pub(crate) const AUDIO: u8 = 8;
pub(crate) const VIDEO: u8 = 9;

impl<'a> Tag<'a> {
    /// The media in it, as a format gets it: an access unit, an AAC frame. `None` for headers.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        match (self.kind, self.body) {
            (VIDEO, [_, 1, _, _, _, payload @ ..]) | (AUDIO, [_, 1, payload @ ..]) => Some(payload),
            _ => None,
        }
    }

    /// Whether decoding can start here.
    pub(crate) fn is_key(&self) -> bool {
        self.kind == VIDEO && self.body[0] >> 4 == 1 && self.payload().is_some()
    }
}

/// The tags of an FLV file in their order (Adobe's FLV specification, annex E). Stops where it is cut off.
pub(crate) fn tags(file: &[u8]) -> Vec<Tag<'_>> {
    let mut rest = file.strip_prefix(b"FLV\x01").and_then(|r| r.get(9..)).expect("an FLV header");
    let mut tags = Vec::new();
    while let [kind, a, b, c, _, _, _, _, _, _, _, after @ ..] = rest {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (Some(body), Some(next)) = (after.get(..len), after.get(len + 4..)) else { break };
        tags.push(Tag { kind: *kind, body });
        rest = next;
    }
    tags
}
