//! What an operator says of components: what is granted, who has to have signed them, and how they are compiled.

use std::path::PathBuf;

use super::{needs::Needs, signature::Key};

/// The operator's word on components from elsewhere. The default grants all, asks for no signature, and compiles in
/// this process.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What a component's `needs` may hold.
    pub grant: Needs,
    /// Who signs components; then others are not taken.
    pub key: Option<Key>,
    /// A program that knows [`COMMAND`](super::compile::COMMAND): the server's own.
    pub compiler: Option<PathBuf>,
}
