//! Bad input from every side: it gets an error that says what is wrong, and everybody else is recorded as if
//! nothing had been.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use crate::{
    media,
    process::{PATIENCE, Process, until},
    readers::{self, FORMATS},
    senders::{self, Pace, Sender},
    server::{Server, ask, ask_open},
};

/// A stream that is recorded in real time while others misbehave: the clip, again and again.
struct Bystander<'a> {
    server: &'a Server,
    ids: [u64; 3],
    _sender: Process,
}

impl<'a> Bystander<'a> {
    fn start(server: &'a Server) -> Self {
        let ids = FORMATS.map(|format| server.record("bystander", "bystander", format, ""));
        let sender = senders::endless(&media::clip(), &server.url("bystander"));
        let bystander = Self { server, ids, _sender: sender };
        bystander.goes_on();
        bystander
    }

    /// Waits for another second of video; returns the number of frames until now.
    fn goes_on(&self) -> usize {
        let before = self.server.video_samples("bystander");
        until("another second of the bystander", || {
            Some(self.server.video_samples("bystander")).filter(|now| *now >= before + 30)
        })
    }

    /// Fails unless it still goes on, and everything until now was recorded.
    fn assert_unharmed(self) {
        let frames = self.goes_on();
        self.server.stop(&self.ids);
        for format in FORMATS {
            let found = readers::comparable(&self.server.media(&format!("bystander.{format}")));
            let (video, audio) = (found.video.len(), found.audio.len());
            assert!(video >= frames, "{format}: {video} of {frames} frames");
            let sent = readers::sent(&media::clip(), format).repeated(0, video, 0, audio);
            found.assert_same(&sent, "the bystander");
        }
    }
}

/// Sends bytes to the RTMP port after a handshake, and waits until the server hangs up. Returns our address,
/// which the log names.
fn after_handshake(server: &Server, bytes: &[u8]) -> SocketAddr {
    let (socket, address) = shake_hands(server, bytes);
    wait_for_hang_up(socket);
    address
}

/// The same, and it is us who hang up.
fn after_handshake_hang_up(server: &Server, bytes: &[u8]) -> SocketAddr {
    let (socket, address) = shake_hands(server, bytes);
    socket.shutdown(Shutdown::Write).unwrap();
    wait_for_hang_up(socket);
    address
}

fn shake_hands(server: &Server, bytes: &[u8]) -> (TcpStream, SocketAddr) {
    let mut socket = TcpStream::connect(server.address("rtmp")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut c0_c1 = vec![7; 1537];
    c0_c1[0] = 3;
    c0_c1[5..9].fill(0);
    socket.write_all(&c0_c1).unwrap();
    let mut s0_s1_s2 = vec![0; 1 + 2 * 1536];
    socket.read_exact(&mut s0_s1_s2).unwrap();
    assert_eq!(s0_s1_s2[0], 3);
    socket.write_all(&s0_s1_s2[1..1537]).unwrap();
    // It may hang up before it has read all.
    let _ = socket.write_all(bytes);
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn wait_for_hang_up(mut socket: TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = socket.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server does not hang up");
    }
}

/// A message in chunks of 128 bytes, on chunk stream 3.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_be_bytes();
    let mut bytes = vec![3, 0, 0, 0, len[1], len[2], len[3], kind, 0, 0, 0, 0];
    for (i, chunk) in body.chunks(128).enumerate() {
        if i > 0 {
            bytes.push(0xc3);
        }
        bytes.extend_from_slice(chunk);
    }
    bytes
}

#[test]
fn bad_bytes_on_the_rtmp_port_are_named_and_harm_nobody() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    let rtmp = server.address("rtmp");

    // Garbage from the first byte on.
    let garbage: Vec<u8> =
        (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
    ask(rtmp, &garbage);
    // An HTTP request.
    ask(rtmp, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // Nothing, and half a handshake.
    ask(rtmp, b"");
    ask(rtmp, &[[3].as_slice(), &[7; 800]].concat());
    server.logged(&["WARN", "hung up in the handshake, after 801 bytes"]);
    // A message that breaks off.
    let peer = after_handshake_hang_up(&server, &message(9, &[0x17; 5000])[..1000]);
    server.logged(&["WARN", &peer.to_string(), "of 5000 bytes of a message of type 9"]);
    // One of zeros is a handshake all the same; nothing follows.
    ask(rtmp, &[[3].as_slice(), &[0; 1536 * 2]].concat());

    // A message of 16 MiB.
    let mut long = message(20, b"x");
    long[4..7].fill(0xff);
    let peer = after_handshake(&server, &long);
    server.logged(&["WARN", &peer.to_string(), "16777215"]);
    // Objects in objects, a million deep: 0x03, then a key `a`.
    let mut deep = b"\x02\0\x07connect\0\0\0\0\0\0\0\0\0".to_vec();
    deep.extend(b"\x03\0\x01a".repeat(1_000_000));
    let peer = after_handshake(&server, &message(20, &deep));
    server.logged(&["WARN", &peer.to_string(), "deep"]);
    // A chunk that goes on from one that never was.
    let peer = after_handshake(&server, &[0xc9; 64]);
    server.logged(&["WARN", &peer.to_string(), "chunk"]);

    bystander.assert_unharmed();
}

#[test]
fn a_name_is_published_by_one_at_a_time() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    for sender in [Sender::Own, Sender::Ffmpeg5, Sender::Ffmpeg9, Sender::Gstreamer] {
        let output = sender.start(&media::clip(), &server.url("bystander"), Pace::Full).wait();
        assert!(!output.status.success(), "{sender:?} was let in: {output:?}");
        if sender == Sender::Own {
            assert!(output.stderr.contains("bystander") && output.stderr.contains("taken"), "{output:?}");
        }
    }
    server.logged(&["WARN", "bystander", "taken"]);
    bystander.assert_unharmed();
}

