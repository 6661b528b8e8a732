//! The server is killed at any moment, again and again, on the same folders: what was there stays as it is, what was
//! being recorded is repaired by the next start, and half a second of it is lost at most.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    io::Write,
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Condvar, LazyLock, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{
    media, process,
    process::until,
    random::Random,
    readers::{self, FORMATS},
    senders,
    server::{self, Server},
    volume::{self, Kind, Volume, names},
};

/// Frames of the clip in half a second.
const HALF_A_SECOND: usize = 15;
/// Files that ffprobe reads at once.
const PROBES: usize = 2;
/// Names of the recordings of a round, and what more is ordered.
const RECORDINGS: [(&str, &str); 2] = [("cam", ""), ("part", "chunkLength=1")];

/// A file that is complete. It must stay as it is.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    hash: [u8; 32],
}

impl Known {
    fn of(path: &Path, hash: bool) -> Self {
        let meta = fs::metadata(path).unwrap();
        let hash = if hash { Sha256::digest(fs::read(path).unwrap()).into() } else { [0; 32] };
        Self { inode: meta.ino(), size: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()), hash }
    }
}

/// What came of it all.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    kills: usize,
    frames: usize,
    /// Rounds by what the server was killed in.
    how: BTreeMap<&'static str, usize>,
    /// By format: files, and frames of the worst loss.
    formats: BTreeMap<&'static str, (usize, usize)>,
}

/// What a round left: the frames that the server knew of when it was killed.
#[derive(Clone, Copy, Debug)]
struct Killed {
    samples: usize,
    how: &'static str,
}

fn kill(kills: usize) {
    let begun = Instant::now();
    let mut random = Random::seeded();
    // Segments begin with a sync, and what a kill costs must not depend on who else uses the machine's disk.
    let volume = volume::allowed().then(|| Volume::mount(Kind::Ext4, 4096));
    let folder = volume.as_ref().map_or(std::env::temp_dir(), Volume::path);
    let home = server::home(&folder);
    let folder = home.path().join("media");
    let mut known = BTreeMap::new();
    let mut tally = Tally::default();
    let probes = Probes::start();
    let mut killed = None;
    let events = home.path().join("events");
    let arguments = ["--event-log".to_owned(), events.display().to_string()];
    loop {
        let server = Server::start_as(urgent(), home.clone(), &arguments);
        if let Some(killed) = killed.take() {
            check(&server, &folder, killed, &mut known, &mut tally, &probes);
        }
        if tally.kills >= kills {
            break;
        }
        tally.rounds += 1;
        killed = Some(round(server, &home, &mut random, &mut tally));
    }
    probes.finish();
    assert_files_are_told_in_order(&events);
    for (name, known) in &known {
        assert_eq!(Known::of(&folder.join(name), true), *known, "{name} has changed");
    }
    println!(
        "{} kills in {} rounds ({:?}), {} files, {} frames of each recording, in {:.0?}",
        tally.kills,
        tally.rounds,
        tally.how,
        known.len(),
        tally.frames,
        begun.elapsed()
    );
    for (format, (files, worst)) in tally.formats {
        println!("{format}: {files} files, at worst {worst} frames ({} ms) lost", worst * 1000 / 30);
    }
}

/// Of each recording the files are told complete, or repaired, in the order in which they began. One may be told twice.
fn assert_files_are_told_in_order(events: &Path) {
    let mut last: BTreeMap<u64, String> = BTreeMap::new();
    let mut told = 0;
    // A kill cuts off the last line.
    let events = fs::read_to_string(events).unwrap();
    let events = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    for event in events
        .filter(|event| ["recordChunkClosed", "recordRecovered"].iter().any(|kind| event["type"] == *kind))
    {
        let payload = &event["payload"];
        let (Some(id), Some(begun)) = (payload["configId"].as_u64(), payload["startTime"].as_str()) else {
            continue;
        };
        let before = last.insert(id, begun.to_owned());
        assert!(before.as_deref().is_none_or(|before| before <= begun), "{before:?}, then {event}");
        told += 1;
    }
    assert!(told > 0, "no event");
}

