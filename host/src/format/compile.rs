//! Compiling in a process of its own, so that what is hostile or just large costs no recording anything.
//!
//! The server starts itself with the sub-command [`COMMAND`], which reads a component from its standard input and writes
//! the compiled code to its standard output, behind the compatibility hash of its engine. That process has the
//! lowest priority (but for what is in the binary, when the server starts), a limit of memory and of time, and dies with the server. One is at work at a time; the
//! server alone writes what comes out to its cache.

use std::{
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, mpsc},
    time::Duration,
};

use anyhow::Context;
use rustix::{
    io::Errno,
    process::{
        Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, nice,
        set_parent_process_death_signal, setrlimit, waitid,
    },
};

use super::{Engine, check::MAX_COMPONENT, guest_log::one_line, limits::Limits};
use crate::sync::lock;

/// The hidden sub-command of the server's own program.
pub const COMMAND: &str = "compile-component";
/// Most bytes of compiled code, and of what the compiler says.
const MAX_COMPILED: u64 = 1 << 30;
const MAX_SAID: u64 = 4 << 10;
/// `compile-time` is time of computing, which takes longer on a busy machine; but not for ever.
const PATIENCE: u32 = 10;
/// The lowest priority.
const LOWEST: i32 = 19;

/// Only one component is compiled at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// What wasmtime does not take.
    #[error("it is damaged, or uses what this server does not support: {0}")]
    Component(String),
    #[error("compiling it exceeded the limit `{name}` of {limit}")]
    Limit { name: &'static str, limit: String },
    #[error("the compiler was killed by signal {0}")]
    Killed(i32),
    #[error("the compiler is another program than this server; start the server again")]
    Other,
    #[error("the compiler can't be run: {0}")]
    Run(#[from] io::Error),
}

/// How a component is compiled that no recording waits for, and one that everything waits for at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Idle,
    Start,
}

/// Compiles a component in a process of its own, or in this one if there is no such program. Blocks until others are
/// done, and for as long as it takes.
pub(super) fn compile(
    engine: &Engine,
    program: Option<&Path>,
    limits: &Limits,
    urgency: Urgency,
    wasm: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let Some(program) = program else {
        let compiled = engine.wasmtime().precompile_component(wasm);
        return compiled.map_err(|e| CompileError::Component(one_line(&format!("{e:#}"))));
    };
    let _one = lock(&ONE);
    let niceness = if urgency == Urgency::Idle { LOWEST } else { 0 };
    let mut command = Command::new(program);
    let seconds = limits.compile_time.as_secs().max(1);
    command.args([COMMAND, &limits.compile_memory.to_string(), &seconds.to_string(), &niceness.to_string()]);
    let output = run(command, wasm, limits)?;
    match output.split_first_chunk() {
        Some((hash, compiled)) if u64::from_be_bytes(*hash) == engine.compatibility() => {
            Ok(compiled.to_vec())
        }
        _ => Err(CompileError::Other),
    }
}

/// Runs the compiler within its time.
fn run(mut command: Command, wasm: &[u8], limits: &Limits) -> Result<Vec<u8>, CompileError> {
    // An interrupt from a terminal is for the server, which takes the compiler along when it ends.
    command
        .process_group(0)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (output, said, (status, in_time)) = std::thread::scope(|scope| {
        let output = scope.spawn(move || read(stdout, MAX_COMPILED));
        let said = scope.spawn(move || read(stderr, MAX_SAID));
        // One that ends early says why on its own.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(wasm)));
        let waited = wait(child, limits.compile_time.saturating_mul(PATIENCE));
        (output.join().unwrap_or_default(), said.join().unwrap_or_default(), waited)
    });
    let status = status?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if !in_time || status.signal() == Some(Signal::XCPU.as_raw()) {
        let limit = format!("{:?}", limits.compile_time);
        return Err(CompileError::Limit { name: "compile-time", limit });
    }
    if status.success() {
        return if output.len() as u64 == MAX_COMPILED { Err(too_large()) } else { Ok(output) };
    }
    Err(blame(status, &said, limits))
}

fn too_large() -> CompileError {
    CompileError::Limit { name: "compile-output", limit: format!("{} MiB", MAX_COMPILED >> 20) }
}