#[test]
fn an_unknown_codec_is_named() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    let id = server.record("odd", "odd", "flv", "");
    // Whether it is told or cut off does not matter.
    Sender::Ffmpeg5.start(&media::unknown_codec(), &server.url("odd"), Pace::Full).wait();
    let line = server.logged(&["WARN", "odd", "codec"]);
    assert!(line.contains("Sorenson") || line.contains("H.263"), "{line}");
    server.finish("odd", &[id]);
    bystander.assert_unharmed();
}

/// Passes bytes on to a server until there were `limit`, then cuts both sides off.
fn cutting_proxy(to: SocketAddr, limit: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut to = TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
        });
        let _ = std::io::copy(&mut Read::by_ref(&mut from).take(limit as u64), &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    address
}

#[test]
fn a_publisher_that_vanishes_amid_a_frame_leaves_whole_files() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    for (i, limit) in [150_000, 300_007, 600_001].into_iter().enumerate() {
        let name = format!("gone{i}");
        let ids = FORMATS.map(|format| server.record(&name, &name, format, ""));
        let url = format!("rtmp://{}/live/{name}", cutting_proxy(server.address("rtmp"), limit));
        let output = Sender::Ffmpeg5.start(&media::clip(), &url, Pace::Full).wait();
        drop(output);
        until("files", || server.media(&format!("{name}.flv")).exists().then_some(()));
        server.finish(&name, &ids);
        for format in FORMATS {
            let recording = server.media(&format!("{name}.{format}"));
            let found = readers::comparable(&recording);
            let sent = readers::sent(&media::clip(), format);
            let (video, audio) = (found.video.len(), found.audio.len());
            found.assert_same(&sent.repeated(0, video, 0, audio), &format!("{name} {format}"));
            // All that came through whole: the clip has 640 kB for 150 frames.
            assert!(video >= limit * 150 / 640_000 * 8 / 10, "{name} {format}: {video} frames");
            readers::assert_well_formed(&recording);
        }
    }
    bystander.assert_unharmed();
}

#[test]
fn paths_that_lead_elsewhere_are_refused_with_the_reason() {
    let outside = tempfile::tempdir().unwrap();
    let server = Server::start_with(|dir| {
        std::os::unix::fs::symlink(outside.path(), dir.join("media/link")).unwrap();
        fs::create_dir(dir.join("media/folder")).unwrap();
        fs::write(dir.join("media/file"), "x").unwrap();
        // Where not even root may write.
        vec!["--allow-path".into(), "/sys/kernel".into()]
    });
    let absolute = outside.path().join("x");
    for (path, words) in [
        ("../x", ["..", "media"]),
        ("a/../../x", ["..", "media"]),
        (r"\.\./x", ["Windows", "Linux"]),
        (absolute.to_str().unwrap(), ["outside", "--allow-path"]),
        ("/etc/x", ["outside", "--allow-path"]),
        ("link/x", ["symbolic link", "--allow-path"]),
        ("nul\0x", ["control character", "U+0000"]),
        ("folder/", ["no file name", "folder/"]),
        ("folder/..", ["..", "folder"]),
        ("none/x", ["none", "no such file"]),
        ("file/x", ["file", "not a directory"]),
        (r"C:\x", ["Windows", "Linux"]),
        ("/sys/kernel/x", ["/sys/kernel", "permission denied"]),
    ] {
        for format in FORMATS {
            let reply = server.cli(&format!("record localStreamName=s pathToFile={path} type={format}"));
            let ok = !reply.success && words.iter().all(|word| reply.description.contains(word));
            assert!(ok, "{path:?} as {format}: {reply:?}");
        }
    }
    assert_eq!(server.json("listConfig", "")["data"]["record"], serde_json::json!([]));
    assert_eq!(server.media_names(), ["file", "folder", "link"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!Path::new("/sys/kernel/x").exists());

    // The documented idiom means the media root; an allowed folder is allowed.
    let id = server.record("cam", "../media/cam", "flv", "");
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &[id]);
    readers::assert_recorded(&media::clip(), &server.media("cam.flv"));
}

