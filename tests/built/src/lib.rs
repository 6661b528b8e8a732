//! Where the components of `tests/components` are. The build of this crate makes them.

use std::path::{Path, PathBuf};

/// The component that an example makes.
pub fn component(example: &str) -> PathBuf {
    Path::new(env!("OUT_DIR")).join("components").join(example).with_extension("wasm")
}
