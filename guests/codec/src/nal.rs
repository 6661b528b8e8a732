//! NAL units of H.264 in both forms in which they travel.
//!
//! - length-prefixed, as ISO/IEC 14496-15 stores access units (5.3.2);
//! - the byte stream format with start codes (ITU-T H.264, Annex B).

use std::ops::Range;

use crate::Error;

/// Bytes of an access unit in which [`locate`] mostly finds all heads, and which it reads at once where it does not.
pub const START: u16 = 64;
/// The same at most, when there are many units.
const MAX_READ: usize = 4 << 10;
/// NAL units of an access unit that are told apart, far more than encoders make of it: a list of them has an end.
pub const MAX_UNITS: usize = 1 << 14;

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

/// Iterator of [`length_prefixed`].
#[derive(Debug)]
pub struct LengthPrefixed<'a> {
    data: &'a [u8],
    position: usize,
    length_size: usize,
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = Result<&'a [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.data.get(self.position..).filter(|rest| !rest.is_empty())?;
            let unit = behind(rest.get(..self.length_size), self.position, self.data.len());
            self.position = unit.as_ref().map_or(self.data.len(), |unit| unit.end);
            match unit {
                Ok(unit) if unit.is_empty() => {}
                unit => return Some(unit.map(|unit| &self.data[unit])),
            }
        }
    }
}

/// Where the NAL unit lies whose length is at `position` of `size` bytes, if all of that length is there.
fn behind(length: Option<&[u8]>, position: usize, size: usize) -> Result<Range<usize>, Error> {
    let unit = length.and_then(|length| {
        let start = position + length.len();
        let length = length.iter().fold(0, |length, &b| length << 8 | usize::from(b));
        (length <= size.checked_sub(start)?).then(|| start..start + length)
    });
    unit.ok_or_else(|| {
        Error::new("NAL unit", format!("the length at byte {position} passes the end of {size} bytes"))
    })
}

/// A NAL unit by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// See [`unit_type`].
    pub unit_type: u8,
    pub bytes: Range<usize>,
}

/// The NAL units of a length-prefixed access unit of `size` bytes that is kept elsewhere, and what is wrong behind the
/// last of them; see [`length_prefixed`]. `start` is how it begins, or nothing; `read` gives bytes of it from an offset on,
/// so many or as many as there are; only lengths and first bytes are looked at. More than [`MAX_UNITS`] are wrong.
pub fn locate<E>(
    size: usize,
    length_size: u8,
    start: &[u8],
    mut read: impl FnMut(usize, usize) -> Result<Vec<u8>, E>,
) -> Result<(Vec<Located>, Option<Error>), E> {
    let length_size = usize::from(length_size);
    let (mut units, mut position) = (Vec::new(), 0);
    let (mut read_from, mut bytes, mut at_once) = (0, start, START.into());
    let mut kept;
    while position < size {
        if bytes.len() < (position + length_size + 1).min(size) - read_from {
            kept = read(position, at_once)?;
            (read_from, bytes) = (position, &kept);
            at_once = (2 * at_once).min(MAX_READ);
        }
        let head = &bytes[(position - read_from).min(bytes.len())..];
        let unit = match behind(head.get(..length_size), position, size) {
            Ok(unit) => unit,
            Err(error) => return Ok((units, Some(error))),
        };
        if units.len() == MAX_UNITS {
            let message =
                format!("more than {MAX_UNITS} of them: the one at byte {position} of {size} bytes");
            return Ok((units, Some(Error::new("NAL unit", message))));
        }
        position = unit.end;
        if !unit.is_empty() {
            units.push(Located { unit_type: unit_type(&head[length_size..]), bytes: unit });
        }
    }
    Ok((units, None))
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
    use std::cell::Cell;

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
    fn units_are_located_where_they_lie_by_looking_at_their_heads() {
        // Long and short ones, many of them, empty ones, and an end of every kind.
        let units: Vec<Vec<u8>> = (0..200).map(|i| vec![i as u8; [1, 0, 70, 5, 3000][i % 5]]).collect();
        let whole: Vec<u8> =
            units.iter().flat_map(|unit| [&(unit.len() as u16).to_be_bytes(), &unit[..]].concat()).collect();
        for cut in (0..whole.len()).step_by(97).chain([1, 2, 3, whole.len()]) {
            let data = &whole[..cut];
            let looked_at = Cell::new(0);
            let locate = |start: &[u8]| {
                looked_at.set(0);
                let read = |offset, len| {
                    let bytes = &data[offset..data.len().min(offset + len)];
                    looked_at.set(looked_at.get() + bytes.len());
                    Ok::<_, ()>(bytes.to_vec())
                };
                locate(data.len(), 2, start, read).unwrap()
            };
            for known in [1, 2, 3, 4, 64, 5000] {
                let start = &data[..data.len().min(known)];
                assert_eq!(locate(start), locate(&[]), "{known} of {cut} bytes");
            }
            assert!(looked_at.get() <= 64 + data.len(), "{looked_at:?} of {cut}");
            locate(data);
            assert_eq!(looked_at.get(), 0, "what is known is not read again");
            let (located, error) = locate(&[]);
            let good: Vec<_> = length_prefixed(data, 2).map_while(Result::ok).collect();
            assert_eq!(located.iter().map(|unit| &data[unit.bytes.clone()]).collect::<Vec<_>>(), good);
            assert!(located.iter().zip(&good).all(|(unit, bytes)| unit.unit_type == unit_type(bytes)));
            assert_eq!(error, length_prefixed(data, 2).find_map(Result::err), "{cut} bytes");
        }
    }

    #[test]
    fn there_is_an_end_to_the_units_that_are_located() {
        let data = [1, 0x41].repeat(4 << 20);
        let read = |offset: usize, len| Ok::<_, ()>(data[offset..data.len().min(offset + len)].to_vec());
        let (located, error) = locate(data.len(), 1, &[], read).unwrap();
        assert_eq!((located.len(), located.last().unwrap().bytes.clone()), (MAX_UNITS, 32_767..32_768));
        assert_eq!(error.unwrap().message, "more than 16384 of them: the one at byte 32768 of 8388608 bytes");
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
