//! `reelwright watch`: streams, recordings, disks and what happens, each second anew; as plain lines when nobody looks
//! at a terminal.

use std::{
    collections::{HashMap, VecDeque},
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    api::{Api, Failure},
    show,
};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Events that a terminal shows.
const SHOWN: usize = 8;
/// Events that may wait to be shown; further ones are left out.
const WAITING: usize = 256;

/// Bytes that streams had, and when.
#[derive(Default)]
struct Rates(HashMap<u64, (u64, Instant)>);

impl Rates {
    /// Rates in kbit/s since the last look; a stream that is new has its rate over its life.
    fn look(&mut self, streams: &Value, now: Instant) -> HashMap<u64, u64> {
        let mut rates = HashMap::new();
        let mut seen = HashMap::new();
        for stream in streams.as_array().into_iter().flatten() {
            let (id, bytes) = (stream["uniqueId"].as_u64().unwrap_or_default(), show::bytes(stream));
            let rate = match self.0.get(&id).map(|(before, at)| (before, now.duration_since(*at))) {
                Some((before, time)) if !time.is_zero() => {
                    (8.0 * bytes.saturating_sub(*before) as f64 / time.as_secs_f64() / 1000.0) as u64
                }
                _ => stream["bandwidth"].as_u64().unwrap_or_default(),
            };
            rates.insert(id, rate);
            seen.insert(id, (bytes, now));
        }
        self.0 = seen;
        rates
    }
}

/// Shows everything each second: `rounds` times, or until the program is interrupted.
pub(super) async fn run(api: &Api, rounds: Option<u64>, json: bool) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal() && !json;
    let (sender, mut events) = mpsc::channel(WAITING);
    let (mut rates, mut last): (Rates, VecDeque<String>) = Default::default();
    let mut looks = tokio::time::interval(LOOK);
    // A server that is not there at all is an error; one that goes may come back.
    api.get("/version").await?;
    let listen = async {
        loop {
            let _ = listen(api, &sender).await;
            tokio::time::sleep(LOOK).await;
        }
    };
    let show = async {
        let mut round = 0;
        loop {
            looks.tick().await;
            let now = look(api).await;
            let new: Vec<String> = std::iter::from_fn(|| events.try_recv().ok()).collect();
            let mut out = String::new();
            match now {
                Ok(now) if json => {
                    let events: Vec<Value> =
                        new.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
                    out = show::json(&format!("{}\n", with(now, "events", json!(events))));
                }
                Ok(now) => {
                    let rate = rates.look(&now["streams"], Instant::now());
                    let rate = |stream: &Value| {
                        stream["uniqueId"].as_u64().and_then(|id| rate.get(&id)).copied().unwrap_or_default()
                    };
                    let streams = show::streams_with(&now["streams"], rate);
                    let (recordings, disks) =
                        (show::recordings(&now["recordings"]), show::disks(&now["disks"]));
                    let new: Vec<String> = new.iter().map(|event| show::line(event)).collect();
                    if terminal {
                        last.extend(new);
                        last.drain(..last.len().saturating_sub(SHOWN));
                        let events: String = last.iter().map(|event| format!("{event}\n")).collect();
                        out = format!("\x1b[H\x1b[2J{streams}\n{recordings}\n{disks}\n{events}");
                    } else {
                        let events = new.iter().map(|event| format!("event {event}\n"));
                        out.extend(events);
                        for (name, table) in [("stream", streams), ("recording", recordings), ("disk", disks)]
                        {
                            out.extend(
                                table.lines().skip(1).map(|line| format!("{name} {}\n", line.trim_start())),
                            );
                        }
                    }
                }
                Err(Failure::Unreachable { reason, .. }) => {
                    eprintln!("reelwright: the server is away: {reason}")
                }
                Err(failure) => return Err(failure),
            }
            let mut stdout = std::io::stdout().lock();
            if stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                // Nobody reads any more.
                return Ok(());
            }
            drop(stdout);
            round += 1;
            if rounds.is_some_and(|rounds| round >= rounds) {
                return Ok(());
            }
        }
    };
    tokio::select! {
        result = show => result,
        never = listen => never,
    }
}

/// How everything is now.
async fn look(api: &Api) -> Result<Value, Failure> {
    Ok(json!({
        "streams": api.get("/streams").await?,
        "recordings": api.get("/recordings").await?,
        "disks": api.get("/disks").await?,
    }))
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

/// Passes events on until the server ends them.
async fn listen(api: &Api, events: &mpsc::Sender<String>) -> Result<(), Failure> {
    const MAX_LINE: usize = 1 << 20;
    let mut response = api.events().await?;
    let mut waiting = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        waiting.extend_from_slice(&piece);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(data) = line.strip_prefix("data: ") {
                // More than anybody could read.
                let _ = events.try_send(data.trim_end().to_owned());
            }
        }
        if waiting.len() > MAX_LINE {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_since_the_last_look() {
        let stream = |bytes: u64| json!([{"uniqueId": 1, "bandwidth": 7, "video": {"bytesCount": bytes}}]);
        let (mut rates, start) = (Rates::default(), Instant::now());
        assert_eq!(rates.look(&stream(1000), start)[&1], 7);
        assert_eq!(rates.look(&stream(251_000), start + Duration::from_secs(2))[&1], 1000);
        assert_eq!(rates.look(&stream(0), start + Duration::from_secs(3))[&1], 0, "it began anew");
        assert!(rates.look(&json!([]), start).is_empty() && rates.0.is_empty());
    }
}
