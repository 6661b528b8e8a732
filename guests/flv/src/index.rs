//! The key frame index: which tags go into `onMetaData.keyframes`, in bounded memory.

/// Where decoding can start: a video tag of FrameType 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) time_ms: u32,
    /// Of the tag's first byte in the file.
    pub(crate) offset: u64,
}

/// At most `capacity` entries, evenly spread: when they are full, every second one goes, and from then on
/// only every second key frame is taken, then every fourth, and so on.
///
/// Which entries there are depends on nothing but the key frames offered.
#[derive(Debug)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    capacity: usize,
    /// One of so many key frames is taken; a power of two.
    stride: u64,
    /// Key frames offered, those of an equal time counted once.
    offered: u64,
    last_ms: Option<u32>,
}

impl Index {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: Vec::new(), capacity, stride: 1, offered: 0, last_ms: None }
    }

    /// Takes the next key frame if it is its turn. Of several with one time only the first counts, as a
    /// reader that looks up a time finds just one.
    pub(crate) fn offer(&mut self, entry: Entry) {
        if self.last_ms.replace(entry.time_ms) == Some(entry.time_ms) {
            return;
        }
        let turn = self.offered;
        self.offered += 1;
        if turn.is_multiple_of(self.stride) && self.entries.len() == self.capacity {
            self.thin();
        }
        if turn.is_multiple_of(self.stride) && self.entries.len() < self.capacity {
            self.entries.push(entry);
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn thin(&mut self) {
        let mut keep = false;
        self.entries.retain(|_| {
            keep = !keep;
            keep
        });
        self.stride *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries' times after `count` key frames, one a millisecond.
    fn times(capacity: usize, count: u32) -> Vec<u32> {
        let mut index = Index::new(capacity);
        for time_ms in 0..count {
            index.offer(Entry { time_ms, offset: u64::from(time_ms) * 10 });
        }
        assert!(index.entries().iter().all(|e| e.offset == u64::from(e.time_ms) * 10));
        index.entries().iter().map(|e| e.time_ms).collect()
    }

    #[test]
    fn every_second_entry_goes_when_it_is_full() {
        assert_eq!(times(4, 4), [0, 1, 2, 3]);
        assert_eq!(times(4, 5), [0, 2, 4]);
        assert_eq!(times(4, 8), [0, 2, 4, 6]);
        assert_eq!(times(4, 9), [0, 4, 8]);
        assert_eq!(times(4, 100), [0, 32, 64, 96]);
    }

    #[test]
    fn any_capacity_gives_multiples_of_one_stride() {
        for capacity in 0..20 {
            for count in 0..300 {
                let times = times(capacity, count);
                assert!(times.len() <= capacity);
                // No more thinning than needed: the entries cover the file, and at least half are in use.
                let stride = times.get(1).copied().unwrap_or(1);
                assert!(times.iter().zip(0..).all(|(&t, i)| t == i * stride), "{capacity} {count} {times:?}");
                if capacity > 1 && count > 0 {
                    assert!(stride.is_power_of_two());
                    assert_eq!(times.len() as u32, count.div_ceil(stride));
                    assert!(stride == 1 || times.len() > capacity / 2);
                }
            }
        }
    }

    #[test]
    fn one_entry_a_time() {
        let mut index = Index::new(9);
        for (time_ms, offset) in [(0, 100), (0, 200), (5, 300), (5, 400), (5, 500), (7, 600)] {
            index.offer(Entry { time_ms, offset });
        }
        assert_eq!(index.entries().iter().map(|e| e.offset).collect::<Vec<_>>(), [100, 300, 600]);
    }
}
