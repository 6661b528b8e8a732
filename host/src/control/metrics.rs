//! What is counted, as Prometheus reads it: its text format, version 0.0.4.
//!
//! Nothing here counts: the text is made of snapshots.

use std::{collections::BTreeMap, fmt::Write};

use super::Context;
use crate::format::meters::{BUCKETS, Snapshot, Times};

/// Where it is.
pub const PATH: &str = "/metrics";
/// Its media type.
pub const MIME: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Digits of a SHA-256 in a label.
const DIGITS: usize = 12;

/// What is counted of the whole server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The server's version.
    pub version: &'static str,
    /// Live streams, orders to record, and those of them that record now.
    pub streams: u64,
    pub recordings: u64,
    pub runs: u64,
    /// Samples that the runs that go on have lost.
    pub dropped_samples: u64,
    /// By limit, how often components exceeded it as they were loaded.
    pub loading: BTreeMap<&'static str, u64>,
}

/// What is counted of a version of a format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    pub format: String,
    pub version: String,
    pub sha256: String,
    pub meters: Snapshot,
}

/// All that is counted, now.
pub fn collect(context: &Context) -> (Server, Vec<Format>) {
    let recordings = context.recordings.list();
    let runs: Vec<_> = recordings.iter().filter_map(|recording| recording.run()).collect();
    let server = Server {
        version: context.version.release_number,
        streams: context.registry.list().len() as u64,
        recordings: recordings.len() as u64,
        runs: runs.len() as u64,
        dropped_samples: runs.iter().map(|run| run.dropped_samples).sum(),
        loading: context.recordings.catalog().loading().limits,
    };
    let mut formats: Vec<Format> = Vec::new();
    let versions = context.recordings.catalog().versions(None);
    for version in versions.into_iter().filter_map(|version| version.code) {
        let manifest = &version.manifest;
        // A label set is there once.
        if formats.iter().all(|f| (&f.format, &f.sha256) != (&manifest.format, &version.sha256)) {
            formats.push(Format {
                format: manifest.format.clone(),
                version: manifest.version.clone(),
                sha256: version.sha256.clone(),
                meters: version.meters.snapshot(),
            });
        }
    }
    (server, formats)
}

/// The text of what was collected.
pub fn text(server: &Server, formats: &[Format]) -> String {
    let mut page = Page(String::new());
    page.family("reelwright_build_info", "gauge", "The server's version.");
    page.sample("reelwright_build_info", &[("version", server.version)], 1);
    for (name, help, value) in [
        ("reelwright_streams", "Live streams.", server.streams),
        ("reelwright_recordings", "Orders to record.", server.recordings),
        ("reelwright_runs", "Recordings that record now.", server.runs),
        (
            "reelwright_runs_dropped_samples",
            "Samples that the runs that go on have lost.",
            server.dropped_samples,
        ),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    }
    let name = "reelwright_format_loading_limit_exceeded_total";
    page.family(name, "counter", "How often a limit was exceeded by a component as it was loaded.");
    for (limit, count) in &server.loading {
        page.sample(name, &[("limit", limit)], *count);
    }
    per_format(&mut page, formats);
    page.0
}

/// Name, type and help of a family of one value a version, and the value.
type Single = (&'static str, &'static str, &'static str, fn(&Snapshot) -> u64);

const SINGLES: [Single; 9] = [
    ("reelwright_format_segments_open", "gauge", "Segments that are being written.", |m| m.open),
    ("reelwright_format_segments_total", "counter", "Segments begun.", |m| m.opened),
    ("reelwright_format_segments_finished_total", "counter", "Segments ended by the writer.", |m| m.finished),
    ("reelwright_format_samples_total", "counter", "Samples given to writers.", |m| m.samples),
    ("reelwright_format_payload_bytes_total", "counter", "Payload given to writers.", |m| m.payload_bytes),
    ("reelwright_format_output_bytes_total", "counter", "Bytes that writers appended.", |m| m.output_bytes),
    ("reelwright_format_memory_bytes", "gauge", "Memory of the open instances.", |m| m.memory),
    ("reelwright_format_memory_peak_bytes", "gauge", "The most memory of one instance.", |m| m.memory_peak),
    (
        "reelwright_format_failovers_total",
        "counter",
        "Recordings that another writer went on with, as one failed.",
        |m| m.failovers,
    ),
];

fn per_format(page: &mut Page, formats: &[Format]) {
    for (name, kind, help, value) in SINGLES {
        page.family(name, kind, help);
        for format in formats {
            page.sample(name, &format.labels(), value(&format.meters));
        }
    }
    let name = "reelwright_format_failures_total";
    page.family(name, "counter", "Calls that failed.");
    for format in formats {
        let m = &format.meters;
        let kinds = [
            ("trap", m.traps),
            ("refusal", m.refusals),
            ("contract", m.contract_breaks),
            ("output", m.output_errors),
        ];
        for (kind, count) in kinds {
            page.sample(name, &format.with([("kind", kind)]), count);
        }
    }
    let name = "reelwright_format_limit_exceeded_total";
    page.family(name, "counter", "How often a limit was exceeded.");
    for format in formats {
        for (limit, count) in &format.meters.limits {
            page.sample(name, &format.with([("limit", limit)]), *count);
        }
    }
    let name = "reelwright_format_swaps_total";
    page.family(name, "counter", "Swaps that made the version the active one, or put another in its place.");
    for format in formats {
        page.sample(name, &format.with([("direction", "in")]), format.meters.swaps_in);
        page.sample(name, &format.with([("direction", "out")]), format.meters.swaps_out);
    }
    let name = "reelwright_format_call_seconds";
    page.family(name, "histogram", "Computing time of a call, waiting not counted.");
    for format in formats {
        for (call, times) in &format.meters.calls {
            page.histogram(name, &format.with([("call", call)]), times);
        }
    }
    let name = "reelwright_format_swap_pause_seconds";
    page.family(name, "histogram", "How long a recording stood still as it changed to the version.");
    for format in formats {
        page.histogram(name, &format.labels(), &format.meters.pauses);
    }
}

impl Format {
    fn labels(&self) -> Vec<(&str, &str)> {
        self.with([])
    }

    fn with<'a, const N: usize>(&'a self, more: [(&'a str, &'a str); N]) -> Vec<(&'a str, &'a str)> {
        let sha256 = self.sha256.get(..DIGITS).unwrap_or(&self.sha256);
        let own = [("format", self.format.as_str()), ("version", &self.version), ("sha256", sha256)];
        own.into_iter().chain(more).collect()
    }
}

