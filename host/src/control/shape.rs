//! Recordings and streams as replies show them. Pure but for the clock.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reelwright_codec::avc::{AvcConfig, Sps};
use serde_json::{Value, json};

use super::Context;
use crate::{
    media::{Kind, Track},
    recorder::{Recording, RunInfo, Settings, Status},
    registry::{LiveStream, TrackStats},
};

/// EvoStream's number for a `record` among its operations.
const OPERATION_RECORD: u32 = 7;
/// EvoStream's connection types.
const CONNECTION_STANDARD: u32 = 0;
const CONNECTION_RECORD: u32 = 7;

/// The record config: what was asked for, with defaults, and where it goes.
pub fn config(config_id: u64, settings: &Settings, computed_path: &Path) -> Value {
    let mut config = json!({
        "chunkLength": settings.chunk_length,
        "computedPathToFile": computed_path.to_string_lossy(),
        "configId": config_id,
        "dateFolderStructure": settings.date_folder_structure,
        "hasAudio": settings.has_audio,
        "keepAlive": settings.keep_alive,
        "localStreamName": settings.local_stream_name,
        "operationType": OPERATION_RECORD,
        "overwrite": settings.overwrite,
        "pathToFile": settings.path_to_file,
        "preset": settings.preset,
        "type": settings.format,
        "waitForIDR": settings.wait_for_idr,
        "winQtCompat": settings.win_qt_compat,
    });
    // What EvoStream does not have is shown where it was asked for.
    let numbers = [
        ("chunkSize", settings.chunk_size),
        ("maxDuration", settings.max_duration),
        ("maxSize", settings.max_size),
        ("preRoll", settings.pre_roll.into()),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        config[name] = json!(number);
    }
    if let Some(align) = settings.chunk_align {
        config["chunkAlign"] = json!(align.to_string());
    }
    if settings.manifest {
        config["manifest"] = json!(true);
    }
    for (name, value) in &settings.user {
        config[name] = json!(value);
    }
    config
}

/// The record config with what it does now and did before.
pub fn config_with_status(recording: &Recording) -> Value {
    let (current, previous) = recording.status();
    let mut config = config(recording.config_id, &recording.settings, &recording.destination.computed_path);
    if let Some(rule_id) = recording.rule_id {
        config["ruleId"] = json!(rule_id);
    }
    config["status"] = json!({ "current": status(&current), "previous": previous.as_ref().map(status) });
    config
}

/// Microseconds since 1970 in whole seconds.
pub fn epoch_seconds(epoch_us: i64) -> u64 {
    u64::try_from(epoch_us / 1_000_000).unwrap_or(0)
}

/// Time in whole seconds since 1970; `reason` only where there is one.
fn status(status: &Status) -> Value {
    let mut value = json!({
        "code": status.phase.code(),
        "description": status.phase.description(),
        "timestamp": since_1970(status.since).as_secs(),
        "uniqueStreamId": status.stream_id,
    });
    if let Some(reason) = &status.reason {
        value["reason"] = json!(reason);
    }
    value
}

/// The object of one live stream, without those that are recorded of it.
pub fn in_stream(live: &Arc<LiveStream>) -> Value {
    Streams::new(Vec::new(), Vec::new(), SystemTime::now()).object(Stream::Live(live))
}

/// The stream object of a run, for who has no context. `live`: the stream that it records.
pub fn out_stream(recording: &Arc<Recording>, run: &RunInfo, live: Option<Arc<LiveStream>>) -> Value {
    let streams =
        Streams::new(live.into_iter().collect(), vec![(recording.clone(), run.clone())], SystemTime::now());
    streams.recorded(recording, run)
}

/// All streams at one moment, and how they hang together.
#[derive(Debug)]
pub struct Streams {
    live: Vec<Arc<LiveStream>>,
    recorded: Vec<(Arc<Recording>, RunInfo)>,
    /// Ids of the recorded streams of each live one.
    out_ids: HashMap<u64, Vec<u64>>,
    now: SystemTime,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub enum Stream<'a> {
    Live(&'a Arc<LiveStream>),
    Recorded(&'a Arc<Recording>, &'a RunInfo),
}

impl Streams {
    pub fn now(context: &Context) -> Self {
        let runs = context.recordings.list().into_iter().filter_map(|r| r.run().map(|run| (r, run)));
        Self::new(context.registry.list(), runs.collect(), SystemTime::now())
    }

