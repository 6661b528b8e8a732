//! Components that misbehave, each an example of this crate, for the tests of the component host.
//!
//! The name of an example is the name of its format, with `-` for `_`. What is well-behaved in them is
//! here: a file of payloads, one after the other.

use reelwright_sdk::{
    End, Error, Gather, Manifest, Output, Recover, Sample, Start, Summary, Track, Writer, host,
};

/// A manifest for H.264 and AAC that needs nothing.
pub fn manifest(format: &str, version: &str) -> Manifest {
    Manifest::new(format, version, "raw", "application/octet-stream").codecs(&["avc1", "mp4a"])
}

/// A main output that takes the samples' payloads as they come.
#[derive(Debug)]
pub struct Raw {
    pub out: Output,
    gather: Gather,
}

impl Raw {
    /// Creates the main output.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { out: host::create("", "main")?, gather: Gather::new() })
    }

    /// Appends a line of text.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<(), Error> {
        self.gather.bytes(format!("{text}\n").as_bytes());
        self.gather.append_to(&self.out).map(drop)
    }

    /// Appends the payloads, and needs none of them any longer.
    pub fn write(&mut self, samples: &[Sample]) -> Result<u64, Error> {
        for sample in samples {
            self.gather.payload(sample, 0, sample.size);
        }
        self.gather.append_to(&self.out)?;
        Ok(samples.last().map_or(0, |sample| sample.seq + 1))
    }
}

/// Where a component is to panic: `write 0 37`, by the call, the segment's number (or `*`), and for `write` and
/// `written` the number of a sample.
///
/// `opened`, `written` and `finished` are at the end of their calls, when everything was appended.
#[derive(Clone, Debug, Default)]
pub struct Order {
    call: String,
    sample: u64,
}

impl Order {
    /// What the tracks say, if it is for this segment.
    pub fn new(tracks: &[Track], segment: u64) -> Self {
        let property = tracks.iter().flat_map(|t| &t.properties).find(|p| p.key == "trap");
        let mut words = property.map_or("", |p| &*p.value).split(' ');
        let call = words.next().unwrap_or_default().to_owned();
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        let segments = words.next();
        let sample = number(words.next()).unwrap_or(0);
        match segments == Some("*") || number(segments) == Some(segment) {
            true => Self { call, sample },
            false => Self::default(),
        }
    }

    /// Panics, if this is the call.
    fn obey(&self, call: &str) {
        assert!(self.call != call, "it was told to panic in {call}");
    }

    fn obey_with(&self, call: &str, samples: &[Sample]) {
        if samples.iter().any(|sample| sample.seq == self.sample) {
            self.obey(call);
        }
    }
}

/// A format that panics as it is told. Its name is that of the format behind `trap-`.
#[derive(Debug)]
pub struct Trapping<W> {
    writer: W,
    order: Order,
}

impl<W: Writer> Writer for Trapping<W> {
    fn describe() -> Manifest {
        let manifest = W::describe();
        Manifest { format: format!("trap-{}", manifest.format), ..manifest }
    }

    fn open(start: Start) -> Result<Self, Error> {
        let order = Order::new(&start.tracks, start.segment);
        order.obey("open");
        let writer = W::open(start)?;
        order.obey("opened");
        Ok(Self { writer, order })
    }

    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        self.order.obey("update-tracks");
        self.writer.update_tracks(tracks)
    }

    fn write(&mut self, samples: &[Sample], payloads: &[u8]) -> Result<u64, Error> {
        self.order.obey_with("write", samples);
        let needed = self.writer.write(samples, payloads)?;
        self.order.obey_with("written", samples);
        Ok(needed)
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        self.order.obey("finish");
        let summary = self.writer.finish(end)?;
        self.order.obey("finished");
        Ok(summary)
    }
}

impl<W: Recover> Recover for Trapping<W> {
    fn recover(start: Start, outputs: Vec<String>) -> Result<Summary, Error> {
        W::recover(start, outputs)
    }
}

/// From which sample of a segment on what a component does wrong is seen: there are fewer in the host's probe.
pub const LATE: u64 = 200;

/// What a format does wrong from the sample [`LATE`] of a segment on.
pub trait Fault: Default {
    /// The version that it says it is.
    const VERSION: &str;

    /// Does it, with a sample that is to be written.
    fn commit(&mut self, sample: &mut Sample);
}

/// A format with a fault that no probe finds. It has the format's own name.
#[derive(Debug)]
pub struct Faulty<W, F> {
    writer: W,
    fault: F,
}

impl<W: Writer, F: Fault> Writer for Faulty<W, F> {
    fn describe() -> Manifest {
        Manifest { version: F::VERSION.into(), ..W::describe() }
    }

    fn open(start: Start) -> Result<Self, Error> {
        Ok(Self { writer: W::open(start)?, fault: F::default() })
    }

    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        self.writer.update_tracks(tracks)
    }

    fn write(&mut self, samples: &[Sample], payloads: &[u8]) -> Result<u64, Error> {
        let mut samples = samples.to_vec();
        samples.iter_mut().filter(|sample| sample.seq >= LATE).for_each(|sample| self.fault.commit(sample));
        self.writer.write(&samples, payloads)
    }

    fn finish(self, end: End) -> Result<Summary, Error> {
        self.writer.finish(end)
    }
}

impl<W: Recover, F> Recover for Faulty<W, F> {
    fn recover(start: Start, outputs: Vec<String>) -> Result<Summary, Error> {
        W::recover(start, outputs)
    }
}
