//! Every command by every transport, as it is documented and as clients misspell it.
//!
//! A table of lines with what must be answered; `…` stands for what differs from run to run. Where EvoStream's
//! documentation has a sample reply, ours has to be the same bytes, but for what is marked so.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use reelwright_built_components::{component, marked};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    commands::{publish, streams},
    *,
};
use crate::{
    control::server::{serve_ascii, serve_http, serve_json},
    output::hex,
};

/// A command line, and what is answered.
#[derive(Clone, Copy)]
struct Case {
    line: &'static str,
    success: bool,
    description: &'static str,
    /// JSON as on the wire; `null` for a failure.
    data: &'static str,
    /// What the text form shows of it, with `|` for the ends of lines.
    text: &'static str,
    /// The status code of the REST API, and what of the data it has if that is not all.
    status: u16,
    body: Option<&'static str>,
}

const fn ok(line: &'static str, description: &'static str, data: &'static str) -> Case {
    Case { line, success: true, description, data, text: "", status: 200, body: None }
}

const fn no(line: &'static str, description: &'static str) -> Case {
    Case { success: false, status: 400, ..ok(line, description, "null") }
}

impl Case {
    const fn text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }

    const fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    const fn body(self, body: &'static str) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// What the text form shows of `listConfig`, with a recording that waits and one that runs.
const LIST_CONFIG: &str = concat!(
    "    dash: []|    hds: []|    hls: []|    metalistener: []|    mss: []|    process: []|",
    "    pull: []|    push: []|    record: |      -- |        configId: 1|",
    "        localStreamName: testpullstream|        pathToFile: ../media/testRecord|",
    "        status: |          current: |            description: Waiting for stream|",
    "            uniqueStreamId: 0|      -- |        configId: 2|        localStreamName: cam1|",
    "        pathToFile: a|        status: |          current: |            description: Streaming|",
    "            uniqueStreamId: 2|    webrtc: []|",
);

/// What is sent in this order to a server with a live stream `cam1`, id 1, that has sent nothing.
const CASES: &[Case] = &[
    // Samples of the documentation, with other names and numbers.
    ok("version", "Version", r#"{"banner":"Reelwright …","branchName":"…","releaseNumber":"…"}"#).text(concat!(
        "    banner: Reelwright …|    buildDate: |    buildNumber: |    codeName: Reelwright|",
        "    releaseNumber: …|",
    )),
    ok("getStreamsCount", "Active streams count", r#"{"streamCount":1}"#).text("    streamCount: 1|"),
    ok("listStreamsIds", "Available stream IDs", "[1]").text("    -- 1|"),
    ok("isStreamRunning localStreamName=cam1", "Stream status:", r#"{"Running":true}"#).text("    Running: true|"),
    ok("isStreamRunning localStreamName=cam2", "Stream status:", r#"{"Running":false}"#).text("    Running: false|"),
    ok("listInboundStreamNames", "Inbound local stream names", r#"[{"name":"cam1"}]"#).text("    -- |      name: cam1|"),
    ok("getInboundStreamsCount", "Active inbound streams", r#"{"inboundStreamsCount":1}"#).text("    inboundStreamsCount: 1|"),
    ok("clientsConnected", "EMS outbound client connections count", r#"{"outboundCount":0}"#).text("    outboundCount: 0|"),
    ok(
        "clientsConnected localStreamName=cam1",
        "EMS outbound client connections count for the corresponding localstreamname: cam1",
        r#"{"outboundCount":0}"#,
    ).text("    outboundCount: 0|"),
    ok("shutdownServer", "Call shutdownserver again with the provided key", r#"{"key":"…"}"#).text("    key: …|"),
    // computedPathToFile is absolute.
    ok(
        "record localStreamName=testpullstream pathtofile=../media/testRecord type=mp4 overwrite=1 waitForIDR=0 winQtCompat=1",
        "Recording Stream",
        concat!(
            r#"{"chunkLength":0,"computedPathToFile":"…\/testRecord.mp4","configId":1,"#,
            r#""dateFolderStructure":false,"hasAudio":true,"keepAlive":true,"localStreamName":"testpullstream","#,
            r#""operationType":7,"overwrite":true,"pathToFile":"..\/media\/testRecord","preset":0,"type":"mp4","#,
            r#""waitForIDR":false,"winQtCompat":true}"#
        ),
    ).text(concat!(
        "    chunkLength: 0|    configId: 1|    localStreamName: testpullstream|",
        "    pathToFile: ../media/testRecord|    type: mp4|",
    )).status(201),
    // What a live stream adds.
    ok(
        "record localStreamName=cam1 pathToFile=a _who=me",
        "Recording Stream",
        r#"{"_who":"me",…,"configId":2,…,"localStreamName":"cam1","mp4BinPath":"evo-mp4writer",…}"#,
    ).text(concat!(
        "    chunkLength: 0|    configId: 2|    localStreamName: cam1|    pathToFile: a|",
        "    type: mp4|",
    )).status(201),
    no("record", "Syntax error. No parameters provided"),
    no("record localStreamName=a", "Syntax error. Parameter pathToFile is invalid"),
    no("record localStreamName= pathToFile=b", "Syntax error. Parameter localStreamName is invalid"),
    no("record localStreamName=a,b pathToFile=b", "Syntax error. Parameter localStreamName is invalid"),
    no(
        "record localStreamName=a pathToFile=b chunkLength=1000000",
        "Syntax error. Parameter chunkLength is invalid. Range: 0 - 999999",
    ),
    no(
        "record localStreamName=a pathToFile=b chunkLength=10s",
        "Syntax error. Parameter chunkLength is invalid",
    ),
    no(
        "record localStreamName=a pathToFile=b keepAlive=2",
        "Syntax error. Parameter keepAlive is invalid. It takes 0 or 1",
    ),
    no(
        "record localStreamName=a pathToFile=b type=avi",
        "Syntax error for type parameter. Type help for details. Known types: flv, mp4, ts",
    ),
    no("record localStreamName=a pathToFile=/etc/b", "Unable to record stream: \\/etc\\/b lies outside …"),
    no(
        "record localStreamName=a pathToFile=no/b",
        "Unable to record stream: …\\/no: no such file or directory",
    ),
    no("record localStreamName=a pathToFile=../../b", "Unable to record stream: pathToFile …has `..`…"),
    no("record localStreamName=a pathToFile=testRecord", "Unable to record stream: …config 1…").status(409),
    no(
        "record localStreamName=a pathToFile=b chunklenght=1",
        "Syntax error. Parameter chunklenght is not known; did you mean chunkLength?",
    ),
    ok(
        "record localStreamName=later pathToFile={stream}-{seq} type=flv check=1",
        "Recording would start",
        r#"{…"configId":0,…"firstFile":"…\/later-…flv",…"isLive":false,…}"#,
    ).text(concat!(
        "    computedPathToFile: …/later-0000.flv|    firstFile: …/later-0000.flv|",
        "    isLive: false|    localStreamName: later|    type: flv|",
    )),
    // Nothing has come, so there is no file.
    no("splitRecord configId=2", "Unable to split: it is not recording now").status(409),
    no("splitRecord configId=1", "Unable to split: it is not recording now").status(409),
    no("splitRecord configId=99", "Config ID not found").status(404),
    no("splitRecord localStreamName=none now=1", "Stream has no recordings"),
    no("splitRecord", "Syntax error. No parameters provided"),
    no("pauseRecord configId=99", "Config ID not found").status(404),
    no("resumeRecord configId=99", "Config ID not found").status(404),
    no("pauseRecord localStreamName=none", "Stream has no recordings"),
    no("resumeRecord localStreamName=none", "Stream has no recordings"),
    ok("pauseRecord configId=2", "Recording paused", r#"{"configs":[{…"configId":2,…}]}"#).text(concat!(
        "    configs: |      -- |        configId: 2|        localStreamName: cam1|",
        "        pathToFile: a|",
    )),
    no("pauseRecord configId=2", "Unable to pause: it is paused already").status(409),
    ok("resumeRecord configId=2", "Recording resumed", r#"{"configs":[{…"configId":2,…}]}"#).text(concat!(
        "    configs: |      -- |        configId: 2|        localStreamName: cam1|",
        "        pathToFile: a|",
    )),
    no("resumeRecord configId=2", "Unable to resume: it is not paused").status(409),
    ok("recordRule streams=studio* type=ts", "Streams will be recorded", r#"{…"streams":"studio*",…}"#).text(concat!(
        "    chunkLength: 0|    id: 3|    pathToFile: {stream}|    streams: studio*|",
        "    type: ts|",
    )).status(201),
    no("recordRule streams=[", "Unable to make the rule: …"),
    no("recordRule", "Syntax error. No parameters provided"),
    ok("listRecordRules", "Record rules", r#"[{…"streams":"studio*",…}]"#).text(concat!(
        "    -- |      chunkLength: 0|      id: 3|      pathToFile: {stream}|",
        "      streams: studio*|      type: ts|",
    )),
    ok("removeRecordRule id=3", "Rule removed", r#"{…"streams":"studio*",…}"#).text(concat!(
        "    chunkLength: 0|    id: 3|    pathToFile: {stream}|    streams: studio*|",
        "    type: ts|",
    )),
    no("removeRecordRule id=3", "Rule not found").status(404),
    no("removeRecordRule", "Syntax error. No parameters provided"),
    no("removeTimer", "Syntax error. No parameters provided"),
    // A command is run once.
    ok(
        "recordRule streams=twice* type=ts commandId=rule-1",
        "Streams will be recorded",
        r#"{…"streams":"twice*",…}"#,
    ).text("    chunkLength: 0|    id: 4|    pathToFile: {stream}|    streams: twice*|    type: ts|").status(201),
    no(
        "recordRule streams=twice* type=ts commandId=rule-1",
        "commandId rule-1 was used before: recordRule answered `Streams will be recorded` …",
    ).status(409),
    no("recordRule streams=a commandId={long}", "Syntax error. Parameter commandId is invalid"),
    no("version commandId={long}", "Syntax error. Parameter commandId is invalid"),
    no("recordRule streams=a commandId=", "Syntax error. Parameter commandId is invalid"),
    ok("removeRecordRule id=4", "Rule removed", r#"{…"streams":"twice*",…}"#).text("    chunkLength: 0|    id: 4|    pathToFile: {stream}|    streams: twice*|    type: ts|"),
    ok("listConfig", "Run-time configuration", r#"{"dash":[],…,"record":[{"chunkLength":0,…}],"webrtc":[]}"#).text(LIST_CONFIG).body("[{\"chunkLength\":0,…}]"),
    ok("listPullPushConfig", "Run-time configuration", r#"{"dash":[],…,"record":[{…}],"webrtc":[]}"#).text(LIST_CONFIG).body("[{\"chunkLength\":0,…}]"),
    ok(
        "getConfigInfo id=1",
        "Configuration Info",
        r#"{…"configId":1,…,"status":{"current":{"code":2,…},…}…}"#,
    ).text(concat!(
        "    chunkLength: 0|    configId: 1|    keepAlive: true|",
        "    localStreamName: testpullstream|    operationType: 7|",
        "    pathToFile: ../media/testRecord|    status: |      current: |        code: 2|",
        "        description: Waiting for stream|        timestamp: …|",
        "        uniqueStreamId: 0|      previous: |",
    )),
    no("getConfigInfo id=9", "Config ID not found").status(404),
    no("getConfigInfo", "Syntax error. No parameters provided"),
    no("getConfigInfo id=x", "Syntax error. Parameter id is invalid"),
    ok("isStreamRunning id=1", "Stream status:", r#"{"Running":false}"#).text("    Running: false|"),
    no("isStreamRunning id=99", "Config ID not found").status(404),
    no(
        "isStreamRunning id=1 localStreamName=cam1",
        "id and localStreamName must not go together, choose only 1",
    ),
    no("isStreamRunning", "Syntax error. No parameters provided"),
    ok("removeConfig id=1", "Configuration terminated", r#"{…"configId":1,…}"#).text(concat!(
        "    configId: 1|    localStreamName: testpullstream|",
        "    pathToFile: ../media/testRecord|",
    )),
    no("removeConfig id=1", "Config ID not found").status(404),
    no("removePullPushConfig id=1", "Config ID not found").status(404),
    no("removeConfig groupName=x", "Config group not found"),
    // As EvoStream's PHP client sends it.
    ok(
        "record localStreamName=php pathToFile=php",
        "Recording Stream",
        r#"{…"configId":5,…"localStreamName":"php",…}"#,
    ).text(concat!(
        "    chunkLength: 0|    configId: 5|    localStreamName: php|    pathToFile: php|",
        "    type: mp4|",
    )).status(201),
    ok(
        "removeConfig id=5 HlsHdsGroup= removeHLSFiles=0",
        "Configuration terminated",
        r#"{…"configId":5,…"localStreamName":"php",…}"#,
    ).text("    configId: 5|    localStreamName: php|    pathToFile: php|"),
    no("removeConfig HlsHdsGroup= removeHLSFiles=0", "No id nor group name provided"),
    no("removeConfig HlsHdsGroup=x", "Config group not found"),
    ok("listRecoveries", "Recoveries", r#"{"recoveries":[],"unfinished":0}"#).text("    recoveries: []|    unfinished: 0|"),
    ok("listStreams", "Available streams", r#"[{…"name":"cam1",…}…]"#).text(concat!(
        "    -- |      appName: live|…|      name: cam1|…|      type: INR|…|    -- |…|",
        "      recordSettings: |        _who: me|…|      type: OFMP4|…",
    )),
    ok("listInboundStreams", "Available inbound streams", r#"[{…"name":"cam1",…}]"#).text(concat!(
        "    -- |      appName: live|      audio: |        bytesCount: 0|…|",
        "      farIp: 10.0.0.9|…|      name: cam1|…|        width: 0|",
    )),
    ok("getStreamInfo localStreamName=cam1", "Stream information", r#"{"appName":"live",…"uniqueId":1,…}"#).text(concat!(
        "    appName: live|    audio: |      bytesCount: 0|…|    farIp: 10.0.0.9|…|",
        "    name: cam1|…|      width: 0|",
    )),
    no("getStreamInfo id=99", "Stream 0:99 not found").status(404),
    no("getStreamInfo localStreamName=none", "Stream none not found").status(404),
    no(
        "getStreamInfo id=1 localStreamName=cam1",
        "id and localStreamName must not go together, choose only 1",
    ),
    no("clientsConnected localStreamName=none", "Stream none not found").status(404),
    no("clientsConnected localStreamName=", "Syntax error. Parameter localStreamName is invalid"),
    no("shutdownStream id=99", "Stream no longer available").status(404),
    no("shutdownStream localStreamName=none", "Stream no longer available").status(404),
    no("shutdownStream", "Syntax error. No parameters provided"),
    ok(
        "shutdownStream localStreamName=cam1 permanently=1",
        "Stream closed",
        concat!(
            r#"{"protocolStackInfo":{"carrier":{"farIP":"10.0.0.9","farPort":40000,"nearIP":"127.0.0.1","#,
            r#""nearPort":1935,"type":"IOHT_TCP_CARRIER"},"stack":[]},"streamInfo":{"appName":"live",…"name":"cam1",…}}"#
        ),
    ).text(concat!(
        "    streamInfo: |      appName: live|      audio: |…|      name: cam1|…|",
        "        width: 0|",
    )),
    no(
        "setLogLevel level=7",
        "Syntax error. Parameter level is invalid. It takes one of: -1, 0, 1, 2, 3, 4, 5, 6",
    ),
    no("setLogLevel", "Syntax error. No parameters provided"),
    // Timers and ingest points, as in the documentation's samples.
    ok("setTimer value=10", "Custom timer enqueued", r#"{"timerId":1,"triggerCount":0,"value":10}"#).text("    timerId: 1|    triggerCount: 0|    value: 10|").status(201),
    no("setTimer value=0", "Syntax error. Parameter value is invalid. …"),
    no("setTimer value=25:00:00", "Syntax error. Parameter value is invalid. …"),
    no("setTimer", "Syntax error. No parameters provided"),
    ok("listTimers", "List of armed timers", r#"[{"timerId":1,"triggerCount":0,"value":10}]"#).text("    -- |      timerId: 1|      triggerCount: 0|      value: 10|"),
    ok("removeTimer id=1", "Timer removed", r#"{"timerId":1,"triggerCount":0,"value":10}"#).text("    timerId: 1|    triggerCount: 0|    value: 10|"),
    no("removeTimer id=1", "Timer 1 not found").status(404),
    ok(
        "createIngestPoint privateStreamName=theIngestPoint publicStreamName=useMeToViewStream",
        "Ingest point created",
        r#"{"configId":1,"privateStreamName":"theIngestPoint","publicStreamName":"useMeToViewStream"}"#,
    ).text(concat!(
        "    configId: 1|    privateStreamName: theIngestPoint|",
        "    publicStreamName: useMeToViewStream|",
    )).status(201),
    no(
        "createIngestPoint privateStreamName=theIngestPoint publicStreamName=b",
        "Unable to create ingest point: …",
    ).status(409),
    no("createIngestPoint privateStreamName=a", "Syntax error. Parameter publicStreamName is invalid"),
    no(
        "createIngestPoint privateStreamName=a\u{202e}b publicStreamName=b",
        "Unable to create ingest point: privateStreamName is not allowed: it has the character U+202E",
    ),
    no(
        "createIngestPoint privateStreamName=a?b publicStreamName=b",
        "Unable to create ingest point: privateStreamName is not allowed: it has a `?`",
    ),
    ok("listIngestPoints", "Available ingest points", r#"[{…"publicStreamName":"useMeToViewStream"}]"#).text(concat!(
        "    -- |      configId: 1|      privateStreamName: th***|",
        "      publicStreamName: useMeToViewStream|",
    )),
    ok(
        "removeIngestPoint privateStreamName=theIngestPoint",
        "Ingest point removed",
        r#"{"configId":1,"privateStreamName":"theIngestPoint","publicStreamName":"useMeToViewStream"}"#,
    ).text(concat!(
        "    configId: 1|    privateStreamName: theIngestPoint|",
        "    publicStreamName: useMeToViewStream|",
    )),
    no("removeIngestPoint privateStreamName=theIngestPoint", "Unable to remove ingest point: …"),
    ok("listDisks", "Disks", "[…]").text("    -- |      freeBytes: …|      path: …|      state: good|      totalBytes: …|"),
    // The components that write. {raw} stands for the hash of the one in the media root.
    ok("listFormats", "Formats", r#"[{"format":"flv",…,"recordings":…,"state":"active",…}…]"#).text(concat!(
        "    -- |      format: flv|      pinned: false|      recordings: 0|",
        "      rolledBack: false|      sha256: …|      since: …|      source: embedded|",
        "      state: active|      version: 0.1.0|    -- |      format: mp4|",
        "      pinned: false|      recordings: 0|      rolledBack: false|      sha256: …|",
        "      since: …|      source: embedded|      state: active|      version: 0.1.0|",
        "    -- |      format: ts|      pinned: false|      recordings: 0|",
        "      rolledBack: false|      sha256: …|      since: …|      source: embedded|",
        "      state: active|      version: 0.1.0|",
    )),
    no("loadFormat path=none.wasm", "Unable to load format: it can't be read: …").status(404),
    no("loadFormat path=/etc/hostname", "Unable to load format: … lies outside …"),
    no("loadFormat path=text.wasm", "Unable to load format: it is not WebAssembly…"),
    no("loadFormat path=raw.wasm format=flv", "Unable to load format: it is format `raw`, not `flv`"),
    no("loadFormat path=raw.wasm sha256=0123", "Unable to load format: at least 8 digits …"),
    no(
        "loadFormat path=raw.wasm sha256=00000000",
        "Unable to load format: its sha256 is {raw}, not 00000000",
    ),
    no("loadFormat", "Syntax error. No parameters provided"),
    ok(
        "loadFormat path=raw.wasm format=raw",
        "Format loaded",
        r#"{"format":"raw",…"recordings":0,…"sha256":"{raw}",…"state":"probed","version":"1.0.0"}"#,
    ).text(concat!(
        "    format: raw|    recordings: 0|    sha256: {raw}|    state: probed|",
        "    version: 1.0.0|",
    )).status(201),
    ok("loadFormat path=../media/raw.wasm wait=0", "Format loaded", r#"{…"sha256":"{raw}",…}"#).text("    format: |    recordings: 0|    sha256: {raw}|    state: staged|    version: |"),
    no("record localStreamName=r pathToFile=r type=raw", "Syntax error for type parameter. …"),
    no("swapFormat format=raw sha256=00000000", "Unable to swap format: there is no version …").status(404),
    no("swapFormat format=none sha256=00000000", "Unable to swap format: there is no format `none`").status(404),
    no("swapFormat format=raw sha256=zzzzzzzz", "Unable to swap format: at least 8 digits …"),
    no(
        "swapFormat format=raw sha256=00000000 mode=later",
        "Syntax error. Parameter mode is invalid. It takes one of: drain, next-chunk, now",
    ),
    no("rollbackFormat format=raw", "Unable to roll back format: there is no version to go back to").status(409),
    ok(
        "swapFormat format=raw sha256={raw} mode=now",
        "Format swapped",
        r#"{"format":"raw",…"state":"active",…}"#,
    ).text(concat!(
        "    format: raw|    recordings: 0|    sha256: {raw}|    state: active|",
        "    version: 1.0.0|",
    )),
    no("swapFormat format=raw sha256={raw}", "Unable to swap format: that version is active already").status(409),
    ok("pinFormat format=raw", "Format pinned", r#"{…"pinned":true,…}"#).text(concat!(
        "    format: raw|    recordings: 0|    sha256: {raw}|    state: active|",
        "    version: 1.0.0|",
    )),
    no("unloadFormat format=raw", "Unable to unload format: it is pinned to …").status(409),
    no("pinFormat format=raw sha256=00000000", "Unable to pin format: there is no version …").status(404),
    ok("pinFormat format=raw pinned=0", "Format is not pinned", r#"{"format":"raw"}"#).text("    format: raw|"),
    ok(
        "getFormatInfo format=RAW",
        "Format info",
        r#"{"format":"raw","swaps":[{…"mode":"now",…}],"versions":[{…"extension":"raw",…}]}"#,
    ).text(concat!(
        "    format: raw|    swaps: |      -- |        at: …|        mode: now|…|",
        "    versions: |      -- |        codecs: |          -- avc1|…",
    )),
    ok("getFormatInfo format=raw sha256={raw}", "Format info", r#"{"format":"raw",…}"#).text(concat!(
        "    format: raw|    swaps: |      -- |        at: …|        mode: now|…|",
        "    versions: |      -- |        codecs: |          -- avc1|…",
    )),
    no("getFormatInfo format=raw sha256=00000000", "Unable to show format: there is no version …").status(404),
    no("getFormatInfo format=none", "Unable to show format: there is no format `none`").status(404),
    no("unloadFormat format=flv", "Unable to unload format: it is in the binary, and stays").status(409),
    ok("unloadFormat format=raw", "Format unloaded", r#"{"format":"raw","sha256":"{raw}"}"#).text("    format: raw|    sha256: {raw}|"),
    // A second load, and the embedded format to go back to.
    ok(
        "loadFormat path=flv.wasm",
        "Format loaded",
        r#"{"format":"flv",…"sha256":"{flv}",…"state":"probed",…}"#,
    ).text(concat!(
        "    format: flv|    recordings: 0|    sha256: {flv}|    state: probed|",
        "    version: 0.1.0|",
    )).status(201),
    no("swapFormat format=flv sha256={flv} canary=0", "Syntax error. Parameter canary is invalid. …"),
    no(
        "swapFormat format=flv sha256={flv} canary=a canaryTime=0",
        "Syntax error. Parameter canaryTime is invalid. …",
    ),
    ok("swapFormat format=flv sha256={flv} canary=2", "Canary begins", r#"{…"state":"canary",…}"#).text(concat!(
        "    format: flv|    recordings: 0|    sha256: {flv}|    state: canary|",
        "    version: 0.1.0|",
    )),
    ok(
        "getFormatInfo format=flv",
        "Format info",
        r#"{"canary":{"mode":"drain","recordings":[],"seconds":60,"who":"2"},"format":"flv",…}"#,
    ).text(concat!(
        "    canary: |      mode: drain|      recordings: []|      seconds: 60|      who: 2|",
        "    format: flv|    swaps: []|    versions: |…",
    )),
    ok("swapFormat format=flv sha256={flv}", "Format swapped", r#"{…"state":"active",…}"#).text(concat!(
        "    format: flv|    recordings: 0|    sha256: {flv}|    state: active|",
        "    version: 0.1.0|",
    )),
    ok("rollbackFormat format=flv", "Format rolled back", r#"{…"source":"embedded","state":"active",…}"#).text("    format: flv|    recordings: 0|    sha256: …|    state: active|    version: 0.1.0|"),
    ok("unloadFormat format=flv sha256={flv}", "Format unloaded", r#"{…"sha256":"{flv}"}"#).text("    format: flv|    sha256: {flv}|"),
    ok("setLogLevel level=1", "Log level is set", "null"),
    no("shutdownServer key=x", "The key is not the one of the last call of shutdownServer. …").status(409),
    ok("help", "Available commands", r#"[{"command":"help","deprecated":false,…}…]"#).text(concat!(
        "    -- |      command: help|      deprecated: false|      description: …|",
        "          name: commandId|    -- |      command: quit|…",
    )),
    no("foobar", "command foobar not known. Type help for list of commands"),
    ok("shutdownServer", "Call shutdownserver again with the provided key", r#"{"key":"…"}"#).text("    key: …|"),
    ok("shutdownServer key={key}", "The server shuts down", "null"),
    no("shutdownServer key={key}", "The key is not the one of the last call of shutdownServer. …").status(409),
    ok("quit", "Bye!", "null"),
];

/// Puts components into the media root, and returns what stands for their hashes.
fn components(media: &Path) -> Vec<(&'static str, String)> {
    let put = |name: &str, wasm: &[u8]| {
        std::fs::write(media.join(name), wasm).unwrap();
        hex(&Sha256::digest(wasm))
    };
    put("text.wasm", b"not a component");
    let flv = marked(include_bytes!(concat!(env!("OUT_DIR"), "/flv.wasm")).to_vec(), b"");
    let raw = std::fs::read(component("passthrough")).unwrap();
    vec![("{raw}", put("raw.wasm", &raw)), ("{flv}", put("flv.wasm", &flv))]
}

impl Case {
    /// The same with what is known only now in the place of what stands for it. Leaked: they are few, and it is a test.
    fn with(self, known: &[(&str, String)]) -> Self {
        let fill = |text: &'static str| {
            let fill = |text: String, (name, value): &(&str, String)| text.replace(name, value);
            match text.contains('{') {
                true => &*known.iter().fold(text.to_owned(), fill).leak(),
                false => text,
            }
        };
        let Self { line, description, data, text, body, .. } = self;
        Self {
            line: fill(line),
            description: fill(description),
            data: fill(data),
            text: fill(text),
            body: body.map(fill),
            ..self
        }
    }

    /// The id that comes back with the reply.
    fn response_id(&self) -> String {
        let id = self.line.split(" commandId=").nth(1).and_then(|rest| rest.split(' ').next());
        id.filter(|id| (1..=256).contains(&id.len()))
            .map_or_else(String::new, |id| format!("\"responseId\":\"{id}\","))
    }

    /// The whole reply, as JSON clients get it.
    fn json(&self) -> String {
        let status = if self.success { "SUCCESS" } else { "FAIL" };
        let Self { description, data, .. } = self;
        let id = self.response_id();
        format!(r#"{{"data":{data},"description":"{description}",{id}"status":"{status}"}}"#)
    }

    /// The response of the REST API, as [`rest_answer`] shows it: the data alone, or a problem.
    fn rest(&self, command: &str) -> String {
        let Self { status, description, data, body, .. } = self;
        if self.success {
            return format!("{status} application/json {}", body.unwrap_or(data));
        }
        let (_, title) = crate::control::rest::PROBLEMS.iter().find(|(code, _)| code == status).unwrap();
        let id = self.response_id();
        format!(
            "{status} application/problem+json {{\"command\":\"{command}\",\"detail\":\"{description}\",{id}\
             \"status\":{status},\"title\":\"{title}\",\"type\":\"about:blank\"}}"
        )
    }

    /// The whole text form.
    fn ascii(&self) -> String {
        let description = self.description.replace("\\/", "/");
        match self.success {
            true => {
                let text = self.text.replace('|', "\r\n");
                format!("Command entered successfully!\r\n{description}\r\n\r\n{text}\r\n")
            }
            false => format!("Command failed!\r\n{description}\r\n\r\n"),
        }
    }
}

/// Whether a text is as a pattern has it, in which `…` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<_> = pieces.collect();
    let Some((last, between)) = pieces.split_last() else { return rest.is_empty() };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Ascii,
    Json,
    Http,
    Rest,
}

const TRANSPORTS: [Transport; 4] = [Transport::Ascii, Transport::Json, Transport::Http, Transport::Rest];

/// A line as careless clients send it: other case, blanks around and between.
fn careless(line: &str) -> String {
    let words: Vec<String> = line
        .split(' ')
        .enumerate()
        .map(|(i, word)| match word.split_once('=') {
            _ if i == 0 => word.to_uppercase(),
            // The names of variables are the client's own.
            Some((name, value)) if !name.starts_with('_') => format!("{}={value}", name.to_uppercase()),
            _ => word.to_owned(),
        })
        .collect();
    format!("  {} ", words.join("   "))
}

/// Sends a line and reads the whole reply, on a connection of its own.
async fn ask(transport: Transport, addr: SocketAddr, line: &str) -> String {
    let request = match transport {
        Transport::Ascii | Transport::Json => format!("{line}\r\n"),
        Transport::Http => {
            let (command, params) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            // Unescaped, as PHP's clients send it.
            format!("GET /{command}?params={} HTTP/1.1\r\nHost: localhost\r\n\r\n", STANDARD.encode(params))
        }
        Transport::Rest => rest_request(line),
    };
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    if matches!(transport, Transport::Ascii | Transport::Json) {
        socket.shutdown().await.unwrap();
    }
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).await.unwrap();
    match transport {
        Transport::Ascii => String::from_utf8(reply).unwrap(),
        Transport::Json => {
            // As Ruby's and Python's clients do: four bytes of length, then so many.
            let (length, json) = reply.split_first_chunk().unwrap();
            assert_eq!(u32::from_be_bytes(*length) as usize, json.len());
            body(json)
        }
        Transport::Http => {
            let head = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"));
            body(&reply[head..])
        }
        Transport::Rest => rest_answer(str::from_utf8(&reply).unwrap()),
    }
}

/// Status, type and body of a response; the body as the JSON command line would write it.
fn rest_answer(response: &str) -> String {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    let head = head.to_ascii_lowercase();
    let kind = head.split("\r\ncontent-type: ").nth(1).unwrap().lines().next().unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let json = Reply::success("", body).json();
    let body = json
        .strip_prefix("{\"data\":")
        .unwrap()
        .strip_suffix(",\"description\":\"\",\"status\":\"SUCCESS\"}");
    format!("{status} {kind} {}", body.unwrap())
}

/// A line as a request of the REST API: at its command's first route, with the other parameters in a body.
fn rest_request(line: &str) -> String {
    let line = Line::parse(line.as_bytes()).unwrap();
    let command = crate::control::commands::find(&line.command).unwrap();
    let mut body = serde_json::Map::new();
    for (name, value) in line.params {
        body.insert(
            name,
            match value {
                Value::Text(text) => text.into(),
                Value::List(items) => items.into(),
            },
        );
    }
    // The route whose parameters are given.
    let names = |path: &str| -> Vec<String> {
        path.split('/')
            .filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned()))
            .collect()
    };
    let key = |body: &serde_json::Map<String, serde_json::Value>, name: &str| {
        body.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned()
    };
    let has_all = |route: &&table::Route| names(route.path).iter().all(|name| key(&body, name).is_some());
    let route = command.routes.iter().find(has_all).unwrap_or(&command.routes[0]);
    let mut path = route.path.to_owned();
    for name in names(route.path) {
        let value = key(&body, &name).and_then(|key| body.remove(&key));
        let value = value.map_or("x".into(), |value| value.as_str().unwrap().to_owned());
        path = path.replace(&format!("{{{name}}}"), &value);
    }
    let method = route.method;
    let (query, body) = if method == "GET" {
        let pairs: Vec<_> = body.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap())).collect();
        (format!("?{}", pairs.join("&")), String::new())
    } else {
        (String::new(), serde_json::Value::from(body).to_string())
    };
    format!(
        "{method} /api/v1{path}{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn body(json: &[u8]) -> String {
    str::from_utf8(json).unwrap().strip_suffix("\r\n\r\n").unwrap().to_owned()
}

