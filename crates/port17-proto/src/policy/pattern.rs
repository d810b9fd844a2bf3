use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::special;

/// Which addresses a pattern is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// All.
    Any,
    /// An IPv4 prefix, host bits zero.
    V4(Ipv4Net),
    /// An IPv6 prefix, host bits zero.
    V6(Ipv6Net),
    /// All that are not public, see [`super::special_purpose`].
    Private,
}

/// Which ports: ranges within 1..=65535, ascending, neither overlapping nor touching, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    ranges: Vec<(u16, u16)>,
}

/// `RANGE:PORTS`, the destinations that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The addresses.
    pub net: Net,
    /// The ports.
    pub ports: Ports,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No colon.
    #[error("\"{0}\" has no ports: write RANGE:PORTS, for example *:443")]
    NoPorts(String),
    /// An IPv6 address whose end cannot be told from a port.
    #[error("\"{0}\": write an IPv6 address in brackets, for example [2001:db8::1]:443")]
    Brackets(String),
    /// Not an address range.
    #[error("\"{0}\" is no address range: *, private, an address or a prefix like 192.0.2.0/24 is expected")]
    Net(String),
    /// The prefix is shorter than the address.
    #[error("\"{0}\" has bits set past its prefix; {1} is the range it is in")]
    HostBits(String, IpNet),
    /// An IPv4 address in IPv6 clothes: addresses are looked at unwrapped, so it would never match.
    #[error("\"{0}\" is an IPv4 range: write it as one")]
    Mapped(String),
    /// Not a port.
    #[error("\"{0}\" is no port: *, or a list like 80,443,8000-8999 within 1 to 65535 is expected")]
    Port(String),
}

impl Net {
    /// Whether an address is in it; the caller unwraps first.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::Any, _) => true,
            (Self::V4(net), IpAddr::V4(ip)) => net.contains(&ip),
            (Self::V6(net), IpAddr::V6(ip)) => net.contains(&ip),
            (Self::V4(_), IpAddr::V6(_)) | (Self::V6(_), IpAddr::V4(_)) => false,
            (Self::Private, ip) => special::special_purpose(ip).is_some(),
        }
    }

    pub(super) fn holds_all_v4(&self) -> bool {
        match self {
            Self::Any => true,
            Self::V4(net) => net.prefix_len() == 0,
            Self::V6(_) | Self::Private => false,
        }
    }

    pub(super) fn holds_all_v6(&self) -> bool {
        match self {
            Self::Any => true,
            Self::V6(net) => net.prefix_len() == 0,
            Self::V4(_) | Self::Private => false,
        }
    }
}

impl Ports {
    const ALL: (u16, u16) = (1, u16::MAX);

    /// Whether a port is among them; 0 never is.
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// As they stand in a compiled policy: all ports are no range at all.
    pub(super) fn listed(&self) -> &[(u16, u16)] {
        if self.ranges == [Self::ALL] { &[] } else { &self.ranges }
    }

    /// The reverse of [`Self::listed`]; none when it is not the one form of these ports.
    pub(super) fn from_listed(listed: Vec<(u16, u16)>) -> Option<Self> {
        if listed.is_empty() {
            return Some(Self { ranges: vec![Self::ALL] });
        }
        let ports = Self::normal(listed.clone())?;
        (ports.listed() == listed).then_some(ports)
    }

    /// Ports in groups of at most `most` ranges.
    pub(super) fn split(self, most: usize) -> Vec<Self> {
        self.ranges.chunks(most).map(|ranges| Self { ranges: ranges.to_vec() }).collect()
    }

    /// Sorts and joins what overlaps or touches; none when a range holds port 0 or runs backwards.
    fn normal(mut ranges: Vec<(u16, u16)>) -> Option<Self> {
        if ranges.iter().any(|(first, last)| *first == 0 || first > last) {
            return None;
        }
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                Some(_) | None => joined.push((first, last)),
            }
        }
        Some(Self { ranges: joined })
    }
}

impl Pattern {
    /// Whether it is about this address, unwrapped, and port.
    pub fn matches(&self, ip: IpAddr, port: u16) -> bool {
        self.ports.contains(port) && self.net.contains(ip)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (net, ports) = text.rsplit_once(':').ok_or_else(|| PatternError::NoPorts(text.to_owned()))?;
        if net.contains(':') && !net.contains(['[', '/']) {
            return Err(PatternError::Brackets(text.to_owned()));
        }
        if net.contains('[') && (ports.contains(']') || net.is_empty()) {
            return Err(PatternError::NoPorts(text.to_owned()));
        }
        Ok(Self { net: net.parse()?, ports: ports.parse()? })
    }
}

impl FromStr for Net {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text {
            "*" => return Ok(Self::Any),
            "private" => return Ok(Self::Private),
            _ => {}
        }
        let unknown = || PatternError::Net(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let ip: IpAddr = bare.unwrap_or(address).parse().map_err(|_| unknown())?;
        if bare.is_some() && ip.is_ipv4() {
            return Err(unknown());
        }
        let net = match length {
            Some(length) if length.bytes().all(|digit| digit.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| unknown())?;
                IpNet::new(ip, length).map_err(|_| unknown())?
            }
            Some(_) => return Err(unknown()),
            None => IpNet::from(ip),
        };
        if net.trunc() != net {
            return Err(PatternError::HostBits(text.to_owned(), net.trunc()));
        }
        match net {
            IpNet::V4(net) => Ok(Self::V4(net)),
            IpNet::V6(net) if net.prefix_len() >= 96 && net.network().to_ipv4_mapped().is_some() => {
                Err(PatternError::Mapped(text.to_owned()))
            }
            IpNet::V6(net) => Ok(Self::V6(net)),
        }
    }
}

impl FromStr for Ports {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self { ranges: vec![Self::ALL] });
        }
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let unknown = || PatternError::Port(part.to_owned());
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (parse_port(first).ok_or_else(unknown)?, parse_port(last).ok_or_else(unknown)?);
            if range.0 > range.1 {
                return Err(unknown());
            }
            ranges.push(range);
        }
        Self::normal(ranges).ok_or_else(|| PatternError::Port(text.to_owned()))
    }
}

/// Digits alone: `u16::from_str` would take a sign too.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net {
            Net::Any => f.write_str("*")?,
            Net::V4(net) => write!(f, "{net}")?,
            Net::V6(net) => write!(f, "[{}]/{}", net.network(), net.prefix_len())?,
            Net::Private => f.write_str("private")?,
        }
        write!(f, ":{}", self.ports)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges == [Self::ALL] {
            return f.write_str("*");
        }
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}
