//! Builds the components that the binary embeds, and those that the tests load.
//!
//! They land in `OUT_DIR/guests`: `flv.wasm`, `ts.wasm`, `mp4.wasm`, `components/*.wasm`. Tests find the
//! folder by `env!("REELWRIGHT_GUESTS_DIR")`. How they are built: `guests/build.sh`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Everything that the components are made of, relative to this crate.
const SOURCES: [&str; 6] =
    ["../guests", "../wit", "../tests/components", "../Cargo.toml", "../Cargo.lock", "../guests/build.sh"];

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-env-changed=REELWRIGHT_GUEST_TOOLCHAIN");

    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let guests = out_dir.join("guests");
    println!("cargo::rustc-env=REELWRIGHT_GUESTS_DIR={}", guests.display());

    // Standard output belongs to cargo.
    let output = Command::new("../guests/build.sh")
        .arg("--out")
        .arg(&guests)
        .arg("--target-dir")
        .arg(target_dir(&out_dir).join("guests"))
        .stdin(Stdio::null())
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return ExitCode::SUCCESS,
        Ok(output) => format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)),
        Err(error) => error.to_string(),
    };
    eprintln!("The components could not be built. If the toolchain is at fault, run `make setup`.");
    eprintln!("guests/build.sh: {why}");
    ExitCode::FAILURE
}

/// The target folder of the workspace: the one above `release/build/…`. What is built there stays when
/// `OUT_DIR` changes its name.
fn target_dir(out_dir: &Path) -> &Path {
    out_dir
        .ancestors()
        .find(|dir| dir.file_name().is_some_and(|name| name == "build"))
        .and_then(|build| build.parent()?.parent())
        .unwrap_or(out_dir)
}
