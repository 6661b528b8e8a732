//! Bytes on their way to the peer.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Payloads of this size and more are queued as they are, smaller ones are cheaper to copy.
const SHARE_FROM_BYTES: usize = 1024;

/// A queue of bytes to write, made to be written with gathering calls: headers and small payloads are
/// collected, large payloads are shared and not copied.
///
/// It is as long as what was put in: who fills it writes it out before going on.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    /// What comes after `pieces`.
    tail: BytesMut,
    remaining: usize,
}

impl Output {
    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
        self.remaining += bytes.len();
    }

    pub(super) fn put_payload(&mut self, payload: Bytes) {
        if payload.len() < SHARE_FROM_BYTES {
            return self.put_slice(&payload);
        }
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.remaining += payload.len();
        self.pieces.push_back(payload);
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail[..], |piece| &piece[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain(tail);
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                return piece.advance(count);
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_however_they_are_taken() {
        let large = Bytes::from(vec![7u8; 5000]);
        for step in [1, 3, 999, 5000, 10_010] {
            let mut output = Output::default();
            output.put_slice(b"head");
            output.put_payload(large.clone());
            output.put_payload(Bytes::from_static(b"small"));
            output.put_payload(large.clone());
            output.put_slice(b"t");
            assert_eq!(output.remaining(), 10_010);
            let expected = [b"head", &large[..], b"small", &large[..], b"t"].concat();

            let mut slices = [IoSlice::new(&[]); 8];
            assert_eq!(output.chunks_vectored(&mut slices), 5);
            assert_eq!(slices.map(|slice| slice.to_vec()).concat(), expected);
            assert_eq!(output.chunks_vectored(&mut [IoSlice::new(&[]); 2]), 2);

            let mut taken = Vec::new();
            while output.has_remaining() {
                let part = output.copy_to_bytes(step.min(output.remaining()));
                taken.extend_from_slice(&part);
            }
            assert_eq!(taken, expected, "step {step}");
        }
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let large = Bytes::from(vec![7u8; 5000]);
        let mut output = Output::default();
        output.put_payload(large.clone());
        assert_eq!(output.chunk().as_ptr(), large.as_ptr());
    }
}
