//! The ASCII and the JSON CLI: lines in; text, or JSON behind its length, out.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    accept,
    lines::Lines,
    seats::{Busy, Seat, Seats},
    socket::Socket,
};
use crate::control::{
    Caller, Context, answer,
    auth::{Denied, tokens::Digest},
    commands::AUTH,
    parse::{Line, ParseError, Value},
    reply::{Fault, Reply},
    table::COMMAND_ID,
};

/// How long a connection that we end may still send, so that it gets our last reply and not a reset.
const LINGER: Duration = Duration::from_secs(1);
/// How long a connection that needs a token may go without one.
const LOGIN: Duration = Duration::from_secs(60);

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
    let seats = Seats::new(context.limits.clients);
    while let Some((socket, far)) = stop.run_until_cancelled(accept(&listener)).await {
        match seats.take(far.ip()) {
            Ok(seat) => {
                let client = Client::new(socket, far, context.clone(), form, seat);
                let stop = stop.clone();
                clients.spawn(async move {
                    let leave = client.seat.leave().clone();
                    match leave.run_until_cancelled(client.serve(&stop)).await {
                        Some(Ok(())) => {}
                        Some(Err(error)) => tracing::debug!(%far, %error, "a command line client is gone"),
                        None => tracing::debug!(%far, "an idle command line client made room for another"),
                    }
                });
            }
            Err(_) if context.access.tls().is_none() => {
                refuse(socket, far, context.limits.clients, form).await;
            }
            Err(_) => tracing::warn!(%far, "too many clients of the command line"),
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
    socket: Socket,
    far: SocketAddr,
    context: Arc<Context>,
    form: Form,
    seat: Seat,
    /// Keeps the seat for who has sent a command that it may send.
    settled: Option<Busy>,
    /// What the client has logged in with.
    login: Option<Digest>,
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
    fn new(socket: TcpStream, far: SocketAddr, context: Arc<Context>, form: Form, seat: Seat) -> Self {
        let socket = Socket::new(socket, far, &context.access);
        let (lines, buffer, unread) = (Lines::default(), vec![0; 4096], 0..0);
        Self { socket, far, context, form, seat, settled: None, login: None, lines, buffer, unread }
    }

    async fn serve(mut self, stop: &CancellationToken) -> io::Result<()> {
        let limits = self.context.limits;
        let plain = self.context.access.may_be_plain(self.far);
        let established =
            timeout(if plain { limits.idle } else { limits.request }, self.socket.established());
        match stop.run_until_cancelled(established).await {
            None => return Ok(()),
            Some(done) => done??,
        }
        let since = Instant::now();
        loop {
            let idle = match self.caller() {
                Some(_) => limits.idle,
                None => limits.idle.min(LOGIN.saturating_sub(since.elapsed())),
            };
            let receive = timeout(idle, self.receive());
            let received = match stop.run_until_cancelled(receive).await {
                None => return Ok(()),
                Some(Err(_)) => return self.idle(idle).await,
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

    /// Who the client is; `None` if it has to say so first.
    fn caller(&self) -> Option<Caller> {
        let access = &self.context.access;
        match self.login {
            Some(digest) => access.enter_again(self.far, digest),
            None => access.enter(self.far, true, None).ok(),
        }
    }

    async fn answer(&mut self, line: Result<Line, ParseError>) -> Reply {
        let line = match line {
            Ok(line) if AUTH.is_called(&line.command) => return self.log_in(line),
            line => line,
        };
        match self.caller() {
            Some(caller) => {
                if line.is_ok() && self.settled.is_none() {
                    self.settled = Some(Busy::new(self.seat.work()));
                }
                answer(&self.context, &caller, line).await
            }
            None if matches!(&line, Ok(line) if line.command == "quit") => {
                Reply { close: true, ..Reply::success("Bye!", json!(null)) }
            }
            None => Reply::fault(
                Fault::Unauthenticated,
                "Not authenticated. Send auth token=… before other commands",
            ),
        }
    }

    /// Takes a token. Nothing of what was sent comes back, as it may be one.
    fn log_in(&mut self, mut line: Line) -> Reply {
        let id = line.params.iter().position(|(name, _)| name.eq_ignore_ascii_case(COMMAND_ID.name));
        let response_id = match id.map(|place| line.params.remove(place).1) {
            Some(Value::Text(id)) => Some(id),
            _ => None,
        };
        let reply = match AUTH.bind(line) {
            Err(_) => Reply::fail("Syntax error. auth takes token=…, and nothing else"),
            Ok(args) => {
                let token = args.text("token").unwrap_or_default();
                match self.context.access.enter(self.far, true, Some(token)) {
                    Ok(Caller { name: None, .. }) => {
                        Reply::fault(Fault::Conflict, "The server has no tokens, so none is needed")
                    }
                    Ok(Caller { name, role, .. }) => {
                        self.login = Some(Digest::of(token));
                        self.settled.get_or_insert_with(|| Busy::new(self.seat.work()));
                        Reply::success("Authenticated", json!({ "name": name, "role": role.as_str() }))
                    }
                    Err(denied) => Reply { close: matches!(denied, Denied::Wait(_)), ..denied.reply() },
                }
            }
        };
        tracing::debug!(far = %self.far, command = "auth", status = ?reply.status, "command");
        Reply { response_id, ..reply }
    }

    async fn write(&mut self, reply: &Reply) -> io::Result<()> {
        let text = self.form.render(reply);
        let write = async {
            self.socket.write_all(&text).await?;
            // TLS keeps what the socket has no room for.
            self.socket.flush().await
        };
        timeout(self.context.limits.write, write).await?
    }

    async fn idle(mut self, idle: Duration) -> io::Result<()> {
        self.write(&Reply::fail(format!("No command came in {} s", idle.as_secs_f64()))).await?;
        self.close().await
    }

    /// Ends our side, and reads on for a moment: unread bytes would turn the end into a reset, which can
    /// overtake the last reply.
    async fn close(mut self) -> io::Result<()> {
        let farewell = async {
            self.socket.shutdown().await?;
            let mut scrap = [0; 4096];
            while self.socket.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
            Ok(())
        };
        timeout(LINGER, farewell).await.unwrap_or(Ok(()))
    }
}
