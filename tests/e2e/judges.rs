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

/// A good file whose frames are left as they are, and that is bad all the same: only those who look at the structure
/// can tell.
fn misbuild(format: &str, good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    match format {
        "ts" => {
            let pcr = |packet: &[u8]| packet[3] & 0x20 != 0 && packet[4] >= 7 && packet[5] & 0x10 != 0;
            let with_pcr: Vec<_> = (0..good.len()).step_by(188).filter(|&at| pcr(&good[at..])).collect();
            let at = with_pcr[with_pcr.len() / 2];
            // The PCR's base counts 90 kHz in 33 bits, of which the first four bytes have all but one.
            let base = u32::from_be_bytes(good[at + 6..at + 10].try_into().unwrap());
            let moved = |by: u32| {
                let mut bad = good.to_vec();
                bad[at + 6..at + 10].copy_from_slice(&(base + by).to_be_bytes());
                bad
            };
            let mut none = good.to_vec();
            // The middle third of the PCRs becomes stuffing.
            for &at in &with_pcr[with_pcr.len() / 3..with_pcr.len() * 2 / 3] {
                none[at + 5] &= !0x10;
                none[at + 6..at + 12].fill(0xff);
            }
            vec![("a PCR too late by a second", moved(45_000)), ("no PCR for a long time", none)]
        }
        "mp4" => {
            let boxes = readers::boxes(good);
            let part = |name| good[boxes.iter().find(|b| b.0 == name).unwrap().1.clone()].to_vec();
            let mut moov = part("moov");
            // What was behind it moves to the front by its length.
            let len = moov.len() as u32;
            for at in (0..moov.len() - 12).filter(|&at| &good_name(&moov, at) == b"stco").collect::<Vec<_>>()
            {
                let number =
                    |moov: &[u8], at: usize| u32::from_be_bytes(moov[at..at + 4].try_into().unwrap());
                for entry in 0..number(&moov, at + 8) as usize {
                    let at = at + 12 + entry * 4;
                    let offset = number(&moov, at) - len;
                    moov[at..at + 4].copy_from_slice(&offset.to_be_bytes());
                }
            }
            let others = boxes.iter().filter(|b| b.0 != "moov").flat_map(|b| good[b.1.clone()].to_vec());
            vec![("index at the end, and right", others.chain(moov).collect())]
        }
        _ => {
            // The file size that onMetaData tells.
            let at = good.windows(8).position(|w| w == b"filesize").unwrap() + 9;
            let mut bad = good.to_vec();
            bad[at..at + 8].copy_from_slice(&1.0f64.to_be_bytes());
            vec![("a wrong size in the metadata", bad)]
        }
    }
}

fn good_name(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes[at..at + 4].try_into().unwrap()
}

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
    let misbuilt =
        |file: &Path| catch_unwind(AssertUnwindSafe(|| readers::assert_well_formed(file))).is_err();
    for format in FORMATS {
        let file = server.media(&format!("cam.{format}"));
        let good = fs::read(&file).unwrap();
        assert!(!notices(&media::clip(), &file), "{format}");
        assert!(notices(&media::both(), &file), "{format}: another source");
        assert!(!misbuilt(&file), "{format}");
        for (what, bad) in misbuild(format, &good) {
            let file = server.media(&format!("misbuilt.{format}"));
            fs::write(&file, bad).unwrap();
            assert!(misbuilt(&file), "{format}: {what}");
        }
        for (what, bad) in spoil(format, &good) {
            let file = server.media(&format!("bad.{format}"));
            fs::write(&file, bad).unwrap();
            assert!(notices(&media::clip(), &file), "{format}: {what}");
        }
    }
}

/// Sound that is late by 5 ms, in a file that is good otherwise.
#[test]
fn readers_notice_tracks_that_have_moved() {
    let good = fs::read(media::clip()).unwrap();
    let mut bad = good.clone();
    let mut at = 13;
    while at + 11 < bad.len() {
        let number = |from: usize, to: usize| bad[from..to].iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
        let (size, time) = (number(at + 1, at + 4) as usize, number(at + 4, at + 7) + 5);
        if bad[at] == 8 {
            bad[at + 4..at + 7].copy_from_slice(&time.to_be_bytes()[1..]);
        }
        at += 11 + size + 4;
    }
    let file = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
    fs::write(file.path(), bad).unwrap();
    let same = |file: &Path| {
        let (sent, found) = (readers::tracks(&media::clip()), readers::tracks(file));
        catch_unwind(AssertUnwindSafe(|| readers::assert_same_times(&sent, &found, "moved"))).is_ok()
    };
    assert!(same(&media::clip()) && !same(file.path()));
}
