//! The ASCII and the JSON CLI: lines in; text, or JSON behind its length, out.

use std::{io, net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{accept, lines::Lines};
use crate::control::{
    Caller, Context, answer,
    parse::{Line, ParseError},
    reply::Reply,
};

/// How long a connection that we end may still send, so that it gets our last reply and not a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What replies look like.
#[derive(Clone, Copy, Debug)]
enum Form {
    Ascii,
    Json,
}

impl Form {
    fn render(self, reply: &Reply) -> Vec<u8> {
        match self {
            Form::Ascii => reply.ascii().into_bytes(),
            Form::Json => {
                let json = reply.json() + "\r\n\r\n";
                let length = u32::try_from(json.len()).expect("a reply below 4 GiB");
                [&length.to_be_bytes(), json.as_bytes()].concat()
            }
        }
    }
}

/// Serves until `stop`, then lets each client have the reply it waits for.
pub async fn serve_ascii(listener: TcpListener, context: Arc<Context>, stop: CancellationToken) {
    serve(listener, context, stop, Form::Ascii).await;
}

/// The same commands; each reply is its length (4 bytes, big-endian), JSON, and two line ends, which count.
pub async fn serve_json(listener: TcpListener, context: Arc<Context>, stop: CancellationToken) {
    serve(listener, context, stop, Form::Json).await;
}

async fn serve(listener: TcpListener, context: Arc<Context>, stop: CancellationToken, form: Form) {
    let clients = TaskTracker::new();
    let seats = Arc::new(Semaphore::new(context.limits.clients));
    while let Some((socket, far)) = stop.run_until_cancelled(accept(&listener)).await {
        match seats.clone().try_acquire_owned() {
            Ok(seat) => {
                let client = Client::new(socket, far, context.clone(), form);
                let stop = stop.clone();
                clients.spawn(async move {
                    if let Err(error) = client.serve(&stop).await {
                        tracing::debug!(%far, %error, "a command line client is gone");
                    }
                    drop(seat);
                });
            }
            Err(_) => refuse(socket, far, context.limits.clients, form).await,
        }
    }
    drop(listener);
    clients.close();
    clients.wait().await;
}

/// Tells a client that there is no room. What a new socket takes at once must do.
async fn refuse(mut socket: TcpStream, far: SocketAddr, clients: usize, form: Form) {
    tracing::warn!(%far, clients, "too many clients of the command line");
    let reply = Reply::fail(format!("Too many connections: {clients} clients are served already"));
    let _ = timeout(Duration::from_millis(100), socket.write_all(&form.render(&reply))).await;
}

struct Client {
    socket: TcpStream,
    far: SocketAddr,
    context: Arc<Context>,
    form: Form,
    lines: Lines,
    buffer: Vec<u8>,
    /// What of the buffer was not made into lines yet.
    unread: Range<usize>,
}

/// Whether a line is one of an HTTP request: a web page can make a browser send it here, with commands behind.
fn is_http(command: &str) -> bool {
    let methods = ["get", "head", "post", "put", "delete", "connect", "options", "trace", "patch"];
    methods.contains(&command) || command.ends_with(':')
}

/// What comes from a client.
enum Received {
    Line(Result<Line, ParseError>),
    /// It closed, in the middle of a command or not.
    End {
        unfinished: bool,
    },
}

impl Client {
    fn new(socket: TcpStream, far: SocketAddr, context: Arc<Context>, form: Form) -> Self {
        Self { socket, far, context, form, lines: Lines::default(), buffer: vec![0; 4096], unread: 0..0 }
    }

    async fn serve(mut self, stop: &CancellationToken) -> io::Result<()> {
        loop {
            let receive = timeout(self.context.limits.idle, self.receive());
            let received = match stop.run_until_cancelled(receive).await {
                None => return Ok(()),
                Some(Err(_)) => return self.idle().await,
                Some(Ok(received)) => received?,
            };
            let (reply, end) = match received {
                Received::End { unfinished: false } => return Ok(()),
                Received::End { unfinished: true } => {
                    (Reply::fail("Syntax error. The last command has no line end"), true)
                }
                Received::Line(Err(ParseError::TooLong)) => {
                    (self.answer(Err(ParseError::TooLong)).await, true)
                }
                Received::Line(Ok(line)) if is_http(&line.command) => {
                    tracing::warn!(far = %self.far, line.command, "HTTP on a command line: refused");
                    (Reply::fail("This is no HTTP port. No command was run"), true)
                }
                Received::Line(line) => {
                    let reply = self.answer(line).await;
                    let end = reply.close;
                    (reply, end)
                }
            };
            self.write(&reply).await?;
            if end {
                return self.close().await;
            }
        }
    }

    /// The next command. Cancel safe.
    async fn receive(&mut self) -> io::Result<Received> {
        loop {
            let mut input = &self.buffer[self.unread.clone()];
            let line = self.lines.next(&mut input);
            self.unread.start = self.unread.end - input.len();
            if let Some(line) = line {
                return Ok(Received::Line(line.and_then(|line| Line::parse(&line))));
            }
            self.unread = 0..self.socket.read(&mut self.buffer).await?;
            if self.unread.is_empty() {
                return Ok(Received::End { unfinished: !self.lines.is_blank() });
            }
        }
    }

    async fn answer(&self, line: Result<Line, ParseError>) -> Reply {
        answer(&self.context, &Caller::local(self.far), line).await
    }

    async fn write(&mut self, reply: &Reply) -> io::Result<()> {
        let text = self.form.render(reply);
        timeout(self.context.limits.write, self.socket.write_all(&text)).await?
    }

    async fn idle(mut self) -> io::Result<()> {
        let idle = self.context.limits.idle;
        self.write(&Reply::fail(format!("No command came in {} s", idle.as_secs_f64()))).await?;
        self.close().await
    }

    /// Ends our side, and reads on for a moment: unread bytes would turn the end into a reset, which can
    /// overtake the last reply.
    async fn close(mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let mut scrap = [0; 4096];
        let drain = async { while self.socket.read(&mut scrap).await.is_ok_and(|n| n > 0) {} };
        let _ = timeout(LINGER, drain).await;
        Ok(())
    }
}
