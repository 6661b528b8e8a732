//! What components say, on the server's log: cut, counted, and never a flood.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use super::{
    limits::{Limit, Limits},
    meters::Meters,
};
use crate::sync::lock;

/// Longest text of a component in an error, in bytes.
const MAX_TEXT: usize = 1024;
/// Lines that are kept for a failure to show.
const KEPT: usize = 32;

/// The log of one instance. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct GuestLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Component and file.
    from: String,
    /// Lines a second, and bytes of a line.
    max_lines: u64,
    max_line: usize,
    meters: Arc<Meters>,
    second: Instant,
    lines: u64,
    dropped: u64,
    /// The last lines that were logged, by level.
    kept: VecDeque<(u8, String)>,
    /// The last error line: a panic's message, which a trap does not carry.
    last_error: Option<String>,
}

impl GuestLog {
    pub(super) fn new(from: String, limits: &Limits, meters: Arc<Meters>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            from,
            max_lines: limits.log_lines,
            max_line: usize::try_from(limits.log_line).unwrap_or(MAX_TEXT),
            meters,
            kept: VecDeque::new(),
            second: Instant::now(),
            lines: 0,
            dropped: 0,
            last_error: None,
        })))
    }

    /// Logs a line; levels as in `host.log`.
    pub(super) fn line(&self, level: u8, message: &str) {
        let mut inner = lock(&self.0);
        let cut_off = message.len() > inner.max_line;
        let message = cut(message, inner.max_line);
        if cut_off {
            inner.meters.limit(Limit::LogLine);
        }
        if level == 0 {
            inner.last_error = Some(message.to_owned());
        }
        if inner.second.elapsed() >= Duration::from_secs(1) {
            inner.report_dropped();
            inner.second = Instant::now();
            inner.lines = 0;
        }
        if inner.lines >= inner.max_lines {
            inner.dropped += 1;
            inner.meters.limit(Limit::LogLines);
            return;
        }
        inner.lines += 1;
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back((level, one_line(message)));
        let from = &inner.from;
        match level {
            0 => tracing::error!(component = %from, "{message:?}"),
            1 => tracing::warn!(component = %from, "{message:?}"),
            2 => tracing::info!(component = %from, "{message:?}"),
            _ => tracing::debug!(component = %from, "{message:?}"),
        }
    }

    /// The last lines that were logged, by level, the oldest first.
    pub(super) fn last_lines(&self) -> Vec<(u8, String)> {
        lock(&self.0).kept.iter().cloned().collect()
    }

    /// The last error line, if there was one.
    pub(super) fn last_error(&self) -> Option<String> {
        lock(&self.0).last_error.clone()
    }
}

impl Inner {
    fn report_dropped(&mut self) {
        if self.dropped > 0 {
            let (lines, limit) = (self.dropped, self.max_lines);
            tracing::warn!(component = %self.from, lines, "log lines dropped: over {limit} a second");
            self.dropped = 0;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.report_dropped();
    }
}

/// A text of a component, as one line of an error: cut, with control characters escaped.
pub(super) fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    cut(text, MAX_TEXT).chars().map(escape).collect()
}

/// The first `max` bytes of a text, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[..end]
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

/// Standard output and error of a component.
impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl tokio::io::AsyncWrite for GuestLog {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().filter(|line| !line.is_empty()).for_each(|line| self.line(2, line));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("añb", 2), "a");
        assert_eq!(cut("añb", 3), "añ");
        assert_eq!(cut("añb", 99), "añb");
        assert_eq!(cut("", 0), "");
        assert_eq!(one_line("a\nERROR \x1b[1mb é"), "a\\nERROR \\u{1b}[1mb é");
    }
}
