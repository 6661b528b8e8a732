//! Streams whose samples have their names in their payloads, and readers that find them in files: by the tables of an
//! MP4, the tags of an FLV, the packets of an MPEG-TS.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use reelwright::{
    media::{Sample, Track},
    registry::Source,
};

use crate::support::clip;

/// A track, and the sample's number in it.
pub type Name = (u32, u32);

/// A stream: pictures 40 ms apart with a key frame each second, and sound of 20 ms.
#[derive(Debug, Default)]
pub struct Stream {
    pictures: i64,
    /// Bytes that each picture has behind its name.
    padding: usize,
}

impl Stream {
    pub fn new() -> Self {
        Self::default()
    }

    /// The same of some 2.5 Mb/s.
    pub fn of_usual_size() -> Self {
        Self { padding: 12_000, ..Self::default() }
    }

    pub fn tracks(&self) -> Vec<Track> {
        clip().tracks
    }

    /// The next second, by pictures with their sound.
    pub fn second(&mut self) -> Vec<Vec<(Name, Sample)>> {
        (0..25).map(|_| self.picture()).collect()
    }

    fn picture(&mut self) -> Vec<(Name, Sample)> {
        let picture = self.pictures;
        self.pictures += 1;
        // Some of the sound comes behind a picture that is later.
        vec![
            sample(1, picture, picture * 40 + 5, picture % 25 == 0, self.padding),
            sample(2, 2 * picture, picture * 40, true, 0),
            sample(2, 2 * picture + 1, picture * 40 + 20, true, 0),
        ]
    }
}

fn sample(track: u32, number: i64, dts_ms: i64, key: bool, padding: usize) -> (Name, Sample) {
    let name = format!("<{track}-{number:06}>");
    let data = match track {
        1 => {
            let nal = [&[if key { 0x65 } else { 0x41 }], name.as_bytes(), &vec![0xff; padding]].concat();
            [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], &nal].concat()
        }
        _ => name.into_bytes(),
    };
    let number = u32::try_from(number).unwrap();
    ((track, number), Sample { track, dts_ms, pts_ms: dts_ms, key, discontinuity: false, data: data.into() })
}

/// A publisher.
pub fn source() -> Source {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    Source {
        app: "live".into(),
        tc_url: String::new(),
        page_url: String::new(),
        swf_url: String::new(),
        user_agent: String::new(),
        near: addr,
        far: addr,
    }
}

/// Names in order of appearance.
fn names(bytes: &[u8]) -> Vec<Name> {
    let name = |at: usize| {
        let text = std::str::from_utf8(bytes.get(at..at + 10)?).ok()?;
        let (track, number) = text.strip_prefix('<')?.strip_suffix('>')?.split_once('-')?;
        Some((track.parse().ok()?, number.parse().ok()?))
    };
    (0..bytes.len()).filter(|&at| bytes[at] == b'<').filter_map(name).collect()
}

/// The samples of a file, by their names.
pub fn samples_of(path: &Path) -> Vec<Name> {
    let bytes = fs::read(path).unwrap();
    match path.extension().unwrap().to_str().unwrap() {
        "flv" => {
            let (mut at, mut found) = (13, Vec::new());
            while at < bytes.len() {
                let size = u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
                let end = at + 11 + size;
                assert_eq!(bytes[end..end + 4], (11 + size as u32).to_be_bytes(), "{}", path.display());
                found.extend(names(&bytes[at + 11..end]));
                at = end + 4;
            }
            found
        }
        "mp4" => {
            let mp4 = re_mp4::Mp4::read_bytes(&bytes).unwrap();
            let tracks = mp4.tracks().values();
            let samples = tracks.flat_map(|track| &track.samples);
            let found: Vec<_> = samples.map(|sample| names(&bytes[sample.byte_range()])).collect();
            assert!(found.iter().all(|names| names.len() == 1), "{}", path.display());
            let found = found.concat();
            assert_eq!(found.len(), names(&bytes).len(), "{}: media without an index", path.display());
            found
        }
        "ts" => {
            let mut pids: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
            for packet in bytes.chunks(188) {
                assert_eq!((packet.len(), packet[0]), (188, 0x47), "{}", path.display());
                let adapted = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
                if packet[3] & 0x10 != 0 {
                    let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
                    pids.entry(pid).or_default().extend(&packet[4 + adapted..]);
                }
            }
            pids.values().flat_map(|bytes| names(bytes)).collect()
        }
        _ => names(&bytes),
    }
}
