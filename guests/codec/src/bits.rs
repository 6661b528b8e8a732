//! Reads bits, most significant first.

use crate::Error;

/// A position in a byte string, counted in bits.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    structure: &'static str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at the first bit; `structure` names what is read in errors.
    pub fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self { structure, bytes, position: 0 }
    }

    /// Bits not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() * 8 - self.position
    }

    /// Next bit.
    pub fn bit(&mut self) -> Result<bool, Error> {
        let byte = self
            .bytes
            .get(self.position / 8)
            .ok_or_else(|| Error::new(self.structure, format!("ends at byte {}", self.bytes.len())))?;
        let bit = byte >> (7 - self.position % 8) & 1 == 1;
        self.position += 1;
        Ok(bit)
    }

    /// Next `count` bits, at most 32, as a number.
    pub fn bits(&mut self, count: u32) -> Result<u32, Error> {
        debug_assert!(count <= 32);
        (0..count).try_fold(0, |value, _| Ok(value << 1 | u32::from(self.bit()?)))
    }

    /// Passes over `count` bits.
    pub fn skip(&mut self, count: u32) -> Result<(), Error> {
        (0..count).try_for_each(|_| self.bit().map(drop))
    }

    /// `ue(v)`: an unsigned Exp-Golomb code (ITU-T H.264, 9.1).
    pub fn ue(&mut self) -> Result<u32, Error> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return Err(Error::new(self.structure, "an Exp-Golomb code over 32 bits"));
            }
        }
        Ok((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// `se(v)`: a signed Exp-Golomb code (ITU-T H.264, 9.1.1).
    pub fn se(&mut self) -> Result<i32, Error> {
        let code = i64::from(self.ue()?);
        let value = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
        i32::try_from(value).map_err(|_| Error::new(self.structure, "an Exp-Golomb code over 32 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_follows_table_9_2() {
        // 1 010 011 00100 00101 00110 00111
        let bytes = [0b1010_0110, 0b0100_0010, 0b1001_1000, 0b1110_0000];
        let mut unsigned = BitReader::new("test", &bytes);
        let mut signed = unsigned.clone();
        let ue: Vec<u32> = (0..7).map(|_| unsigned.ue().unwrap()).collect();
        let se: Vec<i32> = (0..7).map(|_| signed.se().unwrap()).collect();
        assert_eq!(ue, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(se, [0, 1, -1, 2, -2, 3, -3]);
    }

    #[test]
    fn the_end_is_an_error_and_says_where() {
        let mut r = BitReader::new("SPS", &[0x00]);
        assert_eq!(r.ue().unwrap_err().to_string(), "SPS: ends at byte 1");
        assert_eq!(r.remaining(), 0);
    }
}
