//! The components that the build made.

use std::{fs, path::Path};

/// One of those that misbehave, by its example.
pub(crate) fn component(example: &str) -> Vec<u8> {
    fs::read(reelwright_built_components::component(example)).unwrap()
}

/// One of those that are in the binary.
pub(crate) fn embedded(format: &str) -> Vec<u8> {
    fs::read(Path::new(env!("OUT_DIR")).join(format).with_extension("wasm")).unwrap()
}

/// The same component with another hash: a custom section at the end (component model, Binary.md).
pub(crate) fn marked(mut wasm: Vec<u8>, mark: u8) -> Vec<u8> {
    wasm.extend([0, 6, 4, b'm', b'a', b'r', b'k', mark]);
    wasm
}
