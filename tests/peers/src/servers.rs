//! Servers under test, each in a folder of its own and on free ports.

use std::{
    fmt, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{
    plan::Cell,
    usage::{self, Usage},
};

/// Longest time for a server to be ready.
const START: Duration = Duration::from_secs(30);

/// How Reelwright is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As it is by default.
    Usual,
    /// Without syncs.
    NoSync,
    /// With the formats linked into it instead of as components.
    Native,
}

/// A server that can record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a format.
    Reelwright(&'static str, How),
    Nginx,
    /// FFmpeg as a listener: one stream.
    Ffmpeg,
    /// Our own, which only receives and writes.
    Floor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Reelwright(format, How::Usual) => write!(f, "reelwright-{format}"),
            Kind::Reelwright(format, How::NoSync) => write!(f, "reelwright-{format}-nosync"),
            Kind::Reelwright(format, How::Native) => write!(f, "reelwright-{format}-native"),
            Kind::Nginx => f.write_str("nginx"),
            Kind::Ffmpeg => f.write_str("ffmpeg"),
            Kind::Floor => f.write_str("floor"),
        }
    }
}

impl Kind {
    /// Whether it writes FLV as it comes.
    pub(super) fn is_flv(self) -> bool {
        matches!(self, Kind::Nginx | Kind::Reelwright("flv", _))
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::Reelwright(format, _) => format,
            _ => "flv",
        }
    }
}

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    kind: Kind,
    child: Child,
    /// The process that does the work.
    pid: u32,
    media: PathBuf,
    url: String,
    streams: usize,
    /// What it had used when it ended by itself.
    ended: Option<Usage>,
}

impl Server {
    pub(super) fn start(kind: Kind, cell: &Cell, home: &Path) -> anyhow::Result<Self> {
        let media = home.join("media");
        fs::create_dir_all(&media)?;
        let name = if cell.streams == 1 { "s" } else { "s_1" };
        let (child, address) = match kind {
            Kind::Reelwright(format, how) => reelwright(format, how, home)?,
            Kind::Nginx => nginx(home)?,
            Kind::Ffmpeg => ffmpeg(&media.join(format!("{name}.flv")))?,
            Kind::Floor => floor(&media)?,
        };
        let pid = match kind {
            Kind::Nginx => worker(child.id())?,
            _ => child.id(),
        };
        let url = format!("rtmp://{address}/live/s");
        Ok(Self { kind, child, pid, media, url, streams: cell.streams, ended: None })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Of the process that does the work.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        match self.ended {
            Some(usage) => Ok(usage),
            None => Usage::of(self.pid),
        }
    }

    /// Where the first streams go, at most so many.
    pub(super) fn files(&self, most: usize) -> Vec<PathBuf> {
        let name = |i| if self.streams == 1 { "s".to_owned() } else { format!("s_{i}") };
        let extension = self.kind.extension();
        (1..=self.streams.min(most)).map(|i| self.media.join(format!("{}.{extension}", name(i)))).collect()
    }

