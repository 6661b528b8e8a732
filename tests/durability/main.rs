//! What is on disk after a power cut, an error of the disk, or a stall: on a disk in memory ([`disk`]) that can
//! be cut off at any call ([`crash`]).

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test has no outside, and may fail")]
// What is here is for the tests of recordings, which come next.
#![allow(dead_code)]

mod crash;
mod disk;
mod rng;
