//! End to end: real senders publish to a real server, independent readers judge the files.
//!
//! - [`server`] runs `reelwright serve` on free ports with folders of its own
//! - [`senders`] publish: two FFmpegs, GStreamer, `reelwright publish`
//! - [`readers`] read: ffprobe, ffmpeg, mediainfo, flvmeta, tstools, parsers from other hands
//! - [`media`] is what is sent
//! - [`guests`] are the components that are loaded
//!
//! Frames are compared by their hashes, files by what readers say of them, never by time. Tools come from
//! `make setup`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod guests;
mod media;
mod process;
mod readers;
mod receiver;
mod senders;
mod server;

mod access;
mod chunks;
mod client;
mod clients;
mod events;
mod formats;
mod hostile;
mod ingest;
mod join;
mod judges;
mod load;
mod matrix;
mod program;
mod readme;
mod recordings;
mod repair;
mod rest;
mod state;
mod swap;
mod time;
