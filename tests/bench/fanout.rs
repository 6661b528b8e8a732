//! The registry: from a publisher to the queues of those who listen, and out of them.

use reelwright::{
    media::Sample,
    registry::{BatchLimits, Item, Registry},
};
use tokio::runtime::Builder;

use crate::{
    Effort,
    baseline::Figures,
    part::{self, Part, Prepare, Work},
    recorder,
    stream::{self, Payload},
    timing::Table,
};

const SUBSCRIBERS: [usize; 2] = [1, 4];
/// Samples of 200 ms, which the server reads at once.
const BATCH: usize = 15;
/// As the recorder has it.
const LIMITS: BatchLimits = BatchLimits { samples: 64, bytes: 4 << 20 };

/// A stream with each number of subscribers.
pub(crate) fn parts(effort: Effort) -> Vec<Part> {
    let part = |subscribers| {
        let name = format!("registry, subscribers: {subscribers}");
        Part::new(name, "sample and subscriber", move || {
            let samples = stream::samples(effort.pick(20, 1), Payload::Real);
            Ok(Box::new(move || prepare(subscribers, &samples)) as Prepare)
        })
    };
    SUBSCRIBERS.into_iter().map(part).collect()
}

fn prepare(subscribers: usize, samples: &[Sample]) -> anyhow::Result<Work> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let mut publisher = recorder::begin(&Registry::default(), "cam")?;
    let mut subscriptions: Vec<_> =
        (0..subscribers).map(|_| publisher.stream().subscribe(64 << 20)).collect();
    let batches: Vec<Vec<Sample>> = samples.chunks(BATCH).map(<[_]>::to_vec).collect();
    Ok(Box::new(move || {
        runtime.block_on(async {
            let (mut taken, mut items) = (0, Vec::new());
            for mut batch in batches {
                publisher.send(&mut batch).await;
                for subscription in &mut subscriptions {
                    subscription.recv(LIMITS, &mut items).await;
                    taken += items.drain(..).filter(|item| matches!(item, Item::Sample(_))).count();
                }
            }
            Ok(taken)
        })
    }))
}

/// Measures and prints.
pub(crate) fn run(effort: Effort, figures: &mut Figures) -> anyhow::Result<()> {
    let parts = parts(effort);
    let times = part::time(&parts, effort.pick(25, 1))?;
    let mut table = Table::new(&["subscribers", "ns a sample and subscriber"]);
    for ((part, subscribers), rounds) in parts.iter().zip(SUBSCRIBERS).zip(times) {
        table.row([subscribers.to_string(), rounds.to_string()]);
        figures.time(&part.name, "ns a sample and subscriber", rounds.median());
    }
    println!("## The registry\n");
    println!("Fan-out of batches of {BATCH} samples: in and out, median (least–most) of this thread.\n");
    println!("{table}");
    Ok(())
}
