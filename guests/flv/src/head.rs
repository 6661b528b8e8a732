//! The front of a file: FLV header, `onMetaData`, and one sequence header a track. Closing a file overwrites
//! it.

use reelwright_sdk::Error;

use crate::metadata::{Metadata, Script, Totals};
use crate::tag::{self, Body, FILE_HEADER_LEN, Frame, TAG_HEADER_LEN, TRAILER_LEN};
use crate::tracks::Tracks;

/// Everything before the first sample's tag. Only the script tag's body ever changes, and never its size.
#[derive(Debug)]
pub(crate) struct Head {
    metadata: Metadata,
    /// Up to the script tag's body.
    front: Vec<u8>,
    /// As it is while the file grows.
    script: Script,
    /// What comes behind that.
    tail: Vec<u8>,
    has_video: bool,
}

/// Where the script tag's body begins.
const SCRIPT_START: usize = FILE_HEADER_LEN + TAG_HEADER_LEN;

impl Head {
    /// `epoch_us` is the wall clock at file time 0. `limit` for a codec configuration too large for a tag.
    pub(crate) fn new(epoch_us: i64, tracks: &Tracks, index_capacity: usize) -> Result<Self, Error> {
        let metadata = Metadata::new(epoch_us, tracks, index_capacity);
        let script = metadata.render(&Totals::default());
        let frame = Frame::new(Body::Script, u32::try_from(script.len()).unwrap_or(u32::MAX), 0)?;

        let mut front = tag::file_header(tracks.audio.is_some(), tracks.video.is_some()).to_vec();
        frame.write_header(&mut front);
        let mut tail = frame.trailer().to_vec();
        if let Some(video) = &tracks.video {
            tag::write(&mut tail, Body::AvcSequenceHeader, &video.track.config)?;
        }
        if let Some(audio) = &tracks.audio {
            tag::write(&mut tail, Body::AacSequenceHeader, &audio.track.config)?;
        }
        Ok(Self { metadata, front, script, tail, has_video: tracks.video.is_some() })
    }

    /// What a new file begins with, part by part.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&*self.front).chain(self.script.parts()).chain([&*self.tail])
    }

    /// The patches that make the script tag's body what it is in a new file: offsets and the bytes there.
    pub(crate) fn reset(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.script.parts().scan(SCRIPT_START as u64, |offset, part| {
            let at = *offset;
            *offset += part.len() as u64;
            Some((at, part))
        })
    }

    /// Where the first sample's tag comes.
    pub(crate) fn len(&self) -> u64 {
        (self.script_end() + self.tail.len()) as u64
    }

    fn script_end(&self) -> usize {
        SCRIPT_START + self.script.len()
    }

    /// Entries that the index has room for.
    pub(crate) fn index_capacity(&self) -> usize {
        self.metadata.capacity()
    }

    /// Where the AVC sequence header's tag begins.
    pub(crate) fn avc_sequence_header(&self) -> Option<u64> {
        self.has_video.then_some((self.script_end() + TRAILER_LEN) as u64)
    }

    /// The patch that closes a file whose script tag is that of a new one: an offset and the bytes there. What follows
    /// is zeros in both.
    pub(crate) fn patch(&self, totals: &Totals<'_>) -> (u64, Vec<u8>) {
        let script = self.metadata.render(totals);
        debug_assert_eq!(script.len(), self.script.len());
        (SCRIPT_START as u64, script.front)
    }

    /// The parts of a file that tell whether it began with this head: offsets and what has to be there.
    pub(crate) fn fixed_parts(&self) -> [(u64, &[u8]); 2] {
        [(0, &self.front), (self.script_end() as u64, &self.tail)]
    }
}
