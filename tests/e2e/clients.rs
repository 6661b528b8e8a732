//! Clients of the control plane that are many, slow or quick, beside recordings that must not notice.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    media,
    process::{self, PATIENCE, until},
    readers::{self, FORMATS},
    senders,
    server::Server,
};

/// Streams that are published and recorded while something else goes on.
struct Load<'a> {
    server: &'a Server,
    file: &'a Path,
    ids: Vec<u64>,
    publisher: Child,
}

impl<'a> Load<'a> {
    /// Starts to publish a file under many names, in real time, and to record each.
    fn start(server: &'a Server, file: &'a Path, streams: usize) -> Self {
        let record = |i| server.record(&format!("load_{i}"), &format!("load_{i}"), Self::format(i), "");
        let ids = (1..=streams).map(record).collect();
        let mut publish = senders::reelwright();
        publish.arg("publish").arg(file).arg(server.url("load")).args(["--streams", &streams.to_string()]);
        let publisher = publish.stdout(Stdio::piped()).spawn().unwrap();
        let live = || (1..=streams).all(|i| server.is_live(&format!("load_{i}"))).then_some(());
        until("all streams", live);
        Self { server, file, ids, publisher }
    }

    fn format(i: usize) -> &'static str {
        FORMATS[i % FORMATS.len()]
    }

    /// Whether it still goes on.
    fn goes_on(&mut self) -> bool {
        self.publisher.try_wait().unwrap().is_none()
    }

    /// Waits for the end, and compares every recording with what was sent.
    fn judge(mut self) {
        let status = until("the publisher's end", || self.publisher.try_wait().unwrap());
        assert!(status.success(), "{status}");
        for (i, id) in (1..).zip(&self.ids) {
            self.server.finish(&format!("load_{i}"), &[*id]);
        }
        let sent = FORMATS.map(|format| readers::sent(self.file, format));
        for i in 1..=self.ids.len() {
            let recording = self.server.media(&format!("load_{i}.{}", Self::format(i)));
            readers::comparable(&recording).assert_same(&sent[i % FORMATS.len()], &format!("load_{i}"));
        }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let _ = self.publisher.kill();
        let _ = self.publisher.wait();
    }
}

/// Connects to a port.
fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn evostream_s_public_clients_are_served() {
    let server = Server::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/evostream_clients.py");
    let addresses = ["http-cli", "json-cli"].map(|port| server.address(port).to_string());
    assert_eq!(process::run(Command::new("python3").arg(script).args(addresses)), "done\n");
}

