//! The least that a recorder can do: takes the publish, and writes all that comes after it in pieces of 256 KiB. It
//! looks at nothing, so what it leaves is no FLV.

use std::{fs::File, io::Write, path::Path};

use bytes::{Buf, BytesMut};
use reelwright::rtmp::{Event, Limits, Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PIECE: usize = 256 << 10;

/// Says its address, and serves until it is killed.
pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            let folder = folder.to_owned();
            tokio::spawn(async move {
                if let Err(error) = store(stream, &folder).await {
                    eprintln!("floor: {error:#}");
                }
            });
        }
    })
}

async fn store(mut stream: TcpStream, folder: &Path) -> anyhow::Result<()> {
    let mut session = Session::new(Limits::default());
    let mut input = BytesMut::with_capacity(PIECE);
    let mut file = None;
    while file.is_none() {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        session.handle_input(&mut input)?;
        while let Some(event) = session.poll_event() {
            if let Event::Publish(request) = event {
                session.accept_publish();
                file = Some(File::create(folder.join(format!("{}.flv", request.name)))?);
            }
        }
        while session.output().has_remaining() {
            stream.write_all_buf(session.output()).await?;
        }
    }
    let Some(mut file) = file else { return Ok(()) };
    loop {
        let is_end = stream.read_buf(&mut input).await? == 0;
        if is_end || input.len() == PIECE {
            file.write_all(&input)?;
            input.clear();
        }
        if is_end {
            return Ok(());
        }
    }
}
