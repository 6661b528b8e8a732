//! Medians, ratios within a round, tables in Markdown, and a plot.

use std::{collections::BTreeMap, fmt::Write, fs, time::Duration};

use anyhow::Context;
use serde::Serialize;

use super::{delay::Delays, plan::SIDE_BY_SIDE, usage::Usage};

/// What the sender says of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) worst_ms: u64,
    pub(super) p99_ms: u64,
    /// When the first tag of the first stream was due, in microseconds since 1970, and by how much later each other begins.
    pub(super) begin_us: Option<i64>,
    pub(super) spread_us: i64,
}

impl Sent {
    /// From the output of `reelwright publish`.
    pub(super) fn parse(said: &str) -> anyhow::Result<Self> {
        let line = said.lines().find(|line| line.starts_with("published ")).context("no report")?;
        let numbers: Vec<f64> = line
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .filter_map(|word| word.parse().ok())
            .collect();
        let [_, bytes, _, seconds, worst_ms, p99_ms, ..] = numbers[..] else { anyhow::bail!("{line}") };
        let field = |name: &str| {
            let (_, rest) = said.split_once(name)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (begin_us, spread_us) = (field("begin_us="), field("spread_us=").unwrap_or(0));
        let (worst_ms, p99_ms) = (worst_ms as u64, p99_ms as u64);
        Ok(Self { bytes: bytes as u64, seconds, worst_ms, p99_ms, begin_us, spread_us })
    }
}

/// One server recorded one cell once.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) cell: String,
    pub(super) server: String,
    pub(super) round: usize,
    pub(super) streams: usize,
    /// Length of all streams together.
    pub(super) media_seconds: f64,
    /// Until the sender had seen the last connection closed.
    pub(super) seconds: f64,
    /// From before the first connection until the last file was closed.
    pub(super) used: Usage,
    /// Processor time a second while all streams ran.
    pub(super) steady: Option<f64>,
    pub(super) rss_kib: u64,
    pub(super) idle_rss_kib: u64,
    pub(super) sender_cpu: f64,
    pub(super) sent: Sent,
    /// In the files.
    pub(super) bytes: u64,
    pub(super) delays: Option<Delays>,
    /// Why it does not count.
    pub(super) void: Option<String>,
}

impl Run {
    /// Of a recording that takes an hour: the time while all streams run, and that to open and close it.
    fn per_stream_hour(&self) -> f64 {
        match self.steady {
            Some(rate) => rate * 3600.0 / self.streams as f64 + self.ends_ms().max(0.0) / 1e3,
            None => self.used.cpu / self.media_seconds * 3600.0,
        }
    }

    /// What it takes to open a recording and to close it, in milliseconds.
    fn ends_ms(&self) -> f64 {
        let streams = self.streams as f64;
        let steady = self.steady.map_or(f64::NAN, |rate| rate / streams * self.media_seconds);
        (self.used.cpu - steady) / streams * 1e3
    }

    fn per_gigabyte(&self) -> f64 {
        self.used.cpu / self.sent.bytes as f64 * 1e9
    }

    fn megabytes_a_second(&self) -> f64 {
        self.sent.bytes as f64 / self.seconds / 1e6
    }

    /// Memory per stream beyond what the server had before, in KiB.
    fn stream_kib(&self) -> f64 {
        self.used.peak_rss_kib.saturating_sub(self.idle_rss_kib) as f64 / self.streams as f64
    }

    pub(super) fn in_short(&self) -> String {
        let void = self.void.as_ref().map(|why| format!(" VOID: {why}")).unwrap_or_default();
        format!(
            "{:.2} CPU-s per stream-hour, {:.0} MB/s{void}",
            self.per_stream_hour(),
            self.megabytes_a_second()
        )
    }
}

/// Runs of one server in one cell.
struct Group<'a>(Vec<&'a Run>);

impl<'a> Group<'a> {
    fn of(runs: &'a [Run], cell: &str, server: &str) -> Self {
        Self(
            runs.iter()
                .filter(|run| run.cell == cell && run.server == server && run.void.is_none())
                .collect(),
        )
    }

