//! One pass over the records of a track: media times, stsc chunks, and the rows of all tables at once.
//!
//! It runs twice, to count and to write, and gives the same rows both times. What it holds is a few
//! numbers, however long the track is.

use reelwright_sdk::Error;

use crate::{
    entry::BitRates,
    record::Record,
    tables::{Row, Sink},
    timeline::Clock,
};

/// Samples of an stsc chunk at most. Without a bound a track that is alone would be a single one, in which
/// readers could only seek by adding up sizes.
const CHUNK_SAMPLES: u32 = 64;

/// What is known of a track after a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) samples: u32,
    pub(crate) keys: u32,
    /// Sum of all durations, in units of media time.
    pub(crate) duration: i64,
    /// Decoding time of the first sample, in ticks; its media time is 0.
    pub(crate) first_dts: i64,
    /// Where the presentation begins and ends, in media time. The end lies a unit after the last sample's
    /// beginning at least, so that it is shown.
    pub(crate) first_shown: i64,
    pub(crate) shown_until: i64,
    /// Smallest and largest composition time offset, in units of media time.
    pub(crate) composition: (i32, i32),
    pub(crate) rates: BitRates,
}

/// A sample whose duration is not known before the next one comes.
#[derive(Clone, Copy, Debug)]
struct Pending {
    record: Record,
    time: i64,
    shown: i64,
}

/// A pass at work: takes the records of one track, in order, and gives a sink the rows of all tables.
#[derive(Debug)]
pub(crate) struct Pass<S> {
    clock: Clock,
    totals: Totals,
    durations: Runs<u32>,
    compositions: Runs<i32>,
    chunks: Chunks,
    rate: Rate,
    pending: Option<Pending>,
    sink: S,
}

impl<S: Sink> Pass<S> {
    /// A pass over a track whose clock, not begun, is `clock`.
    pub(crate) fn new(clock: Clock, sink: S) -> Self {
        Self {
            clock,
            totals: Totals::default(),
            durations: Runs::default(),
            compositions: Runs::default(),
            chunks: Chunks::default(),
            rate: Rate::default(),
            pending: None,
            sink,
        }
    }

    /// Takes the next record.
    /// `limit`: more samples or longer ones than 32 bits hold; errors of the sink.
    pub(crate) fn add(&mut self, record: Record) -> Result<(), Error> {
        let Self { clock, totals, sink, .. } = self;
        let time = clock.next(record.dts)?;
        let composition = clock.offset(record.composition.into())?;
        let shown = time + i64::from(composition);
        match self.pending {
            None => {
                totals.first_dts = record.dts;
                totals.first_shown = shown;
                totals.shown_until = shown;
                totals.composition = (composition, composition);
            }
            Some(before) => totals.lasts(before, time - before.time, &mut self.durations, sink)?,
        }
        self.pending = Some(Pending { record, time, shown });
        totals.samples =
            totals.samples.checked_add(1).ok_or_else(|| Error::limit("2^32 samples in a track"))?;
        totals.first_shown = totals.first_shown.min(shown);
        let (min, max) = totals.composition;
        totals.composition = (min.min(composition), max.max(composition));
        if record.is_key() {
            totals.keys += 1;
            sink.put(Row::Sync(totals.samples))?;
        }
        if let Some((samples, units)) = self.compositions.push(composition) {
            sink.put(Row::Composition { samples, units })?;
        }
        sink.put(Row::Size(record.size))?;
        self.chunks.add(&record, sink)?;
        totals.rates.largest = totals.rates.largest.max(record.size);
        self.rate.add(time / i64::from(clock.timescale()), record.size);
        Ok(())
    }

