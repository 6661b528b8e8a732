//! The places that connections have: so many in all, and so many for one address.
//!
//! When none is left, the newcomer takes the place of the connection that has waited longest without having sent
//! anything of use, of the address that has most. So connections that do nothing keep nobody out, however many.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// A listener's places. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Seats(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    table: Mutex<Table>,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    taken: HashMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    ip: IpAddr,
    since: Instant,
    work: Arc<Work>,
    leave: CancellationToken,
}

/// How many are at work on a connection, and who waits for none to be.
#[derive(Debug)]
pub(super) struct Work {
    /// Those who keep the place.
    count: AtomicUsize,
    /// Those, and those who wait for the rest of a request, within a time of their own.
    turns: AtomicUsize,
    freed: Arc<Notify>,
}

impl Work {
    pub(super) fn is_none(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether somebody else than the connection looks at the clock.
    pub(super) fn is_our_turn(&self) -> bool {
        self.turns.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.freed.notify_one();
        }
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are at work.
    All,
    /// All that one address may have are.
    Address,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    id: u64,
    seats: Seats,
    work: Arc<Work>,
    leave: CancellationToken,
}

/// Somebody is at work on a connection, until this is dropped: it keeps its place.
#[derive(Debug)]
pub(super) struct Busy(Arc<Work>);

impl Busy {
    pub(super) fn new(work: &Arc<Work>) -> Self {
        work.turns.fetch_add(1, Ordering::Relaxed);
        work.begin();
        Self(work.clone())
    }

    /// Waits for what is the client's turn. Until it has come the place can be taken.
    pub(super) async fn wait_for<T>(&self, client: impl Future<Output = T>) -> T {
        /// Back at work, also if the wait is given up.
        struct Back<'a>(&'a Work);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.begin();
            }
        }
        self.0.end();
        let _back = Back(&self.0);
        client.await
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
        self.0.turns.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, table: Mutex::default(), freed: Arc::default() }))
    }

    /// Whether an address with so many places has its share: three quarters, and on this machine all.
    fn has_its_share(&self, ip: IpAddr, count: usize) -> bool {
        !ip.is_loopback() && count >= (self.0.max * 3 / 4).max(1)
    }

    /// Takes a place for a connection from an address, if need be from another one, which is told to leave.
    pub(super) fn take(&self, ip: IpAddr) -> Result<Seat, Full> {
        let ip = ip.to_canonical();
        let mut table = lock(&self.0.table);
        let mut by_ip: HashMap<IpAddr, usize> = HashMap::new();
        table.taken.values().for_each(|taken| *by_ip.entry(taken.ip).or_default() += 1);
        let own = self.has_its_share(ip, by_ip.get(&ip).copied().unwrap_or_default());
        if own || table.taken.len() >= self.0.max {
            let leaves = table
                .taken
                .iter()
                .filter(|(_, taken)| taken.work.is_none() && (!own || taken.ip == ip))
                .min_by_key(|(id, taken)| (Reverse(by_ip.get(&taken.ip)), taken.since, **id))
                .map(|(id, _)| *id);
            let Some(taken) = leaves.and_then(|id| table.taken.remove(&id)) else {
                return Err(if own { Full::Address } else { Full::All });
            };
            taken.leave.cancel();
        }
        table.last_id += 1;
        let work = Arc::new(Work {
            count: AtomicUsize::new(0),
            turns: AtomicUsize::new(0),
            freed: self.0.freed.clone(),
        });
        let (id, leave) = (table.last_id, CancellationToken::new());
        let since = Instant::now();
        table.taken.insert(id, Taken { ip, since, work: work.clone(), leave: leave.clone() });
        Ok(Seat { id, seats: self.clone(), work, leave })
    }

    /// Waits until a place may be free.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Seat {
    /// Cancelled when somebody else gets the place.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.leave
    }

    /// How many are at work on the connection.
    pub(super) fn work(&self) -> &Arc<Work> {
        &self.work
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.0.table).taken.remove(&self.id);
        self.seats.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn who_does_nothing_longest_goes_first() {
        let seats = Seats::new(2);
        let first = seats.take(LOCAL).unwrap();
        let second = seats.take(LOCAL).unwrap();
        let third = seats.take(LOCAL).unwrap();
        assert!(first.leave().is_cancelled() && !second.leave().is_cancelled());
        let at_work = Busy::new(second.work());
        let _fourth = seats.take(LOCAL).unwrap();
        assert!(third.leave().is_cancelled() && !second.leave().is_cancelled());
        drop(at_work);
        let _fifth = seats.take(LOCAL).unwrap();
        assert!(second.leave().is_cancelled());
    }

    #[test]
    fn who_is_at_work_stays() {
        let seats = Seats::new(1);
        let first = seats.take(LOCAL).unwrap();
        let _busy = Busy::new(first.work());
        assert_eq!(seats.take(LOCAL).unwrap_err(), Full::All);
        drop(first);
        assert!(seats.take(LOCAL).is_ok());
    }

    #[tokio::test]
    async fn who_waits_for_the_client_does_not_keep_its_place() {
        let seats = Seats::new(1);
        let first = seats.take(LOCAL).unwrap();
        let busy = Busy::new(first.work());
        let second = busy.wait_for(async { seats.take(LOCAL) }).await.unwrap();
        assert!(first.leave().is_cancelled() && first.work().is_our_turn());
        let busy = Busy::new(second.work());
        busy.wait_for(async {}).await;
        assert_eq!(seats.take(LOCAL).unwrap_err(), Full::All, "at work again");
        drop(busy);
        assert!(second.work().is_none() && !second.work().is_our_turn());
    }

    #[test]
    fn an_address_has_its_share() {
        let seats = Seats::new(4);
        let mut of_a: Vec<_> = (0..3).map(|_| seats.take(A).unwrap()).collect();
        let of_b = seats.take(B).unwrap();
        of_a.push(seats.take(A).unwrap());
        assert!(of_a[0].leave().is_cancelled() && !of_b.leave().is_cancelled(), "it takes its own");
        let _busy: Vec<_> = of_a[1..].iter().map(|seat| Busy::new(seat.work())).collect();
        assert_eq!(seats.take(A).unwrap_err(), Full::Address);
        // Another address takes one of who has most, if it does nothing.
        drop(_busy);
        let _more_of_b = seats.take(B).unwrap();
        assert!(of_a[1].leave().is_cancelled() && !of_b.leave().is_cancelled());
    }

    #[tokio::test]
    async fn who_waits_is_told() {
        let seats = Seats::new(1);
        let seat = seats.take(LOCAL).unwrap();
        let wait = || tokio::time::timeout(std::time::Duration::from_secs(5), seats.freed());
        let busy = Busy::new(seat.work());
        assert_eq!(seats.take(LOCAL).unwrap_err(), Full::All);
        drop(busy);
        wait().await.unwrap();
        let next = seats.take(LOCAL).unwrap();
        assert!(seat.leave().is_cancelled());
        drop(next);
        wait().await.unwrap();
    }
}
