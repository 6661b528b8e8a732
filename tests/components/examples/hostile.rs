//! A format that does what it can against the host. What that is stands in its data, where a test writes it before it
//! loads the component: `early write-loop`, for instance (see [`Order`]). As it is built it does nothing wrong.
//!
//! `early` is as soon as may be, so that the host's probe must refuse it. `late` is what no probe can find: behind a
//! segment's sample 200, or when the time is not the probe's. The host's error must say what it did, and nothing else
//! notice.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::hash_map::RandomState,
    hash::BuildHasher,
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use reelwright_sdk::{
    End, Error, Manifest, Output, Piece, Property, Recover, Sample, Source, Start, Summary, Track, Writer,
    host,
};
use reelwright_test_components::{LATE, Raw, manifest};

#[cfg(target_arch = "wasm32")]
mod sockets {
    // Of another version than what the C library imports, whose interfaces have more in them.
    wit_bindgen::generate!({
        inline: r#"
            package reelwright:hostile;

            package wasi:sockets@0.2.1 {
                interface network {
                    resource network;
                    enum error-code {
                        unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout,
                        concurrency-conflict, not-in-progress, would-block, invalid-state, new-socket-limit,
                        address-not-bindable, address-in-use, remote-unreachable, connection-refused,
                        connection-reset, connection-aborted, datagram-too-large, name-unresolvable,
                        temporary-resolver-failure, permanent-resolver-failure,
                    }
                    enum ip-address-family { ipv4, ipv6 }
                    type ipv4-address = tuple<u8, u8, u8, u8>;
                    type ipv6-address = tuple<u16, u16, u16, u16, u16, u16, u16, u16>;
                    record ipv4-socket-address { port: u16, address: ipv4-address }
                    record ipv6-socket-address {
                        port: u16, flow-info: u32, address: ipv6-address, scope-id: u32,
                    }
                    variant ip-socket-address {
                        ipv4(ipv4-socket-address),
                        ipv6(ipv6-socket-address),
                    }
                }
                interface instance-network {
                    use network.{network};
                    instance-network: func() -> network;
                }
                interface tcp {
                    use network.{network, error-code, ip-socket-address};
                    resource tcp-socket {
                        start-connect: func(network: borrow<network>, remote-address: ip-socket-address)
                            -> result<_, error-code>;
                    }
                }
                interface tcp-create-socket {
                    use network.{error-code, ip-address-family};
                    use tcp.{tcp-socket};
                    create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
                }
            }

            world sockets {
                import wasi:sockets/instance-network@0.2.1;
                import wasi:sockets/tcp-create-socket@0.2.1;
            }
        "#,
        world: "reelwright:hostile/sockets",
        generate_all,
    });

    use wasi::sockets::{
        instance_network::instance_network,
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
        tcp::TcpSocket,
        tcp_create_socket::create_tcp_socket,
    };

    /// Tries to reach a name server.
    pub(crate) fn connect() -> Result<(), ErrorCode> {
        let address = Ipv4SocketAddress { port: 53, address: (127, 0, 0, 1) };
        let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
        socket.start_connect(&instance_network(), IpSocketAddress::Ipv4(address))
    }

    pub(crate) fn socket() -> Option<TcpSocket> {
        create_tcp_socket(IpAddressFamily::Ipv4).ok()
    }
}

/// For clippy and tests of this machine.
#[cfg(not(target_arch = "wasm32"))]
mod sockets {
    pub(crate) fn connect() -> Result<(), &'static str> {
        Err("no sockets")
    }

    pub(crate) fn socket() -> Option<()> {
        None
    }
}

/// Where tests write what to do: `early` or `late`, what, and the format's name if it is not to be `hostile`.
static ORDER: [u8; 80] = *b"hostile order: nothing                                                          ";
/// What is before it.
const TITLE: usize = "hostile order: ".len();
/// The wall clock of the host's probe, less than a minute before or after, in microseconds.
const PROBE_US: i64 = 1_700_000_000_123_456;
/// Size of a piece of memory that is never given back.
const NEVER_FREED: usize = 7_777;

/// Whether the next allocation traps, and whether it spins instead.
static NO_MORE: AtomicBool = AtomicBool::new(false);
static SPINS: AtomicBool = AtomicBool::new(false);

fn betray() -> ! {
    if SPINS.load(Ordering::Relaxed) { spin() } else { trap() }
}

/// Traps, or spins, at an allocation, if it is told to: the host's, for the arguments of the next call, goes through
/// `cabi_realloc`. And when it is to free a certain piece: the host lets a result be freed by `cabi_post_…`.
#[derive(Debug)]
struct Treacherous;

#[global_allocator]
static ALLOCATOR: Treacherous = Treacherous;