/// A command of AMF 0 (AMF 0 specification, 2): its name, its number, an object or null, and texts.
fn amf_command(name: &str, number: f64, object: Option<(&str, &str)>, texts: &[&[u8]]) -> Vec<u8> {
    let plain = |text: &[u8]| [&(text.len() as u16).to_be_bytes(), text].concat();
    let text = |text: &[u8]| [vec![2], plain(text)].concat();
    let mut bytes = text(name.as_bytes());
    bytes.push(0);
    bytes.extend(number.to_be_bytes());
    match object {
        Some((key, value)) => {
            bytes.push(3);
            bytes.extend([plain(key.as_bytes()), text(value.as_bytes())].concat());
            bytes.extend([0, 0, 9]);
        }
        None => bytes.push(5),
    }
    texts.iter().for_each(|one| bytes.extend(text(one)));
    bytes
}

/// Publishes the beginning of the clip under a name of any bytes, and keeps the connection alive until what is returned
/// is dropped.
fn publish_as(server: &Server, name: &[u8]) -> mpsc::Sender<()> {
    let on_stream = |kind: u8, body: &[u8]| {
        let mut bytes = message(kind, body);
        bytes[8] = 1;
        bytes
    };
    let mut bytes = message(20, &amf_command("connect", 1.0, Some(("app", "live")), &[]));
    bytes.extend(message(20, &amf_command("createStream", 2.0, None, &[])));
    bytes.extend(on_stream(20, &amf_command("publish", 3.0, None, &[name, b"live"])));
    let clip = fs::read(media::clip()).unwrap();
    for tag in media::tags(&clip).iter().filter(|tag| tag.kind != 18).take(20) {
        bytes.extend(on_stream(tag.kind, tag.body));
    }
    let (mut socket, _) = shake_hands(server, &bytes);
    let (alive, dropped) = mpsc::channel();
    std::thread::spawn(move || {
        while dropped.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // An acknowledgement: a byte now and then is asked for.
            let _ = socket.write_all(&message(3, &[0; 4]));
        }
    });
    alive
}

/// Names of streams that want to get out of the folder, or to look like something else; whether they are taken, and
/// the file that they become.
const NAMES: [(&str, Option<&str>); 9] = [
    ("..", Some("__.ts")),
    ("../../x", Some("_._.._x.ts")),
    ("-rf", Some("_rf.ts")),
    ("CON", Some("_CON.ts")),
    ("a\u{ff0f}b", Some("a_b.ts")),
    ("{4 KiB}", None),
    ("nul\0x", None),
    ("line\nbreak", None),
    ("a\u{202e}4pm", None),
];

fn spelt(name: &str) -> String {
    name.replace("{4 KiB}", &"x".repeat(4096))
}

/// Lines of a log begin with a time and a level, and have nothing that hides or moves anything.
fn assert_log_is_well_formed(log: &str) {
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (time, level) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_time = time.len() > 19 && time.starts_with("20") && time.ends_with('Z') && time.contains('T');
        let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
        assert!(is_time && levels.contains(&level), "{line:?}");
        let hostile = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}');
        assert!(!line.contains(hostile), "{line:?}");
    }
}

/// Each line of a text reply is one that the server made: a key or an item, as many items as there are.
fn assert_lines_are_ours(body: &str, items: usize) {
    let lines: Vec<&str> = body.lines().filter(|line| !line.is_empty()).collect();
    for line in &lines {
        let line = line.trim_start();
        let key = line.split(':').next().unwrap_or_default();
        let is_key = line.contains(':') && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(is_key || line.starts_with("-- "), "{line:?}");
    }
    let outer = |line: &&&str| line.starts_with("    -- ") || line.starts_with("      -- ");
    assert_eq!(lines.iter().filter(outer).count(), items, "{body}");
}

