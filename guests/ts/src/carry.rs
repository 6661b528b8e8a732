//! What a segment leaves to the next one of its run, so that the two can be joined.
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 4 | `tsc1` |
//! | 1 + 1 | `continuity_counter` of PAT and PMT |
//! | 1 + n | the program map section: length, bytes |
//! | 8 | the last PCR, in ticks of the run |
//! | 14 each | tracks: id, `continuity_counter`, 1 if it had a sample, DTS of the last sample in ticks of the run |

use crate::clock::FOREVER;

const MAGIC: &[u8] = b"tsc1";

/// State that goes on from segment to segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carry {
    pub(crate) pat_counter: u8,
    pub(crate) pmt_counter: u8,
    pub(crate) pmt: Vec<u8>,
    pub(crate) pcr: i64,
    pub(crate) tracks: Vec<Track>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) id: u32,
    pub(crate) counter: u8,
    pub(crate) last_dts: Option<i64>,
}

impl Carry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let pmt_len = u8::try_from(self.pmt.len()).expect("a program map section fits into a packet");
        bytes.extend_from_slice(&[self.pat_counter, self.pmt_counter, pmt_len]);
        bytes.extend_from_slice(&self.pmt);
        bytes.extend_from_slice(&self.pcr.to_be_bytes());
        for track in &self.tracks {
            bytes.extend_from_slice(&track.id.to_be_bytes());
            bytes.extend_from_slice(&[track.counter, u8::from(track.last_dts.is_some())]);
            bytes.extend_from_slice(&track.last_dts.unwrap_or(0).to_be_bytes());
        }
        bytes
    }

    /// `None` for what this version did not write.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let [pat_counter, pmt_counter, pmt_len] = take(&mut rest)?;
        let (pmt, tail) = rest.split_at_checked(usize::from(pmt_len))?;
        rest = tail;
        let pcr = time(&mut rest)?;
        let mut tracks = Vec::new();
        while !rest.is_empty() {
            let id = u32::from_be_bytes(take(&mut rest)?);
            let [counter, seen] = take(&mut rest)?;
            let last_dts = time(&mut rest)?;
            tracks.push(Track { id, counter, last_dts: (seen == 1).then_some(last_dts) });
        }
        Some(Self { pat_counter, pmt_counter, pmt: pmt.to_vec(), pcr, tracks })
    }
}

fn time(rest: &mut &[u8]) -> Option<i64> {
    let time = i64::from_be_bytes(take(rest)?);
    (-2 * FOREVER..=2 * FOREVER).contains(&time).then_some(time)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry() -> Carry {
        let track = |id, counter, last_dts| Track { id, counter, last_dts };
        Carry {
            pat_counter: 3,
            pmt_counter: 15,
            pmt: vec![2, 0xb0, 0x17],
            pcr: -63_000,
            tracks: vec![track(1, 0, Some(-5)), track(70_000, 7, None)],
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(Carry::decode(&carry().encode()), Some(carry()));
    }

    #[test]
    fn what_is_cut_or_foreign_is_nothing() {
        let bytes = carry().encode();
        let whole = bytes.len();
        for length in (0..whole).filter(|n| ![14, 28].contains(&(whole - n))) {
            assert_eq!(Carry::decode(&bytes[..length]), None, "{length} bytes");
        }
        let far = Carry { pcr: i64::MIN, ..carry() };
        assert_eq!(Carry::decode(&far.encode()), None);
        assert_eq!(Carry::decode(b"flv1 and more of it that is long enough"), None);
    }
}
