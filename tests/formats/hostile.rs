//! Components that misbehave while they record.

use std::time::{Duration, Instant};

use reelwright::format::limits::{Limit, Limits};

use crate::support::{Host, begin, clip};

async fn error_of(name: &str, options: &[(&str, &str)]) -> String {
    Host::new().await.fail(name, options).await.0.to_string()
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// Removes what a writer that was given up left.
fn clear(host: &Host) {
    for name in host.files() {
        std::fs::remove_file(host.dir.path().join("media").join(name)).unwrap();
    }
}

/// One thread: if the component did not give way, the other recording would stand still.
#[tokio::test]
async fn a_loop_is_stopped_and_others_go_on_meanwhile() {
    let limits = Limits { write_time: Duration::from_secs(2), ..Limits::default() };
    let host = Host::with(limits).await;
    let clip = clip();
    let flv = host.formats.get("flv").unwrap();
    let second = Host::new().await;
    host.load("spin_in_write").await;
    let begun = Instant::now();
    let spinner = async {
        let error = host.fail("spin_in_write", &[]).await.0.to_string();
        says(&error, &["spin-in-write 1.0.0", "write", "limit `write-time` of 2s"]);
        begun.elapsed()
    };
    let neighbour = async {
        let mut done = Vec::new();
        for _ in 0..3 {
            second.record(&flv, &clip, 10, &[]).await.unwrap();
            done.push(begun.elapsed());
        }
        done
    };
    let (stopped, done) = tokio::join!(spinner, neighbour);
    assert!(stopped >= Duration::from_secs(2), "it got its time: {stopped:?}");
    assert!(done[0] < stopped, "a neighbour was done after {done:?}, the loop ended after {stopped:?}");
}

#[tokio::test]
async fn memory_has_a_limit() {
    says(&error_of("hoard_memory", &[]).await, &["write", "limit `memory` of 64 MiB"]);
}

#[tokio::test]
async fn held_samples_have_a_limit() {
    let host = Host::with(Limits { held: 100 << 10, ..Limits::default() }).await;
    let (error, _) = host.fail("hold_samples", &[]).await;
    says(&error.to_string(), &["write", "limit `held`"]);
}

#[tokio::test]
async fn held_samples_have_a_limit_in_time() {
    let limits = Limits { held_time: Duration::from_secs(1), ..Limits::default() };
    let (error, _) = Host::with(limits).await.fail("hold_samples", &[]).await;
    says(&error.to_string(), &["write", "it exceeded the limit `held-time` of 1s of media"]);
}

/// By what the component does, and the limit's name.
#[tokio::test]
async fn each_limit_has_a_name_and_is_counted() {
    let host =
        Host::with(Limits { hostcall_bytes: 4 << 20, inline_bytes: 1 << 20, ..Limits::default() }).await;
    let version = host.load("over_limits").await;
    let clip = clip();
    for (what, limit, words) in [
        ("recurse", "stack", "write: it exceeded the limit `stack` of 512 KiB"),
        ("carry", "hostcall-bytes", "write: it exceeded the limit `hostcall-bytes` of 4 MiB"),
        ("answer", "hostcall-bytes", "write: it exceeded the limit `hostcall-bytes` of 4 MiB"),
        ("inline", "inline-bytes", "limit: limit `inline-bytes` of 1 MiB"),
        ("pieces", "pieces", "limit: limit `pieces` of 65536 pieces"),
        ("outputs", "outputs", "limit: limit `outputs` of 8 outputs"),
        ("head", "head", "limit: limit `head` of 1 GiB"),
        ("trickle", "output-total", "limit: limit `output-total` of 64 MiB beyond 4 times the payload"),
    ] {
        let before = version.meters.snapshot().limits[limit];
        let mut writer = host.open(&version, begin(&clip, &[("what", what)])).await.unwrap();
        // More than one call may append.
        let error = loop {
            if let Err(error) = writer.write(&clip.samples[..10]).await {
                break error;
            }
        };
        drop(writer.abandon().await);
        clear(&host);
        says(&error.to_string(), &["over-limits 1.0.0", words]);
        assert_eq!(version.meters.snapshot().limits[limit], before + 1, "{what}");
    }
}

#[tokio::test]
async fn the_limit_to_raise_is_the_one_that_is_named() {
    let host = Host::with(Limits { output_total: 64 << 10, output_rate: 2, ..Limits::default() }).await;
    let version = host.load("over_limits").await;
    let mut clip = clip();
    // So much that the payload allows more than the base does.
    clip.samples.iter_mut().for_each(|s| s.data = vec![0; 64 << 10].into());
    let mut writer = host.open(&version, begin(&clip, &[("what", "trickle")])).await.unwrap();
    let error = writer.write(&clip.samples[..10]).await.unwrap_err().to_string();
    says(&error, &["limit `output-rate` of 2 times the payload"]);
    drop(writer.abandon().await);
}

/// Limits of a format hold for it, and for no other.
#[tokio::test]
async fn a_format_may_have_limits_of_its_own() {
    let mut limits = Limits::default();
    limits.overrides.insert("hoard-memory".into(), vec![(Limit::Memory, 16 << 20)]);
    let host = Host::with(limits).await;
    says(&host.fail("hoard_memory", &[]).await.0.to_string(), &["limit `memory` of 16 MiB"]);
    clear(&host);
    let version = host.load("over_limits").await;
    let clip = clip();
    let mut writer = host.open(&version, begin(&clip, &[("what", "memory")])).await.unwrap();
    writer.write(&clip.samples[..10]).await.unwrap();
    assert!(writer.memory() > 32 << 20, "{}", writer.memory());
    drop(writer.abandon().await);
}

#[tokio::test]
async fn output_has_a_limit() {
    let host = Host::new().await;
    let (error, kept) = host.fail("flood_output", &[]).await;
    says(&error.to_string(), &["write", "limit `output-per-call` of 64 MiB"]);
    assert!(kept.unwrap().len() <= 64 << 20);
}

#[tokio::test]
async fn pieces_are_checked() {
    for (piece, message) in [
        ("beyond", "bytes at 0 of sample 0, which has"),
        ("overflow", "4294967295 bytes at 1 of sample 0"),
        ("inline", "4 bytes at 1 of the inline bytes, which has 4"),
        ("freed", "sample 9 was freed: 10 is the first that is held"),
        ("future", "there is no sample 10 yet: the next is 10"),
        ("gathered", "bytes at 0 of sample 0, which has"),
    ] {
        let error = error_of("bad_piece", &[("piece", piece)]).await;
        says(&error, &["write: bad-call: piece 1: ", message]);
    }
}

#[tokio::test]
async fn names_of_outputs_are_checked() {
    let host = Host::new().await;
    let version = host.load("bad_names").await;
    let clip = clip();
    let (_, file) = host.record(&version, &clip, 10, &[]).await.unwrap();
    let text = String::from_utf8_lossy(&file[..file.len() - clip.payload().len()]).into_owned();
    assert!(text.lines().count() >= 8, "{text}");
    for line in text.lines() {
        assert!(line.contains("bad-call") || line.contains("limit"), "{line}");
    }
}

#[tokio::test]
async fn a_trap_keeps_what_was_written_and_says_why() {
    let host = Host::new().await;
    let clip = clip();
    let (error, kept) = host.fail("trap_in_write", &[]).await;
    says(&error.to_string(), &["trap-in-write 1.0.0", "write", "it trapped", "it said: panicked at"]);
    let first: Vec<u8> = clip.samples[..20].iter().flat_map(|s| s.data.to_vec()).collect();
    assert!(kept.unwrap().starts_with(&first), "two batches were written");

    let host = Host::new().await;
    let (error, kept) = host.fail("trap_in_finish", &[]).await;
    says(&error.to_string(), &["finish", "it trapped", "it said: panicked at"]);
    assert!(kept.unwrap().ends_with(&clip.payload()));
}

#[tokio::test]
async fn exit_and_sleep_are_traps_that_say_so() {
    says(&error_of("exits", &[]).await, &["write", "it called exit(0)"]);
    says(&error_of("sleeps", &[]).await, &["write", "it waits for a time", "its clock stands still"]);
}

#[tokio::test]
async fn there_are_no_files_and_no_environment() {
    let error = error_of("uses_fs", &[]).await;
    says(&error, &["open: unsupported: nothing"]);
}

#[tokio::test]
async fn clock_and_random_numbers_are_the_same_each_time() {
    let host = Host::new().await;
    let version = host.load("uses_clock").await;
    let clip = clip();
    let (_, first) = host.record(&version, &clip, 10, &[]).await.unwrap();
    let (_, second) = host.record(&version, &clip, 64, &[]).await.unwrap();
    assert!(first == second);
    let text = String::from_utf8_lossy(&first[..200]).into_owned();
    says(&text, &["start 1700000000123456\nepoch-us 1700000000123456 elapsed-ns 0"]);
}

#[tokio::test]
async fn a_flood_of_the_log_costs_nothing_else() {
    let host = Host::new().await;
    let version = host.load("log_flood").await;
    let clip = clip();
    let (_, file) = host.record(&version, &clip, 64, &[]).await.unwrap();
    assert!(file.ends_with(&clip.payload()));
    let limits = version.meters.snapshot().limits;
    assert!(limits["log-lines"] > 1000 && limits["log-line"] > 1000, "{limits:?}");
}

/// The order of calls and what each holds, as a component sees it.
#[tokio::test]
async fn a_component_sees_what_the_contract_promises() {
    let host = Host::new().await;
    let version = host.load("trace").await;
    let clip = clip();
    let mut writer = host.open(&version, begin(&clip, &[])).await.unwrap();
    writer.write(&clip.samples[..70]).await.unwrap();
    assert!(writer.update_tracks(&clip.tracks).await.is_ok());
    let finished = writer.finish(clip.end()).await.unwrap().complete().await.unwrap();
    let text = std::fs::read_to_string(finished.file.path).unwrap();
    let samples = text.lines().filter(|l| l.starts_with("sample")).count();
    assert_eq!(samples, 70, "{text}");
    says(&text, &["avc1", "mp4a"]);
}