    /// Waits until all files are closed.
    pub(super) fn finish(&mut self, limit: Duration) -> anyhow::Result<()> {
        if self.kind == Kind::Ffmpeg {
            let peak = Usage::of(self.pid).unwrap_or_default();
            let ended = usage::reap(self.pid)?;
            self.ended = Some(Usage { cpu: ended.cpu, ..peak });
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let names = fs::read_dir(&self.media)?
                .map(|entry| Ok(entry?.file_name()))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let open = names.iter().filter(|name| name.to_string_lossy().contains(".info")).count();
            if open == 0 && names.len() >= self.streams {
                // What comes behind the last close.
                std::thread::sleep(Duration::from_millis(200));
                return Ok(());
            }
            ensure!(begun.elapsed() < limit, "{open} of {} files are still open", names.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All files.
    pub(super) fn media(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&self.media)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        files.sort();
        Ok(files)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.kind == Kind::Nginx {
            // Its master is gone; the worker notices when it is asked.
            // SAFETY: a signal to a process that we started.
            unsafe { libc::kill(self.pid.cast_signed(), libc::SIGKILL) };
        }
    }
}

fn reelwright(format: &str, how: How, home: &Path) -> anyhow::Result<(Child, String)> {
    let program = super::reelwright()?;
    let (media, data) = (home.join("media"), home.join("data"));
    // What was compiled for the first of them is there for all others.
    let (compiled, kept) = (data.join("components"), super::folder()?.join("components"));
    if kept.exists() {
        copy(&kept, &compiled)?;
    }
    let mut serve = Command::new(&program);
    serve.arg("serve").arg("--media-root").arg(&media).arg("--data-dir").arg(&data);
    for port in ["--rtmp", "--ascii-cli", "--json-cli", "--http-cli"] {
        serve.args([port, "127.0.0.1:0"]);
    }
    match how {
        How::Usual => {}
        How::NoSync => drop(serve.args(["--sync-interval", "0s"])),
        How::Native => drop(serve.env("REELWRIGHT_NATIVE_FORMATS", "1")),
    }
    let log = fs::File::create(home.join("log"))?;
    let mut child = serve.stdout(Stdio::piped()).stderr(log).spawn()?;
    let output = child.stdout.take().context("its output")?;
    ensure!(BufReader::new(output).lines().next().is_some(), "reelwright did not start");
    let addresses: serde_json::Value = serde_json::from_slice(&fs::read(data.join("addresses.json"))?)?;
    if !kept.exists() {
        copy(&compiled, &kept)?;
    }
    let address = |name: &str| addresses[name].as_str().unwrap_or_default().to_owned();
    let mut rule = Command::new(&program);
    rule.args(["call", "--server", &format!("http://{}", address("http-cli")), "recordRule", "streams=*"]);
    rule.args(["pathToFile={stream}", &format!("type={format}")]).stdout(Stdio::null());
    ensure!(rule.status()?.success(), "reelwright took no rule");
    Ok((child, address("rtmp")))
}

/// Copies the files of a folder into a new one, which is ours alone.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn nginx(home: &Path) -> anyhow::Result<(Child, String)> {
    let address = free_address()?;
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(home, everybody.clone())?;
    fs::set_permissions(home.join("media"), everybody)?;
    let folder = home.display();
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so; daemon off; worker_processes 1;
         worker_rlimit_nofile 20000; error_log {folder}/log warn; pid {folder}/pid;
         events {{ worker_connections 10000; }}
         rtmp {{ access_log off; server {{ listen {address}; application live {{
             live on; record all; record_path {folder}/media; }} }} }}"
    );
    let path = home.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new("/usr/sbin/nginx");
    let child = command.arg("-c").arg(&path).arg("-p").arg(home).stderr(Stdio::null()).spawn();
    let child = child.context("nginx (make bench-peers installs it)")?;
    connectable(&address)?;
    Ok((child, address))
}

/// nginx's only worker.
fn worker(master: u32) -> anyhow::Result<u32> {
    let begun = Instant::now();
    while begun.elapsed() < START {
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        if let Some(pid) = children.split_whitespace().next() {
            return Ok(pid.parse()?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nginx has no worker")
}

fn ffmpeg(file: &Path) -> anyhow::Result<(Child, String)> {
    let address = free_address()?;
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-listen", "1", "-i", &format!("rtmp://{address}/live/s")]);
    let child = command.args(["-c", "copy", "-f", "flv"]).arg(file).spawn()?;
    // It takes one connection, which is not to be ours.
    std::thread::sleep(Duration::from_millis(500));
    Ok((child, address))
}

fn floor(media: &Path) -> anyhow::Result<(Child, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("--floor").arg(media).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut address)?;
    Ok((child, address.trim().to_owned()))
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn connectable(address: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        ensure!(begun.elapsed() < START, "nobody listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
