//! `reelwright serve` with folders of its own and free ports, and its command lines.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
};

use base64::Engine;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    process::{self, PATIENCE, until},
    senders,
};

/// A running server; killed when it is dropped. If the test failed, its log is printed.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    dir: Arc<TempDir>,
    addresses: Value,
}

/// What the ASCII command line answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) success: bool,
    pub(crate) description: String,
    pub(crate) body: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// Starts it with more arguments, which get the folder that holds `media`, `data` and `formats`, and may
    /// put something there.
    pub(crate) fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = home(&std::env::temp_dir());
        let arguments = arguments(dir.path());
        Self::start_in(dir, &arguments)
    }

    /// Starts it on folders that an earlier one may have used.
    pub(crate) fn start_in(dir: Arc<TempDir>, arguments: &[String]) -> Self {
        let mut child = command(dir.path(), arguments).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self { child, dir, addresses: Value::Null };
        loop {
            let line = lines.recv_timeout(PATIENCE).expect("the server starts");
            if line.starts_with("ready ") {
                break;
            }
        }
        let addresses = fs::read(server.dir.path().join("data/addresses.json")).unwrap();
        server.addresses = serde_json::from_slice(&addresses).unwrap();
        server
    }

    /// One of `rtmp`, `ascii-cli`, `json-cli`, `http-cli`.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name].as_str().unwrap().parse().unwrap()
    }

    /// Where to publish a stream.
    pub(crate) fn url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.address("rtmp"))
    }

    /// A file in the media root.
    pub(crate) fn media(&self, name: &str) -> PathBuf {
        self.dir.path().join("media").join(name)
    }

    /// The formats folder.
    pub(crate) fn formats(&self) -> PathBuf {
        self.dir.path().join("formats")
    }

    /// Everything that was logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits for a line of the log that has all the words.
    pub(crate) fn logged(&self, words: &[&str]) -> String {
        until(&format!("a line of the log with {words:?}"), || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Sends a command to the ASCII command line.
    pub(crate) fn cli(&self, command: &str) -> Reply {
        self.cli_bytes(format!("{command}\r\n").as_bytes()).expect("a reply")
    }

    /// Sends bytes to the ASCII command line; `None` if it just hangs up.
    pub(crate) fn cli_bytes(&self, bytes: &[u8]) -> Option<Reply> {
        let text = ask(self.address("ascii-cli"), bytes);
        let mut lines = text.lines();
        let success = match lines.next()? {
            "Command entered successfully!" => true,
            "Command failed!" => false,
            other => panic!("not a reply: {other:?}"),
        };
        let description = lines.next().unwrap_or_default().to_owned();
        Some(Reply { success, description, body: lines.collect::<Vec<_>>().join("\n") })
    }

    /// Sends a command with parameters over HTTP. Returns the whole JSON object.
    pub(crate) fn json(&self, command: &str, params: &str) -> Value {
        let params = base64::engine::general_purpose::STANDARD.encode(params);
        let request = format!(
            "GET /{command}?params={params} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let reply = ask_open(self.address("http-cli"), request.as_bytes());
        let (_, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {reply:?}"));
        serde_json::from_str(body.trim()).unwrap_or_else(|e| panic!("{command}: {e}: {body:?}"))
    }

    /// Orders a recording to `NAME.FORMAT`. Returns its configId.
    pub(crate) fn record(&self, stream: &str, name: &str, format: &str, more: &str) -> u64 {
        let command = format!("record localStreamName={stream} pathToFile={name} type={format} {more}");
        let reply = self.cli(&command);
        assert!(reply.success, "{command}: {}", reply.description);
        reply.value("configId").parse().unwrap()
    }

    /// Whether a stream is live.
    pub(crate) fn is_live(&self, stream: &str) -> bool {
        self.stream(stream).is_some()
    }

    /// The object of a live stream; `None` if it is not there.
    pub(crate) fn stream(&self, stream: &str) -> Option<Value> {
        let mut reply = self.json("getStreamInfo", &format!("localStreamName={stream}"));
        (reply["status"] == "SUCCESS").then(|| reply["data"].take())
    }

    /// How many frames of video have come in a live stream; none if it is not there.
    pub(crate) fn video_samples(&self, stream: &str) -> usize {
        let count = |stream: Value| stream["video"]["packetsCount"].as_u64();
        self.stream(stream).and_then(count).unwrap_or(0) as usize
    }

    /// Waits until the server knows that a publisher is gone, then ends the recordings.
    pub(crate) fn finish(&self, stream: &str, recordings: &[u64]) {
        until(&format!("the end of stream {stream}"), || (!self.is_live(stream)).then_some(()));
        self.stop(recordings);
    }

    /// Ends recordings: their files are complete.
    pub(crate) fn stop(&self, recordings: &[u64]) {
        for id in recordings {
            let reply = self.cli(&format!("removeConfig id={id}"));
            assert!(reply.success, "{reply:?}");
        }
    }

    /// The paths of a chunked recording's files, `NAME_partNNNN.FORMAT`, in their order.
    pub(crate) fn parts(&self, name: &str, format: &str) -> Vec<PathBuf> {
        (0..).map(|i| self.media(&format!("{name}_part{i:04}.{format}"))).take_while(|p| p.exists()).collect()
    }

    /// Names of everything in the media root, sorted.
    pub(crate) fn media_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.media("")).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// What the tests of disks and crashes do to it.
#[allow(dead_code, reason = "another target uses it")]
impl Server {
    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its folders, for the next one.
    pub(crate) fn home(&self) -> Arc<TempDir> {
        self.dir.clone()
    }

    /// Kills it at once, with all that it started.
    pub(crate) fn kill(&mut self) {
        kill_group(&mut self.child);
    }

    /// Asks it to end, as an operator would.
    pub(crate) fn terminate(&self) {
        process::run(Command::new("kill").args(["-TERM", &self.id().to_string()]));
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn ended(&mut self) {
        let status = until("the server's end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

/// Folders for a server: `media`, `data`, `formats`.
pub(crate) fn home(within: &Path) -> Arc<TempDir> {
    let dir = tempfile::Builder::new().prefix("reelwright-e2e-").tempdir_in(within).unwrap();
    for name in ["media", "data", "formats"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    Arc::new(dir)
}

/// What starts a server on folders, in a process group of its own. Its log follows that of the one before.
pub(crate) fn command(dir: &Path, arguments: &[String]) -> Command {
    let mut command = senders::reelwright();
    command.arg("serve");
    for flag in ["--rtmp", "--ascii-cli", "--json-cli", "--http-cli"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    for (flag, name) in [("--media-root", "media"), ("--data-dir", "data"), ("--formats", "formats")] {
        command.arg(flag).arg(dir.join(name));
    }
    let log = File::options().append(true).create(true).open(dir.join("log")).unwrap();
    command.args(arguments).env("NO_COLOR", "1").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command
}

/// Kills a process, and all that are in its group.
pub(crate) fn kill_group(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.wait();
}

impl Drop for Server {
    fn drop(&mut self) {
        kill_group(&mut self.child);
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(100).collect();
            eprintln!("the server's log, at most 100 lines:");
            for line in tail.iter().rev() {
                eprintln!("  {line}");
            }
            eprintln!("media: {:?}", self.media_names());
        }
    }
}

impl Reply {
    /// The value behind `key:` in the reply's body.
    pub(crate) fn value(&self, key: &str) -> &str {
        self.body
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

/// Sends bytes and says that these are all, then reads all that comes.
pub(crate) fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    talk(address, bytes, true)
}

/// Sends bytes, then reads all that comes.
pub(crate) fn ask_open(address: SocketAddr, bytes: &[u8]) -> String {
    talk(address, bytes, false)
}

fn talk(address: SocketAddr, bytes: &[u8], close: bool) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server that hangs up before it has read everything may answer all the same.
    let _ = socket.write_all(bytes);
    if close {
        let _ = socket.shutdown(Shutdown::Write);
    }
    let mut reply = Vec::new();
    if let Err(error) = socket.read_to_end(&mut reply) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&reply).into_owned()
}