    /// Gives the rows that are left. The last sample lasts until `end`, the `dts` at which the track ends; if nobody
    /// knows it, as long as it says, else as the one before it, else a frame.
    /// Errors as of [`Pass::add`].
    pub(crate) fn finish(self, end: Option<i64>) -> Result<(Totals, S), Error> {
        let Self { mut clock, mut totals, mut durations, compositions, chunks, rate, pending, mut sink } =
            self;
        if let Some(last) = pending {
            let until = match last.record.duration {
                duration if duration > 0 => last.record.dts.checked_add(duration.into()),
                _ => None,
            };
            let usual = durations.last().map(i64::from).or(clock.frame().map(i64::from)).unwrap_or(0);
            let duration =
                end.or(until).and_then(|dts| clock.next(dts).ok()).map_or(usual, |next| next - last.time);
            totals.lasts(last, duration, &mut durations, &mut sink)?;
        }
        if let Some((samples, units)) = durations.finish() {
            sink.put(Row::Duration { samples, units })?;
        }
        if let Some((samples, units)) = compositions.finish() {
            sink.put(Row::Composition { samples, units })?;
        }
        chunks.finish(&mut sink)?;
        (totals.rates.average, totals.rates.max) = rate.finish(totals.duration, clock.timescale());
        Ok((totals, sink))
    }
}

impl Totals {
    /// Takes in the duration of a sample.
    fn lasts(
        &mut self,
        sample: Pending,
        duration: i64,
        durations: &mut Runs<u32>,
        sink: &mut impl Sink,
    ) -> Result<(), Error> {
        self.duration += duration;
        self.shown_until = self.shown_until.max(sample.shown + duration.max(1));
        let duration = u32::try_from(duration).expect("a clock's steps are not negative and fit 32 bits");
        match durations.push(duration) {
            Some((samples, units)) => sink.put(Row::Duration { samples, units }),
            None => Ok(()),
        }
    }
}

/// Counts equal values that follow each other.
#[derive(Debug, Default)]
struct Runs<T>(Option<(u32, T)>);

impl<T: Copy + PartialEq> Runs<T> {
    /// Takes the next value; gives the run that it ends.
    fn push(&mut self, value: T) -> Option<(u32, T)> {
        match &mut self.0 {
            Some((count, same)) if *same == value => {
                *count += 1;
                None
            }
            run => run.replace((1, value)),
        }
    }

    /// The value pushed last.
    fn last(&self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }

    /// The run that nothing ended.
    fn finish(self) -> Option<(u32, T)> {
        self.0
    }
}

/// Finds the stsc chunks: samples of the track that follow each other in `mdat`.
#[derive(Debug, Default)]
struct Chunks {
    /// Number of the chunk at hand, from 1; 0 before the first one.
    number: u32,
    samples: u32,
    /// Offset after its last sample.
    end: u64,
    /// Samples a chunk in the row of `stsc` that was given last.
    row: u32,
}

impl Chunks {
    fn add(&mut self, record: &Record, sink: &mut impl Sink) -> Result<(), Error> {
        if self.number == 0 || record.offset != self.end || self.samples == CHUNK_SAMPLES {
            self.close(sink)?;
            self.number += 1;
            sink.put(Row::Chunk(record.offset))?;
        }
        self.samples += 1;
        self.end = record.offset + u64::from(record.size);
        Ok(())
    }

    fn close(&mut self, sink: &mut impl Sink) -> Result<(), Error> {
        if self.samples != self.row {
            sink.put(Row::Chunks { first: self.number, samples: self.samples })?;
            self.row = self.samples;
        }
        self.samples = 0;
        Ok(())
    }

    fn finish(mut self, sink: &mut impl Sink) -> Result<(), Error> {
        self.close(sink)
    }
}

/// Measures bit rates.
#[derive(Debug, Default)]
struct Rate {
    bytes: u64,
    second: i64,
    in_second: u64,
    busiest: u64,
}

impl Rate {
    fn add(&mut self, second: i64, bytes: u32) {
        if second != self.second {
            self.second = second;
            self.in_second = 0;
        }
        self.bytes += u64::from(bytes);
        self.in_second += u64::from(bytes);
        self.busiest = self.busiest.max(self.in_second);
    }

    /// Bits a second: on average and at most.
    fn finish(self, duration: i64, timescale: u32) -> (u32, u32) {
        let bits = u128::from(self.bytes) * 8;
        let average = bits * u128::from(timescale) / u128::from(duration.max(1).unsigned_abs());
        let cap = |bits: u128| u32::try_from(bits).unwrap_or(u32::MAX);
        (cap(average), cap(u128::from(self.busiest) * 8))
    }
}

