//! NAL units of H.264 in both forms in which they travel.
//!
//! - length-prefixed, as ISO/IEC 14496-15 stores access units (5.3.2);
//! - the byte stream format with start codes (ITU-T H.264, Annex B).

use crate::Error;

/// `nal_unit_type` values (ITU-T H.264, table 7-1).
pub mod kind {
    pub const SLICE: u8 = 1;
    pub const IDR: u8 = 5;
    pub const SEI: u8 = 6;
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const ACCESS_UNIT_DELIMITER: u8 = 9;
}

/// `nal_unit_type` of a NAL unit; 0 for an empty one.
pub fn unit_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// The NAL units of a length-prefixed access unit, `length_size` bytes (1, 2 or 4) each length.
///
/// Ends with an error where a length passes the end; units before it were good. Empty units are passed over.
pub fn length_prefixed(data: &[u8], length_size: u8) -> LengthPrefixed<'_> {
    LengthPrefixed { data, position: 0, length_size: usize::from(length_size) }
}

/// Iterator of [`length_prefixed`]; see [`LengthPrefixed::position`] for where a unit lies.
#[derive(Clone, Debug)]
pub struct LengthPrefixed<'a> {
    data: &'a [u8],
    position: usize,
    length_size: usize,
}

impl LengthPrefixed<'_> {
    /// Offset in the access unit of the byte after the unit given last.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = Result<&'a [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.data.get(self.position..).filter(|rest| !rest.is_empty())?;
            let unit = rest.split_at_checked(self.length_size).and_then(|(prefix, rest)| {
                let length = prefix.iter().fold(0, |length, &b| length << 8 | usize::from(b));
                rest.get(..length)
            });
            let Some(unit) = unit else {
                let message = format!(
                    "the length at byte {} passes the end of {} bytes",
                    self.position,
                    self.data.len()
                );
                self.position = self.data.len();
                return Some(Err(Error::new("NAL unit", message)));
            };
            self.position += self.length_size + unit.len();
            if !unit.is_empty() {
                return Some(Ok(unit));
            }
        }
    }
}

/// Whether the bytes begin with a start code of Annex B, three or four bytes long.
pub fn is_annex_b(data: &[u8]) -> bool {
    data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1])
}

/// The NAL units of an Annex B byte stream, without start codes and trailing zeros.
pub fn annex_b(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = Vec::new();
    let mut i = 0;
    while i + 3 <= data.len() {
        if data[i..i + 3] == [0, 0, 1] {
            starts.push(i + 3);
            i += 3;
        } else {
            i += 1;
        }
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|s| s - 3).chain(std::iter::once(data.len())).collect();
    starts.into_iter().zip(ends).filter_map(|(start, end)| {
        let unit = &data[start..end];
        let zeros = unit.iter().rev().take_while(|&&b| b == 0).count();
        let unit = &unit[..unit.len() - zeros];
        (!unit.is_empty()).then_some(unit)
    })
}

/// Removes the emulation prevention bytes of a NAL unit, giving its RBSP (ITU-T H.264, 7.3.1).
pub fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut rbsp = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        rbsp.push(byte);
    }
    rbsp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_length_sizes() {
        for size in [1u8, 2, 4] {
            let mut data = Vec::new();
            for unit in [&[0x67, 1][..], &[], &[0x65, 2, 3]] {
                data.extend_from_slice(&(unit.len() as u32).to_be_bytes()[4 - usize::from(size)..]);
                data.extend_from_slice(unit);
            }
            let units: Vec<_> = length_prefixed(&data, size).map(Result::unwrap).collect();
            assert_eq!(units, [&[0x67, 1][..], &[0x65, 2, 3]], "length size {size}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_after_the_good_units() {
        let data = [0, 0, 0, 1, 0x65, 0, 0, 0, 9, 0x41];
        let mut units = length_prefixed(&data, 4);
        assert_eq!(units.next().unwrap().unwrap(), [0x65]);
        let error = units.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "NAL unit: the length at byte 5 passes the end of 10 bytes");
        assert!(units.next().is_none());
    }

    #[test]
    fn annex_b_takes_both_start_codes_and_drops_trailing_zeros() {
        let data = [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 3, 0, 0];
        let units: Vec<_> = annex_b(&data).collect();
        assert_eq!(units, [&[0x67, 1][..], &[0x68, 2], &[0x65, 3]]);
        assert!(is_annex_b(&data) && is_annex_b(&data[1..]) && !is_annex_b(&data[2..]));
    }

    #[test]
    fn unescape_takes_out_only_prevention_bytes() {
        assert_eq!(unescape(&[0, 0, 3, 1, 3, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 3, 0, 0, 0, 0]);
    }
}
