//! What the figures were when somebody last looked at them, in `baseline.toml`, and what became of them.
//!
//! All figures are costs: more is worse. Instruction counts differ by what was changed in the code (or by the
//! compiler), so a change by more than 2 % is marked. Times differ by machine and hour; they are marked from a
//! quarter on, which means something only on the machine of the baseline.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::timing::{Table, figure};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/bench/baseline.toml");
const HEAD: &str = "\
# Figures of `make bench`, which compares with them; `make bench ARGS=--bless` writes them anew. All are costs.

";
/// Parts by which a figure may differ.
const INSTRUCTIONS: f64 = 0.02;
const TIMES: f64 = 0.25;

/// What was measured, and on what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    date: String,
    machine: String,
    compiler: String,
    /// By part and unit.
    instructions: BTreeMap<String, f64>,
    times: BTreeMap<String, f64>,
}

impl Figures {
    /// No figures yet, for this machine.
    pub(crate) fn new(machine: String) -> Self {
        let compiler = Command::new("rustc").arg("--version").output();
        let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self {
            date: jiff::Zoned::now().date().to_string(),
            machine,
            compiler: compiler.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Adds a time in that unit.
    pub(crate) fn time(&mut self, part: &str, unit: &str, time: f64) {
        self.times.insert(format!("{part}: {unit}"), rounded(time));
    }

    /// Adds a count of instructions for each of that.
    pub(crate) fn instructions(&mut self, part: &str, unit: &str, count: f64) {
        self.instructions.insert(format!("{part}: {unit}"), (count * 10.0).round() / 10.0);
    }

    /// Writes them down as what later ones are compared with. Instructions that were not counted stay as they were.
    pub(crate) fn bless(mut self) -> anyhow::Result<()> {
        if self.instructions.is_empty() {
            self.instructions = read()?.instructions;
        }
        fs::write(FILE, HEAD.to_owned() + &toml::to_string(&self)?).context(FILE)?;
        println!("Written to {FILE}.");
        Ok(())
    }

    /// Prints them beside those of the baseline.
    pub(crate) fn compare(&self) -> anyhow::Result<()> {
        let before = read()?;
        println!("## Beside the baseline\n");
        println!("Of {}: {}, {}.\n", before.date, before.machine, before.compiler);
        let counts = compare("instructions", &before.instructions, &self.instructions, INSTRUCTIONS);
        let times = compare("time", &before.times, &self.times, TIMES);
        println!(
            "{counts} counts are worse by more than {:.0} %, {times} times by more than {:.0} %.",
            INSTRUCTIONS * 100.0,
            TIMES * 100.0
        );
        if counts > 0 {
            println!("If the counts are meant to be, `make bench ARGS=--bless`, and say why in the commit.");
        }
        Ok(())
    }
}

/// The baseline.
fn read() -> anyhow::Result<Figures> {
    match fs::read_to_string(FILE) {
        Ok(text) => toml::from_str(&text).context(FILE),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Figures::default()),
        Err(error) => Err(error).context(FILE),
    }
}

/// Prints a table, and returns how many are worse.
fn compare(kind: &str, before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>, allowed: f64) -> usize {
    let mut worse = 0;
    let mut table = Table::new(&[kind, "baseline", "now", "change", ""]);
    let names: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    for name in names {
        let value = |figures: &BTreeMap<String, f64>| figures.get(name).copied();
        let shown = |value: Option<f64>| value.map_or("–".into(), figure);
        let change = value(before).zip(value(now)).map(|(before, now)| now / before - 1.0);
        let mark = match change {
            Some(change) if change > allowed => {
                worse += 1;
                "WORSE"
            }
            Some(change) if change < -allowed => "better",
            Some(_) => "",
            None if before.contains_key(name) => "not measured",
            None => "new",
        };
        let percent = change.map_or("–".into(), |change| format!("{:+.1} %", change * 100.0));
        table.row([name.clone(), shown(value(before)), shown(value(now)), percent, mark.into()]);
    }
    println!("{table}");
    worse
}

/// Four digits that mean something.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
