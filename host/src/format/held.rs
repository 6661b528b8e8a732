//! The payloads that a writer still may refer to, by sequence number.

use std::collections::VecDeque;

use bytes::Bytes;

/// A run of samples, first come first freed.
#[derive(Debug, Default)]
pub(super) struct Held {
    first: u64,
    samples: VecDeque<Bytes>,
    bytes: usize,
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
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a sample and returns its number.
    pub(super) fn push(&mut self, payload: Bytes) -> u64 {
        self.bytes += payload.len();
        self.samples.push_back(payload);
        self.next() - 1
    }

    /// A sample's payload; the error says what is held.
    pub(super) fn get(&self, seq: u64) -> Result<&Bytes, String> {
        seq.checked_sub(self.first).and_then(|i| self.samples.get(usize::try_from(i).ok()?)).ok_or_else(
            || match seq < self.first {
                true => format!("sample {seq} was freed: {} is the first that is held", self.first),
                false => format!("there is no sample {seq} yet: the next is {}", self.next()),
            },
        )
    }

    /// Frees all samples before `seq`, which is not beyond the next.
    pub(super) fn free_before(&mut self, seq: u64) {
        while self.first < seq {
            let Some(payload) = self.samples.pop_front() else { break };
            self.bytes -= payload.len();
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
            assert_eq!(held.push(vec![i; 10].into()), u64::from(i));
        }
        held.free_before(3);
        assert_eq!((held.first(), held.next(), held.bytes()), (3, 4, 10));
        assert_eq!(held.get(3).unwrap(), &[3; 10][..]);
        assert_eq!(held.get(2).unwrap_err(), "sample 2 was freed: 3 is the first that is held");
        assert_eq!(held.get(4).unwrap_err(), "there is no sample 4 yet: the next is 4");
        held.free_before(4);
        assert_eq!(held.push(Bytes::new()), 4);
    }
}
