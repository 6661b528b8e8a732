//! Pieces, taken as they lie in a component's memory.
//!
//! What wasmtime derives for a record finds out, by calls, where each field of each record is and what type it has. A
//! batch of MPEG-TS has some 800 pieces, and that took longer than all else of an `append`. Here the places are
//! written down, by the canonical ABI of the component model. Types are checked by what is derived, once, when a
//! component is linked, and bounds by wasmtime's own list. The traits are documented, what they consist of is not: with each
//! new wasmtime its `Lift for WasmList` is to be read again. `Vec<Piece>` does the same, more slowly.

use wasmtime::component::{
    __internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext},
    ComponentType, Lift, WasmList,
};

use super::bindings::reelwright::writer::host::{Piece, Source};

/// `list<piece>`.
#[derive(Debug)]
pub(super) struct Pieces(pub(super) Vec<Piece>);

type List = WasmList<Piece>;

// SAFETY: it is all that of the list that wasmtime has.
unsafe impl ComponentType for Pieces {
    type Lower = <List as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <List as ComponentType>::ABI;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        List::typecheck(ty, types)
    }
}

// SAFETY: it makes values of bytes or refuses them, and touches nothing else.
unsafe impl Lift for Pieces {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        // Whether it lies in memory, and is not too long.
        let list = List::linear_lift_from_flat(cx, ty, src)?;
        let memory = cx.memory().get(src[0].get_u32() as usize..);
        let bytes = memory.and_then(|memory| memory.get(..list.len() * Piece::SIZE32));
        let pieces =
            bytes.and_then(decode).ok_or_else(|| wasmtime::Error::msg("a piece of no known source"))?;
        Ok(Self(pieces))
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> wasmtime::Result<Self> {
        Vec::linear_lift_from_memory(cx, ty, bytes).map(Self)
    }
}

/// Whole pieces, each with `source` at 0, `seq` at 8, `offset` at 16 and `len` at 20.
fn decode(bytes: &[u8]) -> Option<Vec<Piece>> {
    let (pieces, []) = bytes.as_chunks::<{ Piece::SIZE32 }>() else { return None };
    let mut known = true;
    let piece = |bytes: &[u8; Piece::SIZE32]| {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        known &= bytes[0] <= 1;
        Piece {
            source: if bytes[0] == 0 { Source::Inline } else { Source::Sample },
            seq: u64::from(word(8)) | u64::from(word(12)) << 32,
            offset: word(16),
            len: word(20),
        }
    };
    let pieces = pieces.iter().map(piece).collect();
    known.then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_canonical_abi_puts_them() {
        assert_eq!((Piece::SIZE32, Piece::ALIGN32), (24, 8));
        let first: Vec<u8> = (0..24).map(|i| if i == 0 { 1 } else { 0x10 + i }).collect();
        let both = [&first[..], &[0; 24]].concat();
        let pieces = decode(&both).unwrap();
        let [first, second] = &pieces[..] else { panic!("{pieces:?}") };
        assert!(matches!(first.source, Source::Sample) && matches!(second.source, Source::Inline));
        assert_eq!((first.seq, first.offset, first.len), (0x1f1e_1d1c_1b1a_1918, 0x2322_2120, 0x2726_2524));
        assert_eq!((second.seq, second.offset, second.len), (0, 0, 0));

        assert!(decode(&[2; 24]).is_none());
        assert!(decode(&both[1..]).is_none());
        assert_eq!(decode(&[]).unwrap().len(), 0);
    }
}
