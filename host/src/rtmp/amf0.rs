//! AMF0, in which RTMP writes commands and metadata (Adobe, "Action Message Format – AMF 0", 2007).
//!
//! ```text
//! value    = marker (U8) body
//! property = key (U16 length, UTF-8) value
//! object   = property* 00 00 09
//! ```
//!
//! Counts and lengths on the wire are claims: nothing is allocated by them, and a whole message may hold
//! only so many values, so deep or wide, as [`Limits`] says.

/// Bounds of what is read from one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays within each other.
    pub depth: usize,
    /// Values in a message, those inside of objects and arrays included.
    pub values: usize,
    /// Bytes of one string.
    pub string_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 32, values: 4096, string_bytes: 64 * 1024 }
    }
}

/// The properties of an object, in the order of the wire; keys may come twice.
pub type Properties = Vec<(String, Value)>;

/// One AMF0 value (section 2). References, movie clips, record sets and AMF3 are not read.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    /// A String, or a Long String when it is over 65,535 bytes. Bytes that are not UTF-8 were replaced.
    String(String),
    Object(Properties),
    Null,
    Undefined,
    EcmaArray(Properties),
    StrictArray(Vec<Value>),
    /// Milliseconds since 1970-01-01 UTC. The time zone is reserved and should be 0.
    Date {
        epoch_ms: f64,
        time_zone: i16,
    },
    Unsupported,
    Xml(String),
    TypedObject {
        class: String,
        properties: Properties,
    },
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The properties of any kind of object.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Value::Object(properties) | Value::EcmaArray(properties) => Some(properties),
            Value::TypedObject { properties, .. } => Some(properties),
            _ => None,
        }
    }

    /// The first property of that name, if this is an object that has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.properties()?.iter().find_map(|(k, value)| (k == key).then_some(value))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Number(number)
    }
}