    fn new(live: Vec<Arc<LiveStream>>, recorded: Vec<(Arc<Recording>, RunInfo)>, now: SystemTime) -> Self {
        let mut out_ids: HashMap<u64, Vec<u64>> = HashMap::new();
        for (_, run) in &recorded {
            out_ids.entry(run.in_stream_id).or_default().push(run.stream_id);
        }
        Self { live, recorded, out_ids, now }
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<Stream<'_>> {
        let live = self.live.iter().map(Stream::Live);
        let recorded = self.recorded.iter().map(|(recording, run)| Stream::Recorded(recording, run));
        let mut all: Vec<_> = live.chain(recorded).collect();
        all.sort_by_key(Stream::id);
        all
    }

    /// The stream with that id.
    pub fn find(&self, id: u64) -> Option<Stream<'_>> {
        self.list().into_iter().find(|stream| stream.id() == id)
    }

    /// The live stream of that name.
    pub fn named(&self, name: &str) -> Option<Stream<'_>> {
        self.live.iter().find(|live| live.name == name).map(Stream::Live)
    }

    /// The stream object of EvoStream's lists.
    pub fn object(&self, stream: Stream<'_>) -> Value {
        match stream {
            Stream::Live(live) => self.live(live),
            Stream::Recorded(recording, run) => self.recorded(recording, run),
        }
    }

    fn live(&self, live: &LiveStream) -> Value {
        let source = &live.source;
        let tracks = live.tracks();
        let counted = |kind| {
            let track = tracks.known.iter().find(|track| track.kind == kind);
            (track, track.map(|track| live.stats(track.id)).unwrap_or_default())
        };
        let up = live.up_time();
        let mut object = self.common(live.created, up, counted(Kind::Video), counted(Kind::Audio));
        let own = json!({
            "appName": source.app,
            "connectionType": CONNECTION_STANDARD,
            "farIp": source.far.ip().to_string(),
            "farPort": source.far.port(),
            "ingestPoint": "",
            "ip": source.near.ip().to_string(),
            "name": live.name,
            "nearIp": source.near.ip().to_string(),
            "nearPort": source.near.port(),
            "outStreamsUniqueIds": self.out_ids.get(&live.id),
            "pageUrl": source.page_url,
            "port": source.near.port(),
            "swfUrl": source.swf_url,
            "tcUrl": source.tc_url,
            "type": "INR",
            "typeNumeric": tag_number("INR"),
            "uniqueId": live.id,
            "userAgent": source.user_agent,
        });
        merge(&mut object, own);
        object
    }

    fn recorded(&self, recording: &Recording, run: &RunInfo) -> Value {
        let settings = &recording.settings;
        let live = self.live.iter().find(|live| live.id == run.in_stream_id);
        let tracks = live.map(|live| live.tracks()).unwrap_or_default();
        let track = |kind| tracks.known.iter().find(|track| track.kind == kind);
        let video = track(Kind::Video);
        let audio = track(Kind::Audio).filter(|_| settings.has_audio);
        // A run does not tell what it lost by track.
        let (video_lost, audio_lost) =
            if video.is_some() { (run.dropped_samples, 0) } else { (0, run.dropped_samples) };
        let stats = |samples, bytes, dropped_samples| TrackStats {
            samples,
            bytes,
            dropped_samples,
            dropped_bytes: 0,
        };
        let mut object = self.common(
            run.started,
            self.now.duration_since(run.started).unwrap_or_default(),
            (video, stats(run.video_samples, run.video_bytes, video_lost)),
            (audio, stats(run.audio_samples, run.audio_bytes, audio_lost)),
        );
        let kind = type_of(&settings.format);
        let own = json!({
            "appName": live.map_or("", |live| &live.source.app),
            "connectionType": CONNECTION_RECORD,
            "farIp": "",
            "farPort": 0,
            "inStreamUniqueId": run.in_stream_id,
            "ip": "",
            "name": settings.local_stream_name,
            "nearIp": "",
            "nearPort": 0,
            "outStreamsUniqueIds": null,
            "pageUrl": "",
            "port": 0,
            "recordInfo": {
                "component": run.component,
                "file": run.file.to_string_lossy(),
                "segments": run.segments,
            },
            "recordSettings": config(recording.config_id, settings, &recording.destination.computed_path),
            "swfUrl": "",
            "tcUrl": "",
            "type": kind,
            "typeNumeric": tag_number(&kind),
            "uniqueId": run.stream_id,
            "userAgent": "",
        });
        merge(&mut object, own);
        object
    }

    /// What streams of both kinds have. Times are milliseconds, the bandwidth kbit/s over the stream's life.
    fn common(
        &self,
        created: SystemTime,
        up: Duration,
        video: (Option<&Track>, TrackStats),
        audio: (Option<&Track>, TrackStats),
    ) -> Value {
        let bits = 8.0 * (video.1.bytes + audio.1.bytes) as f64;
        json!({
            "audio": track_object(Kind::Audio, audio),
            "bandwidth": if up.is_zero() { 0 } else { (bits / ms(up)) as u64 },
            "creationTimestamp": ms(since_1970(created)),
            "processId": std::process::id(),
            "processType": "origin",
            "queryTimestamp": ms(since_1970(self.now)),
            "upTime": ms(up),
            "video": track_object(Kind::Video, video),
        })
    }
}

