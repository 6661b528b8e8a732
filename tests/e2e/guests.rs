//! The components that the build made.

use std::{fs, path::Path};

pub(crate) use reelwright_built_components::marked;

/// One of those that misbehave, by its example.
pub(crate) fn component(example: &str) -> Vec<u8> {
    fs::read(reelwright_built_components::component(example)).unwrap()
}

/// One of those that are in the binary.
pub(crate) fn embedded(format: &str) -> Vec<u8> {
    fs::read(Path::new(env!("OUT_DIR")).join(format).with_extension("wasm")).unwrap()
}