/// Builds an object.
pub fn object<const N: usize>(properties: [(&str, Value); N]) -> Value {
    Value::Object(properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// What is wrong with AMF0 data; positions count from its first byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("AMF0 data ends inside a value, at byte {at}")]
    Truncated { at: usize },
    #[error("AMF0 marker {marker:#04x} at byte {at} is {name}, which is not supported")]
    Marker { at: usize, marker: u8, name: &'static str },
    #[error("AMF0 values at byte {at} are nested deeper than {limit} levels (limit amf0.depth)")]
    Depth { at: usize, limit: usize },
    #[error("AMF0 data has over {limit} values, at byte {at} (limit amf0.values)")]
    Values { at: usize, limit: usize },
    #[error("AMF0 string of {length} bytes at byte {at}, at most {limit} (limit amf0.string_bytes)")]
    String { at: usize, length: usize, limit: usize },
}

mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const MOVIE_CLIP: u8 = 0x04;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const REFERENCE: u8 = 0x07;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0a;
    pub(super) const DATE: u8 = 0x0b;
    pub(super) const LONG_STRING: u8 = 0x0c;
    pub(super) const UNSUPPORTED: u8 = 0x0d;
    pub(super) const RECORD_SET: u8 = 0x0e;
    pub(super) const XML: u8 = 0x0f;
    pub(super) const TYPED_OBJECT: u8 = 0x10;
    pub(super) const AVMPLUS: u8 = 0x11;
}

/// Reads values one after the other. After an error it must not be used further.
#[derive(Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    position: usize,
    values: usize,
    limits: Limits,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8], limits: Limits) -> Self {
        Self { data, position: 0, values: 0, limits }
    }

    /// The next value, or `None` at the end of the data.
    pub fn next_value(&mut self) -> Result<Option<Value>, Error> {
        if self.position == self.data.len() { Ok(None) } else { self.value(0).map(Some) }
    }

    /// All values up to the end.
    pub fn rest(mut self) -> Result<Vec<Value>, Error> {
        let mut values = Vec::new();
        while let Some(value) = self.next_value()? {
            values.push(value);
        }
        Ok(values)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        let at = self.position;
        self.values += 1;
        if self.values > self.limits.values {
            return Err(Error::Values { at, limit: self.limits.values });
        }
        if depth > self.limits.depth {
            return Err(Error::Depth { at, limit: self.limits.depth });
        }
        Ok(match u8::from_be_bytes(self.array()?) {
            marker::NUMBER => Value::Number(f64::from_be_bytes(self.array()?)),
            marker::BOOLEAN => Value::Boolean(self.array()? != [0]),
            marker::STRING => Value::String(self.short_string()?),
            marker::OBJECT => Value::Object(self.object(depth)?),
            marker::NULL => Value::Null,
            marker::UNDEFINED => Value::Undefined,
            marker::ECMA_ARRAY => {
                // associative-count, a hint that many encoders leave 0: the end marker decides.
                self.array::<4>()?;
                Value::EcmaArray(self.object(depth)?)
            }
            marker::STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.array()?);
                let left = self.limits.values - self.values;
                if usize::try_from(count).map_or(true, |count| count > left) {
                    return Err(Error::Values { at, limit: self.limits.values });
                }
                let mut elements = Vec::new();
                for _ in 0..count {
                    elements.push(self.value(depth + 1)?);
                }
                Value::StrictArray(elements)
            }
            marker::DATE => Value::Date {
                epoch_ms: f64::from_be_bytes(self.array()?),
                time_zone: i16::from_be_bytes(self.array()?),
            },
            marker::LONG_STRING => Value::String(self.long_string()?),
            marker::UNSUPPORTED => Value::Unsupported,
            marker::XML => Value::Xml(self.long_string()?),
            marker::TYPED_OBJECT => {
                Value::TypedObject { class: self.short_string()?, properties: self.object(depth)? }
            }
            marker => {
                let name = match marker {
                    marker::MOVIE_CLIP => "a movie clip",
                    marker::REFERENCE => "a reference",
                    marker::OBJECT_END => "an object's end outside of one",
                    marker::RECORD_SET => "a record set",
                    marker::AVMPLUS => "AMF3 data",
                    _ => "unknown",
                };
                return Err(Error::Marker { at, marker, name });
            }
        })
    }

    fn object(&mut self, depth: usize) -> Result<Properties, Error> {
        let mut properties = Vec::new();
        loop {
            let key = self.short_string()?;
            if key.is_empty() && self.data.get(self.position) == Some(&marker::OBJECT_END) {
                self.position += 1;
                return Ok(properties);
            }
            properties.push((key, self.value(depth + 1)?));
        }
    }

    fn short_string(&mut self) -> Result<String, Error> {
        let length = u16::from_be_bytes(self.array()?);
        self.string(usize::from(length))
    }

    fn long_string(&mut self) -> Result<String, Error> {
        let length = u32::from_be_bytes(self.array()?);
        self.string(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn string(&mut self, length: usize) -> Result<String, Error> {
        if length > self.limits.string_bytes {
            return Err(Error::String { at: self.position, length, limit: self.limits.string_bytes });
        }
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let rest = &self.data[self.position..];
        let taken = rest.get(..count).ok_or(Error::Truncated { at: self.data.len() })?;
        self.position += count;
        Ok(taken)
    }
}

/// Appends a value.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => {
            out.push(marker::NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(boolean) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*boolean)]),
        Value::String(text) => write_str(text, out),
        Value::Object(properties) => {
            out.push(marker::OBJECT);
            write_properties(properties, out);
        }
        Value::Null => out.push(marker::NULL),
        Value::Undefined => out.push(marker::UNDEFINED),
        Value::EcmaArray(properties) => {
            out.push(marker::ECMA_ARRAY);
            out.extend_from_slice(&length_u32(properties.len()));
            write_properties(properties, out);
        }
        Value::StrictArray(elements) => {
            out.push(marker::STRICT_ARRAY);
            out.extend_from_slice(&length_u32(elements.len()));
            elements.iter().for_each(|element| write(element, out));
        }
        Value::Date { epoch_ms, time_zone } => {
            out.push(marker::DATE);
            out.extend_from_slice(&epoch_ms.to_be_bytes());
            out.extend_from_slice(&time_zone.to_be_bytes());
        }
        Value::Unsupported => out.push(marker::UNSUPPORTED),
        Value::Xml(text) => {
            out.push(marker::XML);
            out.extend_from_slice(&length_u32(text.len()));
            out.extend_from_slice(text.as_bytes());
        }
        Value::TypedObject { class, properties } => {
            out.push(marker::TYPED_OBJECT);
            write_key(class, out);
            write_properties(properties, out);
        }
    }
}

