//! Server-sent events: what happens, as it happens, for who keeps a request open.
//!
//! ```text
//! id: 17
//! event: recordChunkClosed
//! data: {"type":"recordChunkClosed",…}
//! ```

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_util::codec::{BytesCodec, FramedRead};

use super::{Web, api, connection::Peer};
use crate::{
    control::{parse::ParseError, rest},
    events::Published,
};

/// Listeners at the same time; one more is refused.
pub(super) const MAX_LISTENERS: usize = 32;
/// How long nothing may happen before a comment says that we are still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What may wait for a listener that reads slowly, in bytes; behind that, events wait, and the oldest are missed.
const MAX_WAITING: usize = 64 << 10;

/// What a listener wants to hear of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    /// All if it is empty.
    types: Vec<String>,
    config_id: Option<u64>,
}

impl Filter {
    fn parse(query: &str) -> Result<Self, ParseError> {
        let mut filter = Self::default();
        for (name, value) in rest::query(query)? {
            match name.as_str() {
                "types" => {
                    let types = value.split(',').map(str::trim).filter(|kind| !kind.is_empty());
                    filter.types.extend(types.map(str::to_owned));
                }
                "configId" => {
                    let id = value.parse();
                    filter.config_id =
                        Some(id.map_err(|_| ParseError::Encoding("Parameter configId is invalid".into()))?);
                }
                other => {
                    let other: String = other.chars().take(80).collect();
                    let what = format!("Parameter {other} is not known; there are types and configId");
                    return Err(ParseError::Encoding(what));
                }
            }
        }
        Ok(filter)
    }

    fn takes(&self, event: &Published) -> bool {
        (self.types.is_empty() || self.types.iter().any(|kind| kind.eq_ignore_ascii_case(event.kind)))
            && self.config_id.is_none_or(|id| config_id(&event.json) == Some(id))
    }
}

/// The recording that an event is about.
fn config_id(json: &str) -> Option<u64> {
    let event: Value = serde_json::from_str(json).ok()?;
    event.pointer("/payload/configId")?.as_u64()
}

/// Answers with all events from now on, until the client goes or the server stops.
pub(super) fn serve(web: &Web, peer: &Peer, query: Option<&str>) -> Response {
    let filter = match Filter::parse(query.unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return api::problem(400, &error.to_string()),
    };
    let Ok(seat) = web.listeners.clone().try_acquire_owned() else {
        return api::problem(429, &format!("{MAX_LISTENERS} listen to events already"));
    };
    let (events, busy, stop) = (web.context.events.subscribe(), peer.busy(), web.stop.clone());
    let (reader, writer) = duplex(MAX_WAITING);
    tokio::spawn(async move {
        // An error: the listener is gone.
        let _ = stop.run_until_cancelled(tell(events, &filter, writer)).await;
        drop((seat, busy));
    });
    let mut response = Response::new(Body::from_stream(FramedRead::new(reader, BytesCodec::new())));
    api::add_headers(&mut response, "text/event-stream");
    response
}

async fn tell(
    mut events: Receiver<Arc<Published>>,
    filter: &Filter,
    mut writer: DuplexStream,
) -> std::io::Result<()> {
    // Something to read at once: the listener knows that it listens.
    writer.write_all(b"retry: 2000\n\n").await?;
    loop {
        let text = match timeout(KEEP_ALIVE, events.recv()).await {
            Ok(Ok(event)) if filter.takes(&event) => {
                format!("id: {}\nevent: {}\ndata: {}\n\n", event.id, event.kind, event.json)
            }
            Ok(Ok(_)) => continue,
            Ok(Err(RecvError::Lagged(count))) => {
                format!("event: lagged\ndata: {{\"missed\":{count}}}\n\n")
            }
            Ok(Err(RecvError::Closed)) => return Ok(()),
            Err(_) => ":\n\n".to_owned(),
        };
        writer.write_all(text.as_bytes()).await?;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::events::{Event, Events};

    #[test]
    fn filters() {
        let filter = Filter::parse("types=a,b&types=c,&configId=7").unwrap();
        assert_eq!(filter, Filter { types: ["a", "b", "c"].map(str::to_owned).into(), config_id: Some(7) });
        let event =
            |kind, payload: Value| Published { id: 1, kind, json: json!({"payload": payload}).to_string() };
        assert!(filter.takes(&event("B", json!({"configId": 7}))));
        assert!(!filter.takes(&event("d", json!({"configId": 7}))));
        assert!(!filter.takes(&event("a", json!({"configId": 8}))));
        assert!(!filter.takes(&event("a", json!({}))));
        assert!(Filter::default().takes(&event("a", json!({}))));
        for (query, error) in [
            ("configId=x", "Parameter configId is invalid"),
            ("type=x", "Parameter type is not known; there are types and configId"),
        ] {
            assert_eq!(Filter::parse(query).unwrap_err().to_string(), error);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_told_what_it_missed() {
        let events = Events::default();
        let (mut reader, writer) = duplex(64);
        let receiver = events.subscribe();
        let told = tokio::spawn(async move { tell(receiver, &Filter::default(), writer).await });
        tokio::task::yield_now().await;
        for i in 0..2000 {
            events.send(Event::new("x", json!({ "i": i })));
        }
        drop(events);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        told.await.unwrap().unwrap();
        let missed: Value = text
            .lines()
            .find_map(|l| l.strip_prefix("data: {\"missed\""))
            .map_or(Value::Null, |n| serde_json::from_str(&format!("{{\"missed\"{n}")).unwrap());
        let told = text.matches("event: x\n").count() as u64;
        assert_eq!(missed["missed"].as_u64().unwrap() + told, 2000);
        assert!(text.starts_with("retry: 2000\n\n") && text.contains("\"i\":1999"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_comments() {
        let events = Events::default();
        let (mut reader, writer) = duplex(64);
        let receiver = events.subscribe();
        tokio::spawn(async move { tell(receiver, &Filter::default(), writer).await });
        let mut start = [0; 16];
        reader.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"retry: 2000\n\n:\n\n");
    }
}
