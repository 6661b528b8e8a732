//! The host of the components: all use of wasmtime.
//!
//! A component that implements a format is loaded once (`version`), from the binary or from the formats
//! folder (`catalog`): checked against the contract (`check`, `contract`), and against what the operator allows
//! (`policy`, `needs`, `signature`), compiled in a process of its own ([`compile`]) or taken from the cache of
//! compiled ones (`cache`), tried ([`probe`], [`validate`]) and kept (`vault`). Which version of a format writes is
//! decided in `lineup`, by commands, or by the comparison of a canary with it (`shadow`, [`trial`]).
//!
//! Each segment gets an instance of its own in a store of its own (`writer`), with limits ([`limits`]), the host's
//! functions (`imports`) and a WASI that grants nothing (`wasi`). When it traps or breaks a rule its store is dropped,
//! and nothing else notices: who computes long waits for a `turn`. What each version does is counted ([`meters`]), and
//! what made it fail is kept ([`bundle`]).

pub mod bundle;
mod cache;
mod catalog;
mod check;
pub mod compile;
mod contract;
mod engine;
mod flat;
mod guest_log;
mod held;
mod imports;
mod instance;
pub mod intake;
pub mod limits;
pub mod lineup;
pub mod meters;
#[cfg(feature = "native-formats")]
mod native;
mod needs;
mod policy;
pub mod probe;
mod shadow;
mod signature;
mod ticker;
pub mod trial;
mod turn;
pub mod validate;
mod vault;
mod version;
mod wasi;
mod writer;

pub use catalog::{ChangeError, Formats, Listed, Loading, Settings};
pub use check::Mismatch;
pub use engine::Engine;
pub use needs::Needs;
pub use policy::Policy;
pub use shadow::Shadow;
pub use signature::{Key, SignatureError};
pub use version::{LoadError, Manifest, OptionSpec, Version};
pub use writer::{Begin, Closing, End, Failed, Finished, HEAD_ALIGN, Writer, recover};

/// Bindings to `wit/0.1.0`.
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/0.1.0",
        world: "plugin",
        imports: {
            "reelwright:writer/host.[method]output.append": async | trappable,
            "reelwright:writer/host.[method]output.patch": async | trappable,
            "reelwright:writer/host.[method]output.read": async | trappable,
            "reelwright:writer/host.[method]output.head": async | trappable,
            "reelwright:writer/host.[method]output.write-head": async | trappable,
            "reelwright:writer/host.[method]output.close": async | trappable,
            // These wait for nothing, which makes a call cheaper.
            default: trappable,
        },
        exports: { default: async },
        with: { "reelwright:writer/host.output": super::imports::Output },
    });
}

/// Bindings to what a component exports. Samples are written into it as [`flat::FlatSample`]s.
pub(crate) mod plugin {
    /// The contract's types.
    #[allow(unreachable_pub, reason = "the macro re-exports it")]
    pub mod types {
        pub use super::super::{bindings::reelwright::writer::types::*, flat::FlatSample as Sample};
    }

    wasmtime::component::bindgen!({
        path: "../wit/0.1.0",
        world: "plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "reelwright:writer/types": types,
            "reelwright:writer/host": super::bindings::reelwright::writer::host,
        },
    });
}

/// Bindings to the optional part of it.
pub(crate) mod recovery_bindings {
    wasmtime::component::bindgen!({
        path: "../wit/0.1.0",
        world: "plugin-with-recovery",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "reelwright:writer/types": super::bindings::reelwright::writer::types,
            "reelwright:writer/host": super::bindings::reelwright::writer::host,
        },
    });
}

use crate::output::segment::OutputError;

/// What a component did wrong, or could not do.
#[derive(Debug, thiserror::Error)]
#[error("format {component}: {call}: {cause}")]
pub struct FormatError {
    /// Name, version and hash.
    pub component: String,
    /// The function of the contract that was called.
    pub call: &'static str,
    pub cause: Cause,
}

/// Why a call of a component failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The component said so itself; `code` as in the contract. `passed_on`: a function of the host had given it such an
    /// error in that call.
    #[error("{code}: {message}")]
    Refused { code: String, message: String, passed_on: bool },
    #[error("it trapped: {0}")]
    Trap(String),
    #[error("it exceeded the limit `{name}` of {limit}")]
    Limit { name: &'static str, limit: String },
    #[error("it broke the contract: {0}")]
    Contract(String),
    #[error("it can't be instantiated: {0}")]
    Instantiate(String),
    #[error("it has no `recover`")]
    NoRecovery,
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Cause {
    /// See [`FormatError::is_refusal`]. Other errors that a component gives say that it can't go on: what the host did not
    /// allow it, or trouble of its own.
    fn is_refusal(&self) -> bool {
        let Self::Refused { code, passed_on, .. } = self else { return false };
        !passed_on && ["unsupported", "bad-input", "bad-option", "limit"].contains(&code.as_str())
    }
}

impl FormatError {
    /// The disk's error, if that is what failed.
    pub fn disk_error(&self) -> Option<&OutputError> {
        match &self.cause {
            Cause::Output(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the component does not take what it was given, which need not be its fault: it can still end its segment.
    pub fn is_refusal(&self) -> bool {
        self.cause.is_refusal()
    }
}
