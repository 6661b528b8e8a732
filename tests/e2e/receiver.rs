//! A receiver of events, and of whatever else is posted.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;
use tokio::{net::TcpSocket, runtime::Runtime};

use crate::process::until;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// The body as JSON; null if it is none.
    pub(crate) json: Value,
    /// What was answered; 0: nothing yet.
    pub(crate) answer: u16,
}

impl Got {
    /// The type of an event.
    pub(crate) fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u64 {
        self.json["id"].as_u64().unwrap_or_default()
    }
}

/// Answers a request with a status; with none it never does.
type Answer = Box<dyn FnMut(&Got, &[Got]) -> Option<u16> + Send>;

/// An HTTP server. Its port is its own from the beginning; who connects before it listens is refused.
pub(crate) struct Receiver {
    runtime: Runtime,
    socket: Option<TcpSocket>,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    got: Mutex<Vec<Got>>,
    answer: Mutex<Answer>,
}

impl Receiver {
    /// One that can't be reached yet.
    pub(crate) fn deaf() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Shared { got: Mutex::default(), answer: Mutex::new(Box::new(|_, _| Some(200))) };
        Self { runtime, socket: Some(socket), address, shared: Arc::new(shared) }
    }

    /// One that takes everything.
    pub(crate) fn start() -> Self {
        let mut receiver = Self::deaf();
        receiver.listen();
        receiver
    }

    /// One that answers as it is told, knowing what came before.
    pub(crate) fn answering(answer: impl FnMut(&Got, &[Got]) -> Option<u16> + Send + 'static) -> Self {
        let receiver = Self::start();
        receiver.answer(answer);
        receiver
    }

    /// Answers like this from now on.
    pub(crate) fn answer(&self, answer: impl FnMut(&Got, &[Got]) -> Option<u16> + Send + 'static) {
        *self.shared.answer.lock().unwrap() = Box::new(answer);
    }

    pub(crate) fn listen(&mut self) {
        let app = Router::new().fallback(receive).with_state(self.shared.clone());
        let socket = self.socket.take().unwrap();
        let listener = {
            let _runtime = self.runtime.enter();
            socket.listen(1024).unwrap()
        };
        self.runtime.spawn(async move { axum::serve(listener, app).await });
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// All that came.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    /// What it took, each event once, as it first came.
    pub(crate) fn taken(&self) -> Vec<Got> {
        let mut taken: Vec<Got> = Vec::new();
        for got in self.got() {
            if got.answer == 200 && taken.iter().all(|other| other.id() != got.id()) {
                taken.push(got);
            }
        }
        taken
    }

    /// Waits until an event of that type was taken.
    pub(crate) fn wait_for(&self, kind: &str) -> Got {
        until(&format!("the event {kind}"), || self.taken().into_iter().find(|got| got.kind() == kind))
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let json = serde_json::from_str(&body).unwrap_or(Value::Null);
    let mut got = Got { headers, body, json, answer: 0 };
    let answer = {
        // In the order in which they are kept.
        let mut all = shared.got.lock().unwrap();
        let answer = (shared.answer.lock().unwrap())(&got, &all);
        got.answer = answer.unwrap_or(0);
        all.push(got);
        answer
    };
    match answer {
        Some(status) => StatusCode::from_u16(status).unwrap(),
        None => std::future::pending().await,
    }
}
