//! The order of things: which packets a sample becomes, and what has to stand in front of it.
//!
//! Everything is decided from the samples in their order, so the bytes do not depend on batches:
//!
//! 1. While the clock has gone on by more than [`clock::STEP`] since the last PCR, packets with nothing but a
//!    PCR, one a step. After a pause that is too long for that (and in front of the first sample), one, marked
//!    as a discontinuity unless it is the run's first.
//! 2. PAT and PMT, in front of video key frames, when [`PSI_INTERVAL`] is over, and after a change. That
//!    interval is counted on the PCR, and kept between the packets of step 1 as well.
//! 3. The sample as one PES packet. On the PCR's PID it has a PCR of its own. `random_access_indicator` marks
//!    video key frames and, where audio has the PCR, all audio.
//!
//! A sample's discontinuity bit changes nothing: it says that media is missing, while
//! `discontinuity_indicator` would say that packets are, or that the clock was set anew. Neither is so: the
//! time line goes on over the gap. The indicator stands where the clock leaps (step 1), and on the first
//! packet of every PID in a segment that knows nothing of the one before.

use reelwright_sdk::{Error, Sample, Start, Summary, TrackEnd, host};

use crate::adts::{Adts, MAX_FRAME};
use crate::avc::{AccessUnit, Avc, Part};
use crate::carry::{self, Carry};
use crate::clock::{self, DecodeTimes, MS, Scale};
use crate::packet::{self, Adaptation, Out, Packets, Pid};
use crate::{pes, psi};

/// From a PAT to the next, on the PCR; with a step of the clock it is less than 500 ms.
const PSI_INTERVAL: i64 = 400 * MS;
/// A track's PID is its id after that of the PMT.
const MAX_TRACK: u32 = 4096;
/// Damaged samples that get a line in the log; all are counted.
const MAX_WARNINGS: u64 = 8;

/// One program, packet by packet.
#[derive(Debug)]
pub(crate) struct Mux {
    pub(crate) out: Out,
    tracks: Vec<Track>,
    pcr_track: u32,
    pat: Pid,
    pmt: Pid,
    pat_section: Vec<u8>,
    pmt_section: Vec<u8>,
    /// PCR at the last PAT; `None` when one is due.
    psi_at: Option<i64>,
    /// Whether no PES packet came after the last PAT.
    psi_fresh: bool,
    pcr: Option<i64>,
    counts: Counts,
}

#[derive(Debug)]
struct Track {
    id: u32,
    /// Whether it was announced last; a track that is gone stays in the PMT.
    live: bool,
    scale: Scale,
    codec: Codec,
    pid: Pid,
    last_dts: Option<i64>,
    times: DecodeTimes,
}

#[derive(Debug)]
enum Codec {
    Avc(Avc),
    Aac(Adts),
}

/// A sample that is good to be written.
#[derive(Debug)]
enum Unit {
    Video { picture: AccessUnit, key: bool },
    Audio { header: [u8; 7] },
}

#[derive(Debug, Default)]
struct Counts {
    first_dts: Option<i64>,
    last_dts: i64,
    video_frames: u64,
    audio_frames: u64,
    keyframes: u64,
    damaged_units: u64,
    empty_samples: u64,
}

impl Mux {
    /// Checks the tracks, and goes on where the segment before ended, if `start` knows.
    pub(crate) fn new(start: &Start) -> Result<Self, Error> {
        let tracks: Vec<Track> = start.tracks.iter().map(Track::new).collect::<Result<_, _>>()?;
        if tracks.len() > psi::MAX_STREAMS {
            return Err(Error::unsupported(format!(
                "{} tracks; a program map of one packet has room for {}",
                tracks.len(),
                psi::MAX_STREAMS
            )));
        }
        let pcr_track = tracks.iter().find(|t| t.is_video()).or(tracks.first());
        let mut mux = Self {
            out: Out::default(),
            pcr_track: pcr_track.ok_or_else(|| Error::bad_input("a segment without tracks"))?.id,
            tracks,
            pat: Pid::new(psi::PAT_PID),
            pmt: Pid::new(psi::PMT_PID),
            pat_section: psi::pat(),
            pmt_section: Vec::new(),
            psi_at: None,
            psi_fresh: false,
            pcr: None,
            counts: Counts::default(),
        };
        match Carry::decode(&start.carry) {
            Some(carry) => mux.join(carry),
            None => {
                mux.set_pmt(0);
                mux.pids().for_each(|pid| pid.discontinuity = start.segment > 0);
            }
        }
        Ok(mux)
    }

