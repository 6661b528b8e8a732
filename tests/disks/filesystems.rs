//! The same recording on each file system.

use std::fs;

use crate::{
    media,
    readers::{self, FORMATS},
    senders::{Pace, Sender},
    server::Server,
    volume::{Kind, Volume, may_mount},
};

/// However a file system makes room for the index of an MP4, the file is the same: in the hole that was left (the
/// clip), by shifting the file, by sharing its blocks, by a copy (half an hour, whose index is larger than the hole).
#[test]
fn every_file_system_gives_the_same_bytes() {
    if !may_mount() {
        return;
    }
    let volumes = [
        (Kind::Ext4, 64),
        (Kind::Ext4SmallBlocks, 64),
        (Kind::Xfs, 300),
        (Kind::Btrfs, 128),
        (Kind::Tmpfs, 64),
    ]
    .map(|(kind, mib)| (kind, Volume::mount(kind, mib)));
    let allowed: Vec<_> = volumes.iter().flat_map(|(_, volume)| volume.allowed()).collect();
    let server = Server::start_with(|_| allowed);
    for (name, file, lengths) in
        [("clip", media::clip(), &["", "chunkLength=2"][..]), ("half", media::half_an_hour(), &[""][..])]
    {
        for (i, more) in lengths.iter().enumerate() {
            let name = format!("{name}{i}");
            let mut ids = Vec::new();
            for format in FORMATS {
                ids.push(server.record("cam", &name, format, more));
                let to =
                    |(_, volume): &(Kind, Volume)| server.record("cam", &volume.file(&name), format, more);
                ids.extend(volumes.iter().map(to));
            }
            Sender::Own.send(&file, &server.url("cam"), Pace::Full);
            server.finish("cam", &ids);
        }
    }
    let names = server.media_names();
    assert_eq!(names.len(), 3 * (1 + 3 + 1), "{names:?}");
    for (kind, volume) in &volumes {
        assert_eq!(volume.names(), names, "{kind:?}");
    }
    for name in &names {
        let own = server.media(name);
        readers::assert_well_formed(&own);
        let bytes = without_times(fs::read(&own).unwrap(), name);
        for (kind, volume) in &volumes {
            let other = without_times(fs::read(volume.path().join(name)).unwrap(), name);
            let same = bytes.iter().zip(&other).take_while(|(a, b)| a == b).count();
            assert!(
                bytes.len() == other.len() && same == bytes.len(),
                "{name} on {kind:?}: {} bytes, {} on the other; the first {same} are the same",
                other.len(),
                bytes.len()
            );
        }
    }
    for format in FORMATS {
        readers::assert_recorded(&media::clip(), &server.media(&format!("clip0.{format}")));
        let half = readers::comparable(&server.media(&format!("half0.{format}")));
        half.assert_same(&readers::sent(&media::half_an_hour(), format), format);
    }
}

/// A file without the time at which it began, which is that of its own recording.
fn without_times(mut bytes: Vec<u8>, name: &str) -> Vec<u8> {
    if name.ends_with(".mp4") {
        let moov = readers::boxes(&bytes).into_iter().find(|(name, _)| name == "moov").unwrap().1;
        clear_times(&mut bytes[moov.start + 8..moov.end]);
    } else if name.ends_with(".flv") {
        // An AMF0 string of 16 bits of length: `2026-01-02T03:04:05.678Z`.
        const KEY: &[u8] = b"creationdate\x02\0\x18";
        let at = bytes.windows(KEY.len()).position(|bytes| bytes == KEY).unwrap() + KEY.len();
        bytes[at..at + 24].fill(0);
    }
    bytes
}

/// Clears creation and modification times in a box's content (ISO/IEC 14496-12, `mvhd`, `tkhd`, `mdhd`).
fn clear_times(content: &mut [u8]) {
    for (name, range) in readers::boxes(content) {
        let inner = &mut content[range][8..];
        match name.as_str() {
            "mvhd" | "tkhd" | "mdhd" => {
                let each = if inner[0] == 1 { 8 } else { 4 };
                inner[4..4 + 2 * each].fill(0);
            }
            "trak" | "mdia" => clear_times(inner),
            _ => {}
        }
    }
}
