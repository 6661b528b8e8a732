//! The front of a file: FLV header, `onMetaData`, and one sequence header a track. Closing a file overwrites
//! it.

use reelwright_sdk::Error;

use crate::metadata::{Metadata, Totals};
use crate::tag::{self, Body, FILE_HEADER_LEN, TAG_HEADER_LEN, TRAILER_LEN};
use crate::tracks::Tracks;

/// Everything before the first sample's tag. Only the script tag's body ever changes, and never its size.
#[derive(Debug)]
pub(crate) struct Head {
    metadata: Metadata,
    /// As it is while the file grows.
    bytes: Vec<u8>,
    script_end: usize,
    has_video: bool,
}

/// Where the script tag's body begins.
const SCRIPT_START: usize = FILE_HEADER_LEN + TAG_HEADER_LEN;

impl Head {
    /// `epoch_us` is the wall clock at file time 0. `limit` for a codec configuration too large for a tag.
    pub(crate) fn new(epoch_us: i64, tracks: &Tracks, index_capacity: usize) -> Result<Self, Error> {
        let metadata = Metadata::new(epoch_us, tracks, index_capacity);
        let script = metadata.render(&Totals::default());

        let mut bytes = tag::file_header(tracks.audio.is_some(), tracks.video.is_some()).to_vec();
        tag::write(&mut bytes, Body::Script, &script)?;
        if let Some(video) = &tracks.video {
            tag::write(&mut bytes, Body::AvcSequenceHeader, &video.track.config)?;
        }
        if let Some(audio) = &tracks.audio {
            tag::write(&mut bytes, Body::AacSequenceHeader, &audio.track.config)?;
        }
        let script_end = SCRIPT_START + script.len();
        Ok(Self { metadata, bytes, script_end, has_video: tracks.video.is_some() })
    }

    /// What a new file begins with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the first sample's tag comes.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Entries that the index has room for.
    pub(crate) fn index_capacity(&self) -> usize {
        self.metadata.capacity()
    }

    /// Where the AVC sequence header's tag begins.
    pub(crate) fn avc_sequence_header(&self) -> Option<u64> {
        self.has_video.then_some((self.script_end + TRAILER_LEN) as u64)
    }

    /// The patch that closes a file: an offset and the bytes there.
    pub(crate) fn patch(&self, totals: &Totals<'_>) -> (u64, Vec<u8>) {
        let script = self.metadata.render(totals);
        debug_assert_eq!(SCRIPT_START + script.len(), self.script_end);
        (SCRIPT_START as u64, script)
    }

    /// The parts of a file that tell whether it began with this head: offsets and what has to be there.
    pub(crate) fn fixed_parts(&self) -> [(u64, &[u8]); 2] {
        [(0, &self.bytes[..SCRIPT_START]), (self.script_end as u64, &self.bytes[self.script_end..])]
    }
}
