//! H.264 access units as MPEG-TS carries them: the byte stream format (ITU-T H.264, Annex B; ISO/IEC 13818-1,
//! 2.14.1).
//!
//! Each access unit begins with an access unit delimiter, and one that can be joined at has its parameter
//! sets. What is there already stays where it is; what is missing is added. All start codes have four bytes.

use std::ops::Range;

use reelwright_codec::Error;
use reelwright_codec::avc::AvcConfig;
use reelwright_codec::nal::{self, Located, kind};

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// A delimiter that says nothing of the slices to come.
const DELIMITER: &[u8] = &[0x09, 0xf0];

/// What a track's AVCDecoderConfigurationRecord says.
#[derive(Clone, Debug)]
pub(crate) struct Avc {
    length_size: u8,
    /// The sets in Annex B, start codes included.
    sps: Vec<u8>,
    pps: Vec<u8>,
}

impl Avc {
    pub(crate) fn new(config: &[u8]) -> Result<Self, Error> {
        let config = AvcConfig::parse(config)?;
        let byte_stream =
            |sets: &[&[u8]]| sets.iter().flat_map(|set| START_CODE.iter().chain(*set)).copied().collect();
        Ok(Self {
            length_size: config.length_size,
            sps: byte_stream(&config.sps),
            pps: byte_stream(&config.pps),
        })
    }
}

/// The NAL units of a sample, and what has to be known before the first one is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessUnit {
    /// The good ones.
    units: Vec<Located>,
    /// The delimiter that it came with.
    delimiter: Option<Range<usize>>,
    sps: bool,
    pps: bool,
    /// Whether it holds an IDR picture.
    pub(crate) idr: bool,
    /// What is wrong after the last of the NAL units.
    pub(crate) damage: Option<Error>,
}

/// What an access unit is put together of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Own(&'a [u8]),
    /// Of the sample's payload.
    Payload(Range<usize>),
}

impl Part<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Payload(range) => range.len(),
        }
    }
}

impl AccessUnit {
    /// Reads a sample of `size` bytes. One that is broken as the configuration has it, but begins with a start code, is
    /// taken for the Annex B that some publishers send; in that order, because a length of 256 to 511
    /// in four bytes begins like a start code. `start` is how the payload begins, or nothing; `read` gives payload from an
    /// offset on, fewer bytes at its end.
    pub(crate) fn read<E>(
        avc: &Avc,
        size: usize,
        start: &[u8],
        mut read: impl FnMut(usize, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let (mut units, mut damage) = nal::locate(size, avc.length_size, start, &mut read)?;
        let is_broken = damage.is_some() && units.len() < nal::MAX_UNITS;
        if is_broken && nal::is_annex_b(&read(0, START_CODE.len())?) {
            (units, damage) = (between_start_codes(&read(0, size)?), None);
        }
        let mut found = Self { units, delimiter: None, sps: false, pps: false, idr: false, damage };
        let mut slices = false;
        for unit in &found.units {
            match unit.unit_type {
                kind::ACCESS_UNIT_DELIMITER if !slices => found.delimiter = Some(unit.bytes.clone()),
                kind::SPS => found.sps = true,
                kind::PPS => found.pps = true,
                kind::IDR => (found.idr, slices) = (true, true),
                1..kind::IDR => slices = true,
                _ => {}
            }
        }
        Ok(found)
    }

    /// Number of NAL units.
    pub(crate) fn count(&self) -> usize {
        self.units.len()
    }

    /// Bytes that [`AccessUnit::write`] gives.
    pub(crate) fn size(&self, avc: &Avc, key: bool) -> usize {
        let mut size = 0;
        self.write(avc, key, |part| size += part.len());
        size
    }

    /// Gives the access unit's bytes, in order. With `key`, the parameter sets that it lacks come from `avc`:
    /// after the delimiter and its own SPS, before everything else.
    pub(crate) fn write<'a>(&self, avc: &'a Avc, key: bool, mut put: impl FnMut(Part<'a>)) {
        put(Part::Own(&START_CODE));
        put(self.delimiter.clone().map_or(Part::Own(DELIMITER), Part::Payload));
        let mut sets_due = key && !(self.sps && self.pps);
        let mut slices = false;
        for unit in &self.units {
            // One delimiter is there. After a slice it begins the second field of a frame.
            if unit.unit_type == kind::ACCESS_UNIT_DELIMITER && !slices {
                continue;
            }
            if sets_due && unit.unit_type != kind::SPS {
                sets_due = false;
                put(Part::Own(if self.sps { &[] } else { &avc.sps }));
                put(Part::Own(if self.pps { &[] } else { &avc.pps }));
            }
            slices |= (kind::SLICE..=kind::IDR).contains(&unit.unit_type);
            put(Part::Own(&START_CODE));
            put(Part::Payload(unit.bytes.clone()));
        }
    }
}

/// The NAL units of a sample in Annex B.
fn between_start_codes(data: &[u8]) -> Vec<Located> {
    let place = |unit: &[u8]| {
        let start = unit.as_ptr().addr() - data.as_ptr().addr();
        Located { unit_type: nal::unit_type(unit), bytes: start..start + unit.len() }
    };
    nal::annex_b(data).take(nal::MAX_UNITS).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 0x4d, 0x40, 0x1f];
    const PPS: &[u8] = &[0x68, 0xeb, 0xef];
    const OWN_SPS: &[u8] = &[0x67, 0x64, 0x00, 0x28];
    const OWN_PPS: &[u8] = &[0x68, 0xee, 0x3c];
    const OWN_AUD: &[u8] = &[0x09, 0x10];
    const SEI: &[u8] = &[0x06, 0x05, 0x01, 0xaa, 0x80];
    const IDR: &[u8] = &[0x65, 0x88, 0x84];
    const SLICE: &[u8] = &[0x41, 0x9a];

