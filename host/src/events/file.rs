//! Events as lines of a file, written by a thread of its own.
//!
//! The file may be renamed or removed at any time (logrotate): the next line goes into a new one of the old name.
//! Lines that can't be written are counted, and the count is logged.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use tokio::sync::oneshot;

/// Lines that may wait to be written.
const MAX_WAITING: usize = 4096;
/// Lines that become one write at most.
const MAX_BATCH: usize = 256;

/// A file that events go to.
#[derive(Debug)]
pub(super) struct FileSink {
    jobs: mpsc::SyncSender<Job>,
    left_out: AtomicU64,
}

enum Job {
    Line(String),
    /// All before it is written.
    Flush(oneshot::Sender<()>),
}

impl FileSink {
    /// Appends to a file, which is made if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut log = Log { path: path.to_owned(), file: open(path)?, torn: false, failed: 0 };
        log.torn = log.ends_amid_a_line();
        let (jobs, waiting) = mpsc::sync_channel(MAX_WAITING);
        std::thread::Builder::new().name("event-log".into()).spawn(move || log.run(&waiting))?;
        Ok(Self { jobs, left_out: AtomicU64::new(0) })
    }

    /// Writes a line some time soon; if too many wait already, counts it instead.
    pub(super) fn write(&self, line: &str) {
        if self.jobs.try_send(Job::Line(line.to_owned())).is_err() {
            if self.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!("events come faster than the event log can be written; some are left out");
            }
        } else if self.left_out.load(Ordering::Relaxed) > 0 {
            let events = self.left_out.swap(0, Ordering::Relaxed);
            tracing::error!(events, "events were left out of the event log");
        }
    }

    /// Returns when all lines of before are written, or can't be.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let mut job = Job::Flush(done);
        while let Err(error) = self.jobs.try_send(job) {
            match error {
                mpsc::TrySendError::Full(back) => job = back,
                mpsc::TrySendError::Disconnected(_) => return,
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let _ = written.await;
    }
}

struct Log {
    path: PathBuf,
    file: File,
    /// The file may not end with the end of a line.
    torn: bool,
    /// Lines that could not be written since the last that could.
    failed: u64,
}

impl Log {
    /// Writes until nobody can send any more.
    fn run(mut self, waiting: &mpsc::Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut lines = String::new();
            let (mut count, mut flushes) = (0, Vec::new());
            for job in std::iter::once(first).chain(waiting.try_iter().take(MAX_BATCH - 1)) {
                match job {
                    Job::Line(line) => {
                        lines.push_str(&line);
                        lines.push('\n');
                        count += 1;
                    }
                    Job::Flush(done) => flushes.push(done),
                }
            }
            if count > 0 {
                self.write(&lines, count);
            }
            for done in flushes {
                // Who asked may be gone.
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, lines: &str, count: u64) {
        let path = self.path.display();
        if self.was_moved() {
            match open(&self.path) {
                Ok(file) => (self.file, self.torn) = (file, false),
                // What is open is better than nothing.
                Err(error) => tracing::error!(file = %path, %error, "the event log can't be opened again"),
            }
        }
        let begin = if self.torn { "\n" } else { "" };
        match self.file.write_all(format!("{begin}{lines}").as_bytes()) {
            Ok(()) => {
                self.torn = false;
                if self.failed > 0 {
                    tracing::error!(file = %path, events = self.failed, "events were left out of the event log");
                    self.failed = 0;
                }
            }
            Err(error) => {
                if self.failed == 0 {
                    tracing::error!(file = %path, %error, "events can't be written to the event log");
                }
                self.failed += count;
                self.torn = true;
            }
        }
    }

    /// Whether the path leads to another file than the open one, or to none.
    fn was_moved(&self) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => id(named) != id(open),
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    fn ends_amid_a_line(&mut self) -> bool {
        let mut last = [b'\n'];
        let read = self.file.seek(SeekFrom::End(-1)).and_then(|_| self.file.read_exact(&mut last));
        read.is_ok() && last != [b'\n']
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).read(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_follow_what_was_there_and_a_renamed_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, "torn by a cra").unwrap();
        let sink = FileSink::open(&path).unwrap();
        sink.write("1");
        sink.flush().await;
        let old = dir.path().join("events.1");
        std::fs::rename(&path, &old).unwrap();
        sink.write("2");
        sink.write("3");
        sink.flush().await;
        std::fs::remove_file(&path).unwrap();
        sink.write("4");
        sink.flush().await;
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "torn by a cra\n1\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[tokio::test]
    async fn a_thousand_lines_are_written_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let sink = FileSink::open(&path).unwrap();
        (0..1000).for_each(|i| sink.write(&i.to_string()));
        sink.flush().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().enumerate().all(|(i, line)| line == i.to_string()));
    }

    #[test]
    fn a_file_that_can_t_be_made_is_an_error() {
        assert!(FileSink::open(Path::new("/nowhere/at/all")).is_err());
    }
}
