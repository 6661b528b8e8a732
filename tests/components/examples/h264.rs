//! A format that the server does not have: the pictures as an H.264 byte stream (ITU-T H.264, Annex B), with the
//! parameter sets at each key frame. The sound is left out.

use reelwright_sdk::{End, Error, Gather, Manifest, Output, Sample, Start, Summary, Writer, host};

#[derive(Debug)]
pub struct ByteStream {
    out: Output,
    video: u32,
    /// With start codes.
    parameter_sets: Vec<u8>,
    gather: Gather,
}

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).
fn parameter_sets(record: &[u8]) -> Option<Vec<u8>> {
    let mut sets = Vec::new();
    let mut rest = record.get(5..)?;
    for mask in [0x1f, 0xff] {
        let (&count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & mask {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (set, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            sets.extend_from_slice(&START_CODE);
            sets.extend_from_slice(set);
            rest = after;
        }
    }
    Some(sets)
}

impl Writer for ByteStream {
    fn describe() -> Manifest {
        Manifest::new("h264", "1.0.0", "h264", "video/h264").codecs(&["avc1", "mp4a"]).needs(&["payload"])
    }

    fn open(start: Start) -> Result<Self, Error> {
        let track = start.tracks.iter().find(|track| track.kind == "video");
        let track = track.ok_or_else(|| Error::unsupported("there are no pictures"))?;
        let parameter_sets = parameter_sets(&track.config)
            .ok_or_else(|| Error::bad_input("the AVCDecoderConfigurationRecord is cut short"))?;
        Ok(Self { out: host::create("", "main")?, video: track.id, parameter_sets, gather: Gather::new() })
    }

    fn write(&mut self, samples: &[Sample], payloads: &[u8]) -> Result<u64, Error> {
        let mut at = 0;
        for sample in samples {
            let payload = &payloads[at..at + sample.size as usize];
            at += payload.len();
            if sample.track != self.video {
                continue;
            }
            if sample.is_key() {
                self.gather.bytes(&self.parameter_sets);
            }
            let mut rest = payload;
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let length = (u32::from_be_bytes(*length) as usize).min(after.len());
                self.gather.bytes(&START_CODE);
                self.gather.bytes(&after[..length]);
                rest = &after[length..];
            }
        }
        self.gather.append_to(&self.out)?;
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }

    fn finish(self, _: End) -> Result<Summary, Error> {
        Ok(Summary::default())
    }
}

reelwright_sdk::export!(ByteStream);
