//! What the build scripts that make components have in common: that of the server, and that of `tests/built`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Runs `guests/build.sh` for components, which land in `OUT_DIR`. `sources`: what they are made of besides the
/// workspace's manifest and lock file, from the workspace's root.
pub(crate) fn build(components: &[&str], sources: &[&str]) -> ExitCode {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap_or(&here);
    for source in sources.iter().chain(&["Cargo.toml", "Cargo.lock"]) {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-env-changed=REELWRIGHT_GUEST_TOOLCHAIN");

    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // Standard output belongs to cargo.
    let output = Command::new(root.join("guests/build.sh"))
        .arg("--out")
        .arg(&out_dir)
        .arg("--target-dir")
        .arg(target_dir(&out_dir).join("guests"))
        .args(components)
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
