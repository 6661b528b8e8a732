//! Builds the components that the tests load, into `OUT_DIR/components`.

use std::process::ExitCode;

#[path = "../../guests/build.rs"]
mod guests;

fn main() -> ExitCode {
    guests::build(&["components"], &["guests", "wit", "tests/components"])
}
