//! All file I/O of recordings.

/// Why a path can't be recorded to.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("{0}")]
    Todo(String),
}