impl Stream<'_> {
    pub fn id(&self) -> u64 {
        match self {
            Stream::Live(live) => live.id,
            Stream::Recorded(_, run) => run.stream_id,
        }
    }
}

/// Counters and codec of a track, or zeros. Packets are samples.
fn track_object(kind: Kind, (track, stats): (Option<&Track>, TrackStats)) -> Value {
    let codec = codec_tag(kind, track);
    let mut object = json!({
        "bytesCount": stats.bytes,
        "codec": codec,
        "codecNumeric": tag_number(&codec),
        "droppedBytesCount": stats.dropped_bytes,
        "droppedPacketsCount": stats.dropped_samples,
        "packetsCount": stats.samples,
    });
    if kind == Kind::Video {
        let sps = track.and_then(sequence_parameters);
        object["height"] = json!(sps.map_or(0, |sps| sps.height));
        object["level"] = json!(sps.map_or(0, |sps| sps.level_idc));
        object["profile"] = json!(sps.map_or(0, |sps| sps.profile_idc));
        object["width"] = json!(sps.map_or(0, |sps| sps.width));
    }
    object
}

fn sequence_parameters(track: &Track) -> Option<Sps> {
    let config = (track.codec == "avc1").then(|| AvcConfig::parse(&track.config).ok())??;
    Sps::parse(config.sps.first()?).ok()
}

/// EvoStream's name for a codec: `A` or `V`, then the codec's; `UNK` for none.
fn codec_tag(kind: Kind, track: Option<&Track>) -> String {
    let codec = match track.map(|track| track.codec.as_str()) {
        None => "UNK".to_owned(),
        Some("avc1") => "H264".to_owned(),
        Some("mp4a") => "AAC".to_owned(),
        Some(other) => other.to_uppercase(),
    };
    let letter = if kind == Kind::Video { 'V' } else { 'A' };
    format!("{letter}{codec}")
}

/// EvoStream's type of a recorded stream.
fn type_of(format: &str) -> String {
    match format {
        "flv" => "OFRFLV".into(),
        other => format!("OF{}", other.to_uppercase()),
    }
}

