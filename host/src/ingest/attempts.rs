//! How often an address may fail. Pure.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// Failures within a window after which an address is refused until the window's end.
const MAX_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; of more, those that failed first are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// Failures by address; of IPv6, by the network of 64 bits that one customer has.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<IpAddr, (u32, Instant)>);

impl Attempts {
    /// How long an address has to wait; `None`: not at all.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let (failures, since) = self.0.get(&network(address))?;
        let left = (*since + WINDOW).checked_duration_since(now).filter(|left| !left.is_zero())?;
        (*failures >= MAX_FAILURES).then_some(left)
    }

    /// Counts a failure. True if it is the one too many.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        }
        if self.0.len() >= MAX_ADDRESSES
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(address, _)| *address)
        {
            self.0.remove(&oldest);
        }
        let (failures, since) = self.0.entry(network(address)).or_insert((0, now));
        if now.duration_since(*since) >= WINDOW {
            (*failures, *since) = (0, now);
        }
        *failures += 1;
        *failures == MAX_FAILURES
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ten_failures_in_a_minute_are_too_many() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let (bad, good) = (address("10.0.0.1"), address("10.0.0.2"));
        let told: Vec<_> = (0..10).map(|_| attempts.failed(bad, start)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert_eq!(attempts.wait(bad, start + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(attempts.wait(address("::ffff:10.0.0.1"), start), Some(WINDOW), "the same address");
        assert_eq!(attempts.wait(good, start), None);
        assert_eq!(attempts.wait(bad, start + WINDOW), None);
        assert!(!attempts.failed(bad, start + WINDOW), "a new window");
        assert_eq!(attempts.wait(bad, start + WINDOW), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for i in 0..10 {
            attempts.failed(address(&format!("2001:db8:1:2::{i}")), start);
        }
        assert!(attempts.wait(address("2001:db8:1:2:ffff::9"), start).is_some());
        assert!(attempts.wait(address("2001:db8:1:3::1"), start).is_none());
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for i in 0..MAX_ADDRESSES as u32 + 10 {
            attempts.failed(IpAddr::from(i.to_be_bytes()), start + Duration::from_micros(u64::from(i)));
        }
        assert_eq!(attempts.0.len(), MAX_ADDRESSES);
    }
}
