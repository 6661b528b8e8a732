//! The PES packet header (ISO/IEC 13818-1, 2.4.3.6).

/// `stream_id` of the first video stream; the PID tells one from another.
pub(crate) const VIDEO: u8 = 0xe0;
/// `stream_id` of the first audio stream.
pub(crate) const AUDIO: u8 = 0xc0;

/// A header: 14 bytes, or 19 if DTS is not PTS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    bytes: [u8; 19],
    len: usize,
}

impl Header {
    /// The header of a PES packet with one access unit, which starts right after it. `pts` and `dts` have
    /// 33 bits. `PES_packet_length` counts an audio frame of `size` bytes, and is 0 for video.
    pub(crate) fn new(stream_id: u8, pts: u64, dts: u64, size: usize) -> Self {
        let both = pts != dts;
        let fields: u8 = if both { 10 } else { 5 };
        let length = match stream_id {
            VIDEO => 0,
            _ => u16::try_from(3 + usize::from(fields) + size).expect("an ADTS frame has 13 bits of length"),
        };
        let mut bytes = [0; 19];
        bytes[..4].copy_from_slice(&[0, 0, 1, stream_id]);
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes[6] = 0x84; // '10', data_alignment_indicator
        bytes[7] = if both { 0xc0 } else { 0x80 }; // PTS_DTS_flags
        bytes[8] = fields; // PES_header_data_length
        bytes[9..14].copy_from_slice(&time_stamp(if both { 3 } else { 2 }, pts));
        bytes[14..].copy_from_slice(&time_stamp(1, dts));
        Self { bytes, len: 9 + usize::from(fields) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// 33 bits in three parts, each closed by a marker bit.
fn time_stamp(prefix: u8, time: u64) -> [u8; 5] {
    [
        prefix << 4 | ((time >> 29) as u8 & 0x0e) | 1,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn video_at_the_wrap() {
        let header = Header::new(VIDEO, 3600, (1 << 33) - 3600, 100_000);
        #[rustfmt::skip]
        assert_eq!(header.bytes(), [
            0, 0, 1, 0xe0,
            0x00, 0x00, // PES_packet_length: not said
            0x84, 0xc0, // data_alignment_indicator; PTS and DTS
            10,
            0x31, 0x00, 0x01, 0x1c, 0x21, // PTS 3600
            0x1f, 0xff, 0xff, 0xe3, 0xe1, // DTS 2^33 - 3600
        ]);
    }

    #[test]
    fn audio_has_a_length() {
        let header = Header::new(AUDIO, 126_000, 126_000, 8191);
        #[rustfmt::skip]
        assert_eq!(header.bytes(), [
            0, 0, 1, 0xc0,
            0x20, 0x07, // 8 + 8191
            0x84, 0x80, // data_alignment_indicator; PTS alone
            5,
            0x21, 0x00, 0x07, 0xd8, 0x61, // PTS 126000
        ]);
    }
}