    fn avc(length_size: u8) -> Avc {
        let mut record = vec![1, 0x4d, 0x40, 0x1f, 0xfc | (length_size - 1), 0xe1, 0, SPS.len() as u8];
        record.extend_from_slice(SPS);
        record.extend_from_slice(&[1, 0, PPS.len() as u8]);
        record.extend_from_slice(PPS);
        Avc::new(&record).unwrap()
    }

    fn sample(length_size: u8, units: &[&[u8]]) -> Vec<u8> {
        let mut sample = Vec::new();
        for unit in units {
            sample.extend_from_slice(&(unit.len() as u32).to_be_bytes()[4 - usize::from(length_size)..]);
            sample.extend_from_slice(unit);
        }
        sample
    }

    fn byte_stream(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&START_CODE, *unit].concat()).collect()
    }

    fn read(avc: &Avc, data: &[u8]) -> AccessUnit {
        let read = |offset: usize, len| {
            let end = data.len().min(offset + len);
            Ok::<_, std::convert::Infallible>(data[offset..end].to_vec())
        };
        let unit = AccessUnit::read(avc, data.len(), &[], read).unwrap();
        for known in [3, 64, data.len()] {
            let start = &data[..known.min(data.len())];
            assert_eq!(AccessUnit::read(avc, data.len(), start, read).unwrap(), unit, "{known} bytes known");
        }
        unit
    }

    fn written(avc: &Avc, data: &[u8]) -> Vec<u8> {
        let unit = read(avc, data);
        let mut out = Vec::new();
        unit.write(avc, unit.idr, |part| match part {
            Part::Own(bytes) => out.extend_from_slice(bytes),
            Part::Payload(range) => out.extend_from_slice(&data[range]),
        });
        assert_eq!(out.len(), unit.size(avc, unit.idr));
        out
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_there_stays() {
        type Units = &'static [&'static [u8]];
        let table: &[(Units, Units)] = &[
            (&[SLICE], &[DELIMITER, SLICE]),
            (&[SEI, IDR], &[DELIMITER, SPS, PPS, SEI, IDR]),
            (&[OWN_AUD, SEI, IDR, IDR], &[OWN_AUD, SPS, PPS, SEI, IDR, IDR]),
            (&[OWN_SPS, OWN_PPS, IDR], &[DELIMITER, OWN_SPS, OWN_PPS, IDR]),
            (&[OWN_AUD, OWN_SPS, OWN_PPS, SEI, IDR], &[OWN_AUD, OWN_SPS, OWN_PPS, SEI, IDR]),
            // One of the two sets: the other one is added where a decoder can use it.
            (&[OWN_SPS, SEI, IDR], &[DELIMITER, OWN_SPS, PPS, SEI, IDR]),
            (&[OWN_PPS, IDR], &[DELIMITER, SPS, OWN_PPS, IDR]),
            // A delimiter in the wrong place, and the one of a second field.
            (&[SEI, OWN_AUD, SLICE], &[OWN_AUD, SEI, SLICE]),
            (&[OWN_AUD, SLICE, OWN_AUD, SLICE], &[OWN_AUD, SLICE, OWN_AUD, SLICE]),
            // Parameter sets in between go through.
            (&[OWN_PPS, SLICE], &[DELIMITER, OWN_PPS, SLICE]),
        ];
        for (units, expected) in table {
            for length_size in [1, 2, 4] {
                let avc = avc(length_size);
                assert_eq!(written(&avc, &sample(length_size, units)), byte_stream(expected), "{units:02x?}");
            }
            assert_eq!(written(&avc(4), &byte_stream(units)), byte_stream(expected), "Annex B, {units:02x?}");
        }
    }

    #[test]
    fn a_length_that_looks_like_a_start_code_is_a_length() {
        let long = [&[0x41][..], &[0x9a; 299]].concat();
        let data = sample(4, &[&long, SLICE]);
        assert!(nal::is_annex_b(&data));
        assert_eq!(written(&avc(4), &data), byte_stream(&[DELIMITER, &long, SLICE]));
    }

    #[test]
    fn good_units_before_the_damage_are_kept() {
        let avc = avc(4);
        let mut data = sample(4, &[SEI, IDR]);
        data.extend_from_slice(&[0, 0, 0, 9, 0x65]);
        let unit = read(&avc, &data);
        assert_eq!((unit.count(), unit.idr), (2, true));
        let damage = unit.damage.clone().unwrap().to_string();
        assert_eq!(damage, "NAL unit: the length at byte 16 passes the end of 21 bytes");
        assert_eq!(written(&avc, &data), byte_stream(&[DELIMITER, SPS, PPS, SEI, IDR]));
        assert_eq!(read(&avc, &[0, 0, 9, 9, 1]).count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(data in proptest::collection::vec(proptest::num::u8::ANY, 0..64), key: bool) {
            for length_size in [1, 2, 4] {
                let avc = avc(length_size);
                read(&avc, &data).size(&avc, key);
            }
        }
    }
}
