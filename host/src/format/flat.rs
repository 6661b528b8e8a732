//! Lists that cross the boundary as they lie in a component's memory: samples on their way in, pieces out.
//!
//! What wasmtime derives for a record finds out, by calls, where each field of each record is and what type it has. A
//! batch of MPEG-TS has some 800 pieces, and that took longer than all else of an `append`. Here the places are
//! written down, by the canonical ABI of the component model. Types are checked by what is derived, once, when a
//! component is linked, and bounds by wasmtime's own lists. The traits are documented, what they consist of is not: with
//! each new wasmtime its `Lift for WasmList` and `Lower for [T]` are to be read again. `Vec<Piece>` and `[Sample]` do the
//! same, more slowly.

use std::mem::MaybeUninit;

use wasmtime::{
    StoreContext, ValRaw,
    component::{
        __internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext},
        ComponentType, Lift, Lower, WasmList,
    },
};

use super::bindings::reelwright::writer::{
    host::{Piece, Source},
    types::Sample,
};

/// `list<piece>`, where it lies.
pub(super) struct Pieces(WasmList<u64>);

/// Words of a piece.
const WORDS: usize = Piece::SIZE32 / size_of::<u64>();

impl Pieces {
    /// Reads them. `None`: one has a source that there is not.
    pub(super) fn read<'a, T: 'static>(
        &self,
        store: impl Into<StoreContext<'a, T>>,
    ) -> Option<impl ExactSizeIterator<Item = Piece> + Clone> {
        pieces(self.0.as_le_slice(store))
    }
}

// SAFETY: it is all that of the list that wasmtime has.
unsafe impl ComponentType for Pieces {
    type Lower = <WasmList<Piece> as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <WasmList<Piece> as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        WasmList::<Piece>::typecheck(ty, types)
    }
}

// SAFETY: it is a list of words at the same place, of the same alignment and as many bytes.
unsafe impl Lift for Pieces {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        let words = usize::try_from(src[1].get_u32()).ok().and_then(|len| len.checked_mul(WORDS));
        let words = words.and_then(|words| u32::try_from(words).ok());
        let words =
            words.ok_or_else(|| wasmtime::Error::msg("a list of pieces that is longer than memory"))?;
        // What follows finds out whether it lies in memory, and looks at no element.
        WasmList::linear_lift_from_flat(cx, ty, &[src[0], ValRaw::u32(words)]).map(Self)
    }

    fn linear_lift_from_memory(
        _: &mut LiftContext<'_>,
        _: InterfaceType,
        _: &[u8],
    ) -> wasmtime::Result<Self> {
        Err(wasmtime::Error::msg("pieces are an argument, which has its place and length on the stack"))
    }
}

/// Whole pieces, each with `source` at 0, `seq` at 8, `offset` at 16 and `len` at 20.
fn pieces(words: &[u64]) -> Option<impl ExactSizeIterator<Item = Piece> + Clone> {
    let (pieces, _) = words.as_chunks::<WORDS>();
    let source = |piece: &[u64; WORDS]| u64::from_le(piece[0]) as u8;
    let piece = move |piece: &[u64; WORDS]| {
        let [_, seq, place] = piece.map(u64::from_le);
        let source = if source(piece) == 0 { Source::Inline } else { Source::Sample };
        Piece { source, seq, offset: place as u32, len: (place >> 32) as u32 }
    };
    pieces.iter().all(|piece| source(piece) <= 1).then(|| pieces.iter().map(piece))
}

/// `sample`, of which a list is written at once.
#[derive(Debug)]
#[repr(transparent)]
#[allow(unreachable_pub, reason = "bindings re-export it")]
pub struct FlatSample(Sample);

impl FlatSample {
    /// The same samples.
    pub(super) fn of(samples: &[Sample]) -> &[Self] {
        let (first, len) = (samples.as_ptr().cast(), samples.len());
        // SAFETY: it is a sample and nothing else, and laid out as one.
        unsafe { std::slice::from_raw_parts(first, len) }
    }
}

// SAFETY: it is all that of the sample that it is.
unsafe impl ComponentType for FlatSample {
    type Lower = <Sample as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <Sample as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        Sample::typecheck(ty, types)
    }
}

// SAFETY: a single one is written as the sample it is, a list to where each sample of it belongs.
unsafe impl Lower for FlatSample {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        self.0.linear_lower_to_flat(cx, ty, dst)
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        self.0.linear_lower_to_memory(cx, ty, offset)
    }

    fn linear_store_list_to_memory<T>(
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        offset: usize,
        items: &[Self],
    ) -> wasmtime::Result<()> {
        // What is behind `offset` was given for these items.
        let room = &mut cx.as_slice_mut()[offset..][..items.len() * Self::SIZE32];
        let (places, _) = room.as_chunks_mut::<{ Sample::SIZE32 }>();
        for (place, item) in places.iter_mut().zip(items) {
            encode(&item.0, place);
        }
        Ok(())
    }
}

/// `seq` at 0, `dts` at 8, `pts` at 16, `duration` at 24, `track` at 28, `size` at 32 and `bits` at 36.
fn encode(sample: &Sample, place: &mut [u8; Sample::SIZE32]) {
    let &Sample { seq, dts, pts, duration, track, size, bits } = sample;
    place[..8].copy_from_slice(&seq.to_le_bytes());
    place[8..16].copy_from_slice(&dts.to_le_bytes());
    place[16..24].copy_from_slice(&pts.to_le_bytes());
    place[24..28].copy_from_slice(&duration.to_le_bytes());
    place[28..32].copy_from_slice(&track.to_le_bytes());
    place[32..36].copy_from_slice(&size.to_le_bytes());
    place[36..].copy_from_slice(&bits.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_canonical_abi_puts_them() {
        assert_eq!((Piece::SIZE32, Piece::ALIGN32), (24, 8));
        let first: [u8; 24] = std::array::from_fn(|i| if i == 0 { 1 } else { 0x10 + i as u8 });
        let both = [&first[..], &[0; 24]].concat();
        let words: Vec<u64> = both.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
        let read: Vec<_> = pieces(&words).unwrap().collect();
        let [first, second] = &read[..] else { panic!("{read:?}") };
        assert!(matches!(first.source, Source::Sample) && matches!(second.source, Source::Inline));
        assert_eq!((first.seq, first.offset, first.len), (0x1f1e_1d1c_1b1a_1918, 0x2322_2120, 0x2726_2524));
        assert_eq!((second.seq, second.offset, second.len), (0, 0, 0));
        let of_no_source = [&words[..3], &[u64::from_le(2), 0, 0]].concat();
        assert!(pieces(&of_no_source).is_none());
        assert_eq!(pieces(&[]).unwrap().count(), 0);

        assert_eq!((Sample::SIZE32, Sample::ALIGN32), (40, 8));
        let sample = Sample {
            seq: 0x0706_0504_0302_0100,
            dts: 0x0f0e_0d0c_0b0a_0908,
            pts: 0x1716_1514_1312_1110,
            duration: 0x1b1a_1918,
            track: 0x1f1e_1d1c,
            size: 0x2322_2120,
            bits: 0x2726_2524,
        };
        let mut place = [0; 40];
        encode(&sample, &mut place);
        assert_eq!(place.to_vec(), (0..40).collect::<Vec<u8>>());
    }
}
