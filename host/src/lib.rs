//! Reelwright: a live-stream recorder whose muxers are WebAssembly components.
//!
//! Data flows one way:
//!
//! ```text
//! socket → rtmp::server → rtmp::Session      bytes in, messages and samples out
//!        → registry::LiveStream               fan-out by name
//!        → recorder::Plan                     when to start, cut, stop; time base
//!        → format::Writer                     one component instance = one segment
//!        → output::File                       all file I/O
//! ```

pub mod cli;
pub mod config;
pub mod control;
pub mod events;
pub mod format;
pub mod ingest;
pub mod media;
mod names;
mod network;
pub mod output;
pub mod publish;
pub mod recorder;
pub mod registry;
pub mod repair;
pub mod rtmp;
pub mod server;
pub mod state;
pub mod store;
mod sync;
pub mod timers;
mod wall_clock;
