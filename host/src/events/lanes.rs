//! In which order, and when, events go to one receiver. Pure: keys and moments in, keys out.
//!
//! Events of a recording form a lane, events of none another. A lane has one event under way at most, so that its
//! order holds whatever fails. When the receiver refuses an event its lane waits; when the receiver can't be reached
//! all lanes wait, and one event at a time finds out whether it is back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// The config id of a recording, or none.
pub(super) type LaneId = Option<u64>;

/// How many events are under way at most.
const AT_ONCE: usize = 8;

/// The shortest wait: what fails at once must not be tried without a pause.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// How long a failed delivery waits: at first, and at most; less than 100 ms is taken for 100 ms. Each failure doubles
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after so many failures in a row: a half of it is fixed, the other is chosen by `random`, any number.
    pub(super) fn wait(self, failures: u32, random: u64) -> Duration {
        let (min, max) = (self.min.max(MIN_WAIT), self.max.max(MIN_WAIT));
        let doubled = min.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(max);
        let half = doubled / 2;
        half + half.mul_f64((random % 1024) as f64 / 1023.0)
    }
}

#[derive(Debug, Default)]
struct Lane {
    /// In order; the first may be under way.
    keys: VecDeque<u64>,
    under_way: bool,
    failures: u32,
    /// When it may be tried again, if it waits.
    asleep: Option<Instant>,
}

/// All that waits for one receiver.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    /// All keys, oldest first, and when they came, in milliseconds since 1970.
    keys: BTreeMap<u64, (LaneId, u64)>,
    /// Lanes whose next event may go now, in the order in which they became so.
    ready: VecDeque<LaneId>,
    asleep: BTreeSet<(Instant, LaneId)>,
    under_way: usize,
    /// The receiver can't be reached: failures in a row, and until when nothing is tried.
    down: Option<(u32, Instant)>,
}

