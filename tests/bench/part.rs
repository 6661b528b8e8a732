//! Parts that one thread does alone and alike each time: they can be timed, and their instructions can be counted.

use std::time::Duration;

use crate::timing::{Rounds, cpu_time};

/// What is measured. Returns how many units it did.
pub(crate) type Work = Box<dyn FnOnce() -> anyhow::Result<usize>>;
/// Makes the work of a round, which is not measured.
pub(crate) type Prepare = Box<dyn FnMut() -> anyhow::Result<Work>>;

/// A part.
pub(crate) struct Part {
    /// As in the baseline.
    pub(crate) name: String,
    /// What its work is divided by: a sample, a command.
    pub(crate) unit: &'static str,
    setup: Box<dyn Fn() -> anyhow::Result<Prepare>>,
}

impl Part {
    /// A part. What all rounds share is made by `setup`, when it is measured and not before.
    pub(crate) fn new(
        name: impl Into<String>,
        unit: &'static str,
        setup: impl Fn() -> anyhow::Result<Prepare> + 'static,
    ) -> Self {
        Self { name: name.into(), unit, setup: Box::new(setup) }
    }

    /// Does the work twice, the second time as [`counted_work`]. Returns the units of that.
    pub(crate) fn count(&self) -> anyhow::Result<usize> {
        let mut prepare = (self.setup)()?;
        // What is done once a process is done here.
        prepare()?()?;
        let work = prepare()?;
        counted_work(work)
    }
}

/// Callgrind counts what happens in here, and finds it by this name.
#[inline(never)]
fn counted_work(work: Work) -> anyhow::Result<usize> {
    work()
}

/// Times parts in nanoseconds a unit: of this thread, round by round, so that a bad moment is nobody's own.
pub(crate) fn time(parts: &[Part], rounds: usize) -> anyhow::Result<Vec<Rounds>> {
    let mut prepared = Vec::new();
    for part in parts {
        prepared.push(((part.setup)()?, Rounds::new()));
    }
    // One more than counts, to warm up.
    for round in 0..=rounds {
        for (prepare, rounds) in &mut prepared {
            let (time, units) = time_once(prepare()?)?;
            if round > 0 {
                rounds.add_time(time, units);
            }
        }
    }
    Ok(prepared.into_iter().map(|(_, rounds)| rounds).collect())
}

fn time_once(work: Work) -> anyhow::Result<(Duration, usize)> {
    let begin = cpu_time();
    let units = work()?;
    Ok((cpu_time() - begin, units))
}
