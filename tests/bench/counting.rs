//! Instruction counts: the same on a busy machine as on an idle one, where times are not.
//!
//! For each part this program runs itself under callgrind, which counts what happens in
//! [`counted_work`](crate::part) on the thread that calls it, the code of components included. The data is the same each
//! time, and the processor that callgrind shows is one with AVX2 and no more, so counts of two machines with the same
//! compiler agree to a few parts in a thousand. Hash maps with random seeds make the rest.
//!
//! Not counted is what opens a media root: components that write to files, repairs, and commands that need a
//! recorder. That takes `openat2`, which callgrind 3.19 does not know. The boundary stands for the components.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::{
    Effort,
    baseline::Figures,
    boundary, commands, fanout, muxers,
    part::Part,
    publishing, recovery,
    timing::{Table, figure},
};

/// All that are counted.
fn parts(effort: Effort) -> Vec<Part> {
    let mut parts = publishing::parts(effort);
    parts.extend(fanout::parts(effort));
    parts.extend(boundary::parts(effort));
    parts.extend(muxers::parts(effort));
    parts.extend([recovery::journal(effort), commands::parse(effort)]);
    parts
}

/// Counts and prints. Quick, the parts are only run.
pub(crate) fn run(effort: Effort, figures: &mut Figures) -> anyhow::Result<()> {
    if effort == Effort::Quick {
        return parts(effort).iter().try_for_each(|part| part.count().map(drop));
    }
    println!("## Instructions\n");
    let found = Command::new("valgrind").arg("--version").output();
    let Ok(version) = found else {
        println!("Not counted: there is no valgrind, which `tests/setup.sh --bench` installs.\n");
        return Ok(());
    };
    println!("By callgrind, {}.\n", String::from_utf8_lossy(&version.stdout).trim());
    let mut table = Table::new(&["", "for", "instructions"]);
    for part in parts(effort) {
        let count = under_callgrind(&part.name).with_context(|| part.name.clone())?;
        table.row([part.name.clone(), format!("a {}", part.unit), figure(count)]);
        figures.instructions(&part.name, &format!("a {}", part.unit), count);
    }
    println!("{table}");
    Ok(())
}

/// What a process under callgrind does: the part of that name. Prints its units.
pub(crate) fn child(name: &str) -> anyhow::Result<()> {
    let parts = parts(Effort::Full);
    let part = parts.iter().find(|part| part.name == name).context("there is no such part")?;
    println!("{}", part.count()?);
    Ok(())
}

/// Instructions of a part, a unit.
fn under_callgrind(name: &str) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_work*"])
        .arg(std::env::current_exe()?)
        .args(["--count", name])
        // `rep movsb` would count as an instruction for each byte.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind: {}: {said}", output.status);
    let units: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("units")?;
    // ==1234== Collected : 5678
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let instructions: f64 = collected.context("callgrind says no number")?.1.trim().parse()?;
    ensure!(instructions > 0.0 && units > 0.0, "nothing was counted");
    Ok(instructions / units)
}
