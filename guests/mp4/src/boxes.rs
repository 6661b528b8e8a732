//! Writes boxes (ISO/IEC 14496-12, 4.2) into memory, all but the parts that are too large for it.
//!
//! Such a part is a *gap*: it counts in the sizes of the boxes around it, holds no bytes here, and is
//! filled in the file later.

use reelwright_sdk::{Error, Output};

/// Boxes under construction. Positions count from the first byte written.
#[derive(Debug, Default)]
pub(crate) struct Boxes {
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
    gap_bytes: u64,
}

#[derive(Debug)]
struct Gap {
    /// Index in `bytes` before which it lies.
    before: usize,
    len: u64,
}

impl Boxes {
    /// Where the next byte goes; at the end the size of everything, gaps included.
    pub(crate) fn position(&self) -> u64 {
        self.bytes.len() as u64 + self.gap_bytes
    }

    /// A box. Its size field is capped: whoever writes gaps checks that `position` fits 32 bits.
    pub(crate) fn plain(&mut self, kind: &[u8; 4], content: impl FnOnce(&mut Self)) {
        let position = self.position();
        let start = self.bytes.len();
        self.u32(0);
        self.raw(kind);
        content(self);
        let size = u32::try_from(self.position() - position).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    /// A FullBox; `flags` has 24 bits.
    pub(crate) fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, content: impl FnOnce(&mut Self)) {
        self.plain(kind, |b| {
            b.u32(u32::from(version) << 24 | flags);
            content(b);
        });
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// Leaves room for `len` bytes and returns their position.
    pub(crate) fn gap(&mut self, len: u64) -> u64 {
        let position = self.position();
        self.gaps.push(Gap { before: self.bytes.len(), len });
        self.gap_bytes += len;
        position
    }

    /// The bytes of boxes without gaps.
    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        assert!(self.gaps.is_empty());
        self.bytes
    }

    /// Writes everything but the gaps to the front of the output's head.
    pub(crate) fn write_to(&self, output: &Output) -> Result<(), Error> {
        let (mut from, mut position) = (0, 0);
        for gap in &self.gaps {
            output.write_head(position, &self.bytes[from..gap.before])?;
            position += (gap.before - from) as u64 + gap.len;
            from = gap.before;
        }
        output.write_head(position, &self.bytes[from..])
    }
}

/// The header of a box with `content` bytes after it: 8 bytes, or 16 with a `largesize`.
///
/// `total` is the size with the header; the long form is taken only where it must be.
pub(crate) fn header(kind: &[u8; 4], total: u64) -> Vec<u8> {
    match u32::try_from(total) {
        Ok(size) => [&size.to_be_bytes(), &kind[..]].concat(),
        Err(_) => [&1u32.to_be_bytes(), &kind[..], &total.to_be_bytes()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use reelwright_sdk::{host, mock};

    use super::*;

    #[test]
    fn boxes_nest_and_gaps_count() {
        let mut b = Boxes::default();
        let mut at = 0;
        b.plain(b"moov", |b| {
            b.full(b"stsz", 1, 2, |b| {
                b.u16(0x0304);
                at = b.gap(5);
                b.raw(&[9]);
            });
            b.plain(b"free", |b| b.zeros(1));
        });
        assert_eq!((at, b.position()), (22, 37));
        let start = crate::tests::start([crate::tests::video(1)]);
        let harness = mock::Harness::<crate::Mp4>::open(start).unwrap();
        let output = host::create("boxes", "spool").unwrap();
        output.head(37).unwrap();
        output.write_head(at, b"table").unwrap();
        b.write_to(&output).unwrap();
        let files = harness.abandon();
        let expected: &[&[u8]] = &[
            &[0, 0, 0, 37],
            b"moov",
            &[0, 0, 0, 20],
            b"stsz",
            &[1, 0, 0, 2], // version, flags
            &[3, 4],
            b"table",
            &[9],
            &[0, 0, 0, 9],
            b"free",
            &[0],
        ];
        assert_eq!(files.0["boxes"].head[..37], expected.concat());
    }

    #[test]
    fn header_grows_over_32_bits() {
        assert_eq!(header(b"free", 0xffff_ffff), [0xff, 0xff, 0xff, 0xff, b'f', b'r', b'e', b'e']);
        let large = [0, 0, 0, 1, b'm', b'd', b'a', b't', 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(header(b"mdat", 1 << 32), large);
    }
}
