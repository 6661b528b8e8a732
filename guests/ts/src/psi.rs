//! Program specific information: PAT and PMT (ISO/IEC 13818-1, 2.4.4), one section of one packet each.

/// PID of the program association table.
pub(crate) const PAT_PID: u16 = 0;
/// PID of the program map table; the elementary streams follow it.
pub(crate) const PMT_PID: u16 = 0x100;
/// Elementary streams that a PMT may list, so that it fits into one packet.
pub(crate) const MAX_STREAMS: usize = 32;

const PROGRAM_NUMBER: u16 = 1;
const TRANSPORT_STREAM_ID: u16 = 1;

/// One entry of the PMT's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) stream_type: u8,
    pub(crate) pid: u16,
}

/// The program association section: one program, and where its map is.
pub(crate) fn pat() -> Vec<u8> {
    let [program_high, program_low] = PROGRAM_NUMBER.to_be_bytes();
    let [pid_high, pid_low] = pid(PMT_PID);
    section(0x00, TRANSPORT_STREAM_ID, 0, &[program_high, program_low, pid_high, pid_low])
}

/// The program map section, `version` taken modulo 32.
pub(crate) fn pmt(version: u8, pcr_pid: u16, streams: &[Stream]) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + 5 * streams.len());
    body.extend_from_slice(&pid(pcr_pid));
    body.extend_from_slice(&[0xf0, 0x00]); // program_info_length
    for stream in streams {
        body.push(stream.stream_type);
        body.extend_from_slice(&pid(stream.pid));
        body.extend_from_slice(&[0xf0, 0x00]); // ES_info_length
    }
    section(0x02, PROGRAM_NUMBER, version, &body)
}

/// A PID behind three reserved bits.
fn pid(pid: u16) -> [u8; 2] {
    (0xe000 | pid).to_be_bytes()
}

fn section(table_id: u8, id_extension: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(5 + body.len() + 4).expect("a section that fits into a packet");
    let mut section = vec![table_id];
    section.extend_from_slice(&(0xb000 | length).to_be_bytes()); // section_syntax_indicator, section_length
    section.extend_from_slice(&id_extension.to_be_bytes());
    section.push(0xc1 | (version & 31) << 1); // version_number, current_next_indicator
    section.extend_from_slice(&[0x00, 0x00]); // section_number, last_section_number
    section.extend_from_slice(body);
    section.extend_from_slice(&crc_32(&section).to_be_bytes());
    section
}

/// The CRC of annex A. Sections are short and change seldom, so it goes bit by bit.
fn crc_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pat_bytes() {
        #[rustfmt::skip]
        assert_eq!(pat(), [
            0x00,       // table_id
            0xb0, 0x0d, // section_length
            0x00, 0x01, // transport_stream_id
            0xc1,       // version 0, current
            0x00, 0x00, // section_number, last_section_number
            0x00, 0x01, // program_number
            0xe1, 0x00, // program_map_PID
            0xe8, 0xf9, 0x5e, 0x7d, // CRC_32
        ]);
    }

    #[test]
    fn pmt_bytes() {
        let streams = [Stream { stream_type: 0x1b, pid: 0x101 }, Stream { stream_type: 0x0f, pid: 0x102 }];
        let section = pmt(33, 0x101, &streams);
        #[rustfmt::skip]
        assert_eq!(section[..section.len() - 4], [
            0x02,       // table_id
            0xb0, 0x17, // section_length
            0x00, 0x01, // program_number
            0xc3,       // version 33 modulo 32, current
            0x00, 0x00, // section_number, last_section_number
            0xe1, 0x01, // PCR_PID
            0xf0, 0x00, // program_info_length
            0x1b, 0xe1, 0x01, 0xf0, 0x00, // H.264
            0x0f, 0xe1, 0x02, 0xf0, 0x00, // AAC in ADTS
        ]);
        assert_eq!(crc_32(&section), 0, "the CRC over a section with its CRC is 0");
    }

    #[test]
    fn crc_of_the_usual_check_string() {
        assert_eq!(crc_32(b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn the_longest_pmt_fits_into_a_packet_with_a_small_adaptation_field() {
        let section = pmt(0, 0x101, &[Stream { stream_type: 0x0f, pid: 0x102 }; MAX_STREAMS]);
        assert!(section.len() < 182, "{} bytes", section.len());
    }
}