impl Lanes {
    /// Events that wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing can be done now: nothing is under way and nothing may be tried before [`Lanes::wake_at`].
    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0 && (self.ready.is_empty() || self.down.is_some())
    }

    /// Adds an event of that time. Keys grow.
    pub(super) fn push(&mut self, key: u64, id: LaneId, at_ms: u64) {
        self.keys.insert(key, (id, at_ms));
        let lane = self.lanes.entry(id).or_default();
        lane.keys.push_back(key);
        if lane.keys.len() == 1 {
            self.ready.push_back(id);
        }
    }

    /// The next event to deliver, which is under way from now on; `None`: nothing may be tried now.
    pub(super) fn next(&mut self, now: Instant) -> Option<(LaneId, u64)> {
        while let Some((until, id)) = self.asleep.first().copied().filter(|(until, _)| *until <= now) {
            self.asleep.remove(&(until, id));
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.asleep = None;
                self.ready.push_back(id);
            }
        }
        let at_once = match self.down {
            Some((_, until)) if now < until => 0,
            Some(_) => 1,
            None => AT_ONCE,
        };
        if self.under_way >= at_once {
            return None;
        }
        let id = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&id)?;
        lane.under_way = true;
        self.under_way += 1;
        Some((id, *lane.keys.front()?))
    }

    /// When [`Lanes::next`] may have something that it has not now, unless something happens first.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match self.down {
            _ if self.under_way > 0 && self.down.is_some() => None,
            Some((_, until)) if self.ready.is_empty() => {
                self.asleep.first().map(|(asleep, _)| until.max(*asleep))
            }
            Some((_, until)) => Some(until),
            None => self.asleep.first().map(|(until, _)| *until),
        }
    }

    /// The event of a lane that was under way is done with: delivered, or given up. Returns its key.
    pub(super) fn done(&mut self, id: LaneId, reached: bool) -> Option<u64> {
        if reached {
            self.down = None;
        }
        let lane = self.landed(id)?;
        lane.failures = 0;
        let key = lane.keys.pop_front()?;
        match lane.keys.is_empty() {
            true => drop(self.lanes.remove(&id)),
            false => self.ready.push_back(id),
        }
        self.keys.remove(&key);
        Some(key)
    }

    /// The receiver refused the event of a lane that was under way: it is tried again later. Returns how often that
    /// has happened to it.
    pub(super) fn refused(&mut self, id: LaneId, now: Instant, backoff: Backoff, random: u64) -> u32 {
        self.down = None;
        let Some(lane) = self.landed(id) else { return 0 };
        lane.failures = lane.failures.saturating_add(1);
        let failures = lane.failures;
        let until = now + backoff.wait(lane.failures, random);
        lane.asleep = Some(until);
        self.asleep.insert((until, id));
        failures
    }

    /// The event of a lane that was under way did not get to the receiver. Other lanes are tried first, in case it is
    /// the event that the receiver can't take.
    pub(super) fn again(&mut self, id: LaneId) {
        if self.landed(id).is_some() {
            self.ready.push_back(id);
        }
    }

    /// The receiver can't be reached. Returns how long nothing is tried, if that is news.
    pub(super) fn unreachable(&mut self, now: Instant, backoff: Backoff, random: u64) -> Option<Duration> {
        let failures = match self.down {
            // Said by one of those that were under way when it was found out.
            Some((_, until)) if now < until => return None,
            before => before.map_or(1, |(failures, _)| failures.saturating_add(1)),
        };
        let wait = backoff.wait(failures, random);
        self.down = Some((failures, now + wait));
        Some(wait)
    }

    /// When an event came, in milliseconds since 1970.
    pub(super) fn came_ms(&self, key: u64) -> Option<u64> {
        self.keys.get(&key).map(|(_, at_ms)| *at_ms)
    }

    /// Removes the oldest event that is not under way. Returns its key.
    pub(super) fn drop_oldest(&mut self) -> Option<u64> {
        self.drop_before(u64::MAX)
    }

    /// The same, if it came before a moment.
    pub(super) fn drop_before(&mut self, at_ms: u64) -> Option<u64> {
        let under_way = |id: LaneId, key: u64| {
            self.lanes.get(&id).is_some_and(|lane| lane.under_way && lane.keys.front() == Some(&key))
        };
        let mut oldest = self.keys.iter().map(|(key, (id, came_ms))| (*key, *id, *came_ms));
        let (key, id, came_ms) = oldest.find(|(key, id, _)| !under_way(*id, *key))?;
        if came_ms >= at_ms {
            return None;
        }
        self.keys.remove(&key);
        let lane = self.lanes.get_mut(&id)?;
        // The first may be under way.
        lane.keys.remove(usize::from(lane.keys.front() != Some(&key)));
        if lane.keys.is_empty() {
            if let Some(until) = lane.asleep {
                self.asleep.remove(&(until, id));
            }
            self.ready.retain(|other| *other != id);
            self.lanes.remove(&id);
        }
        Some(key)
    }

    fn landed(&mut self, id: LaneId) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(&id)?;
        if std::mem::take(&mut lane.under_way) {
            self.under_way -= 1;
        }
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };
    const CAM: LaneId = Some(7);

    fn filled() -> Lanes {
        let mut lanes = Lanes::default();
        for (key, id) in [(1, CAM), (2, None), (3, CAM), (4, None), (5, Some(8))] {
            lanes.push(key, id, key * 1000);
        }
        lanes
    }

    #[test]
    fn lanes_go_side_by_side_and_each_in_its_order() {
        let (mut lanes, now) = (filled(), Instant::now());
        assert_eq!(lanes.next(now), Some((CAM, 1)));
        assert_eq!(lanes.next(now), Some((None, 2)));
        assert_eq!(lanes.next(now), Some((Some(8), 5)));
        assert_eq!(lanes.next(now), None, "each lane has one under way");
        assert_eq!(lanes.done(CAM, true), Some(1));
        assert_eq!(lanes.next(now), Some((CAM, 3)));
        assert_eq!(lanes.done(CAM, true), Some(3));
        assert_eq!(lanes.next(now), None);
        assert_eq!(lanes.len(), 3);
        lanes.push(6, CAM, 6);
        assert_eq!(lanes.next(now), Some((CAM, 6)));
    }

    #[test]
    fn no_more_than_so_many_at_once() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        (0..100).for_each(|i| lanes.push(i, Some(i), i));
        assert_eq!(std::iter::from_fn(|| lanes.next(now)).count(), AT_ONCE);
        lanes.done(Some(0), true);
        assert_eq!(lanes.next(now), Some((Some(8), 8)));
    }

    #[test]
    fn a_refused_event_holds_up_its_lane_only() {
        let (mut lanes, start) = (filled(), Instant::now());
        assert_eq!(lanes.next(start), Some((CAM, 1)));
        lanes.refused(CAM, start, BACKOFF, 1023);
        assert_eq!(lanes.next(start), Some((None, 2)));
        assert_eq!(lanes.next(start), Some((Some(8), 5)));
        assert_eq!(lanes.next(start), None);
        assert_eq!(lanes.wake_at(), Some(start + Duration::from_secs(1)));
        let later = start + Duration::from_secs(1);
        assert_eq!(lanes.next(later), Some((CAM, 1)), "the same again");
        lanes.refused(CAM, later, BACKOFF, 1023);
        assert_eq!(lanes.wake_at(), Some(later + Duration::from_secs(2)));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let none = Backoff { min: Duration::ZERO, max: Duration::ZERO };
        assert_eq!(none.wait(1, 1023), MIN_WAIT, "never without a pause");
        let seconds = |failures, random| BACKOFF.wait(failures, random).as_secs_f64();
        let longest: Vec<_> = (1..9).map(|failures| seconds(failures, 1023)).collect();
        assert_eq!(longest, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!((seconds(u32::MAX, 1023), seconds(3, 0)), (60.0, 2.0));
    }

    #[test]
    fn a_dead_receiver_is_tried_by_one_event_at_a_time() {
        let (mut lanes, start) = (filled(), Instant::now());
        let ids: Vec<_> = std::iter::from_fn(|| lanes.next(start)).map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 3);
        let fail = |lanes: &mut Lanes, id, now| {
            lanes.again(id);
            lanes.unreachable(now, BACKOFF, 1023)
        };
        let told: Vec<_> = ids.iter().map(|id| fail(&mut lanes, *id, start)).collect();
        assert_eq!(told, [Some(Duration::from_secs(1)), None, None]);
        assert!(lanes.is_idle());
        assert_eq!(lanes.next(start), None);
        let later = lanes.wake_at().unwrap();
        assert_eq!(later, start + Duration::from_secs(1));
        let (probe, _) = lanes.next(later).unwrap();
        assert_eq!((lanes.next(later), lanes.wake_at()), (None, None));
        assert_eq!(fail(&mut lanes, probe, later), Some(Duration::from_secs(2)));
        let later = lanes.wake_at().unwrap();
        let (probe, key) = lanes.next(later).unwrap();
        assert_eq!(lanes.done(probe, true), Some(key));
        assert_eq!(
            (probe, std::iter::from_fn(|| lanes.next(later)).count()),
            (None, 3),
            "another lane is tried, and then all go again"
        );
    }

    #[test]
    fn the_oldest_is_dropped_but_not_what_is_under_way() {
        let (mut lanes, now) = (filled(), Instant::now());
        assert_eq!(lanes.next(now), Some((CAM, 1)));
        assert_eq!((lanes.drop_before(2000), lanes.drop_before(2001)), (None, Some(2)));
        assert_eq!([3, 4, 5].map(|_| lanes.drop_oldest()), [Some(3), Some(4), Some(5)]);
        assert_eq!(lanes.drop_oldest(), None);
        assert_eq!(lanes.done(CAM, true), Some(1));
        assert_eq!((lanes.len(), lanes.next(now)), (0, None));
        lanes.push(9, None, 9);
        assert_eq!(lanes.next(now), Some((None, 9)));
    }
}
