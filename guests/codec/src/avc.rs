//! H.264: AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1) and what a recorder needs of a
//! sequence parameter set (ITU-T H.264, 7.3.2.1.1).

use crate::{Error, bits::BitReader, nal};

const RECORD: &str = "AVCDecoderConfigurationRecord";

/// A parsed AVCDecoderConfigurationRecord. Its extension for high profiles is not needed and not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig<'a> {
    pub profile_indication: u8,
    pub profile_compatibility: u8,
    pub level_indication: u8,
    /// Bytes of the length in front of each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    pub sps: Vec<&'a [u8]>,
    pub pps: Vec<&'a [u8]>,
}

impl<'a> AvcConfig<'a> {
    /// Reads a record. Refused are another version than 1, a length size of 3, and a set that is cut
    /// short, empty, or missing (no SPS or no PPS).
    pub fn parse(record: &'a [u8]) -> Result<Self, Error> {
        let cut = || Error::new(RECORD, format!("cut short at {} bytes", record.len()));
        let [version, profile_indication, profile_compatibility, level_indication, size, rest @ ..] = record
        else {
            return Err(cut());
        };
        if *version != 1 {
            return Err(Error::new(RECORD, format!("configurationVersion is {version}, not 1")));
        }
        let length_size = (size & 3) + 1;
        if length_size == 3 {
            return Err(Error::new(RECORD, "lengthSizeMinusOne is 2, legal are 0, 1 and 3"));
        }
        let mut rest = rest;
        let mut sets = |mask: u8| -> Result<Vec<&'a [u8]>, Error> {
            let (&count, mut tail) = rest.split_first().ok_or_else(cut)?;
            let mut sets = Vec::new();
            for _ in 0..count & mask {
                let (length, after) = tail.split_at_checked(2).ok_or_else(cut)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                let (set, after) = after.split_at_checked(length).ok_or_else(cut)?;
                if set.is_empty() {
                    return Err(Error::new(RECORD, "an empty parameter set"));
                }
                sets.push(set);
                tail = after;
            }
            rest = tail;
            Ok(sets)
        };
        let sps = sets(0x1f)?;
        let pps = sets(0xff)?;
        if sps.is_empty() || pps.is_empty() {
            return Err(Error::new(
                RECORD,
                format!("{} SPS and {} PPS, at least one of each is needed", sps.len(), pps.len()),
            ));
        }
        Ok(Self {
            profile_indication: *profile_indication,
            profile_compatibility: *profile_compatibility,
            level_indication: *level_indication,
            length_size,
            sps,
            pps,
        })
    }
}

/// What a recorder needs of a sequence parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    pub profile_idc: u8,
    pub level_idc: u8,
    /// Size of the cropped picture in luma samples.
    pub width: u32,
    pub height: u32,
    /// Shape of a luma sample, width to height; `(1, 1)` where it is not said.
    pub sample_aspect_ratio: (u16, u16),
}

