//! Each built-in format as a component, beside the same code compiled for this machine.
//!
//! Three ways, all fed by the same samples in the same batches, and all measured as time that the calling
//! thread computes, which leaves out the thread that writes the files:
//!
//! - *component*: `format::Writer` on a segment, as the recorder uses it.
//! - *native*: the format's crate, with a host that does for it what the component host does: it holds the
//!   payloads, gathers the pieces into a segment of the same kind and flushes it after each batch. The ratio of
//!   the two is what the server pays for components: the code that Cranelift makes beside LLVM's, the
//!   copies into and out of the component's memory, the calls.
//! - *native, format alone*: the same without files. The rest is the host's work, which any muxer needs.
//!
//! Native code is the release profile's (no LTO between crates), the component's that of the profile `guest`.
//!
//! MB/s is payload; a stream of 2.5 Mb/s brings 0.3 MB and 77 samples a second.
//!
//! `finish` is different: it reads spools back and writes the file's head. There the native side has the
//! author kit's host, whose files are in its memory; the component's are a segment's, synced and renamed at the
//! end, so the wall clock is what counts.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use reelwright::{
    format::{Begin, End, Formats, Version, Writer},
    media::Sample,
};
use reelwright_flv::Flv;
use reelwright_mp4::Mp4;
use reelwright_sdk as sdk;
use reelwright_ts::Ts;
use tokio::runtime::{Builder, Runtime};

use crate::{
    Effort,
    baseline::Figures,
    files::Media,
    native::{self, NativeWriter},
    part::{Part, Prepare, Work},
    stream::{self, Payload},
    timing::{Rounds, Table, cpu_time, figure, wall},
};

/// What a stream brings in the 125 ms that the recorder gathers by default, and the most of one call.
const BATCHES: [usize; 2] = [10, 64];
/// Room for the head of an hour of MP4, so that nothing is moved.
const HEAD_ROOM: u64 = 16 << 20;

/// A segment of the stream.
pub(crate) fn begin() -> Begin {
    Begin {
        segment: 0,
        epoch_us: 1_704_067_200_000_000,
        origin_ms: 0,
        head_room: HEAD_ROOM,
        manifest: false,
        config_id: 0,
        stream: String::new(),
        whose: Default::default(),
        tracks: stream::tracks(),
        options: Vec::new(),
        carry: Vec::new(),
    }
}

/// Measures and prints.
pub(crate) fn run(
    runtime: &Runtime,
    formats: &Formats,
    effort: Effort,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let media = Media::new()?;
    let mut writes = Writes {
        formats,
        media: &media,
        samples: stream::samples(effort.pick(30, 1), Payload::Real),
        rounds: effort.pick(25, 1),
        table: Table::new(&[
            "write",
            "batch",
            "component MB/s",
            "native MB/s",
            "component / native",
            "component ns a sample",
            "native ns a sample",
            "format alone ns a sample",
        ]),
        packetiser: Table::new(&["batch", "MB/s", "ns a sample"]),
        figures,
    };
    runtime.block_on(async {
        writes.measure::<Flv>("flv", &[""]).await?;
        writes.measure::<Ts>("ts", &[""]).await?;
        writes.measure::<Mp4>("mp4", &["mdat", "index"]).await
    })?;
    println!("## Formats: component beside native\n");
    println!("MB/s: median of {} rounds; ns: median (least–most).\n", writes.rounds);
    println!("{}", writes.table);
    println!("### The TS packetiser alone\n");
    println!("{}", writes.packetiser);

    let hours = effort.pick(3600, 10);
    let samples = stream::samples(hours, Payload::Tiny);
    let mut table =
        Table::new(&["finish, ms", "samples", "component", "native, in memory", "component / native"]);
    let version = get(formats, "mp4")?;
    let (mut component, mut native) = (Rounds::default(), Rounds::default());
    for _ in 0..effort.pick(9, 1) {
        let end = End { reason: "stopped", tracks: stream::ends(hours) };
        let harness = native::record::<Mp4>(&begin(), &samples)?;
        let (time, files) = wall(|| native::finish(harness, &end));
        native.add(time.as_secs_f64() * 1e3);
        let expected = files?.main().len() as u64;
        let (time, bytes) = runtime.block_on(finish_component(&version, &media, &samples, end))?;
        component.add(time.as_secs_f64() * 1e3);
        anyhow::ensure!(
            bytes == expected,
            "the component's file has {bytes} bytes, the native one {expected}"
        );
    }
    figures.time("finish, mp4 component", "ms", component.median());
    figures.time("finish, mp4 native", "ms", native.median());
    table.row([
        format!("mp4 of {} min", hours / 60),
        samples.len().to_string(),
        component.to_string(),
        native.to_string(),
        figure(component.median() / native.median()),
    ]);
    println!("{table}");
    Ok(())
}

/// Formats without files and without the sandbox, and the close of an MP4 in memory.
pub(crate) fn parts(effort: Effort) -> Vec<Part> {
    let seconds = effort.pick(600, 10);
    let close = Part::new("finish, mp4 native", "sample", move || {
        let samples: Rc<[Sample]> = stream::samples(seconds, Payload::Tiny).into();
        let prepare = move || {
            let count = samples.len();
            let harness = native::record::<Mp4>(&begin(), &samples)?;
            let end = End { reason: "stopped", tracks: stream::ends(seconds) };
            Ok(Box::new(move || native::finish(harness, &end).map(|_| count)) as Work)
        };
        Ok(Box::new(prepare) as Prepare)
    });
    vec![alone::<Flv>("flv", effort), alone::<Ts>("ts", effort), alone::<Mp4>("mp4", effort), close]
}

