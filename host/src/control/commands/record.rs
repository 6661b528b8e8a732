//! `record`: an order to write a live stream to files.

use std::time::Duration;

use rustix::io::Errno;
use serde_json::json;

use crate::{
    control::{
        Context,
        reply::{Fault, Reply},
        shape,
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    output::PathError,
    recorder::{Align, NoAlign, RecordError, Settings},
};

/// Parameters that `recordRule` has as well.
pub(super) mod params {
    use super::{Kind, Need, Param};

    pub(in super::super) const PATH_TO_FILE: Param = Param {
        name: "pathToFile",
        kind: Kind::Text,
        need: Need::Mandatory,
        help: "Path and name of the file, in the media root unless absolute; the extension may be left out. May have \
            {stream} {date} {time} {start} {seq} {configId}.",
    };
    pub(in super::super) const TYPE: Param =
        Param {
            name: "type", kind: Kind::Text, need: Need::Default("mp4"), help: "Format: flv, mp4, ts, …"
        };
    pub(in super::super) const OVERWRITE: Param = Param {
        name: "overwrite",
        kind: Kind::Bool,
        need: Need::Default("0"),
        help: "1: replace a file of that name. 0: add the next free number to the name.",
    };
    pub(in super::super) const KEEP_ALIVE: Param = Param {
        name: "keepAlive",
        kind: Kind::Bool,
        need: Need::Default("1"),
        help: "1: record again each time the stream comes back. 0: once.",
    };
    pub(in super::super) const CHUNK_LENGTH: Param = Param {
        name: "chunkLength",
        kind: Kind::Int(0, 999_999),
        need: Need::Default("0"),
        help: "Seconds after which a new file begins; 0: never.",
    };
    pub(in super::super) const CHUNK_SIZE: Param = Param {
        name: "chunkSize",
        kind: Kind::Int(0, 1 << 50),
        need: Need::Default("0"),
        help: "Bytes after which a new file begins, at the next key frame; 0: never.",
    };
    pub(in super::super) const CHUNK_ALIGN: Param = Param {
        name: "chunkAlign",
        kind: Kind::Text,
        need: Need::Optional,
        help: "Moments of local time at which a new file begins: minute, hour, day, or seconds counted from midnight.",
    };
    pub(in super::super) const MAX_DURATION: Param = Param {
        name: "maxDuration",
        kind: Kind::Int(0, 1 << 32),
        need: Need::Default("0"),
        help: "Seconds of media after which the recording is done; 0: never.",
    };
    pub(in super::super) const MAX_SIZE: Param = Param {
        name: "maxSize",
        kind: Kind::Int(0, 1 << 60),
        need: Need::Default("0"),
        help: "Bytes in all files of a run after which the recording is done; 0: never.",
    };
    pub(in super::super) const WAIT_FOR_IDR: Param = Param {
        name: "waitForIDR",
        kind: Kind::Bool,
        need: Need::Default("1"),
        help: "1: files begin at key frames only. 0: at any frame.",
    };
    pub(in super::super) const WIN_QT_COMPAT: Param = Param {
        name: "winQtCompat",
        kind: Kind::Bool,
        need: Need::Default("0"),
        help: "1: MP4 header fields of 32 bits, for old players.",
    };
    pub(in super::super) const DATE_FOLDERS: Param = Param {
        name: "dateFolderStructure",
        kind: Kind::Bool,
        need: Need::Default("0"),
        help: "1: pathToFile is a folder, and files are STREAM/YYYYMMDD/STREAM-YYYYMMDD-HHMMSS in it.",
    };
    pub(in super::super) const PRESET: Param = Param {
        name: "preset",
        kind: Kind::Int(0, 99_999),
        need: Need::Default("0"),
        help: "1: type=mp4 chunkLength=1800 waitForIDR=1 dateFolderStructure=1. 0: none.",
    };
    pub(in super::super) const HAS_AUDIO: Param =
        Param { name: "hasAudio", kind: Kind::Bool, need: Need::Default("1"), help: "0: record video only." };
    pub(in super::super) const MANIFEST: Param = Param {
        name: "manifest",
        kind: Kind::Bool,
        need: Need::Default("0"),
        help: "1: a file NAME.json beside each file says what is in it, what is missing, and its SHA-256.",
    };
}

use params::*;

pub(super) static RECORD: Command = Command {
    name: "record",
    aliases: &[],
    help: "Records a live stream, now or when it comes.",
    params: &[
        Param {
            name: "localStreamName",
            kind: Kind::Text,
            need: Need::Mandatory,
            help: "Name of the live stream to record.",
        },
        PATH_TO_FILE,
        TYPE,
        OVERWRITE,
        KEEP_ALIVE,
        CHUNK_LENGTH,
        WAIT_FOR_IDR,
        WIN_QT_COMPAT,
        DATE_FOLDERS,
        PRESET,
        HAS_AUDIO,
        CHUNK_SIZE,
        CHUNK_ALIGN,
        MAX_DURATION,
        MAX_SIZE,
        Param {
            name: "preRoll",
            kind: Kind::Int(0, 86_400),
            need: Need::Default("0"),
            help: "Seconds before now that are recorded as well, from memory; see the server's setting pre-roll.",
        },
        MANIFEST,
        Param {
            name: "check",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "1: say what would happen, and do nothing.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/recordings")],
    run: |context, args| Box::pin(record(context, args)),
};

/// What the text form shows.
const SHOWN: &[&str] = &["chunkLength", "configId", "localStreamName", "pathToFile", "type"];
const SHOWN_CHECKED: &[&str] = &["computedPathToFile", "firstFile", "isLive", "localStreamName", "type"];

async fn record(context: &Context, args: Args) -> Reply {
    let check = args.is("check");
    let settings = match all_settings(args) {
        Ok(settings) => settings,
        Err(refused) => return refused.reply("Unable to record stream"),
    };
    let live = context.registry.get(&settings.local_stream_name);
    let is_live = live.is_some();
    let pre_roll_ms = live
        .filter(|_| settings.pre_roll > 0)
        .map(|live| live.pre_roll_ms(Duration::from_secs(settings.pre_roll.into())));
    if check {
        return match context.recordings.preview(&settings).await {
            Ok((destination, first_file)) => {
                let mut config = shape::config(0, &settings, &destination.computed_path);
                config["firstFile"] = json!(first_file.to_string_lossy());
                config["isLive"] = json!(is_live);
                if let Some(ms) = pre_roll_ms {
                    config["preRollMs"] = json!(ms);
                }
                let reply = Reply::success("Recording would start", config).showing(SHOWN_CHECKED);
                Reply { unchanged: true, ..reply }
            }
            Err(error) => refusal("Unable to record stream", &error),
        };
    }
    let is_mp4 = settings.format == "mp4";
    match context.recordings.add(settings).await {
        Ok(recording) => {
            let mut config =
                shape::config(recording.config_id, &recording.settings, &recording.destination.computed_path);
            if is_mp4 && is_live {
                config["mp4BinPath"] = json!("evo-mp4writer");
            }
            if let Some(ms) = pre_roll_ms {
                config["preRollMs"] = json!(ms);
            }
            Reply::success("Recording Stream", config).showing(SHOWN)
        }
        Err(error) => refusal("Unable to record stream", &error),
    }
}

/// Why something can't be recorded, behind EvoStream's first words.
pub(super) fn refusal(words: &str, error: &RecordError) -> Reply {
    let fault = match error {
        RecordError::UnknownFormat { known, .. } => {
            return Reply::fail(format!(
                "Syntax error for type parameter. Type help for details. Known types: {known}"
            ));
        }
        RecordError::Taken(..) | RecordError::Path(PathError::NoFreeName { .. }) => Fault::Conflict,
        RecordError::Path(PathError::Folder { errno: Errno::NOENT | Errno::NOTDIR, .. }) => Fault::Invalid,
        RecordError::Path(PathError::Folder { .. }) | RecordError::Store(_) => Fault::Failed,
        _ => Fault::Invalid,
    };
    Reply::fault(fault, format!("{words}: {error}"))
}

/// Why parameters that are fine one by one are not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Align,
    AlignAndLength,
    Preset(u32),
}

