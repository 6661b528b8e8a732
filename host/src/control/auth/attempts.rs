//! How often who fails to log in may try again. Pure.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::network::network;

/// Failures that cost nothing; each further one doubles the wait, which begins with a second.
pub(super) const FREE: u32 = 5;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// After so long without a failure all are forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Addresses that are remembered; one more takes the place of the one that failed longest ago.
const MAX_ADDRESSES: usize = 1024;

/// Failures by address; of IPv6, by network of 64 bits.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<IpAddr, Failures>);

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn wait(&self) -> Duration {
        match self.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => Duration::from_secs(1 << more.min(6)).min(MAX_WAIT),
        }
    }
}

impl Attempts {
    /// How long an address has to wait yet.
    pub(super) fn wait(&self, ip: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.0.get(&network(ip))?;
        let due = failures.last + failures.wait();
        due.checked_duration_since(now).filter(|time| !time.is_zero())
    }

    /// Counts a failure. Returns how many there were in a row.
    pub(super) fn failed(&mut self, ip: IpAddr, now: Instant) -> u32 {
        let ip = network(ip);
        if !self.0.contains_key(&ip) && self.0.len() >= MAX_ADDRESSES {
            let oldest = self.0.iter().min_by_key(|(_, failures)| failures.last).map(|(ip, _)| *ip);
            oldest.map(|ip| self.0.remove(&ip));
        }
        let failures = self.0.entry(ip).or_insert(Failures { count: 0, last: now });
        if now.saturating_duration_since(failures.last) > FORGET {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        failures.count
    }

    /// Forgets what an address did before.
    pub(super) fn succeeded(&mut self, ip: IpAddr) {
        self.0.remove(&network(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait() {
        let (mut attempts, ip) = (Attempts::default(), IpAddr::from([192, 0, 2, 1]));
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..14 {
            attempts.failed(ip, now);
            let wait = attempts.wait(ip, now).unwrap_or_default();
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(attempts.wait(ip, now), None, "over when it is over");
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        now += FORGET + Duration::from_secs(1);
        assert_eq!(attempts.failed(ip, now), 1);
        attempts.succeeded(ip);
        assert!(attempts.0.is_empty());
    }

    #[test]
    fn addresses_are_bounded_and_networks_are_one() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for i in 0..3000u32 {
            attempts.failed(IpAddr::from(i.to_be_bytes()), now + Duration::from_millis(i.into()));
        }
        assert_eq!(attempts.0.len(), MAX_ADDRESSES);
        assert!(attempts.0.contains_key(&IpAddr::from(2999u32.to_be_bytes())));
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(v6("2001:db8::1:2:3:4")), network(v6("2001:db8::5:6:7:8")));
        assert_ne!(network(v6("2001:db8::1")), network(v6("2001:db8:0:1::1")));
        assert_eq!(network(v6("::ffff:192.0.2.1")), IpAddr::from([192, 0, 2, 1]));
    }
}
