//! Addresses that are not public, and addresses inside addresses (spec 07, 3).
//!
//! Sources: the IANA special-purpose registries of IPv4 and IPv6 (RFC 6890 and its updates), multicast and reserved space. In IPv6 it is
//! turned round: only 2000::/3 is global unicast, so all else is refused, also what nobody has named yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

type V4Range = (Ipv4Addr, u8, &'static str);
type V6Range = (Ipv6Addr, u8, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

const V4_SPECIAL: &[V4Range] = &[
    (v4(0, 0, 0, 0), 8, "this network"),
    (v4(10, 0, 0, 0), 8, "private use"),
    (v4(100, 64, 0, 0), 10, "shared address space"),
    (v4(127, 0, 0, 0), 8, "loopback"),
    (v4(169, 254, 0, 0), 16, "link local"),
    (v4(172, 16, 0, 0), 12, "private use"),
    (v4(192, 0, 0, 0), 24, "protocol assignments"),
    (v4(192, 0, 2, 0), 24, "documentation"),
    (v4(192, 88, 99, 0), 24, "6to4 relay"),
    (v4(192, 168, 0, 0), 16, "private use"),
    (v4(198, 18, 0, 0), 15, "benchmarking"),
    (v4(198, 51, 100, 0), 24, "documentation"),
    (v4(203, 0, 113, 0), 24, "documentation"),
    (v4(224, 0, 0, 0), 4, "multicast"),
    (v4(255, 255, 255, 255), 32, "broadcast"),
    (v4(240, 0, 0, 0), 4, "reserved"),
];

/// Prefixes that carry an IPv4 address: whether they are public is decided by what they carry.
const V6_WRAPPING: &[V6Range] =
    &[(v6(0x64, 0xff9b, 0), 96, "NAT64"), (v6(0x2001, 0, 0), 32, "Teredo"), (v6(0x2002, 0, 0), 16, "6to4")];

const V6_SPECIAL: &[V6Range] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (v6(0, 0, 0), 96, "IPv4-compatible"),
    (v6(0x64, 0xff9b, 1), 48, "local NAT64"),
    (v6(0x100, 0, 0), 64, "discard only"),
    (v6(0x2001, 0, 0), 23, "protocol assignments"),
    (v6(0x2001, 0xdb8, 0), 32, "documentation"),
    (v6(0x3fff, 0, 0), 20, "documentation"),
    (v6(0xfc00, 0, 0), 7, "unique local"),
    (v6(0xfe80, 0, 0), 10, "link local"),
    (v6(0xff00, 0, 0), 8, "multicast"),
];

const GLOBAL_UNICAST: V6Range = (v6(0x2000, 0, 0), 3, "global unicast");

/// Why an address is not public: the range it is in; none for a public one. Looks at the address as it is: the caller unwraps.
pub fn special_purpose(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => V4_SPECIAL.iter().find(|range| holds_v4(range, ip)).map(|range| range.2),
        IpAddr::V6(ip) => v6_special(ip),
    }
}

fn v6_special(ip: Ipv6Addr) -> Option<&'static str> {
    if V6_WRAPPING.iter().any(|range| holds_v6(range, ip)) {
        return None;
    }
    let named = V6_SPECIAL.iter().find(|range| holds_v6(range, ip)).map(|range| range.2);
    let unassigned = (!holds_v6(&GLOBAL_UNICAST, ip)).then_some("not global unicast");
    named.or(unassigned)
}

fn holds_v4((network, length, _): &V4Range, ip: Ipv4Addr) -> bool {
    let differing = network.to_bits() ^ ip.to_bits();
    differing.leading_zeros() >= u32::from(*length)
}

fn holds_v6((network, length, _): &V6Range, ip: Ipv6Addr) -> bool {
    let differing = network.to_bits() ^ ip.to_bits();
    differing.leading_zeros() >= u32::from(*length)
}

/// All addresses that a packet to `ip` may end at: itself (an IPv4-mapped one as IPv4) and the IPv4 addresses that it wraps.
pub(super) fn forms(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let itself = ip.to_canonical();
    let wrapped = match itself {
        IpAddr::V4(_) => [None, None],
        IpAddr::V6(ip) => wrapped_v4(ip),
    };
    std::iter::once(itself).chain(wrapped.into_iter().flatten().map(IpAddr::V4))
}

fn wrapped_v4(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [_, a, b, c, _, _, y, z] = ip.segments();
    let low = join(y, z);
    match ip.segments() {
        // NAT64: the well-known prefix (RFC 6052) and the local one (RFC 8215), the latter as a /96.
        [0x64, 0xff9b, 0 | 1, ..] => [Some(low), None],
        // 6to4 (RFC 3056).
        [0x2002, ..] => [Some(join(a, b)), None],
        // Teredo (RFC 4380): the server, and the client's address with all bits flipped.
        [0x2001, 0, ..] => [Some(join(b, c)), Some(Ipv4Addr::from_bits(!low.to_bits()))],
        // IPv4-compatible (RFC 4291, deprecated), but for :: and ::1, which are addresses of their own.
        [0, 0, 0, 0, 0, 0, ..] if ip.to_bits() > 1 => [Some(low), None],
        _ => [None, None],
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}
