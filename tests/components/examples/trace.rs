//! A format that does all right and writes down what it was given, a line a call or sample: what the
//! host promises (order, times, keys, freed numbers) can be read from its file.
//!
//! `open` and `update-tracks` list the tracks, a sample's line says what its header says and sums up its
//! payload, which it reads by `read-sample`. It asks for the beginnings of payloads as well, and refuses a wrong one.

use reelwright_sdk::{End, Error, Manifest, Sample, Start, Summary, Track, Writer, host, with_starts};
use reelwright_test_components::{Raw, manifest};

/// Some samples are shorter.
const START: u16 = 300;

#[derive(Debug)]
pub struct Trace(Raw);

impl Trace {
    fn tracks(&mut self, tracks: &[Track]) -> Result<(), Error> {
        for t in tracks {
            let (num, den) = (t.timebase.num, t.timebase.den);
            self.0.line(format_args!(
                "track {} kind={} codec={} timebase={num}/{den} config={:02x?}",
                t.id, t.kind, t.codec, t.config
            ))?;
        }
        Ok(())
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Writer for Trace {
    fn describe() -> Manifest {
        manifest("trace", "1.0.0").payload_start(START)
    }

    fn open(start: Start) -> Result<Self, Error> {
        let mut trace = Self(Raw::open()?);
        trace.0.line(format_args!(
            "open segment={} epoch-us={} origin-ms={} carry={}",
            start.segment,
            start.epoch_us,
            start.origin_ms,
            start.carry.len()
        ))?;
        trace.tracks(&start.tracks)?;
        Ok(trace)
    }

    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        self.0.line("update-tracks")?;
        self.tracks(&tracks)?;
        Ok(true)
    }

    fn write(&mut self, samples: &[Sample], payloads: &[u8]) -> Result<u64, Error> {
        let starts: usize = samples.iter().map(|s| s.size.min(START.into()) as usize).sum();
        if payloads.len() != starts {
            return Err(Error::bad_input(format!("{} bytes of starts, not {starts}", payloads.len())));
        }
        for (s, start) in with_starts(samples, payloads, START) {
            let payload = host::read_sample(s.seq, 0, s.size)?;
            if start != &payload[..payload.len().min(START.into())] {
                return Err(Error::bad_input(format!("sample {} does not begin with {start:02x?}", s.seq)));
            }
            self.0.line(format_args!(
                "sample {} track={} dts={} pts={} size={} bits={} sum={:016x}",
                s.seq,
                s.track,
                s.dts,
                s.pts,
                s.size,
                s.bits,
                checksum(&payload)
            ))?;
        }
        Ok(samples.last().map_or(0, |s| s.seq + 1))
    }

    fn finish(mut self, end: End) -> Result<Summary, Error> {
        self.0.line(format_args!("finish reason={}", end.reason))?;
        for t in end.tracks {
            self.0.line(format_args!("end track={} dts={}", t.track, t.dts))?;
        }
        Ok(Summary { carry: b"carried".to_vec(), ..Summary::default() }.property("traced", "1"))
    }
}

reelwright_sdk::export!(Trace);