// SAFETY: it is the system's allocator, or does not return.
unsafe impl GlobalAlloc for Treacherous {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if NO_MORE.load(Ordering::Relaxed) {
            betray();
        }
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if layout.size() == NEVER_FREED {
            betray();
        }
        // SAFETY: the caller's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// What to do, and when.
#[derive(Clone, Debug, Default)]
struct Order {
    late: bool,
    what: String,
    name: String,
}

impl Order {
    fn read() -> Self {
        // SAFETY: it is a static of that type. Volatile, since a test writes to it where no compiler sees it.
        let order = unsafe { (&raw const ORDER).read_volatile() };
        let text = String::from_utf8_lossy(&order[TITLE..]).into_owned();
        let mut words = text.trim_end().splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let late = word() == "late";
        Self { late, what: word(), name: word() }
    }
}

#[derive(Debug)]
pub struct Hostile {
    order: Order,
    raw: Option<Raw>,
    /// Number of the next sample.
    next: u64,
    calls: u64,
}

/// Without functions of the library in between, so that the error names who called.
fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn recurse(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { black_box(recurse(black_box(depth) + 1)) + 1 }
}

/// All the memory that there is, and more.
fn hoard() {
    loop {
        std::mem::forget(black_box(vec![1u8; 1 << 20]));
    }
}

fn not_utf8() -> String {
    // SAFETY: it is not safe. The host has to find out.
    unsafe { String::from_utf8_unchecked(vec![b'x', 0xff, 0xfe, 0xc0]) }
}

/// What is not to be had from WASI, or the error `host-fault`.
fn look_around() -> Result<(), Error> {
    let mut refused = Vec::new();
    for path in ["/", ".", "/proc/self", "/etc"] {
        match std::fs::read_dir(path) {
            Ok(_) => return Err(Error::new("host-fault", format!("there is a folder {path}"))),
            Err(error) => refused.push(format!("{path}: {error}")),
        }
    }
    match std::fs::write("/tmp/hostile", "x") {
        Ok(()) => return Err(Error::new("host-fault", "it wrote a file")),
        Err(error) => refused.push(format!("write: {error}")),
    }
    Err(Error::unsupported(format!("no files: {}", refused.join("; "))))
}

fn connect() -> Result<(), Error> {
    match sockets::connect() {
        Ok(()) => Err(Error::new("host-fault", "it can reach the network")),
        Err(error) => Err(Error::unsupported(format!("no network: {error:?}"))),
    }
}

/// What the host must not do; else the error `host-fault`.
fn refuses<T>(what: &str, result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Err(Error::new("host-fault", format!("{what} was allowed"))),
        Err(_) => Ok(()),
    }
}

impl Hostile {
    fn out(&self) -> Result<&Output, Error> {
        self.raw.as_ref().map(|raw| &raw.out).ok_or_else(|| Error::new("host-fault", "no output"))
    }

