//! The readers notice what is wrong: without that, the other tests prove nothing.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::{
    media,
    readers::{self, FORMATS},
    senders::{Pace, Sender},
    server::Server,
};

/// The ways in which a good file is made a bad one.
fn spoil(format: &str, good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let cut_short = good[..good.len() - 1000].to_vec();
    let mut bit_error = good.to_vec();
    // In the last third is nothing but media.
    bit_error[good.len() * 5 / 6] ^= 0x55;
    let mut spoilt = vec![("cut short", cut_short), ("a bit error", bit_error)];
    match format {
        "ts" => {
            let at = good.len() / 2 / 188 * 188;
            spoilt.push(("a packet is missing", [&good[..at], &good[at + 188..]].concat()));
            spoilt.push(("a packet comes twice too often", {
                let packet = &good[at..at + 188];
                [&good[..at], packet, packet, &good[at..]].concat()
            }));
            let mut psi = good.to_vec();
            psi[20] ^= 1;
            spoilt.push(("PAT with a wrong CRC", psi));
        }
        "mp4" => {
            let boxes = readers::boxes(good);
            let part = |name| good[boxes.iter().find(|b| b.0 == name).unwrap().1.clone()].to_vec();
            spoilt.push(("index at the end", [part("ftyp"), part("mdat"), part("moov")].concat()));
        }
        _ => {
            let last =
                good.len() - 4 - u32::from_be_bytes(good[good.len() - 4..].try_into().unwrap()) as usize;
            spoilt.push(("the last tag comes twice", [good, &good[last..]].concat()));
        }
    }
    spoilt
}

#[test]
fn readers_notice_what_is_wrong() {
    let server = Server::start();
    let ids = FORMATS.map(|format| server.record("cam", "cam", format, ""));
    Sender::Own.send(&media::clip(), &server.url("cam"), Pace::Full);
    server.finish("cam", &ids);
    let notices = |sent: &Path, file: &Path| {
        catch_unwind(AssertUnwindSafe(|| readers::assert_recorded(sent, file))).is_err()
    };
    for format in FORMATS {
        let file = server.media(&format!("cam.{format}"));
        let good = fs::read(&file).unwrap();
        assert!(!notices(&media::clip(), &file), "{format}");
        assert!(notices(&media::both(), &file), "{format}: another source");
        for (what, bad) in spoil(format, &good) {
            let file = server.media(&format!("bad.{format}"));
            fs::write(&file, bad).unwrap();
            assert!(notices(&media::clip(), &file), "{format}: {what}");
        }
    }
}
