//! What of a file is sent, and when: pure.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;

use super::flv::{File, Tag};
use crate::rtmp::{
    amf0::{self, Value},
    tag,
};

/// `onMetaData` of local files may hold an index of key frames, which is dropped.
const METADATA_LIMITS: amf0::Limits = amf0::Limits { depth: 32, values: 1 << 20, string_bytes: 1 << 20 };
/// Properties that are true of a file and not of a live stream.
const OF_FILES: [&str; 5] = ["duration", "filesize", "keyframes", "lasttimestamp", "lastkeyframetimestamp"];
/// Duration of a track's only sample, and distance of key frames when there is none.
const DEFAULT_STEP_MS: i64 = 40;
const DEFAULT_KEY_INTERVAL: Duration = Duration::from_secs(2);

/// The audio and video of a file, ready to be repeated.
#[derive(Debug)]
pub(super) struct Clip {
    /// The body of a script data tag.
    metadata: Option<Bytes>,
    /// Audio and video.
    tags: Vec<Tag>,
    /// Lowest timestamp.
    start_ms: i64,
    /// From the start of one repetition to that of the next, 1 or more.
    period_ms: i64,
    key_interval: Duration,
}

/// A tag in its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Time since the first tag, at speed 1.
    pub(super) at: Duration,
    pub(super) tag_type: u8,
    /// Timestamp on the wire.
    pub(super) timestamp_ms: u32,
    pub(super) body: Bytes,
}

impl Clip {
    pub(super) fn new(file: File) -> anyhow::Result<Self> {
        let (script, tags): (Vec<_>, Vec<_>) =
            file.tags.into_iter().partition(|tag| tag.tag_type == tag::kind::SCRIPT_DATA);
        ensure!(!tags.is_empty(), "the file has no audio and no video");
        let metadata = script.iter().find_map(|tag| live_metadata(&tag.body));
        let start_ms = tags.iter().map(|tag| tag.timestamp_ms).min().unwrap_or(0);
        let end_ms = [tag::kind::AUDIO, tag::kind::VIDEO].into_iter().filter_map(|kind| {
            let mut last = tags.iter().rev().filter(|tag| tag.tag_type == kind).map(|tag| tag.timestamp_ms);
            let last_ms = last.next()?;
            let step_ms = last.map(|before| last_ms - before).find(|step| *step > 0);
            Some(last_ms + step_ms.unwrap_or(DEFAULT_STEP_MS))
        });
        let period_ms = end_ms.max().map_or(1, |end| (end - start_ms).max(1));
        let keys = tags.iter().filter(|tag| is_key(tag)).count();
        let key_interval = match u32::try_from(keys) {
            Ok(0) | Err(_) => DEFAULT_KEY_INTERVAL,
            Ok(keys) => Duration::from_millis(period_ms.unsigned_abs()) / keys,
        };
        Ok(Self { metadata, tags, start_ms, period_ms, key_interval })
    }

    /// `onMetaData` of the file, without what is true only of files.
    pub(super) fn metadata(&self) -> Option<Bytes> {
        self.metadata.clone()
    }

    /// Mean distance of key frames.
    pub(super) fn key_interval(&self) -> Duration {
        self.key_interval
    }

    /// From the start of one repetition to that of the next.
    pub(super) fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms.unsigned_abs())
    }

    /// The tags in order: once, or for a duration, over and over.
    pub(super) fn schedule(&self, duration: Option<Duration>) -> impl Iterator<Item = Due> {
        let passes = if duration.is_some() { i64::MAX } else { 1 };
        let all = (0..passes).flat_map(move |pass| {
            let offset_ms = pass.saturating_mul(self.period_ms);
            self.tags.iter().map(move |tag| Due {
                at: Duration::from_millis((tag.timestamp_ms - self.start_ms + offset_ms).unsigned_abs()),
                tag_type: tag.tag_type,
                timestamp_ms: (tag.timestamp_ms + offset_ms) as u32,
                body: tag.body.clone(),
            })
        });
        // In the middle of a stream, the end of a sequence would be a lie.
        let ends = |due: &Due| due.tag_type == tag::kind::VIDEO && due.body.starts_with(&[0x17, 2]);
        all.take_while(move |due| duration.is_none_or(|duration| due.at < duration))
            .filter(move |due| duration.is_none() || !ends(due))
    }
}

fn is_key(tag: &Tag) -> bool {
    let body = (tag.tag_type == tag::kind::VIDEO).then(|| tag::video(tag.body.clone()));
    matches!(body, Some(Ok(tag::Body::Sample(tag::Payload { key: true, .. }))))
}

/// The body again, without [`OF_FILES`]. `None` for what is not metadata, or can't be read.
fn live_metadata(body: &[u8]) -> Option<Bytes> {
    let values = amf0::Reader::new(body, METADATA_LIMITS).rest().ok()?;
    let [Value::String(name), Value::Object(properties) | Value::EcmaArray(properties), ..] = &values[..]
    else {
        return None;
    };
    let mut properties = properties.clone();
    properties.retain(|(key, _)| !OF_FILES.contains(&key.as_str()));
    let mut body = Vec::new();
    amf0::write_str(name, &mut body);
    amf0::write(&Value::EcmaArray(properties), &mut body);
    (name == "onMetaData").then(|| body.into())
}

#[cfg(test)]
mod tests {
    use super::{super::flv, *};

    fn clip() -> Clip {
        let file = Bytes::from_static(include_bytes!("testdata/ffmpeg-5.1.flv"));
        Clip::new(flv::read(file).unwrap()).unwrap()
    }

    #[test]
    fn once_is_all_of_it() {
        let clip = clip();
        let all: Vec<_> = clip.schedule(None).collect();
        assert_eq!(all.len(), 12 + 46);
        assert_eq!(all.last().unwrap().body[..2], [0x17, 2], "with the end of sequence");
        assert_eq!(clip.key_interval(), Duration::from_millis(1221), "one key frame, 1,198 + 23 ms of audio");
    }

    #[test]
    fn repetitions_go_on_where_the_last_one_ended() {
        let all: Vec<_> = clip().schedule(Some(Duration::from_secs(100))).collect();
        let audio = all.iter().filter(|due| due.tag_type == 8 && due.body[1] == 1);
        let times: Vec<_> = audio.map(|due| due.timestamp_ms).collect();
        assert!((99_950..100_000).contains(times.last().unwrap()));
        // In the clip, audio begins 177 ms late; that is the longest step.
        assert!(times.windows(2).all(|pair| (22..=200).contains(&(pair[1] - pair[0]))));
        assert!(all.iter().all(|due| due.tag_type == 8 || due.body[1] != 2), "no end of sequence");
        assert!(all.iter().all(|due| due.at.as_millis() == u128::from(due.timestamp_ms)));
    }

    #[test]
    fn metadata_loses_what_is_true_only_of_files() {
        let metadata = clip().metadata().unwrap();
        let values = amf0::Reader::new(&metadata, amf0::Limits::default()).rest().unwrap();
        assert_eq!(values[0], "onMetaData".into());
        assert_eq!(values[1].get("width"), Some(&64.0.into()));
        assert_eq!(values[1].get("duration"), None);
    }
}