fn alone<W: sdk::Writer + 'static>(format: &str, effort: Effort) -> Part {
    Part::new(format!("write, {format} format alone"), "sample", move || {
        let samples: Rc<[Sample]> = stream::samples(effort.pick(20, 1), Payload::Real).into();
        let prepare = move || {
            let samples = samples.clone();
            let runtime = Builder::new_current_thread().build()?;
            let mut writer = NativeWriter::<W>::discarding(&begin())?;
            Ok(Box::new(move || {
                for batch in samples.chunks(BATCHES[0]) {
                    runtime.block_on(writer.write(batch))?;
                }
                Ok(samples.len())
            }) as Work)
        };
        Ok(Box::new(prepare) as Prepare)
    })
}

/// A format's component.
pub(crate) fn get(formats: &Formats, name: &str) -> anyhow::Result<Arc<Version>> {
    formats.get(name).ok_or_else(|| anyhow::anyhow!("there is no format {name}"))
}

/// Time of `finish`, and the file's size.
async fn finish_component(
    version: &Arc<Version>,
    media: &Media,
    samples: &[Sample],
    end: End,
) -> anyhow::Result<(Duration, u64)> {
    let mut writer = Writer::open(version.clone(), media.segment("mp4").await?, begin()).await?;
    writer.write(samples).await?;
    let begin = Instant::now();
    let finished = writer.finish(end).await?.complete().await?;
    let time = begin.elapsed();
    media.clear().await?;
    Ok((time, finished.file.bytes))
}

/// Measures writing, format by format.
struct Writes<'a> {
    formats: &'a Formats,
    media: &'a Media,
    samples: Vec<Sample>,
    rounds: usize,
    table: Table,
    packetiser: Table,
    figures: &'a mut Figures,
}

impl Writes<'_> {
    async fn measure<W: sdk::Writer>(&mut self, format: &str, outputs: &[&str]) -> anyhow::Result<()> {
        let version = get(self.formats, format)?;
        for batch in BATCHES {
            let mut rounds = [const { Rounds::new() }; 3];
            // One round more than counts, to warm up; the ways take turns, so a bad moment is nobody's own.
            for round in 0..=self.rounds {
                let times = [
                    self.component(&version, format, batch).await?,
                    self.native::<W>(format, Some(outputs), batch).await?,
                    self.native::<W>(format, None, batch).await?,
                ];
                if round > 0 {
                    for (rounds, time) in rounds.iter_mut().zip(times) {
                        rounds.add_time(time, self.samples.len());
                    }
                }
            }
            self.add_row(format, batch, &rounds);
        }
        Ok(())
    }

    async fn component(
        &self,
        version: &Arc<Version>,
        format: &str,
        batch: usize,
    ) -> anyhow::Result<Duration> {
        let segment = self.media.segment(format).await?;
        let mut writer = Writer::open(version.clone(), segment, begin()).await?;
        let begin = cpu_time();
        for batch in self.samples.chunks(batch) {
            writer.write(batch).await?;
        }
        let time = cpu_time() - begin;
        writer.abandon().await;
        self.media.clear().await?;
        Ok(time)
    }

    async fn native<W: sdk::Writer>(
        &self,
        format: &str,
        outputs: Option<&[&str]>,
        batch: usize,
    ) -> anyhow::Result<Duration> {
        let mut writer: NativeWriter<W> = match outputs {
            Some(outputs) => {
                let segment = self.media.segment(format).await?;
                NativeWriter::on_files(&begin(), segment, outputs).await?
            }
            None => NativeWriter::discarding(&begin())?,
        };
        let begin = cpu_time();
        for batch in self.samples.chunks(batch) {
            writer.write(batch).await?;
        }
        let time = cpu_time() - begin;
        drop(writer);
        self.media.clear().await?;
        Ok(time)
    }

    fn add_row(&mut self, format: &str, batch: usize, [component, native, alone]: &[Rounds; 3]) {
        let bytes: usize = self.samples.iter().map(|sample| sample.data.len()).sum();
        let bytes_a_sample = bytes as f64 / self.samples.len() as f64;
        // Bytes a nanosecond are GB/s.
        let rate = |rounds: &Rounds| figure(bytes_a_sample / rounds.median() * 1e3);
        self.table.row([
            format.to_owned(),
            batch.to_string(),
            rate(component),
            rate(native),
            figure(component.median() / native.median()),
            component.to_string(),
            native.to_string(),
            figure(alone.median()),
        ]);
        if format == "ts" {
            self.packetiser.row([batch.to_string(), rate(alone), alone.to_string()]);
        }
        // What the recorder gathers in real time.
        if batch == BATCHES[0] {
            for (way, rounds) in [("component", component), ("native", native), ("format alone", alone)] {
                self.figures.time(&format!("write, {format} {way}"), "ns a sample", rounds.median());
            }
        }
    }
}
