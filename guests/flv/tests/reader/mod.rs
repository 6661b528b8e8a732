//! A strict FLV reader that shares no code with the writer: any byte out of place is a panic.

use std::collections::BTreeMap;

/// A value of AMF0. Properties keep no order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    Text(String),
    Properties(BTreeMap<String, Value>),
    Array(Vec<Value>),
}

impl Value {
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Self::Properties(properties) = self else { panic!("{self:?} has no properties") };
        properties.get(key)
    }

    pub fn number(&self, key: &str) -> f64 {
        let Some(Self::Number(number)) = self.get(key) else { panic!("no number {key} in {self:?}") };
        *number
    }

    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let Some(Self::Array(values)) = self.get(key) else { panic!("no array {key} in {self:?}") };
        values.iter().map(|v| if let Self::Number(n) = v { *n } else { panic!("{v:?} in {key}") }).collect()
    }
}

/// An audio or a video tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    pub tag_type: u8,
    pub time_ms: u32,
    pub offset: u64,
    pub body: Vec<u8>,
}

impl Tag {
    pub fn is_video(&self) -> bool {
        self.tag_type == 9
    }

    pub fn is_key(&self) -> bool {
        self.is_video() && self.body[0] >> 4 == 1
    }

    /// Neither a sequence header nor its like.
    pub fn is_sample(&self) -> bool {
        self.body[1] == 1
    }

    pub fn composition_time(&self) -> i32 {
        i32::from_be_bytes([self.body[2], self.body[3], self.body[4], 0]) >> 8
    }

    pub fn payload(&self) -> &[u8] {
        &self.body[if self.is_video() { 5 } else { 2 }..]
    }
}

pub struct Flv {
    pub flags: u8,
    pub metadata: Value,
    pub tags: Vec<Tag>,
}

impl Flv {
    pub fn read(mut bytes: &[u8]) -> Self {
        let size = bytes.len();
        let r = &mut bytes;
        assert_eq!(take(r, 4), b"FLV\x01");
        let flags = take(r, 1)[0];
        assert_eq!(take(r, 8), [0, 0, 0, 9, 0, 0, 0, 0]);
        let mut metadata = None;
        let mut tags = Vec::new();
        while !r.is_empty() {
            let offset = (size - r.len()) as u64;
            let header = take(r, 11);
            let data_size = u32::from_be_bytes([0, header[1], header[2], header[3]]);
            let time_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
            assert_eq!(header[8..], [0, 0, 0]);
            let body = take(r, data_size as usize);
            assert_eq!(u32::from_be_bytes(take(r, 4).try_into().unwrap()), 11 + data_size);
            match header[0] {
                18 => {
                    assert!(metadata.is_none() && tags.is_empty() && time_ms == 0);
                    metadata = Some(on_meta_data(body));
                }
                tag_type @ (8 | 9) => tags.push(Tag { tag_type, time_ms, offset, body: body.to_vec() }),
                tag_type => panic!("tag type {tag_type} at {offset}"),
            }
        }
        Self { flags, metadata: metadata.expect("onMetaData"), tags }
    }

    /// The tags of samples.
    pub fn samples(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().filter(|tag| tag.is_sample())
    }

    /// Offsets and times in milliseconds of the index, if there is one; each was found to be that of a key
    /// frame's tag.
    pub fn index(&self) -> Vec<(u64, u32)> {
        let Some(keyframes) = self.metadata.get("keyframes") else { return Vec::new() };
        let times = keyframes.numbers("times");
        let offsets = keyframes.numbers("filepositions");
        assert_eq!(times.len(), offsets.len());
        let entries = offsets.iter().zip(&times).map(|(o, t)| (*o as u64, (t * 1000.0).round() as u32));
        entries
            .inspect(|&(offset, time_ms)| {
                let tag = self.tags.iter().find(|tag| tag.offset == offset).expect("a tag");
                assert!(tag.is_key() && tag.time_ms == time_ms, "{time_ms} ms at {offset}: {tag:?}");
            })
            .collect()
    }
}

fn on_meta_data(mut body: &[u8]) -> Value {
    assert_eq!(value(&mut body), Value::Text("onMetaData".into()));
    let metadata = value(&mut body);
    assert!(body.is_empty(), "{} bytes behind onMetaData", body.len());
    metadata
}

fn value(r: &mut &[u8]) -> Value {
    match take(r, 1)[0] {
        0 => Value::Number(f64::from_be_bytes(take(r, 8).try_into().unwrap())),
        1 => Value::Boolean(match take(r, 1)[0] {
            0 => false,
            1 => true,
            other => panic!("boolean {other}"),
        }),
        2 => Value::Text(text(r)),
        3 => Value::Properties(properties(r)),
        8 => {
            let count = u32::from_be_bytes(take(r, 4).try_into().unwrap());
            let properties = properties(r);
            assert_eq!(properties.len(), count as usize);
            Value::Properties(properties)
        }
        10 => {
            let count = u32::from_be_bytes(take(r, 4).try_into().unwrap());
            Value::Array((0..count).map(|_| value(r)).collect())
        }
        marker => panic!("marker {marker}"),
    }
}

fn properties(r: &mut &[u8]) -> BTreeMap<String, Value> {
    let mut properties = BTreeMap::new();
    loop {
        let key = text(r);
        if key.is_empty() {
            assert_eq!(take(r, 1), [9]);
            return properties;
        }
        let value = value(r);
        assert!(properties.insert(key, value).is_none());
    }
}

fn text(r: &mut &[u8]) -> String {
    let len = u16::from_be_bytes(take(r, 2).try_into().unwrap());
    String::from_utf8(take(r, len.into()).to_vec()).unwrap()
}

fn take<'a>(r: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = r.split_at_checked(count).expect("more bytes");
    *r = rest;
    taken
}
