//! The host's functions: on wasm32 the imports of the component, elsewhere [`crate::mock`], or the host of
//! `crate::native` with the feature of that name.

#[cfg(target_arch = "wasm32")]
pub use crate::bindings::reelwright::writer::host::{Output, create, log, read_sample, reopen, replace};

#[cfg(not(any(target_arch = "wasm32", feature = "native")))]
pub use crate::mock::{Output, create, log, read_sample, reopen, replace};

#[cfg(all(not(target_arch = "wasm32"), feature = "native"))]
pub use crate::native::{Output, create, log, read_sample, reopen, replace};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::Piece as GatheredPiece;
#[cfg(target_arch = "wasm32")]
pub(crate) use flat::{Piece as GatheredPiece, append};

/// Appends to an output; see `output.append`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn append(output: &Output, inline: &[u8], pieces: &[GatheredPiece]) -> Result<u64, crate::Error> {
    output.append(inline, pieces)
}

/// `output.append` with pieces that lie in memory as the canonical ABI of the component model has them. The generated
/// one copies them into such a list, in memory that it allocates for each call: a record with an enumeration is no
/// bit pattern to it.
#[cfg(target_arch = "wasm32")]
mod flat {
    use std::mem::{MaybeUninit, offset_of};

    use super::Output;
    use crate::{Error, Source};

    /// As the contract's.
    #[derive(Debug)]
    #[repr(C)]
    pub(crate) struct Piece {
        pub(crate) source: Source,
        pub(crate) seq: u64,
        pub(crate) offset: u32,
        pub(crate) len: u32,
    }

    const _: () = {
        assert!(size_of::<Source>() == 1 && Source::Inline as u8 == 0 && Source::Sample as u8 == 1);
        assert!(size_of::<Piece>() == 24 && align_of::<Piece>() == 8);
        assert!(offset_of!(Piece, source) == 0 && offset_of!(Piece, seq) == 8);
        assert!(offset_of!(Piece, offset) == 16 && offset_of!(Piece, len) == 20);
    };

    /// `result<u64, error>`.
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Answer {
        is_error: u8,
        value: Value,
    }

    #[derive(Clone, Copy)]
    #[repr(C)]
    union Value {
        offset: u64,
        error: [Text; 2],
    }

    /// A string: where, and how many bytes.
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Text(*mut u8, usize);

    #[link(wasm_import_module = "reelwright:writer/host@0.1.0")]
    unsafe extern "C" {
        #[link_name = "[method]output.append"]
        fn output_append(
            output: u32,
            inline: *const u8,
            inline_len: usize,
            pieces: *const Piece,
            pieces_len: usize,
            answer: *mut Answer,
        );
    }

    /// See `output.append`.
    pub(crate) fn append(output: &Output, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        let (own, all) = ((inline.as_ptr(), inline.len()), (pieces.as_ptr(), pieces.len()));
        let mut answer = MaybeUninit::uninit();
        // SAFETY: the host reads both lists, writes an answer, and keeps no address.
        let answer: Answer = unsafe {
            output_append(output.handle(), own.0, own.1, all.0, all.1, answer.as_mut_ptr());
            answer.assume_init()
        };
        // SAFETY: the value is of the kind that is said.
        match answer.is_error {
            0 => Ok(unsafe { answer.value.offset }),
            _ => Err(unsafe { error(answer.value.error) }),
        }
    }

    /// # Safety
    /// The host has put both texts into memory of their own.
    unsafe fn error([code, message]: [Text; 2]) -> Error {
        // SAFETY: it was allocated by this component's `cabi_realloc`, for so many bytes.
        let text = |Text(first, len)| unsafe { String::from_raw_parts(first, len, len) };
        Error { code: text(code), message: text(message) }
    }
}