impl Sps {
    /// Reads a NAL unit of type 7, header byte and emulation prevention included. Sizes over 16,384 are refused.
    pub fn parse(nal: &[u8]) -> Result<Self, Error> {
        const SPS: &str = "SPS";
        if nal::unit_type(nal) != nal::kind::SPS {
            return Err(Error::new(SPS, format!("nal_unit_type is {}", nal::unit_type(nal))));
        }
        let rbsp = nal::unescape(&nal[1..]);
        let mut r = BitReader::new(SPS, &rbsp);
        let profile_idc = r.bits(8)? as u8;
        r.skip(8)?;
        let level_idc = r.bits(8)? as u8;
        r.ue()?; // seq_parameter_set_id
        let mut chroma_format_idc = 1;
        let mut separate_colour_plane = false;
        if matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            chroma_format_idc = r.ue()?;
            if chroma_format_idc > 3 {
                return Err(Error::new(SPS, format!("chroma_format_idc is {chroma_format_idc}")));
            }
            if chroma_format_idc == 3 {
                separate_colour_plane = r.bit()?;
            }
            r.ue()?; // bit_depth_luma_minus8
            r.ue()?; // bit_depth_chroma_minus8
            r.bit()?; // qpprime_y_zero_transform_bypass_flag
            if r.bit()? {
                for list in 0..if chroma_format_idc == 3 { 12 } else { 8 } {
                    if r.bit()? {
                        skip_scaling_list(&mut r, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        r.ue()?; // log2_max_frame_num_minus4
        match r.ue()? {
            0 => drop(r.ue()?), // log2_max_pic_order_cnt_lsb_minus4
            1 => {
                r.bit()?; // delta_pic_order_always_zero_flag
                r.se()?; // offset_for_non_ref_pic
                r.se()?; // offset_for_top_to_bottom_field
                for _ in 0..r.ue()?.min(255) {
                    r.se()?; // offset_for_ref_frame
                }
            }
            _ => {}
        }
        r.ue()?; // max_num_ref_frames
        r.bit()?; // gaps_in_frame_num_value_allowed_flag
        let width_mbs = u64::from(r.ue()?) + 1;
        let height_map_units = u64::from(r.ue()?) + 1;
        let frame_mbs_only = r.bit()?;
        if !frame_mbs_only {
            r.bit()?; // mb_adaptive_frame_field_flag
        }
        r.bit()?; // direct_8x8_inference_flag
        let mut crop = [0u64; 4];
        if r.bit()? {
            for side in &mut crop {
                *side = u64::from(r.ue()?);
            }
        }
        let field_factor = if frame_mbs_only { 1 } else { 2 };
        // Table 6-1: chroma subsampling gives the unit of the cropping offsets.
        let (unit_x, unit_y) = match (chroma_format_idc, separate_colour_plane) {
            (1, _) => (2, 2 * field_factor),
            (2, _) => (2, field_factor),
            _ => (1, field_factor),
        };
        let width = (width_mbs * 16).checked_sub((crop[0] + crop[1]) * unit_x);
        let height = (height_map_units * 16 * field_factor).checked_sub((crop[2] + crop[3]) * unit_y);
        let (Some(width @ 1..=16_384), Some(height @ 1..=16_384)) = (width, height) else {
            return Err(Error::new(
                SPS,
                format!("a picture of {width_mbs} by {height_map_units} macroblocks, cropped {crop:?}"),
            ));
        };
        Ok(Self {
            profile_idc,
            level_idc,
            width: width as u32,
            height: height as u32,
            // The VUI is optional, and not worth refusing a picture size for.
            sample_aspect_ratio: aspect_ratio(&mut r).ok().flatten().unwrap_or((1, 1)),
        })
    }
}

fn skip_scaling_list(r: &mut BitReader<'_>, size: usize) -> Result<(), Error> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(r.se()?)).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

/// `aspect_ratio_idc` of the VUI (Annex E, table E-1).
fn aspect_ratio(r: &mut BitReader<'_>) -> Result<Option<(u16, u16)>, Error> {
    const RATIOS: [(u16, u16); 16] = [
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    if !r.bit()? || !r.bit()? {
        return Ok(None);
    }
    Ok(match r.bits(8)? as usize {
        idc @ 1..=16 => Some(RATIOS[idc - 1]),
        255 => Some((r.bits(16)? as u16, r.bits(16)? as u16)).filter(|&(w, h)| w > 0 && h > 0),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// libx264, 1280x720, main profile, from an FLV of FFmpeg 5.1.
    const RECORD_720P: &[u8] = &[
        0x01, // configurationVersion
        0x4d, 0x40, 0x1f, // AVCProfileIndication, profile_compatibility, AVCLevelIndication
        0xff, // lengthSizeMinusOne = 3
        0xe1, // one SPS
        0x00, 0x17, //
        0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80, 0x28, 0x02, 0xdd, 0x80, 0xb5, 0x01, 0x01, 0x01, 0x40, 0x00, 0x00,
        0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, //
        0x01, // one PPS
        0x00, 0x04, 0x68, 0xeb, 0xef, 0x20,
    ];

    #[test]
    fn reads_a_record_of_libx264() {
        let config = AvcConfig::parse(RECORD_720P).unwrap();
        assert_eq!((config.profile_indication, config.level_indication), (77, 31));
        assert_eq!(config.length_size, 4);
        assert_eq!(config.pps, [&[0x68, 0xeb, 0xef, 0x20]]);
        let sps = Sps::parse(config.sps[0]).unwrap();
        assert_eq!((sps.width, sps.height), (1280, 720));
        assert_eq!((sps.profile_idc, sps.level_idc), (77, 31));
        assert_eq!(sps.sample_aspect_ratio, (1, 1));
    }

    #[test]
    fn every_truncation_is_an_error() {
        for length in 0..RECORD_720P.len() {
            assert!(AvcConfig::parse(&RECORD_720P[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let with = |at: usize, byte: u8| {
            let mut record = RECORD_720P.to_vec();
            record[at] = byte;
            AvcConfig::parse(&record).unwrap_err().to_string()
        };
        assert!(with(0, 0).contains("configurationVersion is 0"));
        assert!(with(4, 0xfe).contains("lengthSizeMinusOne is 2"));
        assert!(with(31, 0).contains("1 SPS and 0 PPS"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = AvcConfig::parse(&bytes);
            let mut sps = vec![0x67];
            sps.extend_from_slice(&bytes);
            let _ = Sps::parse(&sps);
        }
    }
}