/// A server with all that there is to command.
struct Served {
    context: Arc<Context>,
    addr: SocketAddr,
    media: TempDir,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(transport: Transport) -> Self {
        let (context, media) = context(Limits::default()).await;
        let log_level = LogLevel::new(|_| Ok(()));
        let context = Arc::new(Context { log_level, ..(*context).clone() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = match transport {
            Transport::Ascii => tokio::spawn(serve_ascii(listener, context.clone(), stop.clone())),
            Transport::Json => tokio::spawn(serve_json(listener, context.clone(), stop.clone())),
            Transport::Http | Transport::Rest => {
                tokio::spawn(serve_http(listener, context.clone(), stop.clone()))
            }
        };
        Self { context, addr, media, stop, server }
    }

    /// Sends a case's line, spelt somehow. Returns the reply, and what is wrong with it.
    async fn try_case(&self, transport: Transport, case: &Case, line: &str) -> (String, Option<String>) {
        let command = crate::control::commands::find(case.line.split(' ').next().unwrap_or_default());
        // Neither is a command of the REST API: not by any path, or not without what its path needs.
        if matches!(transport, Transport::Rest) && command.is_none_or(|command| !has_route(command, case)) {
            return (String::new(), None);
        }
        let reply = ask(transport, self.addr, line).await;
        let expected = match transport {
            Transport::Ascii => case.ascii(),
            Transport::Json | Transport::Http => case.json(),
            Transport::Rest => case.rest(command.map_or("", |command| command.name)),
        };
        // What a client misspelt is shown as it was spelt.
        let same = is_like(&reply, &expected) || is_like(&reply.to_lowercase(), &expected.to_lowercase());
        let wrong = (!same).then(|| format!("{transport:?} {line}\n  got {reply:?}\n  not {expected:?}\n"));
        (reply, wrong)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.server.await.unwrap();
    }
}

async fn run(transport: Transport, spelling: fn(&str) -> String) {
    let served = Served::start(transport).await;
    let mut known = components(served.media.path());
    known.push(("{long}", "x".repeat(257)));
    let publisher = publish(&served.context, "cam1");
    let mut wrong = String::new();
    for case in CASES {
        let case = &case.with(&known);
        let (reply, fault) = served.try_case(transport, case, &spelling(case.line)).await;
        wrong.extend(fault);
        if case.line == "shutdownServer" {
            known.retain(|(name, _)| *name != "{key}");
            let text = reply.rsplit(['"', ' ', '\r', '\n']).find(|word| word.len() == 16);
            known.push(("{key}", text.unwrap_or_default().to_owned()));
        }
        if case.line.starts_with("record localStreamName=cam1") {
            // Its run begins a moment later.
            streams(&served.context, 2).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(served.context.shutdown.is_cancelled(), "the last key was the right one");
    drop(publisher);
    served.stop().await;
}

#[tokio::test]
async fn ascii() {
    run(Transport::Ascii, str::to_owned).await;
}

#[tokio::test]
async fn json() {
    run(Transport::Json, str::to_owned).await;
}

#[tokio::test]
async fn http() {
    run(Transport::Http, str::to_owned).await;
}

#[tokio::test]
async fn rest() {
    run(Transport::Rest, str::to_owned).await;
}

/// Whether the REST API can ask the same.
fn has_route(command: &table::Command, case: &Case) -> bool {
    let has = |name: &str| case.line.to_lowercase().contains(&format!("{}=", name.to_lowercase()));
    let fits = |route: &table::Route| {
        let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        names.into_iter().all(has)
    };
    command.routes.iter().any(fits)
}

#[tokio::test]
async fn careless_spelling() {
    for transport in TRANSPORTS {
        run(transport, careless).await;
    }
}

/// A line of a command with a value for one parameter, and something for those that have to be there.
fn line_with(command: &table::Command, name: &str, value: &str) -> String {
    let mut line = command.name.to_owned();
    for param in command.params {
        let value = match (param.name == name, param.need, param.kind) {
            (true, ..) => value,
            (false, Need::Mandatory, Kind::OneOf(words)) => words[0],
            (false, Need::Mandatory, Kind::Int(..) | Kind::Bool) => "1",
            (false, Need::Mandatory, _) => "x",
            _ => continue,
        };
        line += &format!(" {}={value}", param.name);
    }
    line
}

/// Each number at its limits and beyond, and each word that is none of those that are taken.
#[tokio::test]
async fn limits_are_as_declared() {
    for transport in TRANSPORTS {
        let served = Served::start(transport).await;
        let mut wrong = String::new();
        for command in COMMANDS.into_iter().filter(|command| command.name != "auth") {
            for param in command.params {
                let name = param.name;
                let invalid = format!("Syntax error. Parameter {name} is invalid");
                let (beyond, max) = match param.kind {
                    Kind::Bool => (vec![("2".to_owned(), format!("{invalid}. It takes 0 or 1"))], None),
                    Kind::OneOf(words) => (
                        vec![("x".to_owned(), format!("{invalid}. It takes one of: {}", words.join(", ")))],
                        None,
                    ),
                    Kind::Int(min, max) => {
                        let range = format!("{invalid}. Range: {min} - {max}");
                        let over = (u128::from(max) + 1).to_string();
                        let under = min.checked_sub(1).map_or(("-1".to_owned(), invalid.clone()), |under| {
                            (under.to_string(), range.clone())
                        });
                        (vec![(over, range), under], Some(max.to_string()))
                    }
                    Kind::Text | Kind::AnyText => continue,
                };
                for (value, description) in beyond {
                    let line = &*line_with(command, name, &value).leak();
                    let case = no(line, description.leak());
                    wrong.extend(served.try_case(transport, &case, line).await.1);
                }
                if let Some(max) = max {
                    let line = &*line_with(command, name, &max).leak();
                    let (reply, _) = served.try_case(transport, &no(line, "…"), line).await;
                    if reply.contains(&invalid) {
                        wrong += &format!("{transport:?} {line}\n  got {reply}\n");
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        served.stop().await;
    }
}

#[tokio::test]
async fn there_are_so_many_timers_and_ingest_points() {
    for transport in TRANSPORTS {
        let served = Served::start(transport).await;
        for _ in 0..1000 {
            super::ask(&served.context, "setTimer value=86399").await;
        }
        let case =
            no("setTimer value=1", "Unable to set timer: there are 1000 timers, and no more are allowed")
                .status(409);
        assert_eq!(served.try_case(transport, &case, case.line).await.1, None);
        let points = served.context.ingest.points();
        for number in 0..10_000 {
            points.create(&format!("private{number}"), "public").await.unwrap();
        }
        let case = no(
            "createIngestPoint privateStreamName=a publicStreamName=b",
            "Unable to create ingest point: there are 10000 ingest points, and no more are allowed",
        )
        .status(409);
        assert_eq!(served.try_case(transport, &case, case.line).await.1, None);
        served.stop().await;
    }
}

#[test]
fn the_table_has_every_command() {
    let called = |success: bool| -> BTreeSet<&str> {
        let lines = CASES.iter().filter(|case| case.success == success);
        let names = lines.filter_map(|case| case.line.split(' ').next());
        names.filter_map(crate::control::commands::find).map(|command| command.name).collect()
    };
    let (succeed, fail) = (called(true), called(false));
    for command in COMMANDS {
        let name = command.name;
        // It belongs to a connection; `access` has it.
        if name == "auth" {
            continue;
        }
        // It needs a file, so media; the end-to-end test of recordings has it.
        let needs_media = name == "splitRecord";
        assert!(needs_media || succeed.contains(name), "{name} succeeds nowhere");
        let can_fail = !command.params.is_empty();
        assert!(!can_fail || fail.contains(name) || takes_only_booleans(command), "{name} fails nowhere");
        for alias in command.aliases {
            assert!(
                CASES.iter().any(|case| case.line.split(' ').next() == Some(alias)),
                "{alias} is nowhere"
            );
        }
    }
}

/// What can be wrong with these is tested once, for all.
fn takes_only_booleans(command: &table::Command) -> bool {
    command.params.iter().all(|param| matches!(param.kind, Kind::Bool))
}

#[test]
fn patterns() {
    for (text, pattern, expected) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abc", "a…c", true),
        ("abc", "…", true),
        ("abc", "b…", false),
        ("abcabd", "a…b…d", true),
        ("ab", "ab…b", false),
    ] {
        assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
    }
}
