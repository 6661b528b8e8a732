//! Collects the bytes of one `append`: own bytes and pieces of samples, in order.

use std::mem::MaybeUninit;

use crate::{
    Error, Output, Sample, Source,
    host::{GatheredPiece as Piece, append},
};

/// Bytes up to which it is quicker to copy them here: how runtimes copy memory of any length is a call.
const SHORT: usize = 24;

/// Builds one `append` out of many small parts. Own bytes that follow each other become one piece.
#[derive(Debug, Default)]
pub struct Gather {
    inline: Vec<u8>,
    pieces: Vec<Piece>,
    len: u64,
}

impl Gather {
    /// An empty one; keep it and call [`Gather::append_to`] again and again, it keeps its memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds own bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let offset = self.inline.len();
        if bytes.len() > SHORT {
            self.inline.extend_from_slice(bytes);
        } else {
            let (words, rest) = bytes.as_chunks::<4>();
            words.iter().for_each(|word| self.inline.extend_from_slice(word));
            rest.iter().for_each(|&byte| self.inline.push(byte));
        }
        self.extend_inline(offset);
    }

    /// Adds own bytes through a closure that writes to the end of a vector; cheaper than a vector a part.
    pub fn with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let offset = self.inline.len();
        write(&mut self.inline);
        self.extend_inline(offset);
    }

    /// Adds `len` bytes of a sample's payload, from `offset` on.
    pub fn payload(&mut self, sample: &Sample, offset: u32, len: u32) {
        if len > 0 {
            self.len += u64::from(len);
            self.pieces.push(Piece { source: Source::Sample, seq: sample.seq, offset, len });
        }
    }

    /// Adds `runs` times own bytes and then `run` bytes of a sample's payload, which go on at `offset`.
    pub fn interleave<const N: usize>(
        &mut self,
        sample: &Sample,
        mut offset: u32,
        run: u32,
        runs: usize,
        mut own: impl FnMut() -> [u8; N],
    ) {
        let (inline, pieces) = (self.inline.len(), self.pieces.len());
        u32::try_from(inline + N * runs).expect("one append holds less than 4 GiB");
        self.inline.reserve(N * runs);
        self.pieces.reserve(2 * runs);
        let (bytes, _) = self.inline.spare_capacity_mut().as_chunks_mut::<N>();
        let (pairs, _) = self.pieces.spare_capacity_mut().as_chunks_mut::<2>();
        let mut at = inline as u32;
        // These are most of all packets of MPEG-TS: nothing is asked twice.
        for (bytes, [before, payload]) in bytes[..runs].iter_mut().zip(&mut pairs[..runs]) {
            *bytes = own().map(MaybeUninit::new);
            before.write(Piece { source: Source::Inline, seq: 0, offset: at, len: N as u32 });
            payload.write(Piece { source: Source::Sample, seq: sample.seq, offset, len: run });
            at += N as u32;
            offset += run;
        }
        // SAFETY: so many were written, into room that is there.
        unsafe {
            self.inline.set_len(inline + N * runs);
            self.pieces.set_len(pieces + 2 * runs);
        }
        self.len += runs as u64 * (N as u64 + u64::from(run));
    }

    /// Bytes gathered since the last append.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of memory that it takes to say what was gathered: own bytes, and what names the pieces. Payloads are
    /// none of it.
    pub fn memory(&self) -> usize {
        self.inline.len() + size_of_val(&self.pieces[..])
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends everything to `output` and starts anew. Returns the offset of the first byte.
    pub fn append_to(&mut self, output: &Output) -> Result<u64, Error> {
        let offset = match &self.pieces[..] {
            [] => output.size(),
            // All that there is, which needs no piece to be said.
            [piece] if piece.source == Source::Inline => append(output, &self.inline, &[])?,
            pieces => append(output, &self.inline, pieces)?,
        };
        self.clear();
        Ok(offset)
    }

    /// Forgets what was gathered.
    pub fn clear(&mut self) {
        self.inline.clear();
        self.pieces.clear();
        self.len = 0;
    }

    fn extend_inline(&mut self, offset: usize) {
        let len = self.inline.len() - offset;
        if len == 0 {
            return;
        }
        self.len += len as u64;
        if let Some(last) = self.pieces.last_mut()
            && last.source == Source::Inline
        {
            last.len += u32::try_from(len).expect("one append holds less than 4 GiB");
            return;
        }
        self.pieces.push(Piece {
            source: Source::Inline,
            seq: 0,
            offset: u32::try_from(offset).expect("one append holds less than 4 GiB"),
            len: u32::try_from(len).expect("one append holds less than 4 GiB"),
        });
    }
}
