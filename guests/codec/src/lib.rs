//! Readers for the codec configurations that the built-in formats need.
//!
//! Pure functions over bytes that come from outside: every reader checks every length and answers
//! [`Error`], never panics and never allocates by a length field. Used by the formats and by the host.

#![forbid(unsafe_code)]

pub mod aac;
pub mod avc;
pub mod bits;
pub mod nal;

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What was being read, by its name in the standard.
    pub structure: &'static str,
    pub message: String,
}

impl Error {
    pub(crate) fn new(structure: &'static str, message: impl Into<String>) -> Self {
        Self { structure, message: message.into() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.structure, self.message)
    }
}

impl std::error::Error for Error {}
