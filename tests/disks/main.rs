//! What disks and crashes do to recordings: real file systems, small ones made for a test, full and frozen; and
//! the server killed again and again.
//!
//! - [`volume`] makes and mounts file systems, for which it takes root; `REELWRIGHT_NO_MOUNT=1` skips those tests
//! - [`random`] is seeded by `REELWRIGHT_SEED`; each test that uses it prints its seed
//! - [`pieces`] finds the place of recorded frames in what was sent
//!
//! Servers, senders and readers are those of `e2e`. A target of its own, since frames that are counted up to a kill
//! need a machine that does nothing else.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[allow(dead_code, reason = "shared with e2e")]
#[path = "../e2e/media.rs"]
mod media;
#[allow(dead_code, reason = "shared with e2e")]
#[path = "../e2e/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with e2e")]
#[path = "../e2e/readers.rs"]
mod readers;
#[allow(dead_code, reason = "shared with e2e")]
#[path = "../e2e/senders.rs"]
mod senders;
#[allow(dead_code, reason = "shared with e2e")]
#[path = "../e2e/server.rs"]
mod server;

mod pieces;
mod random;
mod volume;

mod data;
mod filesystems;
mod frozen;
mod full;
mod kill;
