//! Listens for publishers: the only RTMP sockets of the server. One task a connection, which owns the socket
//! and drives a [`Session`]; it reads no further while the registry holds the publisher back, so that TCP
//! does.
//!
//! Media gathers in the socket, where it costs nothing: a live stream is read in rounds, or when much has come (see
//! `rtmp::socket`). What is read goes to the disk in one piece.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Declared, Error, Event, Limits, Session,
    chunk::Unfinished,
    event::{PublishRequest, track_id},
    socket::{Rounds, receive, set_low_water},
};
use crate::{
    ingest::{self, Ingest, Watch},
    media::{Kind, Sample},
    registry::{self, LiveStream, Publisher, Registry, Source},
    sync::lock,
};

/// What wakes the reader of a live stream before its round.
const LOW_WATER: u32 = 128 << 10;
/// What is read of live streams stays where it is, in blocks: of this size, of the other one where much comes. A block
/// lives as long as the last sample in it.
const BLOCK_BYTES: usize = 128 << 10;
const BIG_BLOCK_BYTES: usize = 512 << 10;
/// A block without room for so much is full.
const FULL_BYTES: usize = 8 << 10;
/// Read buffer of a connection without a stream.
const READ_BYTES: usize = 16 << 10;
/// How long a connection that we end stays open for the peer to read why.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after the system has refused us a socket, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// Further connections are closed at once.
    pub max_connections: usize,
    /// From the first byte to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Longest time without a stream: from the end of the handshake, or of the last stream.
    pub publish_timeout: Duration,
    /// Longest time without a byte from the peer.
    pub idle_timeout: Duration,
    /// Longest time for the peer to take what we answer.
    pub write_timeout: Duration,
    /// How long media gathers in the socket before it is read, unless much comes.
    pub gather: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            max_connections: 4000,
            handshake_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            gather: Duration::from_millis(200),
        }
    }
}

/// Serves until the token is cancelled; then stops accepting, ends all streams, tells their publishers, and
/// returns when the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    ingest: Ingest,
    settings: Settings,
    shutdown: CancellationToken,
) {
    let settings = Arc::new(settings);
    let places = Places::new(settings.max_connections);
    let connections = TaskTracker::new();
    let rounds = Rounds::new(settings.gather);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting an RTMP connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.take(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                tracing::warn!(%peer, "refused an RTMP connection: {full} (setting rtmp.max-connections)");
                continue;
            }
        };
        let connection = Connection {
            near: stream.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            stream,
            peer,
            session: Session::new(settings.limits),
            registry: registry.clone(),
            ingest: ingest.clone(),
            settings: settings.clone(),
            shutdown: shutdown.clone(),
            rounds,
            told: told(shutdown.clone(), None),
            live: None,
            watch: None,
            batch: Vec::new(),
            opened: Instant::now(),
            heard: Instant::now(),
            was_filled: false,
            streamless: None,
        };
        connections.spawn(async move {
            connection.serve().await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The connections that there may be: so many in all, and three quarters of them for one address, but on this
/// machine. Clones share them.
#[derive(Clone, Debug)]
struct Places {
    max: usize,
    /// Connections by address; none has 0.
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("there are {0}")]
    All(usize),
    #[error("its address has its share, {0}")]
    Address(usize),
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    ip: IpAddr,
}

impl Places {
    fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    fn take(&self, ip: IpAddr) -> Result<Place, Full> {
        let ip = ip.to_canonical();
        let mut taken = lock(&self.taken);
        let all: usize = taken.values().sum();
        let own = taken.get(&ip).copied().unwrap_or_default();
        let share = (self.max - self.max / 4).max(1);
        if all >= self.max {
            return Err(Full::All(all));
        }
        if own >= share && !ip.is_loopback() {
            return Err(Full::Address(own));
        }
        taken.insert(ip, own + 1);
        Ok(Place { places: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        if let Some(own) = taken.get_mut(&self.ip) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.ip);
            }
        }
    }
}

