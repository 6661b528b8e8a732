//! HTTP connections that can't be held open by sending or reading slowly.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::control::{
    Limits,
    auth::Access,
    server::{
        accept,
        seats::{Busy, Full, Seat, Seats, Work},
        socket::Socket,
    },
};

/// A listener with so many connections at a time. A connection that is not at work makes room for the next one; if
/// all are, the next one waits.
pub(super) struct Bounded {
    listener: TcpListener,
    seats: Seats,
    limits: Limits,
    access: Arc<Access>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, limits: &Limits, access: Arc<Access>) -> Self {
        Self { listener, seats: Seats::new(limits.http_clients), limits: *limits, access }
    }

    async fn seat(&self, far: SocketAddr) -> Result<Seat, Full> {
        loop {
            match self.seats.take(far.ip()) {
                Err(Full::All) => self.seats.freed().await,
                seat => return seat,
            }
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (socket, far) = accept(&self.listener).await;
            // Fails only for a connection that is gone already.
            let Ok(near) = socket.local_addr() else { continue };
            let Ok(seat) = self.seat(far).await else {
                tracing::debug!(%far, "too many connections of one address");
                continue;
            };
            let peer = Peer { near, far, tls: Arc::default(), work: seat.work().clone() };
            let connection = Connection {
                socket: Socket::new(socket, far, &self.access),
                peer,
                timer: Box::pin(sleep(self.limits.request)),
                leave: Box::pin(seat.leave().clone().cancelled_owned()),
                writing: false,
                limits: self.limits,
                _seat: seat,
            };
            return (connection, far);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who is at a connection's ends.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) near: SocketAddr,
    pub(super) far: SocketAddr,
    /// Known when the first request is there.
    tls: Arc<AtomicBool>,
    /// How many are at work on it.
    work: Arc<Work>,
}

impl Peer {
    /// Stops the clock of the connection: it is our turn, until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        Busy::new(&self.work)
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.load(Ordering::Relaxed)
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().peer.clone()
    }
}

/// A connection whose request must have come, and whose reply must go, within time.
pub(super) struct Connection {
    socket: Socket,
    peer: Peer,
    /// When the client has taken too long.
    timer: Pin<Box<Sleep>>,
    /// When somebody else gets its place.
    leave: Pin<Box<WaitForCancellationFutureOwned>>,
    /// A write waits for room, and the timer says how long it may.
    writing: bool,
    limits: Limits,
    _seat: Seat,
}

impl Connection {
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.writing = false;
            // A kept connection may wait as long for its next request.
            self.timer.as_mut().reset(Instant::now() + self.limits.write);
            return result;
        }
        if self.leave.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !std::mem::replace(&mut self.writing, true) {
            self.timer.as_mut().reset(Instant::now() + self.limits.write);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Bytes do not set the timer back: a request is one piece, however it trickles in.
        if Pin::new(&mut self.socket).poll_read(cx, buf)?.is_ready() {
            if self.socket.is_tls() {
                self.peer.tls.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(Ok(()));
        }
        if self.leave.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if !self.peer.work.is_our_turn() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // Our turn. The clock is wound up, as nobody may ask for it once our turn is over.
            let due = Instant::now() + self.limits.request;
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Router, extract::ConnectInfo};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    /// Serves a handler that takes its time, and sends requests on one connection, reading to its end.
    async fn exchange(handler: Duration, requests: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let limits = Limits {
            request: Duration::from_millis(50),
            write: Duration::from_millis(50),
            ..Limits::default()
        };
        let slow = move |ConnectInfo(peer): ConnectInfo<Peer>| async move {
            let _busy = peer.busy();
            sleep(handler).await;
            "late"
        };
        let service = Router::new().fallback(slow).into_make_service_with_connect_info::<Peer>();
        let server =
            tokio::spawn(axum::serve(Bounded::new(listener, &limits, Arc::default()), service).into_future());
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(requests).await.unwrap();
        let mut reply = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut reply)).await;
        read.expect("the server closes").unwrap();
        server.abort();
        reply
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    #[tokio::test]
    async fn the_clock_stands_while_a_command_runs() {
        let reply = exchange(Duration::from_millis(300), REQUEST).await;
        assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("late"), "{reply}");
    }

    #[tokio::test]
    async fn a_kept_connection_is_dropped_when_idle() {
        let reply = exchange(Duration::ZERO, &REQUEST.repeat(2)).await;
        assert_eq!(reply.matches("late").count(), 2, "{reply}");
    }

    #[tokio::test]
    async fn half_a_request_is_dropped() {
        let reply = exchange(Duration::ZERO, &REQUEST[..20]).await;
        assert!(!reply.contains("late"), "{reply}");
    }
}