/// Appends a string value.
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    match u16::try_from(text.len()) {
        Ok(length) => {
            out.push(marker::STRING);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(marker::LONG_STRING);
            out.extend_from_slice(&length_u32(text.len()));
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn write_properties(properties: &Properties, out: &mut Vec<u8>) {
    for (key, value) in properties {
        write_key(key, out);
        write(value, out);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

/// A key has no long form: what is over 65,535 bytes is cut off.
fn write_key(key: &str, out: &mut Vec<u8>) {
    let key = &key[..key.floor_char_boundary(usize::from(u16::MAX))];
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
}

fn length_u32(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("what we write fits in memory many times").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(data: &[u8]) -> Result<Vec<Value>, Error> {
        Reader::new(data, Limits::default()).rest()
    }

    #[test]
    fn each_marker_in_both_directions() {
        let table: &[(&[u8], Value)] = &[
            (b"\x00\x3f\xf0\0\0\0\0\0\0", Value::Number(1.0)),
            (b"\x01\x01", Value::Boolean(true)),
            (b"\x02\0\x04live", "live".into()),
            (b"\x03\0\x03app\x02\0\x04live\0\0\x09", object([("app", "live".into())])),
            (b"\x05", Value::Null),
            (b"\x06", Value::Undefined),
            (
                b"\x08\0\0\0\x01\0\x08duration\0\0\0\0\0\0\0\0\0\0\0\x09",
                Value::EcmaArray(vec![("duration".into(), Value::Number(0.0))]),
            ),
            (b"\x0a\0\0\0\x02\x05\x01\0", Value::StrictArray(vec![Value::Null, Value::Boolean(false)])),
            (
                b"\x0b\x42\x78\xbc\xfe\x56\x80\0\0\xff\xc4",
                Value::Date { epoch_ms: 1_700_000_000_000.0, time_zone: -60 },
            ),
            (b"\x0d", Value::Unsupported),
            (b"\x0f\0\0\0\x04<a/>", Value::Xml("<a/>".into())),
            (
                b"\x10\0\x01C\0\x01x\x05\0\0\x09",
                Value::TypedObject { class: "C".into(), properties: vec![("x".into(), Value::Null)] },
            ),
        ];
        for (bytes, value) in table {
            assert_eq!(read(bytes).unwrap(), std::slice::from_ref(value), "{bytes:02x?}");
            let mut written = Vec::new();
            write(value, &mut written);
            assert_eq!(written, *bytes, "{value:?}");
            for length in 1..bytes.len() {
                assert!(matches!(read(&bytes[..length]), Err(Error::Truncated { .. })), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn markers_that_are_not_read_are_named() {
        for (marker, name) in [
            (4, "movie clip"),
            (7, "reference"),
            (9, "end"),
            (14, "record set"),
            (17, "AMF3"),
            (0x42, "unknown"),
        ] {
            let error = read(&[5, marker, 0, 0]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("at byte 1"), "{error}");
        }
    }

    #[test]
    fn hostile_counts_and_depths_are_refused() {
        // A million arrays of one element within each other.
        let nested = b"\x0a\0\0\0\x01".repeat(1_000_000);
        assert_eq!(read(&nested), Err(Error::Depth { at: 33 * 5, limit: 32 }));
        // The same with objects.
        let nested = b"\x03\0\x01a".repeat(1_000_000);
        assert_eq!(read(&nested), Err(Error::Depth { at: 33 * 4, limit: 32 }));
        // Four billion elements, by count and (in an ECMA array, where the count is a hint) for real.
        assert_eq!(read(b"\x0a\xff\xff\xff\xff\x05"), Err(Error::Values { at: 0, limit: 4096 }));
        assert_eq!(read(b"\x08\xff\xff\xff\xff\0\0\x09"), Ok(vec![Value::EcmaArray(vec![])]));
        let wide = [b"\x08\xff\xff\xff\xff".to_vec(), b"\0\x01a\x05".repeat(5000)].concat();
        assert!(matches!(read(&wide), Err(Error::Values { limit: 4096, .. })));
        assert!(matches!(read(&[5; 5000]), Err(Error::Values { at: 4096, .. })));
        // A string of 4 GiB.
        assert!(matches!(read(b"\x0c\xff\xff\xff\xffa"), Err(Error::String { length: 0xffff_ffff, .. })));
    }

    #[test]
    fn a_long_string_has_its_own_marker() {
        let value = Value::String("x".repeat(65_536));
        let mut bytes = Vec::new();
        write(&value, &mut bytes);
        assert_eq!(bytes[..5], [0x0c, 0, 1, 0, 0]);
        assert_eq!(read(&bytes), Ok(vec![value]));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("equal to itself", |n| !n.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            Just(Value::Unsupported),
            ".{0,20}".prop_map(Value::Xml),
            (-1e15..1e15, any::<i16>()).prop_map(|(epoch_ms, time_zone)| Value::Date { epoch_ms, time_zone }),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            let properties = prop::collection::vec((".{0,9}", inner.clone()), 0..6);
            prop_oneof![
                properties.clone().prop_map(Value::Object),
                properties.clone().prop_map(Value::EcmaArray),
                prop::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
                (".{0,9}", properties)
                    .prop_map(|(class, properties)| Value::TypedObject { class, properties }),
            ]
        })
    }

    proptest! {
        #[test]
        fn round_trip(values in prop::collection::vec(values(), 0..4)) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| write(value, &mut bytes));
            prop_assert_eq!(read(&bytes), Ok(values));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(prop_oneof![0u8..=0x11, any::<u8>()], 0..200)) {
            let _ = read(&bytes);
        }
    }
}
