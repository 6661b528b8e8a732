//! What a publisher says of its stream: `onMetaData` (FLV 10.1, Annex E.5).

use super::amf0::{self, Properties, Value};
use crate::media::Kind;

/// Longest text taken over into the properties of a track, in bytes.
const TEXT_BYTES: usize = 256;

/// An `onMetaData`. Nothing in it can be relied on: encoders leave out, guess and lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pub values: Properties,
    pub declared: Declared,
}

/// Which tracks the metadata speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub video: bool,
    pub audio: bool,
}

impl Metadata {
    /// Reads the values of a data message: `onMetaData` and an object, with `@setDataFrame` before them or
    /// not. `None` is any other data message.
    pub(super) fn read(payload: &[u8], limits: amf0::Limits) -> Result<Option<Self>, amf0::Error> {
        let mut values = amf0::Reader::new(payload, limits);
        let mut name = values.next_value()?;
        if name.as_ref().and_then(Value::as_str) == Some("@setDataFrame") {
            name = values.next_value()?;
        }
        if name.as_ref().and_then(Value::as_str) != Some("onMetaData") {
            return Ok(None);
        }
        Ok(match values.next_value()? {
            Some(Value::Object(values) | Value::EcmaArray(values)) => Some(Self::new(values)),
            _ => None,
        })
    }

    fn new(values: Properties) -> Self {
        let said =
            |key: &str| get(&values, key).is_some_and(|v| !matches!(v, Value::Null | Value::Undefined));
        let has = |flag: &str, signs: &[&str]| match get(&values, flag) {
            Some(Value::Boolean(has)) => *has,
            _ => signs.iter().any(|key| said(key)),
        };
        let declared = Declared {
            video: has("hasVideo", &["videocodecid", "width", "height"]),
            audio: has("hasAudio", &["audiocodecid", "audiosamplerate"]),
        };
        Self { values, declared }
    }

    /// The properties of a track that make sense, by their keys in `track.properties` of the WIT.
    pub(super) fn track_properties(&self, kind: Kind) -> Vec<(String, String)> {
        let (width, height) = (self.whole("width", 1, 16_384), self.whole("height", 1, 16_384));
        let properties = match kind {
            Kind::Video => vec![
                ("width", width),
                ("height", height),
                ("frame-rate", self.number("framerate", 0.1, 1000.0).map(|rate| rate.to_string())),
                ("bit-rate", self.bit_rate("videodatarate")),
                ("encoder", self.text("encoder")),
            ],
            Kind::Audio => vec![
                ("sample-rate", self.whole("audiosamplerate", 1_000, 768_000)),
                ("channels", self.channels()),
                ("bit-rate", self.bit_rate("audiodatarate")),
                ("encoder", self.text("encoder")),
            ],
        };
        let known = |(key, value): (&str, Option<String>)| Some((key.to_owned(), value?));
        properties.into_iter().filter_map(known).collect()
    }

    fn number(&self, key: &str, min: f64, max: f64) -> Option<f64> {
        get(&self.values, key)?.as_f64().filter(|number| (min..=max).contains(number))
    }

    fn whole(&self, key: &str, min: u32, max: u32) -> Option<String> {
        let number = self.number(key, min.into(), max.into())?;
        Some(number.round().to_string())
    }

    /// Said in kilobits a second.
    fn bit_rate(&self, key: &str) -> Option<String> {
        let rate = self.number(key, 0.001, 10_000_000.0)?;
        Some((rate * 1000.0).round().to_string())
    }

    fn channels(&self) -> Option<String> {
        let stereo = match get(&self.values, "stereo") {
            Some(Value::Boolean(stereo)) => Some(if *stereo { "2".to_owned() } else { "1".to_owned() }),
            _ => None,
        };
        self.whole("audiochannels", 1, 255).or(stereo)
    }

    fn text(&self, key: &str) -> Option<String> {
        let text = get(&self.values, key)?.as_str()?;
        let sane = !text.is_empty() && text.len() <= TEXT_BYTES && !text.chars().any(char::is_control);
        sane.then(|| text.to_owned())
    }
}

fn get<'a>(values: &'a Properties, key: &str) -> Option<&'a Value> {
    values.iter().find_map(|(k, value)| (k == key).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(values: &[(&str, Value)]) -> Metadata {
        Metadata::new(values.iter().map(|(key, value)| (key.to_string(), value.clone())).collect())
    }

    fn properties(metadata: &Metadata, kind: Kind) -> String {
        let pairs = metadata.track_properties(kind);
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn values_of_ffmpeg_become_properties() {
        let metadata = metadata(&[
            ("duration", 0.0.into()),
            ("width", 1280.0.into()),
            ("height", 720.0.into()),
            ("videodatarate", 2500.0.into()),
            ("framerate", 29.97.into()),
            ("videocodecid", 7.0.into()),
            ("audiodatarate", 62.5.into()),
            ("audiosamplerate", 48_000.0.into()),
            ("audiosamplesize", 16.0.into()),
            ("stereo", Value::Boolean(true)),
            ("audiocodecid", 10.0.into()),
            ("encoder", "Lavf59.27.100".into()),
        ]);
        assert_eq!(metadata.declared, Declared { video: true, audio: true });
        assert_eq!(
            properties(&metadata, Kind::Video),
            "width=1280 height=720 frame-rate=29.97 bit-rate=2500000 encoder=Lavf59.27.100"
        );
        assert_eq!(
            properties(&metadata, Kind::Audio),
            "sample-rate=48000 channels=2 bit-rate=62500 encoder=Lavf59.27.100"
        );
    }

    #[test]
    fn nonsense_does_not() {
        let metadata = metadata(&[
            ("width", f64::NAN.into()),
            ("height", (-720.0).into()),
            ("framerate", f64::INFINITY.into()),
            ("videodatarate", 0.0.into()),
            ("audiosamplerate", "48000".into()),
            ("audiochannels", 1e9.into()),
            ("encoder", "a\nb".into()),
        ]);
        assert_eq!(properties(&metadata, Kind::Video), "");
        assert_eq!(properties(&metadata, Kind::Audio), "");
    }

    #[test]
    fn tracks_are_declared_by_codec_or_flag() {
        let declared = |values: &[(&str, Value)]| {
            let Declared { video, audio } = metadata(values).declared;
            (video, audio)
        };
        assert_eq!(declared(&[]), (false, false));
        assert_eq!(declared(&[("videocodecid", "avc1".into())]), (true, false));
        assert_eq!(declared(&[("audiocodecid", 10.0.into()), ("videocodecid", Value::Null)]), (false, true));
        assert_eq!(
            declared(&[
                ("hasVideo", Value::Boolean(false)),
                ("width", 1.0.into()),
                ("audiocodecid", 10.0.into())
            ]),
            (false, true)
        );
    }

    #[test]
    fn is_found_with_and_without_set_data_frame() {
        let read = |values: &[Value]| {
            let mut payload = Vec::new();
            values.iter().for_each(|value| amf0::write(value, &mut payload));
            Metadata::read(&payload, amf0::Limits::default()).unwrap()
        };
        let object = amf0::object([("width", 16.0.into())]);
        let expected = Some(metadata(&[("width", 16.0.into())]));
        assert_eq!(read(&["@setDataFrame".into(), "onMetaData".into(), object.clone()]), expected);
        assert_eq!(read(&["onMetaData".into(), object.clone()]), expected);
        assert_eq!(read(&["onTextData".into(), object]), None);
        assert_eq!(read(&["@clearDataFrame".into(), "onMetaData".into()]), None);
        assert_eq!(read(&[]), None);
    }
}
