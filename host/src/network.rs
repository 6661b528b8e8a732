//! Who is one peer, for limits by address.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one address: with IPv6 a network of 64 bits, which is what one customer gets.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    }
}