impl Refused {
    /// The failure, behind EvoStream's first words.
    pub(super) fn reply(self, words: &str) -> Reply {
        Reply::fail(match self {
            Refused::Align => format!("Syntax error. Parameter chunkAlign is invalid; {NoAlign}"),
            Refused::AlignAndLength => {
                format!("{words}: chunkLength and chunkAlign do not go together; choose one")
            }
            Refused::Preset(preset) => format!("{words}: there is no preset {preset}; there are: 0, 1"),
        })
    }
}

/// All settings of `record`.
fn all_settings(args: Args) -> Result<Settings, Refused> {
    let local_stream_name = args.text("localStreamName").unwrap_or_default().to_owned();
    let pre_roll = args.int("preRoll").and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let overwrite = args.is("overwrite");
    Ok(Settings { local_stream_name, pre_roll, overwrite, ..settings(args)? })
}

/// The settings that `record` and `recordRule` share.
pub(super) fn settings(args: Args) -> Result<Settings, Refused> {
    let text = |name| args.text(name).unwrap_or_default();
    let long = |name| args.int(name).unwrap_or_default();
    let number = |name| u32::try_from(long(name)).unwrap_or_default();
    let align = args.text("chunkAlign").map(str::parse::<Align>).transpose();
    let settings = Settings {
        path_to_file: text("pathToFile").into(),
        format: text("type").to_lowercase(),
        keep_alive: args.is("keepAlive"),
        chunk_length: number("chunkLength"),
        chunk_size: long("chunkSize"),
        chunk_align: align.map_err(|_| Refused::Align)?,
        max_duration: long("maxDuration"),
        max_size: long("maxSize"),
        wait_for_idr: args.is("waitForIDR"),
        win_qt_compat: args.is("winQtCompat"),
        date_folder_structure: args.is("dateFolderStructure"),
        preset: number("preset"),
        has_audio: args.is("hasAudio"),
        manifest: args.is("manifest"),
        user: args.user,
        ..Settings::default()
    };
    let settings = match settings.preset {
        0 => settings,
        1 => Settings {
            format: "mp4".into(),
            chunk_length: 1800,
            wait_for_idr: true,
            date_folder_structure: true,
            ..settings
        },
        preset => return Err(Refused::Preset(preset)),
    };
    if settings.chunk_align.is_some() && settings.chunk_length > 0 {
        return Err(Refused::AlignAndLength);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse::Line;

    fn asked(params: &str) -> Result<Settings, Refused> {
        all_settings(RECORD.bind(Line::with_params("record", params.as_bytes()).unwrap()).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_documented_table() {
        let expected =
            Settings { local_stream_name: "cam1".into(), path_to_file: "a b".into(), ..Settings::default() };
        assert_eq!(asked(r"localStreamName=cam1 pathtofile=a\ b"), Ok(expected));
    }

    #[test]
    fn every_parameter_arrives() {
        let expected = Settings {
            local_stream_name: "s".into(),
            pre_roll: 8,
            path_to_file: "p".into(),
            format: "ts".into(),
            overwrite: true,
            keep_alive: false,
            chunk_length: 999_999,
            chunk_size: 5,
            max_duration: 6,
            max_size: 7,
            wait_for_idr: false,
            win_qt_compat: true,
            date_folder_structure: true,
            has_audio: false,
            manifest: true,
            user: [("_a".to_owned(), "b".to_owned())].into(),
            ..Settings::default()
        };
        let all = "LOCALSTREAMNAME=s pathToFile=p type=TS overwrite=true keepAlive=no chunkLength=999999 \
            waitForIdr=0 winQtCompat=YES dateFolderStructure=1 preset=0 hasAudio=false manifest=1 _a=b \
            chunkSize=5 maxDuration=6 maxSize=7 preRoll=8 check=1";
        assert_eq!(asked(all), Ok(expected));
        let aligned = asked("localStreamName=s pathToFile=p chunkAlign=Hour").unwrap();
        assert_eq!(aligned.chunk_align, Some(Align::Hour));
    }

    #[test]
    fn a_preset_is_a_set_of_parameters() {
        let preset = asked("localStreamName=s pathToFile=p preset=1 type=ts waitForIDR=0 chunkLength=5");
        let expected = Settings {
            local_stream_name: "s".into(),
            path_to_file: "p".into(),
            chunk_length: 1800,
            date_folder_structure: true,
            preset: 1,
            ..Settings::default()
        };
        assert_eq!(preset, Ok(expected));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (params, expected) in [
            ("preset=2", "Unable to record stream: there is no preset 2; there are: 0, 1"),
            (
                "chunkAlign=hour chunkLength=5",
                "Unable to record stream: chunkLength and chunkAlign do not go together; choose one",
            ),
            (
                "chunkAlign=week",
                "Syntax error. Parameter chunkAlign is invalid; it takes minute, hour, day or a number of seconds \
                    from 1 to 86400",
            ),
        ] {
            let refused = asked(&format!("localStreamName=s pathToFile=p {params}")).unwrap_err();
            assert_eq!(refused.reply("Unable to record stream").description, expected);
        }
    }
}
