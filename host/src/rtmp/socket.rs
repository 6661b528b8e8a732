//! How a connection's socket is read: in rounds, so that many connections wake together and each finds much.

use std::{io, os::fd::AsRawFd, time::Duration};

use bytes::BytesMut;
use rustix::net::RecvFlags;
use tokio::{io::Interest, net::TcpStream, time::Instant};

/// When live streams are read: at points of time that are the same for all connections, each of which leaves out most
/// of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    origin: Instant,
    every: Duration,
    step: Duration,
}

impl Rounds {
    /// So far apart for one connection at most.
    pub(super) fn new(every: Duration) -> Self {
        let step = (every / 10).max(Duration::from_millis(1));
        Self { origin: Instant::now(), every, step }
    }

    /// When a connection is read that was read just now.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let due = now.duration_since(self.origin) + self.every;
        let late = due.as_nanos() % self.step.as_nanos();
        self.origin + due - Duration::from_nanos(u64::try_from(late).unwrap_or(0))
    }
}

/// Reads what has come behind what is in `input`, at most as much as there is room. `WouldBlock`: nothing has; 0: nothing
/// will.
///
/// `is_ready`: as the runtime says, which is to know if it is wrong. What is less than the low-water mark makes nothing
/// ready, and is read all the same.
pub(super) fn receive(stream: &TcpStream, is_ready: bool, input: &mut BytesMut) -> io::Result<usize> {
    let mut receive =
        || Ok(rustix::net::recv(stream, input.spare_capacity_mut(), RecvFlags::DONTWAIT)?.0.0.len());
    let received = if is_ready { stream.try_io(Interest::READABLE, receive) } else { receive() }?;
    // SAFETY: `recv` has initialised so many bytes behind the last one.
    unsafe { input.set_len(input.len() + received) };
    Ok(received)
}

/// Sets from how many bytes on a socket counts as readable (`SO_RCVLOWAT`, socket(7)). Its receive buffer grows so that
/// they fit. It is readable with less when the peer can send no more, or has closed.
pub(super) fn set_low_water(stream: &TcpStream, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let (pointer, len) = (std::ptr::from_ref(&value).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the descriptor is open as long as `stream` is, and `pointer` is to an int of that size.
    let result =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, pointer, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn rounds_are_the_same_for_all_and_not_too_late() {
        let rounds = Rounds::new(Duration::from_millis(200));
        for ms in 0..100 {
            let now = rounds.origin + Duration::from_millis(ms);
            let next = rounds.next(now);
            let wait = next - now;
            assert!(wait <= Duration::from_millis(200) && wait > Duration::from_millis(180), "{wait:?}");
            assert_eq!((next - rounds.origin).as_millis() % 20, 0);
        }
        let rounds = Rounds::new(Duration::ZERO);
        let now = Instant::now();
        assert!(rounds.next(now) <= now, "at once");
    }

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn little_makes_nobody_wake_and_is_read_all_the_same() {
        let (server, mut client) = pair().await;
        set_low_water(&server, 1000).unwrap();
        let mut input = BytesMut::with_capacity(4096);
        // The runtime takes a new socket for ready until it is told.
        assert_eq!(receive(&server, true, &mut input).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(&[7; 999]).await.unwrap();
        let woken = tokio::time::timeout(Duration::from_millis(50), server.readable()).await;
        assert!(woken.is_err());
        input.extend_from_slice(&[1, 2]);
        assert_eq!(receive(&server, false, &mut input).unwrap(), 999);
        assert_eq!((input.len(), &input[..4]), (1001, &[1, 2, 7, 7][..]));
        assert_eq!(receive(&server, false, &mut input).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        client.write_all(&[7; 1000]).await.unwrap();
        server.readable().await.unwrap();
        assert_eq!(receive(&server, true, &mut input).unwrap(), 1000);
        assert_eq!(receive(&server, true, &mut input).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        // The end does, whatever came before it.
        client.write_all(&[7; 3]).await.unwrap();
        drop(client);
        server.readable().await.unwrap();
        assert_eq!(receive(&server, true, &mut input).unwrap(), 3);
        assert_eq!(receive(&server, true, &mut input).unwrap(), 0);
        assert_eq!(input.len(), 2004);
    }

    #[tokio::test]
    async fn who_can_send_no_more_is_read() {
        let (server, mut client) = pair().await;
        // More than the peer may send.
        set_low_water(&server, 2 << 20).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&server, 16 << 10).unwrap();
        let sending = tokio::spawn(async move { client.write_all(&vec![0; 8 << 20]).await });
        let mut input = BytesMut::with_capacity(256 << 10);
        let mut got = 0;
        while got < 8 << 20 {
            server.readable().await.unwrap();
            input.clear();
            match receive(&server, true, &mut input) {
                Ok(bytes) => got += bytes,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        sending.await.unwrap().unwrap();
    }
}