/// Sends so many bytes, one at a time, until the server has enough; returns what it says.
fn trickle(address: SocketAddr, head: &str, bytes: usize) -> String {
    let mut socket = connect(address);
    socket.set_nodelay(true).unwrap();
    socket.write_all(head.as_bytes()).unwrap();
    for _ in 0..bytes {
        if socket.write_all(b"a").is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    // It may have hung up before it has read everything.
    let _ = socket.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// A byte at a time beyond what each port takes, and requests whose bodies never come.
#[test]
fn clients_that_send_a_byte_at_a_time_or_half_a_request_are_cut_off() {
    let server = Server::start();
    let clip = media::clip();
    let load = Load::start(&server, &clip, 3);
    let http = server.address("http-cli");
    let post = "POST /api/v1/recordings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let half: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut socket = connect(http);
            socket.write_all(format!("{post}Content-Length: 100\r\n\r\n{{\"local").as_bytes()).unwrap();
            socket
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(server.json("getStreamsCount", "")["status"], "SUCCESS");
    assert!(begun.elapsed() < Duration::from_secs(8), "nobody waits until their time is over");

    for port in ["ascii-cli", "json-cli"] {
        let said = trickle(server.address(port), "record localStreamName=", 17 << 10);
        assert!(said.contains("longer than 16384 bytes") || said.is_empty(), "{port}: {said}");
    }
    let said = trickle(http, &format!("{post}Content-Length: 20000\r\n\r\n"), 17 << 10);
    assert!(said.starts_with("HTTP/1.1 413 ") || said.is_empty(), "{said}");
    let said = trickle(http, "GET /version HTTP/1.1\r\nHost: localhost\r\nX-A: ", 600 << 10);
    assert!(said.starts_with("HTTP/1.1 431 ") || said.is_empty(), "{said}");
    trickle(server.address("rtmp"), "\u{3}", 20_000);
    server.logged(&["WARN", "RTMP connection failed"]);
    drop(half);
    assert!(server.cli("version").success);
    load.judge();
}

/// 500 clients at each of the three ports: one in two sends nothing, the others a byte now and then, never a whole
/// command.
#[test]
fn a_thousand_five_hundred_clients_that_do_nothing_disturb_nobody() {
    let server = Server::start();
    let clip = media::clip();
    let load = Load::start(&server, &clip, 6);
    let ports = ["ascii-cli", "json-cli", "http-cli"].map(|port| server.address(port));
    let mut idle: Vec<TcpStream> = (0..1500).map(|i| connect(ports[i % 3])).collect();
    // Who comes now is answered all the same, on each port.
    let answered = |when: &str| {
        let reply = server.cli("getStreamsCount");
        assert!(reply.success, "{when}: {reply:?}");
        assert_eq!(server.json("getStreamsCount", "")["status"], "SUCCESS", "{when}");
    };
    answered("while they are silent");
    for byte in b"listStreams listStrea" {
        for client in idle.iter_mut().step_by(2) {
            // One that was sent away to make room gets an error.
            let _ = client.write_all(&[*byte]);
        }
        answered("while they send");
    }
    load.judge();
    drop(idle);
    answered("when they are gone");
}

/// Sends a command again and again on one connection, each when the one before is answered. Returns how many.
fn ask_on(address: SocketAddr, go_on: &AtomicBool) -> usize {
    const END: &[u8] = b"\"status\":\"SUCCESS\"}\r\n\r\n";
    let commands = ["listStreams", "listConfig", "getStreamsCount", "version", "listInboundStreamNames"];
    let mut socket = connect(address);
    socket.set_nodelay(true).unwrap();
    let mut answered = 0;
    let mut reply = Vec::new();
    while go_on.load(Ordering::Relaxed) {
        socket.write_all(format!("{}\n", commands[answered % commands.len()]).as_bytes()).unwrap();
        reply.clear();
        let mut buffer = [0; 16 << 10];
        while !reply.ends_with(END) {
            let read = socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the server hung up");
            reply.extend_from_slice(&buffer[..read]);
        }
        answered += 1;
    }
    answered
}

/// Sends commands from several clients at a pace, while streams are recorded. Returns commands a second.
fn command(file: &Path, streams: usize, clients: usize) -> f64 {
    let server = Server::start();
    let mut load = Load::start(&server, file, streams);
    let go_on = Arc::new(AtomicBool::new(true));
    let answered = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (address, go_on, answered) = (server.address("json-cli"), go_on.clone(), answered.clone());
            thread::spawn(move || {
                answered.fetch_add(ask_on(address, &go_on), Ordering::Relaxed);
            })
        })
        .collect();
    while load.goes_on() {
        thread::sleep(Duration::from_millis(20));
    }
    go_on.store(false, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let rate = answered.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    load.judge();
    rate
}

#[test]
fn commands_without_a_pause_cost_recordings_nothing() {
    assert!(command(&media::clip(), 6, 2) > 0.0);
}

#[test]
#[ignore = "make soak"]
fn soak_a_thousand_commands_a_second_while_a_hundred_streams_record() {
    let rate = command(&media::two_and_a_half_megabits(), 100, 4);
    println!(
        "{rate:.0} commands a second were answered while 100 streams were recorded without a lost frame"
    );
    assert!(rate >= 1000.0, "{rate}");
}