    fn join(&mut self, carry: Carry) {
        self.pat.counter = carry.pat_counter & 15;
        self.pmt.counter = carry.pmt_counter & 15;
        self.pcr = Some(carry.pcr);
        for old in &carry.tracks {
            if let Some(track) = self.tracks.iter_mut().find(|t| t.id == old.id) {
                track.pid.counter = old.counter & 15;
                track.last_dts = old.last_dts;
            }
        }
        let version = carry.pmt.get(5).map_or(0, |byte| byte >> 1 & 31);
        self.set_pmt(version);
        if self.pmt_section != carry.pmt {
            self.set_pmt(version + 1);
        }
    }

    /// Takes the tracks announced anew; see `writer.update-tracks`. After `Ok(false)` or an error nothing changed.
    pub(crate) fn update(&mut self, tracks: &[reelwright_sdk::Track]) -> Result<bool, Error> {
        let tracks: Vec<Track> = tracks.iter().map(Track::new).collect::<Result<_, _>>()?;
        let known = |track: &Track| self.tracks.iter().position(|t| t.id == track.id);
        let retyped =
            |track: &Track| known(track).is_some_and(|i| self.tracks[i].is_video() != track.is_video());
        let added = tracks.iter().filter(|track| known(track).is_none()).count();
        if tracks.iter().any(retyped) || self.tracks.len() + added > psi::MAX_STREAMS {
            return Ok(false);
        }
        self.tracks.iter_mut().for_each(|t| t.live = false);
        for track in tracks {
            match self.tracks.iter_mut().find(|t| t.id == track.id) {
                Some(old) => (old.live, old.scale, old.codec) = (true, track.scale, track.codec),
                None => self.tracks.push(track),
            }
        }
        if added > 0 {
            self.set_pmt((self.pmt_section[5] >> 1 & 31) + 1);
            self.psi_at = None;
            self.psi_fresh = false;
        }
        Ok(true)
    }

    /// Adds one sample, whose payload begins with `start`, if that is known. After an error nothing of it was added.
    pub(crate) fn sample(&mut self, sample: &Sample, start: &[u8]) -> Result<(), Error> {
        let Some(index) = self.tracks.iter().position(|t| t.id == sample.track && t.live) else {
            return Err(Error::bad_input(format!(
                "sample {} is of track {}, which was not announced",
                sample.seq, sample.track
            )));
        };
        if sample.size == 0 {
            self.counts.empty_samples += 1;
            return Ok(());
        }
        let Some(unit) = self.unit(index, sample, start)? else { return Ok(()) };

        let track = &mut self.tracks[index];
        let dts = track.scale.ticks(sample.dts);
        let pts = track.scale.ticks(sample.pts);
        track.last_dts = Some(dts);
        let target = self.clock_target();
        let pcr = self.advance(target);
        self.counts.add(&unit, dts);

        let own_pcr = (sample.track == self.pcr_track).then(|| target.max(pcr + 1));
        let pcr = own_pcr.unwrap_or(pcr);
        self.pcr = Some(pcr);
        if matches!(unit, Unit::Video { key: true, .. }) && !self.psi_fresh {
            self.psi_at = None;
        }
        self.psi(pcr);
        self.pes(index, pts, dts, sample, &unit, own_pcr);
        Ok(())
    }

