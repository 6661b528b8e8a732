//! Where the components of `tests/components` are, which the build of this crate makes, and what tests do to components.

use std::path::{Path, PathBuf};

/// The component that an example makes.
pub fn component(example: &str) -> PathBuf {
    Path::new(env!("OUT_DIR")).join("components").join(example).with_extension("wasm")
}

/// The same component with another hash: a custom section at the end (component model, Binary.md) with a mark of 122 bytes
/// at most.
pub fn marked(mut wasm: Vec<u8>, mark: &[u8]) -> Vec<u8> {
    let size = u8::try_from(mark.len() + 5).ok().filter(|size| *size < 0x80);
    wasm.extend([0, size.expect("a short mark"), 4]);
    wasm.extend(b"note");
    wasm.extend(mark);
    wasm
}
