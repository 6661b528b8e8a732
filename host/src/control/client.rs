//! The other end of the ASCII CLI: what `reelwright cli 'COMMAND'` does.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, ToSocketAddrs},
    time::timeout,
};

/// How long the server may take to accept the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest reply that is read.
const MAX_REPLY: u64 = 64 << 20;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("a command is one line, and not a blank one")]
    NotALine,
    #[error("can't connect to the server's ASCII CLI")]
    Connect(#[source] io::Error),
    #[error("the connection to the server's ASCII CLI broke")]
    Io(#[from] io::Error),
    #[error("what answers is no ASCII CLI: {0:?}")]
    NotAReply(String),
}

/// Sends one command; returns whether it succeeded, and the reply's text. Waits as long as the command takes.
pub async fn ascii(addr: impl ToSocketAddrs, command: &str) -> Result<(bool, String), ClientError> {
    if command.trim().is_empty() || command.contains(['\r', '\n']) {
        return Err(ClientError::NotALine);
    }
    let connect = timeout(CONNECT, TcpStream::connect(addr)).await;
    let mut socket = connect.map_err(io::Error::from).flatten().map_err(ClientError::Connect)?;
    socket.write_all(format!("{command}\r\n").as_bytes()).await?;
    // The server ends the connection once it has answered all it got.
    socket.shutdown().await?;
    let mut reply = Vec::new();
    socket.take(MAX_REPLY).read_to_end(&mut reply).await?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let start = reply.chars().take(80).collect();
    match reply.lines().next() {
        Some("Command entered successfully!") => Ok((true, reply)),
        Some("Command failed!") => Ok((false, reply)),
        _ => Err(ClientError::NotAReply(start)),
    }
}
