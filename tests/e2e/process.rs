//! Child processes that do not outlive their test, and waiting with a deadline.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Longest time for anything in a test to come true on a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(POLL);
    }
}

/// What a process said, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process that runs; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    what: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Process {
    /// Starts it, with nothing to read and everything that it says kept.
    pub(crate) fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}; `make setup` installs what tests need"));
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Self { child, what, stdout, stderr }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, however it ends.
    pub(crate) fn wait(mut self) -> Output {
        let what = self.what.clone();
        let status = until(&what, || self.child.try_wait().unwrap());
        let text = |collected: Option<JoinHandle<String>>| collected.unwrap().join().unwrap();
        Output { status, stdout: text(self.stdout.take()), stderr: text(self.stderr.take()) }
    }

    /// Waits for its end, which has to be a good one. Returns what it wrote to standard output.
    pub(crate) fn succeed(self) -> String {
        let what = self.what.clone();
        let output = self.wait();
        assert!(output.status.success(), "{what}: {}\n{}{}", output.status, output.stdout, output.stderr);
        output.stdout
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its good end.
pub(crate) fn run(command: &mut Command) -> String {
    Process::start(command).succeed()
}

/// Runs a command that has to end well and to have no complaint. Returns its standard output.
pub(crate) fn run_silently(command: &mut Command) -> String {
    let what = format!("{command:?}");
    let output = Process::start(command).wait();
    assert!(output.status.success(), "{what}: {}\n{}", output.status, output.stderr);
    assert!(output.stderr.trim().is_empty(), "{what} complains:\n{}", output.stderr);
    output.stdout
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
