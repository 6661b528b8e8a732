//! AAC in ADTS (ISO/IEC 14496-3, 1.A.2): a header of 7 bytes in front of each frame.
//!
//! The header says less than an AudioSpecificConfig. Explicit HE-AAC is written as its AAC-LC core, in which
//! decoders find the extension by themselves; what else has no place in the header is refused.

use reelwright_codec::aac::AudioSpecificConfig;
use reelwright_sdk::Error;

const HEADER: usize = 7;
/// Largest `aac_frame_length`, which has 13 bits and counts the header.
pub(crate) const MAX_FRAME: usize = (1 << 13) - 1;

/// The headers of a track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adts {
    /// A header with `aac_frame_length` 0.
    header: [u8; HEADER],
}

impl Adts {
    /// Reads an AudioSpecificConfig. Messages do not name the track.
    pub(crate) fn new(config: &[u8]) -> Result<Self, Error> {
        let config = AudioSpecificConfig::parse(config).map_err(|e| Error::bad_input(e.to_string()))?;
        let refuse = |what: String| {
            Err(Error::unsupported(format!(
                "AAC with {what} has no ADTS header for MPEG-TS; MP4 can hold it"
            )))
        };
        if !(1..=4).contains(&config.object_type) {
            return refuse(format!("object type {} (ADTS knows 1 to 4)", config.object_type));
        }
        if config.frame_length != 1024 {
            return refuse(format!("frames of {} samples (ADTS knows 1024)", config.frame_length));
        }
        let Some(frequency_index) = config.sampling_frequency_index else {
            return refuse(format!("a sampling rate of {} Hz (ADTS knows 13 rates)", config.sampling_rate));
        };
        let channels = config.channel_configuration;
        if !(1..=7).contains(&channels) {
            return refuse(format!("channel configuration {channels} (ADTS knows 1 to 7)"));
        }
        Ok(Self {
            header: [
                0xff, // syncword
                0xf1, // its last four bits, MPEG-4, no CRC
                (config.object_type - 1) << 6 | frequency_index << 2 | channels >> 2,
                (channels & 3) << 6,
                0x00,
                0x1f, // adts_buffer_fullness: variable rate
                0xfc, // … and one raw_data_block
            ],
        })
    }

    /// The header of a frame of `size` bytes, or `None` if that is too long for one.
    pub(crate) fn header(&self, size: usize) -> Option<[u8; HEADER]> {
        let length = (size + HEADER <= MAX_FRAME).then_some(size + HEADER)?;
        let mut header = self.header;
        header[3] |= (length >> 11) as u8;
        header[4] = (length >> 3) as u8;
        header[5] |= (length << 5) as u8;
        Some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_stereo_track() {
        let adts = Adts::new(&[0x11, 0x90, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!(adts.header(364), Some([0xff, 0xf1, 0x4c, 0x80, 0x2e, 0x7f, 0xfc]));
        assert_eq!(adts.header(8184), Some([0xff, 0xf1, 0x4c, 0x83, 0xff, 0xff, 0xfc]));
        assert_eq!(adts.header(8185), None);
    }

    #[test]
    fn seven_point_one_and_the_low_rates() {
        // AAC-LC, 7350 Hz, channel configuration 7.
        let adts = Adts::new(&[0x16, 0x38]).unwrap();
        assert_eq!(adts.header(1), Some([0xff, 0xf1, 0x71, 0xc0, 0x01, 0x1f, 0xfc]));
    }

    #[test]
    fn explicit_he_aac_is_its_core() {
        // Core AAC-LC at 24 kHz, extension at 48 kHz.
        let adts = Adts::new(&[0x2b, 0x11, 0x88]).unwrap();
        assert_eq!(adts.header(1).unwrap()[2], 0x58, "AAC-LC, 24 kHz");
    }

    #[test]
    fn what_a_header_cannot_say_is_refused() {
        let end = "has no ADTS header for MPEG-TS; MP4 can hold it";
        for (config, what) in [
            (&[0xf8, 0xe6, 0x20][..], "object type 39 (ADTS knows 1 to 4)"), // AAC-ELD
            (&[0x01, 0x90], "object type 0 (ADTS knows 1 to 4)"),
            (&[0x11, 0x94], "frames of 960 samples (ADTS knows 1024)"),
            (&[0x17, 0x80, 0x17, 0x70, 0x10], "a sampling rate of 12000 Hz (ADTS knows 13 rates)"),
            (&[0x11, 0x80], "channel configuration 0 (ADTS knows 1 to 7)"),
            (&[0x11, 0xd8], "channel configuration 11 (ADTS knows 1 to 7)"),
        ] {
            let error = Adts::new(config).unwrap_err();
            assert_eq!(error.code, "unsupported");
            assert_eq!(error.message, format!("AAC with {what} {end}"));
        }
        assert_eq!(Adts::new(&[]).unwrap_err().code, "bad-input");
    }
}