/// Why a connection is over, other than by its end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Protocol(#[from] Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(
        "the peer hung up after {} of {} bytes of a message of type {} on chunk stream {}",
        _0.bytes, _0.length, _0.message_type, _0.chunk_stream
    )]
    InMessage(Unfinished),
    #[error("the peer hung up in the handshake, after {0} bytes")]
    InHandshake(u64),
    #[error("no handshake within {0:?} (setting rtmp.handshake-timeout)")]
    Handshake(Duration),
    #[error("no stream within {0:?} (setting rtmp.publish-timeout)")]
    NoStream(Duration),
    #[error("not a byte for {0:?} (setting rtmp.idle-timeout)")]
    Idle(Duration),
    #[error("the peer did not take our answers for {0:?} (setting rtmp.write-timeout)")]
    Write(Duration),
    #[error("an operator shut the stream down")]
    ShutDown,
    #[error("the server is shutting down")]
    Stopping,
}

type Told = Pin<Box<dyn Future<Output = Fault> + Send>>;

/// Resolves when we are to end the connection. One future for all waits of a stream: to begin a wait is dearer than to go
/// on with one.
fn told(shutdown: CancellationToken, stream: Option<Arc<LiveStream>>) -> Told {
    Box::pin(async move {
        let closed = async {
            match &stream {
                Some(stream) => stream.closed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => Fault::Stopping,
            () = closed => Fault::ShutDown,
        }
    })
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    near: SocketAddr,
    session: Session,
    registry: Registry,
    ingest: Ingest,
    settings: Arc<Settings>,
    shutdown: CancellationToken,
    rounds: Rounds,
    /// See [`told`]. Made anew with each stream.
    told: Told,
    live: Option<Publisher>,
    /// Who tells of the live stream.
    watch: Option<Watch>,
    /// Samples of the last read that are not with the publisher yet.
    batch: Vec<Sample>,
    opened: Instant,
    /// When the last byte came.
    heard: Instant,
    /// The last read was of as much as there was room for.
    was_filled: bool,
    /// When the handshake ended, or the last stream did.
    streamless: Option<Instant>,
}

impl Connection {
    async fn serve(mut self) {
        let peer = self.peer;
        tracing::debug!(%peer, "RTMP connection");
        let fault = self.run().await.err();
        let name = self.name().to_owned();
        self.end_stream(fault.as_ref().map_or("the connection was closed", |_| "the connection failed"));
        match &fault {
            None => tracing::debug!(%peer, bytes = self.session.position(), "RTMP connection closed"),
            Some(fault @ (Fault::ShutDown | Fault::Stopping)) => {
                tracing::info!(%peer, stream = name, "RTMP connection closed: {fault}");
            }
            Some(fault) => tracing::warn!(%peer, stream = name, "RTMP connection failed: {fault}"),
        }
        if let Some(Fault::Protocol(_) | Fault::ShutDown | Fault::Stopping) = fault {
            self.linger().await;
        }
    }

    /// Serves until the peer closes the connection.
    async fn run(&mut self) -> Result<(), Fault> {
        self.stream.set_nodelay(true)?;
        let mut input = BytesMut::new();
        loop {
            if self.read(&mut input).await? == 0 {
                return self.ended(input.len());
            }
            self.take(&mut input).await?;
            self.flush().await?;
        }
    }

    /// The peer closed the connection: between two messages, if all is well.
    fn ended(&self, rest: usize) -> Result<(), Fault> {
        let bytes = self.session.position() + rest as u64;
        match self.session.unfinished() {
            Some(message) => Err(Fault::InMessage(message)),
            None if bytes > 0 && !self.session.is_established() => Err(Fault::InHandshake(bytes)),
            None => Ok(()),
        }
    }

    /// Makes room for input. What was not taken the last time is the beginning of a part of the handshake, or of a header.
    fn make_room(&mut self, input: &mut BytesMut) {
        let room = input.capacity() - input.len();
        let (full, block) = match (&self.live, self.was_filled) {
            (None, _) => (1, READ_BYTES),
            (Some(_), false) => (FULL_BYTES, BLOCK_BYTES),
            (Some(_), true) => (FULL_BYTES, BIG_BLOCK_BYTES),
        };
        if room < full {
            let mut fresh = BytesMut::with_capacity(block);
            fresh.extend_from_slice(input);
            *input = fresh;
        }
    }

    /// Waits for input, and adds it. Returns how much came; 0: the connection's end.
    async fn read(&mut self, input: &mut BytesMut) -> Result<usize, Fault> {
        let Settings { handshake_timeout, publish_timeout, idle_timeout, .. } = *self.settings;
        let now = Instant::now();
        let limit = if !self.session.is_established() {
            Some((self.opened + handshake_timeout, Fault::Handshake(handshake_timeout)))
        } else if self.live.is_none() {
            let since = *self.streamless.get_or_insert(now);
            Some((since + publish_timeout, Fault::NoStream(publish_timeout)))
        } else {
            None
        };
        let idle = (self.heard + idle_timeout, Fault::Idle(idle_timeout));
        let (deadline, fault) = match limit {
            // A peer that never stops sending would not be seen to be late by a timeout of the read.
            Some((deadline, fault)) if deadline <= now => return Err(fault),
            Some(limit) if limit.0 <= idle.0 => limit,
            _ => idle,
        };
        loop {
            let look_at = match self.live {
                Some(_) => self.rounds.next(Instant::now()).min(deadline),
                None => deadline,
            };
            let is_ready = tokio::select! {
                ready = self.stream.readable() => ready.map(|()| true)?,
                () = tokio::time::sleep_until(look_at) => false,
                fault = &mut self.told => return self.stop(fault),
            };
            self.make_room(input);
            match receive(&self.stream, is_ready, input) {
                Ok(bytes) => {
                    self.heard = Instant::now();
                    self.was_filled = input.len() == input.capacity() && bytes >= BLOCK_BYTES / 2;
                    return Ok(bytes);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if Instant::now() >= deadline => return Err(fault),
                Err(_) => {}
            }
        }
    }

    /// Ends the stream from our side, and tells the peer why.
    fn stop<T>(&mut self, fault: Fault) -> Result<T, Fault> {
        self.session.stop_publish(&fault.to_string());
        Err(fault)
    }

    /// Passes the input on to the registry.
    async fn take(&mut self, input: &mut BytesMut) -> Result<(), Fault> {
        loop {
            let result = self.session.handle_input(input);
            let mut asked = false;
            while let Some(event) = self.session.poll_event() {
                match event {
                    Event::Sample(sample) => self.batch.push(sample),
                    Event::Track(track) => {
                        self.send().await?;
                        if let Some(publisher) = &mut self.live {
                            publisher.track(track);
                        }
                        if let Some(watch) = &mut self.watch {
                            watch.codecs_changed();
                        }
                    }
                    Event::Metadata(metadata) => {
                        if let Some(publisher) = &mut self.live {
                            let Declared { video, audio } = metadata.declared;
                            publisher.declare(registry::Declared { video, audio });
                        }
                    }
                    Event::Publish(request) => {
                        self.publish(*request).await?;
                        asked = true;
                    }
                    Event::EndOfStream(_) => {
                        self.send().await?;
                        self.end_stream("the publisher ended it");
                    }
                    Event::Skipped(skipped) => tracing::warn!(
                        peer = %self.peer,
                        stream = self.name(),
                        timestamp_ms = skipped.timestamp_ms,
                        position = skipped.position,
                        "left out: {}; more of that kind will only be counted",
                        skipped.reason
                    ),
                    Event::Repaired(repair) => {
                        tracing::warn!(peer = %self.peer, stream = self.name(), "put right: {repair}");
                    }
                    Event::PlayRefused { name } => {
                        // It may be meant to be a stream key.
                        let name = ingest::mask(&name);
                        tracing::info!(peer = %self.peer, name, "refused to play: this server only records");
                    }
                }
            }
            self.send().await?;
            if let Some(watch) = &mut self.watch {
                watch.poll();
            }
            result?;
            if !asked {
                return Ok(());
            }
        }
    }

    /// Answers the wish to publish.
    async fn publish(&mut self, request: PublishRequest) -> Result<(), Fault> {
        let peer = self.peer;
        let admitted = tokio::select! {
            admitted = self.ingest.admit(&request, peer) => admitted,
            () = self.shutdown.cancelled() => return self.stop(Fault::Stopping),
        };
        let name = match admitted {
            Ok(name) => name,
            Err(refusal) => {
                self.session.refuse_publish(&refusal.to_string());
                return Ok(());
            }
        };
        let PublishRequest { app, kind, connect, .. } = request;
        // What follows may be a key.
        let without_query = |url: String| url.split('?').next().unwrap_or_default().to_owned();
        let source = Source {
            app,
            tc_url: without_query(connect.tc_url),
            page_url: without_query(connect.page_url),
            swf_url: without_query(connect.swf_url),
            user_agent: connect.flash_ver,
            near: self.near,
            far: peer,
        };
        match self.registry.publish(&name, source) {
            Ok(publisher) => {
                let Source { app, user_agent, .. } = &publisher.stream().source;
                tracing::info!(%peer, stream = name, ?app, ?kind, ?user_agent, "stream published");
                self.session.remember(publisher.remembered());
                self.watch = Some(self.ingest.watch(publisher.stream()));
                self.told = told(self.shutdown.clone(), Some(publisher.stream().clone()));
                self.live = Some(publisher);
                self.session.accept_publish();
                set_low_water(&self.stream, LOW_WATER)?;
            }
            Err(error) => {
                tracing::warn!(%peer, "refused a stream: {error}");
                self.session.refuse_publish(&error.to_string());
            }
        }
        Ok(())
    }

    /// Waits while the registry holds us back.
    async fn send(&mut self) -> Result<(), Fault> {
        let Some(publisher) = &mut self.live else {
            self.batch.clear();
            return Ok(());
        };
        let fault = tokio::select! {
            biased;
            // Given up while it is held back, it has taken nothing.
            () = publisher.send(&mut self.batch) => return Ok(()),
            fault = &mut self.told => fault,
        };
        self.stop(fault)
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if !self.session.output().has_remaining() {
            return Ok(());
        }
        let write = self.stream.write_all_buf(self.session.output());
        let limit = self.settings.write_timeout;
        Ok(timeout(limit, write).await.map_err(|_| Fault::Write(limit))??)
    }

    fn end_stream(&mut self, reason: &str) {
        let Some(publisher) = self.live.take() else { return };
        self.streamless = Some(Instant::now());
        if let Err(error) = set_low_water(&self.stream, 1) {
            // What follows would be read late, if at all.
            tracing::warn!(peer = %self.peer, %error, "SO_RCVLOWAT");
        }
        let stream = publisher.stream();
        let (video, audio) = (stream.stats(track_id(Kind::Video)), stream.stats(track_id(Kind::Audio)));
        tracing::info!(
            peer = %self.peer,
            stream = stream.name,
            seconds = stream.up_time().as_secs(),
            video_samples = video.samples,
            audio_samples = audio.samples,
            bytes = video.bytes + audio.bytes,
            left_out = self.session.skips().total(),
            "stream ended: {reason}"
        );
        drop(publisher);
        if let Some(watch) = self.watch.take() {
            watch.closed();
        }
    }

    fn name(&self) -> &str {
        self.live.as_ref().map_or("", |publisher| &publisher.stream().name)
    }

    /// Gives the peer the time to read why it is being left: to close a socket with unread input would reset
    /// the connection.
    async fn linger(mut self) {
        let farewell = async {
            self.flush().await.ok()?;
            self.stream.shutdown().await.ok()?;
            let mut ignored = BytesMut::with_capacity(4 << 10);
            while self.stream.read_buf(&mut ignored).await.ok()? > 0 {
                ignored.clear();
            }
            Some(())
        };
        // However it ends, the connection does.
        let _ = timeout(LINGER, farewell).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves with these settings while the client's side runs. Where time is simulated, it jumps to the next
    /// timeout when nobody has anything to do.
    async fn with_server<F: Future>(settings: Settings, client: impl FnOnce(SocketAddr) -> F) -> F::Output {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener,
            Registry::default(),
            Ingest::open_to_all(),
            settings,
            shutdown.clone(),
        ));
        let output = client(address).await;
        shutdown.cancel();
        serving.await.unwrap();
        output
    }

    /// What comes until the end of the connection, and when that was.
    async fn rest(stream: &mut TcpStream) -> (usize, Duration) {
        let start = Instant::now();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        (bytes.len(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_peers_are_left() {
        let settings = Settings { idle_timeout: Duration::from_secs(20), ..Settings::default() };
        with_server(settings, async |address| {
            let mut silent = TcpStream::connect(address).await.unwrap();
            let (bytes, after) = rest(&mut silent).await;
            assert_eq!((bytes, after.as_secs()), (0, 10), "no handshake");

            let mut idle = TcpStream::connect(address).await.unwrap();
            idle.write_all(&[&[3][..], &[0; 2 * 1536]].concat()).await.unwrap();
            let (bytes, after) = rest(&mut idle).await;
            assert_eq!((bytes, after.as_secs()), (3073, 20), "nothing after it");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_publishes_is_left() {
        let settings = Settings { idle_timeout: Duration::from_secs(3600), ..Settings::default() };
        with_server(settings, async |address| {
            let mut idler = TcpStream::connect(address).await.unwrap();
            idler.write_all(&[&[3][..], &[0; 2 * 1536]].concat()).await.unwrap();
            idler.read_exact(&mut [0; 3073]).await.unwrap();
            let (bytes, after) = rest(&mut idler).await;
            assert_eq!((bytes, after.as_secs()), (0, 30));
        })
        .await;
    }

    #[test]
    fn an_address_has_its_share_of_the_connections() {
        let places = Places::new(4);
        let [near, a, b] = ["127.0.0.1", "192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let mut of_a: Vec<_> = (0..3).map(|_| places.take(a).unwrap()).collect();
        assert_eq!(places.take("::ffff:192.0.2.1".parse().unwrap()).unwrap_err(), Full::Address(3));
        let of_b = places.take(b).unwrap();
        assert_eq!(places.take(near).unwrap_err(), Full::All(4));
        of_a.pop();
        of_a.push(places.take(a).unwrap());
        drop((of_a, of_b));
        assert!(lock(&places.taken).is_empty());
        let _local: Vec<_> = (0..4).map(|_| places.take(near).unwrap()).collect();
    }

    #[tokio::test]
    async fn what_is_not_rtmp_is_closed_at_once() {
        with_server(Settings::default(), async |address| {
            let mut browser = TcpStream::connect(address).await.unwrap();
            browser.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(rest(&mut browser).await.0, 0);
        })
        .await;
    }

    #[tokio::test]
    async fn connections_are_limited_and_given_back() {
        let settings = Settings { max_connections: 2, ..Settings::default() };
        with_server(settings, async |address| {
            let first = TcpStream::connect(address).await.unwrap();
            let _second = TcpStream::connect(address).await.unwrap();
            let mut third = TcpStream::connect(address).await.unwrap();
            assert_eq!(rest(&mut third).await.0, 0);
            drop(first);
            // Until the server has seen that the first one is gone.
            loop {
                let mut fourth = TcpStream::connect(address).await.unwrap();
                if fourth.write_all(&[&[3][..], &[0; 1536]].concat()).await.is_ok()
                    && fourth.read_exact(&mut [0; 3073]).await.is_ok()
                {
                    break;
                }
            }
        })
        .await;
    }
}
