//! The component host: built-in formats against the same code compiled natively, and components that
//! misbehave, each of which must end its own segment with an error that says what it did, and nothing else.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test has no outside, and may fail")]

/// The server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod built_in;
mod bundle;
mod canary;
mod checks;
mod contained;
mod failover;
mod hostile;
mod isolation;
mod lasting;
mod loading;
mod meters;
mod named;
mod probe;
mod recorder;
mod recording;
mod storm;
mod support;