fn names_in(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn hostile_names_of_streams_become_harmless_files_and_confuse_nothing() {
    let server =
        Server::start_with(|dir| vec!["--event-log".into(), dir.join("events").display().to_string()]);
    let rule = server.cli("recordRule streams=* pathToFile={stream} type=ts");
    assert!(rule.success, "{rule:?}");
    let publishers: Vec<_> =
        NAMES.iter().map(|(name, _)| publish_as(&server, spelt(name).as_bytes())).collect();
    let mut expected: Vec<_> = NAMES.iter().filter_map(|(_, file)| *file).collect();
    expected.sort_unstable();
    let is_there = |name: &str| server.media_names().iter().any(|n| n == name);
    until("the files", || expected.iter().all(|name| is_there(name)).then_some(()));
    // Those that are refused have been, when the server has hung up or said so.
    let refused = NAMES.iter().filter(|(_, file)| file.is_none()).count();
    until("the refusals", || {
        let said =
            server.log().lines().filter(|line| line.contains("WARN") && line.contains("refused")).count();
        (said >= refused).then_some(())
    });

    let live = server.json("listInboundStreamNames", "");
    let mut names: Vec<_> =
        live["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let mut taken: Vec<_> = NAMES.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| *name).collect();
    taken.sort_unstable();
    assert_eq!(names, taken);
    for command in ["listStreams", "listInboundStreams", "listConfig", "listRecordRules", "listRecoveries"] {
        assert_eq!(server.json(command, "")["status"], "SUCCESS", "{command}");
    }
    for name in &taken {
        assert_eq!(server.stream(name).unwrap()["name"], *name);
    }
    assert_lines_are_ours(&server.cli("listInboundStreamNames").body, taken.len());
    assert_lines_are_ours(&server.cli("listConfig").body, taken.len());

    drop(publishers);
    until("the end of all", || (server.json("listStreamsIds", "")["data"].is_null()).then_some(()));
    assert_eq!(server.media_names(), expected);
    assert_eq!(names_in(server.home().path()), ["data", "events", "formats", "log", "media"]);
    assert_log_is_well_formed(&server.log());
    let events = fs::read_to_string(server.home().path().join("events")).unwrap();
    let closed = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert_eq!(closed.filter(|event| event["type"] == "recordChunkClosed").count(), expected.len());
}

#[test]
fn hostile_names_of_files_are_refused_or_harmless() {
    let server = Server::start();
    let mut expected = Vec::new();
    let mut ids = Vec::new();
    for (name, _) in NAMES {
        let params = format!("localStreamName=cam type=flv pathToFile={}", spelt(name));
        let reply = server.json("record", &params);
        // A dash, a device of other systems and a wide slash are no harm here.
        let is_harmless = ["-rf", "CON", "a\u{ff0f}b"].contains(&name);
        assert_eq!(reply["status"] == "SUCCESS", is_harmless, "{name:?}: {reply}");
        if is_harmless {
            expected.push(format!("{name}.flv"));
            ids.push(reply["data"]["configId"].as_u64().unwrap());
        }
        let text = server.cli(&params.replace("localStreamName", "record check=1 localStreamName"));
        assert!(!text.description.contains(['\u{202e}', '\0']), "{text:?}");
    }
    expected.sort();
    assert_lines_are_ours(&server.cli("listConfig").body, expected.len());
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    assert_eq!(server.media_names(), expected);
    assert_eq!(names_in(server.home().path()), ["data", "formats", "log", "media"]);
    assert_log_is_well_formed(&server.log());
    for name in &expected {
        readers::assert_recorded(&media::clip(), &server.media(name));
    }
}

#[test]
fn a_wrong_type_is_refused_with_those_that_there_are() {
    let server = Server::start();
    let reply = server.cli("record localStreamName=s pathToFile=x type=avi");
    assert!(!reply.success, "{reply:?}");
    assert!(reply.description.contains("flv, mp4, ts"), "{reply:?}");
    assert!(server.media_names().is_empty());
}

#[test]
fn a_command_line_without_end_is_cut_off_and_harms_nobody() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    for name in ["ascii-cli", "json-cli"] {
        let text = ask(server.address(name), &vec![b'a'; 1 << 20]);
        assert!(text.contains("16384") || text.contains("16 KiB"), "{name}: {text:?}");
        let line = [b"record localStreamName=".as_slice(), &vec![b'a'; 1 << 20], b"\r\n"].concat();
        let text = ask(server.address(name), &line);
        assert!(text.contains("16384") || text.contains("16 KiB"), "{name}: {text:?}");
    }
    let request = format!("GET /record?params={} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20));
    let text = ask_open(server.address("http-cli"), request.as_bytes());
    assert!(text.starts_with("HTTP/1.1 4") || text.is_empty(), "{}", &text[..text.len().min(200)]);
    // Connections that say nothing are no bother.
    let idle: Vec<_> = (0..50).map(|_| TcpStream::connect(server.address("ascii-cli")).unwrap()).collect();
    assert!(server.cli("version").success);
    drop(idle);
    bystander.assert_unharmed();
}

#[test]
fn a_slow_handshake_is_ended() {
    let server = Server::start();
    let socket = TcpStream::connect(server.address("rtmp")).unwrap();
    let peer = socket.local_addr().unwrap();
    (&socket).write_all(&[3; 100]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    wait_for_hang_up(socket);
    server.logged(&["WARN", &peer.to_string(), "handshake-timeout"]);
}
