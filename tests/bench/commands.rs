//! Commands: from a line of text to the text that answers it, without the socket.

use std::rc::Rc;

use anyhow::ensure;
use reelwright::{
    control::{self, Caller, parse::Line, reply::Status},
    format::Formats,
};
use tokio::runtime::Builder;

use crate::{
    Effort,
    baseline::Figures,
    files,
    part::{self, Part, Prepare, Work},
    recorder::Recorder,
    timing::Table,
};

const STREAMS: usize = 100;
const RECORD: &str = "record localStreamName=cam1 pathToFile=archive\\ 1-{date}-{time} type=mp4 chunkLength=600 \
                      keepAlive=1 waitForIDR=1 _site=north check=1";

/// Reading a line: it needs no server, so that its instructions can be counted.
pub(crate) fn parse(effort: Effort) -> Part {
    Part::new("commands, a line of record is read", "line", move || {
        let count = effort.pick(1000usize, 10);
        let prepare = move || {
            Ok(Box::new(move || {
                for _ in 0..count {
                    Line::parse(RECORD.as_bytes())?;
                }
                Ok(count)
            }) as Work)
        };
        Ok(Box::new(prepare) as Prepare)
    })
}

/// Commands that a recorder with 100 streams answers; one of them is ordered to be recorded.
fn answered(formats: &Formats, effort: Effort) -> anyhow::Result<Vec<Part>> {
    let runtime = Rc::new(Builder::new_current_thread().enable_all().build()?);
    let (recorder, publishers) = runtime.block_on(async {
        let recorder = Recorder::with(formats.clone(), files::scratch()?)?;
        recorder.record("later", "mp4").await?;
        let publishers = (0..STREAMS).map(|number| recorder.begin(&format!("cam{number}")));
        let publishers = publishers.collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::Ok((recorder, publishers))
    })?;
    let context = recorder.context()?;
    let kept = Rc::new((recorder, publishers));
    let commands =
        [("version", 200), ("getConfigInfo id=1", 200), (RECORD, 100), ("listStreams", 10), ("help", 20)];
    let part = |(line, count): (&'static str, usize)| {
        let (runtime, context, kept) = (runtime.clone(), context.clone(), kept.clone());
        let name = match line.split_once(' ') {
            Some(("record", _)) => "record check=1".into(),
            _ if line == "listStreams" => format!("listStreams of {STREAMS}"),
            Some((name, _)) => name.to_owned(),
            None => line.to_owned(),
        };
        Part::new(format!("commands, {name}"), "command", move || {
            let count = effort.pick(count, 1);
            let (runtime, context, kept) = (runtime.clone(), context.clone(), kept.clone());
            let prepare = move || {
                let (runtime, context, _kept) = (runtime.clone(), context.clone(), kept.clone());
                Ok(Box::new(move || {
                    let caller = Caller::local(([127, 0, 0, 1], 1).into());
                    runtime.block_on(async {
                        for _ in 0..count {
                            let line = Line::parse(line.as_bytes());
                            let reply = control::answer(&context, &caller, line).await;
                            ensure!(reply.status == Status::Success, "{}", reply.description);
                            std::hint::black_box(reply.ascii());
                        }
                        Ok(count)
                    })
                }) as Work)
            };
            Ok(Box::new(prepare) as Prepare)
        })
    };
    Ok(commands.into_iter().map(part).collect())
}

/// Measures and prints.
pub(crate) fn run(formats: &Formats, effort: Effort, figures: &mut Figures) -> anyhow::Result<()> {
    let parts: Vec<Part> = [parse(effort)].into_iter().chain(answered(formats, effort)?).collect();
    let times = part::time(&parts, effort.pick(15, 1))?;
    let mut table = Table::new(&["", "µs"]);
    for (part, rounds) in parts.iter().zip(times) {
        let name = part.name.trim_start_matches("commands, ");
        table.row([name.to_owned(), rounds.divided_by(1e3).to_string()]);
        figures.time(&part.name, &format!("ns a {}", part.unit), rounds.median());
    }
    println!("## Commands\n");
    println!(
        "From a line of the ASCII command line to the text of its answer, with {STREAMS} live streams: median\n\
         (least–most) of this thread.\n"
    );
    println!("{table}");
    Ok(())
}
