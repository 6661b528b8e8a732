//! Which servers record what. All of a cell are run one after the other, round by round, so that what else the machine
//! does hits them alike; those that are compared are next to each other, in another order each round. Components and the
//! same formats linked natively are run side by side: their ratio is nearer to 1 than two runs of one server are to each
//! other. Not so what differs in its syncs, which are of the whole volume: one server would write for the other.

use anyhow::{Context, bail};

use super::{
    media::Media,
    servers::{How, Kind},
};

/// What a developer can ask for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) rounds: usize,
    /// Seconds of media of a cell, if not its own.
    window: Option<f64>,
    only: Vec<String>,
    cells: Vec<String>,
}

impl Options {
    pub(super) fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self { rounds: 5, window: None, only: Vec::new(), cells: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} takes a value"))?;
            let list = || value.split(';').map(str::to_owned).collect();
            match name.as_str() {
                "--rounds" => options.rounds = value.parse()?,
                "--window" => options.window = Some(value.parse()?),
                "--only" => options.only = list(),
                "--cells" => options.cells = list(),
                _ => bail!("{name}: there are --rounds N, --window SECONDS, --only SERVER;…, --cells CELL;…"),
            }
        }
        Ok(options)
    }
}

/// Streams that a server has to record.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) media: Media,
    pub(super) streams: usize,
    /// Length of each stream.
    pub(super) seconds: f64,
    pub(super) chunk_size: u32,
    pub(super) is_paced: bool,
    pub(super) measures_delay: bool,
    /// In groups of those that are compared.
    servers: &'static [&'static [Kind]],
    /// The servers of a group are run at once.
    side_by_side: bool,
}

const fn ours(format: &'static str) -> Kind {
    Kind::Reelwright(format, How::Usual)
}

const ALL: &[&[Kind]] = &[
    &[Kind::Floor, Kind::Nginx],
    &[ours("flv"), Kind::Reelwright("flv", How::NoSync)],
    &[ours("ts"), Kind::Reelwright("ts", How::NoSync)],
    &[ours("mp4"), Kind::Reelwright("mp4", How::NoSync)],
];
const SANDBOX: &[&[Kind]] = &[
    &[ours("flv"), Kind::Reelwright("flv", How::Native)],
    &[ours("ts"), Kind::Reelwright("ts", How::Native)],
    &[ours("mp4"), Kind::Reelwright("mp4", How::Native)],
];
/// FFmpeg takes one stream a process and port.
const ONE: &[&[Kind]] = &[&[Kind::Nginx, ours("flv"), Kind::Ffmpeg, Kind::Floor]];
const TWO: &[&[Kind]] = &[&[Kind::Nginx, ours("flv")]];
const OTHERS: &[&[Kind]] = &[&[ours("ts"), ours("mp4")]];
const FORMATS: &[&[Kind]] = &[TWO[0], OTHERS[0]];

/// The cell in which components are compared with native formats.
pub(super) const SIDE_BY_SIDE: &str = "200, side by side";

pub(super) fn cells(options: &Options) -> Vec<Cell> {
    let cell = |name, media, streams, seconds, servers| Cell {
        name,
        media,
        streams,
        seconds,
        chunk_size: 4096,
        is_paced: true,
        measures_delay: false,
        servers,
        side_by_side: false,
    };
    let mut cells = vec![
        Cell { measures_delay: true, ..cell("200", Media::Usual, 200, 8.5, ALL) },
        Cell { side_by_side: true, ..cell(SIDE_BY_SIDE, Media::Usual, 200, 8.0, SANDBOX) },
        Cell { chunk_size: 128, ..cell("200, chunks of 128", Media::Usual, 200, 5.0, TWO) },
        Cell { side_by_side: true, ..cell("1", Media::Usual, 1, 5.0, ONE) },
        cell("50", Media::Usual, 50, 5.0, TWO),
        // Mostly for their memory, which is no matter of what runs beside them.
        Cell { side_by_side: true, ..cell("50", Media::Usual, 50, 5.0, OTHERS) },
        cell("500", Media::Usual, 500, 5.0, TWO),
        cell("50 of 20 Mb/s", Media::High, 50, 5.0, TWO),
        cell("1000 of 300 kb/s", Media::Low, 1000, 5.0, TWO),
        Cell { is_paced: false, ..cell("flat out", Media::Usual, 1, 900.0, FORMATS) },
    ];
    cells.retain(|cell| options.cells.is_empty() || options.cells.iter().any(|name| *name == cell.name));
    if let Some(window) = options.window {
        cells.iter_mut().filter(|cell| cell.is_paced).for_each(|cell| cell.seconds = window);
    }
    cells
}

/// The servers of a cell, those together that run at once, in an order that differs from round to round.
pub(super) fn servers(cell: &Cell, options: &Options, round: usize) -> Vec<Vec<Kind>> {
    let is_asked = |kind: &Kind| options.only.is_empty() || options.only.contains(&kind.to_string());
    let groups = cell.servers.iter().map(|group| {
        let group = turned(group.iter().copied().filter(is_asked).collect(), round);
        if cell.side_by_side { vec![group] } else { group.into_iter().map(|kind| vec![kind]).collect() }
    });
    let groups = turned(groups.collect(), round);
    groups.into_iter().flatten().filter(|at_once| !at_once.is_empty()).collect()
}

fn turned<T>(mut all: Vec<T>, by: usize) -> Vec<T> {
    let by = by % all.len().max(1);
    all.rotate_left(by);
    all
}