/// Records in all ways, and kills the server; perhaps while it closes files, perhaps again while it starts.
fn round(mut server: Server, home: &Arc<TempDir>, random: &mut Random, tally: &mut Tally) -> Killed {
    let ids = recordings(&server);
    let sender = senders::endless(&media::clip(), &server.url("cam"));
    let opening = random.below(8) == 0;
    match opening {
        true => until("frames", || (server.video_samples("cam") > 0).then_some(())),
        false => until("the recordings", || (begun(&server) >= ids.len()).then_some(())),
    }
    // The moment is the test's; nothing is waited for.
    std::thread::sleep(random.millis(if opening { 100 } else { 1500 }));
    // Media waits in memory while its segment begins, for as long as the disk takes to sync that; no promise is made.
    let samples = if opening { 0 } else { server.video_samples("cam") };
    let (closing, in_repair) = (random.below(4) == 0, random.below(4) == 0);
    let mut commands = Vec::new();
    if closing {
        for id in ids {
            let mut socket = TcpStream::connect(server.address("ascii-cli")).unwrap();
            write!(socket, "removeConfig id={id}\r\n").unwrap();
            commands.push(socket);
        }
        std::thread::sleep(random.millis(60));
    }
    server.kill();
    drop((server, sender, commands));
    tally.kills += 1;
    for _ in 0..if in_repair { random.within(1..5) } else { 0 } {
        let mut child = server::command(urgent(), home.path(), &[]).spawn().unwrap();
        // Most of a repair is soon over.
        let limit = if random.below(2) == 0 { 60 } else { 400 };
        std::thread::sleep(random.millis(limit));
        server::kill_group(&mut child);
        tally.kills += 1;
    }
    let how = match (closing, in_repair) {
        _ if opening => "while opening",
        (false, false) => "while recording",
        (false, true) => "while recording, and in the repair",
        (true, false) => "while closing",
        (true, true) => "while closing, and in the repair",
    };
    Killed { samples, how }
}

/// The recordings that the server has kept; those that were removed before the kill are ordered again.
fn recordings(server: &Server) -> Vec<u64> {
    let config = server.json("listConfig", "");
    let kept = config["data"]["record"].as_array().unwrap();
    let kept: Vec<_> = kept
        .iter()
        .map(|r| {
            (r["pathToFile"].as_str().unwrap(), r["type"].as_str().unwrap(), r["configId"].as_u64().unwrap())
        })
        .collect();
    let order = |format: &'static str| {
        RECORDINGS.map(|(name, more)| {
            let its = kept.iter().filter(|r| (r.0, r.1) == (name, format)).map(|r| r.2).collect::<Vec<_>>();
            assert!(its.len() <= 1, "{config}");
            its.first().copied().unwrap_or_else(|| server.record("cam", name, format, more))
        })
    };
    FORMATS.into_iter().flat_map(order).collect()
}

/// The program, before all others if the test may say so: what it loses must not depend on what else runs.
fn urgent() -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "-15"]).arg(senders::reelwright().get_program());
    command
}

/// Segments that a server has begun to record.
fn begun(server: &Server) -> usize {
    let log = server.log();
    let its = log.lines().rev().take_while(|line| !line.contains(" INFO folders "));
    its.filter(|line| line.contains(" INFO recording config_id=")).count()
}

