//! H.264 as a byte stream with start codes (ITU-T H.264, Annex B) where FLV wants ISO/IEC 14496-15: some
//! publishers send it so. Their sequence headers become AVCDecoderConfigurationRecords, their access units
//! length-prefixed ones.

use bytes::{BufMut, Bytes, BytesMut};
use reelwright_codec::{
    avc::AvcConfig,
    bits::BitReader,
    nal::{self, kind},
};

/// `lengthSizeMinusOne` + 1 of records that are made here.
const LENGTH_BYTES: u8 = 4;

/// A length-prefixed access unit that was made of a byte stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// The record of the parameter sets in it, if SPS and PPS are. They are no longer in `data`.
    pub(super) config: Option<Bytes>,
    pub(super) data: Bytes,
}

/// An AVCDecoderConfigurationRecord of a sequence header in Annex B form. `None` for anything else.
pub(super) fn record(header: &[u8]) -> Option<Bytes> {
    if !nal::is_annex_b(header) {
        return None;
    }
    let sets = |wanted| {
        let mut sets: Vec<&[u8]> = Vec::new();
        for unit in nal::annex_b(header).filter(|unit| nal::unit_type(unit) == wanted) {
            if !sets.contains(&unit) {
                sets.push(unit);
            }
        }
        sets
    };
    let (sps, pps) = (sets(kind::SPS), sets(kind::PPS));
    let &[_, profile_idc, compatibility, level_idc, ..] = *sps.first()? else { return None };
    if pps.is_empty() || sps.len() > 31 || pps.len() > 255 {
        return None;
    }
    let mut record = BytesMut::new();
    record.put_slice(&[
        1, // configurationVersion
        profile_idc,
        compatibility,
        level_idc,
        0xfc | (LENGTH_BYTES - 1),
        0xe0 | u8::try_from(sps.len()).ok()?,
    ]);
    let put = |sets: &[&[u8]], record: &mut BytesMut| {
        for set in sets {
            record.put_u16(u16::try_from(set.len()).ok()?);
            record.put_slice(set);
        }
        Some(())
    };
    put(&sps, &mut record)?;
    record.put_u8(u8::try_from(pps.len()).ok()?);
    put(&pps, &mut record)?;
    if let Some([chroma_format, luma, chroma]) = high_profile(sps[0]) {
        // Reserved bits are 1; no SPS extension.
        record.put_slice(&[0xfc | chroma_format, 0xf8 | luma, 0xf8 | chroma, 0]);
    }
    Some(record.freeze())
}

/// The access unit of a byte stream as a length-prefixed one, with lengths of `length_bytes` bytes. `None` for what
/// is length-prefixed as it is, or is no byte stream.
pub(super) fn unit(data: &[u8], length_bytes: u8) -> Option<Unit> {
    if !nal::is_annex_b(data) || nal::length_prefixed(data, length_bytes).all(|unit| unit.is_ok()) {
        return None;
    }
    // The types that the standard has for AVC; a length that looks like a start code is followed by anything.
    let known = |unit: &[u8]| unit[0] & 0x80 == 0 && matches!(nal::unit_type(unit), 1..=15 | 19..=21);
    if !nal::annex_b(data).all(known) {
        return None;
    }
    let config = record(data);
    let mut out = BytesMut::with_capacity(data.len() + 16);
    for unit in nal::annex_b(data) {
        let is_set = matches!(nal::unit_type(unit), kind::SPS | kind::PPS);
        if is_set && config.is_some() {
            continue;
        }
        let length = u32::try_from(unit.len()).ok()?.to_be_bytes();
        let (unused, length) = length.split_at(4 - usize::from(length_bytes));
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
        out.put_slice(length);
        out.put_slice(unit);
    }
    Some(Unit { config, data: out.freeze() })
}

/// Bytes of the lengths by a record; that of our own if it can't be read.
pub(super) fn length_bytes(record: &[u8]) -> u8 {
    AvcConfig::parse(record).map_or(LENGTH_BYTES, |config| config.length_size)
}

