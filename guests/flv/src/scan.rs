//! Reads the tags of a file that lost its writer.

use reelwright_sdk::Error;

use crate::tag::{Body, ReadTag, TRAILER_LEN};
use crate::tally::Written;
use crate::tracks::Kind;

/// Bytes a read: few calls for audio, little waste where payloads are passed over.
const WINDOW_LEN: u32 = 256 * 1024;

/// Gives every whole tag from `start` on to `each`, and returns where the last one ends. It stops at the end
/// of the file, or at the first bytes that are no tag of a sample with its PreviousTagSize.
///
/// `read` takes an offset and a length, and gives fewer bytes only at the end. Payloads that are larger than
/// what was read with their tag's front are passed over.
pub(crate) fn scan(
    start: u64,
    read: impl FnMut(u64, u32) -> Result<Vec<u8>, Error>,
    mut each: impl FnMut(Written),
) -> Result<u64, Error> {
    let mut window = Window { read, start, bytes: Vec::new() };
    let mut offset = start;
    while let Some(front) = window.at::<{ ReadTag::LEN }>(offset)? {
        let Some(tag) = ReadTag::parse(front) else { break };
        let trailer = offset + u64::from(tag.size());
        if window.at::<TRAILER_LEN>(trailer)? != Some(&tag.size().to_be_bytes()) {
            break;
        }
        let (kind, key) = match tag.body {
            Body::AvcFrame { key, .. } => (Kind::Video, key),
            _ => (Kind::Audio, false),
        };
        each(Written { kind, key, time_ms: tag.time_ms, offset });
        offset = trailer + TRAILER_LEN as u64;
    }
    Ok(offset)
}

/// The part of the file that is in memory.
struct Window<R> {
    read: R,
    start: u64,
    bytes: Vec<u8>,
}

impl<R: FnMut(u64, u32) -> Result<Vec<u8>, Error>> Window<R> {
    /// The `N` bytes at `offset`; `None` if the file ends before.
    fn at<const N: usize>(&mut self, offset: u64) -> Result<Option<&[u8; N]>, Error> {
        if offset < self.start || offset + N as u64 > self.start + self.bytes.len() as u64 {
            self.bytes = (self.read)(offset, WINDOW_LEN)?;
            self.start = offset;
        }
        let at = (offset - self.start) as usize; // inside the window
        Ok(self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::Frame;

    /// Tags with payloads around the window's size, and their descriptions.
    fn file() -> (Vec<u8>, Vec<Written>) {
        let mut bytes = b"head".to_vec();
        let mut tags = Vec::new();
        let lengths = [0, 1, WINDOW_LEN - 17, WINDOW_LEN, 3 * WINDOW_LEN + 5, 9, 0, 100];
        for (i, &len) in lengths.iter().enumerate() {
            let time_ms = i as u32 * 40;
            let (body, kind, key) = match i % 3 {
                0 => (Body::AvcFrame { key: true, composition_time: 0 }, Kind::Video, true),
                1 => (Body::AvcFrame { key: false, composition_time: -1 }, Kind::Video, false),
                _ => (Body::AacFrame, Kind::Audio, false),
            };
            tags.push(Written { kind, key, time_ms, offset: bytes.len() as u64 });
            let frame = Frame::new(body, len, time_ms.into()).unwrap();
            frame.write_header(&mut bytes);
            bytes.resize(bytes.len() + len as usize, 0xee);
            bytes.extend_from_slice(&frame.trailer());
        }
        (bytes, tags)
    }

    fn run(bytes: &[u8]) -> (Vec<Written>, u64) {
        let mut tags = Vec::new();
        let read = |offset: u64, len: u32| {
            let from = bytes.len().min(offset as usize);
            Ok(bytes[from..bytes.len().min(from + len as usize)].to_vec())
        };
        let end = scan(4, read, |tag| tags.push(tag)).unwrap();
        (tags, end)
    }

    #[test]
    fn every_whole_tag_is_given_wherever_the_file_ends() {
        let (bytes, tags) = file();
        let mut ends: Vec<u64> = tags[1..].iter().map(|tag| tag.offset).collect();
        ends.push(bytes.len() as u64);
        assert_eq!(run(&bytes), (tags.clone(), bytes.len() as u64));
        // Around each tag's begin and end, and anywhere in the last ones.
        let near = ends.iter().flat_map(|&end| end.saturating_sub(20)..end + 20);
        for cut in near.filter(|&cut| cut <= bytes.len() as u64) {
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            let end = if whole == 0 { 4 } else { ends[whole - 1] };
            assert_eq!(run(&bytes[..cut as usize]), (tags[..whole].to_vec(), end), "cut at {cut}");
        }
    }

    #[test]
    fn a_wrong_trailer_ends_the_file() {
        let (mut bytes, tags) = file();
        let last = tags.last().unwrap().offset;
        bytes[last as usize - 1] ^= 1;
        let before = &tags[tags.len() - 2];
        assert_eq!(run(&bytes), (tags[..tags.len() - 2].to_vec(), before.offset));
    }

    #[test]
    fn errors_of_the_disk_are_passed_on() {
        let error = scan(0, |_, _| Err(Error::new("output", "gone")), |_| ()).unwrap_err();
        assert_eq!(error.code, "output");
    }
}
