//! One publishing connection: owns the socket and the clock.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Progress, clip::Clip, url::Url};
use crate::rtmp::{Client, client::Target, tag};

/// Until the server has taken the stream.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take no bytes at all.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// From the last byte until the server has closed the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are collected when nothing has to wait for its time.
const BATCH_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 4 << 10;

/// How fast and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// 0: without waiting.
    pub(super) speed: f64,
    pub(super) duration: Option<Duration>,
    /// Bytes of RTMP chunks.
    pub(super) chunk_size: u32,
}

/// Publishes a clip, from connecting to the server's closing.
pub(super) async fn publish(
    url: Url,
    clip: &Clip,
    pace: Pace,
    progress: Arc<Progress>,
) -> anyhow::Result<()> {
    let mut connection = open(&url, pace, progress).await?;
    connection.send_clip(clip, pace).await?;
    connection.close().await
}

/// Connects and waits until the server takes the stream.
pub(super) async fn open(url: &Url, pace: Pace, progress: Arc<Progress>) -> anyhow::Result<Connection> {
    timeout(START_TIMEOUT, Connection::open(url, pace.chunk_size, progress))
        .await
        .map_err(|_| anyhow!("the server has not taken the stream within {START_TIMEOUT:?}"))?
}

pub(super) struct Connection {
    stream: TcpStream,
    client: Client,
    input: BytesMut,
    progress: Arc<Progress>,
    /// When the oldest tag in the output was due.
    due: Option<Instant>,
}

impl Connection {
    async fn open(url: &Url, chunk_size: u32, progress: Arc<Progress>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&url.address)
            .await
            .with_context(|| format!("connecting to {}", url.address))?;
        stream.set_nodelay(true)?;
        let target = Target { tc_url: url.tc_url(), app: url.app.clone(), name: url.publishing_name() };
        let client = Client::new(target, chunk_size);
        let input = BytesMut::with_capacity(READ_BYTES);
        let mut connection = Self { stream, client, input, progress, due: None };
        while !connection.client.is_publishing() {
            connection.flush().await?;
            if !connection.client.is_publishing() && !connection.receive().await? {
                bail!("the server closed the connection before it took the stream");
            }
        }
        Ok(connection)
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Reads what has come, if anything.
    pub(super) fn listen(&mut self) -> anyhow::Result<()> {
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(_) => Ok(self.client.handle_input(&mut self.input)?),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("reading"),
        }
    }

    async fn send_clip(&mut self, clip: &Clip, pace: Pace) -> anyhow::Result<()> {
        if let Some(metadata) = clip.metadata() {
            self.client.send(tag::kind::SCRIPT_DATA, 0, metadata);
        }
        let start = Instant::now();
        for tag in clip.schedule(pace.duration) {
            if self.client.output().remaining() >= BATCH_BYTES {
                self.flush().await?;
            }
            if pace.speed > 0.0 {
                let due = start + tag.at.div_f64(pace.speed);
                if due > Instant::now() {
                    self.flush().await?;
                    self.receive_until(due).await?;
                }
                self.due.get_or_insert(due);
            }
            self.client.send(tag.tag_type, tag.timestamp_ms, tag.body);
            self.progress.tags.fetch_add(1, Ordering::Relaxed);
        }
        self.flush().await
    }

    /// Ends the stream and waits until the server has closed the connection. As it does so when it has read
    /// everything, what was sent was taken: had it left anything, the connection would be reset.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        timeout(CLOSE_TIMEOUT, self.end())
            .await
            .map_err(|_| anyhow!("the server has not closed the connection within {CLOSE_TIMEOUT:?}"))?
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.client.close();
        self.flush().await?;
        self.stream.shutdown().await.context("closing")?;
        while self.receive().await? {}
        Ok(())
    }

    /// Writes out everything, and reads what comes meanwhile.
    async fn flush(&mut self) -> anyhow::Result<()> {
        while self.client.output().has_remaining() {
            let (mut reader, mut writer) = self.stream.split();
            let written = tokio::select! {
                read = reader.read_buf(&mut self.input) => {
                    if read.context("reading")? == 0 {
                        bail!("the server closed the connection");
                    }
                    self.client.handle_input(&mut self.input)?;
                    continue;
                }
                written = writer.write_buf(self.client.output()) => written,
                () = sleep(STALL_TIMEOUT) => bail!("the server took nothing for {STALL_TIMEOUT:?}"),
            };
            match written {
                Ok(bytes) => drop(self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed)),
                Err(error) => {
                    // The server may have said why.
                    while self.receive().await? {}
                    return Err(error).context("writing");
                }
            }
        }
        if let Some(due) = self.due.take() {
            self.progress.late(due.elapsed());
        }
        Ok(())
    }

    /// Reads what comes until that time.
    async fn receive_until(&mut self, due: Instant) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                more = self.receive() => if !more? {
                    bail!("the server closed the connection");
                },
                () = sleep_until(due) => return Ok(()),
            }
        }
    }

    /// Reads once; `false` at the end. Cancel safe.
    async fn receive(&mut self) -> anyhow::Result<bool> {
        let read = self.stream.read_buf(&mut self.input).await.context("reading")?;
        self.client.handle_input(&mut self.input)?;
        Ok(read > 0)
    }
}