    /// What the segment says of itself at its end, and what it leaves to the next.
    pub(crate) fn summary(&self, ends: &[TrackEnd]) -> Summary {
        let counts = &self.counts;
        let end =
            |end: &TrackEnd| self.tracks.iter().find(|t| t.id == end.track).map(|t| t.scale.ticks(end.dts));
        let end = ends.iter().filter_map(end).fold(counts.last_dts, i64::max);
        let duration = counts.first_dts.map_or(0, |first| end - first);
        let carry = |pcr| Carry {
            pat_counter: self.pat.counter,
            pmt_counter: self.pmt.counter,
            pmt: self.pmt_section.clone(),
            pcr,
            tracks: self
                .tracks
                .iter()
                .map(|t| carry::Track { id: t.id, counter: t.pid.counter, last_dts: t.last_dts })
                .collect(),
        };
        Summary { carry: self.pcr.map_or_else(Vec::new, |pcr| carry(pcr).encode()), ..Summary::default() }
            .property("duration-ms", duration / MS)
            .property("video-frames", counts.video_frames)
            .property("audio-frames", counts.audio_frames)
            .property("keyframes", counts.keyframes)
            .property("damaged-units", counts.damaged_units)
            .property("empty-samples", counts.empty_samples)
    }

    /// Reads a sample; `None` if nothing of it is good.
    fn unit(&mut self, index: usize, sample: &Sample, start: &[u8]) -> Result<Option<Unit>, Error> {
        let size = sample.size as usize;
        match &self.tracks[index].codec {
            Codec::Avc(avc) => {
                let mut picture = AccessUnit::read(avc, size, start, |offset, len| {
                    host::read_sample(sample.seq, offset as u32, len as u32)
                })?;
                if let Some(damage) = picture.damage.take() {
                    self.warn(sample, &damage, picture.count());
                }
                let key = sample.is_key() || picture.idr;
                Ok((picture.count() > 0).then_some(Unit::Video { picture, key }))
            }
            Codec::Aac(adts) => match adts.header(size) {
                Some(header) => Ok(Some(Unit::Audio { header })),
                None => Err(Error::bad_input(format!(
                    "sample {} (track {}, dts {}): an AAC frame of {} bytes; ADTS holds {}",
                    sample.seq,
                    sample.track,
                    sample.dts,
                    size,
                    MAX_FRAME - 7
                ))),
            },
        }
    }

    fn warn(&mut self, sample: &Sample, damage: &reelwright_codec::Error, good: usize) {
        self.counts.damaged_units += 1;
        if self.counts.damaged_units > MAX_WARNINGS {
            return;
        }
        let more = match self.counts.damaged_units {
            MAX_WARNINGS => "; more are only counted",
            _ => "",
        };
        let Sample { seq, track, dts, .. } = sample;
        host::log(
            1,
            &format!("sample {seq} (track {track}, dts {dts}): {damage}; NAL units kept: {good}{more}"),
        );
    }

    fn clock_target(&self) -> i64 {
        let times = || self.tracks.iter().filter(|t| t.live).filter_map(|t| t.last_dts);
        let lead = times().max().expect("a sample was there");
        let slowest = times().min().expect("a sample was there");
        clock::target(lead, slowest)
    }

    /// Brings the PCR to within a step of `target`, and gives the last one.
    fn advance(&mut self, target: i64) -> i64 {
        let longest = match self.counts.first_dts {
            Some(_) => clock::LONGEST_PAUSE,
            None => clock::LONGEST_JOIN,
        };
        let last = self.pcr.filter(|pcr| (-clock::LONGEST_PAUSE..=longest).contains(&(target - pcr)));
        let mut pcr = last.unwrap_or(target);
        if last.is_none() {
            self.clock_reference(pcr, self.pcr.is_some());
        }
        while target - pcr > clock::STEP {
            pcr += clock::STEP;
            self.clock_reference(pcr, false);
        }
        pcr
    }

    fn clock_reference(&mut self, pcr: i64, discontinuity: bool) {
        self.psi(pcr);
        self.pcr = Some(pcr);
        let adaptation = Adaptation { pcr: Some(clock::stamp(pcr)), discontinuity, random_access: false };
        let pcr_track = self.pcr_track;
        let track = self.tracks.iter_mut().find(|t| t.id == pcr_track).expect("tracks are never taken away");
        packet::adaptation_only(&mut self.out, &mut track.pid, adaptation);
    }

    /// Writes PAT and PMT if they are due at a PCR.
    fn psi(&mut self, pcr: i64) {
        if self.psi_at.is_some_and(|at| (0..PSI_INTERVAL).contains(&(pcr - at))) {
            return;
        }
        self.psi_at = Some(pcr);
        self.psi_fresh = true;
        packet::section(&mut self.out, &mut self.pat, &self.pat_section);
        packet::section(&mut self.out, &mut self.pmt, &self.pmt_section);
    }

