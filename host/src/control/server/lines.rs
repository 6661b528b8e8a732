//! Lines out of what a terminal, a script or telnet sends. Pure.

use crate::control::parse::{MAX_LINE, ParseError};

/// Cuts bytes into lines at CR, LF, CR LF or telnet's CR NUL, and takes telnet's negotiations out.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line so far; never longer than [`MAX_LINE`].
    line: Vec<u8>,
    telnet: Telnet,
    /// The last byte was a CR, so a LF or NUL now ends no other line.
    after_cr: bool,
}

/// Where in a telnet command we are (RFC 854, RFC 855).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Telnet {
    #[default]
    Data,
    /// After IAC.
    Command,
    /// After WILL, WON'T, DO or DON'T.
    Option,
    /// After SB, up to IAC SE.
    Subnegotiation,
    /// After IAC in a subnegotiation.
    SubnegotiationCommand,
}

const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;
const WILL: u8 = 251;
const DONT: u8 = 254;

impl Lines {
    /// The next line that is not blank, without its end; `None` when `input` is used up. After
    /// [`ParseError::TooLong`] there is no going on: the rest of the line would pass for a command.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<Result<Vec<u8>, ParseError>> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if !self.is_data(byte) {
                continue;
            }
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' | 0 if after_cr => {}
                b'\r' | b'\n' if self.is_blank() => self.line.clear(),
                b'\r' | b'\n' => return Some(Ok(std::mem::take(&mut self.line))),
                _ if self.line.len() == MAX_LINE => return Some(Err(ParseError::TooLong)),
                _ => self.line.push(byte),
            }
        }
        None
    }

    /// Nothing waits for its line end.
    pub(super) fn is_blank(&self) -> bool {
        self.line.iter().all(|&b| b == b' ')
    }

    fn is_data(&mut self, byte: u8) -> bool {
        use Telnet::*;
        let (state, is_data) = match (self.telnet, byte) {
            (Data, IAC) => (Command, false),
            (Data, _) => (Data, true),
            // A doubled IAC is the byte itself.
            (Command, IAC) => (Data, true),
            (Command, SB) => (Subnegotiation, false),
            (Command, WILL..=DONT) => (Option, false),
            (Command | Option, _) => (Data, false),
            (Subnegotiation, IAC) => (SubnegotiationCommand, false),
            (Subnegotiation, _) => (Subnegotiation, false),
            (SubnegotiationCommand, SE) => (Data, false),
            (SubnegotiationCommand, _) => (Subnegotiation, false),
        };
        self.telnet = state;
        is_data
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines, mut input: &[u8]) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| lines.next(&mut input)).map(Result::unwrap).collect()
    }

    #[test]
    fn line_ends() {
        let table: &[(&[u8], &[&[u8]])] = &[
            (b"version\nhelp\n", &[b"version", b"help"]),
            (b"version\rhelp\r", &[b"version", b"help"]),
            (b"version\r\nhelp\r\n", &[b"version", b"help"]),
            (b"version\r\0help\r\0", &[b"version", b"help"]),
            (b"\n\r\n  \nversion\n\n \r\nquit\n", &[b"version", b"quit"]),
            (b"a\n\rb\n", &[b"a", b"b"]),
            (b"a\0b\n", &[b"a\0b"]),
            (b"version", &[]),
        ];
        for (input, expected) in table {
            assert_eq!(all(&mut Lines::default(), input), *expected, "{input:?}");
        }
    }

    #[test]
    fn telnet_is_taken_out() {
        let table: &[(&[u8], &[&[u8]])] = &[
            // Linux telnet's greeting: DO SUPPRESS-GO-AHEAD, WILL TERMINAL-TYPE …
            (b"\xff\xfd\x03\xff\xfb\x18version\r\n", &[b"version"]),
            // A subnegotiation with a line end and a doubled IAC in it.
            (b"ver\xff\xfa\x18\x00x\r\ny\xff\xffz\xff\xf0sion\n", &[b"version"]),
            (b"a\xff\xf4b\n", &[b"ab"]),
            (b"a\xff\xffb\n", &[b"a\xffb"]),
        ];
        for (input, expected) in table {
            assert_eq!(all(&mut Lines::default(), input), *expected, "{input:?}");
        }
    }

    #[test]
    fn a_long_line_is_refused_and_not_kept() {
        let mut lines = Lines::default();
        let long = vec![b'a'; MAX_LINE];
        assert!(lines.next(&mut &long[..]).is_none());
        assert_eq!(lines.next(&mut &b"\n"[..]), Some(Ok(long)));
        let megabyte = vec![b'a'; 1 << 20];
        let mut input = &megabyte[..];
        assert_eq!(lines.next(&mut input), Some(Err(ParseError::TooLong)));
        assert_eq!(input.len(), megabyte.len() - MAX_LINE - 1);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(input in prop::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b'a'), Just(0), Just(IAC), Just(SB), Just(SE), Just(WILL)
        ], 0..60), at in 0..60usize) {
            let whole = all(&mut Lines::default(), &input);
            let (first, second) = input.split_at(at.min(input.len()));
            let mut lines = Lines::default();
            let mut pieces = all(&mut lines, first);
            pieces.append(&mut all(&mut lines, second));
            prop_assert_eq!(whole, pieces);
        }
    }
}
