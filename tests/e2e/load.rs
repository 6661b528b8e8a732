//! Many streams at once.

use std::path::Path;

use crate::{
    media, process,
    readers::{self, FORMATS},
    senders,
    server::Server,
};

/// Publishes a file under many names at once, in real time, and records each in one of the formats.
fn record_at_once(file: &Path, streams: usize) {
    let server = Server::start();
    let format = |i: usize| FORMATS[i % FORMATS.len()];
    let ids: Vec<_> = (1..=streams)
        .map(|i| server.record(&format!("load_{i}"), &format!("load_{i}"), format(i), ""))
        .collect();
    let mut publish = senders::reelwright();
    publish.arg("publish").arg(file).arg(server.url("load")).args(["--streams", &streams.to_string()]);
    let said = process::run(&mut publish);
    println!("{}", said.trim());
    for (i, id) in (1..=streams).zip(ids) {
        server.finish(&format!("load_{i}"), &[id]);
    }
    let sent = FORMATS.map(|format| readers::sent(file, format));
    for i in 1..=streams {
        let recording = server.media(&format!("load_{i}.{}", format(i)));
        readers::comparable(&recording).assert_same(&sent[i % FORMATS.len()], &format!("load_{i}"));
    }
    assert_eq!(server.media_names().len(), streams);
    println!("{streams} streams recorded without a lost frame");
}

#[test]
fn twenty_streams_at_once_lose_nothing() {
    record_at_once(&media::clip(), 20);
}

#[test]
#[ignore = "make soak"]
fn soak_a_hundred_streams_at_once_lose_nothing() {
    record_at_once(&media::two_and_a_half_megabits(), 100);
}
