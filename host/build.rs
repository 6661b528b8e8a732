//! Builds the components that the binary embeds, into `OUT_DIR`: `flv.wasm`, `ts.wasm`, `mp4.wasm`.

use std::process::ExitCode;

#[path = "../guests/build.rs"]
mod guests;

fn main() -> ExitCode {
    guests::build(&["flv", "ts", "mp4"], &["guests", "wit"])
}