#[cfg(test)]
mod tests {
    use reelwright_sdk::Timebase;

    use super::*;

    #[derive(Default)]
    struct Rows(Vec<Row>);

    impl Sink for Rows {
        fn put(&mut self, row: Row) -> Result<(), Error> {
            self.0.push(row);
            Ok(())
        }
    }

    /// `(offset, dts, pts - dts, size, bits)` each.
    fn run(samples: &[(u64, i64, i32, u32, u16)], end: Option<i64>) -> (Totals, Vec<Row>) {
        let mut pass = Pass::new(Clock::exact(Timebase { num: 1, den: 1000 }).unwrap(), Rows::default());
        for &(offset, dts, composition, size, bits) in samples {
            pass.add(Record { track: 0, offset, dts, composition, size, bits, duration: 0 }).unwrap();
        }
        let (totals, rows) = pass.finish(end).unwrap();
        (totals, rows.0)
    }

    #[test]
    fn rows_of_all_tables() {
        let samples = [
            (16, 100, 80, 10, 1),
            (26, 140, 120, 5, 0),
            (50, 180, 0, 5, 0),  // something lies between
            (55, 220, 0, 0, 0),  // empty
            (55, 265, 0, 20, 1), // late
        ];
        let (totals, rows) = run(&samples, Some(300));
        let of = |table: fn(&Row) -> bool| rows.iter().copied().filter(table).collect::<Vec<_>>();
        assert_eq!(
            of(|r| matches!(r, Row::Duration { .. })),
            [(3, 40), (1, 45), (1, 35)].map(|(samples, units)| Row::Duration { samples, units })
        );
        assert_eq!(
            of(|r| matches!(r, Row::Composition { .. })),
            [(1, 80), (1, 120), (3, 0)].map(|(samples, units)| Row::Composition { samples, units })
        );
        assert_eq!(of(|r| matches!(r, Row::Sync(_))), [1, 5].map(Row::Sync));
        assert_eq!(of(|r| matches!(r, Row::Size(_))), [10, 5, 5, 0, 20].map(Row::Size));
        assert_eq!(of(|r| matches!(r, Row::Chunk(_))), [16, 50].map(Row::Chunk));
        assert_eq!(
            of(|r| matches!(r, Row::Chunks { .. })),
            [(1, 2), (2, 3)].map(|(first, samples)| Row::Chunks { first, samples })
        );
        let expected = Totals {
            samples: 5,
            keys: 2,
            duration: 200,
            first_dts: 100,
            first_shown: 80,
            shown_until: 200,
            composition: (0, 120),
            rates: BitRates { largest: 20, max: 320, average: 1600 },
        };
        assert_eq!(totals, expected);
    }

    #[test]
    fn a_track_that_is_alone_has_chunks_of_64() {
        let samples: Vec<_> = (0..130).map(|i| (16 + 3 * i, 40 * i as i64, 0, 3, 1)).collect();
        let (_, rows) = run(&samples, None);
        let chunks: Vec<_> =
            rows.into_iter().filter(|r| matches!(r, Row::Chunk(_) | Row::Chunks { .. })).collect();
        let expected = [
            Row::Chunk(16),
            Row::Chunks { first: 1, samples: 64 },
            Row::Chunk(16 + 3 * 64),
            Row::Chunk(16 + 3 * 128),
            Row::Chunks { first: 3, samples: 2 },
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn the_last_duration() {
        let duration = |samples: &[(u64, i64, i32, u32, u16)], end| run(samples, end).0.duration;
        let two = [(16, 0, 0, 1, 1), (17, 40, 0, 1, 0)];
        assert_eq!(duration(&two, Some(73)), 73);
        assert_eq!(duration(&two, Some(40)), 40);
        assert_eq!(duration(&two, Some(-9)), 40); // against the contract
        assert_eq!(duration(&two, Some(i64::MAX)), 80); // so far that it does not fit
        assert_eq!(duration(&two, None), 80);
        assert_eq!(duration(&two[..1], None), 0);
        assert_eq!(run(&two[..1], None).0.shown_until, 1);
        assert_eq!(run(&[], Some(9)), (Totals::default(), Vec::new()));
    }
}
