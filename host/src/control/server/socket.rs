//! A connection in the clear or over TLS. Which one it is shows when its first byte comes: TLS begins with 22, and no
//! command does.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use crate::control::auth::Access;

/// The type of a TLS record that begins a handshake.
const HANDSHAKE: u8 = 22;

/// A connection that was accepted.
///
/// ```text
/// First ─┬→ Plain
///        └→ Handshake → Tls
/// ```
pub(super) enum Socket {
    /// Nothing came yet.
    First {
        /// Taken when the state changes.
        socket: Option<TcpStream>,
        config: Arc<ServerConfig>,
        may_be_plain: bool,
    },
    Plain(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(super) fn new(socket: TcpStream, far: SocketAddr, access: &Access) -> Self {
        match access.tls() {
            None => Self::Plain(socket),
            Some(config) => {
                Self::First { socket: Some(socket), config, may_be_plain: access.may_be_plain(far) }
            }
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Waits until it is known whether it is TLS, and the handshake is done.
    pub(super) async fn established(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_established(cx)).await
    }

    fn poll_established(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Plain(_) | Self::Tls(_) => return Poll::Ready(Ok(())),
                Self::Handshake(accept) => {
                    let stream = ready!(Pin::new(accept).poll(cx))?;
                    *self = Self::Tls(Box::new(stream));
                }
                Self::First { socket, config, may_be_plain } => {
                    let Some(tcp) = socket else {
                        return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                    };
                    let mut first = [0];
                    let mut buffer = ReadBuf::new(&mut first);
                    let count = ready!(tcp.poll_peek(cx, &mut buffer))?;
                    let is_tls = count == 1 && first[0] == HANDSHAKE;
                    if !is_tls && !*may_be_plain {
                        let error = io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS");
                        return Poll::Ready(Err(error));
                    }
                    let (Some(tcp), config) = (socket.take(), config.clone()) else { continue };
                    *self = match is_tls {
                        true => Self::Handshake(Box::new(TlsAcceptor::from(config).accept(tcp))),
                        false => Self::Plain(tcp),
                    };
                }
            }
        }
    }
}

/// Passes a call to what is below, once that is known.
macro_rules! below {
    ($self:ident, $cx:ident, $stream:ident => $call:expr) => {{
        let this = $self.get_mut();
        ready!(this.poll_established($cx))?;
        match this {
            Self::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Self::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Self::First { .. } | Self::Handshake(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        below!(self, cx, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        below!(self, cx, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        below!(self, cx, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::First { .. } | Self::Handshake(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            // Dropped with nothing said.
            Self::First { .. } | Self::Handshake(_) => Poll::Ready(Ok(())),
        }
    }
}
