//! `record`: an order to write a live stream to files.

use serde_json::json;

use crate::{
    control::{
        Context,
        reply::Reply,
        shape,
        table::{Args, Command, Kind, Need, Param, Role, Route},
    },
    recorder::{RecordError, Settings},
};

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
        Param {
            name: "pathToFile",
            kind: Kind::Text,
            need: Need::Mandatory,
            help: "Path and name of the file, in the media root unless absolute; the extension may be left out.",
        },
        Param {
            name: "type", kind: Kind::Text, need: Need::Default("mp4"), help: "Format: flv, mp4, ts, …"
        },
        Param {
            name: "overwrite",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "1: replace a file of that name. 0: add the next free number to the name.",
        },
        Param {
            name: "keepAlive",
            kind: Kind::Bool,
            need: Need::Default("1"),
            help: "1: record again each time the stream comes back. 0: once.",
        },
        Param {
            name: "chunkLength",
            kind: Kind::Int(0, 999_999),
            need: Need::Default("0"),
            help: "Seconds after which a new file begins; 0: never.",
        },
        Param {
            name: "waitForIDR",
            kind: Kind::Bool,
            need: Need::Default("1"),
            help: "1: files begin at key frames only. 0: at any frame.",
        },
        Param {
            name: "winQtCompat",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "1: MP4 header fields of 32 bits, for old players.",
        },
        Param {
            name: "dateFolderStructure",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "1: files go into folders by date. Not supported yet.",
        },
        Param {
            name: "preset",
            kind: Kind::Int(0, 99_999),
            need: Need::Default("0"),
            help: "Number of a set of parameters; 0: none. Others are not supported yet.",
        },
        Param { name: "hasAudio", kind: Kind::Bool, need: Need::Default("1"), help: "0: record video only." },
        Param {
            name: "manifest",
            kind: Kind::Bool,
            need: Need::Default("0"),
            help: "1: a file NAME.json beside each file says what is in it, what is missing, and its SHA-256.",
        },
    ],
    needs_params: true,
    role: Role::Operate,
    routes: &[Route::new("POST", "/recordings")],
    run: |context, args| Box::pin(record(context, args)),
};

/// What the text form shows.
const SHOWN: &[&str] = &["chunkLength", "configId", "localStreamName", "pathToFile", "type"];

async fn record(context: &Context, args: Args) -> Reply {
    if args.is("dateFolderStructure") {
        return unable("dateFolderStructure is not supported yet");
    }
    if args.int("preset") != Some(0) {
        return unable("preset is not supported yet");
    }
    let settings = settings(args);
    let is_mp4 = settings.format == "mp4";
    let is_live = context.registry.get(&settings.local_stream_name).is_some();
    match context.recordings.add(settings).await {
        Ok(recording) => {
            let mut config =
                shape::config(recording.config_id, &recording.settings, &recording.destination.computed_path);
            if is_mp4 && is_live {
                config["mp4BinPath"] = json!("evo-mp4writer");
            }
            Reply::success("Recording Stream", config).showing(SHOWN)
        }
        Err(RecordError::UnknownFormat { known, .. }) => Reply::fail(format!(
            "Syntax error for type parameter. Type help for details. Known types: {known}"
        )),
        Err(error) => unable(error),
    }
}

fn unable(reason: impl std::fmt::Display) -> Reply {
    Reply::fail(format!("Unable to record stream: {reason}"))
}

fn settings(args: Args) -> Settings {
    let text = |name| args.text(name).unwrap_or_default();
    let number = |name| args.int(name).and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    Settings {
        local_stream_name: text("localStreamName").into(),
        path_to_file: text("pathToFile").into(),
        format: text("type").to_lowercase(),
        overwrite: args.is("overwrite"),
        keep_alive: args.is("keepAlive"),
        chunk_length: number("chunkLength"),
        wait_for_idr: args.is("waitForIDR"),
        win_qt_compat: args.is("winQtCompat"),
        date_folder_structure: args.is("dateFolderStructure"),
        preset: number("preset"),
        has_audio: args.is("hasAudio"),
        manifest: args.is("manifest"),
        user: args.user,
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse::Line;

    fn asked(params: &str) -> Settings {
        settings(RECORD.bind(Line::with_params("record", params.as_bytes()).unwrap()).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_documented_table() {
        let expected =
            Settings { local_stream_name: "cam1".into(), path_to_file: "a b".into(), ..Settings::default() };
        assert_eq!(asked(r"localStreamName=cam1 pathtofile=a\ b"), expected);
    }

    #[test]
    fn every_parameter_arrives() {
        let expected = Settings {
            local_stream_name: "s".into(),
            path_to_file: "p".into(),
            format: "ts".into(),
            overwrite: true,
            keep_alive: false,
            chunk_length: 999_999,
            wait_for_idr: false,
            win_qt_compat: true,
            date_folder_structure: true,
            preset: 3,
            has_audio: false,
            manifest: true,
            user: [("_a".to_owned(), "b".to_owned())].into(),
            ..Settings::default()
        };
        let all = "LOCALSTREAMNAME=s pathToFile=p type=TS overwrite=true keepAlive=no chunkLength=999999 \
            waitForIdr=0 winQtCompat=YES dateFolderStructure=1 preset=3 hasAudio=false manifest=1 _a=b";
        assert_eq!(asked(all), expected);
    }
}