/// Looks at what a server made of what the one before left.
fn check(
    server: &Server,
    folder: &Path,
    killed: Killed,
    known: &mut BTreeMap<String, Known>,
    tally: &mut Tally,
    probes: &Probes,
) {
    let is_final = |name: &String| FORMATS.iter().any(|format| name.ends_with(&format!(".{format}")));
    let repairs = until("the repairs", || {
        let reply = server.json("listRecoveries", "");
        (reply["data"]["unfinished"] == 0).then(|| reply["data"]["recoveries"].clone())
    });
    let repairs = repairs.as_array().unwrap();
    assert!(repairs.iter().all(|repair| repair["outcome"] != "kept"), "{repairs:#?}");
    let there: BTreeSet<_> = names(folder).into_iter().collect();
    assert!(there.iter().all(is_final), "{there:?}");
    for (name, known) in known.iter() {
        assert!(there.contains(name), "{name} is gone");
        let now = Known { hash: known.hash, ..Known::of(&folder.join(name), false) };
        assert_eq!(now, *known, "{name} has changed");
    }
    let new: Vec<_> = there.into_iter().filter(|name| !known.contains_key(name)).collect();
    for format in FORMATS {
        for (recording, _) in RECORDINGS {
            let is_one =
                |name: &&String| name.starts_with(recording) && name.ends_with(&format!(".{format}"));
            let files: Vec<_> = new.iter().filter(is_one).map(|name| folder.join(name)).collect();
            let what = format!("round {}, {recording}.{format}, killed {}", tally.rounds, killed.how);
            assert!(recording == "part" || files.len() <= 1, "{what}: {files:?}");
            let mut frames = [0, 0];
            for file in &files {
                let found = look(file, format, frames);
                probes.read(file.clone(), found);
                frames = [frames[0] + found[0], frames[1] + found[1]];
            }
            let lost = killed.samples.saturating_sub(frames[0]);
            assert!(lost <= HALF_A_SECOND, "{what}: {} of {} frames", frames[0], killed.samples);
            let counts = tally.formats.entry(format).or_default();
            *counts = (counts.0 + files.len(), counts.1.max(lost));
        }
    }
    tally.frames += killed.samples;
    *tally.how.entry(killed.how).or_default() += 1;
    known.extend(new.into_iter().map(|name| {
        let now = Known::of(&folder.join(&name), true);
        (name, now)
    }));
}

/// Frames of a file's tracks as FLV and MP4 hold them: video, audio.
type Frames<'a> = [Vec<&'a [u8]>; 2];

/// How many frames of each track there are.
type Counts = [usize; 2];

static CLIP: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(media::clip()).unwrap());
static SENT: LazyLock<Frames<'static>> = LazyLock::new(|| flv_frames(&CLIP));

fn flv_frames(bytes: &[u8]) -> Frames<'_> {
    let tags = media::tags(bytes);
    [media::VIDEO, media::AUDIO].map(|kind| {
        let track = tags.iter().filter(|tag| tag.kind == kind);
        track.filter_map(media::Tag::payload).collect()
    })
}

fn mp4_frames<'a>(mp4: &re_mp4::Mp4, bytes: &'a [u8]) -> Frames<'a> {
    [re_mp4::TrackKind::Video, re_mp4::TrackKind::Audio].map(|kind| {
        let track = mp4.tracks().values().find(|track| track.kind == Some(kind));
        let samples = track.map(|track| &track.samples[..]).unwrap_or_default();
        let range = |at: u64, len: u64| at as usize..(at + len) as usize;
        samples.iter().map(|s| bytes.get(range(s.offset, s.size)).unwrap_or_default()).collect()
    })
}

