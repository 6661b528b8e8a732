//! What a [`Session`] tells its driver.

#[cfg(doc)]
use super::Session;
use super::{Metadata, amf0, tag};
use crate::media::{Kind, Sample, Track};

/// Something that happened, in the order of the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The peer wants to publish: answer by [`Session::accept_publish`] or [`Session::refuse_publish`]. Until
    /// then no more input is taken.
    Publish(Box<PublishRequest>),
    Metadata(Metadata),
    /// A track, or its new codec configuration. Its samples follow.
    Track(Track),
    Sample(Sample),
    /// Something was left out, for the first time for this reason.
    Skipped(Skipped),
    /// Something was put right, for the first time in this stream.
    Repaired(Repair),
    /// The peer ended the stream, not the connection: it may publish again.
    EndOfStream(Skips),
    /// The peer wanted to play; it was told that it can't.
    PlayRefused {
        name: String,
    },
}

/// A `publish` command (Adobe RTMP 1.0, section 7.2.2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// Name of the application, without its query.
    pub app: String,
    /// Publishing name, without its query.
    pub name: String,
    /// What followed `?` in the publishing name or, if nothing did, in that of the application; it often holds a key.
    pub query: Option<String>,
    pub kind: PublishKind,
    pub connect: ConnectInfo,
}

impl PublishRequest {
    /// The arguments in the query, decoded.
    pub fn arguments(&self) -> Vec<(String, String)> {
        let Ok(mut url) = reqwest::Url::parse("http://query") else { return Vec::new() };
        url.set_query(self.query.as_deref());
        url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
    }

    /// The first argument of that name.
    pub fn argument(&self, name: &str) -> Option<String> {
        self.arguments().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// Publishing type. What is recorded, and how, is not up to the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishKind {
    Live,
    Record,
    Append,
}

/// What the `connect` command said (section 7.2.1.1). Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectInfo {
    pub tc_url: String,
    pub page_url: String,
    pub swf_url: String,
    pub flash_ver: String,
}

/// What was put right in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Repair {
    #[error("H.264 with start codes (Annex B), made length-prefixed")]
    AnnexB,
    #[error("no {} sequence header; the one of the stream of that name before is used", .0.as_str())]
    Remembered(Kind),
}

/// What was left out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub reason: SkipReason,
    /// As on the wire.
    pub timestamp_ms: u32,
    /// Bytes of the connection that were taken then.
    pub position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    #[error("a {} sample before the sequence header", .0.as_str())]
    NoSequenceHeader(Kind),
    #[error("audio or video outside of a published stream")]
    NotPublishing,
    #[error("a malformed tag: {0}")]
    Tag(tag::Error),
    #[error("a malformed sequence header: {0}")]
    SequenceHeader(reelwright_codec::Error),
    #[error("malformed metadata: {0}")]
    Metadata(amf0::Error),
}

/// How often something was left out since the stream began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    pub no_sequence_header: u64,
    pub not_publishing: u64,
    pub tags: u64,
    pub sequence_headers: u64,
    pub metadata: u64,
}

impl Skips {
    pub(super) fn count(&mut self, reason: &SkipReason) -> &mut u64 {
        match reason {
            SkipReason::NoSequenceHeader(_) => &mut self.no_sequence_header,
            SkipReason::NotPublishing => &mut self.not_publishing,
            SkipReason::Tag(_) => &mut self.tags,
            SkipReason::SequenceHeader(_) => &mut self.sequence_headers,
            SkipReason::Metadata(_) => &mut self.metadata,
        }
    }

    pub fn total(&self) -> u64 {
        self.no_sequence_header + self.not_publishing + self.tags + self.sequence_headers + self.metadata
    }
}

/// [`Track::id`] by kind.
pub fn track_id(kind: Kind) -> u32 {
    match kind {
        Kind::Video => 1,
        Kind::Audio => 2,
    }
}