/// A tag as EvoStream's number: its first eight bytes, the first one highest.
fn tag_number(tag: &str) -> u64 {
    (0..8).fold(0, |number, i| number << 8 | u64::from(tag.as_bytes().get(i).copied().unwrap_or(0)))
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Adds the keys of one object to another.
fn merge(object: &mut Value, own: Value) {
    if let (Value::Object(object), Value::Object(own)) = (object, own) {
        object.extend(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recorder::Phase, registry};

    fn settings() -> Settings {
        Settings {
            local_stream_name: "cam1".into(),
            path_to_file: "../media/cam1".into(),
            chunk_length: 60,
            user: [("_who".to_owned(), "me".to_owned())].into(),
            ..Settings::default()
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_config_has_the_documented_keys() {
        let config = config(3, &settings(), Path::new("/m/cam1.mp4"));
        let expected = json!({
            "_who": "me", "chunkLength": 60, "computedPathToFile": "/m/cam1.mp4", "configId": 3,
            "dateFolderStructure": false, "hasAudio": true, "keepAlive": true, "localStreamName": "cam1",
            "operationType": 7, "overwrite": false, "pathToFile": "../media/cam1", "preset": 0, "type": "mp4",
            "waitForIDR": true, "winQtCompat": false,
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn a_status_tells_why_it_failed() {
        let since = UNIX_EPOCH + Duration::from_millis(1_800_000_000_900);
        let waiting = Status { phase: Phase::WaitingForStream, since, stream_id: 0, reason: None };
        let expected = json!({
            "code": 2, "description": "Waiting for stream", "timestamp": 1_800_000_000, "uniqueStreamId": 0
        });
        assert_eq!(status(&waiting), expected);
        let failed = Status { phase: Phase::Failed, reason: Some("disk full".into()), ..waiting };
        assert_eq!(status(&failed)["reason"], "disk full");
    }

    #[test]
    fn numbers_of_tags_are_the_documented_ones() {
        assert_eq!(tag_number("AAAC"), 4_702_111_241_970_122_752);
        assert_eq!(tag_number("VH264"), 6_217_274_493_967_007_744);
        assert_eq!(tag_number("INR"), 5_282_249_572_905_648_128);
        assert_eq!(tag_number("OFABCDEFGHIJ"), tag_number("OFABCDEF"));
        assert_eq!(
            ["mp4", "ts", "flv", "mkv"].map(type_of),
            ["OFMP4", "OFTS", "OFRFLV", "OFMKV"].map(str::to_owned)
        );
    }

    /// AVCDecoderConfigurationRecord of libx264: Main profile, level 3.1, 1280x720.
    const AVC_CONFIG: &[u8] = &[
        0x01, 0x4d, 0x40, 0x1f, 0xff, // version, profile, compatibility, level, lengthSizeMinusOne
        0xe1, 0x00, 0x17, // one SPS
        0x67, 0x4d, 0x40, 0x1f, 0xe8, 0x80, 0x28, 0x02, 0xdd, 0x80, 0xb5, 0x01, 0x01, 0x01, 0x40, 0x00, 0x00,
        0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, //
        0x01, 0x00, 0x04, 0x68, 0xeb, 0xef, 0x20, // one PPS
    ];

    fn publisher(registry: &registry::Registry) -> registry::Publisher {
        let source = registry::Source {
            app: "live".into(),
            tc_url: "rtmp://h/live".into(),
            page_url: String::new(),
            swf_url: String::new(),
            user_agent: "FMLE/3.0".into(),
            near: ([127, 0, 0, 1], 1935).into(),
            far: ([10, 0, 0, 9], 40_000).into(),
        };
        registry.publish("cam1", source).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_stream_has_the_documented_keys() {
        let registry = registry::Registry::default();
        let mut publisher = publisher(&registry);
        let config = bytes::Bytes::from_static(AVC_CONFIG);
        publisher.track(Track { id: 1, kind: Kind::Video, codec: "avc1".into(), config, properties: vec![] });
        let sample = |dts_ms, key| crate::media::Sample {
            track: 1,
            dts_ms,
            pts_ms: dts_ms,
            key,
            discontinuity: false,
            data: vec![0; 1000].into(),
        };
        publisher.send(&mut vec![sample(0, true), sample(40, false)]).await;

        tokio::time::advance(Duration::from_millis(100)).await;
        let streams = Streams::new(registry.list(), vec![], SystemTime::now());
        let stream = streams.named("cam1").unwrap();
        assert_eq!(stream.id(), 1);
        assert!(streams.find(2).is_none() && streams.named("cam2").is_none());
        let object = streams.object(stream);
        let documented = "appName audio bandwidth connectionType creationTimestamp farIp farPort ingestPoint ip \
            name nearIp nearPort outStreamsUniqueIds pageUrl port processId processType queryTimestamp swfUrl \
            tcUrl type typeNumeric uniqueId upTime userAgent video";
        assert_eq!(keys(&object).join(" "), documented);
        let video = json!({
            "bytesCount": 2000, "codec": "VH264", "codecNumeric": tag_number("VH264"), "droppedBytesCount": 0,
            "droppedPacketsCount": 0, "height": 720, "level": 31, "packetsCount": 2, "profile": 77, "width": 1280,
        });
        assert_eq!(object["video"], video);
        assert_eq!(object["audio"]["codec"], "AUNK");
        assert_eq!((&object["bandwidth"], &object["upTime"]), (&json!(160), &json!(100.0)));
        assert_eq!((&object["farIp"], &object["port"]), (&json!("10.0.0.9"), &json!(1935)));
    }

    #[test]
    fn a_broken_codec_configuration_is_no_picture_size() {
        let config = bytes::Bytes::from_static(&AVC_CONFIG[..20]);
        let track = Track { id: 1, kind: Kind::Video, codec: "avc1".into(), config, properties: vec![] };
        let object = track_object(Kind::Video, (Some(&track), TrackStats::default()));
        assert_eq!((&object["codec"], &object["width"]), (&json!("VH264"), &json!(0)));
    }
}
