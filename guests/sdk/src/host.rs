//! The host's functions: on wasm32 the imports of the component, elsewhere [`crate::mock`], or the host of
//! `crate::native` with the feature of that name.

#[cfg(target_arch = "wasm32")]
pub use crate::bindings::reelwright::writer::host::{Output, create, log, read_sample, reopen, replace};

#[cfg(not(any(target_arch = "wasm32", feature = "native")))]
pub use crate::mock::{Output, create, log, read_sample, reopen, replace};

#[cfg(all(not(target_arch = "wasm32"), feature = "native"))]
pub use crate::native::{Output, create, log, read_sample, reopen, replace};