/// Why the compiler ended as it did: Rust aborts when memory is refused, and says so. So it may be for a thread's stack,
/// which the system calls a resource.
fn blame(status: ExitStatus, said: &str, limits: &Limits) -> CompileError {
    let refused = [
        "memory allocation of",
        "Cannot allocate memory",
        "out of memory",
        "failed to spawn thread",
        "Resource temporarily unavailable",
    ];
    match status.signal() {
        _ if refused.iter().any(|words| said.contains(words)) => CompileError::Limit {
            name: "compile-memory",
            limit: format!("{} MiB", limits.compile_memory >> 20),
        },
        Some(signal) => CompileError::Killed(signal),
        None => CompileError::Component(one_line(said.strip_prefix("reelwright: ").unwrap_or(said))),
    }
}

fn read(from: Option<impl Read>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(mut from) = from else { return bytes };
    let _ = from.by_ref().take(most).read_to_end(&mut bytes);
    // Nobody is left waiting for what we don't want.
    let _ = io::copy(&mut from, &mut io::sink());
    bytes
}

/// Waits for a process, and kills it when its time is over. Says whether it ended in time.
fn wait(mut child: Child, limit: Duration) -> (io::Result<ExitStatus>, bool) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return (child.wait(), true);
    };
    let (done, is_done) = mpsc::channel::<()>();
    let late = std::thread::scope(|scope| {
        let killer = scope.spawn(move || {
            let late = is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        // Its number is not given to another process before `Child::wait`, below.
        while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        }
        drop(done);
        killer.join().unwrap_or(false)
    });
    (child.wait(), !late)
}

/// What [`COMMAND`] does: reads a component from standard input and writes the compiled one to standard output.
/// `memory` is its limit in bytes, `seconds` that of computing; `niceness` goes from 0 to 19, the lowest priority.
pub fn child(memory: u64, seconds: u64, niceness: i32) -> anyhow::Result<()> {
    // Whoever started us is the only one who wants to have it.
    set_parent_process_death_signal(Some(Signal::KILL)).context("to end with the server")?;
    nice(niceness.clamp(0, LOWEST)).context("a lower priority")?;
    // The first to go when the machine runs out of memory. Not everywhere may that be said.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let none_over = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, none_over(memory)).context("compile-memory")?;
    let time = Rlimit { current: Some(seconds), maximum: Some(seconds.saturating_add(1)) };
    setrlimit(Resource::Cpu, time).context("compile-time")?;
    setrlimit(Resource::Core, none_over(0)).context("no core files")?;
    let mut wasm = Vec::new();
    io::stdin().lock().take(MAX_COMPONENT + 1).read_to_end(&mut wasm).context("standard input")?;
    let engine = Engine::compiler().map_err(|e| anyhow::anyhow!("{e:#}"))?;
    let compiled = engine.precompile_component(&wasm).map_err(|e| anyhow::anyhow!("{e:#}"))?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&super::engine::compatibility(&engine).to_be_bytes())?;
    stdout.write_all(&compiled)?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limits: &Limits) -> Result<Vec<u8>, CompileError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, &[7; 1 << 20], limits)
    }

    #[test]
    fn a_compiler_that_fails_is_told_apart() {
        let limits = Limits { compile_memory: 5 << 20, ..Limits::default() };
        let said = |script: &str| shell(script, &limits).unwrap_err().to_string();
        assert_eq!(shell("/usr/bin/wc -c", &limits).unwrap().trim_ascii(), b"1048576");
        assert_eq!(said("kill -6 $$"), "the compiler was killed by signal 6");
        assert_eq!(said("kill -XCPU $$"), "compiling it exceeded the limit `compile-time` of 120s");
        let memory = "compiling it exceeded the limit `compile-memory` of 5 MiB";
        assert_eq!(said("echo 'memory allocation of 99 bytes failed' >&2; kill -6 $$"), memory);
        let damaged = "it is damaged, or uses what this server does not support: unknown opcode";
        assert_eq!(said("echo 'reelwright: unknown opcode' >&2; exit 4"), damaged);
    }

    #[test]
    fn a_compiler_that_does_not_end_is_killed() {
        let limits = Limits { compile_time: Duration::from_millis(50), ..Limits::default() };
        let error = shell("exec /bin/sleep 1000", &limits).unwrap_err().to_string();
        assert_eq!(error, "compiling it exceeded the limit `compile-time` of 50ms");
    }

    #[test]
    fn a_compiler_of_another_version_is_not_believed() {
        // It prints its arguments.
        let engine = Engine::new().unwrap();
        let error = compile(&engine, Some(Path::new("/bin/echo")), &Limits::default(), Urgency::Idle, b"")
            .unwrap_err();
        assert!(matches!(error, CompileError::Other), "{error}");
    }
}