/// `chroma_format_idc`, `bit_depth_luma_minus8` and `bit_depth_chroma_minus8`, which the records of some profiles have
/// at their end.
fn high_profile(sps: &[u8]) -> Option<[u8; 3]> {
    let rbsp = nal::unescape(sps.get(1..)?);
    let mut r = BitReader::new("SPS", &rbsp);
    let profile_idc = r.bits(8).ok()?;
    if !matches!(profile_idc, 100 | 110 | 122 | 144 | 244) {
        return None;
    }
    r.skip(16).ok()?;
    r.ue().ok()?; // seq_parameter_set_id
    let chroma_format = r.ue().ok()?;
    if chroma_format == 3 {
        r.bit().ok()?; // separate_colour_plane_flag
    }
    let (luma, chroma) = (r.ue().ok()?, r.ue().ok()?);
    let small = |value: u32, max| u8::try_from(value).ok().filter(|value| *value <= max);
    Some([small(chroma_format, 3)?, small(luma, 7)?, small(chroma, 7)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FLVs of FFmpeg 5.1 with libx264: main profile, and high 4:4:4 predictive with its extension.
    const RECORDS: [&[u8]; 2] = [
        &[
            0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, // one SPS of 23 bytes
            0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80, 0x28, 0x02, 0xdd, 0x80, 0xb5, 0x01, 0x01, 0x01, 0x40, 0x00,
            0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, //
            0x01, 0x00, 0x04, 0x68, 0xeb, 0xef, 0x20, // one PPS
        ],
        &[
            0x01, 0xf4, 0x00, 0x0a, 0xff, 0xe1, 0x00, 0x18, // one SPS of 24 bytes
            0x67, 0xf4, 0x00, 0x0a, 0x91, 0x9b, 0x28, 0x8f, 0x60, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00,
            0x00, 0x03, 0x00, 0x28, 0x1e, 0x24, 0x4b, 0x2c, //
            0x01, 0x00, 0x06, 0x68, 0xef, 0x8f, 0x19, 0x21, 0x90, // one PPS
            0xff, 0xf8, 0xf8, 0x00, // chroma_format, bit depths, no SPS extension
        ],
    ];

    fn byte_stream(units: &[&[u8]], four: bool) -> Vec<u8> {
        let start: &[u8] = if four { &[0, 0, 0, 1] } else { &[0, 0, 1] };
        units.iter().flat_map(|unit| [start, unit].concat()).collect()
    }

    #[test]
    fn a_record_comes_back_from_its_byte_stream() {
        for expected in RECORDS {
            let config = AvcConfig::parse(expected).unwrap();
            for four in [false, true] {
                let stream = byte_stream(&[&config.sps[..], &config.pps[..]].concat(), four);
                assert_eq!(record(&stream).unwrap(), expected);
                // Said twice, with a delimiter before.
                let again = [byte_stream(&[&[9, 0xf0]], four), stream.clone(), stream].concat();
                assert_eq!(record(&again).unwrap(), expected);
            }
            assert_eq!(record(expected), None, "it is one already");
            assert_eq!(record(&byte_stream(&config.sps, true)), None, "no PPS");
        }
    }

    #[test]
    fn an_access_unit_is_length_prefixed_and_without_parameter_sets() {
        let config = AvcConfig::parse(RECORDS[0]).unwrap();
        let idr: &[u8] = &[0x65, 0x88, 0x84, 0x00, 0x33];
        let stream = byte_stream(&[&[9, 0xf0], config.sps[0], config.pps[0], idr, idr], true);
        for (length_bytes, prefix) in [(4, &[0, 0, 0][..]), (2, &[0]), (1, &[])] {
            let expected = [prefix, &[2, 9, 0xf0], prefix, &[5], idr, prefix, &[5], idr].concat();
            let unit = unit(&stream, length_bytes).unwrap();
            assert_eq!(unit.data, expected);
            assert_eq!(unit.config.unwrap(), RECORDS[0]);
        }
        // Without SPS the PPS stays.
        let found = unit(&byte_stream(&[config.pps[0], idr], true), 4).unwrap();
        assert_eq!((found.config, found.data.len()), (None, 4 + 4 + 4 + 5));
        // Too long for its length.
        let long = [&[0x65][..], &[1; 300]].concat();
        assert_eq!(unit(&byte_stream(&[&long], true), 1), None);
    }

    /// Lengths of 1 and of 256 to 511 look like start codes.
    #[test]
    fn what_is_length_prefixed_is_not_touched() {
        for length in [1usize, 256, 261, 300, 511] {
            let mut data = (length as u32).to_be_bytes().to_vec();
            data.push(0x41);
            data.resize(4 + length, 0xaa);
            assert!(nal::is_annex_b(&data) && unit(&data, 4).is_none(), "{length}");
            let twice = [&data[..], &data].concat();
            assert_eq!(unit(&twice, 4), None, "{length}");
        }
        assert_eq!(unit(&[0, 0, 0, 5, 0x65, 1, 2, 3, 4], 4), None);
        // Cut short, and not a byte stream either: type 30 does not exist.
        assert_eq!(unit(&[0, 0, 1, 0x1e, 0x41, 1, 2, 3], 4), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(mut data: Vec<u8>, start: bool, size in proptest::sample::select(vec![1u8, 2, 4])) {
            if start {
                data.splice(0..0, [0, 0, 0, 1]);
            }
            let _ = record(&data);
            let _ = unit(&data, size);
            let _ = length_bytes(&data);
        }
    }
}