    fn values(&self, of: impl Fn(&Run) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.0.iter().map(|run| of(run)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(&self.values(of))
    }

    /// Median of the ratios to another server's run of the same round.
    fn ratio(&self, other: &Group<'_>, of: impl Fn(&Run) -> f64) -> f64 {
        let mut ratios: Vec<f64> = (self.0.iter())
            .filter_map(|run| {
                let other = other.0.iter().find(|other| other.round == run.round)?;
                Some(of(run) / of(other))
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        median(&ratios)
    }
}

/// Of sorted values; not a number if there are none.
fn median(values: &[f64]) -> f64 {
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

fn number(value: f64, decimals: usize) -> String {
    if value.is_nan() { "–".into() } else { format!("{value:.decimals$}") }
}

/// Names in the order in which they first come.
fn names<'a>(runs: &'a [Run], of: impl Fn(&'a Run) -> &'a str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in runs.iter().map(of) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

pub(super) fn markdown(runs: &[Run], took: Duration) -> String {
    let mut text = String::from("# Reelwright beside other recorders\n\n");
    let _ = writeln!(text, "{}\nTook {:.0} minutes.\n", conditions(), took.as_secs_f64() / 60.0);
    text += "Medians of all rounds, in brackets the lowest and the highest. Ratios are within a round. CPU is that of the \
             server's processes. A stream-hour is a recording of an hour: the time while all streams of the run are \
             there, and once that to open and close a file. CPU-s per GB are of the whole run.\n";
    for cell in names(runs, |run| &run.cell) {
        let of_cell: Vec<Run> = runs.iter().filter(|run| run.cell == cell).cloned().collect();
        let _ = write!(text, "\n## {cell}\n\n");
        text += "| server | rounds | CPU-s per stream-hour | to nginx | to floor | ms to open and close | CPU-s per GB | user + system, s | MB/s | \
                 context switches | writes | reads | peak RSS, MB | KiB a stream | sender's CPU | sender late, ms | delay p50, \
                 p99, ms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        let peers = ["nginx", "floor"].map(|name| Group::of(runs, cell, name));
        for server in names(&of_cell, |run| &run.server) {
            let group = Group::of(runs, cell, server);
            let values = group.values(Run::per_stream_hour);
            let (least, most) =
                (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN));
            let [to_nginx, to_floor] =
                peers.each_ref().map(|peer| number(group.ratio(peer, Run::per_stream_hour), 2));
            let delay = |of: fn(&Delays) -> f64| group.median(|run| run.delays.as_ref().map_or(f64::NAN, of));
            let _ = writeln!(
                text,
                "| {server} | {} | {} ({}–{}) | {to_nginx} | {to_floor} | {} | {} | {} + {} | {} | {} | {} | {} | {} | {} | {} | {} \
                 | {}, {} |",
                group.0.len(),
                number(median(&values), 2),
                number(least, 2),
                number(most, 2),
                number(group.median(Run::ends_ms), 2),
                number(group.median(Run::per_gigabyte), 2),
                number(group.median(|run| run.used.user), 2),
                number(group.median(|run| run.used.system), 2),
                number(group.median(Run::megabytes_a_second), 0),
                number(group.median(|run| run.used.context_switches as f64), 0),
                number(group.median(|run| run.used.writes as f64), 0),
                number(group.median(|run| run.used.reads as f64), 0),
                number(group.median(|run| run.used.peak_rss_kib as f64) / 1024.0, 0),
                number(group.median(Run::stream_kib), 0),
                number(group.median(|run| run.sender_cpu / run.used.cpu), 2),
                number(group.median(|run| run.sent.worst_ms as f64), 0),
                number(delay(|delays| delays.p50_ms), 0),
                number(delay(|delays| delays.p99_ms), 0),
            );
        }
    }
    text += &bars(runs);
    let void: Vec<&Run> = runs.iter().filter(|run| run.void.is_some()).collect();
    if !void.is_empty() {
        text += "\n## Void\n\n";
        for run in void {
            let why = run.void.as_deref().unwrap_or_default();
            let _ = writeln!(text, "- {} {} round {}: {why}", run.cell, run.server, run.round + 1);
        }
    }
    text
}

/// The bars that Reelwright is to clear.
fn bars(runs: &[Run]) -> String {
    let hour = Run::per_stream_hour;
    let flv = Group::of(runs, "200", "reelwright-flv");
    let nginx = Group::of(runs, "200", "nginx");
    let worst = |ratios: [f64; 3]| ratios.into_iter().fold(f64::NAN, f64::max);
    let to_itself = |cell: &str, how: &str| {
        ["flv", "ts", "mp4"].map(|format| {
            let of = |how: &str| Group::of(runs, cell, &format!("reelwright-{format}{how}"));
            of("").ratio(&of(how), hour)
        })
    };
    let (syncs, sandbox) = (to_itself("200", "-nosync"), to_itself(SIDE_BY_SIDE, "-native"));
    let each = |ratios: [f64; 3]| {
        let [flv, ts, mp4] = ratios.map(|ratio| number(ratio, 2));
        format!("FLV {flv}, TS {ts}, MP4 {mp4}; the dearest")
    };
    let (by_syncs, by_sandbox) = (
        format!("durability, to the same without syncs: {}", each(syncs)),
        format!("sandbox, to the same formats linked natively: {}", each(sandbox)),
    );
    // Two seconds of media, which each stream keeps for those who join.
    let gop_kib = 2.63e6 / 8.0 * 2.0 / 1024.0;
    let memory = ["flv", "ts", "mp4"].map(|format| {
        let of = |cell: &str| {
            Group::of(runs, cell, &format!("reelwright-{format}")).median(|run| run.used.peak_rss_kib as f64)
        };
        (of("200") - of("50")) / 150.0 - gop_kib
    });
    let rows = [
        ("CPU, 200 streams, FLV, to nginx, chunks of 4096", flv.ratio(&nginx, hour), 0.9, 0.6),
        (
            "the same, chunks of 128",
            Group::of(runs, "200, chunks of 128", "reelwright-flv")
                .ratio(&Group::of(runs, "200, chunks of 128", "nginx"), hour),
            0.9,
            0.6,
        ),
        ("TS to our own FLV", Group::of(runs, "200", "reelwright-ts").ratio(&flv, hour), 1.3, 1.1),
        (
            "MP4 with its close, to nginx's FLV",
            Group::of(runs, "200", "reelwright-mp4").ratio(&nginx, hour),
            1.1,
            0.8,
        ),
        ("FLV to the floor", flv.ratio(&Group::of(runs, "200", "floor"), hour), 2.2, 1.5),
        (&by_sandbox, worst(sandbox), 1.15, 1.05),
        (&by_syncs, worst(syncs), 1.1, 1.05),
        ("KiB of memory a stream beyond its GOP, the most", worst(memory), 512.0, 200.0),
        (
            "one flat-out stream, FLV, MB/s to nginx (more is better)",
            Group::of(runs, "flat out", "reelwright-flv")
                .ratio(&Group::of(runs, "flat out", "nginx"), Run::megabytes_a_second),
            1.0,
            2.0,
        ),
        (
            "ms from due to visible, 200 streams, p99",
            flv.median(|run| run.delays.map_or(f64::NAN, |delays| delays.p99_ms)),
            500.0,
            250.0,
        ),
    ];
    let mut text =
        String::from("\n## Bars\n\n| what | measured | bar | stretch | |\n| --- | --- | --- | --- | --- |\n");
    for (what, value, bar, stretch) in rows {
        let less_is_better = bar > stretch;
        let is_within = |limit: f64| if less_is_better { value <= limit } else { value >= limit };
        let verdict = match value {
            value if value.is_nan() => "not measured",
            _ if is_within(stretch) => "stretch",
            _ if is_within(bar) => "bar",
            _ => "**no**",
        };
        let _ = writeln!(text, "| {what} | {} | {bar} | {stretch} | {verdict} |", number(value, 2));
    }
    text
}

/// What the figures depend on besides the code.
fn conditions() -> String {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.map_or_else(|| "unknown".into(), |line| line.trim_matches([' ', '\t', ':']).to_owned())
    };
    let said = |program: &str, argument: &str| {
        let output = std::process::Command::new(program).arg(argument).output();
        output.map_or_else(
            |_| "none".into(),
            |output| {
                let text = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
            },
        )
    };
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    format!(
        "- {}\n- processor: {}, {cores} cores; {}\n- Linux {}; disk: {}\n- {}; with its RTMP module {}\n- {}\n",
        said("date", "-uI"),
        line("/proc/cpuinfo", "model name"),
        line("/proc/meminfo", "MemTotal"),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        filesystem(),
        said("/usr/sbin/nginx", "-v"),
        package("libnginx-mod-rtmp"),
        said("ffmpeg", "-version"),
    )
}

fn filesystem() -> String {
    let folder = super::folder().unwrap_or_default();
    let output = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn package(name: &str) -> String {
    let output = std::process::Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processor time a stream, by server at 200 streams, and by number of streams.
pub(super) fn plot(runs: &[Run]) -> String {
    let mut bars: Vec<(&str, f64)> = names(runs, |run| &run.server)
        .into_iter()
        .map(|server| (server, Group::of(runs, "200", server).median(Run::per_stream_hour)))
        .filter(|(_, value)| !value.is_nan())
        .collect();
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut lines: BTreeMap<&str, Vec<(usize, f64)>> = BTreeMap::new();
    for cell in ["1", "50", "200", "500"] {
        for server in ["nginx", "reelwright-flv", "floor"] {
            let value = Group::of(runs, cell, server).median(Run::per_stream_hour);
            if !value.is_nan() {
                lines.entry(server).or_default().push((cell.parse().unwrap_or(0), value));
            }
        }
    }
    let height = 60 + bars.len() * 26;
    let most =
        bars.iter().map(|bar| bar.1).chain(lines.values().flatten().map(|point| point.1)).fold(0.1, f64::max);
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='980' height='{}' font-family='sans-serif' font-size='13'>\n\
         <rect width='100%' height='100%' fill='white'/>\n\
         <text x='10' y='24' font-size='15'>CPU-s per stream-hour, 200 streams of 2.5 Mb/s</text>\n",
        height.max(330)
    );
    for (i, (server, value)) in bars.iter().enumerate() {
        let (y, width) = (44 + i * 26, value / most * 250.0);
        let fill = if server.starts_with("reelwright") { "#2563eb" } else { "#94a3b8" };
        let _ = writeln!(
            svg,
            "<text x='10' y='{}'>{server}</text><rect x='180' y='{y}' width='{width:.0}' height='18' fill='{fill}'/>\
             <text x='{:.0}' y='{}'>{value:.2}</text>",
            y + 14,
            186.0 + width,
            y + 14
        );
    }
    svg += "<text x='520' y='24' font-size='15'>by number of streams</text>\n\
            <path d='M540 290V40M540 290H950' stroke='black' fill='none'/>\n";
    for (server, color) in [("nginx", "#94a3b8"), ("reelwright-flv", "#2563eb"), ("floor", "#16a34a")] {
        let Some(points) = lines.get(server) else { continue };
        let place = |&(streams, value): &(usize, f64)| {
            (540.0 + streams as f64 / 500.0 * 380.0, 290.0 - value / most * 240.0)
        };
        let path: Vec<String> =
            points.iter().map(|point| format!("{:.0},{:.0}", place(point).0, place(point).1)).collect();
        let _ = writeln!(
            svg,
            "<polyline points='{}' fill='none' stroke='{color}' stroke-width='2'/>",
            path.join(" ")
        );
        if let Some((x, y)) = points.last().map(place) {
            let _ =
                writeln!(svg, "<text x='{:.0}' y='{:.0}' fill='{color}'>{server}</text>", x - 80.0, y - 6.0);
        }
    }
    for streams in [1, 50, 200, 500] {
        let x = 540.0 + f64::from(streams) / 500.0 * 380.0;
        let _ = writeln!(svg, "<text x='{x:.0}' y='306' text-anchor='middle'>{streams}</text>");
    }
    svg + "</svg>\n"
}