/// The text as it grows.
struct Page(String);

impl Page {
    /// Begins a family of samples.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Help is ours: one line, nothing to escape. Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0 += name;
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], times: &Times) {
        let mut count = 0;
        let bounds = (0..BUCKETS - 1).map(|i| seconds(1 << i)).chain(["+Inf".to_owned()]);
        let buckets = times.buckets.iter().copied().chain(std::iter::repeat(0));
        for (bound, more) in bounds.zip(buckets) {
            count += more;
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(times.sum_us));
        self.sample(&format!("{name}_count"), labels, count);
    }
}

/// Microseconds as seconds.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::format::meters::Meters;

    /// A sample that was read: name, labels, value.
    type Sample = (String, Vec<(String, String)>, f64);

    /// The grammar of the text format, as its specification has it; panics where the text is not of it.
    fn parse(text: &str) -> Vec<Sample> {
        let (mut samples, mut kind, mut seen) = (Vec::new(), (String::new(), String::new()), BTreeSet::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && is_name(name), "{line}");
                assert!(seen.insert(name.to_owned()), "a family is there once: {line}");
                kind = (name.to_owned(), String::new());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').unwrap();
                assert!(name == kind.0 && ["gauge", "counter", "histogram"].contains(&of), "{line}");
                kind.1 = of.to_owned();
            } else {
                let (name, mut rest) = line.split_at(line.find(['{', ' ']).unwrap());
                let plain = name == kind.0 && kind.1 != "histogram";
                let of_histogram = name
                    .strip_prefix(&kind.0)
                    .is_some_and(|end| kind.1 == "histogram" && ["_bucket", "_sum", "_count"].contains(&end));
                assert!(is_name(name) && (plain || of_histogram), "{line} in {kind:?}");
                assert!(kind.1 != "counter" || name.ends_with("_total"), "{line}");
                let mut labels = Vec::new();
                while let Some(after) = rest.strip_prefix(['{', ',']) {
                    let (label, value) = after.split_once("=\"").unwrap();
                    assert!(is_name(label), "{line}");
                    let (mut text, mut chars) = (String::new(), value.char_indices());
                    loop {
                        match chars.next().unwrap() {
                            (_, '\\') => match chars.next().unwrap().1 {
                                'n' => text.push('\n'),
                                c @ ('\\' | '"') => text.push(c),
                                c => panic!("\\{c} in {line}"),
                            },
                            (end, '"') => {
                                rest = &value[end + 1..];
                                break;
                            }
                            (_, c) => text.push(c),
                        }
                    }
                    labels.push((label.to_owned(), text));
                }
                let value = rest.trim_start_matches('}').strip_prefix(' ').unwrap().parse().unwrap();
                assert!(
                    !samples.iter().any(|(n, l, _): &Sample| n == name && *l == labels),
                    "a set of labels is there once: {line}"
                );
                samples.push((name.to_owned(), labels, value));
            }
        }
        samples
    }

    fn is_name(name: &str) -> bool {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    }

    fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |all: &[(String, String)]| {
            labels.iter().all(|(label, text)| all.iter().any(|(l, t)| l == label && t == text))
        };
        let found: Vec<_> = samples.iter().filter(|(n, l, _)| n == name && has(l)).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].2
    }

    #[test]
    fn the_text_is_of_the_grammar() {
        let meters = Meters::default();
        meters.swap_in();
        for us in [1, 3, 3_000_000, 90_000_000] {
            meters.swap_pause(Duration::from_micros(us));
        }
        let format = |format: &str, version: &str| Format {
            format: format.into(),
            version: version.into(),
            sha256: "0123456789abcdef".into(),
            meters: meters.snapshot(),
        };
        let formats = [format("flv", "1.0.0"), format("odd", "a\"b\\c\n")];
        let server = Server { version: "0.1.0", streams: 7, ..Server::default() };
        let samples = parse(&text(&server, &formats));
        assert_eq!(value(&samples, "reelwright_streams", &[]), 7.0);
        let odd = ("version", "a\"b\\c\n");
        assert_eq!(value(&samples, "reelwright_format_swaps_total", &[odd, ("direction", "in")]), 1.0);
        let flv = [("format", "flv"), ("sha256", "0123456789ab")];
        let bucket = |le| {
            let labels: Vec<_> = flv.into_iter().chain([("le", le)]).collect();
            value(&samples, "reelwright_format_swap_pause_seconds_bucket", &labels)
        };
        assert_eq!((bucket("0.000001"), bucket("0.000002"), bucket("0.000004")), (1.0, 1.0, 2.0));
        assert_eq!((bucket("4.194304"), bucket("33.554432"), bucket("+Inf")), (3.0, 3.0, 4.0));
        assert_eq!(value(&samples, "reelwright_format_swap_pause_seconds_sum", &flv), 93.000004);
        assert_eq!(value(&samples, "reelwright_format_swap_pause_seconds_count", &flv), 4.0);
        parse(&text(&server, &[]));
    }
}
