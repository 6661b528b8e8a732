//! Finishing a long segment takes no more memory than a short one.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use reelwright_mp4::Mp4;
use reelwright_sdk::{End, Sample, Start, Timebase, Track, mock::Harness};

/// Counts what is allocated, and the most there was at once.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn track(id: u32, kind: &str, codec: &str, config: &[u8]) -> Track {
    Track {
        id,
        kind: kind.into(),
        codec: codec.into(),
        timebase: Timebase { num: 1, den: 1000 },
        config: config.to_vec(),
        properties: Vec::new(),
    }
}

/// A minute of 25 pictures and 47 frames of sound a second, so many times.
fn finish(minutes: i64) -> (usize, std::time::Duration) {
    // Two parameter sets of which nothing can be read: the shortest record there is.
    let avc = [1, 66, 0, 30, 0xff, 0xe1, 0, 2, 0x67, 0, 1, 0, 2, 0x68, 0];
    let start = Start {
        segment: 0,
        epoch_us: 0,
        origin_ms: 0,
        head_room: 0,
        head_align: 4096,
        tracks: vec![track(1, "video", "avc1", &avc), track(2, "audio", "mp4a", &[0x11, 0x90])],
        options: Vec::new(),
        carry: Vec::new(),
    };
    let mut harness = Harness::<Mp4>::open(start).expect("a segment");
    let sample = |track, dts, pts, key: bool| Sample {
        seq: 0,
        dts,
        pts,
        duration: 0,
        track,
        size: 0,
        bits: u32::from(key),
    };
    let (mut picture, mut sound) = (0i64, 0i64);
    let mut batch = Vec::new();
    while picture < minutes * 60 * 25 {
        batch.clear();
        for _ in 0..20 {
            let dts = picture * 40;
            batch.push((sample(1, dts, dts + 40 * (picture % 3), picture % 50 == 0), &b"p"[..]));
            picture += 1;
            while sound * 64 / 3 <= dts {
                batch.push((sample(2, sound * 64 / 3, sound * 64 / 3, true), b"s"));
                sound += 1;
            }
        }
        harness.write(&batch).expect("a batch");
    }
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let began = std::time::Instant::now();
    let end = End { reason: "stopped".into(), tracks: Vec::new(), properties: Vec::new() };
    let (_, files) = harness.finish(end).expect("a file");
    let took = began.elapsed();
    // The head is the host's, on disk.
    let head = files.0["mdat"].head.len();
    (MOST.load(Relaxed) - before - head, took)
}

#[test]
fn finishing_takes_little_memory_however_long_a_segment_is() {
    // A day, as far as a debug build can be made to wait.
    let minutes = if cfg!(debug_assertions) { 60 } else { 24 * 60 };
    let (bytes, took) = finish(minutes);
    println!("{minutes} minutes: {bytes} bytes, {took:?}");
    assert!(bytes < 4 << 20, "{bytes} bytes");
}