    /// What is wrong to do with the host at any time. Harmless things return.
    fn act(&mut self) -> Result<(), Error> {
        let order = self.order.clone();
        let out = self.out()?;
        let next = self.next;
        let piece = |source, seq, offset, len| Piece { source, seq, offset, len };
        match order.what.as_str() {
            "trap" | "recover-loop" | "recover-trap" | "recover-append" | "recover-handles" => {
                panic!("this component was told to");
            }
            "recursion" => drop(black_box(recurse(0))),
            "memory" => hoard(),
            "exit" => std::process::exit(0),
            "sleep" => std::thread::sleep(Duration::from_secs(3600)),
            "files" => look_around()?,
            "network" => connect()?,
            "sockets" => {
                let sockets: Vec<_> = (0..1000).filter_map(|_| sockets::socket()).collect();
                return Err(match sockets.len() {
                    0 => Error::unsupported("no sockets"),
                    count => Error::new("host-fault", format!("{count} sockets")),
                });
            }
            "beyond-sample" => {
                out.append(&[], &[piece(Source::Sample, next - 1, 0, u32::MAX)])?;
            }
            "overflow" => {
                out.append(b"abc", &[piece(Source::Inline, 0, u32::MAX, u32::MAX)])?;
            }
            "freed" => {
                out.append(&[], &[piece(Source::Sample, 0, 0, 1)])?;
            }
            "future" => {
                out.append(&[], &[piece(Source::Sample, u64::MAX, 0, 1)])?;
            }
            "read-freed" => {
                host::read_sample(0, 0, 1)?;
            }
            "patch-beyond" => out.patch(out.size() - 1, b"beyond")?,
            "undeclared-patch" => out.patch(0, b"x")?,
            "undeclared-read" => {
                out.read(0, 1)?;
            }
            "patch-overflow" => out.patch(u64::MAX, b"beyond")?,
            "read-much" => {
                out.read(0, 2 << 30)?;
            }
            "patch-loop" => loop {
                let at = out.append(b"x", &[])?;
                out.patch(at, b"y")?;
            },
            "head" => {
                out.head(4096)?;
            }
            "write-head" => out.write_head(0, b"x")?,
            "promote" => out.promote()?,
            "reopen" => {
                host::reopen("")?;
            }
            "replace" => host::replace("x", b"y")?,
            "append-loop" => loop {
                out.append(&vec![0; 1 << 20], &[])?;
            },
            "grow" => {
                out.append(&vec![0; 2 << 20], &[])?;
            }
            "pieces" => {
                let pieces = vec![piece(Source::Inline, 0, 0, 0); 1 << 20];
                out.append(b"abc", &pieces)?;
            }
            "giant-inline" => {
                out.append(&vec![0; 40 << 20], &[])?;
            }
            "error-text" => return Err(Error::bad_input("x".repeat(100 << 20))),
            "error-lines" => {
                return Err(Error::new(
                    "bad\u{1b}[31m\ncode",
                    "x\nERROR all is lost\r\n\u{1b}[2J".repeat(200),
                ));
            }
            "utf8-error" => return Err(Error::bad_input(not_utf8())),
            "utf8-log" => host::log(0, &not_utf8()),
            "utf8-name" => drop(host::create(&not_utf8(), "sidecar")?),
            "log-flood" if self.calls == 1 => {
                for line in 0..10_000u32 {
                    host::log(0, &format!("line {line} {}", "x".repeat(100)));
                }
            }
            "stderr-flood" if self.calls == 1 => {
                for line in 0..10_000u32 {
                    eprintln!("line {line}");
                }
            }
            "empty" => {
                let at = out.size();
                let empty = [piece(Source::Inline, u64::MAX, 0, 0), piece(Source::Sample, next - 1, 0, 0)];
                if out.append(&[], &[])? != at || out.append(&[], &empty)? != at || out.size() != at {
                    return Err(Error::new("host-fault", "nothing is something"));
                }
                out.patch(at, &[])?;
            }
            "read-beyond" => {
                let size = out.size();
                for offset in [size, size + 1, u64::MAX] {
                    if !out.read(offset, 100)?.is_empty() {
                        return Err(Error::new("host-fault", "there is something beyond the end"));
                    }
                }
            }
            "wrong-calls" => {
                refuses("a second main file", host::create("", "main"))?;
                refuses("a head", out.head(1))?;
                refuses("to write a head", out.write_head(0, b"x"))?;
                refuses("to promote", out.promote())?;
                refuses("to reopen", host::reopen(""))?;
                refuses("to read the future", host::read_sample(u64::MAX, u32::MAX, u32::MAX))?;
                refuses("to patch", out.patch(u64::MAX, &[1; 64]))?;
            }
            "handles" => {
                // Eight outputs at most, whether they are dropped or not.
                let made = (0..1000).filter(|i| host::create(&format!("h{i}"), "spool").is_ok()).count();
                if made > 8 {
                    return Err(Error::new("host-fault", format!("{made} outputs")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether it is time, in a `write` of these samples.
    fn is_due(&self, samples: &[Sample]) -> bool {
        !self.order.late || samples.iter().any(|sample| sample.seq >= LATE)
    }
}

fn property(key: &str, value: &str) -> Property {
    Property { key: key.into(), value: value.into() }
}

impl Writer for Hostile {
    fn describe() -> Manifest {
        let order = Order::read();
        let mut good = manifest("hostile", "1.0.0").needs(&["patch", "read-back", "head-room"]);
        match order.what.as_str() {
            "describe-loop" => spin(),
            "describe-trap" => panic!("this component does not say what it is"),
            "describe-create" => drop(host::create("", "main")),
            "describe-utf8" => good.mime = not_utf8(),
            "manifest-long" => good.format = "x".repeat(1 << 20),
            "manifest-control" => good.format = "x\u{1b}[31m".into(),
            "manifest-lines" => good.version = "1.0\nERROR all is lost".into(),
            "manifest-path" => good.extension = "../../x".into(),
            "manifest-reserved" => good.extension = "info".into(),
            "manifest-needs" => good.needs = vec!["network\n".repeat(1000)],
            "manifest-codecs" => good.codecs = vec!["avc1".into(); 20_000],
            "manifest-mime" => good.mime = "text/html\r\nSet-Cookie: x=y\r\n".into(),
            "manifest-option" => good = good.option("a b\n", "x", "help"),
            "manifest-start" => good = good.payload_start(4097),
            "manifest-start-words" => good.properties.push(property("payload-start", "all\nof it")),
            "manifest-properties" => good.properties = vec![property("x", "y"); 20_000],
            "manifest-help" => good = good.option("x", "y", &"help\n".repeat(100_000)),
            "undeclared-patch" | "undeclared-read" => good.needs.clear(),
            _ => {}
        }
        // Several at once have names of their own.
        if !order.name.is_empty() {
            good.format = order.name;
        }
        good
    }

    fn open(start: Start) -> Result<Self, Error> {
        let order = Order::read();
        let is_probe = (start.epoch_us - PROBE_US).abs() < 60_000_000;
        let due = !(order.late && is_probe);
        if due {
            match order.what.as_str() {
                "open-loop" => spin(),
                "open-trap" => panic!("this component opens nothing"),
                "no-main" => return Ok(Self { order, raw: None, next: 0, calls: 0 }),
                "name-up" => drop(host::create("../x", "sidecar")?),
                "name-root" => drop(host::create("/x", "sidecar")?),
                "name-nul" => drop(host::create("x\0y", "sidecar")?),
                "name-long" => drop(host::create(&"x".repeat(4096), "sidecar")?),
                "name-info" => drop(host::create("info", "sidecar")?),
                "name-main" => drop(host::create("x", "main")?),
                "role" => drop(host::create("x", "device")?),
                _ => {}
            }
        }
        let mut raw = Raw::open()?;
        match order.what.as_str() {
            "two-mains" if due => drop(host::create("", "main")?),
            "outputs" if due => {
                for i in 0..100_000 {
                    host::create(&format!("h{i}"), "sidecar")?;
                }
            }
            // The same each time, or the probe says so.
            "clock" => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                raw.line(format_args!("{now:?} {:x}", RandomState::new().hash_one(7)))?;
            }
            _ => {}
        }
        Ok(Self { order, raw: Some(raw), next: 0, calls: 0 })
    }

    fn update_tracks(&mut self, _: Vec<Track>) -> Result<bool, Error> {
        match self.order.what.as_str() {
            "update-tracks-loop" => spin(),
            "update-tracks-trap" => panic!("this component has had enough tracks"),
            _ => Ok(true),
        }
    }

    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        let due = self.is_due(samples);
        self.calls += 1;
        let Some(raw) = &mut self.raw else { return Ok(samples.last().map_or(0, |s| s.seq + 1)) };
        if due && self.order.what == "write-loop" {
            spin();
        }
        if due && self.order.what == "batches" {
            raw.line(samples.len())?;
        }
        let is_held = self.order.what == "hold";
        let needed = raw.write(samples)?;
        self.next = needed;
        if due {
            match self.order.what.as_str() {
                "too-high" => return Ok(needed + 1),
                "far-too-high" => return Ok(u64::MAX),
                "falling" if self.calls > 1 => return Ok(0),
                "realloc" => NO_MORE.store(true, Ordering::Relaxed),
                "realloc-loop" => {
                    SPINS.store(true, Ordering::Relaxed);
                    NO_MORE.store(true, Ordering::Relaxed);
                }
                _ => self.act()?,
            }
        }
        Ok(if is_held { 0 } else { needed })
    }

    fn finish(mut self, _: End) -> Result<Summary, Error> {
        if self.order.late && self.next <= LATE {
            return Ok(Summary::default());
        }
        match self.order.what.as_str() {
            "finish-loop" => spin(),
            "finish-trap" => panic!("this component does not finish"),
            "carry" => return Ok(Summary { carry: vec![0; 1 << 20], ..Summary::default() }),
            "properties" => {
                let mut summary = Summary::default();
                for i in 0..200_000u32 {
                    summary = summary.property(&format!("key-{i}"), "x".repeat(200));
                }
                return Ok(summary);
            }
            "utf8-property" => return Ok(Summary::default().property("x", not_utf8())),
            "post-return" | "post-return-loop" => {
                SPINS.store(self.order.what.ends_with("loop"), Ordering::Relaxed);
                return Ok(Summary { carry: vec![0; NEVER_FREED], ..Summary::default() });
            }
            "finish-append" => {
                let raw = self.raw.take();
                while let Some(raw) = &raw {
                    raw.out.append(&vec![0; 1 << 20], &[])?;
                }
            }
            _ => {}
        }
        Ok(Summary::default())
    }
}

impl Recover for Hostile {
    fn recover(_: Start, _: Vec<String>) -> Result<Summary, Error> {
        let out = host::reopen("")?;
        match Order::read().what.as_str() {
            "recover-loop" => spin(),
            "recover-trap" => panic!("this component does not recover"),
            "recover-append" => loop {
                out.append(&vec![0; 1 << 20], &[])?;
            },
            "recover-handles" => {
                let handles = (0..100_000).map(|_| host::reopen("")).collect::<Result<Vec<_>, Error>>()?;
                Err(Error::new("host-fault", format!("{} handles", handles.len())))
            }
            _ => Ok(Summary::default()),
        }
    }
}

reelwright_sdk::export!(Hostile, recovery);
