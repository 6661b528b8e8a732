//! What a process has used, as the kernel counts it.

use std::{
    fs,
    io::Read,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde::Serialize;

/// Of a process with all its threads, since it began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    /// Processor time in seconds.
    pub(super) cpu: f64,
    /// The same by user and kernel, in steps of 10 ms.
    pub(super) user: f64,
    pub(super) system: f64,
    pub(super) context_switches: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) rss_kib: u64,
    pub(super) peak_rss_kib: u64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).context(path)
        };
        let stat = file("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
        let (status, io) = (file("status")?, file("io")?);
        let mut context_switches = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            context_switches +=
                field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(Self {
            cpu: processor_time(pid)?,
            user: ticks(11),
            system: ticks(12),
            context_switches,
            reads: field(&io, "syscr:"),
            writes: field(&io, "syscw:"),
            rss_kib: field(&status, "VmRSS:"),
            peak_rss_kib: field(&status, "VmHWM:"),
        })
    }

    /// What came since another look; memory is what it is now.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            user: self.user - before.user,
            system: self.system - before.system,
            context_switches: self.context_switches.saturating_sub(before.context_switches),
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            ..*self
        }
    }
}

/// A number of a file in `/proc`.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// By the process's own clock, which counts nanoseconds: clock_getcpuclockid(3).
fn processor_time(pid: u32) -> anyhow::Result<f64> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let pid = libc::pid_t::try_from(pid)?;
    // SAFETY: both pointers are to what the functions write.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) != 0 || libc::clock_gettime(clock, &raw mut time) != 0
    };
    anyhow::ensure!(!failed, "the processor time of process {pid}");
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// Looks at a process's time again and again.
#[derive(Debug)]
pub(super) struct Meter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(i64, f64)>>,
}

impl Meter {
    pub(super) fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !until.load(Ordering::Relaxed)
                && let Ok(time) = processor_time(pid)
            {
                times.push((now_us(), time));
                std::thread::sleep(Duration::from_millis(100));
            }
            times
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Metered {
        self.stop.store(true, Ordering::Relaxed);
        Metered(self.thread.join().expect("the thread does not panic"))
    }
}

/// Moments, in microseconds since 1970, and the processor time that was used until then, in seconds.
#[derive(Debug)]
pub(super) struct Metered(Vec<(i64, f64)>);

impl Metered {
    /// Processor time a second between two moments; `None` if that is less than a second.
    pub(super) fn rate(&self, from_us: i64, to_us: i64) -> Option<f64> {
        let first = self.0.iter().find(|time| time.0 >= from_us)?;
        let last = self.0.iter().rfind(|time| time.0 <= to_us)?;
        let seconds = (last.0 - first.0) as f64 / 1e6;
        (seconds >= 1.0).then(|| (last.1 - first.1) / seconds)
    }
}

/// By the clock on the wall, in microseconds since 1970.
pub(super) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64)
}

/// What a child has used when it has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) cpu: f64,
}

/// Waits for a child. Returns all that it said.
pub(super) fn wait(mut child: Child) -> anyhow::Result<(String, Ended)> {
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut said)?;
    }
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    let ended = reap(child.id())?;
    Ok((said, ended))
}

/// Waits for a child by its number.
pub(super) fn reap(pid: u32) -> anyhow::Result<Ended> {
    let (mut status, pid) = (0, libc::pid_t::try_from(pid)?);
    // SAFETY: all zeros is an `rusage`, and both pointers are to what `wait4` writes.
    let (reaped, used) = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut used), used)
    };
    anyhow::ensure!(reaped == pid, "waiting for process {pid}: {}", std::io::Error::last_os_error());
    let seconds = |time: libc::timeval| {
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000).as_secs_f64()
    };
    Ok(Ended { success: status == 0, cpu: seconds(used.ru_utime) + seconds(used.ru_stime) })
}
