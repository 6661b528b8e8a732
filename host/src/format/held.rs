//! The payloads that a writer still may refer to, by sequence number.

use std::collections::VecDeque;

use bytes::Bytes;

/// A run of samples, first come first freed.
#[derive(Debug, Default)]
pub(super) struct Held {
    first: u64,
    /// DTS in milliseconds, and payload.
    samples: VecDeque<(i64, Bytes)>,
    bytes: u64,
}

impl Held {
    /// Sequence number that the next sample gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.samples.len() as u64
    }

    /// Sequence number of the oldest sample that is held.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// DTS of the oldest sample that is held, in milliseconds.
    pub(super) fn first_ms(&self) -> Option<i64> {
        self.samples.front().map(|(dts_ms, _)| *dts_ms)
    }

    /// Adds a sample and returns its number.
    pub(super) fn push(&mut self, dts_ms: i64, payload: Bytes) -> u64 {
        self.bytes += payload.len() as u64;
        self.samples.push_back((dts_ms, payload));
        self.next() - 1
    }

    /// A sample's payload; the error says what is held.
    pub(super) fn get(&self, seq: u64) -> Result<&Bytes, String> {
        let held = seq.checked_sub(self.first).and_then(|i| self.samples.get(usize::try_from(i).ok()?));
        held.map(|(_, payload)| payload).ok_or_else(|| match seq < self.first {
            true => format!("sample {seq} was freed: {} is the first that is held", self.first),
            false => format!("there is no sample {seq} yet: the next is {}", self.next()),
        })
    }

    /// Frees all samples before `seq`, which is not beyond the next.
    pub(super) fn free_before(&mut self, seq: u64) {
        while self.first < seq {
            let Some((_, payload)) = self.samples.pop_front() else { break };
            self.bytes -= payload.len() as u64;
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_and_future_samples_are_told_apart() {
        let mut held = Held::default();
        for i in 0..4u8 {
            assert_eq!(held.push(i64::from(i) * 40, vec![i; 10].into()), u64::from(i));
        }
        held.free_before(3);
        assert_eq!((held.first(), held.next(), held.bytes()), (3, 4, 10));
        assert_eq!(held.first_ms(), Some(120));
        assert_eq!(held.get(3).unwrap(), &[3; 10][..]);
        assert_eq!(held.get(2).unwrap_err(), "sample 2 was freed: 3 is the first that is held");
        assert_eq!(held.get(4).unwrap_err(), "there is no sample 4 yet: the next is 4");
        held.free_before(4);
        assert_eq!(held.push(160, Bytes::new()), 4);
    }
}
