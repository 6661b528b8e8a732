//! What a start after a kill takes: reading a journal, and repairing a recording from its end.
//!
//! The recording was killed 2 s after a sync, so that what follows the sync is believed only after its checksums were
//! compared. It lies in memory; a real disk adds the reading.

use std::{fs::File, rc::Rc, time::Instant};

use anyhow::{Context, ensure};
use reelwright::{
    format::{Formats, Writer},
    media::Sample,
    output::{
        journal::{Commit, Journal, Reader, Record, Start},
        storage::{Directory, RealDirectory},
    },
    repair::{self, Outcome},
};
use tokio::runtime::Runtime;

use crate::{
    Effort,
    baseline::Figures,
    files::{self, Media},
    muxers::{begin, get},
    part::{self, Part, Prepare, Work},
    stream::{self, Payload},
    timing::{Rounds, Table, figure},
};

const FORMATS: [&str; 3] = ["flv", "ts", "mp4"];
/// Commits that an hour has: one each 250 ms.
const COMMITS_AN_HOUR: usize = 4 * 3600;
/// Commits to a sync point.
const COMMITS_A_SYNC: usize = 8;
const NAME: &str = "x.info";

/// Reads the journal of an hour of MP4, record by record.
pub(crate) fn journal(effort: Effort) -> Part {
    Part::new("recovery, journal read", "commit", move || {
        // Not by a media root, whose way of opening folders callgrind does not know.
        let folder = files::scratch()?;
        let directory = RealDirectory::new(File::open(folder.path())?.into());
        write_journal(&directory, effort.pick(COMMITS_AN_HOUR, 100))?;
        // The folder lives as long as it is read from.
        let shared = Rc::new((directory, folder));
        let prepare = move || {
            let shared = shared.clone();
            Ok(Box::new(move || {
                let mut reader = Reader::open(shared.0.open(NAME)?)?.context("no journal")?;
                let mut commits = 0;
                while let Some(record) = reader.record()? {
                    commits += usize::from(matches!(record, Record::Commit(_)));
                }
                Ok(commits)
            }) as Work)
        };
        Ok(Box::new(prepare) as Prepare)
    })
}

fn write_journal(directory: &RealDirectory, commits: usize) -> anyhow::Result<()> {
    let mut journal = Journal::begin(directory.create(NAME)?, &Start::default())?;
    for number in 0..commits as u64 {
        let outputs = vec![(number * 78_000, 0x5eed_5eed), (number * 120, 0x5eed), (number * 150, 0x5eed)];
        let sizes = outputs.iter().map(|output| output.0).collect();
        let samples = number * 19;
        let last_ms = i64::try_from(number * 250)?;
        let epoch_us = begin().epoch_us + last_ms * 1000;
        journal.append(&Record::Commit(Commit { epoch_us, samples, last_ms, outputs }))?;
        if number % COMMITS_A_SYNC as u64 == 0 {
            journal.append(&Record::Synced(sizes))?;
        }
    }
    Ok(())
}

/// Measures and prints.
pub(crate) fn run(
    runtime: &Runtime,
    formats: &Formats,
    effort: Effort,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let journal = journal(effort);
    let rounds = part::time(std::slice::from_ref(&journal), effort.pick(25, 1))?.remove(0);
    figures.time(&journal.name, "ns a commit", rounds.median());

    let seconds = effort.pick(600, 10);
    let samples = stream::samples(seconds, Payload::Real);
    let mut table = Table::new(&["", "MB", "ms", "ms an hour of media", "MB/s"]);
    for format in FORMATS {
        let (mut times, mut bytes) = (Rounds::new(), 0);
        for _ in 0..effort.pick(3, 1) {
            let (time, size) = runtime.block_on(repaired(formats, format, &samples))?;
            times.add(time);
            bytes = size;
        }
        let an_hour = times.median() * 3600.0 / seconds as f64;
        let megabytes = bytes as f64 / 1e6;
        table.row([
            format.to_owned(),
            figure(megabytes),
            times.to_string(),
            figure(an_hour),
            figure(megabytes / times.median() * 1e3),
        ]);
        figures.time(&format!("recovery, {format} repaired"), "ms an hour of media", an_hour);
    }
    println!("## Recovery\n");
    println!(
        "The journal of an hour: {} ms of this thread. A killed recording of {} min, from taking it to the complete\n\
         file, by the clock on the wall: median (least–most).\n",
        figure(rounds.median() * COMMITS_AN_HOUR as f64 / 1e6),
        seconds / 60
    );
    println!("{table}");
    Ok(())
}

/// Records, kills and repairs. Returns the milliseconds of the repair, and the file's bytes.
async fn repaired(formats: &Formats, format: &str, samples: &[Sample]) -> anyhow::Result<(f64, u64)> {
    let media = Media::new()?;
    let segment = media.segment(format).await?;
    let name = segment.name().to_owned();
    let mut writer = Writer::open(get(formats, format)?, segment, begin()).await?;
    let last_ms = samples.last().map_or(0, |sample| sample.dts_ms);
    let synced = samples.partition_point(|sample| sample.dts_ms < last_ms - 2000);
    for (number, samples) in [&samples[..synced], &samples[synced..]].into_iter().enumerate() {
        for batch in samples.chunks(15) {
            writer.write(batch).await?;
        }
        if number == 0 {
            writer.sync().await?;
        }
    }
    drop(writer.abandon().await);
    media.settle().await?;
    let begun = Instant::now();
    let repair = repair::repair(media.disk(), formats, media.folder(), &name).await?;
    let time = begun.elapsed();
    ensure!(repair.outcome == Outcome::Repaired, "{format}: {:?}", repair.outcome);
    ensure!(repair.samples == samples.len() as u64, "{format}: {} samples", repair.samples);
    Ok((time.as_secs_f64() * 1e3, repair.bytes))
}