    fn pes(&mut self, index: usize, pts: i64, dts: i64, sample: &Sample, unit: &Unit, pcr: Option<i64>) {
        self.psi_fresh = false;
        let track = &mut self.tracks[index];
        let (pts, dts) = track.times.next(pts, dts);
        let (pts, dts) = (clock::stamp(pts), clock::stamp(dts));
        let mut adaptation = Adaptation { pcr: pcr.map(clock::stamp), ..Adaptation::default() };
        match (unit, &track.codec) {
            (Unit::Video { picture, key }, Codec::Avc(avc)) => {
                adaptation.random_access = *key;
                let size = picture.size(avc, *key);
                let header = pes::Header::new(pes::VIDEO, pts, dts, size);
                let len = header.bytes().len() + size;
                let mut packets = Packets::new(&mut self.out, &mut track.pid, adaptation, len);
                packets.put(header.bytes());
                picture.write(avc, *key, |part| match part {
                    Part::Own(bytes) => packets.put(bytes),
                    Part::Payload(bytes) => packets.put_payload(sample, bytes),
                });
                packets.end();
            }
            (Unit::Audio { header: adts }, _) => {
                adaptation.random_access = pcr.is_some();
                let size = sample.size as usize;
                let header = pes::Header::new(pes::AUDIO, pts, dts, adts.len() + size);
                let len = header.bytes().len() + adts.len() + size;
                let mut packets = Packets::new(&mut self.out, &mut track.pid, adaptation, len);
                packets.put(header.bytes());
                packets.put(adts);
                packets.put_payload(sample, 0..size);
                packets.end();
            }
            (Unit::Video { .. }, Codec::Aac(_)) => unreachable!("a unit comes from its track's codec"),
        }
    }

    fn set_pmt(&mut self, version: u8) {
        let streams: Vec<_> = self
            .tracks
            .iter()
            .map(|t| psi::Stream { stream_type: if t.is_video() { 0x1b } else { 0x0f }, pid: t.pid.number })
            .collect();
        self.pmt_section = psi::pmt(version, pid_of(self.pcr_track), &streams);
    }

    fn pids(&mut self) -> impl Iterator<Item = &mut Pid> {
        [&mut self.pat, &mut self.pmt].into_iter().chain(self.tracks.iter_mut().map(|t| &mut t.pid))
    }
}

impl Track {
    fn new(track: &reelwright_sdk::Track) -> Result<Self, Error> {
        let id = track.id;
        if !(1..=MAX_TRACK).contains(&id) {
            return Err(Error::unsupported(format!(
                "track {id}: there are PIDs for tracks 1 to {MAX_TRACK}"
            )));
        }
        let scale = Scale::new(track.timebase)
            .ok_or_else(|| Error::bad_input(format!("track {id}: a timebase with a 0 in it")))?;
        let codec = match track.codec.as_str() {
            "avc1" => Avc::new(&track.config).map(Codec::Avc).map_err(|e| Error::bad_input(e.to_string())),
            "mp4a" => Adts::new(&track.config).map(Codec::Aac),
            other => Err(Error::unsupported(format!("codec `{other}`; MPEG-TS gets avc1 and mp4a here"))),
        }
        .map_err(|e| Error { message: format!("track {id}: {}", e.message), ..e })?;
        Ok(Self {
            id,
            live: true,
            scale,
            codec,
            pid: Pid::new(pid_of(id)),
            last_dts: None,
            times: DecodeTimes::default(),
        })
    }

    fn is_video(&self) -> bool {
        matches!(self.codec, Codec::Avc(_))
    }
}

impl Counts {
    fn add(&mut self, unit: &Unit, dts: i64) {
        self.last_dts = self.first_dts.map_or(dts, |_| self.last_dts.max(dts));
        self.first_dts = Some(self.first_dts.map_or(dts, |first| first.min(dts)));
        match unit {
            Unit::Video { key, .. } => {
                self.video_frames += 1;
                self.keyframes += u64::from(*key);
            }
            Unit::Audio { .. } => self.audio_frames += 1,
        }
    }
}

fn pid_of(track: u32) -> u16 {
    psi::PMT_PID + u16::try_from(track).expect("ids are checked")
}
