//! The simple handshake (Adobe RTMP 1.0, section 5.2).
//!
//! ```text
//! client                                     server
//!    C0 (version, 1 byte) C1 (1,536 bytes) →
//!                                   ← S0 S1 S2 (echo of C1)
//!    C2 (echo of S1) →                          both: done
//! ```
//!
//! Clients that offer the digest handshake find no version in S1 and fall back to this one. What comes as
//! C2 or S2 is not compared: enough peers don't echo.

use super::Output;

const VERSION: u8 = 3;
const SIZE: usize = 1536;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("encrypted RTMP (RTMPE, version {0}) is not supported")]
    Encrypted(u8),
    #[error("not RTMP: the first byte is {0:#04x}, not version 3")]
    Version(u8),
}

/// One side of the handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    server: bool,
    state: State,
}

/// ```text
/// Hello → Echo → Done
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for C0 and C1, or S0 and S1.
    Hello,
    /// Waiting for C2, or S2.
    Echo,
    Done,
}

impl Handshake {
    pub(super) fn server() -> Self {
        Self { server: true, state: State::Hello }
    }

    /// Sends C0 and C1.
    pub(super) fn client(out: &mut Output) -> Self {
        put_hello(out);
        Self { server: false, state: State::Hello }
    }

    /// Takes its part off the input; `true` when it is done. Otherwise what is left of the input, less than
    /// 1,537 bytes, has to be given again.
    pub(super) fn read(&mut self, input: &mut &[u8], out: &mut Output) -> Result<bool, Error> {
        if self.state == State::Hello {
            match input.first() {
                None | Some(&VERSION) => {}
                Some(&version @ (6 | 8 | 9)) => return Err(Error::Encrypted(version)),
                Some(&version) => return Err(Error::Version(version)),
            }
            let Some((hello, rest)) = input.split_at_checked(1 + SIZE) else { return Ok(false) };
            if self.server {
                put_hello(out);
            }
            // S2 or C2: the peer's time, the time of reading it (which nobody uses), the peer's random data.
            out.put_slice(&hello[1..5]);
            out.put_slice(&[0; 4]);
            out.put_slice(&hello[9..]);
            *input = rest;
            self.state = State::Echo;
        }
        if self.state == State::Echo {
            let Some((_, rest)) = input.split_at_checked(SIZE) else { return Ok(false) };
            *input = rest;
            self.state = State::Done;
        }
        Ok(true)
    }
}

/// C0 and C1, or S0 and S1: version, time 0, four zeros, and data that differs from what other peers send.
/// It serves to tell echoes apart, not to keep secrets, so it is always the same.
fn put_hello(out: &mut Output) {
    out.put_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut data = [0; SIZE - 8];
    let mut state = 0x5265_656cu32;
    for byte in &mut data {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state as u8;
    }
    out.put_slice(&data);
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn drain(out: &mut Output) -> Vec<u8> {
        out.copy_to_bytes(out.remaining()).to_vec()
    }

    /// Gives bytes in steps, as a socket would.
    fn feed(handshake: &mut Handshake, bytes: &[u8], step: usize, out: &mut Output) -> Result<bool, Error> {
        let mut pending = Vec::new();
        let mut done = false;
        for part in bytes.chunks(step) {
            pending.extend_from_slice(part);
            let mut input = &pending[..];
            done = handshake.read(&mut input, out)?;
            pending = input.to_vec();
        }
        assert!(pending.is_empty() || !done);
        Ok(done)
    }

    #[test]
    fn client_and_server_agree_at_any_pace() {
        for step in [1, 7, 1536, 1537, 4000] {
            let (mut to_server, mut to_client) = (Output::default(), Output::default());
            let mut client = Handshake::client(&mut to_server);
            let mut server = Handshake::server();
            let hello = drain(&mut to_server);
            assert_eq!(hello.len(), 1537);
            assert_eq!(feed(&mut server, &hello, step, &mut to_client), Ok(false));
            let answer = drain(&mut to_client);
            assert_eq!(answer.len(), 1 + 2 * 1536);
            assert_eq!(answer[5..9], [0; 4], "no version, so no digest");
            assert_eq!(answer[1537..], hello[1..], "S2 echoes C1");
            assert_eq!(feed(&mut client, &answer, step, &mut to_server), Ok(true));
            let echo = drain(&mut to_server);
            assert_eq!(echo, answer[1..1537], "C2 echoes S1");
            assert_eq!(feed(&mut server, &echo, step, &mut to_client), Ok(true));
        }
    }

    #[test]
    fn takes_c1_of_zeros_and_of_digest_clients() {
        for c1 in [[0; SIZE], [0x80; SIZE]] {
            let mut out = Output::default();
            let mut server = Handshake::server();
            let bytes = [&[3][..], &c1, &[0xaa; SIZE]].concat();
            assert_eq!(feed(&mut server, &bytes, 100, &mut out), Ok(true));
        }
    }

    #[test]
    fn other_protocols_are_refused_at_the_first_byte() {
        let error = |byte| Handshake::server().read(&mut &[byte][..], &mut Output::default()).unwrap_err();
        assert_eq!(error(6), Error::Encrypted(6));
        assert_eq!(error(b'G').to_string(), "not RTMP: the first byte is 0x47, not version 3");
        assert_eq!(error(0x16), Error::Version(0x16), "TLS");
    }
}
