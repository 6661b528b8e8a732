//! A disk that is filled to its last block while it is recorded to, and made room on.

use std::collections::BTreeSet;

use crate::{
    media,
    pieces::{Piece, Sent},
    process::until,
    random::Random,
    readers::{self, FORMATS},
    senders,
    server::Server,
    volume::{Kind, Volume, may_mount},
};

/// How often it is filled.
const ROUNDS: usize = 2;

/// A recording to the disk.
#[derive(Debug)]
struct Order {
    id: u64,
    name: &'static str,
    format: &'static str,
}

impl Order {
    /// Final names of its segments, closed or not: `cam.flv`, `cam_0001.flv`, or `part_part0000.flv`, …
    fn segments(&self, volume: &Volume) -> BTreeSet<String> {
        let extension = format!(".{}", self.format);
        let names = volume.names().into_iter().filter(|name| name.starts_with(self.name));
        let finals = names.filter_map(|name| {
            let (stem, rest) = name.split_once(&extension)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| format!("{stem}{extension}"))
        });
        finals.collect()
    }

    /// Frames that the log says it lost: with a segment that failed, and up to the next.
    fn said_lost(&self, log: &str) -> usize {
        let id = format!(" config_id={} ", self.id);
        let lines = log.lines().filter(|line| line.contains(&id));
        let counts = lines.filter_map(|line| {
            let key = if line.contains(" gap: ") { " samples=" } else { " lost_samples=" };
            line.split_once(key)?.1.split(' ').next()?.parse::<usize>().ok()
        });
        counts.sum()
    }
}

fn full(kind: Kind, mib: u64) {
    if !may_mount() {
        return;
    }
    let mut random = Random::seeded();
    let volume = Volume::mount(kind, mib);
    let server = Server::start_with(|_| volume.allowed().into());
    let beside = FORMATS.map(|format| server.record("cam", "beside", format, ""));
    let order = |name, format, more| Order {
        id: server.record("cam", &volume.file(name), format, more),
        name,
        format,
    };
    let orders: Vec<_> = FORMATS
        .into_iter()
        .flat_map(|format| [order("cam", format, ""), order("part", format, "chunkLength=1")])
        .collect();
    let mut sender = senders::endless(&media::clip(), &server.url("cam"));
    let more = |frames: usize| {
        let live = server.video_samples("cam") + frames;
        until(&format!("frame {live}"), || (server.video_samples("cam") >= live).then_some(()));
    };

    for round in 1..=ROUNDS {
        more(random.within(30..120) as usize);
        let said = server.log().lines().count();
        volume.fill();
        let full = || server.log().lines().filter(|line| line.contains("diskFull")).count();
        until("diskFull", || (full() >= round).then_some(()));
        more(60);
        assert!(server.cli("listConfig").success);
        let log = server.log();
        let bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let complaints: Vec<_> = log.lines().skip(said).filter(bad).collect();
        assert_eq!(full(), round, "each time is told once: {complaints:#?}");
        // A file fails and is repaired. While a part is closed, the next one is open.
        let mut others = complaints.len();
        for order in &orders {
            let id = format!(" config_id={} ", order.id);
            let own = complaints.iter().filter(|line| line.contains(&id)).count();
            let open = if order.name == "part" { 2 } else { 1 };
            assert!(own <= 2 * open, "{order:?}: {complaints:#?}");
            others -= own;
        }
        assert!(others <= 4, "{complaints:#?}");

        let before: Vec<_> = orders.iter().map(|order| order.segments(&volume)).collect();
        volume.free();
        for (order, before) in orders.iter().zip(&before) {
            until(&format!("{order:?} again"), || {
                order.segments(&volume).difference(before).next().map(drop)
            });
        }
        more(45);
    }
    // The same end for all.
    sender.kill();
    server.finish("cam", &beside);
    server.stop(&orders.iter().map(|order| order.id).collect::<Vec<_>>());

    // What could not be closed for want of room is repaired when there is some.
    let repairs = until("the repairs", || {
        let reply = server.json("listRecoveries", "");
        (reply["data"]["unfinished"] == 0).then(|| reply["data"]["recoveries"].clone())
    });
    let kept = repairs.as_array().unwrap().iter().filter(|repair| repair["outcome"] == "kept");
    assert_eq!(kept.count(), 0, "{repairs:#}");
    let names = volume.names();
    let is_final = |name: &String| FORMATS.iter().any(|format| name.ends_with(&format!(".{format}")));
    assert!(names.iter().all(is_final), "{names:?}");

    let log = server.log();
    for order in &orders {
        let Order { name, format, .. } = order;
        let sent = Sent::clip(format);
        let whole = server.media(&format!("beside.{format}"));
        readers::assert_repeated(&media::clip(), std::slice::from_ref(&whole));
        let whole = sent.piece(&whole);
        assert_eq!(whole.begins, 0);

        let files = order.segments(&volume);
        let pieces: Vec<Piece> = files.iter().map(|file| sent.piece(&volume.path().join(file))).collect();
        let frames = |piece: &Piece| piece.video + piece.audio;
        let (total, there) = (frames(&whole), pieces.iter().map(frames).sum::<usize>());
        let lost = order.said_lost(&log);
        println!(
            "{kind:?} {name}.{format}: {there} of {total} frames in {} files, {lost} said lost",
            files.len()
        );
        assert!(there > total / 4, "{pieces:?}");
        assert_eq!(there + lost, total, "each frame is recorded, or said to be lost");
        if *name == "cam" {
            let again = (1..=ROUNDS).map(|i| format!("cam_{i:04}.{format}"));
            let expected: BTreeSet<_> = again.chain([format!("cam.{format}")]).collect();
            assert_eq!(files, expected);
        }
    }
}

#[test]
fn an_ext4_that_is_full_is_recorded_to_again_when_there_is_room() {
    full(Kind::Ext4, 128);
}

#[test]
fn an_xfs_that_is_full_is_recorded_to_again_when_there_is_room() {
    full(Kind::Xfs, 300);
}

#[test]
fn a_tmpfs_that_is_full_is_recorded_to_again_when_there_is_room() {
    full(Kind::Tmpfs, 128);
}