/// Fails unless a file is sound and has the frames behind the first `before` of each track. Returns how many it has;
/// in MPEG-TS PES packets are counted.
fn look(file: &Path, format: &str, before: Counts) -> Counts {
    let (what, bytes) = (file.display(), fs::read(file).unwrap());
    let frames = match format {
        "flv" => {
            let len: usize = media::tags(&bytes).iter().map(|tag| 11 + tag.body.len() + 4).sum();
            assert_eq!(13 + len, bytes.len(), "{what}: half a tag at its end");
            flv_frames(&bytes)
        }
        "mp4" => {
            let names: Vec<_> = readers::boxes(&bytes).into_iter().map(|(name, _)| name).collect();
            assert!(names.first().is_some_and(|name| name == "ftyp"), "{what}: {names:?}");
            let mp4 = re_mp4::Mp4::read_bytes(&bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
            mp4_frames(&mp4, &bytes)
        }
        "ts" => {
            let report = oxideav_mpegts::validate::validate_ts(&bytes);
            assert!(report.is_conformant(), "{what}: {report:?}");
            assert_eq!(report.packets as usize * 188, bytes.len(), "{what}");
            return [0xe0, 0xc0].map(|id| packets(&bytes, id));
        }
        other => panic!("no reader for {other}"),
    };
    assert!(readers::begins_with_key_frame(format, &bytes), "{what}");
    for ((found, sent), before) in frames.iter().zip(&*SENT).zip(before) {
        let same = found.iter().zip(sent.iter().cycle().skip(before % sent.len()));
        let same = same.take_while(|(found, sent)| found == sent).count();
        assert_eq!(same, found.len(), "{what}: not frame {} of what was sent", before + same);
    }
    frames.map(|track| track.len())
}

/// PES packets of a stream of a transport stream.
fn packets(bytes: &[u8], stream_id: u8) -> usize {
    let payload = |packet: &[u8]| match packet[3] & 0x20 {
        0 => 4,
        _ => 5 + usize::from(packet[4]),
    };
    let begins = |packet: &&[u8]| {
        let pes = packet.get(payload(packet)..).unwrap_or_default();
        packet[1] & 0x40 != 0 && pes.starts_with(&[0, 0, 1, stream_id])
    };
    bytes.chunks_exact(188).filter(begins).count()
}

/// Processes of ffprobe that read files beside the test.
#[derive(Debug)]
struct Probes {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Files, and the frames that they have.
    files: VecDeque<(PathBuf, Counts)>,
    faults: Vec<String>,
    ended: bool,
}

impl Probes {
    fn start() -> Self {
        let queue: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let work = |_| {
            let queue = queue.clone();
            std::thread::spawn(move || {
                let (queue, wake) = &*queue;
                loop {
                    let (file, frames) = {
                        let mut queue = queue.lock().unwrap();
                        loop {
                            if let Some(next) = queue.files.pop_front() {
                                break next;
                            }
                            if queue.ended {
                                return;
                            }
                            queue = wake.wait(queue).unwrap();
                        }
                    };
                    if let Some(fault) = probe(&file, frames) {
                        queue.lock().unwrap().faults.push(fault);
                    }
                }
            })
        };
        let workers = (0..PROBES).map(work).collect();
        Self { queue, workers }
    }

    fn read(&self, file: PathBuf, frames: Counts) {
        let faults = {
            let mut queue = self.queue.0.lock().unwrap();
            queue.files.push_back((file, frames));
            self.queue.1.notify_one();
            queue.faults.clone()
        };
        assert!(faults.is_empty(), "{faults:#?}");
    }

    fn finish(self) {
        self.queue.0.lock().unwrap().ended = true;
        self.queue.1.notify_all();
        for worker in self.workers {
            worker.join().unwrap();
        }
        let queue = self.queue.0.lock().unwrap();
        assert!(queue.faults.is_empty(), "{:#?}", queue.faults);
    }
}

/// What ffprobe has against a file; it must find so many frames of video.
fn probe(file: &Path, [frames, audio]: Counts) -> Option<String> {
    // Behind the server, whose time counts.
    let output = process::Process::start(
        Command::new("nice")
            .args(["-n", "19", "/usr/bin/ffprobe", "-v", "warning", "-of", "csv=p=0"])
            .args(["-select_streams", "v:0", "-show_entries", "packet=size"])
            .arg(file),
    )
    .wait();
    let found = output.stdout.lines().filter(|line| !line.trim().is_empty()).count();
    // A transport stream names its tracks before it has them, and that audio did not come is fair to say.
    let quiet = output.stderr.trim().is_empty() || audio == 0;
    let good = output.status.success() && quiet && found == frames;
    (!good).then(|| {
        format!("{}: {found} of {frames} frames, {}: {}", file.display(), output.status, output.stderr)
    })
}

#[test]
fn fifty_kills_lose_half_a_second_at_most_and_nothing_else() {
    kill(50);
}

/// `make kill-test KILLS=1000 SEED=1`
#[test]
#[ignore = "make kill-test"]
fn kill_as_often_as_asked() {
    let kills = std::env::var("REELWRIGHT_KILLS").ok().filter(|kills| !kills.is_empty());
    kill(kills.map_or(1000, |kills| kills.parse().expect("REELWRIGHT_KILLS is a number")));
}
