//! The host's functions: on wasm32 the imports of the component, elsewhere [`crate::mock`].

#[cfg(target_arch = "wasm32")]
pub use crate::bindings::reelwright::writer::host::{Output, create, log, read_sample, reopen, replace};

#[cfg(not(target_arch = "wasm32"))]
pub use crate::mock::{Output, create, log, read_sample, reopen, replace};
