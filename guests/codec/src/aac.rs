//! AAC: AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1).

use crate::{Error, bits::BitReader};

const CONFIG: &str = "AudioSpecificConfig";

/// Sampling rates by `samplingFrequencyIndex` (table 1.18), in Hz.
pub const SAMPLING_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// What a recorder needs of an AudioSpecificConfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Object type of the core coder: 2 is AAC-LC. For explicit HE-AAC (5, 29) that of its core.
    pub object_type: u8,
    /// Rate of the core coder, in Hz, 1 or more.
    pub sampling_rate: u32,
    /// Index of that rate in [`SAMPLING_RATES`]; `None` for a rate that is written out.
    pub sampling_frequency_index: Option<u8>,
    /// `channelConfiguration`, 0 to 15; 0: a program config element says it.
    pub channel_configuration: u8,
    /// Samples a frame of the core coder, for each channel: 1,024 or 960.
    pub frame_length: u16,
    /// Rate after spectral band replication, if it is signalled explicitly (HE-AAC), in Hz.
    pub extension_sampling_rate: Option<u32>,
    /// Whether parametric stereo is signalled explicitly (HE-AAC v2).
    pub parametric_stereo: bool,
}

impl AudioSpecificConfig {
    /// Reads a configuration. Refused: cut short, a reserved rate, a rate of 0. What follows
    /// `frameLengthFlag` is not read (but for the backward compatible SBR extension).
    pub fn parse(config: &[u8]) -> Result<Self, Error> {
        let mut r = BitReader::new(CONFIG, config);
        let mut object_type = audio_object_type(&mut r)?;
        let (sampling_rate, sampling_frequency_index) = rate(&mut r)?;
        let channel_configuration = r.bits(4)? as u8;
        let mut extension_sampling_rate = None;
        let parametric_stereo = object_type == 29;
        if matches!(object_type, 5 | 29) {
            extension_sampling_rate = Some(rate(&mut r)?.0);
            object_type = audio_object_type(&mut r)?;
        }
        // GASpecificConfig begins with frameLengthFlag; other object types have none.
        let general_audio = matches!(object_type, 1..=4 | 6 | 7 | 17 | 19..=23);
        let short = general_audio && r.bit()?;
        Ok(Self {
            object_type,
            sampling_rate,
            sampling_frequency_index,
            channel_configuration,
            frame_length: if short { 960 } else { 1024 },
            extension_sampling_rate,
            parametric_stereo,
        })
    }

    /// Number of channels by table 1.19; `None` where the table does not say (0 and reserved ones).
    pub fn channels(&self) -> Option<u8> {
        match self.channel_configuration {
            n @ 1..=6 => Some(n),
            7 | 12 | 14 => Some(8),
            11 => Some(7),
            13 => Some(24),
            _ => None,
        }
    }
}

fn audio_object_type(r: &mut BitReader<'_>) -> Result<u8, Error> {
    let object_type = match r.bits(5)? {
        31 => 32 + r.bits(6)?,
        object_type => object_type,
    };
    Ok(object_type as u8)
}

fn rate(r: &mut BitReader<'_>) -> Result<(u32, Option<u8>), Error> {
    let index = r.bits(4)?;
    if index == 15 {
        return match r.bits(24)? {
            0 => Err(Error::new(CONFIG, "samplingFrequency is 0")),
            rate => Ok((rate, None)),
        };
    }
    match SAMPLING_RATES.get(index as usize) {
        Some(&rate) => Ok((rate, Some(index as u8))),
        None => Err(Error::new(CONFIG, format!("samplingFrequencyIndex {index} is reserved"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_configurations_of_real_encoders() {
        // FFmpeg's AAC-LC, 48 kHz stereo, with its sync extension.
        let lc = AudioSpecificConfig::parse(&[0x11, 0x90, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!((lc.object_type, lc.sampling_rate), (2, 48_000));
        assert_eq!((lc.sampling_frequency_index, lc.channels()), (Some(3), Some(2)));
        assert_eq!((lc.frame_length, lc.extension_sampling_rate), (1024, None));

        // 44.1 kHz mono.
        let mono = AudioSpecificConfig::parse(&[0x12, 0x08]).unwrap();
        assert_eq!((mono.sampling_rate, mono.channels()), (44_100, Some(1)));

        // Explicit HE-AAC: object type 5, core 24 kHz, extension 48 kHz, core AAC-LC.
        // 00101 0110 0010 0011 00010 0 0 0 -> 0010 1011 0001 0001 1000 1000
        let he = AudioSpecificConfig::parse(&[0x2b, 0x11, 0x88]).unwrap();
        assert_eq!((he.object_type, he.sampling_rate), (2, 24_000));
        assert_eq!(he.extension_sampling_rate, Some(48_000));

        // 960-sample frames: 00010 0011 0010 1
        let short = AudioSpecificConfig::parse(&[0x11, 0x94]).unwrap();
        assert_eq!(short.frame_length, 960);
    }

    #[test]
    fn bad_ones_are_named() {
        let error = |bytes: &[u8]| AudioSpecificConfig::parse(bytes).unwrap_err().to_string();
        assert_eq!(error(&[]), "AudioSpecificConfig: ends at byte 0");
        assert_eq!(error(&[0x16, 0x90]), "AudioSpecificConfig: samplingFrequencyIndex 13 is reserved");
        assert_eq!(error(&[0x17, 0x80, 0, 0, 0x10]), "AudioSpecificConfig: samplingFrequency is 0");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..16)) {
            if let Ok(config) = AudioSpecificConfig::parse(&bytes) {
                proptest::prop_assert!(config.sampling_rate > 0);
            }
        }
    }
}
