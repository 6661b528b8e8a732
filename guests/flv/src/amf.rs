//! AMF0, as far as `onMetaData` needs it: AMF 0 (Action Message Format), sections 2.2 to 2.10 and 2.12.

const NUMBER: u8 = 0x00;
/// Bytes of a number. A zero is nothing but zeros.
pub(crate) const NUMBER_LEN: usize = 9;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0a;

/// Writes a string of at most 65,535 bytes.
pub(crate) fn string(buf: &mut Vec<u8>, text: &str) {
    buf.push(STRING);
    utf8(buf, text);
}

fn number(buf: &mut Vec<u8>, value: f64) {
    buf.push(NUMBER);
    buf.extend_from_slice(&value.to_be_bytes());
}

fn utf8(buf: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("keys and texts of this crate are short");
    buf.extend_from_slice(&len.to_be_bytes());
    buf.extend_from_slice(text.as_bytes());
}

/// Writes an object or an ECMA array, property by property, until [`Properties::end`].
#[derive(Debug)]
pub(crate) struct Properties<'a> {
    buf: &'a mut Vec<u8>,
    /// Where an ECMA array keeps its count.
    count_at: Option<usize>,
    count: u32,
}

impl<'a> Properties<'a> {
    pub(crate) fn ecma_array(buf: &'a mut Vec<u8>) -> Self {
        buf.push(ECMA_ARRAY);
        let count_at = Some(buf.len());
        buf.extend_from_slice(&[0; 4]);
        Self { buf, count_at, count: 0 }
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.count += 1;
        utf8(self.buf, key);
        self.buf
    }

    pub(crate) fn number(&mut self, key: &str, value: f64) {
        number(self.key(key), value);
    }

    pub(crate) fn boolean(&mut self, key: &str, value: bool) {
        self.key(key).extend_from_slice(&[BOOLEAN, u8::from(value)]);
    }

    pub(crate) fn string(&mut self, key: &str, text: &str) {
        string(self.key(key), text);
    }

    pub(crate) fn object(&mut self, key: &str) -> Properties<'_> {
        let buf = self.key(key);
        buf.push(OBJECT);
        Properties { buf, count_at: None, count: 0 }
    }

    pub(crate) fn numbers(&mut self, key: &str, values: impl ExactSizeIterator<Item = f64>) {
        let buf = self.strict_array(key, values.len());
        values.for_each(|value| number(buf, value));
    }

    /// Writes an array of so many zeros, but not these: they belong where the buffer ends after it.
    pub(crate) fn zeros(&mut self, key: &str, count: usize) {
        self.strict_array(key, count);
    }

    fn strict_array(&mut self, key: &str, count: usize) -> &mut Vec<u8> {
        let count = u32::try_from(count).expect("arrays of this crate are short");
        let buf = self.key(key);
        buf.push(STRICT_ARRAY);
        buf.extend_from_slice(&count.to_be_bytes());
        buf
    }

    /// Bytes in the buffer.
    pub(crate) fn position(&self) -> usize {
        self.buf.len()
    }

    pub(crate) fn end(self) {
        utf8(self.buf, "");
        self.buf.push(OBJECT_END);
        if let Some(at) = self.count_at {
            self.buf[at..at + 4].copy_from_slice(&self.count.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecma_array_is_laid_out_as_ffmpeg_does() {
        let mut buf = Vec::new();
        string(&mut buf, "onMetaData");
        let mut array = Properties::ecma_array(&mut buf);
        array.number("duration", 10.08);
        array.boolean("stereo", true);
        array.string("encoder", "Lavf59");
        array.end();
        // Cut together from an FLV of FFmpeg 5.1.
        let expected = [
            &[0x02, 0x00, 0x0a][..],
            b"onMetaData",
            &[0x08, 0x00, 0x00, 0x00, 0x03], // ECMA array of 3
            &[0x00, 0x08],
            b"duration",
            &[0x00, 0x40, 0x24, 0x28, 0xf5, 0xc2, 0x8f, 0x5c, 0x29], // 10.08
            &[0x00, 0x06],
            b"stereo",
            &[0x01, 0x01],
            &[0x00, 0x07],
            b"encoder",
            &[0x02, 0x00, 0x06],
            b"Lavf59",
            &[0x00, 0x00, 0x09], // end
        ]
        .concat();
        assert_eq!(buf, expected);
    }

    #[test]
    fn objects_and_strict_arrays_nest() {
        let mut buf = Vec::new();
        let mut array = Properties::ecma_array(&mut buf);
        let mut object = array.object("o");
        object.numbers("n", [0.0, -2.0].into_iter());
        object.numbers("m", [].into_iter());
        object.end();
        array.end();
        let expected = [
            &[0x08, 0x00, 0x00, 0x00, 0x01][..],
            &[0x00, 0x01, b'o', 0x03],
            &[0x00, 0x01, b'n', 0x0a, 0x00, 0x00, 0x00, 0x02],
            &[0x00, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x00, 0xc0, 0, 0, 0, 0, 0, 0, 0],
            &[0x00, 0x01, b'm', 0x0a, 0x00, 0x00, 0x00, 0x00],
            &[0x00, 0x00, 0x09],
            &[0x00, 0x00, 0x09],
        ]
        .concat();
        assert_eq!(buf, expected);
    }
}
