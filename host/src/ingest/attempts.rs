//! How often an address may fail. Pure.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::network::network;

/// Failures within a window after which an address is refused until the window's end.
const MAX_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; of more, those that failed first are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// Failures by address; of IPv6, by the network of 64 bits that one customer has.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<IpAddr, Entry>);

#[derive(Debug)]
struct Entry {
    failures: u32,
    /// Attempts that are not decided yet.
    pending: u32,
    /// The window's start.
    since: Instant,
}

/// Why an attempt can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Too many have failed; so long it has to wait.
    Failed(Duration),
    /// Too many would have, should all that are not decided yet fail.
    Pending,
}

impl Attempts {
    /// Begins an attempt, which [`Attempts::end`] has to follow.
    pub(super) fn begin(&mut self, address: IpAddr, now: Instant) -> Result<(), Busy> {
        let address = network(address);
        if !self.0.contains_key(&address) {
            self.make_room(now);
        }
        let entry = self.0.entry(address).or_insert(Entry { failures: 0, pending: 0, since: now });
        if now.duration_since(entry.since) >= WINDOW {
            (entry.failures, entry.since) = (0, now);
        }
        if entry.failures >= MAX_FAILURES {
            return Err(Busy::Failed((entry.since + WINDOW).duration_since(now)));
        }
        if entry.failures + entry.pending >= MAX_FAILURES {
            return Err(Busy::Pending);
        }
        entry.pending += 1;
        Ok(())
    }

    /// Ends an attempt. True if its failure is the one too many.
    pub(super) fn end(&mut self, address: IpAddr, failed: bool) -> bool {
        let address = network(address);
        let Some(entry) = self.0.get_mut(&address) else { return false };
        entry.pending = entry.pending.saturating_sub(1);
        entry.failures += u32::from(failed);
        let (failures, pending) = (entry.failures, entry.pending);
        if failures == 0 && pending == 0 {
            self.0.remove(&address);
        }
        failed && failures == MAX_FAILURES
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|_, entry| entry.pending > 0 || now.duration_since(entry.since) < WINDOW);
        }
        if self.0.len() >= MAX_ADDRESSES
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, entry)| entry.since).map(|(address, _)| *address)
        {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fail(attempts: &mut Attempts, address: IpAddr, now: Instant) -> bool {
        attempts.begin(address, now).unwrap();
        attempts.end(address, true)
    }

    #[test]
    fn ten_failures_in_a_minute_are_too_many() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let (bad, good) = (address("10.0.0.1"), address("10.0.0.2"));
        let told: Vec<_> = (0..10).map(|_| fail(&mut attempts, bad, start)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        let later = start + Duration::from_secs(20);
        assert_eq!(attempts.begin(bad, later), Err(Busy::Failed(Duration::from_secs(40))));
        let same = address("::ffff:10.0.0.1");
        assert_eq!(attempts.begin(same, start), Err(Busy::Failed(WINDOW)), "the same address");
        assert_eq!(attempts.begin(good, start), Ok(()));
        assert!(!fail(&mut attempts, bad, start + WINDOW), "a new window");
        assert_eq!(attempts.begin(bad, start + WINDOW), Ok(()));
    }

    #[test]
    fn no_more_than_ten_are_tried_at_once() {
        let (mut attempts, start, one) = (Attempts::default(), Instant::now(), address("10.0.0.1"));
        assert!((0..10).all(|_| attempts.begin(one, start).is_ok()));
        assert_eq!(attempts.begin(one, start), Err(Busy::Pending));
        attempts.end(one, false);
        assert_eq!(attempts.begin(one, start), Ok(()));
        assert!((0..10).all(|_| !attempts.end(one, false)));
        assert!(attempts.0.is_empty(), "who did nothing wrong is not remembered");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for i in 0..10 {
            fail(&mut attempts, address(&format!("2001:db8:1:2::{i}")), start);
        }
        assert!(attempts.begin(address("2001:db8:1:2:ffff::9"), start).is_err());
        assert!(attempts.begin(address("2001:db8:1:3::1"), start).is_ok());
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for i in 0..MAX_ADDRESSES as u32 + 10 {
            let now = start + Duration::from_micros(u64::from(i));
            fail(&mut attempts, IpAddr::from(i.to_be_bytes()), now);
        }
        assert_eq!(attempts.0.len(), MAX_ADDRESSES);
    }
}
