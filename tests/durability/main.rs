//! What is on disk after a power cut, an error of the disk, or a stall: on a disk in memory ([`disk`]) that can
//! be cut off at any call ([`crash`]).

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test has no outside, and may fail")]

mod check;
mod crash;
mod disk;
mod faults;
mod hooked;
mod power;
mod rng;
mod rounds;
mod scenario;
mod stall;

#[allow(dead_code, reason = "the reader is all that is needed of it")]
#[path = "../../guests/flv/tests/reader/mod.rs"]
mod flv_reader;
#[allow(dead_code, reason = "the clip is all that is needed of it")]
#[path = "../formats/support.rs"]
mod support;
#[path = "../../guests/ts/tests/support/mod.rs"]
mod ts_reader;
